//! Traces: spans, in batches, to a collector by OTLP over HTTP (protobuf), from a thread of their
//! own.
//!
//! A collector that cannot be reached costs spans and nothing else: what is not sent waits in a
//! queue of bounded length, and what finds it full is dropped. How large batches are, how often
//! they are sent, what is sampled and which headers go with it is said by OpenTelemetry's own
//! variables (`OTEL_BSP_*`, `OTEL_TRACES_SAMPLER`, `OTEL_EXPORTER_OTLP_HEADERS`, …).

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

/// How often it is logged that spans cannot be sent.
const COMPLAIN: Duration = Duration::from_secs(60);
/// How long the end of the program waits for the last spans to be sent.
const FLUSH: Duration = Duration::from_secs(5);

/// Where spans go.
#[derive(Debug)]
pub(crate) struct Traces(SdkTracerProvider);

impl Traces {
    /// Starts the thread that sends them to `endpoint`.
    pub(crate) fn start(endpoint: &Url) -> Result<Self> {
        // What TLS is made of; a second time it changes nothing.
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
            .with_batch_exporter(Complaining {
                exporter,
                complained: Mutex::default(),
            })
            .build();
        // A password may be in the URL.
        tracing::info!("traces go to {}", endpoint.host_str().unwrap_or_default());
        Ok(Self(provider))
    }

    pub(crate) fn tracer(&self) -> SdkTracer {
        self.0.tracer("multigraft")
    }

    /// Sends what there still is, and ends the thread.
    pub(crate) fn flush(self) {
        if let Err(error) = self.0.shutdown_with_timeout(FLUSH) {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

/// Who sends: `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` if they say so.
fn resource() -> Resource {
    let said = |name: &str| env::var(name).unwrap_or_default();
    let is_named =
        !said("OTEL_SERVICE_NAME").is_empty() || said("OTEL_RESOURCE_ATTRIBUTES").contains("service.name=");
    let resource =
        Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    match is_named {
        true => resource.build(),
        false => resource.with_service_name("multigraft").build(),
    }
}

/// An exporter whose faults are logged, now and then.
#[derive(Debug)]
struct Complaining {
    exporter: opentelemetry_otlp::SpanExporter,
    complained: Mutex<Option<Instant>>,
}

impl Complaining {
    /// Whether it is time to complain.
    fn is_time(&self) -> bool {
        let mut complained = self.complained.lock().unwrap_or_else(PoisonError::into_inner);
        let is_time = complained.is_none_or(|last| last.elapsed() >= COMPLAIN);
        if is_time {
            *complained = Some(Instant::now());
        }
        is_time
    }
}

impl SpanExporter for Complaining {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let outcome = self.exporter.export(batch).await;
        if let Err(error) = &outcome
            && self.is_time()
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
