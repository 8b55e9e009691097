//! From a name and tokens to an accepted request: which model answers, and whether there is room.

use std::{fmt, sync::Arc};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use multigraft_adapters::{AdapterError, Adding, Entry, Lookup, Source};
use multigraft_engine::{Request, SubmitError};
use multigraft_model::PackedAdapter;
use tokio::time::timeout;

use crate::{
    Dialect,
    answers::{self, Answers},
    error::{ApiError, served},
    fields::Fields,
    state::AppState,
};

/// The response header that names the adapter (or the base) that answered.
pub(crate) const ADAPTER_HEADER: HeaderName = HeaderName::from_static("x-multigraft-adapter");
/// The response header with the content hash of that adapter; `base` for the base.
pub(crate) const HASH_HEADER: HeaderName = HeaderName::from_static("x-multigraft-adapter-hash");

/// The name that TGI's OpenAI routes and its clients use for whatever base is served.
const TGI_NAME: &str = "tgi";

/// The model that answers a request: the base or an adapter as it was when the request came in. Replacing or
/// removing the name afterwards does not change it.
#[derive(Clone)]
pub(crate) struct Served {
    /// Its name.
    pub name: String,
    /// The adapter's content hash in hexadecimal, or `base`.
    pub hash: String,
    /// The adapter; `None` is the base.
    pub adapter: Option<Arc<PackedAdapter>>,
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.hash)
    }
}

impl Served {
    /// OpenAI's `system_fingerprint`: what computed the answer.
    pub(crate) fn fingerprint(&self) -> String {
        format!("multigraft-{}", self.hash)
    }

    /// Says in the headers which model answered.
    pub(crate) fn label(&self, headers: &mut HeaderMap) {
        // Names may be anything that a folder can be called; what a header cannot hold is left to the hash.
        if let Ok(name) = HeaderValue::from_bytes(self.name.as_bytes()) {
            headers.insert(ADAPTER_HEADER, name);
        }
        if let Ok(hash) = HeaderValue::from_str(&self.hash) {
            headers.insert(HASH_HEADER, hash);
        }
    }
}

impl From<Entry> for Served {
    fn from(entry: Entry) -> Self {
        Self {
            hash: entry.hash.to_string(),
            name: entry.name,
            adapter: Some(entry.packed),
        }
    }
}

impl AppState {
    /// All names that exist, the base's first.
    pub(crate) fn names(&self) -> Vec<String> {
        let mut names = vec![self.registry.base().to_owned()];
        names.extend(self.registry.names());
        names
    }

    fn base_model(&self) -> Served {
        Served {
            name: self.registry.base().to_owned(),
            hash: "base".to_owned(),
            adapter: None,
        }
    }

    /// Whether the base answers to `name`: to its own, to the empty one, as in LoRAX, and to `tgi`, as in TGI; nothing
    /// else is ever answered by the base.
    fn is_base(&self, name: &str) -> bool {
        name == self.registry.base() || name.is_empty() || name == TGI_NAME
    }

    /// Whether `name` is served at all.
    pub(crate) fn check_name(&self, name: &str) -> Result<(), ApiError> {
        match self.is_base(name) || self.registry.contains(name) || self.sources.resolve(name).is_ok() {
            true => Ok(()),
            false => Err(ApiError::unknown_model(name, self.names())),
        }
    }

    /// The model that answers to `name`. Waits for an adapter that has to be loaded first.
    pub(crate) async fn model(&self, name: &str) -> Result<Served, ApiError> {
        if self.is_base(name) {
            return Ok(self.base_model());
        }
        let unavailable = |error| ApiError::unavailable(name, &error);
        let found = match self.registry.get(name) {
            Lookup::Unknown => self.first_use(name)?,
            found => found,
        };
        match found {
            Lookup::Ready(entry) => Ok(entry.into()),
            Lookup::Loading(waiting) => {
                let wait = self.limits.load_wait;
                match timeout(wait, waiting.outcome()).await {
                    Ok(Ok(entry)) => Ok(entry.into()),
                    Ok(Err(error)) => Err(unavailable(error)),
                    Err(_) => Err(ApiError::StillLoading {
                        name: name.to_owned(),
                        waited: wait,
                    }),
                }
            }
            Lookup::Unavailable(error) => Err(unavailable(error)),
            Lookup::Unknown => Err(ApiError::unknown_model(name, self.names())),
        }
    }

