//! Compares the logits and tokens of adapters with those of PEFT. Three parts: the reference
//! numbers ([`Reference`]), running the backend over the same prompts
//! ([`drive`](multigraft_model::drive)), and comparing the results ([`judge`]).
//!
//! No tokenizer and no engine are needed: the prompts are tokens, and decoding is greedy.

mod compare;
mod reference;

pub(crate) use compare::{Verdict, judge};
pub(crate) use reference::{BASE, Reference};
