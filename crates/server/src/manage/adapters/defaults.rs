//! Validation of the defaults of an adapter.

use multigraft_engine::Request;
use multigraft_text::ChatTemplate;
use serde_json::{Map, Value};

use crate::{
    caller::session::Session,
    contract::{self, fields::Body},
    generation::{
        defaults::{SYSTEM, TEMPLATE},
        refusal::refusal,
    },
    http::{dialect::Dialect, error::ApiError, fields::Fields},
    openai::parameters::Parameters,
};

/// Validates defaults like the fields of a request.
pub(super) fn check(mut fields: Fields, session: &Session) -> Result<Map<String, Value>, ApiError> {
    let values = fields.clone().into_rest();
    fields.string(SYSTEM)?;
    if let Some(source) = fields.string(TEMPLATE)? {
        let compiled = ChatTemplate::new(&source);
        compiled.map_err(|error| fields.complain(TEMPLATE, &format!("cannot be used: {error}")))?;
    }
    let names: Vec<&str> = contract::fields::defaults().chain([SYSTEM, TEMPLATE]).collect();
    for name in values.keys() {
        if !names.contains(&name.as_str()) {
            return Err(fields.complain(name, &format!("has no default; these can: {}", names.join(", "))));
        }
    }
    let parameters = Parameters::take(&mut fields, Body::Completion, session.limits())?;
    fields.finish()?;
    // The engine checks every request in the same way.
    let request = Request {
        sampling: parameters.sampling,
        stop: parameters.stop,
        ..Request::new(vec![0], parameters.max_tokens.unwrap_or(1))
    };
    let checked = request.check(&session.engine().limits());
    checked.map_err(|error| refusal(error, Dialect::OpenAi))?;
    Ok(values.into_iter().filter(|(_, value)| !value.is_null()).collect())
}
