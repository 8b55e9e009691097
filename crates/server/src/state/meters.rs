//! Rate limits of adapters and keys: requests per minute, tokens per minute, concurrent requests,
//! and for keys tokens per month.
//!
//! Requests and tokens are limited by token buckets (Tanenbaum, Computer Networks, "traffic
//! shaping") that hold one minute's worth and fill evenly. The tokens of a prompt are taken when
//! its request is accepted, the tokens of an answer as they are generated. An answer may therefore
//! overdraw the bucket, and the next request waits until it is refilled. A prompt that is larger
//! than the bucket is accepted when the bucket is full.

use std::collections::HashMap;
use std::fmt;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use axum::http::{HeaderMap, HeaderValue};
use multigraft_access::{Access, Key, KeyLimits};
use multigraft_adapters::AdapterLimits;

use crate::{
    contract::headers::{RATE_LIMIT_REQUESTS, RATE_LIMIT_TOKENS},
    http::error::ApiError,
};

/// The rate limiters of all adapters and keys. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meters(Arc<Mutex<HashMap<Payer, Meter>>>);

/// An adapter or key that has limits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Payer {
    /// All requests for an adapter, by its name.
    Adapter(String),
    /// All requests with a key, by its id.
    Key(String),
}

/// An adapter or key with its limits.
#[derive(Clone, Debug)]
pub(crate) struct Bounded {
    payer: Payer,
    /// The name in error messages.
    name: String,
    bounds: Bounds,
}

impl fmt::Display for Bounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.payer {
            Payer::Adapter(_) => "adapter",
            Payer::Key(_) => "key",
        };
        write!(f, "{what} `{}`", self.name)
    }
}

/// The limits that adapters and keys have in common.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    requests_per_minute: Option<NonZeroU32>,
    tokens_per_minute: Option<NonZeroU32>,
    concurrent_requests: Option<NonZeroU32>,
}

impl Bounded {
    pub(crate) fn adapter(name: &str, limits: &AdapterLimits) -> Self {
        Self {
            payer: Payer::Adapter(name.to_owned()),
            name: name.to_owned(),
            bounds: Bounds {
                requests_per_minute: limits.requests_per_minute,
                tokens_per_minute: limits.tokens_per_minute,
                concurrent_requests: limits.concurrent_requests,
            },
        }
    }

    fn key(key: &Key) -> Self {
        Self {
            payer: Payer::Key(key.id.clone()),
            name: key.name.clone(),
            bounds: Bounds::of(&key.limits),
        }
    }
}

impl Bounds {
    fn of(limits: &KeyLimits) -> Self {
        Self {
            requests_per_minute: limits.requests_per_minute,
            tokens_per_minute: limits.tokens_per_minute,
            concurrent_requests: limits.concurrent_requests,
        }
    }

    fn are_by_the_minute(&self) -> bool {
        self.requests_per_minute.is_some() || self.tokens_per_minute.is_some()
    }
}

/// The key that a request's tokens are charged to, and the store that counts its months.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) access: Arc<Access>,
    pub(crate) key: Arc<Key>,
}

impl Account {
    /// Charges a prompt of `prompt` tokens to the month, or fails without charging.
    fn take(&self, prompt: u64, now: SystemTime) -> Result<(), ApiError> {
        let most = self.key.limits.tokens_per_month.map(NonZeroU64::get);
        let spent = self.access.spend(&self.key.id, prompt, most, now);
        spent.map_err(|exhausted| {
            let wait = exhausted.until_next;
            ApiError::Quota {
                message: format!(
                    "Monthly quota of key `{}` reached: {} of {} tokens are used, and this prompt has {prompt}. The next month (UTC) \
                     begins in {}.",
                    self.key.name,
                    exhausted.spent,
                    most.unwrap_or_default(),
                    duration(wait)
                ),
                retry_after: wait,
            }
        })
    }
}

#[derive(Debug, Default)]
struct Meter {
    requests: Bucket,
    tokens: Bucket,
    /// Requests in flight that count against `concurrent_requests`.
    in_flight: u32,
}

/// A token bucket. The level is below zero after an answer that was longer than the rest.
#[derive(Debug, Default)]
struct Bucket {
    level: f64,
    /// When `level` was computed. `None`: nothing was taken yet, the bucket is full.
    at: Option<Instant>,
}

