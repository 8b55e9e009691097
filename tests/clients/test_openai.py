"""`openai`: the official client, unchanged."""

import math

import openai
import pytest

HELLO = [{"role": "user", "content": "The battery died after two days."}]


def test_models_have_the_base_as_parent(client, server):
    models = client.models.list().data
    assert [model.id for model in models] == server.models
    assert models[0].parent is None
    assert all(model.parent == server.base for model in models[1:])
    assert all(len(model.hash) == 64 for model in models[1:])
    assert client.models.retrieve(server.adapters[0]).id == server.adapters[0]


def test_chat_answers_under_every_name(client, server):
    for name in server.models:
        raw = client.chat.completions.with_raw_response.create(
            model=name, messages=HELLO, max_tokens=8, temperature=0
        )
        answer = raw.parse()
        assert answer.model == name
        assert answer.choices[0].message.role == "assistant"
        assert answer.choices[0].finish_reason in ("stop", "length")
        assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
        assert raw.headers["x-multigraft-adapter"] == name
        made_by = raw.headers["x-multigraft-adapter-hash"]
        assert answer.system_fingerprint == f"multigraft-{made_by}"
        assert made_by == "base" if name == server.base else len(made_by) == 64


def test_a_chat_stream_adds_up_to_the_whole_answer(client, server, adapter):
    for name in (server.base, adapter):
        asked = dict(model=name, messages=HELLO, max_tokens=24, temperature=0)
        whole = client.chat.completions.create(**asked)
        chunks = list(client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True}))
        assert chunks[0].choices[0].delta.role == "assistant"
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert text == whole.choices[0].message.content
        last = chunks[-1]
        # Not the whole usage: the second request finds the first one's prompt in the prefix cache.
        assert last.choices == [] and last.usage.completion_tokens == whole.usage.completion_tokens
        assert last.usage.prompt_tokens == whole.usage.prompt_tokens
        reasons = [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices]
        assert reasons[-1] == whole.choices[0].finish_reason and set(reasons[:-1]) == {None}


def test_completions_stream_and_whole_agree(client, server):
    asked = dict(model=server.base, prompt="Once upon a time", max_tokens=24, temperature=0)
    whole = client.completions.create(**asked)
    assert whole.usage.completion_tokens == 24 and whole.choices[0].finish_reason == "length"
    streamed = "".join(chunk.choices[0].text for chunk in client.completions.create(**asked, stream=True))
    assert streamed == whole.choices[0].text != ""


