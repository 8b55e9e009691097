//! The command line of the load generator.

use std::{path::PathBuf, str::FromStr};

use clap::{Args, ValueEnum};

/// What `multigraft bench serve` is given.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  multigraft serve --base smollm2 --adapters ./adapters --port 8080      (in another terminal)
  multigraft bench serve --clients 16 --requests 64
  multigraft bench serve --clients 32 --requests 128 --adapters 32 --json run.json --plot run.svg
  multigraft bench serve --mode open --rate 4 --duration 60 --adapters support,sql --pick zipf:1.2
  multigraft bench serve --url http://127.0.0.1:8081 --dialect llama-cpp --adapters 8 --clients 16

Prompts are random words, different for every request; they share no prefix. Every word is one token in nearly all
vocabularies. Two requests beforehand measure how many tokens the server adds to a prompt, so that prompts have exactly
--prompt-tokens tokens as the server counts them. Answers have their full length: end-of-sequence tokens are ignored.

  closed loop   every client sends its next request as soon as its previous one has ended
  open loop     requests arrive at random (a Poisson process), whether or not earlier ones have ended

  TTFT          time to first token: from sending a request (open loop: from when it was due) to its first token
  ITL           inter-token latency: the time between two tokens of an answer, every gap by itself
  TPOT          time per output token: from the first token to the last, over the number of tokens after the first
  end to end    from sending a request (open loop: from when it was due) to the end of its answer

Exit status: 0 all requests were answered, 1 some failed, 2 bad input, or the server could not be reached.")]
pub struct LoadArguments {
    /// The server's URL.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,

    /// An API key, if the server requires one.
    #[arg(long, value_name = "KEY", env = "MULTIGRAFT_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,

    /// The API to use. It determines how a request names its adapter.
    #[arg(long, value_enum, default_value_t = DialectName::Openai)]
    pub dialect: DialectName,

    /// The base model's name in requests (openai). [default: as the server lists it]
    #[arg(long, value_name = "NAME")]
    pub base_name: Option<String>,

    /// The adapters to send requests to: names separated by commas (llama-cpp: ids), or how many of
    /// those that the server lists. [default: none, requests go to the base]
    #[arg(long, value_name = "NAMES|COUNT")]
    pub adapters: Option<AdapterList>,

    /// With a count: the adapters are named PREFIX00, PREFIX01, … and not as the server lists them.
    #[arg(long, value_name = "PREFIX", requires = "adapters")]
    pub adapter_prefix: Option<String>,

    /// How a request's adapter is chosen: `round-robin`, or `zipf[:S]`, where the k-th adapter has
    /// a probability proportional to 1/k^S. S is 1 if it is not given.
    #[arg(long, value_name = "HOW", default_value = "round-robin")]
    pub pick: Pick,

    /// When requests are sent.
    #[arg(long, value_enum, default_value_t = Mode::Closed)]
    pub mode: Mode,

    /// Closed loop: number of clients, each with one request at a time.
    #[arg(long, value_name = "COUNT", default_value_t = 8)]
    pub clients: usize,

    /// Open loop: requests per second, on average.
    #[arg(long, value_name = "NUMBER", default_value_t = 1.0)]
    pub rate: f64,

    /// Requests to send, not counting the warm-up. [default: 64, or as many as fit --duration]
    #[arg(long, value_name = "COUNT")]
    pub requests: Option<usize>,

    /// Send no new requests after this many seconds.
    #[arg(long, value_name = "SECONDS")]
    pub duration: Option<f64>,

    /// Requests that are sent first and not measured.
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    pub warmup: usize,

    /// Tokens of each prompt: a number, or a range `A..B` (both included) to draw from.
    #[arg(long, value_name = "TOKENS", default_value = "128")]
    pub prompt_tokens: Span,

    /// Tokens of each answer: a number, or a range `A..B` (both included) to draw from.
    #[arg(long, value_name = "TOKENS", default_value = "64")]
    pub output_tokens: Span,

    /// A request fails if nothing arrives for this many seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 600.0)]
    pub timeout: f64,

