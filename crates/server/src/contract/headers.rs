//! Response headers: the model that answered, and the rate limits of the key.

use axum::http::HeaderName;

/// The response header with the name of the adapter that answered, or of the base model.
pub(crate) const ADAPTER_HEADER: HeaderName = HeaderName::from_static("x-multigraft-adapter");
/// The response header with the content hash of that adapter, or `base` for the base model.
pub(crate) const HASH_HEADER: HeaderName = HeaderName::from_static("x-multigraft-adapter-hash");
/// The response header with the scale of the adapter's updates. Answers of the base model lack it.
pub(crate) const SCALE_HEADER: HeaderName = HeaderName::from_static("x-multigraft-adapter-scale");

/// The prefix of all rate-limit headers.
pub(crate) const RATE_LIMIT_PREFIX: &str = "x-ratelimit-";
/// Request rate of the key, as OpenAI names it: the limit, the rest, and the time until the bucket
/// is full again.
pub(crate) const RATE_LIMIT_REQUESTS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-requests"),
    HeaderName::from_static("x-ratelimit-remaining-requests"),
    HeaderName::from_static("x-ratelimit-reset-requests"),
];
/// Token rate of the key: the limit, the rest, and the time until the bucket is full again.
pub(crate) const RATE_LIMIT_TOKENS: [HeaderName; 3] = [
    HeaderName::from_static("x-ratelimit-limit-tokens"),
    HeaderName::from_static("x-ratelimit-remaining-tokens"),
    HeaderName::from_static("x-ratelimit-reset-tokens"),
];
