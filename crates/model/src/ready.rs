//! An adapter that a base has made ready for its device.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use crate::delta::AdapterHash;

/// An adapter in the form in which one device computes with it, in host memory. Immutable and
/// shared; [`Base::ready`](crate::Base::ready) makes one, and
/// [`Backend::admit`](crate::Backend::admit) makes it resident on a backend of the same base.
pub struct ReadyAdapter {
    hash: AdapterHash,
    bytes: usize,
    invocation: Vec<u32>,
    unscalable: Option<&'static str>,
    parts: Arc<dyn Any + Send + Sync>,
}

impl ReadyAdapter {
    /// An adapter made of the files with this hash, which takes `bytes` bytes of memory. `parts`
    /// are its weights in the device's own form: only the backends of that device look into them.
    pub fn new(hash: AdapterHash, bytes: usize, parts: Arc<dyn Any + Send + Sync>) -> Self {
        Self {
            hash,
            bytes,
            invocation: Vec::new(),
            unscalable: None,
            parts,
        }
    }

    /// The same adapter, which applies only from where a prompt last has these tokens
    /// ([`AdapterWeights::invocation`](crate::AdapterWeights::invocation)).
    #[must_use]
    pub fn invoked_by(mut self, invocation: &[u32]) -> Self {
        self.invocation = invocation.to_vec();
        self
    }

    /// The same adapter, with a part that no scale multiplies, as messages name it.
    #[must_use]
    pub fn with_unscalable(mut self, part: Option<&'static str>) -> Self {
        self.unscalable = part;
        self
    }

    /// Hash of the files it was made from.
    pub fn hash(&self) -> AdapterHash {
        self.hash
    }

    /// Memory it takes, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The tokens from which on it applies; empty if it applies to every position.
    pub fn invocation(&self) -> &[u32] {
        &self.invocation
    }

    /// The position of a prompt from which on it applies, to the end of what is generated;
    /// positions before it are the base's. `None` if the prompt does not invoke it, so that it
    /// would have no effect.
    pub fn sets_in(&self, prompt: &[u32]) -> Option<usize> {
        let length = self.invocation.len();
        match length {
            0 => Some(0),
            _ => prompt
                .windows(length)
                .rposition(|tokens| tokens == self.invocation),
        }
    }

    /// A part of it that replaces the base's instead of being added to it, so that no scale
    /// multiplies it; `None` if it consists of scalable updates alone.
    pub fn unscalable(&self) -> Option<&'static str> {
        self.unscalable
    }

    /// Its weights in the device's own form.
    pub fn parts(&self) -> &Arc<dyn Any + Send + Sync> {
        &self.parts
    }
}

impl fmt::Debug for ReadyAdapter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReadyAdapter")
            .field("hash", &self.hash)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invoked_by(invocation: &[u32]) -> ReadyAdapter {
        ReadyAdapter::new(AdapterHash([1; 32]), 0, Arc::new(())).invoked_by(invocation)
    }

    #[test]
    fn it_sets_in_where_its_invocation_begins_for_the_last_time() {
        assert_eq!(invoked_by(&[]).sets_in(&[1, 2]), Some(0));
        assert_eq!(invoked_by(&[1, 2]).sets_in(&[1, 2, 1, 2, 3]), Some(2));
        assert_eq!(invoked_by(&[1, 2]).sets_in(&[1, 3, 2]), None);
    }
}
