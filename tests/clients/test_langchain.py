"""`langchain-openai`: chat models of LangChain, with streams, tools and structured output."""

from typing import Literal

import openai
import pytest
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field

from test_tools import HELLO, TOOLS, check_arguments

QUESTION = HELLO[0]["content"]


class Review(BaseModel, extra="forbid"):
    """What a review says. Were other fields allowed, a small model would write them until its tokens are used up."""

    mood: Literal["good", "bad"]
    stars: int = Field(ge=1, le=5)


@pytest.fixture
def model(server):
    """Creates a greedy chat model of a given name."""

    def make(name, **more):
        asked = dict(model=name, temperature=0, max_tokens=200, max_retries=0, **more)
        return ChatOpenAI(base_url=f"{server.url}/v1", api_key="none", **asked)

    return make


def test_whole_and_streamed_are_the_same(client, server, adapter, model):
    for name in (server.base, adapter):
        chat = model(name).bind(max_tokens=16)
        whole = chat.invoke(QUESTION)
        same = client.chat.completions.create(model=name, messages=HELLO, temperature=0, max_tokens=16)
        pieces = list(chat.stream(QUESTION))
        assert whole.content == "".join(piece.content for piece in pieces) == same.choices[0].message.content
        assert whole.usage_metadata["output_tokens"] == same.usage.completion_tokens
        assert whole.response_metadata["model_name"] == name


def test_several_at_once(model, server):
    chat = model(server.base).bind(max_tokens=8)
    alone = [chat.invoke(text).content for text in ("Hello", "Once upon a time")]
    assert [answer.content for answer in chat.batch(["Hello", "Once upon a time"])] == alone


def test_tools_are_called_and_their_results_go_back(model, server):
    chat = model(server.base)
    calling = chat.bind_tools(TOOLS, tool_choice="required", parallel_tool_calls=False)
    said = calling.invoke(QUESTION)
    (call,) = said.tool_calls
    check_arguments(call["name"], call["args"])
    first, *rest = calling.stream(QUESTION)
    whole = first
    for piece in rest:
        whole += piece
    assert [(call["name"], call["args"]) for call in whole.tool_calls] == [(call["name"], call["args"])]
    result = ToolMessage("Sunny, 21 degrees.", tool_call_id=call["id"])
    assert chat.bind(max_tokens=16).invoke([HumanMessage(QUESTION), said, result]).content


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output_is_an_object_of_the_class(model, server, adapter, method):
    for name in (server.base, adapter):
        review = model(name).with_structured_output(Review, method=method).invoke("The battery died after two days.")
        assert isinstance(review, Review)


def test_an_unknown_model_is_not_found(model):
    with pytest.raises(openai.NotFoundError):
        model("nobody").invoke(QUESTION)
