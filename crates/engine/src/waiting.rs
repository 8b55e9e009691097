//! The bound on how many requests wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::error::SubmitError;

/// Counts the requests that wait to be started, wherever they are: in the channel or in the scheduler's queue.
#[derive(Debug)]
pub(crate) struct WaitingRoom {
    occupied: AtomicUsize,
    limit: usize,
}

/// A request's place; dropping it makes room for another.
#[derive(Debug)]
pub(crate) struct Place(Arc<WaitingRoom>);

impl WaitingRoom {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            occupied: AtomicUsize::new(0),
            limit,
        }
    }

    /// Takes a place.
    pub(crate) fn enter(room: &Arc<Self>) -> Result<Place, SubmitError> {
        let one_more = |waiting| (waiting < room.limit).then_some(waiting + 1);
        match room
            .occupied
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more)
        {
            Ok(_) => Ok(Place(Arc::clone(room))),
            Err(waiting) => Err(SubmitError::QueueFull {
                waiting,
                limit: room.limit,
            }),
        }
    }

    pub(crate) fn occupied(&self) -> usize {
        self.occupied.load(Ordering::Acquire)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.occupied.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_room_refuses_until_someone_leaves() {
        let room = Arc::new(WaitingRoom::new(2));
        let first = WaitingRoom::enter(&room).unwrap();
        let _second = WaitingRoom::enter(&room).unwrap();
        let refused = WaitingRoom::enter(&room).unwrap_err();
        assert_eq!(refused, SubmitError::QueueFull { waiting: 2, limit: 2 });
        assert_eq!(room.occupied(), 2);
        drop(first);
        let _third = WaitingRoom::enter(&room).unwrap();
        assert_eq!(room.occupied(), 2);
    }
}
