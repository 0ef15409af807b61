//! Parameters of the extended protocol, text and binary.

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use query::{Error, Result, ScalarValue};

const EPOCH_2000_US: i64 = 946_684_800_000_000;
const EPOCH_2000_DAYS: i32 = 10_957;

/// Reads a parameter as the type the statement wants.
pub(crate) fn parameter(
    bytes: Option<&[u8]>,
    is_binary: bool,
    wanted: &DataType,
) -> Result<ScalarValue> {
    let Some(bytes) = bytes else {
        return ScalarValue::try_from(wanted).map_err(Error::from);
    };
    if is_binary && *wanted != DataType::Utf8 {
        return binary(bytes, wanted);
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Error::new("22021", "invalid byte sequence for encoding \"UTF8\""))?;
    let text = ScalarValue::Utf8(Some(text.to_owned()));
    if *wanted == DataType::Utf8 {
        return Ok(text);
    }
    text.cast_to(wanted).map_err(Error::from)
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
