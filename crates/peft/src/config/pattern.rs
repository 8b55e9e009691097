//! The regular expressions of a config, matched against module paths as Python's `re` would match
//! them.

use std::collections::HashSet;
use std::fmt;

use fancy_regex::{Regex, RegexBuilder};

use crate::refusal::Refusal;

/// The longest expression that is compiled, in bytes. Expressions in real configs have a few
/// hundred.
const PATTERN_LIMIT: usize = 10_000;
/// The largest number of expressions in a field. Plain names do not count, because they are not
/// compiled.
const PATTERNS_LIMIT: usize = 64;
/// Limit of a match's backtracking steps. On a module path, real expressions take a few hundred.
const BACKTRACK_LIMIT: usize = 20_000;
/// Limit of a compiled expression's memory, in bytes.
const COMPILED_LIMIT: usize = 1 << 20;

/// A compiled expression.
#[derive(Clone)]
pub(super) struct Pattern {
    field: &'static str,
    source: String,
    regex: Regex,
}

impl Pattern {
    /// Matches a whole path: Python's `re.fullmatch(source, path)`.
    pub(super) fn whole(field: &'static str, source: &str) -> Result<Self, Refusal> {
        Self::compile(field, source, &format!(r"\A(?:{source})\z"))
    }

    /// Compiles `source` as part of `expression`.
    pub(super) fn compile(field: &'static str, source: &str, expression: &str) -> Result<Self, Refusal> {
        let refuse = |reason: String| Refusal::Pattern {
            field,
            pattern: source.to_owned(),
            reason,
        };
        if source.len() > PATTERN_LIMIT {
            return Err(refuse(format!(
                "it has {} bytes, the limit is {PATTERN_LIMIT}",
                source.len()
            )));
        }
        let build = |expression: &str| {
            RegexBuilder::new(expression)
                .backtrack_limit(BACKTRACK_LIMIT)
                .delegate_size_limit(COMPILED_LIMIT)
                .build()
                .map_err(|error| refuse(error.to_string()))
        };
        // Compiled by itself first: a closing parenthesis without an opening one would be valid
        // inside `expression`.
        build(source)?;
        let regex = build(expression)?;
        Ok(Self {
            field,
            source: source.to_owned(),
            regex,
        })
    }

    pub(super) fn is_match(&self, path: &str) -> Result<bool, Refusal> {
        self.regex.is_match(path).map_err(|error| self.failed(&error))
    }

    /// The group called `name` of the match.
    pub(super) fn capture(&self, path: &str, name: &str) -> Result<Option<String>, Refusal> {
        let captures = self.regex.captures(path).map_err(|error| self.failed(&error))?;
        Ok(captures.and_then(|c| c.name(name).map(|group| group.as_str().to_owned())))
    }

    fn failed(&self, error: &fancy_regex::Error) -> Refusal {
        Refusal::Pattern {
            field: self.field,
            pattern: self.source.clone(),
            reason: error.to_string(),
        }
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}/", self.source)
    }
}

/// Module names. A name matches the path that equals it and every path that ends with a dot and the
/// name.
#[derive(Clone, Debug, Default)]
pub(super) struct Suffixes(HashSet<String>);

