//! Translates llama.cpp's GBNF to Lark's syntax.
//!
//! In GBNF, rules are defined by `::=`, the first rule is `root`, names may contain `-`,
//! alternatives may continue on the next line, character classes stand outside of `/…/`, and there
//! are no terminals. Everything becomes a rule.

use std::fmt::Write as _;

use crate::{GrammarError, literal};

/// Whether a grammar is written in GBNF.
pub(crate) fn is_ebnf(text: &str) -> bool {
    text.lines().any(|line| {
        let line = line.trim_start();
        let name = line.find(|c: char| !is_name(c)).unwrap_or(line.len());
        name > 0 && line[name..].trim_start().starts_with("::=")
    })
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// Translates a grammar to Lark's syntax.
pub(crate) fn to_lark(text: &str) -> Result<String, GrammarError> {
    let tokens = Scanner { rest: text }.tokens()?;
    let mut lark = String::new();
    let mut rules = Vec::new();
    let is_defined = |rule: &String| {
        let definition = [Token::Name(rule.clone()), Token::Defines];
        tokens.windows(2).any(|pair| pair == definition)
    };
    for (index, token) in tokens.iter().enumerate() {
        match token {
            Token::Name(name) if !is_defined(name) => {
                return Err(wrong(&format!("the rule `{name}` is not defined")));
            }
            Token::Name(name) if tokens.get(index + 1) == Some(&Token::Defines) => {
                rules.push(name.as_str());
                let _ = write!(lark, "\n{}:", rule(name));
            }
            Token::Defines if rules.is_empty() => return Err(wrong("`::=` has no name before it")),
            Token::Defines => {}
            _ if rules.is_empty() => return Err(wrong("something stands before the first rule")),
            Token::Name(name) => {
                let _ = write!(lark, " {}", rule(name));
            }
            Token::Literal(text) => {
                let _ = write!(lark, " {}", literal(text));
            }
            Token::Class(class) => {
                let _ = write!(lark, " /{class}/");
            }
            Token::Sign(sign @ ('|' | '(')) => {
                let _ = write!(lark, " {sign}");
            }
            Token::Sign(sign) => lark.push(*sign),
            Token::Times(times) => lark.push_str(times),
        }
    }
    if !rules.contains(&"root") {
        return Err(wrong("there is no rule `root`"));
    }
    Ok(format!("start: {}{lark}\n", rule("root")))
}

/// The name of a rule in Lark's syntax, where names contain no `-`, upper case makes a terminal,
/// and `start` is reserved.
fn rule(name: &str) -> String {
    let mut rule = "r_".to_owned();
    for c in name.chars() {
        match c {
            '-' => rule.push_str("_m"),
            '_' => rule.push_str("__"),
            c if c.is_ascii_uppercase() => {
                rule.push_str("_u");
                rule.push(c.to_ascii_lowercase());
            }
            c => rule.push(c),
        }
    }
    rule
}

fn wrong(what: &str) -> GrammarError {
    GrammarError::Unsupported(format!("in the grammar {what}"))
}

#[derive(Debug, PartialEq)]
enum Token {
    Name(String),
    Defines,
    Literal(String),
    /// `[…]` or `.`, as a regular expression.
    Class(String),
    Sign(char),
    /// `{m,n}` in Lark's syntax.
    Times(String),
}

struct Scanner<'a> {
    rest: &'a str,
}

