//! An analyzer rule: whole numbers that overflow are an error, casts to them round and a division by zero
//! is an error, as in PostgreSQL; texts that are put together are measured first; spans of time are
//! compared by their length.
//!
//! DataFusion adds, subtracts and multiplies integers modulo 2^n and cuts the fraction off in casts. Both
//! would be stored in silence. `||` would end the process where memory does. Arrow compares intervals by
//! months, then days, so that 48 hours would be less than a day. The rule runs after types were
//! coerced, and puts functions in the places of these expressions; names stay as they were.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Datum, Decimal128Array, Scalar};
use datafusion::arrow::compute::cast;
use datafusion::arrow::compute::kernels::concat_elements::concat_elements_utf8;
use datafusion::arrow::compute::kernels::numeric;
use datafusion::arrow::datatypes::{
    DataType, Decimal128Type, DurationNanosecondType, Float32Type, Float64Type,
    IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit, TimeUnit, i256,
};
use datafusion::arrow::error::ArrowError;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult};
use datafusion::common::{DFSchema, Result, ScalarValue};
use datafusion::functions_aggregate::first_last::first_value_udaf;
use datafusion::logical_expr::expr::{
    AggregateFunction, AggregateFunctionParams, Between, Cast, InList, ScalarFunction, Sort,
};
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;

use crate::error::Error;
use crate::functions::{Sizes, check, checked_domain};
use crate::plan_expressions::{columns_read, rewrite_expressions};
use crate::types::pg_name;

/// Puts checked functions in the places of what would wrap or cut.
#[derive(Debug)]
pub(crate) struct ExactNumbers;

impl AnalyzerRule for ExactNumbers {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(rewrite_plan).data()
    }

    fn name(&self) -> &'static str {
        "exact_numbers"
    }
}

fn rewrite_plan(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let schema = columns_read(&plan)?;
    let plan = match plan {
        LogicalPlan::Sort(mut sort) => {
            by_length(&mut sort.expr, &schema);
            LogicalPlan::Sort(sort)
        }
        other => other,
    };
    // Of `y <> 0 AND x / y > 1` both sides are computed of all rows: no error may come of the second.
    let chooses =
        matches!(plan, LogicalPlan::Filter(_) | LogicalPlan::Join(_) | LogicalPlan::TableScan(_));
    rewrite_expressions(plan, |expr| match expr {
        Expr::BinaryExpr(BinaryExpr { op: Operator::Divide, .. }) if chooses => {
            Ok(Transformed::no(expr))
        }
        Expr::ScalarFunction(ScalarFunction { func, args }) if !chooses => {
            let checked = checked_domain(&func);
            let is_checked = checked.is_some();
            let func = checked.unwrap_or(func);
            let call = Expr::ScalarFunction(ScalarFunction { func, args });
            rewrite_expr(call, &schema).map(|mut rewritten| {
                rewritten.transformed |= is_checked;
                rewritten
            })
        }
        expr => rewrite_expr(expr, &schema),
    })
}

fn call(function: Checked, args: Vec<Expr>) -> Expr {
    let func = Arc::new(ScalarUDF::from(CheckedNumbers::new(function)));
    Expr::ScalarFunction(ScalarFunction { func, args })
}

/// Returns a quotient or a difference whose type is not the planner's own, which must be known before others
/// are made to fit it: of numerics, and of instants.
pub(crate) fn planned(left: &Expr, op: Operator, right: &Expr, schema: &DFSchema) -> Option<Expr> {
    let types = (left.get_type(schema).ok()?, right.get_type(schema).ok()?);
    let both = || vec![left.clone(), right.clone()];
    match (types, op) {
        ((DataType::Decimal128(..), DataType::Decimal128(..)), Operator::Divide) => {
            Some(call(Checked::DivideNumeric, both()))
        }
        ((DataType::Decimal128(..), whole), Operator::Divide) if whole.is_integer() => {
            let right = Expr::Cast(Cast::new(Box::new(right.clone()), WHOLE));
            Some(call(Checked::DivideNumeric, vec![left.clone(), right]))
        }
        ((whole, DataType::Decimal128(..)), Operator::Divide) if whole.is_integer() => {
            let left = Expr::Cast(Cast::new(Box::new(left.clone()), WHOLE));
            Some(call(Checked::DivideNumeric, vec![left, right.clone()]))
        }
        ((from @ DataType::Timestamp(..), to), Operator::Minus) if from == to => {
            Some(call(Checked::Since, both()))
        }
        _ => None,
    }
}

