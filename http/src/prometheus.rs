//! Prometheus' remote write and remote read, version 1: snappy around protocol buffers.
//!
//! A metric is a table, its labels are tags, its samples the field `value`; staleness markers are NaNs whose
//! bits are kept. Messages as in `prompb/remote.proto` and `prompb/types.proto` of prometheus 2.

use std::sync::Arc;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, TimestampNanosecondType};
use axum::http::StatusCode;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use futures::StreamExt;
use prost::Message;
use query::{Output, Session};

use crate::body::snappy_block;
use crate::call::Call;
use crate::failure::Failure;
use crate::samples::{Samples, VALUE, label_of, tag_of};

const NAME: &str = "__name__";
const MS_NS: i64 = 1_000_000;
/// The most bytes of a write once unpacked; Prometheus sends some hundred KiB.
const WRITE_BYTES_MAX: usize = 16 << 20;
/// The most bytes of what a read asks, once unpacked.
const READ_BYTES_MAX: usize = 1 << 20;
/// The most bytes a read answers with: 16 for a sample, the labels of a series and 64 more.
const ANSWER_BYTES_MAX: usize = 512 << 20;
const SAMPLE_BYTES: usize = 16;
const SERIES_BYTES: usize = 64;

#[derive(Clone, PartialEq, Message)]
struct WriteRequest {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

#[derive(Clone, PartialEq, Message)]
struct TimeSeries {
    #[prost(message, repeated, tag = "1")]
    labels: Vec<Label>,
    #[prost(message, repeated, tag = "2")]
    samples: Vec<Sample>,
}

#[derive(Clone, PartialEq, Message)]
struct Label {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct Sample {
    #[prost(double, tag = "1")]
    value: f64,
    /// Milliseconds since the epoch.
    #[prost(int64, tag = "2")]
    timestamp: i64,
}

#[derive(Clone, PartialEq, Message)]
struct ReadRequest {
    #[prost(message, repeated, tag = "1")]
    queries: Vec<ReadQuery>,
}

#[derive(Clone, PartialEq, Message)]
struct ReadQuery {
    #[prost(int64, tag = "1")]
    start_ms: i64,
    #[prost(int64, tag = "2")]
    end_ms: i64,
    #[prost(message, repeated, tag = "3")]
    matchers: Vec<Matcher>,
}

#[derive(Clone, PartialEq, Message)]
struct Matcher {
    /// 0 =, 1 !=, 2 =~, 3 !~.
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    value: String,
}

#[derive(Clone, PartialEq, Message)]
struct ReadResponse {
    #[prost(message, repeated, tag = "1")]
    results: Vec<QueryResult>,
}

#[derive(Clone, PartialEq, Message)]
struct QueryResult {
    #[prost(message, repeated, tag = "1")]
    timeseries: Vec<TimeSeries>,
}

/// Reads the message of a request. One that does not say how it is packed is a block of snappy.
fn message<T: Message + Default>(call: &Call, bytes_max: usize) -> Result<T, Failure> {
    let says = call.headers.contains_key(CONTENT_ENCODING);
    let bytes = if says { call.body.clone() } else { snappy_block(&call.body, bytes_max)? };
    if bytes.len() > bytes_max {
        let message = format!("the message unpacks to more than {bytes_max} bytes");
        return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "54000", message));
    }
    T::decode(bytes).map_err(|error| Failure::bad_request(format!("not a remote message: {error}")))
}

/// Takes a remote write.
pub(crate) async fn write(call: Call) -> Result<StatusCode, Failure> {
    // A message of version 2 would be read as one without series.
    let kind =
        call.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if kind.contains("proto=") && !kind.contains("proto=prometheus.WriteRequest") {
        let message = format!("{kind} is not spoken here, but prometheus.WriteRequest");
        return Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "0A000", message));
    }
    // Large messages take a while: other requests of this thread go elsewhere meanwhile.
    let samples = tokio::task::block_in_place(|| samples_of(&call))?;
    let stored = samples.store(&call.session).await;
    call.shared.metrics.rows_in("prometheus", stored.rows);
    match stored.failed {
        Some(error) => Err(error.into()),
        None => Ok(StatusCode::NO_CONTENT),
    }
}

