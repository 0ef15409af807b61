//! Values that repeat: each distinct text once, or each run of equal values once.
#![deny(clippy::indexing_slicing)]

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, StringArray, UInt32Array};
use arrow::buffer::NullBuffer;
use model::ValueType;
use model::points::{decode_array, encode_array};
use model::wire::{Decoded, Malformed, Reader, Write, malformed};

use super::bytes::PAGE_BYTES_MAX;
use super::{
    DICTIONARY, PAGE_ROWS_MAX, RUNS, pack, put_validity, take_validity, unpack, without_nulls,
};

/// Encodes texts by their numbers among the distinct ones.
pub(super) fn dictionary(values: &ArrayRef, value_type: ValueType) -> Option<Vec<u8>> {
    if value_type != ValueType::Str {
        return None;
    }
    let dense = without_nulls(values);
    let mut numbers: HashMap<&str, i64> = HashMap::new();
    let mut distinct: Vec<&str> = Vec::new();
    let mut rows = Vec::with_capacity(dense.len());
    for text in dense.as_string::<i32>().iter().flatten() {
        let next = distinct.len() as i64;
        let number = *numbers.entry(text).or_insert(next);
        if number == next {
            distinct.push(text);
        }
        rows.push(number);
    }
    let mut out = vec![DICTIONARY];
    put_validity(values, &mut out);
    let distinct: ArrayRef = Arc::new(StringArray::from_iter_values(distinct));
    put_values(&distinct, value_type, &mut out);
    pack(&rows, &mut out);
    Some(out)
}

pub(super) fn read_dictionary(
    reader: &mut Reader<'_>,
    value_type: ValueType,
    rows: usize,
) -> Decoded<ArrayRef> {
    if value_type != ValueType::Str {
        return malformed(format!("a dictionary of type {value_type:?}"));
    }
    let nulls = take_validity(reader, rows)?;
    let count = rows - nulls.as_ref().map_or(0, NullBuffer::null_count);
    let distinct = take_values(reader, value_type)?;
    let numbers = unpack(reader, count)?;
    pick(&distinct, numbers.into_iter(), rows, nulls.as_ref())
}

/// Encodes runs of equal values. Floats are equal when their bits are.
pub(super) fn lengths(values: &ArrayRef, value_type: ValueType) -> Option<Vec<u8>> {
    let dense = without_nulls(values);
    let same = |a: usize, b: usize| match value_type {
        ValueType::F64 => {
            let values = dense.as_primitive::<arrow::datatypes::Float64Type>();
            values.value(a).to_bits() == values.value(b).to_bits()
        }
        ValueType::I64 => {
            let values = dense.as_primitive::<arrow::datatypes::Int64Type>();
            values.value(a) == values.value(b)
        }
        ValueType::U64 => {
            let values = dense.as_primitive::<arrow::datatypes::UInt64Type>();
            values.value(a) == values.value(b)
        }
        ValueType::Bool => dense.as_boolean().value(a) == dense.as_boolean().value(b),
        ValueType::Str => dense.as_string::<i32>().value(a) == dense.as_string::<i32>().value(b),
    };
    let starts = (0..dense.len()).filter(|row| *row == 0 || !same(row - 1, *row));
    let starts: Vec<u32> = starts.map(|row| row as u32).collect();
    let ends = starts.iter().skip(1).copied().chain([dense.len() as u32]);
    let lengths: Vec<i64> =
        starts.iter().zip(ends).map(|(start, end)| i64::from(end - start)).collect();
    let firsts = arrow::compute::take(&dense, &UInt32Array::from(starts), None).ok()?;
    let mut out = vec![RUNS];
    put_validity(values, &mut out);
    put_values(&firsts, value_type, &mut out);
    pack(&lengths, &mut out);
    Some(out)
}

pub(super) fn read_lengths(
    reader: &mut Reader<'_>,
    value_type: ValueType,
    rows: usize,
) -> Decoded<ArrayRef> {
    let nulls = take_validity(reader, rows)?;
    let count = rows - nulls.as_ref().map_or(0, NullBuffer::null_count);
    let firsts = take_values(reader, value_type)?;
    let lengths = unpack(reader, firsts.len())?;
    let mut numbers = Vec::with_capacity(count.min(PAGE_ROWS_MAX));
    for (number, length) in lengths.into_iter().enumerate() {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        if length > count - numbers.len() {
            return malformed("a run is longer than its page");
        }
        numbers.resize(numbers.len() + length, number as i64);
    }
    if numbers.len() != count {
        return malformed("fewer values than rows");
    }
    pick(&firsts, numbers.into_iter(), rows, nulls.as_ref())
}

fn put_values(values: &ArrayRef, value_type: ValueType, out: &mut Vec<u8>) {
    out.put_varint(values.len() as u64);
    encode_array(values, value_type, out);
}

fn take_values(reader: &mut Reader<'_>, value_type: ValueType) -> Decoded<ArrayRef> {
    let count = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
    if count > PAGE_ROWS_MAX {
        return malformed("too many values");
    }
    decode_array(reader, value_type, count)
}

/// Makes the rows of a page of the values that rows which are not NULL have the numbers of.
fn pick(
    values: &ArrayRef,
    mut numbers: impl Iterator<Item = i64>,
    rows: usize,
    nulls: Option<&NullBuffer>,
) -> Decoded<ArrayRef> {
    let mut picks = Vec::with_capacity(rows.min(PAGE_ROWS_MAX));
    for row in 0..rows {
        if nulls.is_some_and(|nulls| nulls.is_null(row)) {
            picks.push(None);
            continue;
        }
        let number = numbers.next().and_then(|number| u32::try_from(number).ok());
        match number.filter(|number| (*number as usize) < values.len()) {
            Some(number) => picks.push(Some(number)),
            None => return malformed("the number of no value"),
        }
    }
    // A long text may be named by every row.
    if let Some(texts) = values.as_string_opt::<i32>() {
        let lens = picks.iter().flatten().map(|number| texts.value(*number as usize).len());
        if lens.sum::<usize>() > PAGE_BYTES_MAX {
            return malformed("page unpacks to too much");
        }
    }
    let picks = UInt32Array::from(picks);
    arrow::compute::take(values, &picks, None).map_err(|error| Malformed(error.to_string()))
}
