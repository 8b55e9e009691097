//! Rotary position embeddings (Su et al. 2021, arXiv 2104.09864) and how they are scaled to longer
//! contexts.

use std::f64::consts::PI;

use serde_json::{Map, Value};

use super::raw::Raw;
use crate::error::ModelError;

/// A rotation: pair i of a head (features i and i + pairs) turns by `position · inv_freq[i]`.
#[derive(Clone, Debug, PartialEq)]
pub struct Rope {
    /// Angle per position of each pair, `[rotated features / 2]`.
    pub inv_freq: Vec<f32>,
    /// The angles for sequences longer than [`Rope::short_context`] (phi3's longrope).
    pub long_inv_freq: Option<Vec<f32>>,
    /// The longest sequence that uses [`Rope::inv_freq`], in tokens.
    pub short_context: usize,
    /// Factor of sine and cosine (yarn, longrope).
    pub scale: f32,
}

/// The rotations of a model: one, or for gemma3 those of full and of sliding layers.
pub(super) fn ropes(raw: &Raw, arch: &str, head_dim: usize) -> Result<Vec<Rope>, ModelError> {
    let default_theta = match arch {
        "gemma3_text" | "mixtral" => 1e6,
        "smollm3" => 2e6,
        _ => 1e4,
    };
    let nested = |name: &str| match raw.rope_parameters.as_ref()?.get(name)? {
        Value::Object(parameters) => Some(parameters),
        _ => None,
    };
    let theta = raw.rope_theta.unwrap_or(default_theta);
    if arch == "gemma3_text" {
        let local = raw.rope_local_base_freq.unwrap_or(1e4);
        let full = nested("full_attention").or(raw.rope_scaling.as_ref());
        return Ok(vec![
            rope(raw, full, theta, head_dim)?,
            rope(raw, nested("sliding_attention"), local, head_dim)?,
        ]);
    }
    Ok(vec![rope(
        raw,
        raw.rope_parameters.as_ref().or(raw.rope_scaling.as_ref()),
        theta,
        head_dim,
    )?])
}

