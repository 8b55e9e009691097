//! Finds the tags of a template, as the template engine does: strings, brackets, comments and raw
//! blocks are respected.

use std::ops::Range;

/// A `{{ … }}` or `{% … %}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tag {
    /// The range of the tag's contents: without the delimiters and the `-` or `+` next to them.
    pub(super) inside: Range<usize>,
    /// Whether it is a `{% … %}`.
    pub(super) is_block: bool,
    /// Bytes of the contents that are neither in a string nor white space.
    pub(super) code: usize,
}

/// All closed tags of `source`, in order. The search ends at a tag that is not closed, because such
/// a template does not compile.
pub(super) fn tags(source: &str) -> Vec<Tag> {
    let mut tags = Vec::new();
    let mut at = 0;
    while let Some(start) = source[at..].find('{').map(|offset| at + offset) {
        let after = start + 2;
        at = match source.as_bytes().get(start + 1) {
            Some(b'#') => match source[after..].find("#}") {
                Some(end) => after + end + 2,
                None => break,
            },
            Some(b'{' | b'%') => {
                let Some(tag) = tag_at(source, after) else { break };
                let end = source[tag.inside.end..]
                    .find('}')
                    .map_or(source.len(), |end| tag.inside.end + end);
                let end = if tag.is_block { end + 1 } else { end + 2 };
                let is_raw = tag.is_block && source[tag.inside.clone()].trim() == "raw";
                tags.push(tag);
                match is_raw {
                    true => after_raw(source, end),
                    false => end,
                }
            }
            _ => start + 1,
        };
        if at >= source.len() {
            break;
        }
    }
    tags
}

/// The tag whose contents begin at `start`.
fn tag_at(source: &str, start: usize) -> Option<Tag> {
    let bytes = source.as_bytes();
    let is_block = bytes[start - 1] == b'%';
    let close: &[u8] = if is_block { b"%}" } else { b"}}" };
    let start = start + usize::from(matches!(bytes.get(start), Some(b'-' | b'+')));
    let (mut at, mut depth, mut code) = (start, 0_isize, 0);
    while let Some(&byte) = bytes.get(at) {
        if depth == 0 {
            let marker = usize::from(matches!(byte, b'-' | b'+'));
            if bytes[at + marker..].starts_with(close) {
                return Some(Tag {
                    inside: start..at,
                    is_block,
                    code,
                });
            }
        }
        match byte {
            b'"' | b'\'' => {
                at = end_of_string(bytes, at)?;
                continue;
            }
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth -= 1,
            _ => {}
        }
        code += usize::from(!byte.is_ascii_whitespace());
        at += 1;
    }
    None
}

/// Where the string that begins at `start` ends: behind its closing quote.
fn end_of_string(bytes: &[u8], start: usize) -> Option<usize> {
    let quote = bytes[start];
    let mut at = start + 1;
    loop {
        match bytes.get(at)? {
            b'\\' => at += 2,
            byte if *byte == quote => return Some(at + 1),
            _ => at += 1,
        }
    }
}

/// Where the `{% endraw %}` that closes a raw block begins; the end of the source if there is none.
fn after_raw(source: &str, start: usize) -> usize {
    let mut at = start;
    while let Some(tag) = source[at..].find("{%").map(|offset| at + offset) {
        let inside = source[tag + 2..].trim_start_matches(['-', '+']).trim_start();
        if inside.strip_prefix("endraw").is_some_and(|rest| {
            let rest = rest.trim_start();
            rest.trim_start_matches(['-', '+']).starts_with("%}")
        }) {
            return tag;
        }
        at = tag + 2;
    }
    source.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn insides(source: &str) -> Vec<&str> {
        tags(source).into_iter().map(|tag| &source[tag.inside]).collect()
    }

    #[test]
    fn tags_end_where_the_engine_ends_them() {
        assert_eq!(
            insides("a {{ b }} c {%- if d -%} e {%+ endif +%}"),
            [" b ", " if d ", " endif "]
        );
        assert_eq!(
            insides("{{ {'a': {}}['a'] }}x{{ y }}"),
            [" {'a': {}}['a'] ", " y "]
        );
        assert_eq!(
            insides(r#"{{ "}}" ~ '%}' ~ "\"}}" }}{{ z }}"#),
            [r#" "}}" ~ '%}' ~ "\"}}" "#, " z "]
        );
        assert_eq!(insides("{{ a % b }}{% if a }b{ %}"), [" a % b ", " if a }b{ "]);
        assert_eq!(insides("{{{}}}"), ["{}"]);
        assert_eq!(insides("{ { a } }"), [""; 0]);
    }

    #[test]
    fn comments_and_raw_blocks_hide_tags() {
        assert_eq!(insides("{# {{ a }} ' #}{{ b }}"), [" b "]);
        assert_eq!(
            insides("{%- raw -%}{{ ' {% x %}{%- endraw %}{{ b }}"),
            [" raw ", " endraw ", " b "]
        );
        assert_eq!(insides("{% raw %}{{ a }}"), [" raw "]);
    }

    #[test]
    fn what_is_not_closed_ends_the_search() {
        for source in [
            "{{ a",
            "{{ 'a }}",
            "{% a }}",
            "{# a",
            "{",
            "{{",
            "{%-",
            "{{ ( }} {{ b }}",
            "{{ '\\",
        ] {
            assert!(tags(source).is_empty(), "{source}");
        }
    }

    #[test]
    fn strings_and_spaces_are_not_code() {
        let codes = |source| tags(source).into_iter().map(|tag| tag.code).collect::<Vec<_>>();
        assert_eq!(codes("{{ 'long text' + a }}{%if b%}"), [2, 3]);
    }
}
