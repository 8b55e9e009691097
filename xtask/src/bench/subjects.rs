//! The measured models and adapters: a folder with fixed names, as made by
//! `tools/rivals/make_subjects.py`.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};

use crate::model;

/// A missing model, adapter or rival: not a failure, but a row without a figure.
#[derive(Debug)]
pub(super) struct NotGiven(pub(super) String);

impl fmt::Display for NotGiven {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotGiven {}

/// A measured model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    /// Its name in the table.
    pub(super) title: &'static str,
    /// The name of its file, without `.gguf`.
    file: &'static str,
    /// The name of its folder of adapters.
    adapters: &'static str,
}

impl Subject {
    pub(super) const Q4_0: Self = Self::smollm2("Q4_0", "smollm2.Q4_0");
    pub(super) const Q4_1: Self = Self::smollm2("Q4_1", "smollm2.Q4_1");
    pub(super) const Q8_0: Self = Self::smollm2("Q8_0", "smollm2.Q8_0");
    pub(super) const BF16: Self = Self::smollm2("BF16", "smollm2.BF16");
    pub(super) const QWEN_SMALL: Self = Self {
        title: "Qwen2.5-Coder-0.5B",
        file: "qwen-0.5b",
        adapters: "qwen-0.5b.adapters",
    };
    pub(super) const QWEN_LARGE: Self = Self {
        title: "Qwen2.5-Coder-1.5B",
        file: "qwen-1.5b",
        adapters: "qwen-1.5b.adapters",
    };
    pub(super) const MISTRAL: Self = Self {
        title: "Mistral-7B shapes, Q4_0",
        file: "mistral-7b",
        adapters: "mistral-7b.adapters",
    };

    const fn smollm2(title: &'static str, file: &'static str) -> Self {
        Self {
            title,
            file,
            adapters: "smollm2.adapters",
        }
    }
}

/// The folder given with `--subjects`.
#[derive(Debug)]
pub(super) struct Subjects {
    folder: Option<PathBuf>,
}

impl Subjects {
    pub(super) fn new(folder: Option<&Path>) -> Result<Self> {
        if let Some(folder) = folder {
            ensure!(
                folder.is_dir(),
                "--subjects: there is no folder {}",
                folder.display()
            );
        }
        Ok(Self {
            folder: folder.map(std::path::absolute).transpose()?,
        })
    }

    /// The model's file. SmolLM2 in Q4_1 is the model of the demo, and is fetched if it is missing.
    pub(super) fn model(&self, subject: Subject) -> Result<PathBuf> {
        if subject == Subject::Q4_1 {
            return model::fetch();
        }
        self.part(&format!("{}.gguf", subject.file))
    }

    /// SmolLM2 as a folder for transformers and vLLM.
    pub(super) fn transformers(&self) -> Result<PathBuf> {
        self.part("smollm2.transformers")
    }

    /// The folder with the model's adapters a00, a01, …, which has at least `count` of them.
    pub(super) fn adapters(&self, subject: Subject, count: usize) -> Result<PathBuf> {
        self.part(&format!("{}/a{:02}", subject.adapters, count.saturating_sub(1)))?;
        self.part(subject.adapters)
    }

    fn part(&self, name: &str) -> Result<PathBuf> {
        let Some(folder) = &self.folder else {
            return Err(NotGiven(format!("needs --subjects with {name}")).into());
        };
        let path = folder.join(name);
        if path.exists() {
            Ok(path)
        } else {
            Err(NotGiven(format!("--subjects has no {name}")).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_files_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::create_dir_all(folder.path().join("smollm2.adapters/a07")).expect("a folder");
        let subjects = Subjects::new(Some(folder.path())).expect("good");
        assert!(subjects.adapters(Subject::Q4_0, 8).is_ok());
        let missing = subjects.adapters(Subject::Q4_0, 32).expect_err("only 8");
        assert_eq!(missing.to_string(), "--subjects has no smollm2.adapters/a31");
        assert!(missing.is::<NotGiven>());
        let none = Subjects::new(None).expect("good");
        let missing = none.model(Subject::Q8_0).expect_err("no folder");
        assert_eq!(missing.to_string(), "needs --subjects with smollm2.Q8_0.gguf");
        assert!(Subjects::new(Some(Path::new("/no/such/folder"))).is_err());
    }
}
