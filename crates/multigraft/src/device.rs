//! The devices that compute. No other module names their crates.

use std::{path::Path, sync::Arc};

use clap::ValueEnum;
use multigraft_cpu::{CpuBase, LoadOptions};
use multigraft_model::{Base, Config, KvBlock, KvDtype, ModelError, Precision};
use serde::Deserialize;

/// A device that computes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Device {
    /// This machine's processor.
    #[default]
    Cpu,
}

impl Device {
    /// Opens the base at `path` and makes its weights ready. `progress` is called with the number
    /// of finished parts and of all parts, from any thread.
    pub(crate) fn open(
        self,
        path: &Path,
        threads: usize,
        precision: Precision,
        progress: &(dyn Fn(usize, usize) + Sync),
    ) -> Result<Arc<dyn Base>, ModelError> {
        match self {
            Self::Cpu => {
                let options = LoadOptions {
                    threads,
                    precision,
                    progress: Some(progress),
                };
                Ok(Arc::new(CpuBase::open(path, &options)?))
            }
        }
    }

    /// The KV block of a model that is not opened.
    pub(crate) fn kv_block(self, config: &Config, dtype: KvDtype) -> KvBlock {
        match self {
            Self::Cpu => multigraft_cpu::kv_block(config, dtype),
        }
    }
}
