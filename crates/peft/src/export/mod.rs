//! An adapter written in another form: PEFT's, llama.cpp's, or merged into its base.
//!
//! What is written is what is served, whichever format it came from. PEFT's and llama.cpp's forms
//! are read again before they are put in place.

mod changed;
mod gguf;
mod merged;
mod merged_gguf;
mod peft;
mod plain;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use multigraft_model::{ModelError, ModelFiles};
use multigraft_weights::WeightsError;

use crate::base::BaseShape;
use crate::error::ReadError;
use crate::info::AdapterFile;

/// What to write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// PEFT's folder, to the bit what is served, with the file of its chat template.
    Peft,
    /// A GGUF file as llama.cpp's `convert_lora_to_gguf.py` writes it, which has no place for a
    /// chat template.
    Gguf,
    /// The base's folder, or its GGUF file, with the adapter in its weights. They are rounded to
    /// the base's types, but to brain floats where those are quantised. In a folder the adapter's
    /// chat template stands in for the base's; a GGUF file keeps the base's.
    Merged,
}

/// Why an adapter was not written.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// Nothing is ever overwritten.
    #[error("`{}` is there already: nothing is overwritten", .0.display())]
    Exists(PathBuf),
    /// The operating system refused.
    #[error("`{}`: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// The form has no words for what the adapter does.
    #[error("the adapter cannot be written as {form}: {reason}")]
    Cannot {
        /// The form.
        form: &'static str,
        /// What is in the way.
        reason: String,
    },
    /// The base could not be read.
    #[error(transparent)]
    Base(#[from] ModelError),
    /// A file of the base could not be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// What was written could not be read again.
    #[error("what was written cannot be read: {0}")]
    Written(Box<ReadError>),
    /// The library that writes safetensors refused.
    #[error("`{}`: {source}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What it said.
        source: safetensors::SafeTensorError,
    },
}

/// Writes `adapter`, which was read for the base at `base`, to `out`.
///
/// # Errors
/// If there is something at `out`, the form cannot say what the adapter does, or something cannot
/// be read or written. Then nothing is left at `out`.
pub fn export(adapter: &AdapterFile, base: &Path, form: Form, out: &Path) -> Result<(), ExportError> {
    let files = ModelFiles::open(base)?;
    let config = files.config()?;
    let shape = BaseShape::new(&config);
    place(out, |unfinished| match form {
        Form::Peft => peft::write(adapter, &shape, unfinished),
        Form::Gguf => gguf::write(adapter, &files, &config, &shape, unfinished),
        Form::Merged if !adapter.weights.invocation.is_empty() => Err(changed::cannot(
            "it sets in within a sequence (alora_invocation_tokens), which weights cannot",
        )),
        Form::Merged => match &files {
            ModelFiles::Gguf(gguf) => merged_gguf::write(adapter, gguf, &config, &shape, unfinished),
            ModelFiles::Folder {
                checkpoint,
                config: text,
            } => merged::write(adapter, base, (checkpoint, text), &config, &shape, unfinished),
        },
    })
}

/// Has something written under another name beside `out`, and then renames it.
fn place(out: &Path, write: impl FnOnce(&Path) -> Result<(), ExportError>) -> Result<(), ExportError> {
    let free = || match out.symlink_metadata() {
        Ok(_) => Err(ExportError::Exists(out.to_owned())),
        Err(_) => Ok(()),
    };
    free()?;
    let Some(name) = out.file_name() else {
        return Err(ExportError::Exists(out.to_owned()));
    };
    let mut unfinished = std::ffi::OsString::from(".");
    unfinished.push(name);
    unfinished.push(format!(".{}.unfinished", std::process::id()));
    let unfinished = out.with_file_name(unfinished);
    let written = write(&unfinished)
        .and_then(|()| free())
        .and_then(|()| fs::rename(&unfinished, out).map_err(failed(out)));
    if written.is_err() {
        // What cannot be removed is under a name that says what it is.
        let _ = match unfinished.is_dir() {
            true => fs::remove_dir_all(&unfinished),
            false => fs::remove_file(&unfinished),
        };
    }
    written
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> ExportError {
    let path = path.to_owned();
    |source| ExportError::Io { path, source }
}
