//! Timestamps and ids in responses.

use std::time::{SystemTime, UNIX_EPOCH};

/// Seconds since 1970.
pub(crate) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// `prefix` and 128 random bits in hexadecimal. Random, so that no two servers make the same id,
/// and a client's ids do not tell how many requests others send.
pub(crate) fn unique_id(prefix: &str) -> String {
    format!("{prefix}{:032x}", random())
}

/// Nine random letters and digits: the only form of a tool call's id that Mistral's template
/// accepts.
pub(crate) fn call_id() -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut number = random();
    let digit = |_| {
        let digit = DIGITS[(number % 36) as usize];
        number /= 36;
        char::from(digit)
    };
    (0..9).map(digit).collect()
}

fn random() -> u128 {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).expect("the system's generator is seeded once the machine has started");
    u128::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_differ_and_have_their_form() {
        let ids: HashSet<String> = (0..1000).map(|_| unique_id("cmpl-")).collect();
        assert_eq!(ids.len(), 1000);
        for id in ids {
            let digits = id.strip_prefix("cmpl-").expect("the prefix");
            assert!(
                digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()),
                "{id}"
            );
        }
        let ids: HashSet<String> = (0..1000).map(|_| call_id()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(
            ids.iter()
                .all(|id| id.len() == 9 && id.bytes().all(|digit| digit.is_ascii_alphanumeric()))
        );
    }
}
