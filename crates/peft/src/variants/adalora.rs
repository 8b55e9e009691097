//! AdaLoRA: `W + alpha/init_r · B · diag(e) · A`.

use super::parts::{Factors, Parts, shaped};
use crate::config::PeftConfig;
use crate::refusal::Refusal;

pub(super) const PARTS: [&str; 3] = ["lora_A", "lora_B", "lora_E"];
/// PEFT adds this to the rank before it divides by it.
const GUARD: f64 = 1e-5;

pub(super) fn factors(parts: &Parts<'_>, most: usize) -> Result<Factors, Refusal> {
    // The file does not hold the ranks that training removed, so each module has its own rank.
    let e = parts.tensor("lora_E", "lora_A")?;
    let rank = e.rows().clamp(1, most);
    let e = shaped(e, rank, 1)?;
    let mut a = parts.matrix("lora_A", "lora_E", rank, parts.module.inp)?;
    for (row, e) in a.values.chunks_exact_mut(a.cols).zip(&e.values) {
        row.iter_mut().for_each(|value| *value *= e);
    }
    let b = parts.matrix("lora_B", "lora_E", parts.module.out, rank)?;
    Ok(Factors { a, b })
}

pub(super) fn scaling(config: &PeftConfig, path: &str) -> Result<f32, Refusal> {
    let rank = config.rank(path)? as f64;
    // If alpha is not positive, PEFT uses the rank instead.
    let scaling = f64::from(config.scaling(path)?);
    let alpha = if scaling > 0.0 { scaling * rank } else { rank };
    Ok((alpha / (rank + GUARD)) as f32)
}
