//! Parameters of the extended protocol, text and binary.

use arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use pgwire::api::Type;
use query::{
    ELEMENTS_MAX, Error, Result, ScalarValue, Zone, parse_array, parse_instant, parse_wall,
    spell_interval, uuid,
};

const EPOCH_2000_US: i64 = 946_684_800_000_000;
const EPOCH_2000_DAYS: i32 = 10_957;

/// Reads a parameter as the type the statement wants.
pub(crate) fn parameter(
    bytes: Option<&[u8]>,
    is_binary: bool,
    (wanted, sent): (&DataType, &Type),
    clock: &Clock,
) -> Result<ScalarValue> {
    let Some(bytes) = bytes else {
        return ScalarValue::try_from(wanted).map_err(Error::from);
    };
    match (is_binary, utf8(bytes)) {
        (true, _) => binary(bytes, wanted, sent),
        (false, text) if *sent == Type::UUID => Ok(ScalarValue::Utf8(Some(uuid(text?)?))),
        (false, text) => from_text(text?, wanted, clock),
    }
}

fn utf8(bytes: &[u8]) -> Result<&str> {
    std::str::from_utf8(bytes)
        .map_err(|_| Error::new("22021", "invalid byte sequence for encoding \"UTF8\""))
}

fn malformed() -> Error {
    Error::new("22P03", "incorrect binary data format")
}

/// Returns the text of a binary value that is read by way of its text.
fn text_of(bytes: &[u8], sent: &Type) -> Result<String> {
    Ok(match *sent {
        Type::UUID => {
            let hex: String = array::<16>(bytes)?.iter().map(|b| format!("{b:02x}")).collect();
            uuid(&hex)?
        }
        Type::JSONB => match bytes.split_first() {
            Some((1, text)) => utf8(text)?.to_owned(),
            _ => return Err(malformed()),
        },
        Type::TIME => {
            let us = i64::from_be_bytes(array(bytes)?);
            let (seconds, us) = (us.div_euclid(1_000_000), us.rem_euclid(1_000_000));
            let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
            format!("{hours:02}:{minutes:02}:{:02}.{us:06}", seconds % 60)
        }
        Type::BYTEA => {
            let hex = bytes.iter().map(|byte| format!("{byte:02x}"));
            format!("\\x{}", hex.collect::<String>())
        }
        Type::NUMERIC => numeric(bytes)?,
        Type::BOOL => (if array::<1>(bytes)? == [0] { "false" } else { "true" }).to_owned(),
        Type::INT2 | Type::INT4 | Type::INT8 => integer(bytes)?.to_string(),
        Type::FLOAT4 | Type::FLOAT8 => float(bytes)?.to_string(),
        _ => utf8(bytes)?.to_owned(),
    })
}

/// Reads a NUMERIC: how many digits of base 10,000, the weight of the first, the sign, how many decimal
/// places are shown, then the digits.
fn numeric(bytes: &[u8]) -> Result<String> {
    let words: Vec<i16> =
        bytes.chunks(2).map(|two| Ok(i16::from_be_bytes(array(two)?))).collect::<Result<_>>()?;
    let [count, weight, sign, places, digits @ ..] = words.as_slice() else {
        return Err(malformed());
    };
    let is_digit = |digit: &i16| (0..10_000).contains(digit);
    if usize::try_from(*count) != Ok(digits.len()) || !digits.iter().all(is_digit) {
        return Err(malformed());
    }
    let sign = match sign.cast_unsigned() {
        0 => "",
        0x4000 => "-",
        0xC000 => return Ok("NaN".to_owned()),
        0xD000 => return Ok("Infinity".to_owned()),
        0xF000 => return Ok("-Infinity".to_owned()),
        _ => return Err(malformed()),
    };
    let at = |place: i32| {
        let index = usize::try_from(i32::from(*weight) - place).ok();
        index.and_then(|index| digits.get(index)).copied().unwrap_or(0)
    };
    let whole: String =
        (0..=i32::from(*weight).max(0)).rev().map(|p| format!("{:04}", at(p))).collect();
    let whole = whole.trim_start_matches('0');
    let places = usize::try_from(*places).map_err(|_| malformed())?;
    let behind: String =
        (1..=places.div_ceil(4) as i32).map(|place| format!("{:04}", at(-place))).collect();
    let whole = if whole.is_empty() { "0" } else { whole };
    let point = if places > 0 { "." } else { "" };
    Ok(format!("{sign}{whole}{point}{}", &behind[..places]))
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
        DataType::Interval(_) => {
            let words = spell_interval(text).unwrap_or_else(|| text.to_owned());
            ScalarValue::Utf8(Some(words)).cast_to(wanted).map_err(Error::from)
        }
        DataType::Binary => bytes_of(text).map(|bytes| ScalarValue::Binary(Some(bytes))),
        wanted => ScalarValue::Utf8(Some(text.to_owned())).cast_to(wanted).map_err(Error::from),
    }
}

