//! What a key's requests may take, and what its holder is told of it.

use std::{
    num::{NonZeroU32, NonZeroU64},
    sync::{Arc, mpsc},
    time::{Duration, SystemTime},
};

use axum::{body::Body, http::Request};
use multigraft_access::{Access, Grants, KeyLimits, NewKey, Role, Store};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::support::{Answer, Options, Server, server_with};

/// A server with the keys `acme`, which has limits, and `free`, which has none.
struct Limited {
    server: Server,
    access: Arc<Access>,
    acme: String,
    free: String,
    _folder: tempfile::TempDir,
}

fn limited(limits: KeyLimits, gate: Option<mpsc::Receiver<()>>) -> Limited {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let add = |name: &str, limits| {
        let new = NewKey {
            name: name.to_owned(),
            role: Role::Use,
            tenant: None,
            grants: Grants::all(),
            limits,
            expires: None,
        };
        store.add(&new).unwrap().1.reveal().to_owned()
    };
    let (acme, free) = (add("acme", limits), add("free", KeyLimits::default()));
    let access = Arc::new(Access::new(store).unwrap());
    let server = server_with(Options {
        access: Some(Arc::clone(&access)),
        gate,
        ..Options::default()
    });
    Limited {
        server,
        access,
        acme,
        free,
        _folder: folder,
    }
}

impl Limited {
    fn request(key: &str, path: &str, body: Option<&Value>) -> Request<Body> {
        let request = Request::builder()
            .method(if body.is_some() { "POST" } else { "GET" })
            .uri(path)
            .header("authorization", format!("Bearer {key}"))
            .header("content-type", "application/json");
        request
            .body(body.map_or_else(Body::empty, |body| Body::from(body.to_string())))
            .unwrap()
    }

    /// Asks the adapter `two` about a prompt of one token for `tokens` more.
    async fn complete(&self, key: &str, tokens: usize) -> Answer {
        let body = json!({"model": "two", "prompt": "a", "max_tokens": tokens, "ignore_eos": true});
        let request = Self::request(key, "/v1/completions", Some(&body));
        self.server.send(request).await
    }

    fn spent(&self) -> u64 {
        let keys = self.access.store().keys().unwrap();
        let id = &keys.iter().find(|key| key.name == "acme").unwrap().id;
        let refused = self.access.spend(id, 1, Some(0), SystemTime::now());
        refused.unwrap_err().spent
    }
}

fn rates(requests: u32, tokens: u32) -> KeyLimits {
    KeyLimits {
        requests_per_minute: NonZeroU32::new(requests),
        tokens_per_minute: NonZeroU32::new(tokens),
        ..KeyLimits::default()
    }
}

#[tokio::test]
async fn every_answer_of_a_limited_key_says_what_is_left_and_no_other_does() {
    let limited = limited(rates(100, 6000), None);
    let answer = limited.complete(&limited.acme, 4).await;
    assert_eq!(answer.status, 200);
    for (header, value) in [
        ("x-ratelimit-limit-requests", "100"),
        ("x-ratelimit-remaining-requests", "99"),
        ("x-ratelimit-limit-tokens", "6000"),
    ] {
        assert_eq!(answer.header(header), value, "{header}");
    }
    let left: u32 = answer.header("x-ratelimit-remaining-tokens").parse().unwrap();
    assert!((5995..6000).contains(&left), "{left}");
    assert!(answer.header("x-ratelimit-reset-requests").ends_with("ms"));
    assert!(answer.header("x-ratelimit-reset-tokens").ends_with("ms"));

    // Errors and other routes say it too; they take nothing.
    let nothing = Limited::request(&limited.acme, "/v1/models/nothing", None);
    let nothing = limited.server.send(nothing).await;
    assert_eq!(
        (
            nothing.status.as_u16(),
            nothing.header("x-ratelimit-limit-requests")
        ),
        (404, "100")
    );
    let listed = limited
        .server
        .send(Limited::request(&limited.acme, "/v1/models", None))
        .await;
    assert_eq!(listed.header("x-ratelimit-limit-tokens"), "6000");

    let free = limited.complete(&limited.free, 1).await;
    assert!(
        !free
            .headers
            .keys()
            .any(|name| name.as_str().starts_with("x-ratelimit"))
    );
}

