//! What can be typed after `multigraft bench`.

use std::{fmt, path::PathBuf, str::FromStr};

use clap::{Args, Subcommand, ValueEnum};

use crate::config::{AdapterDtype, ModelOptions};

#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    #[command(subcommand)]
    pub(super) what: Benchmark,
}

#[derive(Debug, Subcommand)]
pub(super) enum Benchmark {
    /// Measure what this machine can do at most: read bandwidth and peak rates of arithmetic.
    Machine(MachineArguments),
    /// Measure prefill and decode of a model by themselves, without HTTP and sampling.
    Model(Box<ModelArguments>),
    /// Measure the low-rank updates of many adapters by themselves.
    Lora(LoraArguments),
    /// Measure adapters that come and go: loads, swaps, crashes, thousands of them.
    Adapters(AdaptersArguments),
    /// Put a running server under load and measure its answers.
    Serve(Box<ServeArguments>),
    /// Put a server of its own under mixed traffic for a long time, and see whether anything is
    /// lost.
    Soak(SoakArguments),
    /// Send a server of its own requests that are wrong in every way, and see whether it minds.
    Malformed(MalformedArguments),
}

#[derive(Debug, Args)]
#[command(after_help = "\
One thread is measured, then all threads together; each figure is the best of many short runs. Memory is read from
768 MiB, the last-level cache from 12 MiB. A multiply-add counts as two operations.

These are the two numbers that decide how fast a model can be: a step cannot take less time than its weights take to
be read, nor less than its operations take at the peak rate.")]
pub(super) struct MachineArguments {
    /// Threads beside the one that is measured alone; without it, one per core.
    #[arg(long, value_name = "COUNT")]
    pub threads: Option<usize>,

    /// Write the figures as JSON to this file; `-` prints them instead of the table.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What `bench adapters` measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum LifeGroup {
    /// 10,000 adapters that are known and not in memory.
    Registered,
    /// The first request of an adapter.
    Cold,
    /// Streams while adapters are loaded.
    Storm,
    /// 2,000 adapters in memory for 200.
    Zipf,
    /// Replacing an adapter that is used.
    Swap,
    /// One adapter that floods the queue.
    Fair,
    /// Ending the server within changes.
    Crash,
    /// What adapters add to the base.
    Memory,
}

impl LifeGroup {
    pub(super) const ALL: [Self; 8] = [
        Self::Registered,
        Self::Cold,
        Self::Storm,
        Self::Zipf,
        Self::Swap,
        Self::Fair,
        Self::Crash,
        Self::Memory,
    ];
}

#[derive(Debug, Args)]
#[command(after_help = "\
Starts servers of its own on loopback, with random adapters that it makes in the folder for temporary files (2.5 GB for
SmolLM2) and deletes. Everything goes over HTTP. Close other programs.")]
pub(super) struct AdaptersArguments {
    /// The base model: a GGUF file or a Hugging Face folder.
    #[arg(long, value_name = "MODEL")]
    pub base: String,

    /// Measure these only.
    #[arg(long, value_name = "GROUP", value_delimiter = ',')]
    pub only: Vec<LifeGroup>,

    /// How often a server is killed.
    #[arg(long, value_name = "COUNT", default_value_t = 200)]
    pub crashes: usize,

    /// Write the figures as JSON to this file; `-` prints them instead of the table.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Starts a server of its own on loopback, with random adapters that it makes in the folder for temporary files, and asks it in
all dialects: whole and streamed, by schemas, with tools, by clients that hang up, badly, and four times as much as it can run
at once; adapters are replaced, added and removed meanwhile. Every request must have an answer or an error, every answer
whose tokens are the likeliest must be that of the start, and at rest the server must hold what it held after the first five minutes.
Status 1 if not.")]
pub(super) struct SoakArguments {
    /// The base model: a GGUF file or a Hugging Face folder.
    #[arg(long, value_name = "MODEL")]
    pub base: String,

