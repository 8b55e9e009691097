//! The usage of a request, for the hourly usage records.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::SystemTime,
};

use multigraft_access::{Access, Used};
use multigraft_api::UsageCounts;
use multigraft_engine::Event;

/// The usage of a running request, of all of its choices together. When the last choice drops it,
/// the request is recorded in that hour with the tokens that were generated. A request that was
/// never accepted is recorded as refused.
#[derive(Debug)]
pub(crate) struct RequestUsage {
    access: Arc<Access>,
    used: Used,
    prompt: u64,
    cached: AtomicU64,
    generated: AtomicU64,
    failed: AtomicBool,
    accepted: AtomicBool,
}

impl RequestUsage {
    /// A request whose prompts have `prompt` tokens, counted once for each choice.
    pub(crate) fn new(access: &Arc<Access>, used: Used, prompt: usize) -> Arc<Self> {
        Arc::new(Self {
            access: Arc::clone(access),
            used,
            prompt: prompt as u64,
            cached: AtomicU64::new(0),
            generated: AtomicU64::new(0),
            failed: AtomicBool::new(false),
            accepted: AtomicBool::new(false),
        })
    }

    /// The engine has accepted the request.
    pub(crate) fn accepted(&self) {
        self.accepted.store(true, Relaxed);
    }

    /// Counts an event of one of the choices.
    pub(crate) fn event(&self, event: &Event) {
        match event {
            Event::Token(_) => drop(self.generated.fetch_add(1, Relaxed)),
            Event::Finished(finish) => drop(self.cached.fetch_add(finish.cached_tokens as u64, Relaxed)),
            Event::Failed(_) | Event::Refused(_) | Event::Cancelled(_) => self.failed.store(true, Relaxed),
            Event::Started { .. } | Event::Prompt(_) | Event::Embedding(_) => {}
        }
    }
}

impl Drop for RequestUsage {
    fn drop(&mut self) {
        let counts = match self.accepted.load(Relaxed) {
            false => UsageCounts {
                refused: 1,
                ..UsageCounts::default()
            },
            true => UsageCounts {
                requests: 1,
                prompt_tokens: self.prompt,
                cached_prompt_tokens: self.cached.load(Relaxed),
                generated_tokens: self.generated.load(Relaxed),
                errors: u64::from(self.failed.load(Relaxed)),
                refused: 0,
            },
        };
        self.access
            .usage()
            .count(self.used.clone(), &counts, SystemTime::now());
    }
}
