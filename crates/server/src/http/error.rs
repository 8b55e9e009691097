//! Everything that a request can be answered with instead of tokens.

use std::{fmt::Write as _, io::ErrorKind, time::Duration};

use axum::extract::Request;
use multigraft_adapters::{AdapterError, LoadError};
use multigraft_peft::ReadError;
use multigraft_sources::{FetchError, SourceError};

use crate::contract::route::Route;

/// How many names an error lists before it says how many more there are.
const LISTED_NAMES: usize = 20;

/// How long a client should wait before it tries again when the queue is full. The queue moves at
/// the pace of whole answers, so anything shorter only adds load.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The longest that clients are told to stay away.
const LONGEST: Duration = Duration::from_secs(3600);

/// Why a request got no answer. A [dialect](crate::Dialect) words it.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ApiError {
    /// A field is missing, malformed, out of range or not supported.
    #[error("{message}")]
    Invalid {
        /// The field, as the request names it; `None` if it is the body as a whole.
        field: Option<String>,
        /// What is wrong, and what would be right.
        message: String,
    },
    /// The request names a model that is not served.
    #[error("The model `{name}` does not exist. {}", served(.known))]
    UnknownModel {
        /// The name it asked for.
        name: String,
        /// The names that exist, the base first.
        known: Vec<String>,
    },
    /// No route at this path.
    #[error("there is nothing at {path}; the routes are listed in the documentation")]
    UnknownRoute {
        /// The path of the request.
        path: String,
    },
    /// The route exists, but not for this method.
    #[error("{path} does not answer to {method}, only to {allowed}")]
    MethodNotAllowed {
        /// The path of the request.
        path: String,
        /// The method of the request.
        method: String,
        /// The methods it answers to, comma-separated.
        allowed: String,
    },
    /// The body is larger than the server accepts.
    #[error("the request body is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The path and the query are longer than the server accepts.
    #[error("the path with its query has {length} bytes, more than the limit of {limit}")]
    LongUri {
        /// What they have, in bytes.
        length: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The body comes too slowly to be waited for.
    #[error("the request body comes too slowly; the connection is closed")]
    TooSlow,
    /// There are as many connections as there may be.
    #[error("the server has {most} connections, as many as it takes (`--max-connections`); try again later")]
    Busy {
        /// How many.
        most: usize,
    },
    /// The body is not declared as JSON.
    #[error("the body must be JSON and be declared so: send the header `content-type: application/json`")]
    NotJson,
    /// The queue is full.
    #[error("{message}")]
    Overloaded {
        /// What is full.
        message: String,
        /// When there may be room, if that is known.
        retry_after: Option<Duration>,
    },
    /// The key has used up its month.
    #[error("{message}")]
    Quota {
        /// What is used up.
        message: String,
        /// How long it is until the next month.
        retry_after: Duration,
    },
    /// The adapter that was asked for cannot be had.
    #[error("adapter `{name}` is not available: {reason}")]
    Unavailable {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
        /// When to ask again, if that can help.
        retry_after: Option<Duration>,
    },
    /// The adapter that was asked for is being loaded for longer than requests wait.
    #[error("adapter `{name}` is still being loaded after {} s; try again later", waited.as_secs_f64())]
    StillLoading {
        /// Its name.
        name: String,
        /// How long the request waited.
        waited: Duration,
    },
    /// The key is missing or opens nothing.
    #[error("{0}")]
    Unauthorized(String),
    /// What was asked for is not allowed.
    #[error("{0}")]
    Forbidden(String),
    /// A change of the adapters that cannot be made: the name is taken, the files cannot be served.
    #[error("{0}")]
    Unusable(String),
    /// The name is another's.
    #[error("{0}")]
    Conflict(String),
    /// There is no adapter or key of that name, or none at that place.
    #[error("{0}")]
    NoAdapter(String),
    /// There is nothing of that id.
    #[error("{0}")]
    NotFound(String),
    /// The adapter was removed, and its requests with it.
    #[error("{0}")]
    Gone(String),
    /// The request was not done in its time.
    #[error("the request was not done within {} s, which is all it had (`x-request-timeout`, or the server's `--request-timeout`)", allowed.as_secs_f64())]
    TimedOut {
        /// How long it had.
        allowed: Duration,
    },
    /// The server is shutting down.
    #[error("the server is shutting down and takes no new requests")]
    ShuttingDown,
    /// The request was accepted and then failed.
    #[error("{0}")]
    Failed(String),
}