/// The type of spans of time.
const SPAN: DataType = DataType::Interval(IntervalUnit::MonthDayNano);
/// Any whole number.
const WHOLE: DataType = DataType::Decimal128(20, 0);

fn rewrite_expr(mut expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    if orders_by_length(&mut expr, schema) {
        return Ok(Transformed::yes(expr));
    }
    let type_of = |expr: &Expr| expr.get_type(schema).unwrap_or(DataType::Null);
    let is_integer = |expr: &Expr| type_of(expr).is_integer();
    let is_text = |expr: &Expr| type_of(expr) == DataType::Utf8;
    let is_float = |expr: &Expr| type_of(expr).is_floating();
    let is_interval = |expr: &Expr| type_of(expr) == SPAN;
    Ok(match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right })
            if checked(op).is_some() && is_integer(&left) && is_integer(&right) =>
        {
            let function = checked(op).unwrap_or(Checked::Add);
            Transformed::yes(call(function, vec![*left, *right]))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right })
            if is_text(&left) && is_text(&right) =>
        {
            Transformed::yes(call(Checked::Concat, vec![*left, *right]))
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Divide, right })
            if is_float(&left) && is_float(&right) =>
        {
            Transformed::yes(call(Checked::Divide, vec![*left, *right]))
        }
        Expr::BinaryExpr(binary) => rewrite_times(binary, &type_of),
        Expr::Between(Between { expr, negated, low, high }) if is_interval(&expr) => {
            let length = |side: Box<Expr>| Box::new(call(Checked::Length, vec![*side]));
            let (expr, low, high) = (length(expr), length(low), length(high));
            Transformed::yes(Expr::Between(Between { expr, negated, low, high }))
        }
        Expr::InList(InList { expr, list, negated }) if is_interval(&expr) => {
            let length = |side: Expr| call(Checked::Length, vec![side]);
            let (expr, list) = (Box::new(length(*expr)), list.into_iter().map(length).collect());
            Transformed::yes(Expr::InList(InList { expr, list, negated }))
        }
        Expr::AggregateFunction(found)
            if ["min", "max"].contains(&found.func.name())
                && found.params.args.first().is_some_and(is_interval) =>
        {
            Transformed::yes(outermost_span(found))
        }
        Expr::ScalarFunction(ScalarFunction { func, args })
            if func.name() == "round"
                && args.len() == 1
                && is_float(&args[0])
                && !matches!(args[0], Expr::Literal(..)) =>
        {
            Transformed::yes(call(Checked::RoundDouble, args))
        }
        Expr::Negative(inner) if is_integer(&inner) && !matches!(*inner, Expr::Literal(..)) => {
            Transformed::yes(call(Checked::Negate, vec![*inner]))
        }
        Expr::Cast(Cast { expr: inner, field })
            if field.data_type().is_integer() && is_float(&inner) =>
        {
            // A literal with a point is a numeric in PostgreSQL, whose halves go away from zero.
            let is_literal = |expr: &Expr| matches!(expr, Expr::Literal(..));
            let literal = match &*inner {
                Expr::Negative(number) => is_literal(number),
                other => is_literal(other),
            };
            let function = if literal { Checked::RoundNumeric } else { Checked::RoundDouble };
            let inner = Box::new(call(function, vec![*inner]));
            Transformed::yes(Expr::Cast(Cast { expr: inner, field }))
        }
        other => Transformed::no(other),
    })
}

/// Puts the lengths of spans in their places; returns whether there are any.
fn lengths(expressions: &mut [Expr], schema: &DFSchema) -> bool {
    let mut any = false;
    for one in expressions {
        if one.get_type(schema).is_ok_and(|found| found == SPAN) {
            *one = call(Checked::Length, vec![std::mem::take(one)]);
            any = true;
        }
    }
    any
}

