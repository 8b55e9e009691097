//! Which files of a Hub repository make up a base model.

use std::path::{Component, Path};

use crate::wanted::{RequiredKind, WantedKinds};

/// The files of a base model: configuration, tokenizer, chat template and safetensors.
pub const BASE_MODEL: WantedKinds = WantedKinds {
    marker: ".multigraft-whole",
    is_wanted: is_of_a_base,
    required: &[
        RequiredKind {
            what: "config.json",
            matches: |name| name == "config.json",
        },
        RequiredKind {
            what: "file of weights that ends with .safetensors",
            matches: |name| name.ends_with(".safetensors"),
        },
    ],
    limit: 1 << 40,
};

/// Whether a base model needs this file of its repository.
fn is_of_a_base(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    let is_at_the_top = matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None));
    let is_wanted = matches!(
        name,
        "config.json"
            | "generation_config.json"
            | "tokenizer.json"
            | "tokenizer_config.json"
            | "special_tokens_map.json"
            | "added_tokens.json"
            | "chat_template.jinja"
            | "chat_template.json"
            | "model.safetensors.index.json"
    );
    // Meta's and Mistral's repositories hold a second copy of all weights in one file beside the
    // shards.
    let is_weights = name.ends_with(".safetensors") && !name.starts_with("consolidated");
    is_at_the_top && (is_wanted || is_weights)
}
