//! `/v1/keys`: what an admin does with keys over HTTP, and what nobody may.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use axum::{
    body::Body,
    http::{Method, Request, header},
};
use multigraft_access::{Access, Grants, KeyLimits, NewKey, Role, Store};
use serde_json::{Value, json};

use crate::support::{Answer, Options, Server, server, server_with};

/// A server with the keys `boss`, an admin's, and `worker`, a manager's.
struct Keyed {
    server: Server,
    boss: String,
    worker: String,
    _folder: tempfile::TempDir,
}

fn keyed() -> Keyed {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let add = |name: &str, role| {
        let new = NewKey {
            name: name.to_owned(),
            role,
            tenant: None,
            grants: Grants::all(),
            limits: KeyLimits::default(),
            expires: None,
        };
        store.add(&new).unwrap().1.reveal().to_owned()
    };
    let (boss, worker) = (add("boss", Role::Admin), add("worker", Role::Manage));
    let server = server_with(Options {
        access: Some(Arc::new(Access::new(store).unwrap())),
        ..Options::default()
    });
    Keyed {
        server,
        boss,
        worker,
        _folder: folder,
    }
}

impl Keyed {
    async fn send(&self, secret: &str, method: Method, path: &str, body: Value) -> Answer {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {secret}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(body.to_string()));
        self.server.send(request.unwrap()).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.send(&self.boss, Method::GET, path, Value::Null).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.send(&self.boss, Method::POST, path, body).await
    }

    async fn patch(&self, path: &str, body: Value) -> Answer {
        self.send(&self.boss, Method::PATCH, path, body).await
    }

    async fn delete(&self, path: &str) -> Answer {
        self.send(&self.boss, Method::DELETE, path, Value::Null).await
    }

    /// Whether `secret` opens the server.
    async fn opens(&self, secret: &str) -> bool {
        let answer = self.send(secret, Method::GET, "/v1/models", Value::Null).await;
        answer.status == 200
    }
}