impl Bucket {
    /// The level at `now`, for a bucket of `size` that fills within a minute.
    fn level(&self, size: f64, now: Instant) -> f64 {
        match self.at {
            None => size,
            Some(at) => {
                let minutes = now.saturating_duration_since(at).as_secs_f64() / 60.0;
                (self.level + minutes * size).min(size)
            }
        }
    }

    /// Time until the bucket holds `amount`.
    fn wait(&self, amount: f64, size: f64, now: Instant) -> Duration {
        let lacking = amount.min(size) - self.level(size, now);
        Duration::from_secs_f64((lacking / size * 60.0).max(0.0))
    }

    fn take(&mut self, amount: f64, size: f64, now: Instant) {
        self.level = self.level(size, now) - amount;
        self.at = Some(now);
    }
}

/// A reservation against the concurrency limits, from before a request waits for its adapter until
/// its answer has ended. Dropping it releases the reservation.
#[derive(Debug, Default)]
pub(crate) struct Permit {
    meters: Meters,
    payers: Vec<Payer>,
}

/// An accepted request, whose tokens are charged as they are generated. Dropping it ends the
/// request.
#[derive(Debug)]
pub(crate) struct Metered {
    meters: Meters,
    bounded: Vec<Bounded>,
    account: Option<Account>,
    prompt: usize,
    _permit: Permit,
}

/// The time of a charge: minutes use a monotonic clock, months the calendar.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    pub(crate) instant: Instant,
    pub(crate) time: SystemTime,
}

impl Now {
    pub(crate) fn get() -> Self {
        Self {
            instant: Instant::now(),
            time: SystemTime::now(),
        }
    }
}

impl Meters {
    /// Reserves one concurrent request of all adapters and the key, or of none of them.
    pub(crate) fn reserve(&self, adapters: Vec<Bounded>, key: Option<&Key>) -> Result<Permit, ApiError> {
        let mut bounded = adapters;
        bounded.extend(key.map(Bounded::key));
        bounded.retain(|bounded| bounded.bounds.concurrent_requests.is_some());
        let mut payers = Vec::with_capacity(bounded.len());
        if !bounded.is_empty() {
            let mut meters = self.lock();
            for bounded in &bounded {
                let meter = meters.entry(bounded.payer.clone()).or_default();
                meter.check_concurrency(bounded)?;
            }
            for bounded in bounded {
                if let Some(meter) = meters.get_mut(&bounded.payer) {
                    meter.in_flight += 1;
                    payers.push(bounded.payer);
                }
            }
        }
        let meters = self.clone();
        Ok(Permit { meters, payers })
    }

    /// Charges a request with `prompt` tokens to the minutes of all adapters and of the key and to
    /// the key's month, or to none of them. Adapters without limits are not counted. The month of a
    /// key always is, because the key may get a limit before the month ends.
    pub(crate) fn admit(
        &self,
        permit: Permit,
        adapters: Vec<Bounded>,
        account: Option<Account>,
        prompt: usize,
        now: Now,
    ) -> Result<Option<Metered>, ApiError> {
        let mut bounded = adapters;
        bounded.extend(account.as_ref().map(|account| Bounded::key(&account.key)));
        bounded.retain(|bounded| bounded.bounds.are_by_the_minute());
        if bounded.is_empty() && account.is_none() && permit.payers.is_empty() {
            return Ok(None);
        }
        let mut meters = self.lock();
        let checked = bounded.iter().try_for_each(|bounded| {
            let meter = meters.entry(bounded.payer.clone()).or_default();
            meter.check_minutes(bounded, prompt as f64, now.instant)
        });
        let taken = checked.and_then(|()| match &account {
            Some(account) => account.take(prompt as u64, now.time),
            None => Ok(()),
        });
        if taken.is_ok() {
            for bounded in &bounded {
                if let Some(meter) = meters.get_mut(&bounded.payer) {
                    meter.add(&bounded.bounds, 1.0, prompt as f64, now.instant);
                }
            }
        }
        // Dropping the permit of a refused request takes the lock.
        drop(meters);
        taken?;
        Ok(Some(Metered {
            meters: self.clone(),
            bounded,
            account,
            prompt,
            _permit: permit,
        }))
    }

