//! Functions of PostgreSQL that DataFusion lacks, or that read their arguments otherwise there.
//! Each behaves as PostgreSQL 15 documents it; texts are bounded as everywhere.

use std::fmt::Write;
use std::sync::Arc;

use chrono::{DateTime, Datelike, Months, NaiveDateTime, Timelike};
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, Float64Array, Int32Array, IntervalMonthDayNanoArray, StringArray,
};
use datafusion::arrow::datatypes::{
    DataType, Float64Type, Int32Type, IntervalMonthDayNano, IntervalMonthDayNanoType, TimeUnit,
    TimestampNanosecondType,
};
use datafusion::common::{Result, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use super::collected::interval_type;
use super::{as_number, as_time, no_such_call, scalar_if};
use crate::error::Error;
use crate::instants::Zone;
use crate::types::pg_name;

/// What `extract(second …)` is made of.
pub(crate) const NS_OF_MINUTE: &str = "__ns_of_minute";
/// The longest text a pattern makes.
const TEXT_BYTES_MAX: usize = 1 << 20;

pub(super) fn scalar() -> Vec<Arc<ScalarUDF>> {
    let all = [
        Kind::ToChar,
        Kind::Age,
        Kind::PgTypeof,
        Kind::WidthBucket,
        Kind::Format,
        Kind::QuoteLiteral,
        Kind::QuoteNullable,
        Kind::Div,
        Kind::NsOfMinute,
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
    QuoteLiteral,
    QuoteNullable,
    Div,
    /// The nanoseconds since the minute, of an instant or of a span of time.
    NsOfMinute,
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
            Kind::QuoteLiteral | Kind::QuoteNullable => "(text)",
            Kind::Div => "(number, number)",
            Kind::NsOfMinute => "(time or interval)",
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
            (Kind::Format, [_, ..]) | (Kind::QuoteLiteral | Kind::QuoteNullable, [_]) => {
                Some(vec![DataType::Utf8; found.len()])
            }
            (Kind::NsOfMinute, [DataType::Interval(_) | DataType::Duration(_)]) => {
                Some(vec![interval_type()])
            }
            (Kind::NsOfMinute, [time]) => Some(vec![as_time(time)?]),
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
            Kind::QuoteLiteral => "quote_literal",
            Kind::QuoteNullable => "quote_nullable",
            Kind::Div => "div",
            Kind::NsOfMinute => NS_OF_MINUTE,
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
            Kind::Age => interval_type(),
            Kind::WidthBucket => DataType::Int32,
            Kind::Div | Kind::NsOfMinute => DataType::Float64,
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
            Kind::QuoteNullable => texts(&arrays[0], |text| {
                Some(text.map_or_else(|| "NULL".to_owned(), quoted_literal))
            }),
            Kind::Div => Arc::new(divided(&arrays)?),
            Kind::NsOfMinute => ns_of_minute(&arrays[0]),
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

fn quoted_ident(text: &str) -> String {
    let plain = text.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
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
    let moved = |months: i32| from.checked_add_months(Months::new(months as u32));
    if moved(months)? > to {
        months -= 1;
    }
    let rest = to.signed_duration_since(moved(months)?).num_nanoseconds()?;
    let span = super::collected::interval(rest);
    Some(IntervalMonthDayNano::new(months, span.days, span.nanoseconds))
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

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const DAYS: [&str; 7] =
    ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// Patterns, the longest first where one begins another.
const PATTERNS: [&str; 48] = [
    "HH24", "HH12", "MONTH", "Month", "month", "YYYY", "IYYY", "SSSSS", "SSSS", "A.M.", "P.M.",
    "a.m.", "p.m.", "IDDD", "DDD", "DAY", "Day", "day", "MON", "Mon", "mon", "FF1", "FF2", "FF3",
    "FF4", "FF5", "FF6", "YYY", "HH", "MI", "MM", "MS", "US", "SS", "AM", "PM", "am", "pm", "YY",
    "IY", "IW", "ID", "DD", "DY", "Dy", "dy", "WW", "CC",
];

/// Writes an instant by a pattern of `to_char`; what is no pattern stays as it is.
fn by_pattern(time: &NaiveDateTime, pattern: &str) -> Result<String> {
    if pattern.len() > TEXT_BYTES_MAX / 16 {
        return Err(Error::new("54000", "requested length too large").into());
    }
    let (mut text, mut rest, mut fill) = (String::new(), pattern, true);
    while let Some(first) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"').unwrap_or(quoted.len());
            text.push_str(&quoted[..end]);
            rest = quoted.get(end + 1..).unwrap_or_default();
            continue;
        }
        if let Some(after) = rest.strip_prefix("FM") {
            (rest, fill) = (after, false);
            continue;
        }
        let two_letters = PATTERNS.iter().find(|one| rest.starts_with(**one));
        let one_letter = ["Q", "W", "D", "J", "Y"].into_iter().find(|one| rest.starts_with(one));
        match two_letters.copied().or(one_letter) {
            Some(found) => {
                let start = text.len();
                part(time, found, &mut text);
                rest = &rest[found.len()..];
                let suffix = ["TH", "th"].into_iter().find(|one| rest.starts_with(one));
                if !fill {
                    trim(&mut text, start);
                }
                if let Some(suffix) = suffix {
                    let ordinal = ordinal(&text[start..]);
                    let upper = suffix == "TH";
                    text.push_str(&if upper { ordinal.to_uppercase() } else { ordinal.to_owned() });
                    rest = &rest[2..];
                }
                fill = true;
            }
            None => {
                text.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    Ok(text)
}

/// Takes blanks and zeros away that only fill.
fn trim(text: &mut String, start: usize) {
    let made = text.split_off(start);
    let made = made.trim_end();
    let number = made.trim_start_matches('0');
    let is_number = made.bytes().all(|byte| byte.is_ascii_digit());
    text.push_str(match (is_number, number.is_empty()) {
        (true, true) => "0",
        (true, false) => number,
        (false, _) => made,
    });
}

fn ordinal(number: &str) -> &'static str {
    let digits: Vec<u8> = number.bytes().rev().take(2).collect();
    match (digits.first(), digits.get(1)) {
        (Some(b'1'..=b'3'), Some(b'1')) => "th",
        (Some(b'1'), _) => "st",
        (Some(b'2'), _) => "nd",
        (Some(b'3'), _) => "rd",
        _ => "th",
    }
}

/// Writes a word in the letter case of its pattern.
fn cased(word: &str, pattern: &str) -> String {
    if pattern.bytes().all(|byte| byte.is_ascii_uppercase()) {
        word.to_uppercase()
    } else if pattern.bytes().all(|byte| byte.is_ascii_lowercase()) {
        word.to_lowercase()
    } else {
        word.to_owned()
    }
}

fn part(time: &NaiveDateTime, pattern: &str, text: &mut String) {
    let hour12 = time.hour12().1;
    let ns = time.nanosecond() % 1_000_000_000;
    let week = time.iso_week();
    let month = MONTHS[time.month0() as usize];
    let day = DAYS[time.weekday().num_days_from_sunday() as usize];
    let year = i64::from(time.year());
    let number = match pattern {
        "HH24" => (u64::from(time.hour()), 2),
        "HH12" | "HH" => (u64::from(hour12), 2),
        "MI" => (u64::from(time.minute()), 2),
        "SS" => (u64::from(time.second()), 2),
        "MS" => (u64::from(ns / 1_000_000), 3),
        "US" => (u64::from(ns / 1_000), 6),
        "FF1" | "FF2" | "FF3" | "FF4" | "FF5" | "FF6" => {
            let digits = u32::from(pattern.as_bytes()[2] - b'0');
            (u64::from(ns) / 10_u64.pow(9 - digits), digits as usize)
        }
        "SSSSS" | "SSSS" => (u64::from(time.num_seconds_from_midnight()), 1),
        "YYYY" => (year.unsigned_abs(), 4),
        "YYY" => (year.unsigned_abs() % 1_000, 3),
        "YY" => (year.unsigned_abs() % 100, 2),
        "Y" => (year.unsigned_abs() % 10, 1),
        "IYYY" => (u64::from(week.year().unsigned_abs()), 4),
        "IY" => (u64::from(week.year().unsigned_abs() % 100), 2),
        "IW" => (u64::from(week.week()), 2),
        "MM" => (u64::from(time.month()), 2),
        "DD" => (u64::from(time.day()), 2),
        "DDD" => (u64::from(time.ordinal()), 3),
        "IDDD" => (u64::from(week.week0() * 7 + time.weekday().number_from_monday()), 3),
        "D" => (u64::from(time.weekday().number_from_sunday()), 1),
        "ID" => (u64::from(time.weekday().number_from_monday()), 1),
        "WW" => (u64::from(time.ordinal0() / 7 + 1), 2),
        "W" => (u64::from(time.day0() / 7 + 1), 1),
        "Q" => (u64::from(time.month0() / 3 + 1), 1),
        "CC" => ((year.unsigned_abs() - 1) / 100 + 1, 2),
        "J" => ((i64::from(time.num_days_from_ce()) + 1_721_425).unsigned_abs(), 1),
        "AM" | "PM" | "am" | "pm" => {
            let word = if time.hour() < 12 { "AM" } else { "PM" };
            return text.push_str(&cased(word, pattern));
        }
        "A.M." | "P.M." => return text.push_str(if time.hour() < 12 { "A.M." } else { "P.M." }),
        "a.m." | "p.m." => return text.push_str(if time.hour() < 12 { "a.m." } else { "p.m." }),
        "MON" | "Mon" | "mon" => return text.push_str(&cased(&month[..3], pattern)),
        "DY" | "Dy" | "dy" => return text.push_str(&cased(&day[..3], pattern)),
        // Whole words are filled up with blanks to nine letters.
        "DAY" | "Day" | "day" => return text.push_str(&format!("{:<9}", cased(day, pattern))),
        _ => return text.push_str(&format!("{:<9}", cased(month, pattern))),
    };
    let (number, width) = number;
    write!(text, "{number:0width$}").expect("a text takes all that is written");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_written_by_pattern_as_postgresql_writes_them() {
        // Friday, 2024-03-08 14:05:09.012345.
        let time = DateTime::from_timestamp_nanos(1_709_906_709_012_345_000).naive_utc();
        let cases = [
            ("YYYY-MM-DD HH24:MI:SS", "2024-03-08 14:05:09"),
            ("Dy, DD Mon YYYY HH12:MI:SS am", "Fri, 08 Mar 2024 02:05:09 pm"),
            ("MS US FF3 SSSS", "012 012345 012 50709"),
            ("FMDay, FMDDth FMMonth", "Friday, 8th March"),
            ("Month|DAY", "March    |FRIDAY   "),
            ("DDD WW W IW ID D Q CC J", "068 10 2 10 5 6 1 21 2460378"),
            ("YY \"year\" IYYY", "24 year 2024"),
            ("[HH]", "[02]"),
        ];
        for (pattern, expected) in cases {
            assert_eq!(by_pattern(&time, pattern).unwrap(), expected, "{pattern}");
        }
    }

    #[test]
    fn an_age_has_months_days_and_a_rest() {
        let day = 86_400_000_000_000;
        // 1970-01-31 to 1970-03-01: a month to the end of February, and a day.
        assert_eq!(age(59 * day, 30 * day), Some(IntervalMonthDayNano::new(1, 1, 0)));
        assert_eq!(age(30 * day, 59 * day), Some(IntervalMonthDayNano::new(-1, -1, 0)));
        assert_eq!(age(day + 5, 0), Some(IntervalMonthDayNano::new(0, 1, 5)));
    }
}
