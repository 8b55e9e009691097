//! `multigraft keys`: the API keys of a data folder.

use std::{
    io::{self, Write as _},
    num::{NonZeroU32, NonZeroU64},
    process::ExitCode,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, anyhow};
use comfy_table::{Table, presets};
use multigraft_access::{
    Action, Actor, Admins, Changes, Grants, Key, KeyLimits, LimitChanges, NewKey, Outcome, Secret, Store,
};
use serde_json::{Map, Value, json};

use crate::cli::{KeyLimitArguments, KeysAction, KeysArguments};

const HOUR: u64 = 3600;

pub(crate) fn run(arguments: &KeysArguments) -> Result<ExitCode> {
    let folder = arguments.data.as_ref();
    let folder = folder.context("no data folder: give the server's with --data FOLDER")?;
    let store = Store::open(folder)?;
    let outcome = act(&store, &arguments.action);
    if let Some((action, what)) = audited(&arguments.action) {
        let action = Action {
            actor: Actor::Local,
            remote: None,
            action,
            what: Some(what.to_owned()),
            details: details(&arguments.action),
            outcome: match &outcome {
                Ok(_) => Outcome::Done,
                Err(_) => Outcome::Refused,
            },
            error: outcome.as_ref().err().map(|error| format!("{error:#}")),
            request_id: None,
        };
        store.audit().write(&action, SystemTime::now());
    }
    writeln!(io::stdout().lock(), "{}", outcome?)?;
    Ok(ExitCode::SUCCESS)
}

/// The audit log's name of a change, and the key; `None` if nothing changes.
fn audited(action: &KeysAction) -> Option<(&'static str, &str)> {
    match action {
        KeysAction::Add { name, .. } => Some(("key.add", name)),
        KeysAction::Ls => None,
        KeysAction::Revoke { key } => Some(("key.revoke", key)),
        KeysAction::Rotate { key, .. } => Some(("key.rotate", key)),
        KeysAction::Set { key, .. } => Some(("key.change", key)),
    }
}

/// The details of a change, with the field names of `/v1/keys`.
fn details(action: &KeysAction) -> Map<String, Value> {
    let (role, tenant, grants, days, limits) = match action {
        KeysAction::Add {
            role,
            tenant,
            grant,
            days,
            limits,
            ..
        } => (Some(*role), tenant, grant, days, limits),
        KeysAction::Set {
            role,
            tenant,
            grant,
            days,
            limits,
            ..
        } => (*role, tenant, grant, days, limits),
        KeysAction::Rotate { hours, .. } => return Map::from_iter([("hours".to_owned(), (*hours).into())]),
        KeysAction::Ls | KeysAction::Revoke { .. } => return Map::new(),
    };
    let grants = (!grants.is_empty()).then_some(grants);
    let all = [
        ("role", json!(role.map(|role| role.to_string()))),
        ("tenant", json!(tenant)),
        ("grants", json!(grants)),
        ("days", json!(days)),
        ("requests_per_minute", json!(limits.requests_per_minute)),
        ("tokens_per_minute", json!(limits.tokens_per_minute)),
        ("concurrent_requests", json!(limits.concurrent_requests)),
        ("tokens_per_month", json!(limits.tokens_per_month)),
    ];
    let given = all.into_iter().filter(|(_, value)| !value.is_null());
    given.map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Performs the action. Returns the text to print.
fn act(store: &Store, action: &KeysAction) -> Result<String> {
    Ok(match action {
        KeysAction::Add {
            name,
            role,
            tenant,
            grant,
            days,
            limits,
        } => {
            let (key, secret) = store.add(&NewKey {
                name: name.clone(),
                role: *role,
                tenant: tenant.clone(),
                grants: grants(grant)?.unwrap_or_else(Grants::all),
                limits: changes(limits).apply_to(KeyLimits::default()),
                expires: days.map(in_days).transpose()?,
            })?;
            with_secret(&key, &secret)
        }
        KeysAction::Ls => table(&store.keys()?),
        KeysAction::Revoke { key } => {
            // A user of the data folder can make another admin key at any time.
            let key = store.revoke(key, Admins::MayEnd)?;
            format!("key `{}` is revoked", key.name)
        }
        KeysAction::Rotate { key, hours } => {
            let (key, secret) = store.rotate(key, after(u64::from(*hours) * HOUR)?)?;
            with_secret(&key, &secret)
        }
        KeysAction::Set {
            key,
            role,
            tenant,
            grant,
            days,
            limits,
        } => {
            let key = store.set(
                key,
                &Changes {
                    role: *role,
                    tenant: tenant.clone(),
                    grants: grants(grant)?,
                    limits: changes(limits),
                    expires: days.map(in_days).transpose()?.map(Some),
                },
                Admins::MayEnd,
            )?;
            table(&[key])
        }
    })
}

fn grants(given: &[String]) -> Result<Option<Grants>> {
    match given.is_empty() {
        true => Ok(None),
        false => Ok(Some(Grants::parse(given).map_err(|problem| anyhow!(problem))?)),
    }
}

fn changes(given: &KeyLimitArguments) -> LimitChanges {
    LimitChanges {
        requests_per_minute: given.requests_per_minute.map(NonZeroU32::new),
        tokens_per_minute: given.tokens_per_minute.map(NonZeroU32::new),
        concurrent_requests: given.concurrent_requests.map(NonZeroU32::new),
        tokens_per_month: given.tokens_per_month.map(NonZeroU64::new),
    }
}

/// A key's limits as the text of a table cell.
fn limits(limits: &KeyLimits) -> String {
    let all = [
        (limits.requests_per_minute.map(NonZeroU64::from), "requests/min"),
        (limits.tokens_per_minute.map(NonZeroU64::from), "tokens/min"),
        (limits.concurrent_requests.map(NonZeroU64::from), "at once"),
        (limits.tokens_per_month, "tokens/month"),
    ];
    let bounded = all
        .iter()
        .filter_map(|(limit, of)| limit.map(|limit| format!("{limit} {of}")));
    bounded.collect::<Vec<_>>().join(", ")
}

fn in_days(days: u32) -> Result<SystemTime> {
    after(u64::from(days) * 24 * HOUR)
}

fn after(seconds: u64) -> Result<SystemTime> {
    let time = SystemTime::now().checked_add(Duration::from_secs(seconds));
    time.context("the time is too far in the future")
}

/// The text with a new secret. The secret is alone on the last line, for scripts.
fn with_secret(key: &Key, secret: &Secret) -> String {
    format!(
        "key `{}` ({}); its secret, which is not shown again:\n{}",
        key.name,
        key.id,
        secret.reveal()
    )
}

fn table(keys: &[Key]) -> String {
    if keys.is_empty() {
        return "there are no keys".to_owned();
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["NAME", "ID", "ROLE", "TENANT", "GRANTS", "LIMITS", "STATE"]);
    let now = SystemTime::now();
    for key in keys {
        let state = match key.expires {
            _ if key.revoked.is_some() => "revoked".to_owned(),
            None => "active".to_owned(),
            Some(end) => match end.duration_since(now) {
                Ok(left) => format!("expires in {} h", left.as_secs() / HOUR),
                Err(_) => "expired".to_owned(),
            },
        };
        table.add_row([
            key.name.clone(),
            key.id.clone(),
            key.role.to_string(),
            key.tenant.clone(),
            key.grants.texts().join(" "),
            limits(&key.limits),
            state,
        ]);
    }
    table.to_string()
}
