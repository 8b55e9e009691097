//! Tokens to text, one at a time.

use std::sync::Arc;

use super::{Pieces, Tokenizer};

/// Turns a stream of tokens into a stream of text. A character is returned when the last of its
/// bytes has arrived, never a part of one.
///
/// The texts of all calls of [`push`](Self::push) and of the final [`finish`](Self::finish) add up
/// to exactly the text that [`Tokenizer::decode`] gives for all the ids.
#[derive(Debug, Clone)]
pub struct Detokenizer {
    tokenizer: Arc<Tokenizer>,
    skip_special: bool,
    text: TextStream,
}

impl Detokenizer {
    /// A detokeniser at the start of a text. It leaves out special tokens if `skip_special`.
    #[must_use]
    pub fn new(tokenizer: Arc<Tokenizer>, skip_special: bool) -> Self {
        let text = TextStream::new(tokenizer.pieces());
        Self {
            tokenizer,
            skip_special,
            text,
        }
    }

    /// A detokeniser in the middle of a text, whose tokens continue a prompt. The difference is the
    /// space that SentencePiece puts before a text's first word: at the start it is an artefact and
    /// dropped; in the middle it is the space between two words.
    #[must_use]
    pub fn continuing(tokenizer: Arc<Tokenizer>, skip_special: bool) -> Self {
        Self {
            tokenizer,
            skip_special,
            text: TextStream::default(),
        }
    }

    /// Adds the next token and returns the text that is complete now: often none, or several
    /// characters.
    pub fn push(&mut self, id: u32) -> String {
        let mut out = String::new();
        self.text
            .push(self.tokenizer.pieces(), id, self.skip_special, &mut out);
        out
    }

    /// Ends the text: the bytes of an unfinished character become U+FFFD. Afterwards the
    /// detokeniser is in the middle of a text, with no bytes pending.
    pub fn finish(&mut self) -> String {
        let mut out = String::new();
        self.text.finish(&mut out);
        out
    }

    /// The text of all of `ids`.
    pub(crate) fn decode(pieces: &Pieces, ids: &[u32], skip_special: bool) -> String {
        let (mut text, mut out) = (TextStream::new(pieces), String::new());
        for &id in ids {
            text.push(pieces, id, skip_special, &mut out);
        }
        text.finish(&mut out);
        out
    }
}

/// Bytes that arrive in chunks of any size, read as UTF-8.
#[derive(Debug, Clone, Default)]
struct TextStream {
    /// The first bytes of a character; at most three between calls.
    pending: Vec<u8>,
    /// How many leading spaces are still dropped; 0 once another byte has come.
    spaces_to_drop: usize,
    /// No token has come yet.
    at_start: bool,
}

impl TextStream {
    fn new(pieces: &Pieces) -> Self {
        Self {
            pending: Vec::new(),
            spaces_to_drop: pieces.leading_spaces(),
            at_start: true,
        }
    }

    fn push(&mut self, pieces: &Pieces, id: u32, skip_special: bool, out: &mut String) {
        if !pieces.contains(id) || (skip_special && pieces.is_special(id)) {
            return;
        }
        let mut bytes = if self.at_start {
            pieces.first_bytes(id)
        } else {
            pieces.bytes(id)
        };
        self.at_start = false;
        while self.spaces_to_drop > 0 && !bytes.is_empty() {
            match bytes.strip_prefix(b" ") {
                Some(rest) => (bytes, self.spaces_to_drop) = (rest, self.spaces_to_drop - 1),
                None => self.spaces_to_drop = 0,
            }
        }
        self.pending.extend_from_slice(bytes);
        self.drain(out);
    }

    /// Moves everything but an unfinished character from `pending` to `out`.
    fn drain(&mut self, out: &mut String) {
        let mut rest = self.pending.as_slice();
        while !rest.is_empty() {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    out.push_str(text);
                    rest = &[];
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    out.push_str(&String::from_utf8_lossy(valid));
                    rest = after;
                    // Without a length, more bytes may complete the character.
                    let Some(invalid) = error.error_len() else { break };
                    out.push(char::REPLACEMENT_CHARACTER);
                    rest = &rest[invalid..];
                }
            }
        }
        let kept = rest.len();
        self.pending.drain(..self.pending.len() - kept);
    }

    fn finish(&mut self, out: &mut String) {
        if !self.pending.is_empty() {
            self.pending.clear();
            out.push(char::REPLACEMENT_CHARACTER);
        }
        self.at_start = false;
        self.spaces_to_drop = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text after each chunk, and at the end.
    fn portions(bytes: &[&[u8]]) -> Vec<String> {
        let mut text = TextStream::default();
        let mut out: Vec<String> = Vec::new();
        for portion in bytes {
            text.pending.extend_from_slice(portion);
            out.push(String::new());
            text.drain(out.last_mut().unwrap());
            assert!(
                text.pending.len() < 4,
                "no more than the beginning of a character waits"
            );
        }
        out.push(String::new());
        text.finish(out.last_mut().unwrap());
        out
    }

    #[test]
    fn a_character_comes_when_it_is_whole() {
        let crab = "🦀".as_bytes();
        assert_eq!(
            portions(&[&crab[..1], &crab[1..3], &crab[3..]]),
            ["", "", "🦀", ""]
        );
        assert_eq!(portions(&[b"a\xC3", b"\xA9b"]), ["a", "éb", ""]);
    }

    #[test]
    fn what_can_no_longer_be_a_character_is_marked_at_once() {
        assert_eq!(portions(&[b"\xE2\x82", b"x"]), ["", "\u{FFFD}x", ""]);
        assert_eq!(portions(&[b"\xFF\xFE", b"x"]), ["\u{FFFD}\u{FFFD}", "x", ""]);
        assert_eq!(
            portions(&[b"\xF0\x9F", b"\xF0\x9F\xA6\x80"]),
            ["", "\u{FFFD}🦀", ""]
        );
    }

    #[test]
    fn an_unfinished_character_is_marked_at_the_end() {
        assert_eq!(portions(&[b"a\xF0\x9F\xA6"]), ["a", "\u{FFFD}"]);
    }

    #[test]
    fn portions_do_not_change_the_text() {
        let bytes =
            b"a\xF0\x9F\xA6\x80\xE2\x82b\xC3\xFF\xED\xA0\x80\xF4\x90\x80\x80\xC0\xAF\xE2\x82\xAC\xF0\x9F";
        let whole = String::from_utf8_lossy(bytes);
        for cut in 0..bytes.len() {
            for second in cut..bytes.len() {
                let parts = [&bytes[..cut], &bytes[cut..second], &bytes[second..]];
                assert_eq!(portions(&parts).concat(), whole, "cut at {cut} and {second}");
            }
        }
    }
}
