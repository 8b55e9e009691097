"""`client.files` and `client.batches`: one result for every line, even if the process is killed."""

import json
import tempfile
import time

import openai
import pytest

from test_tools import HELLO


def connect(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=600)


def chats(models, count, **more):
    """Lines of a batch, each with a different prompt."""
    return [
        {
            "custom_id": f"line {number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": models[number % len(models)],
                "messages": [{"role": "user", "content": f"Count to {number}."}],
                "temperature": 0,
                "max_tokens": 16,
                **more,
            },
        }
        for number in range(count)
    ]


def begin(client, lines):
    text = "\n".join(json.dumps(line) for line in lines)
    file = client.files.create(file=("lines.jsonl", text.encode()), purpose="batch")
    assert file.purpose == "batch" and file.bytes == len(text)
    return client.batches.create(
        input_file_id=file.id, endpoint=lines[0]["url"], completion_window="24h", metadata={"job": "7"}
    )


def until(client, batch, condition):
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        batch = client.batches.retrieve(batch.id)
        if condition(batch):
            return batch
        time.sleep(0.05)
    raise AssertionError(f"it never came there: {batch}")


def ended(client, batch):
    return until(client, batch, lambda batch: batch.status in ("completed", "failed", "expired", "cancelled"))


def lines_of(client, file):
    return [json.loads(line) for line in client.files.content(file).text.splitlines()] if file else []


@pytest.fixture(scope="module")
def kept(server):
    with tempfile.TemporaryDirectory() as data, server.another("--data", data) as another:
        yield another


def test_every_line_is_answered_as_it_is_alone(kept):
    client = connect(kept)
    lines = chats(kept.models, 8)
    lines.append({**lines[0], "custom_id": "unknown", "body": {**lines[0]["body"], "model": "nobody"}})
    batch = ended(client, begin(client, lines))
    assert batch.status == "completed" and batch.metadata == {"job": "7"}
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (9, 8, 1)
    output = lines_of(client, batch.output_file_id)
    assert [line["custom_id"] for line in output] == [line["custom_id"] for line in lines[:8]]
    for line, asked in zip(output, lines):
        alone = client.chat.completions.create(**asked["body"])
        assert line["response"]["body"]["choices"][0]["message"]["content"] == alone.choices[0].message.content
    (error,) = lines_of(client, batch.error_file_id)
    assert error["custom_id"] == "unknown" and error["response"]["status_code"] == 404
    assert batch.id in [listed.id for listed in client.batches.list(limit=1)]
    assert client.files.delete(batch.output_file_id).deleted


def test_a_killed_server_goes_on_where_it_was(server):
    with tempfile.TemporaryDirectory() as data:
        lines = chats(server.models, 60, max_tokens=32, ignore_eos=True)
        with server.another("--data", data, "--max-running", "4") as first:
            client = connect(first)
            batch = begin(client, lines)
            until(client, batch, lambda batch: batch.request_counts.completed >= 5)
            first.process.kill()
            first.process.wait()
        with server.another("--data", data, "--max-running", "4") as second:
            client = connect(second)
            before = client.batches.retrieve(batch.id).request_counts.completed
            assert 5 <= before < 60
            batch = ended(client, batch)
            assert batch.status == "completed" and batch.error_file_id is None
            output = lines_of(client, batch.output_file_id)
            assert [line["custom_id"] for line in output] == [line["custom_id"] for line in lines]
            assert second.get("/stats")["finished"] <= 55, "what was done is not done again"


def test_who_waits_is_not_kept_waiting(kept):
    client = connect(kept)
    batch = begin(client, chats(kept.models, 64, max_tokens=256, ignore_eos=True))
    until(client, batch, lambda batch: batch.status == "in_progress")
    answer = client.chat.completions.create(model=kept.base, messages=HELLO, max_tokens=8)
    assert answer.usage.completion_tokens
    batch = client.batches.cancel(batch.id)
    assert batch.status in ("cancelling", "cancelled")
    batch = ended(client, batch)
    assert batch.status == "cancelled"
    counts = batch.request_counts
    assert counts.completed + counts.failed == counts.total == 64
    done, rest = lines_of(client, batch.output_file_id), lines_of(client, batch.error_file_id)
    assert len(done) == counts.completed and len(rest) == counts.failed
    assert all(line["error"]["code"] == "batch_cancelled" for line in rest)


def test_mistakes_are_told_with_their_lines(kept):
    client = connect(kept)
    lines = chats([kept.base], 2)
    lines.append({**lines[0], "custom_id": "streamed", "body": {**lines[0]["body"], "stream": True}})
    lines.append(lines[0])
    batch = ended(client, begin(client, lines))
    assert batch.status == "failed"
    assert [(error.code, error.line) for error in batch.errors.data] == [
        ("invalid_request", 3),
        ("duplicate_custom_id", 4),
    ]
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_of_nobody")
    with pytest.raises(openai.BadRequestError):
        client.files.create(file=("x", b"x"), purpose="fine-tune")


def test_without_a_place_for_them_there_are_none(client):
    with pytest.raises(openai.PermissionDeniedError, match="--data"):
        client.batches.list()
