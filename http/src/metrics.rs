//! What was done over HTTP, counted; and `/metrics`, which gives it with what the database measures of
//! itself, as text for Prometheus (OpenMetrics 1.0).

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::call::Call;
use crate::failure::Failure;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use query::{Measure, MeasureKind};

/// Every name begins with it.
const PREFIX: &str = "cnosdb";
/// Buckets of durations: from 1 ms, each twice the one before, to 16 s.
const BUCKETS: u16 = 15;

type Labels = Vec<(&'static str, String)>;
type Gauges = Family<Labels, Gauge<f64, AtomicU64>>;
type Counters = Family<Labels, Counter<f64, AtomicU64>>;

/// Counters of the front end.
#[derive(Clone)]
pub(crate) struct Metrics {
    requests: Family<Labels, Counter>,
    seconds: Family<Labels, Histogram>,
    bytes: Family<Labels, Counter>,
    rows: Family<Labels, Counter>,
}

impl Default for Metrics {
    fn default() -> Self {
        let histogram = || Histogram::new(exponential_buckets(0.001, 2.0, BUCKETS));
        Self {
            requests: Family::default(),
            seconds: Family::new_with_constructor(histogram),
            bytes: Family::default(),
            rows: Family::default(),
        }
    }
}

impl Metrics {
    /// Counts a request that was answered.
    pub(crate) fn answered(&self, path: &'static str, status: StatusCode, took: Duration) {
        let labels = vec![("path", path.to_owned()), ("status", status.as_u16().to_string())];
        self.requests.get_or_create(&labels).inc();
        let labels = vec![("path", path.to_owned())];
        self.seconds.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Counts rows that were stored.
    pub(crate) fn rows_in(&self, protocol: &str, rows: usize) {
        let labels = vec![("protocol", protocol.to_owned())];
        self.rows.get_or_create(&labels).inc_by(rows as u64);
    }

    /// Counts the bytes of a body, as sent, of a path that is served.
    pub(crate) fn bytes_in(&self, path: &str, bytes: usize) {
        self.bytes.get_or_create(&vec![("path", path.to_owned())]).inc_by(bytes as u64);
    }

    /// Writes all numbers as text.
    fn text(&self, measures: Vec<Measure>) -> Result<String, std::fmt::Error> {
        let mut registry = Registry::with_prefix(PREFIX);
        registry.register("http_requests", "Requests over HTTP", self.requests.clone());
        registry.register("http_request_seconds", "How long they took", self.seconds.clone());
        registry.register("http_in_bytes", "Bytes of their bodies, as sent", self.bytes.clone());
        registry.register("http_in_rows", "Rows stored over HTTP", self.rows.clone());
        let (mut gauges, mut counters) = (HashMap::new(), HashMap::new());
        for Measure { kind, name, help, labels, value } in measures {
            match kind {
                MeasureKind::Gauge => {
                    let family: &Gauges = gauges.entry(name).or_insert_with(|| {
                        let family = Gauges::default();
                        registry.register(name, help, family.clone());
                        family
                    });
                    family.get_or_create(&labels).set(value);
                }
                MeasureKind::Counter => {
                    let family: &Counters = counters.entry(name).or_insert_with(|| {
                        let family = Counters::default();
                        registry.register(name, help, family.clone());
                        family
                    });
                    family.get_or_create(&labels).inc_by(value);
                }
            }
        }
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    }
}

/// Answers a scrape, of administrators alone: the numbers name tenants.
pub(crate) async fn scrape(call: Call) -> Result<Response, Failure> {
    call.session.check_watches()?;
    let shared = &call.shared;
    let mut measures = measures_of_process();
    measures.push(Measure::memory("http_bodies", shared.bodies.held_bytes() as f64));
    measures.extend(shared.database.measures().await);
    let text = shared.metrics.text(measures);
    let text = text.map_err(|_| Failure::bad_request("the numbers could not be written"))?;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(CONTENT_TYPE, kind)], text).into_response())
}

/// Returns what the system knows of this process; nothing where it does not say.
fn measures_of_process() -> Vec<Measure> {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = statm.split(' ').nth(1).and_then(|pages| pages.parse::<f64>().ok());
    // Linux gives it in pages of 4 KiB.
    let bytes = pages.map(|pages| pages * 4_096.0);
    let measure = |bytes| Measure::gauge("process_resident_bytes", "Memory of this process", bytes);
    bytes.map(measure).into_iter().collect()
}
