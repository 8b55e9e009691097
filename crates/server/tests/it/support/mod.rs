//! A server over a backend that does no arithmetic, so that every answer is known.
//!
//! Tokens are bytes. The base answers to a letter with the next one of the alphabet, an adapter
//! with a later one (how much later is the first byte of its hash, and its scale scales what is
//! beyond the base's step); after z the turn ends. Anything but a letter is answered with `a`. So
//! the base goes on from `w` with `xyz`, and an adapter of step 2 with `y`.

pub(crate) mod guarded;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, mpsc},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Method, Request, StatusCode, header},
};
use multigraft_access::Access;
use multigraft_adapters::{Entry, Packer, Registry, RegistryOptions};
use multigraft_batches::Store;
use multigraft_engine::{Engine, EngineOptions};
use multigraft_model::{
    AdapterHash, Backend, BackendError, Limits as BackendLimits, LinearId, Module, ModuleKind, Outputs,
    ReadyAdapter, Slot, Step, Target,
};
use multigraft_peft::{AdapterInfo, BaseShape};
use multigraft_server::{AppState, BaseInfo, Batches, Limits, router, run_batches};
use multigraft_sources::{AllowedSource, AllowedSources, Reference};
use multigraft_text::{ChatTemplate, Tokenizer};
use serde_json::{Value, json};
use tokio::sync::watch;
use tower::ServiceExt as _;

/// The base's name.
pub(crate) const BASE: &str = "alphabet";
/// The end of a turn; the bytes come before it.
pub(crate) const END: u32 = 257;
const START: u32 = 256;
const VOCAB: usize = 258;
/// A token's hidden state: itself, the step of its adapter, 0.
const HIDDEN: usize = 3;

struct Alphabet {
    context: usize,
    slots: Vec<u8>,
    /// Every step waits for a word from here.
    gate: Option<Mutex<mpsc::Receiver<()>>>,
}

impl Backend for Alphabet {
    fn limits(&self) -> BackendLimits {
        BackendLimits {
            vocab: VOCAB,
            hidden: HIDDEN,
            blocks: 4096,
            block_tokens: 16,
            block_bytes: 1,
            extent: 1,
            context: self.context,
            step_rows: 256,
        }
    }

    fn admit(&mut self, adapter: &Arc<ReadyAdapter>) -> Result<Slot, BackendError> {
        self.slots.push(adapter.hash().0[0]);
        Ok(Slot(self.slots.len() as u32 - 1))
    }

    fn release(&mut self, _: Slot) {}

    fn forward(&mut self, step: &Step<'_>, outputs: &mut Outputs) -> Result<(), BackendError> {
        if let Some(gate) = &self.gate {
            let _ = gate.lock().expect("one thread").recv();
        }
        let Outputs { logits, hidden, .. } = outputs;
        logits.clear();
        hidden.clear();
        for run in step.runs {
            let stride = run.adapter.map_or(1.0, |slot| {
                1.0 + (f32::from(self.slots[slot.0 as usize]) - 1.0) * run.scale
            });
            for &token in &run.tokens[run.tokens.len() - run.wanted.hidden(run.tokens.len())..] {
                hidden.extend([token as f32, stride, 0.0]);
            }
            let stride = stride as u32;
            let skipped = run.tokens.len() - run.wanted.logits(run.tokens.len());
            for &token in &run.tokens[skipped..] {
                let letters = u32::from(b'a')..=u32::from(b'z');
                let next = match token {
                    token if !letters.contains(&token) => u32::from(b'a'),
                    token if letters.contains(&(token + stride)) => token + stride,
                    _ => END,
                };
                let mut row = vec![0.0; VOCAB];
                row[next as usize] = 30.0;
                row[usize::from(b'!')] = 20.0;
                logits.extend(row);
            }
        }
        Ok(())
    }
}

/// The characters that byte-level BPE writes the bytes 0 to 255 as.
fn byte_characters() -> Vec<char> {
    let printable =
        |byte: u32| (33..=126).contains(&byte) || (161..=172).contains(&byte) || (174..=255).contains(&byte);
    let mut others = 256..;
    (0..256)
        .map(|byte| {
            if printable(byte) {
                byte
            } else {
                others.next().expect("endless")
            }
        })
        .map(|code| char::from_u32(code).expect("a letter"))
        .collect()
}

