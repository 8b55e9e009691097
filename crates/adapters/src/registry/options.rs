//! Options of a registry.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use multigraft_model::{
    AdapterDtype, AdapterWeights, Base, MemoryBudget, ModelError, ReadyAdapter, Throttle,
};
use multigraft_peft::BaseShape;
use multigraft_sources::Fetcher;

use super::catalogue::Catalogue;
use crate::self_test::SelfTest;

/// Options of a [`Registry`](super::Registry).
#[derive(Clone, Debug)]
pub struct RegistryOptions {
    /// Memory for adapters, in bytes. The least recently used adapters are evicted. Adapters in use
    /// and pinned adapters are not.
    pub memory: usize,
    /// The memory budget that adapters share with the KV cache.
    pub budget: Arc<MemoryBudget>,
    /// Number of concurrent loads.
    pub loaders: usize,
    /// Limit of requests that wait for loads, over all adapters.
    pub max_waiting: usize,
    /// How long a load waits for memory that adapters in use hold.
    pub room_timeout: Duration,
    /// Delay after a failed load. It doubles with every further failure.
    pub backoff: Duration,
    /// Limit of that delay.
    pub longest_backoff: Duration,
    /// The folder that stores added adapters and their files across restarts. `None` stores
    /// nothing.
    pub data: Option<PathBuf>,
    /// Stores names and versions. `None` uses an SQLite file in `data`. Without `data`, nothing is
    /// stored.
    pub catalogue: Option<Arc<dyn Catalogue>>,
    /// Whether steps are being computed. Loading is throttled while they are.
    pub is_busy: IsBusy,
    /// Downloads files.
    pub fetcher: Arc<Fetcher>,
    /// Called after every load.
    pub on_load: OnLoad,
}

/// Receives the duration of each load, measured from when the load was queued, and whether it
/// succeeded.
#[derive(Clone)]
pub struct OnLoad(Arc<dyn Fn(Duration, bool) + Send + Sync>);

impl OnLoad {
    /// `hear` is called on the loaders' threads.
    pub fn new(hear: impl Fn(Duration, bool) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }

    pub(super) fn report(&self, time: Duration, loaded: bool) {
        (self.0)(time, loaded);
    }
}

impl Default for OnLoad {
    /// Ignores all loads.
    fn default() -> Self {
        Self::new(|_, _| {})
    }
}

impl fmt::Debug for OnLoad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnLoad")
    }
}

/// Tells whether steps are being computed.
#[derive(Clone)]
pub struct IsBusy(Arc<dyn Fn() -> bool + Send + Sync>);

impl IsBusy {
    /// Tells what `is_busy` returns.
    pub fn new(is_busy: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(is_busy))
    }

    /// Whether steps are being computed now.
    pub fn ask(&self) -> bool {
        (self.0)()
    }
}

impl Default for IsBusy {
    /// Never busy.
    fn default() -> Self {
        Self::new(|| false)
    }
}

impl fmt::Debug for IsBusy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IsBusy")
    }
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            memory: usize::MAX,
            budget: Arc::default(),
            loaders: 1,
            max_waiting: 1024,
            room_timeout: Duration::from_secs(10),
            backoff: Duration::from_secs(1),
            longest_backoff: Duration::from_secs(60),
            data: None,
            catalogue: None,
            is_busy: IsBusy::default(),
            fetcher: Arc::default(),
            on_load: OnLoad::default(),
        }
    }
}

/// Computes an adapter's size in memory, in bytes.
pub type Size = Box<dyn Fn(&AdapterWeights) -> usize + Send + Sync>;

/// Makes an adapter ready, with pauses by the throttle.
pub type Pack = Box<dyn Fn(&AdapterWeights, &Throttle) -> Result<ReadyAdapter, ModelError> + Send + Sync>;

/// How adapters are made ready for a base.
pub struct Packer {
    /// The base that adapters are checked against.
    pub shape: BaseShape,
    /// The size of an adapter that is ready, in bytes.
    pub size: Size,
    /// Makes an adapter ready.
    pub pack: Pack,
    /// Tests every adapter, if set.
    pub self_test: Option<SelfTest>,
}

impl Packer {
    /// For adapters of `base`, kept as `dtype`. `shape` is the base's shape, with the name that
    /// adapters use for the base.
    pub fn new(base: Arc<dyn Base>, shape: BaseShape, dtype: AdapterDtype) -> Self {
        let of = Arc::clone(&base);
        let size = Box::new(move |weights: &AdapterWeights| of.ready_bytes(weights, dtype));
        let pack = Box::new(move |weights: &AdapterWeights, throttle: &Throttle| {
            base.ready(weights, dtype, throttle)
        });
        Self {
            shape,
            size,
            pack,
            self_test: None,
        }
    }
}

impl fmt::Debug for Packer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Packer")
            .field("shape", &self.shape)
            .finish_non_exhaustive()
    }
}
