//! Memory that keys and values and adapters take from one budget: what one of them does not use is
//! the other's.
//!
//! Keys and values have a *floor* that is always theirs, so that the oldest sequence can go on
//! whatever adapters hold. Beyond it whoever comes first takes what is free, and who finds nothing
//! free asks the other side for what it does not use:
//!
//! - a load asks for keys and values that nobody uses and that were last used before the adapters
//!   that it could drop instead ([`MemoryBudget::ask_kv`]);
//! - sequences ask for adapters that nobody uses ([`MemoryBudget::ask_adapters`]), once no block of
//!   the prefix cache is left that could make room.
//!
//! Neither waits here for steps, files or another lock.

use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

/// How the other side is told that something is wanted of it; `false` if it is gone.
type Nudge = Box<dyn Fn() -> bool + Send + Sync>;

/// The budget. What both sides take is counted in bytes.
pub struct MemoryBudget {
    total: usize,
    floor: usize,
    state: Mutex<State>,
    /// The engine has done what [`Want`] says, as far as it could.
    answered: Condvar,
    kv: OnceLock<Nudge>,
    adapters: OnceLock<Nudge>,
}

#[derive(Debug, Default)]
struct State {
    /// Keys and values; at least the floor.
    kv: usize,
    adapters: usize,
    /// What sequences lack.
    kv_lacks: usize,
    /// What a load wants of keys and values. Until it has that or gives up, they take nothing more:
    /// what they give back would be theirs again before the load sees it.
    want: Option<Want>,
    /// Whether the engine has yet to look at it.
    asked: bool,
}

/// Keys and values that are to make room for an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// How much.
    pub bytes: usize,
    /// Only what was not used since.
    pub unused_since: Option<Instant>,
}

impl MemoryBudget {
    /// `total` bytes, of which `floor` are always there for keys and values.
    ///
    /// # Panics
    /// If the floor is above the total.
    pub fn new(total: usize, floor: usize) -> Self {
        assert!(floor <= total, "a floor of {floor} bytes in a budget of {total}");
        let state = State {
            kv: floor,
            ..State::default()
        };
        Self {
            total,
            floor,
            state: Mutex::new(state),
            answered: Condvar::new(),
            kv: OnceLock::new(),
            adapters: OnceLock::new(),
        }
    }

    /// Bytes of the budget.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Bytes that are always there for keys and values.
    pub fn floor(&self) -> usize {
        self.floor
    }

    /// What adapters can have at most.
    pub fn most_for_adapters(&self) -> usize {
        self.total - self.floor
    }

