//! Encodings of a page's values. The writer tries those that the column's CODEC allows and keeps the
//! smallest; the first byte of a page names the one used. Fresh files take what is quick to write and to
//! read, compacted ones what is small.
//!
//! Decimal floats become integers when multiplying by a power of ten and back gives the same bits for
//! every value, the idea of ALP (Afroozeh, Kuffo, Boncz, 2023). Dense numbers are pco's
//! (Loncaric, Jeppesen, Zinberg, "Pcodec", 2025), decimal floats as integers, for which it needs a third less
//! than for the floats; dense text is Zstandard's (RFC 8878).
#![deny(clippy::indexing_slicing)]

mod bytes;
mod gorilla;
mod integers;
mod keys;
mod rows;
mod runs;
mod vectors;

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, UInt32Array, UInt64Array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{Float64Type, Int64Type, UInt64Type};
use model::points::{decode_array, encode_array};
use model::wire::{Decoded, Malformed, Reader, Write, malformed};
use model::{Codec, ValueType};
use pco::ChunkConfig;
use pco::data_types::Number;
use pco::standalone::{simple_compress, simple_decompress_into};

use bytes::Squeeze;
use integers::{pack, unpack};
pub(crate) use keys::{decode_keys, encode_keys};
pub(crate) use rows::{decode_run, encode_run};
pub(crate) use vectors::{VECTOR_ROWS, vector_rows, vectors};

/// As [`encode_array`] writes it.
const RAW: u8 = 0;
/// Validity, then packed integers of the values that are not NULL.
const PACKED: u8 = 2;
/// Validity, exponent, then packed integers: value = integer / 10^exponent.
const DECIMAL: u8 = 3;
/// Validity, then pco of the values that are not NULL.
const PCO: u8 = 4;
/// Validity, then the XOR of neighbours.
const GORILLA: u8 = 10;
/// Validity, then packed integers of the differences of the values that are not NULL.
const DELTA_OF_DELTA: u8 = 11;
/// Validity, the distinct texts, then packed integers: their numbers.
const DICTIONARY: u8 = 12;
/// Validity, the values of runs, then packed integers: the lengths of these.
const RUNS: u8 = 13;
/// Validity, then pco of the values that are not NULL, in vectors.
const VECTORS: u8 = 14;
/// Exponent, then as vectors: value = integer / 10^exponent.
const DECIMAL_VECTORS: u8 = 15;

/// The most rows a page may have.
pub(crate) const PAGE_ROWS_MAX: usize = 8_192;
/// Pages that are read often should not take long; above this the gain is below a per cent.
const PCO_LEVEL: usize = 8;

const POWERS: [f64; 7] = [1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0];

/// Returns what an encoding is called, of keys or of values.
pub(crate) fn name(of_keys: bool, code: u8) -> &'static str {
    if of_keys {
        return keys::name(code);
    }
    match code {
        RAW => "raw",
        PACKED => "packed",
        DECIMAL => "decimal",
        PCO => "pco",
        GORILLA => "gorilla",
        DELTA_OF_DELTA => "delta of delta",
        DICTIONARY => "dictionary",
        RUNS => "runs",
        VECTORS => "vectors",
        DECIMAL_VECTORS => "vectors of decimals",
        other => Squeeze::of_code(other).map_or("?", Squeeze::name),
    }
}

/// What a writer takes pains for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Speed: the rows will be merged again soon.
    Light,
    /// Size: the rows will stay.
    Dense,
}

