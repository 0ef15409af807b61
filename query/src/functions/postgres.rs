//! Functions of PostgreSQL that DataFusion lacks, or that read their arguments otherwise there.
//! Each behaves as PostgreSQL 15 documents it; texts are bounded as everywhere.

use std::sync::Arc;

use chrono::{DateTime, Datelike};
use datafusion::arrow::array::{
    Array, ArrayRef, ArrowPrimitiveType, AsArray, Float64Array, Int32Array,
    IntervalMonthDayNanoArray, PrimitiveArray, StringArray,
};
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Float64Type, Int32Type, IntervalMonthDayNano, IntervalMonthDayNanoType,
    TimeUnit, TimestampNanosecondType,
};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::collected::interval_type;
use super::patterns::by_pattern;
use super::{as_number, as_time, no_such_call, reading, scalar_if};
use crate::error::Error;
use crate::instants::Zone;
use crate::types::pg_name;

/// What `extract(second …)` is made of.
pub(crate) const NS_OF_MINUTE: &str = "__ns_of_minute";
/// What `to_timestamp(text, pattern)` is made of.
pub(crate) const WALL_BY_PATTERN: &str = "__wall_by_pattern";
/// `to_date(text, pattern)`.
pub(crate) const DATE_BY_PATTERN: &str = "__date_by_pattern";
const DAY_NS: i64 = 86_400_000_000_000;
/// The longest text a pattern makes.
pub(super) const TEXT_BYTES_MAX: usize = 1 << 20;

pub(super) fn scalar() -> Vec<Arc<ScalarUDF>> {
    let all = [
        Kind::ToChar,
        Kind::Age,
        Kind::PgTypeof,
        Kind::WidthBucket,
        Kind::Format,
        Kind::QuoteIdent,
        Kind::QuoteLiteral,
        Kind::QuoteNullable,
        Kind::Div,
        Kind::NsOfMinute,
        Kind::WallByPattern,
        Kind::ToDate,
        Kind::ToNumber,
        Kind::MakeInterval,
        Kind::NumNulls,
        Kind::NumNonnulls,
    ];
    let make = |kind| {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::from(Postgres { kind, signature }))
    };
    all.into_iter().map(make).collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Kind {
    ToChar,
    Age,
    PgTypeof,
    WidthBucket,
    Format,
    QuoteIdent,
    QuoteLiteral,
    QuoteNullable,
    Div,
    /// The nanoseconds since the minute, of an instant or of a span of time.
    NsOfMinute,
    /// What clocks show, read by a pattern.
    WallByPattern,
    ToDate,
    ToNumber,
    MakeInterval,
    NumNulls,
    NumNonnulls,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Postgres {
    kind: Kind,
    signature: Signature,
}

impl Postgres {
    fn usage(&self) -> &'static str {
        match self.kind {
            Kind::ToChar => "(time, pattern); numbers are formatted by format or round",
            Kind::Age => "(later, earlier)",
            Kind::PgTypeof => "(value)",
            Kind::WidthBucket => "(number, low, high, count)",
            Kind::Format => "(pattern, value, …)",
            Kind::QuoteIdent | Kind::QuoteLiteral | Kind::QuoteNullable => "(text)",
            Kind::Div => "(number, number)",
            Kind::NsOfMinute => "(time or interval)",
            Kind::WallByPattern | Kind::ToDate | Kind::ToNumber => "(text, pattern)",
            Kind::MakeInterval => "(years, months, weeks, days, hours, mins, secs)",
            Kind::NumNulls | Kind::NumNonnulls => "(value, …)",
        }
    }

    fn wanted(&self, found: &[DataType]) -> Option<Vec<DataType>> {
        match (self.kind, found) {
            // In the zone that the instant is given in.
            (Kind::ToChar, [DataType::Timestamp(_, zone), DataType::Utf8]) => {
                Some(vec![DataType::Timestamp(TimeUnit::Nanosecond, zone.clone()), DataType::Utf8])
            }
            (Kind::ToChar, [time, DataType::Utf8]) => Some(vec![as_time(time)?, DataType::Utf8]),
            (Kind::Age, [later, earlier]) => Some(vec![as_time(later)?, as_time(earlier)?]),
            (Kind::PgTypeof, [value]) => Some(vec![value.clone()]),
            (Kind::WidthBucket, [number, low, high, count]) if count.is_integer() => {
                Some(vec![as_number(number)?, as_number(low)?, as_number(high)?, DataType::Int32])
            }
            (Kind::Format, [_, ..])
            | (Kind::QuoteIdent | Kind::QuoteLiteral | Kind::QuoteNullable, [_]) => {
                Some(vec![DataType::Utf8; found.len()])
            }
            (Kind::NsOfMinute, [DataType::Interval(_) | DataType::Duration(_)]) => {
                Some(vec![interval_type()])
            }
            (Kind::NsOfMinute, [time]) => Some(vec![as_time(time)?]),
            (Kind::WallByPattern | Kind::ToDate | Kind::ToNumber, [_, _]) => {
                Some(vec![DataType::Utf8; 2])
            }
            (Kind::MakeInterval, found) if found.len() <= 7 => {
                let whole = found.iter().take(6).map(|_| DataType::Int32);
                let seconds = found.iter().skip(6).map(|_| DataType::Float64);
                Some(whole.chain(seconds).collect())
            }
            (Kind::NumNulls | Kind::NumNonnulls, [_, ..]) => Some(found.to_vec()),
            (Kind::Div, [left, right]) => Some(vec![as_number(left)?, as_number(right)?]),
            _ => None,
        }
    }
}

