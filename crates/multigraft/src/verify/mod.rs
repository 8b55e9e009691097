//! Does an adapter answer as it does in PEFT? Three parts: the numbers to compare with
//! ([`Reference`]), running the backend over the same prompts
//! ([`drive`](multigraft_model::drive)), and judging the difference
//! ([`judge`]).
//!
//! None of it needs a tokenizer, nor the engine: the prompts are tokens, and greedy decoding is one
//! line.

mod compare;
mod reference;

pub(crate) use compare::{Verdict, judge};
pub(crate) use reference::{BASE, Reference};
