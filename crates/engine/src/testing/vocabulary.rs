//! A small vocabulary in which characters can be cut in two.

use std::sync::LazyLock;

use multigraft_grammar::{Constraint, Grammar, Grammars};

use crate::vocabulary::{Decoder, Vocabulary};

/// The bytes of each token. Some are parts of a character, so that outputs hold whole, cut and broken characters.
const TEXTS: [&[u8]; VOCAB] = [
    b"",
    b"",
    b"a",
    b"b",
    b"c",
    b"ab",
    b"ba",
    b"abc",
    b" a",
    b" b",
    b" ",
    b"\n",
    b"\xc3",
    b"\xa4",
    "ä".as_bytes(),
    b"\xe2\x82",
    b"\xac",
    "€".as_bytes(),
    b"x\xf0\x9f",
    b"\x98\x80y",
    b".",
    b"aa",
    b"bb",
    b"\n\n",
];

pub(crate) const VOCAB: usize = 24;
/// Ends a turn.
pub(crate) const EOS: u32 = 0;
/// Special without ending anything.
pub(crate) const SPECIAL: u32 = 1;

/// The specification of what a decoder gives in pieces.
pub(crate) fn decode(ids: &[u32]) -> String {
    let bytes: Vec<u8> = ids.iter().flat_map(|&id| TEXTS[id as usize]).copied().collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The grammar of texts that a regular expression matches.
pub(crate) fn matching(pattern: &str) -> Grammar {
    static GRAMMARS: LazyLock<Grammars> = LazyLock::new(|| {
        // Special tokens have no text: a byte that is none stands before their names.
        let special = |id: usize| vec![0xff, b'<', b'0' + id as u8, b'>'];
        let word = |(id, text): (usize, &&[u8])| match text.is_empty() {
            true => special(id),
            false => text.to_vec(),
        };
        let words: Vec<Vec<u8>> = TEXTS.iter().enumerate().map(word).collect();
        Grammars::of_words(&words, &[EOS]).unwrap()
    });
    GRAMMARS.compile(&Constraint::Regex(pattern.to_owned())).unwrap()
}

pub(crate) struct FakeVocabulary;

impl Vocabulary for FakeVocabulary {
    fn decoder(&self) -> Box<dyn Decoder> {
        Box::new(FakeDecoder::default())
    }

    fn token_text(&self, id: u32) -> String {
        format!("<{id}>")
    }

    fn is_special(&self, id: u32) -> bool {
        id == EOS || id == SPECIAL
    }

    fn eos(&self) -> &[u32] {
        &[EOS]
    }
}

/// Holds back the bytes of a character that is not complete.
#[derive(Default)]
struct FakeDecoder {
    pending: Vec<u8>,
}

impl Decoder for FakeDecoder {
    fn push(&mut self, id: u32) -> String {
        self.pending.extend(TEXTS[id as usize]);
        let mut text = String::new();
        loop {
            match std::str::from_utf8(&self.pending) {
                Ok(rest) => {
                    text.push_str(rest);
                    self.pending.clear();
                    return text;
                }
                Err(error) => {
                    let valid = error.valid_up_to();
                    text.push_str(std::str::from_utf8(&self.pending[..valid]).unwrap());
                    let Some(broken) = error.error_len() else {
                        self.pending.drain(..valid);
                        return text;
                    };
                    text.push(char::REPLACEMENT_CHARACTER);
                    self.pending.drain(..valid + broken);
                }
            }
        }
    }

    fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }
}
