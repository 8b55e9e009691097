//! Checks that tensors, config and base agree: every tensor that the config requires is present, no
//! other is, and all have the right shape.

use std::collections::BTreeSet;

use multigraft_model::{LinearId, Module, ModuleKind};
use multigraft_weights::Tensor;

use super::name::{Part, halves};
use super::scales;
use super::slots::{Slot, Slots};
use super::tokens::{self, TokenRows};
use crate::base::BaseShape;
use crate::config::{Bias, Kind, PeftConfig, RANK_LIMIT};
use crate::refusal::Refusal;

/// Limit of an update's rank, as a multiple of its matrix's smaller side. Beyond that side a rank
/// adds nothing, but adapters use one rank for all matrices, small ones (keys and values) included.
const RANK_EXCESS: usize = 8;

/// The parts of a low-rank update.
const UPDATE: [Part; 6] = [
    Part::A,
    Part::B,
    Part::EmbeddingA,
    Part::EmbeddingB,
    Part::LoraBias,
    Part::Magnitude,
];

/// The result of the checks.
#[derive(Debug)]
pub(crate) struct Agreed {
    /// Rows of the embedding and of the lm_head that are replaced.
    pub(crate) tokens: TokenRows,
    /// Names in `modules_to_save` that match no module of this base.
    pub(crate) unknown_saved: Vec<String>,
}

/// Checks all tensors against config and base. Marks weights that belong to `modules_to_save`.
pub(crate) fn agree(slots: &mut Slots<'_>, config: &PeftConfig, base: &BaseShape) -> Result<Agreed, Refusal> {
    let unknown_saved = check_saved(slots, config, base)?;
    for slot in slots.iter() {
        check_kind(slot, config)?;
        check_update(slot, config)?;
        check_shapes(slot, config)?;
    }
    check_targets(slots, config, base)?;
    check_biases(slots, config, base)?;
    let tokens = tokens::resolve(slots, config, base)?;
    Ok(Agreed {
        tokens,
        unknown_saved,
    })
}

/// Checks `modules_to_save`: finds the modules that it means and requires a weight for each.
/// Returns the names that match no module.
fn check_saved(slots: &mut Slots<'_>, config: &PeftConfig, base: &BaseShape) -> Result<Vec<String>, Refusal> {
    let mut meant = BTreeSet::new();
    let mut unknown = Vec::new();
    for name in &config.modules_to_save {
        let mut known = false;
        for (position, module) in base.modules().iter().enumerate() {
            // PEFT's rule does not require a dot before the name.
            if !slots.path(position, module).ends_with(name) {
                continue;
            }
            if !is_table(module) {
                return Err(Refusal::SavedModule {
                    name: name.clone(),
                    module: module.path.clone(),
                });
            }
            known = true;
            meant.insert(position);
        }
        if !known {
            unknown.push(name.clone());
        }
    }
    if config.ties_saved() && base.tied() {
        let tables = base
            .modules()
            .iter()
            .enumerate()
            .filter(|(_, module)| is_table(module));
        meant.extend(tables.map(|(position, _)| position));
    }
    for (position, module) in base.modules().iter().enumerate() {
        let is_meant = meant.contains(&position);
        if let Some(slot) = slots.get_mut(position).filter(|_| is_meant) {
            slot.weight_is_saved()?;
        }
        match (
            is_meant,
            slots.get(position).and_then(|slot| slot.get(Part::Saved)),
        ) {
            (true, None) => {
                let (field, module) = ("modules_to_save", module.path.clone());
                return Err(Refusal::MissingTensor {
                    field,
                    module,
                    lacks: "weight",
                });
            }
            (false, Some(tensor)) => return Err(not_asked_for(tensor, "modules_to_save")),
            _ => {}
        }
        if let Some((part, _)) = slots
            .get(position)
            .filter(|_| is_meant)
            .and_then(|slot| slot.any(&UPDATE).or(slot.any(&[Part::Scale])))
        {
            let (module, first) = (module.path.clone(), "modules_to_save");
            return Err(Refusal::TwoWays {
                module,
                first,
                second: part.as_str(),
            });
        }
    }
    Ok(unknown)
}

fn is_table(module: &Module) -> bool {
    matches!(
        module.kind,
        ModuleKind::Embedding | ModuleKind::Linear(LinearId::LmHead)
    )
}

/// Checks that a module has no tensor of another kind of adapter.
fn check_kind(slot: &Slot<'_>, config: &PeftConfig) -> Result<(), Refusal> {
    let others: &[Part] = match config.kind {
        Kind::Ia3 => &UPDATE,
        _ => &[Part::Scale],
    };
    match slot.any(others) {
        Some((_, tensor)) => Err(not_asked_for(tensor, "peft_type")),
        None => Ok(()),
    }
}

/// Checks that an update is complete and of the kind that the config says.
fn check_update(slot: &Slot<'_>, config: &PeftConfig) -> Result<(), Refusal> {
    let Some((has, _)) = slot.any(&UPDATE) else {
        return Ok(());
    };
    let (a, b) = halves(slot.module.kind);
    for lacks in [a, b] {
        if !slot.has(lacks) {
            // If one of the two matrices is present, the message names it.
            let has = slot.any(&[a, b]).map_or(has, |(part, _)| part).as_str();
            let (module, lacks) = (slot.module.path.clone(), lacks.as_str());
            return Err(Refusal::MissingPart { module, has, lacks });
        }
    }
    // PEFT has no lora_bias on embeddings.
    let lora_bias = config.lora_bias && slot.module.kind != ModuleKind::Embedding;
    for (field, wanted, part) in [
        ("lora_bias", lora_bias, Part::LoraBias),
        ("use_dora", config.dora, Part::Magnitude),
    ] {
        match (wanted, slot.get(part)) {
            (true, None) => {
                let module = slot.module.path.clone();
                return Err(Refusal::MissingTensor {
                    field,
                    module,
                    lacks: part.as_str(),
                });
            }
            (false, Some(tensor)) => return Err(not_asked_for(tensor, field)),
            _ => {}
        }
    }
    Ok(())
}

