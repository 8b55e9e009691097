//! Which adapter a request asks for, and how it is used.

use std::collections::BTreeMap;

use crate::{
    error::{ApiError, served},
    fields::Fields,
    state::AppState,
};

/// The field that says what an adapter's updates are multiplied by.
const SCALE: &str = "adapter_scale";

/// llama.cpp's field: adapters by number, each with its scale.
const BY_NUMBER: &str = "lora";

/// What is wrong with a number that is no finite 32-bit float.
const TOO_LARGE: &str = "is larger than a 32-bit float can be";

/// A name and how what it stands for is used.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    /// The base's or an adapter's.
    pub name: String,
    /// What the adapter's updates are multiplied by.
    pub scale: f32,
    /// The field that says so, as messages spell it.
    pub scale_field: String,
}

impl Asked {
    /// `model` and what else chooses an adapter in OpenAI's dialect. `model` has to be served; it may be absent where
    /// llama.cpp's `lora` is there, whose clients have nothing to say in it.
    pub(crate) fn openai(state: &AppState, fields: &mut Fields) -> Result<Self, ApiError> {
        let model = fields.string("model")?;
        if let Some(entries) = fields.objects(BY_NUMBER)? {
            let name = model.unwrap_or_default();
            state.check_name(&name)?;
            if !state.is_base(&name) {
                let problem =
                    format!("chooses adapters, but `model` asks for `{name}` already; leave one of them out");
                return Err(fields.complain(BY_NUMBER, &problem));
            }
            return Self::numbered(state, fields, entries);
        }
        let Some(name) = model else {
            let message = format!("`model` is missing. {}", served(&state.names()));
            return Err(ApiError::invalid("model", message));
        };
        let asked = Self::scaled(name, fields)?;
        asked.check(state)?;
        Ok(asked)
    }

    /// llama.cpp's way: ids are places in the list of `GET /lora-adapters`, and what is not listed has the scale 0.
    fn numbered(state: &AppState, fields: &mut Fields, entries: Vec<Fields>) -> Result<Self, ApiError> {
        if fields.take(SCALE).is_some() {
            let problem = format!("is not allowed with `{BY_NUMBER}`, which has scales of its own");
            return Err(fields.complain(SCALE, &problem));
        }
        let names = state.registry.names();
        let mut scales = BTreeMap::new();
        for mut entry in entries {
            let Some(id) = entry.count("id")? else {
                return Err(entry.complain("id", "is missing"));
            };
            let Some(scale) = entry.number("scale")? else {
                return Err(entry.complain("scale", "is missing"));
            };
            if !scale.is_finite() {
                return Err(entry.complain("scale", TOO_LARGE));
            }
            let index = usize::try_from(id).ok().filter(|&index| index < names.len());
            let Some(index) = index else {
                let count = names.len();
                let problem =
                    format!("is {id}, but GET /lora-adapters lists {count} adapters, counted from 0");
                return Err(entry.complain("id", &problem));
            };
            if scales.insert(index, scale).is_some() {
                return Err(entry.complain("id", &format!("is {id}, as in an entry before it")));
            }
            entry.finish()?;
        }
        let mut used = scales.into_iter().filter(|&(_, scale)| scale != 0.0);
        let (name, scale) = match (used.next(), used.next()) {
            (None, _) => (String::new(), 1.0),
            (Some((index, scale)), None) => (names[index].clone(), scale),
            (Some(_), Some(_)) => {
                return Err(ApiError::unsupported(BY_NUMBER, "using several adapters at once"));
            }
        };
        Ok(Self {
            name,
            scale,
            scale_field: fields.path(BY_NUMBER),
        })
    }

    /// `adapter_id` and what else chooses an adapter in TGI's dialect; without it, the base.
    pub(crate) fn tgi(parameters: &mut Fields) -> Result<Self, ApiError> {
        let name = parameters.string("adapter_id")?.unwrap_or_default();
        Self::scaled(name, parameters)
    }

    fn scaled(name: String, fields: &mut Fields) -> Result<Self, ApiError> {
        let scale = fields.number(SCALE)?.unwrap_or(1.0);
        if !scale.is_finite() {
            return Err(fields.complain(SCALE, TOO_LARGE));
        }
        Ok(Self {
            name,
            scale,
            scale_field: fields.path(SCALE),
        })
    }

    /// Whether there is such a model, and it has a scale if one is given.
    pub(crate) fn check(&self, state: &AppState) -> Result<(), ApiError> {
        state.check_name(&self.name)?;
        match self.scale != 1.0 && state.is_base(&self.name) {
            true => {
                let Self {
                    scale, scale_field, ..
                } = self;
                let message = format!(
                    "`{scale_field}` is {scale}, but the request asks for the base, which has no scale"
                );
                Err(ApiError::invalid(scale_field.as_str(), message))
            }
            false => Ok(()),
        }
    }
}
