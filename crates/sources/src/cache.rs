//! The disk cache of files from object stores and web servers. Each state of each source has a
//! folder, which is complete or absent. The least recently used folders are deleted when the cache
//! exceeds its limit.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use sha2::{Digest as _, Sha256};

use crate::error::FetchError;
use crate::save::hex;

/// Suffix of a folder whose download is not complete.
const UNFINISHED: &str = ".part";
/// Suffix of a folder's lock file.
const LOCK: &str = ".lock";
/// How long a load is expected to wait for its turn at most.
const GRACE: Duration = Duration::from_secs(600);
/// Hexadecimal digits of each hash in a folder's name.
const DIGITS: usize = 32;

#[derive(Debug)]
pub(crate) struct Cache {
    folder: PathBuf,
    /// Capacity in bytes.
    limit: u64,
    /// Folders that were used within this time are not deleted: a load may be waiting to read them.
    grace: Duration,
}

/// An incomplete folder, locked by its owner. Other threads and processes that want the same folder
/// wait for the lock.
#[derive(Debug)]
pub(crate) struct PartialFolder {
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

    /// The complete folder of `url` in the state `tag`, if it is in the cache.
    pub(crate) fn find(&self, url: &str, tag: &str) -> Option<PathBuf> {
        let folder = self.folder.join(key(url, tag));
        if !folder.is_dir() {
            return None;
        }
        // If this fails, the folder only looks older than it is.
        let _ = File::open(&folder).and_then(|file| file.set_modified(SystemTime::now()));
        Some(folder)
    }

    /// Starts or resumes the download of `url` in the state `tag`. Waits if another thread or
    /// process is downloading it.
    pub(crate) fn fill(&self, url: &str, tag: &str) -> Result<PartialFolder, FetchError> {
        let key = key(url, tag);
        let part = self.folder.join(format!("{key}{UNFINISHED}"));
        fs::create_dir_all(&part).map_err(|source| FetchError::file(&part, source))?;
        let lock = lock(&self.folder.join(format!("{key}{LOCK}")))?;
        Ok(PartialFolder {
            part,
            folder: self.folder.join(key),
            _lock: lock,
        })
    }

    /// Deletes the least recently used folders until the cache is within its limit. `keep` is never
    /// deleted.
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

impl PartialFolder {
    /// Marks the folder as complete.
    pub(crate) fn finish(self) -> Result<PathBuf, FetchError> {
        let fail = |source| FetchError::file(&self.folder, source);
        File::open(&self.part)
            .and_then(|part| part.sync_all())
            .map_err(fail)?;
        fs::rename(&self.part, &self.folder).map_err(fail)?;
        Ok(self.folder)
    }

    /// The complete folder, if another thread or process has finished the download in the meantime.
    pub(crate) fn completed(&self) -> Option<PathBuf> {
        self.folder.is_dir().then(|| self.folder.clone())
    }
}

/// Creates and locks a file. Waits until no other thread or process holds the lock. The lock is
/// released when the returned file is dropped.
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

/// Total size of the files in a folder, in bytes.
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
            // Otherwise two folders could have the same time of use on a coarse clock.
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
        // A folder that is being filled is not deleted.
        let d = cache.fill("d", "1").unwrap();
        fs::write(d.part.join("x"), [0; 100]).unwrap();
        cache.prune(&c);
        assert!(d.part.is_dir() && !a.exists());
    }
}
