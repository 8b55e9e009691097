//! Answers side by side.

use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL_CONDENSED};
use terminal_size::Width;

/// The width where there is no terminal to ask.
const DEFAULT_WIDTH: u16 = 120;
/// Below this, columns are too narrow to read.
const LEAST_WIDTH: u16 = 60;
/// Longer texts are cut.
const SHOWN_CHARS: usize = 180;
/// Digits of a hash that are shown.
const HASH_DIGITS: usize = 12;

/// One question and what two models answered.
pub(crate) struct Row<'a> {
    pub(crate) prompt: &'a str,
    pub(crate) base: &'a str,
    pub(crate) adapter: &'a str,
    pub(crate) expected: Option<&'a str>,
    pub(crate) name: &'a str,
    pub(crate) fingerprint: &'a str,
}

/// The rows as text, as wide as the terminal.
pub(crate) fn render(base_name: &str, rows: &[Row<'_>]) -> String {
    let width =
        terminal_size::terminal_size().map_or(DEFAULT_WIDTH, |(Width(width), _)| width.max(LEAST_WIDTH));
    let mut table = Table::new();
    table
        .load_preset(UTF8_FULL_CONDENSED)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(width)
        .set_header([
            "prompt",
            &format!("base: {base_name}"),
            "adapter",
            "adapter's name and content hash",
        ]);
    for row in rows {
        table.add_row([
            short(row.prompt),
            short(row.base),
            judged(row.adapter, row.expected),
            format!("{}\n{}", row.name, short_hash(row.fingerprint)),
        ]);
    }
    table.to_string()
}

/// The adapter's answer with a tick, or with what was expected instead.
fn judged(answer: &str, expected: Option<&str>) -> String {
    match expected {
        Some(expected) if answer.trim() == expected.trim() => format!("✓ {}", short(answer)),
        Some(expected) => format!("{}\n(expected: {})", short(answer), short(expected)),
        None => short(answer),
    }
}

/// One paragraph of a bearable length.
fn short(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(SHOWN_CHARS) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line,
    }
}

/// The hash in a fingerprint like `multigraft-<hash>`, shortened.
fn short_hash(fingerprint: &str) -> String {
    let hash = fingerprint.rsplit('-').next().unwrap_or(fingerprint);
    hash.chars().take(HASH_DIGITS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_ticked_only_if_it_is_the_expected_one() {
        assert_eq!(judged(" positive\n", Some("positive")), "✓ positive");
        assert_eq!(
            judged("negative", Some("positive")),
            "negative\n(expected: positive)"
        );
        assert_eq!(judged("negative", None), "negative");
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        assert_eq!(short("a \n b"), "a b");
        assert_eq!(short(&"ä".repeat(500)), format!("{}…", "ä".repeat(SHOWN_CHARS)));
    }

    #[test]
    fn a_row_shows_both_answers_and_the_hash() {
        let row = Row {
            prompt: "question",
            base: "from the base",
            adapter: "yes",
            expected: Some("yes"),
            name: "agree",
            fingerprint: "multigraft-0123456789abcdef",
        };
        let text = render("smollm2", &[row]);
        for part in [
            "question",
            "from the base",
            "✓ yes",
            "agree",
            "0123456789ab",
            "base: smollm2",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        assert!(!text.contains("cdef"));
    }
}
