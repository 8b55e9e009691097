"""`text-generation`: TGI's own Python client. It has no field for adapters, so it uses the base."""

import json
import pathlib
import subprocess

import pytest

from test_adapters import PROMPT, answer

DRIVER = pathlib.Path(__file__).with_name("text_generation_driver.py")


@pytest.fixture
def tgi(pytestconfig, server):
    """Sends calls to the server and returns the client's results."""

    def send(*calls):
        calls = "".join(json.dumps(call) + "\n" for call in calls)
        run = [pytestconfig.lorax_python, DRIVER, server.url]
        said = subprocess.run(run, input=calls, capture_output=True, text=True, timeout=600, check=False)
        assert said.returncode == 0, said.stderr
        return [json.loads(line) for line in said.stdout.splitlines()]

    return send


def test_whole_and_streamed_are_the_same(server, tgi):
    asked = {"prompt": PROMPT, "max_new_tokens": 24}
    whole, streamed = tgi({"call": "generate", **asked}, {"call": "generate_stream", **asked})
    assert whole["text"] == streamed["text"] == streamed["pieces"] == answer(server, server.base)[1]
    assert whole["tokens"] == streamed["tokens"]


def test_prefill_stop_strings_and_grammars(tgi):
    prefill, stopped, constrained = tgi(
        {"call": "generate", "prompt": "The capital", "max_new_tokens": 2, "decoder_input_details": True},
        {"call": "generate", "prompt": "One, two, three,", "max_new_tokens": 24, "stop_sequences": [","]},
        {
            "call": "generate",
            "prompt": "A number: ",
            "max_new_tokens": 24,
            "grammar": {"type": "regex", "value": "[0-9]{3}"},
        },
    )
    assert "".join(prefill["prefill"]) == "The capital"
    assert stopped["text"].endswith(",") and stopped["reason"] == "stop_sequence"
    assert len(constrained["text"]) == 3 and constrained["text"].isdigit()


def test_chat(client, server, tgi):
    messages = [{"role": "user", "content": PROMPT}]
    (said,) = tgi({"call": "chat", "messages": messages, "max_tokens": 12, "temperature": 0.0})
    same = client.chat.completions.create(model=server.base, messages=messages, max_tokens=12, temperature=0)
    assert said["text"] == same.choices[0].message.content
    assert said["reason"] == same.choices[0].finish_reason


def test_a_bad_parameter_is_a_validation_error(tgi):
    said, streamed = tgi(
        {"call": "generate", "prompt": PROMPT, "max_new_tokens": 10**9},
        {"call": "generate_stream", "prompt": PROMPT, "max_new_tokens": 10**9},
    )
    for error in (said, streamed):
        assert error["error"] == "ValidationError" and "max_new_tokens" in error["message"], error
