//! IA³: trained scales of a module's outputs, or of its inputs.
//!
//! `l ∘ (W·x + bias)` is no low-rank update of W but what the kernels do after one. Scales of
//! inputs have no such place, but the inputs of down_proj are `act(gate) ∘ up`, so there they are
//! scales of up's outputs: `l ∘ (act(gate) ∘ up) = act(gate) ∘ (l ∘ up)`.

use multigraft_model::{LinearDelta, LinearId, Module, ModuleKind, Target};

use super::decode::finite;
use super::name::Part;
use super::slots::Slots;
use crate::base::BaseShape;
use crate::refusal::Refusal;

/// Adds all scales to what is done to linear maps.
pub(super) fn add(
    slots: &Slots<'_>,
    base: &BaseShape,
    linears: &mut Vec<(LinearId, LinearDelta)>,
) -> Result<(), Refusal> {
    for slot in slots.iter() {
        let (Some(tensor), ModuleKind::Linear(id)) = (slot.get(Part::Scale), slot.module.kind) else {
            continue;
        };
        let mut scales = finite(tensor)?;
        let mut id = id;
        if scales_inputs(tensor.shape, slot.module) {
            let (up, before) = up(id, base).ok_or_else(|| Refusal::ScaledInputs {
                tensor: tensor.name.to_owned(),
                module: slot.module.path.clone(),
            })?;
            id = up;
            scales.splice(..0, std::iter::repeat_n(1.0, before));
        }
        let position = linears.iter().position(|(other, _)| *other == id);
        let position = position.unwrap_or_else(|| {
            linears.push((id, LinearDelta::default()));
            linears.len() - 1
        });
        match &mut linears[position].1.gain {
            Some(gain) => gain
                .iter_mut()
                .zip(&scales)
                .for_each(|(gain, scale)| *gain *= scale),
            gain => *gain = Some(scales),
        }
    }
    Ok(())
}

/// Whether a tensor of this shape has a scale for each input: `[1, in]`, and not `[out, 1]`.
pub(super) fn scales_inputs(shape: &[usize], module: &Module) -> bool {
    shape == [1, module.inp] && shape != [module.out, 1]
}

/// The map whose outputs are factors of the inputs of `id`, and how many outputs it has before
/// these.
fn up(id: LinearId, base: &BaseShape) -> Option<(LinearId, usize)> {
    let LinearId::Layer {
        layer,
        target: Target::Down,
    } = id
    else {
        return None;
    };
    [Target::Up, Target::GateUp].into_iter().find_map(|target| {
        let id = LinearId::Layer { layer, target };
        let module = base
            .modules()
            .iter()
            .find(|module| module.kind == ModuleKind::Linear(id))?;
        // Where the two are one matrix, gate comes first.
        Some((
            id,
            if target == Target::GateUp {
                module.out / 2
            } else {
                0
            },
        ))
    })
}
