"""`openai` for JavaScript: the official client, unchanged, in node."""

import json
import pathlib
import subprocess

import pytest

from test_tools import HELLO as WEATHER, TOOLS, check_arguments

DRIVER = pathlib.Path(__file__).parent / "node" / "driver.mjs"
HELLO = [{"role": "user", "content": "The battery died after two days."}]


@pytest.fixture
def node(pytestconfig, server):
    """Sends calls to the server and returns the client's results."""
    if not pytestconfig.node_packages:
        pytest.skip("without --node there is no openai package for JavaScript")

    def send(*calls):
        calls = "".join(json.dumps(call) + "\n" for call in calls)
        run = ["node", DRIVER, pytestconfig.node_packages, server.url]
        said = subprocess.run(run, input=calls, capture_output=True, text=True, timeout=600, check=False)
        assert said.returncode == 0, said.stderr
        return [json.loads(line) for line in said.stdout.splitlines()]

    return send


def test_models_are_listed(node, server):
    (models,) = node({"call": "models"})
    assert models["names"] == server.models


def test_streams_add_up_to_the_whole_answer_under_every_name(node, client, server, adapter):
    for name in (server.base, adapter):
        chat = dict(model=name, messages=HELLO, max_tokens=16, temperature=0)
        text = dict(model=name, prompt="Once upon a time", max_tokens=16, temperature=0)
        whole, streamed, completed, pieces = node(
            {"call": "chat", **chat},
            {"call": "chat_stream", "stream_options": {"include_usage": True}, **chat},
            {"call": "completion", **text},
            {"call": "completion_stream", **text},
        )
        assert whole["text"] == streamed["text"] == client.chat.completions.create(**chat).choices[0].message.content
        assert whole["reason"] == streamed["reason"] in ("stop", "length")
        assert whole["usage"]["completion_tokens"] == streamed["usage"]["completion_tokens"]
        assert streamed["pieces"] > 0
        assert completed["text"] == pieces["text"] == client.completions.create(**text).choices[0].text != ""


def test_calls_of_tools_whole_and_streamed(node, server):
    asked = dict(
        model=server.base,
        messages=WEATHER,
        tools=TOOLS,
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=200,
        temperature=0,
    )
    whole, streamed = node({"call": "chat", **asked}, {"call": "chat_stream", **asked})
    (call,), (same,) = whole["calls"], streamed["calls"]
    check_arguments(call["function"]["name"], json.loads(call["function"]["arguments"]))
    assert call["function"]["name"] == same["function"]["name"]
    assert call["function"]["arguments"] == same["function"]["arguments"]
    assert whole["reason"] == streamed["reason"] == "tool_calls"


def test_errors_are_the_clients_own(node, server):
    unknown, wrong, streamed = node(
        {"call": "chat", "model": "nobody", "messages": HELLO},
        {"call": "chat", "model": server.base, "messages": HELLO, "temperature": -1},
        {"call": "chat_stream", "model": "nobody", "messages": HELLO},
    )
    for said in (unknown, streamed):
        assert (said["error"], said["status"], said["param"]) == ("NotFoundError", 404, "model"), said
        assert "`nobody` does not exist" in said["message"]
    assert (wrong["error"], wrong["status"], wrong["param"]) == ("BadRequestError", 400, "temperature"), wrong


def test_hanging_up_frees_the_slot(node, server):
    before = server.wait_until(lambda stats: stats["running"] == 0)
    endless = dict(model=server.base, prompt="Once", max_tokens=4000, temperature=2, ignore_eos=True)
    (said,) = node({"call": "abort", **endless})
    assert said == {"aborted": True}
    after = server.wait_until(lambda stats: stats["running"] == 0)
    assert after["cancelled"] == before["cancelled"] + 1
