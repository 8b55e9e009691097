//! What is told of single requests to those who run the server, beside the counts of
//! [`crate::observe::metrics`]: spans to a collector of traces, and prompts and answers to the log where
//! that was asked for.

mod spans;
mod transcript;

use multigraft_engine::{Event, Request};
use multigraft_text::Tokenizer;
use opentelemetry_sdk::trace::SdkTracer;

use crate::contract::model::ResolvedModel;
use spans::Phases;
pub(crate) use spans::{asked_for, loading, trace};
use transcript::Transcript;

/// What is told. By default nothing that a client sent or was answered.
#[derive(Clone, Debug, Default)]
pub struct Telemetry {
    /// Whether prompts and answers are written to the log.
    pub log_prompts: bool,
    /// Makes the spans of requests, if they are traced.
    pub tracer: Option<SdkTracer>,
}

impl Telemetry {
    /// Who follows each of the answers that `model` gives.
    pub(crate) fn follow(
        &self,
        choices: &[Request],
        model: &ResolvedModel,
        tokenizer: &Tokenizer,
    ) -> Vec<Follower> {
        let mut before: Option<&[u32]> = None;
        // All answers to a prompt follow it.
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

/// Follows one answer, on the engine's thread.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    transcript: Option<Transcript>,
    phases: Option<Phases>,
}

impl Follower {
    /// Something happened to the answer.
    pub(crate) fn event(&mut self, event: &Event) {
        if let Some(transcript) = &mut self.transcript {
            transcript.event(event);
        }
        if let Some(phases) = &mut self.phases {
            phases.event(event);
        }
    }
}
