//! The functions of every session: DataFusion's, the dangerous ones bounded, and those of time series.
//!
//! | module        | holds                                                                        |
//! |---------------|------------------------------------------------------------------------------|
//! | `bounded`     | DataFusion's functions that could make texts without end                      |
//! | `domains`     | functions of numbers outside of where they are defined                         |
//! | `date_trunc`  | `date_trunc` of many instants at once                                         |
//! | `guarded`     | the skeleton of functions whose arguments are looked at first                 |
//! | `epochs`      | `extract(epoch FROM x)`                                                       |
//! | `collected`   | the skeleton of aggregates that look at rows in order of time                 |
//! | `accessors`   | the skeleton of functions that read the struct another function made          |
//! | `counters`    | `increase`, `rate`, `irate`, `delta`, `gauge_agg` and what is read of it      |
//! | `states`      | `state_agg`, `compact_state_agg`, `duration_in`, `state_at`                   |
//! | `candlestick` | `candlestick_agg` and what is read of it                                      |
//! | `moments`     | `stats_agg` and what is read of it                                            |
//! | `downsample`  | `asap_smooth`, `lttb`                                                         |
//! | `quality`     | `completeness`, `consistency`, `timeliness`, `validity`                       |
//! | `repair`      | `timestamp_repair`, `value_fill`, `value_repair`                              |
//! | `selectors`   | `mode`, `sample`                                                              |
//! | `sums`        | `sum` of whole numbers, which never wraps                                     |
//! | `histogram`   | `histogram_quantile`                                                          |
//! | `intervals`   | `justify_hours` and the like; spans times numbers                             |
//! | `matches`     | texts taken apart by regular expressions                                      |
//! | `postgres`    | functions of PostgreSQL that DataFusion lacks                                 |
//! | `patterns`    | the patterns of `to_char`                                                     |
//! | `reading`     | instants and numbers read by patterns                                         |
//! | `shapes`      | shapes in the plane: `ST_Distance`, `ST_Contains` and the like                |
//! | `json`        | operators and functions of JSON                                               |
//! | `windows`     | `time_window`                                                                 |
//!
//! Add a function: also touch docs/guide/functions.md and sqllogictest/cases.

mod accessors;
mod bounded;
mod candlestick;
mod collected;
mod counters;
mod date_trunc;
mod domains;
mod downsample;
mod epochs;
mod guarded;
mod histogram;
mod intervals;
pub(crate) mod json;
mod matches;
mod moments;
mod patterns;
mod postgres;
mod quality;
mod reading;
mod repair;
mod selectors;
mod shapes;
mod states;
mod sums;
pub(crate) mod windows;

use std::sync::Arc;

pub(crate) use bounded::{Sizes, check};
pub(crate) use collected::interval;
use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::{Result, ScalarValue};
use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::{AggregateUDF, ColumnarValue, ScalarUDF};
pub(crate) use domains::checked as checked_domain;
pub(crate) use epochs::EPOCH_OF;
pub(crate) use intervals::{IntervalScaling, OVERLAPS};
use model::schema::TIME_ZONE;
pub(crate) use postgres::{DATE_BY_PATTERN, NS_OF_MINUTE, WALL_BY_PATTERN};

use crate::error::Error;

/// Returns the scalar functions of every session.
pub(crate) fn scalar() -> Vec<Arc<ScalarUDF>> {
    let mut all = bounded::scalar();
    all.extend(counters::accessors());
    all.extend(states::accessors());
    all.extend(candlestick::accessors());
    all.extend(moments::accessors());
    all.extend(windows::scalar());
    all.extend(postgres::scalar());
    all.extend(intervals::scalar());
    all.extend(json::scalar());
    all.extend(shapes::scalar());
    all.extend(matches::scalar());
    all.push(Arc::new(date_trunc::function()));
    all.push(Arc::new(epochs::function()));
    all.push(Arc::new(crate::as_of::marker()));
    all.push(Arc::new(crate::zones::function()));
    all.push(Arc::new(crate::zones::instant_of()));
    all
}

/// Returns the aggregate functions of every session.
pub(crate) fn aggregate() -> Vec<Arc<AggregateUDF>> {
    let mut all = SessionStateDefaults::default_aggregate_functions();
    all.retain(|function| function.name() != "sum");
    all.push(Arc::new(sums::sum()));
    let collected = counters::AGGREGATES
        .iter()
        .chain(&states::AGGREGATES)
        .chain(&downsample::AGGREGATES)
        .chain(&quality::AGGREGATES)
        .chain(&repair::AGGREGATES)
        .chain(&histogram::AGGREGATES);
    all.extend(collected.map(collected::aggregate));
    all.push(Arc::new(candlestick::aggregate()));
    all.push(Arc::new(moments::aggregate()));
    all.push(Arc::new(selectors::mode()));
    all.push(Arc::new(selectors::sample()));
    all
}

/// Returns the type of instants.
pub(crate) fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, Some(TIME_ZONE.into()))
}

/// Makes the error of a call whose arguments do not fit.
pub(crate) fn no_such_call<T>(name: &str, found: &[DataType], wanted: &str) -> Result<T> {
    let found: Vec<&str> = found.iter().map(crate::types::pg_name).collect();
    let message = format!("function {name}({}) does not exist", found.join(", "));
    Err(Error::new("42883", message).hint(format!("write {name}{wanted}")).into())
}

/// Returns a scalar where all arguments were.
pub(crate) fn scalar_if(args: &[ColumnarValue], array: ArrayRef) -> Result<ColumnarValue> {
    if args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_))) {
        return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?));
    }
    Ok(ColumnarValue::Array(array))
}

/// Returns the states of an aggregate that are the fields of a struct.
fn state_fields(name: &str, fields: DataType) -> Vec<FieldRef> {
    let DataType::Struct(fields) = fields else { return Vec::new() };
    let state = |field: &FieldRef| {
        let name = format!("{name}[{}]", field.name());
        Arc::new(Field::new(name, field.data_type().clone(), true))
    };
    fields.iter().map(state).collect()
}

/// Returns the type an argument that is to be a number is cast to, if it can be.
fn as_number(found: &DataType) -> Option<DataType> {
    (found.is_numeric() || *found == DataType::Null).then_some(DataType::Float64)
}

/// Returns the type an argument that is to be an instant is cast to, if it can be.
fn as_time(found: &DataType) -> Option<DataType> {
    let is_time = matches!(found, DataType::Timestamp(..) | DataType::Date32 | DataType::Null);
    is_time.then(time_type)
}
