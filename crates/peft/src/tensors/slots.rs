//! Groups an adapter's tensors by the modules that they belong to.

use std::collections::BTreeMap;

use multigraft_model::{LinearId, Module, ModuleKind, Target};
use multigraft_weights::Tensor;

use super::NamedTensor;
use super::name::{Part, TensorName};
use crate::base::{BaseShape, without_peft};
use crate::refusal::Refusal;

/// The tensors of one module.
#[derive(Debug)]
pub(crate) struct Slot<'a> {
    /// The module.
    pub(crate) module: &'a Module,
    /// Its path as PEFT matched it in training. Patterns in the config refer to this path.
    pub(crate) path: String,
    parts: BTreeMap<Part, Tensor<'a>>,
}

impl<'a> Slot<'a> {
    pub(crate) fn get(&self, part: Part) -> Option<Tensor<'a>> {
        self.parts.get(&part).copied()
    }

    pub(crate) fn has(&self, part: Part) -> bool {
        self.parts.contains_key(&part)
    }

    /// The first of these parts that is present.
    pub(crate) fn any(&self, parts: &[Part]) -> Option<(Part, Tensor<'a>)> {
        parts.iter().find_map(|&part| Some((part, self.get(part)?)))
    }

    pub(crate) fn parts(&self) -> impl Iterator<Item = (Part, Tensor<'a>)> {
        self.parts.iter().map(|(&part, &tensor)| (part, tensor))
    }

    /// Treats a weight that may be either as one of `modules_to_save`.
    pub(crate) fn weight_is_saved(&mut self) -> Result<(), Refusal> {
        match self.parts.remove(&Part::BaseWeight) {
            Some(tensor) => self.put(Part::Saved, tensor),
            None => Ok(()),
        }
    }

    fn put(&mut self, part: Part, tensor: Tensor<'a>) -> Result<(), Refusal> {
        match self.parts.insert(part, tensor) {
            None => Ok(()),
            Some(first) => Err(Refusal::Duplicate {
                first: first.name.to_owned(),
                second: tensor.name.to_owned(),
                part: part.as_str(),
                module: self.module.path.clone(),
            }),
        }
    }
}

/// All tensors of an adapter by module, in the base's order.
#[derive(Debug)]
pub(crate) struct Slots<'a> {
    slots: BTreeMap<usize, Slot<'a>>,
    /// PEFT's prefixes of the decoder's modules and of the lm_head.
    body: Option<&'a str>,
    head: Option<&'a str>,
}

impl<'a> Slots<'a> {
    /// Finds the module of every tensor.
    ///
    /// # Errors
    /// If a tensor belongs to no module or to one that cannot be changed, has the same role as
    /// another, or has an unsupported dtype, or if all tensors agree on another hidden size.
    pub(crate) fn collect(
        tensors: impl Iterator<Item = NamedTensor<'a>>,
        base: &'a BaseShape,
    ) -> Result<Self, Refusal> {
        let mut found = Self {
            slots: BTreeMap::new(),
            body: None,
            head: None,
        };
        let (mut count, mut first, mut adapter, mut stray) = (0, "", None, None);
        for NamedTensor { peft_name, tensor } in tensors {
            if count == 0 {
                first = tensor.name;
            }
            count += 1;
            match located(peft_name, tensor.name, base) {
                Ok((name, position)) => {
                    one_adapter(&mut adapter, name.adapter)?;
                    found.put(&name, position, tensor, base)?;
                }
                Err(refusal) => stray = stray.or(Some(refusal)),
            }
        }
        if count == 0 {
            return Err(Refusal::NoTensors);
        }
        if found.slots.is_empty() {
            let elsewhere = matches!(stray, Some(Refusal::NoModule(_) | Refusal::UnknownPart(_)));
            let nothing = Refusal::NothingMaps {
                count,
                first: first.to_owned(),
            };
            return Err(stray.filter(|_| !elsewhere).unwrap_or(nothing));
        }
        found.check_hidden_size(base.hidden())?;
        match stray {
            Some(refusal) => Err(refusal),
            None => Ok(found),
        }
    }

    fn put(
        &mut self,
        name: &TensorName<'a>,
        position: usize,
        tensor: Tensor<'a>,
        base: &'a BaseShape,
    ) -> Result<(), Refusal> {
        let module = &base.modules()[position];
        let prefix = without_peft(name.wrappers);
        match is_head(module) {
            true => self.head.get_or_insert(prefix),
            false => self.body.get_or_insert(prefix),
        };
        let slot = || Slot {
            module,
            path: format!("{prefix}{}", name.key),
            parts: BTreeMap::new(),
        };
        self.slots
            .entry(position)
            .or_insert_with(slot)
            .put(name.part, tensor)
    }

