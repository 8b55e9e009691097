//! A registry over folders of hand-made adapters, with an instant packer.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};

use multigraft_adapters::{
    AdapterError, Adding, Entry, Lookup, Outcome, Packer, Registry, RegistryOptions, Residency, Source,
    Waiting,
};
use multigraft_model::{LinearId, Module, ModuleKind, ReadyAdapter, Target};
use multigraft_peft::BaseShape;
use multigraft_sources::Reference;
pub(crate) use multigraft_testing::Adapter;
use multigraft_testing::{HIDDEN, LAYERS, VOCAB, WIDTH};

/// The base that [`Adapter::good`] is for.
pub(crate) fn base() -> BaseShape {
    let module = |path: String, kind, out, inp| Module {
        path,
        kind,
        out,
        inp,
        bias: false,
    };
    let table = |path: &str, kind| module(path.to_owned(), kind, VOCAB, HIDDEN);
    let mut modules = vec![table("model.embed_tokens", ModuleKind::Embedding)];
    for layer in 0..LAYERS {
        let linear = |name: &str, target, inp| {
            let kind = ModuleKind::Linear(LinearId::Layer { layer, target });
            module(format!("model.layers.{layer}.{name}"), kind, HIDDEN, inp)
        };
        modules.push(linear("self_attn.q_proj", Target::Q, HIDDEN));
        modules.push(linear("mlp.down_proj", Target::Down, WIDTH));
    }
    modules.push(table("lm_head", ModuleKind::Linear(LinearId::LmHead)));
    BaseShape::from_modules(modules, false).named("acme/tiny")
}

/// An error's text, with `DIR` for a folder that changes from run to run.
pub(crate) fn message(error: &AdapterError, folder: &Path) -> String {
    error.to_string().replace(&folder.display().to_string(), "DIR")
}

/// Size of an adapter in memory.
pub(crate) const BYTES: usize = 1000;

/// A registry, the folders of its adapters, and its packer.
pub(crate) struct Fixture {
    pub(crate) registry: Registry,
    pub(crate) dir: tempfile::TempDir,
    /// Number of adapters that were packed.
    pub(crate) packed: Arc<AtomicUsize>,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::with(RegistryOptions::default(), None)
    }

    /// With a `gate`, packing an adapter waits for a message from it.
    pub(crate) fn with(options: RegistryOptions, gate: Option<Receiver<()>>) -> Self {
        let packed = Arc::new(AtomicUsize::new(0));
        let (count, gate) = (Arc::clone(&packed), gate.map(Mutex::new));
        let packer = Packer {
            shape: base(),
            self_test: None,
            size: Box::new(|_| BYTES),
            pack: Box::new(move |weights, _| {
                if let Some(gate) = &gate {
                    let _ = gate.lock().unwrap().recv();
                }
                count.fetch_add(1, Ordering::SeqCst);
                Ok(ReadyAdapter::new(weights.hash, BYTES, Arc::new(())))
            }),
        };
        Self {
            registry: Registry::open("acme/tiny", packer, options).unwrap(),
            dir: tempfile::tempdir().unwrap(),
            packed,
        }
    }

    pub(crate) fn gated(options: RegistryOptions) -> (Self, Sender<()>) {
        let (open, gate) = mpsc::channel();
        (Self::with(options, Some(gate)), open)
    }

    /// Writes an adapter that differs from others in alpha.
    pub(crate) fn write(&self, folder: &str, alpha: u32) -> PathBuf {
        let mut adapter = Adapter::good();
        adapter.config["lora_alpha"] = alpha.into();
        let folder = self.dir.path().join(folder);
        adapter.write(&folder);
        folder
    }

    pub(crate) fn register(&self, name: &str, alpha: u32) {
        let folder = self.write(name, alpha);
        self.registry.register(source(name, &folder)).unwrap();
    }

    pub(crate) fn replace(&self, name: &str, folder: &Path) -> Outcome {
        let adding = Adding {
            replace: true,
            pinned: None,
            ..Adding::default()
        };
        self.registry.add(&source(name, folder), adding).unwrap().block()
    }

    pub(crate) fn get(&self, name: &str) -> Outcome {
        match self.registry.get(name) {
            Lookup::Ready(entry) => Ok(entry),
            Lookup::Loading(waiting) => waiting.block(),
            Lookup::Unavailable(error) => Err(error),
            Lookup::Unknown => panic!("{name} is unknown"),
        }
    }

    pub(crate) fn is_resident(&self, name: &str) -> bool {
        let listed = self.registry.listed(name).unwrap();
        matches!(listed.residency, Residency::Resident { .. })
    }
}

pub(crate) fn source(name: &str, folder: &Path) -> Source {
    Source {
        name: name.to_owned(),
        at: Reference::Folder(folder.to_owned()),
    }
}

pub(crate) fn loading(lookup: Lookup) -> Waiting {
    match lookup {
        Lookup::Loading(waiting) => waiting,
        other => panic!("not loading: {other:?}"),
    }
}

pub(crate) fn ready(lookup: Lookup) -> Entry {
    match lookup {
        Lookup::Ready(entry) => entry,
        other => panic!("not ready: {other:?}"),
    }
}
