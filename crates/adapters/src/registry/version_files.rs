//! The files of all stored versions, in folders named after their hash.
//!
//! Files are written to a temporary folder, synced to disk and renamed before the catalogue refers
//! to them. Folders that no version refers to are deleted at the start.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use multigraft_model::AdapterHash;
use multigraft_peft::AdapterFiles;
use tempfile::TempDir;

use super::catalogue::StoreError;
use crate::parts::{REFERENCE_FILE, REFERENCE_LIMIT};

/// The folder that holds the versions' folders.
#[derive(Debug)]
pub(super) struct VersionFiles {
    root: PathBuf,
}

impl VersionFiles {
    /// Opens or creates the folder `root`.
    pub(super) fn open(root: PathBuf) -> Result<Self, StoreError> {
        match fs::create_dir_all(&root) {
            Ok(()) => Ok(Self { root }),
            Err(source) => Err(StoreError::File { path: root, source }),
        }
    }

    /// The folder of a version's files.
    pub(super) fn folder(&self, hash: AdapterHash) -> PathBuf {
        self.root.join(hash.to_string())
    }

    /// Stores an adapter's files. Returns whether they are new.
    pub(super) fn keep(&self, adapter: &AdapterFiles) -> Result<bool, StoreError> {
        let folder = self.folder(adapter.hash);
        let is_whole =
            |(name, bytes): &(&str, &[u8])| fs::read(folder.join(name)).is_ok_and(|kept| kept == *bytes);
        let files = adapter.files();
        if files.iter().all(is_whole) {
            keep_reference(adapter, &folder).map_err(|source| StoreError::File {
                path: folder.join(REFERENCE_FILE),
                source,
            })?;
            return Ok(false);
        }
        let unfinished = self.root.join(format!("{}.new", adapter.hash));
        let write = || -> io::Result<()> {
            if unfinished.exists() {
                fs::remove_dir_all(&unfinished)?;
            }
            fs::create_dir(&unfinished)?;
            for (name, bytes) in &files {
                let mut file = File::create_new(unfinished.join(name))?;
                file.write_all(bytes)?;
                file.sync_all()?;
            }
            keep_reference(adapter, &unfinished)?;
            File::open(&unfinished)?.sync_all()?;
            if folder.exists() {
                // The files are damaged: complete ones were found above.
                fs::remove_dir_all(&folder)?;
            }
            fs::rename(&unfinished, &folder)?;
            File::open(&self.root)?.sync_all()
        };
        match write() {
            Ok(()) => Ok(true),
            Err(source) => Err(StoreError::File {
                path: unfinished,
                source,
            }),
        }
    }

    /// Creates a folder for an upload. It is deleted when dropped or, after a crash, at the next
    /// start.
    pub(super) fn arriving(&self) -> Result<TempDir, StoreError> {
        let folder = tempfile::Builder::new().prefix("upload-").tempdir_in(&self.root);
        folder.map_err(|source| StoreError::File {
            path: self.root.clone(),
            source,
        })
    }

    /// Deletes the files of a version that failed to load.
    pub(super) fn discard(&self, hash: AdapterHash) {
        // If this fails, the next start deletes them.
        let _ = fs::remove_dir_all(self.folder(hash));
    }

    /// Deletes all folders except those of `hashes`.
    pub(super) fn sweep(&self, hashes: impl Iterator<Item = AdapterHash>) -> Result<(), StoreError> {
        let kept: HashSet<PathBuf> = hashes.map(|hash| self.folder(hash)).collect();
        let sweep = || -> io::Result<()> {
            for entry in fs::read_dir(&self.root)? {
                let path = entry?.path();
                if !kept.contains(&path) {
                    match path.is_dir() {
                        true => fs::remove_dir_all(&path)?,
                        false => fs::remove_file(&path)?,
                    }
                }
            }
            Ok(())
        };
        sweep().map_err(|source| StoreError::File {
            path: self.root.clone(),
            source,
        })
    }
}

/// Stores the adapter's expected answers for later loads. They are not part of the hash, so they
/// may have changed.
fn keep_reference(adapter: &AdapterFiles, folder: &Path) -> io::Result<()> {
    let from = adapter.folder.join(REFERENCE_FILE);
    let is_small = from
        .metadata()
        .is_ok_and(|file| file.is_file() && file.len() <= REFERENCE_LIMIT);
    if !is_small || adapter.folder == folder {
        return Ok(());
    }
    let unfinished = folder.join(format!("{REFERENCE_FILE}.new"));
    fs::copy(from, &unfinished)?;
    fs::rename(unfinished, folder.join(REFERENCE_FILE))
}
