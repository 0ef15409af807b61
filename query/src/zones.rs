//! Time zones in queries: an analyzer rule that reads texts as instants, and `timezone`.
//!
//! Within a session DataFusion's own zone is the session's, and times of tables are given in it: so
//! truncation, parts and casts come out right by themselves. What it reads of texts is less than what
//! PostgreSQL reads, so texts that are cast are read here. `x AT TIME ZONE z` is `timezone(z, x)`, as in
//! PostgreSQL.

use std::sync::Arc;

use chrono::DateTime;
use datafusion::arrow::array::{ArrayRef, AsArray, TimestampNanosecondArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, TimeUnit, TimestampNanosecondType};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::expr::{Cast, TryCast};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::optimizer::AnalyzerRule;

use crate::error::Error;
use crate::functions::{no_such_call, scalar_if, time_type};
use crate::instants::{Zone, parse_instant, parse_wall};

/// What `AT TIME ZONE` is.
pub(crate) const TIMEZONE: &str = "timezone";

/// Reads texts that are cast to instants.
#[derive(Debug)]
pub(crate) struct Instants;

impl AnalyzerRule for Instants {
    fn analyze(&self, plan: LogicalPlan, options: &ConfigOptions) -> Result<LogicalPlan> {
        let zone = options.execution.time_zone.as_deref().and_then(Zone::named);
        let zone = zone.unwrap_or_default();
        let now_ns = chrono::Utc::now().timestamp_nanos_opt().unwrap_or_default();
        let rewritten = plan.transform_up_with_subqueries(|plan| {
            let names = NamePreserver::new(&plan);
            plan.map_expressions(|expr| {
                let name = names.save(&expr);
                let read = expr.transform_up(|expr| read(expr, &zone, now_ns))?;
                Ok(read.update_data(|expr| name.restore(expr)))
            })
        });
        rewritten.data()
    }

    fn name(&self) -> &'static str {
        "instants"
    }
}

/// Makes a literal of a text that is cast to an instant. What cannot be read stays, to fail where it is
/// computed.
fn read(expr: Expr, zone: &Zone, now_ns: i64) -> Result<Transformed<Expr>> {
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
    Ok(match ns {
        Some(ns) => {
            let value = ScalarValue::TimestampNanosecond(Some(ns), of.clone());
            Transformed::yes(Expr::Literal(value, metadata.clone()))
        }
        None => Transformed::no(expr),
    })
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
                let zone = Zone::named(name).ok_or_else(|| {
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
        let moved = if is_wall { moved.with_timezone(model::schema::TIME_ZONE) } else { moved };
        scalar_if(&args.args, Arc::new(moved) as ArrayRef)
    }
}
