//! [`CpuBase`] as the rest of the program sees it: opening it, and [`Base`].

use std::path::Path;
use std::sync::Arc;

use multigraft_model::{
    AdapterDtype, AdapterWeights, Backend, BackendError, BackendOptions, Base, Config, KvBlock, KvDtype,
    ModelError, ReadyAdapter, Throttle,
};

use crate::adapter::PackedAdapter;
use crate::backend::{CpuBackend, kv_block};
use crate::load::{self, LoadOptions};
use crate::model::CpuBase;

impl CpuBase {
    /// Opens a GGUF file or a Hugging Face folder and packs its weights.
    ///
    /// # Errors
    /// If the files are unreadable or malformed, lack tensors, or are of an architecture or storage
    /// type that is not supported; the error names which.
    pub fn open(path: &Path, options: &LoadOptions<'_>) -> Result<Self, ModelError> {
        load::load(path, *options)
    }
}

impl Base for CpuBase {
    fn config(&self) -> &Config {
        &self.config
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn bytes(&self) -> usize {
        self.packed_bytes()
    }

    fn kv_block(&self, dtype: KvDtype) -> KvBlock {
        kv_block(&self.config, dtype)
    }

    fn ready_bytes(&self, weights: &AdapterWeights, dtype: AdapterDtype) -> usize {
        self.adapter_bytes(weights, dtype)
    }

    fn ready(
        &self,
        weights: &AdapterWeights,
        dtype: AdapterDtype,
        throttle: &Throttle,
    ) -> Result<ReadyAdapter, ModelError> {
        let packed = PackedAdapter::new(self, weights, dtype, throttle)?;
        let (bytes, unscalable) = (packed.bytes(), packed.unscalable());
        Ok(ReadyAdapter::new(weights.hash, bytes, Arc::new(packed))
            .invoked_by(&weights.invocation)
            .with_unscalable(unscalable))
    }

    fn backend(self: Arc<Self>, options: BackendOptions) -> Result<Box<dyn Backend>, BackendError> {
        Ok(Box::new(CpuBackend::new(self, options)))
    }
}
