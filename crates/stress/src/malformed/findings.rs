//! Counting what came of malformed requests.

use std::collections::BTreeMap;

use clap::ValueEnum as _;

use super::send::Outcome;
use crate::arguments::Malformation;
use multigraft_loadgen::table::Table;

/// How many problems are told in full.
const TOLD: usize = 20;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    sent: usize,
    done: usize,
    refused: usize,
    unavailable: usize,
    closed: usize,
    left: usize,
    problems: usize,
}

impl Counts {
    fn add(self, other: Self) -> Self {
        Self {
            sent: self.sent + other.sent,
            done: self.done + other.done,
            refused: self.refused + other.refused,
            unavailable: self.unavailable + other.unavailable,
            closed: self.closed + other.closed,
            left: self.left + other.left,
            problems: self.problems + other.problems,
        }
    }
}

/// Counts by family.
#[derive(Debug, Default)]
pub(super) struct Tally {
    families: BTreeMap<Malformation, Counts>,
    statuses: BTreeMap<u16, usize>,
    /// The first problems.
    told: Vec<String>,
    /// Problems of other things than malformed requests.
    others: usize,
}

impl Tally {
    /// Counts a case; `again` says how to send it once more.
    pub(super) fn count(&mut self, family: Malformation, outcome: Outcome, again: impl FnOnce() -> String) {
        let counts = self.families.entry(family).or_default();
        counts.sent += 1;
        for status in &outcome.statuses {
            *self.statuses.entry(*status).or_default() += 1;
            match status {
                ..400 => counts.done += 1,
                400..500 => counts.refused += 1,
                _ => counts.unavailable += 1,
            }
        }
        if let Some(problem) = outcome.problem {
            counts.problems += 1;
            if self.told.len() < TOLD {
                self.told
                    .push(format!("{} ({}): {problem}", name(family), again()));
            }
        } else if outcome.is_closed {
            counts.closed += 1;
        } else if outcome.statuses.is_empty() {
            counts.left += 1;
        }
    }

    /// Notes that something else went wrong.
    pub(super) fn problem(&mut self, problem: String) {
        self.others += 1;
        if self.told.len() < TOLD {
            self.told.push(problem);
        }
    }

    fn all(&self) -> Counts {
        self.families
            .values()
            .copied()
            .fold(Counts::default(), Counts::add)
    }

    pub(super) fn sent(&self) -> usize {
        self.all().sent
    }

    pub(super) fn is_good(&self) -> bool {
        (self.all().problems, self.others) == (0, 0)
    }

    /// The first problems, a line each.
    pub(super) fn told(&self) -> &[String] {
        &self.told
    }

    pub(super) fn table(&self) -> Table {
        let mut table = Table::new([
            "requests", "sent", "2xx", "4xx", "503, 504", "closed", "left", "problems",
        ]);
        let rows = self
            .families
            .iter()
            .map(|(family, counts)| (name(*family), *counts));
        for (family, counts) in rows.chain([("all".to_owned(), self.all())]) {
            let Counts {
                sent,
                done,
                refused,
                unavailable,
                closed,
                left,
                problems,
            } = counts;
            let [sent, done, refused, unavailable, closed, left, problems] =
                [sent, done, refused, unavailable, closed, left, problems].map(|count| count.to_string());
            table.row([family, sent, done, refused, unavailable, closed, left, problems]);
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

/// What a family is called on the command line.
pub(super) fn name(family: Malformation) -> String {
    let value = family.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_closed_connections_and_problems_are_counted_apart() {
        let mut tally = Tally::default();
        let answered = Outcome {
            statuses: vec![200, 400],
            ..Outcome::default()
        };
        let closed = Outcome {
            is_closed: true,
            ..Outcome::default()
        };
        tally.count(Malformation::HalfClosed, answered, String::new);
        tally.count(Malformation::HalfClosed, closed, String::new);
        tally.count(Malformation::Reset, Outcome::default(), String::new);
        assert!(tally.is_good());
        assert_eq!((tally.sent(), tally.statuses().as_str()), (3, "200: 1, 400: 1"));
        let table = tally.table().to_string();
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
        tally.count(Malformation::Reset, bad, || "--index 7".to_owned());
        assert!(!tally.is_good());
        assert_eq!(tally.told(), ["reset (--index 7): 500"]);
    }
}
