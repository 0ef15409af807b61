//! Parameters of the extended protocol, text and binary.

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use pgwire::api::Type;
use query::{
    ELEMENTS_MAX, Error, Result, ScalarValue, Zone, parse_array, parse_instant, parse_wall,
};

const EPOCH_2000_US: i64 = 946_684_800_000_000;
const EPOCH_2000_DAYS: i32 = 10_957;

/// Reads a parameter as the type the statement wants.
pub(crate) fn parameter(
    bytes: Option<&[u8]>,
    is_binary: bool,
    wanted: &DataType,
    clock: &Clock,
) -> Result<ScalarValue> {
    let Some(bytes) = bytes else {
        return ScalarValue::try_from(wanted).map_err(Error::from);
    };
    if is_binary && *wanted != DataType::Utf8 {
        return binary(bytes, wanted);
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Error::new("22021", "invalid byte sequence for encoding \"UTF8\""))?;
    from_text(text, wanted, clock)
}

fn from_text(text: &str, wanted: &DataType, clock: &Clock) -> Result<ScalarValue> {
    match wanted {
        DataType::Utf8 => Ok(ScalarValue::Utf8(Some(text.to_owned()))),
        DataType::Timestamp(TimeUnit::Nanosecond, zone @ Some(_)) => {
            let ns = parse_instant(text, &clock.zone, clock.now_ns).ok_or_else(|| {
                let message =
                    format!("invalid input syntax for type timestamp with time zone: \"{text}\"");
                Error::new("22007", message)
            })?;
            Ok(ScalarValue::TimestampNanosecond(Some(ns), zone.clone()))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, None) => {
            let ns = parse_wall(text, &clock.zone, clock.now_ns).ok_or_else(|| {
                let message = format!("invalid input syntax for type timestamp: \"{text}\"");
                Error::new("22007", message)
            })?;
            Ok(ScalarValue::TimestampNanosecond(Some(ns), None))
        }
        DataType::List(item) => {
            let elements = parse_array(text).ok_or_else(|| {
                Error::new("22P02", format!("malformed array literal: \"{text}\""))
            })?;
            let element = |element: Option<String>| match element {
                None => ScalarValue::try_from(item.data_type()).map_err(Error::from),
                Some(text) => from_text(&text, item.data_type(), clock),
            };
            let elements = elements.into_iter().map(element).collect::<Result<Vec<_>>>()?;
            Ok(list(&elements, item.data_type()))
        }
        wanted => ScalarValue::Utf8(Some(text.to_owned())).cast_to(wanted).map_err(Error::from),
    }
}

fn list(elements: &[ScalarValue], item: &DataType) -> ScalarValue {
    ScalarValue::List(ScalarValue::new_list_nullable(elements, item))
}

/// Reads an array of one dimension: dimensions, whether there are NULLs, the element's type, then length
/// and lower bound of each dimension, then the elements, each behind its length.
fn binary_list(bytes: &[u8], item: &DataType) -> Result<ScalarValue> {
    let malformed = || Error::new("22P03", "incorrect binary data format");
    let mut rest = bytes;
    let mut number = || {
        let (head, tail) = rest.split_first_chunk::<4>().ok_or_else(malformed)?;
        rest = tail;
        Ok::<i32, Error>(i32::from_be_bytes(*head))
    };
    let dimensions = number()?;
    let (_nulls, element) = (number()?, number()?);
    if element.cast_unsigned() == Type::NUMERIC.oid() {
        let message = "binary parameters of type numeric[] are not supported";
        return Err(Error::new("0A000", message).hint("send float8[], or text"));
    }
    if dimensions == 0 {
        return Ok(list(&[], item));
    }
    if dimensions != 1 {
        return Err(Error::new("0A000", "arrays of several dimensions are not supported"));
    }
    let count = usize::try_from(number()?).map_err(|_| malformed())?;
    number()?;
    if count > rest.len() / 4 {
        return Err(malformed());
    }
    if count > ELEMENTS_MAX {
        let message = format!("an array of more than {ELEMENTS_MAX} elements");
        return Err(Error::new("54000", message));
    }
    let mut elements = Vec::with_capacity(count);
    for _ in 0..count {
        let (len, tail) = rest.split_first_chunk::<4>().ok_or_else(malformed)?;
        rest = tail;
        let Ok(len) = usize::try_from(i32::from_be_bytes(*len)) else {
            elements.push(ScalarValue::try_from(item).map_err(Error::from)?);
            continue;
        };
        let (element, tail) = rest.split_at_checked(len).ok_or_else(malformed)?;
        rest = tail;
        elements.push(match item {
            DataType::Utf8 => {
                let text = std::str::from_utf8(element);
                let wrong = |_| Error::new("22021", "invalid byte sequence for encoding \"UTF8\"");
                ScalarValue::Utf8(Some(text.map_err(wrong)?.to_owned()))
            }
            item => binary(element, item)?,
        });
    }
    if rest.is_empty() { Ok(list(&elements, item)) } else { Err(malformed()) }
}

