"""`huggingface_hub`: InferenceClient, used as with TGI."""

import pytest
from huggingface_hub.errors import TextGenerationError, ValidationError

PROMPT = "The battery died after two days."


def test_the_adapter_answers_for_its_id_and_the_base_for_none(hub, server, adapter):
    for name in (None, adapter):
        answer = hub.text_generation(PROMPT, adapter_id=name, max_new_tokens=12, details=True)
        assert answer.details.generated_tokens == len(answer.details.tokens) <= 12
        assert answer.details.finish_reason in ("length", "eos_token")
        assert answer.details.adapter_id == (name or server.base)
        assert answer.generated_text == hub.text_generation(PROMPT, adapter_id=name, max_new_tokens=12)


def test_a_stream_with_details_adds_up_to_the_whole_answer(hub, adapter):
    asked = dict(adapter_id=adapter, max_new_tokens=12, details=True)
    whole = hub.text_generation(PROMPT, **asked)
    events = list(hub.text_generation(PROMPT, stream=True, **asked))
    *rest, last = events
    assert [event.token.id for event in events] == [token.id for token in whole.details.tokens]
    assert "".join(event.token.text for event in events if not event.token.special) == whole.generated_text
    assert all(event.generated_text is None and event.details is None for event in rest)
    assert last.generated_text == whole.generated_text
    assert last.details.finish_reason == whole.details.finish_reason
    assert last.details.generated_tokens == whole.details.generated_tokens
    assert last.details.input_length > 0
    assert [event.token.logprob for event in events] == [token.logprob for token in whole.details.tokens]


def test_a_plain_stream_is_text(hub):
    pieces = list(hub.text_generation("Once upon a time", max_new_tokens=8, stream=True))
    assert "".join(pieces) == hub.text_generation("Once upon a time", max_new_tokens=8)


def test_prefill_and_alternatives(hub):
    details = hub.text_generation(
        "The capital of France", max_new_tokens=2, details=True, decoder_input_details=True, top_n_tokens=3
    ).details
    assert "".join(token.text for token in details.prefill) == "The capital of France"
    assert details.prefill[0].logprob is None and details.prefill[1].logprob < 0
    assert [len(tokens) for tokens in details.top_tokens] == [3, 3]
    # The client passes these on unchanged.
    assert details.top_tokens[0][0]["id"] == details.tokens[0].id


def test_stop_return_full_text_truncate_and_seed(hub):
    prompt = "One, two, three,"
    free = hub.text_generation(prompt, max_new_tokens=16)
    stop = free[len(free) // 2 :][:3]
    end = free.index(stop) + len(stop)
    stopped = hub.text_generation(prompt, max_new_tokens=16, stop=[stop], details=True)
    # As in TGI, the answer includes the stop string.
    assert stopped.generated_text == free[:end]
    assert stopped.details.finish_reason == "stop_sequence"
    assert hub.text_generation(prompt, max_new_tokens=4, return_full_text=True).startswith(prompt)
    assert hub.text_generation("zzz zzz " + prompt, max_new_tokens=4, truncate=3)
    drawn = [hub.text_generation(prompt, max_new_tokens=8, do_sample=True, seed=7, temperature=1.5) for _ in "ab"]
    assert drawn[0] == drawn[1]


def test_an_unknown_adapter_is_an_error(hub):
    for stream in (False, True):
        with pytest.raises(TextGenerationError) as caught:
            list(hub.text_generation(PROMPT, adapter_id="nobody", stream=stream))
        assert "`nobody` does not exist" in str(caught.value)
        assert caught.value.__cause__.response.status_code == 404


def test_a_bad_parameter_is_a_validation_error_that_names_it(hub):
    with pytest.raises(ValidationError) as caught:
        hub.text_generation(PROMPT, top_p=1.5)
    assert "top_p" in str(caught.value)
    with pytest.raises(ValidationError) as caught:
        hub.text_generation(PROMPT, watermark=True)
    assert "watermark" in str(caught.value)


def test_chat_completion(hub, adapter):
    messages = [{"role": "user", "content": PROMPT}]
    asked = dict(model=adapter, max_tokens=12, temperature=0)
    whole = hub.chat_completion(messages, **asked)
    assert whole.model == adapter
    streamed = hub.chat_completion(messages, stream=True, stream_options={"include_usage": True}, **asked)
    chunks = list(streamed)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert hub.chat_completion(messages, model="tgi", max_tokens=2).choices


def test_hanging_up_in_the_middle_of_a_stream_frees_the_slot(hub, server):
    before = server.wait_until(lambda stats: stats["running"] == 0)
    # At a temperature this high, the model never ends the turn itself.
    stream = hub.text_generation("Once", max_new_tokens=4000, stream=True, temperature=50.0)
    for _ in range(3):
        next(stream)
    stream.close()
    after = server.wait_until(lambda stats: stats["running"] == 0)
    assert after["cancelled"] == before["cancelled"] + 1
