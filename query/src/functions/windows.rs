//! Windows of time: `time_window(time, width [, slide [, origin]])`.
//!
//! A window is `{start, end}`, its end not in it; without a slide each instant is in one window, which
//! begins at a multiple of the width from the origin (1970-01-01 in UTC). With a slide an instant is
//! in several: the rule `SlidingWindows` makes a row of each. Widths of months are calendar months.

use std::sync::Arc;

use chrono::{DateTime, Datelike, Months};
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, ListArray, PrimitiveArray, StructArray, TimestampNanosecondArray,
};
use datafusion::arrow::buffer::{NullBuffer, OffsetBuffer};
use datafusion::arrow::datatypes::{
    DataType, Field, Fields, IntervalMonthDayNano, TimestampNanosecondType,
};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, LogicalPlanBuilder, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use model::schema::TIME_ZONE;

use super::collected::{interval_type, structure_type};
use super::{as_time, no_such_call, scalar_if, time_type};
use crate::error::Error;

/// The most windows an instant is in.
const OVERLAPS_MAX: i64 = 100;
const DAY_NS: i64 = 86_400_000_000_000;
/// The column of sliding windows between the rule's nodes.
const WINDOWS: &str = "__time_windows";

/// How far windows are apart: so many months, or so many nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Stride {
    Months(i64),
    Ns(i64),
}

impl Stride {
    /// Reads an interval.
    ///
    /// # Errors
    /// 22023 for one that is not above zero, or of months and days together.
    pub(crate) fn of(interval: IntervalMonthDayNano) -> Result<Self> {
        let ns = i64::from(interval.days).checked_mul(DAY_NS);
        let ns = ns.and_then(|ns| ns.checked_add(interval.nanoseconds));
        match (interval.months, ns) {
            (0, Some(ns)) if ns > 0 => Ok(Self::Ns(ns)),
            (months, Some(0)) if months > 0 => Ok(Self::Months(i64::from(months))),
            _ => {
                let message = "a window's width is above zero, in months or in days and less";
                Err(Error::new("22023", message).into())
            }
        }
    }

    /// Returns the start of the window of `time`, `origin` being the start of one.
    pub(crate) fn start(self, time: i64, origin: i64) -> Option<i64> {
        match self {
            Self::Ns(ns) => {
                let since = time.checked_sub(origin)?;
                origin.checked_add(since.div_euclid(ns).checked_mul(ns)?)
            }
            Self::Months(months) => {
                let apart = month(time) - month(origin);
                let since = apart.div_euclid(months) * months;
                let start = plus_months(origin, since)?;
                // From the origin, not from a start whose day the month was too short for.
                if start <= time { Some(start) } else { plus_months(origin, since - months) }
            }
        }
    }

    /// Returns the start of the window after one, `origin` being the start of one.
    pub(crate) fn after(self, start: i64, origin: i64) -> Option<i64> {
        match self {
            Self::Ns(ns) => start.checked_add(ns),
            Self::Months(months) => plus_months(origin, month(start) - month(origin) + months),
        }
    }
}

/// Returns the month of an instant, counted from the year 0.
fn month(time: i64) -> i64 {
    let time = DateTime::from_timestamp_nanos(time);
    i64::from(time.year()) * 12 + i64::from(time.month0())
}

fn plus_months(time: i64, months: i64) -> Option<i64> {
    let time = DateTime::from_timestamp_nanos(time);
    let count = Months::new(u32::try_from(months.unsigned_abs()).ok()?);
    let moved =
        if months < 0 { time.checked_sub_months(count) } else { time.checked_add_months(count) };
    moved?.timestamp_nanos_opt()
}

fn window_fields() -> Fields {
    let DataType::Struct(fields) = window_type() else { unreachable!("a struct") };
    fields
}

fn window_type() -> DataType {
    structure_type(&[("start", time_type()), ("end", time_type())])
}

fn windows_type() -> DataType {
    DataType::List(Arc::new(Field::new_list_field(window_type(), true)))
}

/// Returns the scalar functions of windows.
pub(super) fn scalar() -> Vec<Arc<ScalarUDF>> {
    let mut all: Vec<Arc<ScalarUDF>> =
        [Kind::Window, Kind::GapFill, Kind::DateBinGapFill].map(function).to_vec();
    all.extend([Kind::Locf, Kind::Interpolate].map(function));
    all
}

