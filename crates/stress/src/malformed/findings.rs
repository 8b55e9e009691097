//! Counts the results of malformed requests.

use std::collections::BTreeMap;

use clap::ValueEnum as _;

use super::send::Outcome;
use crate::arguments::Malformation;
use multigraft_loadgen::table::Table;

/// How many problems are printed.
const EXAMPLES: usize = 20;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    sent: usize,
    succeeded: usize,
    refused: usize,
    unavailable: usize,
    closed: usize,
    unread: usize,
    problems: usize,
}

impl Counts {
    fn add(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            succeeded: self.succeeded + other.succeeded,
            refused: self.refused + other.refused,
            unavailable: self.unavailable + other.unavailable,
            closed: self.closed + other.closed,
            unread: self.unread + other.unread,
            problems: self.problems + other.problems,
        }
    }
}

/// Counts by family, and the problems.
#[derive(Debug, Default)]
pub(super) struct Findings {
    families: BTreeMap<Malformation, Counts>,
    statuses: BTreeMap<u16, usize>,
    /// The first problems, one line each.
    examples: Vec<String>,
    /// Problems that are not those of malformed requests.
    other_problems: usize,
}

impl Findings {
    /// Counts a case. `again` gives the arguments that send it again.
    pub(super) fn count(&mut self, family: Malformation, outcome: Outcome, again: impl FnOnce() -> String) {
        let counts = self.families.entry(family).or_default();
        counts.sent += 1;
        for status in &outcome.statuses {
            *self.statuses.entry(*status).or_default() += 1;
            match status {
                ..400 => counts.succeeded += 1,
                400..500 => counts.refused += 1,
                _ => counts.unavailable += 1,
            }
        }
        if let Some(problem) = outcome.problem {
            counts.problems += 1;
            if self.examples.len() < EXAMPLES {
                self.examples
                    .push(format!("{} ({}): {problem}", name(family), again()));
            }
        } else if outcome.is_closed {
            counts.closed += 1;
        } else if outcome.statuses.is_empty() {
            counts.unread += 1;
        }
    }

    /// Records a problem that is not one of a malformed request.
    pub(super) fn problem(&mut self, problem: String) {
        self.other_problems += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(problem);
        }
    }

    fn total(&self) -> Counts {
        self.families
            .values()
            .copied()
            .fold(Counts::default(), Counts::add)
    }

    /// How many malformed requests were sent.
    pub(super) fn sent(&self) -> usize {
        self.total().sent
    }

    /// Whether there are no problems.
    pub(super) fn is_clean(&self) -> bool {
        (self.total().problems, self.other_problems) == (0, 0)
    }

    /// The first problems, one line each.
    pub(super) fn examples(&self) -> &[String] {
        &self.examples
    }

    pub(super) fn table(&self) -> Table {
        let mut table = Table::new([
            "requests", "sent", "2xx", "4xx", "503, 504", "closed", "left", "problems",
        ]);
        let rows = self
            .families
            .iter()
            .map(|(family, counts)| (name(*family), *counts));
        for (family, counts) in rows.chain([("all".to_owned(), self.total())]) {
            let Counts {
                sent,
                succeeded,
                refused,
                unavailable,
                closed,
                unread,
                problems,
            } = counts;
            let [sent, succeeded, refused, unavailable, closed, unread, problems] =
                [sent, succeeded, refused, unavailable, closed, unread, problems]
                    .map(|count| count.to_string());
            table.row([
                family,
                sent,
                succeeded,
                refused,
                unavailable,
                closed,
                unread,
                problems,
            ]);
        }
        table
    }

    /// `200: 12, 400: 3`.
    pub(super) fn statuses(&self) -> String {
        let statuses = self
            .statuses
            .iter()
            .map(|(status, count)| format!("{status}: {count}"));
        statuses.collect::<Vec<_>>().join(", ")
    }
}

/// The name of a family on the command line.
pub(super) fn name(family: Malformation) -> String {
    let value = family.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_closed_connections_and_problems_are_counted_separately() {
        let mut findings = Findings::default();
        let answered = Outcome {
            statuses: vec![200, 400],
            ..Outcome::default()
        };
        let closed = Outcome {
            is_closed: true,
            ..Outcome::default()
        };
        findings.count(Malformation::HalfClosed, answered, String::new);
        findings.count(Malformation::HalfClosed, closed, String::new);
        findings.count(Malformation::Reset, Outcome::default(), String::new);
        assert!(findings.is_clean());
        assert_eq!(
            (findings.sent(), findings.statuses().as_str()),
            (3, "200: 1, 400: 1")
        );
        let table = findings.table().to_string();
        assert!(
            table.lines().any(|line| line.split_whitespace().eq([
                "half-closed",
                "2",
                "1",
                "1",
                "0",
                "1",
                "0",
                "0"
            ])),
            "{table}"
        );
        let bad = Outcome {
            problem: Some("500".to_owned()),
            ..Outcome::default()
        };
        findings.count(Malformation::Reset, bad, || "--index 7".to_owned());
        assert!(!findings.is_clean());
        assert_eq!(findings.examples(), ["reset (--index 7): 500"]);
    }
}
