//! The work of a step of a model, from its files and its configuration.

use multigraft_kernels::BlockType;
use multigraft_model::{Base, Config, KvDtype, ModelFiles, config::FfnConfig};

use crate::roofline::Work;

/// The work of a model's parts, from which the work of any step follows.
#[derive(Debug)]
pub struct Cost {
    /// Matrices that every row goes through: bytes once a step, operations per row.
    dense: Work,
    /// The matrix from hidden states to logits: operations per row whose logits are wanted.
    head: Work,
    /// All experts of all layers, as if each were selected by every row.
    experts: Work,
    /// The share of a layer's experts that a row selects.
    active: f64,
    attention: Attention,
}

#[derive(Debug)]
struct Attention {
    /// For each layer, how many positions a row attends to; `None` is all.
    windows: Vec<Option<usize>>,
    /// Operations of one layer per row and position that the row attends to.
    operations: f64,
    /// Bytes of one position's keys and values in one layer.
    bytes: f64,
    /// The type in which keys and values are stored.
    dtype: KvDtype,
}

/// One run of a step: neighbouring rows of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// The position of the first row.
    pub start: usize,
    /// Rows, one position each.
    pub count: usize,
    /// Rows whose logits are wanted.
    pub wanted: usize,
}

impl Cost {
    /// The work of a base that is loaded from `files` and stores keys and values in `kv_dtype`.
    #[must_use]
    pub fn of(base: &dyn Base, files: &ModelFiles, kv_dtype: KvDtype) -> Self {
        let config = base.config();
        let (mut dense, mut head, mut experts) = (Work::default(), Work::default(), Work::default());
        let mut table = 0.0;
        for tensor in files.tensors().filter(|tensor| tensor.shape.len() > 1) {
            let work = matrix(tensor.block_type, tensor.len(), tensor.bytes.len());
            match role(tensor.name) {
                Role::Embedding => {
                    table += work.bytes;
                    if config.tied_embeddings {
                        head += work;
                    }
                }
                Role::Head => head += work,
                Role::Expert => experts += work,
                Role::Other => dense += work,
            }
        }
        // A step reads the packed weights. The files tell what part of them it does not need.
        let unread = if config.tied_embeddings { 0.0 } else { table };
        dense.bytes = base.bytes() as f64 - unread - experts.bytes - head.bytes;
        Self {
            dense,
            head,
            experts,
            active: active_share(config),
            attention: Attention::of(base, kv_dtype),
        }
    }

    /// The work of one step.
    #[must_use]
    pub fn step(&self, runs: &[Rows]) -> Work {
        let rows: usize = runs.iter().map(|run| run.count).sum();
        let wanted: usize = runs.iter().map(|run| run.wanted).sum();
        let once = |part: Work, rows: f64| Work {
            bytes: if rows > 0.0 { part.bytes } else { 0.0 },
            ..part * rows
        };
        let mut work = once(self.dense, rows as f64) + once(self.head, wanted as f64);
        // Rows select their experts independently. Experts that no row selects are not read.
        let unread = (1.0 - self.active).powi(i32::try_from(rows).unwrap_or(i32::MAX));
        work += Work {
            bytes: self.experts.bytes * (1.0 - unread),
            ..self.experts * (self.active * rows as f64)
        };
        for run in runs {
            work += self.attention.of_run(run);
        }
        work
    }
}

impl Attention {
    fn of(base: &dyn Base, dtype: KvDtype) -> Self {
        let config = base.config();
        let layers = config.layers.len();
        let block = base.kv_block(dtype);
        let bytes = block.bytes as f64 / (block.tokens * layers) as f64;
        Self {
            windows: config.layers.iter().map(|layer| layer.window).collect(),
            // Query times key and weight times value.
            operations: (4 * config.heads * config.head_dim) as f64,
            bytes,
            dtype,
        }
    }

    fn of_run(&self, run: &Rows) -> Work {
        let end = run.start + run.count;
        let (mut seen, mut read) = (0.0, 0.0);
        for window in &self.windows {
            let window = window.unwrap_or(end);
            let per_row = (run.start + 1..=end).map(|position| position.min(window) as f64);
            seen += per_row.sum::<f64>();
            read += end.min(window + run.count - 1) as f64;
        }
        let operations = seen * self.operations;
        let mut work = Work {
            bytes: read * self.bytes,
            ..Work::default()
        };
        match self.dtype {
            KvDtype::F32 => work.f32 = operations,
            KvDtype::Bf16 => work.bf16 = operations,
            KvDtype::Int8 => work.int8 = operations,
        }
        work
    }
}

/// What a matrix of a model file is used for.
#[derive(Debug, PartialEq)]
enum Role {
    Embedding,
    Head,
    Expert,
    Other,
}

/// The role of a matrix, by its name in GGUF or Hugging Face files.
fn role(name: &str) -> Role {
    if name.starts_with("token_embd.") || name.contains("embed_tokens") {
        Role::Embedding
    } else if name.starts_with("output.") || name.contains("lm_head") {
        Role::Head
    } else if name.contains("_exps.") || name.contains(".experts.") {
        Role::Expert
    } else {
        Role::Other
    }
}

/// The work of a matrix for one row, in the fastest arithmetic that is exact enough for its type.
fn matrix(block_type: BlockType, weights: usize, bytes: usize) -> Work {
    let operations = 2.0 * weights as f64;
    let mut work = Work {
        bytes: bytes as f64,
        ..Work::default()
    };
    match block_type {
        BlockType::F32 | BlockType::F16 => work.f32 = operations,
        BlockType::Bf16 => work.bf16 = operations,
        _ => work.int8 = operations,
    }
    work
}

/// The share of a layer's experts that a row selects; 1 in models without experts.
fn active_share(config: &Config) -> f64 {
    let shares = config.layers.iter().filter_map(|layer| match layer.ffn {
        FfnConfig::Experts { count, active, .. } => Some(active as f64 / count as f64),
        FfnConfig::Dense { .. } => None,
    });
    shares.fold(1.0, f64::min)
}

#[cfg(test)]
mod tests {
    use multigraft_testing::fixtures;

    use super::*;

    #[test]
    fn rows_select_a_part_of_the_experts() {
        let files = ModelFiles::open(&fixtures().join("peft/qwen3_moe/model")).expect("the fixture");
        let config = files.config().expect("a configuration");
        assert!(active_share(&config) < 1.0);
    }

    #[test]
    fn attention_grows_with_the_context_up_to_the_window() {
        let attention = Attention {
            windows: vec![None, Some(4)],
            operations: 1.0,
            bytes: 1.0,
            dtype: KvDtype::F32,
        };
        let work = attention.of_run(&Rows {
            start: 9,
            count: 1,
            wanted: 1,
        });
        assert_eq!((work.f32, work.bytes), (10.0 + 4.0, 10.0 + 4.0));
        let work = attention.of_run(&Rows {
            start: 0,
            count: 6,
            wanted: 1,
        });
        assert_eq!((work.f32, work.bytes), (21.0 + 18.0, 6.0 + 6.0));
    }
}
