//! The channel from a request back to its client.

use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::event::{Event, Sink};

/// A sink that receives exactly one final event. Dropping a client that has received none sends
/// [`Event::Failed`], so that no accepted request is ever lost.
pub(crate) struct Client {
    sink: Box<dyn Sink>,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It still receives events.
    Live,
    /// It hung up.
    Gone,
    /// It received `Finished`.
    Finished,
    /// It received `Failed` or `Refused`.
    Failed,
    /// It received `Cancelled`.
    Cancelled,
}

impl Client {
    pub(crate) fn new(sink: Box<dyn Sink>) -> Self {
        Self {
            sink,
            state: State::Live,
        }
    }

    pub(crate) fn state(&self) -> State {
        self.state
    }

    pub(crate) fn is_live(&self) -> bool {
        self.state == State::Live
    }

    /// Sends an event, if the client still receives events.
    pub(crate) fn send(&mut self, event: Event) {
        if !self.is_live() {
            return;
        }
        let end = match &event {
            Event::Finished(_) => Some(State::Finished),
            Event::Failed(_) | Event::Refused(_) => Some(State::Failed),
            Event::Cancelled(_) => Some(State::Cancelled),
            _ => None,
        };
        // A sink that panics fails its own request alone.
        let hung_up = catch_unwind(AssertUnwindSafe(|| self.sink.emit(event).is_break())).unwrap_or(true);
        self.state = match end {
            Some(end) => end,
            None if hung_up => State::Gone,
            None => State::Live,
        };
    }

    /// Checks whether the client hung up.
    pub(crate) fn poll(&mut self) {
        if self.is_live() && catch_unwind(AssertUnwindSafe(|| self.sink.is_gone())).unwrap_or(true) {
            self.state = State::Gone;
        }
    }

    /// Drops the client without an event. The submitter learns from an error that the request was
    /// not accepted.
    pub(crate) fn forget(mut self) {
        self.state = State::Gone;
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.send(Event::Failed(
            "the engine stopped before this request was done".to_owned(),
        ));
    }
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Default)]
    struct Log {
        heard: Arc<Mutex<Vec<Event>>>,
        panics: bool,
    }

    impl Sink for Log {
        fn emit(&mut self, event: Event) -> ControlFlow<()> {
            assert!(!self.panics, "a sink that panics");
            self.heard.lock().unwrap().push(event);
            ControlFlow::Continue(())
        }

        fn is_gone(&self) -> bool {
            false
        }
    }

    #[test]
    fn a_dropped_client_receives_a_failure() {
        let log = Log::default();
        let heard = Arc::clone(&log.heard);
        drop(Client::new(Box::new(log)));
        assert!(matches!(heard.lock().unwrap()[..], [Event::Failed(_)]));
    }

    #[test]
    fn no_event_follows_the_final_one() {
        let log = Log::default();
        let heard = Arc::clone(&log.heard);
        let mut client = Client::new(Box::new(log));
        client.send(Event::Failed("once".to_owned()));
        client.send(Event::Failed("twice".to_owned()));
        assert_eq!(client.state(), State::Failed);
        drop(client);
        assert_eq!(*heard.lock().unwrap(), [Event::Failed("once".to_owned())]);
    }

    #[test]
    fn a_forgotten_client_receives_nothing() {
        let log = Log::default();
        let heard = Arc::clone(&log.heard);
        Client::new(Box::new(log)).forget();
        assert!(heard.lock().unwrap().is_empty());
    }

    #[test]
    fn a_sink_that_panics_has_hung_up() {
        let mut client = Client::new(Box::new(Log {
            panics: true,
            ..Log::default()
        }));
        client.send(Event::Prompt(Vec::new()));
        assert_eq!(client.state(), State::Gone);
    }
}