fn samples_of(call: &Call) -> Result<Samples, Failure> {
    let request: WriteRequest = message(call, WRITE_BYTES_MAX)?;
    let mut samples = Samples::default();
    for series in request.timeseries {
        let (mut metric, mut tags) = (None, Vec::with_capacity(series.labels.len()));
        for label in series.labels {
            if label.name == NAME {
                metric = Some(label.value);
            } else {
                tags.push((tag_of(&label.name), label.value));
            }
        }
        let metric = metric.filter(|metric| !metric.is_empty());
        let metric = metric.ok_or_else(|| Failure::bad_request("a series without __name__"))?;
        let mut all = Vec::with_capacity(series.samples.len());
        for sample in series.samples {
            let time = sample.timestamp.checked_mul(MS_NS);
            let out = || Failure::bad_request(format!("time {} is out of range", sample.timestamp));
            all.push((time.ok_or_else(out)?, sample.value));
        }
        samples.add(&metric, tags, all.into_iter());
    }
    Ok(samples)
}

/// Answers a remote read.
pub(crate) async fn read(call: Call) -> Result<Response, Failure> {
    let request: ReadRequest = message(&call, READ_BYTES_MAX)?;
    let session = &call.session;
    let (mut results, mut left) = (Vec::new(), ANSWER_BYTES_MAX);
    for query in &request.queries {
        let mut timeseries = Vec::new();
        for table in tables(session, query).await? {
            match read_table(session, &table, query, &mut left).await {
                Ok(found) => timeseries.extend(found),
                // What may not be read is not there, unless it was asked for by its name.
                Err(failure) if failure.is_denied() && !names(query, &table) => {}
                Err(failure) => return Err(failure),
            }
        }
        results.push(QueryResult { timeseries });
    }
    let bytes = ReadResponse { results }.encode_to_vec();
    let packed = snap::raw::Encoder::new().compress_vec(&bytes);
    let packed = packed.map_err(|error| Failure::bad_request(error.to_string()))?;
    let headers = [(CONTENT_TYPE, "application/x-protobuf"), (CONTENT_ENCODING, "snappy")];
    Ok((headers, packed).into_response())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Runs a query and gives its rows to `visit`.
async fn rows(
    session: &Arc<Session>,
    sql: &str,
    mut visit: impl FnMut(&arrow::record_batch::RecordBatch) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut statements = query::parse(sql)?;
    let statement = statements.pop().ok_or_else(|| Failure::bad_request("no statement"))?;
    let output = session.execute(&statement, &[]).await?;
    let (Output::Rows(mut rows) | Output::Fetched(mut rows)) = output else { return Ok(()) };
    while let Some(batch) = rows.next().await {
        visit(&batch.map_err(query::Error::from)?)?;
    }
    Ok(())
}

/// Returns the texts of the first columns of a query.
async fn texts<const N: usize>(
    session: &Arc<Session>,
    sql: &str,
) -> Result<Vec<[String; N]>, Failure> {
    let mut found = Vec::new();
    rows(session, sql, |batch| {
        for row in 0..batch.num_rows() {
            let column = |at: usize| batch.column(at).as_string::<i32>().value(row).to_owned();
            found.push(std::array::from_fn(column));
        }
        Ok(())
    })
    .await?;
    Ok(found)
}

/// Returns the condition of a matcher on what stands for a label.
fn condition(matcher: &Matcher, column: &str) -> Result<String, Failure> {
    let value = &matcher.value;
    let anchored = || literal(&format!("^(?:{value})$"));
    Ok(match matcher.kind {
        0 if value.is_empty() => format!("coalesce({column}, '') = ''"),
        0 => format!("{column} = {}", literal(value)),
        1 => format!("coalesce({column}, '') <> {}", literal(value)),
        2 => format!("coalesce({column}, '') ~ {}", anchored()),
        3 => format!("coalesce({column}, '') !~ {}", anchored()),
        other => return Err(Failure::bad_request(format!("matcher of kind {other}"))),
    })
}

/// Returns the metrics a query asks for.
async fn tables(session: &Arc<Session>, query: &ReadQuery) -> Result<Vec<String>, Failure> {
    let mut conditions = Vec::new();
    for matcher in query.matchers.iter().filter(|matcher| matcher.name == NAME) {
        conditions.push(condition(matcher, "table_name")?);
    }
    let conditions = conditions.iter().map(|one| format!(" AND {one}")).collect::<String>();
    let sql = format!(
        "SELECT table_name FROM information_schema.columns WHERE table_schema = current_schema() \
         AND column_name = '{VALUE}' AND column_type = 'FIELD' AND data_type = 'double precision'\
         {conditions} ORDER BY table_name"
    );
    let names = texts::<1>(session, &sql).await?;
    Ok(names.into_iter().map(|[name]| name).collect())
}

/// Returns the tags of a table.
async fn tags(session: &Arc<Session>, table: &str) -> Result<Vec<String>, Failure> {
    let sql = format!("SHOW TAG KEYS FROM {}", quoted(table));
    let keys = texts::<2>(session, &sql).await?;
    Ok(keys.into_iter().map(|[_, key]| key).collect())
}

async fn read_table(
    session: &Arc<Session>,
    table: &str,
    query: &ReadQuery,
    left: &mut usize,
) -> Result<Vec<TimeSeries>, Failure> {
    let tags = tags(session, table).await?;
    let mut conditions = vec![format!("{VALUE} IS NOT NULL")];
    for (op, ms) in [(">=", query.start_ms), ("<=", query.end_ms)] {
        // What no instant can be bounds nothing.
        if let Some(ns) = ms.checked_mul(MS_NS) {
            conditions.push(format!(
                "time {op} arrow_cast({ns}, 'Timestamp(Nanosecond, Some(\"+00:00\"))')"
            ));
        }
    }
    for matcher in query.matchers.iter().filter(|matcher| matcher.name != NAME) {
        let tag = tag_of(&matcher.name);
        // A label that no series has is empty in all of them.
        let column = if tags.contains(&tag) { quoted(&tag) } else { "NULL::text".to_owned() };
        conditions.push(condition(matcher, &column)?);
    }
    let columns: Vec<String> = tags.iter().map(|tag| quoted(tag)).collect();
    let list = |more: &str| {
        columns.iter().cloned().chain([more.to_owned()]).collect::<Vec<_>>().join(", ")
    };
    let sql = format!(
        "SELECT {VALUE}, {} FROM {} WHERE {} ORDER BY {}",
        list("time"),
        quoted(table),
        conditions.join(" AND "),
        list("time")
    );
    let mut found: Vec<TimeSeries> = Vec::new();
    let mut current: Option<Vec<Option<String>>> = None;
    rows(session, &sql, |batch| {
        take(left, batch.num_rows() * SAMPLE_BYTES)?;
        let values = batch.column(0).as_primitive::<Float64Type>();
        let times = batch.column(tags.len() + 1).as_primitive::<TimestampNanosecondType>();
        let texts: Vec<_> =
            (0..tags.len()).map(|at| batch.column(at + 1).as_string::<i32>()).collect();
        for row in 0..batch.num_rows() {
            let value = |at: usize| texts[at].is_valid(row).then(|| texts[at].value(row));
            let same = current.as_ref().is_some_and(|current| {
                (0..tags.len()).all(|at| current[at].as_deref() == value(at))
            });
            if !same {
                let set: Vec<Option<String>> =
                    (0..tags.len()).map(|at| value(at).map(str::to_owned)).collect();
                let labels = labels(table, &tags, &set);
                let bytes: usize = labels.iter().map(|one| one.name.len() + one.value.len()).sum();
                take(left, bytes + SERIES_BYTES)?;
                found.push(TimeSeries { labels, samples: Vec::new() });
                current = Some(set);
            }
            let sample =
                Sample { value: values.value(row), timestamp: times.value(row).div_euclid(MS_NS) };
            if let Some(series) = found.last_mut() {
                series.samples.push(sample);
            }
        }
        Ok(())
    })
    .await?;
    Ok(found)
}

fn take(left: &mut usize, bytes: usize) -> Result<(), Failure> {
    *left = left.checked_sub(bytes).ok_or_else(|| {
        let message = format!("a read of more than {ANSWER_BYTES_MAX} bytes");
        Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "54000", message)
    })?;
    Ok(())
}

/// Returns whether a query asks for one metric by its name.
fn names(query: &ReadQuery, table: &str) -> bool {
    query.matchers.iter().any(|one| one.kind == 0 && one.name == NAME && one.value == table)
}

/// Returns the labels of a series, sorted, as Prometheus wants them.
fn labels(table: &str, tags: &[String], values: &[Option<String>]) -> Vec<Label> {
    let mut labels = vec![Label { name: NAME.to_owned(), value: table.to_owned() }];
    for (tag, value) in tags.iter().zip(values) {
        if let Some(value) = value {
            labels.push(Label { name: label_of(tag).to_owned(), value: value.clone() });
        }
    }
    labels.sort_by(|one, other| one.name.cmp(&other.name));
    labels
}
