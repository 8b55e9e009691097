//! What a registry is opened with.

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

/// How a [`Registry`](super::Registry) treats its adapters.
#[derive(Clone, Debug)]
pub struct RegistryOptions {
    /// Memory for adapters, in bytes: those that were not used for longest make room for others.
    /// One that runs or is pinned never does.
    pub memory: usize,
    /// Where keys and values take from too.
    pub budget: Arc<MemoryBudget>,
    /// How many loads may be under way at once.
    pub loaders: usize,
    /// The most requests that wait for adapters to be loaded, all together.
    pub max_waiting: usize,
    /// How long a load waits for memory that running adapters hold.
    pub room_timeout: Duration,
    /// After a load failed, how long it is before the next is tried; twice as long after every
    /// further failure.
    pub backoff: Duration,
    /// At most this long.
    pub longest_backoff: Duration,
    /// A folder for what is to survive a restart: what was added, and its files. `None`: nothing
    /// does.
    pub data: Option<PathBuf>,
    /// Where names and versions are kept; `None`: in an SQLite file in `data`. Without `data` it is
    /// not used.
    pub catalogue: Option<Arc<dyn Catalogue>>,
    /// Whether sequences are being computed, for which loading gives way.
    pub is_busy: IsBusy,
    /// Brings files to this machine.
    pub fetcher: Arc<Fetcher>,
    /// Hears of every load.
    pub on_load: OnLoad,
}

/// Is told of a load: how long it took from its order, and whether it brought an adapter.
#[derive(Clone)]
pub struct OnLoad(Arc<dyn Fn(Duration, bool) + Send + Sync>);

impl OnLoad {
    /// `hear` is called on the loaders' threads.
    pub fn new(hear: impl Fn(Duration, bool) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }

    pub(super) fn tell(&self, time: Duration, loaded: bool) {
        (self.0)(time, loaded);
    }
}

impl Default for OnLoad {
    /// Nobody hears.
    fn default() -> Self {
        Self::new(|_, _| {})
    }
}

impl fmt::Debug for OnLoad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnLoad")
    }
}

/// Says whether sequences are being computed.
#[derive(Clone)]
pub struct IsBusy(Arc<dyn Fn() -> bool + Send + Sync>);

impl IsBusy {
    /// What `is_busy` says.
    pub fn new(is_busy: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self(Arc::new(is_busy))
    }

    /// Whether they are, just now.
    pub fn ask(&self) -> bool {
        (self.0)()
    }
}

impl Default for IsBusy {
    /// Never.
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

/// Says what an adapter takes in memory.
pub type Size = Box<dyn Fn(&AdapterWeights) -> usize + Send + Sync>;

/// Makes an adapter ready, and pauses as the throttle says.
pub type Pack = Box<dyn Fn(&AdapterWeights, &Throttle) -> Result<ReadyAdapter, ModelError> + Send + Sync>;

/// How adapters are made ready for a base.
pub struct Packer {
    /// What adapters are checked against.
    pub shape: BaseShape,
    /// What one takes in memory once it is packed, in bytes.
    pub size: Size,
    /// Makes one ready.
    pub pack: Pack,
    /// Tests what each does, if it is to be tested.
    pub self_test: Option<SelfTest>,
}

impl Packer {
    /// For adapters of `base`, which are kept as `dtype`. `shape` is the base's, under the name by
    /// which adapters call it.
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
