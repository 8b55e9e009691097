//! The defaults of an adapter: sampling, stop strings, length, system message and chat template for
//! requests that leave them out.

use std::sync::Arc;

use multigraft_text::ChatTemplate;
use serde_json::{Map, Value};

use super::choice::ModelChoice;
use crate::{
    caller::session::Session,
    contract::{
        self,
        fields::{
            Body,
            openai::{MAX_COMPLETION_TOKENS, MAX_TOKENS, TEMPERATURE},
        },
    },
    http::{error::ApiError, fields::Fields},
};

/// The system message of chats that have none.
pub(crate) const SYSTEM: &str = "system";
/// The chat template in place of that of the adapter's folder or the base.
pub(crate) const TEMPLATE: &str = "chat_template";

/// The defaults of one adapter. They were checked when they were set.
#[derive(Clone, Debug, Default)]
pub(crate) struct Defaults(Option<Arc<Map<String, Value>>>);

impl Defaults {
    /// The system message.
    pub(crate) fn system(&self) -> Option<&str> {
        self.0.as_ref()?.get(SYSTEM)?.as_str()
    }

    /// The chat template that applies: that of the defaults, else `adapter_template`, which is that
    /// of the adapter's folder, else the base's.
    pub(crate) fn template(
        &self,
        adapter_template: Option<&Arc<ChatTemplate>>,
        state: &Session,
    ) -> Result<Option<Arc<ChatTemplate>>, ApiError> {
        let Some(source) = self.0.as_ref().and_then(|set| set.get(TEMPLATE)?.as_str()) else {
            return Ok(adapter_template.or(state.template()).map(Arc::clone));
        };
        // The template compiled when it was set, but perhaps in another version of this program.
        let set = ChatTemplate::new(source).map_err(|error| {
            let message =
                format!("the `{TEMPLATE}` among the adapter's defaults cannot be used: {error}; set another");
            ApiError::Failed(message)
        })?;
        Ok(Some(Arc::new(set)))
    }

    /// Fills in what the fields of `body` leave out. In TGI's `parameters` a temperature of 0 is
    /// left out: there any temperature asks for sampling.
    pub(crate) fn fill(&self, fields: &mut Fields, body: Body) {
        let Some(set) = &self.0 else { return };
        for field in contract::fields::of(body) {
            let Some(value) = field.default.and_then(|name| set.get(name)) else {
                continue;
            };
            let is_given =
                fields.has(field) || (field.name == MAX_TOKENS.name && fields.has(MAX_COMPLETION_TOKENS));
            let is_greedy =
                body == Body::Parameters && field.name == TEMPERATURE.name && value.as_f64() == Some(0.0);
            if !is_given && !is_greedy {
                fields.set(field, value.clone());
            }
        }
    }
}

impl Session {
    /// The defaults of the adapter that a request chooses. Several adapters together have none.
    pub(crate) fn defaults(&self, choice: &ModelChoice) -> Defaults {
        let adapters = self.adapters();
        match choice {
            ModelChoice::One { name, .. } if adapters.contains(name) => Defaults(adapters.defaults(name)),
            // Every spelling of a source leads to the same registered name.
            ModelChoice::One { name, .. } => {
                let source = adapters.source(name);
                Defaults(source.and_then(|(name, _)| adapters.defaults(&name)))
            }
            ModelChoice::Merged { .. } => Defaults::default(),
        }
    }
}
