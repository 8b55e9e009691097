//! What the engine needs of a tokenizer, as small traits that tests implement too.

use std::sync::Arc;

use multigraft_text::{Detokenizer, Tokenizer};

/// From tokens to text.
pub(crate) trait Vocabulary: Send + Sync {
    /// A decoder for one output, which continues a prompt. It includes the names of special tokens
    /// if they are to be shown.
    fn decoder(&self, show_special: bool) -> Box<dyn Decoder>;
    /// The text of one token on its own.
    fn token_text(&self, id: u32) -> String;
    /// Whether a token is special, so that it has no text in an output.
    fn is_special(&self, id: u32) -> bool;
    /// The tokens that end a turn.
    fn eos(&self) -> &[u32];
}

/// Turns tokens into text as they come.
pub(crate) trait Decoder {
    /// Adds a token, and returns the text that is complete with it, in whole characters.
    fn push(&mut self, id: u32) -> String;
    /// Returns the rest of the text at the end of the output.
    fn finish(&mut self) -> String;
}

impl Vocabulary for Arc<Tokenizer> {
    fn decoder(&self, show_special: bool) -> Box<dyn Decoder> {
        Box::new(Detokenizer::continuing(Self::clone(self), !show_special))
    }

    fn token_text(&self, id: u32) -> String {
        Tokenizer::token_text(self, id)
    }

    fn is_special(&self, id: u32) -> bool {
        Tokenizer::is_special(self, id)
    }

    fn eos(&self) -> &[u32] {
        Tokenizer::eos(self)
    }
}

impl Decoder for Detokenizer {
    fn push(&mut self, id: u32) -> String {
        Self::push(self, id)
    }

    fn finish(&mut self) -> String {
        Self::finish(self)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn tokenizer(name: &str) -> Arc<Tokenizer> {
        let folder = multigraft_testing::fixtures().join("tokenizer").join(name);
        Arc::new(Tokenizer::from_folder(&folder).unwrap())
    }

    fn decoded(vocabulary: &dyn Vocabulary, ids: &[u32]) -> String {
        let mut decoder = vocabulary.decoder(false);
        let text: String = ids.iter().map(|&id| decoder.push(id)).collect();
        text + &decoder.finish()
    }

    #[test]
    fn an_output_continues_its_prompt() {
        for name in ["smollm", "spm-llama", "spm-gemma"] {
            let tokenizer = tokenizer(name);
            let ids = tokenizer.encode("The quick brown fox 🦊 jumps.", false).unwrap();
            // Any word may be the first of an output; its space is not lost.
            let cut = ids.len()
                - tokenizer
                    .encode(" jumps.", false)
                    .unwrap()
                    .len()
                    .min(ids.len() - 1);
            let whole = tokenizer.decode(&ids, true);
            let prompt = tokenizer.decode(&ids[..cut], true);
            assert_eq!(prompt + &decoded(&tokenizer, &ids[cut..]), whole, "{name}");
        }
    }

    #[test]
    fn end_tokens_are_special_and_have_no_text() {
        let tokenizer = tokenizer("smollm");
        let vocabulary: &dyn Vocabulary = &tokenizer;
        assert!(!vocabulary.eos().is_empty());
        for &id in vocabulary.eos() {
            assert!(vocabulary.is_special(id));
            assert_eq!(decoded(vocabulary, &[id]), "");
            assert!(!vocabulary.token_text(id).is_empty());
        }
    }

    proptest! {
        #[test]
        fn pieces_are_the_decoded_whole(
            name in prop::sample::select(vec!["smollm", "spm-llama"]),
            picks in prop::collection::vec(any::<prop::sample::Index>(), 1..40),
        ) {
            let tokenizer = tokenizer(name);
            let ids: Vec<u32> = picks.iter().map(|pick| pick.index(tokenizer.vocab_size()) as u32).collect();
            // A word before them stands for the prompt, after which a leading space counts.
            let before = tokenizer.encode("a", false).unwrap();
            let whole = tokenizer.decode(&[before.as_slice(), &ids].concat(), true);
            prop_assert_eq!("a".to_owned() + &decoded(&tokenizer, &ids), whole);
        }
    }
}
