"""Starts with other settings, and stops."""

import signal
import urllib.error

import openai
import pytest


def stream(server):
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0)
    return client.completions.create(
        model=server.base, prompt="Once", max_tokens=200, stream=True, extra_body={"ignore_eos": True}
    )


def test_stopping_lets_requests_under_way_end(server):
    with server.another("--base-name", "trunk") as own:
        assert own.base == "trunk"
        answer = stream(own)
        next(answer)
        own.process.send_signal(signal.SIGTERM)
        chunks = list(answer)
        assert chunks[-1].choices[0].finish_reason == "length"
        assert own.process.wait(60) == 0
        with pytest.raises(urllib.error.URLError):
            own.get("/health")


def test_a_second_signal_cuts_them_off(server):
    with server.another("--context", "4096") as own:
        client = openai.OpenAI(base_url=f"{own.url}/v1", api_key="none", max_retries=0)
        answer = client.completions.create(
            model=own.base, prompt="Once", max_tokens=4000, stream=True, extra_body={"ignore_eos": True}
        )
        next(answer)
        own.process.send_signal(signal.SIGINT)
        # Once the server accepts no new request, it has handled the first signal.
        own.wait_until_closed()
        own.process.send_signal(signal.SIGINT)
        assert own.process.wait(60) == 0


def test_a_full_queue_is_a_rate_limit_error(server):
    with server.another("--max-running", "1", "--max-waiting", "1") as own:
        client = openai.OpenAI(base_url=f"{own.url}/v1", api_key="none", max_retries=0)
        with pytest.raises(openai.RateLimitError) as caught:
            client.completions.create(model=own.base, prompt="Once", n=8, max_tokens=50)
        assert int(caught.value.response.headers["retry-after"]) >= 1
        # The refused request leaves nothing behind.
        own.wait_until(lambda stats: stats["running"] == stats["waiting"] == 0)
