//! The engine's clock: the system's, or in tests one that the test moves.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

/// A monotonic clock. Clones tell the same time.
#[derive(Clone)]
pub(crate) struct Clock(Arc<dyn Fn() -> Instant + Send + Sync>);

impl Clock {
    pub(crate) fn now(&self) -> Instant {
        (self.0)()
    }
}

impl Default for Clock {
    /// The system's monotonic clock.
    fn default() -> Self {
        Self(Arc::new(Instant::now))
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

#[cfg(test)]
pub(crate) mod manual {
    use std::sync::{Arc, Mutex};
    use std::time::{Duration, Instant};

    use super::Clock;

    /// A clock that stands still until a test moves it.
    #[derive(Clone, Debug)]
    pub(crate) struct ManualClock(Arc<Mutex<Instant>>);

    impl ManualClock {
        pub(crate) fn new() -> Self {
            Self(Arc::new(Mutex::new(Instant::now())))
        }

        /// The time now.
        pub(crate) fn now(&self) -> Instant {
            *self.0.lock().unwrap()
        }

        /// Moves the time forward.
        pub(crate) fn advance(&self, time: Duration) {
            *self.0.lock().unwrap() += time;
        }

        /// A handle for the engine.
        pub(crate) fn clock(&self) -> Clock {
            let clock = self.clone();
            Clock(Arc::new(move || clock.now()))
        }
    }
}