impl ScalarUDFImpl for Postgres {
    fn name(&self) -> &'static str {
        match self.kind {
            Kind::ToChar => "to_char",
            Kind::Age => "age",
            Kind::PgTypeof => "pg_typeof",
            Kind::WidthBucket => "width_bucket",
            Kind::Format => "format",
            Kind::QuoteIdent => "quote_ident",
            Kind::QuoteLiteral => "quote_literal",
            Kind::QuoteNullable => "quote_nullable",
            Kind::Div => "div",
            Kind::NsOfMinute => NS_OF_MINUTE,
            Kind::WallByPattern => WALL_BY_PATTERN,
            Kind::ToDate => DATE_BY_PATTERN,
            Kind::ToNumber => "to_number",
            Kind::MakeInterval => "make_interval",
            Kind::NumNulls => "num_nulls",
            Kind::NumNonnulls => "num_nonnulls",
        }
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

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.kind {
            Kind::Age | Kind::MakeInterval => interval_type(),
            Kind::WidthBucket | Kind::NumNulls | Kind::NumNonnulls => DataType::Int32,
            Kind::Div | Kind::NsOfMinute | Kind::ToNumber => DataType::Float64,
            Kind::WallByPattern => DataType::Timestamp(TimeUnit::Nanosecond, None),
            Kind::ToDate => DataType::Date32,
            _ => DataType::Utf8,
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if self.kind == Kind::PgTypeof {
            let name =
                args.arg_fields.first().map_or("unknown", |field| pg_name(field.data_type()));
            return Ok(ColumnarValue::Scalar(ScalarValue::from(name)));
        }
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let made: ArrayRef = match self.kind {
            Kind::ToChar => Arc::new(to_char(&arrays)?),
            Kind::Age => Arc::new(ages(&arrays)),
            Kind::WidthBucket => Arc::new(width_bucket(&arrays)?),
            Kind::Format => Arc::new(formatted(&arrays)?),
            Kind::QuoteLiteral => texts(&arrays[0], |text| text.map(quoted_literal)),
            Kind::QuoteIdent => texts(&arrays[0], |text| text.map(quoted_ident)),
            Kind::QuoteNullable => texts(&arrays[0], |text| {
                Some(text.map_or_else(|| "NULL".to_owned(), quoted_literal))
            }),
            Kind::Div => Arc::new(divided(&arrays)?),
            Kind::NsOfMinute => ns_of_minute(&arrays[0]),
            Kind::WallByPattern => {
                Arc::new(read::<TimestampNanosecondType>(&arrays, |text, by| {
                    let wall = reading::wall_time(text, by)?.and_utc().timestamp_nanos_opt();
                    wall.ok_or_else(|| Error::new("22008", "timestamp out of range"))
                })?)
            }
            Kind::ToDate => Arc::new(read::<Date32Type>(&arrays, reading::days_since_epoch)?),
            Kind::ToNumber => Arc::new(read::<Float64Type>(&arrays, reading::to_number)?),
            Kind::MakeInterval => Arc::new(made_intervals(&arrays, args.number_rows)?),
            Kind::NumNulls => Arc::new(nulls(&arrays, true)),
            Kind::NumNonnulls => Arc::new(nulls(&arrays, false)),
            Kind::PgTypeof => return Err(Error::internal("it was answered already").into()),
        };
        scalar_if(&args.args, made)
    }
}

