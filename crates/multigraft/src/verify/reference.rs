//! The file of reference numbers.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, Result, bail, ensure};
use multigraft_weights::safetensors::Checkpoint;

/// The name of the base in the file.
pub(crate) const BASE: &str = "base";

/// PEFT's answers to every prompt, for the base and for adapters.
#[derive(Debug)]
pub(crate) struct Reference {
    /// The prompts, in tokens.
    pub prompts: Vec<Vec<u32>>,
    /// By adapter (or [`BASE`]), the answers to the prompts in their order.
    pub expected: BTreeMap<String, Vec<Expected>>,
}

/// PEFT's answer to one prompt.
#[derive(Debug)]
pub(crate) struct Expected {
    /// Shape `[prompt, vocab]`, row-major.
    pub logits: Vec<f32>,
    /// Size of the vocabulary.
    pub vocab: usize,
    /// The tokens of the greedy continuation.
    pub greedy: Vec<u32>,
}

impl Reference {
    /// Reads and checks the file.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let file = Checkpoint::open_file(path)?;
        Self::from_tensors(&file).with_context(|| format!("{} is not a reference file", path.display()))
    }

    fn from_tensors(file: &Checkpoint) -> Result<Self> {
        let mut prompts = Vec::new();
        while file.shape(&prompt_name(prompts.len())).is_some() {
            let prompt = tokens(file, &prompt_name(prompts.len()))?;
            ensure!(!prompt.is_empty(), "prompt.{} has no tokens", prompts.len());
            prompts.push(prompt);
        }
        ensure!(!prompts.is_empty(), "it has no tensor `prompt.0`");

        let suffix = ".0.logits";
        let names = file
            .tensors()
            .filter_map(|tensor| tensor.name.strip_suffix(suffix).map(str::to_owned));
        let mut expected = BTreeMap::new();
        for name in names {
            let answers = prompts
                .iter()
                .enumerate()
                .map(|(index, prompt)| read_expected(file, &name, index, prompt.len()))
                .collect::<Result<_>>()?;
            expected.insert(name, answers);
        }
        if expected.is_empty() {
            bail!("it has prompts but no tensors `<adapter>{suffix}`");
        }
        Ok(Self { prompts, expected })
    }
}

fn prompt_name(index: usize) -> String {
    format!("prompt.{index}")
}

fn read_expected(file: &Checkpoint, name: &str, index: usize, rows: usize) -> Result<Expected> {
    let logits = file.require(&format!("{name}.{index}.logits"))?;
    let &[found, vocab] = logits.shape else {
        bail!(
            "{} has shape {:?}, but must be [prompt, vocab]",
            logits.name,
            logits.shape
        );
    };
    ensure!(
        found == rows && vocab > 0,
        "{} has shape [{found}, {vocab}], but its prompt has {rows} tokens",
        logits.name
    );
    Ok(Expected {
        logits: logits.to_f32(),
        vocab,
        greedy: tokens(file, &format!("{name}.{index}.greedy"))?,
    })
}

fn tokens(file: &Checkpoint, name: &str) -> Result<Vec<u32>> {
    let ids = file
        .i64s(name)
        .with_context(|| format!("it has no tensor `{name}` of dtype I64"))?;
    ids.into_iter()
        .map(|id| u32::try_from(id).with_context(|| format!("{name} has the token id {id}")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A safetensors file of tensors: name, dtype, shape, bytes.
    fn file(tensors: &[(&str, &str, &[usize], Vec<u8>)]) -> Checkpoint {
        let mut header = serde_json::Map::new();
        let mut data: Vec<u8> = Vec::new();
        for (name, dtype, shape, bytes) in tensors {
            let begin = data.len();
            data.extend(bytes);
            let info =
                serde_json::json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, data.len()]});
            header.insert((*name).to_owned(), info);
        }
        let header = serde_json::Value::Object(header).to_string().into_bytes();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header);
        bytes.extend(data);
        Checkpoint::from_bytes("test", bytes).expect("a valid file")
    }

    fn ids(ids: &[i64]) -> Vec<u8> {
        ids.iter().flat_map(|id| id.to_le_bytes()).collect()
    }

    #[test]
    fn a_file_is_read_by_tensor_names() {
        let reference = Reference::from_tensors(&file(&[
            ("prompt.0", "I64", &[2], ids(&[5, 6])),
            ("a.b.0.logits", "F32", &[2, 3], vec![0; 24]),
            ("a.b.0.greedy", "I64", &[1], ids(&[2])),
        ]))
        .expect("valid");
        assert_eq!(reference.prompts, [[5, 6]]);
        let expected = &reference.expected["a.b"][0];
        assert_eq!((expected.vocab, expected.logits.len()), (3, 6));
        assert_eq!(expected.greedy, [2]);
    }

    #[test]
    fn missing_and_misshapen_tensors_are_named() {
        let prompt = ("prompt.0", "I64", &[2_usize][..], ids(&[5, 6]));
        let greedy = ("base.0.greedy", "I64", &[1_usize][..], ids(&[2]));
        let logits = |rows: usize| ("base.0.logits", "F32", vec![rows, 3], vec![0; rows * 12]);
        let message = |tensors: &[(&str, &str, &[usize], Vec<u8>)]| {
            let error = Reference::from_tensors(&file(tensors)).expect_err("should be refused");
            format!("{error:#}")
        };
        let (name, dtype, shape, bytes) = logits(1);
        let short = (name, dtype, &shape[..], bytes);
        assert!(message(std::slice::from_ref(&greedy)).contains("prompt.0"));
        assert!(message(std::slice::from_ref(&prompt)).contains("logits"));
        assert!(message(&[prompt.clone(), short, greedy.clone()]).contains("2 tokens"));
        let (name, dtype, shape, bytes) = logits(2);
        let full = (name, dtype, &shape[..], bytes);
        assert!(message(&[prompt, full.clone()]).contains("base.0.greedy"));
        let negative = ("prompt.0", "I64", &[2][..], ids(&[5, -6]));
        assert!(message(&[negative, full, greedy]).contains("-6"));
    }
}
