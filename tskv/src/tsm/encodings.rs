//! Encodings of a page's values. The writer tries those that the column's CODEC allows and keeps the
//! smallest; the first byte of a page names the one used. Fresh files take what is quick to write and to
//! read, compacted ones what is small.
//!
//! Decimal floats become integers when multiplying by a power of ten and back gives the same bits for
//! every value, the idea of ALP (Afroozeh, Kuffo, Boncz, 2023). Dense numbers are pco's
//! (Loncaric, Jeppesen, Zinberg, "Pcodec", 2025), dense text is Zstandard's (RFC 8878).
#![deny(clippy::indexing_slicing)]

mod bytes;
mod gorilla;
mod integers;
mod rows;
mod runs;

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
pub(crate) use rows::{decode_run, encode_run};

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

/// Keys: packed integers.
const KEYS_PACKED: u8 = 0;
/// Keys: packed integers, one after another for each stretch of rows of one series.
const KEYS_STRETCHES: u8 = 1;
/// Keys: pco.
const KEYS_PCO: u8 = 2;
/// Keys: value and number of repetitions, again and again.
const KEYS_RUNS: u8 = 3;

/// The most rows a page may have.
pub(crate) const PAGE_ROWS_MAX: usize = 8_192;
/// Pages that are read often should not take long; above this the gain is below a per cent.
const PCO_LEVEL: usize = 8;

const POWERS: [f64; 7] = [1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0, 1_000_000.0];

