//! PostgreSQL's text of values: what clients are sent, and what casts to text give.
//!
//! A column is prepared once a batch, then asked for each row: no dispatch on types within a row
//! beyond one match.

use bytes::{BufMut, BytesMut};
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array,
    Float32Array, Float64Array, Int16Array, Int32Array, Int64Array, IntervalMonthDayNanoArray,
    ListArray, StringArray, TimestampNanosecondArray, UInt64Array,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalUnit, TimeUnit};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::error::Error;
use crate::instants::Zone;

const DAY_NS: i64 = 86_400_000_000_000;

/// A column of a batch, ready to be written row by row.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "each is what its array holds")]
pub enum TypedColumn {
    Bool(BooleanArray),
    I16(Int16Array),
    I32(Int32Array),
    I64(Int64Array),
    U64(UInt64Array),
    F32(Float32Array),
    F64(Float64Array),
    Text(StringArray),
    Bytes(BinaryArray),
    /// An instant is written in a zone, with its offset.
    Time(TimestampNanosecondArray, Option<Zone>),
    Date(Date32Array),
    Interval(IntervalMonthDayNanoArray),
    Decimal(Decimal128Array),
    /// Instants in it are written in a zone.
    List(ListArray, Zone),
    /// Anything else, as Arrow writes it.
    Other(ArrayRef),
}

/// Prepares the columns of a batch, instants in it to be shown in a zone.
///
/// # Errors
/// A value that its wire type cannot hold.
pub fn typed_columns(batch: &RecordBatch, zone: &Zone) -> Result<Vec<TypedColumn>, Error> {
    batch.columns().iter().map(|array| typed_column(array, zone)).collect()
}

/// Prepares a column, instants in it to be shown in a zone.
///
/// # Errors
/// A value that its wire type cannot hold.
pub fn typed_column(array: &ArrayRef, shown: &Zone) -> Result<TypedColumn, Error> {
    let primitive = |wanted: DataType| cast(array, &wanted);
    Ok(match array.data_type() {
        DataType::Boolean => TypedColumn::Bool(array.as_boolean().clone()),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => {
            TypedColumn::I16(primitive(DataType::Int16)?.as_primitive().clone())
        }
        DataType::Int32 | DataType::UInt16 => {
            TypedColumn::I32(primitive(DataType::Int32)?.as_primitive().clone())
        }
        DataType::Int64 | DataType::UInt32 => {
            TypedColumn::I64(primitive(DataType::Int64)?.as_primitive().clone())
        }
        DataType::UInt64 => TypedColumn::U64(array.as_primitive().clone()),
        DataType::Float16 | DataType::Float32 => {
            TypedColumn::F32(primitive(DataType::Float32)?.as_primitive().clone())
        }
        DataType::Float64 => TypedColumn::F64(array.as_primitive().clone()),
        DataType::Utf8 => TypedColumn::Text(array.as_string().clone()),
        DataType::LargeUtf8 | DataType::Utf8View | DataType::Dictionary(..) => {
            TypedColumn::Text(primitive(DataType::Utf8)?.as_string().clone())
        }
        DataType::Timestamp(_, zone) => {
            let plain = primitive(DataType::Timestamp(TimeUnit::Nanosecond, zone.clone()))?;
            TypedColumn::Time(plain.as_primitive().clone(), zone.is_some().then(|| shown.clone()))
        }
        DataType::Date32 | DataType::Date64 => {
            TypedColumn::Date(primitive(DataType::Date32)?.as_primitive().clone())
        }
        DataType::Interval(_) | DataType::Duration(_) => {
            let wanted = DataType::Interval(IntervalUnit::MonthDayNano);
            TypedColumn::Interval(primitive(wanted)?.as_primitive().clone())
        }
        DataType::Decimal128(..) => TypedColumn::Decimal(array.as_primitive().clone()),
        DataType::Binary => TypedColumn::Bytes(array.as_binary().clone()),
        DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            TypedColumn::Bytes(primitive(DataType::Binary)?.as_binary().clone())
        }
        DataType::List(_) => TypedColumn::List(array.as_list().clone(), shown.clone()),
        _ => TypedColumn::Other(ArrayRef::clone(array)),
    })
}

