//! IA³: trained scales of a module's outputs or inputs.
//!
//! `l ∘ (W·x + bias)` is not a low-rank update of W; the kernels apply such scales after the
//! product. They cannot scale inputs, but the inputs of down_proj are `act(gate) ∘ up`, so scales
//! of its inputs are scales of up_proj's outputs: `l ∘ (act(gate) ∘ up) = act(gate) ∘ (l ∘ up)`.

use multigraft_model::{LinearDelta, LinearId, Module, ModuleKind, Target};

use super::decode::finite;
use super::name::Part;
use super::slots::Slots;
use crate::base::BaseShape;
use crate::refusal::Refusal;

/// Adds all scales to the changes of linear maps.
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

/// Whether a tensor of this shape scales the inputs: `[1, in]`, and not `[out, 1]`.
pub(super) fn scales_inputs(shape: &[usize], module: &Module) -> bool {
    shape == [1, module.inp] && shape != [module.out, 1]
}

/// The linear map whose outputs are factors of the inputs of `id`, and the index of the first such
/// output.
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
        // In a fused matrix, gate comes before up.
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
