//! Models with their adapters, served by an engine over the CPU backend.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};

use multigraft_cpu::{CpuBase, LoadOptions};
use multigraft_engine::{Engine, EngineOptions, Event, Finish, PromptToken, Request, Sink, Token};
use multigraft_model::{AdapterDtype, BackendOptions, Base, KvDtype, ReadyAdapter, Throttle};
use multigraft_text::Tokenizer;

/// A model with its adapters, by name.
pub(crate) struct Served {
    base: Arc<CpuBase>,
    context: usize,
    pub(crate) adapters: Vec<(String, Arc<ReadyAdapter>)>,
    pub(crate) tokenizer: Arc<Tokenizer>,
}

impl Served {
    /// A tiny model of `fixtures/peft`.
    pub(crate) fn fixture(folder: &Path) -> Self {
        Self::open(&folder.join("model"), &folder.join("adapters"), 128)
    }

    /// The tiny llama with the adapter of `fixtures/peft_activated`.
    pub(crate) fn activated() -> Self {
        let fixtures = multigraft_testing::fixtures();
        Self::open(
            &fixtures.join("peft/llama/model"),
            &fixtures.join("peft_activated/adapters"),
            128,
        )
    }

    /// SmolLM2 with the demo's adapters.
    pub(crate) fn smollm2() -> Self {
        let adapters = multigraft_testing::fixtures().join("../demo/adapters");
        Self::open(&multigraft_testing::smollm2(), &adapters, 1024)
    }

    fn open(model: &Path, adapters: &Path, context: usize) -> Self {
        let base = CpuBase::open(model, &LoadOptions::default()).unwrap();
        let adapters = sorted(adapters).into_iter().map(|kind| {
            let file = multigraft_peft::read(&kind, base.config()).unwrap();
            let ready = base
                .ready(&file.weights, AdapterDtype::F32, &Throttle::NONE)
                .unwrap();
            (
                kind.file_name().unwrap().to_str().unwrap().to_owned(),
                Arc::new(ready),
            )
        });
        let adapters = adapters.collect();
        // The tokenizer of SmolLM2. The tokens of the tiny models have no meaning, so any tokenizer
        // will do.
        let tokenizer =
            Tokenizer::from_folder(&multigraft_testing::fixtures().join("tokenizer/smollm")).unwrap();
        Self {
            base: Arc::new(base),
            context,
            adapters,
            tokenizer: Arc::new(tokenizer),
        }
    }

    pub(crate) fn engine(&self, threads: usize, blocks: usize, options: EngineOptions) -> Engine {
        let backend = BackendOptions {
            threads,
            blocks,
            context: self.context,
            step_rows: options.step_tokens,
            // The reference numbers of transformers and PEFT are in float32.
            kv_dtype: KvDtype::F32,
            throttle: Throttle::NONE,
        };
        let backend = Arc::clone(&self.base).backend(backend).unwrap();
        Engine::start(backend, Arc::clone(&self.tokenizer), options)
    }
}

pub(crate) fn sorted(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
}

struct Channel(Sender<Event>);

impl Sink for Channel {
    fn emit(&mut self, event: Event) -> ControlFlow<()> {
        self.0
            .send(event)
            .map_or(ControlFlow::Break(()), ControlFlow::Continue)
    }

    fn is_gone(&self) -> bool {
        false
    }
}

pub(crate) fn submit(engine: &Engine, request: Request) -> Receiver<Event> {
    let (sender, events) = mpsc::channel();
    engine.submit(request, Box::new(Channel(sender))).unwrap();
    events
}

/// An answer without its timings and the number of cached tokens.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Answer {
    pub(crate) prompt: Vec<PromptToken>,
    pub(crate) embedding: Vec<f32>,
    pub(crate) tokens: Vec<Token>,
    pub(crate) finish: Option<Finish>,
}

impl Answer {
    pub(crate) fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.id).collect()
    }
}

pub(crate) fn answer(events: &Receiver<Event>) -> Answer {
    answer_and_cached(events).0
}

/// An answer, and how many of its prompt's tokens had been computed before.
pub(crate) fn answer_and_cached(events: &Receiver<Event>) -> (Answer, usize) {
    let mut answer = Answer::default();
    let mut cached = 0;
    for event in events {
        match event {
            Event::Started { .. } => {}
            Event::Prompt(prompt) => answer.prompt = prompt,
            Event::Embedding(embedding) => answer.embedding = embedding,
            Event::Token(token) => answer.tokens.push(token),
            Event::Finished(finish) => {
                cached = finish.cached_tokens;
                answer.finish = Some(Finish {
                    timings: multigraft_engine::Timings::default(),
                    cached_tokens: 0,
                    ..finish
                });
            }
            Event::Failed(reason) | Event::Refused(reason) | Event::Cancelled(reason) => panic!("{reason}"),
        }
    }
    assert!(answer.finish.is_some());
    (answer, cached)
}
