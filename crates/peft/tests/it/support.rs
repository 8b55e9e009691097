//! A small hand-made base, and hand-made adapters for it.

use std::path::Path;

use multigraft_model::{LinearId, Module, ModuleKind, Target};
use multigraft_peft::{AdapterFile, BaseShape, ReadError, read_for};
pub(crate) use multigraft_testing::{Adapter, HIDDEN, LAYERS, VOCAB, WIDTH, safetensors};

/// Two layers with q (biased), o, up and down, a router, norms, both tables.
pub(crate) fn base(tied: bool) -> BaseShape {
    let module = |path: String, kind, out, inp, bias| Module {
        path,
        kind,
        out,
        inp,
        bias,
    };
    let mut modules = vec![module(
        "model.embed_tokens".into(),
        ModuleKind::Embedding,
        VOCAB,
        HIDDEN,
        false,
    )];
    for layer in 0..LAYERS {
        let mut linear = |name: &str, target, out, inp, bias| {
            let kind = ModuleKind::Linear(LinearId::Layer { layer, target });
            modules.push(module(
                format!("model.layers.{layer}.{name}"),
                kind,
                out,
                inp,
                bias,
            ));
        };
        linear("self_attn.q_proj", Target::Q, HIDDEN, HIDDEN, true);
        linear("self_attn.o_proj", Target::O, HIDDEN, HIDDEN, false);
        linear("mlp.up_proj", Target::Up, WIDTH, HIDDEN, false);
        linear("mlp.down_proj", Target::Down, HIDDEN, WIDTH, false);
        for (name, out, inp) in [("mlp.gate", 4, HIDDEN), ("input_layernorm", HIDDEN, 1)] {
            modules.push(module(
                format!("model.layers.{layer}.{name}"),
                ModuleKind::Fixed,
                out,
                inp,
                false,
            ));
        }
    }
    modules.push(module("model.norm".into(), ModuleKind::Fixed, HIDDEN, 1, false));
    modules.push(module(
        "lm_head".into(),
        ModuleKind::Linear(LinearId::LmHead),
        VOCAB,
        HIDDEN,
        false,
    ));
    BaseShape::from_modules(modules, tied).named("acme/tiny")
}

/// Reads hand-made adapters.
pub(crate) trait ReadFor {
    /// Writes the adapter to a folder and reads it.
    fn read(&self, base: &BaseShape) -> Result<AdapterFile, ReadError>;

    /// The message of the refusal, with `DIR` for the folder.
    fn refusal(&self, base: &BaseShape) -> String;
}

impl ReadFor for Adapter {
    fn read(&self, base: &BaseShape) -> Result<AdapterFile, ReadError> {
        let folder = tempfile::tempdir().unwrap();
        self.write(folder.path());
        read_for(folder.path(), base)
    }

    fn refusal(&self, base: &BaseShape) -> String {
        let folder = tempfile::tempdir().unwrap();
        self.write(folder.path());
        match read_for(folder.path(), base) {
            Ok(file) => panic!("was taken: {:?}", file.info),
            Err(error) => message(&error, folder.path()),
        }
    }
}

/// An error's text, with `DIR` for a folder that changes from run to run.
pub(crate) fn message(error: &ReadError, folder: &Path) -> String {
    error.to_string().replace(&folder.display().to_string(), "DIR")
}