impl TypedColumn {
    /// Returns whether a value is NULL.
    pub fn is_null(&self, row: usize) -> bool {
        match self {
            Self::Bool(array) => array.is_null(row),
            Self::I16(array) => array.is_null(row),
            Self::I32(array) => array.is_null(row),
            Self::I64(array) => array.is_null(row),
            Self::U64(array) => array.is_null(row),
            Self::F32(array) => array.is_null(row),
            Self::F64(array) => array.is_null(row),
            Self::Text(array) => array.is_null(row),
            Self::Bytes(array) => array.is_null(row),
            Self::Time(array, _) => array.is_null(row),
            Self::Date(array) => array.is_null(row),
            Self::Interval(array) => array.is_null(row),
            Self::Decimal(array) => array.is_null(row),
            Self::List(array, _) => array.is_null(row),
            Self::Other(array) => array.is_null(row) || array.data_type() == &DataType::Null,
        }
    }

    /// Writes the text of a value; false where it is NULL.
    ///
    /// # Errors
    /// A type that has no text.
    pub fn put_text(&self, row: usize, out: &mut BytesMut) -> Result<bool, Error> {
        if self.is_null(row) {
            return Ok(false);
        }
        self.text(row, out)?;
        Ok(true)
    }

    fn text(&self, row: usize, out: &mut BytesMut) -> Result<(), Error> {
        match self {
            Self::Bool(array) => out.put_u8(if array.value(row) { b't' } else { b'f' }),
            Self::I16(array) => put_integer(i64::from(array.value(row)), out),
            Self::I32(array) => put_integer(i64::from(array.value(row)), out),
            Self::I64(array) => put_integer(array.value(row), out),
            Self::U64(array) => out.put_slice(array.value(row).to_string().as_bytes()),
            Self::F32(array) => put_float(&array.value(row), f64::from(array.value(row)), 6, out),
            Self::F64(array) => put_float(&array.value(row), array.value(row), 15, out),
            Self::Text(array) => out.put_slice(array.value(row).as_bytes()),
            Self::Bytes(array) => put_bytes(array.value(row), out),
            Self::Time(array, None) => put_time(array.value(row), out),
            Self::Time(array, Some(zone)) => put_instant(array.value(row), zone, out),
            Self::Date(array) => put_date(i64::from(array.value(row)), out),
            Self::Interval(array) => put_interval(array.value(row), out),
            Self::Decimal(array) => out.put_slice(array.value_as_string(row).as_bytes()),
            Self::List(array, zone) => put_list(&array.value(row), zone, out)?,
            Self::Other(array) => {
                let options = FormatOptions::default();
                let formatter = ArrayFormatter::try_new(array.as_ref(), &options)?;
                let text = formatter.value(row).try_to_string()?;
                out.put_slice(text.as_bytes());
            }
        }
        Ok(())
    }
}

fn put_integer(value: i64, out: &mut BytesMut) {
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut rest = value.unsigned_abs();
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    if value < 0 {
        out.put_u8(b'-');
    }
    out.put_slice(&digits[at..]);
}

/// Writes bytes in hexadecimal.
fn put_bytes(bytes: &[u8], out: &mut BytesMut) {
    out.put_slice(b"\\x");
    for byte in bytes {
        let digit = |four: u8| b"0123456789abcdef"[usize::from(four)];
        out.put_slice(&[digit(byte >> 4), digit(byte & 15)]);
    }
}

/// The text of a number that is written in one go, on the stack.
struct Short {
    bytes: [u8; 40],
    len: usize,
}

impl Short {
    fn of(written: std::fmt::Arguments<'_>) -> Self {
        let mut short = Self { bytes: [0; 40], len: 0 };
        // What does not fit is longer than any number of 64 bits.
        let fits = std::fmt::Write::write_fmt(&mut short, written);
        debug_assert!(fits.is_ok(), "a number of at most 40 bytes");
        short
    }

