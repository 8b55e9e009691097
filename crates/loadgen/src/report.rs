//! Figures of a run: percentiles, rates, failures by kind.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    record::Record,
    statistics::percentile,
    table::{Table, figure},
};

/// The figures of a run.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Requests that were sent.
    pub requests: usize,
    /// Requests that were answered in full length.
    pub answered: usize,
    /// Requests that were answered with fewer tokens than requested.
    pub short: usize,
    /// How often each failure occurred.
    pub failures: BTreeMap<String, usize>,
    /// Seconds from the beginning to the end of the last answer.
    pub seconds: f64,
    /// Tokens of the prompts that were answered, as the server counts them.
    pub prompt_tokens: usize,
    /// Tokens of the answers, as the server counts them.
    pub output_tokens: usize,
    /// `output_tokens` over `seconds`.
    pub output_tokens_per_second: f64,
    /// Prompt and output tokens over `seconds`.
    pub total_tokens_per_second: f64,
    /// Answered requests over `seconds`.
    pub requests_per_second: f64,
    /// Time to first token.
    pub ttft: Option<Latency>,
    /// Inter-token latency: every gap between two tokens by itself.
    pub itl: Option<Latency>,
    /// Time per output token after the first, one value per request.
    pub tpot: Option<Latency>,
    /// From a request to the end of its answer.
    pub end_to_end: Option<Latency>,
}

/// A distribution of times, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// The mean.
    pub mean: f64,
    /// The median.
    pub p50: f64,
    /// The 95th percentile.
    pub p95: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The largest.
    pub max: f64,
}

impl Report {
    /// The figures of these requests.
    #[must_use]
    pub fn of(records: &[Record]) -> Self {
        let good: Vec<&Record> = records.iter().filter(|record| record.failure.is_none()).collect();
        let mut failures = BTreeMap::new();
        for failure in records.iter().filter_map(|record| record.failure.as_ref()) {
            *failures.entry(failure.to_string()).or_insert(0) += 1;
        }
        // A failure at the end does not count towards the rate of answered requests.
        let ends = good.iter().map(|record| record.end);
        let seconds = ends.max().unwrap_or(Duration::ZERO).as_secs_f64();
        let prompt_tokens = good.iter().filter_map(|record| record.prompt_tokens).sum();
        let output_tokens: usize = good.iter().map(|record| record.output_tokens).sum();
        let short = good
            .iter()
            .filter(|record| record.output_tokens < record.wanted)
            .count();
        let per_second = |count: usize| {
            if seconds > 0.0 {
                count as f64 / seconds
            } else {
                0.0
            }
        };
        Self {
            requests: records.len(),
            answered: good.len() - short,
            short,
            failures,
            seconds,
            prompt_tokens,
            output_tokens,
            output_tokens_per_second: per_second(output_tokens),
            total_tokens_per_second: per_second(output_tokens + prompt_tokens),
            requests_per_second: per_second(good.len()),
            ttft: Latency::of(good.iter().map(|record| record.ttft()).collect()),
            itl: Latency::of(
                good.iter()
                    .flat_map(|record| record.gaps.iter().copied())
                    .collect(),
            ),
            tpot: Latency::of(good.iter().filter_map(|record| record.tpot()).collect()),
            end_to_end: Latency::of(good.iter().map(|record| record.end_to_end()).collect()),
        }
    }

    /// How many requests failed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.failures.values().sum()
    }

    /// The figures as a table for the terminal.
    #[must_use]
    pub fn text(&self) -> String {
        let mut table = Table::new(["milliseconds", "p50", "p95", "p99", "max", "mean"]);
        for (name, latency) in [
            ("TTFT", self.ttft),
            ("ITL", self.itl),
            ("TPOT", self.tpot),
            ("end to end", self.end_to_end),
        ] {
            let cell = |of: fn(&Latency) -> f64| latency.as_ref().map_or("-".to_owned(), |l| figure(of(l)));
            table.row([
                name.to_owned(),
                cell(|l| l.p50),
                cell(|l| l.p95),
                cell(|l| l.p99),
                cell(|l| l.max),
                cell(|l| l.mean),
            ]);
        }
        let answered = (self.answered + self.short).max(1) as f64;
        let mut text = format!(
            "{} of {} requests answered in {:.1} s; on average {:.1} tokens of prompt, {:.1} of answer\n\n\
             output tokens/s {}   requests/s {}   prompt and output tokens/s {}\n\n{table}",
            self.answered + self.short,
            self.requests,
            self.seconds,
            self.prompt_tokens as f64 / answered,
            self.output_tokens as f64 / answered,
            figure(self.output_tokens_per_second),
            figure(self.requests_per_second),
            figure(self.total_tokens_per_second),
        );
        if self.short > 0 {
            text += &format!("\n{} answers were shorter than asked for\n", self.short);
        }
        for (failure, count) in &self.failures {
            text += &format!("\n{count} failed: {failure}");
        }
        if !self.failures.is_empty() {
            text.push('\n');
        }
        text
    }
}

