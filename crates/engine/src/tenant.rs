//! Tenants, which partition the prefix cache.

use sha2::{Digest, Sha256};

/// Whose requests share the blocks of common prefixes. Requests of other tenants never share them,
/// so nobody can learn from the time to the first token what another tenant's prompts begin with.
///
/// Stored as the SHA-256 of the tenant's name, so that secrets are not kept and every tenant takes
/// the same memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant([u8; 32]);

impl Tenant {
    /// The tenant called `name`: any text, of any length.
    pub fn new(name: &str) -> Self {
        Self(Sha256::digest(name).into())
    }

    /// The part `part` of this tenant (`cache_salt`), whose requests share prefixes only with each
    /// other; without a part, the tenant itself.
    #[must_use]
    pub fn parted(self, part: Option<Self>) -> Self {
        match part {
            None => self,
            Some(part) => Self(Sha256::digest([self.0, part.0].concat()).into()),
        }
    }
}
