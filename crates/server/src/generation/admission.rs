//! From a name and tokens to an accepted request: which model answers, and whether there is room.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use multigraft_adapters::{AdapterLimits, Entry, LoadError, Lookup, MergePart, Source, files_of};
use multigraft_engine::{AdapterUse, Request, RequestId, SubmitError};
use multigraft_sources::Reference;
use multigraft_text::ChatTemplate;
use tokio::time::{Instant, timeout_at};

use crate::{
    Dialect,
    answers::{self, Answers},
    asked::Asked,
    error::ApiError,
    metering::{Bounded, Now, Place},
    metrics::MERGED,
    session::{Session, name_of},
    state::AppState,
    tally::Tally,
    telemetry,
    underway::Ticket,
};

/// The response header that names the adapter (or the base) that answered.
pub(crate) const ADAPTER_HEADER: HeaderName = HeaderName::from_static("x-multigraft-adapter");
/// The response header with the content hash of that adapter; `base` for the base.
pub(crate) const HASH_HEADER: HeaderName = HeaderName::from_static("x-multigraft-adapter-hash");
/// The response header with what the adapter's updates were multiplied by; the base has none.
pub(crate) const SCALE_HEADER: HeaderName = HeaderName::from_static("x-multigraft-adapter-scale");

/// The name that TGI's OpenAI routes and its clients use for whatever base is served.
const TGI_NAME: &str = "tgi";

/// The model that answers a request: the base or an adapter as it was when the request came in.
/// Replacing or removing the name afterwards does not change it.
pub(crate) struct Served {
    /// Its name.
    pub name: String,
    /// The adapter's content hash in hexadecimal, or `base`.
    pub hash: String,
    /// What the adapter's updates are multiplied by; the base has none.
    pub scale: Option<f32>,
    /// The adapter, until the request is submitted, so that it is held by the engine alone; `None`
    /// is the base.
    pub adapter: Option<AdapterUse>,
    /// The chat template in the adapter's folder.
    pub template: Option<Arc<ChatTemplate>>,
    /// The names whose limits it counts against: its own, or those of its parts.
    names: Vec<String>,
    /// Its place among the requests at once, until it is submitted.
    place: Place,
    /// By which whoever removes the adapter finds the request.
    ticket: Option<Ticket>,
}

impl fmt::Debug for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.hash)
    }
}

impl Served {
    /// OpenAI's `system_fingerprint`: what computed the answer.
    pub(crate) fn fingerprint(&self) -> String {
        match self.scale {
            None | Some(1.0) => format!("multigraft-{}", self.hash),
            Some(scale) => format!("multigraft-{}@{scale}", self.hash),
        }
    }

    /// Says in the headers which model answered.
    pub(crate) fn label(&self, headers: &mut HeaderMap) {
        // Names may be anything that a folder can be called; what a header cannot hold is left to
        // the hash.
        if let Ok(name) = HeaderValue::from_bytes(self.name.as_bytes()) {
            headers.insert(ADAPTER_HEADER, name);
        }
        if let Ok(hash) = HeaderValue::from_str(&self.hash) {
            headers.insert(HASH_HEADER, hash);
        }
        if let Some(scale) = self.scale
            && let Ok(scale) = HeaderValue::from_str(&scale.to_string())
        {
            headers.insert(SCALE_HEADER, scale);
        }
    }
}

impl AppState {
    fn base_model(&self, place: Place) -> Served {
        Served {
            name: self.registry.base().to_owned(),
            hash: "base".to_owned(),
            scale: None,
            adapter: None,
            template: None,
            names: Vec::new(),
            place,
            ticket: None,
        }
    }

    /// Whether the base answers to `name`: to its own, to the empty one, as in LoRAX, and to `tgi`,
    /// as in TGI; nothing else is ever answered by the base.
    pub(crate) fn is_base(&self, name: &str) -> bool {
        name == self.registry.base() || name.is_empty() || name == TGI_NAME
    }
}

impl Session {
    /// Whether `name` is served at all.
    pub(crate) fn check_name(&self, name: &str) -> Result<(), ApiError> {
        let is_served = match self.is_base(name) {
            true => self.may_use_base(),
            false => self.contains(name) || self.source(name).is_some(),
        };
        match is_served {
            true => Ok(()),
            false => Err(ApiError::unknown_model(name, self.names())),
        }
    }

