"""Manages the adapters of a running server over plain HTTP."""

import json
import subprocess
import threading
import urllib.request

import openai
import pytest


def post(server, body, accept="application/json"):
    headers = {"Content-Type": "application/json", "Accept": accept}
    request = urllib.request.Request(f"{server.url}/v1/adapters", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as response:
        return response.read().decode()


def test_cold_adapters_say_what_they_are(server, tmp_path):
    flags = ("--preload", "off", "--data", str(tmp_path))
    with server.another(*flags) as own:
        assert own.get("/v1/adapters/topic")["info"] is None
        before = json.loads(post(own, {"name": "mine", "source": str(own.paths[2] / "topic")}))
    with server.another(*flags) as own:
        mine = own.get("/v1/adapters/mine")
        assert (mine["state"], mine["bytes"]) == ("cold", None)
        assert mine["info"] == before["info"] and mine["info"]["ranks"]
        assert mine["added_by"] == "http"
        assert own.get("/v1/adapters/topic")["added_by"] == "command line"


def test_removal_now_ends_the_names_requests_alone(server):
    for name in ("doomed", "twin"):
        post(server, {"name": name, "source": str(server.paths[2] / "topic"), "replace": True})
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)

    def stream(name):
        answer = client.completions.create(
            model=name, prompt="Once", max_tokens=400, stream=True, extra_body={"ignore_eos": True}
        )
        next(answer)
        return answer

    doomed, twin = stream("doomed"), stream("twin")
    program = [server.paths[0], "adapters", "--server", server.url, "rm", "doomed", "--now"]
    assert subprocess.run(program, timeout=60, check=False).returncode == 0
    with pytest.raises(openai.APIError, match="`doomed` was removed"):
        list(doomed)
    assert list(twin)[-1].choices[0].finish_reason == "length"
    server.remove("twin")


def test_events_tell_what_becomes_of_adapters(server):
    request = urllib.request.Request(f"{server.url}/v1/adapters/events")
    with urllib.request.urlopen(request, timeout=60) as events:
        body = {"name": "heard", "source": str(server.paths[2] / "topic")}
        adding = threading.Thread(target=post, args=(server, body))
        adding.start()
        for line in events:
            if line.startswith(b"data:") and json.loads(line[5:])["state"] == "resident":
                break
        adding.join()
    text = post(server, body | {"replace": True}, accept="text/event-stream")
    assert text.rstrip().split("\n\n")[-1].startswith("event: added\ndata: {"), text
    server.remove("heard")


def test_readers_of_events_do_not_keep_the_server_from_stopping(server):
    with server.another() as own:
        with urllib.request.urlopen(f"{own.url}/v1/adapters/events", timeout=60) as events:
            own.process.terminate()
            assert events.read() == b""
        assert own.process.wait(30) == 0
