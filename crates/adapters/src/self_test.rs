//! The self test: runs a fixed prompt through the base and the adapter, once for each hash.
//!
//! An adapter that fits its base may still have no effect (PEFT initialises B with zeros) or make
//! the logits overflow. An adapter may also bring a `reference.json` with the answers that are
//! expected of it.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use multigraft_model::drive::{Driver, Sequence};
use multigraft_model::{
    AdapterHash, AdapterWeights, Backend, BackendError, BackendOptions, Base, BlockId, KvDtype, ReadyAdapter,
    Slot, Throttle,
};
use multigraft_peft::{Agreement, Effect, read_file};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::parts::{REFERENCE_FILE, REFERENCE_LIMIT};

/// Length of the fixed prompt, in tokens.
const PROMPT: usize = 8;

/// Limit of the tokens with trained rows that are put before the prompt.
const TOKEN_ROWS: usize = 16;

/// Limit of a reference, prompt and answer together, in tokens.
const REFERENCE: usize = 128;

/// What happens to an adapter that fails the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// The adapter is served, with a warning.
    Warn,
    /// The adapter is not served.
    Refuse,
}

/// Tokenises text.
pub type Encode = Box<dyn Fn(&str) -> Result<Vec<u32>, String> + Send + Sync>;

/// Tests the adapters of one base.
pub struct SelfTest {
    computing: Mutex<Computing>,
    encode: Encode,
    on_failure: OnFailure,
    throttle: Throttle,
}

struct Computing {
    backend: Box<dyn Backend>,
    /// The base's logits at each position of the fixed prompt.
    base: Option<Vec<f32>>,
    /// Results by adapter and reference.
    known: HashMap<Key, (Effect, Option<String>)>,
}

/// An adapter, and the digest of its reference.
type Key = (AdapterHash, Option<[u8; 32]>);

/// `reference.json`: `{"prompt": "text" or [ids], "expected": "text"}`, or `"expected_tokens":
/// [ids]` instead of `expected`.
#[derive(Debug, Deserialize)]
struct Reference {
    prompt: Tokens,
    expected: Option<String>,
    expected_tokens: Option<Vec<u32>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Tokens {
    Text(String),
    Ids(Vec<u32>),
}

/// The judgement on an adapter.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fine,
    Warning(String),
    Refused(String),
}

impl SelfTest {
    /// Tests adapters of `base`, whose tokenizer is `encode`, with pauses by `throttle`, which
    /// nothing else uses.
    ///
    /// # Errors
    /// If the base cannot open a backend for the test.
    pub fn new(
        base: Arc<dyn Base>,
        encode: Encode,
        on_failure: OnFailure,
        throttle: Throttle,
    ) -> Result<Self, BackendError> {
        let kv_dtype = KvDtype::Bf16;
        let options = BackendOptions {
            // The test runs beside the threads that compute steps.
            threads: 1,
            blocks: REFERENCE.div_ceil(base.kv_block(kv_dtype).tokens),
            context: REFERENCE.min(base.config().context),
            step_rows: 64,
            kv_dtype,
            throttle: throttle.clone(),
        };
        Ok(Self {
            computing: Mutex::new(Computing {
                backend: base.backend(options)?,
                base: None,
                known: HashMap::new(),
            }),
            encode,
            on_failure,
            throttle,
        })
    }

    /// Tests the adapter whose files are in `folder`. A known result is not computed again.
    pub(crate) fn run(
        &self,
        folder: &Path,
        weights: &AdapterWeights,
        packed: &Arc<ReadyAdapter>,
    ) -> Result<(Effect, Verdict), String> {
        let reference = read_reference(folder);
        // After a panic, the next test recomputes everything that it needs.
        let mut computing = self.computing.lock().unwrap_or_else(PoisonError::into_inner);
        let digest = |read: &Result<Vec<u8>, String>| match read {
            Ok(bytes) => Sha256::digest(bytes),
            Err(why) => Sha256::digest(why),
        };
        let key = (weights.hash, reference.as_ref().map(|read| digest(read).into()));
        let (effect, unusable) = match computing.known.get(&key) {
            Some(known) => known.clone(),
            None => {
                self.throttle.restart();
                let slot = computing
                    .backend
                    .admit(packed)
                    .map_err(|error| error.to_string())?;
                let tested = self.test(&mut computing, weights, reference, slot);
                computing.backend.release(slot);
                let tested = tested?;
                computing.known.insert(key, tested.clone());
                tested
            }
        };
        Ok((effect, self.judge(effect, unusable)))
    }

    /// The effect, and why the reference could not be used, if so.
    fn test(
        &self,
        computing: &mut Computing,
        weights: &AdapterWeights,
        reference: Option<Result<Vec<u8>, String>>,
        slot: Slot,
    ) -> Result<(Effect, Option<String>), String> {
        let mut effect = computing.effect(weights, slot)?;
        let agreement = reference
            .map(|bytes| self.reference(computing, &bytes?, slot))
            .transpose();
        match agreement {
            Ok(agreement) => {
                effect.reference = agreement;
                Ok((effect, None))
            }
            Err(why) => Ok((
                effect,
                Some(format!("its {REFERENCE_FILE} cannot be used: {why}")),
            )),
        }
    }