    fn text(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl std::fmt::Write for Short {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.len + text.len();
        self.bytes.get_mut(self.len..end).ok_or(std::fmt::Error)?.copy_from_slice(text.as_bytes());
        self.len = end;
        Ok(())
    }
}

/// Writes the shortest digits that read back the same, as PostgreSQL does: `1e+16`, `1.5e-07`. From
/// `10^plain_until` on there is an exponent.
fn put_float(shortest: &dyn std::fmt::LowerExp, value: f64, plain_until: i32, out: &mut BytesMut) {
    if value.is_nan() {
        return out.put_slice(b"NaN");
    }
    if value.is_infinite() {
        return out.put_slice(if value > 0.0 { b"Infinity" } else { b"-Infinity" });
    }
    if value.is_sign_negative() {
        out.put_u8(b'-');
    }
    // Most measurements are whole numbers, whose digits need no search for the shortest.
    let size = value.abs();
    if size < 10_f64.powi(plain_until) && size.fract() == 0.0 {
        return put_integer(size as i64, out);
    }
    let text = Short::of(format_args!("{shortest:e}"));
    let text = text.text().strip_prefix(b"-").unwrap_or(text.text());
    let end = text.iter().position(|byte| *byte == b'e').unwrap_or(text.len());
    let (mantissa, exponent) = (&text[..end], text.get(end + 1..).unwrap_or_default());
    let exponent: i32 = str::from_utf8(exponent).ok().and_then(|it| it.parse().ok()).unwrap_or(0);
    if !(-4..plain_until).contains(&exponent) {
        out.put_slice(mantissa);
        let direction = if exponent < 0 { '-' } else { '+' };
        let exponent = exponent.unsigned_abs();
        return out.put_slice(Short::of(format_args!("e{direction}{exponent:02}")).text());
    }
    let (first, rest) = mantissa.split_at(1);
    let rest = rest.strip_prefix(b".").unwrap_or(rest);
    if exponent < 0 {
        out.put_slice(b"0.");
        out.put_bytes(b'0', (-exponent - 1) as usize);
        out.put_slice(first);
        return out.put_slice(rest);
    }
    let whole = exponent as usize;
    out.put_slice(first);
    if rest.len() <= whole {
        out.put_slice(rest);
        out.put_bytes(b'0', whole - rest.len());
    } else {
        out.put_slice(&rest[..whole]);
        out.put_u8(b'.');
        out.put_slice(&rest[whole..]);
    }
}

/// Writes a date; days since 1970 to year, month, day after Hinnant, "chrono-compatible low-level
/// date algorithms".
fn put_date(days: i64, out: &mut BytesMut) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let shown = if year > 0 { year } else { 1 - year };
    if shown < 10_000 {
        out.put_slice(&[pair(shown / 100), pair(shown % 100)].concat());
    } else {
        put_integer(shown, out);
    }
    let ([m, n], [d, e]) = (pair(month), pair(day));
    out.put_slice(&[b'-', m, n, b'-', d, e]);
    if year <= 0 {
        out.put_slice(b" BC");
    }
}

/// Returns the two digits of a number below 100.
fn pair(value: i64) -> [u8; 2] {
    [b'0' + (value / 10) as u8, b'0' + (value % 10) as u8]
}

/// Writes the digits of a fraction of a second that are needed, with their point.
fn put_fraction(ns: u64, out: &mut BytesMut) {
    if ns > 0 {
        let digits = Short::of(format_args!(".{ns:09}"));
        let needed = digits.text().iter().rposition(|digit| *digit != b'0').unwrap_or(0);
        out.put_slice(&digits.text()[..=needed]);
    }
}

/// Writes date, time and as many digits of the second as are needed, 0 to 9.
fn put_time(ns: i64, out: &mut BytesMut) {
    put_date(ns.div_euclid(DAY_NS), out);
    let of_day = ns.rem_euclid(DAY_NS);
    let seconds = of_day / 1_000_000_000;
    let ([h, i], [m, n]) = (pair(seconds / 3_600), pair(seconds / 60 % 60));
    let [s, t] = pair(seconds % 60);
    out.put_slice(&[b' ', h, i, b':', m, n, b':', s, t]);
    put_fraction((of_day % 1_000_000_000).unsigned_abs(), out);
}

/// Writes an instant as its zone's clocks show it, and how far these are ahead of UTC.
fn put_instant(ns: i64, zone: &Zone, out: &mut BytesMut) {
    let offset = zone.offset_at(ns);
    put_time(ns.saturating_add(i64::from(offset) * 1_000_000_000), out);
    out.put_u8(if offset < 0 { b'-' } else { b'+' });
    let ahead = i64::from(offset.unsigned_abs());
    let parts = [ahead / 3_600, ahead / 60 % 60, ahead % 60];
    let shown = parts.iter().rposition(|part| *part > 0).unwrap_or(0);
    for (at, part) in parts[..=shown].iter().enumerate() {
        if at > 0 {
            out.put_u8(b':');
        }
        out.put_slice(&pair(*part));
    }
}

fn put_list(items: &ArrayRef, zone: &Zone, out: &mut BytesMut) -> Result<(), Error> {
    let column = typed_column(items, zone)?;
    out.put_u8(b'{');
    let mut item = BytesMut::new();
    for row in 0..items.len() {
        if row > 0 {
            out.put_u8(b',');
        }
        item.clear();
        if !column.put_text(row, &mut item)? {
            out.put_slice(b"NULL");
            continue;
        }
        let plain = !item.is_empty()
            && !item.eq_ignore_ascii_case(b"null")
            && !item.iter().any(|byte| b"{},\"\\ \t\n\r".contains(byte));
        if plain || matches!(column, TypedColumn::List(..)) {
            out.put_slice(&item);
        } else {
            out.put_u8(b'"');
            for byte in &item {
                if matches!(byte, b'"' | b'\\') {
                    out.put_u8(b'\\');
                }
                out.put_u8(*byte);
            }
            out.put_u8(b'"');
        }
    }
    out.put_u8(b'}');
    Ok(())
}