def test_an_unknown_model_is_not_found(client, server):
    for create in (
        lambda: client.chat.completions.create(model="nobody", messages=HELLO),
        lambda: client.chat.completions.create(model="nobody", messages=HELLO, stream=True),
        lambda: client.completions.create(model="nobody", prompt="x"),
        lambda: client.models.retrieve("nobody"),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            create()
        assert caught.value.param == "model"
        assert "`nobody` does not exist" in caught.value.message
        assert server.base in caught.value.message


def test_what_is_not_supported_is_a_bad_request(client, server):
    for extra, field in [
        ({"reasoning_effort": "low"}, "reasoning_effort"),
        ({"temperature": -1}, "temperature"),
        ({"extra_body": {"unheard_of": 1}}, "unheard_of"),
    ]:
        with pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(model=server.base, messages=HELLO, **extra)
        assert caught.value.param == field
        assert field in caught.value.message


def test_stop_strings_end_the_answer_before_them(client, server):
    asked = dict(model=server.base, prompt="One, two, three,", max_tokens=24, temperature=0)
    free = client.completions.create(**asked).choices[0].text
    stop = free[len(free) // 2 :][:3]
    stopped = client.completions.create(**asked, stop=[stop]).choices[0]
    assert stopped.text == free[: free.index(stop)]
    assert stopped.finish_reason == "stop"
    streamed = client.completions.create(**asked, stop=stop, stream=True)
    assert "".join(chunk.choices[0].text for chunk in streamed) == stopped.text


def test_chat_logprobs_are_probabilities_of_the_tokens(client, server):
    choice = client.chat.completions.create(
        model=server.base, messages=HELLO, max_tokens=5, temperature=0, logprobs=True, top_logprobs=3
    ).choices[0]
    assert len(choice.logprobs.content) == 5
    for token in choice.logprobs.content:
        assert len(token.top_logprobs) == 3
        # In greedy decoding, the chosen token is the likeliest.
        assert token.top_logprobs[0].token == token.token
        assert token.logprob == token.top_logprobs[0].logprob <= 0
        assert sum(math.exp(other.logprob) for other in token.top_logprobs) <= 1.0001
    assert b"".join(bytes(token.bytes) for token in choice.logprobs.content).decode() == choice.message.content


def test_a_prompt_can_be_scored(client, server):
    prompt = "The capital of France is Paris"
    choice = client.completions.create(
        model=server.base, prompt=prompt, max_tokens=1, temperature=0, logprobs=1, echo=True
    ).choices[0]
    assert choice.text.startswith(prompt)
    scores = choice.logprobs
    assert scores.token_logprobs[0] is None and all(score <= 0 for score in scores.token_logprobs[1:])
    assert "".join(scores.tokens).startswith(prompt)
    assert scores.text_offset[:2] == [0, len(scores.tokens[0])]


def test_several_prompts_and_answers_in_one_request(client, server):
    answer = client.completions.create(
        model=server.base, prompt=["One", "Two"], n=2, max_tokens=4, temperature=1, seed=5
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    again = client.completions.create(
        model=server.base, prompt=["One", "Two"], n=2, max_tokens=4, temperature=1, seed=5
    )
    assert [choice.text for choice in again.choices] == [choice.text for choice in answer.choices]
    assert answer.usage.completion_tokens == 16


def test_the_best_answers_come_first(client, server):
    asked = dict(model=server.base, prompt="Once upon a time", max_tokens=8, temperature=1.5, seed=7)
    made = client.completions.create(**asked, n=4, logprobs=0)
    mean = lambda choice: sum(choice.logprobs.token_logprobs) / len(choice.logprobs.token_logprobs)
    expected = sorted(made.choices, key=mean, reverse=True)[:2]
    best = client.completions.create(**asked, n=2, best_of=4)
    assert [choice.text for choice in best.choices] == [choice.text for choice in expected]
    assert best.usage.completion_tokens == made.usage.completion_tokens
    with pytest.raises(openai.BadRequestError) as caught:
        client.completions.create(**asked, n=2, best_of=4, stream=True)
    assert caught.value.param == "best_of"


def test_vllms_fields_by_extra_body(client):
    asked = dict(model="sentiment", messages=HELLO, temperature=0)
    short = client.chat.completions.create(**asked, max_tokens=24)
    extra = {"min_tokens": 24, "return_token_ids": True, "prompt_logprobs": 1}
    long = client.chat.completions.create(**asked, max_tokens=24, extra_body=extra)
    assert short.usage.completion_tokens < long.usage.completion_tokens == 24
    assert len(long.choices[0].token_ids) == 24
    assert len(long.prompt_token_ids) == len(long.prompt_logprobs) == long.usage.prompt_tokens
    for token, scores in list(zip(long.prompt_token_ids, long.prompt_logprobs))[1:]:
        its = scores[str(token)]
        likeliest = max(score["logprob"] for score in scores.values())
        assert (its["rank"] == 1) == (its["logprob"] == likeliest)


def test_a_message_of_the_assistant_is_gone_on_with(client, server):
    begun = [{"role": "user", "content": "Count to five."}, {"role": "assistant", "content": "One, two,"}]
    extra = {"continue_final_message": True, "add_generation_prompt": False}
    asked = dict(model=server.base, messages=begun, temperature=0, max_tokens=4)
    said = client.chat.completions.create(**asked, extra_body=extra)
    assert said.choices[0].message.content.startswith(" three")


def test_hanging_up_in_the_middle_of_a_stream_frees_the_slot(client, server):
    before = server.wait_until(lambda stats: stats["running"] == 0)
    stream = client.completions.create(
        model=server.base, prompt="Once", max_tokens=4000, stream=True, extra_body={"ignore_eos": True}
    )
    for _ in range(3):
        next(stream)
    assert server.get("/stats")["running"] == 1
    stream.close()
    after = server.wait_until(lambda stats: stats["running"] == 0)
    assert after["cancelled"] == before["cancelled"] + 1
    assert after["kv_blocks_used"] == before["kv_blocks_used"]
