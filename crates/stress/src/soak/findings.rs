//! Counts the outcomes of requests.

use std::collections::BTreeMap;

use multigraft_loadgen::table::Table;

/// How many failures are printed.
const EXAMPLES: usize = 20;

/// The outcome of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The expected answer, or any answer if none is expected.
    Answered,
    /// An error that is right: the expected one, or the server is full, or the adapter is removed
    /// just then.
    Refused(u16),
    /// The client disconnected.
    HungUp,
    /// A wrong answer.
    Wrong(String),
    /// An unexpected error.
    Failed(String),
    /// Neither an answer nor an error.
    Lost(String),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    answered: usize,
    refused: usize,
    hung_up: usize,
    wrong: usize,
    failed: usize,
    lost: usize,
}

impl Counts {
    fn cells(self) -> [usize; 7] {
        let Self {
            answered,
            refused,
            hung_up,
            wrong,
            failed,
            lost,
        } = self;
        let sent = answered + refused + hung_up + wrong + failed + lost;
        [sent, answered, refused, hung_up, wrong, failed, lost]
    }

    fn add(self, other: Self) -> Self {
        Self {
            answered: self.answered + other.answered,
            refused: self.refused + other.refused,
            hung_up: self.hung_up + other.hung_up,
            wrong: self.wrong + other.wrong,
            failed: self.failed + other.failed,
            lost: self.lost + other.lost,
        }
    }
}

/// Counts by kind of request, and the failures.
#[derive(Debug, Default)]
pub(super) struct Findings {
    kinds: BTreeMap<&'static str, Counts>,
    statuses: BTreeMap<u16, usize>,
    /// The first failures, one line each.
    examples: Vec<String>,
}

impl Findings {
    pub(super) fn count(&mut self, kind: &'static str, outcome: Outcome) {
        let counts = self.kinds.entry(kind).or_default();
        let wrong = match outcome {
            Outcome::Answered => {
                counts.answered += 1;
                *self.statuses.entry(200).or_default() += 1;
                return;
            }
            Outcome::Refused(status) => {
                counts.refused += 1;
                *self.statuses.entry(status).or_default() += 1;
                return;
            }
            Outcome::HungUp => {
                counts.hung_up += 1;
                return;
            }
            Outcome::Wrong(what) => {
                counts.wrong += 1;
                what
            }
            Outcome::Failed(what) => {
                counts.failed += 1;
                what
            }
            Outcome::Lost(what) => {
                counts.lost += 1;
                what
            }
        };
        if self.examples.len() < EXAMPLES {
            self.examples.push(format!("{kind}: {wrong}"));
        }
    }

    fn total(&self) -> Counts {
        self.kinds.values().copied().fold(Counts::default(), Counts::add)
    }

    /// How many requests were sent.
    pub(super) fn sent(&self) -> usize {
        self.total().cells()[0]
    }

    /// Whether every request had an expected outcome.
    pub(super) fn is_clean(&self) -> bool {
        let total = self.total();
        (total.wrong, total.failed, total.lost) == (0, 0, 0)
    }

    /// The first failures, one line each.
    pub(super) fn examples(&self) -> &[String] {
        &self.examples
    }

    pub(super) fn table(&self) -> Table {
        let mut table = Table::new([
            "requests", "sent", "answered", "refused", "hung up", "wrong", "failed", "lost",
        ]);
        let rows = self.kinds.iter().map(|(kind, counts)| (*kind, *counts));
        for (kind, counts) in rows.chain([("all", self.total())]) {
            let [sent, answered, refused, hung_up, wrong, failed, lost] =
                counts.cells().map(|count| count.to_string());
            table.row([
                kind.to_owned(),
                sent,
                answered,
                refused,
                hung_up,
                wrong,
                failed,
                lost,
            ]);
        }
        table
    }

    /// `200: 12, 429: 3`.
    pub(super) fn statuses(&self) -> String {
        let statuses = self
            .statuses
            .iter()
            .map(|(status, count)| format!("{status}: {count}"));
        statuses.collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_expected_outcomes_are_clean() {
        let mut findings = Findings::default();
        findings.count("a", Outcome::Answered);
        findings.count("a", Outcome::Refused(429));
        findings.count("b", Outcome::HungUp);
        assert!(findings.is_clean() && findings.examples().is_empty());
        assert_eq!(
            (findings.sent(), findings.statuses().as_str()),
            (3, "200: 1, 429: 1")
        );
        for bad in [Outcome::Wrong, Outcome::Failed, Outcome::Lost] {
            let mut findings = Findings::default();
            findings.count("a", Outcome::Answered);
            findings.count("a", bad("x".to_owned()));
            assert!(!findings.is_clean());
            assert_eq!(findings.examples(), ["a: x"]);
        }
    }
}
