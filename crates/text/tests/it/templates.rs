//! Chat templates are programs from strangers: what they may do, and what they see.

use multigraft_text::{ChatInput, ChatTemplate, TextError};
use serde_json::{Map, Value, json};

fn render_with(template: &str, messages: &[Value], extra: &Map<String, Value>) -> Result<String, TextError> {
    ChatTemplate::new(template)?.render(&ChatInput {
        messages,
        tools: None,
        add_generation_prompt: false,
        bos: "<s>",
        eos: "</s>",
        extra,
    })
}

fn render(template: &str) -> Result<String, TextError> {
    render_with(template, &[], &Map::new())
}

#[test]
fn endless_work_ends() {
    let bombs = [
        "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}",
        "{% macro f(n) %}{% for i in range(10) %}{{ f(n) }}{% endfor %}{% endmacro %}{{ f(0) }}",
        "{% set ns = namespace(x='abcdefgh') %}{% for i in range(99) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
        "{{ 'x' * 99999999999 }}",
        "{{ [1] * 99999999999 }}",
        "{{ '%9999999999d'|format(1) }}",
        "{{ '{:9999999999}'.format(1) }}",
        "{{ '{:.9999999999f}'.format(1.0) }}",
        "{{ 'aaaaaaaa'.replace('a', 'a' * 1000000).replace('a', 'a' * 1000000) }}",
        "{{ ('x' * 1000000)|indent(1000000000) }}",
        "{{ [1]|batch(1000000000, 0)|list }}",
        "{% set ns = namespace(x={}) %}{% for i in range(60) %}{% set ns.x = {'a': ns.x, 'b': ns.x} %}{% endfor %}\
         {{ ns.x|tojson }}",
        "{% set ns = namespace(x=1) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x }}",
        "{{ range(100000)|map('tojson')|join(('x' * 100000)) }}",
    ];
    for bomb in bombs {
        let error = render(bomb).expect_err(bomb);
        assert!(
            matches!(error, TextError::TemplateLimit(_) | TextError::TemplateFailed(_)),
            "{bomb}: {error}"
        );
    }
    let error = render(bombs[0]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the chat template went over its limit of computation"
    );
}

#[test]
fn values_nest_as_deep_as_fuel_allows() {
    let nested = "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% for j in range(99999) %}\
                  {% set ns.x = [ns.x] %}{% endfor %}{% endfor %}";
    assert!(matches!(render(nested), Err(TextError::TemplateLimit(_))));
    let printed = "{% set ns = namespace(x=[]) %}{% for i in range(40000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}";
    assert_eq!(render(printed).unwrap().len(), 80_002);
    let compared = printed.replace("{{ ns.x }}", "{{ ns.x == [ns.x] }}");
    assert_eq!(render(&compared).unwrap(), "False");
    let as_json = printed.replace("{{ ns.x }}", "{{ ns.x|tojson }}");
    let error = render(&as_json).unwrap_err().to_string();
    assert!(
        error.contains("tojson: the value is nested too deeply"),
        "{error}"
    );
}

#[test]
fn expressions_are_as_long_as_compiles_in_no_time() {
    let chains = [
        "-",
        "not ",
        ".a",
        "[0]",
        "()",
        "|trim",
        "+1",
        " ~ x",
        " and x",
        " * x",
        "**2",
        " if x else x",
    ];
    for link in chains {
        let source = |links: usize| format!("line 1\n{{{{ x{} }}}}", link.repeat(links));
        let error = ChatTemplate::new(&source(5000)).unwrap_err().to_string();
        assert!(
            error.starts_with("the chat template is not valid: the tag on line 2 has "),
            "{link}: {error}"
        );
        // As long as is allowed: it compiles or not, but comes back.
        let _ = render(&source(4000 / link.trim().len()));
    }
    for open in ["(", "[", "{'a':"] {
        let error = ChatTemplate::new(&format!("{{{{ {} }}}}", open.repeat(10_000)))
            .unwrap_err()
            .to_string();
        assert!(error.contains("maximum recursion limits"), "{open}: {error}");
    }
    let elif = format!("{{% if x %}}{}{{% endif %}}", "{% elif x %}".repeat(10_000));
    assert_eq!(render(&elif).unwrap(), "");
    let deep = "{% if true %}".repeat(1000);
    assert!(
        ChatTemplate::new(&deep)
            .unwrap_err()
            .to_string()
            .contains("maximum recursion limits")
    );
    let long = format!("{{{{ '{}' }}}}", "long text ".repeat(10_000));
    assert_eq!(render(&long).unwrap().len(), 100_000, "strings do not count");
    let error = ChatTemplate::new(&"x".repeat(200_000)).unwrap_err().to_string();
    assert_eq!(
        error,
        "the chat template is not valid: it has 200000 bytes, more than 131072 are not compiled"
    );
}

#[test]
fn a_long_conversation_stays_within_the_limits() {
    let turn = "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content|trim + '<|im_end|>\n' }}{% endfor %}";
    let frame = "<|im_start|>user\n<|im_end|>\n".len();
    for (count, words) in [(8000, 5), (1000, 500)] {
        let text = "word ".repeat(words);
        let messages: Vec<Value> = (0..count)
            .map(|_| json!({ "role": "user", "content": text }))
            .collect();
        let rendered = render_with(turn, &messages, &Map::new()).unwrap();
        assert_eq!(rendered.len(), count * (text.len() - 1 + frame));
    }
}

