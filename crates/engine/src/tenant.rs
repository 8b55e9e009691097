//! For whom requests are served, as far as the prefix cache is concerned.

use sha2::{Digest, Sha256};

/// Requests of one tenant share the blocks of prompts that begin alike; nobody else's ever do, nor
/// can anybody else tell by the time to the first token what this tenant's prompts begin with.
///
/// It is the SHA-256 of whatever tells tenants apart, so secrets are not kept and every tenant
/// takes as much memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant([u8; 32]);

impl Tenant {
    /// The tenant called `name`: any text, of any length.
    pub fn new(name: &str) -> Self {
        Self(Sha256::digest(name).into())
    }

    /// The part `part` of this tenant, which shares with nobody outside of it; without a part, the
    /// tenant as a whole.
    #[must_use]
    pub fn parted(self, part: Option<Self>) -> Self {
        match part {
            None => self,
            Some(part) => Self(Sha256::digest([self.0, part.0].concat()).into()),
        }
    }
}