fn tokenizer() -> Arc<Tokenizer> {
    let folder = tempfile::tempdir().expect("a folder");
    let vocab: serde_json::Map<String, Value> = byte_characters()
        .into_iter()
        .enumerate()
        .map(|(byte, character)| (character.to_string(), byte.into()))
        .collect();
    let special = |id: u32, content: &str| {
        json!({"id": id, "content": content, "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false})
    };
    let byte_level =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [special(START, "<start>"), special(END, "<end>")],
        "pre_tokenizer": byte_level, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": vocab, "merges": []},
    });
    let config = json!({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<end>"});
    fs::write(folder.path().join("tokenizer.json"), tokenizer.to_string()).expect("written");
    fs::write(folder.path().join("tokenizer_config.json"), config.to_string()).expect("written");
    Arc::new(Tokenizer::from_folder(folder.path()).expect("a tokenizer"))
}

/// What a test's server is like.
pub(crate) struct Options {
    pub(crate) context: usize,
    pub(crate) engine: EngineOptions,
    pub(crate) limits: Limits,
    pub(crate) chat: bool,
    pub(crate) gate: Option<mpsc::Receiver<()>>,
    /// Loading an adapter waits for a word from here.
    pub(crate) load_gate: Option<mpsc::Receiver<()>>,
    /// Where adapters may come from.
    pub(crate) allowed: Vec<AllowedSource>,
    pub(crate) access: Option<Arc<Access>>,
    /// Where adapters are stored.
    pub(crate) data: Option<PathBuf>,
    /// Where files and batches are stored.
    pub(crate) batches: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            context: 1024,
            engine: EngineOptions::default(),
            limits: Limits::default(),
            chat: true,
            gate: None,
            load_gate: None,
            allowed: Vec::new(),
            access: None,
            data: None,
            batches: None,
        }
    }
}

/// A server with the adapters `two` (step 2) and `team/three` (step 3).
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) state: AppState,
    pub(crate) router: Router,
    pub(crate) engine: Engine,
    pub(crate) registry: Registry,
    /// Batches stop when it is dropped.
    pub(crate) _stop: Arc<watch::Sender<bool>>,
}

/// The hash of an adapter of that step, in hexadecimal.
pub(crate) fn hash(step: u8) -> String {
    AdapterHash([step; 32]).to_string()
}

pub(crate) fn server() -> Server {
    server_with(Options::default())
}

pub(crate) fn server_with(options: Options) -> Server {
    let backend = Alphabet {
        context: options.context,
        slots: Vec::new(),
        gate: options.gate.map(Mutex::new),
    };
    let tokenizer = tokenizer();
    let engine = Engine::start(Box::new(backend), Arc::clone(&tokenizer), options.engine);
    let registry = registry(options.load_gate, options.data);
    let template = "{% for m in messages %}<start>{{ m.role }}:{{ m.content }}<end>{% endfor %}<start>";
    let batches = options
        .batches
        .map(|data| Batches::new(Store::open(&data).expect("a store")));
    let base = BaseInfo {
        path: PathBuf::from("/models/alphabet"),
        architecture: "alphabet".to_owned(),
        parameters: 26,
        context: options.context,
        vocab: VOCAB,
        hidden: HIDDEN,
    };
    let template = options
        .chat
        .then(|| Arc::new(ChatTemplate::new(template).expect("a template")));
    let runs_batches = batches.is_some();
    let state = AppState::builder(engine.clone(), tokenizer, registry.clone(), base)
        .template(template)
        .access(options.access)
        .sources(AllowedSources::new(&options.allowed).expect("folders"))
        .limits(options.limits)
        .batches(batches)
        .build();
    let router = router(state.clone());
    let (stop, stopped) = watch::channel(false);
    if runs_batches {
        tokio::spawn(run_batches(state.clone(), router.clone(), stopped));
    }
    Server {
        router,
        state,
        _stop: Arc::new(stop),
        engine,
        registry,
    }
}

/// The base of adapters on disk: an embedding, and one layer with q_proj, 4 × 4.
fn shape() -> BaseShape {
    let module = |path: &str, kind| Module {
        path: path.to_owned(),
        kind,
        out: 4,
        inp: 4,
        bias: false,
    };
    let q = LinearId::Layer {
        layer: 0,
        target: Target::Q,
    };
    let modules = vec![
        module("model.embed_tokens", ModuleKind::Embedding),
        module("model.layers.0.self_attn.q_proj", ModuleKind::Linear(q)),
    ];
    BaseShape::from_modules(modules, true).named(BASE)
}

