//! The secret of a key, which clients send: `mg-`, the key's public id, `-`, and 32 random bytes in
//! base64url.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use crate::error::AccessError;

/// The prefix of every secret, by which people and secret scanners recognise one.
const PREFIX: &str = "mg-";
/// Letters of an id. There are 32¹² ids, so two keys never get the same one.
const ID_LETTERS: usize = 12;
const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
/// Random bytes after the id.
const BYTES: usize = 32;
/// Characters of the random bytes in base64url.
const ENCODED: usize = 43;

/// A secret in plain text. It is shown once and never stored; `Debug` hides it.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({PREFIX}{}-…)", self.id())
    }
}

/// The SHA-256 of a secret. A fast hash is enough, because 256 random bits cannot be guessed.
pub(crate) type Hash = [u8; 32];

impl Secret {
    /// Creates a secret for the key `id`.
    pub(crate) fn new(id: &str) -> Result<Self, AccessError> {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes).map_err(AccessError::Random)?;
        Ok(Self(format!("{PREFIX}{id}-{}", URL_SAFE_NO_PAD.encode(bytes))))
    }

    /// Creates the public id of a key.
    pub(crate) fn new_id() -> Result<String, AccessError> {
        let mut bytes = [0; ID_LETTERS];
        getrandom::fill(&mut bytes).map_err(AccessError::Random)?;
        let letters = bytes
            .iter()
            .map(|byte| char::from(ALPHABET[usize::from(byte % 32)]));
        Ok(letters.collect())
    }

    /// Reads the text that a client sent; `None` if it does not have the form of a secret.
    pub fn parse(text: &str) -> Option<Self> {
        let (id, random) = text.strip_prefix(PREFIX)?.split_once('-')?;
        let is_id = id.len() == ID_LETTERS && id.bytes().all(|letter| ALPHABET.contains(&letter));
        let is_random = random.len() == ENCODED
            && random
                .bytes()
                .all(|letter| letter.is_ascii_alphanumeric() || letter == b'-' || letter == b'_');
        (is_id && is_random).then(|| Self(text.to_owned()))
    }

    /// The public id of the key that the secret belongs to.
    pub fn id(&self) -> &str {
        &self.0[PREFIX.len()..PREFIX.len() + ID_LETTERS]
    }

    /// The plain text, to be shown once.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    pub(crate) fn hash(&self) -> Hash {
        Sha256::digest(&self.0).into()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_secret_is_read_as_it_was_made_and_never_shown_by_debug() {
        let id = Secret::new_id().expect("random");
        let secret = Secret::new(&id).expect("random");
        assert_eq!(Secret::parse(secret.reveal()), Some(secret.clone()));
        assert_eq!(secret.id(), id);
        assert!(!format!("{secret:?}").contains(&secret.reveal()[PREFIX.len() + ID_LETTERS + 1..]));
        assert_ne!(Secret::new(&id).expect("random"), secret);
    }

    proptest! {
        #[test]
        fn any_text_is_a_secret_or_none(text in "(mg-)?.{0,80}") {
            if let Some(secret) = Secret::parse(&text) {
                prop_assert_eq!(secret.reveal(), text);
            }
        }
    }
}
