//! The command line of `multigraft-stress`.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Stress tests of `multigraft serve`, for its developers.
///
/// Every command starts servers of its own on loopback, with random adapters that it writes to a
/// temporary folder.
#[derive(Debug, Parser)]
#[command(
    name = "multigraft-stress",
    max_term_width = 100,
    after_help = "\
Examples:
  cargo build --release -p multigraft -p multigraft-stress
  target/release/multigraft-stress soak --base SmolLM2-135M-Instruct.Q4_1.gguf --minutes 30
  target/release/multigraft-stress malformed --base SmolLM2-135M-Instruct.Q4_1.gguf --requests 100000
  target/release/multigraft-stress adapters --base SmolLM2-135M-Instruct.Q4_1.gguf --only crash,swap

Exit status: 0 everything holds, 1 something does not, 2 the input was bad or the server could not be started."
)]
pub(crate) struct Arguments {
    /// Log to stderr at this level: error, warn, info, debug or trace.
    #[arg(long, global = true, value_name = "LEVEL", default_value = "info")]
    pub log: String,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Send mixed traffic for a long time, and check that nothing is lost by it.
    Soak(SoakArguments),
    /// Send requests that are wrong in every way, and check that none disturbs the server.
    Malformed(MalformedArguments),
    /// Measure adapters that come and go: loads, swaps, crashes, thousands of them.
    Adapters(AdaptersArguments),
}

/// What is tested.
#[derive(Debug, Args)]
pub(crate) struct ProductArguments {
    /// The base model: a GGUF file or a Hugging Face folder.
    #[arg(long, value_name = "MODEL")]
    pub base: String,

    /// The program to test. [default: `multigraft` in this program's folder]
    #[arg(long, value_name = "PATH")]
    pub program: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
The traffic uses all dialects: whole and streamed answers, JSON schemas, tools, clients that hang up, bad requests, and
bursts of four times as many requests as the server runs at once. Meanwhile adapters are replaced, added and removed.

Every request must get an answer or an error. Every greedy answer must be the one that was given at the start. When the
server is idle again it must hold no more memory, file handles and KV blocks than after the first five minutes.
Exit status 1 if anything of this does not hold.")]
pub(crate) struct SoakArguments {
    #[command(flatten)]
    pub product: ProductArguments,

    /// How long, after five minutes of warm-up.
    #[arg(long, value_name = "MINUTES", default_value_t = 30.0)]
    pub minutes: f64,
}

/// The ways in which requests are malformed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Malformation {
    /// JSON bodies of every route with fields that are missing, repeated, unknown, of another type,
    /// too large, nested too deeply.
    Values,
    /// The same bodies with bytes that are not JSON: cut off, flipped bits, bad UTF-8, garbage
    /// around them.
    Text,
    /// Content types and encodings that are not those of the body.
    Encoding,
    /// Headers that are many, long, broken, repeated, absurd.
    Headers,
    /// Content lengths that are wrong.
    Lengths,
    /// Request lines with other methods, versions and protocols.
    Lines,
    /// Paths and queries that are long, broken, or lead elsewhere.
    Targets,
    /// Chunks whose sizes, extensions or ends are wrong.
    Chunks,
    /// Good and bad requests one after the other on one connection.
    Pipelines,
    /// Broken uploads of adapters and files.
    Forms,
    /// Clients that close their side of the connection and wait.
    HalfClosed,
    /// Clients that disconnect.
    Reset,
    /// Clients that send bytes slowly, or stop, until the server disconnects them.
    Slow,
    /// Clients that do not read their answers.
    Unread,
}

#[derive(Debug, Args)]
#[command(after_help = "\
No answer may be a server error, except 503 and 504. Every request that is one must be answered in HTTP. Good requests
in between must be answered as always. When the server is idle again it must hold no more memory, file handles and KV
blocks than after the warm-up. Exit status 1 if anything of this does not hold.

The seed and a request's number determine the request, so that it can be sent again:
  multigraft-stress malformed --base MODEL --seed 7 --index 4711")]
pub(crate) struct MalformedArguments {
    #[command(flatten)]
    pub product: ProductArguments,

    /// Number of requests, after those that warm up the server.
    #[arg(long, value_name = "COUNT", default_value_t = 100_000)]
    pub requests: u64,

    /// The seed of the requests.
    #[arg(long, value_name = "NUMBER", default_value_t = 0)]
    pub seed: u64,

    /// Send only requests that are malformed in these ways.
    #[arg(long, value_name = "FAMILY", value_delimiter = ',')]
    pub only: Vec<Malformation>,

    /// Send only the request with this number, and show it and its answer.
    #[arg(long, value_name = "NUMBER")]
    pub index: Option<u64>,
}

/// What `adapters` measures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Measurement {
    /// 10,000 adapters that are registered and not in memory.
    Registered,
    /// The first request of an adapter that is not in memory.
    Cold,
    /// Streams while adapters are loaded.
    Storm,
    /// 2,000 adapters with memory for 200.
    Zipf,
    /// Replacing an adapter that is in use.
    Swap,
    /// One adapter that floods the queue.
    Fair,
    /// Killing the server during changes.
    Crash,
    /// The memory that adapters add to the base.
    Memory,
}

impl Measurement {
    pub(crate) const ALL: [Self; 8] = [
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
The adapters take 2.5 GB in the temporary folder for SmolLM2, and are deleted at the end. Close other programs.")]
pub(crate) struct AdaptersArguments {
    #[command(flatten)]
    pub product: ProductArguments,

    /// Measure only these.
    #[arg(long, value_name = "MEASUREMENT", value_delimiter = ',')]
    pub only: Vec<Measurement>,

    /// How often `crash` kills a server.
    #[arg(long, value_name = "COUNT", default_value_t = 200)]
    pub crashes: usize,

    /// Write the figures as JSON to this file; `-` prints JSON instead of the table.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