/// Encodes the values of a page.
// FORMAT: docs/formats/tsm.md, v4
pub(crate) fn encode(
    values: &ArrayRef,
    value_type: ValueType,
    effort: Effort,
    codec: Codec,
) -> Vec<u8> {
    let mut raw = vec![RAW];
    encode_array(values, value_type, &mut raw);
    let body = raw.get(1..).unwrap_or_default();
    let squeezed = |squeeze: Squeeze| squeeze.encode(body);
    let light = effort == Effort::Light;
    let candidates = match codec {
        Codec::Null | Codec::Bitpack => [None, None],
        Codec::Delta => [integers(values, value_type), None],
        Codec::DeltaTs => [double_deltas(values, value_type), None],
        Codec::Gorilla => [xors(values, value_type), None],
        Codec::Alp => [integers(values, value_type), None],
        Codec::Dictionary => [runs::dictionary(values, value_type), None],
        Codec::Rle => [runs::lengths(values, value_type), None],
        Codec::Snappy => [squeezed(Squeeze::Snappy), None],
        Codec::Lz4 => [squeezed(Squeeze::Lz4), None],
        Codec::Quantile if !light => [numbers(values, value_type), None],
        Codec::Zstd if !light => [squeezed(Squeeze::Zstd), None],
        Codec::Gzip if !light => [squeezed(Squeeze::Gzip), None],
        Codec::Zlib if !light => [squeezed(Squeeze::Zlib), None],
        Codec::Bzip if !light => [squeezed(Squeeze::Bzip), None],
        // What takes long to write waits until rows are compacted.
        Codec::Quantile | Codec::Zstd | Codec::Gzip | Codec::Zlib | Codec::Bzip => {
            best_known(values, value_type, body, effort)
        }
        Codec::Default | Codec::Sdt(_) | Codec::Deadband(_) | Codec::Quantize(_) => {
            best_known(values, value_type, body, effort)
        }
    };
    let mut best = raw;
    for candidate in candidates.into_iter().flatten() {
        if candidate.len() < best.len() {
            best = candidate;
        }
    }
    best
}

/// Encodes with what is known to be good for a type.
fn best_known(
    values: &ArrayRef,
    value_type: ValueType,
    body: &[u8],
    effort: Effort,
) -> [Option<Vec<u8>>; 2] {
    let packed = integers(values, value_type);
    let is_number = packed.is_some() || value_type == ValueType::F64;
    let pressed = match effort {
        Effort::Dense if is_number => numbers(values, value_type),
        Effort::Dense => Squeeze::Zstd.encode(body),
        // Numbers that pack are not worth the time that LZ4 takes.
        Effort::Light if packed.is_some() => None,
        Effort::Light => Squeeze::Lz4.encode(body),
    };
    [pressed, packed]
}

/// Encodes the differences of whole numbers as packed integers, which are differences themselves.
fn double_deltas(values: &ArrayRef, value_type: ValueType) -> Option<Vec<u8>> {
    let dense = without_nulls(values);
    let numbers = whole_numbers(&dense, value_type)?;
    let mut out = vec![DELTA_OF_DELTA];
    put_validity(values, &mut out);
    if let Some(first) = numbers.first() {
        out.put_i64(*first);
        let pairs = numbers.iter().zip(numbers.iter().skip(1));
        let deltas: Vec<i64> = pairs.map(|(a, b)| b.wrapping_sub(*a)).collect();
        pack(&deltas, &mut out);
    }
    Some(out)
}

fn read_double_deltas(reader: &mut Reader<'_>, count: usize) -> Decoded<Vec<i64>> {
    if count == 0 {
        return Ok(Vec::new());
    }
    let mut value = reader.i64()?;
    let mut values = Vec::with_capacity(count.min(PAGE_ROWS_MAX));
    values.push(value);
    for delta in unpack(reader, count - 1)? {
        value = value.wrapping_add(delta);
        values.push(value);
    }
    Ok(values)
}

/// Returns the bits of whole numbers.
fn whole_numbers(dense: &ArrayRef, value_type: ValueType) -> Option<Vec<i64>> {
    match value_type {
        ValueType::I64 => Some(dense.as_primitive::<Int64Type>().values().to_vec()),
        ValueType::U64 => {
            let values = dense.as_primitive::<UInt64Type>().values();
            Some(values.iter().map(|value| value.cast_signed()).collect())
        }
        ValueType::F64 | ValueType::Bool | ValueType::Str => None,
    }
}

fn xors(values: &ArrayRef, value_type: ValueType) -> Option<Vec<u8>> {
    if value_type != ValueType::F64 {
        return None;
    }
    let dense = without_nulls(values);
    let mut out = vec![GORILLA];
    put_validity(values, &mut out);
    gorilla::pack(dense.as_primitive::<Float64Type>().values(), &mut out);
    Some(out)
}

