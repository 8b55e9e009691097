//! From a token's spelling in the vocabulary to the bytes that it stands for.
//!
//! `tokenizer.json` describes decoding as a chain of rewrites over the list of tokens. The chains
//! of models that generate text all work on one token at a time, except that spaces may be dropped
//! at the very start. So the chain is parsed into [`DecodeRules`] and applied once to every token
//! of the vocabulary. A chain that does not fit is refused by name.

use serde_json::Value;

use super::byte_level::byte_level_bytes;

/// How the first tokens of a text are decoded.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) enum StartRule {
    /// Like all others.
    #[default]
    Keep,
    /// Up to this many leading spaces are dropped, because encoding adds them.
    StripSpaces(usize),
    /// This marker is removed from the first token; elsewhere it stands for spaces.
    FirstWithout(String),
}

/// The decoder of a tokenizer, as rules for one token.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct DecodeRules {
    /// Rewrites of a token's spelling, in order.
    pub(crate) steps: Vec<Step>,
    /// How the first tokens of a text are decoded.
    pub(crate) start: StartRule,
}

/// One rewrite of a token's spelling.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// Every `from` becomes `to`.
    Replace { from: String, to: String },
    /// A token spelled `<0xE2>` is that byte.
    ByteFallback,
    /// Every character stands for a byte, after GPT-2's table.
    ByteLevel,
    /// `content` is removed from the start of the token, up to `start` times.
    StripStart { content: char, start: usize },
}

impl DecodeRules {
    /// Byte-level BPE.
    pub(crate) fn byte_level() -> Self {
        Self {
            steps: vec![Step::ByteLevel],
            start: StartRule::Keep,
        }
    }

    /// SentencePiece with byte fallback; `space_prefix` if encoding puts a space before every text,
    /// which decoding removes.
    pub(crate) fn sentencepiece(space_prefix: bool) -> Self {
        let start = if space_prefix {
            StartRule::StripSpaces(1)
        } else {
            StartRule::Keep
        };
        Self {
            steps: vec![
                Step::Replace {
                    from: "▁".into(),
                    to: " ".into(),
                },
                Step::ByteFallback,
            ],
            start,
        }
    }

    /// Reads the `decoder` of a `tokenizer.json`.
    ///
    /// # Errors
    ///
    /// A sentence that names the part of the decoder that cannot be applied token by token.
    pub(crate) fn parse(decoder: &Value) -> Result<Self, String> {
        let mut rules = Self::default();
        let mut fused = false;
        rules.add(decoder, &mut fused)?;
        Ok(rules)
    }

    fn add(&mut self, decoder: &Value, fused: &mut bool) -> Result<(), String> {
        let kind = decoder["type"].as_str().unwrap_or_default();
        let count = |field: &str| {
            decoder[field]
                .as_u64()
                .and_then(|n| usize::try_from(n).ok())
                .unwrap_or(0)
        };
        let text = |value: &Value| value.as_str().map(str::to_owned);
        match kind {
            "Sequence" => {
                for part in decoder["decoders"].as_array().into_iter().flatten() {
                    self.add(part, fused)?;
                }
            }
            "Fuse" => *fused = true,
            "ByteFallback" if !*fused => self.steps.push(Step::ByteFallback),
            "ByteLevel" if !*fused => {
                self.steps.push(Step::ByteLevel);
                *fused = true;
            }
            "Replace" => {
                let (Some(from), Some(to)) = (text(&decoder["pattern"]["String"]), text(&decoder["content"]))
                else {
                    return Err("decoder `Replace` has a regular expression as its pattern".into());
                };
                // A pattern of one character cannot match across two tokens.
                if *fused && from.chars().count() != 1 {
                    return Err("decoder `Replace` comes after `Fuse`".into());
                }
                self.steps.push(Step::Replace { from, to });
            }
            "Strip" => {
                let content = text(&decoder["content"])
                    .and_then(|content| content.chars().next())
                    .unwrap_or(' ');
                let start = count("start");
                match (*fused, count("stop")) {
                    (_, 1..) => return Err("decoder `Strip` strips the end".into()),
                    (false, 0) => self.steps.push(Step::StripStart { content, start }),
                    (true, 0) if content == ' ' => self.start = StartRule::StripSpaces(start),
                    (true, 0) => return Err(format!("decoder `Strip` strips `{content}`, not spaces")),
                }
            }
            "Metaspace" if !*fused => {
                let marker = text(&decoder["replacement"]).unwrap_or_else(|| "▁".into());
                if decoder["prepend_scheme"].as_str() != Some("never") {
                    self.start = StartRule::FirstWithout(marker.clone());
                }
                self.steps.push(Step::Replace {
                    from: marker,
                    to: " ".into(),
                });
            }
            "" => return Err("there is no `decoder`".into()),
            other => return Err(format!("decoder `{other}` is not supported here")),
        }
        Ok(())
    }

    /// The bytes that an added token stands for. It is matched in the text as it is written, not as
    /// the bytes that its characters stand for.
    pub(crate) fn added_bytes(&self, content: &str) -> Vec<u8> {
        if self.steps.contains(&Step::ByteLevel) {
            content.as_bytes().to_vec()
        } else {
            self.bytes(content)
        }
    }

