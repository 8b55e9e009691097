//! Any bytes as a constraint: the first says of which kind, the rest is its text. Refused, or a
//! grammar that allows something, and goes on allowing something or an end, whatever of it is
//! taken. The readers of GBNF and of Lark are among the kinds.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use multigraft_grammar::{Constraint, Grammars};

/// The end of an output; the bytes come before it.
const END: u32 = 256;
/// Tokens that are taken of a grammar.
const STEPS: usize = 24;
/// Longer texts find nothing that shorter ones do not, later.
const LONGEST: usize = 4 << 10;

static GRAMMARS: LazyLock<Grammars> = LazyLock::new(|| {
    let mut words: Vec<Vec<u8>> = (0..=u8::MAX).map(|byte| vec![byte]).collect();
    words.push(b"\xff<end>".to_vec());
    Grammars::of_words(&words, &[END]).expect("a vocabulary with an end")
});

fuzz_target!(|bytes: &[u8]| {
    let Some((kind, text)) = bytes.split_first() else {
        return;
    };
    let Some(text) = std::str::from_utf8(text)
        .ok()
        .filter(|text| text.len() <= LONGEST)
    else {
        return;
    };
    let constraint = match kind % 4 {
        0 => Constraint::Grammar(text.to_owned()),
        1 => Constraint::Regex(text.to_owned()),
        2 => match serde_json::from_str(text) {
            Ok(schema) => Constraint::Json(schema),
            Err(_) => return,
        },
        _ => Constraint::Choice(text.split('\n').map(str::to_owned).collect()),
    };
    let Ok(mut grammar) = GRAMMARS.compile(&constraint) else {
        return;
    };
    for step in 0..STEPS {
        // Parsers have bounds of their own, whose end is an error.
        let Ok(Some(allowed)) = grammar.allowed() else {
            return;
        };
        let count = allowed.len();
        assert!(count > 0, "a grammar that was not done allows nothing");
        // Which of them depends on the input alone.
        let choice = bytes[step % bytes.len()] as usize % count;
        let token = allowed.iter().nth(choice).expect("it has so many");
        assert!(allowed.contains(token));
        if token == END || grammar.accept(token).is_err() {
            return;
        }
    }
});
