//! A small vocabulary in which characters can be split across tokens.

use std::sync::LazyLock;

use multigraft_grammar::{Constraint, Grammar, Grammars};

use crate::vocabulary::{Decoder, Vocabulary};

/// The bytes of each token. Some are parts of a character, so that outputs hold whole, cut and
/// broken characters.
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
/// A special token that does not end the output.
pub(crate) const SPECIAL: u32 = 1;

/// The bytes that a token adds to a text; of a special token its name, if that is to be shown.
fn bytes(id: u32, show_special: bool) -> &'static [u8] {
    match id {
        EOS if show_special => b"<e>",
        SPECIAL if show_special => b"<s>",
        _ => TEXTS[id as usize],
    }
}

/// The specification of a decoder: the whole text.
pub(crate) fn decode(ids: &[u32], show_special: bool) -> String {
    let bytes: Vec<u8> = ids
        .iter()
        .flat_map(|&id| bytes(id, show_special))
        .copied()
        .collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The part of the text that a decoder gives before the end: all but an incomplete character.
pub(crate) fn certain(ids: &[u32], show_special: bool) -> usize {
    let bytes: Vec<u8> = ids
        .iter()
        .flat_map(|&id| bytes(id, show_special))
        .copied()
        .collect();
    let chunks = bytes.utf8_chunks();
    let rest = chunks.last().map_or(0, |last| match last.invalid() {
        [] => 0,
        cut if std::str::from_utf8(cut).is_err_and(|error| error.error_len().is_none()) => {
            char::REPLACEMENT_CHARACTER.len_utf8()
        }
        _ => 0,
    });
    String::from_utf8_lossy(&bytes).len() - rest
}

/// The grammar of a regular expression.
pub(crate) fn matching(pattern: &str) -> Grammar {
    static GRAMMARS: LazyLock<Grammars> = LazyLock::new(|| {
        // Special tokens have no text, so an invalid byte precedes their names.
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
    fn decoder(&self, show_special: bool) -> Box<dyn Decoder> {
        Box::new(FakeDecoder {
            show_special,
            ..FakeDecoder::default()
        })
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

/// Holds back the bytes of an incomplete character.
#[derive(Default)]
struct FakeDecoder {
    show_special: bool,
    pending: Vec<u8>,
}

impl Decoder for FakeDecoder {
    fn push(&mut self, id: u32) -> String {
        self.pending.extend(bytes(id, self.show_special));
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
