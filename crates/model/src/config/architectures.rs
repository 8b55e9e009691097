//! Which architectures are supported.

/// The architectures that a [`Config`](super::Config) can describe, by their names in
/// `config.json`.
pub const SUPPORTED: [&str; 13] = [
    "llama",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma2",
    "gemma3_text",
    "gemma3",
    "phi3",
    "smollm3",
    "granite",
    "olmo2",
    "mixtral",
    "qwen3_moe",
];
