//! The files of all versions that survive a restart, by their hash.
//!
//! Files are written under another name, brought to disk and then renamed, before the catalogue
//! names them; those that no version has are swept away at the start.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use multigraft_model::AdapterHash;
use multigraft_peft::AdapterFiles;
use tempfile::TempDir;

use super::catalogue::StoreError;
use crate::parts::{REFERENCE_FILE, REFERENCE_LIMIT};

/// A folder that holds a folder of files for each hash.
#[derive(Debug)]
pub(super) struct VersionFiles {
    root: PathBuf,
}

impl VersionFiles {
    /// Those below `root`, which is made if there is none.
    pub(super) fn open(root: PathBuf) -> Result<Self, StoreError> {
        match fs::create_dir_all(&root) {
            Ok(()) => Ok(Self { root }),
            Err(source) => Err(StoreError::File { path: root, source }),
        }
    }

    /// Where the files of a version are.
    pub(super) fn folder(&self, hash: AdapterHash) -> PathBuf {
        self.root.join(hash.to_string())
    }

    /// Keeps an adapter's files; returns whether they were not kept before.
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
                // Damaged, or it would have been found whole.
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

    /// A folder for files that arrive, which goes when it is dropped; after a crash, at the next
    /// start.
    pub(super) fn arriving(&self) -> Result<TempDir, StoreError> {
        let folder = tempfile::Builder::new().prefix("upload-").tempdir_in(&self.root);
        folder.map_err(|source| StoreError::File {
            path: self.root.clone(),
            source,
        })
    }

    /// Deletes files that turned out to be of no use.
    pub(super) fn discard(&self, hash: AdapterHash) {
        // What is left of them goes at the next start.
        let _ = fs::remove_dir_all(self.folder(hash));
    }

    /// Deletes all files but those of `hashes`.
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

/// Keeps what an adapter says that it should answer, for later loads: it is no part of the hash, so
/// it may be another by now.
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
