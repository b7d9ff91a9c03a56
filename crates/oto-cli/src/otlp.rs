//! Spans of some requests for an OpenTelemetry collector: OTLP over HTTP, a feature of `oto` and then a flag of `oto serve`.
//!
//! A thread sends what a bounded queue holds, and what has no room there is dropped: a collector that is slow or away holds
//! nobody up. Which requests are traced is decided before anything is kept of one.

use bytes::Bytes;
use clap::Args;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{ExporterBuildError, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber, info, warn};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::Context;
use tracing_subscriber::{Layer, Registry};
use ureq::Agent;
use ureq::http::{Request, Response};

/// Where the server's spans are made, and the one without which there are no others.
const SPANS: &str = "oto_server::observe::spans";
const FIRST: &str = "request";
/// For one delivery to the collector.
const DELIVERY: Duration = Duration::from_secs(5);
/// For what waits when the program ends.
const LAST_DELIVERY: Duration = Duration::from_secs(2);
/// The longest answer of a collector that is read, in bytes.
const ANSWER_BYTES: u64 = 64 << 10;

/// Which requests are traced, and for whom.
#[derive(Args, Clone, Debug)]
pub struct OtlpOptions {
    /// Address of an OpenTelemetry collector for spans of requests, by OTLP over HTTP: http://127.0.0.1:4318
    #[arg(long, value_name = "URL")]
    pub otlp: Option<String>,
    /// Share of traced requests, from 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, value_parser = share, requires = "otlp")]
    pub otlp_sample: f64,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("expected a number from 0 to 1, got {text:?}"))
}

/// A part of what listens to `tracing`.
pub type Listener = Box<dyn Layer<Registry> + Send + Sync>;

/// Sends spans until it is dropped.
pub struct Exporting(SdkTracerProvider);

impl OtlpOptions {
    /// Starts to send, if that is wanted; gives what listens to `tracing`, and what draws.
    ///
    /// # Errors
    /// If the address is none.
    pub fn start(&self) -> io::Result<Option<(Exporting, [Listener; 2])>> {
        let Some(url) = &self.otlp else { return Ok(None) };
        let exporter = exporter(url).map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::AlwaysOn)
            .with_resource(Resource::builder().with_service_name("oto").with_attribute(version).build())
            .build();
        let layer = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("oto"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_target(false)
            .with_filter(filter_fn(is_ours).with_max_level_hint(LevelFilter::INFO));
        Ok(Some((Exporting(provider), [layer.boxed(), Draws::of(self.otlp_sample).boxed()])))
    }
}

impl Drop for Exporting {
    fn drop(&mut self) {
        // Spans that do not reach the collector by then are lost.
        drop(self.0.shutdown_with_timeout(LAST_DELIVERY));
    }
}

fn is_ours(span: &Metadata<'_>) -> bool {
    span.is_span() && span.target() == SPANS
}

fn is_first(span: &Metadata<'_>) -> bool {
    is_ours(span) && span.name() == FIRST
}

fn exporter(url: &str) -> Result<SpanExporter, ExporterBuildError> {
    let agent = Agent::config_builder()
        .timeout_global(Some(DELIVERY))
        .http_status_as_error(false)
        .max_redirects(0)
        .build()
        .into();
    SpanExporter::builder()
        .with_http()
        .with_http_client(Collector { agent, away: AtomicBool::new(false) })
        .with_endpoint(format!("{}/v1/traces", url.trim_end_matches('/')))
        .with_timeout(DELIVERY)
        .build()
}

/// Draws of a given share, whichever thread asks: which requests have spans. It is no filter of the listener above, because
/// what only filters do not want is made all the same.
struct Draws {
    /// A draw below it is one.
    below: u64,
    drawn: AtomicU64,
}

impl Draws {
    fn of(share: f64) -> Self {
        // From 1 on it is every number but one; the conversion ends at the largest.
        Draws { below: (share * 2f64.powi(64)) as u64, drawn: AtomicU64::new(0) }
    }

    fn next(&self) -> bool {
        // SplitMix64's mixing (Steele, Lea and Flood, OOPSLA 2014) of numbers that are all different.
        let z = self.drawn.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) < self.below
    }
}

impl<S: Subscriber> Layer<S> for Draws {
    fn register_callsite(&self, of: &'static Metadata<'static>) -> Interest {
        if is_first(of) { Interest::sometimes() } else { Interest::always() }
    }

    fn enabled(&self, of: &Metadata<'_>, _: Context<'_, S>) -> bool {
        !is_first(of) || self.next()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        // It wants nothing itself.
        Some(LevelFilter::OFF)
    }
}

/// The way to the collector. It blocks the thread that sends, and no other.
#[derive(Debug)]
struct Collector {
    agent: Agent,
    /// The last delivery failed, and that was told.
    away: AtomicBool,
}

impl Collector {
    fn deliver(&self, request: Request<Bytes>) -> Result<Response<Bytes>, ureq::Error> {
        let (head, body) = request.into_parts();
        let answer = self.agent.run(Request::from_parts(head, &body[..]))?;
        let (head, mut body) = answer.into_parts();
        let bytes = body.with_config().limit(ANSWER_BYTES).read_to_vec()?;
        Ok(Response::from_parts(head, bytes.into()))
    }
}

#[async_trait::async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let delivered = self.deliver(request);
        let trouble = match &delivered {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("it answered {}", answer.status())),
            Err(error) => Some(error.to_string()),
        };
        match (&trouble, self.away.swap(trouble.is_some(), Ordering::Relaxed)) {
            (Some(error), false) => warn!(error, "spans do not reach the collector"),
            (None, true) => info!("spans reach the collector again"),
            _ => {}
        }
        Ok(delivered?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_have_their_share() {
        let drawn = |share| {
            let draws = Draws::of(share);
            (0..100_000).filter(|_| draws.next()).count()
        };
        assert_eq!((drawn(0.0), drawn(1.0)), (0, 100_000));
        assert!((800..1200).contains(&drawn(0.01)), "{}", drawn(0.01));
    }

    #[test]
    fn a_share_is_one() {
        assert_eq!(share("0.5"), Ok(0.5));
        for wrong in ["", "-0.1", "1.1", "NaN", "inf", "half"] {
            assert!(share(wrong).unwrap_err().contains("from 0 to 1"), "{wrong}");
        }
    }
}
