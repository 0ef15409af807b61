//! Spans of time: `justify_hours`, `justify_days`, `justify_interval`, and a span times a number.
//! Each behaves as PostgreSQL 15 documents it: a month has 30 days, a day 24 hours.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, BooleanArray, IntervalMonthDayNanoArray};
use datafusion::arrow::compute::kernels::numeric;
use datafusion::arrow::datatypes::{
    DataType, Float64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, TimeUnit,
    TimestampNanosecondType,
};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::logical_expr::expr::{Cast, ScalarFunction};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable, Operator, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::collected::interval_type;
use super::{as_number, as_time, json, no_such_call, scalar_if};
use crate::error::Error;
use crate::exact_numbers;
use crate::sugar::spans::in_words;

const DAY_NS: i64 = 86_400_000_000_000;
const DAYS_OF_MONTH: i32 = 30;

pub(super) fn scalar() -> Vec<Arc<ScalarUDF>> {
    let mut all =
        [Kind::JustifyHours, Kind::JustifyDays, Kind::JustifyInterval].map(function).to_vec();
    all.push(Arc::new(ScalarUDF::from(Overlap(Signature::user_defined(Volatility::Immutable)))));
    all
}

fn function(kind: Kind) -> Arc<ScalarUDF> {
    let signature = Signature::user_defined(Volatility::Immutable);
    Arc::new(ScalarUDF::from(Intervals { kind, signature }))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    JustifyHours,
    JustifyDays,
    JustifyInterval,
    Multiply,
    Divide,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Intervals {
    kind: Kind,
    signature: Signature,
}

impl ScalarUDFImpl for Intervals {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::JustifyHours => "justify_hours",
            Kind::JustifyDays => "justify_days",
            Kind::JustifyInterval => "justify_interval",
            Kind::Multiply => "interval_times",
            Kind::Divide => "interval_divided",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        let is_span = |found: &DataType| matches!(found, DataType::Interval(_) | DataType::Null);
        match (self.kind, found) {
            (Kind::Multiply | Kind::Divide, [span, number]) if is_span(span) => {
                if let Some(number) = as_number(number) {
                    return Ok(vec![interval_type(), number]);
                }
            }
            (Kind::JustifyHours | Kind::JustifyDays | Kind::JustifyInterval, [span])
                if is_span(span) =>
            {
                return Ok(vec![interval_type()]);
            }
            _ => {}
        }
        no_such_call(self.name(), found, "(interval)")
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(interval_type())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let spans = arrays[0].as_primitive::<IntervalMonthDayNanoType>();
        let made: IntervalMonthDayNanoArray = match self.kind {
            Kind::JustifyHours => spans.iter().map(|span| span.map(justify_hours)).collect(),
            Kind::JustifyDays => spans.iter().map(|span| span.map(justify_days)).collect(),
            Kind::JustifyInterval => spans.iter().map(|span| span.map(justify_interval)).collect(),
            Kind::Multiply | Kind::Divide => {
                let numbers = arrays[1].as_primitive::<Float64Type>();
                let pairs = spans.iter().zip(numbers).map(|(span, number)| {
                    let (Some(span), Some(number)) = (span, number) else { return Ok(None) };
                    self.scaled(span, number).map(Some)
                });
                pairs.collect::<Result<_>>()?
            }
        };
        scalar_if(&args.args, Arc::new(made) as ArrayRef)
    }
}

impl Intervals {
    fn scaled(&self, span: IntervalMonthDayNano, number: f64) -> Result<IntervalMonthDayNano> {
        let by = |part: f64| if self.kind == Kind::Divide { part / number } else { part * number };
        if self.kind == Kind::Divide && number == 0.0 {
            return Err(Error::new("22012", "division by zero").into());
        }
        let out_of_range = || Error::new("22008", "interval out of range");
        let (months, days) = (by(f64::from(span.months)), by(f64::from(span.days)));
        // What is left of a month becomes days, what is left of a day hours, as `interval_mul` does.
        let rounded = |part: f64| (part * 1e6).round() / 1e6;
        let of_month = rounded(months.fract() * f64::from(DAYS_OF_MONTH));
        let of_day = rounded((days.fract() + of_month.fract()) * 86_400.0) / 86_400.0;
        let ns = by(span.nanoseconds as f64) + of_day.fract() * DAY_NS as f64;
        let days = days.trunc() + of_month.trunc() + of_day.trunc();
        let whole = |part: f64, max: f64| {
            (part.is_finite() && part.abs() < max).then_some(part).ok_or_else(out_of_range)
        };
        let months = whole(months.trunc(), f64::from(i32::MAX))? as i32;
        let days = whole(days, f64::from(i32::MAX))? as i32;
        let ns = whole(ns.round(), i64::MAX as f64)? as i64;
        Ok(IntervalMonthDayNano::new(months, days, ns))
    }
}