    /// How long, after the five that warm it up.
    #[arg(long, value_name = "MINUTES", default_value_t = 30.0)]
    pub minutes: f64,
}

/// Ways in which `bench malformed` is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(super) enum Malformation {
    /// Bodies of every route with fields that are missing, doubled, unknown, of another type, too
    /// large, too deep.
    Values,
    /// The same with bytes that are no JSON: cut off, flipped, bad UTF-8, rubbish around them.
    Text,
    /// Content types and encodings that are not those of the body.
    Encoding,
    /// Headers that are many, long, broken, doubled, absurd.
    Headers,
    /// Lengths of bodies that are wrong.
    Lengths,
    /// Request lines of other methods, versions and protocols.
    Lines,
    /// Paths and queries that are long, broken, or lead elsewhere.
    Targets,
    /// Chunks whose sizes, extensions or ends are wrong.
    Chunks,
    /// Good and bad requests one after the other on one connection.
    Pipelines,
    /// Uploads of adapters and files that are broken.
    Forms,
    /// Clients that send no more, and wait.
    HalfClosed,
    /// Clients that are gone.
    Reset,
    /// Clients that send bytes slowly, or stop, until they are cut off.
    Slow,
    /// Clients that do not read their answers.
    Unread,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Starts a server of its own on loopback, with a data folder and an adapter that it makes in the folder for temporary files, and
sends it requests that are wrong, many at once. No answer may be a server's error (503 and 504 are none), every request that is
one must be answered in HTTP, good requests in between must be answered as ever, and at rest the server must hold what it held
after the first thousands. Status 1 if not.

What a request is like depends on the seed and its number alone, so that one can be sent again:
  multigraft bench malformed --base smollm2 --seed 7 --index 4711")]
pub(super) struct MalformedArguments {
    /// The base model: a GGUF file or a Hugging Face folder.
    #[arg(long, value_name = "MODEL")]
    pub base: String,

    /// How many requests, after those that warm it up.
    #[arg(long, value_name = "COUNT", default_value_t = 100_000)]
    pub requests: u64,

    /// Which requests.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub seed: u64,

    /// Send only those that are wrong in these ways.
    #[arg(long, value_name = "FAMILY", value_delimiter = ',')]
    pub only: Vec<Malformation>,

    /// Send this request alone, and show what comes of it.
    #[arg(long, value_name = "NUMBER")]
    pub index: Option<u64>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  multigraft bench model --base smollm2
  multigraft bench model --base smollm2 --adapters ./adapters --decode-batches 1,8,32 --only decode
  multigraft bench model --base smollm2 --scaling --json model.json

A prompt is computed in steps of --max-batch-tokens, up to its first logits. Decoding computes one token of each sequence
per step: every batch size at the shortest context, and every context at the smallest batch size. With adapters,
everything is measured for the base and then with them, dealt out to the sequences in turn. Figures are medians.

`least ms` is the time that no program can go below on this machine: the bytes of weights, adapters and keys and values
that must be read over the bandwidth of its memory, or the operations over the peak rate of their kind, whichever is
longer. `reached` is what part of the measured time that is. Bandwidth and peaks are measured before and after.")]
pub(super) struct ModelArguments {
    #[command(flatten)]
    pub model: ModelOptions,

    /// Lengths of prompts, in tokens.
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', default_value = "128,512")]
    pub prefill_lengths: Vec<usize>,

    /// Sequences that are decoded at once.
    #[arg(
        long,
        value_name = "COUNT",
        value_delimiter = ',',
        default_value = "1,2,4,8,16,32"
    )]
    pub decode_batches: Vec<usize>,

