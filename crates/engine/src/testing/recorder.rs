//! Sinks that record events.

use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex};

use crate::event::{Event, Finish, FinishReason, PromptToken, Sink, Timings, Token};

/// The sink that the engine holds.
pub(crate) struct Recorder {
    shared: Arc<Shared>,
    break_after: Option<usize>,
}

/// The recording that the test holds.
#[derive(Clone)]
pub(crate) struct Recording(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    events: Vec<Event>,
    gone: bool,
    dropped: bool,
}

/// An answer without its timings and the number of cached tokens.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub(crate) prompt: Option<Vec<PromptToken>>,
    pub(crate) embedding: Option<Vec<f32>>,
    pub(crate) tokens: Vec<Token>,
    pub(crate) finish: Finish,
}

impl Answer {
    pub(crate) fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.id).collect()
    }

    pub(crate) fn text(&self) -> String {
        let pieces = self.tokens.iter().map(|token| token.text.as_str());
        pieces.chain([self.finish.text.as_str()]).collect()
    }

    pub(crate) fn reason(&self) -> &FinishReason {
        &self.finish.reason
    }
}

impl Recorder {
    pub(crate) fn new() -> (Box<Self>, Recording) {
        Self::breaking(None)
    }

    /// Hangs up on the event after `break_after` others.
    pub(crate) fn breaking(break_after: Option<usize>) -> (Box<Self>, Recording) {
        let shared = Arc::new(Shared::default());
        (
            Box::new(Self {
                shared: Arc::clone(&shared),
                break_after,
            }),
            Recording(shared),
        )
    }
}

impl Sink for Recorder {
    fn emit(&mut self, event: Event) -> ControlFlow<()> {
        let mut state = self.shared.state.lock().unwrap();
        state.events.push(event);
        self.shared.changed.notify_all();
        if self.break_after.is_some_and(|after| state.events.len() > after) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn is_gone(&self) -> bool {
        self.shared.state.lock().unwrap().gone
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.shared.state.lock().unwrap().dropped = true;
        self.shared.changed.notify_all();
    }
}

impl Recording {
    pub(crate) fn events(&self) -> Vec<Event> {
        self.0.state.lock().unwrap().events.clone()
    }

    pub(crate) fn hang_up(&self) {
        self.0.state.lock().unwrap().gone = true;
    }

    /// Whether the engine has dropped the sink.
    pub(crate) fn is_dropped(&self) -> bool {
        self.0.state.lock().unwrap().dropped
    }

    /// Waits until the engine has dropped the sink, for engines on their own thread.
    pub(crate) fn wait(&self) -> Vec<Event> {
        let state = self.0.state.lock().unwrap();
        let state = self.0.changed.wait_while(state, |state| !state.dropped).unwrap();
        state.events.clone()
    }

    /// Waits for the first event.
    pub(crate) fn wait_started(&self) {
        let state = self.0.state.lock().unwrap();
        drop(
            self.0
                .changed
                .wait_while(state, |state| state.events.is_empty())
                .unwrap(),
        );
    }

    pub(crate) fn tokens(&self) -> usize {
        self.events()
            .iter()
            .filter(|event| matches!(event, Event::Token(_)))
            .count()
    }

    /// Number of final events.
    pub(crate) fn ends(&self) -> usize {
        let end = |event: &&Event| {
            matches!(
                event,
                Event::Finished(_) | Event::Failed(_) | Event::Refused(_) | Event::Cancelled(_)
            )
        };
        self.events().iter().filter(end).count()
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.events().into_iter().find_map(|event| match event {
            Event::Failed(reason) => Some(reason),
            _ => None,
        })
    }

    /// The whole answer. Panics if the events are not in the promised order.
    pub(crate) fn answer(&self) -> Answer {
        let mut events = self.events().into_iter().peekable();
        assert!(
            matches!(events.next(), Some(Event::Started { .. })),
            "{:?}",
            self.events()
        );
        let prompt = match events.next_if(|event| matches!(event, Event::Prompt(_))) {
            Some(Event::Prompt(prompt)) => Some(prompt),
            _ => None,
        };
        let embedding = match events.next_if(|event| matches!(event, Event::Embedding(_))) {
            Some(Event::Embedding(embedding)) => Some(embedding),
            _ => None,
        };
        let mut tokens = Vec::new();
        loop {
            match events.next() {
                Some(Event::Token(token)) => tokens.push(token),
                Some(Event::Finished(finish)) => {
                    assert_eq!(events.next(), None, "something follows the end");
                    let finish = Finish {
                        timings: Timings::default(),
                        cached_tokens: 0,
                        ..finish
                    };
                    return Answer {
                        prompt,
                        embedding,
                        tokens,
                        finish,
                    };
                }
                other => panic!("{other:?} is out of place in {:?}", self.events()),
            }
        }
    }
}
