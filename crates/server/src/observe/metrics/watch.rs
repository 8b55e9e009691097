//! Measuring one answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use multigraft_engine::{Event, Finish};
use prometheus_client::metrics::{counter::Counter, histogram::Histogram};

use super::{Ended, Metrics, OfAdapter};

/// Measures one answer, on the engine's thread. A drop before the end means that the client
/// disconnected.
#[derive(Debug)]
pub(crate) struct Watch {
    metrics: Metrics,
    label: OfAdapter,
    began: Instant,
    last_token: Option<Instant>,
    accepted: Arc<AtomicBool>,
    ended: bool,
    /// Whether durations count. Those of batches say nothing about how long clients wait.
    timed: bool,
    // Looked up once, because tokens are frequent.
    generated: Counter,
    between_tokens: Histogram,
}

impl Watch {
    pub(super) fn new(metrics: &Metrics, adapter: String, accepted: Arc<AtomicBool>, timed: bool) -> Self {
        let label = OfAdapter { adapter };
        Self {
            generated: metrics.0.generated_tokens.get_or_create_owned(&label),
            between_tokens: metrics.0.between_tokens.get_or_create_owned(&label),
            metrics: metrics.clone(),
            label,
            began: Instant::now(),
            last_token: None,
            accepted,
            ended: false,
            timed,
        }
    }

    /// Handles an event of the answer.
    pub(crate) fn event(&mut self, event: &Event) {
        if !matches!(event, Event::Token(_)) && !self.metrics.has(&self.label.adapter) {
            self.ended = true;
            return;
        }
        match event {
            Event::Started { .. } if !self.timed => {}
            Event::Started { queue_time } => {
                let queue = self.metrics.0.queue.get_or_create(&self.label);
                queue.observe(queue_time.as_secs_f64());
            }
            Event::Prompt(_) | Event::Embedding(_) => {}
            Event::Token(_) => self.token(Instant::now()),
            Event::Finished(finish) => self.finished(finish),
            Event::Failed(_) => self.end("failed"),
            Event::Refused(_) => self.end("refused"),
            Event::Cancelled(_) => self.end("cancelled"),
        }
    }

    fn token(&mut self, now: Instant) {
        self.generated.inc();
        if !self.timed {
            return;
        }
        match self.last_token.replace(now) {
            Some(last) => self.between_tokens.observe((now - last).as_secs_f64()),
            None if !self.metrics.has(&self.label.adapter) => {}
            None => {
                let first = self.metrics.0.first_token.get_or_create(&self.label);
                first.observe((now - self.began).as_secs_f64());
            }
        }
    }

    fn finished(&mut self, finish: &Finish) {
        let inner = &self.metrics.0;
        for (counter, tokens) in [
            (&inner.prompt_tokens, finish.prompt_tokens),
            (&inner.cached_tokens, finish.cached_tokens),
        ] {
            counter.get_or_create(&self.label).inc_by(tokens as u64);
        }
        if self.timed {
            let whole = inner.whole.get_or_create(&self.label);
            whole.observe(self.began.elapsed().as_secs_f64());
        }
        self.end("finished");
    }

    fn end(&mut self, outcome: &'static str) {
        self.ended = true;
        let ended = Ended {
            adapter: self.label.adapter.clone(),
            outcome,
        };
        self.metrics.0.requests.get_or_create(&ended).inc();
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let counts = !self.ended && self.accepted.load(Ordering::Relaxed);
        if counts && self.metrics.has(&self.label.adapter) {
            self.end("cancelled");
        }
    }
}
