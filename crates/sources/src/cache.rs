//! What was fetched from object stores and web servers, kept on disk: a folder for each adapter in
//! each of its states, whole or not there. Those that were not used for longest go when there is
//! too much.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use crate::error::FetchError;
use crate::save::hex;

/// What an unfinished folder's name ends with.
const UNFINISHED: &str = ".part";
/// What its lock's name ends with.
const LOCK: &str = ".lock";
/// How long a load waits for its turn at most, for what may be expected.
const GRACE: Duration = Duration::from_secs(600);
/// Digits of a hash in a folder's name.
const DIGITS: usize = 32;

#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    /// Bytes that it may hold.
    limit: u64,
    /// What was used more recently than this ago may be waiting to be read.
    grace: Duration,
}

/// A folder that is being filled by whoever holds this: other processes and threads wait.
#[derive(Debug)]
pub(crate) struct Filling {
    pub(crate) part: PathBuf,
    folder: PathBuf,
    _lock: File,
}

impl Cache {
    pub(crate) fn new(folder: PathBuf, limit: u64) -> Self {
        Self {
            folder,
            limit,
            grace: GRACE,
        }
    }

    /// The folder of what is at `url` in the state `tag`, if it is here.
    pub(crate) fn find(&self, url: &str, tag: &str) -> Option<PathBuf> {
        let folder = self.folder.join(key(url, tag));
        if !folder.is_dir() {
            return None;
        }
        // A failure leaves it looking older than it is.
        let _ = File::open(&folder).and_then(|file| file.set_modified(SystemTime::now()));
        Some(folder)
    }

    /// Begins to fill the folder of what is at `url` in the state `tag`, or goes on with it. Waits
    /// for whoever else does.
    pub(crate) fn fill(&self, url: &str, tag: &str) -> Result<Filling, FetchError> {
        let key = key(url, tag);
        let part = self.folder.join(format!("{key}{UNFINISHED}"));
        fs::create_dir_all(&part).map_err(|source| FetchError::file(&part, source))?;
        let lock = lock(&self.folder.join(format!("{key}{LOCK}")))?;
        Ok(Filling {
            part,
            folder: self.folder.join(key),
            _lock: lock,
        })
    }

    /// Deletes what was not used for longest until the rest is within the limit. `keep` stays
    /// whatever its size.
    pub(crate) fn prune(&self, keep: &Path) {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let mut folders: Vec<(SystemTime, PathBuf, u64)> = entries
            .filter_map(|entry| {
                let metadata = entry.metadata().ok().filter(fs::Metadata::is_dir)?;
                let path = entry.path();
                let bytes = size(&path);
                Some((metadata.modified().ok()?, path, bytes))
            })
            .collect();
        folders.sort();
        let mut all: u64 = folders.iter().map(|(_, _, bytes)| bytes).sum();
        let now = SystemTime::now();
        for (used, path, bytes) in folders {
            if all <= self.limit || now.duration_since(used).is_ok_and(|ago| ago < self.grace) {
                break;
            }
            let is_locked = || {
                let lock = PathBuf::from(format!("{}{LOCK}", path.with_extension("").display()));
                File::open(lock).is_ok_and(|lock| lock.try_lock().is_err())
            };
            if path == keep || is_locked() {
                continue;
            }
            match fs::remove_dir_all(&path) {
                Ok(()) => all -= bytes,
                Err(error) => {
                    tracing::warn!("`{}` cannot be deleted from the cache: {error}", path.display())
                }
            }
        }
    }
}

impl Filling {
    /// Makes it whole.
    pub(crate) fn finish(self) -> Result<PathBuf, FetchError> {
        let fail = |source| FetchError::file(&self.folder, source);
        File::open(&self.part)
            .and_then(|part| part.sync_all())
            .map_err(fail)?;
        fs::rename(&self.part, &self.folder).map_err(fail)?;
        Ok(self.folder)
    }

    /// It, if someone else has filled it meanwhile.
    pub(crate) fn filled(&self) -> Option<PathBuf> {
        self.folder.is_dir().then(|| self.folder.clone())
    }
}

/// Locks a file, which is created, until what is returned is dropped. Waits for whoever has it.
pub(crate) fn lock(path: &Path) -> Result<File, FetchError> {
    let fail = |source| FetchError::file(path, source);
    if let Some(above) = path.parent() {
        fs::create_dir_all(above).map_err(fail)?;
    }
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(fail)?;
    file.lock().map_err(fail)?;
    Ok(file)
}

fn key(url: &str, tag: &str) -> String {
    let digest = |text: &str| hex(&Sha256::digest(text.as_bytes())[..DIGITS / 2]);
    format!("{}-{}", digest(url), digest(tag))
}

/// Bytes of the files in a folder.
fn size(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.metadata().ok())
        .filter(fs::Metadata::is_file)
        .map(|metadata| metadata.len())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let dir = tempfile::tempdir().unwrap();
        let mut cache = Cache::new(dir.path().join("cache"), 250);
        cache.grace = Duration::ZERO;
        let fill = |url: &str| {
            let filling = cache.fill(url, "1").unwrap();
            fs::write(filling.part.join("x"), [0; 100]).unwrap();
            let folder = filling.finish().unwrap();
            // So that no two are used at the same moment of a coarse clock.
            std::thread::sleep(std::time::Duration::from_millis(20));
            folder
        };
        let (a, b) = (fill("a"), fill("b"));
        assert_eq!(cache.find("a", "1"), Some(a.clone()));
        assert_eq!(cache.find("a", "2"), None);
        std::thread::sleep(std::time::Duration::from_millis(20));
        let c = fill("c");
        cache.prune(&c);
        assert!(a.is_dir() && c.is_dir() && !b.exists());
        // Being filled, it is not deleted.
        let d = cache.fill("d", "1").unwrap();
        fs::write(d.part.join("x"), [0; 100]).unwrap();
        cache.prune(&c);
        assert!(d.part.is_dir() && !a.exists());
    }
}
