"""A chat template in an adapter's folder.

Official clients get the same answer as for the rendered text without a template.
"""

import json
import shutil
import subprocess

import openai
import pytest
from huggingface_hub import InferenceClient

# In the style of `tokenizer_config.json`. It ends in a special token of the base.
TEMPLATE = (
    "{%- for message in messages %}{{ 'Q: ' + message['content'] + '\n' }}{%- endfor %}"
    "{%- if tools %}{{ tools | length }} tools\n{%- endif %}A:{{ eos_token }}"
)
QUESTION = "a Loloish language"
ASKED = f"Q: {QUESTION}\nA:<|im_end|>"


@pytest.fixture(scope="module")
def own(server, tmp_path_factory):
    """A server with the adapter `own`, which no request has used yet, and the adapter's folder."""
    folder = tmp_path_factory.mktemp("own") / "adapter"
    shutil.copytree(server.paths[2] / "topic", folder)
    named = [{"name": "default", "template": TEMPLATE}, {"name": "rag", "template": "{{ nothing }}"}]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    places = "--allow-source", str(folder.parent)
    with server.another("--preload", "off", "--adapter", f"own={folder}", *places) as started:
        started.folder = folder
        yield started


def test_the_first_chat_and_all_others_are_in_the_adapters_own_words(own):
    client = openai.OpenAI(base_url=f"{own.url}/v1", api_key="none", max_retries=0)
    assert own.get("/v1/adapters/own")["state"] == "cold"
    asked = {"max_tokens": 12, "temperature": 0}
    messages = [{"role": "user", "content": QUESTION}]
    chat = client.chat.completions.create(model="own", messages=messages, **asked)
    info = own.get("/v1/adapters/own")["info"]
    assert info["chat_template"] == "tokenizer_config.json"
    plain = client.completions.create(
        model="own", prompt=ASKED, extra_body={"add_special_tokens": False}, **asked
    )
    assert chat.choices[0].message.content == plain.choices[0].text
    assert chat.usage.prompt_tokens == plain.usage.prompt_tokens
    hub = InferenceClient(base_url=f"{own.url}/v1", api_key="none", timeout=120)
    said = hub.chat_completion(messages, model="own", max_tokens=12, temperature=0)
    assert said.choices[0].message.content == plain.choices[0].text
    response = client.responses.create(model="own", input=QUESTION, max_output_tokens=12, temperature=0)
    assert response.output_text == plain.choices[0].text
    # The same weights with the base's template.
    topic = client.chat.completions.create(model="topic", messages=messages, **asked)
    assert topic.usage.prompt_tokens != chat.usage.prompt_tokens


def test_a_broken_template_is_no_adapter(own):
    folder = own.folder.with_name("broken")
    shutil.copytree(own.folder, folder)
    (folder / "chat_template.jinja").write_text("{% for message in messages %}")
    program = [own.paths[0], "adapters", "--server", own.url, "add", f"own={folder}", "--replace"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2 and "chat_template.jinja" in done.stderr, done.stderr
    assert own.get("/v1/adapters/own")["info"]["chat_template"] == "tokenizer_config.json"
