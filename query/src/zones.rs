//! Time zones in queries: an analyzer rule that reads texts as instants, and `timezone`.
//!
//! Within a session DataFusion's own zone is the session's, and times of tables are given in it: so
//! truncation, parts and casts come out right by themselves. What it reads of texts is less than what
//! PostgreSQL reads, so texts that are cast are read here. `x AT TIME ZONE z` is `timezone(z, x)`, as in
//! PostgreSQL.

use std::borrow::Cow;
use std::sync::Arc;

use chrono::DateTime;
use datafusion::arrow::array::{ArrayRef, AsArray, TimestampNanosecondArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{
    DataType, Float64Type, Int64Type, TimeUnit, TimestampNanosecondType,
};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Cast, ScalarFunction, TryCast};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

use model::schema::TIME_ZONE;

use crate::error::Error;
use crate::functions::{no_such_call, scalar_if, time_type};
use crate::instants::{Zone, parse_instant, parse_wall};
use crate::plan_expressions::{columns_read, rewrite_expressions};

/// What `to_timestamp` of one argument is: seconds since the epoch, or a text.
pub(crate) const INSTANT_OF: &str = "instant_of_time";
/// What `AT TIME ZONE` is.
pub(crate) const TIMEZONE: &str = "timezone";

/// Returns whether a zone of a type is UTC.
pub(crate) fn is_utc(zone: &str) -> bool {
    [TIME_ZONE, "UTC", "Etc/UTC"].contains(&zone)
}

/// Reads texts that are cast to instants.
#[derive(Debug)]
pub(crate) struct Instants;

impl AnalyzerRule for Instants {
    fn analyze(&self, plan: LogicalPlan, options: &ConfigOptions) -> Result<LogicalPlan> {
        let zone = options.execution.time_zone.as_deref().and_then(Zone::named);
        let zone = zone.unwrap_or_default();
        let now_ns = chrono::Utc::now().timestamp_nanos_opt().unwrap_or_default();
        let rewritten = plan.transform_up_with_subqueries(|plan| {
            let schema = columns_read(&plan)?;
            let is_filter = matches!(plan, LogicalPlan::Filter(_));
            rewrite_expressions(plan, |expr| {
                let read = read(expr, &zone, now_ns, is_filter)?;
                if read.transformed || zone.is_utc() {
                    return Ok(read);
                }
                by_the_clock(read.data, &zone, &schema)
            })
        });
        rewritten.data()
    }

    fn name(&self) -> &'static str {
        "instants"
    }
}

/// Returns the first or the last instant there is, for one that is before or after all: a filter may well ask
/// for all times up to the year 9999.
fn outermost(text: &str) -> Option<i64> {
    let text = text.trim();
    match text.to_ascii_lowercase().as_str() {
        "infinity" | "+infinity" => return Some(i64::MAX),
        "-infinity" => return Some(i64::MIN),
        _ => {}
    }
    let (year, month_and_day) = text.split_once('-')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let mut parts = month_and_day.split(['-', ' ', 'T']);
    let is_date = is_number(year)
        && parts.next().is_some_and(is_number)
        && parts.next().is_some_and(is_number);
    match year.parse::<i64>().ok().filter(|_| is_date)? {
        1..=1677 => Some(i64::MIN),
        2262..=294_276 => Some(i64::MAX),
        _ => None,
    }
}

/// Makes a literal of a text that is cast to an instant. What cannot be read stays, to fail where it is
/// computed.
fn read(expr: Expr, zone: &Zone, now_ns: i64, is_filter: bool) -> Result<Transformed<Expr>> {
    let (Expr::Cast(Cast { expr: inner, field }) | Expr::TryCast(TryCast { expr: inner, field })) =
        &expr
    else {
        return Ok(Transformed::no(expr));
    };
    let (Expr::Literal(literal, metadata), DataType::Timestamp(TimeUnit::Nanosecond, of)) =
        (inner.as_ref(), field.data_type())
    else {
        return Ok(Transformed::no(expr));
    };
    let Some(text) = literal.try_as_str().flatten() else { return Ok(Transformed::no(expr)) };
    let ns = match of {
        Some(_) => parse_instant(text, zone, now_ns),
        None => parse_wall(text, zone, now_ns),
    };
    let ns = ns.or_else(|| outermost(text).filter(|_| is_filter));
    Ok(match ns {
        Some(ns) => {
            let value = ScalarValue::TimestampNanosecond(Some(ns), of.clone());
            Transformed::yes(Expr::Literal(value, metadata.clone()))
        }
        None => Transformed::no(expr),
    })
}

