//! Checks the defaults of an adapter.

use multigraft_engine::Request;
use multigraft_text::ChatTemplate;
use serde_json::{Map, Value};

use crate::{
    caller::session::Session,
    generation::{
        defaults::{REQUEST, SYSTEM, TEMPLATE},
        refusal::refusal,
    },
    http::{dialect::Dialect, error::ApiError, fields::Fields},
    openai::parameters::Parameters,
};

/// Checks defaults as a request's fields are checked.
pub(super) fn check(mut fields: Fields, state: &Session) -> Result<Map<String, Value>, ApiError> {
    let values = fields.clone().into_rest();
    fields.string(SYSTEM)?;
    if let Some(source) = fields.string(TEMPLATE)? {
        let compiled = ChatTemplate::new(&source);
        compiled.map_err(|error| fields.complain(TEMPLATE, &format!("cannot be used: {error}")))?;
    }
    for name in values.keys() {
        if ![SYSTEM, TEMPLATE].contains(&name.as_str()) && !REQUEST.contains(&name.as_str()) {
            return Err(fields.complain(
                name,
                &format!(
                    "has no default; these can: {}, {SYSTEM}, {TEMPLATE}",
                    REQUEST.join(", ")
                ),
            ));
        }
    }
    let parameters = Parameters::take(&mut fields, state.limits())?;
    fields.finish()?;
    // As every request will be.
    let request = Request {
        sampling: parameters.sampling_of(0),
        stop: parameters.stop,
        ..Request::new(vec![0], parameters.max_tokens.unwrap_or(1))
    };
    let checked = request.check(&state.engine().limits());
    checked.map_err(|error| refusal(error, Dialect::OpenAi))?;
    Ok(values.into_iter().filter(|(_, value)| !value.is_null()).collect())
}
