//! Counters, which only grow until they are reset, and gauges, which go up and down.
//!
//! A counter that falls was reset to zero in between, as in Prometheus' `increase`; nothing is
//! extrapolated beyond the first and the last pair. Rates are per second.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, IntervalMonthDayNanoArray, StructArray};
use datafusion::arrow::datatypes::{DataType, TimestampNanosecondType};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::ScalarUDF;

use super::accessors::{self, Accessor, field, numbers};
use super::collected::{
    Definition, Key, Pairs, Value, instant, interval, interval_type, number, structure,
    structure_type,
};
use super::time_type;

const SECOND_NS: f64 = 1e9;
const USAGE: &str = "(time, value)";

pub(super) static AGGREGATES: [Definition; 5] = [
    pairs("increase", || DataType::Float64, |pairs, _| Ok(number(increase(pairs.values)))),
    pairs("counter_rate", || DataType::Float64, |pairs, _| Ok(ScalarValue::Float64(rate(pairs)))),
    pairs("irate", || DataType::Float64, |pairs, _| Ok(ScalarValue::Float64(irate(pairs)))),
    pairs(
        "gauge_delta",
        || DataType::Float64,
        |pairs, _| Ok(number(pairs.values[pairs.values.len() - 1] - pairs.values[0])),
    ),
    pairs("gauge_agg", gauge_type, |pairs, _| gauge(pairs)),
];

const fn pairs(
    name: &'static str,
    returns: fn() -> DataType,
    finish: fn(&Pairs<'_>, &[ScalarValue]) -> Result<ScalarValue>,
) -> Definition {
    let (key, value) = (Key::Time, Value::Number);
    Definition { name, key, value, options: (0, 0), usage: USAGE, returns, finish }
}

/// Returns how far a counter grew.
fn increase(values: &[f64]) -> f64 {
    values.windows(2).map(|pair| grown(pair[0], pair[1])).sum()
}

fn grown(from: f64, to: f64) -> f64 {
    if to < from { to } else { to - from }
}

fn rate(pairs: &Pairs<'_>) -> Option<f64> {
    let seconds =
        pairs.times[pairs.times.len() - 1].saturating_sub(pairs.times[0]) as f64 / SECOND_NS;
    (seconds > 0.0).then(|| increase(pairs.values) / seconds)
}

fn irate(pairs: &Pairs<'_>) -> Option<f64> {
    let last = pairs.times.len().checked_sub(2)?;
    let seconds = pairs.times[last + 1].saturating_sub(pairs.times[last]) as f64 / SECOND_NS;
    (seconds > 0.0).then(|| grown(pairs.values[last], pairs.values[last + 1]) / seconds)
}

fn point_type() -> DataType {
    structure_type(&[("time", time_type()), ("val", DataType::Float64)])
}

fn gauge_type() -> DataType {
    structure_type(&[
        ("first", point_type()),
        ("second", point_type()),
        ("penultimate", point_type()),
        ("last", point_type()),
        ("num_elements", DataType::UInt64),
    ])
}

fn gauge(pairs: &Pairs<'_>) -> Result<ScalarValue> {
    let count = pairs.times.len();
    let point = |at: Option<usize>| match at.filter(|at| *at < count) {
        Some(at) => {
            structure(&[("time", instant(pairs.times[at])), ("val", number(pairs.values[at]))])
        }
        None => ScalarValue::try_from(&point_type()),
    };
    structure(&[
        ("first", point(Some(0))?),
        ("second", point(Some(1))?),
        ("penultimate", point(count.checked_sub(2))?),
        ("last", point(Some(count - 1))?),
        ("num_elements", ScalarValue::UInt64(Some(count as u64))),
    ])
}

static ACCESSORS: [Accessor; 10] = [
    of_gauge("delta", || DataType::Float64, |gauge| difference(gauge, "last", "first")),
    of_gauge("time_delta", interval_type, time_delta),
    of_gauge("rate", || DataType::Float64, gauge_rate),
    of_gauge("first_time", time_type, |gauge| field(&point(gauge, "first")?, "time")),
    of_gauge("last_time", time_type, |gauge| field(&point(gauge, "last")?, "time")),
    of_gauge("first_val", || DataType::Float64, |gauge| field(&point(gauge, "first")?, "val")),
    of_gauge("last_val", || DataType::Float64, |gauge| field(&point(gauge, "last")?, "val")),
    of_gauge("idelta_left", || DataType::Float64, |gauge| difference(gauge, "second", "first")),
    of_gauge(
        "idelta_right",
        || DataType::Float64,
        |gauge| difference(gauge, "last", "penultimate"),
    ),
    of_gauge("num_elements", || DataType::UInt64, |gauge| field(gauge, "num_elements")),
];

pub(super) fn accessors() -> impl Iterator<Item = Arc<ScalarUDF>> {
    ACCESSORS.iter().map(accessors::scalar)
}

const fn of_gauge(
    name: &'static str,
    returns: fn() -> DataType,
    read: fn(&StructArray) -> Result<ArrayRef>,
) -> Accessor {
    Accessor { name, of: ("gauge_agg", gauge_type), returns, read }
}

fn point(gauge: &StructArray, name: &str) -> Result<StructArray> {
    Ok(field(gauge, name)?.as_struct().clone())
}

fn difference(gauge: &StructArray, of: &str, from: &str) -> Result<ArrayRef> {
    let (of, from) = (numbers(&point(gauge, of)?, "val")?, numbers(&point(gauge, from)?, "val")?);
    Ok(datafusion::arrow::compute::kernels::numeric::sub(&of, &from)?)
}

/// Returns the nanoseconds between the first and the last pair of each row.
fn spans(gauge: &StructArray) -> Result<Vec<Option<i64>>> {
    let times = |name| -> Result<ArrayRef> { field(&point(gauge, name)?, "time") };
    let (first, last) = (times("first")?, times("last")?);
    let (first, last) = (
        first.as_primitive::<TimestampNanosecondType>(),
        last.as_primitive::<TimestampNanosecondType>(),
    );
    Ok(first.iter().zip(last).map(|(first, last)| last?.checked_sub(first?)).collect())
}

fn time_delta(gauge: &StructArray) -> Result<ArrayRef> {
    let spans = spans(gauge)?.into_iter().map(|ns| ns.map(interval));
    Ok(Arc::new(spans.collect::<IntervalMonthDayNanoArray>()))
}

fn gauge_rate(gauge: &StructArray) -> Result<ArrayRef> {
    let deltas = difference(gauge, "last", "first")?;
    let deltas = deltas.as_primitive::<datafusion::arrow::datatypes::Float64Type>();
    let rates = spans(gauge)?.into_iter().enumerate().map(|(row, ns)| {
        let ns = ns.filter(|ns| *ns > 0 && deltas.is_valid(row))?;
        Some(deltas.value(row) / (ns as f64 / SECOND_NS))
    });
    Ok(Arc::new(rates.collect::<datafusion::arrow::array::Float64Array>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_falls_began_anew() {
        assert_eq!(increase(&[10.0, 15.0, 3.0, 4.0]), 5.0 + 3.0 + 1.0);
        assert_eq!(increase(&[7.0]), 0.0);
    }
}
