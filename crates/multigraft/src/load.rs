//! Opens what the settings name: the base with its tokenizer, the adapters, the backend.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use multigraft_adapters::{
    ADAPTER_FILES, Entry, LoadError, Lookup, OnFailure, Packer, Registry, RegistryOptions, SelfTest, Source,
};
use multigraft_engine::Engine;
use multigraft_model::{
    AdapterDtype as ModelDtype, Backend, BackendOptions, Base as BaseModel, MemoryBudget, ModelFiles,
    Precision, Throttle,
};
use multigraft_peft::{BaseShape, trained_on};
use multigraft_sources::{BASE_MODEL, FetchOptions, Fetcher, Hub, Reference};
use multigraft_text::{ChatTemplate, Tokenizer};

use crate::{
    config::{AdapterDtype, ModelSettings, NamedSource, SelfTestMode},
    device::Device,
    locate::{Located, SearchPath},
    memory::{self, Bytes},
    progress::Progress,
};

/// The default size of the KV cache. It is allocated as it is used, so idle servers do not pay for
/// it.
pub(crate) const DEFAULT_KV_MEMORY: Bytes = Bytes(1 << 30);

/// A base model, ready to run.
pub(crate) struct Base {
    /// Its file or folder.
    pub path: PathBuf,
    /// Its name in requests.
    pub name: String,
    /// The name of its files, which adapters refer to as their base.
    title: String,
    /// Weights and configuration.
    pub model: Arc<dyn BaseModel>,
    /// Its tokenizer.
    pub tokenizer: Arc<Tokenizer>,
    /// Its chat template, if it has one.
    pub template: Option<ChatTemplate>,
    /// Number of weights in its files.
    pub parameters: u64,
}

impl Base {
    /// Finds the base, fetches it if it is not on this machine, and opens it.
    pub(crate) fn open(settings: &ModelSettings, fetcher: &Fetcher) -> Result<Self> {
        let wanted = match &settings.base {
            Some(base) => base.clone(),
            None => base_of_the_adapter(settings, fetcher)?,
        };
        let located = match settings.alias(&wanted) {
            Some(path) => SearchPath::of_this_user().find(&path.to_string_lossy())?,
            None => find_or_fetch(&wanted)?,
        };
        let Located { path, name, title } = located;
        let files = ModelFiles::open(&path)?;
        let parameters = files.tensors().map(|tensor| tensor.len() as u64).sum();
        // The tokenizer first: it is quick, and a model without one cannot be served.
        let (tokenizer, template) = match &files {
            ModelFiles::Gguf(gguf) => (
                Tokenizer::from_gguf(gguf.metadata()),
                ChatTemplate::from_gguf(gguf.metadata()),
            ),
            ModelFiles::Folder { .. } => (Tokenizer::from_folder(&path), ChatTemplate::from_folder(&path)),
        };
        let of = || format!("the tokenizer of {}", path.display());
        let tokenizer = Arc::new(tokenizer.with_context(of)?);
        let template = template.with_context(|| format!("the chat template of {}", path.display()))?;
        drop(files);
        let model = open_model(settings.device, &path, settings.threads, Precision::Native)?;
        Ok(Self {
            name: settings.base_name.clone().unwrap_or(name),
            title,
            model,
            tokenizer,
            template,
            parameters,
            path,
        })
    }

    /// The registry of the base and its adapters, of which none is loaded yet.
    pub(crate) fn registry(&self, settings: &ModelSettings, options: RegistryOptions) -> Result<Registry> {
        let shape = BaseShape::new(self.model.config()).named(&self.title);
        let dtype = match settings.adapter_dtype {
            AdapterDtype::Bf16 => ModelDtype::Bf16,
            AdapterDtype::F32 => ModelDtype::F32,
            AdapterDtype::Int8 => ModelDtype::Int8,
        };
        let memory = settings
            .adapter_memory
            .map_or(Ok(usize::MAX), |bytes| usize::try_from(bytes.0))?;
        let options = RegistryOptions { memory, ..options };
        let is_busy = options.is_busy.clone();
        let throttle = Throttle::new(move || is_busy.ask());
        let mut packer = Packer::new(Arc::clone(&self.model), shape, dtype);
        packer.self_test = self.self_test(settings.self_test, throttle)?;
        let registry = Registry::open(&self.name, packer, options)?;
        for source in sources(&settings.adapter, settings.adapters.as_deref())? {
            let name = source.name.clone();
            if registry.register(source)? {
                tracing::warn!(
                    "adapter `{name}` was added while an earlier server ran, and is also given at this start; the one of this \
                     start is served"
                );
            }
        }
        Ok(registry)
    }

