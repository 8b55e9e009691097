//! Admits requests: resolves the model that a request chooses, waits for its adapter, and submits
//! the request to the engine.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use multigraft_adapters::{AdapterLimits, Entry, LoadError, Lookup, MergePart, Source};
use multigraft_engine::{AdapterUse, Request, RequestId};
use multigraft_text::ChatTemplate;
use tokio::time::{Instant, timeout_at};

use super::{
    answers::{self, Answers},
    choice::ModelChoice,
    refusal::refusal,
    usage::RequestUsage,
};
use crate::{
    caller::session::Session,
    contract::model::ResolvedModel,
    http::{dialect::Dialect, error::ApiError},
    observe::{metrics::MERGED, telemetry},
    state::{
        in_flight::Registration,
        meters::{Bounded, Now, Permit},
    },
};

/// What a request holds from before it waits for its adapter until it is submitted.
#[derive(Debug)]
pub(crate) struct Reservation {
    /// The model that answers.
    pub(crate) model: ResolvedModel,
    /// The adapter; `None` is the base. The reservation gives it up on submission, so that
    /// afterwards only the engine holds it.
    pub(crate) adapter: Option<AdapterUse>,
    /// The chat template in the adapter's folder.
    pub(crate) template: Option<Arc<ChatTemplate>>,
    /// The adapters whose limits the request counts against: the chosen one, or the parts of a
    /// merge.
    names: Vec<String>,
    /// The permit to be one of the concurrent requests, until the request is submitted.
    permit: Permit,
    /// The registration by which the removal of an adapter finds its requests.
    registration: Option<Registration>,
}

impl Session {
    fn reserve_base(&self, permit: Permit) -> Reservation {
        let model = ResolvedModel {
            name: self.base_name().to_owned(),
            hash: "base".to_owned(),
            scale: None,
        };
        Reservation {
            model,
            adapter: None,
            template: None,
            names: Vec::new(),
            permit,
            registration: None,
        }
    }

    /// Resolves the model that a request chooses, and waits until its adapters are loaded and
    /// merged.
    pub(crate) async fn reserve(&self, choice: &ModelChoice) -> Result<Reservation, ApiError> {
        if let ModelChoice::One { name, .. } = choice {
            let base = || self.base_name();
            telemetry::record_requested_model(if self.is_base(name) { base() } else { name });
        }
        match choice {
            ModelChoice::One { name, .. } if self.is_base(name) => {
                self.check_name(name)?;
                return Ok(self.reserve_base(self.permit(&[])?));
            }
            _ => {}
        }
        let registration = self.in_flight().register();
        let (entry, scale, names, permit) = tokio::select! {
            adapter = self.adapter(choice, &registration) => adapter?,
            name = registration.removed() => return Err(ApiError::removed(&name)),
        };
        let used = AdapterUse {
            adapter: entry.packed,
            scale,
        };
        used.check()
            .map_err(|error| ApiError::invalid(choice.field(), error.to_string()))?;
        let model = ResolvedModel {
            hash: entry.hash.to_string(),
            name: entry.name,
            scale: Some(scale),
        };
        Ok(Reservation {
            model,
            adapter: Some(used),
            template: entry.template,
            names,
            permit,
            registration: Some(registration),
        })
    }