impl ApiError {
    /// `field` is wrong; `message` says how, as a sentence.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid {
            field: Some(field.into()),
            message: message.into(),
        }
    }

    /// The body as a whole is wrong.
    pub fn malformed(message: impl Into<String>) -> Self {
        Self::Invalid {
            field: None,
            message: message.into(),
        }
    }

    /// `field` is part of the dialect, but `what` is not supported here.
    pub fn unsupported(field: impl Into<String>, what: &str) -> Self {
        let field = field.into();
        let message = format!("`{field}`: {what} is not supported yet");
        Self::invalid(field, message)
    }

    /// No route has the path of `request`.
    pub(crate) fn unknown_route(request: &Request) -> Self {
        Self::UnknownRoute {
            path: request.uri().path().to_owned(),
        }
    }

    /// `route` does not answer the method of `request`.
    pub(crate) fn method_not_allowed(request: &Request, route: &Route) -> Self {
        Self::MethodNotAllowed {
            path: request.uri().path().to_owned(),
            method: request.method().to_string(),
            allowed: route.allowed(),
        }
    }

    /// Adapter `name` could not be loaded.
    pub(crate) fn unavailable(name: &str, error: &LoadError) -> Self {
        match error {
            LoadError::TooManyWait { .. } => Self::overloaded(error.to_string()),
            LoadError::Stopped => Self::ShuttingDown,
            LoadError::Removed => Self::removed(name),
            LoadError::BackedOff { retry_after, .. } => Self::Unavailable {
                name: name.to_owned(),
                reason: error.to_string(),
                retry_after: Some(*retry_after),
            },
            LoadError::NoRoom { .. } | LoadError::NoBudget { .. } => Self::Unavailable {
                name: name.to_owned(),
                reason: error.to_string(),
                retry_after: Some(RETRY_AFTER),
            },
            LoadError::Merge(_) | LoadError::Failed(_) | LoadError::Store(_) | LoadError::Panicked => {
                Self::Unavailable {
                    name: name.to_owned(),
                    reason: error.to_string(),
                    retry_after: None,
                }
            }
        }
    }

    /// Adapter `name` was removed while a request for it was under way.
    pub(crate) fn removed(name: &str) -> Self {
        Self::Gone(format!(
            "adapter `{name}` was removed before this request was done"
        ))
    }

    /// Why an adapter was not added.
    pub(crate) fn not_added(error: &AdapterError) -> Self {
        let message = error.to_string();
        match error {
            AdapterError::NotAllowed { .. } => Self::Forbidden(message),
            AdapterError::Read(ReadError::NoConfig { .. } | ReadError::NoWeights { .. })
            | AdapterError::Source(SourceError::Fetch {
                reason: FetchError::NoRepository | FetchError::Missing { .. },
                ..
            }) => Self::NoAdapter(message),
            AdapterError::Read(ReadError::Io { source, .. })
            | AdapterError::Source(SourceError::Folder { source, .. })
                if source.kind() == ErrorKind::NotFound =>
            {
                Self::NoAdapter(message)
            }
            _ => Self::Unusable(message),
        }
    }

    /// `name` is not among the `known` names.
    pub fn unknown_model(name: &str, known: impl IntoIterator<Item = String>) -> Self {
        Self::UnknownModel {
            name: name.to_owned(),
            known: known.into_iter().collect(),
        }
    }

    /// The field at fault, if it is one field's.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Invalid { field, .. } => field.as_deref(),
            Self::UnknownModel { .. } => Some("model"),
            _ => None,
        }
    }

    /// Something is full, and nobody knows for how long.
    pub(crate) fn overloaded(message: String) -> Self {
        Self::Overloaded {
            message,
            retry_after: None,
        }
    }

    /// How long to wait before trying again, if trying again can help.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Overloaded { retry_after, .. } => {
                Some(retry_after.map_or(RETRY_AFTER, |after| after.clamp(RETRY_AFTER, LONGEST)))
            }
            Self::ShuttingDown | Self::StillLoading { .. } | Self::Busy { .. } => Some(RETRY_AFTER),
            Self::Quota { retry_after, .. } => Some(*retry_after),
            Self::Unavailable { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// A sentence that lists what is served.
pub(crate) fn served(known: &[String]) -> String {
    if known.is_empty() {
        return "This key may use nothing that is here.".to_owned();
    }
    let mut sentence = String::from("This server has ");
    for (index, name) in known.iter().take(LISTED_NAMES).enumerate() {
        let comma = if index == 0 { "" } else { ", " };
        // Writing to a string cannot fail.
        let _ = write!(sentence, "{comma}`{name}`");
    }
    if known.len() > LISTED_NAMES {
        let _ = write!(
            sentence,
            " and {} more (see /v1/models)",
            known.len() - LISTED_NAMES
        );
    }
    sentence.push('.');
    sentence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_list_of_names_is_cut() {
        let names: Vec<String> = (0..25).map(|index| format!("a{index}")).collect();
        let sentence = served(&names);
        assert!(sentence.contains("`a19` and 5 more"), "{sentence}");
        assert!(!sentence.contains("`a20`"), "{sentence}");
    }

    #[test]
    fn what_is_not_supported_names_its_field() {
        let error = ApiError::unsupported("tools", "calling tools");
        assert_eq!(error.field(), Some("tools"));
        assert_eq!(error.to_string(), "`tools`: calling tools is not supported yet");
    }
}
