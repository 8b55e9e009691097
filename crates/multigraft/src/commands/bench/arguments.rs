//! What can be typed after `multigraft bench`.

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
    /// Measure what this machine can do at most: read bandwidth and peak rates of arithmetic.
    Machine(MachineArguments),
    /// Measure prefill and decode of a model by themselves, without HTTP and sampling.
    Model(Box<ModelArguments>),
    /// Measure the low-rank updates of many adapters by themselves.
    Lora(LoraArguments),
    /// Put a running server under load and measure its answers.
    Serve(Box<LoadArguments>),
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