fn function(kind: Kind) -> Arc<ScalarUDF> {
    let signature = Signature::user_defined(Volatility::Immutable);
    Arc::new(ScalarUDF::from(TimeWindow { kind, signature }))
}

/// Makes the function that gives the start of the window of an instant.
pub(crate) fn window_start() -> Arc<ScalarUDF> {
    function(Kind::Start)
}

/// Which function of windows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    /// The window of an instant.
    Window,
    /// All windows of an instant, as a list.
    Windows,
    /// The start of the window of an instant.
    Start,
    /// These are put in other places by the rule of gap filling, and are never called.
    GapFill,
    DateBinGapFill,
    Locf,
    Interpolate,
}

/// The names of the functions that the rule of gap filling replaces.
pub(crate) const TIME_WINDOW_GAPFILL: &str = "time_window_gapfill";
pub(crate) const DATE_BIN_GAPFILL: &str = "date_bin_gapfill";
pub(crate) const LOCF: &str = "locf";
pub(crate) const INTERPOLATE: &str = "interpolate";

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Window => "time_window",
            Self::Windows => "time_windows",
            Self::Start => "time_window_start",
            Self::GapFill => TIME_WINDOW_GAPFILL,
            Self::DateBinGapFill => DATE_BIN_GAPFILL,
            Self::Locf => LOCF,
            Self::Interpolate => INTERPOLATE,
        }
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TimeWindow {
    kind: Kind,
    signature: Signature,
}

/// Returns the type an argument that is to be a span of time is cast to, if it can be.
fn as_interval(found: &DataType) -> Option<DataType> {
    matches!(found, DataType::Interval(_) | DataType::Utf8 | DataType::Null).then(interval_type)
}

impl TimeWindow {
    fn wanted(&self, found: &[DataType]) -> Option<Vec<DataType>> {
        match (self.kind, found) {
            (Kind::Locf, [value]) => Some(vec![value.clone()]),
            (Kind::Interpolate, [value]) => Some(vec![super::as_number(value)?]),
            (Kind::Locf | Kind::Interpolate, _) => None,
            (Kind::DateBinGapFill, [width, time]) => {
                Some(vec![as_interval(width)?, as_time(time)?])
            }
            (Kind::DateBinGapFill, [width, time, origin]) => {
                Some(vec![as_interval(width)?, as_time(time)?, as_origin(origin)?])
            }
            (Kind::DateBinGapFill, _) => None,
            (_, [time, width]) => Some(vec![as_time(time)?, as_interval(width)?]),
            (_, [time, width, slide]) => {
                Some(vec![as_time(time)?, as_interval(width)?, as_interval(slide)?])
            }
            (_, [time, width, slide, origin]) => Some(vec![
                as_time(time)?,
                as_interval(width)?,
                as_interval(slide)?,
                as_origin(origin)?,
            ]),
            _ => None,
        }
    }

    fn usage(&self) -> &'static str {
        match self.kind {
            Kind::Locf | Kind::Interpolate => "(value)",
            Kind::DateBinGapFill => "(width, time [, origin])",
            _ => "(time, width [, slide [, origin]])",
        }
    }
}

fn as_origin(found: &DataType) -> Option<DataType> {
    as_time(found).or_else(|| (*found == DataType::Utf8).then(time_type))
}

impl ScalarUDFImpl for TimeWindow {
    fn name(&self) -> &str {
        self.kind.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, found: &[DataType]) -> Result<Vec<DataType>> {
        match self.wanted(found) {
            Some(wanted) => Ok(wanted),
            None => no_such_call(self.name(), found, self.usage()),
        }
    }

    fn return_type(&self, found: &[DataType]) -> Result<DataType> {
        Ok(match self.kind {
            Kind::Window => window_type(),
            Kind::Windows => windows_type(),
            Kind::Start | Kind::GapFill | Kind::DateBinGapFill => time_type(),
            Kind::Locf => found.first().cloned().unwrap_or(DataType::Null),
            Kind::Interpolate => DataType::Float64,
        })
    }

    fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties> {
        // Later instants are in no earlier windows.
        let fixed = |one: &ExprProperties| one.sort_properties == SortProperties::Singleton;
        Ok(match inputs {
            [time, rest @ ..] if self.kind == Kind::Start && rest.iter().all(fixed) => {
                time.sort_properties
            }
            _ => SortProperties::Unordered,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let made = match self.kind {
            Kind::Window => windows(&args)?.single()?,
            Kind::Windows => windows(&args)?.lists(),
            Kind::Start => windows(&args)?.starts(),
            Kind::GapFill | Kind::DateBinGapFill => {
                let message = format!("{} stands in GROUP BY", self.name());
                return Err(Error::new("42803", message).into());
            }
            Kind::Locf | Kind::Interpolate => {
                let message = format!("{} needs a GROUP BY {TIME_WINDOW_GAPFILL}", self.name());
                return Err(Error::new("42803", message).into());
            }
        };
        scalar_if(&args.args, made)
    }
}

/// The windows of some instants: of each so many of `starts` and `ends`, in order.
struct Windows {
    starts: Vec<i64>,
    ends: Vec<i64>,
    counts: Vec<usize>,
    nulls: NullBuffer,
}

/// Reads a constant interval.
fn constant(arg: &ColumnarValue) -> Result<IntervalMonthDayNano> {
    match arg {
        ColumnarValue::Scalar(ScalarValue::IntervalMonthDayNano(Some(interval))) => Ok(*interval),
        _ => Err(Error::new("42601", "a window's width and slide are constants").into()),
    }
}

/// Reads width, slide and origin, which stand after the time.
pub(crate) fn stride_of(args: &[ColumnarValue]) -> Result<(Stride, Stride, i64)> {
    let width = Stride::of(constant(&args[0])?)?;
    let slide = args.get(1).map(|slide| Stride::of(constant(slide)?)).transpose()?;
    let origin = match args.get(2) {
        None => 0,
        Some(ColumnarValue::Scalar(ScalarValue::TimestampNanosecond(Some(origin), _))) => *origin,
        Some(_) => return Err(Error::new("42601", "a window's origin is a constant").into()),
    };
    Ok((width, slide.unwrap_or(width), origin))
}

fn windows(args: &ScalarFunctionArgs) -> Result<Windows> {
    let (width, slide, origin) = stride_of(&args.args[1..])?;
    let times = match &args.args[0] {
        ColumnarValue::Array(array) => Arc::clone(array),
        ColumnarValue::Scalar(scalar) => scalar.to_array()?,
    };
    let times: &PrimitiveArray<TimestampNanosecondType> = times.as_primitive();
    let overlaps = match (width, slide) {
        (width, slide) if width == slide => 1,
        (Stride::Ns(width), Stride::Ns(slide)) => (width + slide - 1) / slide,
        _ => return Err(Error::unsupported("a slide of months").into()),
    };
    if overlaps > OVERLAPS_MAX {
        let message =
            format!("an instant would be in {overlaps} windows, more than {OVERLAPS_MAX}");
        return Err(Error::new("54000", message).into());
    }
    let mut made = Windows {
        starts: Vec::with_capacity(times.len()),
        ends: Vec::with_capacity(times.len()),
        counts: Vec::with_capacity(times.len()),
        nulls: times.nulls().cloned().unwrap_or_else(|| NullBuffer::new_valid(times.len())),
    };
    for row in 0..times.len() {
        let before = made.starts.len();
        if times.is_valid(row) {
            made.add(times.value(row), (width, slide, origin))?;
        }
        made.counts.push(made.starts.len() - before);
    }
    Ok(made)
}

impl Windows {
    /// Adds the windows an instant is in, the earliest first.
    fn add(&mut self, time: i64, (width, slide, origin): (Stride, Stride, i64)) -> Result<()> {
        let outside = || Error::new("22008", "a window reaches beyond the times there are");
        let last = slide.start(time, origin).ok_or_else(outside)?;
        let (mut start, step) = match (width, slide) {
            (Stride::Ns(width), Stride::Ns(slide)) => {
                let earlier = (width - 1 - (time - last)).max(0) / slide;
                if width <= time - last {
                    // Between two windows, where the slide is longer than the width.
                    return Ok(());
                }
                (last.checked_sub(earlier * slide).ok_or_else(outside)?, slide)
            }
            _ => (last, 1),
        };
        while start <= last {
            self.starts.push(start);
            self.ends.push(width.after(start, origin).ok_or_else(outside)?);
            start = start.checked_add(step).ok_or_else(outside)?;
        }
        Ok(())
    }

    /// Spreads one window each over the rows; NULL where there is none.
    fn spread(&self, values: &[i64]) -> ArrayRef {
        let mut next = values.iter();
        let value = |count: &usize| if *count == 0 { None } else { next.next().copied() };
        let array: TimestampNanosecondArray = self.counts.iter().map(value).collect();
        Arc::new(array.with_timezone(TIME_ZONE))
    }

    fn starts(&self) -> ArrayRef {
        self.spread(&self.starts)
    }

    fn single(&self) -> Result<ArrayRef> {
        if self.counts.iter().any(|count| *count > 1) {
            let message = "time_window with a slide stands alone in SELECT or GROUP BY";
            return Err(Error::unsupported(message).into());
        }
        let columns = vec![self.starts(), self.spread(&self.ends)];
        let nulls = NullBuffer::from_iter(self.counts.iter().map(|count| *count > 0));
        Ok(Arc::new(StructArray::new(window_fields(), columns, Some(nulls))))
    }

    fn lists(self) -> ArrayRef {
        let instants = |values: Vec<i64>| {
            Arc::new(TimestampNanosecondArray::from(values).with_timezone(TIME_ZONE)) as ArrayRef
        };
        let columns = vec![instants(self.starts), instants(self.ends)];
        let items = Arc::new(StructArray::new(window_fields(), columns, None));
        let offsets = OffsetBuffer::from_lengths(self.counts);
        let field = Arc::new(Field::new_list_field(window_type(), true));
        Arc::new(ListArray::new(field, offsets, items, Some(self.nulls)))
    }
}

/// Makes a row of each window an instant is in, where windows overlap.
#[derive(Debug)]
pub(crate) struct SlidingWindows;

impl AnalyzerRule for SlidingWindows {
    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(expand).data()
    }

    fn name(&self) -> &'static str {
        "sliding_windows"
    }
}

