//! The model that a request chooses: the base, an adapter, or several adapters together.

use std::collections::BTreeMap;

use multigraft_peft::{MERGE_LIMIT, MajoritySign, MergeMethod};

use crate::{
    caller::session::Session,
    contract::{
        fields::{
            Field, openai as row,
            openai::{ADAPTER_SCALE, ADAPTERS, LORA},
            tgi,
            tgi::MERGED_ADAPTERS,
        },
        limits::Limits,
    },
    http::{
        error::{ApiError, served},
        fields::Fields,
    },
};

/// The problem with a number that is not finite as a 32-bit float.
const TOO_LARGE: &str = "is larger than a 32-bit float can be";

/// The model that is to answer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum ModelChoice {
    /// The base or an adapter.
    One {
        /// Its name.
        name: String,
        /// What the adapter's updates are multiplied by.
        scale: f32,
        /// The field that gives the scale, as messages spell it.
        field: String,
    },
    /// Several adapters that become one.
    Merged {
        /// How they are merged.
        method: MergeMethod,
        /// Their names and weights.
        parts: Vec<(String, f64)>,
        /// The field that names them, as messages spell it.
        field: String,
    },
}

impl ModelChoice {
    /// The base.
    pub(crate) fn base() -> Self {
        Self::model(String::new())
    }

    /// The model called `name`, in a request that cannot choose in another way.
    pub(crate) fn model(name: String) -> Self {
        Self::One {
            name,
            scale: 1.0,
            field: "model".to_owned(),
        }
    }

    /// The field that errors about the choice name.
    pub(crate) fn field(&self) -> &str {
        match self {
            Self::One { field, .. } | Self::Merged { field, .. } => field,
        }
    }

    /// Reads `model` and the other fields that choose adapters in OpenAI's dialect. `model` must be
    /// served. If another field chooses, `model` names the base or is absent, as in llama.cpp's
    /// clients.
    pub(crate) fn openai(state: &Session, fields: &mut Fields) -> Result<Self, ApiError> {
        let model = with_source(fields.string(row::MODEL)?, fields)?;
        let numbered = fields.objects(LORA)?;
        let several = fields.objects(ADAPTERS)?;
        let field = match (&numbered, &several) {
            (Some(_), Some(_)) => return Err(conflict(fields, &ADAPTERS, &LORA)),
            (Some(_), None) => LORA,
            (None, Some(_)) => ADAPTERS,
            (None, None) => {
                let Some(name) = model else {
                    let message = format!("`model` is missing. {}", served(&state.names()));
                    return Err(ApiError::invalid("model", message));
                };
                let choice = Self::scaled(name, fields)?;
                choice.check(state)?;
                return Ok(choice);
            }
        };
        // A key that may use adapters may combine them, even if it may not use the base.
        if let Some(name) = &model {
            state.check_name(name)?;
        }
        let name = model.unwrap_or_default();
        if !state.is_base(&name) {
            let problem =
                format!("chooses adapters, but `model` asks for `{name}` already; leave one of them out");
            return Err(fields.complain(field, &problem));
        }
        refuse_scale(fields, &field)?;
        let choice = match (numbered, several) {
            (Some(entries), _) => Self::numbered(state, fields, entries)?,
            (None, entries) => Self::several(fields, entries.unwrap_or_default())?,
        };
        choice.check(state)?;
        Ok(choice)
    }

    /// Reads `adapter_id` and the other fields that choose adapters in TGI's dialect. Without any
    /// of them, the base is chosen.
    pub(crate) fn tgi(parameters: &mut Fields, limits: &Limits) -> Result<Self, ApiError> {
        let name = with_source(parameters.string(tgi::ADAPTER_ID)?, parameters)?.unwrap_or_default();
        let several = parameters.objects(ADAPTERS)?;
        let merged = parameters.object(MERGED_ADAPTERS)?;
        let field = match (&several, &merged) {
            (Some(_), Some(_)) => return Err(conflict(parameters, &ADAPTERS, &MERGED_ADAPTERS)),
            (Some(_), None) => ADAPTERS,
            (None, Some(_)) => MERGED_ADAPTERS,
            (None, None) => return Self::scaled(name, parameters),
        };
        if !name.is_empty() {
            return Err(conflict(parameters, &field, &tgi::ADAPTER_ID));
        }
        refuse_scale(parameters, &field)?;
        match merged {
            Some(merged) => Self::merged(parameters, merged, limits),
            None => Self::several(parameters, several.unwrap_or_default()),
        }
    }

