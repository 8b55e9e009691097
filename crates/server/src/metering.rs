//! Bounds on what requests for one name take: how many in a minute, how many tokens, how many at once.
//!
//! Requests and tokens are counted by token buckets (Tanenbaum, Computer Networks, "traffic shaping") that hold one minute's worth and
//! fill evenly. A prompt's tokens are taken when its request is accepted and an answer's as they are generated, so an answer may
//! overdraw the bucket, and the next request waits for it. A prompt that is larger than the bucket is accepted when the bucket is full.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use multigraft_adapters::AdapterLimits;

use crate::error::ApiError;

/// What is left of every name's bounds. Clones are handles to the same one.
#[derive(Clone, Debug, Default)]
pub struct Meters(Arc<Mutex<HashMap<String, Meter>>>);

#[derive(Debug, Default)]
struct Meter {
    requests: Bucket,
    tokens: Bucket,
    /// Requests that wait or run.
    running: u32,
}

/// What may still be taken. Below zero after an answer that was longer than what was left.
#[derive(Debug, Default)]
struct Bucket {
    level: f64,
    /// When that was; `None` for a bucket that nobody took from.
    at: Option<Instant>,
}

impl Bucket {
    /// The level now, if `size` flows in every minute.
    fn level(&self, size: f64, now: Instant) -> f64 {
        match self.at {
            None => size,
            Some(at) => {
                let minutes = now.saturating_duration_since(at).as_secs_f64() / 60.0;
                (self.level + minutes * size).min(size)
            }
        }
    }

    /// How long until there is `amount`.
    fn wait(&self, amount: f64, size: f64, now: Instant) -> Duration {
        let lacking = amount.min(size) - self.level(size, now);
        Duration::from_secs_f64((lacking / size * 60.0).max(0.0))
    }

    fn take(&mut self, amount: f64, size: f64, now: Instant) {
        self.level = self.level(size, now) - amount;
        self.at = Some(now);
    }
}

/// An accepted request of some names. Dropping it says that it has ended.
#[derive(Debug)]
pub(crate) struct Metered {
    meters: Meters,
    names: Vec<(String, AdapterLimits)>,
    prompt: f64,
}

impl Meters {
    /// Takes a request with `prompt` tokens for all `names`, or for none. Nothing is counted for a name that is not bounded.
    pub(crate) fn admit(
        &self,
        names: Vec<(String, AdapterLimits)>,
        prompt: usize,
        now: Instant,
    ) -> Result<Option<Metered>, ApiError> {
        let names: Vec<(String, AdapterLimits)> = names
            .into_iter()
            .filter(|(_, limits)| limits.is_bounded())
            .collect();
        if names.is_empty() {
            return Ok(None);
        }
        let prompt = prompt as f64;
        let mut meters = self.lock();
        for (name, limits) in &names {
            meters
                .entry(name.clone())
                .or_default()
                .check(name, limits, prompt, now)?;
        }
        for (name, limits) in &names {
            if let Some(meter) = meters.get_mut(name) {
                meter.take(limits, prompt, now);
            }
        }
        drop(meters);
        Ok(Some(Metered {
            meters: self.clone(),
            names,
            prompt,
        }))
    }

    /// Nothing panics between two counts that belong together.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Meter>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Meter {
    fn check(&self, name: &str, limits: &AdapterLimits, prompt: f64, now: Instant) -> Result<(), ApiError> {
        if let Some(most) = limits
            .concurrent_requests
            .filter(|most| self.running >= most.get())
        {
            let message = format!(
                "adapter `{name}` has {} requests under way, and may have {most} at once",
                self.running
            );
            return Err(ApiError::overloaded(message));
        }
        let buckets = [
            ("requests", limits.requests_per_minute, &self.requests, 1.0),
            ("tokens", limits.tokens_per_minute, &self.tokens, prompt),
        ];
        for (what, size, bucket, amount) in buckets {
            let Some(size) = size else { continue };
            let wait = bucket.wait(amount, size.get().into(), now);
            if !wait.is_zero() {
                return Err(ApiError::Overloaded {
                    message: format!("adapter `{name}` may have {size} {what} a minute, and has had them"),
                    retry_after: Some(wait),
                });
            }
        }
        Ok(())
    }

    fn take(&mut self, limits: &AdapterLimits, prompt: f64, now: Instant) {
        self.running += 1;
        if let Some(size) = limits.requests_per_minute {
            self.requests.take(1.0, size.get().into(), now);
        }
        if let Some(size) = limits.tokens_per_minute {
            self.tokens.take(prompt, size.get().into(), now);
        }
    }
}

impl Metered {
    /// It was not accepted after all: nothing was taken.
    pub(crate) fn refund(&self, now: Instant) {
        let mut meters = self.meters.lock();
        for (name, limits) in &self.names {
            let Some(meter) = meters.get_mut(name) else {
                continue;
            };
            if let Some(size) = limits.requests_per_minute {
                meter.requests.take(-1.0, size.get().into(), now);
            }
            if let Some(size) = limits.tokens_per_minute {
                meter.tokens.take(-self.prompt, size.get().into(), now);
            }
        }
    }