    /// The adapter that a request chooses, its scale, the names whose limits it counts against, and
    /// its permit, which it holds while it waits.
    async fn adapter(
        &self,
        choice: &ModelChoice,
        registration: &Registration,
    ) -> Result<(Entry, f32, Vec<String>, Permit), ApiError> {
        let deadline = Instant::now() + self.limits().load_wait;
        match choice {
            ModelChoice::One { name, scale, .. } => {
                let (called, found) = self.look_up(name, registration)?;
                let names = vec![called];
                let permit = self.permit(&names)?;
                let entry = self.found(name, found, deadline, choice).await?;
                Ok((entry, *scale, names, permit))
            }
            ModelChoice::Merged { method, parts, .. } => {
                // All parts are requested before the first is waited for. None is pinned in memory
                // while the others load, because they may need the memory.
                let mut names = Vec::with_capacity(parts.len());
                let mut looked_up = Vec::with_capacity(parts.len());
                for (name, _) in parts {
                    let (called, found) = self.look_up(name, registration)?;
                    names.push(called);
                    looked_up.push(match found {
                        Lookup::Ready(entry) => Ok(MergePart::from(&entry)),
                        found => Err(found),
                    });
                }
                let permit = self.permit(&names)?;
                let mut merging = Vec::with_capacity(parts.len());
                for ((name, weight), found) in parts.iter().zip(looked_up) {
                    let part = match found {
                        Ok(part) => part,
                        Err(found) => MergePart::from(&self.found(name, found, deadline, choice).await?),
                    };
                    merging.push((part, *weight));
                }
                let merged = self.adapters().merged(*method, &merging);
                let entry = self.found("merged", merged, deadline, choice).await?;
                Ok((entry, 1.0, names, permit))
            }
        }
    }

    /// A permit among the concurrent requests of these adapters (of the base, if there are none)
    /// and of the key.
    fn permit(&self, names: &[String]) -> Result<Permit, ApiError> {
        let adapters = names.iter();
        let adapters = adapters.map(|name| Bounded::adapter(name, &self.adapters().limits(name)));
        let account = self.account();
        let key = account.as_ref().map(|account| &*account.key);
        let permit = self.meters().reserve(adapters.collect(), key);
        permit.inspect_err(|_| {
            let label = self.label(names);
            self.metrics().refused(label);
            // The request is never accepted, so it counts as refused.
            drop(self.usage(label, 0));
        })
    }

    /// The usage record of a request that is counted under `label`, if usage is recorded.
    fn usage(&self, label: Option<&str>, prompt: usize) -> Option<Arc<RequestUsage>> {
        let access = self.access()?;
        Some(RequestUsage::new(
            access,
            self.used(label.unwrap_or(MERGED)),
            prompt,
        ))
    }

    /// The label under which requests for these names are counted; `None` is a merged adapter.
    fn label<'a>(&'a self, names: &'a [String]) -> Option<&'a str> {
        match names {
            [] => Some(self.base_name()),
            [name] => Some(name),
            _ => None,
        }
    }

    /// The adapter that `name` stands for, and its registered name. If `name` is an allowed source
    /// that is not registered yet, it is registered now.
    fn look_up(&self, name: &str, registration: &Registration) -> Result<(String, Lookup), ApiError> {
        registration.names(name);
        match self.adapters().get(name) {
            Lookup::Unknown => {}
            found => return Ok((name.to_owned(), found)),
        }
        let Some((called, at)) = self.adapters().source(name) else {
            return Err(ApiError::unknown_model(name, self.names()));
        };
        registration.names(&called);
        let found = match self.adapters().get(&called) {
            Lookup::Unknown => {
                let name = called.clone();
                let used = self.adapters().first_use(&Source { name, at });
                used.map_err(|error| ApiError::not_added(&error))?
            }
            found => found,
        };
        Ok((called, found))
    }

