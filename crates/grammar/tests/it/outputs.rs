//! Whatever is drawn from the tokens that a grammar allows is what its constraint asks for.

use std::sync::{Arc, LazyLock};

use multigraft_grammar::{Constraint, Grammar, GrammarError, Grammars, MAX_CONSTRAINT_BYTES};
use multigraft_text::Tokenizer;
use proptest::prelude::*;
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};

/// A byte-level vocabulary, one of SentencePiece's with a space before every text, and one without.
static TOKENIZERS: LazyLock<Vec<(Arc<Tokenizer>, Grammars)>> = LazyLock::new(|| {
    let load = |name| {
        let folder = multigraft_testing::fixtures().join("tokenizer").join(name);
        let tokenizer = Arc::new(Tokenizer::from_folder(&folder).unwrap());
        let grammars = Grammars::new(Arc::clone(&tokenizer)).unwrap();
        (tokenizer, grammars)
    };
    ["smollm", "spm-llama", "spm-gemma"].map(load).into()
});

/// Outputs end sooner or later if ends are chosen where they may be.
const LONGEST: usize = 3000;

/// The text of one output whose tokens are drawn evenly from those that are allowed; short texts
/// are preferred now and then, or strings would never end.
fn drawn(tokenizer: &Arc<Tokenizer>, mut grammar: Grammar, random: &mut ChaCha8Rng) -> String {
    let mut bytes = Vec::new();
    for _ in 0..LONGEST {
        let Some(allowed) = grammar.allowed().unwrap() else {
            return String::from_utf8(bytes).unwrap();
        };
        let allowed: Vec<u32> = allowed.iter().collect();
        assert!(!allowed.is_empty());
        let ends = tokenizer.eos().iter().find(|eos| allowed.contains(eos));
        if ends.is_some() && random.random_bool(0.5) {
            return String::from_utf8(bytes).unwrap();
        }
        let closing: Vec<u32> = allowed
            .iter()
            .copied()
            .filter(|&id| {
                tokenizer
                    .token_bytes(id)
                    .iter()
                    .all(|byte| b"\"}],".contains(byte))
            })
            .filter(|id| !tokenizer.is_special(*id))
            .collect();
        let from = match random.random_bool(0.3) && !closing.is_empty() {
            true => &closing,
            false => &allowed,
        };
        let token = from[random.random_range(0..from.len())];
        if tokenizer.eos().contains(&token) {
            return String::from_utf8(bytes).unwrap();
        }
        assert!(!tokenizer.is_special(token), "{}", tokenizer.token_text(token));
        bytes.extend_from_slice(tokenizer.token_bytes(token));
        grammar.accept(token).unwrap();
    }
    panic!("no end: {}", String::from_utf8_lossy(&bytes));
}

fn each(constraint: &Constraint, count: u64, check: impl Fn(&str)) {
    for (tokenizer, grammars) in &*TOKENIZERS {
        let grammar = grammars.compile(constraint).unwrap();
        for seed in 0..count {
            let mut random = ChaCha8Rng::seed_from_u64(seed);
            check(&drawn(tokenizer, grammar.clone(), &mut random));
        }
    }
}

/// JSON; `None` if one of its numbers is larger than any float, which JSON allows and its reader
/// does not.
fn parsed(text: &str) -> Option<Value> {
    match serde_json::from_str(text) {
        Ok(value) => Some(value),
        Err(error) if error.to_string().starts_with("number out of range") => None,
        Err(error) => panic!("{error}: {text}"),
    }
}

#[test]
fn json_is_what_its_schema_allows() {
    let schemas = [
        json!({"type": "object", "properties": {
            "name": {"type": "string", "maxLength": 12},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "minItems": 1, "maxItems": 3},
            "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/point"}]}},
            "required": ["name", "age", "tags", "next"], "additionalProperties": false,
            "$defs": {"point": {"type": "object", "properties": {"x": {"type": "number"}, "y": {"type": "number"}},
                "required": ["x"], "additionalProperties": false}}}),
        json!({"type": "array", "items": {"type": "boolean"}, "maxItems": 4}),
        json!({"const": "it's \"so\" é 🦊"}),
        json!({"type": "string", "pattern": "^[a-c]{2,4}-[0-9]+$", "maxLength": 20}),
        json!({"type": "string", "format": "date"}),
        json!({"oneOf": [{"type": "integer", "multipleOf": 5, "minimum": -100, "maximum": 100}, {"enum": ["none", null]}]}),
        json!({"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 2}),
    ];
    for schema in schemas {
        let validator = jsonschema::validator_for(&schema).unwrap();
        each(&Constraint::Json(schema.clone()), 30, |text| {
            if let Some(value) = parsed(text) {
                assert!(validator.is_valid(&value), "{text} for {schema}");
            }
        });
    }
}