    fn scaled(name: String, fields: &mut Fields) -> Result<Self, ApiError> {
        let scale = fields.number(&ADAPTER_SCALE)?.unwrap_or(1.0);
        if !scale.is_finite() {
            return Err(fields.complain(ADAPTER_SCALE, TOO_LARGE));
        }
        Ok(Self::One {
            name,
            scale,
            field: fields.path(ADAPTER_SCALE),
        })
    }

    /// The exact weighted sum of the adapters' updates.
    fn sum(fields: &Fields, field: &Field, mut parts: Vec<(String, f64)>) -> Result<Self, ApiError> {
        check_count(fields, field, parts.len())?;
        let field = fields.path(field);
        match (parts.pop(), parts.is_empty()) {
            #[expect(
                clippy::cast_possible_truncation,
                reason = "weights are checked to be finite then"
            )]
            (Some((name, weight)), true) => Ok(Self::One {
                name,
                scale: weight as f32,
                field,
            }),
            (last, _) => {
                parts.extend(last);
                let method = MergeMethod::Sum;
                Ok(Self::Merged { method, parts, field })
            }
        }
    }

    fn several(fields: &Fields, entries: Vec<Fields>) -> Result<Self, ApiError> {
        let mut parts = Vec::with_capacity(entries.len());
        for mut entry in entries {
            let name = entry.required(row::WEIGHTED_ID)?;
            let weight = entry.precise(row::WEIGHT)?.unwrap_or(1.0);
            if !fits(weight) {
                return Err(entry.complain(row::WEIGHT, TOO_LARGE));
            }
            entry.finish()?;
            parts.push((name, weight));
        }
        Self::sum(fields, &ADAPTERS, parts)
    }

    /// llama.cpp's `lora`: ids are indices in the list of `GET /lora-adapters`; adapters that are
    /// not named have the scale 0.
    fn numbered(state: &Session, fields: &Fields, entries: Vec<Fields>) -> Result<Self, ApiError> {
        let names = state.adapters().names();
        let mut scales = BTreeMap::new();
        for mut entry in entries {
            let Some(id) = entry.unsigned(row::NUMBERED_ID)? else {
                return Err(entry.complain(row::NUMBERED_ID, "is missing"));
            };
            let Some(scale) = entry.precise(row::SCALE)? else {
                return Err(entry.complain(row::SCALE, "is missing"));
            };
            if !fits(scale) {
                return Err(entry.complain(row::SCALE, TOO_LARGE));
            }
            let index = usize::try_from(id).ok().filter(|&index| index < names.len());
            let Some(index) = index else {
                let count = names.len();
                let problem =
                    format!("is {id}, but GET /lora-adapters lists {count} adapters, counted from 0");
                return Err(entry.complain(row::NUMBERED_ID, &problem));
            };
            if scales.insert(index, scale).is_some() {
                return Err(entry.complain(row::NUMBERED_ID, &format!("is {id}, as in an entry before it")));
            }
            entry.finish()?;
        }
        let used = scales.into_iter().filter(|&(_, scale)| scale != 0.0);
        let parts: Vec<(String, f64)> = used.map(|(index, scale)| (names[index].clone(), scale)).collect();
        match parts.is_empty() {
            true => Ok(Self::base()),
            false => Self::sum(fields, &LORA, parts),
        }
    }

    /// LoRAX's `merged_adapters`: the numbers of PEFT's `add_weighted_adapter`. Without weights,
    /// all are 1.
    fn merged(parameters: &Fields, mut merged: Fields, limits: &Limits) -> Result<Self, ApiError> {
        let names = merged.strings(&tgi::MERGED_IDS, limits)?;
        check_count(parameters, &MERGED_ADAPTERS, names.len())?;
        let weights = match merged.list(tgi::MERGED_WEIGHTS)? {
            None => vec![1.0; names.len()],
            Some(weights) => {
                let weights = weights
                    .iter()
                    .map(|weight| weight.as_f64().filter(|&weight| fits(weight)));
                let weights: Option<Vec<f64>> = weights.collect();
                weights.ok_or_else(|| merged.complain(tgi::MERGED_WEIGHTS, "must be a list of numbers"))?
            }
        };
        if weights.len() != names.len() {
            let problem = format!("has {} entries, but `ids` has {}", weights.len(), names.len());
            return Err(merged.complain(tgi::MERGED_WEIGHTS, &problem));
        }
        let density = merged.precise(tgi::MERGED_DENSITY)?;
        let majority = match merged.one_of(&tgi::MAJORITY_SIGN_METHOD)? {
            Some("frequency") => MajoritySign::Frequency,
            _ => MajoritySign::Total,
        };
        let strategy = merged.one_of(&tgi::MERGE_STRATEGY)?;
        let dense = || match density {
            Some(density) if density > 0.0 && density <= 1.0 => Ok(density),
            Some(density) => {
                let problem = format!("is {density}, but must be above 0, at most 1");
                Err(merged.complain(tgi::MERGED_DENSITY, &problem))
            }
            None => Err(merged.complain(
                tgi::MERGED_DENSITY,
                "is missing: the fraction that is kept, above 0, at most 1",
            )),
        };
        let method = match strategy {
            Some("ties") => MergeMethod::Ties {
                density: dense()?,
                majority,
            },
            Some("dare_linear") => MergeMethod::DareLinear { density: dense()? },
            Some("dare_ties") => MergeMethod::DareTies {
                density: dense()?,
                majority,
            },
            _ => MergeMethod::Linear,
        };
        merged.finish()?;
        Ok(Self::Merged {
            method,
            parts: names.into_iter().zip(weights).collect(),
            field: parameters.path(MERGED_ADAPTERS),
        })
    }

    /// Checks that every chosen model is served, and that only adapters have a scale or weight.
    pub(crate) fn check(&self, state: &Session) -> Result<(), ApiError> {
        let not_the_base = |name: &str, field: &str, problem: String| match state.is_base(name) {
            true => Err(ApiError::invalid(field, format!("`{field}` {problem}"))),
            false => Ok(()),
        };
        match self {
            Self::One { name, scale, field } => {
                state.check_name(name)?;
                if *scale != 1.0 {
                    let problem =
                        format!("is {scale}, but the request asks for the base, which has no scale");
                    not_the_base(name, field, problem)?;
                }
            }
            Self::Merged { parts, field, .. } => {
                for (name, _) in parts {
                    state.check_name(name)?;
                    not_the_base(
                        name,
                        field,
                        format!("names `{name}`, which is the base and no adapter"),
                    )?;
                }
            }
        }
        Ok(())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "that is the question")]