    /// The model that a request asks for. Waits for adapters that have to be loaded or merged
    /// first.
    pub(crate) async fn model(&self, asked: &Asked) -> Result<Served, ApiError> {
        if let Asked::One { name, .. } = asked {
            let base = || self.registry.base();
            telemetry::asked_for(if self.is_base(name) { base() } else { name });
        }
        match asked {
            Asked::One { name, .. } if self.is_base(name) => {
                self.check_name(name)?;
                return Ok(self.base_model(self.enter(&[])?));
            }
            _ => {}
        }
        let ticket = self.underway.enter();
        let (entry, scale, names, place) = tokio::select! {
            adapter = self.adapter(asked, &ticket) => adapter?,
            name = ticket.removed() => return Err(ApiError::removed(&name)),
        };
        let used = AdapterUse {
            adapter: entry.packed,
            scale,
        };
        used.check()
            .map_err(|error| ApiError::invalid(asked.field(), error.to_string()))?;
        Ok(Served {
            hash: entry.hash.to_string(),
            name: entry.name,
            scale: Some(scale),
            adapter: Some(used),
            template: entry.template,
            names,
            place,
            ticket: Some(ticket),
        })
    }

    /// The adapter that a request asks for, its scale, the names that it counts against, and its
    /// place among their requests, which it has while it waits.
    async fn adapter(
        &self,
        asked: &Asked,
        ticket: &Ticket,
    ) -> Result<(Entry, f32, Vec<String>, Place), ApiError> {
        let deadline = Instant::now() + self.limits.load_wait;
        match asked {
            Asked::One { name, scale, .. } => {
                let (called, found) = self.look_up(name, ticket)?;
                let names = vec![called];
                let place = self.enter(&names)?;
                let entry = self.found(name, found, deadline, asked).await?;
                Ok((entry, *scale, names, place))
            }
            Asked::Merged { method, parts, .. } => {
                // All of them are asked for before the first is waited for, and none is held in
                // memory while the others are loaded, which may need the room.
                let mut names = Vec::with_capacity(parts.len());
                let mut looked_up = Vec::with_capacity(parts.len());
                for (name, _) in parts {
                    let (called, found) = self.look_up(name, ticket)?;
                    names.push(called);
                    looked_up.push(match found {
                        Lookup::Ready(entry) => Ok(MergePart::from(&entry)),
                        found => Err(found),
                    });
                }
                let place = self.enter(&names)?;
                let mut merging = Vec::with_capacity(parts.len());
                for ((name, weight), found) in parts.iter().zip(looked_up) {
                    let part = match found {
                        Ok(part) => part,
                        Err(found) => MergePart::from(&self.found(name, found, deadline, asked).await?),
                    };
                    merging.push((part, *weight));
                }
                let merged = self.registry.merged(*method, &merging);
                let entry = self.found("merged", merged, deadline, asked).await?;
                Ok((entry, 1.0, names, place))
            }
        }
    }

    /// A place among the requests at once for these adapters, or for the base where there are none,
    /// and with its key.
    fn enter(&self, names: &[String]) -> Result<Place, ApiError> {
        let adapters = names.iter();
        let adapters = adapters.map(|name| Bounded::adapter(name, &self.registry.limits(name)));
        let account = self.account();
        let key = account.as_ref().map(|account| &*account.key);
        let place = self.meters.enter(adapters.collect(), key);
        place.inspect_err(|_| {
            let label = self.label(names);
            self.metrics.refused(label);
            // Never accepted, it is counted as refused.
            drop(self.tally(label, 0));
        })
    }

    /// The account of a request that is counted as `label`, if accounts are kept.
    fn tally(&self, label: Option<&str>, prompt: usize) -> Option<Arc<Tally>> {
        let access = self.access.as_ref()?;
        Some(Tally::new(access, self.used(label.unwrap_or(MERGED)), prompt))
    }

    /// What answers to these names are counted as; `None` is a merged adapter.
    fn label<'a>(&'a self, names: &'a [String]) -> Option<&'a str> {
        match names {
            [] => Some(self.registry.base()),
            [name] => Some(name),
            _ => None,
        }
    }

