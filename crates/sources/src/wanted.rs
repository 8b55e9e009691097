//! Which files are downloaded from a source, and the result of the download.

use std::path::PathBuf;

/// The files that are downloaded from a source. Other files of the source are ignored.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// A file that is written into a snapshot of the Hub's cache after all wanted files have
    /// arrived. Without it a snapshot may be incomplete: another program may have downloaded only
    /// some of the files.
    pub marker: &'static str,
    /// The files, by name.
    pub files: &'static [WantedFile],
}

/// A file that is downloaded.
#[derive(Clone, Copy, Debug)]
pub struct WantedFile {
    /// Its name, relative to the source.
    pub name: &'static str,
    /// The largest size that is downloaded, in bytes.
    pub limit: u64,
    /// What happens if the file is absent or too large.
    pub need: Need,
}

/// What happens if a source lacks a file, or has one that is larger than its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Both are errors.
    Required,
    /// The file may be absent. A file that is too large is an error.
    IfPresent,
    /// The file may be absent. A file that is too large is skipped.
    Optional,
}

/// Files of a Hub repository whose names are known only after it has been listed.
#[derive(Clone, Copy, Debug)]
pub struct WantedKinds {
    /// As [`Wanted::marker`].
    pub marker: &'static str,
    /// Selects the files to download by name.
    pub is_wanted: fn(&str) -> bool,
    /// What the selected files must include.
    pub required: &'static [RequiredKind],
    /// The largest size of a file, in bytes.
    pub limit: u64,
}

/// A kind of file that the selected files of a repository must include.
#[derive(Clone, Copy, Debug)]
pub struct RequiredKind {
    /// What messages call a missing file of this kind.
    pub what: &'static str,
    /// Whether a file of this name is of this kind.
    pub matches: fn(&str) -> bool,
}

/// Files that were downloaded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Their folder. The files in it do not change.
    pub folder: PathBuf,
    /// What downloads the same files again: a commit of the Hub, or the state that the object store
    /// reported.
    pub revision: Option<String>,
}