    fn judge(&self, effect: Effect, unusable: Option<String>) -> Verdict {
        if !effect.moved.is_finite() {
            return Verdict::Refused("with it the base's logits are not finite numbers".to_owned());
        }
        let message = if effect.moved == 0.0 {
            "its self test moved no logit of the base: it changes nothing, as if it had never been trained"
                .to_owned()
        } else {
            match effect.reference {
                Some(Agreement { agree, of }) if agree < of => {
                    format!(
                        "{agree} of the {of} tokens that its {REFERENCE_FILE} expects are what it generates"
                    )
                }
                _ => match unusable {
                    Some(why) => why,
                    None => return Verdict::Fine,
                },
            }
        };
        match self.on_failure {
            OnFailure::Warn => Verdict::Warning(message),
            OnFailure::Refuse => Verdict::Refused(message),
        }
    }

    /// Compares the adapter's tokens with those that its reference expects.
    fn reference(&self, computing: &mut Computing, bytes: &[u8], slot: Slot) -> Result<Agreement, String> {
        let reference: Reference = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
        let prompt = match reference.prompt {
            Tokens::Text(text) => (self.encode)(&text)?,
            Tokens::Ids(ids) => ids,
        };
        let expected = match (reference.expected_tokens, reference.expected) {
            (Some(ids), _) => ids,
            (None, Some(text)) => (self.encode)(&text)?,
            (None, None) => return Err("it says neither `expected_tokens` nor `expected`".to_owned()),
        };
        let limits = computing.backend.limits();
        let length = prompt.len() + expected.len();
        if prompt.is_empty() || expected.is_empty() || length > limits.context {
            return Err(format!(
                "prompt and answer have {} and {} tokens, but must have one at least and {} together at most",
                prompt.len(),
                expected.len(),
                limits.context
            ));
        }
        let mut tokens = prompt.clone();
        tokens.extend(&expected);
        if let Some(unknown) = tokens.iter().find(|token| **token as usize >= limits.vocab) {
            return Err(format!(
                "{unknown} is no token of the base, which has {}",
                limits.vocab
            ));
        }
        let logits = computing.logits(&tokens[..length - 1], Some(slot))?;
        let generated = logits.chunks(limits.vocab).skip(prompt.len() - 1).map(argmax);
        let agree = generated
            .zip(&expected)
            .filter(|(got, want)| *got == **want as usize)
            .count();
        Ok(Agreement {
            agree,
            of: expected.len(),
        })
    }
}

impl Computing {
    fn effect(&mut self, weights: &AdapterWeights, slot: Slot) -> Result<Effect, String> {
        let vocab = self.backend.limits().vocab;
        let rows = weights.embedding.iter().flat_map(|embedding| &embedding.rows);
        let mut prompt: Vec<u32> = rows.map(|(token, _)| *token).take(TOKEN_ROWS).collect();
        let is_plain = prompt.is_empty();
        prompt.extend(fixed_prompt(vocab));
        let base = match self.base.clone().filter(|_| is_plain) {
            Some(base) => base,
            None => self.logits(&prompt, None)?,
        };
        let adapted = self.logits(&prompt, Some(slot))?;
        let mean_square =
            |values: &mut dyn Iterator<Item = f32>| values.map(|v| f64::from(v).powi(2)).sum::<f64>();
        let added = mean_square(&mut base.iter().zip(&adapted).map(|(base, adapted)| adapted - base));
        let all = mean_square(&mut base.iter().copied());
        let likeliest = |logits: &[f32]| logits.chunks(vocab).map(argmax).collect::<Vec<_>>();
        let changed = likeliest(&base)
            .into_iter()
            .zip(likeliest(&adapted))
            .filter(|(a, b)| a != b)
            .count();
        if is_plain {
            self.base = Some(base);
        }
        Ok(Effect {
            moved: (added / all.max(f64::MIN_POSITIVE)).sqrt() as f32,
            changed,
            positions: prompt.len(),
            reference: None,
        })
    }

    /// The logits at every position of `tokens`.
    fn logits(&mut self, tokens: &[u32], adapter: Option<Slot>) -> Result<Vec<f32>, String> {
        let blocks = (0..).take(self.backend.limits().blocks).map(BlockId);
        let mut sequence = Sequence::new(blocks.collect(), adapter);
        let logits = Driver::new(&mut *self.backend).logits(&mut sequence, tokens);
        logits.map_err(|error| error.to_string())
    }
}

/// The contents of the adapter's reference, or why it cannot be read. `None` if there is none.
fn read_reference(folder: &Path) -> Option<Result<Vec<u8>, String>> {
    let path = folder.join(REFERENCE_FILE);
    let read = || read_file(&path, REFERENCE_LIMIT).map_err(|error| error.to_string());
    path.exists().then(read)
}

/// Tokens from the whole vocabulary, the same in every test.
fn fixed_prompt(vocab: usize) -> impl Iterator<Item = u32> {
    /// A prime, so its multiples reach every token of a vocabulary before they repeat.
    const STRIDE: usize = 7919;
    (1..=PROMPT).filter_map(move |index| u32::try_from(index * STRIDE % vocab).ok())
}

fn argmax(logits: &[f32]) -> usize {
    let best = logits.iter().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
    best.map_or(0, |(index, _)| index)
}

impl fmt::Debug for SelfTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SelfTest")
            .field("on_failure", &self.on_failure)
            .finish_non_exhaustive()
    }
}
