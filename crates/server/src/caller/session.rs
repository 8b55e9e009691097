//! The server as one request's caller may see it.
//!
//! Handlers get a [`Session`] and ask it for adapters, never the registry: what a key may not use
//! looks, to the byte, like what is not there.

use std::{sync::Arc, time::SystemTime};

use axum::{extract::FromRequestParts, http::request::Parts};
use multigraft_access::{Access, Key, Used};
use multigraft_adapters::{Listed, Registry};
use multigraft_engine::{Engine, Tenant};
use multigraft_text::{ChatTemplate, Tokenizer};

use crate::{
    contract::{limits::Limits, model::BaseInfo},
    http::{
        audit_entry::AuditEntry,
        caller::Caller,
        deadline::{Background, Deadline},
        error::ApiError,
    },
    observe::{metrics::Metrics, telemetry::Telemetry},
    state::{
        AppState,
        adapters::VisibleAdapters,
        batches::Batches,
        grammars::Constraints,
        in_flight::InFlight,
        meters::{Account, Meters},
        stuck,
    },
};

/// The name that TGI's OpenAI routes and its clients use for whatever base is served.
const TGI_NAME: &str = "tgi";

/// The server as one request's caller may see it.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    state: AppState,
    caller: Caller,
    /// Whether nobody waits for the answer.
    pub(crate) in_background: bool,
    /// When the request is over, if it has a deadline.
    pub(crate) deadline: Option<Deadline>,
    /// Where it is noted what becomes of a change.
    audit_entry: Option<Arc<AuditEntry>>,
}

impl FromRequestParts<AppState> for Session {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        // Without the middleware nobody gets in.
        let caller = parts.extensions.get::<Caller>().cloned();
        let caller = caller.ok_or_else(|| ApiError::Unauthorized("no API key was looked for".to_owned()))?;
        Ok(Self {
            state: state.clone(),
            caller,
            in_background: parts.extensions.get::<Background>().is_some(),
            deadline: parts.extensions.get::<Deadline>().copied(),
            audit_entry: parts.extensions.get::<Arc<AuditEntry>>().cloned(),
        })
    }
}

impl Session {
    /// The session with the key as it is now, for answers that go on for long; `None` if nobody
    /// would be let in by it.
    pub(crate) fn renewed(&self) -> Option<Self> {
        let key = self.key_id();
        let caller = Caller::of_key(self.state.access(), key)?;
        Some(Self {
            caller,
            ..self.clone()
        })
    }

    /// The id of its key, if there are keys.
    pub(crate) fn key_id(&self) -> Option<&str> {
        self.caller.key().map(|key| key.id.as_str())
    }

    /// What its key's files and batches belong to, if there are keys.
    pub(crate) fn tenant_name(&self) -> Option<&str> {
        self.caller.key().map(|key| key.tenant.as_str())
    }

    /// Whether it may use the base.
    pub(crate) fn may_use_base(&self) -> bool {
        self.caller.may_use_base()
    }

    /// Whether it may see how the server is doing and who uses what.
    pub(crate) fn is_admin(&self) -> bool {
        self.caller.is_admin()
    }

    /// The key, unless it may do everything.
    pub(crate) fn limited(&self) -> Option<&Arc<Key>> {
        self.caller.limited()
    }

    /// The key that pays for its requests, if there are keys.
    pub(crate) fn account(&self) -> Option<Account> {
        let (access, key) = (self.access()?, self.caller.key()?);
        Some(Account {
            access: Arc::clone(access),
            key: Arc::clone(key),
        })
    }

    /// What its requests that `adapter` answers are counted as.
    pub(crate) fn used(&self, adapter: &str) -> Used {
        let key = self.caller.key();
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
        let entry = self.audit_entry.clone();
        let done = tokio::spawn(async move {
            let done = task.await;
            if let Some(entry) = entry {
                entry.ended(done.as_ref().err());
            }
            done
        });
        let done = done.await;
        done.map_err(|_| ApiError::Failed("an internal error; the server's log says more".to_owned()))?
    }

    /// For whom the engine computes: the key's tenant, and within it who says the same
    /// `cache_salt`.
    pub(crate) fn tenant(&self, salt: Option<Tenant>) -> Option<Tenant> {
        match self.caller.key() {
            None => salt,
            Some(key) => Some(Tenant::new(&key.tenant).parted(salt)),
        }
    }

