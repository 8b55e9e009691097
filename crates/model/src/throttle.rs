//! Long work that gives way to steps, such as loading adapters while a server runs.
//!
//! Steps are computed by threads that wait for each other, so whoever interrupts one of them holds
//! up all sequences, and the scheduler of an operating system gives out time in pieces that may be
//! as long as a step. A thread that works in small pieces and sleeps in between does not. Work that
//! takes long is given a [`Throttle`] and calls [`Throttle::pause`] every so often.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Ratio of sleep time to work time.
const REST: u32 = 7;

/// Less work than this is not worth a pause.
const PIECE: Duration = Duration::from_micros(150);

/// Upper bound of the work time that one pause counts, since a thread that waited between two jobs
/// did not work.
const MOST: Duration = Duration::from_millis(3);

/// Paces one thread's work. Clones share the time of the last pause, so each thread has its own.
/// The default never pauses.
#[derive(Clone, Default)]
pub struct Throttle(Option<Arc<Paced>>);

struct Paced {
    is_busy: Box<dyn Fn() -> bool + Send + Sync>,
    /// When the work began that is not yet paid for with sleep.
    since: Mutex<Instant>,
}

impl Throttle {
    /// Never pauses.
    pub const NONE: Self = Self(None);

    /// Lets a thread work an eighth of the time while `is_busy` says that steps are computed.
    pub fn new(is_busy: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(Paced {
            is_busy: Box::new(is_busy),
            since: Mutex::new(Instant::now()),
        })))
    }

    /// Counts work from now on: what came before was waiting, or another thread's.
    pub fn restart(&self) {
        if let Some(paced) = &self.0 {
            *paced.since() = Instant::now();
        }
    }

    /// Sleeps if the thread has worked long enough, and steps are computed.
    pub fn pause(&self) {
        let Some(paced) = &self.0 else { return };
        let worked = paced.since().elapsed();
        if worked < PIECE {
            return;
        }
        if (paced.is_busy)() {
            thread::sleep(worked.min(MOST) * REST);
        }
        *paced.since() = Instant::now();
    }
}

impl Paced {
    fn since(&self) -> std::sync::MutexGuard<'_, Instant> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Throttle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &self.0 {
            Some(_) => "Throttle",
            None => "Throttle::NONE",
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn a_throttled_thread_asks_and_sleeps_and_no_other_does() {
        Throttle::NONE.pause();
        let (busy, asked) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicUsize::new(0)));
        let (is_busy, count) = (Arc::clone(&busy), Arc::clone(&asked));
        let throttle = Throttle::new(move || {
            count.fetch_add(1, Ordering::Relaxed);
            is_busy.load(Ordering::Relaxed)
        });
        let begin = Instant::now();
        thread::sleep(2 * PIECE);
        throttle.pause();
        // What it worked and seven times as long again.
        assert!(begin.elapsed() >= 16 * PIECE);
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        busy.store(false, Ordering::Relaxed);
        thread::sleep(2 * PIECE);
        throttle.pause();
        assert_eq!(asked.load(Ordering::Relaxed), 2);
    }
}