    /// What `name` stands for, and what that is called. An adapter that nobody added, but which is
    /// called as an allowed source is, is added now.
    fn look_up(&self, name: &str, ticket: &Ticket) -> Result<(String, Lookup), ApiError> {
        ticket.names(name);
        if self.may_use(name) {
            match self.registry.get(name) {
                Lookup::Unknown => {}
                found => return Ok((name.to_owned(), found)),
            }
        }
        let Some((called, at)) = self.source(name) else {
            return Err(ApiError::unknown_model(name, self.names()));
        };
        ticket.names(&called);
        let found = match self.registry.get(&called) {
            Lookup::Unknown => {
                let name = called.clone();
                let used = self.registry.first_use(&Source { name, at });
                used.map_err(|error| ApiError::not_added(&error))?
            }
            found => found,
        };
        Ok((called, found))
    }

    /// The source that `name` is, if adapters are allowed from there, with the name that it has as
    /// an adapter, if that may be used.
    pub(crate) fn source(&self, name: &str) -> Option<(String, Reference)> {
        let at = self.sources.resolve(name, files_of).ok()?;
        let name = name_of(&at);
        self.may_use(&name).then_some((name, at))
    }

    /// The adapter that was looked up as `name`, once it is there.
    async fn found(
        &self,
        name: &str,
        found: Lookup,
        deadline: Instant,
        asked: &Asked,
    ) -> Result<Entry, ApiError> {
        let outcome = match found {
            Lookup::Ready(entry) => Ok(entry),
            Lookup::Loading(waiting) => {
                let loading = telemetry::loading(self.telemetry.tracer.as_ref(), name);
                let outcome =
                    timeout_at(deadline, waiting.outcome())
                        .await
                        .map_err(|_| ApiError::StillLoading {
                            name: name.to_owned(),
                            waited: self.limits.load_wait,
                        });
                if let Some(loading) = loading {
                    match &outcome {
                        Ok(Ok(_)) => drop(loading),
                        Ok(Err(error)) => loading.failed(error),
                        Err(error) => loading.failed(error),
                    }
                }
                outcome?
            }
            Lookup::Unavailable(error) => Err(error),
            Lookup::Unknown => return Err(ApiError::unknown_model(name, self.names())),
        };
        outcome.map_err(|error| match error {
            LoadError::Merge(error) => ApiError::invalid(asked.field(), error.to_string()),
            // It was the name's first use.
            LoadError::Failed(error) if !self.contains(name) => ApiError::not_added(&error),
            error => ApiError::unavailable(name, &error),
        })
    }

    /// Hands the choices, which `served` is to answer, to the engine, all or none.
    pub(crate) fn submit(
        &self,
        mut choices: Vec<Request>,
        served: &mut Served,
        dialect: Dialect,
    ) -> Result<Answers, ApiError> {
        let names = served.names.iter();
        let names: Vec<(String, AdapterLimits)> = names
            .map(|name| (name.clone(), self.registry.limits(name)))
            .collect();
        let adapters = names.iter();
        let adapters = adapters
            .map(|(name, limits)| Bounded::adapter(name, limits))
            .collect();
        // Of several the least: none of them gets more than it may.
        let weight = names.iter().map(|(_, limits)| limits.weight).reduce(f32::min);
        let shared = !names.is_empty() && names.iter().all(|(_, limits)| limits.shared_prefixes);
        let limits = self.engine.limits();
        for request in &mut choices {
            request.payer = self.tenant(None);
            if !shared {
                request.tenant = self.tenant(request.tenant);
            }
            request.weight = weight.unwrap_or(1.0);
            request.check(&limits).map_err(|error| refusal(error, dialect))?;
        }
        let prompt = choices.iter().map(|request| request.prompt.len()).sum();
        let label = self.label(&served.names);
        let tally = self.tally(label, prompt);
        let place = std::mem::take(&mut served.place);
        let metered = self
            .meters
            .admit(place, adapters, self.account(), prompt, Now::get());
        let metered = metered
            .inspect_err(|_| self.metrics.refused(label))?
            .map(Arc::new);
        served.adapter = None;
        let ticket = served.ticket.take();
        let accepted = Arc::new(AtomicBool::new(false));
        let followers = self.telemetry.follow(&choices, served, &self.tokenizer);
        let timed = !self.in_background;
        let watch = |follower| (self.metrics.watch(label, Arc::clone(&accepted), timed), follower);
        let watches = followers.into_iter().map(watch).collect();
        let (sinks, answers) = answers::channel(watches, metered.as_ref(), tally.as_ref());
        let submit = |ids: &mut Vec<RequestId>| {
            for (request, sink) in choices.into_iter().zip(sinks) {
                // If a later choice is refused, `answers` is dropped and the engine lets the
                // earlier ones go.
                let sink = Box::new(sink);
                ids.push(match self.in_background {
                    true => self.engine.submit_background(request, sink)?,
                    false => self.engine.submit(request, sink)?,
                });
            }
            Ok(())
        };
        let submitted = match &ticket {
            Some(ticket) => ticket.submit(submit).map_err(|name| ApiError::removed(&name)),
            None => Ok(submit(&mut Vec::new())),
        };
        let submitted = submitted.and_then(|submitted| {
            submitted.map_err(|error| {
                self.metrics.refused(label);
                refusal(error, dialect)
            })
        });
        submitted.inspect_err(|_| {
            if let Some(metered) = &metered {
                metered.refund(std::time::Instant::now());
            }
        })?;
        if let Some(tally) = &tally {
            tally.accepted();
        }
        accepted.store(true, Ordering::Relaxed);
        Ok(answers.under(ticket).until(self.deadline))
    }
}

