//! What an adapter was seen to do to its base, as its self test found it.

use serde::{Deserialize, Serialize};

/// What an adapter does to the base.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// Root mean square of what it adds to the logits of the fixed prompt, over that of the base's
    /// logits.
    pub moved: f32,
    /// Positions of the fixed prompt whose likeliest next token it changes.
    pub changed: usize,
    /// Positions of the fixed prompt.
    pub positions: usize,
    /// How it agrees with its `reference.json`, if it has one.
    pub reference: Option<Agreement>,
}

/// How an adapter agrees with the tokens that it should generate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreement {
    /// Tokens that are the likeliest after what should come before them.
    pub agree: usize,
    /// Tokens in all.
    pub of: usize,
}