fn justify_hours(span: IntervalMonthDayNano) -> IntervalMonthDayNano {
    let mut days = span.days.saturating_add((span.nanoseconds / DAY_NS) as i32);
    let mut ns = span.nanoseconds % DAY_NS;
    if days > 0 && ns < 0 {
        (days, ns) = (days - 1, ns + DAY_NS);
    } else if days < 0 && ns > 0 {
        (days, ns) = (days + 1, ns - DAY_NS);
    }
    IntervalMonthDayNano::new(span.months, days, ns)
}

fn justify_days(span: IntervalMonthDayNano) -> IntervalMonthDayNano {
    let mut months = span.months.saturating_add(span.days / DAYS_OF_MONTH);
    let mut days = span.days % DAYS_OF_MONTH;
    if months > 0 && days < 0 {
        (months, days) = (months - 1, days + DAYS_OF_MONTH);
    } else if months < 0 && days > 0 {
        (months, days) = (months + 1, days - DAYS_OF_MONTH);
    }
    IntervalMonthDayNano::new(months, days, span.nanoseconds)
}

fn justify_interval(span: IntervalMonthDayNano) -> IntervalMonthDayNano {
    let span = justify_days(justify_hours(span));
    let (mut months, mut days, mut ns) = (span.months, span.days, span.nanoseconds);
    if months > 0 && (days < 0 || (days == 0 && ns < 0)) {
        (months, days) = (months - 1, days + DAYS_OF_MONTH);
    } else if months < 0 && (days > 0 || (days == 0 && ns > 0)) {
        (months, days) = (months + 1, days - DAYS_OF_MONTH);
    }
    if days > 0 && ns < 0 {
        (days, ns) = (days - 1, ns + DAY_NS);
    } else if days < 0 && ns > 0 {
        (days, ns) = (days + 1, ns - DAY_NS);
    }
    IntervalMonthDayNano::new(months, days, ns)
}

/// What OVERLAPS is.
pub(crate) const OVERLAPS: &str = "__overlaps";

/// `(a, b) OVERLAPS (c, d)`: whether two spans of time have a moment in common; the second of a pair may
/// be how long it lasts. Ends may be given in either order, and be unknown, as `overlaps_timestamp` has it.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Overlap(Signature);

impl ScalarUDFImpl for Overlap {
    fn name(&self) -> &'static str {
        OVERLAPS
    }

    fn signature(&self) -> &Signature {
        &self.0
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        let wanted = found.iter().enumerate().map(|(at, found)| match found {
            DataType::Interval(_) | DataType::Duration(_) if at % 2 == 1 => Some(interval_type()),
            DataType::Utf8 => as_time(&DataType::Null),
            found => as_time(found),
        });
        match wanted.collect::<Option<Vec<DataType>>>() {
            Some(wanted) if wanted.len() == 4 => Ok(wanted),
            _ => no_such_call("overlaps", found, ": (time, time or interval) OVERLAPS (…)"),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let mut arrays = ColumnarValue::values_to_arrays(&args.args)?;
        for at in [1, 3] {
            if matches!(arrays[at].data_type(), DataType::Interval(_)) {
                arrays[at] = numeric::add(&arrays[at - 1], &arrays[at])?;
            }
        }
        let times = |at: usize| arrays[at].as_primitive::<TimestampNanosecondType>().iter();
        let rows = times(0).zip(times(1)).zip(times(2).zip(times(3)));
        let made: BooleanArray = rows.map(|(one, other)| overlap(one, other)).collect();
        scalar_if(&args.args, Arc::new(made) as ArrayRef)
    }
}

/// Two ends in order; the first is known where any is.
fn in_order(ends: (Option<i64>, Option<i64>)) -> Option<(i64, Option<i64>)> {
    match ends {
        (None, None) => None,
        (Some(one), Some(other)) => Some((one.min(other), Some(one.max(other)))),
        (Some(known), None) | (None, Some(known)) => Some((known, None)),
    }
}

