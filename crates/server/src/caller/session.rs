//! Whose a request is, and what of the server that shows.
//!
//! Handlers get a [`Session`] and ask it for adapters, never the registry: what a key may not use
//! looks, to the byte, like what is not there.

use std::{
    ops::Deref,
    sync::Arc,
    time::{Instant, SystemTime},
};

use axum::{
    extract::{FromRequestParts, Request, State},
    http::{Extensions, HeaderMap, header, request::Parts},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use multigraft_access::{Actor, Key, Role, Secret, Used};
use multigraft_adapters::{Listed, Status};
use multigraft_engine::Tenant;
use multigraft_sources::Reference;

use crate::{
    audit::Note,
    deadline::Deadline,
    error::ApiError,
    metering::Account,
    state::{AppState, Shared},
};

/// Anthropic's and Azure's way to send a key.
const API_KEY: &str = "x-api-key";
/// What answers to anybody: whether the server lives and takes requests, and what any server of
/// this kind understands.
const OPEN: [&str; 5] = ["/health", "/ping", "/ready", "/openapi.json", "/docs"];

/// Whose a request is: a key's, or anybody's where there are no keys.
#[derive(Clone, Debug)]
pub(crate) struct Caller(Option<Arc<Key>>);

/// Marks a request that nobody waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Background;

impl Caller {
    /// Who is let in by the key of that id as it is now, or without one; `None` if nobody is any
    /// more.
    pub(crate) fn of(state: &AppState, key: Option<&str>) -> Option<Self> {
        let access = state.access.as_ref().filter(|access| !access.is_empty());
        match (access, key) {
            (None, None) => Some(Self(None)),
            (Some(access), Some(id)) => access.valid(id, SystemTime::now()).map(|key| Self(Some(key))),
            // The first key closed the server, or it has no keys any more.
            _ => None,
        }
    }
}

/// The server as one request's caller may see it.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    state: Shared,
    caller: Caller,
    /// Whether nobody waits for the answer.
    pub(crate) in_background: bool,
    /// When the request is over, if it has a deadline.
    pub(crate) deadline: Option<Deadline>,
    /// Where it is noted what becomes of a change.
    note: Option<Arc<Note>>,
}

impl Deref for Session {
    type Target = AppState;

    fn deref(&self) -> &AppState {
        &self.state
    }
}

/// Middleware: lets nobody in without a key, if there are keys. Keys are looked at for every
/// request anew.
pub(crate) async fn authenticate(State(state): State<Shared>, mut request: Request, next: Next) -> Response {
    // A line of a batch, which nobody sends over the network, comes with whose it is.
    let is_ours = request.extensions().get::<Caller>().is_some();
    if is_ours || OPEN.contains(&request.uri().path()) {
        return next.run(request).await;
    }
    match caller(&state, request.headers()) {
        Ok(caller) => {
            let key = caller.0.clone();
            request.extensions_mut().insert(caller);
            let mut response = next.run(request).await;
            if let Some(key) = key {
                state.meters.label(&key, response.headers_mut(), Instant::now());
            }
            response
        }
        Err(error) => error.into_response(),
    }
}

fn caller(state: &AppState, headers: &HeaderMap) -> Result<Caller, ApiError> {
    let Some(access) = state.access.as_ref().filter(|access| !access.is_empty()) else {
        return Ok(Caller(None));
    };
    // Another scheme may be for a proxy on the way.
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    let other = headers
        .get(API_KEY)
        .map(|value| value.to_str().unwrap_or_default());
    let sent = bearer.or(other).ok_or_else(|| {
        let message = "this server wants an API key: send the header `Authorization: Bearer mg-…`";
        ApiError::Unauthorized(message.to_owned())
    })?;
    let wrong = || ApiError::Unauthorized("the API key is not valid".to_owned());
    let secret = Secret::parse(sent).ok_or_else(wrong)?;
    match access.check(&secret, SystemTime::now()) {
        Ok(key) => Ok(Caller(Some(key))),
        Err(reason) => {
            tracing::info!(key = secret.id(), %reason, "a key was refused");
            Err(wrong())
        }
    }
}

/// Who sent a request, as it is written down.
pub(crate) fn actor(extensions: &Extensions) -> Actor {
    match extensions.get::<Caller>().and_then(|caller| caller.0.as_ref()) {
        None => Actor::Anybody,
        Some(key) => Actor::Key {
            key: key.id.clone(),
            name: key.name.clone(),
        },
    }
}

impl FromRequestParts<Shared> for Session {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &Shared) -> Result<Self, ApiError> {
        // Without the middleware nobody gets in.
        let caller = parts.extensions.get::<Caller>().cloned();
        let caller = caller.ok_or_else(|| ApiError::Unauthorized("no API key was looked for".to_owned()))?;
        Ok(Self {
            state: Arc::clone(state),
            caller,
            in_background: parts.extensions.get::<Background>().is_some(),
            deadline: parts.extensions.get::<Deadline>().copied(),
            note: parts.extensions.get::<Arc<Note>>().cloned(),
        })
    }
}