fn ns_of_minute(array: &ArrayRef) -> ArrayRef {
    const MINUTE_NS: i64 = 60_000_000_000;
    let numbers: Float64Array = match array.data_type() {
        DataType::Interval(_) => {
            let spans = array.as_primitive::<IntervalMonthDayNanoType>();
            spans.unary(|span| (span.nanoseconds % MINUTE_NS) as f64)
        }
        _ => {
            let times = array.as_primitive::<TimestampNanosecondType>();
            times.unary(|ns| ns.rem_euclid(MINUTE_NS) as f64)
        }
    };
    Arc::new(numbers)
}

/// Reads texts by patterns.
fn read<T: ArrowPrimitiveType>(
    arrays: &[ArrayRef],
    read: impl Fn(&str, &str) -> crate::error::Result<T::Native>,
) -> Result<PrimitiveArray<T>> {
    let pairs = arrays[0].as_string::<i32>().iter().zip(arrays[1].as_string::<i32>());
    let row = |pair| match pair {
        (Some(text), Some(pattern)) => Ok(Some(read(text, pattern)?)),
        _ => Ok(None),
    };
    pairs.map(row).collect()
}

/// Makes spans of years, months, weeks, days, hours, minutes and seconds; what is left out is 0.
fn made_intervals(arrays: &[ArrayRef], rows: usize) -> Result<IntervalMonthDayNanoArray> {
    let rows = arrays.first().map_or(rows, |array| array.len());
    let out = || Error::new("22008", "interval out of range");
    let row = |row: usize| {
        if arrays.iter().any(|array| array.is_null(row)) {
            return Ok(None);
        }
        let whole = |at: usize| {
            let found = arrays.get(at).map(|array| array.as_primitive::<Int32Type>().value(row));
            i64::from(found.unwrap_or(0))
        };
        let seconds = arrays.get(6).map(|array| array.as_primitive::<Float64Type>().value(row));
        let ns = (seconds.unwrap_or(0.0) * 1e9).round();
        let months = i32::try_from(whole(0) * 12 + whole(1)).map_err(|_| out())?;
        let days = i32::try_from(whole(2) * 7 + whole(3)).map_err(|_| out())?;
        if !ns.is_finite() || ns.abs() > 9e18 {
            return Err(out());
        }
        let of_day = (whole(4) * 60 + whole(5)).checked_mul(60_000_000_000);
        let ns = of_day.and_then(|of_day| of_day.checked_add(ns as i64)).ok_or_else(out)?;
        Ok(Some(IntervalMonthDayNano::new(months, days, ns)))
    };
    Ok((0..rows).map(row).collect::<std::result::Result<_, Error>>()?)
}

/// Counts the arguments of each row that are NULL, or those that are not.
fn nulls(arrays: &[ArrayRef], wanted: bool) -> Int32Array {
    let is_null =
        |array: &ArrayRef, row| *array.data_type() == DataType::Null || array.is_null(row);
    let count = |row: usize| arrays.iter().filter(|array| is_null(array, row) == wanted).count();
    (0..arrays[0].len()).map(|row| Some(count(row) as i32)).collect()
}

fn texts(array: &ArrayRef, make: impl Fn(Option<&str>) -> Option<String>) -> ArrayRef {
    Arc::new(array.as_string::<i32>().iter().map(make).collect::<StringArray>())
}

fn quoted_literal(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if quoted.contains('\\') {
        return format!(" E'{}'", quoted.replace('\\', "\\\\"));
    }
    format!("'{quoted}'")
}

