//! Checks of the base model.

use anyhow::{Context as _, Result};
use multigraft_model::{Config, ModelFiles};
use multigraft_peft::trained_on;
use multigraft_sources::Reference;
use multigraft_text::{ChatTemplate, Tokenizer};

use super::Findings;
use crate::{
    commands::serve::count,
    config::ModelSettings,
    load::{DEFAULT_KV_MEMORY, sources},
    locate::{Located, SearchPath},
    memory::Bytes,
};

/// Facts about the base that need no loaded weights.
pub(super) struct Base {
    pub config: Config,
    /// Size of its weights in the file. In memory they take about as much.
    pub bytes: u64,
}

impl Base {
    /// Size of the KV cache if there is no memory budget and so much memory is free.
    pub(super) fn kv_bytes(&self, settings: &ModelSettings, free: Bytes) -> Bytes {
        let block = settings.device.kv_block(&self.config, settings.kv_dtype.into());
        let context = settings.context.unwrap_or(self.config.context);
        let one = block.bytes.saturating_mul(context.div_ceil(block.tokens));
        let all = one.saturating_mul(settings.max_running);
        let most = Bytes::from(all).min(DEFAULT_KV_MEMORY).max(Bytes::from(one));
        settings.kv_memory.unwrap_or(most.min(Bytes(free.0 / 2)))
    }
}

/// Checks whether the base can be read and served.
pub(super) fn base(settings: &ModelSettings, findings: &mut Findings) -> Option<Base> {
    const CHECK: &str = "model";
    let wanted = match wanted(settings) {
        Ok(Some(wanted)) => wanted,
        Ok(None) => {
            findings.ok(
                CHECK,
                "the base that the first adapter names, known once its files are fetched",
            );
            return None;
        }
        Err(error) => {
            findings.fail(CHECK, format!("{error:#}"), "give a base with --base");
            return None;
        }
    };
    let path = settings.alias(&wanted);
    let path = path.map_or_else(|| wanted.clone(), |path| path.to_string_lossy().into_owned());
    let located = match SearchPath::of_this_user().find(&path) {
        Ok(located) => located,
        Err(_) if matches!(Reference::parse(&wanted), Ok(Reference::Hub { .. })) => {
            findings.warn(
                CHECK,
                format!("{wanted} is not on this machine: the server fetches it from the Hub when it starts"),
                "allow time for the first start, or fetch it before",
            );
            return None;
        }
        Err(error) => {
            findings.fail(
                CHECK,
                format!("{error:#}"),
                "give the path of a GGUF file or a model's folder",
            );
            return None;
        }
    };
    match read(&located) {
        Ok((base, parameters)) => {
            let context = base.config.context;
            findings.ok(
                CHECK,
                format!(
                    "{} ({}, {} parameters) in {}",
                    located.name,
                    base.config.architecture,
                    count(parameters),
                    located.path.display()
                ),
            );
            if let Some(wanted) = settings.context.filter(|wanted| *wanted > context) {
                findings.fail(
                    CHECK,
                    format!("context is {wanted}, but the model supports at most {context} tokens"),
                    format!("set --context to {context} or less"),
                );
            }
            Some(base)
        }
        Err(error) => {
            let found = format!("{}: {error:#}", located.path.display());
            findings.fail(CHECK, found, "see `multigraft inspect` and docs/configuration.md");
            None
        }
    }
}

/// The base to serve; `None` if that is known only when the first adapter is fetched.
fn wanted(settings: &ModelSettings) -> Result<Option<String>> {
    if let Some(base) = &settings.base {
        return Ok(Some(base.clone()));
    }
    let sources = sources(&settings.adapter, settings.adapters.as_deref())?;
    let source = sources
        .first()
        .context("no base model, and no adapter that names one")?;
    let Reference::Folder(folder) = &source.at else {
        return Ok(None);
    };
    let base = trained_on(folder);
    base.map(Some)
        .with_context(|| format!("adapter `{}` does not name its base model", source.name))
}

fn read(located: &Located) -> Result<(Base, u64)> {
    let files = ModelFiles::open(&located.path)?;
    let config = files.config()?;
    let (mut bytes, mut parameters) = (0, 0);
    for tensor in files.tensors() {
        bytes += tensor.bytes.len() as u64;
        parameters += tensor.len() as u64;
    }
    let (tokenizer, template) = match &files {
        ModelFiles::Gguf(gguf) => (
            Tokenizer::from_gguf(gguf.metadata()),
            ChatTemplate::from_gguf(gguf.metadata()),
        ),
        ModelFiles::Folder { .. } => (
            Tokenizer::from_folder(&located.path),
            ChatTemplate::from_folder(&located.path),
        ),
    };
    tokenizer.context("its tokenizer")?;
    template.context("its chat template")?;
    Ok((Base { config, bytes }, parameters))
}