    fn self_test(&self, mode: SelfTestMode, throttle: Throttle) -> Result<Option<SelfTest>> {
        let on_failure = match mode {
            SelfTestMode::Off => return Ok(None),
            SelfTestMode::Warn => OnFailure::Warn,
            SelfTestMode::Refuse => OnFailure::Refuse,
        };
        let tokenizer = Arc::clone(&self.tokenizer);
        let encode = move |text: &str| tokenizer.encode(text, true).map_err(|error| error.to_string());
        let model = Arc::clone(&self.model);
        Ok(Some(SelfTest::new(
            model,
            Box::new(encode),
            on_failure,
            throttle,
        )?))
    }

    /// The backend with its KV cache.
    pub(crate) fn backend(&self, settings: &ModelSettings) -> Result<Box<dyn Backend>> {
        let context = self.context(settings)?;
        let kv_dtype = settings.kv_dtype.into();
        let kv_block = self.model.kv_block(kv_dtype);
        let block = Bytes::from(kv_block.bytes);
        let all = settings
            .max_running
            .saturating_mul(context.div_ceil(kv_block.tokens)) as u64;
        let blocks = match (settings.memory, settings.kv_memory) {
            (Some(memory), kv) => (memory.min(kv.unwrap_or(memory)).0 / block.0).min(all),
            (None, Some(memory)) => memory.0 / block.0,
            (None, None) => {
                // One whole context fits, if the machine has the memory.
                let least = context.div_ceil(kv_block.tokens) as u64;
                let most = memory::available()
                    .map_or(u64::MAX, |free| free.0 / 2 / block.0)
                    .max(1);
                (DEFAULT_KV_MEMORY.0 / block.0).min(all).max(least).min(most)
            }
        };
        ensure!(
            blocks > 0,
            "kv-memory is {}, but one KV block of {} tokens takes {block}",
            settings.kv_memory.unwrap_or(DEFAULT_KV_MEMORY),
            kv_block.tokens,
        );
        let options = BackendOptions {
            threads: settings.threads,
            blocks: usize::try_from(blocks)?,
            context,
            step_rows: settings.max_batch_tokens,
            kv_dtype,
            throttle: Throttle::NONE,
        };
        Ok(Arc::clone(&self.model).backend(options)?)
    }

    /// The memory budget of adapters and KV cache together.
    pub(crate) fn budget(&self, settings: &ModelSettings) -> Result<Arc<MemoryBudget>> {
        let Some(memory) = settings.memory else {
            return Ok(Arc::default());
        };
        let context = self.context(settings)?;
        let block = self.model.kv_block(settings.kv_dtype.into());
        let blocks = context.div_ceil(block.tokens).next_multiple_of(block.extent);
        let floor = blocks * block.bytes;
        ensure!(
            floor as u64 <= memory.min(settings.kv_memory.unwrap_or(memory)).0,
            "memory is {memory}{}, but the KV cache of one context of {context} tokens takes {}: give more memory, or lower \
             --context",
            settings
                .kv_memory
                .map_or_else(String::new, |kv| format!(" and kv-memory {kv}")),
            Bytes::from(floor)
        );
        Ok(Arc::new(MemoryBudget::new(usize::try_from(memory.0)?, floor)))
    }

    /// The longest sequence.
    pub(crate) fn context(&self, settings: &ModelSettings) -> Result<usize> {
        let most = self.model.config().context;
        match settings.context {
            None => Ok(self.model.config().default_context()),
            Some(context) => {
                ensure!(
                    context <= most,
                    "context is {context}, but {} supports at most {most} tokens",
                    self.name
                );
                Ok(context)
            }
        }
    }

    /// The engine on its own thread.
    pub(crate) fn engine(&self, settings: &ModelSettings, budget: Arc<MemoryBudget>) -> Result<Engine> {
        let backend = self.backend(settings)?;
        let tokenizer = Arc::clone(&self.tokenizer);
        Ok(Engine::start_within(
            backend,
            tokenizer,
            settings.engine(),
            budget,
        ))
    }
}

/// Fetches the files of adapters. Web servers in the local network are reached only if adapters are
/// given from there, or if they are among `hosts`.
pub(crate) fn fetcher(settings: &ModelSettings, hosts: impl Iterator<Item = String>) -> Arc<Fetcher> {
    let given = settings.adapter.iter().filter_map(|adapter| adapter.at.host());
    Arc::new(Fetcher::new(FetchOptions {
        cache: SearchPath::of_this_user().adapters(),
        cache_limit: settings.disk_cache.0,
        trusted_hosts: hosts.chain(given).collect(),
        hub: Hub::from_env(),
    }))
}

