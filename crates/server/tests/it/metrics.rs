//! What Prometheus reads.

use axum::{body::Body, http::Request};
use serde_json::json;

use crate::support::{Server, server};

/// The value of a series; none if there is no such.
async fn value(server: &Server, series: &str) -> Option<f64> {
    let text = server.get("/metrics").await.text;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))?;
    Some(line.parse().unwrap())
}

async fn ask(server: &Server, model: &str, tokens: usize) -> u16 {
    let body = json!({"model": model, "prompt": "abcd", "max_tokens": tokens, "ignore_eos": true});
    server.post("/v1/completions", body).await.status.as_u16()
}

#[tokio::test]
async fn requests_tokens_and_times_are_counted_for_each_adapter() {
    let server = server();
    for (model, tokens) in [("two", 3), ("two", 5), ("team/three", 2), ("alphabet", 1)] {
        assert_eq!(ask(&server, model, tokens).await, 200);
    }
    assert_eq!(ask(&server, "nobody", 1).await, 404);
    let asked = Request::get("/metrics").header(
        "accept",
        "application/openmetrics-text;version=1.0.0,text/plain;q=0.5",
    );
    let answer = server.send(asked.body(Body::empty()).expect("a request")).await;
    assert_eq!(
        answer.header("content-type"),
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    );
    assert!(answer.text.ends_with("# EOF\n"));
    let plain = server.get("/metrics").await;
    assert_eq!(
        plain.header("content-type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    assert!(
        plain.text.contains("# TYPE multigraft_requests_total counter\n"),
        "{}",
        plain.text
    );
    for (series, expected) in [
        (
            "multigraft_requests_total{adapter=\"two\",outcome=\"finished\"}",
            2.0,
        ),
        ("multigraft_generated_tokens_total{adapter=\"two\"}", 8.0),
        ("multigraft_generated_tokens_total{adapter=\"team/three\"}", 2.0),
        ("multigraft_generated_tokens_total{adapter=\"alphabet\"}", 1.0),
        ("multigraft_prompt_tokens_total{adapter=\"two\"}", 8.0),
        (
            "multigraft_time_to_first_token_seconds_count{adapter=\"two\"}",
            2.0,
        ),
        (
            "multigraft_inter_token_latency_seconds_count{adapter=\"two\"}",
            6.0,
        ),
        ("multigraft_queue_seconds_count{adapter=\"two\"}", 2.0),
        (
            "multigraft_request_duration_seconds_count{adapter=\"team/three\"}",
            1.0,
        ),
        (
            "multigraft_http_responses_total{route=\"/v1/completions\",status=\"200\"}",
            4.0,
        ),
        (
            "multigraft_http_responses_total{route=\"/v1/completions\",status=\"404\"}",
            1.0,
        ),
        ("multigraft_adapters{kind=\"resident\"}", 2.0),
        ("multigraft_running_requests", 0.0),
        ("vllm:num_requests_running{model_name=\"alphabet\"}", 0.0),
        ("vllm:num_gpu_loaded_lora_adapters", 2.0),
    ] {
        assert_eq!(
            value(&server, series).await,
            Some(expected),
            "{series}\n{}",
            answer.text
        );
    }
    let steps = value(&server, "multigraft_steps_total").await.unwrap();
    assert!(steps >= 5.0);
    for size in ["rows", "sequences"] {
        let series = |part: &str| format!("multigraft_step_{size}_{part}");
        let count = value(&server, &series("count")).await.unwrap();
        let alone = value(&server, &series("bucket{le=\"1.0\"}")).await.unwrap();
        assert_eq!(
            count,
            value(&server, &series("bucket{le=\"+Inf\"}")).await.unwrap()
        );
        assert!((1.0..=count).contains(&alone), "{alone} of {count}");
        assert!(value(&server, &series("sum")).await.unwrap() >= count);
    }
    // Nothing that was asked alone is mixed with another.
    for (kind, some) in [("prefill", true), ("decode", true), ("mixed", false)] {
        let series = format!("multigraft_step_time_seconds_total{{kind=\"{kind}\"}}");
        assert_eq!(value(&server, &series).await.unwrap() > 0.0, some, "{kind}");
    }
    for part in ["attention", "lora", "matmul", "other", "sampling"] {
        let series = format!("multigraft_step_part_seconds_total{{part=\"{part}\"}}");
        assert!(value(&server, &series).await.is_some(), "{part}");
    }
    let info = "vllm:lora_requests_info{max_lora=\"2\",running_lora_adapters=\"two,team/three\",waiting_lora_adapters=\"\"}";
    assert!(value(&server, info).await.is_some(), "{}", answer.text);
    assert!(
        !answer.text.contains("nobody"),
        "what clients make up is no label"
    );
}

#[tokio::test]
async fn every_outcome_is_there_before_it_happens() {
    let server = server();
    for outcome in ["finished", "failed", "cancelled", "refused"] {
        for adapter in ["alphabet", "two"] {
            let series = format!("multigraft_requests_total{{adapter=\"{adapter}\",outcome=\"{outcome}\"}}");
            assert_eq!(value(&server, &series).await, Some(0.0), "{series}");
        }
    }
    for outcome in ["loaded", "failed"] {
        let series = format!("multigraft_adapter_loads_total{{outcome=\"{outcome}\"}}");
        assert_eq!(value(&server, &series).await, Some(0.0), "{series}");
    }
}

#[tokio::test]
async fn what_is_refused_and_who_hangs_up_is_counted_too() {
    let server = server();
    let body = json!({"limits": {"requests_per_minute": 1}});
    let limit = crate::support::post("/v1/adapters/two", &body);
    let (mut parts, body) = limit.into_parts();
    parts.method = axum::http::Method::PATCH;
    assert_eq!(
        server
            .send(axum::http::Request::from_parts(parts, body))
            .await
            .status,
        200
    );
    assert_eq!(
        [ask(&server, "two", 1).await, ask(&server, "two", 1).await],
        [200, 429]
    );
    let refused = "multigraft_requests_total{adapter=\"two\",outcome=\"refused\"}";
    assert_eq!(value(&server, refused).await, Some(1.0));
    // A stream that is dropped, of a server whose first step waits until then.
    let (open, gate) = std::sync::mpsc::channel();
    let first = server;
    let server = crate::support::server_with(crate::support::Options {
        gate: Some(gate),
        ..crate::support::Options::default()
    });
    let body =
        json!({"model": "team/three", "prompt": "a", "max_tokens": 500, "ignore_eos": true, "stream": true});
    let request = crate::support::post("/v1/completions", &body);
    let response = tower::ServiceExt::oneshot(server.router.clone(), request)
        .await
        .unwrap();
    drop(response);
    drop(open);
    let cancelled = "multigraft_requests_total{adapter=\"team/three\",outcome=\"cancelled\"}";
    for _ in 0..500 {
        if value(&server, cancelled).await == Some(1.0) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    assert_eq!(value(&server, cancelled).await, Some(1.0));
    let server = first;
    // Who is removed has no series any more.
    let request = axum::http::Request::delete("/v1/adapters/two");
    let removed = server
        .send(request.body(axum::body::Body::empty()).unwrap())
        .await;
    assert_eq!(removed.status, 204);
    assert!(!server.get("/metrics").await.text.contains("adapter=\"two\""));
}
