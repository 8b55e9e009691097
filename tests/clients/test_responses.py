"""`client.responses`: the official client's types accept whole, streamed and parsed answers."""

import json
from typing import Literal

import openai
import pytest
from pydantic import BaseModel, ConfigDict, Field

CITY = {"type": "string", "enum": ["Oslo", "Rome", "Lima"]}
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather in a city.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": CITY, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
        "required": ["city", "days"],
        "additionalProperties": False,
    },
}
QUESTION = "What is the weather in Oslo for the next three days?"


class Command(BaseModel):
    model_config = ConfigDict(extra="forbid")

    intent: Literal["HassTurnOn", "HassTurnOff"]
    name: str = Field(max_length=24)


def test_every_model_responds_as_it_does_in_a_chat(client, server):
    for name in server.models:
        response = client.responses.create(
            model=name, instructions="Be brief.", input=QUESTION, temperature=0, max_output_tokens=12
        )
        chat = client.chat.completions.create(
            model=name,
            messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": QUESTION}],
            temperature=0,
            max_tokens=12,
        )
        assert response.output_text == chat.choices[0].message.content
        assert response.usage.input_tokens == chat.usage.prompt_tokens
        assert response.usage.output_tokens == chat.usage.completion_tokens
        cut_off = chat.choices[0].finish_reason == "length"
        assert response.status == ("incomplete" if cut_off else "completed")
        assert response.model == name and response.store is False


def test_a_stream_adds_up_to_the_same(client, adapter):
    asked = dict(model=adapter, input=QUESTION, temperature=0, max_output_tokens=20)
    whole = client.responses.create(**asked)
    with client.responses.stream(**asked) as stream:
        deltas = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert deltas == final.output_text == whole.output_text
    events = list(client.responses.create(**asked, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].response.output_text == whole.output_text


def test_a_schema_is_parsed(client, server):
    for name in server.models:
        response = client.responses.parse(
            model=name, input="Turn the lamp on.", text_format=Command, max_output_tokens=200
        )
        assert isinstance(response.output_parsed, Command), response


def test_a_call_and_its_result(client, server):
    for name in server.models[:2]:
        asked = dict(model=name, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False, temperature=0)
        response = client.responses.create(**asked, input=QUESTION, max_output_tokens=200)
        (call,) = response.output
        arguments = json.loads(call.arguments)
        assert call.type == "function_call" and call.name == "get_weather"
        assert set(arguments) == {"city", "days"} and arguments["city"] in CITY["enum"]
        with client.responses.stream(**asked, input=QUESTION, max_output_tokens=200) as stream:
            kinds = {event.type for event in stream}
            (streamed,) = stream.get_final_response().output
        assert "response.function_call_arguments.delta" in kinds
        assert streamed.arguments == call.arguments
        conversation = [
            {"role": "user", "content": QUESTION},
            *(item.model_dump() for item in response.output),
            {"type": "function_call_output", "call_id": call.call_id, "output": '{"sky": "clear"}'},
        ]
        answer = client.responses.create(
            model=name, input=conversation, tools=[WEATHER], tool_choice="none", max_output_tokens=10
        )
        assert answer.output_text


def test_what_is_not_done_is_refused_by_name(client, adapter):
    for wrong, field in [
        (dict(store=True), "store"),
        (dict(previous_response_id="resp_1"), "previous_response_id"),
        (dict(background=True), "background"),
        (dict(tools=[{"type": "web_search"}]), "tools[0].type"),
        (dict(reasoning={"effort": "high"}), "reasoning.effort"),
        (dict(max_output_tokens=0), "max_output_tokens"),
    ]:
        with pytest.raises(openai.BadRequestError) as refused:
            client.responses.create(model=adapter, input="x", **wrong)
        assert refused.value.param == field and f"`{field}`" in refused.value.message