    /// A token was generated.
    pub(crate) fn token(&self, now: Instant) {
        let mut meters = self.meters.lock();
        for (name, limits) in &self.names {
            if let (Some(size), Some(meter)) = (limits.tokens_per_minute, meters.get_mut(name)) {
                meter.tokens.take(1.0, size.get().into(), now);
            }
        }
    }
}

impl Drop for Metered {
    fn drop(&mut self) {
        let mut meters = self.meters.lock();
        for (name, _) in &self.names {
            if let Some(meter) = meters.get_mut(name) {
                meter.running -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn limits(requests: u32, tokens: u32, concurrent: u32) -> AdapterLimits {
        AdapterLimits {
            requests_per_minute: NonZeroU32::new(requests),
            tokens_per_minute: NonZeroU32::new(tokens),
            concurrent_requests: NonZeroU32::new(concurrent),
            ..AdapterLimits::default()
        }
    }

    fn admit(
        meters: &Meters,
        limits: AdapterLimits,
        prompt: usize,
        now: Instant,
    ) -> Result<Metered, Option<Duration>> {
        let admitted = meters.admit(vec![("a".to_owned(), limits)], prompt, now);
        admitted
            .map(|ticket| ticket.expect("it is bounded"))
            .map_err(|error| error.retry_after())
    }

    #[test]
    fn so_many_requests_may_come_at_once_and_then_at_their_rate() {
        let (meters, began) = (Meters::default(), Instant::now());
        for _ in 0..4 {
            assert!(admit(&meters, limits(4, 0, 0), 1, began).is_ok());
        }
        let refused = admit(&meters, limits(4, 0, 0), 1, began).unwrap_err();
        assert_eq!(refused, Some(Duration::from_secs(15)));
        let later = began + Duration::from_secs(16);
        assert!(admit(&meters, limits(4, 0, 0), 1, later).is_ok());
        assert!(admit(&meters, limits(4, 0, 0), 1, later).is_err());
        // An hour saves no more up than a minute does.
        let much_later = began + Duration::from_secs(3600);
        let accepted = (0..10).filter(|_| admit(&meters, limits(4, 0, 0), 1, much_later).is_ok());
        assert_eq!(accepted.count(), 4);
    }

    #[test]
    fn an_answer_overdraws_and_the_next_request_waits_for_it() {
        let (meters, began) = (Meters::default(), Instant::now());
        let ticket = admit(&meters, limits(0, 60, 0), 50, began).unwrap();
        for _ in 0..30 {
            ticket.token(began);
        }
        assert_eq!(
            admit(&meters, limits(0, 60, 0), 10, began).unwrap_err(),
            Some(Duration::from_secs(30))
        );
        assert!(admit(&meters, limits(0, 60, 0), 10, began + Duration::from_secs(31)).is_ok());
        // A prompt that is larger than a minute's worth is not refused for ever.
        let rested = began + Duration::from_secs(120);
        assert!(admit(&meters, limits(0, 60, 0), 500, rested).is_ok());
        assert!(admit(&meters, limits(0, 60, 0), 1, rested + Duration::from_secs(400)).is_err());
    }

    #[test]
    fn what_was_not_accepted_costs_nothing() {
        let (meters, now) = (Meters::default(), Instant::now());
        for _ in 0..5 {
            let metered = admit(&meters, limits(1, 10, 0), 10, now).expect("there is room");
            metered.refund(now);
        }
        assert!(admit(&meters, limits(1, 10, 0), 10, now).is_ok());
        assert!(admit(&meters, limits(1, 10, 0), 10, now).is_err());
    }

    #[test]
    fn what_has_ended_makes_room_and_a_refusal_takes_nothing() {
        let (meters, now) = (Meters::default(), Instant::now());
        let first = admit(&meters, limits(3, 0, 1), 1, now).unwrap();
        for _ in 0..5 {
            assert!(admit(&meters, limits(3, 0, 1), 1, now).is_err(), "one at once");
        }
        drop(first);
        assert!(
            admit(&meters, limits(3, 0, 1), 1, now).is_ok(),
            "refusals were no requests"
        );
        // Of several names, all or none.
        let both = |concurrent| {
            let names = vec![
                ("b".to_owned(), limits(1, 0, 0)),
                ("c".to_owned(), limits(0, 0, concurrent)),
            ];
            meters.admit(names, 1, now)
        };
        let held = meters
            .admit(vec![("c".to_owned(), limits(0, 0, 1))], 1, now)
            .unwrap();
        assert!(both(1).is_err());
        drop(held);
        assert!(both(1).is_ok(), "`b` was not charged for what `c` refused");
        assert!(both(1).is_err());
        assert!(
            meters
                .admit(vec![("d".to_owned(), AdapterLimits::default())], 1, now)
                .unwrap()
                .is_none()
        );
    }
}
