//! What is told of single requests to those who run the server, beside the counts of [`crate::metrics`].

mod transcript;

use multigraft_engine::{Event, Request};
use multigraft_text::Tokenizer;

pub(crate) use transcript::Transcript;

/// What is told. By default nothing that a client sent or was answered.
#[derive(Clone, Debug, Default)]
pub struct Telemetry {
    /// Whether prompts and answers are written to the log.
    pub log_prompts: bool,
}

impl Telemetry {
    /// Who follows each of these answers of what is called `name`.
    pub(crate) fn follow(&self, choices: &[Request], name: &str, tokenizer: &Tokenizer) -> Vec<Follower> {
        let mut before: Option<&[u32]> = None;
        let choices = choices.iter().map(|request| Follower {
            transcript: self.log_prompts.then(|| {
                let transcript = Transcript::new(name);
                // All answers to a prompt follow it.
                if before != Some(&request.prompt) {
                    transcript.prompt(&tokenizer.decode(&request.prompt, false));
                }
                before = Some(&request.prompt);
                transcript
            }),
        });
        choices.collect()
    }
}

/// Follows one answer, on the engine's thread.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    transcript: Option<Transcript>,
}

impl Follower {
    /// Something happened to the answer.
    pub(crate) fn event(&mut self, event: &Event) {
        if let Some(transcript) = &mut self.transcript {
            transcript.event(event);
        }
    }
}
