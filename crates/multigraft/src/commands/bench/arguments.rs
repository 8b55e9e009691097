//! The command line of `multigraft bench`.

use std::{fmt, path::PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use multigraft_loadgen::LoadArguments;

use crate::config::{AdapterDtype, ModelOptions};

#[derive(Debug, Args)]
pub(crate) struct BenchArguments {
    #[command(subcommand)]
    pub(super) what: Benchmark,
}

#[derive(Debug, Subcommand)]
pub(super) enum Benchmark {
    /// Measure the limits of this machine: read bandwidth and peak rates of arithmetic.
    Machine(MachineArguments),
    /// Measure prefill and decode of a model, without HTTP and sampling.
    Model(Box<ModelArguments>),
    /// Measure the low-rank updates of many adapters.
    Lora(LoraArguments),
    /// Put a running server under load, and measure its answers.
    Serve(Box<LoadArguments>),
}

#[derive(Debug, Args)]
#[command(after_help = "\
One thread is measured, then all threads together. Each figure is the best of many short runs. Reads from memory use
768 MiB, reads from the last-level cache 12 MiB. A multiply-add counts as two operations.

These figures limit the speed of a model: a step takes at least the time in which its weights are read, and at least the
time of its operations at the peak rate.")]
pub(super) struct MachineArguments {
    /// Threads of the second measurement. [default: one per core]
    #[arg(long, value_name = "COUNT")]
    pub threads: Option<usize>,

    /// Write the figures as JSON to this file; `-` prints JSON instead of the table.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  multigraft bench model --base smollm2
  multigraft bench model --base smollm2 --adapters ./adapters --decode-batches 1,8,32 --only decode
  multigraft bench model --base smollm2 --scaling --json model.json

A prompt is computed in steps of --max-batch-tokens tokens, up to its first logits. A decode step computes one token of
each sequence: every batch size at the shortest context, and every context at the smallest batch size. If there are
adapters, everything is measured for the base and then with the adapters, which are assigned to the sequences in turn.
Figures are medians.

`least ms` is the least time that any program needs on this machine: the bytes of weights, adapters and KV cache to read,
over the memory bandwidth, or the operations over the peak rate of their type, whichever is longer. `reached` is
that time over the measured time. Bandwidth and peak rates are measured before and after.")]
pub(super) struct ModelArguments {
    #[command(flatten)]
    pub model: ModelOptions,

    /// Lengths of prompts, in tokens.
    #[arg(long, value_name = "TOKENS", value_delimiter = ',', default_value = "128,512")]
    pub prefill_lengths: Vec<usize>,

    /// Batch sizes of decoding, in sequences.
    #[arg(
        long,
        value_name = "COUNT",
        value_delimiter = ',',
        default_value = "1,2,4,8,16,32"
    )]
    pub decode_batches: Vec<usize>,

    /// Contexts of decoding: the tokens of each sequence before the decoded ones.
    #[arg(
        long,
        value_name = "TOKENS",
        value_delimiter = ',',
        default_value = "64,1024,8000"
    )]
    pub decode_contexts: Vec<usize>,

    /// Decode steps that are measured.
    #[arg(long, value_name = "COUNT", default_value_t = 32)]
    pub steps: usize,

    /// Prompts that are measured for each length.
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    pub repetitions: usize,

    /// Measure only prefill or only decode.
    #[arg(long, value_enum)]
    pub only: Option<Phase>,

    /// Measure with 1, 2, 4, … threads up to --threads, not only with all of them.
    #[arg(long)]
    pub scaling: bool,

    /// Write the figures as JSON to this file; `-` prints JSON instead of the table.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
A segment is a run of neighbouring rows of a step with the same adapter. Its update goes through A (inputs to rank) and B
(rank to outputs), and is added to the outputs of the base. A step of 32 sequences with 32 adapters has 32 segments of
one row; a long prompt is one segment of many rows. Adapters are read from memory, not from caches, as in a model.
`least ms` and `reached` are as in `multigraft bench model`.")]
pub(super) struct LoraArguments {
    /// Ranks.
    #[arg(long, value_name = "RANK", value_delimiter = ',', default_value = "8,16,64")]
    pub ranks: Vec<usize>,

    /// Numbers of segments per step.
    #[arg(
        long,
        value_name = "COUNT",
        value_delimiter = ',',
        default_value = "1,8,32,128"
    )]
    pub segments: Vec<usize>,

    /// Numbers of rows per segment.
    #[arg(long, value_name = "COUNT", value_delimiter = ',', default_value = "1,8,64")]
    pub rows: Vec<usize>,

    /// Inputs of the linear map. The default is SmolLM2-135M's hidden size.
    #[arg(long, value_name = "SIZE", default_value_t = 576)]
    pub inputs: usize,

    /// Outputs of the linear map. The default is SmolLM2-135M's feed-forward size.
    #[arg(long, value_name = "SIZE", default_value_t = 1536)]
    pub outputs: usize,

    /// The type of adapter weights in memory.
    #[arg(long, value_enum, default_value_t = AdapterDtype::Bf16)]
    pub adapter_dtype: AdapterDtype,

    /// Compute threads. [default: one per core]
    #[arg(long, value_name = "COUNT")]
    pub threads: Option<usize>,

    /// Write the figures as JSON to this file; `-` prints JSON instead of the table.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// The two phases of a sequence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Phase {
    /// Computing a prompt.
    Prefill,
    /// Computing one token per step.
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
