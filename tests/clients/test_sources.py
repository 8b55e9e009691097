"""Adapters from a Hugging Face Hub and an S3 store on this machine.

Also serves the base that an adapter was made for.
"""

import hashlib
import http.server
import json
import threading

import boto3
import huggingface_hub
import pytest
from moto.server import ThreadedMotoServer

from test_adapters import answer, send

FILES = ["adapter_config.json", "adapter_model.safetensors"]
BUCKET = "acme-adapters"


class Hub(http.server.ThreadingHTTPServer):
    """The Hub's file protocol, for repositories that are folders on this machine."""

    def __init__(self, repositories):
        super().__init__(("127.0.0.1", 0), HubHandler)
        self.repositories = repositories
        self.asked = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class HubHandler(http.server.BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        self.server.asked.append(self.path)
        for name, folder in self.server.repositories.items():
            commit = hashlib.sha1(name.encode()).hexdigest()
            if self.path in (f"/api/models/{name}/revision/main", f"/api/models/{name}/revision/{commit}"):
                siblings = [{"rfilename": path.name} for path in sorted(folder.iterdir())]
                text = json.dumps({"id": name, "sha": commit, "siblings": siblings}).encode()
                return self.send(200, text, {"Content-Type": "application/json"}, body)
            for revision in ("main", commit):
                if self.path.startswith(f"/{name}/resolve/{revision}/"):
                    path = folder / self.path.rsplit("/", 1)[1]
                    if not path.exists():
                        return self.send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
                    return self.file(path.read_bytes(), commit, body)
        return self.send(404, b"", {"X-Error-Code": "RepoNotFound"}, body)

    def file(self, content, commit, body):
        digest = hashlib.sha256(content).hexdigest()
        headers = {"ETag": f'"{digest}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        start = int(self.headers.get("Range", "bytes=0-")[6:].split("-")[0])
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        return self.send(206 if start else 200, content[start:], headers, body)

    def send(self, status, content, headers, body):
        self.send_response(status)
        for name, value in {**headers, "Content-Length": len(content)}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


@pytest.fixture(scope="module")
def adapters(server):
    """The folder that holds the adapters' folders."""
    return server.paths[2]


@pytest.fixture(scope="module")
def hub(adapters):
    hub = Hub({"acme/topic": adapters / "topic", "acme/address": adapters / "address"})
    yield hub
    hub.shutdown()


@pytest.fixture(scope="module")
def s3(adapters):
    """The environment variables of an S3 store with one adapter."""
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    moto.start()
    host, port = moto.get_host_and_port()
    url = f"http://{host}:{port}"
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=url, **keys)
    client.create_bucket(Bucket=BUCKET)
    for name in FILES:
        client.upload_file(str(adapters / "topic" / name), BUCKET, f"team/topic/{name}")
    variables = {key.upper(): value for key, value in keys.items() if key != "region_name"}
    yield {**variables, "AWS_REGION": "us-east-1", "AWS_ENDPOINT_URL": url, "AWS_ALLOW_HTTP": "true"}
    moto.stop()


def environment(hub, tmp_path):
    cache = {"HF_HUB_CACHE": str(tmp_path / "hub"), "MULTIGRAFT_CACHE": str(tmp_path / "ours"), "HF_TOKEN": ""}
    return {"HF_ENDPOINT": hub.url, **cache}


def test_an_adapter_of_the_hub_is_loaded_when_a_request_names_it(server, hub, tmp_path):
    with server.another("--allow-source", "hf://acme", environment=environment(hub, tmp_path)) as other:
        assert answer(other, "acme/topic") == answer(server, "topic")
        listed = other.get("/v1/adapters/acme/topic")
        assert listed["source"] == "hf://acme/topic" and len(listed["revision"]) == 40
        status, text = send(other, "POST", "/v1/completions", {"model": "evil/topic", "prompt": "x"})
        assert status == 404 and "evil/topic" in text
        status, text = send(other, "POST", "/v1/adapters", {"name": "x", "source": "hf://acme/none"})
        assert status == 404 and "no such repository" in text, text
        status, text = send(other, "POST", "/v1/completions", {"model": "acme/none", "prompt": "x"})
        assert status == 404 and "no such repository" in text, text
        assert answer(other, "hf://acme/topic") == answer(server, "topic")
        assert "hf://acme/topic" not in [model["id"] for model in other.get("/v1/models")["data"]]
    assert not any("evil" in path for path in hub.asked)
    # Hugging Face's own library finds the downloaded files.
    found = huggingface_hub.hf_hub_download("acme/topic", FILES[1], cache_dir=tmp_path / "hub", local_files_only=True)
    assert found.startswith(str(tmp_path / "hub"))


def test_what_hugging_faces_library_has_fetched_is_served_offline(server, hub, tmp_path):
    for name in FILES:
        huggingface_hub.hf_hub_download("acme/topic", name, cache_dir=tmp_path / "hub", endpoint=hub.url)
    variables = {**environment(hub, tmp_path), "HF_HUB_OFFLINE": "1"}
    asked = len(hub.asked)
    with server.another("--adapter", "acme/topic", environment=variables) as other:
        assert answer(other, "acme/topic") == answer(server, "topic")
    assert len(hub.asked) == asked


def test_tgis_variable_names_adapters(server, hub, tmp_path):
    names = "acme/topic,home=" + str(server.paths[2] / "address")
    variables = {**environment(hub, tmp_path), "LORA_ADAPTERS": names}
    with server.another(environment=variables) as other:
        assert {"acme/topic", "home"} <= set(other.adapters)
        assert answer(other, "acme/topic") == answer(server, "topic")


def test_the_base_comes_from_the_adapter(server, hub, tmp_path):
    alias = f"HuggingFaceTB/SmolLM2-135M-Instruct={server.paths[1]}"
    flags = ("--adapter", "acme/topic", "--base-alias", alias)
    with server.alone(*flags, environment=environment(hub, tmp_path)) as other:
        assert answer(other, "acme/topic") == answer(server, "topic")


def test_an_adapter_of_s3_is_added_and_nothing_beside_it(server, s3, tmp_path):
    variables = {**s3, "MULTIGRAFT_CACHE": str(tmp_path)}
    with server.another("--allow-source", f"s3://{BUCKET}/team", environment=variables) as other:
        source = f"s3://{BUCKET}/team/topic"
        status, text = send(other, "POST", "/v1/adapters", {"name": "from-s3", "source": source})
        assert status == 201, text
        assert answer(other, "from-s3") == answer(server, "topic")
        status, text = send(other, "POST", "/v1/adapters", {"name": "x", "source": f"s3://{BUCKET}/other"})
        assert status == 403 and "may not be added" in text, text
        status, text = send(other, "POST", "/v1/adapters", {"name": "x", "source": f"{source}/none"})
        assert status == 404 and "adapter_config.json" in text, text