#[tokio::test]
async fn too_many_requests_are_told_which_limit_it_is_and_when_to_come_back() {
    let limited = limited(rates(2, 0), None);
    for _ in 0..2 {
        assert_eq!(limited.complete(&limited.acme, 1).await.status, 200);
    }
    let refused = limited.complete(&limited.acme, 1).await;
    assert_eq!(refused.status, 429);
    assert_eq!(refused.header("retry-after"), "30");
    assert_eq!(refused.header("x-ratelimit-remaining-requests"), "0");
    let error = &refused.json()["error"];
    assert_eq!(error["type"], "RateLimitError");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.starts_with("Rate limit of key `acme` reached (2 requests per minute)"),
        "{message}"
    );
    assert!(message.ends_with("Retry in 30s."), "{message}");
    // TGI's routes count and refuse the same.
    let body = json!({"inputs": "a", "parameters": {"adapter_id": "two", "max_new_tokens": 1}});
    let generate = Limited::request(&limited.acme, "/generate", Some(&body));
    assert_eq!(
        limited.server.send(generate).await.json()["error_type"],
        "overloaded"
    );
    assert_eq!(limited.complete(&limited.free, 1).await.status, 200);
}

#[tokio::test]
async fn tokens_of_prompts_and_answers_count() {
    let limited = limited(rates(0, 20), None);
    assert_eq!(limited.complete(&limited.acme, 30).await.status, 200);
    let refused = limited.complete(&limited.acme, 1).await;
    assert_eq!(refused.status, 429, "31 of 20 tokens are gone");
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((30..=36).contains(&wait), "{wait}");
    assert_eq!(refused.header("x-ratelimit-remaining-tokens"), "0");
}

#[tokio::test]
async fn a_month_that_is_used_up_is_insufficient_quota_and_a_refusal_costs_nothing() {
    let limits = KeyLimits {
        tokens_per_month: NonZeroU64::new(10),
        ..KeyLimits::default()
    };
    let limited = limited(limits, None);
    // What the server refuses for other reasons is not counted.
    let unknown = json!({"model": "nothing", "prompt": "a", "max_tokens": 1});
    let unknown = Limited::request(&limited.acme, "/v1/completions", Some(&unknown));
    assert_eq!(limited.server.send(unknown).await.status, 404);
    assert_eq!(limited.spent(), 0);
    assert_eq!(limited.complete(&limited.acme, 9).await.status, 200);
    assert_eq!(limited.spent(), 10);
    let refused = limited.complete(&limited.acme, 1).await;
    assert_eq!((refused.status.as_u16(), limited.spent()), (429, 10));
    let error = &refused.json()["error"];
    assert_eq!(error["type"], "insufficient_quota");
    let message = error["message"].as_str().unwrap();
    assert!(
        message.starts_with("Monthly quota of key `acme` reached: 10 of 10 tokens are used"),
        "{message}"
    );
    assert_eq!(refused.header("x-should-retry"), "false");
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=31 * 24 * 3600).contains(&wait), "{wait}");
}

#[tokio::test]
async fn a_key_has_so_many_requests_at_once_and_a_stream_that_is_cut_off_makes_room() {
    let limits = KeyLimits {
        concurrent_requests: NonZeroU32::new(1),
        ..KeyLimits::default()
    };
    // The engine computes nothing as long as the gate is held.
    let (gate, gated) = mpsc::channel();
    let limited = limited(limits, Some(gated));
    let body = json!({"model": "two", "prompt": "a", "max_tokens": 900, "ignore_eos": true, "stream": true});
    let stream = Limited::request(&limited.acme, "/v1/completions", Some(&body));
    let open = limited.server.router.clone().oneshot(stream).await.unwrap();
    let refused = limited.complete(&limited.acme, 1).await;
    assert_eq!(refused.status, 429);
    let message = "Concurrency limit of key `acme` reached (concurrent requests: 1)";
    assert!(refused.text.contains(message), "{}", refused.text);
    let usage = Limited::request(&limited.acme, "/v1/usage", None);
    let usage = limited.server.send(usage).await.json();
    assert_eq!(usage["data"][0]["refused"], 1, "{usage}");
    drop(open);
    drop(gate);
    for _ in 0..500 {
        if limited.complete(&limited.acme, 1).await.status == 200 {
            assert!(limited.spent() >= 2, "what was made of the stream is counted");
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the stream that was cut off still counts");
}
