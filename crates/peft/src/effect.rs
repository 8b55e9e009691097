//! The effect of an adapter on its base, as measured by the self test.

use serde::{Deserialize, Serialize};

/// The effect of an adapter on its base.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Effect {
    /// Root mean square of the change of the fixed prompt's logits, relative to that of the base's
    /// logits.
    pub moved: f32,
    /// Number of positions of the fixed prompt whose most likely next token changes.
    pub changed: usize,
    /// Number of positions of the fixed prompt.
    pub positions: usize,
    /// Agreement with the adapter's `reference.json`, if it has one.
    pub reference: Option<Agreement>,
}

/// How many of the expected tokens an adapter generates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agreement {
    /// Expected tokens that are the most likely ones after the tokens before them.
    pub agree: usize,
    /// Expected tokens.
    pub of: usize,
}