fn numbers(values: &ArrayRef, value_type: ValueType) -> Option<Vec<u8>> {
    let dense = without_nulls(values);
    match value_type {
        ValueType::I64 => press_page(values, dense.as_primitive::<Int64Type>().values()),
        ValueType::U64 => press_page(values, dense.as_primitive::<UInt64Type>().values()),
        ValueType::F64 => {
            let floats = dense.as_primitive::<Float64Type>().values();
            match decimals(floats) {
                Some((exponent, numbers)) if !numbers.is_empty() => {
                    press_decimals(values, exponent, &numbers)
                }
                _ => press_page(values, floats),
            }
        }
        ValueType::Bool | ValueType::Str => None,
    }
}

/// Makes a page of floats, those of which are not NULL are whole numbers but for an exponent.
fn press_decimals(values: &ArrayRef, exponent: u8, numbers: &[i64]) -> Option<Vec<u8>> {
    let mut out = vec![DECIMAL_VECTORS, exponent];
    put_validity(values, &mut out);
    let counts = vectors::value_counts(values.nulls(), values.len());
    vectors::press(numbers, &counts, &mut out)?;
    Some(out)
}

/// Makes a page of those of its values that are not NULL.
fn press_page<T: Number>(values: &ArrayRef, dense: &[T]) -> Option<Vec<u8>> {
    let is_one_vector = values.len() <= VECTOR_ROWS || dense.is_empty();
    let mut out = vec![if is_one_vector { PCO } else { VECTORS }];
    put_validity(values, &mut out);
    if is_one_vector {
        out.extend_from_slice(&press(dense)?);
    } else {
        let counts = vectors::value_counts(values.nulls(), values.len());
        vectors::press(dense, &counts, &mut out)?;
    }
    Some(out)
}

fn press<T: Number>(values: &[T]) -> Option<Vec<u8>> {
    let config = ChunkConfig::default().with_compression_level(PCO_LEVEL);
    simple_compress(values, &config).ok()
}

fn unpress<T: Number + Default>(bytes: &[u8], count: usize) -> Decoded<Vec<T>> {
    if count > PAGE_ROWS_MAX {
        return malformed("too many numbers");
    }
    let mut values = vec![T::default(); count];
    let progress = simple_decompress_into(bytes, &mut values);
    let progress = progress.map_err(|error| Malformed(error.to_string()))?;
    if progress.n_processed != count {
        return malformed("fewer numbers than rows");
    }
    Ok(values)
}

fn integers(values: &ArrayRef, value_type: ValueType) -> Option<Vec<u8>> {
    let dense = without_nulls(values);
    let mut out = Vec::new();
    let numbers = if value_type == ValueType::F64 {
        let (exponent, numbers) = decimals(dense.as_primitive::<Float64Type>().values())?;
        out.put_u8(DECIMAL);
        out.put_u8(exponent);
        numbers
    } else {
        out.put_u8(PACKED);
        whole_numbers(&dense, value_type)?
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
    let Some(nulls) = values.nulls().filter(|nulls| nulls.null_count() > 0) else {
        out.put_u8(0);
        return;
    };
    out.put_u8(1);
    let valid: ArrayRef = Arc::new(BooleanArray::new(nulls.inner().clone(), None));
    let mut bytes = Vec::new();
    encode_array(&valid, ValueType::Bool, &mut bytes);
    out.extend_from_slice(bytes.get(1..).unwrap_or_default());
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
        let whole = nearest_whole(value * power);
        (whole.abs() < 9e15 && (whole / power).to_bits() == value.to_bits()).then_some(whole as i64)
    };
    // A value that does not fit raises the exponent, which those before it must bear as well.
    (0_u8..).zip(POWERS).find_map(|(exponent, power)| {
        let numbers = values.iter().map(|value| fits(*value, power));
        Some((exponent, numbers.collect::<Option<Vec<_>>>()?))
    })
}

/// Rounds, of two that are as near to either: below 2^51 a sum with 1.5 · 2^52 has no place for a fraction, and
/// costs no call.
fn nearest_whole(value: f64) -> f64 {
    const SHIFT: f64 = 6_755_399_441_055_744.0;
    const BOUND: f64 = 2_251_799_813_685_248.0;
    if value.abs() < BOUND { (value + SHIFT) - SHIFT } else { value.round() }
}

