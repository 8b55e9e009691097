//! The facts about an adapter that people see.

use std::fmt;

use serde::{Deserialize, Serialize};

use multigraft_model::{AdapterHash, AdapterWeights, LinearId, LowRank};

use crate::config::PeftConfig;
use crate::effect::Effect;
use crate::template::Template;
use crate::tensors::Changes;

/// Facts about an adapter that was read and checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AdapterInfo {
    /// Content hash, in hexadecimal.
    pub hash: String,
    /// The base that it was trained on, according to its config.
    pub base_model: Option<String>,
    /// The version of PEFT that saved it.
    pub peft_version: Option<String>,
    /// Smallest and largest rank of its low-rank updates, if it has any.
    pub ranks: Option<(usize, usize)>,
    /// Names of the modules with low-rank updates, such as `q_proj`.
    pub targets: Vec<String>,
    /// Decoder layers with changes, counted from 0.
    pub layers: Vec<usize>,
    /// Features besides plain low-rank updates: `rsLoRA`, `DoRA`, `biases`, `modules_to_save`,
    /// `token rows` …
    pub features: Vec<String>,
    /// Number of tensors in the file.
    pub tensors: usize,
    /// Number of weights in the file.
    pub parameters: usize,
    /// Size of its files in bytes, without the chat template.
    pub bytes: usize,
    /// Warnings, as sentences.
    pub warnings: Vec<String>,
    /// The file that holds its chat template; `None` if it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chat_template: Option<String>,
    /// The self test's result; `None` if it was not tested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<Effect>,
}

/// Sizes of the adapter's files.
pub(crate) struct Sizes {
    pub(crate) tensors: usize,
    pub(crate) parameters: usize,
    pub(crate) bytes: usize,
}

impl AdapterInfo {
    pub(crate) fn new(hash: AdapterHash, config: &PeftConfig, changes: &Changes, sizes: &Sizes) -> Self {
        let mut targets: Vec<String> = Vec::new();
        for (path, _) in &changes.updates {
            let name = path.rsplit('.').next().unwrap_or(path);
            if targets.iter().all(|target| target != name) {
                targets.push(name.to_owned());
            }
        }
        let mut layers: Vec<usize> = changes.linears.iter().filter_map(|(id, _)| layer(*id)).collect();
        layers.dedup();
        let ranks = changes.updates.iter().map(|(_, rank)| *rank);
        Self {
            hash: hash.to_string(),
            base_model: config.base_model.clone(),
            peft_version: config.peft_version.clone(),
            ranks: ranks.clone().min().zip(ranks.max()),
            targets,
            layers,
            features: features(config, changes),
            tensors: sizes.tensors,
            parameters: sizes.parameters,
            bytes: sizes.bytes,
            warnings: config.warnings.iter().chain(&changes.warnings).cloned().collect(),
            chat_template: None,
            effect: None,
        }
    }
}

fn layer(id: LinearId) -> Option<usize> {
    match id {
        LinearId::Layer { layer, .. } => Some(layer),
        LinearId::LmHead => None,
    }
}

fn features(config: &PeftConfig, changes: &Changes) -> Vec<String> {
    let deltas = || changes.linears.iter().map(|(_, delta)| delta);
    let embedding = changes.embedding.as_ref();
    let biased = |update: &LowRank| update.bias.is_some();
    let rows = embedding
        .map_or(0, |e| e.rows.len())
        .max(deltas().map(|d| d.rows.len()).max().unwrap_or(0));
    let has_updates = !changes.updates.is_empty();
    let all = [
        (config.rslora && has_updates, "rsLoRA".to_owned()),
        (config.dora && has_updates, "DoRA".to_owned()),
        (
            deltas().any(|d| d.low_rank.as_ref().is_some_and(biased)),
            "lora_bias".to_owned(),
        ),
        (
            deltas().any(|d| d.base_bias.is_some()),
            "biases of the base replaced".to_owned(),
        ),
        (
            embedding.is_some_and(|e| e.replaced.is_some()),
            "embedding replaced".to_owned(),
        ),
        (
            deltas().any(|d| d.replaced.is_some()),
            "lm_head replaced".to_owned(),
        ),
        (rows > 0, format!("{rows} token rows")),
        (
            !config.invocation.is_empty(),
            format!("aLoRA, invoked by {} tokens", config.invocation.len()),
        ),
    ];
    all.into_iter()
        .filter(|(is_there, _)| *is_there)
        .map(|(_, name)| name)
        .chain(config.converted_from().map(|from| format!("read from {from}")))
        .collect()
}

impl fmt::Display for AdapterInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let or_unknown = |text: &Option<String>| text.clone().unwrap_or_else(|| "unknown".to_owned());
        let rank = match self.ranks {
            None => "no low-rank updates".to_owned(),
            Some((least, most)) if least == most => least.to_string(),
            Some((least, most)) => format!("{least} to {most}"),
        };
        let list = |items: &[String]| {
            if items.is_empty() {
                "none".to_owned()
            } else {
                items.join(", ")
            }
        };
        writeln!(f, "trained on  {}", or_unknown(&self.base_model))?;
        let saved_by = self
            .peft_version
            .as_ref()
            .map(|version| format!("PEFT {version}"));
        writeln!(f, "saved by    {}", or_unknown(&saved_by))?;
        writeln!(f, "rank        {rank}")?;
        writeln!(f, "targets     {}", list(&self.targets))?;
        writeln!(f, "layers      {}", ranges(&self.layers))?;
        if !self.features.is_empty() {
            writeln!(f, "also        {}", list(&self.features))?;
        }
        writeln!(
            f,
            "parameters  {} in {} tensors, {} bytes",
            self.parameters, self.tensors, self.bytes
        )?;
        if let Some(file) = &self.chat_template {
            writeln!(f, "chat        in the template of its {file}")?;
        }
        write!(f, "hash        {}", self.hash)?;
        self.warnings
            .iter()
            .try_for_each(|warning| write!(f, "\nwarning: {warning}"))
    }
}

/// Formats numbers as `0-3, 7`.
fn ranges(numbers: &[usize]) -> String {
    let runs = numbers.chunk_by(|a, b| a + 1 == *b);
    let shown: Vec<String> = runs
        .map(|run| match run {
            [one] => one.to_string(),
            [first, .., last] => format!("{first}-{last}"),
            [] => String::new(),
        })
        .collect();
    if shown.is_empty() {
        "none".to_owned()
    } else {
        shown.join(", ")
    }
}

/// An adapter that was read and checked against its base.
#[derive(Clone, Debug)]
pub struct AdapterFile {
    /// The changes of the base's weights.
    pub weights: AdapterWeights,
    /// Facts for people.
    pub info: AdapterInfo,
    /// The chat template of its folder.
    pub template: Option<Template>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_of_layers_are_shown_as_ranges() {
        assert_eq!(ranges(&[0, 1, 2, 3, 7, 9, 10]), "0-3, 7, 9-10");
        assert_eq!(ranges(&[]), "none");
    }
}