fn not_asked_for(tensor: Tensor<'_>, field: &'static str) -> Refusal {
    Refusal::NotAskedFor {
        tensor: tensor.name.to_owned(),
        field,
    }
}

/// Checks the shape of every tensor except rows of tokens, which [`tokens`] checks.
fn check_shapes(slot: &Slot<'_>, config: &PeftConfig) -> Result<(), Refusal> {
    let Module {
        out,
        inp,
        ref path,
        kind,
        ..
    } = *slot.module;
    let is_embedding = kind == ModuleKind::Embedding;
    for (part, tensor) in slot.parts() {
        let (expected, rank_at) = match part {
            Part::A => (vec![config.rank(&slot.path)?, inp], Some(0)),
            Part::B => (vec![out, config.rank(&slot.path)?], Some(1)),
            Part::EmbeddingA => (vec![config.rank(&slot.path)?, out], Some(0)),
            Part::EmbeddingB => (vec![inp, config.rank(&slot.path)?], Some(1)),
            Part::Magnitude if is_embedding => (vec![inp], None),
            Part::LoraBias | Part::Magnitude | Part::Bias => (vec![out], None),
            Part::Saved | Part::BaseWeight => (vec![out, inp], None),
            Part::Scale if scales::scales_inputs(tensor.shape, slot.module) => (vec![1, inp], None),
            Part::Scale => (vec![out, 1], None),
            Part::TokenRows => continue,
        };
        if matches!(part, Part::Saved | Part::BaseWeight)
            && let &[found, cols] = tensor.shape
            && found != out
            && cols == inp
        {
            return Err(Refusal::Vocabulary {
                tensor: tensor.name.to_owned(),
                found,
                expected: out,
            });
        }
        if tensor.shape != expected.as_slice() {
            return Err(disagreement(tensor, expected, rank_at, path));
        }
        let (rank, limit) = (
            config.rank(&slot.path)?,
            RANK_EXCESS.saturating_mul(out.min(inp)).min(RANK_LIMIT),
        );
        if rank_at.is_some() && rank > limit {
            return Err(Refusal::AbsurdRank {
                rank,
                module: path.clone(),
                out,
                inp,
                limit,
            });
        }
    }
    Ok(())
}

/// The refusal of a wrong shape. If only the rank is wrong, it names the rank.
fn disagreement(tensor: Tensor<'_>, expected: Vec<usize>, rank_at: Option<usize>, module: &str) -> Refusal {
    if let (Some(at), &[rows, cols]) = (rank_at, tensor.shape)
        && [rows, cols][1 - at] == expected[1 - at]
    {
        return Refusal::RankDisagrees {
            tensor: tensor.name.to_owned(),
            found: [rows, cols][at],
            expected: expected[at],
            module: module.to_owned(),
        };
    }
    Refusal::Shape {
        tensor: tensor.name.to_owned(),
        found: tensor.shape.to_vec(),
        expected,
    }
}

/// Checks that exactly the modules that the config selects have updates.
fn check_targets(slots: &Slots<'_>, config: &PeftConfig, base: &BaseShape) -> Result<(), Refusal> {
    if !config.names_targets() {
        return Ok(());
    }
    let ties = base.tied() && config.ties_updates()?;
    for (position, module) in base.modules().iter().enumerate() {
        if module.kind == ModuleKind::Fixed {
            continue;
        }
        let named =
            (ties && is_table(module)) || config.covers(&slots.path(position, module), module.kind)?;
        let slot = slots.get(position);
        let (a, b, lacks) = match config.kind {
            Kind::Ia3 => (Part::Scale, Part::Scale, "ia3_l"),
            _ => (halves(module.kind).0, halves(module.kind).1, "lora_A and lora_B"),
        };
        match (named, slot.and_then(|slot| slot.any(&[a, b]))) {
            (true, None) => {
                let (field, module) = ("target_modules", module.path.clone());
                return Err(Refusal::MissingTensor { field, module, lacks });
            }
            (false, Some((_, tensor))) => return Err(not_asked_for(tensor, "target_modules")),
            _ => {}
        }
    }
    Ok(())
}

/// Checks that every bias exists in the base, and that biases that were trained are present.
fn check_biases(slots: &Slots<'_>, config: &PeftConfig, base: &BaseShape) -> Result<(), Refusal> {
    for (position, module) in base.modules().iter().enumerate() {
        let slot = slots.get(position);
        let bias = slot.and_then(|slot| slot.get(Part::Bias));
        if let Some(tensor) = bias.filter(|_| !module.bias) {
            return Err(Refusal::NoBias {
                tensor: tensor.name.to_owned(),
                module: module.path.clone(),
            });
        }
        let trained = match config.bias {
            Bias::None => false,
            Bias::All => true,
            Bias::LoraOnly => slot.is_some_and(|slot| slot.has(Part::A)),
        };
        if trained && module.bias && bias.is_none() {
            return Err(Refusal::MissingTensor {
                field: "bias",
                module: module.path.clone(),
                lacks: "bias",
            });
        }
    }
    Ok(())
}