    /// Reports an adapter for a base of another size with one message instead of a hundred wrong
    /// shapes.
    fn check_hidden_size(&self, expected: usize) -> Result<(), Refusal> {
        let sizes = self.slots.values().flat_map(|slot| {
            slot.parts()
                .filter_map(|(part, tensor)| hidden_size(slot.module.kind, part, tensor.shape))
        });
        let mut sizes: Vec<usize> = sizes.collect();
        sizes.sort_unstable();
        sizes.dedup();
        match sizes[..] {
            [found] if found != expected => Err(Refusal::HiddenSize { found, expected }),
            _ => Ok(()),
        }
    }

    pub(crate) fn get(&self, position: usize) -> Option<&Slot<'a>> {
        self.slots.get(&position)
    }

    /// The slot of the module of this kind. A base has one such module.
    pub(crate) fn of_kind(&self, kind: ModuleKind) -> Option<&Slot<'a>> {
        self.slots.values().find(|slot| slot.module.kind == kind)
    }

    pub(crate) fn get_mut(&mut self, position: usize) -> Option<&mut Slot<'a>> {
        self.slots.get_mut(&position)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Slot<'a>> {
        self.slots.values()
    }

    /// The path that PEFT knew a module by. If the module has no tensor, the path is derived from
    /// those of other modules.
    pub(crate) fn path(&self, position: usize, module: &Module) -> String {
        if let Some(slot) = self.slots.get(&position) {
            return slot.path.clone();
        }
        let (wrappers, key) = crate::base::module_key(&module.path);
        let prefix = if is_head(module) { self.head } else { self.body };
        format!("{}{key}", prefix.unwrap_or(wrappers))
    }
}

fn is_head(module: &Module) -> bool {
    module.kind == ModuleKind::Linear(LinearId::LmHead)
}

/// Parses a tensor's name and finds the index of its module.
fn located<'a>(peft_name: &'a str, name: &str, base: &BaseShape) -> Result<(TensorName<'a>, usize), Refusal> {
    let Some(parsed) = TensorName::parse(peft_name) else {
        return Err(Refusal::UnknownPart(name.to_owned()));
    };
    let Some(position) = base.find(parsed.key) else {
        return Err(nowhere(name, parsed.key, base.layers()));
    };
    let module = &base.modules()[position];
    let kind = match (module.kind, parsed.part) {
        (ModuleKind::Fixed, _) => {
            return Err(Refusal::Fixed {
                tensor: name.to_owned(),
                module: module.path.clone(),
            });
        }
        (ModuleKind::Embedding, Part::A | Part::B | Part::LoraBias | Part::Bias | Part::Scale) => {
            "an embedding"
        }
        (ModuleKind::Linear(_), Part::EmbeddingA | Part::EmbeddingB) => "a linear map",
        (ModuleKind::Linear(LinearId::Layer { .. }), Part::TokenRows) => "a linear map",
        (ModuleKind::Linear(LinearId::Layer { .. }), Part::Saved | Part::BaseWeight) => {
            return Err(Refusal::Fixed {
                tensor: name.to_owned(),
                module: format!("the weight of {}", module.path),
            });
        }
        _ => return Ok((parsed, position)),
    };
    Err(Refusal::WrongKind {
        tensor: name.to_owned(),
        module: module.path.clone(),
        kind,
    })
}

fn nowhere(tensor: &str, key: &str, layers: usize) -> Refusal {
    let tensor = tensor.to_owned();
    let layer = key
        .strip_prefix("layers.")
        .and_then(|rest| rest.split('.').next()?.parse().ok());
    match layer {
        Some(layer) if layer >= layers => Refusal::NoLayer {
            tensor,
            layer,
            layers,
        },
        _ => Refusal::NoModule(tensor),
    }
}

fn one_adapter<'a>(seen: &mut Option<&'a str>, name: Option<&'a str>) -> Result<(), Refusal> {
    match (*seen, name) {
        (Some(first), Some(second)) if first != second => Err(Refusal::TwoAdapters {
            first: first.to_owned(),
            second: second.to_owned(),
        }),
        _ => {
            *seen = seen.or(name);
            Ok(())
        }
    }
}

/// The hidden size that a tensor's shape implies, if it has that dimension.
fn hidden_size(kind: ModuleKind, part: Part, shape: &[usize]) -> Option<usize> {
    let &[rows, cols] = shape else {
        return None;
    };
    match (kind, part) {
        (ModuleKind::Embedding, Part::EmbeddingB) => Some(rows),
        (_, Part::Saved | Part::BaseWeight | Part::TokenRows) => Some(cols),
        (
            ModuleKind::Linear(LinearId::Layer {
                target: Target::O | Target::Down,
                ..
            }),
            Part::B,
        ) => Some(rows),
        (
            ModuleKind::Linear(LinearId::Layer {
                target: Target::O | Target::Down,
                ..
            }),
            _,
        ) => None,
        (ModuleKind::Linear(_), Part::A) => Some(cols),
        _ => None,
    }
}