    /// The seed of prompts, lengths, adapters and arrivals. Without it every run has another seed,
    /// so that no run finds its prompts in the server's prefix cache; the report names the seed.
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,

    /// Write the figures of the run and of every request as JSON to this file; `-` prints JSON
    /// instead of the table.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Plot times to first token over time, and the distribution of latencies, into this SVG file.
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
}

/// An API of language model servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DialectName {
    /// `POST /v1/completions`; the adapter is the `model`. multigraft, vLLM and others.
    Openai,
    /// `POST /completion` of llama.cpp's server; the adapter is an id in its `lora` list, all
    /// others get scale 0.
    LlamaCpp,
    /// `POST /generate_stream` of TGI and LoRAX; the adapter is the `adapter_id`.
    Tgi,
}

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Mode {
    /// Closed loop: when a client's previous request has ended.
    Closed,
    /// Open loop: at random times, on average --rate per second.
    Open,
}

/// How requests choose adapters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pick {
    /// Each adapter in turn.
    RoundRobin,
    /// By Zipf's law with this exponent.
    Zipf(f64),
}

impl FromStr for Pick {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let problem = || format!("`{text}` is not round-robin, zipf or zipf:S with a number S of 0 or more");
        match text.split_once(':').unwrap_or((text, "1")) {
            ("round-robin", _) if !text.contains(':') => Ok(Self::RoundRobin),
            ("zipf", exponent) => {
                let exponent = exponent.parse().map_err(|_| problem())?;
                if !(0.0..=100.0).contains(&exponent) {
                    return Err(problem());
                }
                Ok(Self::Zipf(exponent))
            }
            _ => Err(problem()),
        }
    }
}

/// Which adapters requests go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AdapterList {
    /// So many of those that the server lists.
    Count(usize),
    /// Those with these names.
    Names(Vec<String>),
}

impl FromStr for AdapterList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(count) = text.parse() {
            return Ok(Self::Count(count));
        }
        let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
        if names.iter().any(String::is_empty) {
            return Err(format!(
                "`{text}` is neither a number nor names separated by commas"
            ));
        }
        Ok(Self::Names(names))
    }
}

/// A range of lengths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The shortest.
    pub least: usize,
    /// The longest.
    pub most: usize,
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let problem =
            || format!("`{text}` is not a length such as 128 or a range such as 16..256, from 1 on");
        let (least, most) = text.split_once("..").unwrap_or((text, text));
        let number = |text: &str| {
            text.trim_start_matches('=')
                .parse::<usize>()
                .map_err(|_| problem())
        };
        let (least, most) = (number(least)?, number(most)?);
        if least == 0 || least > most {
            return Err(problem());
        }
        Ok(Self { least, most })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_documented() {
        assert_eq!("zipf".parse(), Ok(Pick::Zipf(1.0)));
        assert_eq!("zipf:1.2".parse(), Ok(Pick::Zipf(1.2)));
        assert_eq!("round-robin".parse(), Ok(Pick::RoundRobin));
        assert_eq!("32".parse(), Ok(AdapterList::Count(32)));
        assert_eq!(
            "a, b".parse(),
            Ok(AdapterList::Names(vec!["a".to_owned(), "b".to_owned()]))
        );
        assert_eq!("64".parse(), Ok(Span { least: 64, most: 64 }));
        assert_eq!("16..256".parse(), Ok(Span { least: 16, most: 256 }));
    }

    #[test]
    fn malformed_values_are_refused() {
        for bad in ["", "zipf:", "zipf:-1", "zipf:NaN", "round-robin:2", "uniform"] {
            assert!(bad.parse::<Pick>().is_err(), "{bad}");
        }
        for bad in ["", "a,,b", ","] {
            assert!(bad.parse::<AdapterList>().is_err(), "{bad}");
        }
        for bad in ["", "0", "9..8", "0..4", "a", "1..", "-3"] {
            assert!(bad.parse::<Span>().is_err(), "{bad}");
        }
    }
}