/// Returns whether vectors of a page can be decoded by themselves.
pub(crate) fn has_vectors(bytes: &[u8]) -> bool {
    matches!(bytes.first(), Some(&(VECTORS | DECIMAL_VECTORS)))
}

/// Decodes some vectors of a page of `rows` values. A page that is not of vectors is decoded, and what is wanted
/// of it copied.
pub(crate) fn decode_vectors(
    bytes: &[u8],
    value_type: ValueType,
    rows: usize,
    wanted: Range<usize>,
) -> Decoded<ArrayRef> {
    if has_vectors(bytes) {
        let mut reader = Reader::new(bytes);
        let kind = reader.u8()?;
        return read_vectors(kind, &mut reader, (value_type, rows), wanted);
    }
    let all = decode(bytes, value_type, rows)?;
    let first = vector_rows(wanted.start, rows).start;
    let after = vector_rows(wanted.end, rows).start;
    let picks = UInt32Array::from_iter_values((first..after).map(|row| row as u32));
    arrow::compute::take(&all, &picks, None).map_err(|error| Malformed(error.to_string()))
}

/// Decodes a page of `rows` values.
pub(crate) fn decode(bytes: &[u8], value_type: ValueType, rows: usize) -> Decoded<ArrayRef> {
    let mut reader = Reader::new(bytes);
    let kind = reader.u8()?;
    let values = match kind {
        RAW => decode_array(&mut reader, value_type, rows)?,
        PCO => unpress_numbers(&mut reader, value_type, rows, None)?,
        VECTORS | DECIMAL_VECTORS => {
            read_vectors(kind, &mut reader, (value_type, rows), 0..vectors(rows))?
        }
        PACKED | DELTA_OF_DELTA => {
            let nulls = take_validity(&mut reader, rows)?;
            let count = rows - nulls.as_ref().map_or(0, NullBuffer::null_count);
            let numbers = match kind {
                PACKED => unpack(&mut reader, count)?,
                _ => read_double_deltas(&mut reader, count)?,
            };
            let numbers = scatter(numbers, rows, nulls.as_ref());
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
            let power = take_power(&mut reader)?;
            let nulls = take_validity(&mut reader, rows)?;
            let numbers = spread(&mut reader, rows, nulls.as_ref())?;
            Arc::new(Float64Array::new(shifted(&numbers, power).into(), nulls))
        }
        GORILLA if value_type == ValueType::F64 => {
            let nulls = take_validity(&mut reader, rows)?;
            let count = rows - nulls.as_ref().map_or(0, NullBuffer::null_count);
            let values = scatter(gorilla::unpack(&mut reader, count)?, rows, nulls.as_ref());
            Arc::new(Float64Array::new(values.into(), nulls))
        }
        DICTIONARY => runs::read_dictionary(&mut reader, value_type, rows)?,
        RUNS => runs::read_lengths(&mut reader, value_type, rows)?,
        other => match Squeeze::of_code(other) {
            Some(squeeze) => {
                let raw = squeeze.decode(&mut reader)?;
                let mut inner = Reader::new(&raw);
                let values = decode_array(&mut inner, value_type, rows)?;
                inner.finish()?;
                values
            }
            None => return malformed(format!("encoding {other}")),
        },
    };
    reader.finish()?;
    Ok(values)
}

/// Takes an exponent, and returns ten to its power.
fn take_power(reader: &mut Reader<'_>) -> Decoded<f64> {
    let exponent = reader.u8()?;
    match POWERS.get(usize::from(exponent)) {
        Some(power) => Ok(*power),
        None => malformed(format!("exponent {exponent}")),
    }
}

fn shifted(numbers: &[i64], power: f64) -> Vec<f64> {
    numbers.iter().map(|number| *number as f64 / power).collect()
}

fn read_vectors(
    kind: u8,
    reader: &mut Reader<'_>,
    (value_type, rows): (ValueType, usize),
    wanted: Range<usize>,
) -> Decoded<ArrayRef> {
    if kind == VECTORS {
        return unpress_numbers(reader, value_type, rows, Some(wanted));
    }
    if value_type != ValueType::F64 {
        return malformed(format!("decimals of type {value_type:?}"));
    }
    let power = take_power(reader)?;
    let (numbers, nulls) = unpress_page::<i64>(reader, rows, Some(wanted))?;
    Ok(Arc::new(Float64Array::new(shifted(&numbers, power).into(), nulls)))
}