    /// Writes the rate-limit headers of a key, as OpenAI does.
    pub(crate) fn label(&self, key: &Key, headers: &mut HeaderMap, now: Instant) {
        let meters = self.lock();
        let fresh = Meter::default();
        let meter = meters.get(&Payer::Key(key.id.clone())).unwrap_or(&fresh);
        let limits = &key.limits;
        for (size, bucket, [limit, remaining, reset]) in [
            (limits.requests_per_minute, &meter.requests, RATE_LIMIT_REQUESTS),
            (limits.tokens_per_minute, &meter.tokens, RATE_LIMIT_TOKENS),
        ] {
            let Some(size) = size else { continue };
            let level = bucket.level(size.get().into(), now).max(0.0).floor();
            let until_full = bucket.wait(size.get().into(), size.get().into(), now);
            headers.insert(limit, HeaderValue::from(size.get()));
            headers.insert(remaining, HeaderValue::from(level as u32));
            if let Ok(until_full) = HeaderValue::from_str(&duration(until_full)) {
                headers.insert(reset, until_full);
            }
        }
    }

    /// A poisoned lock is fine: nothing panics between two counts that belong together.
    fn lock(&self) -> MutexGuard<'_, HashMap<Payer, Meter>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A duration as OpenAI writes it: `120ms`, `1s`, `6m0s`, `1h0m0s`. Rounded up, so that a retry
/// after it is not too early.
fn duration(time: Duration) -> String {
    let milliseconds = time.as_nanos().div_ceil(1_000_000);
    if (1..1000).contains(&milliseconds) {
        return format!("{milliseconds}ms");
    }
    let seconds = milliseconds.div_ceil(1000);
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{rest}s"),
        (0, _) => format!("{minutes}m{rest}s"),
        _ => format!("{hours}h{minutes}m{rest}s"),
    }
}

impl Meter {
    fn check_concurrency(&self, bounded: &Bounded) -> Result<(), ApiError> {
        let most = bounded.bounds.concurrent_requests;
        match most.filter(|most| self.in_flight >= most.get()) {
            None => Ok(()),
            Some(most) => Err(ApiError::overloaded(format!(
                "Concurrency limit of {bounded} reached (concurrent requests: {most}). Retry when one of them has ended."
            ))),
        }
    }

    fn check_minutes(&self, bounded: &Bounded, prompt: f64, now: Instant) -> Result<(), ApiError> {
        let bounds = &bounded.bounds;
        let buckets = [
            ("requests", bounds.requests_per_minute, &self.requests, 1.0),
            ("tokens", bounds.tokens_per_minute, &self.tokens, prompt),
        ];
        for (what, size, bucket, amount) in buckets {
            let Some(size) = size else { continue };
            let wait = bucket.wait(amount, size.get().into(), now);
            if !wait.is_zero() {
                return Err(ApiError::Overloaded {
                    message: format!(
                        "Rate limit of {bounded} reached ({size} {what} per minute). Retry in {}.",
                        duration(wait)
                    ),
                    retry_after: Some(wait),
                });
            }
        }
        Ok(())
    }

    fn add(&mut self, bounds: &Bounds, requests: f64, tokens: f64, now: Instant) {
        if let Some(size) = bounds.requests_per_minute {
            self.requests.take(requests, size.get().into(), now);
        }
        if let Some(size) = bounds.tokens_per_minute {
            self.tokens.take(tokens, size.get().into(), now);
        }
    }
}

impl Metered {
    /// Returns everything that was charged: the engine did not accept the request.
    pub(crate) fn refund(&self, now: Instant) {
        self.add(-1.0, -(self.prompt as f64), now);
        if let Some(account) = &self.account {
            account.access.refund(&account.key.id, self.prompt as u64);
        }
    }

    /// Charges one generated token.
    pub(crate) fn token(&self, now: Now) {
        self.add(0.0, 1.0, now.instant);
        if let Some(account) = &self.account {
            // Charged without a limit, so that it cannot fail: a running answer is not cut off.
            let _ = account.access.spend(&account.key.id, 1, None, now.time);
        }
    }

    fn add(&self, requests: f64, tokens: f64, now: Instant) {
        if self.bounded.is_empty() {
            return;
        }
        let mut meters = self.meters.lock();
        for bounded in &self.bounded {
            if let Some(meter) = meters.get_mut(&bounded.payer) {
                meter.add(&bounded.bounds, requests, tokens, now);
            }
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.payers.is_empty() {
            return;
        }
        let mut meters = self.meters.lock();
        for payer in &self.payers {
            if let Some(meter) = meters.get_mut(payer) {
                meter.in_flight -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests;