/// Writes a span of time as PostgreSQL's style `postgres` does: `1 year 2 mons -3 days +04:05:06`.
fn put_interval(interval: IntervalMonthDayNano, out: &mut BytesMut) {
    let start = out.len();
    let mut before = false;
    let parts =
        [(interval.months / 12, "year"), (interval.months % 12, "mon"), (interval.days, "day")];
    for (value, unit) in parts.into_iter().filter(|(value, _)| *value != 0) {
        let blank = if out.len() == start { "" } else { " " };
        let plus = if before && value > 0 { "+" } else { "" };
        let plural = if value == 1 { "" } else { "s" };
        out.put_slice(format!("{blank}{plus}{value} {unit}{plural}").as_bytes());
        before = value < 0;
    }
    let ns = interval.nanoseconds;
    if ns == 0 && out.len() > start {
        return;
    }
    if out.len() > start {
        out.put_u8(b' ');
    }
    if ns < 0 {
        out.put_u8(b'-');
    } else if before {
        out.put_u8(b'+');
    }
    let (seconds, fraction) =
        (ns.unsigned_abs() / 1_000_000_000, ns.unsigned_abs() % 1_000_000_000);
    let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
    out.put_slice(format!("{hours:02}:{minutes:02}:{:02}", seconds % 60).as_bytes());
    put_fraction(fraction, out);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn text(array: ArrayRef) -> String {
        let mut out = BytesMut::new();
        typed_column(&array, &Zone::default()).unwrap().text(0, &mut out).unwrap();
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn floats_are_written_as_postgresql_writes_them() {
        let cases = [
            (1.0, "1"),
            (-0.0, "-0"),
            (0.1, "0.1"),
            (1.5e-5, "1.5e-05"),
            (0.0001, "0.0001"),
            (123_456_789.25, "123456789.25"),
            (1e15, "1e+15"),
            (123_456_789_012_345.0, "123456789012345"),
            (1e300, "1e+300"),
            (f64::INFINITY, "Infinity"),
            (f64::NAN, "NaN"),
            (-92.0, "-92"),
            (999_999.0, "999999"),
            (-1_234_567.0, "-1234567"),
            (-1.25e-300, "-1.25e-300"),
            (f64::MAX, "1.7976931348623157e+308"),
            (120.0, "120"),
            (1_200_000.0, "1200000"),
            (-0.05, "-0.05"),
        ];
        for (value, expected) in cases {
            assert_eq!(text(Arc::new(Float64Array::from(vec![value]))), expected);
        }
        for (value, expected) in [(999_999.0_f32, "999999"), (1e6, "1e+06"), (0.1, "0.1")] {
            assert_eq!(text(Arc::new(Float32Array::from(vec![value]))), expected);
        }
    }

    #[test]
    fn times_have_as_many_digits_as_they_need() {
        let cases = [
            (0, "1970-01-01 00:00:00+00"),
            (1, "1970-01-01 00:00:00.000000001+00"),
            (-1, "1969-12-31 23:59:59.999999999+00"),
            (1_356_998_400_500_000_000, "2013-01-01 00:00:00.5+00"),
            (951_782_400_000_000_000, "2000-02-29 00:00:00+00"),
            (i64::MAX, "2262-04-11 23:47:16.854775807+00"),
        ];
        for (ns, expected) in cases {
            let array = TimestampNanosecondArray::from(vec![ns]).with_timezone("+00:00");
            assert_eq!(text(Arc::new(array)), expected);
        }
    }

    #[test]
    fn intervals_are_written_as_postgresql_writes_them() {
        let hour = 3_600_000_000_000;
        let cases = [
            ((0, 0, 0), "00:00:00"),
            ((14, 3, hour), "1 year 2 mons 3 days 01:00:00"),
            ((0, -1, 2 * hour), "-1 days +02:00:00"),
            ((-1, 1, -hour), "-1 mons +1 day -01:00:00"),
            ((0, 0, 90_061_500_000_000), "25:01:01.5"),
            ((1, 0, 0), "1 mon"),
        ];
        for ((months, days, ns), expected) in cases {
            let interval = IntervalMonthDayNano::new(months, days, ns);
            assert_eq!(text(Arc::new(IntervalMonthDayNanoArray::from(vec![interval]))), expected);
        }
    }
}
