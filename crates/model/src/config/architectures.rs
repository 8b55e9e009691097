//! Which architectures are supported.

/// The supported architectures, by their names in `config.json`.
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