fn overlap(one: (Option<i64>, Option<i64>), other: (Option<i64>, Option<i64>)) -> Option<bool> {
    let (mut early, mut late) = (in_order(one)?, in_order(other)?);
    if early.0 == late.0 {
        return (early.1.is_some() && late.1.is_some()).then_some(true);
    }
    if early.0 > late.0 {
        std::mem::swap(&mut early, &mut late);
    }
    // One that ends before the other begins lies apart from it, wherever that one ends.
    match early.1? {
        end if late.0 < end => Some(true),
        _ => late.1.map(|_| false),
    }
}

/// Plans a span times or divided by a number, which Arrow does not compute, an instant plus a text, and
/// `@>` between texts, which is JSON's.
#[derive(Debug)]
pub(crate) struct IntervalScaling;

impl ExprPlanner for IntervalScaling {
    fn plan_binary_op(
        &self,
        expr: RawBinaryExpr,
        schema: &DFSchema,
    ) -> Result<PlannerResult<RawBinaryExpr>> {
        let is_span = |side: &Expr| {
            matches!(side.get_type(schema), Ok(DataType::Interval(_) | DataType::Duration(_)))
        };
        let is_number = |side: &Expr| side.get_type(schema).is_ok_and(|found| found.is_numeric());
        let is_time = |side: &Expr| {
            matches!(side.get_type(schema), Ok(DataType::Timestamp(..) | DataType::Date32))
        };
        let is_text =
            |side: &Expr| matches!(side.get_type(schema), Ok(DataType::Utf8 | DataType::Null));
        let contained = |whole, part| {
            let call = ScalarFunction { func: json::containment(), args: vec![whole, part] };
            Expr::ScalarFunction(call)
        };
        let is_date = |side: &Expr| matches!(side.get_type(schema), Ok(DataType::Date32));
        let instant = |date: Expr| {
            let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
            if is_date(&date) { Expr::Cast(Cast::new(Box::new(date), time)) } else { date }
        };
        let call = |kind, args| {
            let call = ScalarFunction { func: function(kind), args };
            Ok(PlannerResult::Planned(Expr::ScalarFunction(call)))
        };
        let (left, right) = (&expr.left, &expr.right);
        match expr.op {
            BinaryOperator::Multiply if is_span(left) && is_number(right) => {
                call(Kind::Multiply, vec![expr.left, expr.right])
            }
            BinaryOperator::Multiply if is_number(left) && is_span(right) => {
                call(Kind::Multiply, vec![expr.right, expr.left])
            }
            BinaryOperator::Divide if is_span(left) && is_number(right) => {
                call(Kind::Divide, vec![expr.left, expr.right])
            }
            BinaryOperator::AtArrow if is_text(left) && is_text(right) => {
                Ok(PlannerResult::Planned(contained(expr.left, expr.right)))
            }
            BinaryOperator::ArrowAt if is_text(left) && is_text(right) => {
                Ok(PlannerResult::Planned(contained(expr.right, expr.left)))
            }
            // A date and a span make an instant, before types are looked at.
            BinaryOperator::Plus if is_date(left) && is_span(right) => {
                Ok(PlannerResult::Planned(instant(expr.left) + expr.right))
            }
            BinaryOperator::Plus if is_span(left) && is_date(right) => {
                Ok(PlannerResult::Planned(instant(expr.right) + expr.left))
            }
            BinaryOperator::Minus if is_date(left) && is_span(right) => {
                Ok(PlannerResult::Planned(instant(expr.left) - expr.right))
            }
            BinaryOperator::Plus if is_time(left) && span_of(right).is_some() => {
                planned_sum(instant(expr.left), span_of(&expr.right))
            }
            BinaryOperator::Plus if is_time(right) && span_of(left).is_some() => {
                planned_sum(instant(expr.right), span_of(&expr.left))
            }
            _ => arithmetic(expr, schema),
        }
    }
}

fn is_quoted(side: &Expr) -> bool {
    matches!(side, Expr::Literal(ScalarValue::Utf8(Some(_)), _))
}