fn is_sliding(expr: &Expr) -> bool {
    match expr {
        Expr::ScalarFunction(ScalarFunction { func, args }) => {
            func.name() == Kind::Window.name() && args.len() > 2 && args[1] != args[2]
        }
        _ => false,
    }
}

fn expand(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if !matches!(plan, LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_)) {
        return Ok(Transformed::no(plan));
    }
    let mut found: Option<Expr> = None;
    for expr in plan.expressions() {
        expr.apply(|expr| {
            if is_sliding(expr) {
                match &found {
                    Some(other) if other != expr => {
                        let message = "several different sliding time_window in one SELECT";
                        return Err(Error::unsupported(message).into());
                    }
                    _ => found = Some(expr.clone()),
                }
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    let Some(Expr::ScalarFunction(call)) = found.clone() else { return Ok(Transformed::no(plan)) };
    let input = plan.inputs()[0].clone();
    let windows = ScalarFunction { func: function(Kind::Windows), args: call.args };
    let mut columns: Vec<Expr> = input.schema().columns().into_iter().map(Expr::Column).collect();
    columns.push(Expr::ScalarFunction(windows).alias(WINDOWS));
    let expanded = LogicalPlanBuilder::from(input)
        .project(columns)?
        .unnest_column(Column::from_name(WINDOWS))?
        .build()?;
    let names = NamePreserver::new(&plan);
    let exprs = plan.expressions().into_iter().map(|expr| {
        let name = names.save(&expr);
        let replaced = expr.transform_up(|expr| {
            Ok(if found.as_ref() == Some(&expr) {
                Transformed::yes(Expr::Column(Column::from_name(WINDOWS)))
            } else {
                Transformed::no(expr)
            })
        })?;
        Ok(name.restore(replaced.data))
    });
    let exprs = exprs.collect::<Result<Vec<_>>>()?;
    Ok(Transformed::yes(plan.with_new_exprs(exprs, vec![expanded])?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_begin_at_multiples_of_their_width_also_before_the_origin() {
        let ten = Stride::Ns(10);
        assert_eq!(ten.start(-1, 0), Some(-10));
        assert_eq!(ten.start(9, 3), Some(3));
        let month = Stride::Months(1);
        let day = |days: i64| days * DAY_NS;
        assert_eq!(month.start(day(45), 0), Some(day(31)));
        assert_eq!(month.start(day(-1), 0), Some(day(-31)));
        assert_eq!(month.after(day(31), 0), Some(day(59)));
        // From the 31st on: January, February's end, March.
        assert_eq!(month.after(day(30), day(30)), Some(day(58)));
        assert_eq!(month.after(day(58), day(30)), Some(day(89)));
        assert_eq!(month.start(day(100), day(30)), Some(day(89)));
        assert_eq!(Stride::Months(12).start(day(400), 0), Some(day(365)));
    }
}