/// PostgreSQL 15's key words that are not free to be names (appendix C).
const KEYWORDS: &str = "all analyse analyze and any array as asc asymmetric authorization between bigint \
    binary bit boolean both case cast char character check coalesce collate collation column \
    concurrently constraint create cross current_catalog current_date current_role current_schema \
    current_time current_timestamp current_user dec decimal default deferrable desc distinct do else \
    end except exists extract false fetch float for foreign freeze from full grant greatest group \
    grouping having ilike in initially inner inout int integer intersect interval into is isnull join \
    lateral leading least left like limit localtime localtimestamp national natural nchar none \
    normalize not notnull null nullif numeric offset on only or order out outer overlaps overlay \
    placing position precision primary real references returning right row select session_user setof \
    similar smallint some substring symmetric table tablesample then time timestamp to trailing treat \
    trim true union unique user using values varchar variadic verbose when where window with \
    xmlattributes xmlconcat xmlelement xmlexists xmlforest xmlnamespaces xmlparse xmlpi xmlroot \
    xmlserialize xmltable";

fn quoted_ident(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
        && !KEYWORDS.split_whitespace().any(|keyword| keyword == text);
    if plain { text.to_owned() } else { format!("\"{}\"", text.replace('"', "\"\"")) }
}

fn divided(arrays: &[ArrayRef]) -> Result<Float64Array> {
    let (left, right) =
        (arrays[0].as_primitive::<Float64Type>(), arrays[1].as_primitive::<Float64Type>());
    let divide = |(left, right): (Option<f64>, Option<f64>)| match (left, right) {
        (Some(_), Some(0.0)) => Err(Error::new("22012", "division by zero").into()),
        (Some(left), Some(right)) => Ok(Some((left / right).trunc())),
        _ => Ok(None),
    };
    left.iter().zip(right).map(divide).collect()
}

/// Returns in which of `count` buckets of one width a number is: 0 below, count + 1 above.
fn width_bucket(arrays: &[ArrayRef]) -> Result<Int32Array> {
    let number = |at: usize| arrays[at].as_primitive::<Float64Type>();
    let counts = arrays[3].as_primitive::<Int32Type>();
    let bucket = |row: usize| {
        if arrays.iter().any(|array| array.is_null(row)) {
            return Ok(None);
        }
        let (value, low, high) = (number(0).value(row), number(1).value(row), number(2).value(row));
        let count = counts.value(row);
        let invalid = |message: &str| Err(Error::new("2201G", message).into());
        if count < 1 || count == i32::MAX {
            return invalid("count must be greater than zero");
        }
        if [value, low, high].iter().any(|one| one.is_nan())
            || low.is_infinite()
            || high.is_infinite()
        {
            return invalid("operand, lower bound, and upper bound cannot be NaN");
        }
        if low == high {
            return invalid("lower bound cannot equal upper bound");
        }
        // Bounds may fall as well as rise.
        let share = (value - low) / (high - low);
        Ok(Some(if share < 0.0 {
            0
        } else if share >= 1.0 {
            count + 1
        } else {
            (share * f64::from(count)) as i32 + 1
        }))
    };
    (0..counts.len()).map(bucket).collect()
}

/// Returns years, months, days and the rest between two instants, as `timestamptz_age` does.
fn ages(arrays: &[ArrayRef]) -> IntervalMonthDayNanoArray {
    let times = |at: usize| arrays[at].as_primitive::<TimestampNanosecondType>();
    let pairs = times(0).iter().zip(times(1));
    pairs.map(|(later, earlier)| age(later?, earlier?)).collect()
}

fn age(later: i64, earlier: i64) -> Option<IntervalMonthDayNano> {
    if later < earlier {
        let turned = age(earlier, later)?;
        return Some(IntervalMonthDayNano::new(-turned.months, -turned.days, -turned.nanoseconds));
    }
    let (from, to) =
        (DateTime::from_timestamp_nanos(earlier), DateTime::from_timestamp_nanos(later));
    let mut months = (to.year() - from.year()) * 12 + to.month0() as i32 - from.month0() as i32;
    let mut days = to.day() as i32 - from.day() as i32;
    let mut ns = later.rem_euclid(DAY_NS) - earlier.rem_euclid(DAY_NS);
    if ns < 0 {
        (ns, days) = (ns + DAY_NS, days - 1);
    }
    // A month that is broken up has as many days as the earlier one.
    if days < 0 {
        let of_month = from.num_days_in_month();
        (days, months) = (days + i32::from(of_month), months - 1);
    }
    Some(IntervalMonthDayNano::new(months, days, ns))
}