/// Plans arithmetic whose types are not the planner's own.
fn arithmetic(expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
    use BinaryOperator::{Divide, Eq, Gt, GtEq, Lt, LtEq, Minus, Modulo, Multiply, NotEq, Plus};
    let (Ok(left), Ok(right)) = (expr.left.get_type(schema), expr.right.get_type(schema)) else {
        return Ok(PlannerResult::Original(expr));
    };
    let mut expr = expr;
    match expr.op {
        // A literal in quotes is a span beside a span, and an instant that an instant is subtracted by.
        Eq | NotEq | Lt | LtEq | Gt | GtEq if matches!(left, DataType::Interval(_)) => {
            if let Some(span) = span_of(&expr.right) {
                expr.right = Expr::Literal(span, None);
            }
            return Ok(PlannerResult::Original(expr));
        }
        Minus if matches!(left, DataType::Timestamp(..)) && is_quoted(&expr.right) => {
            expr.right = Expr::Cast(Cast::new(Box::new(expr.right), left.clone()));
        }
        Divide | Minus | Modulo | Multiply | Plus => {}
        _ => return Ok(PlannerResult::Original(expr)),
    }
    if let Some(planned) = exactly(&expr, schema) {
        return Ok(PlannerResult::Planned(planned));
    }
    // A literal in quotes is of the type of the number beside it.
    let (left, right) = (number_of(&expr.left, right)?, number_of(&expr.right, left)?);
    Ok(PlannerResult::Original(RawBinaryExpr { op: expr.op, left, right }))
}

fn exactly(expr: &RawBinaryExpr, schema: &DFSchema) -> Option<Expr> {
    let op = match expr.op {
        BinaryOperator::Divide => Operator::Divide,
        BinaryOperator::Minus => Operator::Minus,
        _ => return None,
    };
    exact_numbers::planned(&expr.left, op, &expr.right, schema)
}

/// Reads a literal in quotes as a number of a type.
fn number_of(side: &Expr, wanted: DataType) -> Result<Expr> {
    match side {
        Expr::Literal(text @ ScalarValue::Utf8(Some(written)), metadata) if wanted.is_numeric() => {
            let number = text.cast_to(&wanted).map_err(|_| {
                let of = crate::types::pg_name(&wanted);
                Error::new("22P02", format!("invalid input syntax for type {of}: \"{written}\""))
            })?;
            Ok(Expr::Literal(number, metadata.clone()))
        }
        other => Ok(other.clone()),
    }
}

/// Reads a literal that stands beside an instant as a span of time.
fn span_of(side: &Expr) -> Option<ScalarValue> {
    let Expr::Literal(ScalarValue::Utf8(Some(text)), _) = side else { return None };
    let words = in_words(text);
    let span = ScalarValue::from(words.as_deref().unwrap_or(text)).cast_to(&interval_type());
    span.ok().filter(|span| !span.is_null())
}

fn planned_sum(time: Expr, span: Option<ScalarValue>) -> Result<PlannerResult<RawBinaryExpr>> {
    let span = span.unwrap_or(ScalarValue::IntervalMonthDayNano(None));
    Ok(PlannerResult::Planned(time + Expr::Literal(span, None)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_NS: i64 = 3_600_000_000_000;

    #[test]
    fn spans_are_scaled_and_justified_as_postgresql_does() {
        let of = IntervalMonthDayNano::new;
        let times = |span, number| {
            let signature = Signature::any(2, Volatility::Immutable);
            Intervals { kind: Kind::Multiply, signature }.scaled(span, number).unwrap()
        };
        // select interval '1 month' * 1.5, interval '1 day' * 1.5, interval '1 mon 1 day' * -0.5
        assert_eq!(times(of(1, 0, 0), 1.5), of(1, 15, 0));
        assert_eq!(times(of(1, 0, 0), 2.9), of(2, 27, 0));
        assert_eq!(times(of(0, 1, 0), 1.5), of(0, 1, 12 * HOUR_NS));
        assert_eq!(times(of(1, 1, 0), -0.5), of(0, -15, -12 * HOUR_NS));
        assert_eq!(justify_hours(of(0, 1, 27 * HOUR_NS)), of(0, 2, 3 * HOUR_NS));
        assert_eq!(justify_days(of(0, 35, 0)), of(1, 5, 0));
        assert_eq!(justify_interval(of(1, 0, -HOUR_NS)), of(0, 29, 23 * HOUR_NS));
    }
}
