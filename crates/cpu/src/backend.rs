//! The backend of this machine's processor.

use std::sync::Arc;

use multigraft_kernels::{BLOCK_POSITIONS, KvDtype, KvLayer, Pool};
use multigraft_model::{
    Backend, BackendError, BackendOptions, BlockId, Config, KvBlock, Limits, Outputs, ReadyAdapter, Slot,
    Step, Throttle, Wanted,
};

use crate::adapter::PackedAdapter;
use crate::decoder::{Decoder, Row, Scratch};
use crate::model::CpuBase;
use crate::project::Segment;

/// Positions that a KV block holds. Fixed: the attention kernel works on one block of keys at a
/// time.
pub const BLOCK_TOKENS: usize = BLOCK_POSITIONS;

/// A base model, its KV cache and its resident adapters.
#[derive(Debug)]
pub struct CpuBackend {
    model: Arc<CpuBase>,
    limits: Limits,
    pool: Pool,
    throttle: Throttle,
    /// The KV cache, one entry per decoder layer.
    kv: Vec<KvLayer>,
    /// Resident adapters by [`Slot`]; `None` is a free slot.
    slots: Vec<Option<Resident>>,
    scratch: Scratch,
}

/// A resident adapter.
#[derive(Debug)]
struct Resident {
    /// Held so that the adapter counts as in use (by its `Arc`) while it is resident.
    _ready: Arc<ReadyAdapter>,
    packed: Arc<PackedAdapter>,
}

/// A KV block of a model with this configuration.
pub fn kv_block(config: &Config, dtype: KvDtype) -> KvBlock {
    /// Memory of an extent's keys, or values, in one layer: much more than a page, because the
    /// pages at both ends may be shared with neighbours and are then not given back.
    const EXTENT: usize = 64 << 10;
    let layer = KvLayer::block_bytes(config.kv_heads, config.head_dim, dtype);
    KvBlock {
        tokens: BLOCK_TOKENS,
        bytes: config.layers.len() * layer,
        extent: EXTENT.div_ceil((layer / 2).max(1)).next_power_of_two(),
    }
}

impl CpuBackend {
    /// Sets up a backend. The KV cache takes memory as it is first used.
    pub fn new(model: Arc<CpuBase>, options: BackendOptions) -> Self {
        let config = &model.config;
        let block = kv_block(config, options.kv_dtype);
        let limits = Limits {
            vocab: config.vocab,
            hidden: config.hidden,
            blocks: options.blocks,
            block_tokens: block.tokens,
            block_bytes: block.bytes,
            extent: block.extent,
            context: options.context,
            step_rows: options.step_rows,
        };
        let kv = config
            .layers
            .iter()
            .map(|_| KvLayer::new(options.blocks, config.kv_heads, config.head_dim, options.kv_dtype))
            .collect();
        Self {
            limits,
            pool: Pool::new(options.threads),
            throttle: options.throttle,
            kv,
            slots: Vec::new(),
            scratch: Scratch::default(),
            model,
        }
    }
}

impl Backend for CpuBackend {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn admit(&mut self, adapter: &Arc<ReadyAdapter>) -> Result<Slot, BackendError> {
        let packed = Arc::clone(adapter.parts()).downcast::<PackedAdapter>();
        let packed = packed.map_err(|_| BackendError::WrongBase)?;
        if !packed.fits(&self.model) {
            return Err(BackendError::WrongBase);
        }
        let free = self.slots.iter().position(Option::is_none).unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[free] = Some(Resident {
            _ready: Arc::clone(adapter),
            packed,
        });
        Ok(Slot(free as u32))
    }

    fn release(&mut self, slot: Slot) {
        self.slots[slot.0 as usize] = None;
    }

    fn copy_block(&mut self, from: BlockId, to: BlockId, _positions: usize) -> bool {
        // The whole block: positions after the first `positions` are stored again before they are
        // read.
        for kv in &mut self.kv {
            kv.copy_block(from.0, to.0);
        }
        true
    }

    fn forget(&mut self, first: BlockId, count: usize) {
        for kv in &mut self.kv {
            kv.forget(first.0, count);
        }
    }

    fn forward(&mut self, step: &Step<'_>, outputs: &mut Outputs) -> Result<(), BackendError> {
        let tables: Vec<Vec<u32>> = step
            .runs
            .iter()
            .map(|run| run.blocks.iter().map(|block| block.0).collect())
            .collect();
        let mut rows = Vec::new();
        let (mut wanted, mut wanted_hidden) = (Vec::new(), Vec::new());
        let mut segments: Vec<Segment<'_>> = Vec::new();
        let mut last = None;
        for (run, blocks) in step.runs.iter().zip(&tables) {
            let (start, count) = (rows.len(), run.tokens.len());
            assert!(
                count > 0 && run.start + count <= blocks.len() * BLOCK_TOKENS,
                "a run needs tokens and blocks"
            );
            assert!(
                run.start + count <= self.limits.context,
                "a run ends within the context"
            );
            // At scale 0 a row is the base's.
            let applied = run
                .adapter
                .map(|slot| (slot, run.scale))
                .filter(|&(_, scale)| scale != 0.0);
            match segments.last_mut().filter(|_| last == Some(applied)) {
                Some(segment) => segment.rows += count,
                None => {
                    let adapter = applied.map(|(slot, _)| {
                        let resident = self.slots[slot.0 as usize].as_ref();
                        &*resident.expect("a run names a slot that was admitted").packed
                    });
                    segments.push(Segment {
                        start,
                        rows: count,
                        adapter,
                        scale: applied.map_or(1.0, |(_, scale)| scale),
                    });
                }
            }
            last = Some(applied);
            rows.extend(run.tokens.iter().enumerate().map(|(i, &token)| {
                assert!(
                    (token as usize) < self.limits.vocab,
                    "token {token} is in the vocabulary"
                );
                Row {
                    token,
                    position: run.start + i,
                    blocks,
                }
            }));
            match run.wanted {
                Wanted::None => {}
                Wanted::Last => wanted.push(start + count - 1),
                Wanted::All => wanted.extend(start..start + count),
                Wanted::Hidden => wanted_hidden.extend(start..start + count),
            }
        }
        assert!(
            rows.len() <= self.limits.step_rows,
            "{} rows in a step of {}",
            rows.len(),
            self.limits.step_rows
        );
        let mut decoder = Decoder {
            model: &self.model,
            pool: &self.pool,
            throttle: &self.throttle,
            kv: &mut self.kv,
            context: self.limits.context,
            rows: &rows,
            segments: &segments,
            scratch: &mut self.scratch,
        };
        decoder.run(&wanted, &wanted_hidden, outputs);
        Ok(())
    }
}
