//! Converts the variants of LoRA that PEFT saves to LoRA. Each is an update of the base's weights
//! that is exactly a product `s · B·A` of matrices composed of its own.
//!
//! | variant | update | rank as LoRA |
//! |---|---|---|
//! | AdaLoRA | `B · diag(e) · A` | as saved |
//! | LoHa | `(w1a·w1b) ∘ (w2a·w2b)` | `r²` |
//! | LoKr | `w1 ⊗ w2`, each whole or a product | the product of both ranks |
//! | VeRA | `diag(b) · B · diag(d) · A`, A and B shared by all modules | as saved |
//!
//! IA³ is not low-rank; it scales outputs, see `tensors/scales.rs`. The conversion allocates the
//! matrices once more in float32 while an adapter is loaded. No rank exceeds the size of the base's
//! matrix.

mod adalora;
mod loha;
mod lokr;
mod parts;
mod vera;

use std::collections::{BTreeMap, HashMap};

use multigraft_model::{LinearId, Module, ModuleKind, Throttle};
use multigraft_weights::Tensor;
use multigraft_weights::safetensors::Checkpoint;

use crate::base::{BaseShape, module_key, without_peft};
use crate::config::{Kind, PeftConfig, RANK_LIMIT};
use crate::derived::Derived;
use crate::refusal::Refusal;
use parts::Parts;

/// The largest number of weights after conversion: 4 GiB in float32. A few kilobytes of LoKr can
/// describe whole matrices.
const CONVERTED_LIMIT: usize = 1 << 30;

/// The adapter's tensors, with those of a variant converted to LoRA. Sets the ranks and scalings of
/// the converted updates in `config`.
pub(crate) fn updates<'a>(
    checkpoint: &'a Checkpoint,
    config: &mut PeftConfig,
    base: &BaseShape,
    throttle: &Throttle,
) -> Result<Vec<Derived<'a>>, Refusal> {
    let names: &[&'static str] = match config.kind {
        Kind::Lora | Kind::Ia3 => return Ok(checkpoint.tensors().map(Derived::borrowed).collect()),
        Kind::AdaLora => &adalora::PARTS,
        Kind::Loha => &loha::PARTS,
        Kind::Lokr => &lokr::PARTS,
        Kind::Vera => &vera::PARTS,
    };
    let mut derived = Vec::new();
    let mut modules: BTreeMap<&str, Vec<(&str, Tensor<'a>)>> = BTreeMap::new();
    for tensor in checkpoint.tensors() {
        match parts::split(tensor.name, names) {
            Some((path, part)) => modules.entry(path).or_default().push((part, tensor)),
            None => derived.push(Derived::borrowed(tensor)),
        }
    }
    let shared = match config.kind {
        Kind::Vera => Some(vera::Shared::take(&mut modules)?),
        _ => None,
    };
    let mut updates = HashMap::new();
    let mut weights = 0;
    for (path, found) in modules {
        let tensor = found[0].1;
        let (wrappers, key) = module_key(path);
        let Some(module) = base
            .find(key)
            .map(|position| &base.modules()[position])
            .filter(|m| is_linear(m))
        else {
            // The tensor is passed on under LoRA's name, so that the code that places LoRA's
            // tensors refuses it.
            derived.push(Derived::borrowed(tensor).renamed(format!("{path}.lora_A.weight")));
            continue;
        };
        let parts = Parts::new(module, found)?;
        let known_as = format!("{}{key}", without_peft(wrappers));
        let rank = config.rank(&known_as)?;
        let (factors, scaling) = match (config.kind, &shared) {
            (Kind::AdaLora, _) => (
                adalora::factors(&parts, rank)?,
                adalora::scaling(config, &known_as)?,
            ),
            (Kind::Loha, _) => (loha::factors(&parts, rank)?, config.scaling(&known_as)?),
            (Kind::Vera, Some(shared)) => (shared.factors(&parts, rank)?, 1.0),
            _ => (lokr::factors(&parts, rank)?, config.scaling(&known_as)?),
        };
        // No module's factors are larger than its matrix, so checking after each module is early
        // enough.
        weights += factors.a.values.len() + factors.b.values.len();
        if weights > CONVERTED_LIMIT {
            return Err(Refusal::VariantSize {
                kind: config.kind.as_str(),
                limit: CONVERTED_LIMIT,
            });
        }
        updates.insert(known_as, (factors.a.rows, scaling));
        derived.push(Derived::from_matrix(
            &factors.a,
            format!("{path}.lora_A.weight"),
            tensor.name,
        ));
        derived.push(Derived::from_matrix(
            &factors.b,
            format!("{path}.lora_B.weight"),
            tensor.name,
        ));
        throttle.pause();
    }
    config.convert(updates);
    Ok(derived)
}

fn is_linear(module: &Module) -> bool {
    matches!(
        module.kind,
        ModuleKind::Linear(LinearId::Layer { .. } | LinearId::LmHead)
    )
}

/// Refuses a rank at which the update is as large as the matrix.
fn check_rank(kind: Kind, module: &Module, rank: usize, limit: usize) -> Result<(), Refusal> {
    let limit = limit.min(RANK_LIMIT);
    if rank <= limit {
        return Ok(());
    }
    Err(Refusal::VariantRank {
        kind: kind.as_str(),
        module: module.path.clone(),
        rank,
        out: module.out,
        inp: module.inp,
        limit,
    })
}
