//! Counting what came of requests.

use std::collections::BTreeMap;

use multigraft_loadgen::table::Table;

/// How many failures are told in full.
const TOLD: usize = 20;

/// What came of one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The answer that was due, or an answer where any will do.
    Answered,
    /// An error that was due, or that the server may give: it is full, the adapter is just gone.
    Refused(u16),
    /// The client did not wait.
    HungUp,
    /// An answer, but not the right one.
    Wrong(String),
    /// An error that is none of those.
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
        let asked = answered + refused + hung_up + wrong + failed + lost;
        [asked, answered, refused, hung_up, wrong, failed, lost]
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

/// Counts by kind of request.
#[derive(Debug, Default)]
pub(super) struct Tally {
    kinds: BTreeMap<&'static str, Counts>,
    statuses: BTreeMap<u16, usize>,
    /// What went wrong, the first of it.
    told: Vec<String>,
}

impl Tally {
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
        if self.told.len() < TOLD {
            self.told.push(format!("{kind}: {wrong}"));
        }
    }

    fn all(&self) -> Counts {
        self.kinds.values().copied().fold(Counts::default(), Counts::add)
    }

    pub(super) fn asked(&self) -> usize {
        self.all().cells()[0]
    }

    /// Whether every request had what was due.
    pub(super) fn is_good(&self) -> bool {
        let all = self.all();
        (all.wrong, all.failed, all.lost) == (0, 0, 0)
    }

    /// The first of what went wrong, a line each.
    pub(super) fn told(&self) -> &[String] {
        &self.told
    }

    pub(super) fn table(&self) -> Table {
        let mut table = Table::new([
            "requests", "asked", "answered", "refused", "hung up", "wrong", "failed", "lost",
        ]);
        let rows = self.kinds.iter().map(|(kind, counts)| (*kind, *counts));
        for (kind, counts) in rows.chain([("all", self.all())]) {
            let [asked, answered, refused, hung_up, wrong, failed, lost] =
                counts.cells().map(|count| count.to_string());
            table.row([
                kind.to_owned(),
                asked,
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
    fn what_was_due_is_good_and_nothing_else_is() {
        let mut tally = Tally::default();
        tally.count("a", Outcome::Answered);
        tally.count("a", Outcome::Refused(429));
        tally.count("b", Outcome::HungUp);
        assert!(tally.is_good() && tally.told().is_empty());
        assert_eq!((tally.asked(), tally.statuses().as_str()), (3, "200: 1, 429: 1"));
        for bad in [Outcome::Wrong, Outcome::Failed, Outcome::Lost] {
            let mut tally = Tally::default();
            tally.count("a", Outcome::Answered);
            tally.count("a", bad("x".to_owned()));
            assert!(!tally.is_good());
            assert_eq!(tally.told(), ["a: x"]);
        }
    }
}
