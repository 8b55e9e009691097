//! `multigraft generate`: one answer on the terminal.

use std::{
    io::{self, Read as _, Write as _},
    iter,
    ops::ControlFlow,
    path::Path,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Sender, channel},
    },
};

use anyhow::{Context as _, Result, bail};
use multigraft_adapters::{Entry, Registry, RegistryOptions};
use multigraft_engine::{Event, Finish, Request, Sampling, Sink, Stop};
use multigraft_text::ChatInput;
use serde_json::{Map, Value, json};

use crate::{
    cli::GenerateArguments,
    config::{ConfigFile, ModelSettings},
    load::{Base, fetcher, load},
};

pub(crate) fn run(arguments: GenerateArguments, config: Option<&Path>) -> Result<ExitCode> {
    let file = ConfigFile::read(config)?;
    let mut settings = ModelSettings::resolve(arguments.model.clone(), file.model)?;
    // There is one sequence, so the KV cache needs no more than one context.
    settings.max_running = 1;
    let fetcher = fetcher(&settings, iter::empty());
    let base = Base::open(&settings, &fetcher)?;
    let budget = base.budget(&settings)?;
    let options = RegistryOptions {
        fetcher,
        budget: Arc::clone(&budget),
        ..RegistryOptions::default()
    };
    let registry = base.registry(&settings, options)?;
    let adapter = choose(&registry, arguments.with.as_deref())?;
    let text = read_prompt(&arguments.prompt)?;
    let prompt = match arguments.raw {
        true => base.tokenizer.encode(&text, true)?,
        false => base.tokenizer.encode(
            &templated(&base, adapter.as_ref(), arguments.system.as_deref(), &text)?,
            false,
        )?,
    };
    let engine = base.engine(&settings, budget)?;
    let room = engine.limits().room_after(prompt.len());
    let request = Request {
        adapter: adapter.map(|adapter| adapter.packed.into()),
        sampling: Sampling {
            temperature: arguments.temperature,
            top_p: arguments.top_p,
            seed: arguments.seed,
            ..Sampling::default()
        },
        stop: Stop {
            strings: arguments.stop,
            ..Stop::default()
        },
        ..Request::new(prompt, arguments.max_tokens.min(room).max(1))
    };
    let (events, received) = channel();
    let gone = Arc::new(AtomicBool::new(false));
    let sink = Terminal {
        events,
        gone: Arc::clone(&gone),
    };
    engine.submit(request, Box::new(sink))?;

    let mut out = io::stdout().lock();
    for event in received {
        match event {
            Event::Token(token) => {
                let written = out.write_all(token.text.as_bytes()).and_then(|()| out.flush());
                if written.is_err() {
                    // The reader of our output has closed it.
                    gone.store(true, Ordering::Relaxed);
                    break;
                }
            }
            Event::Finished(finish) => {
                writeln!(out, "{}", finish.text)?;
                report(&finish);
            }
            Event::Failed(message) | Event::Refused(message) | Event::Cancelled(message) => bail!(message),
            Event::Started { .. } | Event::Prompt(_) | Event::Embedding(_) => {}
        }
    }
    drop(out);
    engine.shutdown();
    Ok(ExitCode::SUCCESS)
}

/// Sends events to the main thread.
struct Terminal {
    events: Sender<Event>,
    gone: Arc<AtomicBool>,
}

impl Sink for Terminal {
    fn emit(&mut self, event: Event) -> ControlFlow<()> {
        match self.events.send(event) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }
}

/// The named adapter, or the only one there is; `None` is the base.
fn choose(registry: &Registry, name: Option<&str>) -> Result<Option<Entry>> {
    let names = registry.names();
    let name = match (name, names.as_slice()) {
        (Some(name), _) if name == registry.base() => return Ok(None),
        (Some(name), _) => name,
        (None, []) => return Ok(None),
        (None, [only]) => only,
        (None, _) => bail!(
            "there are several adapters: choose one with --use NAME out of {}",
            names.join(", ")
        ),
    };
    Ok(Some(load(registry, name)?))
}

fn read_prompt(prompt: &str) -> Result<String> {
    if prompt != "-" {
        return Ok(prompt.to_owned());
    }
    let mut text = String::new();
    io::stdin()
        .read_to_string(&mut text)
        .context("cannot read the prompt from stdin")?;
    Ok(text)
}

fn templated(base: &Base, adapter: Option<&Entry>, system: Option<&str>, prompt: &str) -> Result<String> {
    let of_adapter = adapter.and_then(|adapter| adapter.template.as_deref());
    let template = of_adapter.or(base.template.as_ref()).context(
        "neither the model nor the adapter has a chat template; use --raw to continue the prompt as it is",
    )?;
    let mut messages: Vec<Value> = Vec::new();
    messages.extend(system.map(|text| json!({"role": "system", "content": text})));
    messages.push(json!({"role": "user", "content": prompt}));
    let special = |id: Option<u32>| id.map_or_else(String::new, |id| base.tokenizer.token_text(id));
    Ok(template.render(&ChatInput {
        messages: &messages,
        tools: None,
        add_generation_prompt: true,
        bos: &special(base.tokenizer.bos()),
        eos: &special(base.tokenizer.eos().first().copied()),
        extra: &Map::new(),
    })?)
}

/// Logs the speed of prompt and answer.
fn report(finish: &Finish) {
    let timings = finish.timings;
    let rate = |tokens: usize, seconds: f64| {
        if seconds > 0.0 {
            tokens as f64 / seconds
        } else {
            0.0
        }
    };
    tracing::info!(
        "prompt: {} tokens, {:.1} tokens/s; answer: {} tokens, {:.1} tokens/s",
        finish.prompt_tokens,
        rate(finish.prompt_tokens, timings.prefill.as_secs_f64()),
        finish.completion_tokens,
        rate(
            finish.completion_tokens.saturating_sub(1),
            timings.decode.as_secs_f64()
        ),
    );
}
