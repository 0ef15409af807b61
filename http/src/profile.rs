//! Where time goes: the stacks of all threads, sampled for a while, as `pprof` reads them (profile.proto of
//! github.com/google/pprof, unpacked). For administrators on this machine: stacks tell of others' data.

use std::collections::HashMap;
use std::time::Duration;

use axum::http::header::CONTENT_TYPE;
use axum::http::{StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use pprof::{ProfilerGuardBuilder, Report};
use prost::Message;

use crate::call::Call;
use crate::failure::Failure;

/// Samples a second; not a divisor of what runs by the clock.
const SAMPLES_PER_SECOND: i32 = 99;
const NS_PER_SECOND: i64 = 1_000_000_000;
/// How long is sampled, in seconds.
const SECONDS_DEFAULT: u64 = 10;
const SECONDS_MAX: u64 = 60;
/// Libraries whose locks a sample must not wait for.
const NOT_INTERRUPTED: [&str; 4] = ["libc", "libgcc", "pthread", "vdso"];

#[derive(Clone, PartialEq, Message)]
struct Profile {
    #[prost(message, repeated, tag = "1")]
    sample_type: Vec<ValueType>,
    #[prost(message, repeated, tag = "2")]
    sample: Vec<Sample>,
    #[prost(message, repeated, tag = "4")]
    location: Vec<Location>,
    #[prost(message, repeated, tag = "5")]
    function: Vec<Function>,
    #[prost(string, repeated, tag = "6")]
    string_table: Vec<String>,
    #[prost(int64, tag = "10")]
    duration_nanos: i64,
    #[prost(message, optional, tag = "11")]
    period_type: Option<ValueType>,
    #[prost(int64, tag = "12")]
    period: i64,
}

/// Places in the table of strings.
#[derive(Clone, Copy, PartialEq, Message)]
struct ValueType {
    #[prost(int64, tag = "1")]
    kind: i64,
    #[prost(int64, tag = "2")]
    unit: i64,
}

#[derive(Clone, PartialEq, Message)]
struct Sample {
    /// The innermost first.
    #[prost(uint64, repeated, tag = "1")]
    location_id: Vec<u64>,
    #[prost(int64, repeated, tag = "2")]
    value: Vec<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct Location {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(message, repeated, tag = "4")]
    line: Vec<Line>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Line {
    #[prost(uint64, tag = "1")]
    function_id: u64,
    #[prost(int64, tag = "2")]
    line: i64,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Function {
    #[prost(uint64, tag = "1")]
    id: u64,
    #[prost(int64, tag = "2")]
    name: i64,
    #[prost(int64, tag = "4")]
    filename: i64,
}

/// Answers with a profile of this process, taken for `seconds` from now.
pub(crate) async fn cpu(uri: Uri, call: Call) -> Result<Response, Failure> {
    call.session.check_watches()?;
    if !call.peer.0.ip().is_loopback() {
        let message = "profiles are given on this machine only";
        return Err(Failure::new(StatusCode::FORBIDDEN, "42501", message));
    }
    let pairs = uri.query().unwrap_or_default().split('&');
    let seconds = pairs.filter_map(|pair| pair.strip_prefix("seconds=")).next_back();
    let seconds = seconds.map_or(Ok(SECONDS_DEFAULT), str::parse::<u64>).ok();
    let seconds = seconds.filter(|seconds| (1..=SECONDS_MAX).contains(seconds));
    let seconds = seconds
        .ok_or_else(|| Failure::bad_request(format!("seconds must be from 1 to {SECONDS_MAX}")))?;
    let builder = ProfilerGuardBuilder::default().frequency(SAMPLES_PER_SECOND);
    let unavailable = |error: pprof::Error| {
        let message = format!("no profile can be taken now: {error}");
        Failure::new(StatusCode::SERVICE_UNAVAILABLE, "55P03", message)
    };
    let guard = builder.blocklist(&NOT_INTERRUPTED).build().map_err(unavailable)?;
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    let encoded = tokio::task::spawn_blocking(move || {
        let report = guard.report().build()?;
        Ok(profile(&report, seconds).encode_to_vec())
    });
    let encoded = encoded.await.unwrap_or(Err(pprof::Error::CreatingError)).map_err(unavailable)?;
    Ok(([(CONTENT_TYPE, "application/octet-stream")], encoded).into_response())
}

/// The strings of a profile, each once.
struct Strings {
    all: Vec<String>,
    places: HashMap<String, i64>,
}

impl Strings {
    fn place(&mut self, text: &str) -> i64 {
        if let Some(place) = self.places.get(text) {
            return *place;
        }
        let place = self.all.len() as i64;
        self.all.push(text.to_owned());
        self.places.insert(text.to_owned(), place);
        place
    }
}

fn profile(report: &Report, seconds: u64) -> Profile {
    // The first string is empty, by the format.
    let mut strings = Strings { all: vec![String::new()], places: HashMap::new() };
    let mut made = Profile::default();
    let mut known: HashMap<(String, u32), u64> = HashMap::new();
    let period = NS_PER_SECOND / i64::from(SAMPLES_PER_SECOND);
    for (stack, count) in &report.data {
        let mut location_id = Vec::new();
        for symbol in stack.frames.iter().flatten() {
            let (name, line) = (symbol.name(), symbol.lineno());
            let id = *known.entry((name.clone(), line)).or_insert_with(|| {
                let id = made.location.len() as u64 + 1;
                let filename = strings.place(&symbol.filename());
                made.function.push(Function { id, name: strings.place(&name), filename });
                let line = vec![Line { function_id: id, line: i64::from(line) }];
                made.location.push(Location { id, line });
                id
            });
            location_id.push(id);
        }
        let count = *count as i64;
        made.sample.push(Sample { location_id, value: vec![count, count * period] });
    }
    let samples = ValueType { kind: strings.place("samples"), unit: strings.place("count") };
    let time = ValueType { kind: strings.place("cpu"), unit: strings.place("nanoseconds") };
    made.sample_type = vec![samples, time];
    made.period_type = Some(time);
    made.period = period;
    made.duration_nanos = seconds as i64 * NS_PER_SECOND;
    made.string_table = strings.all;
    made
}
