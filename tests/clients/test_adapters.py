"""Adapters that are added and removed by plain HTTP, on vLLM's, SGLang's and our own routes."""

import json
import signal
import tempfile
import urllib.error
import urllib.request

import openai
import pytest

PROMPT = "What a lovely evening, the band played all of my favourites!"


def send(server, method, path, body=None):
    """Status and text of an answer."""
    request = urllib.request.Request(
        server.url + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def source(server, name):
    return server.get(f"/v1/adapters/{name}")["source"]


def ask(server, name, **options):
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=600)
    return client.completions.create(model=name, prompt=PROMPT, max_tokens=24, temperature=0, **options)


def answer(server, name):
    said = ask(server, name)
    return said.system_fingerprint, said.choices[0].text


def test_vllms_users_load_an_adapter_use_it_and_unload_it(server):
    load = {"lora_name": "from-vllm", "lora_path": source(server, "topic")}
    status, text = send(server, "POST", "/v1/load_lora_adapter", load)
    assert (status, text) == (200, "Success: LoRA adapter 'from-vllm' added successfully.")
    assert answer(server, "from-vllm") == answer(server, "topic")
    assert send(server, "POST", "/v1/load_lora_adapter", load)[0] == 400
    status, text = send(server, "POST", "/v1/unload_lora_adapter", {"lora_name": "from-vllm"})
    assert (status, text) == (200, "Success: LoRA adapter 'from-vllm' removed successfully.")
    with pytest.raises(openai.NotFoundError):
        ask(server, "from-vllm")


def test_sglangs_users_see_what_is_loaded(server):
    load = {"lora_name": "from-sglang", "lora_path": source(server, "topic"), "pinned": True}
    status, text = send(server, "POST", "/load_lora_adapter", load)
    assert status == 200 and json.loads(text)["loaded_adapters"]["from-sglang"] == load["lora_path"]
    status, text = send(server, "POST", "/unload_lora_adapter", {"lora_name": "from-sglang"})
    assert status == 200 and "from-sglang" not in json.loads(text)["loaded_adapters"]


def test_llama_cpps_list_names_every_adapter(server):
    assert sorted(adapter["name"] for adapter in server.get("/lora-adapters")) == sorted(server.adapters)


def test_a_stream_goes_on_with_its_version_while_its_name_is_given_to_another(server):
    names = ["address", "sentiment"]
    alone = {name: answer(server, name) for name in names}
    add = lambda name: send(  # noqa: E731
        server, "POST", "/v1/adapters", {"name": "swapped", "source": source(server, name), "replace": True}
    )
    assert add("address")[0] == 201
    stream = iter(ask(server, "swapped", stream=True, extra_body={"ignore_eos": True}))
    first = next(stream)
    assert add("sentiment")[0] == 200
    assert answer(server, "swapped") == alone["sentiment"]
    chunks = [first, *stream]
    assert {chunk.system_fingerprint for chunk in chunks} == {alone["address"][0]}
    text = "".join(chunk.choices[0].text for chunk in chunks)
    assert text.startswith(alone["address"][1])
    status, text = send(server, "PATCH", "/v1/adapters/swapped", {"active": "previous"})
    assert status == 200 and answer(server, "swapped") == alone["address"]
    assert send(server, "DELETE", "/v1/adapters/swapped")[0] == 204


def test_adapters_come_from_allowed_folders_alone(server):
    for path in ["/etc", "../.."]:
        status, text = send(server, "POST", "/v1/adapters", {"name": "x", "source": path})
        assert status == 403 and "--allow-source" in text


def test_adapters_are_loaded_when_they_are_first_asked_for(server):
    with server.another("--preload", "off") as own:
        assert {adapter["state"] for adapter in own.get("/v1/adapters")["data"]} == {"cold"}
        assert answer(own, "topic") == answer(server, "topic")
        states = {adapter["name"]: adapter["state"] for adapter in own.get("/v1/adapters")["data"]}
        assert states.pop("topic") == "resident" and set(states.values()) == {"cold"}


def test_what_was_added_is_there_after_a_crash(server):
    with tempfile.TemporaryDirectory() as data:
        with server.another("--data", data) as own:
            add = {"name": "kept", "source": source(own, "topic"), "pinned": True}
            assert send(own, "POST", "/v1/adapters", add)[0] == 201
            before = answer(own, "kept")
            own.process.send_signal(signal.SIGKILL)
            own.process.wait(60)
        with server.another("--data", data) as own:
            assert answer(own, "kept") == before
            assert own.get("/v1/adapters/kept")["pinned"]


def test_defaults_of_an_adapter_hold_where_a_request_says_nothing(server):
    send(server, "POST", "/v1/adapters", {"name": "with-defaults", "source": source(server, "topic")})
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=600)

    def chat(**options):
        question = [{"role": "user", "content": PROMPT}]
        return client.chat.completions.create(model="with-defaults", messages=question, temperature=0, **options)

    system = "Answer with one word."
    spoken = client.chat.completions.create(
        model="topic", messages=[{"role": "system", "content": system}, {"role": "user", "content": PROMPT}], max_tokens=4,
        temperature=0,
    )
    assert chat(max_tokens=4).usage.prompt_tokens != spoken.usage.prompt_tokens
    defaults = {"system": system, "max_tokens": 4}
    status, text = send(server, "PATCH", "/v1/adapters/with-defaults", {"defaults": defaults})
    assert status == 200 and json.loads(text)["defaults"] == defaults
    said = chat()
    assert said.usage.prompt_tokens == spoken.usage.prompt_tokens and said.usage.completion_tokens <= 4
    assert said.choices[0].message.content == spoken.choices[0].message.content
    template = {"chat_template": "{{ messages[0]['content'] }}"}
    assert send(server, "PATCH", "/v1/adapters/with-defaults", {"defaults": template})[0] == 200
    assert chat(max_tokens=4).usage.prompt_tokens < spoken.usage.prompt_tokens
    server.remove("with-defaults")