impl Scanner<'_> {
    fn tokens(mut self) -> Result<Vec<Token>, GrammarError> {
        let mut tokens = Vec::new();
        while let Some(next) = self.rest.chars().next() {
            match next {
                c if c.is_whitespace() => self.skip(c.len_utf8()),
                '#' => self.skip(self.rest.find('\n').unwrap_or(self.rest.len())),
                ':' if self.rest.starts_with("::=") => {
                    self.skip(3);
                    tokens.push(Token::Defines);
                }
                '|' | '(' | ')' | '*' | '+' | '?' => {
                    self.skip(1);
                    tokens.push(Token::Sign(next));
                }
                '"' => tokens.push(Token::Literal(self.literal()?)),
                '[' => tokens.push(Token::Class(self.class()?)),
                '.' => {
                    self.skip(1);
                    tokens.push(Token::Class("(?s:.)".to_owned()));
                }
                '{' => tokens.push(Token::Times(self.times()?)),
                c if is_name(c) => {
                    let end = self.rest.find(|c| !is_name(c)).unwrap_or(self.rest.len());
                    tokens.push(Token::Name(self.rest[..end].to_owned()));
                    self.skip(end);
                }
                c => return Err(wrong(&format!("`{c}` means nothing"))),
            }
        }
        Ok(tokens)
    }

    fn skip(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
    }

    /// `"…"` with escapes.
    fn literal(&mut self) -> Result<String, GrammarError> {
        self.skip(1);
        let mut text = String::new();
        loop {
            match self.rest.chars().next() {
                None => return Err(wrong("a text has no end")),
                Some('"') => {
                    self.skip(1);
                    return Ok(text);
                }
                Some('\\') => text.push(self.escape()?),
                Some(c) => {
                    self.skip(c.len_utf8());
                    text.push(c);
                }
            }
        }
    }

    /// `[…]` as a class of a regular expression.
    fn class(&mut self) -> Result<String, GrammarError> {
        self.skip(1);
        let mut class = "[".to_owned();
        if self.rest.starts_with('^') {
            self.skip(1);
            class.push('^');
        }
        loop {
            match self.rest.chars().next() {
                None => return Err(wrong("a class of characters has no end")),
                Some(']') => {
                    self.skip(1);
                    class.push(']');
                    return Ok(class);
                }
                Some('-') => {
                    self.skip(1);
                    // `-` between two characters makes a range; at an end it stands for itself.
                    let is_range = !class.ends_with(['[', '^']) && !self.rest.starts_with(']');
                    class.push_str(if is_range { "-" } else { "\\-" });
                }
                Some('\\') => {
                    let c = self.escape()?;
                    push_in_class(&mut class, c);
                }
                Some(c) => {
                    self.skip(c.len_utf8());
                    push_in_class(&mut class, c);
                }
            }
        }
    }

    fn escape(&mut self) -> Result<char, GrammarError> {
        self.skip(1);
        let Some(kind) = self.rest.chars().next() else {
            return Err(wrong("`\\` stands at the end"));
        };
        self.skip(kind.len_utf8());
        let digits = match kind {
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            '"' | '\\' | '[' | ']' | '-' | '^' | '/' | '\'' => return Ok(kind),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            other => return Err(wrong(&format!("`\\{other}` means nothing"))),
        };
        let code = self.rest.get(..digits);
        let c = code.and_then(|code| char::from_u32(u32::from_str_radix(code, 16).ok()?));
        let Some(c) = c else {
            return Err(wrong(&format!(
                "`\\{kind}` is not followed by {digits} hexadecimal digits of a character"
            )));
        };
        self.skip(digits);
        Ok(c)
    }

    /// `{3}`, `{2,}`, `{2,5}`.
    fn times(&mut self) -> Result<String, GrammarError> {
        let Some(end) = self.rest.find('}') else {
            return Err(wrong("`{` has no `}`"));
        };
        let inner: String = self.rest[1..end].split_whitespace().collect();
        let is_count = |count: &str| count.parse::<u32>().is_ok();
        let is_valid = match inner.split_once(',') {
            None => is_count(&inner),
            Some((least, most)) => is_count(least) && (most.is_empty() || is_count(most)),
        };
        if !is_valid {
            return Err(wrong(&format!("`{{{inner}}}` is not a number of times")));
        }
        self.skip(end + 1);
        Ok(format!("{{{inner}}}"))
    }
}

fn push_in_class(class: &mut String, c: char) {
    match c {
        '\n' => class.push_str("\\n"),
        '\r' => class.push_str("\\r"),
        '\t' => class.push_str("\\t"),
        c => {
            // The characters that are special in a class of a regular expression, and `/`, which
            // ends the expression in Lark's syntax.
            if "\\]^[-&~/".contains(c) {
                class.push('\\');
            }
            class.push(c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_names_classes_and_repetitions_are_translated() {
        let lark = to_lark(
            "# a comment\nroot ::= the-Name (\"a\\n\" | [^\"\\\\a-z-])+ x_1{2,} .?\nthe-Name ::=\n  \"\\x41\"\n  | \"/\"\nx_1 ::= [0-9]",
        );
        let expected = "start: r_root\nr_root: r_the_m_uname ( \"a\\n\" | /[^\"\\\\a-z\\-]/)+ r_x__1{2,} /(?s:.)/?\n\
                        r_the_m_uname: \"A\" | \"/\"\nr_x__1: /[0-9]/\n";
        assert_eq!(lark.as_deref(), Ok(expected));
    }

    #[test]
    fn what_is_ebnf_is_told_from_lark() {
        assert!(is_ebnf("root ::= \"x\""));
        assert!(is_ebnf("# c\n  my-rule ::=\n \"x\""));
        assert!(!is_ebnf("start: \"::=\""));
        assert!(!is_ebnf("start: /x/"));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (grammar, what) in [
            ("x ::= \"a\"", "no rule `root`"),
            ("root ::= x", "the rule `x` is not defined"),
            ("root ::= \"a", "a text has no end"),
            ("root ::= [a", "class of characters has no end"),
            ("root ::= \"\\q\"", "`\\q` means nothing"),
            ("root ::= \"\\x4\"", "hexadecimal digits"),
            ("root ::= \"a\"{x}", "not a number of times"),
            ("root ::= \"a\"{2", "has no `}`"),
            ("root ::= ~", "`~` means nothing"),
            ("\"a\" root ::= \"b\"", "before the first rule"),
            ("::= \"b\"", "has no name"),
        ] {
            let error = to_lark(grammar).expect_err(grammar).to_string();
            assert!(error.contains(what), "{grammar}: {error}");
        }
    }
}
