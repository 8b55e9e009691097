"""Constrained answers: every model keeps to the constraint, in whatever field it is given."""

import json
import os
import re
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import openai
import pytest
from huggingface_hub.errors import ValidationError
from pydantic import BaseModel, ConfigDict, Field

HELLO = [{"role": "user", "content": "Set the volume of the living room tv to 22 percent."}]
# How many answers are checked. A few hundred are enough for every change.
REQUESTS = int(os.environ.get("MULTIGRAFT_CONSTRAINED_REQUESTS", "200"))


class Command(BaseModel):
    """Small models are given bounds, or they go on until they are cut off."""

    model_config = ConfigDict(extra="forbid")

    intent: Literal["HassTurnOn", "HassTurnOff", "HassSetVolume"]
    name: str = Field(max_length=24)
    volume: int = Field(ge=0, le=100)
    tags: list[Literal["tv", "light"]] = Field(max_length=2)


SCHEMA = Command.model_json_schema()
FORMAT = {"type": "json_schema", "json_schema": {"name": "command", "strict": True, "schema": SCHEMA}}


def test_every_answer_of_every_model_is_what_the_schema_allows(client, server):
    def ask(number):
        name = server.models[number % len(server.models)]
        answer = client.chat.completions.create(
            model=name,
            messages=[{"role": "user", "content": f"Device {number}: turn it on at {number % 100} percent."}],
            response_format=FORMAT,
            max_tokens=400,
            temperature=1.0,
            seed=number,
        )
        choice = answer.choices[0]
        assert choice.finish_reason == "stop", choice
        Command.model_validate_json(choice.message.content, strict=True)

    with ThreadPoolExecutor(32) as pool:
        for _ in pool.map(ask, range(REQUESTS)):
            pass


def test_openais_parse_gives_the_object(client, server):
    answer = client.chat.completions.parse(
        model=server.adapters[0], messages=HELLO, response_format=Command, max_tokens=200, temperature=0
    )
    assert isinstance(answer.choices[0].message.parsed, Command)


def test_a_stream_adds_up_to_the_same_json(client, server):
    asked = dict(model=server.base, messages=HELLO, response_format=FORMAT, max_tokens=200, temperature=0)
    whole = client.chat.completions.create(**asked).choices[0].message.content
    chunks = client.chat.completions.create(**asked, stream=True)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole and Command.model_validate_json(text)


def test_json_mode_is_an_object_and_may_be_cut_off(client, server):
    answer = client.chat.completions.create(
        model=server.base, messages=HELLO, response_format={"type": "json_object"}, max_tokens=60, temperature=0
    )
    assert answer.choices[0].message.content.startswith("{")
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(json.loads(answer.choices[0].message.content), dict)


@pytest.mark.parametrize(
    ("extra", "pattern"),
    [
        ({"guided_choice": ["on", "off"]}, "on|off"),
        ({"guided_regex": "[A-Z][a-z]{2,8}, [0-9]{2}"}, "[A-Z][a-z]{2,8}, [0-9]{2}"),
        ({"structured_outputs": {"regex": "a{3}"}}, "a{3}"),
        ({"guided_grammar": 'start: "x" "y"~2..3'}, "xy{2,3}"),
        ({"grammar": 'root ::= "on" | "off" [!?]{2}'}, "on|off[!?]{2}"),
        ({"regex": "yes|no"}, "yes|no"),
        ({"ebnf": 'root ::= digit digit\ndigit ::= [0-9]'}, "[0-9]{2}"),
        ({"json_schema": {"type": "integer", "minimum": 10, "maximum": 99}}, "[0-9]{2}"),
    ],
)
def test_vllms_sglangs_and_llama_cpps_fields(client, server, extra, pattern):
    for name in (server.base, server.adapters[0]):
        chat = client.chat.completions.create(model=name, messages=HELLO, max_tokens=40, extra_body=extra)
        text = chat.choices[0].message.content
        assert re.fullmatch(pattern, text), text
        text = client.completions.create(model=name, prompt="So: ", max_tokens=40, extra_body=extra).choices[0].text
        assert re.fullmatch(pattern, text), text


def test_tgis_grammars(hub, server):
    for name in (server.base, server.adapters[0]):
        text = hub.text_generation(
            "Set the volume. ", grammar={"type": "json", "value": SCHEMA}, max_new_tokens=200, adapter_id=name
        )
        assert Command.model_validate_json(text)
        text = hub.text_generation("So: ", grammar={"type": "regex", "value": "yes|no"}, max_new_tokens=9, adapter_id=name)
        assert text in ("yes", "no")


def test_what_cannot_be_honoured_is_refused_before_the_first_token(client, hub, server):
    for extra, field in (
        ({"guided_json": {"type": "array", "uniqueItems": True}}, "guided_json"),
        ({"guided_regex": "("}, "guided_regex"),
        ({"guided_grammar": "root ::= x"}, "guided_grammar"),
        ({"guided_choice": []}, "guided_choice"),
        ({"guided_regex": "a", "regex": "b"}, "regex"),
    ):
        for stream in (False, True):
            with pytest.raises(openai.BadRequestError) as refused:
                client.chat.completions.create(
                    model=server.base, messages=HELLO, stream=stream, extra_body=extra
                )
            assert refused.value.param == field, refused.value
    with pytest.raises(ValidationError, match="unclosed group"):
        hub.text_generation("x", grammar={"type": "regex", "value": "("}, max_new_tokens=9)
