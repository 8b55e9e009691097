//! Telemetry of single requests: spans for a trace collector, and prompts and answers in the log
//! with `--log-prompts`. [`crate::observe::metrics`] has the aggregates.

mod spans;
mod transcript;

use multigraft_engine::{Event, Request};
use multigraft_text::Tokenizer;
use opentelemetry_sdk::trace::SdkTracer;

use crate::contract::model::ResolvedModel;
use spans::Phases;
pub(crate) use spans::{loading, record_requested_model, trace};
use transcript::Transcript;

/// Configuration of telemetry. By default, nothing that clients send or receive is recorded.
#[derive(Clone, Debug, Default)]
pub struct Telemetry {
    /// Whether prompts and answers are written to the log.
    pub log_prompts: bool,
    /// Creates the spans of requests, if tracing is on.
    pub tracer: Option<SdkTracer>,
}

impl Telemetry {
    /// A follower for each answer of `model` to `choices`.
    pub(crate) fn follow(
        &self,
        choices: &[Request],
        model: &ResolvedModel,
        tokenizer: &Tokenizer,
    ) -> Vec<Follower> {
        let mut before: Option<&[u32]> = None;
        // The choices of one prompt are consecutive; the prompt is logged once.
        let prompts = choices.iter().map(|request| {
            let is_new = before.replace(&request.prompt) != Some(&request.prompt);
            is_new.then_some(request.prompt.as_slice())
        });
        let prompts: Vec<Option<&[u32]>> = prompts.collect();
        let tokens = prompts.iter().flatten().map(|prompt| prompt.len()).sum();
        let mut phases = self
            .tracer
            .as_ref()
            .and_then(|tracer| Phases::of_current(tracer, choices.len(), model, tokens));
        let followers = prompts.into_iter().enumerate().map(|(choice, prompt)| Follower {
            phases: phases.as_mut().map(|phases| phases.choice(choice)),
            transcript: self.log_prompts.then(|| {
                let transcript = Transcript::new(&model.name);
                if let Some(prompt) = prompt {
                    transcript.prompt(&tokenizer.decode(prompt, false));
                }
                transcript
            }),
        });
        followers.collect()
    }
}

/// Records one answer, on the engine's thread.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    transcript: Option<Transcript>,
    phases: Option<Phases>,
}

impl Follower {
    /// Handles an event of the answer.
    pub(crate) fn event(&mut self, event: &Event) {
        if let Some(transcript) = &mut self.transcript {
            transcript.event(event);
        }
        if let Some(phases) = &mut self.phases {
            phases.event(event);
        }
    }
}
