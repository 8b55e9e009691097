//! The errors that requests are answered with.

use std::{fmt::Write as _, io::ErrorKind, time::Duration};

use axum::extract::Request;
use multigraft_adapters::{AdapterError, LoadError};
use multigraft_peft::ReadError;
use multigraft_sources::{FetchError, SourceError};

use crate::contract::route::Route;

/// Number of model names that an error lists; further ones are only counted.
const LISTED_NAMES: usize = 20;

/// `Retry-After` when the queue is full. The queue advances when whole answers end, so retrying
/// earlier only adds load.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Longest `Retry-After`.
const LONGEST: Duration = Duration::from_secs(3600);

/// Why a request failed. A [dialect](crate::Dialect) determines the shape of the response.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ApiError {
    /// A field is missing, malformed, out of range or unsupported.
    #[error("{message}")]
    Invalid {
        /// The field, as the request names it. `None` if the whole body is invalid.
        field: Option<String>,
        /// What is wrong and which values are accepted.
        message: String,
    },
    /// The request names a model that is not served.
    #[error("The model `{name}` does not exist. {}", served(.known))]
    UnknownModel {
        /// The requested name.
        name: String,
        /// The names that the key may use, the base first.
        known: Vec<String>,
    },
    /// No route has this path.
    #[error("{path} is not a route of this server; /docs lists the routes")]
    UnknownRoute {
        /// The path of the request.
        path: String,
    },
    /// The route does not answer this method.
    #[error("{path} does not answer to {method}, only to {allowed}")]
    MethodNotAllowed {
        /// The path of the request.
        path: String,
        /// The method of the request.
        method: String,
        /// The methods that the route answers, comma-separated.
        allowed: String,
    },
    /// The body is larger than the server accepts.
    #[error("the request body is larger than the limit of {limit} bytes")]
    TooLarge {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The path with its query is longer than the server accepts.
    #[error("the path with its query has {length} bytes, more than the limit of {limit}")]
    LongUri {
        /// The length, in bytes.
        length: usize,
        /// The limit, in bytes.
        limit: usize,
    },
    /// The body arrives more slowly than [`ConnectionLimits::body`](crate::ConnectionLimits)
    /// allows.
    #[error("the request body comes too slowly; the connection is closed")]
    TooSlow,
    /// The server has the largest number of connections.
    #[error("the server has {most} connections, as many as it takes (`--max-connections`); try again later")]
    Busy {
        /// The largest number of connections.
        most: usize,
    },
    /// The body is not declared as JSON.
    #[error("the body must be JSON and be declared so: send the header `content-type: application/json`")]
    NotJson,
    /// The queue is full.
    #[error("{message}")]
    Overloaded {
        /// The limit that is reached, and what to do.
        message: String,
        /// When a retry may succeed, if that is known.
        retry_after: Option<Duration>,
    },
    /// The key has used its tokens of the month.
    #[error("{message}")]
    Quota {
        /// The quota and what was used of it.
        message: String,
        /// Time until the next month.
        retry_after: Duration,
    },
    /// The requested adapter cannot be loaded.
    #[error("adapter `{name}` is not available: {reason}")]
    Unavailable {
        /// Its name.
        name: String,
        /// Why.
        reason: String,
        /// When a retry may succeed; `None` if it cannot.
        retry_after: Option<Duration>,
    },
    /// The requested adapter is still being loaded after
    /// [`Limits::load_wait`](crate::Limits::load_wait).
    #[error("adapter `{name}` is still being loaded after {} s; try again later", waited.as_secs_f64())]
    StillLoading {
        /// Its name.
        name: String,
        /// How long the request waited.
        waited: Duration,
    },
    /// The API key is missing or invalid.
    #[error("{0}")]
    Unauthorized(String),
    /// The key or the server's configuration does not allow the request.
    #[error("{0}")]
    Forbidden(String),
    /// An adapter cannot be added or changed: for example, its files are not supported.
    #[error("{0}")]
    Unusable(String),
    /// The request conflicts with the present state: the name is taken, for example.
    #[error("{0}")]
    Conflict(String),
    /// There is no adapter or key of that name, or no adapter at that source.
    #[error("{0}")]
    NoAdapter(String),
    /// There is no file or batch of that id.
    #[error("{0}")]
    NotFound(String),
    /// The adapter was removed while the request ran.
    #[error("{0}")]
    Gone(String),
    /// The request reached its deadline.
    #[error("the request did not finish within its time limit of {} s (`x-request-timeout`, or the server's `--request-timeout`)", allowed.as_secs_f64())]
    TimedOut {
        /// The time limit of the request.
        allowed: Duration,
    },
    /// The server is shutting down.
    #[error("the server is shutting down and takes no new requests")]
    ShuttingDown,
    /// The request was accepted and failed afterwards.
    #[error("{0}")]
    Failed(String),
}

impl ApiError {
    /// `field` is invalid; `message` is a sentence that says why.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Invalid {
            field: Some(field.into()),
            message: message.into(),
        }
    }

    /// The body as a whole is invalid.
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

    /// Adapter `name` was removed while a request for it was in flight.
    pub(crate) fn removed(name: &str) -> Self {
        Self::Gone(format!(
            "adapter `{name}` was removed before this request was done"
        ))
    }

    /// The error of an attempt to add an adapter.
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

    /// The invalid field, if the error is about one field.
    pub fn field(&self) -> Option<&str> {
        match self {
            Self::Invalid { field, .. } => field.as_deref(),
            Self::UnknownModel { .. } => Some("model"),
            _ => None,
        }
    }

    /// A limit is reached, and it is not known when it will not be.
    pub(crate) fn overloaded(message: String) -> Self {
        Self::Overloaded {
            message,
            retry_after: None,
        }
    }

    /// How long to wait before a retry; `None` if a retry cannot succeed.
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

/// A sentence that lists the names that the key may use.
pub(crate) fn served(known: &[String]) -> String {
    if known.is_empty() {
        return "This key may use none of the models of this server.".to_owned();
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
    fn an_unsupported_field_is_named() {
        let error = ApiError::unsupported("tools", "calling tools");
        assert_eq!(error.field(), Some("tools"));
        assert_eq!(error.to_string(), "`tools`: calling tools is not supported yet");
    }
}
