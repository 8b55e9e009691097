//! Traces, as a collector receives them.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    thread,
};

use crate::program::serving::Serving;
use axum::{Router, body::Bytes, routing::post};
use multigraft_testing::fixtures;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::any_value::Value as Any,
    trace::v1::{Span, status::StatusCode},
};
use prost::Message as _;
use serde_json::json;

/// A collector that keeps what it receives.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

impl Collector {
    /// Starts one on a free port of this machine.
    fn start() -> (Self, SocketAddr) {
        let collector = Self::default();
        let kept = collector.clone();
        let keep = move |body: Bytes| {
            let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
            kept.0.lock().expect("no panic").push(request);
            async {}
        };
        let routes = Router::new().route("/v1/traces", post(keep));
        let (sender, address) = std::sync::mpsc::channel();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
                    .await
                    .expect("a port");
                sender
                    .send(listener.local_addr().expect("an address"))
                    .expect("the test waits");
                axum::serve(listener, routes).await
            })
        });
        (collector, address.recv().expect("it listens"))
    }

    fn spans(&self) -> Vec<Span> {
        let requests = self.0.lock().expect("no panic");
        let resources = requests.iter().flat_map(|request| &request.resource_spans);
        let scopes = resources.flat_map(|resource| &resource.scope_spans);
        scopes.flat_map(|scope| scope.spans.clone()).collect()
    }

    /// The attributes of who sent the first of them.
    fn resource(&self) -> HashMap<String, String> {
        let requests = self.0.lock().expect("no panic");
        let resource = requests[0].resource_spans[0]
            .resource
            .as_ref()
            .expect("a resource");
        texts(&resource.attributes)
    }
}

fn texts(attributes: &[opentelemetry_proto::tonic::common::v1::KeyValue]) -> HashMap<String, String> {
    let texts = attributes.iter().map(|attribute| {
        let value = attribute.value.as_ref().and_then(|value| value.value.as_ref());
        let text = match value {
            Some(Any::StringValue(text)) => text.clone(),
            Some(Any::IntValue(number)) => number.to_string(),
            other => format!("{other:?}"),
        };
        (attribute.key.clone(), text)
    });
    texts.collect()
}

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";
const PROMPT: &str = "xylophonist";

#[test]
fn requests_are_spans_with_their_phases_below_them() {
    let (collector, address) = Collector::start();
    let endpoint = format!("http://{address}");
    let adapter = fixtures().join("../demo/adapters/topic");
    let adapter = format!("topic={}", adapter.display());
    let server = Serving::start(
        &[
            "serve",
            "--threads",
            "1",
            "--preload",
            "off",
            "--adapter",
            &adapter,
        ],
        &[("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)],
    );
    let complete = |headers: &[&str], model: &str, more: serde_json::Value| {
        let mut body = json!({"model": model, "prompt": PROMPT, "max_tokens": 3, "ignore_eos": true});
        body.as_object_mut()
            .expect("an object")
            .extend(more.as_object().expect("an object").clone());
        server.ask("POST", "/v1/completions", headers, Some(&body)).0
    };
    let traced = |flags: &str| format!("traceparent: 00-{TRACE}-{PARENT}-{flags}");
    assert_eq!(complete(&[&traced("01")], "topic", json!({})), 200);
    assert_eq!(complete(&[], "", json!({"n": 2, "stream": true})), 200);
    assert_eq!(complete(&[], "nobody", json!({})), 404);
    // Whoever began the trace does not record it.
    let unsampled = traced("00").replace(TRACE, "00000000000000000000000000000001");
    assert_eq!(complete(&[&unsampled], "topic", json!({})), 200);
    assert_eq!(server.ask("GET", "/v1/models", &[], None).0, 200);
    // All come before the end of the program.
    server.stop();

    let spans = collector.spans();
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let below = |parent: &Span| {
        let children = spans.iter().filter(|span| span.parent_span_id == parent.span_id);
        let mut children: Vec<&Span> = children.collect();
        children.sort_by_key(|span| (span.start_time_unix_nano, span.end_time_unix_nano));
        children
    };
    let requests: Vec<&Span> = spans
        .iter()
        .filter(|span| span.name == "POST /v1/completions")
        .collect();
    assert_eq!(requests.len(), 3, "{spans:#?}");
    let of = |key: &str, value: &str| {
        let found = requests
            .iter()
            .find(|span| texts(&span.attributes).get(key).is_some_and(|text| text == value));
        found.unwrap_or_else(|| panic!("no {key} {value}: {requests:#?}"))
    };

    let first = of("gen_ai.request.model", "topic");
    assert_eq!(
        (hex(&first.trace_id), hex(&first.parent_span_id)),
        (TRACE.to_owned(), PARENT.to_owned())
    );
    let names: Vec<&str> = below(first).iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["adapter load", "queue", "prefill", "decode"]);
    for span in below(first) {
        assert!(
            span.start_time_unix_nano >= first.start_time_unix_nano,
            "{span:?}"
        );
        assert!(span.end_time_unix_nano <= first.end_time_unix_nano, "{span:?}");
        assert_eq!(hex(&span.trace_id), TRACE);
    }
    let attributes = texts(&first.attributes);
    for (key, value) in [
        ("http.route", "/v1/completions"),
        ("http.response.status_code", "200"),
        ("gen_ai.operation.name", "text_completion"),
        ("gen_ai.response.model", "topic"),
        ("gen_ai.usage.output_tokens", "3"),
    ] {
        assert_eq!(
            attributes.get(key).map(String::as_str),
            Some(value),
            "{key}: {attributes:?}"
        );
    }
    let hash = attributes
        .get("multigraft.adapter.hash")
        .expect("which adapter it was");
    assert_eq!(hash.len(), 64, "{hash}");

    let both = of("gen_ai.usage.output_tokens", "6");
    let names: Vec<&str> = below(both).iter().map(|span| span.name.as_str()).collect();
    for (phase, count) in [("queue", 2), ("prefill", 2), ("decode", 2)] {
        assert_eq!(
            names.iter().filter(|name| **name == phase).count(),
            count,
            "{names:?}"
        );
    }
    assert!(both.parent_span_id.is_empty());

    let refused = of("http.response.status_code", "404");
    assert_eq!(
        texts(&refused.attributes).get("error.type").map(String::as_str),
        Some("404")
    );
    assert!(below(refused).is_empty());
    let status = refused
        .status
        .as_ref()
        .map_or(StatusCode::Unset as i32, |status| status.code);
    assert_eq!(
        status,
        StatusCode::Unset as i32,
        "a refusal is the client's error"
    );

    assert_eq!(
        collector.resource().get("service.name").map(String::as_str),
        Some("multigraft")
    );
    assert!(!format!("{spans:?}").contains(PROMPT));
}

#[test]
fn an_unreachable_collector_causes_one_log_line() {
    // A port that was free a moment ago: connections to it are refused.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = format!("http://{}", free.local_addr().expect("an address"));
    drop(free);
    let server = Serving::start(
        &["serve", "--threads", "1", "--otlp-endpoint", &endpoint],
        // A batch for each span, at once.
        &[
            ("OTEL_BSP_SCHEDULE_DELAY", "10"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "1"),
        ],
    );
    for _ in 0..5 {
        let body = json!({"model": "", "prompt": PROMPT, "max_tokens": 2});
        assert_eq!(server.ask("POST", "/v1/completions", &[], Some(&body)).0, 200);
    }
    let log = server.stop();
    assert_eq!(log.matches("traces cannot be sent").count(), 1, "{log}");
}
