//! The headers in which answers say who made them and what is left of a key's minutes.

use axum::http::HeaderName;

/// The response header that names the adapter (or the base) that answered.
pub(crate) const ADAPTER_HEADER: HeaderName = HeaderName::from_static("x-multigraft-adapter");
/// The response header with the content hash of that adapter; `base` for the base.
pub(crate) const HASH_HEADER: HeaderName = HeaderName::from_static("x-multigraft-adapter-hash");
/// The response header with what the adapter's updates were multiplied by; the base has none.
pub(crate) const SCALE_HEADER: HeaderName = HeaderName::from_static("x-multigraft-adapter-scale");

/// What the headers about a key's minutes begin with.
pub(crate) const RATE_LIMIT_PREFIX: &str = "x-ratelimit-";
/// The bound; what is left of it; when all of it is there again if nothing is taken.
pub(crate) const RATE_LIMIT_REQUESTS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
/// The same of tokens.
pub(crate) const RATE_LIMIT_TOKENS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];
