//! Decodes checked tensors into the changes of the base's modules.

use multigraft_model::{LinearDelta, LinearId, LowRank, ModuleKind, Throttle};

use super::agree::Agreed;
use super::decode::linear;
use super::name::halves;
use super::slots::Slots;
use super::{Changes, scales, tables};
use crate::base::BaseShape;
use crate::config::PeftConfig;
use crate::refusal::{Quoted, Refusal};

/// Decodes all tensors.
pub(crate) fn changes(
    slots: &Slots<'_>,
    agreed: &Agreed,
    config: &PeftConfig,
    base: &BaseShape,
    throttle: &Throttle,
) -> Result<Changes, Refusal> {
    let mut linears = Vec::new();
    for slot in slots.iter() {
        if let ModuleKind::Linear(id @ LinearId::Layer { .. }) = slot.module.kind {
            linears.push((id, linear(slot, config)?));
            throttle.pause();
        }
    }
    let mut warnings: Vec<String> = agreed
        .unknown_saved
        .iter()
        .map(|name| {
            format!(
                "modules_to_save names {}, which the base does not have",
                Quoted(name)
            )
        })
        .collect();
    let tables = tables::read(slots, &agreed.tokens, config, base)?;
    warnings.extend(tables.warning);
    if let Some(head) = tables.head {
        linears.push((LinearId::LmHead, head));
    }
    scales::add(slots, base, &mut linears)?;
    linears.retain(|(_, delta)| *delta != LinearDelta::default());
    linears.sort_by_key(|(id, _)| *id);
    let changes = Changes {
        linears,
        embedding: tables.embedding,
        updates: updates(slots, config)?,
        warnings,
    };
    Ok(warn_if_idle(changes))
}

fn updates(slots: &Slots<'_>, config: &PeftConfig) -> Result<Vec<(String, usize)>, Refusal> {
    let updated = slots.iter().filter(|slot| slot.has(halves(slot.module.kind).0));
    updated
        .map(|slot| Ok((slot.module.path.clone(), config.rank(&slot.path)?)))
        .collect()
}

/// Adds a warning if all updates are zero, as they are before training.
fn warn_if_idle(mut changes: Changes) -> Changes {
    let updates = changes.linears.iter().map(|(_, delta)| delta.low_rank.as_ref());
    let embedding = changes.embedding.as_ref().map(|delta| delta.low_rank.as_ref());
    let idle = updates.chain(embedding).all(|update| update.is_some_and(is_zero));
    let nothing_else = changes.linears.iter().all(|(_, delta)| {
        delta.magnitude.is_none()
            && delta.gain.is_none()
            && delta.base_bias.is_none()
            && delta.replaced.is_none()
            && delta.rows.is_empty()
    });
    let embedding_kept = changes
        .embedding
        .as_ref()
        .is_none_or(|delta| delta.replaced.is_none() && delta.rows.is_empty());
    if idle && nothing_else && embedding_kept {
        changes
            .warnings
            .push("all its updates are zero: it answers as the base does (was it trained?)".to_owned());
    }
    changes
}

fn is_zero(update: &LowRank) -> bool {
    let zero = |values: &[f32]| values.iter().all(|&value| value == 0.0);
    (zero(&update.b.values) || zero(&update.a.values)) && update.bias.as_deref().is_none_or(zero)
}