/// Orders spans by their length; returns whether there are any.
fn by_length(order: &mut [Sort], schema: &DFSchema) -> bool {
    let mut any = false;
    for one in order {
        any |= lengths(std::slice::from_mut(&mut one.expr), schema);
    }
    any
}

/// Has windows and aggregates order and tell apart spans by their length; returns whether there are any.
fn orders_by_length(expr: &mut Expr, schema: &DFSchema) -> bool {
    match expr {
        Expr::WindowFunction(window) => {
            let params = &mut window.params;
            let ordered = by_length(&mut params.order_by, schema);
            lengths(&mut params.partition_by, schema) || ordered
        }
        Expr::AggregateFunction(found) => {
            let params = &mut found.params;
            let counts = params.distinct && found.func.name() == "count";
            let ordered = by_length(&mut params.order_by, schema);
            (counts && lengths(&mut params.args, schema)) || ordered
        }
        _ => false,
    }
}

/// Writes the least or the greatest span as the first in order of length.
fn outermost_span(found: AggregateFunction) -> Expr {
    let AggregateFunctionParams { args, filter, .. } = found.params;
    let length = call(Checked::Length, args.clone());
    let order_by = vec![length.sort(found.func.name() == "min", false)];
    let (distinct, null_treatment) = (false, None);
    Expr::AggregateFunction(AggregateFunction {
        func: first_value_udaf(),
        params: AggregateFunctionParams { args, distinct, filter, order_by, null_treatment },
    })
}

/// Rewrites what is done with instants and spans of time.
fn rewrite_times(binary: BinaryExpr, type_of: &dyn Fn(&Expr) -> DataType) -> Transformed<Expr> {
    let is_time = |expr: &Expr| matches!(type_of(expr), DataType::Timestamp(..));
    let is_interval = |expr: &Expr| type_of(expr) == SPAN;
    let BinaryExpr { left, op, right } = binary;
    match op {
        Operator::Minus if is_time(&left) && is_time(&right) => {
            Transformed::yes(call(Checked::Since, vec![*left, *right]))
        }
        op if is_comparison(op) && is_interval(&left) && is_interval(&right) => {
            let length = |side: Expr| Box::new(call(Checked::Length, vec![side]));
            let (left, right) = (length(*left), length(*right));
            Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
        }
        _ => Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right })),
    }
}

fn is_comparison(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    [Eq, NotEq, Lt, LtEq, Gt, GtEq].contains(&op)
}

fn checked(op: Operator) -> Option<Checked> {
    Some(match op {
        Operator::Plus => Checked::Add,
        Operator::Minus => Checked::Subtract,
        Operator::Multiply => Checked::Multiply,
        _ => return None,
    })
}

/// What is computed with care.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Checked {
    Add,
    Subtract,
    Multiply,
    Negate,
    Concat,
    /// Not by zero.
    Divide,
    /// A numeric by another, with as many digits as PostgreSQL gives.
    DivideNumeric,
    /// The days and the rest between two instants.
    Since,
    /// An interval as nanoseconds, a month having 30 days.
    Length,
    /// Halves to the even neighbour, as PostgreSQL rounds double precision.
    RoundDouble,
    /// Halves away from zero, as PostgreSQL rounds numeric.
    RoundNumeric,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CheckedNumbers {
    function: Checked,
    signature: Signature,
}

