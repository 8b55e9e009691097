//! Fakes for the engine's tests: a backend whose logits reveal every mistake in a step, a
//! vocabulary with characters that are split across tokens, recording sinks, and an engine that is
//! driven turn by turn.

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
