//! Long work that gives way to steps: loading adapters beside a server's.
//!
//! Steps are computed by threads that wait for each other, so whoever interrupts one of them holds
//! up all sequences, and the scheduler of an operating system gives out time in pieces that may be
//! as long as a step. A thread that works in small pieces and sleeps in between does not. Work that
//! takes long calls [`pause`] every so often; on threads that were not told to [`give_way`] it does
//! nothing.

use std::cell::RefCell;
use std::thread;
use std::time::{Duration, Instant};

/// How many times as long as it worked a thread sleeps.
const REST: u32 = 7;

/// Less work than this is not worth a pause.
const PIECE: Duration = Duration::from_micros(150);

thread_local! {
    static PACE: RefCell<Option<Pace>> = const { RefCell::new(None) };
}

struct Pace {
    is_busy: Box<dyn Fn() -> bool>,
    /// When it last paused.
    since: Instant,
}

/// From now on this thread works an eighth of the time while `is_busy` says that others do.
pub fn give_way(is_busy: impl Fn() -> bool + 'static) {
    let pace = Pace {
        is_busy: Box::new(is_busy),
        since: Instant::now(),
    };
    PACE.with_borrow_mut(|slot| *slot = Some(pace));
}

/// Sleeps, if it is time to.
pub fn pause() {
    PACE.with_borrow_mut(|slot| {
        let Some(pace) = slot else { return };
        let worked = pace.since.elapsed();
        if worked < PIECE {
            return;
        }
        if (pace.is_busy)() {
            // What a thread waited for between two loads is no work.
            thread::sleep(worked.min(20 * PIECE) * REST);
        }
        pace.since = Instant::now();
    });
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use super::*;

    #[test]
    fn a_thread_that_gives_way_asks_and_sleeps_and_no_other_does() {
        // Not told to: nobody is asked, nothing fails.
        thread::spawn(pause).join().expect("a pause");
        let (busy, asked) = (Rc::new(Cell::new(true)), Rc::new(Cell::new(0)));
        let (is_busy, count) = (Rc::clone(&busy), Rc::clone(&asked));
        give_way(move || {
            count.set(count.get() + 1);
            is_busy.get()
        });
        let begin = Instant::now();
        thread::sleep(2 * PIECE);
        pause();
        // What it worked and seven times as long again.
        assert!(begin.elapsed() >= 16 * PIECE);
        assert_eq!(asked.get(), 1);
        busy.set(false);
        thread::sleep(2 * PIECE);
        pause();
        assert_eq!(asked.get(), 2);
    }
}