/// Goes by the clocks of the session's zone where instants become wall times, dates or the other way
/// round: Arrow keeps the number in one direction, and refuses wall times that there were twice or never in
/// the other. What gives instants in UTC gives them in the session's zone.
fn by_the_clock(expr: Expr, zone: &Zone, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let wall = || DataType::Timestamp(TimeUnit::Nanosecond, None);
    let zoned = || DataType::Timestamp(TimeUnit::Nanosecond, Some(zone.arrow().into()));
    let call = |inner: Expr| {
        let zone = Expr::Literal(ScalarValue::from(zone.name()), None);
        let func = Arc::new(function());
        Expr::ScalarFunction(ScalarFunction { func, args: vec![zone, inner] })
    };
    match expr {
        Expr::Cast(Cast { expr: inner, field }) => {
            let from = inner.get_type(schema)?;
            let made = match (&from, field.data_type()) {
                (
                    DataType::Timestamp(_, Some(_)),
                    DataType::Timestamp(TimeUnit::Nanosecond, None),
                ) => call(*inner),
                (
                    DataType::Timestamp(_, None) | DataType::Date32,
                    DataType::Timestamp(TimeUnit::Nanosecond, Some(_)),
                ) => {
                    let inner = Expr::Cast(Cast::new(inner, wall()));
                    Expr::Cast(Cast::new(Box::new(call(inner)), zoned()))
                }
                _ => return Ok(Transformed::no(Expr::Cast(Cast { expr: inner, field }))),
            };
            Ok(Transformed::yes(made))
        }
        Expr::ScalarFunction(called)
            if called.name() == TIMEZONE || called.name().ends_with("_time") =>
        {
            let expr = Expr::ScalarFunction(called);
            let is_utc = matches!(expr.get_type(schema)?,
                DataType::Timestamp(_, Some(zone)) if &*zone == TIME_ZONE);
            if !is_utc {
                return Ok(Transformed::no(expr));
            }
            Ok(Transformed::yes(Expr::Cast(Cast::new(Box::new(expr), zoned()))))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// Returns the function of [`INSTANT_OF`].
pub(crate) fn instant_of() -> ScalarUDF {
    let signature = Signature::user_defined(Volatility::Immutable);
    ScalarUDF::from(InstantOf { signature })
}

/// Returns a zone that is an offset as ISO 8601 writes it: here, as in POSIX, `+02` is two hours west.
fn east(name: &str) -> Cow<'_, str> {
    match name.split_at_checked(1) {
        Some(("+", rest)) if rest.starts_with(|c: char| c.is_ascii_digit()) => {
            format!("-{rest}").into()
        }
        Some(("-", rest)) if rest.starts_with(|c: char| c.is_ascii_digit()) => {
            format!("+{rest}").into()
        }
        _ => name.into(),
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct InstantOf {
    signature: Signature,
}

impl ScalarUDFImpl for InstantOf {
    fn name(&self) -> &'static str {
        INSTANT_OF
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        match found {
            [DataType::Int64 | DataType::Utf8] => Ok(found.to_vec()),
            [one] if one.is_integer() => Ok(vec![DataType::Int64]),
            [one] if one.is_numeric() || *one == DataType::Null => Ok(vec![DataType::Float64]),
            [DataType::Timestamp(..) | DataType::Date32] => Ok(vec![time_type()]),
            found => no_such_call("to_timestamp", found, "(seconds)"),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(time_type())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let out_of_range = || Error::new("22008", "timestamp out of range");
        let array = &arrays[0];
        let whole = |seconds: i64| seconds.checked_mul(1_000_000_000).ok_or_else(out_of_range);
        let part = |seconds: f64| {
            let ns = (seconds * 1e6).round() * 1e3;
            (ns.abs() < i64::MAX as f64).then_some(ns as i64).ok_or_else(out_of_range)
        };
        let text = |text: &str| {
            parse_instant(text, &Zone::default(), 0).ok_or_else(|| {
                Error::new("22007", format!("Error parsing timestamp from '{text}'"))
            })
        };
        let read: crate::error::Result<TimestampNanosecondArray> = match array.data_type() {
            DataType::Int64 => array
                .as_primitive::<Int64Type>()
                .iter()
                .map(|one| one.map(whole).transpose())
                .collect(),
            DataType::Float64 => {
                let numbers = array.as_primitive::<Float64Type>().iter();
                numbers.map(|one| one.map(part).transpose()).collect()
            }
            DataType::Utf8 => {
                array.as_string::<i32>().iter().map(|one| one.map(text).transpose()).collect()
            }
            _ => Ok(array.as_primitive::<TimestampNanosecondType>().clone()),
        };
        let times = Arc::new(read?.with_timezone(TIME_ZONE)) as ArrayRef;
        scalar_if(&args.args, times)
    }
}

/// `timezone(zone, x)`: the wall time of an instant in a zone, or the instant of a wall time there.
#[derive(Debug, PartialEq, Eq, Hash)]
struct TimeZoneFunction {
    signature: Signature,
}

pub(crate) fn function() -> ScalarUDF {
    let signature = Signature::user_defined(Volatility::Immutable);
    ScalarUDF::from(TimeZoneFunction { signature })
}

impl ScalarUDFImpl for TimeZoneFunction {
    fn name(&self) -> &'static str {
        TIMEZONE
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        match found {
            [DataType::Utf8 | DataType::Null, DataType::Timestamp(_, None)] => {
                Ok(vec![DataType::Utf8, DataType::Timestamp(TimeUnit::Nanosecond, None)])
            }
            [
                DataType::Utf8 | DataType::Null,
                DataType::Timestamp(_, Some(_))
                | DataType::Date32
                | DataType::Utf8
                | DataType::Null,
            ] => Ok(vec![DataType::Utf8, time_type()]),
            found => no_such_call(TIMEZONE, found, "(zone, time)"),
        }
    }

    fn return_type(&self, args: &[DataType]) -> Result<DataType> {
        Ok(match args {
            [_, DataType::Timestamp(_, None)] => time_type(),
            _ => DataType::Timestamp(TimeUnit::Nanosecond, None),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_wall = matches!(
            args.arg_fields.get(1).map(|field| field.data_type()),
            Some(DataType::Timestamp(_, None))
        );
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let zones = arrays[0].as_string::<i32>();
        let wanted =
            if is_wall { DataType::Timestamp(TimeUnit::Nanosecond, None) } else { time_type() };
        let times = cast(&arrays[1], &wanted)?;
        let times = times.as_primitive::<TimestampNanosecondType>();
        let mut last: Option<(&str, Zone)> = None;
        let moved = zones.iter().zip(times).map(|(name, ns)| {
            let (Some(name), Some(ns)) = (name, ns) else { return Ok(None) };
            if last.as_ref().is_none_or(|(known, _)| *known != name) {
                let zone = Zone::named(&east(name)).ok_or_else(|| {
                    Error::new("22023", format!("time zone \"{name}\" not recognized"))
                })?;
                last = Some((name, zone));
            }
            let Some((_, zone)) = &last else { return Ok(None) };
            let moved = if is_wall {
                zone.instant(&DateTime::from_timestamp_nanos(ns).naive_utc())
            } else {
                ns.checked_add(i64::from(zone.offset_at(ns)) * 1_000_000_000)
            };
            moved.map(Some).ok_or_else(|| Error::new("22008", "timestamp out of range"))
        });
        let moved = moved.collect::<crate::error::Result<TimestampNanosecondArray>>()?;
        let moved = if is_wall { moved.with_timezone(TIME_ZONE) } else { moved };
        scalar_if(&args.args, Arc::new(moved) as ArrayRef)
    }
}
