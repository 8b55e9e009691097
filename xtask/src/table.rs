//! Answers side by side.

use comfy_table::{ContentArrangement, Table, presets::UTF8_FULL};
use terminal_size::Width;

/// The width where there is no terminal to ask.
const DEFAULT_WIDTH: u16 = 120;
/// Below this, columns are too narrow to read.
const LEAST_WIDTH: u16 = 60;
/// Longer texts are cut: the base likes to talk, and its first words are enough.
const SHOWN_CHARS: usize = 100;
/// The same for what adapters answer, which is to the point.
const SHOWN_ANSWER_CHARS: usize = 300;
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

impl Row<'_> {
    /// Whether the adapter gave the expected answer, if one is known.
    pub(crate) fn is_as_expected(&self) -> Option<bool> {
        Some(self.adapter.trim() == self.expected?.trim())
    }
}

/// The rows as text, as wide as the terminal.
pub(crate) fn render(base_name: &str, rows: &[Row<'_>]) -> String {
    let width =
        terminal_size::terminal_size().map_or(DEFAULT_WIDTH, |(Width(width), _)| width.max(LEAST_WIDTH));
    let mut table = Table::new();
    table
        .load_preset(UTF8_FULL)
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
            short(row.prompt, SHOWN_CHARS),
            short(row.base, SHOWN_CHARS),
            judged(row),
            format!("{}\n{}", row.name, short_hash(row.fingerprint)),
        ]);
    }
    table.to_string()
}

/// The adapter's answer with a tick, or with what was expected instead.
fn judged(row: &Row<'_>) -> String {
    let answer = short(row.adapter, SHOWN_ANSWER_CHARS);
    match (row.is_as_expected(), row.expected) {
        (Some(true), _) => format!("✓ {answer}"),
        (_, Some(expected)) => format!("{answer}\n(expected: {})", short(expected, SHOWN_ANSWER_CHARS)),
        (_, None) => answer,
    }
}

/// One paragraph of a bearable length.
fn short(text: &str, most: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(most) {
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

    fn row<'a>(adapter: &'a str, expected: Option<&'a str>) -> Row<'a> {
        let fingerprint = "multigraft-0123456789abcdef";
        Row {
            prompt: "question",
            base: "from the base",
            adapter,
            expected,
            name: "agree",
            fingerprint,
        }
    }

    #[test]
    fn an_answer_is_ticked_only_if_it_is_the_expected_one() {
        assert_eq!(judged(&row(" positive\n", Some("positive"))), "✓ positive");
        assert_eq!(
            judged(&row("negative", Some("positive"))),
            "negative\n(expected: positive)"
        );
        assert_eq!(judged(&row("negative", None)), "negative");
    }

    #[test]
    fn long_texts_are_cut_at_a_character() {
        assert_eq!(short("a \n b", 9), "a b");
        assert_eq!(short("äöü", 2), "äö…");
        assert_eq!(short("äöü", 3), "äöü");
    }

    #[test]
    fn a_row_shows_both_answers_and_the_hash() {
        let text = render("smollm2", &[row("yes", Some("yes"))]);
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