    /// Tokens of each sequence before those that are decoded.
    #[arg(
        long,
        value_name = "TOKENS",
        value_delimiter = ',',
        default_value = "64,1024,8000"
    )]
    pub decode_contexts: Vec<usize>,

    /// Steps of decoding that are measured.
    #[arg(long, value_name = "COUNT", default_value_t = 32)]
    pub steps: usize,

    /// Prompts that are measured for each length.
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    pub repetitions: usize,

    /// Measure one of the two only.
    #[arg(long, value_enum)]
    pub only: Option<Phase>,

    /// Measure with 1, 2, 4, … threads up to --threads, not only with all.
    #[arg(long)]
    pub scaling: bool,

    /// Write the figures as JSON to this file; `-` prints them instead of the table.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A segment is the neighbouring rows of a step that have the same adapter. Each adds its own update to an output of the
base, which goes through A (inputs to rank) and B (rank to outputs). A step of 32 sequences with an adapter each has
32 segments of one row; a long prompt is one segment of many rows. Adapters come from memory, not from caches, as they
do in a model. `least ms` and `reached` are as in `multigraft bench model`.")]
pub(super) struct LoraArguments {
    /// Ranks.
    #[arg(long, value_name = "RANK", value_delimiter = ',', default_value = "8,16,64")]
    pub ranks: Vec<usize>,

    /// Segments of a step.
    #[arg(
        long,
        value_name = "COUNT",
        value_delimiter = ',',
        default_value = "1,8,32,128"
    )]
    pub segments: Vec<usize>,

    /// Rows of each segment.
    #[arg(long, value_name = "COUNT", value_delimiter = ',', default_value = "1,8,64")]
    pub rows: Vec<usize>,

    /// Inputs of the linear map. The default is SmolLM2-135M's hidden size.
    #[arg(long, value_name = "SIZE", default_value_t = 576)]
    pub inputs: usize,

    /// Outputs of the linear map. The default is SmolLM2-135M's feed-forward size.
    #[arg(long, value_name = "SIZE", default_value_t = 1536)]
    pub outputs: usize,

    /// How adapters are kept in memory.
    #[arg(long, value_enum, default_value_t = AdapterDtype::Bf16)]
    pub adapter_dtype: AdapterDtype,

    /// Threads that compute; without it, one per core.
    #[arg(long, value_name = "COUNT")]
    pub threads: Option<usize>,

    /// Write the figures as JSON to this file; `-` prints them instead of the table.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// What a model does with a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Phase {
    /// Computing a prompt.
    Prefill,
    /// Computing one token after the other.
    Decode,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prefill => "prefill",
            Self::Decode => "decode",
        })
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  multigraft serve --base smollm2 --adapters ./adapters --port 8080      (in another terminal)
  multigraft bench serve --clients 16 --requests 64
  multigraft bench serve --clients 32 --requests 128 --adapters 32 --json run.json --plot run.svg
  multigraft bench serve --mode open --rate 4 --duration 60 --adapters support,sql --pick zipf:1.2
  multigraft bench serve --url http://127.0.0.1:8081 --dialect llama-cpp --adapters 8 --clients 16

Prompts are random words, different for every request, that share no prefix. Every word is one token in nearly all
vocabularies; two requests beforehand measure what the server adds to them, so that prompts have exactly the length
asked for, in tokens as the server counts them. Answers have their full length: end-of-sequence tokens are ignored.

  closed loop   every client sends its next request as soon as its last one has ended
  open loop     requests arrive at random (a Poisson process), whether or not earlier ones have ended

  TTFT          from sending a request (open loop: from when it was due) to its first token
  ITL           between two tokens of an answer, every gap by itself
  TPOT          from the first token to the last, over the number of tokens between
  end to end    from sending a request (open loop: from when it was due) to the end of its answer

Exit status: 0 all requests were answered, 1 some failed, 2 the input was bad or the server could not be reached.")]
pub(super) struct ServeArguments {
    /// Where the server listens.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    pub url: String,

    /// An API key, if the server wants one.
    #[arg(long, value_name = "KEY", env = "MULTIGRAFT_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,

