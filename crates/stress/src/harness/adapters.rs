//! Random adapters on disk.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use half::bf16;
use multigraft_model::{Config, LinearId, Module, ModuleKind, Target};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde_json::json;

/// The largest absolute weight: small enough that answers stay sensible, large enough that they
/// differ from those of the base.
const LARGEST_WEIGHT: f32 = 0.02;

/// Which linear maps are adapted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Targets {
    /// All linear maps of every layer.
    All,
    /// The projections of queries and values.
    QueryValue,
}

/// The shape of random adapters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RandomAdapters<'a> {
    /// The configuration of their base.
    pub config: &'a Config,
    pub rank: usize,
    pub targets: Targets,
}

impl RandomAdapters<'_> {
    /// Writes an adapter to `folder`. Each seed gives other weights.
    pub(crate) fn write(self, folder: &Path, seed: u64) -> Result<()> {
        let modules: Vec<Module> = self.config.modules();
        let modules: Vec<&Module> = modules.iter().filter(|module| self.adapts(module)).collect();
        let mut names: Vec<&str> = modules.iter().filter_map(|m| m.path.rsplit('.').next()).collect();
        names.sort_unstable();
        names.dedup();
        let config = json!({"peft_type": "LORA", "task_type": "CAUSAL_LM", "r": self.rank, "lora_alpha": 2 * self.rank,
            "target_modules": names, "bias": "none"});
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let mut header = serde_json::Map::new();
        let mut data: Vec<u8> = Vec::new();
        for module in modules {
            for (matrix, shape) in [
                ("lora_A", [self.rank, module.inp]),
                ("lora_B", [module.out, self.rank]),
            ] {
                let begin = data.len();
                for _ in 0..shape[0] * shape[1] {
                    let weight = bf16::from_f32(random.random_range(-LARGEST_WEIGHT..LARGEST_WEIGHT));
                    data.extend(weight.to_bits().to_le_bytes());
                }
                header.insert(
                    format!("base_model.model.{}.{matrix}.weight", module.path),
                    json!({"dtype": "BF16", "shape": shape, "data_offsets": [begin, data.len()]}),
                );
            }
        }
        let header = serde_json::Value::Object(header).to_string().into_bytes();
        let file = [(header.len() as u64).to_le_bytes().as_slice(), &header, &data].concat();
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(folder)?;
            fs::write(folder.join("adapter_config.json"), config.to_string())?;
            let mut weights = File::create(folder.join("adapter_model.safetensors"))?;
            weights.write_all(&file)?;
            // Measurements must not share the disk with delayed writes.
            weights.sync_all()
        };
        write().with_context(|| format!("cannot write {}", folder.display()))
    }

    /// Writes `count` adapters to the folders `a0`, `a1`, … of `dir`, and returns these.
    pub(crate) fn write_all(self, dir: &Path, count: usize) -> Result<Vec<PathBuf>> {
        (0..count)
            .map(|index| {
                let folder = dir.join(format!("a{index}"));
                self.write(&folder, index as u64)?;
                Ok(folder)
            })
            .collect()
    }

    fn adapts(self, module: &Module) -> bool {
        match module.kind {
            ModuleKind::Linear(LinearId::Layer { target, .. }) => match self.targets {
                Targets::All => true,
                Targets::QueryValue => matches!(target, Target::Q | Target::V),
            },
            _ => false,
        }
    }
}