#[test]
fn any_object_is_json() {
    each(&Constraint::json_object(), 20, |text| {
        assert!(parsed(text).is_none_or(|value| value.is_object()), "{text}");
    });
}

#[test]
fn the_whole_text_matches_a_regular_expression() {
    for pattern in [
        "(foo|bar)+[0-9]{2,5}\\.?",
        "[A-Z][a-zà-ÿ]* is [0-9]{1,3} years old\\.",
        "\\p{Greek}{3}",
    ] {
        let whole = regex::Regex::new(&format!("^(?:{pattern})$")).unwrap();
        each(&Constraint::Regex(pattern.to_owned()), 30, |text| {
            assert!(whole.is_match(text), "{text:?} for {pattern}");
        });
    }
}

#[test]
fn a_choice_is_one_of_its_texts() {
    let texts = ["yes", "no", "yes, but \"no\"", "né\n", "<|im_end|>"].map(str::to_owned);
    each(&Constraint::Choice(texts.to_vec()), 30, |text| {
        assert!(texts.iter().any(|choice| choice == text), "{text:?}");
    });
}

#[test]
fn both_kinds_of_grammars_say_the_same() {
    let sum = regex::Regex::new("^[0-9]{1,3}( [+-] [0-9]{1,3})*$").unwrap();
    for grammar in [
        "start: number (\" \" SIGN \" \" number)*\nnumber: /[0-9]{1,3}/\nSIGN: \"+\" | \"-\"\n",
        "# sums\nroot ::= number (\" \" the-sign \" \" number)*\nnumber ::= [0-9]{1,3}\nthe-sign ::= [+-]\n",
    ] {
        each(&Constraint::Grammar(grammar.to_owned()), 30, |text| {
            assert!(sum.is_match(text), "{text:?}");
        });
    }
}

#[test]
fn a_clone_goes_its_own_way() {
    let (tokenizer, grammars) = &TOKENIZERS[0];
    let choice = Constraint::Choice(vec!["left".to_owned(), "right".to_owned()]);
    let mut grammar = grammars.compile(&choice).unwrap();
    let before = grammar.clone().allowed().unwrap().unwrap();
    let token = before
        .iter()
        .find(|&id| tokenizer.token_bytes(id).starts_with(b"l"))
        .unwrap();
    let other = grammar.clone();
    grammar.accept(token).unwrap();
    let same = other.clone().allowed().unwrap().unwrap();
    assert!(before.iter().eq(same.iter()));
    let right = tokenizer.encode("right", false).unwrap()[0];
    let mut other = other;
    other.accept(right).unwrap();
    assert!(grammar.accept(right).is_err(), "`l` and `right` are no choice");
}

#[test]
fn only_allowed_tokens_keep_their_logits_also_beyond_the_vocabulary() {
    let (tokenizer, grammars) = &TOKENIZERS[0];
    let constraint = Constraint::Regex("[a-f]+".to_owned());
    let allowed = grammars.compile(&constraint).unwrap().allowed().unwrap().unwrap();
    let mut logits = vec![1.0; tokenizer.vocab_size() + 100];
    allowed.keep_only(&mut logits);
    for (id, logit) in (0..).zip(logits) {
        assert_eq!(logit == 1.0, allowed.contains(id), "{id}");
    }
    assert!(allowed.len() > 6 && !allowed.is_empty());
}

