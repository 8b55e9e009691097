//! Which files of a source are fetched, and what came of it.

use std::path::PathBuf;

/// The files that are fetched from a source. Nothing else of it is looked at.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// A file that is written into a snapshot of the Hub's cache once all the others are there:
    /// another program may have fetched only some of them.
    pub marker: &'static str,
    /// Their names, relative to the source.
    pub files: &'static [WantedFile],
}

/// A file that is fetched.
#[derive(Clone, Copy, Debug)]
pub struct WantedFile {
    /// Its name.
    pub name: &'static str,
    /// The largest that is fetched, in bytes.
    pub limit: u64,
    /// What its absence means.
    pub need: Need,
}

/// What becomes of a source that lacks a file, or has one that is too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Without the file, nothing is fetched.
    Required,
    /// The file may be absent; one that is too large is an error.
    IfPresent,
    /// The file may be absent; one that is too large is left out.
    Optional,
}

/// Files of a repository whose names are not known before it is listed.
#[derive(Clone, Copy, Debug)]
pub struct WantedKinds {
    /// As [`Wanted::marker`].
    pub marker: &'static str,
    /// Whether a file of this name is fetched.
    pub is_wanted: fn(&str) -> bool,
    /// What must be among the files, as messages call it, and whether a file is that.
    pub required: &'static [(&'static str, fn(&str) -> bool)],
    /// The largest file that is fetched, in bytes.
    pub limit: u64,
}

/// Files that were brought here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    /// Where they are now. Nobody changes them there.
    pub folder: PathBuf,
    /// What brings the same files again: a commit of the Hub, or what the object store said of
    /// their state.
    pub revision: Option<String>,
}