impl AppState {
    /// The tokens to generate where a request does not say how many.
    pub(crate) fn default_max_tokens(&self, prompt: usize) -> usize {
        self.engine
            .limits()
            .room_after(prompt)
            .min(self.limits.default_max_tokens)
    }

    /// Refuses a prompt that cannot fit before it is copied for each of its choices.
    pub(crate) fn check_room(
        &self,
        prompt: usize,
        max_tokens: usize,
        dialect: Dialect,
    ) -> Result<(), ApiError> {
        self.engine
            .limits()
            .check_room(prompt, max_tokens)
            .map_err(|error| refusal(error, dialect))
    }
}

/// The engine's refusal in the words and field names of the request.
pub(crate) fn refusal(error: SubmitError, dialect: Dialect) -> ApiError {
    let (prompt, max_tokens, within) = match dialect {
        Dialect::OpenAi => ("prompt", "max_tokens", ""),
        Dialect::Tgi => ("inputs", "parameters.max_new_tokens", "parameters."),
    };
    let message = error.to_string();
    match error {
        SubmitError::EmptyPrompt | SubmitError::UnknownToken { .. } | SubmitError::NotInvoked { .. } => {
            ApiError::invalid(prompt, message)
        }
        SubmitError::UnknownBiasToken { .. } => ApiError::invalid(format!("{within}logit_bias"), message),
        SubmitError::TooLongForContext {
            prompt,
            max_tokens: asked,
            context: limit,
        }
        | SubmitError::TooLongForCache {
            prompt,
            max_tokens: asked,
            cache: limit,
        } => {
            let message = format!(
                "the prompt has {prompt} tokens and `{max_tokens}` is {asked}: together more than the {limit} tokens \
                 that a sequence may have here"
            );
            ApiError::invalid(max_tokens, message)
        }
        SubmitError::MinTokens {
            min_tokens: asked,
            max_tokens: most,
        } => {
            let field = format!("{within}min_tokens");
            let message =
                format!("`{field}` is {asked}, but `{max_tokens}` is {most}: an answer cannot have both");
            ApiError::invalid(field, message)
        }
        SubmitError::Scale { .. } | SubmitError::Unscalable { .. } => {
            ApiError::invalid(format!("{within}adapter_scale"), message)
        }
        SubmitError::TooManyLogprobs { field, .. } => ApiError::invalid(format!("{within}{field}"), message),
        SubmitError::EmptyStopString
        | SubmitError::StopStringTooLong { .. }
        | SubmitError::TooManyStops { .. } => ApiError::invalid(format!("{within}stop"), message),
        SubmitError::Sampling(error) => {
            let field = format!("{within}{}", error.field);
            let message = format!("`{field}` is {}, but must be {}", error.value, error.range);
            ApiError::invalid(field, message)
        }
        // Weights are checked where they are set; nobody asks for more than an embedding.
        SubmitError::Weight { .. } | SubmitError::MoreThanEmbedding => ApiError::Failed(message),
        SubmitError::QueueFull { retry_after, .. } => ApiError::Overloaded { message, retry_after },
        SubmitError::Stopped => ApiError::ShuttingDown,
    }
}