/// How texts of instants are read.
pub(crate) struct Clock {
    pub(crate) zone: Zone,
    pub(crate) now_ns: i64,
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| Error::new("22P03", "incorrect binary data format"))
}

/// Reads an integer of any width: drivers send the width of their own type.
fn integer(bytes: &[u8]) -> Result<i64> {
    Ok(match bytes.len() {
        2 => i64::from(i16::from_be_bytes(array(bytes)?)),
        4 => i64::from(i32::from_be_bytes(array(bytes)?)),
        _ => i64::from_be_bytes(array(bytes)?),
    })
}

fn float(bytes: &[u8]) -> Result<f64> {
    Ok(match bytes.len() {
        4 => f64::from(f32::from_be_bytes(array(bytes)?)),
        _ => f64::from_be_bytes(array(bytes)?),
    })
}

fn binary(bytes: &[u8], wanted: &DataType) -> Result<ScalarValue> {
    let out_of_range = || Error::new("22003", "parameter out of range");
    Ok(match wanted {
        DataType::Boolean => ScalarValue::Boolean(Some(array::<1>(bytes)? != [0])),
        DataType::Int16 => {
            ScalarValue::Int16(Some(i16::try_from(integer(bytes)?).map_err(|_| out_of_range())?))
        }
        DataType::Int32 => {
            ScalarValue::Int32(Some(i32::try_from(integer(bytes)?).map_err(|_| out_of_range())?))
        }
        DataType::Int64 => ScalarValue::Int64(Some(integer(bytes)?)),
        DataType::UInt64 => {
            let value = u64::try_from(integer(bytes)?).map_err(|_| out_of_range())?;
            ScalarValue::UInt64(Some(value))
        }
        DataType::Float32 => ScalarValue::Float32(Some(float(bytes)? as f32)),
        DataType::Float64 => ScalarValue::Float64(Some(float(bytes)?)),
        DataType::Date32 => {
            let days = i32::from_be_bytes(array(bytes)?).checked_add(EPOCH_2000_DAYS);
            ScalarValue::Date32(Some(days.ok_or_else(out_of_range)?))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
            let us = i64::from_be_bytes(array(bytes)?).checked_add(EPOCH_2000_US);
            let ns = us.and_then(|us| us.checked_mul(1_000));
            ScalarValue::TimestampNanosecond(Some(ns.ok_or_else(out_of_range)?), zone.clone())
        }
        DataType::List(item) => binary_list(bytes, item.data_type())?,
        DataType::Interval(IntervalUnit::MonthDayNano) => {
            let bytes = array::<16>(bytes)?;
            let us = i64::from_be_bytes(array(&bytes[..8])?);
            let (days, months) = (
                i32::from_be_bytes(array(&bytes[8..12])?),
                i32::from_be_bytes(array(&bytes[12..])?),
            );
            let ns = us.checked_mul(1_000).ok_or_else(out_of_range)?;
            ScalarValue::new_interval_mdn(months, days, ns)
        }
        other => {
            let message = format!("a binary parameter of type {other} is not supported");
            return Err(Error::new("0A000", message));
        }
    })
}
