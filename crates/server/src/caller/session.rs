//! The part of the server that one request's caller may see.
//!
//! Handlers look adapters up through their [`Session`], never in the registry. An adapter that a
//! key may not use gets the same bytes as an answer as one that does not exist.

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

/// The model name that TGI's OpenAI routes and its clients use for the base.
const TGI_NAME: &str = "tgi";

/// The part of the server that one request's caller may see.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    state: AppState,
    caller: Caller,
    /// Whether the request is a line of a batch, for which no client waits.
    pub(crate) in_background: bool,
    /// The request's deadline, if it has one.
    pub(crate) deadline: Option<Deadline>,
    /// The audit entry, if the request changes adapters or keys.
    audit_entry: Option<Arc<AuditEntry>>,
}

impl FromRequestParts<AppState> for Session {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &AppState) -> Result<Self, ApiError> {
        // `authenticate` has not run: fail closed.
        let caller = parts.extensions.get::<Caller>().cloned();
        let caller =
            caller.ok_or_else(|| ApiError::Unauthorized("this request was not authenticated".to_owned()))?;
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
    /// The session with the present state of the key, for streams that last long. `None` if the key
    /// is not valid any more.
    pub(crate) fn renewed(&self) -> Option<Self> {
        let key = self.key_id();
        let caller = Caller::of_key(self.state.access(), key)?;
        Some(Self {
            caller,
            ..self.clone()
        })
    }

    /// The id of the caller's key, if the server has keys.
    pub(crate) fn key_id(&self) -> Option<&str> {
        self.caller.key().map(|key| key.id.as_str())
    }

    /// The tenant that owns the caller's files and batches, if the server has keys.
    pub(crate) fn tenant_name(&self) -> Option<&str> {
        self.caller.key().map(|key| key.tenant.as_str())
    }

    /// Whether the caller may use the base.
    pub(crate) fn may_use_base(&self) -> bool {
        self.caller.may_use_base()
    }

    /// Whether the caller may see the whole server and everybody's usage.
    pub(crate) fn is_admin(&self) -> bool {
        self.caller.is_admin()
    }

    /// The key, unless its role is admin.
    pub(crate) fn limited(&self) -> Option<&Arc<Key>> {
        self.caller.limited()
    }

    /// The account that the request's tokens are charged to, if the server has keys.
    pub(crate) fn account(&self) -> Option<Account> {
        let (access, key) = (self.access()?, self.caller.key()?);
        Some(Account {
            access: Arc::clone(access),
            key: Arc::clone(key),
        })
    }

    /// The usage record of requests of this caller that `adapter` answers.
    pub(crate) fn used(&self, adapter: &str) -> Used {
        let key = self.caller.key();
        Used {
            key: key.map(|key| key.id.clone()),
            tenant: key.map(|key| key.tenant.clone()),
            adapter: adapter.to_owned(),
        }
    }

    /// Runs `task` to its end even if the client disconnects, and writes its outcome to the audit
    /// log.
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

    /// The tenant in the engine: the key's tenant, partitioned further by `cache_salt`.
    pub(crate) fn tenant(&self, salt: Option<Tenant>) -> Option<Tenant> {
        match self.caller.key() {
            None => salt,
            Some(key) => Some(Tenant::new(&key.tenant).parted(salt)),
        }
    }

    /// The adapters that the caller may use.
    pub(crate) fn adapters(&self) -> VisibleAdapters<'_> {
        self.state.adapters().visible_to(&self.caller)
    }

    /// All model names that the caller may use, the base first.
    pub(crate) fn names(&self) -> Vec<String> {
        let base = self.may_use_base().then(|| self.base_name().to_owned());
        base.into_iter().chain(self.adapters().names()).collect()
    }

    /// The details of the adapters that the caller may use.
    pub(crate) fn list(&self) -> Vec<Listed> {
        self.adapters().list()
    }

    /// The details of adapter `name`, if the caller may use it.
    pub(crate) fn listed(&self, name: &str) -> Option<Listed> {
        self.adapters().listed(name)
    }

    /// Whether there is an adapter `name` that the caller may use.
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.adapters().contains(name)
    }

    /// The name of the base.
    pub(crate) fn base_name(&self) -> &str {
        self.state.adapters().base()
    }

    /// Whether the base answers to `name`: its own name, the empty name (as in LoRAX) or `tgi` (as
    /// in TGI), and no other.
    pub(crate) fn is_base(&self, name: &str) -> bool {
        name == self.base_name() || name.is_empty() || name == TGI_NAME
    }

    /// Fails if the caller may use no model called `name`.
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

    /// The view of the whole server, if the caller is an admin.
    pub(crate) fn admin_view(&self) -> Option<AdminView<'_>> {
        let registry = self.state.adapters().all(&self.caller)?;
        let state = &self.state;
        Some(AdminView { state, registry })
    }

    /// Facts about the base model.
    pub(crate) fn base(&self) -> &BaseInfo {
        self.state.base()
    }

    pub(crate) fn engine(&self) -> &Engine {
        self.state.engine()
    }

    pub(crate) fn tokenizer(&self) -> &Arc<Tokenizer> {
        self.state.tokenizer()
    }

    /// The chat template of the base.
    pub(crate) fn template(&self) -> Option<&Arc<ChatTemplate>> {
        self.state.template()
    }

    pub(crate) fn constraints(&self) -> &Arc<Constraints> {
        self.state.constraints()
    }

    /// Bounds on requests.
    pub(crate) fn limits(&self) -> &Limits {
        self.state.limits()
    }

    /// The server's start time.
    pub(crate) fn started(&self) -> SystemTime {
        self.state.started()
    }

    /// The API keys and their accounts, if the server has a data folder.
    pub(crate) fn access(&self) -> Option<&Arc<Access>> {
        self.state.access()
    }

    /// The files and batches, if the server has a data folder.
    pub(crate) fn batches(&self) -> Result<&Batches, ApiError> {
        self.state.batches().ok_or_else(|| {
            let message = "this server stores no files and no batches; start it with `--data FOLDER`";
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

/// What only admins may see: the adapters of all tenants and the metrics.
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

    /// Whether the current engine step exceeds [`Limits::step_time`].
    pub(crate) fn is_stuck(&self) -> bool {
        stuck::stuck(self.state.engine(), self.state.limits()).is_some()
    }
}