    /// The bytes that a token spelled `spelling` stands for.
    pub(crate) fn bytes(&self, spelling: &str) -> Vec<u8> {
        let mut text = spelling.to_owned();
        for step in &self.steps {
            match step {
                Step::Replace { from, to } => text = text.replace(from.as_str(), to),
                Step::ByteFallback => {
                    if let Some(byte) = fallback_byte(&text) {
                        return vec![byte];
                    }
                }
                Step::ByteLevel => {
                    return byte_level_bytes(&text).unwrap_or_else(|| text.into_bytes());
                }
                Step::StripStart { content, start } => {
                    let dropped = text
                        .chars()
                        .take(*start)
                        .take_while(|c| c == content)
                        .map(char::len_utf8);
                    text.drain(..dropped.sum::<usize>());
                }
            }
        }
        text.into_bytes()
    }
}

/// The byte of a token that is spelled `<0xE2>`.
fn fallback_byte(spelling: &str) -> Option<u8> {
    let digits = spelling.strip_prefix("<0x")?.strip_suffix('>')?;
    let is_byte = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_byte.then(|| u8::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(decoder: &Value) -> DecodeRules {
        DecodeRules::parse(decoder).unwrap()
    }

    #[test]
    fn llamas_chain_is_the_sentencepiece_rules() {
        let rules = parse(&json!({ "type": "Sequence", "decoders": [
            { "type": "Replace", "pattern": { "String": "▁" }, "content": " " },
            { "type": "ByteFallback" },
            { "type": "Fuse" },
            { "type": "Strip", "content": " ", "start": 1, "stop": 0 },
        ]}));
        assert_eq!(rules, DecodeRules::sentencepiece(true));
        assert_eq!(rules.bytes("▁the▁"), b" the ");
        assert_eq!(rules.bytes("<0xE2>"), [0xE2]);
        assert_eq!(rules.bytes("<0xE2>x"), b"<0xE2>x");
        assert_eq!(rules.bytes("<0xZZ>"), b"<0xZZ>");
        assert_eq!(rules.bytes("<0x+1>"), b"<0x+1>");
    }

    #[test]
    fn byte_level_spellings_are_bytes() {
        let rules = parse(&json!({ "type": "ByteLevel", "add_prefix_space": true, "use_regex": true }));
        assert_eq!(rules, DecodeRules::byte_level());
        assert_eq!(rules.bytes("Ġthe"), b" the");
        assert_eq!(rules.bytes("Ċ"), b"\n");
        assert_eq!(rules.bytes("Ãł"), [0xC3, 0xA0]);
        // Not in the alphabet: stands for itself.
        assert_eq!(rules.bytes("日"), "日".as_bytes());
        // An added token is spelled as text, even where its letters are in the alphabet.
        assert_eq!(rules.added_bytes("<Ñ>"), "<Ñ>".as_bytes());
    }

    #[test]
    fn a_strip_before_the_fuse_is_of_every_token() {
        let strip = json!({ "type": "Strip", "content": "x", "start": 2, "stop": 0 });
        let rules = parse(&strip);
        assert_eq!(rules.bytes("xxxa"), b"xa");
        assert_eq!(rules.bytes("ax"), b"ax");
        assert_eq!(rules.bytes("x"), b"");
    }

    #[test]
    fn metaspace_drops_the_marker_of_the_first_token() {
        let metaspace = |scheme| json!({ "type": "Metaspace", "replacement": "_", "prepend_scheme": scheme });
        let rules = parse(&metaspace("always"));
        assert_eq!(rules.bytes("_a_b"), b" a b");
        assert_eq!(rules.start, StartRule::FirstWithout("_".into()));
        assert_eq!(parse(&metaspace("never")).start, StartRule::Keep);
    }

    #[test]
    fn what_cannot_be_done_token_by_token_is_named() {
        let refused = [
            (json!(null), "there is no `decoder`"),
            (
                json!({ "type": "WordPiece", "prefix": "##" }),
                "decoder `WordPiece` is not supported here",
            ),
            (
                json!({ "type": "Strip", "content": " ", "start": 0, "stop": 1 }),
                "decoder `Strip` strips the end",
            ),
            (
                json!({ "type": "Replace", "pattern": { "Regex": "a+" }, "content": "" }),
                "decoder `Replace` has a regular expression as its pattern",
            ),
            (
                json!({ "type": "Sequence", "decoders": [
                    { "type": "Fuse" }, { "type": "Replace", "pattern": { "String": "ab" }, "content": "" },
                ]}),
                "decoder `Replace` comes after `Fuse`",
            ),
            (
                json!({ "type": "Sequence", "decoders": [{ "type": "Fuse" }, { "type": "ByteFallback" }] }),
                "decoder `ByteFallback` is not supported here",
            ),
        ];
        for (decoder, reason) in refused {
            assert_eq!(DecodeRules::parse(&decoder).unwrap_err(), reason);
        }
    }
}
