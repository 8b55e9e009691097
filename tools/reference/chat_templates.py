#!/usr/bin/env python3
"""Chat templates, rendered by transformers.

    python chat_templates.py ../../fixtures/chat --smollm2 SmolLM2-135M-Instruct.Q4_1.gguf

Writes OUT/<template>-<case>.json and OUT/feature-<name>.json, each

    {"template", "messages", "tools"?, "add_generation_prompt", "bos_token", "eos_token",
     "expected" or "error"}

SmolLM2's template is the one in its GGUF. The others are written here, short, in the style of
well-known models. Together they use what published templates use: white space control, namespaces,
macros, Python string methods and slices, `tojson`, tests, `raise_exception`, loop controls. `error`
is the message. Only the message of `raise_exception` is worth comparing; the others are jinja2's
own.
"""
import argparse
import json
import pathlib

import gguf
import jinja2
from tokenizers import Tokenizer
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast

LLAMA3 = """\
{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = "26 Jul 2024" %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}
    {{- "Environment: ipython\\n" }}
{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" }}
{%- if tools is not none %}
    {{- "You can call these functions. Answer with JSON only.\\n\\n" }}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'+ message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("One tool call at a time, please!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' -}}
        {{- '{"name": "' + tool_call.name + '", ' }}
        {{- '"parameters": ' }}
        {{- tool_call.arguments | tojson }}
        {{- "}" }}
        {{- "<|eot_id|>" }}
    {%- elif message.role == "tool" or message.role == "ipython" %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}
        {%- if message.content is mapping or (message.content is iterable and message.content is not string) %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""

GEMMA = """\
{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('No system role here') }}{% endif %}\
{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('Roles must alternate user/assistant/user/assistant/...') }}{% endif %}\
{% if (message['role'] == 'assistant') %}{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}\
{{ '<start_of_turn>' + role + '
' + message['content'] | trim + '<end_of_turn>
' }}{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model
'}}{% endif %}"""

GEMMA3 = """\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set prefix = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}
        {%- set prefix = messages[0]['content'][0]['text'] + '\\n\\n' -%}
    {%- endif -%}
    {%- set rest = messages[1:] -%}
{%- else -%}
    {%- set prefix = "" -%}
    {%- set rest = messages -%}
{%- endif -%}
{%- for message in rest -%}
    {%- set role = "model" if message['role'] == 'assistant' else message['role'] -%}
    {{ '<start_of_turn>' + role + '\\n' + (prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\\n'}}
{%- endif -%}
"""

MISTRAL = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace(index=0) %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, roles must alternate") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "tool" %}
        {{- '[TOOL_RESULTS] {"content": ' + message.content|string + "}[/TOOL_RESULTS]" }}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length != 9 %}
                {{- raise_exception("Tool call IDs should be alphanumeric strings with length 9!") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" + eos_token }}{%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- else %}
        {{- raise_exception("Only user, assistant and tool roles are known") }}
    {%- endif %}
{%- endfor %}
"""

QWEN25 = """\
{%- if tools %}
    {{- '<|im_start|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You are a helpful assistant.' }}
    {%- endif %}
    {{- "\\n\\n# Tools\\n\\n<tools>" }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools>\\n\\nCall like this:\\n<tool_call>\\n{\\"name\\": <name>, \\"arguments\\": <object>}\\n</tool_call><|im_end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|im_start|>system\\n' + messages[0]['content'] + '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|im_start|>' + message.role }}
        {%- if message.content %}
            {{- '\\n' + message.content }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- if tool_call.function is defined %}
                {%- set tool_call = tool_call.function %}
            {%- endif %}
            {{- '\\n<tool_call>\\n{"name": "' }}
            {{- tool_call.name }}
            {{- '", "arguments": ' }}
            {{- tool_call.arguments | tojson }}
            {{- '}\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if (loop.index0 == 0) or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|im_start|>user' }}
        {%- endif %}
        {{- '\\n<tool_response>\\n' }}
        {{- message.content }}
        {{- '\\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

# Drops the reasoning of earlier turns, and keeps the reasoning after the last user message.
QWEN3 = """\
{%- set ns = namespace(searching=true, last_query=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.searching and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.searching = false %}
        {%- set ns.last_query = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == "assistant" %}
        {%- set thought = '' %}
        {%- if message.reasoning_content is string %}
            {%- set thought = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query and (loop.last or thought) %}
            {{- '<|im_start|>' + message.role + '\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""

# Other features of published templates, one in each template, so that a failure names its feature.
CODER = """\
{%- macro extras(schema, handled) %}
    {%- for key in schema | reject("in", handled) %}
        {%- set value = schema[key] | tojson | safe if schema[key] is mapping or (schema[key] is sequence and schema[key] is not string) else schema[key] | string %}
        {{- '\\n<' ~ key ~ '>' ~ value ~ '</' ~ key ~ '>' }}
    {%- endfor %}
{%- endmacro %}
{%- if messages[0]["role"] == "system" %}
    {%- set system = messages[0]["content"] %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set turns = messages %}
{%- endif %}
{%- if system is defined or tools %}
    {{- "<|im_start|>system\\n" ~ (system if system is defined else "You can call functions.") }}
    {%- if tools %}
        {{- "\\n\\n# Tools\\n\\n<tools>" }}
        {%- for tool in tools %}
            {%- set tool = tool.function if tool.function is defined else tool %}
            {{- "\\n<function>\\n<name>" ~ tool.name ~ "</name>" }}
            {%- if tool.description is defined %}
                {{- '\\n<description>' ~ (tool.description | trim) ~ '</description>' }}
            {%- endif %}
            {{- '\\n<parameters>' }}
            {%- if tool.parameters.properties is mapping %}
                {%- for name, fields in tool.parameters.properties | items %}
                    {{- '\\n<parameter>\\n<name>' ~ name ~ '</name>' }}
                    {%- if fields.type is defined %}
                        {{- '\\n<type>' ~ (fields.type | string) ~ '</type>' }}
                    {%- endif %}
                    {{- extras(fields, ['name', 'type']) ~ '\\n</parameter>' }}
                {%- endfor %}
            {%- endif %}
            {{- extras(tool.parameters, ['type', 'properties']) ~ '\\n</parameters>\\n</function>' }}
        {%- endfor %}
        {{- "\\n</tools>\\n\\nTo call one, answer like this:\\n<tool_call>\\n<function=name>\\n<parameter=key>\\nvalue\\n</parameter>\\n</function>\\n</tool_call>" }}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endif %}
{%- for message in turns %}
    {%- if message.role == "assistant" and message.tool_calls is defined and message.tool_calls is iterable and message.tool_calls | length > 0 %}
        {{- '<|im_start|>assistant' }}
        {%- if message.content is defined and message.content is string and message.content | trim | length > 0 %}
            {{- '\\n' ~ (message.content | trim) ~ '\\n' }}
        {%- endif %}
        {%- for tool_call in message.tool_calls %}
            {%- set tool_call = tool_call.function if tool_call.function is defined else tool_call %}
            {{- '\\n<tool_call>\\n<function=' ~ tool_call.name ~ '>\\n' }}
            {%- if tool_call.arguments is defined %}
                {%- for name, value in tool_call.arguments | items %}
                    {%- set value = value | tojson | safe if value is mapping or (value is sequence and value is not string) else value | string %}
                    {{- '<parameter=' ~ name ~ '>\\n' ~ value ~ '\\n</parameter>\\n' }}
                {%- endfor %}
            {%- endif %}
            {{- '</function>\\n</tool_call>' }}
        {%- endfor %}
        {{- '<|im_end|>\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.previtem and loop.previtem.role != "tool" %}
            {{- '<|im_start|>user\\n' }}
        {%- endif %}
        {{- '<tool_response>\\n' ~ message.content ~ '\\n</tool_response>\\n' }}
        {%- if loop.last or loop.nextitem.role != "tool" %}
            {{- '<|im_end|>\\n' }}
        {%- endif %}
    {%- else %}
        {{- '<|im_start|>' ~ message.role ~ '\\n' ~ message.content ~ '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
"""

FEATURES = {
    "macro": "{%- macro show(k, v, depth=1) -%}\n{{ '  ' * depth }}{{ k | upper }}={{ v }}\n{% endmacro -%}\n"
             "{% for m in messages %}{{ show(m.role, m.content, depth=2) }}{% endfor %}",
    "whitespace": "{#- a comment -#}\n  {% if true %}\n  a\n  {% endif %}\n{%- if true +%}\n  b\n {%- endif %}\n"
                  "{%+ if add_generation_prompt %}\nGO\n{% endif %}\nend\n",
    "arithmetic": "{{ bos_token ~ '|' ~ eos_token ~ '|' ~ 1 + 2 ~ '|' ~ 7 // 2 ~ '|' ~ 7 % 4 ~ '|' ~ 2 ** 3 ~ '|' ~ 10 / 4 }}",
    "loop-control": "{% for m in messages %}{% if m.role == 'skip' %}{% continue %}{% endif %}"
                    "{% if m.role == 'stop' %}{% break %}{% endif %}{{ m.content }};{% endfor %}",
    "loop-vars": "{% for m in messages %}[{{ loop.index }}/{{ loop.length }}:{{ loop.revindex0 }}] {{ m.role }}"
                 "{% if loop.previtem is defined %} after {{ loop.previtem.role }}{% endif %}"
                 "{% if not loop.last %} before {{ loop.nextitem.role }}{% endif %};{% endfor %}",
    "loop-else": "{% for m in messages if m.role == 'nobody' %}x{% else %}no messages{% endfor %}",
    "generation": "a {% generation %}{{ messages[0].content }}{% endgeneration %} b",
    "default": "{{ messages[2].content | default('none', true) }} {{ nope | default('d') }} {{ nope or 'f' }} {{ nope is defined }}",
    "map-join": "{{ messages | map(attribute='role') | join(', ') }}",
    "selectattr": "{{ messages | selectattr('role', 'in', ['user', 'tool']) | list | length }} "
                  "{{ messages | rejectattr('role', 'equalto', 'user') | map(attribute='role') | list }}",
    "tojson": "{{ {'b': [1, 2.5, none, true, 1e20], 'a': 'é\"<&>\\'\u2028\U0001F600\u0001\\\\'} | tojson }}",
    "tojson-indent": "{{ [1, 'x', {}, [], {'k': [2]}] | tojson(indent=2) }}",
    "dict": "{% set d = {'z': 1, 'y': 'two'} %}{% for k, v in d | dictsort %}{{ k }}:{{ v }};{% endfor %}"
            "{% for k, v in d | items %}{{ k }}:{{ v }};{% endfor %}{% for k, v in d.items() %}{{ k }}:{{ v }};{% endfor %}"
            "{{ d.get('q', 'absent') }} {{ 'z' in d }} {{ d.keys() | list | length }} {{ d.values() | list | length }}",
    "python-repr": "{{ [none, true, 1.0, 'a', {'k': 'v'}] }} {{ [none, false] | join(' ') }} {{ none }} {{ true }}",
    "string-methods": "{{ 'a,b,,c'.split(',') | reject('equalto', '') | list | length }} {{ ' x '.strip() }} {{ 'xxaxx'.lstrip('x') }}"
                      " {{ 'a b'.replace(' ', '_').upper() }} {{ 'Abc'.lower() }} {{ 'two words'.title() }} {{ 'abc'.capitalize() }}"
                      " {{ 'abc'.startswith('ab') }} {{ 'abc'.find('c') }} {{ 'a b c'.split()[-1] }} {{ 'a-b-c'.rsplit('-', 1)[0] }}",
    "slices": "{{ 'abc'[::-1] }} {{ 'abc'[-2:] }} {{ 'abcdef'[1:-1:2] }} {{ (messages[1:] | first).role }} {{ messages[-1].role }}",
    "string-filters": "{{ 'Hello' | replace('l', 'L') }} {{ '%s-%d' | format('n', 3) }} {{ 'ab' | first }} {{ 'a b' | title }}"
                      " {{ ' t ' | trim }} {{ 'abc' | length }} {{ 'x' | string }} {{ '12' | int + 1 }} {{ 'abc' | reverse }}"
                      " {{ 'a\nb' | indent(2) }}",
    "list-filters": "{{ [3, 1, 2] | sort | last }} {{ [1, 2, 3] | sum }} {{ [1, 1, 2] | unique | list | length }} {{ range(3) | list | length }}"
                    " {{ [1, 2, 3] | batch(2) | list | length }} {{ [1, 2] + [3] }} {{ [2, 1] | max }}",
    "tests": "{{ 'x' is string }} {{ 1 is number }} {{ {} is mapping }} {{ [] is iterable }} {{ 'x' is iterable }} {{ [] is sequence }}"
             " {{ 3 is odd }} {{ none is none }} {{ false is false }} {{ true is boolean }} {{ 1 is integer }} {{ 4 is divisibleby(2) }}",
    "namespace": "{% set ns = namespace(n=0, last='') %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% set ns.last = m.role %}{% endfor %}"
                 "{{ ns.n }} {{ ns.last }}{% set x = 1 %}{% for m in messages %}{% set x = 2 %}{% endfor %}{{ x }}",
    "set-block": "{% set t %}a{{ messages[0].content }}b{% endset %}{{ t | length }} {{ t }} {% filter upper %}f{% endfilter %}",
    "strftime": "{{ strftime_now('%Y') | length }}",
    "raise": "{{ raise_exception('told you so') }}",
    "undefined": "{{ nope.deeper }}",
    "autoescape": "{{ '<b>&' }} {{ '<b>&' | e }}",
}

WEATHER = {"type": "function", "function": {
    "name": "get_weather", "description": "Weather of a city; \"now\" <or> later & so on, in \u00b0C.",
    "parameters": {"type": "object", "properties": {
        "city": {"type": "string", "description": "Like Z\u00fcrich"},
        "days": {"type": "integer", "minimum": 1}}, "required": ["city"]}}}
CLOCK = {"type": "function", "function": {"name": "now", "description": "", "parameters": {"type": "object", "properties": {}}}}


def user(text):
    return {"role": "user", "content": text}


def assistant(text):
    return {"role": "assistant", "content": text}


def system(text):
    return {"role": "system", "content": text}


def call(*functions, content=None, ids=True):
    calls = [{"type": "function", "function": {"name": n, "arguments": a}} for n, a in functions]
    for i, c in enumerate(calls):
        if ids:
            c["id"] = f"call{i:05}"
    message = {"role": "assistant", "tool_calls": calls}
    return message | ({"content": content} if content is not None else {})


TOOL = {"role": "tool", "name": "get_weather", "content": "{\"temp\": 21.5, \"sky\": \"\u2600\"}"}
PLAIN = [user("Hello,  w\u00f6rld! ")]
CHAT = [system(" Be brief.\n"), user("Hi"), assistant(" Hello. "), user("1 < 2 && \"q\" {{ x }}\n\tok? ")]
TURN = [user("Weather in Z\u00fcrich?"), call(("get_weather", {"city": "Z\u00fcrich", "days": 2})), TOOL]
THINK = [user("2+2?"), assistant("<think>\nadd them\n</think>\n\n4"), user("3+3?"), assistant("<think>\nagain\n</think>\n\n6")]
PARTS = [system([{"type": "text", "text": "Be brief."}]),
         user([{"type": "text", "text": " one "}, {"type": "image"}, {"type": "text", "text": "two"}])]

# template -> (source, bos, eos, {case: (messages, tools, add_generation_prompt)})
TEMPLATES = {
    "smollm2": (None, "<|im_start|>", "<|im_end|>", {
        "plain": (PLAIN, None, True), "chat": (CHAT, None, True), "no-prompt": (CHAT, None, False),
        "late-system": ([user("a"), system("b")], None, True), "none-content": ([user(None)], None, True)}),
    "llama3": (LLAMA3, "<|begin_of_text|>", "<|eot_id|>", {
        "plain": (PLAIN, None, True), "chat": (CHAT, None, True), "tools": (TURN, [WEATHER, CLOCK], True),
        "two-calls": ([user("x"), call(("now", {}), ("now", {}))], [CLOCK], False),
        "object-result": (TURN[:2] + [{"role": "tool", "content": {"temp": 21.5, "list": [1, None]}}], None, True)}),
    "gemma": (GEMMA, "<bos>", "<eos>", {
        "plain": (PLAIN, None, True), "chat": (CHAT[1:], None, False), "system": (CHAT, None, True),
        "two-users": ([user("a"), user("b")], None, True)}),
    "gemma3": (GEMMA3, "<bos>", "<eos>", {
        "chat": (CHAT, None, True), "parts": (PARTS, None, True), "bad-content": ([user(3)], None, True)}),
    "mistral": (MISTRAL, "<s>", "</s>", {
        "plain": (PLAIN, None, True), "chat": (CHAT, None, True), "two-users": ([user("a"), user("b")], None, True),
        "tools": (TURN + [assistant("Warm."), user("And now?")], [WEATHER, CLOCK], True),
        "bad-id": ([user("x"), call(("now", {}), ids=False)], None, False),
        "unknown-role": ([user("x"), {"role": "critic", "content": "y"}], None, False)}),
    "coder": (CODER, "<|endoftext|>", "<|im_end|>", {
        "chat": (CHAT, None, True),
        "tools": (TURN, [WEATHER, CLOCK], True),
        "two-calls": ([user("?"), call(("get_weather", {"city": "Z\u00fcrich\n", "days": 2}), ("now", {}), content="Let me see."), TOOL, TOOL,
                       call(("plot", {"points": [1, 2.5], "style": {"dashed": True}, "on": None}))], [WEATHER, CLOCK], False),
    }),
    "qwen25": (QWEN25, "<|endoftext|>", "<|im_end|>", {
        "plain": (PLAIN, None, True), "chat": (CHAT, None, True), "tools": (TURN, [WEATHER, CLOCK], True),
        "two-results": ([system("S"), user("u"), call(("now", {}), ("get_weather", {"city": "\u6771\u4eac"}), content="Let me see."),
                         TOOL, TOOL, assistant("done")], [WEATHER], False)}),
    "qwen3": (QWEN3, "<|endoftext|>", "<|im_end|>", {
        "think": (THINK, None, False), "think-prompt": (THINK[:3], None, True),
        "reasoning": ([user("q"), {"role": "assistant", "content": "\na", "reasoning_content": "\nr\n"}], None, False)}),
}

MIXED = [user("a"), {"role": "skip", "content": "b"}, assistant(""), {"role": "stop", "content": "c"}, user("d")]
TEMPLATES |= {f"feature-{k}": (v, "<s>", "</s>", {"": (MIXED, None, True)}) for k, v in FEATURES.items()}


def render(template, bos, eos, messages, tools, add_generation_prompt):
    tok = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(BPE()), bos_token=bos, eos_token=eos)
    tok.chat_template = template
    try:
        return "expected", tok.apply_chat_template(messages, tools=tools, add_generation_prompt=add_generation_prompt,
                                                   tokenize=False)
    except (jinja2.TemplateError, TypeError, IndexError) as e:
        return "error", str(e)


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out", type=pathlib.Path)
    ap.add_argument("--smollm2", type=pathlib.Path, required=True)
    a = ap.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    for name, (template, bos, eos, cases) in TEMPLATES.items():
        template = template or gguf.GGUFReader(a.smollm2).fields["tokenizer.chat_template"].contents()
        for case, (messages, tools, add) in cases.items():
            what, text = render(template, bos, eos, messages, tools, add)
            value = dict(template=template, messages=messages, add_generation_prompt=add, bos_token=bos, eos_token=eos)
            if tools is not None:
                value["tools"] = tools
            value[what] = text
            (a.out / f"{name}-{case}.json".replace("-.", ".")).write_text(json.dumps(value, indent=1, ensure_ascii=True) + "\n")


if __name__ == "__main__":
    main()