fn fits(number: f64) -> bool {
    (number as f32).is_finite()
}

fn conflict(fields: &Fields, field: &Field, other: &Field) -> ApiError {
    fields.complain(field, &format!("is not allowed with `{}`", fields.path(other)))
}

fn refuse_scale(fields: &mut Fields, field: &Field) -> Result<(), ApiError> {
    match fields.take(ADAPTER_SCALE) {
        None => Ok(()),
        Some(_) => {
            let problem = format!("is not allowed with `{}`, which has its own", fields.path(field));
            Err(fields.complain(ADAPTER_SCALE, &problem))
        }
    }
}

fn check_count(fields: &Fields, field: &Field, count: usize) -> Result<(), ApiError> {
    match count {
        0 => Err(fields.complain(field, "names no adapter")),
        1..=MERGE_LIMIT => Ok(()),
        _ => Err(fields.complain(
            field,
            &format!("names {count} adapters, but at most {MERGE_LIMIT} can be used together"),
        )),
    }
}

/// The name of an adapter, or its source, if LoRAX's `adapter_source` gives the kind of source.
fn with_source(name: Option<String>, fields: &mut Fields) -> Result<Option<String>, ApiError> {
    // The empty text counts as absent.
    let source = fields
        .string(row::ADAPTER_SOURCE)?
        .filter(|source| !source.is_empty());
    let (Some(name), Some(source)) = (&name, source) else {
        return Ok(name);
    };
    let scheme = match fields.among(&row::ADAPTER_SOURCE, &source)? {
        "hub" => "hf",
        "s3" => "s3",
        _ => return Ok(Some(name.clone())),
    };
    Ok(Some(match name.contains("://") || name.is_empty() {
        true => name.clone(),
        false => format!("{scheme}://{name}"),
    }))
}
