//! Which adapters a key may use.

use std::{fmt, str::FromStr};

/// The most grants that a key may have.
const LIMIT: usize = 256;
/// The longest grant in bytes: twice the longest name of an adapter, because paths are granted too.
const LONGEST: usize = 256;

/// The name of an adapter, or a pattern in which each `*` stands for any text, `/` included. `base`
/// is the base model, which no pattern except `*` covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant(String);

impl FromStr for Grant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let problem = match text {
            "" => "it is empty",
            _ if text.len() > LONGEST => "it is longer than 256 bytes",
            _ if text.chars().any(char::is_control) => "it holds control characters",
            _ => return Ok(Self(text.to_owned())),
        };
        let shown: String = text.chars().take(40).collect();
        Err(format!(
            "{shown:?} is not an adapter's name or a pattern such as acme/*: {problem}"
        ))
    }
}

impl fmt::Display for Grant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Grant {
    /// Whether the grant covers the adapter `name`.
    pub fn covers(&self, name: &str) -> bool {
        self.0 != "base" && matches(self.0.as_bytes(), name.as_bytes())
    }

    /// Whether the grant covers the base.
    pub fn covers_base(&self) -> bool {
        self.0 == "base" || self.0 == "*"
    }
}

/// Whether a name matches a pattern. Backtracks to the last `*` and extends what that matched by
/// one byte, so it takes at most |pattern| · |name| comparisons.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut read) = (0, 0);
    let mut star = None;
    while read < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(letter) if *letter == name[read] => {
                at += 1;
                read += 1;
            }
            _ => match star {
                Some((place, taken)) => {
                    star = Some((place, taken + 1));
                    (at, read) = (place + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|letter| *letter == b'*')
}

/// All grants of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grants(Vec<Grant>);

impl Grants {
    /// The base and all adapters.
    pub fn all() -> Self {
        Self(vec![Grant("*".to_owned())])
    }

    /// Reads grants as they are written.
    ///
    /// # Errors
    /// A sentence, if one of them is invalid or there are more than 256.
    pub fn parse<T: AsRef<str>>(texts: &[T]) -> Result<Self, String> {
        if texts.len() > LIMIT {
            return Err(format!(
                "{} grants are more than {LIMIT}; use patterns such as acme/*",
                texts.len()
            ));
        }
        let grants = texts.iter().map(|text| text.as_ref().parse());
        Ok(Self(grants.collect::<Result<_, _>>()?))
    }

    /// Whether one of the grants covers the adapter `name`.
    pub fn cover(&self, name: &str) -> bool {
        self.0.iter().any(|grant| grant.covers(name))
    }

    /// Whether one of the grants covers the base.
    pub fn cover_base(&self) -> bool {
        self.0.iter().any(Grant::covers_base)
    }

    /// The grants as they are written.
    pub fn texts(&self) -> Vec<String> {
        self.0.iter().map(Grant::to_string).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_pattern_covers_names_and_only_all_of_them_the_base() {
        for (grant, name, covers) in [
            ("support", "support", true),
            ("support", "support2", false),
            ("acme/*", "acme/a/b", true),
            ("acme/*", "acme", false),
            ("acme/*", "acme2/a", false),
            ("*-v1", "x-v1", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("*", "anything", true),
            ("base", "base", false),
        ] {
            let grant: Grant = grant.parse().expect("a grant");
            assert_eq!(grant.covers(name), covers, "{grant} {name}");
        }
        let base = |grants: &[&str]| Grants::parse(grants).expect("grants").cover_base();
        assert_eq!(
            (base(&["base"]), base(&["*"]), base(&["b*"]), base(&[])),
            (true, true, false, false)
        );
        assert!(Grants::parse(&[""]).is_err());
    }

    proptest! {
        #[test]
        fn a_pattern_covers_what_is_put_in_place_of_its_stars(parts in prop::collection::vec("[a-c/]{0,4}", 1..5), put in "[a-c/]{0,6}") {
            let grant = Grant(parts.join("*"));
            prop_assert!(grant.covers(&parts.join(&put)));
        }
    }
}