/// Returns what an encoding is called, of keys or of values.
pub(crate) fn name(of_keys: bool, code: u8) -> &'static str {
    if of_keys {
        return match code {
            KEYS_PACKED => "packed",
            KEYS_STRETCHES => "stretches",
            KEYS_PCO => "pco",
            KEYS_RUNS => "runs",
            _ => "?",
        };
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
// FORMAT: docs/formats/tsm.md, v3
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
    let mut out = vec![PCO];
    put_validity(values, &mut out);
    let pressed = match value_type {
        ValueType::I64 => press(dense.as_primitive::<Int64Type>().values()),
        ValueType::U64 => press(dense.as_primitive::<UInt64Type>().values()),
        ValueType::F64 => press(dense.as_primitive::<Float64Type>().values()),
        ValueType::Bool | ValueType::Str => None,
    };
    out.extend_from_slice(&pressed?);
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

/// Decodes a page of `rows` values.
pub(crate) fn decode(bytes: &[u8], value_type: ValueType, rows: usize) -> Decoded<ArrayRef> {
    let mut reader = Reader::new(bytes);
    let kind = reader.u8()?;
    let values = match kind {
        RAW => decode_array(&mut reader, value_type, rows)?,
        PCO => unpress_numbers(&mut reader, value_type, rows)?,
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
            let exponent = reader.u8()?;
            let Some(power) = POWERS.get(usize::from(exponent)) else {
                return malformed(format!("exponent {exponent}"));
            };
            let nulls = take_validity(&mut reader, rows)?;
            let numbers = spread(&mut reader, rows, nulls.as_ref())?;
            let values: Vec<f64> = numbers.iter().map(|number| *number as f64 / power).collect();
            Arc::new(Float64Array::new(values.into(), nulls))
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

fn unpress_numbers(
    reader: &mut Reader<'_>,
    value_type: ValueType,
    rows: usize,
) -> Decoded<ArrayRef> {
    let nulls = take_validity(reader, rows)?;
    let count = rows - nulls.as_ref().map_or(0, NullBuffer::null_count);
    let bytes = reader.take(reader.remaining())?;
    Ok(match value_type {
        ValueType::I64 => {
            let values = scatter(unpress::<i64>(bytes, count)?, rows, nulls.as_ref());
            Arc::new(Int64Array::new(values.into(), nulls))
        }
        ValueType::U64 => {
            let values = scatter(unpress::<u64>(bytes, count)?, rows, nulls.as_ref());
            Arc::new(UInt64Array::new(values.into(), nulls))
        }
        ValueType::F64 => {
            let values = scatter(unpress::<f64>(bytes, count)?, rows, nulls.as_ref());
            Arc::new(Float64Array::new(values.into(), nulls))
        }
        other @ (ValueType::Bool | ValueType::Str) => {
            return malformed(format!("numbers of type {other:?}"));
        }
    })
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

/// Encodes one half of the keys of a page's rows: series or times. `stretches` are the numbers of
/// rows of one series each, in order.
pub(crate) fn encode_keys(keys: &[i64], stretches: &[usize], effort: Effort) -> Vec<u8> {
    let mut best = vec![KEYS_PACKED];
    pack(keys, &mut best);
    let mut by_stretch = vec![KEYS_STRETCHES];
    by_stretch.put_varint(stretches.len() as u64);
    let mut rest = keys;
    for len in stretches {
        let (stretch, after) = rest.split_at(*len);
        by_stretch.put_varint(*len as u64);
        pack(stretch, &mut by_stretch);
        rest = after;
    }
    let mut runs = vec![KEYS_RUNS];
    for run in keys.chunk_by(|a, b| a == b) {
        runs.put_i64(run.first().copied().unwrap_or_default());
        runs.put_varint(run.len() as u64);
    }
    let pressed = match effort {
        Effort::Light => None,
        Effort::Dense => press(keys).map(|pressed| [&[KEYS_PCO], pressed.as_slice()].concat()),
    };
    for candidate in [Some(by_stretch), Some(runs), pressed].into_iter().flatten() {
        if candidate.len() < best.len() {
            best = candidate;
        }
    }
    best
}

/// Decodes the keys of `rows` rows.
pub(crate) fn decode_keys(bytes: &[u8], rows: usize) -> Decoded<Vec<i64>> {
    let mut reader = Reader::new(bytes);
    let keys = match reader.u8()? {
        KEYS_PACKED => unpack(&mut reader, rows)?,
        KEYS_STRETCHES => {
            let mut keys = Vec::with_capacity(rows);
            for _ in 0..reader.count(18)? {
                let len = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
                if len > rows - keys.len() {
                    return malformed("stretch longer than its page");
                }
                keys.extend(unpack(&mut reader, len)?);
            }
            keys
        }
        KEYS_PCO => unpress(reader.take(reader.remaining())?, rows)?,
        KEYS_RUNS => {
            let mut keys = Vec::with_capacity(rows);
            while reader.remaining() > 0 {
                let (key, len) = (reader.i64()?, reader.varint()?);
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                if len > rows - keys.len() {
                    return malformed("run longer than its page");
                }
                keys.resize(keys.len() + len, key);
            }
            keys
        }
        other => return malformed(format!("encoding of keys {other}")),
    };
    reader.finish()?;
    if keys.len() == rows { Ok(keys) } else { malformed("fewer keys than rows") }
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

    fn check_with(values: &ArrayRef, value_type: ValueType, effort: Effort, codec: Codec) -> usize {
        let bytes = encode(values, value_type, effort, codec);
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
        assert_eq!(plain(&back), plain(values), "{value_type:?} {codec}");
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
        check(Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])), ValueType::Bool);
        check(Arc::new(StringArray::from(vec![Some(""), None, Some("äö")])), ValueType::Str);
        check(Arc::new(StringArray::from(vec![None::<&str>; 9])), ValueType::Str);
        check(Arc::new(BooleanArray::from(vec![None::<bool>; 9])), ValueType::Bool);
        check(Arc::new(Float64Array::from(vec![None::<f64>; 9])), ValueType::F64);
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

    #[test]
    fn keys_survive_whatever_their_stretches() {
        let times: Vec<i64> = (0..4).flat_map(|_| (0..50).map(|i| i * 10_000_000_000)).collect();
        let series: Vec<i64> = (0..200).map(|row| row / 50).collect();
        let wild = vec![i64::MIN, i64::MAX, 0, -1, 7];
        for effort in [Effort::Light, Effort::Dense] {
            for (keys, stretches) in
                [(&times, &[50; 4][..]), (&series, &[50; 4]), (&wild, &[2, 3]), (&vec![], &[])]
            {
                let bytes = encode_keys(keys, stretches, effort);
                assert_eq!(decode_keys(&bytes, keys.len()).unwrap(), *keys);
                assert!(decode_keys(&bytes, keys.len() + 1).is_err());
                for len in 0..bytes.len() {
                    if let Ok(short) = decode_keys(&bytes[..len], keys.len()) {
                        assert_eq!(short.len(), keys.len());
                    }
                }
            }
            assert!(encode_keys(&times, &[50; 4], effort).len() < 80);
            assert!(encode_keys(&series, &[50; 4], effort).len() < 60);
        }
    }
}
