"""Limits of keys, and keys over HTTP, with OpenAI's client."""

import contextlib
import json
import pathlib
import subprocess
import tempfile
import time

import openai
import pytest

from test_access import client, keys, secret


@contextlib.contextmanager
def guarded(server):
    """A separate server with an admin key, and a client with that key."""
    with tempfile.TemporaryDirectory() as data, server.another("--data", data) as own:
        admin = client(own, secret(keys(server, data, "add", "boss", "--role", "admin")))
        deadline = time.monotonic() + 30
        while True:
            try:
                client(own, "none").models.list()
            except openai.AuthenticationError:
                break
            assert time.monotonic() < deadline, "the first key closes the server"
            time.sleep(0.1)
        own.data = pathlib.Path(data)
        yield own, admin


def complete(client, model, **more):
    return client.completions.with_raw_response.create(model=model, prompt="Once", max_tokens=1, **more)


def refused(client, model):
    """The error of the first refused request, and the number of requests before it."""
    # Sends more than the limit, because it refills meanwhile on a slow machine.
    for before in range(100):
        try:
            complete(client, model)
        except openai.RateLimitError as error:
            return error, before
    raise AssertionError("nothing was refused")


def seconds(text):
    """The seconds of OpenAI's `120ms`, `1s`, `6m0s`."""
    if text.endswith("ms"):
        return float(text[:-2]) / 1000
    minutes, _, rest = text.rpartition("m")
    return 60 * float(minutes or 0) + float(rest[:-1])


def test_the_clients_own_retry_outlasts_a_limit(server):
    with guarded(server) as (own, admin):
        # Limits so low that they do not refill before the answer ends.
        limits = {"requests_per_minute": 6, "tokens_per_minute": 60}
        made = admin.post("/keys", body={"name": "acme", "limits": limits}, cast_to=object)
        acme = client(own, made["secret"])
        first = complete(acme, own.base).headers
        assert first["x-ratelimit-limit-requests"] == "6"
        assert first["x-ratelimit-limit-tokens"] == "60"
        assert first["x-ratelimit-remaining-requests"] == "5"
        assert 50 < int(first["x-ratelimit-remaining-tokens"]) < 60
        assert 0 < seconds(first["x-ratelimit-reset-requests"]) <= 10

        error, before = refused(acme, own.base)
        assert before >= 5
        assert error.type == "RateLimitError" and "(6 requests per minute)" in error.message
        headers = error.response.headers
        assert headers["x-ratelimit-remaining-requests"] == "0"
        assert 1 <= int(headers["retry-after"]) <= 10
        assert 50 < seconds(headers["x-ratelimit-reset-requests"]) <= 60

        # The client's default, two retries.
        patient = openai.OpenAI(base_url=f"{own.url}/v1", api_key=made["secret"])
        answer = complete(patient, own.base)
        assert answer.retries_taken >= 1
        # An admin key has no limits, so its answers have no headers about them.
        assert "x-ratelimit-limit-requests" not in complete(admin, own.base).headers


def test_a_month_that_is_used_up_is_not_retried(server):
    with guarded(server) as (own, admin):
        made = admin.post("/keys", body={"name": "acme", "limits": {"tokens_per_month": 1}}, cast_to=object)
        patient = openai.OpenAI(base_url=f"{own.url}/v1", api_key=made["secret"], max_retries=5)
        began = time.monotonic()
        with pytest.raises(openai.RateLimitError) as caught:
            patient.completions.create(model=own.base, prompt="Once upon a time", max_tokens=1)
        assert caught.value.type == "insufficient_quota"
        assert time.monotonic() - began < 60, "the month does not end while the client waits"


def test_a_key_is_made_used_rotated_and_deleted_over_http(server):
    mine, other = server.adapters[:2]
    with guarded(server) as (own, admin):
        made = admin.post("/keys", body={"name": "acme", "grants": [mine]}, cast_to=object)
        assert made["object"] == "key" and made["role"] == "use" and made["grants"] == [mine]
        acme = client(own, made["secret"])
        assert [model.id for model in acme.models.list()] == [mine]
        complete(acme, mine)
        with pytest.raises(openai.NotFoundError):
            complete(acme, other)
        with pytest.raises(openai.PermissionDeniedError):
            acme.get("/keys", cast_to=object)

        # A change takes effect at once.
        admin.patch("/keys/acme", body={"grants": [other]}, cast_to=object)
        assert [model.id for model in acme.models.list()] == [other]

        again = client(own, admin.post("/keys/acme/rotate", body={"hours": 1}, cast_to=object)["secret"])
        for valid in [acme, again]:
            complete(valid, other)
        last = client(own, admin.post("/keys/acme/rotate", body={"hours": 0}, cast_to=object)["secret"])
        for old in [acme, again]:
            with pytest.raises(openai.AuthenticationError):
                complete(old, other)
        complete(last, other)

        admin.delete(f"/keys/{made['id']}", cast_to=object)
        with pytest.raises(openai.AuthenticationError):
            complete(last, other)
        listed = admin.get("/keys", cast_to=object)["data"]
        assert {key["name"]: key["revoked"] is None for key in listed} == {"boss": True, "acme": False}
        assert all("secret" not in key for key in listed)
        with pytest.raises(openai.ConflictError) as caught:
            admin.post("/keys", body={"name": "acme"}, cast_to=object)
        assert "acme" in caught.value.message

        # The audit log has every change, and no secret.
        log = (own.data / "audit.jsonl").read_text()
        lines = [json.loads(line) for line in log.splitlines()]
        assert [(line["by"], line["action"], line["outcome"]) for line in lines] == [
            ("local", "key.add", "done"),
            ("key", "key.add", "done"),
            ("key", "key.change", "done"),
            ("key", "key.rotate", "done"),
            ("key", "key.rotate", "done"),
            ("key", "key.revoke", "done"),
            ("key", "key.add", "refused"),
        ]
        assert made["secret"] not in log


def test_what_a_key_used_is_what_its_answers_said(server):
    with guarded(server) as (own, admin):
        made = admin.post("/keys", body={"name": "acme"}, cast_to=object)
        acme = client(own, made["secret"])
        used = [acme.completions.create(model=own.base, prompt="Once upon", max_tokens=tokens).usage for tokens in (3, 5)]
        complete(admin, own.base)
        rows = acme.get("/usage?by=key,adapter,day", cast_to=object)["data"]
        assert [(row["key_name"], row["adapter"], row["requests"]) for row in rows] == [("acme", own.base, 2)]
        assert rows[0]["prompt_tokens"] == sum(usage.prompt_tokens for usage in used)
        assert rows[0]["generated_tokens"] == sum(usage.completion_tokens for usage in used)
        both = admin.get("/usage?by=key", cast_to=object)["data"]
        assert {row["key_name"]: row["requests"] for row in both} == {"boss": 1, "acme": 2}
        program = [server.paths[0], "usage", "--by", "key", "--json", "--data", own.data]
        printed = subprocess.run(program, capture_output=True, text=True, timeout=60, check=True).stdout
        assert json.loads(printed) == both
