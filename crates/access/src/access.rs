//! The keys in memory, which every request is checked against.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError, RwLock, Weak},
    thread,
    time::{Duration, SystemTime},
};

use multigraft_api::UsageRow;
use subtle::ConstantTimeEq as _;

use crate::{
    error::{AccessError, Refused},
    key::Key,
    month::{Exhausted, Months},
    secret::Secret,
    store::{Store, StoredSecret},
    usage::{Query, Usage},
};

/// How often the database is checked for changes by other processes: a revoked key stays valid for
/// at most this long.
const POLL_INTERVAL: Duration = Duration::from_secs(1);

type Keys = HashMap<String, (Arc<Key>, Vec<StoredSecret>)>;

/// Says which key a request belongs to. The answer holds for that request only: keys change while
/// the server runs.
#[derive(Debug)]
pub struct Access {
    store: Store,
    keys: RwLock<Arc<Keys>>,
    /// Held from reading the database to replacing `keys`, so that older keys never replace newer
    /// ones.
    refreshing: Mutex<()>,
    months: Months,
    usage: Usage,
}

impl Access {
    /// Reads the keys in `store`.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn new(store: Store) -> Result<Self, AccessError> {
        let access = Self {
            usage: Usage::open(store.folder())?,
            months: Months::new(store.months()?),
            store,
            keys: RwLock::default(),
            refreshing: Mutex::default(),
        };
        access.refresh()?;
        Ok(access)
    }

    /// Reads the keys again now.
    ///
    /// # Errors
    /// If they cannot be read; then the keys read before stay in use.
    pub fn refresh(&self) -> Result<(), AccessError> {
        let _refreshing = self.refreshing.lock().unwrap_or_else(PoisonError::into_inner);
        let stored = self.store.stored()?.into_iter();
        let keys = stored.map(|stored| (stored.key.id.clone(), (Arc::new(stored.key), stored.secrets)));
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys.collect());
        Ok(())
    }

    /// Starts a thread that reads the keys again when another process has changed them, and writes
    /// usage to the databases. It ends when every other reference to `self` is dropped.
    ///
    /// # Errors
    /// If the system starts no thread.
    pub fn follow(self: &Arc<Self>) -> io::Result<()> {
        let access = Arc::downgrade(self);
        let thread = thread::Builder::new().name("keys".to_owned());
        thread.spawn(move || follow(&access)).map(drop)
    }

    /// Counts `tokens` for the current month of key `id`, unless the month's sum would exceed
    /// `most`. They are written to the database within seconds.
    ///
    /// # Errors
    /// If the sum would exceed `most`; then nothing is counted.
    pub fn spend(&self, id: &str, tokens: u64, most: Option<u64>, now: SystemTime) -> Result<(), Exhausted> {
        self.months.spend(id, tokens, most, now)
    }

    /// Takes back tokens that were counted for a request that was then refused.
    pub fn refund(&self, id: &str, tokens: u64) {
        self.months.refund(id, tokens);
    }

    /// Writes the tokens and usage counted so far. The thread of [`follow`](Self::follow) calls it
    /// all the time; the caller calls it once more at the end.
    ///
    /// # Errors
    /// If a database cannot be written; then a later call writes the same counts.
    pub fn save(&self) -> Result<(), AccessError> {
        let months = self.months.save(|spent| self.store.add_spent(spent));
        // If one database cannot be written, the other still is.
        self.usage.save(SystemTime::now()).and(months)
    }

    /// Usage by the hour.
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// Sums of the usage that was written, the oldest first.
    ///
    /// # Errors
    /// If a database cannot be read, or there are more than `most` rows.
    pub fn report(&self, query: &Query, most: usize) -> Result<Vec<UsageRow>, AccessError> {
        let mut rows = self.usage.report(query, most)?;
        if query.by.key {
            let keys = self.store.keys()?.into_iter();
            let names: HashMap<String, String> = keys.map(|key| (key.id, key.name)).collect();
            for row in &mut rows {
                let id = row.key.iter().flatten().next();
                row.key_name = Some(id.and_then(|id| names.get(id).cloned()));
            }
        }
        Ok(rows)
    }

    /// The database of the keys.
    pub fn store(&self) -> &Store {
        &self.store
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether there are no keys at all. Revoked and expired keys count: a server does not become
    /// open because its last key was revoked.
    pub fn is_empty(&self) -> bool {
        self.keys().is_empty()
    }

    /// The key `id` as it is now, for a long request that was authenticated a while ago; `None` if
    /// it does not exist, is revoked or has expired.
    pub fn valid(&self, id: &str, now: SystemTime) -> Option<Arc<Key>> {
        let keys = self.keys();
        let (key, _) = keys.get(id)?;
        let is_over = key.revoked.is_some() || key.expires.is_some_and(|end| end <= now);
        (!is_over).then(|| Arc::clone(key))
    }

    /// The key that `secret` belongs to, at the time `now`.
    ///
    /// # Errors
    /// If the secret is unknown, revoked or expired.
    pub fn check(&self, secret: &Secret, now: SystemTime) -> Result<Arc<Key>, Refused> {
        let keys = self.keys();
        let (key, secrets) = keys.get(secret.id()).ok_or(Refused::Unknown)?;
        let hash = secret.hash();
        let found = secrets.iter().find(|(known, _)| bool::from(known.ct_eq(&hash)));
        let (_, until) = found.ok_or(Refused::Unknown)?;
        let is_over = |end: &Option<SystemTime>| end.is_some_and(|end| end <= now);
        match () {
            () if key.revoked.is_some() => Err(Refused::Revoked),
            () if is_over(&key.expires) || is_over(until) => Err(Refused::Expired),
            () => Ok(Arc::clone(key)),
        }
    }
}

fn follow(access: &Weak<Access>) {
    // None: changes made between opening the database and now are read once.
    let mut known_version = None;
    loop {
        match access.upgrade() {
            None => return,
            Some(access) => {
                let read = access.store.version().and_then(|version| {
                    if known_version != Some(version) {
                        access.refresh()?;
                        known_version = Some(version);
                    }
                    Ok(())
                });
                if let Err(error) = read {
                    tracing::error!(%error, "keys cannot be read; the keys read before stay in use");
                }
                if let Err(error) = access.save() {
                    tracing::error!(%error, "usage cannot be written yet");
                }
            }
        }
        thread::sleep(POLL_INTERVAL);
    }
}
