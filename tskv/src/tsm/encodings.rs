//! Encodings of a page's values. The writer tries those that fit the type and keeps the smallest;
//! the first byte of a page names the one used.
//!
//! Packed integers are deltas, frame of reference, bit-packed (as in Goldstein, Ramakrishnan, Shaft,
//! "Compressing relations and indexes", 1998). Decimal floats become such integers when multiplying
//! by a power of ten and back gives the same bits for every value, the idea of ALP (Afroozeh, Kuffo,
//! Boncz, 2023).
#![deny(clippy::indexing_slicing)]

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, UInt32Array, UInt64Array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{Float64Type, Int64Type, UInt64Type};
use model::ValueType;
use model::points::{decode_array, encode_array};
use model::wire::{Decoded, Malformed, Reader, Write, malformed};

/// As [`encode_array`] writes it.
const RAW: u8 = 0;
/// RAW, compressed with LZ4.
const LZ4: u8 = 1;
/// Validity, then packed integers of the values that are not NULL.
const PACKED: u8 = 2;
/// Validity, exponent, then packed integers: value = integer / 10^exponent.
const DECIMAL: u8 = 3;

/// The most rows a page may have.
pub(crate) const PAGE_ROWS_MAX: usize = 8_192;
/// The most bytes one page may unpack to: as long as the longest batch of strings.
const PAGE_BYTES_MAX: usize = 1 << 30;

const POWERS: [f64; 7] = [1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0];

/// Encodes the values of a page.
// FORMAT: docs/formats/tsm.md, v1
pub(crate) fn encode(values: &ArrayRef, value_type: ValueType) -> Vec<u8> {
    let mut raw = vec![RAW];
    encode_array(values, value_type, &mut raw);
    let mut best = raw;
    let body = best.get(1..).unwrap_or_default();
    let mut lz4 = vec![LZ4];
    lz4.put_varint(body.len() as u64);
    lz4.extend_from_slice(&lz4_flex::block::compress(body));
    for candidate in [Some(lz4), integers(values, value_type)].into_iter().flatten() {
        if candidate.len() < best.len() {
            best = candidate;
        }
    }
    best
}

fn integers(values: &ArrayRef, value_type: ValueType) -> Option<Vec<u8>> {
    let dense = without_nulls(values);
    let mut out = Vec::new();
    let numbers: Vec<i64> = match value_type {
        ValueType::I64 => {
            out.put_u8(PACKED);
            dense.as_primitive::<Int64Type>().values().to_vec()
        }
        ValueType::U64 => {
            out.put_u8(PACKED);
            dense.as_primitive::<UInt64Type>().values().iter().map(|v| v.cast_signed()).collect()
        }
        ValueType::F64 => {
            let (exponent, numbers) = decimals(dense.as_primitive::<Float64Type>().values())?;
            out.put_u8(DECIMAL);
            out.put_u8(exponent);
            numbers
        }
        ValueType::Bool | ValueType::Str => return None,
    };
    put_validity(values, &mut out);
    pack(&numbers, &mut out);
    Some(out)
}

fn without_nulls(values: &ArrayRef) -> ArrayRef {
    match values.nulls() {
        Some(nulls) if nulls.null_count() > 0 => {
            let valid = UInt32Array::from_iter_values(nulls.valid_indices().map(|i| i as u32));
            arrow::compute::take(values, &valid, None).expect("indices are inside the array")
        }
        _ => Arc::clone(values),
    }
}

fn put_validity(values: &ArrayRef, out: &mut Vec<u8>) {
    let valid = BooleanArray::from_iter((0..values.len()).map(|row| Some(values.is_valid(row))));
    if values.null_count() == 0 {
        out.put_u8(0);
    } else {
        out.put_u8(1);
        let mut bytes = Vec::new();
        encode_array(&(Arc::new(valid) as ArrayRef), ValueType::Bool, &mut bytes);
        out.extend_from_slice(bytes.get(1..).unwrap_or_default());
    }
}

fn take_validity(reader: &mut Reader<'_>, rows: usize) -> Decoded<Option<NullBuffer>> {
    match reader.u8()? {
        0 => Ok(None),
        1 => {
            let bits = reader.take(rows.div_ceil(8))?;
            let bits = arrow::buffer::Buffer::from_slice_ref(bits);
            Ok(Some(NullBuffer::new(arrow::buffer::BooleanBuffer::new(bits, 0, rows))))
        }
        other => malformed(format!("validity {other}")),
    }
}