/// Every request by itself; times are in milliseconds from the beginning of the run.
#[must_use]
pub fn requests_json(records: &[Record]) -> Value {
    let ms = |time: Duration| time.as_secs_f64() * 1e3;
    records
        .iter()
        .map(|record| {
            json!({
                "adapter": record.adapter,
                "sent_ms": ms(record.sent),
                "first_ms": record.first.map(ms),
                "end_ms": ms(record.end),
                "prompt_tokens": record.prompt_tokens,
                "output_tokens": record.output_tokens,
                "failure": record.failure,
            })
        })
        .collect()
}

impl Latency {
    /// The distribution of times in seconds; `None` if there are none.
    fn of(mut seconds: Vec<f64>) -> Option<Self> {
        seconds.sort_by(f64::total_cmp);
        let max = seconds.last()? * 1e3;
        Some(Self {
            mean: seconds.iter().sum::<f64>() / seconds.len() as f64 * 1e3,
            p50: percentile(&seconds, 50.0) * 1e3,
            p95: percentile(&seconds, 95.0) * 1e3,
            p99: percentile(&seconds, 99.0) * 1e3,
            max,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Failure;

    fn record(sent: u64, first: u64, end: u64, failure: Option<Failure>) -> Record {
        let ms = Duration::from_millis;
        Record {
            adapter: Some(1),
            sent: ms(sent),
            first: Some(ms(first)),
            last: Some(ms(end)),
            end: ms(end),
            gaps: vec![0.01; 3],
            prompt_tokens: Some(10),
            output_tokens: 4,
            wanted: 4,
            failure,
        }
    }

    #[test]
    fn no_values_have_no_distribution() {
        assert_eq!(Latency::of(Vec::new()), None);
    }

    #[test]
    fn a_report_counts_what_was_answered() {
        let lost = record(0, 5, 99_000, Some(Failure::TimedOut));
        let cut = Record {
            output_tokens: 2,
            ..record(0, 100, 1000, None)
        };
        let report = Report::of(&[record(0, 100, 2000, None), cut, lost]);
        assert_eq!(
            (report.requests, report.answered, report.short, report.failed()),
            (3, 1, 1, 1)
        );
        assert_eq!(report.failures["timed out"], 1);
        assert_eq!((report.seconds, report.output_tokens_per_second), (2.0, 3.0));
        assert_eq!(report.ttft.expect("answers").p50, 100.0);
        assert_eq!(report.end_to_end.expect("answers").p50, 1500.0);
        let text = report.text();
        for part in [
            "2 of 3 requests",
            "output tokens/s 3.00",
            "1 failed: timed out",
            "shorter",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    #[test]
    fn json_has_every_figure_in_milliseconds() {
        let records = [record(1000, 1100, 3000, None)];
        let json = serde_json::to_value(Report::of(&records)).expect("JSON");
        assert_eq!(json["ttft"]["p99"], 100.0);
        assert_eq!(json["itl"]["mean"], 10.0);
        assert_eq!(json["end_to_end"]["max"], 2000.0);
        assert!(
            json["failures"]
                .as_object()
                .is_some_and(serde_json::Map::is_empty)
        );
        let requests = requests_json(&records);
        assert_eq!(
            (&requests[0]["first_ms"], &requests[0]["adapter"]),
            (&json!(1100.0), &json!(1))
        );
    }

    #[test]
    fn a_run_without_answers_has_no_latencies() {
        let report = Report::of(&[record(0, 1, 2, Some(Failure::TimedOut))]);
        assert_eq!(report.output_tokens_per_second, 0.0);
        assert!(report.ttft.is_none() && report.text().contains("TTFT"));
    }
}
