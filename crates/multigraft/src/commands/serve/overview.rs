//! What `serve` prints on the terminal.

use std::{
    fmt::Write as _,
    io::{self, Write as _},
    net::SocketAddr,
};

use anyhow::Result;
use multigraft_adapters::{Registry, Residency};
use multigraft_engine::Engine;

use crate::{config::ModelSettings, load::Base, memory::Bytes};

/// What is printed once the server listens.
pub(super) struct Greeting {
    /// What is served.
    pub overview: String,
    /// The model of the example request.
    pub model: String,
    pub is_tls: bool,
    /// Whether requests need no API key.
    pub is_open: bool,
}

impl Greeting {
    /// Says on stdout that the server listens on `address`, and how to send it a request.
    pub(super) fn print(&self, address: SocketAddr) -> Result<()> {
        let mut out = io::stdout().lock();
        let body =
            serde_json::json!({"model": self.model, "messages": [{"role": "user", "content": "Hello"}]});
        let scheme = if self.is_tls { "https" } else { "http" };
        let key = if self.is_open {
            ""
        } else {
            "-H 'authorization: Bearer mg-…' "
        };
        writeln!(
            out,
            "{}\nlistening on {scheme}://{address} (Ctrl-C stops)\n\ntry:\n  curl {scheme}://{address}/v1/chat/completions \
             {key}-H 'content-type: application/json' \\\n    -d '{body}'\n",
            self.overview
        )?;
        out.flush()?;
        if self.is_open && !address.ip().is_loopback() {
            tracing::warn!(
                "{address} can be reached from other machines, and there are no API keys: everybody who reaches it \
                 can use every model"
            );
        }
        Ok(())
    }
}

/// Adapters that are listed one by one.
const LISTED: usize = 40;

/// What is served and the memory that it takes, for the terminal.
pub(super) fn overview(
    base: &Base,
    registry: &Registry,
    engine: &Engine,
    settings: &ModelSettings,
) -> String {
    let limits = engine.limits();
    let config = base.model.config();
    let adapters = registry.list();
    let kv_bytes = Bytes::from(
        base.model.kv_block(settings.kv_dtype.into()).bytes * limits.cache_tokens / limits.block_tokens,
    );
    let (adapter_bytes, most) = registry.memory();
    let up_to = match most {
        usize::MAX => String::new(),
        most => format!(" of up to {}", Bytes::from(most)),
    };
    let together = settings
        .memory
        .map_or_else(String::new, |memory| format!(", {memory} together"));
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "base      {} ({}, {} parameters)\nfile      {}\nmemory    weights {}, adapters {}{up_to}, keys and values up \
         to {} ({} tokens){together}\ncontext   {} tokens\nthreads   {}\nadapters  {}",
        base.name,
        config.architecture,
        count(base.parameters),
        base.path.display(),
        Bytes::from(base.model.bytes()),
        Bytes::from(adapter_bytes),
        kv_bytes,
        limits.cache_tokens,
        limits.context,
        settings.threads,
        if adapters.is_empty() {
            "none".to_owned()
        } else {
            adapters.len().to_string()
        },
    );
    let width = adapters
        .iter()
        .take(LISTED)
        .map(|listed| listed.name.chars().count())
        .max()
        .unwrap_or(0);
    for listed in adapters.iter().take(LISTED) {
        let _ = match &listed.residency {
            Residency::Resident { bytes, info } => {
                let rank = match info.ranks {
                    None => "-".to_owned(),
                    Some((least, most)) if least == most => least.to_string(),
                    Some((least, most)) => format!("{least}-{most}"),
                };
                let (bytes, hash) = (
                    Bytes::from(*bytes).to_string(),
                    info.hash.get(..12).unwrap_or_default(),
                );
                writeln!(
                    text,
                    "  {:width$}  rank {rank:<5} {bytes:>9}  {hash}",
                    listed.name
                )
            }
            _ => writeln!(text, "  {:width$}  loaded when it is asked for", listed.name),
        };
    }
    if let Some(more) = adapters.len().checked_sub(LISTED).filter(|more| *more > 0) {
        let _ = writeln!(text, "  and {more} more");
    }
    text
}

/// A number of parameters in words, such as `134.5 million`.
#[expect(clippy::cast_precision_loss, reason = "four digits are shown")]
pub(crate) fn count(parameters: u64) -> String {
    let parameters = parameters as f64;
    match parameters {
        n if n >= 1e9 => format!("{:.2} billion", n / 1e9),
        n if n >= 1e6 => format!("{:.1} million", n / 1e6),
        n if n >= 1e3 => format!("{:.1} thousand", n / 1e3),
        n => format!("{n}"),
    }
}