/// Writes an adapter for [`shape`] that differs from others by its alpha; returns its folder as
/// text.
pub(crate) fn write_adapter(folder: &Path, alpha: u32) -> String {
    let config = json!({"peft_type": "LORA", "r": 1, "lora_alpha": alpha, "target_modules": ["q_proj"],
        "base_model_name_or_path": BASE});
    let tensor = |begin: usize, shape: [usize; 2]| json!({"dtype": "F32", "shape": shape, "data_offsets": [begin, begin + 16]});
    let path = "base_model.model.model.layers.0.self_attn.q_proj";
    let header = json!({format!("{path}.lora_A.weight"): tensor(0, [1, 4]), format!("{path}.lora_B.weight"): tensor(16, [4, 1])});
    let header = header.to_string().into_bytes();
    let mut weights = (header.len() as u64).to_le_bytes().to_vec();
    weights.extend(header);
    weights.extend([0.5f32; 8].iter().flat_map(|weight| weight.to_le_bytes()));
    fs::create_dir_all(folder).expect("a folder");
    fs::write(folder.join("adapter_config.json"), config.to_string()).expect("written");
    fs::write(folder.join("adapter_model.safetensors"), weights).expect("written");
    folder.canonicalize().expect("there").display().to_string()
}

/// The adapters `two` and `team/three`, and whatever is added; packing waits for a word from
/// `gate`.
fn registry(gate: Option<mpsc::Receiver<()>>, data: Option<PathBuf>) -> Registry {
    let gate = gate.map(Mutex::new);
    let packer = Packer {
        shape: shape(),
        self_test: None,
        size: Box::new(|_| 16),
        pack: Box::new(move |weights, _| {
            if let Some(gate) = &gate {
                let _ = gate.lock().expect("one thread").recv();
            }
            Ok(ReadyAdapter::new(weights.hash, 16, Arc::new(())))
        }),
    };
    let options = RegistryOptions {
        data,
        ..RegistryOptions::default()
    };
    let registry = Registry::open(BASE, packer, options).expect("threads and a folder");
    for (name, step) in [("two", 2), ("team/three", 3)] {
        let hash = AdapterHash([step; 32]);
        let info = AdapterInfo {
            effect: None,
            hash: hash.to_string(),
            base_model: None,
            peft_version: None,
            ranks: Some((step.into(), step.into())),
            targets: Vec::new(),
            layers: Vec::new(),
            features: Vec::new(),
            tensors: 0,
            parameters: 0,
            bytes: 0,
            warnings: Vec::new(),
            chat_template: None,
        };
        let entry = Entry {
            name: name.to_owned(),
            hash,
            at: Reference::Folder(PathBuf::from("/adapters").join(name)),
            packed: Arc::new(ReadyAdapter::new(hash, 0, Arc::new(()))),
            info: Arc::new(info),
            template: None,
        };
        registry.insert(entry).expect("a good name");
    }
    registry
}

/// An answer, read to its end.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }

    /// The chunks of a stream, and whether it ended with `[DONE]`.
    pub(crate) fn chunks(&self) -> (Vec<Value>, bool) {
        let mut lines: Vec<&str> = self
            .text
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .collect();
        let done = lines.last() == Some(&"[DONE]");
        if done {
            lines.pop();
        }
        let chunks = lines
            .iter()
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect();
        (chunks, done)
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .unwrap_or_else(|| panic!("no header {name}"))
            .to_str()
            .expect("text")
    }
}

impl Server {
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.expect("infallible");
        let (parts, body) = response.into_parts();
        let bytes = to_bytes(body, usize::MAX).await.expect("a whole body");
        Answer {
            status: parts.status,
            headers: parts.headers,
            text: String::from_utf8(bytes.to_vec()).expect("text"),
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(Request::get(path).body(Body::empty()).expect("a request"))
            .await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(post(path, &body)).await
    }
}

pub(crate) fn post(path: &str, body: &Value) -> Request<Body> {
    Request::post(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string()))
        .expect("a request")
}

/// JSON by any method.
pub(crate) async fn send(server: &Server, method: Method, path: &str, body: Value) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(body.to_string()));
    server.send(request.unwrap()).await
}
