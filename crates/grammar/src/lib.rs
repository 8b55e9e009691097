//! Constrained decoding: what an output may be, as the set of tokens that may follow what there is
//! of it.
//!
//! A [`Constraint`] (a JSON schema, a regular expression, a grammar, a choice) is compiled for a
//! tokenizer by [`Grammars`]. The [`Grammar`] that comes of it walks along one output: it says
//! which tokens may follow, and is told which one did. Every output that ends by itself is what the
//! constraint asks for; one that is cut off is the beginning of such a one.
//!
//! The sets are worked out by `llguidance`: a lexer of derivatives of regular expressions below an
//! Earley parser, run over the vocabulary as a trie. Its work is bounded; a constraint that needs
//! more is refused when it is compiled, or fails the one output that it is for.

mod constraint;
mod ebnf;
mod error;
mod grammar;
mod panics;
mod vocabulary;

pub use constraint::{Constraint, MAX_CONSTRAINT_BYTES, literal, with_blanks};
pub use error::GrammarError;
pub use grammar::{Grammar, Grammars, TokenSet};
