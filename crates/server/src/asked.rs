//! Which adapter a request asks for, and how it is used.

use crate::{
    error::{ApiError, served},
    fields::Fields,
    state::AppState,
};

/// The field that says what an adapter's updates are multiplied by.
const SCALE: &str = "adapter_scale";

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
    /// `model` and what else chooses an adapter in OpenAI's dialect; `model` has to be there and to be served.
    pub(crate) fn openai(state: &AppState, fields: &mut Fields) -> Result<Self, ApiError> {
        let Some(name) = fields.string("model")? else {
            let message = format!("`model` is missing. {}", served(&state.names()));
            return Err(ApiError::invalid("model", message));
        };
        let asked = Self::scaled(name, fields)?;
        asked.check(state)?;
        Ok(asked)
    }

    /// `adapter_id` and what else chooses an adapter in TGI's dialect; without it, the base.
    pub(crate) fn tgi(parameters: &mut Fields) -> Result<Self, ApiError> {
        let name = parameters.string("adapter_id")?.unwrap_or_default();
        Self::scaled(name, parameters)
    }

    fn scaled(name: String, fields: &mut Fields) -> Result<Self, ApiError> {
        let scale = fields.number(SCALE)?.unwrap_or(1.0);
        if !scale.is_finite() {
            return Err(fields.complain(SCALE, "is larger than a 32-bit float can be"));
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
