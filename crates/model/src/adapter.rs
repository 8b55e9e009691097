//! An adapter's weights as the kernels want them.

use crate::delta::AdapterHash;

/// An adapter packed for the kernels, in host memory. Immutable and shared; [`crate::Backend::admit`] makes it
/// resident.
#[derive(Debug)]
pub struct PackedAdapter {
    hash: AdapterHash,
    bytes: usize,
}

impl PackedAdapter {
    /// Hash of the files it was made from.
    pub fn hash(&self) -> AdapterHash {
        self.hash
    }

    /// Memory it takes, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// An adapter that changes nothing: for tests of what stands above the seam.
    #[doc(hidden)]
    pub fn empty(hash: AdapterHash) -> Self {
        Self { hash, bytes: 0 }
    }
}
