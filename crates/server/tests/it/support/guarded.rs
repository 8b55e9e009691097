//! A server with keys that may use different things.

use std::sync::Arc;

use axum::{
    body::Body,
    http::{Method, Request, header},
};
use multigraft_access::{Access, Grants, KeyLimits, NewKey, Role, Store};
use multigraft_sources::AllowedSource;
use serde_json::Value;

use super::{Answer, Options, Server, server_with};

/// A name of as many letters as `two`, which nothing has.
pub(crate) const NOBODY: &str = "owt";

/// A server with keys: `admin`; `a`, which may use `two`; `b`, which may use `team/*` and the base;
/// managers `m` and `n` of `team/*`, the base and what is in the folder of sources. Uploads are
/// allowed.
pub(crate) struct Guarded {
    pub(crate) server: Server,
    pub(crate) access: Arc<Access>,
    pub(crate) secrets: Vec<(&'static str, String)>,
    pub(crate) folder: tempfile::TempDir,
}

pub(crate) fn guarded() -> Guarded {
    guarded_with(Options::default())
}

pub(crate) fn guarded_with(options: Options) -> Guarded {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("data")).unwrap();
    let sources = folder.path().join("sources");
    std::fs::create_dir(&sources).unwrap();
    let own = format!("{}/team*", sources.canonicalize().unwrap().display());
    let mut secrets = Vec::new();
    for (name, role, grants) in [
        ("admin", Role::Admin, vec![]),
        ("a", Role::Use, vec!["two"]),
        ("b", Role::Use, vec!["team/*", "base"]),
        ("m", Role::Manage, vec!["team/*", "base", own.as_str()]),
        ("n", Role::Manage, vec!["team/*", "base", own.as_str()]),
    ] {
        let new = NewKey {
            name: name.to_owned(),
            role,
            tenant: None,
            grants: Grants::parse(&grants).unwrap(),
            limits: KeyLimits::default(),
            expires: None,
        };
        let (_, secret) = store.add(&new).unwrap();
        secrets.push((name, secret.reveal().to_owned()));
    }
    let access = Arc::new(Access::new(store).unwrap());
    let server = server_with(Options {
        access: Some(Arc::clone(&access)),
        allowed: vec![AllowedSource::Folder(sources), AllowedSource::Upload],
        ..options
    });
    Guarded {
        server,
        access,
        secrets,
        folder,
    }
}

impl Guarded {
    pub(crate) fn secret(&self, key: &str) -> &str {
        &self.secrets.iter().find(|(name, _)| *name == key).unwrap().1
    }

    pub(crate) async fn send(&self, key: &str, method: Method, path: &str, body: Value) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.secret(key)))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()));
        self.server.send(request.unwrap()).await
    }

    pub(crate) async fn get(&self, key: &str, path: &str) -> Answer {
        self.send(key, Method::GET, path, Value::Null).await
    }

    pub(crate) async fn post(&self, key: &str, path: &str, body: Value) -> Answer {
        self.send(key, Method::POST, path, body).await
    }

    /// Sends what names `NAME` once with `forbidden` in that place and once with a name that
    /// nothing has.
    pub(crate) async fn looks_like_nothing(
        &self,
        key: &str,
        method: Method,
        path: &str,
        body: Value,
        forbidden: &str,
    ) {
        let mut answers = Vec::new();
        for name in [forbidden, NOBODY] {
            let body = serde_json::from_str(&body.to_string().replace("NAME", name)).unwrap();
            let answer = self
                .send(key, method.clone(), &path.replace("NAME", name), body)
                .await;
            answers.push((answer.status, answer.text.replace(name, "NAME")));
        }
        assert_eq!(answers[0], answers[1], "{path} {body}");
        assert_eq!(answers[0].0, 404, "{path} {body}: {}", answers[0].1);
    }
}
