//! `trainable_token_indices`: which rows of the embedding and of the lm_head an adapter replaces.
//!
//! On a base with tied embeddings, the embedding's rows are the lm_head's rows too and the file
//! holds them once, unless the config names other tokens for the lm_head.

use std::collections::HashSet;

use multigraft_model::{LinearId, ModuleKind};

use super::name::Part;
use super::slots::Slots;
use crate::base::BaseShape;
use crate::config::{PeftConfig, TokenIndices};
use crate::refusal::Refusal;

const FIELD: &str = "trainable_token_indices";
const HEAD: ModuleKind = ModuleKind::Linear(LinearId::LmHead);

/// The replaced rows, in the order of the tensor that holds them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct TokenRows {
    /// Rows of the embedding.
    pub(crate) embedding: Option<Vec<u32>>,
    /// Rows of the lm_head.
    pub(crate) head: HeadRows,
}

/// Which rows of the lm_head are replaced.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) enum HeadRows {
    /// None.
    #[default]
    None,
    /// The embedding's rows, with the same values.
    Embeddings,
    /// These rows, from the lm_head's own tensor.
    Own(Vec<u32>),
}

/// Finds the rows that the config means, and checks that their tensors have one row for each token.
pub(crate) fn resolve(
    slots: &Slots<'_>,
    config: &PeftConfig,
    base: &BaseShape,
) -> Result<TokenRows, Refusal> {
    let (mut embedding, mut own) = (None, None);
    match &config.token_indices {
        None => {}
        Some(TokenIndices::Embedding(indices)) => embedding = Some(indices.clone()),
        Some(TokenIndices::ByName(by_name)) => {
            for (name, indices) in by_name {
                let mut known = false;
                for (position, module) in base.modules().iter().enumerate() {
                    // PEFT's rule does not require a dot before the name.
                    if !slots.path(position, module).ends_with(name) {
                        continue;
                    }
                    let place = match module.kind {
                        ModuleKind::Embedding => &mut embedding,
                        HEAD => &mut own,
                        _ => return Err(Refusal::TokenModule(name.clone())),
                    };
                    if place.replace(indices.clone()).is_some() {
                        return Err(Refusal::Contradiction(
                            "trainable_token_indices names one module twice",
                        ));
                    }
                    known = true;
                }
                if !known {
                    return Err(Refusal::TokenModule(name.clone()));
                }
            }
        }
    }
    let tied = base.tied() && embedding.is_some();
    if tied && config.ensure_weight_tying && own.is_some() && own != embedding {
        return Err(Refusal::Contradiction(
            "ensure_weight_tying is set, but trainable_token_indices names other tokens for lm_head than for embed_tokens",
        ));
    }
    let head = match own {
        _ if tied && (own.is_none() || own == embedding) => HeadRows::Embeddings,
        None => HeadRows::None,
        Some(own) => HeadRows::Own(own),
    };
    let own = if let HeadRows::Own(own) = &head {
        Some(own)
    } else {
        None
    };
    check(slots, base, ModuleKind::Embedding, embedding.as_ref())?;
    check(slots, base, HEAD, own)?;
    if head == HeadRows::Embeddings {
        not_otherwise_changed(slots, HEAD)?;
    }
    Ok(TokenRows { embedding, head })
}

fn check(
    slots: &Slots<'_>,
    base: &BaseShape,
    kind: ModuleKind,
    indices: Option<&Vec<u32>>,
) -> Result<(), Refusal> {
    let tensor = slots.of_kind(kind).and_then(|slot| slot.get(Part::TokenRows));
    let (Some(indices), Some(tensor)) = (indices, tensor) else {
        return match (indices, tensor) {
            (None, Some(tensor)) => Err(Refusal::NotAskedFor {
                tensor: tensor.name.to_owned(),
                field: FIELD,
            }),
            (Some(_), None) => {
                let module = base.modules().iter().find(|module| module.kind == kind);
                let module = module.map_or_else(String::new, |module| module.path.clone());
                Err(Refusal::MissingTensor {
                    field: FIELD,
                    module,
                    lacks: Part::TokenRows.as_str(),
                })
            }
            _ => Ok(()),
        };
    };
    not_otherwise_changed(slots, kind)?;
    let vocab = base
        .modules()
        .iter()
        .find(|module| module.kind == kind)
        .map_or(0, |module| module.out);
    let mut seen = HashSet::new();
    for &index in indices {
        if index as usize >= vocab {
            return Err(Refusal::TokenOutOfRange { index, vocab });
        }
        if !seen.insert(index) {
            return Err(Refusal::TokenTwice(index));
        }
    }
    let expected = vec![indices.len(), base.hidden()];
    match tensor.shape == expected.as_slice() {
        true => Ok(()),
        false => Err(Refusal::Shape {
            tensor: tensor.name.to_owned(),
            found: tensor.shape.to_vec(),
            expected,
        }),
    }
}

/// Checks that a table has no other change: PEFT wraps a module for one purpose only.
fn not_otherwise_changed(slots: &Slots<'_>, kind: ModuleKind) -> Result<(), Refusal> {
    let Some(slot) = slots.of_kind(kind) else {
        return Ok(());
    };
    match slot.any(&[Part::Saved, Part::A, Part::EmbeddingA]) {
        None => Ok(()),
        Some((part, _)) => {
            let second = if part == Part::Saved {
                "modules_to_save"
            } else {
                "a low-rank update"
            };
            Err(Refusal::TwoWays {
                module: slot.module.path.clone(),
                first: FIELD,
                second,
            })
        }
    }
}
