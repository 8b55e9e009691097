"""Tools: a model calls only the given tools, with arguments that their schemas allow."""

import json

import openai
import pytest

CITY = {"type": "string", "enum": ["Oslo", "Rome", "Lima"]}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": CITY, "days": {"type": "integer", "minimum": 1, "maximum": 7}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}
TIME = {
    "type": "function",
    "function": {
        "name": "get_time",
        "parameters": {
            "type": "object",
            "properties": {"city": CITY},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
TOOLS = [WEATHER, TIME]
HELLO = [{"role": "user", "content": "What is the weather in Oslo for the next three days?"}]


def check(call):
    assert call.type == "function" and call.id.startswith("call_")
    check_arguments(call.function.name, json.loads(call.function.arguments))


def check_arguments(name, arguments):
    assert arguments["city"] in CITY["enum"]
    if name == "get_weather":
        assert set(arguments) == {"city", "days"} and 1 <= arguments["days"] <= 7
    else:
        assert name == "get_time" and set(arguments) == {"city"}


def test_a_call_that_is_required_is_made_by_every_model(client, server):
    for name in server.models:
        answer = client.chat.completions.create(
            model=name, messages=HELLO, tools=TOOLS, tool_choice="required", parallel_tool_calls=False, max_tokens=200
        )
        choice = answer.choices[0]
        assert choice.finish_reason == "tool_calls" and choice.message.content is None
        (call,) = choice.message.tool_calls
        check(call)


def test_a_call_that_is_named_is_that_one(client, server):
    for tool in TOOLS:
        name = tool["function"]["name"]
        answer = client.chat.completions.create(
            model=server.adapters[0],
            messages=HELLO,
            tools=TOOLS,
            tool_choice={"type": "function", "function": {"name": name}},
            max_tokens=200,
        )
        (call,) = answer.choices[0].message.tool_calls
        assert call.function.name == name and answer.choices[0].finish_reason == "stop"
        check(call)


def test_a_stream_of_a_call_adds_up_to_the_same(client, server):
    asked = dict(
        model=server.base,
        messages=HELLO,
        tools=TOOLS,
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=200,
        temperature=0,
    )
    whole = client.chat.completions.create(**asked).choices[0].message.tool_calls[0]
    chunks = [chunk.choices[0] for chunk in client.chat.completions.create(**asked, stream=True)]
    assert chunks[-1].finish_reason == "tool_calls"
    parts = [part for chunk in chunks for part in chunk.delta.tool_calls or []]
    assert parts[0].function.name == whole.function.name and parts[0].id
    assert len(parts) > 2 and all(part.index == 0 and not part.id for part in parts[1:])
    assert "".join(part.function.arguments for part in parts) == whole.function.arguments
    # The official client can assemble the chunks, too.
    with client.chat.completions.stream(**asked) as stream:
        final = stream.get_final_completion()
    check(final.choices[0].message.tool_calls[0])


def test_the_model_decides_and_is_held_to_the_tools_if_it_calls(client, server):
    for seed in range(10):
        answer = client.chat.completions.create(
            model=server.base, messages=HELLO, tools=TOOLS, seed=seed, temperature=1, max_tokens=120
        )
        choice = answer.choices[0]
        if choice.finish_reason == "length":
            continue
        for call in choice.message.tool_calls or []:
            check(call)
        assert choice.finish_reason == ("tool_calls" if choice.message.tool_calls else "stop")


def test_results_go_back_into_the_conversation(client, server):
    asked = dict(model=server.base, tools=TOOLS, max_tokens=200, temperature=0)
    call = client.chat.completions.create(
        messages=HELLO, tool_choice="required", parallel_tool_calls=False, **asked
    ).choices[0].message
    result = {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "Sunny, 21 degrees."}
    answer = client.chat.completions.create(messages=[*HELLO, call, result], tool_choice="none", **asked)
    assert answer.choices[0].message.content and not answer.choices[0].message.tool_calls
    assert answer.usage.prompt_tokens > 60


@pytest.mark.parametrize(
    ("extra", "field"),
    [
        ({"tools": [{"type": "retrieval"}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name"),
        ({"tools": [TIME, TIME]}, "tools[1].function.name"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": 7}}]}, "tools[0].function.parameters"),
        ({"tools": TOOLS, "tool_choice": "sometimes"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "other"}}}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": TOOLS, "tool_choice": "required", "response_format": {"type": "json_object"}}, "tool_choice"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"not": {}}}}]},
            "tools",
        ),
    ],
)
def test_what_is_wrong_is_named(client, server, extra, field):
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=server.base, messages=HELLO, **extra)
    assert refused.value.param == field, refused.value
