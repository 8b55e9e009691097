"""Requests of LoRAX's users, with LoRAX's own client."""

import json
import pathlib
import subprocess

import pytest

from test_adapters import PROMPT, answer

DRIVER = pathlib.Path(__file__).with_name("lorax_driver.py")


@pytest.fixture
def lorax(pytestconfig, server):
    """Sends calls to the server and returns the client's results."""

    def send(*calls):
        calls = "".join(json.dumps({"max_new_tokens": 24, **call}) + "\n" for call in calls)
        run = [pytestconfig.lorax_python, DRIVER, server.url]
        said = subprocess.run(run, input=calls, capture_output=True, text=True, timeout=600, check=False)
        assert said.returncode == 0, said.stderr
        return [json.loads(line) for line in said.stdout.splitlines()]

    return send


def test_an_adapter_is_chosen_by_adapter_id(server, lorax):
    base, topic, streamed = lorax(
        {"prompt": PROMPT},
        {"prompt": PROMPT, "adapter_id": "topic"},
        {"prompt": PROMPT, "adapter_id": "topic", "stream": True},
    )
    assert topic["text"] == streamed["text"] == answer(server, "topic")[1]
    assert base["text"] == answer(server, server.base)[1] != topic["text"]


def test_adapter_source_says_where_it_comes_from(server, lorax):
    path = server.get("/v1/adapters/topic")["source"]
    local, hub, nonsense = lorax(
        {"prompt": PROMPT, "adapter_id": path, "adapter_source": "local"},
        {"prompt": PROMPT, "adapter_id": "acme/topic", "adapter_source": "hub"},
        {"prompt": PROMPT, "adapter_id": "topic", "adapter_source": "pbase"},
    )
    assert local["text"] == answer(server, "topic")[1]
    # This server does not allow the Hub as a source.
    assert hub["error"] and "hf://acme/topic" in hub["message"], hub
    assert "adapter_source" in nonsense["message"], nonsense
    server.remove(path)


def test_a_text_is_embedded(server, client, lorax):
    (said,) = lorax({"embed": PROMPT})
    expected = client.embeddings.create(model=server.base, input=PROMPT, encoding_format="float")
    assert said["embeddings"] == expected.data[0].embedding


def test_an_unknown_adapter_is_an_error_and_never_the_base(lorax):
    (said,) = lorax({"prompt": PROMPT, "adapter_id": "no-such-adapter"})
    assert said["error"] and "no-such-adapter" in said["message"]


def test_alternatives_are_within_the_tokens(lorax):
    plain, said = lorax({"prompt": PROMPT}, {"prompt": PROMPT, "adapter_id": "topic", "return_k_alternatives": 3})
    assert all(alternatives == [] for alternatives in plain["alternatives"])
    assert [len(alternatives) for alternatives in said["alternatives"]] == [3] * said["tokens"]


def test_the_best_of_several_comes_with_the_others(lorax):
    draws = {"prompt": PROMPT, "do_sample": True, "temperature": 1.5}
    best, seeded = lorax({**draws, "best_of": 3}, {**draws, "best_of": 3, "seed": 1})
    assert len(best["others"]) == 2 and len({best["text"], *best["others"]}) > 1
    assert seeded["error"] and "best_of" in seeded["message"]