impl CheckedNumbers {
    fn new(function: Checked) -> Self {
        let arity = match function {
            Checked::Add
            | Checked::Subtract
            | Checked::Multiply
            | Checked::Concat
            | Checked::Divide
            | Checked::DivideNumeric
            | Checked::Since => 2,
            Checked::Length | Checked::Negate | Checked::RoundDouble | Checked::RoundNumeric => 1,
        };
        Self { function, signature: Signature::any(arity, Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for CheckedNumbers {
    fn name(&self) -> &'static str {
        match self.function {
            Checked::Add => "checked_add",
            Checked::Subtract => "checked_subtract",
            Checked::Multiply => "checked_multiply",
            Checked::Negate => "checked_negate",
            Checked::Concat => "checked_concat",
            Checked::Divide => "checked_divide",
            Checked::DivideNumeric => "divide_numeric",
            Checked::Since => "time_since",
            Checked::Length => "interval_length",
            Checked::RoundDouble => "round_double",
            Checked::RoundNumeric => "round_numeric",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> Result<DataType> {
        Ok(match self.function {
            Checked::Since => DataType::Interval(IntervalUnit::MonthDayNano),
            Checked::Length => DataType::Decimal128(38, 0),
            Checked::DivideNumeric => {
                let scales = arguments.iter().map(scale_of);
                DataType::Decimal128(38, scales.fold(QUOTIENT_SCALE, i8::max))
            }
            _ => arguments.first().cloned().unwrap_or(DataType::Int64),
        })
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if self.function == Checked::Concat {
            let sizes = args.args.iter().map(Sizes::of).collect::<Result<Vec<_>>>()?;
            check(args.number_rows, |row| sizes.iter().map(|one| one.bytes(row)).sum())?;
            args.args = all_arrays(&args.args)?;
        }
        let all_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let computed = match args.args.as_slice() {
            [left, right] => {
                with_datum(left, |left| with_datum(right, |right| self.two(left, right)))
            }
            [one] => with_datum(one, |one| self.one(one.get().0)),
            _ => return Err(Error::internal("one or two arguments").into()),
        };
        let array = computed.map_err(|error| match error {
            ArrowError::ArithmeticOverflow(_) => {
                let data_type = args.return_field.data_type();
                Error::new("22003", format!("{} out of range", pg_name(data_type))).into()
            }
            other => datafusion::error::DataFusionError::from(other),
        })?;
        Ok(if all_scalar {
            ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?)
        } else {
            ColumnarValue::Array(array)
        })
    }
}

type Computed = std::result::Result<ArrayRef, ArrowError>;

impl CheckedNumbers {
    fn two(&self, left: &dyn Datum, right: &dyn Datum) -> Computed {
        match self.function {
            Checked::Add => numeric::add(left, right),
            Checked::Subtract => numeric::sub(left, right),
            Checked::Divide => divide(left, right),
            Checked::DivideNumeric => divide_numeric(left, right),
            Checked::Since => since(left, right),
            Checked::Concat => {
                let (left, right) = (left.get().0, right.get().0);
                let (left, right) = (left.as_string::<i32>(), right.as_string::<i32>());
                Ok(Arc::new(concat_elements_utf8(left, right)?))
            }
            _ => numeric::mul(left, right),
        }
    }

    fn one(&self, array: &dyn Array) -> Computed {
        match self.function {
            Checked::Negate => numeric::neg(array),
            Checked::Length => {
                let intervals = array.as_primitive::<IntervalMonthDayNanoType>();
                let lengths = intervals.unary::<_, Decimal128Type>(length);
                Ok(Arc::new(lengths.with_data_type(DataType::Decimal128(38, 0))))
            }
            Checked::RoundNumeric => Ok(rounded(array, f64::round)),
            _ => Ok(rounded(array, f64::round_ties_even)),
        }
    }
}

fn divide(left: &dyn Datum, right: &dyn Datum) -> Computed {
    let (divisors, is_scalar) = right.get();
    let dividends = left.get().0;
    let zero = |row: usize| match divisors.data_type() {
        DataType::Float32 => divisors.as_primitive::<Float32Type>().value(row) == 0.0,
        _ => divisors.as_primitive::<Float64Type>().value(row) == 0.0,
    };
    let zeros = (0..divisors.len()).filter(|row| divisors.is_valid(*row) && zero(*row));
    for row in zeros {
        // NULL by zero is NULL.
        let any_divided = if is_scalar || dividends.len() != divisors.len() {
            dividends.null_count() < dividends.len()
        } else {
            dividends.is_valid(row)
        };
        if any_divided {
            return Err(ArrowError::DivideByZero);
        }
    }
    numeric::div(left, right)
}

/// The fewest digits behind the point of a quotient: PostgreSQL's where it is between 1 and 9,999.
const QUOTIENT_SCALE: i8 = 16;

fn scale_of(data_type: &DataType) -> i8 {
    match data_type {
        DataType::Decimal128(_, scale) => *scale,
        _ => 0,
    }
}

fn divide_numeric(left: &dyn Datum, right: &dyn Datum) -> Computed {
    let ((dividends, one_dividend), (divisors, one_divisor)) = (left.get(), right.get());
    let scales = (scale_of(dividends.data_type()), scale_of(divisors.data_type()));
    let scale = QUOTIENT_SCALE.max(scales.0).max(scales.1);
    let shift = u32::try_from(scale - scales.0 + scales.1).unwrap_or(0);
    let overflow = || ArrowError::ArithmeticOverflow("numeric".to_owned());
    let factor = i256::from_i128(10).checked_pow(shift).ok_or_else(overflow)?;
    let rows = if one_dividend { divisors.len() } else { dividends.len() };
    let (dividends, divisors) =
        (dividends.as_primitive::<Decimal128Type>(), divisors.as_primitive::<Decimal128Type>());
    let quotient = |row: usize| {
        let (a, b) = (if one_dividend { 0 } else { row }, if one_divisor { 0 } else { row });
        if dividends.is_null(a) || divisors.is_null(b) {
            return Ok(None);
        }
        let divisor = i256::from_i128(divisors.value(b));
        if divisor == i256::ZERO {
            return Err(ArrowError::DivideByZero);
        }
        let dividend = i256::from_i128(dividends.value(a)).checked_mul(factor);
        let dividend = dividend.ok_or_else(overflow)?;
        let (whole, rest) = (dividend / divisor, dividend % divisor);
        // Halves go away from zero.
        let half_or_more = rest.wrapping_abs() >= divisor.wrapping_abs() - rest.wrapping_abs();
        let away = match (half_or_more, dividend.is_negative() == divisor.is_negative()) {
            (false, _) => i256::ZERO,
            (true, true) => i256::ONE,
            (true, false) => i256::MINUS_ONE,
        };
        (whole + away).to_i128().map(Some).ok_or_else(overflow)
    };
    let quotients = (0..rows).map(quotient).collect::<std::result::Result<Decimal128Array, _>>()?;
    Ok(Arc::new(quotients.with_precision_and_scale(38, scale)?))
}

fn since(left: &dyn Datum, right: &dyn Datum) -> Computed {
    let spans = numeric::sub(left, right)?;
    let spans = cast(&spans, &DataType::Duration(TimeUnit::Nanosecond))?;
    let spans = spans.as_primitive::<DurationNanosecondType>();
    let spans = spans.unary::<_, IntervalMonthDayNanoType>(crate::functions::interval);
    Ok(Arc::new(spans))
}

fn length(interval: IntervalMonthDayNano) -> i128 {
    let days = i128::from(interval.months) * 30 + i128::from(interval.days);
    days * 86_400_000_000_000 + i128::from(interval.nanoseconds)
}

/// Spreads scalars over all rows, unless there are only scalars.
fn all_arrays(args: &[ColumnarValue]) -> Result<Vec<ColumnarValue>> {
    if args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_))) {
        return Ok(args.to_vec());
    }
    let arrays = ColumnarValue::values_to_arrays(args)?;
    Ok(arrays.into_iter().map(ColumnarValue::Array).collect())
}

fn with_datum(value: &ColumnarValue, compute: impl FnOnce(&dyn Datum) -> Computed) -> Computed {
    match value {
        ColumnarValue::Array(array) => compute(array),
        ColumnarValue::Scalar(scalar) => {
            let array = scalar.to_array().map_err(|e| ArrowError::ComputeError(e.to_string()))?;
            compute(&Scalar::new(array))
        }
    }
}

fn rounded(array: &dyn Array, round: fn(f64) -> f64) -> ArrayRef {
    if array.data_type() == &DataType::Float32 {
        let round = |value: f32| round(f64::from(value)) as f32;
        return Arc::new(array.as_primitive::<Float32Type>().unary::<_, Float32Type>(round));
    }
    Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(round))
}

/// Rounds doubles that are to become whole numbers, as PostgreSQL does in an assignment.
pub(crate) fn round_double(array: &ArrayRef) -> ArrayRef {
    rounded(array, f64::round_ties_even)
}