    /// Waits until the adapter that was looked up as `name` is loaded.
    async fn found(
        &self,
        name: &str,
        found: Lookup,
        deadline: Instant,
        choice: &ModelChoice,
    ) -> Result<Entry, ApiError> {
        let outcome = match found {
            Lookup::Ready(entry) => Ok(entry),
            Lookup::Loading(waiting) => {
                let loading = telemetry::loading(self.telemetry().tracer.as_ref(), name);
                let outcome =
                    timeout_at(deadline, waiting.outcome())
                        .await
                        .map_err(|_| ApiError::StillLoading {
                            name: name.to_owned(),
                            waited: self.limits().load_wait,
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
            LoadError::Merge(error) => ApiError::invalid(choice.field(), error.to_string()),
            // The first use of an adapter failed, so that it was not registered.
            LoadError::Failed(error) if !self.contains(name) => ApiError::not_added(&error),
            error => ApiError::unavailable(name, &error),
        })
    }

    /// Submits the choices of the request that holds `reservation` to the engine: all of them or
    /// none.
    pub(crate) fn submit(
        &self,
        mut choices: Vec<Request>,
        reservation: &mut Reservation,
        dialect: Dialect,
    ) -> Result<Answers, ApiError> {
        let names = reservation.names.iter();
        let names: Vec<(String, AdapterLimits)> = names
            .map(|name| (name.clone(), self.adapters().limits(name)))
            .collect();
        let adapters = names.iter();
        let adapters = adapters
            .map(|(name, limits)| Bounded::adapter(name, limits))
            .collect();
        // The least weight of several adapters, so that none gets more than its share.
        let weight = names.iter().map(|(_, limits)| limits.weight).reduce(f32::min);
        let shared = !names.is_empty() && names.iter().all(|(_, limits)| limits.shared_prefixes);
        let limits = self.engine().limits();
        for request in &mut choices {
            request.payer = self.tenant(None);
            if !shared {
                request.tenant = self.tenant(request.tenant);
            }
            request.weight = weight.unwrap_or(1.0);
            request.check(&limits).map_err(|error| refusal(error, dialect))?;
        }
        let prompt = choices.iter().map(|request| request.prompt.len()).sum();
        let label = self.label(&reservation.names);
        let usage = self.usage(label, prompt);
        let permit = std::mem::take(&mut reservation.permit);
        let metered = self
            .meters()
            .admit(permit, adapters, self.account(), prompt, Now::get());
        let metered = metered
            .inspect_err(|_| self.metrics().refused(label))?
            .map(Arc::new);
        reservation.adapter = None;
        let registration = reservation.registration.take();
        let accepted = Arc::new(AtomicBool::new(false));
        let followers = self
            .telemetry()
            .follow(&choices, &reservation.model, self.tokenizer());
        let timed = !self.in_background;
        let watch = |follower| {
            (
                self.metrics().watch(label, Arc::clone(&accepted), timed),
                follower,
            )
        };
        let watches = followers.into_iter().map(watch).collect();
        let (sinks, answers) = answers::channel(watches, metered.as_ref(), usage.as_ref());
        let submit = |ids: &mut Vec<RequestId>| {
            for (request, sink) in choices.into_iter().zip(sinks) {
                // If a later choice is refused, `answers` is dropped, and the engine cancels the
                // earlier ones.
                let sink = Box::new(sink);
                ids.push(match self.in_background {
                    true => self.engine().submit_background(request, sink)?,
                    false => self.engine().submit(request, sink)?,
                });
            }
            Ok(())
        };
        let submitted = match &registration {
            Some(registration) => registration
                .submit(submit)
                .map_err(|name| ApiError::removed(&name)),
            None => Ok(submit(&mut Vec::new())),
        };
        let submitted = submitted.and_then(|submitted| {
            submitted.map_err(|error| {
                self.metrics().refused(label);
                refusal(error, dialect)
            })
        });
        submitted.inspect_err(|_| {
            if let Some(metered) = &metered {
                metered.refund(std::time::Instant::now());
            }
        })?;
        if let Some(usage) = &usage {
            usage.accepted();
        }
        accepted.store(true, Ordering::Relaxed);
        Ok(answers.under(registration).until(self.deadline))
    }

    /// Refuses a prompt that cannot fit before it is copied for each of its choices.
    pub(crate) fn check_room(
        &self,
        prompt: usize,
        max_tokens: usize,
        dialect: Dialect,
    ) -> Result<(), ApiError> {
        self.engine()
            .limits()
            .check_room(prompt, max_tokens)
            .map_err(|error| refusal(error, dialect))
    }
}
