//! One memory budget for the KV cache and the adapters: each side may use what the other does not.
//!
//! The KV cache has a *floor* that adapters never take, so that the oldest sequence can go on
//! whatever adapters hold. Memory beyond the floor goes to the side that asks first. A side that
//! finds none free asks the other side to evict:
//!
//! - a load asks for idle KV blocks that were last used before the adapters that the load could
//!   evict instead ([`MemoryBudget::ask_kv`]);
//! - sequences ask for idle adapters ([`MemoryBudget::ask_adapters`]), once the prefix cache has no
//!   block left to evict.
//!
//! Neither side waits here for steps, files or another lock.

use std::fmt;
use std::sync::{Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

/// Tells a side that memory is wanted of it; `false` if that side has ended.
type Nudge = Box<dyn Fn() -> bool + Send + Sync>;

/// The budget, in bytes.
pub struct MemoryBudget {
    total: usize,
    floor: usize,
    state: Mutex<State>,
    /// Notified when the engine has given back what [`Want`] asks for, or as much as it can.
    answered: Condvar,
    kv: OnceLock<Nudge>,
    adapters: OnceLock<Nudge>,
}

#[derive(Debug, Default)]
struct State {
    /// Bytes of the KV cache; at least the floor.
    kv: usize,
    /// Bytes of adapters.
    adapters: usize,
    /// Bytes that sequences lack.
    kv_lacks: usize,
    /// What a load wants of the KV cache. Until the load has it or gives up, the KV cache takes
    /// nothing more: otherwise it would take back what it has just freed before the load sees it.
    want: Option<Want>,
    /// Whether the engine has yet to answer `want`.
    asked: bool,
}

/// KV memory that is to make room for an adapter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// How much, in bytes.
    pub bytes: usize,
    /// Only blocks that were last used before this time; `None`: all idle blocks.
    pub unused_since: Option<Instant>,
}

impl MemoryBudget {
    /// A budget of `total` bytes, of which `floor` are reserved for the KV cache.
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

    /// Size of the budget, in bytes.
    pub fn total(&self) -> usize {
        self.total
    }

    /// Bytes that are reserved for the KV cache.
    pub fn floor(&self) -> usize {
        self.floor
    }

    /// The most bytes that adapters can have.
    pub fn most_for_adapters(&self) -> usize {
        self.total - self.floor
    }

    /// Bytes that the KV cache has now, the floor included, and bytes that adapters have.
    pub fn taken(&self) -> (usize, usize) {
        let state = self.lock();
        (state.kv, state.adapters)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets how the engine is told of a [`Want`]. Only the first call has an effect. `nudge` must
    /// not wait.
    pub fn on_kv_wanted(&self, nudge: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.kv.set(Box::new(nudge));
    }

    /// Sets how the registry is told that sequences lack memory. Only the first call has an effect.
    /// `nudge` must not wait.
    pub fn on_adapters_wanted(&self, nudge: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.adapters.set(Box::new(nudge));
    }

    /// Bytes that the KV cache could take now.
    pub fn free_for_kv(&self) -> usize {
        let state = self.lock();
        match state.want {
            Some(_) => 0,
            None => self.total.saturating_sub(state.kv + state.adapters),
        }
    }

    /// Takes `bytes` for the KV cache, if they are free and no load wants them. Returns whether it
    /// did.
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

    /// Returns `bytes` from the KV cache.
    pub fn return_from_kv(&self, bytes: usize) {
        let mut state = self.lock();
        state.kv = (state.kv - bytes).max(self.floor);
    }

    /// Asks the registry to evict idle adapters, because sequences lack `bytes`. The memory is free
    /// a moment later.
    pub fn ask_adapters(&self, bytes: usize) {
        self.lock().kv_lacks = bytes;
        if let Some(nudge) = self.adapters.get() {
            nudge();
        }
    }

    /// Bytes that adapters have to free so that sequences have what they lack.
    pub fn wanted_of_adapters(&self) -> usize {
        let state = self.lock();
        let free = self.total.saturating_sub(state.kv + state.adapters);
        state.kv_lacks.saturating_sub(free)
    }

    /// Sets the bytes that all adapters hold together. The value must be lower than before, or its
    /// bytes must have been taken already.
    pub fn set_adapters(&self, bytes: usize) {
        self.lock().adapters = bytes;
    }

    /// Takes `more` bytes for adapters, which have `bytes` now.
    ///
    /// # Errors
    /// How many bytes are missing, if not all of `more` is free.
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

    /// Asks the engine to give back idle KV memory, and waits for its answer, until `deadline` at
    /// the latest. Does not wait if the engine has ended.
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

    /// Withdraws the load's [`Want`]: the load gives up.
    pub fn want_no_more(&self) {
        self.lock().want = None;
    }

    /// What the KV cache is to give back, if the engine has not answered yet.
    pub fn wanted_of_kv(&self) -> Option<Want> {
        let state = self.lock();
        state.want.filter(|_| state.asked)
    }

    /// Says that the engine has given back what it can of the [`Want`].
    pub fn answer(&self) {
        self.lock().asked = false;
        self.answered.notify_all();
    }
}

impl Default for MemoryBudget {
    /// A budget without a bound.
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
    fn both_sides_take_from_one_budget_and_never_more_than_it_has() {
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
    fn adapters_are_asked_for_what_sequences_lack_until_it_is_free() {
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
    fn asking_an_engine_that_has_ended_does_not_wait() {
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
    fn memory_given_back_for_a_load_goes_to_the_load() {
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