impl Suffixes {
    pub(super) fn new(names: Vec<String>) -> Self {
        Self(names.into_iter().collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `path` itself is in the list.
    pub(super) fn contains(&self, path: &str) -> bool {
        self.0.contains(path)
    }

    /// Whether `path`, or a suffix of it that starts after a dot, is in the list.
    pub(super) fn covers(&self, path: &str) -> bool {
        self.contains(path)
            || path
                .match_indices('.')
                .any(|(dot, _)| self.contains(&path[dot + 1..]))
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// `rank_pattern` or `alpha_pattern`: values by module. The first key that matches wins.
#[derive(Clone, Debug, Default)]
pub(super) struct Overrides<T>(Vec<(Key, T)>);

/// A key. It matches a whole path, or the end of a path after a dot: `^(.*\.)?(KEY)$`.
#[derive(Clone, Debug)]
enum Key {
    /// A key of letters, digits, `_`, `-` and dots, which match any character. Nearly all keys are
    /// plain; EVA writes one for each module.
    Plain(String),
    Pattern(Pattern),
}

impl<T: Copy> Overrides<T> {
    pub(super) fn new(field: &'static str, entries: Vec<(&str, T)>) -> Result<Self, Refusal> {
        let mut patterns = 0;
        let mut keys = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let plain = key
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
            patterns += usize::from(!plain);
            if patterns > PATTERNS_LIMIT {
                let reason = format!("it is the {patterns}th in this field, the limit is {PATTERNS_LIMIT}");
                return Err(Refusal::Pattern {
                    field,
                    pattern: key.to_owned(),
                    reason,
                });
            }
            let key = match plain {
                true => Key::Plain(key.to_owned()),
                false => Key::Pattern(Pattern::compile(field, key, &format!(r"\A(.*\.)?({key})$"))?),
            };
            keys.push((key, value));
        }
        Ok(Self(keys))
    }

    /// The value for the module at `path`.
    pub(super) fn get(&self, path: &str) -> Result<Option<T>, Refusal> {
        for (key, value) in &self.0 {
            let hit = match key {
                Key::Plain(key) => ends_with(path, key),
                Key::Pattern(pattern) => pattern.is_match(path)?,
            };
            if hit {
                return Ok(Some(*value));
            }
        }
        Ok(None)
    }
}

/// Matches `^(.*\.)?(key)$` for a key whose only special character is the dot.
fn ends_with(path: &str, key: &str) -> bool {
    let Some(start) = path.len().checked_sub(key.len()) else {
        return false;
    };
    let (head, tail) = path.as_bytes().split_at(start);
    let same = |(&k, &p): (&u8, &u8)| k == p || k == b'.';
    (head.is_empty() || head.ends_with(b".")) && key.as_bytes().iter().zip(tail).all(same)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(keys: &[&str]) -> Overrides<usize> {
        Overrides::new(
            "rank_pattern",
            keys.iter().enumerate().map(|(i, k)| (*k, i)).collect(),
        )
        .unwrap()
    }

    #[test]
    fn keys_match_whole_names_at_the_end_of_a_path() {
        // Checked with Python: re.match(rf"(.*\.)?({key})$", path)
        let cases = [
            ("q_proj", "model.layers.0.self_attn.q_proj", true),
            ("proj", "model.layers.0.self_attn.q_proj", false),
            ("q.proj", "model.layers.0.self_attn.q_proj", true),
            ("self_attn", "model.layers.0.self_attn.q_proj", false),
            (
                "layers.1.self_attn.q_proj",
                "model.layers.1.self_attn.q_proj",
                true,
            ),
            (
                "layers.1.self_attn.q_proj",
                "model.layers.11.self_attn.q_proj",
                false,
            ),
            ("layers.1.*q_proj", "model.layers.1.self_attn.q_proj", true),
            ("layers.1.*q_proj", "model.layers.11.self_attn.q_proj", true),
            (
                "^model.layers.0.self_attn.q_proj",
                "model.layers.0.self_attn.q_proj",
                true,
            ),
            (
                "^layers.0.self_attn.q_proj",
                "model.layers.0.self_attn.q_proj",
                false,
            ),
            (r"layers\.(0|1)\..*|lm_head", "lm_head", true),
            (
                r"layers\.(?!0\.).*q_proj",
                "model.layers.0.self_attn.q_proj",
                false,
            ),
            (
                r"layers\.(?!0\.).*q_proj",
                "model.layers.3.self_attn.q_proj",
                true,
            ),
            ("model.layers.0.self_attn.q_proj.more", "q_proj", false),
        ];
        for (key, path, expected) in cases {
            assert_eq!(
                overrides(&[key]).get(path).unwrap().is_some(),
                expected,
                "{key} on {path}"
            );
        }
    }

    #[test]
    fn the_first_key_that_matches_wins() {
        let both = overrides(&["k_proj", "layers.*q_proj", "q_proj"]);
        assert_eq!(both.get("model.layers.0.self_attn.q_proj"), Ok(Some(1)));
        assert_eq!(both.get("q_proj"), Ok(Some(2)));
        assert_eq!(both.get("v_proj"), Ok(None));
    }

    #[test]
    fn a_whole_match_takes_the_alternative_that_reaches_the_end() {
        let pattern = Pattern::whole("target_modules", "model|model.lm_head").unwrap();
        assert_eq!(pattern.is_match("model.lm_head"), Ok(true));
        assert_eq!(pattern.is_match("model.lm_head.x"), Ok(false));
    }

    #[test]
    fn hostile_patterns_are_refused_and_not_run() {
        for source in [
            "(",
            "a)|(?:b",
            "(?P<a>",
            "((((a{100}){100}){100}){100})",
            r"(a)\2",
            &"a".repeat(20_000),
        ] {
            let result = Pattern::whole("target_modules", source);
            assert!(matches!(result, Err(Refusal::Pattern { .. })), "{source:.40}");
        }
        let slow = Pattern::whole("target_modules", r"(?:(?=a)a|a|aa)*(?!x)b").unwrap();
        let refusal = slow.is_match(&"a".repeat(40)).unwrap_err();
        assert!(refusal.to_string().contains("target_modules"), "{refusal}");
    }

    #[test]
    fn suffixes_begin_after_a_dot() {
        let names = Suffixes::new(vec!["q_proj".to_owned(), "0.mlp.up_proj".to_owned()]);
        assert!(names.covers("q_proj") && names.covers("model.layers.3.self_attn.q_proj"));
        assert!(names.covers("model.layers.0.mlp.up_proj") && !names.covers("model.layers.10.mlp.up_proj"));
        assert!(!names.covers("model.layers.0.xq_proj") && !names.covers("q_proj.x"));
    }
}
