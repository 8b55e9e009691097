"""API keys, with OpenAI's client."""

import subprocess
import tempfile
import time

import openai
import pytest


def keys(server, data, *arguments):
    """Output of `multigraft keys`."""
    program = [server.paths[0], "keys", *arguments, "--data", data]
    return subprocess.run(program, capture_output=True, text=True, timeout=60, check=True).stdout


def secret(text):
    return next(word for word in text.split() if word.startswith("mg-"))


def client(server, key):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=key, max_retries=0)


def refuses(server, key):
    try:
        client(server, key).models.list()
    except openai.AuthenticationError:
        return True
    return False


def test_a_key_for_one_adapter_knows_of_no_other(server):
    mine, other = server.adapters[:2]
    with tempfile.TemporaryDirectory() as data:
        with server.another("--data", data) as own:
            # Until the first key exists, the server accepts every request.
            key = secret(keys(server, data, "add", "acme", "--grant", mine))
            admin = secret(keys(server, data, "add", "boss", "--role", "admin"))
            # The server rereads the keys within seconds, and may do so between the two.
            deadline = time.monotonic() + 30
            while not (refuses(own, "none") and not refuses(own, admin)):
                assert time.monotonic() < deadline, "the first key closes the server, and the second opens it"
                time.sleep(0.1)

            acme = client(own, key)
            assert [model.id for model in acme.models.list()] == [mine]
            answer = acme.completions.create(model=mine, prompt="Once", max_tokens=3)
            assert answer.usage.completion_tokens == 3
            # A forbidden model and an unknown one get the same answer, which names neither.
            errors = []
            for name in [other, own.base, "no-such-adapter"]:
                with pytest.raises(openai.NotFoundError) as caught:
                    acme.completions.create(model=name, prompt="Once", max_tokens=3)
                errors.append(str(caught.value).replace(name, "NAME"))
            assert len(set(errors)) == 1, errors
            assert other not in errors[0]
            with pytest.raises(openai.NotFoundError):
                acme.completions.create(
                    model=mine, prompt="Once", max_tokens=3, extra_body={"model": own.base, "adapters": [{"id": other}]}
                )
            assert len(list(client(own, admin).models.list())) == 1 + len(own.adapters)

            again = secret(keys(server, data, "rotate", "acme"))
            time.sleep(3)
            for valid in [key, again]:
                client(own, valid).completions.create(model=mine, prompt="Once", max_tokens=1)
            keys(server, data, "revoke", "acme")
            time.sleep(3)
            for revoked in [key, again]:
                with pytest.raises(openai.AuthenticationError):
                    client(own, revoked).completions.create(model=mine, prompt="Once", max_tokens=1)