/// `%s`, `%I`, `%L` and `%%`, with `n$` positions.
fn formatted(arrays: &[ArrayRef]) -> Result<StringArray> {
    let columns: Vec<&StringArray> = arrays.iter().map(|array| array.as_string::<i32>()).collect();
    let row = |row: usize| {
        let value = |at: usize| columns[at].is_valid(row).then(|| columns[at].value(row));
        match value(0) {
            Some(pattern) => format_one(pattern, columns.len(), value).map(Some),
            None => Ok(None),
        }
    };
    (0..arrays[0].len()).map(row).collect()
}

fn format_one<'a>(
    pattern: &str,
    count: usize,
    value: impl Fn(usize) -> Option<&'a str>,
) -> Result<String> {
    let invalid = |message: &str| Error::new("22023", message.to_owned());
    let (mut text, mut next) = (String::new(), 1);
    let mut rest = pattern.chars().peekable();
    while let Some(c) = rest.next() {
        if c != '%' {
            text.push(c);
            continue;
        }
        let mut digits = String::new();
        while let Some(digit) = rest.next_if(char::is_ascii_digit) {
            digits.push(digit);
        }
        let position = if !digits.is_empty() && rest.next_if_eq(&'$').is_some() {
            digits.parse::<usize>().ok().filter(|at| *at > 0)
        } else if digits.is_empty() {
            None
        } else {
            return Err(invalid("format widths are not supported").into());
        };
        let Some(kind) = rest.next() else {
            return Err(invalid("unterminated format() type specifier").into());
        };
        if kind == '%' {
            text.push('%');
            continue;
        }
        let at = position.unwrap_or(next);
        next = at + 1;
        if at >= count {
            return Err(invalid("too few arguments for format()").into());
        }
        match (kind, value(at)) {
            ('s', found) => text.push_str(found.unwrap_or_default()),
            ('I', Some(found)) => text.push_str(&quoted_ident(found)),
            ('I', None) => {
                return Err(Error::new(
                    "22004",
                    "null values cannot be formatted as an SQL identifier",
                )
                .into());
            }
            ('L', found) => text.push_str(&found.map_or_else(|| "NULL".to_owned(), quoted_literal)),
            _ => {
                let message = format!("unrecognized format() type specifier \"{kind}\"");
                return Err(Error::new("22023", message).into());
            }
        }
        if text.len() > TEXT_BYTES_MAX {
            return Err(Error::new("54000", "requested length too large").into());
        }
    }
    Ok(text)
}

fn to_char(arrays: &[ArrayRef]) -> Result<StringArray> {
    let zone = match arrays[0].data_type() {
        DataType::Timestamp(_, Some(zone)) => Zone::named(zone).unwrap_or_default(),
        _ => Zone::default(),
    };
    let times = arrays[0].as_primitive::<TimestampNanosecondType>();
    let patterns = arrays[1].as_string::<i32>();
    let row = |(time, pattern): (Option<i64>, Option<&str>)| match (time, pattern) {
        (Some(time), Some(pattern)) => {
            let wall = time.saturating_add(i64::from(zone.offset_at(time)) * 1_000_000_000);
            let time = DateTime::from_timestamp_nanos(wall).naive_utc();
            by_pattern(&time, pattern).map(Some)
        }
        _ => Ok(None),
    };
    times.iter().zip(patterns).map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_months_days_and_a_rest() {
        let day = 86_400_000_000_000;
        // 1970-01-31 to 1970-03-01: a month to the end of February, and a day.
        assert_eq!(age(59 * day, 30 * day), Some(IntervalMonthDayNano::new(1, 1, 0)));
        assert_eq!(age(30 * day, 59 * day), Some(IntervalMonthDayNano::new(-1, -1, 0)));
        assert_eq!(age(day + 5, 0), Some(IntervalMonthDayNano::new(0, 1, 5)));
    }
}