fn rope(
    raw: &Raw,
    parameters: Option<&Map<String, Value>>,
    theta: f64,
    head_dim: usize,
) -> Result<Rope, ModelError> {
    let number = |name: &str| parameters.and_then(|p| p.get(name)).and_then(Value::as_f64);
    let need = |name: &'static str| number(name).ok_or(ModelError::Missing(name));
    let theta = number("rope_theta").unwrap_or(theta);
    let partial = number("partial_rotary_factor")
        .or(raw.partial_rotary_factor)
        .unwrap_or(1.0);
    let dim = (head_dim as f64 * partial) as usize;
    if dim == 0 || dim > head_dim || !dim.is_multiple_of(2) {
        return Err(ModelError::Unsupported {
            field: "partial_rotary_factor",
            value: partial.to_string(),
            hint: "an even number of a head's features must turn",
        });
    }
    let periods: Vec<f64> = (0..dim / 2)
        .map(|i| theta.powf((2 * i) as f64 / dim as f64))
        .collect();
    let plain: Vec<f64> = periods.iter().map(|p| 1.0 / p).collect();
    let text = |name: &str| parameters.and_then(|p| p.get(name)).and_then(Value::as_str);
    let kind = text("rope_type").or_else(|| text("type")).unwrap_or("default");
    let original = || {
        number("original_max_position_embeddings")
            .or(raw.original_max_position_embeddings.map(|n| n as f64))
            .or(raw.max_position_embeddings.map(|n| n as f64))
            .ok_or(ModelError::Missing("original_max_position_embeddings"))
    };
    let simple = |inv_freq: Vec<f64>, scale: f64| Rope {
        inv_freq: inv_freq.into_iter().map(|f| f as f32).collect(),
        long_inv_freq: None,
        short_context: usize::MAX,
        scale: scale as f32,
    };
    if let Some(divisors) = raw.rope_divisors.as_ref() {
        if divisors.len() != plain.len() {
            return Err(ModelError::Shape {
                name: "rope_freqs.weight".to_owned(),
                found: vec![divisors.len()],
                expected: vec![plain.len()],
            });
        }
        return Ok(simple(
            plain
                .iter()
                .zip(divisors)
                .map(|(f, &d)| f / f64::from(d))
                .collect(),
            1.0,
        ));
    }
    match kind {
        "default" | "none" => Ok(simple(plain, 1.0)),
        "linear" => {
            let factor = need("factor")?;
            Ok(simple(plain.into_iter().map(|f| f / factor).collect(), 1.0))
        }
        "llama3" => Ok(simple(
            llama3(
                &plain,
                need("factor")?,
                need("low_freq_factor")?,
                need("high_freq_factor")?,
                original()?,
            ),
            1.0,
        )),
        "yarn" => {
            let original = original()?;
            let factor = number("factor").unwrap_or_else(|| ratio(raw, original));
            let scale = number("attention_factor").unwrap_or_else(|| {
                match (number("mscale"), number("mscale_all_dim")) {
                    (Some(m), Some(all)) if m != 0.0 && all != 0.0 => {
                        yarn_scale(factor, m) / yarn_scale(factor, all)
                    }
                    _ => yarn_scale(factor, 1.0),
                }
            });
            let beta = (
                number("beta_fast").unwrap_or(32.0),
                number("beta_slow").unwrap_or(1.0),
            );
            let truncate = parameters
                .and_then(|p| p.get("truncate"))
                .and_then(Value::as_bool)
                .unwrap_or(true);
            Ok(simple(
                yarn(&plain, theta, factor, beta, original, truncate),
                scale,
            ))
        }
        "longrope" | "su" => {
            let original = original()?;
            let factor = number("factor").unwrap_or_else(|| ratio(raw, original));
            let scale = number("attention_factor").unwrap_or_else(|| {
                if factor <= 1.0 {
                    1.0
                } else {
                    (1.0 + factor.ln() / original.ln()).sqrt()
                }
            });
            let stretched = |name: &'static str| -> Result<Vec<f32>, ModelError> {
                let factors = parameters.and_then(|p| p.get(name)).and_then(Value::as_array);
                let factors: Vec<f64> = factors.into_iter().flatten().filter_map(Value::as_f64).collect();
                if factors.len() != plain.len() {
                    return Err(ModelError::Unsupported {
                        field: name,
                        value: format!("{} numbers", factors.len()),
                        hint: "one for each pair of a head's features that turn is needed",
                    });
                }
                Ok(plain.iter().zip(&factors).map(|(f, d)| (f / d) as f32).collect())
            };
            Ok(Rope {
                inv_freq: stretched("short_factor")?,
                long_inv_freq: Some(stretched("long_factor")?),
                short_context: original as usize,
                scale: scale as f32,
            })
        }
        other => Err(ModelError::Unsupported {
            field: "rope_type",
            value: other.to_owned(),
            hint: "default, linear, llama3, yarn and longrope are",
        }),
    }
}

fn ratio(raw: &Raw, original: f64) -> f64 {
    raw.max_position_embeddings.map_or(1.0, |n| n as f64 / original)
}

/// Llama 3.1's scaling: long wavelengths by `factor`, short ones not, with a ramp in between.
fn llama3(plain: &[f64], factor: f64, low: f64, high: f64, original: f64) -> Vec<f64> {
    plain
        .iter()
        .map(|&f| {
            let wave = 2.0 * PI / f;
            if wave < original / high {
                f
            } else if wave > original / low {
                f / factor
            } else {
                let smooth = (original / wave - low) / (high - low);
                (1.0 - smooth) * f / factor + smooth * f
            }
        })
        .collect()
}

/// YaRN (Peng et al. 2023, arXiv 2309.00071): interpolates slow pairs by `factor` and keeps fast
/// ones, with a ramp between the pairs that turn `beta_fast` and `beta_slow` times in the original
/// context.
fn yarn(plain: &[f64], theta: f64, factor: f64, beta: (f64, f64), original: f64, truncate: bool) -> Vec<f64> {
    let dim = 2.0 * plain.len() as f64;
    let pair_of = |turns: f64| dim * (original / (turns * 2.0 * PI)).ln() / (2.0 * theta.ln());
    let (mut low, mut high) = (pair_of(beta.0), pair_of(beta.1));
    if truncate {
        (low, high) = (low.floor(), high.ceil());
    }
    let (low, mut high) = (low.max(0.0), high.min(dim - 1.0));
    if low == high {
        high += 0.001;
    }
    plain
        .iter()
        .enumerate()
        .map(|(i, &f)| {
            let interpolated = ((i as f64 - low) / (high - low)).clamp(0.0, 1.0);
            f / factor * interpolated + f * (1.0 - interpolated)
        })
        .collect()
}

fn yarn_scale(factor: f64, m: f64) -> f64 {
    if factor <= 1.0 {
        1.0
    } else {
        0.1 * m * factor.ln() + 1.0
    }
}
