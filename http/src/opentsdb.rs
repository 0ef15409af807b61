//! OpenTSDB's ways in: lines `metric time value tag=value …`, and JSON of `/api/put`.
//!
//! A time of more than ten digits is in milliseconds, else in seconds, unless `precision` says what it is in.

use std::collections::BTreeMap;
use std::convert::Infallible;

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use crate::call::Call;
use crate::failure::Failure;
use crate::lines::Precision;
use crate::samples::{Samples, Stored, tag_of};

/// The most points the answer names one by one.
const REPORTED_MAX: usize = 100;
/// A time of this and more is in milliseconds.
const MILLISECONDS_FROM: i64 = 10_000_000_000;

/// A point, as JSON has it.
#[derive(Debug, Deserialize)]
struct Point {
    metric: String,
    timestamp: i64,
    value: Value,
    #[serde(default)]
    tags: BTreeMap<String, String>,
}

/// A number, which may stand as a text.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Value {
    Number(f64),
    Text(String),
}

/// Points that were not taken.
#[derive(Default)]
struct Bad {
    count: usize,
    /// The first of them: number and reason.
    first: Vec<(usize, String)>,
}

impl Bad {
    fn push(&mut self, number: usize, reason: String) {
        self.count += 1;
        if self.first.len() < REPORTED_MAX {
            self.first.push((number, reason));
        }
    }
}

/// Takes lines; `put` before one is passed over.
pub(crate) async fn lines(call: Call) -> Result<Response, Failure> {
    let unit = unit(&call)?;
    let text = call.text()?;
    let (mut samples, mut bad) = (Samples::default(), Bad::default());
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        if let Err(reason) = add_line(&mut samples, line, unit) {
            bad.push(at + 1, reason);
        }
    }
    finish(&call, samples, bad).await
}

/// Takes JSON: a point, or a list of points.
pub(crate) async fn put(call: Call) -> Result<Response, Failure> {
    let unit = unit(&call)?;
    let body = call.body.clone();
    let points = tokio::task::spawn_blocking(move || match body.trim_ascii_start().first() {
        Some(b'[') => serde_json::from_slice::<Vec<Point>>(&body),
        _ => serde_json::from_slice(&body).map(|point| vec![point]),
    });
    let points = points.await.map_err(|_| Failure::bad_request("the points could not be read"))?;
    let points = points
        .map_err(|error| Failure::bad_request(format!("the points are not OpenTSDB's: {error}")))?;
    let (mut samples, mut bad) = (Samples::default(), Bad::default());
    for (at, point) in points.into_iter().enumerate() {
        if let Err(reason) = add(&mut samples, point, unit) {
            bad.push(at + 1, reason);
        }
    }
    finish(&call, samples, bad).await
}

/// Returns nanoseconds per unit where one is named.
fn unit(call: &Call) -> Result<Option<i64>, Failure> {
    Ok(call.parameters.precision()?.map(Precision::ns))
}

/// Adds the point of a line; nanoseconds per unit of its time, where they are known.
pub(crate) fn add_line(samples: &mut Samples, line: &str, unit: Option<i64>) -> Result<(), String> {
    add(samples, read_line(line)?, unit)
}

fn read_line(line: &str) -> Result<Point, String> {
    let mut words = line.split_ascii_whitespace().peekable();
    if words.peek() == Some(&"put") {
        words.next();
    }
    let (Some(metric), Some(time), Some(value)) = (words.next(), words.next(), words.next()) else {
        return Err("a line is: metric time value tag=value …".to_owned());
    };
    let timestamp = time.parse().map_err(|_| format!("\"{time}\" is no time"))?;
    let tag = |word: &str| match word.split_once('=') {
        Some((tag, value)) if !tag.is_empty() => Ok((tag.to_owned(), value.to_owned())),
        _ => Err(format!("\"{word}\" is no tag=value")),
    };
    let tags = words.map(tag).collect::<Result<_, _>>()?;
    Ok(Point { metric: metric.to_owned(), timestamp, value: Value::Text(value.to_owned()), tags })
}

fn add(samples: &mut Samples, point: Point, unit: Option<i64>) -> Result<(), String> {
    let value = match point.value {
        Value::Number(number) => number,
        Value::Text(text) => text.parse().map_err(|_| format!("\"{text}\" is no number"))?,
    };
    if point.metric.is_empty() {
        return Err("a point without a metric".to_owned());
    }
    let default = if point.timestamp < MILLISECONDS_FROM { 1_000_000_000 } else { 1_000_000 };
    let time = point.timestamp.checked_mul(unit.unwrap_or(default));
    let time = time.ok_or_else(|| format!("time {} is out of range", point.timestamp))?;
    let tags = point.tags.into_iter().map(|(tag, value)| (tag_of(&tag), value)).collect();
    samples.add(&point.metric, tags, std::iter::once((time, value)));
    Ok(())
}

/// Stores what could be read; names what could not.
async fn finish(call: &Call, samples: Samples, mut bad: Bad) -> Result<Response, Failure> {
    let Stored { rows: stored, rows_failed, failed } = samples.store(&call.session).await;
    call.shared.metrics.rows_in("opentsdb", stored);
    let told = call.parameters.details.is_some() || call.parameters.summary.is_some();
    match failed {
        // What may be taken another time is to be sent once more, wrong points and all.
        Some(error) if bad.count == 0 || error.sqlstate.starts_with('5') => {
            return Err(error.into());
        }
        Some(error) => {
            bad.push(0, error.message);
            bad.count += rows_failed - 1;
        }
        None if bad.count == 0 && !told => return Ok(StatusCode::NO_CONTENT.into_response()),
        None => {}
    }
    if told {
        let status = if bad.count == 0 { StatusCode::OK } else { StatusCode::BAD_REQUEST };
        let mut body = json!({ "success": stored, "failed": bad.count });
        if call.parameters.details.is_some() {
            body["errors"] = bad
                .first
                .into_iter()
                .map(|(point, error)| json!({ "point": point, "error": error }))
                .collect();
        }
        let kind = [(CONTENT_TYPE, "application/json")];
        return Ok((status, kind, body.to_string()).into_response());
    }
    let message = format!("partial write: {} points were not taken, {stored} were", bad.count);
    let lines = bad.first.into_iter();
    let lines = lines.map(|(line, reason)| json!({ "line": line, "reason": reason })).collect();
    Err(Failure::new(StatusCode::BAD_REQUEST, "22P02", message).with_lines(lines))
}

/// Says what is spoken here.
pub(crate) async fn version() -> Result<Response, Infallible> {
    let body = json!({ "version": concat!("CnosDB ", env!("CARGO_PKG_VERSION")) });
    Ok(([(CONTENT_TYPE, "application/json")], body.to_string()).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_with_and_without_put() {
        let point = read_line("put sys.cpu 1700000000 1.5 host=a dc=x=y").unwrap();
        assert_eq!(point.metric, "sys.cpu");
        assert_eq!(point.tags["dc"], "x=y");
        assert!(read_line("sys.cpu 1700000000").is_err());
        assert!(read_line("sys.cpu now 1").is_err());
        assert!(read_line("sys.cpu 1 1 host").is_err());
    }
}
