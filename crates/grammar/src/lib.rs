//! Constrained decoding: after each token, the set of tokens that may follow.
//!
//! [`Grammars`] compiles a [`Constraint`] (a JSON schema, a regular expression, a grammar, a
//! choice) for a tokenizer. The resulting [`Grammar`] follows one output: it gives the tokens that
//! may come next, and is told which one came. An output that ends by itself satisfies the
//! constraint; an output that is cut off is a prefix of one that does.
//!
//! `llguidance` computes the sets: a lexer of derivatives of regular expressions below an Earley
//! parser, run over the vocabulary as a trie. Its work is bounded. A constraint that needs more
//! work is refused when it is compiled, or fails the one output that it belongs to.

mod constraint;
mod ebnf;
mod error;
mod grammar;
mod literal;
mod panics;
mod vocabulary;

pub use constraint::{Constraint, MAX_CONSTRAINT_BYTES, with_blanks};
pub use error::GrammarError;
pub use grammar::{Grammar, Grammars, TokenSet};
pub use literal::literal;
