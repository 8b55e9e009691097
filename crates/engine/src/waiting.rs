//! The bound on waiting requests.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use multigraft_model::AdapterHash;

use crate::clock::Clock;
use crate::error::SubmitError;
use crate::fair::ShareId;

/// The queue of all shares together holds this many times the limit of one share.
const SHARES: usize = 8;

/// Counts the requests that wait to be started, in the channel or in the scheduler's queue. Each
/// share has a limit of its own, so that a share which floods the queue is refused before others
/// are.
#[derive(Debug)]
pub(crate) struct WaitingRoom {
    occupied: Mutex<Occupied>,
    /// The most waiting requests of one share.
    limit: usize,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Occupied {
    /// All requests except background requests, which wait for these anyway.
    all: Queue,
    /// The shares that have waiting requests.
    by_share: BTreeMap<ShareId, Queue>,
}

/// A number of waiting requests, and the rate at which they leave the queue.
#[derive(Clone, Copy, Debug, Default)]
struct Queue {
    waiting: usize,
    /// When the last request left to be computed.
    left: Option<Instant>,
    /// Running mean of the time between two requests that leave.
    interval: Option<Duration>,
}

/// Weight of the newest interval in the running mean.
const NEWEST: f64 = 0.125;

impl Queue {
    /// Counts a request that left: `started` if it is computed, otherwise because its client hung
    /// up, which says nothing about the rate.
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
            // The time until the next request arrives says nothing about the rate.
            self.left = None;
        }
    }

    /// The time until all waiting requests will have left, at the recent rate; `None` if too few
    /// have left to know it.
    fn time(&self, now: Instant) -> Option<Duration> {
        // If no request has left for longer than the mean, the rate has dropped.
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
    /// Says that the request is computed from now on.
    pub(crate) fn start(mut self) {
        self.started = true;
    }
}

impl WaitingRoom {
    /// A queue bound of `limit` requests for each share.
    pub(crate) fn new(limit: usize, clock: Clock) -> Self {
        Self {
            occupied: Mutex::default(),
            limit,
            clock,
        }
    }

    /// Gives a request of `share` a permit to wait.
    ///
    /// # Errors
    /// If the limit of the share, or of all shares, is reached.
    pub(crate) fn acquire(room: &Arc<Self>, share: ShareId) -> Result<Permit, SubmitError> {
        let mut occupied = room.lock();
        let of_share = occupied.by_share.get(&share).copied().unwrap_or_default();
        let all = room.limit.saturating_mul(SHARES);
        if of_share.waiting >= room.limit || (!share.background && occupied.all.waiting >= all) {
            let (queue, limit) = match of_share.waiting >= room.limit {
                true => (of_share, room.limit),
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

    /// Adapters of waiting requests, each once.
    pub(crate) fn adapters(&self) -> Vec<AdapterHash> {
        let occupied = self.lock();
        let mut adapters: Vec<AdapterHash> = occupied
            .by_share
            .keys()
            .filter_map(|share| share.adapter)
            .collect();
        // Shares are ordered by adapter first, so equal adapters are neighbours.
        adapters.dedup();
        adapters
    }

    /// Number of waiting requests, without background requests.
    pub(crate) fn occupied(&self) -> usize {
        self.lock().all.waiting
    }

    /// The counts. No panic can leave them inconsistent, so a poisoned lock is not an error.
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
        if let Some(queue) = occupied.by_share.get_mut(&self.share) {
            queue.leave(now, self.started);
            if queue.waiting == 0 {
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
    fn a_full_queue_refuses_until_a_request_leaves() {
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
    fn a_refusal_estimates_when_the_queue_will_be_empty() {
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
        // A request that was given up says nothing about the rate.
        queue.leave(at(7), false);
        assert_eq!(queue.time(at(7)), Some(Duration::from_secs(7 * 2)));
        queue.waiting += 1;
        // No request has left for ten seconds.
        assert_eq!(queue.time(at(16)), Some(Duration::from_secs(8 * 10)));
        // The idle night in between is not an interval.
        queue.waiting = 1;
        queue.leave(at(17), true);
        let night = 30_000;
        queue.waiting = 2;
        queue.leave(at(night), true);
        queue.leave(at(night + 1), true);
        assert!(queue.interval < Some(Duration::from_secs(20)), "{queue:?}");
    }

    #[test]
    fn a_share_that_floods_the_queue_leaves_room_for_others() {
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
