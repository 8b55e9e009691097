//! A tokenizer's vocabulary as a trie of bytes.

use std::sync::Arc;

use llguidance::toktrie::{TokEnv, TokRxInfo, TokTrie, TokenId, TokenizerEnv};
use multigraft_text::Tokenizer;

use crate::GrammarError;

/// A trie of tokens.
struct Vocabulary {
    /// The tokenizer that tells how texts are written in these tokens, if there is one.
    tokenizer: Option<Arc<Tokenizer>>,
    trie: TokTrie,
}

/// The vocabulary of `tokenizer`. Special tokens are in the trie under names that no text spells,
/// so only a grammar that names them, or the end of the output, allows them.
pub(crate) fn vocabulary(tokenizer: Arc<Tokenizer>) -> Result<TokEnv, GrammarError> {
    let ids = (0..).take(tokenizer.vocab_size());
    let words: Vec<Vec<u8>> = ids.map(|id| word(&tokenizer, id)).collect();
    let trie = trie(&words, tokenizer.eos())?;
    let tokenizer = Some(tokenizer);
    Ok(Arc::new(Vocabulary { tokenizer, trie }))
}

/// The vocabulary of these tokens, given by id.
pub(crate) fn of_words(words: &[Vec<u8>], eos: &[u32]) -> Result<TokEnv, GrammarError> {
    let trie = trie(words, eos)?;
    let tokenizer = None;
    Ok(Arc::new(Vocabulary { tokenizer, trie }))
}

fn trie(words: &[Vec<u8>], eos: &[u32]) -> Result<TokTrie, GrammarError> {
    let refused = |reason: &str| GrammarError::Vocabulary(reason.to_owned());
    let size = u32::try_from(words.len()).map_err(|_| refused("it is too large"))?;
    let Some(&end) = eos.first() else {
        return Err(refused("it has no token that ends an output"));
    };
    if eos.iter().any(|&id| id >= size) {
        return Err(refused("what ends an output is none of its tokens"));
    }
    Ok(TokTrie::from(&TokRxInfo::new(size, end), words).with_eos_tokens(eos))
}

fn word(tokenizer: &Tokenizer, id: u32) -> Vec<u8> {
    let bytes = tokenizer.token_bytes(id);
    if tokenizer.is_special(id) {
        let marker = [TokTrie::SPECIAL_TOKEN_MARKER];
        [&marker, bytes].concat()
    } else {
        bytes.to_vec()
    }
}

impl TokenizerEnv for Vocabulary {
    fn tok_trie(&self) -> &TokTrie {
        &self.trie
    }

    fn tokenize_bytes(&self, bytes: &[u8]) -> Vec<TokenId> {
        let Some(tokenizer) = &self.tokenizer else {
            return self.trie.greedy_tokenize(bytes);
        };
        let own = |text: &str| {
            let ids = tokenizer.encode(text, false).ok();
            // A special token that a text spells out is text here.
            ids.filter(|ids| !ids.iter().any(|&id| tokenizer.is_special(id)))
                .unwrap_or_else(|| self.trie.greedy_tokenize(text.as_bytes()))
        };
        self.trie.tokenize_with_greedy_fallback(bytes, own)
    }

    /// Whether a text has the same tokens wherever it stands. If not (SentencePiece puts a space
    /// before every text), the model chooses the tokens of text that the grammar forces.
    fn tokenize_is_canonical(&self) -> bool {
        let tokenizer = self.tokenizer.as_ref();
        tokenizer.is_some_and(|tokenizer| tokenizer.is_the_same_everywhere())
    }
}
