//! Exports an adapter in another form: PEFT's, llama.cpp's, or merged into its base.
//!
//! The exported weights are those that are served, whichever format they came from. Exports in
//! PEFT's and llama.cpp's form are read back before they are put in place.

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

/// The form of an export.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A folder as PEFT saves it, with bit-identical weights and the file of the chat template.
    Peft,
    /// A GGUF file as llama.cpp's `convert_lora_to_gguf.py` writes it. It cannot hold a chat
    /// template.
    Gguf,
    /// The base's folder or GGUF file with the adapter merged into its weights. The weights are
    /// rounded to the base's types, or to bfloat16 where those are quantised. In a folder, the
    /// adapter's chat template replaces the base's. A GGUF file keeps the base's template.
    Merged,
}

/// Why an adapter was not exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The output exists. Nothing is ever overwritten.
    #[error("`{}` is there already: nothing is overwritten", .0.display())]
    Exists(PathBuf),
    /// A file or folder cannot be read or written.
    #[error("`{}`: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// The form cannot represent the adapter.
    #[error("the adapter cannot be written as {form}: {reason}")]
    Cannot {
        /// The form.
        form: &'static str,
        /// What it cannot represent.
        reason: String,
    },
    /// The base cannot be read.
    #[error(transparent)]
    Base(#[from] ModelError),
    /// A file of the base cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// The export cannot be read back.
    #[error("what was written cannot be read: {0}")]
    Written(Box<ReadError>),
    /// The safetensors library cannot write the file.
    #[error("`{}`: {source}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// The library's error.
        source: safetensors::SafeTensorError,
    },
}

/// Exports `adapter`, which was read for the base at `base`, to `out`.
///
/// # Errors
/// If `out` exists, the form cannot represent the adapter, or a file cannot be read or written.
/// Then nothing is left at `out`.
pub fn export(adapter: &AdapterFile, base: &Path, form: Form, out: &Path) -> Result<(), ExportError> {
    let files = ModelFiles::open(base)?;
    let config = files.config()?;
    let shape = BaseShape::new(&config);
    write_then_rename(out, |unfinished| match form {
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

/// Lets `write` write to a temporary name beside `out`, then renames it to `out`.
fn write_then_rename(
    out: &Path,
    write: impl FnOnce(&Path) -> Result<(), ExportError>,
) -> Result<(), ExportError> {
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
        // If this fails, the name says that the file is unfinished.
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