#[test]
fn what_cannot_be_honoured_is_refused_and_said() {
    let grammars = &TOKENIZERS[0].1;
    for (constraint, what) in [
        (Constraint::Json(json!({"type": "objct"})), "Invalid type: objct"),
        (
            Constraint::Json(json!({"type": "array", "uniqueItems": true})),
            "uniqueItems",
        ),
        (Constraint::Json(json!({"not": {"type": "string"}})), "not"),
        (Constraint::Json(json!({"$ref": "http://x.y/z"})), "http://x.y/z"),
        (Constraint::Json(json!({"$ref": "#/$defs/x"})), "'#/$defs/x'"),
        (Constraint::Json(json!({"enum": []})), "Unsatisfiable"),
        (Constraint::Json(json!(7)), "is an object, not 7"),
        (Constraint::Regex("(".to_owned()), "unclosed group"),
        (Constraint::Regex("a(?=b)".to_owned()), "look-around"),
        (
            Constraint::Grammar("start: x".to_owned()),
            "at 1(8): unknown name: \"x\"",
        ),
        (Constraint::Grammar("  ".to_owned()), "it is empty"),
        (
            Constraint::Grammar("root ::= root \"a\"".to_owned()),
            "no text that it allows",
        ),
        (Constraint::Choice(Vec::new()), "nothing to choose from"),
        (Constraint::Choice(vec![String::new()]), "is empty"),
        (
            Constraint::Regex("a".repeat(MAX_CONSTRAINT_BYTES + 1)),
            "may have at most 131072",
        ),
    ] {
        let error = grammars.compile(&constraint).expect_err(what).to_string();
        assert!(error.contains(what), "{error}, not {what}");
        assert!(!error.contains("feature") && !error.contains('\n'), "{error}");
    }
}

#[test]
fn too_much_work_is_an_error() {
    let grammars = &TOKENIZERS[0].1;
    let nested = Constraint::Regex("((a{1,500}b?){1,500}c?){1,500}".to_owned());
    let deep = json!({"type": "string", "pattern": "^(([a-z]{0,99}[0-9]?){0,99}x?){0,99}$"});
    for constraint in [nested, Constraint::Json(deep)] {
        match grammars.compile(&constraint) {
            Err(GrammarError::Unsupported(_)) => {}
            Ok(mut grammar) => {
                // What is let through stays within its bounds as well.
                assert!(!matches!(grammar.allowed(), Err(GrammarError::Unsupported(_))));
            }
            Err(other) => panic!("{other}"),
        }
    }
}

/// Names of three letters, each referring to the next: as deep as a constraint can be.
#[test]
fn rules_and_references_may_be_as_deep_as_a_constraint_is_long() {
    let name = |index: usize| -> String {
        let letter = |place: usize| char::from(b'a' + (index / 26_usize.pow(place as u32) % 26) as u8);
        [2, 1, 0].map(letter).iter().collect()
    };
    let depth = MAX_CONSTRAINT_BYTES / "abc:abd\n".len() - 10;
    let rules: String = (0..depth)
        .map(|index| format!("{}:{}\n", name(index), name(index + 1)))
        .collect();
    let lark = Constraint::Grammar(format!("start:{}\n{rules}{}:\"a\"\n", name(0), name(depth)));
    let depth = MAX_CONSTRAINT_BYTES / "\"abc\":{\"$ref\":\"#/$defs/abd\"},".len() - 10;
    let reference = |index| json!({"$ref": format!("#/$defs/{}", name(index))});
    let mut definitions: serde_json::Map<String, Value> = (0..depth)
        .map(|index| (name(index), reference(index + 1)))
        .collect();
    definitions.insert(name(depth), json!({"type": "boolean"}));
    let schema = Constraint::Json(json!({"$ref": format!("#/$defs/{}", name(0)), "$defs": definitions}));
    for constraint in [lark, schema] {
        // It is compiled or refused; what must not be is the end of the process.
        match TOKENIZERS[0].1.compile(&constraint) {
            Ok(grammar) => assert!(grammar.clone().allowed().unwrap().is_some()),
            Err(GrammarError::Unsupported(reason)) => assert!(!reason.contains("panicked"), "{reason}"),
            Err(other) => panic!("{other}"),
        }
    }
}

proptest! {
    /// Bytes from outside: refused, or a grammar that says what may come first.
    #[test]
    fn whatever_is_written_is_refused_or_compiled(
        kind in 0..3_u8,
        text in r#"(root ::= |start: )?[a-z0-9"'/\[\](){}|*+?~.,:\\\n <>^$%&=-]{0,60}"#,
    ) {
        let constraint = match kind {
            0 => Constraint::Regex(text),
            1 => Constraint::Grammar(text),
            _ => Constraint::Choice(vec![text]),
        };
        match TOKENIZERS[0].1.compile(&constraint) {
            Ok(grammar) => prop_assert!(!matches!(grammar.clone().allowed(), Ok(Some(first)) if first.is_empty())),
            Err(error) => prop_assert!(!error.to_string().contains("panicked"), "{}", error),
        }
    }
}
