"""`litellm`: OpenAI's dialect, as litellm's proxy and library speak it."""

import json
import os

# Without this, litellm downloads its price list when it is imported.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm
import pytest

from test_tools import HELLO, TOOLS, check_arguments

# litellm warns about its own types.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def ask(server):
    """Requests a completion of a given model."""

    def ask(name, provider="openai", **asked):
        return litellm.completion(
            model=f"{provider}/{name}",
            api_base=f"{server.url}/v1",
            api_key="none",
            num_retries=0,
            timeout=600,
            **{"messages": HELLO, "temperature": 0, "max_tokens": 16, **asked},
        )

    return ask


# litellm's users choose `hosted_vllm` for servers that run adapters.
@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
def test_whole_and_streamed_are_the_same(client, server, adapter, ask, provider):
    for name in (server.base, adapter):
        whole = ask(name, provider)
        same = client.chat.completions.create(model=name, messages=HELLO, temperature=0, max_tokens=16)
        chunks = list(ask(name, provider, stream=True, stream_options={"include_usage": True}))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert whole.choices[0].message.content == text == same.choices[0].message.content
        assert whole.usage.completion_tokens == same.usage.completion_tokens
        rebuilt = litellm.stream_chunk_builder(chunks, messages=HELLO)
        assert rebuilt.usage.completion_tokens == same.usage.completion_tokens


def test_text_completion(client, server):
    asked = dict(prompt="Once upon a time", max_tokens=12, temperature=0)
    said = litellm.text_completion(
        model=f"text-completion-openai/{server.base}", api_base=f"{server.url}/v1", api_key="none", **asked
    )
    assert said.choices[0].text == client.completions.create(model=server.base, **asked).choices[0].text != ""


def test_tools_and_schemas(server, ask):
    answer = ask(server.base, tools=TOOLS, tool_choice="required", parallel_tool_calls=False, max_tokens=200)
    (call,) = answer.choices[0].message.tool_calls
    check_arguments(call.function.name, json.loads(call.function.arguments))
    schema = {
        "type": "object",
        "properties": {"mood": {"enum": ["good", "bad"]}},
        "required": ["mood"],
        "additionalProperties": False,
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "review", "schema": schema, "strict": True}}
    answer = ask(server.base, response_format=wanted, max_tokens=60)
    assert json.loads(answer.choices[0].message.content)["mood"] in ("good", "bad")


def test_errors_are_its_own(server, ask):
    with pytest.raises(litellm.NotFoundError):
        ask("nobody")
    with pytest.raises(litellm.BadRequestError):
        ask(server.base, temperature=-1)