    /// An adapter that nobody added, but which is called as an allowed source is: it is added now.
    fn first_use(&self, name: &str) -> Result<Lookup, ApiError> {
        let Ok(at) = self.sources.resolve(name) else {
            return Ok(Lookup::Unknown);
        };
        let source = Source {
            name: name.to_owned(),
            at,
        };
        match self.registry.add(&source, Adding::default()) {
            Ok(waiting) => Ok(Lookup::Loading(waiting)),
            // Another request was a moment earlier.
            Err(AdapterError::DuplicateName { .. } | AdapterError::BeingLoaded { .. }) => {
                Ok(self.registry.get(name))
            }
            Err(error) => Err(ApiError::not_added(&error)),
        }
    }

    /// The name in an OpenAI request's `model`, which has to be one that is served.
    pub(crate) fn openai_name(&self, fields: &mut Fields) -> Result<String, ApiError> {
        match with_source(fields.string("model")?, fields)? {
            Some(name) => self.check_name(&name).map(|()| name),
            None => {
                let message = format!("`model` is missing. {}", served(&self.names()));
                Err(ApiError::invalid("model", message))
            }
        }
    }

    /// The tokens to generate where a request does not say how many.
    pub(crate) fn default_max_tokens(&self, prompt: usize) -> usize {
        self.engine
            .limits()
            .room_after(prompt)
            .min(self.limits.default_max_tokens)
    }

    /// Refuses a prompt that cannot fit before it is copied for each of its choices.
    pub(crate) fn check_room(
        &self,
        prompt: usize,
        max_tokens: usize,
        dialect: Dialect,
    ) -> Result<(), ApiError> {
        self.engine
            .limits()
            .check_room(prompt, max_tokens)
            .map_err(|error| refusal(error, dialect))
    }

    /// Hands the choices to the engine, all or none.
    pub(crate) fn submit(&self, choices: Vec<Request>, dialect: Dialect) -> Result<Answers, ApiError> {
        let limits = self.engine.limits();
        for request in &choices {
            request.check(&limits).map_err(|error| refusal(error, dialect))?;
        }
        let (sinks, answers) = answers::channel(choices.len());
        for (request, sink) in choices.into_iter().zip(sinks) {
            // If a later choice is refused, `answers` is dropped and the engine lets the earlier ones go.
            self.engine
                .submit(request, Box::new(sink))
                .map_err(|error| refusal(error, dialect))?;
        }
        Ok(answers)
    }
}

/// The name of an adapter, or of its source if LoRAX's `adapter_source` says what kind of source it is.
pub(crate) fn with_source(name: Option<String>, fields: &mut Fields) -> Result<Option<String>, ApiError> {
    let source = fields
        .string("adapter_source")?
        .filter(|source| !source.is_empty());
    let (Some(name), Some(source)) = (&name, source) else {
        return Ok(name);
    };
    let scheme = match source.as_str() {
        "local" => return Ok(Some(name.clone())),
        "hub" => "hf",
        "s3" => "s3",
        _ => return Err(fields.complain("adapter_source", "must be `hub`, `local` or `s3`")),
    };
    Ok(Some(match name.contains("://") || name.is_empty() {
        true => name.clone(),
        false => format!("{scheme}://{name}"),
    }))
}

/// The engine's refusal in the words and field names of the request.
fn refusal(error: SubmitError, dialect: Dialect) -> ApiError {
    let (prompt, max_tokens, within) = match dialect {
        Dialect::OpenAi => ("prompt", "max_tokens", ""),
        Dialect::Tgi => ("inputs", "parameters.max_new_tokens", "parameters."),
    };
    let message = error.to_string();
    match error {
        SubmitError::EmptyPrompt | SubmitError::UnknownToken { .. } => ApiError::invalid(prompt, message),
        SubmitError::UnknownBiasToken { .. } => ApiError::invalid(format!("{within}logit_bias"), message),
        SubmitError::TooLongForContext {
            prompt,
            max_tokens: asked,
            context: limit,
        }
        | SubmitError::TooLongForCache {
            prompt,
            max_tokens: asked,
            cache: limit,
        } => {
            let message = format!(
                "the prompt has {prompt} tokens and `{max_tokens}` is {asked}: together more than the {limit} tokens \
                 that a sequence may have here"
            );
            ApiError::invalid(max_tokens, message)
        }
        SubmitError::TooManyLogprobs { field, .. } => ApiError::invalid(format!("{within}{field}"), message),
        SubmitError::EmptyStopString
        | SubmitError::StopStringTooLong { .. }
        | SubmitError::TooManyStops { .. } => ApiError::invalid(format!("{within}stop"), message),
        SubmitError::Sampling(error) => {
            let field = format!("{within}{}", error.field);
            let message = format!("`{field}` is {}, but must be {}", error.value, error.range);
            ApiError::invalid(field, message)
        }
        SubmitError::QueueFull { .. } => ApiError::Overloaded(message),
        SubmitError::Stopped => ApiError::ShuttingDown,
    }
}
