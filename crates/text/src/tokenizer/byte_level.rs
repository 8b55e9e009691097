//! The alphabet of byte-level vocabularies, after GPT-2's table.

/// The bytes that the characters of `spelling` stand for in GPT-2's table; `None` if one is not
/// in it.
pub(super) fn byte_level_bytes(spelling: &str) -> Option<Vec<u8>> {
    spelling.chars().map(byte_of).collect()
}

/// The byte that a character stands for in a byte-level vocabulary: printable Latin-1 characters
/// stand for themselves, the 68 other bytes are written, in order, as the characters from U+0100
/// on.
fn byte_of(character: char) -> Option<u8> {
    let code = u32::from(character);
    match code {
        0x21..=0x7E | 0xA1..=0xAC | 0xAE..=0xFF => Some(code as u8),
        0x100..=0x120 => Some((code - 0x100) as u8),
        0x121..=0x142 => Some((code - 0x121 + 0x7F) as u8),
        0x143 => Some(0xAD),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_character() {
        let characters = (0..=0x200).filter_map(char::from_u32);
        let mut bytes: Vec<u8> = characters.filter_map(byte_of).collect();
        assert_eq!(bytes.len(), 256);
        bytes.sort_unstable();
        assert!((0..=255).eq(bytes));
    }

    #[test]
    fn the_alphabet_is_gpt2s() {
        // From the vocabularies that use it: space, line feed, delete, no-break space, soft hyphen.
        for (character, byte) in [
            ('Ġ', 0x20),
            ('Ċ', 0x0A),
            ('ġ', 0x7F),
            ('ł', 0xA0),
            ('Ń', 0xAD),
            ('!', 0x21),
            ('ÿ', 0xFF),
        ] {
            assert_eq!(byte_of(character), Some(byte), "{character}");
        }
        for character in [' ', '\n', '\u{AD}', '\u{A0}', '\u{144}', '日'] {
            assert_eq!(byte_of(character), None, "{character:?}");
        }
    }
}