    /// Adapters that it may use.
    pub(crate) fn adapters(&self) -> VisibleAdapters<'_> {
        self.state.adapters().visible_to(&self.caller)
    }

    /// All names that it may use, the base's first.
    pub(crate) fn names(&self) -> Vec<String> {
        let base = self.may_use_base().then(|| self.base_name().to_owned());
        base.into_iter().chain(self.adapters().names()).collect()
    }

    /// What there is to know of the adapters that it may use.
    pub(crate) fn list(&self) -> Vec<Listed> {
        self.adapters().list()
    }

    /// The adapter called `name`, if it may use that.
    pub(crate) fn listed(&self, name: &str) -> Option<Listed> {
        self.adapters().listed(name)
    }

    /// Whether there is an adapter called `name` that it may use.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.adapters().contains(name)
    }

    /// The base's name.
    pub(crate) fn base_name(&self) -> &str {
        self.state.adapters().base()
    }

    /// Whether the base answers to `name`: to its own, to the empty one, as in LoRAX, and to `tgi`,
    /// as in TGI; nothing else is ever answered by the base.
    pub(crate) fn is_base(&self, name: &str) -> bool {
        name == self.base_name() || name.is_empty() || name == TGI_NAME
    }

    /// Whether `name` is served at all.
    pub(crate) fn check_name(&self, name: &str) -> Result<(), ApiError> {
        let is_served = match self.is_base(name) {
            true => self.may_use_base(),
            false => self.contains(name) || self.adapters().source(name).is_some(),
        };
        match is_served {
            true => Ok(()),
            false => Err(ApiError::unknown_model(name, self.names())),
        }
    }

    /// Everybody's adapters and figures, if it is an admin's.
    pub(crate) fn admin_view(&self) -> Option<AdminView<'_>> {
        let registry = self.state.adapters().all(&self.caller)?;
        let state = &self.state;
        Some(AdminView { state, registry })
    }

    /// Facts about the base.
    pub(crate) fn base(&self) -> &BaseInfo {
        self.state.base()
    }

    pub(crate) fn engine(&self) -> &Engine {
        self.state.engine()
    }

    pub(crate) fn tokenizer(&self) -> &Arc<Tokenizer> {
        self.state.tokenizer()
    }

    /// The base's chat template.
    pub(crate) fn template(&self) -> Option<&Arc<ChatTemplate>> {
        self.state.template()
    }

    pub(crate) fn constraints(&self) -> &Arc<Constraints> {
        self.state.constraints()
    }

    /// What a request may ask for.
    pub(crate) fn limits(&self) -> &Limits {
        self.state.limits()
    }

    /// When the server started.
    pub(crate) fn started(&self) -> SystemTime {
        self.state.started()
    }

    /// The keys and the accounts of them, if the server has a place for them.
    pub(crate) fn access(&self) -> Option<&Arc<Access>> {
        self.state.access()
    }

    /// The files and batches, if the server keeps any.
    pub(crate) fn batches(&self) -> Result<&Batches, ApiError> {
        self.state.batches().ok_or_else(|| {
            let message = "this server keeps no files and no batches: start it with `--data FOLDER`";
            ApiError::Forbidden(message.to_owned())
        })
    }

    pub(crate) fn in_flight(&self) -> &InFlight {
        self.state.in_flight()
    }

    pub(crate) fn meters(&self) -> &Meters {
        self.state.meters()
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        self.state.metrics()
    }

    pub(crate) fn telemetry(&self) -> &Telemetry {
        self.state.telemetry()
    }
}

/// What only admins may see: everybody's adapters and figures.
#[derive(Clone, Copy)]
pub(crate) struct AdminView<'a> {
    state: &'a AppState,
    registry: &'a Registry,
}

impl<'a> AdminView<'a> {
    pub(crate) fn registry(&self) -> &'a Registry {
        self.registry
    }

    pub(crate) fn engine(&self) -> &'a Engine {
        self.state.engine()
    }

    pub(crate) fn metrics(&self) -> &'a Metrics {
        self.state.metrics()
    }

    /// Whether a step takes so long that no request is answered.
    pub(crate) fn is_stuck(&self) -> bool {
        stuck::stuck(self.state.engine(), self.state.limits()).is_some()
    }
}