/// Reads bytes in hexadecimal, or as they are where they have no backslash.
fn bytes_of(text: &str) -> Result<Vec<u8>> {
    let malformed = || Error::new("22P02", "invalid input syntax for type bytea");
    let Some(hex) = text.strip_prefix("\\x") else {
        return if text.contains('\\') { Err(malformed()) } else { Ok(text.as_bytes().to_vec()) };
    };
    let digit = |byte: u8| char::from(byte).to_digit(16).ok_or_else(malformed);
    let pair = |pair: &[u8]| match pair {
        [high, low] => Ok((digit(*high)? * 16 + digit(*low)?) as u8),
        _ => Err(malformed()),
    };
    hex.as_bytes().chunks(2).map(pair).collect()
}

fn list(elements: &[ScalarValue], item: &DataType) -> ScalarValue {
    ScalarValue::List(ScalarValue::new_list_nullable(elements, item))
}

/// Reads an array of one dimension: dimensions, whether there are NULLs, the element's type, then length
/// and lower bound of each dimension, then the elements, each behind its length.
fn binary_list(bytes: &[u8], item: &DataType) -> Result<ScalarValue> {
    let mut rest = bytes;
    let mut number = || {
        let (head, tail) = rest.split_first_chunk::<4>().ok_or_else(malformed)?;
        rest = tail;
        Ok::<i32, Error>(i32::from_be_bytes(*head))
    };
    let dimensions = number()?;
    let (_nulls, element) = (number()?, number()?);
    let sent = Type::from_oid(element.cast_unsigned()).unwrap_or(Type::UNKNOWN);
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
        elements.push(binary(element, item, &sent)?);
    }
    if rest.is_empty() { Ok(list(&elements, item)) } else { Err(malformed()) }
}

/// How texts of instants are read.
pub(crate) struct Clock {
    pub(crate) zone: Zone,
    pub(crate) now_ns: i64,
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    bytes.try_into().map_err(|_| malformed())
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

fn binary(bytes: &[u8], wanted: &DataType, sent: &Type) -> Result<ScalarValue> {
    let out_of_range = || Error::new("22003", "parameter out of range");
    if *sent == Type::NUMERIC {
        let text = ScalarValue::Utf8(Some(numeric(bytes)?));
        return text.cast_to(wanted).map_err(|_| out_of_range());
    }
    if matches!(*sent, Type::FLOAT4 | Type::FLOAT8) && wanted.is_integer() {
        let rounded = ScalarValue::Float64(Some(float(bytes)?.round_ties_even()));
        return rounded.cast_to(wanted).map_err(|_| out_of_range());
    }
    Ok(match wanted {
        DataType::Utf8 => ScalarValue::Utf8(Some(text_of(bytes, sent)?)),
        DataType::Binary => ScalarValue::Binary(Some(bytes.to_vec())),
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