/// Reads numbers as pco has them: the vectors wanted, or all of a page that has none.
fn unpress_numbers(
    reader: &mut Reader<'_>,
    value_type: ValueType,
    rows: usize,
    wanted: Option<Range<usize>>,
) -> Decoded<ArrayRef> {
    Ok(match value_type {
        ValueType::I64 => {
            let (values, nulls) = unpress_page::<i64>(reader, rows, wanted)?;
            Arc::new(Int64Array::new(values.into(), nulls))
        }
        ValueType::U64 => {
            let (values, nulls) = unpress_page::<u64>(reader, rows, wanted)?;
            Arc::new(UInt64Array::new(values.into(), nulls))
        }
        ValueType::F64 => {
            let (values, nulls) = unpress_page::<f64>(reader, rows, wanted)?;
            Arc::new(Float64Array::new(values.into(), nulls))
        }
        other @ (ValueType::Bool | ValueType::Str) => {
            return malformed(format!("numbers of type {other:?}"));
        }
    })
}

fn unpress_page<T: Number + Default>(
    reader: &mut Reader<'_>,
    rows: usize,
    wanted: Option<Range<usize>>,
) -> Decoded<(Vec<T>, Option<NullBuffer>)> {
    let nulls = take_validity(reader, rows)?;
    let Some(wanted) = wanted else {
        let count = rows - nulls.as_ref().map_or(0, NullBuffer::null_count);
        let dense = unpress(reader.take(reader.remaining())?, count)?;
        return Ok((scatter(dense, rows, nulls.as_ref()), nulls));
    };
    if rows > PAGE_ROWS_MAX {
        return malformed("too many numbers");
    }
    let counts = vectors::value_counts(nulls.as_ref(), rows);
    let first = vector_rows(wanted.start, rows).start;
    let len = vector_rows(wanted.end, rows).start - first;
    let dense = vectors::unpress(reader, &counts, wanted)?;
    let nulls = nulls.map(|nulls| nulls.slice(first, len));
    Ok((scatter(dense, len, nulls.as_ref()), nulls))
}

/// Unpacks the values that are not NULL and puts them where they belong.
fn spread(reader: &mut Reader<'_>, rows: usize, nulls: Option<&NullBuffer>) -> Decoded<Vec<i64>> {
    let count = rows - nulls.map_or(0, NullBuffer::null_count);
    Ok(scatter(unpack(reader, count)?, rows, nulls))
}

