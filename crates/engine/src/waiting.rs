//! The bound on how many requests wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use multigraft_model::AdapterHash;

use crate::clock::Clock;
use crate::error::SubmitError;
use crate::fair::ShareId;

/// How many times as many may wait as of a single share.
const SHARES: usize = 8;

/// Counts the requests that wait to be started, wherever they are: in the channel or in the
/// scheduler's queue. Each share has a bound of its own, so that whoever floods the queue finds it
/// full before others do.
#[derive(Debug)]
pub(crate) struct WaitingRoom {
    occupied: Mutex<Occupied>,
    /// Of a share.
    limit: usize,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Occupied {
    /// All but those in the background, which wait for these.
    all: Queue,
    /// Of those that have any.
    by_share: BTreeMap<ShareId, Queue>,
}

/// Requests that wait, and how fast they leave.
#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    waiting: usize,
    /// When the last one left.
    left: Option<Instant>,
    /// Between two that leave: a running mean.
    interval: Option<Duration>,
}

/// The newest interval's part in the running mean.
const NEWEST: f64 = 0.125;

impl Queue {
    /// One has left: to be computed, or because its client did, which says nothing of how fast the
    /// others will.
    fn leave(&mut self, now: Instant, started: bool) {
        self.waiting -= 1;
        if started && let Some(left) = self.left.replace(now) {
            let newest = now.saturating_duration_since(left);
            self.interval = Some(match self.interval {
                None => newest,
                Some(mean) => mean.mul_f64(1.0 - NEWEST) + newest.mul_f64(NEWEST),
            });
        }
        if self.waiting == 0 {
            // The time until the next one comes says nothing of how fast they leave.
            self.left = None;
        }
    }

    /// How long it takes until all that wait will have left, at the rate at which they did; `None`
    /// if too few have.
    fn time(&self, now: Instant) -> Option<Duration> {
        // Nobody leaves at the moment: it takes longer than it did.
        let idle = now.saturating_duration_since(self.left?);
        let interval = self.interval?.max(idle);
        Some(interval.saturating_mul(u32::try_from(self.waiting).unwrap_or(u32::MAX)))
    }
}

/// A request's permit to wait; dropping it makes room for another.
#[derive(Debug)]
pub(crate) struct Permit {
    room: Arc<WaitingRoom>,
    share: ShareId,
    started: bool,
}

impl Permit {
    /// The request is computed from now on.
    pub(crate) fn start(mut self) {
        self.started = true;
    }
}

impl WaitingRoom {
    /// A room for `limit` requests of each share.
    pub(crate) fn new(limit: usize, clock: Clock) -> Self {
        Self {
            occupied: Mutex::default(),
            limit,
            clock,
        }
    }

    /// Lets a request of `share` wait.
    pub(crate) fn acquire(room: &Arc<Self>, share: ShareId) -> Result<Permit, SubmitError> {
        let mut occupied = room.lock();
        let its = occupied.by_share.get(&share).copied().unwrap_or_default();
        let all = room.limit.saturating_mul(SHARES);
        if its.waiting >= room.limit || (!share.background && occupied.all.waiting >= all) {
            let (queue, limit) = match its.waiting >= room.limit {
                true => (its, room.limit),
                false => (occupied.all, all),
            };
            return Err(SubmitError::QueueFull {
                waiting: queue.waiting,
                limit,
                retry_after: queue.time(room.clock.now()),
            });
        }
        if !share.background {
            occupied.all.waiting += 1;
        }
        occupied.by_share.entry(share).or_default().waiting += 1;
        Ok(Permit {
            room: Arc::clone(room),
            share,
            started: false,
        })
    }

    /// Adapters of those that wait, each once.
    pub(crate) fn adapters(&self) -> Vec<AdapterHash> {
        let occupied = self.lock();
        let mut adapters: Vec<AdapterHash> = occupied
            .by_share
            .keys()
            .filter_map(|share| share.adapter)
            .collect();
        // In the order of shares, those of one adapter are neighbours.
        adapters.dedup();
        adapters
    }

    /// How many wait, those in the background not counted.
    pub(crate) fn occupied(&self) -> usize {
        self.lock().all.waiting
    }

    /// Nothing panics between two counts that belong together.
    fn lock(&self) -> MutexGuard<'_, Occupied> {
        self.occupied.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let now = self.room.clock.now();
        let mut occupied = self.room.lock();
        if !self.share.background {
            occupied.all.leave(now, self.started);
        }
        if let Some(its) = occupied.by_share.get_mut(&self.share) {
            its.leave(now, self.started);
            if its.waiting == 0 {
                occupied.by_share.remove(&self.share);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::manual::ManualClock;
    use crate::tenant::Tenant;

    fn share(name: &str) -> ShareId {
        ShareId {
            adapter: None,
            tenant: Some(Tenant::new(name)),
            background: false,
        }
    }

    #[test]
    fn a_full_room_refuses_until_someone_leaves() {
        let room = Arc::new(WaitingRoom::new(2, Clock::default()));
        let acquire = || WaitingRoom::acquire(&room, share("a"));
        let first = acquire().unwrap();
        let _second = acquire().unwrap();
        assert_eq!(
            acquire().unwrap_err(),
            SubmitError::QueueFull {
                waiting: 2,
                limit: 2,
                retry_after: None
            }
        );
        assert_eq!(room.occupied(), 2);
        drop(first);
        let _third = acquire().unwrap();
        assert_eq!(room.occupied(), 2);
    }

    #[test]
    fn who_is_refused_is_told_how_long_those_that_wait_will_take() {
        let began = ManualClock::new().now();
        let at = |seconds| began + Duration::from_secs(seconds);
        let mut queue = Queue {
            waiting: 12,
            ..Queue::default()
        };
        assert_eq!(queue.time(at(0)), None);
        for seconds in [0, 2, 4, 6] {
            queue.leave(at(seconds), true);
        }
        assert_eq!(queue.time(at(7)), Some(Duration::from_secs(8 * 2)));
        // Who gives up is no sign of speed.
        queue.leave(at(7), false);
        assert_eq!(queue.time(at(7)), Some(Duration::from_secs(7 * 2)));
        queue.waiting += 1;
        // Nobody left for ten seconds.
        assert_eq!(queue.time(at(16)), Some(Duration::from_secs(8 * 10)));
        // An idle night between is no interval.
        queue.waiting = 1;
        queue.leave(at(17), true);
        let night = 30_000;
        queue.waiting = 2;
        queue.leave(at(night), true);
        queue.leave(at(night + 1), true);
        assert!(queue.interval < Some(Duration::from_secs(20)), "{queue:?}");
    }

    #[test]
    fn whoever_floods_it_leaves_room_for_others() {
        let room = Arc::new(WaitingRoom::new(1, Clock::default()));
        let acquire = |name: &str| WaitingRoom::acquire(&room, share(name));
        let _flood = acquire("flood").unwrap();
        assert!(acquire("flood").is_err());
        let others: Vec<Permit> = (1..SHARES).map(|i| acquire(&i.to_string()).unwrap()).collect();
        assert_eq!(
            acquire("one more").unwrap_err(),
            SubmitError::QueueFull {
                waiting: 8,
                limit: 8,
                retry_after: None
            }
        );
        drop(others);
        assert_eq!(room.lock().by_share.len(), 1, "nothing is kept of those who left");
    }
}
