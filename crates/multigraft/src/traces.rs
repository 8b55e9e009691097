//! Traces: a thread sends spans in batches to a collector, by OTLP over HTTP (protobuf).
//!
//! If the collector cannot be reached, spans are lost and nothing else happens: spans wait in a
//! queue of bounded length, and are dropped when it is full. OpenTelemetry's variables set the size
//! and interval of batches, the sampling and the headers (`OTEL_BSP_*`, `OTEL_TRACES_SAMPLER`,
//! `OTEL_EXPORTER_OTLP_HEADERS`, …).

use std::{
    env,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::{Protocol, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SdkTracer, SdkTracerProvider, SpanData, SpanExporter},
};
use reqwest::Url;

/// The least time between two log lines about spans that cannot be sent.
const LOG_INTERVAL: Duration = Duration::from_secs(60);
/// How long the end of the program waits until the last spans are sent.
const FLUSH: Duration = Duration::from_secs(5);

/// The exporter of spans.
#[derive(Debug)]
pub(crate) struct Traces(SdkTracerProvider);

impl Traces {
    /// Starts the thread that sends spans to `endpoint`.
    pub(crate) fn start(endpoint: &Url) -> Result<Self> {
        // The cryptography of TLS. A second call changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let protocol = [
            "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
            "OTEL_EXPORTER_OTLP_PROTOCOL",
        ];
        let protocol = protocol.into_iter().find_map(|name| env::var(name).ok());
        if let Some(other) = protocol.filter(|protocol| !protocol.is_empty() && protocol != "http/protobuf") {
            tracing::warn!("traces are sent as http/protobuf, not as `{other}`");
        }
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(endpoint.as_str())
            .build()
            .with_context(|| format!("traces cannot be sent to {endpoint}"))?;
        let provider = SdkTracerProvider::builder()
            .with_resource(resource())
            .with_batch_exporter(LoggingExporter {
                exporter,
                last_logged: Mutex::default(),
            })
            .build();
        // The whole URL may contain a password.
        tracing::info!("traces go to {}", endpoint.host_str().unwrap_or_default());
        Ok(Self(provider))
    }

    pub(crate) fn tracer(&self) -> SdkTracer {
        self.0.tracer("multigraft")
    }

    /// Sends the remaining spans and ends the thread.
    pub(crate) fn flush(self) {
        if let Err(error) = self.0.shutdown_with_timeout(FLUSH) {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

/// The service that sends: as `OTEL_SERVICE_NAME` or `OTEL_RESOURCE_ATTRIBUTES` names it, or else
/// `multigraft`.
fn resource() -> Resource {
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let is_named = !variable("OTEL_SERVICE_NAME").is_empty()
        || variable("OTEL_RESOURCE_ATTRIBUTES").contains("service.name=");
    let resource =
        Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    match is_named {
        true => resource.build(),
        false => resource.with_service_name("multigraft").build(),
    }
}

/// An exporter that logs its errors, not more often than [`LOG_INTERVAL`].
#[derive(Debug)]
struct LoggingExporter {
    exporter: opentelemetry_otlp::SpanExporter,
    last_logged: Mutex<Option<Instant>>,
}

impl LoggingExporter {
    /// Whether an error may be logged now.
    fn may_log(&self) -> bool {
        let mut last_logged = self.last_logged.lock().unwrap_or_else(PoisonError::into_inner);
        let may_log = last_logged.is_none_or(|last| last.elapsed() >= LOG_INTERVAL);
        if may_log {
            *last_logged = Some(Instant::now());
        }
        may_log
    }
}

impl SpanExporter for LoggingExporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let outcome = self.exporter.export(batch).await;
        if let Err(error) = &outcome
            && self.may_log()
        {
            tracing::warn!(%error, spans, "traces cannot be sent");
        }
        outcome
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