#[test]
fn nothing_but_the_conversation_can_be_reached() {
    for escape in [
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% extends 'default' %}",
        "{{ ''.__class__.__mro__ }}",
        "{{ self._TemplateReference__context }}",
        "{{ lipsum.__globals__ }}",
        "{{ env('HOME') }}",
    ] {
        assert!(
            matches!(
                render(escape),
                Err(TextError::TemplateFailed(_) | TextError::TemplateLimit(_))
            ),
            "{escape}"
        );
    }
}

#[test]
fn a_refusal_reaches_the_user_word_for_word() {
    let error = render("{{ raise_exception('Conversation roles must alternate') }}").unwrap_err();
    assert!(matches!(error, TextError::TemplateRefused(_)));
    assert_eq!(error.to_string(), "Conversation roles must alternate");
    let in_macro = "{% macro check() %}{{ raise_exception('no') }}{% endmacro %}{{ check() }}";
    assert_eq!(render(in_macro).unwrap_err().to_string(), "no");
}

#[test]
fn a_failure_says_what_and_where() {
    let error = render("\n\n{{ messages[0].content.nope() }}")
        .unwrap_err()
        .to_string();
    assert!(error.starts_with("the chat template failed: "), "{error}");
    assert!(error.ends_with("(line 3)"), "{error}");
}

#[test]
fn extra_variables_win_but_over_the_conversation() {
    let extra = json!({ "enable_thinking": false, "bos_token": "mine" });
    let template = "{{ enable_thinking }} {{ bos_token }} {{ eos_token }} {{ tools }} {{ nope }}|";
    let rendered = render_with(template, &[], extra.as_object().unwrap()).unwrap();
    assert_eq!(rendered, "False mine </s> None |");
    let extra = json!({ "messages": [{"role": "user", "content": "another"}], "add_generation_prompt": 7 });
    let messages = [json!({"role": "user", "content": "mine"})];
    let template = "{{ messages[0].content }} {{ add_generation_prompt == 7 }}";
    let rendered = render_with(template, &messages, extra.as_object().unwrap()).unwrap();
    assert_eq!(rendered, "mine False");
}

#[test]
fn tojson_is_pythons_json_dumps() {
    let extra = json!({ "x": {
        "text": "é\"\\\n\t\u{8}\u{c}\u{1}\u{7f}</a>&'🦀",
        "numbers": [0, -1, 1.0, 0.1, -0.0, 1e16, 1.5e-7, 123456789012345678_u64, 1e15, 0.0001],
        "empty": [{}, []],
        "constants": [true, false, null],
    }});
    let json = |filter: &str| {
        render_with(&format!("{{{{ x|{filter} }}}}"), &[], extra.as_object().unwrap()).unwrap()
    };
    // Each from Python's json.dumps with the same arguments.
    assert_eq!(
        json("tojson"),
        "{\"text\": \"é\\\"\\\\\\n\\t\\b\\f\\u0001\u{7f}</a>&'🦀\", \"numbers\": [0, -1, 1.0, 0.1, -0.0, 1e+16, \
         1.5e-07, 123456789012345678, 1000000000000000.0, 0.0001], \"empty\": [{}, []], \
         \"constants\": [true, false, null]}"
    );
    assert_eq!(
        json("tojson(ensure_ascii=true, sort_keys=true, separators=(',', ':'))"),
        "{\"constants\":[true,false,null],\"empty\":[{},[]],\"numbers\":[0,-1,1.0,0.1,-0.0,1e+16,1.5e-07,\
         123456789012345678,1000000000000000.0,0.0001],\"text\":\"\\u00e9\\\"\\\\\\n\\t\\b\\f\\u0001\u{7f}</a>&'\\ud83e\\udd80\"}"
    );
    let short = |filter: &str| render(&format!("{{{{ {{'a': [1, {{}}], 'b': []}}|{filter} }}}}")).unwrap();
    assert_eq!(
        short("tojson(indent=2)"),
        "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": []\n}"
    );
    assert_eq!(
        short("tojson(indent='\t')"),
        "{\n\t\"a\": [\n\t\t1,\n\t\t{}\n\t],\n\t\"b\": []\n}"
    );
    assert_eq!(short("tojson(indent=none)"), "{\"a\": [1, {}], \"b\": []}");
    assert!(render("{{ 1|tojson(indent=99) }}").is_err());
    assert!(render("{{ 1|tojson(nope=1) }}").is_err());
}

#[test]
fn content_is_handed_over_as_the_template_takes_it() {
    let text = json!([{ "role": "user", "content": "hi" }]);
    let parts = json!([{ "role": "user", "content": [{ "type": "text", "text": "h" }, { "type": "text", "text": "i" }] }]);
    let templates = [
        "{% for m in messages %}{{ m.content }}{% endfor %}",
        "{% for m in messages %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endfor %}",
        "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}\
         {% for p in m.content if p.type == 'text' %}{{ p.text }}{% endfor %}{% endif %}{% endfor %}",
        "{% for m in messages %}{{ m.content | trim }}{% endfor %}",
    ];
    for template in templates {
        for messages in [&text, &parts] {
            let rendered = render_with(template, messages.as_array().unwrap(), &Map::new()).unwrap();
            assert_eq!(rendered, "hi", "{template}");
        }
    }
}

#[test]
fn a_template_is_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<ChatTemplate>();
    shared::<multigraft_text::Tokenizer>();
    shared::<multigraft_text::Detokenizer>();
}