    /// What keys and values take now, the floor included, and adapters.
    pub fn taken(&self) -> (usize, usize) {
        let state = self.lock();
        (state.kv, state.adapters)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How keys and values are told of a [`Want`]: at most once, by the engine. `nudge` must not
    /// wait.
    pub fn on_kv_wanted(&self, nudge: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.kv.set(Box::new(nudge));
    }

    /// How adapters are told that sequences lack memory: at most once, by the registry. `nudge`
    /// must not wait.
    pub fn on_adapters_wanted(&self, nudge: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.adapters.set(Box::new(nudge));
    }

    /// What keys and values could take now.
    pub fn free_for_kv(&self) -> usize {
        let state = self.lock();
        match state.want {
            Some(_) => 0,
            None => self.total.saturating_sub(state.kv + state.adapters),
        }
    }

    /// Takes so many bytes for keys and values, if they are free and no load wants them.
    #[must_use]
    pub fn take_for_kv(&self, bytes: usize) -> bool {
        let mut state = self.lock();
        let fits = state.want.is_none() && state.kv + state.adapters + bytes <= self.total;
        if fits {
            state.kv += bytes;
            state.kv_lacks = state.kv_lacks.saturating_sub(bytes);
        }
        fits
    }

    /// Keys and values give so many bytes back.
    pub fn return_from_kv(&self, bytes: usize) {
        let mut state = self.lock();
        state.kv = (state.kv - bytes).max(self.floor);
    }

    /// Sequences lack so many bytes: asks for adapters that nobody uses. They are free a moment
    /// later.
    pub fn ask_adapters(&self, bytes: usize) {
        self.lock().kv_lacks = bytes;
        if let Some(nudge) = self.adapters.get() {
            nudge();
        }
    }

    /// Bytes that adapters would have to give back for what sequences lack.
    pub fn wanted_of_adapters(&self) -> usize {
        let state = self.lock();
        let free = self.total.saturating_sub(state.kv + state.adapters);
        state.kv_lacks.saturating_sub(free)
    }

    /// Adapters take so many bytes in all, which is less than before or was taken already.
    pub fn set_adapters(&self, bytes: usize) {
        self.lock().adapters = bytes;
    }

    /// Adapters, which take `bytes` now, take `more`.
    ///
    /// # Errors
    /// If the budget lacks some of that: how much.
    pub fn take_for_adapters(&self, bytes: usize, more: usize) -> Result<(), usize> {
        let mut state = self.lock();
        state.adapters = bytes;
        let taken = state.kv.saturating_add(bytes).saturating_add(more);
        match taken.checked_sub(self.total) {
            None | Some(0) => {
                state.adapters = bytes + more;
                state.want = None;
                Ok(())
            }
            Some(lacking) => Err(lacking),
        }
    }

    /// Has keys and values that nobody uses make room, and waits until they did or cannot, but no
    /// longer than until `deadline`.
    pub fn ask_kv(&self, want: Want, deadline: Instant) {
        let Some(nudge) = self.kv.get() else { return };
        {
            let mut state = self.lock();
            state.want = Some(want);
            state.asked = true;
        }
        if !nudge() {
            self.lock().asked = false;
            return;
        }
        let waited = deadline.saturating_duration_since(Instant::now());
        let state = self.lock();
        let waiting = self
            .answered
            .wait_timeout_while(state, waited, |state| state.asked);
        drop(waiting.unwrap_or_else(PoisonError::into_inner));
    }

    /// The load gives up.
    pub fn want_no_more(&self) {
        self.lock().want = None;
    }

    /// What keys and values are to give back, if they were asked for anything.
    pub fn wanted_of_kv(&self) -> Option<Want> {
        let state = self.lock();
        state.want.filter(|_| state.asked)
    }

    /// Keys and values did what was wanted of them.
    pub fn answer(&self) {
        self.lock().asked = false;
        self.answered.notify_all();
    }
}

impl Default for MemoryBudget {
    /// Without bounds.
    fn default() -> Self {
        Self::new(usize::MAX, 0)
    }
}

impl fmt::Debug for MemoryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryBudget")
            .field("total", &self.total)
            .field("floor", &self.floor)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn both_sides_take_from_the_same_and_never_more_than_there_is() {
        let budget = MemoryBudget::new(100, 30);
        assert_eq!(budget.take_for_adapters(0, 71), Err(1));
        assert_eq!(budget.take_for_adapters(0, 50), Ok(()));
        assert!(budget.take_for_kv(20));
        assert!(!budget.take_for_kv(1));
        assert_eq!(budget.taken(), (50, 50));
        assert_eq!(budget.take_for_adapters(50, 5), Err(5));
        budget.return_from_kv(20);
        assert_eq!(budget.take_for_adapters(50, 5), Ok(()));
        budget.set_adapters(10);
        assert_eq!((budget.free_for_kv(), budget.most_for_adapters()), (60, 70));
    }

    #[test]
    fn what_sequences_lack_is_asked_of_adapters_until_it_is_there() {
        let budget = MemoryBudget::new(100, 10);
        let asked = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&asked);
        budget.on_adapters_wanted(move || {
            told.store(true, Ordering::Relaxed);
            true
        });
        assert_eq!(budget.take_for_adapters(0, 80), Ok(()));
        budget.ask_adapters(40);
        assert!(asked.load(Ordering::Relaxed));
        assert_eq!(budget.wanted_of_adapters(), 30, "10 are free");
        budget.set_adapters(50);
        assert_eq!(budget.wanted_of_adapters(), 0);
        assert!(budget.take_for_kv(40));
        budget.set_adapters(50);
        assert_eq!(
            budget.wanted_of_adapters(),
            0,
            "it was taken, so it is wanted no more"
        );
    }

    #[test]
    fn who_asks_an_engine_that_is_gone_does_not_wait() {
        let budget = MemoryBudget::new(100, 10);
        let want = Want {
            bytes: 1,
            unused_since: None,
        };
        let far = Instant::now() + Duration::from_secs(3600);
        budget.ask_kv(want, far);
        budget.on_kv_wanted(|| false);
        budget.ask_kv(want, far);
        assert_eq!(budget.wanted_of_kv(), None);
    }

    #[test]
    fn what_is_given_back_for_a_load_is_the_loads() {
        let budget = MemoryBudget::new(100, 10);
        budget.on_kv_wanted(|| true);
        assert!(budget.take_for_kv(90));
        let want = Want {
            bytes: 30,
            unused_since: None,
        };
        budget.ask_kv(want, Instant::now());
        assert_eq!(budget.wanted_of_kv(), Some(want));
        // Some of it now, the rest later; sequences take none of it.
        budget.return_from_kv(20);
        budget.answer();
        assert_eq!((budget.wanted_of_kv(), budget.free_for_kv()), (None, 0));
        assert!(!budget.take_for_kv(1));
        assert_eq!(budget.take_for_adapters(0, 30), Err(10));
        budget.return_from_kv(10);
        assert_eq!(budget.take_for_adapters(0, 30), Ok(()));
        budget.set_adapters(20);
        assert!(budget.take_for_kv(10), "it has what it wanted");
        budget.ask_kv(want, Instant::now());
        budget.return_from_kv(10);
        budget.want_no_more();
        assert!(budget.take_for_kv(10), "it gave up");
    }
}
