"""Uploads an adapter's files to a running server."""

import json
import subprocess
import urllib.error
import urllib.request

import openai
import pytest


def upload(server, name, folder, *flags):
    program = [server.paths[0], "adapters", "--server", server.url, "upload", f"{name}={folder}", *flags]
    return subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)


def post(server, path, files):
    """Posts files as curl's `-F file=@…` does."""
    body = b""
    for name, content in files.items():
        head = f'--edge\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n\r\n'
        body += head.encode() + content + b"\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=edge"}
    request = urllib.request.Request(f"{server.url}/v1/adapters/{path}", body + b"--edge--\r\n", headers)
    with urllib.request.urlopen(request, timeout=120) as response:
        return json.load(response)


def answer(server, model):
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    made = client.completions.create(model=model, prompt="Once", max_tokens=12, temperature=0)
    return made.choices[0].text


def test_uploads_answer_as_the_folder_does_and_survive(server, tmp_path):
    flags = ("--data", str(tmp_path), "--allow-source", "upload")
    folder = server.paths[2] / "topic"
    with server.another(*flags) as own:
        expected = answer(own, "topic")
        done = upload(own, "team/mine", folder, "--pin")
        assert done.returncode == 0, done.stderr
        assert "`team/mine` is served" in done.stdout
        names = ("adapter_config.json", "adapter_model.safetensors")
        posted = post(own, "plain/upload", {name: (folder / name).read_bytes() for name in names})
        assert posted["source"] == "upload" and posted["hash"] == own.get("/v1/adapters/topic")["hash"]
        assert answer(own, "team/mine") == answer(own, "plain") == expected
        again = upload(own, "team/mine", folder)
        assert again.returncode == 2 and "replace" in again.stderr
        assert upload(own, "team/mine", folder, "--replace").returncode == 0
    with server.another(*flags, "--preload", "off") as own:
        assert own.get("/v1/adapters/team/mine")["pinned"]
        assert answer(own, "team/mine") == expected


def test_uploads_are_refused_unless_allowed(server, tmp_path):
    done = upload(server, "mine", server.paths[2] / "topic")
    assert done.returncode == 2 and "--allow-source upload" in done.stderr, done.stderr
    flags = ("--data", str(tmp_path), "--allow-source", "upload", "--max-upload", "1KiB")
    with server.another(*flags) as own:
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(own, "mine/upload", {"adapter_config.json": b" " * 4096})
        assert refused.value.code == 413
        # The client gets the reason although it is still sending.
        large = tmp_path / "large"
        large.mkdir()
        (large / "adapter_config.json").write_bytes(b" " * (32 << 20))
        done = upload(own, "mine", large)
        assert done.returncode == 2 and "limit of 1024 bytes" in done.stderr, done.stderr
        assert list((tmp_path / "adapters").iterdir()) == []