    /// The API to use, and with it how a request names its adapter.
    #[arg(long, value_enum, default_value_t = DialectName::Openai)]
    pub dialect: DialectName,

    /// The name that requests for the base call it by (openai). Without it, the server is asked.
    #[arg(long, value_name = "NAME")]
    pub base_name: Option<String>,

    /// The adapters to ask: names separated by commas (llama-cpp: ids), or how many of those that
    /// the server has. Without it, the base is asked.
    #[arg(long, value_name = "NAMES|COUNT")]
    pub adapters: Option<AdapterList>,

    /// With a count: the adapters are called PREFIX00, PREFIX01, … instead of as the server lists
    /// them.
    #[arg(long, value_name = "PREFIX", requires = "adapters")]
    pub adapter_prefix: Option<String>,

    /// How a request picks its adapter: `round-robin`, or `zipf[:S]`, the k-th with a probability
    /// that falls as 1/k^S (S = 1 if it is not given).
    #[arg(long, value_name = "HOW", default_value = "round-robin")]
    pub pick: Pick,

    /// When requests are sent.
    #[arg(long, value_enum, default_value_t = Mode::Closed)]
    pub mode: Mode,

    /// Closed loop: clients, each with one request at a time.
    #[arg(long, value_name = "COUNT", default_value_t = 8)]
    pub clients: usize,

    /// Open loop: requests per second, on average.
    #[arg(long, value_name = "NUMBER", default_value_t = 1.0)]
    pub rate: f64,

    /// Requests to send, after those of the warm-up. [default: 64, or as many as fit --duration]
    #[arg(long, value_name = "COUNT")]
    pub requests: Option<usize>,

    /// Send no new requests after this many seconds.
    #[arg(long, value_name = "SECONDS")]
    pub duration: Option<f64>,

    /// Requests beforehand that are not measured.
    #[arg(long, value_name = "COUNT", default_value_t = 2)]
    pub warmup: usize,

    /// Length of each prompt, in tokens: a number, or a range `A..B` (both included) to draw from.
    #[arg(long, value_name = "TOKENS", default_value = "128")]
    pub prompt_tokens: Span,

    /// Length of each answer, in tokens: a number, or a range `A..B` (both included) to draw from.
    #[arg(long, value_name = "TOKENS", default_value = "64")]
    pub output_tokens: Span,

    /// A request fails if nothing comes for so long, in seconds.
    #[arg(long, value_name = "SECONDS", default_value_t = 600.0)]
    pub timeout: f64,

    /// Makes prompts, lengths, picks and arrivals repeatable. Without it every run has its own, so
    /// that a server that keeps what it has computed knows nothing of a run's prompts; the report
    /// says which.
    #[arg(long, value_name = "NUMBER")]
    pub seed: Option<u64>,

    /// Write the figures, and those of every request, as JSON to this file; `-` prints them instead
    /// of the table.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Draw first tokens over time and the distribution of latencies into this SVG file.
    #[arg(long, value_name = "FILE")]
    pub plot: Option<PathBuf>,
}

/// An API of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum DialectName {
    /// `POST /v1/completions`; the adapter is the `model`. multigraft, vLLM and others.
    Openai,
    /// `POST /completion` of llama.cpp's server; the adapter is an id of its `lora` list, all
    /// others get scale 0.
    LlamaCpp,
    /// `POST /generate_stream` of TGI and LoRAX; the adapter is the `adapter_id`.
    Tgi,
}

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Mode {
    /// When an earlier one has ended.
    Closed,
    /// At random times, on average --rate a second.
    Open,
}

/// How requests pick adapters.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Pick {
    /// One after the other.
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

/// Adapters by name, or how many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum AdapterList {
    /// So many of the server's.
    Count(usize),
    /// These.
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

/// A length, or lengths from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub least: usize,
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
    fn what_is_typed_means_what_it_says() {
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
    fn what_means_nothing_is_refused() {
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
