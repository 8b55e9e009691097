//! The keys as they are now.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError, RwLock, Weak},
    thread,
    time::{Duration, SystemTime},
};

use subtle::ConstantTimeEq as _;

use crate::{
    error::{AccessError, Refused},
    key::Key,
    month::{Exhausted, Months},
    secret::Secret,
    store::{Store, StoredSecret},
    usage::{Query, Row, Usage},
};

/// How often the database is asked whether another process changed it: how long a revoked key goes
/// on, at most.
const EVERY: Duration = Duration::from_secs(1);

type Keys = HashMap<String, (Arc<Key>, Vec<StoredSecret>)>;

/// Answers for every request whose it is. Nothing that it says is to be remembered beyond that
/// request.
#[derive(Debug)]
pub struct Access {
    store: Store,
    keys: RwLock<Arc<Keys>>,
    /// Held from reading to keeping what was read, so that nobody puts older keys in the place of
    /// newer ones.
    reading: Mutex<()>,
    months: Months,
    usage: Usage,
}

impl Access {
    /// The keys in `store`.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn new(store: Store) -> Result<Self, AccessError> {
        let access = Self {
            usage: Usage::open(store.folder())?,
            months: Months::new(store.months()?),
            store,
            keys: RwLock::default(),
            reading: Mutex::default(),
        };
        access.refresh()?;
        Ok(access)
    }

    /// Reads the keys again now.
    ///
    /// # Errors
    /// If they cannot be read; those that were known stay.
    pub fn refresh(&self) -> Result<(), AccessError> {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let stored = self.store.stored()?.into_iter();
        let keys = stored.map(|stored| (stored.key.id.clone(), (Arc::new(stored.key), stored.secrets)));
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(keys.collect());
        Ok(())
    }

    /// Starts a thread that follows what other processes change and writes what was counted, until
    /// all others have let go of `self`.
    ///
    /// # Errors
    /// If there are no more threads.
    pub fn follow(self: &Arc<Self>) -> io::Result<()> {
        let access = Arc::downgrade(self);
        let thread = thread::Builder::new().name("keys".to_owned());
        thread.spawn(move || follow(&access)).map(drop)
    }

    /// Counts `tokens` for the month of key `id`, if no more than `most` are counted with them.
    /// They are written within seconds.
    ///
    /// # Errors
    /// If they would be more; then nothing is counted.
    pub fn spend(&self, id: &str, tokens: u64, most: Option<u64>, now: SystemTime) -> Result<(), Exhausted> {
        self.months.spend(id, tokens, most, now)
    }

    /// Takes back what was counted for a request that was not accepted after all.
    pub fn refund(&self, id: &str, tokens: u64) {
        self.months.refund(id, tokens);
    }

    /// Writes what was counted. Whoever follows does it all the time; at the end it is for the
    /// caller.
    ///
    /// # Errors
    /// If the database cannot be written; then a later call writes it.
    pub fn save(&self) -> Result<(), AccessError> {
        let months = self.months.save(|spent| self.store.add_spent(spent));
        // One that cannot be written does not keep the other from it.
        self.usage.save(SystemTime::now()).and(months)
    }

    /// What was used.
    pub fn usage(&self) -> &Usage {
        &self.usage
    }

    /// Sums of what was used, as far as it was written, the oldest first.
    ///
    /// # Errors
    /// If a database cannot be read, or there are more than `most` rows.
    pub fn report(&self, query: &Query, most: usize) -> Result<Vec<Row>, AccessError> {
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

    /// Where they are stored.
    pub fn store(&self) -> &Store {
        &self.store
    }

    fn keys(&self) -> Arc<Keys> {
        Arc::clone(&self.keys.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether there are no keys at all, so that nobody could have one. Revoked ones count: a
    /// server does not open because its last key was taken away.
    pub fn is_empty(&self) -> bool {
        self.keys().is_empty()
    }

    /// The key of that id as it is now, for whoever was let in by it a while ago; `None` if there
    /// is none or it is over.
    pub fn valid(&self, id: &str, now: SystemTime) -> Option<Arc<Key>> {
        let keys = self.keys();
        let (key, _) = keys.get(id)?;
        let is_over = key.revoked.is_some() || key.expires.is_some_and(|end| end <= now);
        (!is_over).then(|| Arc::clone(key))
    }

    /// The key that `secret` is of, at the time `now`.
    ///
    /// # Errors
    /// If it opens nothing.
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
    // None: whatever happened between opening and now is read once.
    let mut known = None;
    loop {
        match access.upgrade() {
            None => return,
            Some(access) => {
                let read = access.store.version().and_then(|version| {
                    if known != Some(version) {
                        access.refresh()?;
                        known = Some(version);
                    }
                    Ok(())
                });
                if let Err(error) = read {
                    tracing::error!(%error, "keys cannot be read; those that were known stay");
                }
                if let Err(error) = access.save() {
                    tracing::error!(%error, "what was used cannot be written yet");
                }
            }
        }
        thread::sleep(EVERY);
    }
}