fn message(answer: &Answer) -> String {
    answer.json()["error"]["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_key_is_made_used_seen_changed_and_revoked_at_once() {
    let keyed = keyed();
    let made = keyed
        .post(
            "/v1/keys",
            json!({"name": "acme", "grants": ["two"], "limits": {"requests_per_minute": 5, "tokens_per_month": 1000}}),
        )
        .await;
    assert_eq!(made.status, 201, "{}", made.text);
    assert_eq!(made.header("cache-control"), "no-store");
    let mut key = made.json();
    let secret = key["secret"].as_str().unwrap().to_owned();
    assert_eq!(
        (&key["object"], &key["role"], &key["tenant"], &key["grants"]),
        (&json!("key"), &json!("use"), &json!("acme"), &json!(["two"]))
    );
    assert!(keyed.opens(&secret).await);
    // From then on the secret is nowhere.
    key.as_object_mut().unwrap().remove("secret");
    let by_id = format!("/v1/keys/{}", key["id"].as_str().unwrap());
    for path in [by_id.as_str(), "/v1/keys/acme"] {
        assert_eq!(keyed.get(path).await.json(), key, "{path}");
    }
    let listed = keyed.get("/v1/keys").await;
    assert_eq!(listed.json()["data"][2], key);
    assert!(
        !listed.text.contains("mg-") && !listed.text.contains("secret"),
        "{}",
        listed.text
    );

    let end = 4_000_000_000_u64;
    let changed = keyed
        .patch(
            &by_id,
            json!({"role": "manage", "tenant": "t", "expires": end, "limits": {"tokens_per_month": null, "concurrent_requests": 2}}),
        )
        .await;
    assert_eq!(changed.status, 200, "{}", changed.text);
    let changed = changed.json();
    assert_eq!(
        changed["limits"],
        json!({"requests_per_minute": 5, "concurrent_requests": 2})
    );
    assert_eq!(
        (
            &changed["role"],
            &changed["tenant"],
            &changed["expires"],
            &changed["grants"]
        ),
        (&json!("manage"), &json!("t"), &json!(end), &json!(["two"]))
    );
    let endless = keyed.patch(&by_id, json!({"expires": null})).await.json();
    assert_eq!(
        (&endless["expires"], &endless["role"]),
        (&Value::Null, &json!("manage"))
    );

    assert!(keyed.opens(&secret).await);
    assert_eq!(keyed.delete(&by_id).await.status, 204);
    assert!(!keyed.opens(&secret).await);
    assert!(keyed.get(&by_id).await.json()["revoked"].is_u64());
    assert_eq!(keyed.delete(&by_id).await.status, 204);
    for (path, body) in [(by_id.clone(), json!({})), (format!("{by_id}/rotate"), json!({}))] {
        let method = if path == by_id {
            Method::PATCH
        } else {
            Method::POST
        };
        let late = keyed.send(&keyed.boss, method, &path, body).await;
        assert_eq!(late.status, 409, "{}", late.text);
    }
}

#[tokio::test]
async fn after_a_rotation_the_old_secret_goes_on_for_the_hours_that_were_given() {
    let keyed = keyed();
    let rotated = keyed.post("/v1/keys/worker/rotate", json!({"hours": 1})).await;
    assert_eq!(rotated.status, 200, "{}", rotated.text);
    assert_eq!(rotated.header("cache-control"), "no-store");
    let second = rotated.json()["secret"].as_str().unwrap().to_owned();
    assert!(keyed.opens(&keyed.worker).await && keyed.opens(&second).await);
    let third = keyed
        .post("/v1/keys/worker/rotate", json!({"hours": 0}))
        .await
        .json();
    assert!(!keyed.opens(&keyed.worker).await && !keyed.opens(&second).await);
    assert!(keyed.opens(third["secret"].as_str().unwrap()).await);
    let long = keyed
        .post("/v1/keys/worker/rotate", json!({"hours": 1_000_000}))
        .await;
    assert_eq!(long.status, 400);
    assert!(message(&long).contains("at most 8784"), "{}", long.text);
}

#[tokio::test]
async fn others_than_admins_neither_see_nor_change_keys() {
    let keyed = keyed();
    for (method, path) in [
        (Method::GET, "/v1/keys"),
        (Method::POST, "/v1/keys"),
        (Method::GET, "/v1/keys/worker"),
        (Method::PATCH, "/v1/keys/worker"),
        (Method::DELETE, "/v1/keys/worker"),
        (Method::POST, "/v1/keys/worker/rotate"),
        (Method::GET, "/v1/keys/nobody"),
    ] {
        let body = json!({"name": "mine", "role": "admin"});
        let own = keyed
            .send(&keyed.worker, method.clone(), path, body.clone())
            .await;
        assert_eq!(own.status, 403, "{method} {path}: {}", own.text);
        assert_eq!(message(&own), "only an admin's key may see and change keys");
        assert_eq!(keyed.send("", method, path, body).await.status, 401, "{path}");
    }
    assert_eq!(
        keyed.get("/v1/keys").await.json()["data"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
}

#[tokio::test]
async fn without_keys_nobody_makes_the_first_over_http() {
    let folder = tempfile::tempdir().unwrap();
    let access = Arc::new(Access::new(Store::open(folder.path()).unwrap()).unwrap());
    let empty = server_with(Options {
        access: Some(Arc::clone(&access)),
        ..Options::default()
    });
    for server in [server(), empty] {
        let refused = server
            .post("/v1/keys", json!({"name": "mine", "role": "admin"}))
            .await;
        assert_eq!(refused.status, 403);
        assert!(
            message(&refused).contains("multigraft keys add"),
            "{}",
            refused.text
        );
        assert_eq!(server.get("/v1/keys").await.status, 403);
        assert_eq!(server.get("/v1/models").await.status, 200, "it stays open");
    }
}

#[tokio::test]
async fn the_admin_that_lasts_longest_stays_one() {
    let keyed = keyed();
    let soon = SystemTime::now() + Duration::from_secs(3600);
    let soon = soon.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let guest = json!({"name": "guest", "role": "admin", "expires": soon});
    assert_eq!(keyed.post("/v1/keys", guest).await.status, 201);
    for refused in [
        keyed.delete("/v1/keys/boss").await,
        keyed.patch("/v1/keys/boss", json!({"role": "manage"})).await,
        keyed
            .patch("/v1/keys/boss", json!({"tenant": "t", "expires": soon}))
            .await,
    ] {
        assert_eq!(refused.status, 409, "{}", refused.text);
        assert!(
            message(&refused).contains("no other admin's key lasts as long as `boss`"),
            "{}",
            refused.text
        );
    }
    let boss = keyed.get("/v1/keys/boss").await.json();
    assert_eq!(boss["tenant"], "boss", "nothing is half done");
    // With another that lasts as long it may go, and is out at once, in the middle of its own work.
    assert_eq!(
        keyed
            .patch("/v1/keys/guest", json!({"expires": null}))
            .await
            .status,
        200
    );
    assert_eq!(keyed.delete("/v1/keys/boss").await.status, 204);
    assert_eq!(keyed.get("/v1/keys").await.status, 401);
}

#[tokio::test]
async fn what_a_key_cannot_be_is_refused_by_name() {
    let keyed = keyed();
    for (body, says) in [
        (json!({}), "`name` is missing"),
        (json!({"name": " x"}), "the name begins or ends with a space"),
        (
            json!({"name": "x", "role": "king"}),
            "must be use, manage or admin",
        ),
        (json!({"name": "x", "grants": "*"}), "`grants`"),
        (
            json!({"name": "x", "grants": [1]}),
            "`grants` must be a list of strings",
        ),
        (json!({"name": "x", "expires": -1}), "`expires` is -1"),
        (json!({"name": "x", "expires": u64::MAX}), "`expires`"),
        (
            json!({"name": "x", "limits": {"requests_per_minute": 0}}),
            "`limits.requests_per_minute` is 0",
        ),
        (
            json!({"name": "x", "limits": {"tokens_per_minute": 5_000_000_000_u64}}),
            "from 1 to 4294967295",
        ),
        (
            json!({"name": "x", "limits": {"requests": 1}}),
            "`limits.requests` is not a field",
        ),
        (json!({"name": "x", "secret": "mine"}), "`secret` is not a field"),
    ] {
        let answer = keyed.post("/v1/keys", body.clone()).await;
        assert_eq!(answer.status, 400, "{body}: {}", answer.text);
        assert!(message(&answer).contains(says), "{body}: {}", answer.text);
    }
    let taken = keyed.post("/v1/keys", json!({"name": "worker"})).await;
    assert_eq!(taken.status, 409, "{}", taken.text);
    for (method, path) in [
        (Method::GET, "/v1/keys/none"),
        (Method::PATCH, "/v1/keys/none"),
        (Method::DELETE, "/v1/keys/none"),
        (Method::POST, "/v1/keys/none/rotate"),
    ] {
        let answer = keyed.send(&keyed.boss, method, path, json!({})).await;
        assert_eq!(answer.status, 404, "{path}");
        assert_eq!(
            message(&answer),
            "there is no key `none`; GET /v1/keys lists them"
        );
    }
    assert_eq!(
        keyed.get("/v1/keys").await.json()["data"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let other = keyed
        .send(&keyed.boss, Method::PUT, "/v1/keys/worker", json!({}))
        .await;
    assert_eq!(
        (other.status.as_u16(), other.header("allow")),
        (405, "GET,HEAD,PATCH,DELETE")
    );
}
