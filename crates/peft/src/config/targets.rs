//! Selects the modules that have low-rank updates by `target_modules`, `exclude_modules`,
//! `layers_to_transform` and `layers_pattern`, with PEFT's rules.

use serde_json::Value;

use multigraft_model::{LinearId, ModuleKind};

use super::pattern::{Pattern, Suffixes};
use super::value::{self, Fields};
use crate::refusal::Refusal;

/// PEFT's keyword for every linear map except the lm_head.
const ALL_LINEAR: &str = "all-linear";
/// The modules that may be tied, by PEFT's names.
const EMBEDDING_NAMES: [&str; 2] = ["embed_tokens", "lm_head"];
/// The largest number of names in `modules_to_save` and `layers_pattern`: each is compiled and
/// matched against each module.
const NAMES_LIMIT: usize = 64;

/// A selection of modules.
#[derive(Clone, Debug)]
enum Choice {
    /// Names, which match the ends of paths.
    List(Suffixes),
    /// An expression that matches whole paths.
    Pattern(Pattern),
    /// [`ALL_LINEAR`].
    AllLinear,
}

/// The modules with low-rank updates. By default, all modules that have tensors.
#[derive(Clone, Debug, Default)]
pub(crate) struct Targets {
    /// `None` if the config leaves the selection to PEFT's list of architectures. Then the tensors
    /// decide.
    targets: Option<Choice>,
    excluded: Option<Choice>,
    /// Modules that are saved whole, with all modules below them.
    saved: Vec<Pattern>,
    /// The selected layers; `None` selects all.
    layers: Option<Vec<u64>>,
    /// Expressions that find the layer's number in a path.
    layer_patterns: Vec<Pattern>,
}

impl Targets {
    pub(super) fn parse(fields: Fields<'_>, modules_to_save: &[String]) -> Result<Self, Refusal> {
        let targets = choice(fields, "target_modules")?;
        let excluded = choice(fields, "exclude_modules")?.filter(|choice| match choice {
            Choice::List(names) => !names.is_empty(),
            Choice::Pattern(_) | Choice::AllLinear => true,
        });
        let layers = layers(fields)?;
        if layers.is_some() && matches!(targets, Some(Choice::Pattern(_) | Choice::AllLinear)) {
            return Err(Refusal::Contradiction(
                "layers_to_transform cannot be used with a pattern in target_modules",
            ));
        }
        check_count("modules_to_save", modules_to_save)?;
        let saved = |name: &String| {
            Pattern::compile(
                "modules_to_save",
                name,
                &format!(r"\A(?:|.*\.)(?:{name})(?:$|\..*)"),
            )
        };
        Ok(Self {
            targets,
            excluded,
            saved: modules_to_save.iter().map(saved).collect::<Result<_, _>>()?,
            layers,
            layer_patterns: layer_patterns(fields)?,
        })
    }

    /// Whether PEFT would add an update to the module that it knows by `path`.
    pub(crate) fn cover(&self, path: &str, kind: ModuleKind) -> Result<bool, Refusal> {
        match &self.excluded {
            Some(Choice::List(names)) if names.covers(path) => return Ok(false),
            Some(Choice::Pattern(pattern)) if pattern.is_match(path)? => return Ok(false),
            _ => {}
        }
        for saved in &self.saved {
            if saved.is_match(path)? {
                return Ok(false);
            }
        }
        match &self.targets {
            None => Ok(true),
            Some(Choice::Pattern(pattern)) => pattern.is_match(path),
            Some(Choice::AllLinear) => Ok(matches!(kind, ModuleKind::Linear(LinearId::Layer { .. }))),
            Some(Choice::List(names)) if names.contains(path) => Ok(true),
            Some(Choice::List(names)) => Ok(names.covers(path) && self.layer_is_chosen(path)?),
        }
    }

    /// Whether the config selects modules. If it does not, a missing update cannot be detected.
    pub(crate) fn are_known(&self) -> bool {
        self.targets.is_some()
    }

    /// Whether the embedding or the lm_head is selected by name. Only then does
    /// `ensure_weight_tying` tie them.
    pub(super) fn name_an_embedding(&self) -> Result<bool, Refusal> {
        match &self.targets {
            None | Some(Choice::AllLinear) => Ok(false),
            Some(Choice::List(names)) => Ok(names.names().any(is_embedding)),
            Some(Choice::Pattern(pattern)) => {
                Ok(pattern.is_match(EMBEDDING_NAMES[0])? || pattern.is_match(EMBEDDING_NAMES[1])?)
            }
        }
    }

    fn layer_is_chosen(&self, path: &str) -> Result<bool, Refusal> {
        let Some(layers) = &self.layers else {
            return Ok(true);
        };
        for pattern in &self.layer_patterns {
            if let Some(index) = pattern.capture(path, "idx")? {
                return Ok(index.parse().is_ok_and(|index: u64| layers.contains(&index)));
            }
        }
        Ok(false)
    }
}

/// Whether the last segment of a name is the embedding or the lm_head.
pub(super) fn is_embedding(name: &str) -> bool {
    EMBEDDING_NAMES.contains(&name.rsplit('.').next().unwrap_or(name))
}

