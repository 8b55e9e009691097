//! All figures in one run.

use std::process::ExitCode;

use anyhow::Result;
use clap::ValueEnum;

use super::context::{Results, Tools};
use super::subjects::Subject;
use super::{Arguments, footprint, machine, peft, serving, speed, turns};

/// Groups of figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Group {
    /// The limits of the machine.
    Machine,
    /// The low-rank kernel.
    Lora,
    /// Decoding of one sequence without a server, at a short and at a long context.
    Decode,
    /// Prompts of 512 tokens in every type, one thread and two.
    Prefill,
    /// Q4_0 over HTTP: 1, 16 and 32 clients, base and adapters.
    Serve,
    /// BF16 over HTTP, compared with vLLM.
    Vllm,
    /// Eight clients with eight adapters, compared with PEFT.
    Peft,
    /// Qwen2.5-Coder 0.5B and 1.5B.
    Qwen,
    /// A model with the shapes of Mistral-7B.
    Mistral,
    /// The second turn of a chat.
    Turns,
    /// Memory, and the time until a server answers.
    Footprint,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let tools = Tools::new(arguments)?;
    let mut results = Results::new(tools.out.clone(), tools.threads, tools.rounds);
    for group in Group::value_variants() {
        if !arguments.only.is_empty() && !arguments.only.contains(group) {
            continue;
        }
        match group {
            Group::Machine => results.attempt(|results| machine::peaks(&tools, results)),
            Group::Lora => results.attempt(|results| machine::low_rank(&tools, results)),
            Group::Decode => speed::decode(&tools, &mut results),
            Group::Prefill => speed::prefill(&tools, &mut results),
            Group::Serve => results.attempt(|results| serving::small(&tools, results)),
            Group::Vllm => serving::vllm(&tools, &mut results),
            Group::Peft => peft::measure(&tools, &mut results),
            Group::Qwen => {
                for subject in [Subject::QWEN_SMALL, Subject::QWEN_LARGE] {
                    let what = format!("{}, decode", subject.title);
                    speed::decode_of(&tools, &mut results, subject, &what, speed::DEPTH, "1");
                    speed::prefill_of(&tools, &mut results, subject, "2");
                    results.attempt(|results| serving::qwen(&tools, results, subject));
                }
            }
            Group::Mistral => results.attempt(|results| serving::mistral(&tools, results)),
            Group::Turns => results.attempt(|results| turns::measure(&tools, results)),
            Group::Footprint => footprint::measure(&tools, &mut results),
        }
    }
    println!("{}", results.text());
    println!(
        "Written to results.md and results.json in {}.",
        tools.out.display()
    );
    Ok(ExitCode::from(u8::from(results.failed)))
}
