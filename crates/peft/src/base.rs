//! What an adapter's files are checked against: the modules of the base model and their shapes.

use std::collections::HashMap;

use multigraft_model::{Config, LinearId, Module, ModuleKind, Target};

/// Name and modules of a base model. Built once and used for any number of adapters.
#[derive(Clone, Debug)]
pub struct BaseShape {
    modules: Vec<Module>,
    /// [`module_key`] → index in `modules`.
    by_key: HashMap<String, usize>,
    tied: bool,
    hidden: usize,
    layers: usize,
    name: Option<String>,
    gguf: Option<Gguf>,
}

/// What GGUF knows about the base.
#[derive(Clone, Debug)]
struct Gguf {
    config: Config,
    architecture: &'static str,
    /// GGUF's name of a weight → index of its module.
    by_name: HashMap<String, usize>,
}

impl BaseShape {
    /// The shape of the base that `config` describes.
    pub fn new(config: &Config) -> Self {
        let mut shape = Self::from_modules(config.modules(), config.tied_embeddings);
        let name =
            |(i, module): (usize, &Module)| Some((config.gguf_name(&format!("{}.weight", module.path))?, i));
        shape.gguf = config.gguf_architecture().map(|architecture| Gguf {
            config: config.clone(),
            architecture,
            by_name: shape.modules.iter().enumerate().filter_map(name).collect(),
        });
        shape
    }

    /// The shape of a base with these modules. `tied` says that the lm_head is the embedding table.
    pub fn from_modules(modules: Vec<Module>, tied: bool) -> Self {
        let key = |(i, module): (usize, &Module)| (module_key(&module.path).1.to_owned(), i);
        let layer = |module: &Module| match module.kind {
            ModuleKind::Linear(LinearId::Layer { layer, .. }) => Some(layer + 1),
            _ => None,
        };
        Self {
            by_key: modules.iter().enumerate().map(key).collect(),
            tied,
            hidden: modules
                .iter()
                .find(|m| m.kind == ModuleKind::Embedding)
                .map_or(0, |m| m.inp),
            layers: modules.iter().filter_map(layer).max().unwrap_or(0),
            name: None,
            gguf: None,
            modules,
        }
    }

    /// The same base with a name, which is compared with the name in an adapter's config.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = Some(name.to_owned());
        self
    }

    pub(crate) fn modules(&self) -> &[Module] {
        &self.modules
    }

    pub(crate) fn find(&self, key: &str) -> Option<usize> {
        self.by_key.get(key).copied()
    }

    /// GGUF's name of the base's architecture, if GGUF has one.
    pub(crate) fn gguf_architecture(&self) -> Option<&'static str> {
        self.gguf.as_ref().map(|gguf| gguf.architecture)
    }

    /// The module whose weight GGUF calls `name`.
    pub(crate) fn find_gguf(&self, name: &str) -> Option<&Module> {
        let position = *self.gguf.as_ref()?.by_name.get(name)?;
        self.modules.get(position)
    }

    /// The row of GGUF's tensor that holds output `row` of a module.
    pub(crate) fn gguf_row(&self, module: &Module, row: usize) -> usize {
        let turns = matches!(
            module.kind,
            ModuleKind::Linear(LinearId::Layer {
                target: Target::Q | Target::K,
                ..
            })
        );
        match &self.gguf {
            Some(gguf) if turns => gguf.config.gguf_rotary_row(row),
            _ => row,
        }
    }

    /// Whether the lm_head is the embedding table.
    pub(crate) fn tied(&self) -> bool {
        self.tied
    }

    pub(crate) fn hidden(&self) -> usize {
        self.hidden
    }

    pub(crate) fn layers(&self) -> usize {
        self.layers
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }
}

/// Splits a module path into the wrappers around the decoder's modules and the key of the module:
/// `base_model.model.model.` and `layers.0.mlp.up_proj`. Wrappers differ between checkpoints: PEFT
/// adds its own, and multimodal models have a `language_model`.
pub(crate) fn module_key(path: &str) -> (&str, &str) {
    const WRAPPERS: [&str; 3] = ["base_model.", "model.", "language_model."];
    let mut key = path;
    while let Some(rest) = WRAPPERS.iter().find_map(|wrapper| key.strip_prefix(wrapper)) {
        key = rest;
    }
    path.split_at(path.len() - key.len())
}

/// The wrappers without PEFT's own, as PEFT saw them when it matched `target_modules`.
pub(crate) fn without_peft(wrappers: &str) -> &str {
    wrappers
        .strip_prefix("base_model.model.")
        .or_else(|| wrappers.strip_prefix("base_model."))
        .unwrap_or(wrappers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_are_taken_off_in_any_order() {
        for path in [
            "layers.0.mlp.up_proj",
            "model.layers.0.mlp.up_proj",
            "base_model.model.layers.0.mlp.up_proj",
            "base_model.model.model.layers.0.mlp.up_proj",
            "base_model.model.model.language_model.layers.0.mlp.up_proj",
            "base_model.model.language_model.model.layers.0.mlp.up_proj",
        ] {
            assert_eq!(module_key(path).1, "layers.0.mlp.up_proj", "{path}");
        }
        assert_eq!(
            module_key("base_model.model.lm_head"),
            ("base_model.model.", "lm_head")
        );
        assert_eq!(module_key("model.visual.blocks.0.qkv").1, "visual.blocks.0.qkv");
    }

    #[test]
    fn pefts_own_wrapper_is_no_part_of_what_it_matched() {
        assert_eq!(without_peft("base_model.model.model."), "model.");
        assert_eq!(without_peft("base_model.model."), "");
        assert_eq!(without_peft("base_model.language_model."), "language_model.");
        assert_eq!(without_peft("model.language_model."), "model.language_model.");
        assert_eq!(without_peft(""), "");
    }
}
