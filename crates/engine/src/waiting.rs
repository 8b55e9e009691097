//! The bound on how many requests wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::SubmitError;
use crate::fair::ShareId;

/// How many times as many may wait as of a single share.
const SHARES: usize = 8;

/// Counts the requests that wait to be started, wherever they are: in the channel or in the scheduler's queue. Each share has
/// a bound of its own, so that whoever floods the queue finds it full before others do.
#[derive(Debug)]
pub(crate) struct WaitingRoom {
    occupied: Mutex<Occupied>,
    /// Of a share.
    limit: usize,
}

#[derive(Debug, Default)]
struct Occupied {
    all: usize,
    /// Of those that have any.
    by_share: BTreeMap<ShareId, usize>,
}

/// A request's place; dropping it makes room for another.
#[derive(Debug)]
pub(crate) struct Place {
    room: Arc<WaitingRoom>,
    share: ShareId,
}

impl WaitingRoom {
    /// A room for `limit` requests of each share.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            occupied: Mutex::default(),
            limit,
        }
    }

    /// Takes a place.
    pub(crate) fn enter(room: &Arc<Self>, share: ShareId) -> Result<Place, SubmitError> {
        let mut occupied = room.lock();
        let its = occupied.by_share.get(&share).copied().unwrap_or(0);
        let all = room.limit.saturating_mul(SHARES);
        if its >= room.limit || occupied.all >= all {
            let (waiting, limit) = match its >= room.limit {
                true => (its, room.limit),
                false => (occupied.all, all),
            };
            return Err(SubmitError::QueueFull { waiting, limit });
        }
        occupied.all += 1;
        *occupied.by_share.entry(share).or_default() += 1;
        Ok(Place {
            room: Arc::clone(room),
            share,
        })
    }

    pub(crate) fn occupied(&self) -> usize {
        self.lock().all
    }

    /// Nothing panics between two counts that belong together.
    fn lock(&self) -> MutexGuard<'_, Occupied> {
        self.occupied.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut occupied = self.room.lock();
        occupied.all -= 1;
        if let Some(its) = occupied.by_share.get_mut(&self.share) {
            *its -= 1;
            if *its == 0 {
                occupied.by_share.remove(&self.share);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenant::Tenant;

    fn share(name: &str) -> ShareId {
        ShareId {
            adapter: None,
            tenant: Some(Tenant::new(name)),
        }
    }

    #[test]
    fn a_full_room_refuses_until_someone_leaves() {
        let room = Arc::new(WaitingRoom::new(2));
        let enter = || WaitingRoom::enter(&room, share("a"));
        let first = enter().unwrap();
        let _second = enter().unwrap();
        assert_eq!(
            enter().unwrap_err(),
            SubmitError::QueueFull { waiting: 2, limit: 2 }
        );
        assert_eq!(room.occupied(), 2);
        drop(first);
        let _third = enter().unwrap();
        assert_eq!(room.occupied(), 2);
    }

    #[test]
    fn whoever_floods_it_leaves_room_for_others() {
        let room = Arc::new(WaitingRoom::new(1));
        let enter = |name: &str| WaitingRoom::enter(&room, share(name));
        let _flood = enter("flood").unwrap();
        assert!(enter("flood").is_err());
        let others: Vec<Place> = (1..SHARES).map(|i| enter(&i.to_string()).unwrap()).collect();
        assert_eq!(
            enter("one more").unwrap_err(),
            SubmitError::QueueFull { waiting: 8, limit: 8 }
        );
        drop(others);
        assert_eq!(room.lock().by_share.len(), 1, "nothing is kept of those who left");
    }
}