/// The name of the base in the files of the first adapter.
fn base_of_the_adapter(settings: &ModelSettings, fetcher: &Fetcher) -> Result<String> {
    let sources = sources(&settings.adapter, settings.adapters.as_deref())?;
    let source = sources.first().context("no base model: give one with --base")?;
    let fetched = fetcher.fetch(&source.at, None, &ADAPTER_FILES)?;
    let base = trained_on(&fetched.folder).with_context(|| {
        format!(
            "adapter `{}` does not name its base model (neither in adapter_config.json nor in its model card): give one with \
             --base",
            source.name
        )
    })?;
    tracing::info!("adapter `{}` was made for `{base}`, which is served", source.name);
    Ok(base)
}

/// A base on this machine, or else on the Hub.
fn find_or_fetch(base: &str) -> Result<Located> {
    let missing = match SearchPath::of_this_user().find(base) {
        Ok(located) => return Ok(located),
        Err(missing) => missing,
    };
    let Ok(Reference::Hub { repo, revision }) = Reference::parse(base) else {
        return Err(missing);
    };
    let progress = Progress::new("base");
    let report = |file: &str, done: u64, size: u64| progress.file(file, done, size);
    let fetched = Hub::from_env().fetch_kinds(&repo, revision.as_deref(), &BASE_MODEL, &report);
    progress.finish();
    let fetched =
        fetched.map_err(|error| anyhow!("{missing}\nnor can it be fetched from the Hub: {error}"))?;
    Ok(Located {
        path: fetched.folder,
        name: repo.clone(),
        title: repo,
    })
}

/// Loads the adapter `name`.
pub(crate) fn load(registry: &Registry, name: &str) -> Result<Entry> {
    let outcome = match registry.get(name) {
        Lookup::Ready(entry) => Ok(entry),
        Lookup::Loading(waiting) => waiting.block(),
        Lookup::Unavailable(error) => Err(error),
        Lookup::Unknown => bail!(
            "there is no adapter `{name}`; the adapters are: {}",
            registry.names().join(", ")
        ),
    };
    outcome.with_context(|| format!("adapter `{name}`"))
}

/// Loads all adapters, or as many as fit into their memory, with a progress bar if it takes long.
pub(crate) fn load_all(registry: &Registry) -> Result<Vec<Entry>> {
    let names = registry.names();
    let progress = Progress::new("adapters");
    let mut entries: Vec<Entry> = Vec::with_capacity(names.len());
    for (done, name) in names.iter().enumerate() {
        progress.set(done, names.len());
        let (bytes, limit) = registry.memory();
        let largest = entries
            .iter()
            .map(|entry| entry.packed.bytes())
            .max()
            .unwrap_or(0);
        if bytes.saturating_add(largest) > limit {
            tracing::info!(
                "{done} of {} adapters fill the memory for adapters; the others are loaded for their first requests",
                names.len()
            );
            break;
        }
        match load(registry, name) {
            Ok(entry) => entries.push(entry),
            Err(error)
                if matches!(
                    error.downcast_ref(),
                    Some(LoadError::NoRoom { .. } | LoadError::NoBudget { .. })
                ) =>
            {
                tracing::info!("{error:#}; the others are loaded for their first requests");
                break;
            }
            // It was added while an earlier server ran, so it must not prevent this start.
            Err(error) if registry.listed(name).is_some_and(|listed| listed.stored) => {
                tracing::warn!("{error:#}");
            }
            Err(error) => return Err(error),
        }
    }
    progress.finish();
    Ok(entries)
}

/// Opens a model and makes its weights ready, with a progress bar if it takes long.
pub(crate) fn open_model(
    device: Device,
    path: &Path,
    threads: usize,
    precision: Precision,
) -> Result<Arc<dyn BaseModel>> {
    let progress = Progress::new("model");
    let report = |done, total| progress.set(done, total);
    let model = device.open(path, threads, precision, &report)?;
    progress.finish();
    Ok(model)
}

/// The adapters of a folder and single ones. If both have the same name, the single one counts.
pub(crate) fn sources(single: &[NamedSource], folder: Option<&Path>) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    if let Some(folder) = folder {
        let found = Source::in_folder(folder)?;
        for skipped in found.skipped {
            tracing::warn!("{skipped}");
        }
        ensure!(
            !found.sources.is_empty(),
            "there are no adapters in {}: it must contain a folder with an adapter_config.json, or a .gguf file, for each",
            folder.display()
        );
        sources = found.sources;
        sources.retain(|source| single.iter().all(|named| named.name != source.name));
    }
    sources.extend(single.iter().map(|named| Source {
        name: named.name.clone(),
        at: named.at.clone(),
    }));
    Ok(sources)
}