/// Finds the smallest exponent under which every value is a whole number that comes back exactly.
fn decimals(values: &[f64]) -> Option<(u8, Vec<i64>)> {
    let fits = |value: f64, power: f64| {
        let whole = (value * power).round();
        (whole.abs() < 9e15 && (whole / power).to_bits() == value.to_bits()).then_some(whole as i64)
    };
    let mut exponent = 0;
    for value in values {
        while fits(*value, *POWERS.get(exponent)?).is_none() {
            exponent += 1;
        }
    }
    // A later value may have raised the exponent beyond what an earlier one bears.
    let power = *POWERS.get(exponent)?;
    let numbers = values.iter().map(|value| fits(*value, power)).collect::<Option<Vec<_>>>()?;
    Some((exponent as u8, numbers))
}

/// Decodes a page of `rows` values.
pub(crate) fn decode(bytes: &[u8], value_type: ValueType, rows: usize) -> Decoded<ArrayRef> {
    let mut reader = Reader::new(bytes);
    let values = match reader.u8()? {
        RAW => decode_array(&mut reader, value_type, rows)?,
        LZ4 => {
            let len = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
            if len > PAGE_BYTES_MAX || len / 256 > reader.remaining() {
                return malformed("page unpacks to too much");
            }
            let packed = reader.take(reader.remaining())?;
            let raw = lz4_flex::block::decompress(packed, len)
                .map_err(|error| Malformed(error.to_string()))?;
            let mut inner = Reader::new(&raw);
            let values = decode_array(&mut inner, value_type, rows)?;
            inner.finish()?;
            values
        }
        PACKED => {
            let nulls = take_validity(&mut reader, rows)?;
            let numbers = spread(&mut reader, rows, nulls.as_ref())?;
            match value_type {
                ValueType::I64 => Arc::new(Int64Array::new(numbers.into(), nulls)) as ArrayRef,
                ValueType::U64 => {
                    let numbers: Vec<u64> = numbers.iter().map(|n| n.cast_unsigned()).collect();
                    Arc::new(UInt64Array::new(numbers.into(), nulls))
                }
                other => return malformed(format!("packed integers of type {other:?}")),
            }
        }
        DECIMAL if value_type == ValueType::F64 => {
            let exponent = reader.u8()?;
            let Some(power) = POWERS.get(usize::from(exponent)) else {
                return malformed(format!("exponent {exponent}"));
            };
            let nulls = take_validity(&mut reader, rows)?;
            let numbers = spread(&mut reader, rows, nulls.as_ref())?;
            let values: Vec<f64> = numbers.iter().map(|number| *number as f64 / power).collect();
            Arc::new(Float64Array::new(values.into(), nulls))
        }
        other => return malformed(format!("encoding {other}")),
    };
    reader.finish()?;
    Ok(values)
}

/// Unpacks the values that are not NULL and puts them where they belong; zero stands under NULLs.
fn spread(reader: &mut Reader<'_>, rows: usize, nulls: Option<&NullBuffer>) -> Decoded<Vec<i64>> {
    let Some(nulls) = nulls else { return unpack(reader, rows) };
    let dense = unpack(reader, rows - nulls.null_count())?;
    let mut values = vec![0; rows];
    for (row, value) in nulls.valid_indices().zip(dense) {
        if let Some(place) = values.get_mut(row) {
            *place = value;
        }
    }
    Ok(values)
}

/// Appends integers: first value, smallest delta, bit width, then (delta - smallest) in that width.
pub(crate) fn pack(values: &[i64], out: &mut Vec<u8>) {
    let Some(first) = values.first() else { return };
    out.put_i64(*first);
    let deltas: Vec<i64> =
        values.iter().zip(values.iter().skip(1)).map(|(a, b)| b.wrapping_sub(*a)).collect();
    let smallest = deltas.iter().copied().min().unwrap_or(0);
    // Wrapping: the difference to the smallest delta, taken as unsigned, never exceeds 64 bits.
    let offsets = deltas.iter().map(|delta| delta.wrapping_sub(smallest).cast_unsigned());
    let width = 64 - offsets.clone().max().unwrap_or(0).leading_zeros();
    out.put_i64(smallest);
    out.put_u8(width as u8);
    let mut held: u128 = 0;
    let mut bits = 0;
    for offset in offsets {
        held |= u128::from(offset) << bits;
        bits += width;
        while bits >= 8 {
            out.push((held & 0xff) as u8);
            held >>= 8;
            bits -= 8;
        }
    }
    if bits > 0 {
        out.push((held & 0xff) as u8);
    }
}