fn choice(fields: Fields<'_>, field: &'static str) -> Result<Option<Choice>, Refusal> {
    Ok(match fields.get(field) {
        None => None,
        Some(Value::String(text)) if text.is_empty() => None,
        Some(Value::String(text)) if field == "target_modules" && text.eq_ignore_ascii_case(ALL_LINEAR) => {
            Some(Choice::AllLinear)
        }
        Some(Value::String(text)) => Some(Choice::Pattern(Pattern::whole(field, text)?)),
        Some(list) => Some(Choice::List(Suffixes::new(value::strings(field, list)?))),
    })
}

/// A single number or a list. An empty list selects all layers.
fn layers(fields: Fields<'_>) -> Result<Option<Vec<u64>>, Refusal> {
    let field = "layers_to_transform";
    let wrong = |found: &Value| value::wrong_type(field, found, "an integer or a list of integers");
    match fields.get(field) {
        None => Ok(None),
        Some(Value::Array(items)) if items.is_empty() => Ok(None),
        Some(Value::Array(items)) => {
            let layers: Result<_, _> = items.iter().map(|i| i.as_u64().ok_or_else(|| wrong(i))).collect();
            layers.map(Some)
        }
        Some(one) => Ok(Some(vec![one.as_u64().ok_or_else(|| wrong(one))?])),
    }
}

/// The expressions that find the layer's number: those of `layers_pattern`, or one that matches any
/// list of modules. The first number in a path counts, because a later one may be an expert's.
fn layer_patterns(fields: Fields<'_>) -> Result<Vec<Pattern>, Refusal> {
    let field = "layers_pattern";
    let names = match fields.get(field) {
        Some(Value::String(one)) if !one.is_empty() => vec![one.clone()],
        Some(Value::String(_)) | None => Vec::new(),
        Some(list) => value::strings(field, list)?,
    };
    check_count(field, &names)?;
    if names.is_empty() {
        return Ok(vec![Pattern::compile(
            field,
            "",
            r"\A.*?\.[^.]*\.(?P<idx>\d+)\.",
        )?]);
    }
    let compile =
        |name: &String| Pattern::compile(field, name, &format!(r"\A(?:|.*?\.)(?:{name})\.(?P<idx>\d+)\."));
    names.iter().map(compile).collect()
}

fn check_count(field: &str, names: &[String]) -> Result<(), Refusal> {
    if names.len() <= NAMES_LIMIT {
        return Ok(());
    }
    let (found, range) = (
        format!("a list of {}", names.len()),
        format!("at most {NAMES_LIMIT} names"),
    );
    Err(Refusal::FieldRange {
        field: field.to_owned(),
        found,
        range,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use multigraft_model::Target;

    const LINEAR: ModuleKind = ModuleKind::Linear(LinearId::Layer {
        layer: 0,
        target: Target::Q,
    });
    const HEAD: ModuleKind = ModuleKind::Linear(LinearId::LmHead);

    fn targets(config: &Value) -> Targets {
        let fields = Fields(config.as_object().unwrap());
        Targets::parse(fields, &fields.texts("modules_to_save").unwrap()).unwrap()
    }

    #[test]
    fn modules_are_chosen_as_peft_chooses_them() {
        // Checked with peft.tuners.tuners_utils.check_target_module_exists.
        let q = "model.layers.1.self_attn.q_proj";
        let cases = [
            (json!({"target_modules": ["q_proj"]}), q, true),
            (json!({"target_modules": ["proj"]}), q, false),
            (json!({"target_modules": "q_proj"}), q, false),
            (json!({"target_modules": ".*q_proj"}), q, true),
            (
                json!({"target_modules": ".*q_proj", "exclude_modules": ["q_proj"]}),
                q,
                false,
            ),
            (
                json!({"target_modules": ["q_proj"], "exclude_modules": r".*\.1\..*"}),
                q,
                false,
            ),
            (
                json!({"target_modules": ["q_proj"], "exclude_modules": []}),
                q,
                true,
            ),
            (
                json!({"target_modules": ["q_proj"], "layers_to_transform": 1}),
                q,
                true,
            ),
            (
                json!({"target_modules": ["q_proj"], "layers_to_transform": [0, 2]}),
                q,
                false,
            ),
            (
                json!({"target_modules": ["q_proj"], "layers_to_transform": []}),
                q,
                true,
            ),
            (
                json!({"target_modules": [q], "layers_to_transform": [0]}),
                q,
                true,
            ),
            (
                json!({"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"}),
                q,
                true,
            ),
            (
                json!({"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": ["h", "layers"]}),
                q,
                true,
            ),
            (
                json!({"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "h"}),
                q,
                false,
            ),
            (
                json!({"target_modules": ["q_proj"], "layers_to_transform": [1]}),
                "layers.1.self_attn.q_proj",
                false,
            ),
            (
                json!({"target_modules": ["q_proj"], "modules_to_save": ["self_attn"]}),
                q,
                false,
            ),
            (
                json!({"target_modules": ["q_proj"], "modules_to_save": ["attn"]}),
                q,
                true,
            ),
            (json!({"target_modules": "All-Linear"}), q, true),
            (json!({}), q, true),
        ];
        for (config, path, expected) in cases {
            assert_eq!(
                targets(&config).cover(path, LINEAR),
                Ok(expected),
                "{config} on {path}"
            );
        }
    }

    #[test]
    fn all_linear_leaves_out_the_ends_of_the_model() {
        let all = targets(&json!({"target_modules": "all-linear"}));
        assert_eq!(all.cover("lm_head", HEAD), Ok(false));
        assert_eq!(all.cover("model.embed_tokens", ModuleKind::Embedding), Ok(false));
    }
}
