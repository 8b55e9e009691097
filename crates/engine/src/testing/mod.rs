//! What the engine's tests stand on: a backend whose logits give away every mistake in a step, a
//! vocabulary with characters that tokens cut in two, sinks that remember, and an engine driven
//! turn by turn.

mod backend;
mod harness;
mod recorder;
mod spec;
mod vocabulary;

pub(crate) use backend::{BLOCK_TOKENS, FakeBackend, Faults, logits_after, states_of};
pub(crate) use harness::{HIDDEN, Harness, adapter, exactly, generous, hash, invoked, scaled};
pub(crate) use recorder::{Recorder, Recording};
pub(crate) use spec::{cut, embedded, specified};
pub(crate) use vocabulary::{EOS, FakeVocabulary, SPECIAL, VOCAB, certain, decode, matching};