/// The name that an adapter gets which is called as its source is: however that is spelt, it is
/// one.
pub(crate) fn name_of(at: &Reference) -> String {
    match at.to_string() {
        written if at.is_remote() => written
            .strip_prefix("hf://")
            .map(str::to_owned)
            .unwrap_or(written),
        written => written,
    }
}

impl Session {
    /// The session with the key as it is now, for answers that go on for long; `None` if nobody
    /// would be let in by it.
    pub(crate) fn renewed(&self) -> Option<Self> {
        let key = self.key_id();
        let caller = Caller::of(&self.state, key)?;
        Some(Self {
            caller,
            ..self.clone()
        })
    }

    /// The id of its key, if there are keys.
    pub(crate) fn key_id(&self) -> Option<&str> {
        self.caller.0.as_ref().map(|key| key.id.as_str())
    }

    /// What its key's files and batches belong to, if there are keys.
    pub(crate) fn tenant_name(&self) -> Option<&str> {
        self.caller.0.as_ref().map(|key| key.tenant.as_str())
    }

    /// Whether it may use the adapter called `name`, if there is one.
    pub(crate) fn may_use(&self, name: &str) -> bool {
        self.caller.0.as_ref().is_none_or(|key| key.may_use(name))
    }

    /// Whether it may use the base.
    pub(crate) fn may_use_base(&self) -> bool {
        self.caller.0.as_ref().is_none_or(|key| key.may_use_base())
    }

    /// Whether it may see how the server is doing and who uses what.
    pub(crate) fn is_admin(&self) -> bool {
        self.caller.0.as_ref().is_none_or(|key| key.role == Role::Admin)
    }

    /// The key, unless it may do everything.
    pub(crate) fn limited(&self) -> Option<&Arc<Key>> {
        self.caller.0.as_ref().filter(|key| key.role != Role::Admin)
    }

    /// The key that pays for its requests, if there are keys.
    pub(crate) fn account(&self) -> Option<Account> {
        let (access, key) = (self.access.as_ref()?, self.caller.0.as_ref()?);
        Some(Account {
            access: Arc::clone(access),
            key: Arc::clone(key),
        })
    }

    /// What its requests that `adapter` answers are counted as.
    pub(crate) fn used(&self, adapter: &str) -> Used {
        let key = self.caller.0.as_ref();
        Used {
            key: key.map(|key| key.id.clone()),
            tenant: key.map(|key| key.tenant.clone()),
            adapter: adapter.to_owned(),
        }
    }

    /// Does something to its end, whether or not whoever asked for it waits, and notes how it
    /// ended.
    pub(crate) async fn to_the_end<T: Send + 'static>(
        &self,
        task: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        let note = self.note.clone();
        let done = tokio::spawn(async move {
            let done = task.await;
            if let Some(note) = note {
                note.ended(done.as_ref().err());
            }
            done
        });
        let done = done.await;
        done.map_err(|_| ApiError::Failed("an internal error; the server's log says more".to_owned()))?
    }

    /// For whom the engine computes: the key's tenant, and within it who says the same
    /// `cache_salt`.
    pub(crate) fn tenant(&self, salt: Option<Tenant>) -> Option<Tenant> {
        match &self.caller.0 {
            None => salt,
            Some(key) => Some(Tenant::new(&key.tenant).parted(salt)),
        }
    }

    /// Names of adapters that it may use.
    pub(crate) fn adapter_names(&self) -> Vec<String> {
        let mut names = self.registry.names();
        names.retain(|name| self.may_use(name));
        names
    }

    /// All names that it may use, the base's first.
    pub(crate) fn names(&self) -> Vec<String> {
        let base = self.may_use_base().then(|| self.registry.base().to_owned());
        base.into_iter().chain(self.adapter_names()).collect()
    }

    /// Adapters that it may use.
    pub(crate) fn list(&self) -> Vec<Listed> {
        let mut listed = self.registry.list();
        listed.retain(|listed| self.may_use(&listed.name));
        listed
    }

    /// Phases of adapters that it may use.
    pub(crate) fn statuses(&self) -> Vec<Status> {
        let mut statuses = self.registry.statuses();
        statuses.retain(|status| self.may_use(&status.name));
        statuses
    }

    /// The adapter called `name`, if it may use that.
    pub(crate) fn listed(&self, name: &str) -> Option<Listed> {
        self.registry.listed(name).filter(|_| self.may_use(name))
    }

    /// Whether there is an adapter called `name` that it may use.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.registry.contains(name) && self.may_use(name)
    }
}
