//! The registry's types in the form of the management API.

use multigraft_adapters::{AdapterLimits, AddedBy, Listed, ListedVersion, Phase, Residency, Status};
use multigraft_api as api;
use multigraft_peft::AdapterInfo;

use crate::http::id::seconds;

/// An adapter, with everything that an admin may see.
pub(super) fn adapter(listed: Listed) -> api::Adapter {
    let versions: Vec<_> = listed.versions.iter().map(version).collect();
    let active = versions.iter().find(|version| version.active);
    let mut adapter = api::Adapter {
        state: api::AdapterState::Cold,
        hash: active.and_then(|version| version.hash.clone()),
        source: active.map(|version| version.source.clone()),
        added_by: active.and_then(|version| version.added_by),
        revision: active.and_then(|version| version.revision.clone()),
        pinned: listed.pinned,
        replacing: listed.replacing,
        requests: Some(listed.requests),
        last_used: listed.last_used.map(seconds),
        bytes: None,
        info: listed
            .active()
            .and_then(|version| version.info.as_deref())
            .map(info),
        progress: listed.progress.map(|progress| api::Progress {
            done: progress.done,
            total: Some(progress.total).filter(|total| *total > 0),
        }),
        error: None,
        retry_after: None,
        defaults: listed.defaults.map(|defaults| (*defaults).clone()),
        limits: limits(&listed.limits),
        versions: Vec::new(),
        name: listed.name,
    };
    adapter.versions = versions;
    adapter.state = match listed.residency {
        Residency::Resident { bytes, info: found } => {
            adapter.bytes = Some(bytes as u64);
            adapter.info = Some(info(&found));
            api::AdapterState::Resident
        }
        Residency::Cold => api::AdapterState::Cold,
        Residency::Loading => api::AdapterState::Loading,
        Residency::Failed { error, retry_after } => {
            adapter.error = Some(error.to_string());
            adapter.retry_after = Some(retry_after.as_secs_f64());
            api::AdapterState::Failed
        }
    };
    adapter
}

/// The event of a change of an adapter.
pub(super) fn event(status: Status) -> api::AdapterEvent {
    let mut event = api::AdapterEvent {
        hash: status.hash.map(|hash| hash.to_string()),
        ..removed(status.name)
    };
    event.state = match status.phase {
        Phase::Fetching(progress) => {
            event.bytes_done = Some(progress.done);
            event.bytes_total = Some(progress.total).filter(|total| *total > 0);
            api::AdapterPhase::Fetching
        }
        Phase::Loading => api::AdapterPhase::Loading,
        Phase::Resident => api::AdapterPhase::Resident,
        Phase::Cold => api::AdapterPhase::Cold,
        Phase::Failed(error) => {
            event.error = Some(error);
            api::AdapterPhase::Failed
        }
    };
    event
}

/// The event of an adapter that was removed.
pub(super) fn removed(name: String) -> api::AdapterEvent {
    api::AdapterEvent {
        name,
        state: api::AdapterPhase::Removed,
        hash: None,
        bytes_done: None,
        bytes_total: None,
        error: None,
    }
}

fn version(version: &ListedVersion) -> api::AdapterVersion {
    api::AdapterVersion {
        hash: version.hash.map(|hash| hash.to_string()),
        source: version.source.to_string(),
        revision: version.revision.clone(),
        added: seconds(version.added),
        added_by: version.added_by.map(|by| match by {
            AddedBy::CommandLine => api::AddedBy::CommandLine,
            AddedBy::AdaptersFile => api::AddedBy::AdaptersFile,
            AddedBy::Request => api::AddedBy::Request,
            AddedBy::Http => api::AddedBy::Http,
        }),
        active: version.active,
    }
}

fn limits(limits: &AdapterLimits) -> api::AdapterLimits {
    api::AdapterLimits {
        weight: limits.weight,
        requests_per_minute: limits.requests_per_minute,
        tokens_per_minute: limits.tokens_per_minute,
        concurrent_requests: limits.concurrent_requests,
        shared_prefixes: limits.shared_prefixes,
    }
}

fn info(info: &AdapterInfo) -> api::AdapterInfo {
    api::AdapterInfo {
        hash: info.hash.clone(),
        base_model: info.base_model.clone(),
        peft_version: info.peft_version.clone(),
        ranks: info.ranks.map(|(least, most)| (least as u64, most as u64)),
        targets: info.targets.clone(),
        layers: info.layers.iter().map(|layer| *layer as u64).collect(),
        features: info.features.clone(),
        tensors: info.tensors as u64,
        parameters: info.parameters as u64,
        bytes: info.bytes as u64,
        warnings: info.warnings.clone(),
        chat_template: info.chat_template.clone(),
        effect: info.effect.map(|effect| api::Effect {
            moved: effect.moved,
            changed: effect.changed as u64,
            positions: effect.positions as u64,
            reference: effect.reference.map(|reference| api::Agreement {
                agree: reference.agree as u64,
                of: reference.of as u64,
            }),
        }),
    }
}