/// Reads `count` integers that [`pack`] wrote.
pub(crate) fn unpack(reader: &mut Reader<'_>, count: usize) -> Decoded<Vec<i64>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    if count > PAGE_ROWS_MAX {
        return malformed("too many integers");
    }
    let mut value = reader.i64()?;
    let smallest = reader.i64()?;
    let width = u32::from(reader.u8()?);
    if width > 64 {
        return malformed(format!("bit width {width}"));
    }
    let bytes = reader.take(((count - 1) * width as usize).div_ceil(8))?;
    let mask = if width == 64 { u64::MAX } else { (1 << width) - 1 };
    let mut values = Vec::with_capacity(count);
    values.push(value);
    let (mut held, mut bits) = (0_u128, 0);
    let mut bytes = bytes.iter();
    for _ in 1..count {
        while bits < width {
            held |= u128::from(*bytes.next().unwrap_or(&0)) << bits;
            bits += 8;
        }
        let offset = (held as u64) & mask;
        held >>= width;
        bits -= width;
        value = value.wrapping_add(smallest).wrapping_add(offset.cast_signed());
        values.push(value);
    }
    Ok(values)
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test stops where it is wrong")]
mod tests {
    use super::*;
    use arrow::array::StringArray;

    fn check(values: ArrayRef, value_type: ValueType) -> usize {
        let bytes = encode(&values, value_type);
        let back = decode(&bytes, value_type, values.len()).unwrap();
        let plain = |array: &ArrayRef| {
            let mut bytes = Vec::new();
            // Under a NULL any bytes may stand, so compare value by value.
            for row in 0..array.len() {
                bytes.push(u8::from(array.is_valid(row)));
                if array.is_valid(row) {
                    encode_array(&array.slice(row, 1), value_type, &mut bytes);
                }
            }
            bytes
        };
        assert_eq!(plain(&back), plain(&values), "{value_type:?}");
        for len in 0..bytes.len() {
            if let Ok(short) = decode(&bytes[..len], value_type, values.len()) {
                assert_eq!(short.len(), values.len());
            }
        }
        bytes.len()
    }

    #[test]
    fn every_type_survives_with_nulls_and_extremes() {
        let ints = vec![Some(i64::MIN), None, Some(i64::MAX), Some(0), None, Some(-1)];
        check(Arc::new(Int64Array::from(ints)), ValueType::I64);
        check(Arc::new(UInt64Array::from(vec![Some(u64::MAX), None, Some(0)])), ValueType::U64);
        let floats = vec![
            Some(f64::NAN),
            Some(-0.0),
            None,
            Some(f64::INFINITY),
            Some(f64::MIN_POSITIVE),
            Some(1e300),
        ];
        check(Arc::new(Float64Array::from(floats)), ValueType::F64);
        check(Arc::new(Float64Array::from(vec![Some(20.25), None, Some(-3.5)])), ValueType::F64);
        check(Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])), ValueType::Bool);
        check(Arc::new(StringArray::from(vec![Some(""), None, Some("äö")])), ValueType::Str);
        check(Arc::new(Int64Array::from(Vec::<Option<i64>>::new())), ValueType::I64);
        check(Arc::new(Int64Array::from(vec![None::<i64>; 9])), ValueType::I64);
    }

    #[test]
    fn regular_and_decimal_values_take_few_bits() {
        let times = Int64Array::from_iter_values((0..8_000).map(|i| i * 10_000_000_000));
        assert!(check(Arc::new(times), ValueType::I64) < 40);
        let walk = Float64Array::from_iter_values((0..8_000).map(|i| f64::from(i % 100)));
        assert!(check(Arc::new(walk), ValueType::F64) < 8_000);
        let tenths = Float64Array::from_iter_values((0..8_000).map(|i| f64::from(i % 50) / 10.0));
        assert!(check(Arc::new(tenths), ValueType::F64) < 8_000);
    }
}