/// Puts the values that are not NULL where they belong; zero stands under NULLs.
fn scatter<T: Copy + Default>(dense: Vec<T>, rows: usize, nulls: Option<&NullBuffer>) -> Vec<T> {
    let Some(nulls) = nulls else { return dense };
    let mut values = vec![T::default(); rows];
    for (row, value) in nulls.valid_indices().zip(dense) {
        if let Some(place) = values.get_mut(row) {
            *place = value;
        }
    }
    values
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test stops where it is wrong")]
mod tests {
    use super::*;
    use arrow::array::StringArray;
    use model::ColumnKind;

    const CODECS: [&str; 17] = [
        "default",
        "null",
        "delta",
        "deltats",
        "quantile",
        "gorilla",
        "alp",
        "bitpack",
        "dictionary",
        "rle",
        "snappy",
        "zstd",
        "lz4",
        "gzip",
        "zlib",
        "bzip",
        "pco",
    ];

    /// Returns the fewest bytes any codec needs.
    fn check(values: ArrayRef, value_type: ValueType) -> usize {
        let codecs = CODECS.map(|name| Codec::named(name, None).unwrap());
        let fit = codecs.into_iter().filter(|codec| codec.fits(ColumnKind::Field(value_type)));
        let lens = fit.flat_map(|codec| {
            [Effort::Light, Effort::Dense]
                .map(|effort| check_with(&values, value_type, effort, codec))
        });
        lens.min().unwrap()
    }

    /// Returns the values one by one: under a NULL any bytes may stand.
    fn plain(array: &ArrayRef, value_type: ValueType) -> Vec<u8> {
        let mut bytes = Vec::new();
        for row in 0..array.len() {
            bytes.push(u8::from(array.is_valid(row)));
            if array.is_valid(row) {
                encode_array(&array.slice(row, 1), value_type, &mut bytes);
            }
        }
        bytes
    }

    fn check_with(values: &ArrayRef, value_type: ValueType, effort: Effort, codec: Codec) -> usize {
        let bytes = encode(values, value_type, effort, codec);
        let back = decode(&bytes, value_type, values.len()).unwrap();
        let plain = |array: &ArrayRef| plain(array, value_type);
        assert_eq!(plain(&back), plain(values), "{value_type:?} {codec}");
        let all = vectors(values.len());
        for wanted in [0..1, all / 2..all, 0..all].into_iter().filter(|some| some.end <= all) {
            let start = vector_rows(wanted.start, values.len()).start;
            let end = vector_rows(wanted.end, values.len()).start;
            let part = decode_vectors(&bytes, value_type, values.len(), wanted).unwrap();
            assert_eq!(plain(&part), plain(&values.slice(start, end - start)), "{codec}");
        }
        // Every length of a short page, some of a long one.
        for len in (0..bytes.len()).step_by(bytes.len() / 300 + 1) {
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
        check(Arc::new(Float64Array::from(vec![2.5; 3_000])), ValueType::F64);
        check(Arc::new(Int64Array::from(vec![7; 3_000])), ValueType::I64);
        check(Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])), ValueType::Bool);
        check(Arc::new(StringArray::from(vec![Some(""), None, Some("äö")])), ValueType::Str);
        check(Arc::new(StringArray::from(vec![None::<&str>; 9])), ValueType::Str);
        check(Arc::new(BooleanArray::from(vec![None::<bool>; 9])), ValueType::Bool);
        check(Arc::new(Float64Array::from(vec![None::<f64>; 9])), ValueType::F64);
        check(Arc::new(Int64Array::from(Vec::<Option<i64>>::new())), ValueType::I64);
        check(Arc::new(Int64Array::from(vec![None::<i64>; 9])), ValueType::I64);
    }

    #[test]
    fn long_pages_of_version_3_are_read_whole_and_by_vectors() {
        let values = Float64Array::from_iter_values((0..5_000).map(|row| f64::from(row).sin()));
        let mut bytes = vec![PCO, 0];
        bytes.extend(press(values.values()).unwrap());
        let values: ArrayRef = Arc::new(values);
        let back = decode(&bytes, ValueType::F64, 5_000).unwrap();
        assert_eq!(plain(&back, ValueType::F64), plain(&values, ValueType::F64));
        let back = decode_vectors(&bytes, ValueType::F64, 5_000, 2..4).unwrap();
        let expected = values.slice(2_048, 2_048);
        assert_eq!(plain(&back, ValueType::F64), plain(&expected, ValueType::F64));
        assert!(!has_vectors(&bytes));
    }

    #[test]
    fn dense_pages_of_any_length_survive_whatever_is_null() {
        let values: [fn(usize) -> f64; 6] = [
            |_| 2.5,
            |row| row as f64,
            |row| ((row * row) % 1_009) as f64 / 8.0,
            |row| (row as f64 / 9.0).sin(),
            |row| if row == 700 { f64::NAN } else { -0.0 },
            |row| if row % 2 == 0 { f64::MAX } else { f64::MIN_POSITIVE },
        ];
        let is_null: [fn(usize) -> bool; 5] = [
            |_| false,
            |row| row != 0,
            |row| row % 3 == 1,
            |row| row < 1_024,
            |row| (1_000..4_000).contains(&row),
        ];
        for len in [1, 2, 1_023, 1_024, 1_025, 2_049, 8_192] {
            for (value, is_null) in values.iter().flat_map(|v| is_null.iter().map(move |n| (v, n)))
            {
                let floats = (0..len).map(|row| (!is_null(row)).then(|| value(row)));
                let floats = Float64Array::from_iter(floats);
                let ints = Int64Array::from_iter(floats.iter().map(|v| v.map(|v| v as i64)));
                let pages: [(ArrayRef, _); 2] =
                    [(Arc::new(floats), ValueType::F64), (Arc::new(ints), ValueType::I64)];
                for (page, of) in pages {
                    let bytes = numbers(&page, of).unwrap();
                    let back = decode(&bytes, of, len).unwrap();
                    assert_eq!(plain(&back, of), plain(&page, of), "{len} rows");
                    let last = vectors(len) - 1;
                    let rows = vector_rows(last, len);
                    let back = decode_vectors(&bytes, of, len, last..last + 1).unwrap();
                    let page = page.slice(rows.start, rows.len());
                    assert_eq!(plain(&back, of), plain(&page, of), "{len} rows, the last vector");
                }
            }
        }
    }

    #[test]
    fn regular_and_decimal_values_take_few_bits() {
        let times = Int64Array::from_iter_values((0..8_000).map(|i| i * 10_000_000_000));
        assert!(check(Arc::new(times), ValueType::I64) < 40);
        let walk = Float64Array::from_iter_values((0..8_000).map(|i| f64::from(i % 100)));
        assert!(check(Arc::new(walk), ValueType::F64) < 8_000);
        let tenths = Float64Array::from_iter_values((0..8_000).map(|i| f64::from(i % 50) / 10.0));
        assert!(check(Arc::new(tenths), ValueType::F64) < 8_000);
        // Up, down or neither, without a pattern: 1.6 bits of information a value.
        let mut noise = 1_u64;
        let steps = (0..8_000).scan(50_i64, |value, _| {
            noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            *value += (noise >> 33) as i64 % 3 - 1;
            Some(*value as f64 / 4.0)
        });
        assert!(check(Arc::new(Float64Array::from_iter_values(steps)), ValueType::F64) < 1_800);
    }

    #[test]
    fn a_long_page_of_numbers_is_of_vectors_also_where_some_have_none() {
        let walk = |row: u32| f64::from((row * row) % 1_009) / 8.0;
        let waves = (0..8_000).map(|row| f64::from(row / 9).sin());
        let waves: ArrayRef = Arc::new(Float64Array::from_iter_values(waves));
        let some = (0..5_000).map(|row| (!(1_000..4_000).contains(&row)).then(|| walk(row)));
        let some: ArrayRef = Arc::new(Float64Array::from_iter(some));
        for values in [waves, some] {
            check(Arc::clone(&values), ValueType::F64);
            let bytes = encode(&values, ValueType::F64, Effort::Dense, Codec::Default);
            assert!(has_vectors(&bytes));
            let mut long = bytes.clone();
            long.push(0);
            assert!(decode(&long, ValueType::F64, values.len()).is_err(), "bytes are left");
            assert!(decode(&bytes, ValueType::F64, values.len() - 1_024).is_err(), "other rows");
        }
    }

    #[test]
    fn each_codec_is_small_where_it_fits() {
        let bytes_of = |values: ArrayRef, value_type, name: &str| {
            let codec = Codec::named(name, None).unwrap();
            check_with(&values, value_type, Effort::Dense, codec)
        };
        let steady: ArrayRef = Arc::new(Int64Array::from_iter_values((0..8_000).map(|i| i * 10)));
        assert!(bytes_of(Arc::clone(&steady), ValueType::I64, "null") > 64_000);
        assert!(bytes_of(Arc::clone(&steady), ValueType::I64, "delta") < 40);
        assert!(bytes_of(steady, ValueType::I64, "deltats") < 40);
        let slow = (0..8_000).map(|i| f64::from(i / 100));
        let slow: ArrayRef = Arc::new(Float64Array::from_iter_values(slow));
        assert!(bytes_of(Arc::clone(&slow), ValueType::F64, "gorilla") < 2_000);
        assert!(bytes_of(slow, ValueType::F64, "rle") < 1_000);
        let text = (0..8_000).map(|i| ["idle", "running", "waiting for its turn"][i * i % 3]);
        let text: ArrayRef = Arc::new(StringArray::from_iter_values(text));
        for name in ["dictionary", "snappy", "zstd", "lz4", "gzip", "zlib", "bzip"] {
            let len = bytes_of(Arc::clone(&text), ValueType::Str, name);
            assert!(len < 20_000, "{name}: {len}");
        }
    }
}
