//! The columnar batch of rows of one table: encoded once, then sent, logged and applied as it is.
//!
//! A batch names its columns: a column it does not name keeps its value in every row it touches; a
//! column it names is written, NULLs too.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayData, ArrayRef, AsArray, BooleanArray, BooleanBufferBuilder, Float64Array,
    Int64Array, StringArray, UInt64Array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{Float64Type, Int64Type, UInt64Type};
use foldhash::fast::RandomState;

use crate::ids::{ColumnId, TableId};
use crate::schema::ValueType;
use crate::series_key;
use crate::time::TimeRange;
use crate::wire::{Decoded, Malformed, Reader, Write, malformed};

/// The most rows of one batch; a longer statement is sent in parts.
pub const POINTS_ROWS_MAX: usize = 65_536;

/// A column of a batch: as many values as the batch has rows.
#[derive(Clone, Debug)]
pub struct PointsColumn {
    /// The column.
    pub id: ColumnId,
    /// The type of its values.
    pub value_type: ValueType,
    /// The values, in the Arrow type of [`ValueType::arrow`].
    pub values: ArrayRef,
}

/// Rows of one table, column by column.
#[derive(Clone, Debug)]
pub struct Points {
    /// The table all rows belong to.
    pub table: TableId,
    /// The distinct series of the batch, as canonical series key bytes.
    pub series: Vec<Box<[u8]>>,
    /// For each row, its index in `series`.
    pub row_series: Vec<u32>,
    /// For each row, nanoseconds since the epoch.
    pub times: Vec<i64>,
    /// The fields that the batch names.
    pub fields: Vec<PointsColumn>,
}

/// Numbers the distinct series of a batch as rows arrive.
#[derive(Debug, Default)]
pub struct SeriesDictionary {
    numbers: HashMap<Box<[u8]>, u32, RandomState>,
    keys: Vec<Box<[u8]>>,
}

impl SeriesDictionary {
    /// Returns the number of a key, the next free one when it is new.
    pub fn number(&mut self, key: &[u8]) -> u32 {
        if let Some(number) = self.numbers.get(key) {
            return *number;
        }
        let number = u32::try_from(self.keys.len()).expect("a batch has fewer rows than 2^32");
        self.keys.push(key.into());
        self.numbers.insert(key.into(), number);
        number
    }

    /// Returns the keys by number.
    pub fn into_keys(self) -> Vec<Box<[u8]>> {
        self.keys
    }
}

impl Points {
    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.times.len()
    }

    /// Returns the range of times, empty where there are no rows.
    pub fn time_range(&self) -> TimeRange {
        let mut range = TimeRange { min: i64::MAX, max: i64::MIN };
        for time in &self.times {
            range.min = range.min.min(*time);
            range.max = range.max.max(*time);
        }
        range
    }

    /// Returns the rows as batches of so many at most, in their order.
    pub fn split(self, rows_max: usize) -> Vec<Self> {
        if self.rows() <= rows_max {
            return vec![self];
        }
        let starts = (0..self.rows()).step_by(rows_max);
        starts.map(|start| self.part(start, rows_max.min(self.rows() - start))).collect()
    }

    fn part(&self, start: usize, len: usize) -> Self {
        let (series, row_series) = self.series_of(start..start + len);
        let fields = self
            .fields
            .iter()
            .map(|field| PointsColumn { values: field.values.slice(start, len), ..field.clone() });
        Self {
            table: self.table,
            series,
            row_series,
            times: self.times[start..start + len].to_vec(),
            fields: fields.collect(),
        }
    }

    /// Returns the batch of the named rows, in their order, with only the series they use.
    #[must_use]
    pub fn select(&self, rows: &[u32]) -> Self {
        let (series, row_series) = self.series_of(rows.iter().map(|row| *row as usize));
        let picks = arrow::array::UInt32Array::from(rows.to_vec());
        let fields = self.fields.iter().map(|field| PointsColumn {
            id: field.id,
            value_type: field.value_type,
            values: arrow::compute::take(&field.values, &picks, None)
                .expect("rows of this batch are inside every column"),
        });
        Self {
            table: self.table,
            series,
            row_series,
            times: rows.iter().map(|row| self.times[*row as usize]).collect(),
            fields: fields.collect(),
        }
    }

    /// Returns the series that some rows use, numbered anew, and the number of each row's.
    fn series_of(&self, rows: impl Iterator<Item = usize>) -> (Vec<Box<[u8]>>, Vec<u32>) {
        let mut renumbered = vec![u32::MAX; self.series.len()];
        let mut series = Vec::new();
        let mut row_series = Vec::with_capacity(rows.size_hint().0);
        for row in rows {
            let old = self.row_series[row] as usize;
            if renumbered[old] == u32::MAX {
                renumbered[old] = series.len() as u32;
                series.push(self.series[old].clone());
            }
            row_series.push(renumbered[old]);
        }
        (series, row_series)
    }

    /// Appends the encoded batch to `out`.
    // FORMAT: docs/formats/points.md, v1
    pub fn encode(&self, out: &mut Vec<u8>) {
        assert_eq!(self.row_series.len(), self.times.len(), "one series per row");
        out.put_u32(self.table.0);
        out.put_varint(self.series.len() as u64);
        for key in &self.series {
            out.put_bytes(key);
        }
        out.put_varint(self.rows() as u64);
        for number in &self.row_series {
            out.put_u32(*number);
        }
        for time in &self.times {
            out.put_i64(*time);
        }
        out.put_varint(self.fields.len() as u64);
        for field in &self.fields {
            assert_eq!(field.values.len(), self.rows(), "one value per row");
            out.put_u32(field.id.0);
            out.put_u8(field.value_type.code());
            encode_array(&field.values, field.value_type, out);
        }
    }

    /// Decodes a batch and checks every rule that [`Points`] promises.
    ///
    /// # Errors
    /// Bytes that are no batch; nothing larger than a few times the input is allocated.
    pub fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        let table = TableId(reader.u32()?);
        let count = reader.count(5)?;
        let mut series = Vec::with_capacity(count);
        for _ in 0..count {
            let key = reader.bytes()?;
            if series_key::check(key)? != table {
                return malformed("series of another table");
            }
            series.push(key.into());
        }
        let rows = reader.count(12)?;
        let mut row_series = Vec::with_capacity(rows);
        for _ in 0..rows {
            let number = reader.u32()?;
            if number as usize >= series.len() {
                return malformed("row of an unknown series");
            }
            row_series.push(number);
        }
        let times = (0..rows).map(|_| reader.i64()).collect::<Decoded<Vec<_>>>()?;
        let count = reader.count(6)?;
        let mut fields = Vec::with_capacity(count);
        for _ in 0..count {
            let id = ColumnId(reader.u32()?);
            let code = reader.u8()?;
            let Some(value_type) = ValueType::from_code(code) else {
                return malformed(format!("value type {code}"));
            };
            fields.push(PointsColumn {
                id,
                value_type,
                values: decode_array(reader, value_type, rows)?,
            });
        }
        Ok(Self { table, series, row_series, times, fields })
    }
}

/// Appends an array: validity (0 = all valid, 1 = bitmap follows), then the values.
pub fn encode_array(array: &ArrayRef, value_type: ValueType, out: &mut Vec<u8>) {
    match array.nulls().filter(|nulls| nulls.null_count() > 0) {
        None => out.put_u8(0),
        Some(nulls) => {
            out.put_u8(1);
            put_bits(nulls.inner(), out);
        }
    }
    match value_type {
        ValueType::I64 => {
            put_words(array.as_primitive::<Int64Type>().values(), out);
        }
        ValueType::U64 => {
            put_words(array.as_primitive::<UInt64Type>().values(), out);
        }
        ValueType::F64 => {
            put_words(array.as_primitive::<Float64Type>().values(), out);
        }
        ValueType::Bool => put_bits(array.as_boolean().values(), out),
        ValueType::Str => {
            let strings = array.as_string::<i32>();
            let offsets = strings.value_offsets();
            for pair in offsets.windows(2) {
                out.put_varint(pair[1].abs_diff(pair[0]).into());
            }
            let (first, last) = (offsets[0] as usize, offsets[offsets.len() - 1] as usize);
            out.extend_from_slice(&strings.value_data()[first..last]);
        }
    }
}

/// Appends numbers of 64 bits as they lie in memory, which is little-endian: see [`take_words`].
fn put_words<T: arrow::datatypes::ArrowNativeType>(words: &ScalarBuffer<T>, out: &mut Vec<u8>) {
    out.extend_from_slice(words.inner().as_slice());
}

fn put_bits(bits: &BooleanBuffer, out: &mut Vec<u8>) {
    // A copy drops the bit offset, so that bytes start at the first bit.
    let mut builder = BooleanBufferBuilder::new(bits.len());
    builder.append_buffer(bits);
    out.extend_from_slice(&builder.as_slice()[..bits.len().div_ceil(8)]);
}

/// Reads an array of `rows` values, as [`encode_array`] writes it.
///
/// # Errors
/// Bytes that are no such array.
pub fn decode_array(
    reader: &mut Reader<'_>,
    value_type: ValueType,
    rows: usize,
) -> Decoded<ArrayRef> {
    let nulls = match reader.u8()? {
        0 => None,
        1 => Some(NullBuffer::new(take_bits(reader, rows)?)),
        other => return malformed(format!("validity {other}")),
    };
    Ok(match value_type {
        ValueType::I64 => Arc::new(Int64Array::new(take_words(reader, rows)?, nulls)),
        ValueType::U64 => Arc::new(UInt64Array::new(take_words(reader, rows)?, nulls)),
        ValueType::F64 => Arc::new(Float64Array::new(take_words(reader, rows)?, nulls)),
        ValueType::Bool => Arc::new(BooleanArray::new(take_bits(reader, rows)?, nulls)),
        ValueType::Str => {
            if rows > reader.remaining() {
                return malformed("more strings than bytes");
            }
            let mut offsets = Vec::with_capacity(rows + 1);
            let mut end = 0_i32;
            offsets.push(end);
            for _ in 0..rows {
                let len = i32::try_from(reader.varint()?).map_err(|e| Malformed(e.to_string()))?;
                end =
                    end.checked_add(len).ok_or_else(|| Malformed("strings above 2 GiB".into()))?;
                offsets.push(end);
            }
            let bytes = reader.take(end as usize)?.to_vec();
            let offsets = OffsetBuffer::new(offsets.into());
            let strings = StringArray::try_new(offsets, Buffer::from_vec(bytes), nulls);
            Arc::new(strings.map_err(|e| Malformed(e.to_string()))?)
        }
    })
}

fn take_words<T: arrow::datatypes::ArrowNativeType>(
    reader: &mut Reader<'_>,
    rows: usize,
) -> Decoded<ScalarBuffer<T>> {
    let bytes = reader.take(rows.checked_mul(8).ok_or_else(|| Malformed("rows".into()))?)?;
    // A copy, as the bytes need not be aligned.
    Ok(ScalarBuffer::new(Buffer::from_slice_ref(bytes), 0, rows))
}

fn take_bits(reader: &mut Reader<'_>, rows: usize) -> Decoded<BooleanBuffer> {
    let bytes = reader.take(rows.div_ceil(8))?;
    Ok(BooleanBuffer::new(Buffer::from_slice_ref(bytes), 0, rows))
}

/// Returns how many bytes an array's values take, offsets into shared buffers not counted.
pub fn array_bytes(array: &ArrayRef) -> usize {
    let data: ArrayData = array.to_data();
    data.get_slice_memory_size().unwrap_or_else(|_| array.get_buffer_memory_size())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::series_key::SeriesKey;

    fn sample() -> Points {
        let key = |host| {
            SeriesKey::encode(TableId(3), [(ColumnId(1), Some(host))].into_iter()).as_bytes().into()
        };
        let column = |id, value_type, values| PointsColumn { id: ColumnId(id), value_type, values };
        Points {
            table: TableId(3),
            series: vec![key("a"), key("b")],
            row_series: vec![0, 1, 0],
            times: vec![1, -2, i64::MAX],
            fields: vec![
                column(2, ValueType::F64, Arc::new(Float64Array::from(vec![1.5, f64::NAN, -0.0]))),
                column(
                    3,
                    ValueType::Str,
                    Arc::new(StringArray::from(vec![Some("x"), None, Some("ä")])),
                ),
                column(
                    4,
                    ValueType::Bool,
                    Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)])),
                ),
                column(5, ValueType::I64, Arc::new(Int64Array::from(vec![i64::MIN, 0, 7]))),
                column(6, ValueType::U64, Arc::new(UInt64Array::from(vec![u64::MAX, 0, 7]))),
            ],
        }
    }

    fn encoded(points: &Points) -> Vec<u8> {
        let mut bytes = Vec::new();
        points.encode(&mut bytes);
        bytes
    }

    #[test]
    fn a_batch_survives_a_round_trip_byte_for_byte() {
        let bytes = encoded(&sample());
        let mut reader = Reader::new(&bytes);
        let back = Points::decode(&mut reader).unwrap();
        reader.finish().unwrap();
        assert_eq!(encoded(&back), bytes);
    }

    #[test]
    fn every_truncation_and_bit_flip_is_an_error_or_another_batch_but_no_panic() {
        let bytes = encoded(&sample());
        for len in 0..bytes.len() {
            assert!(Points::decode(&mut Reader::new(&bytes[..len])).is_err(), "length {len}");
        }
        for at in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            if let Ok(points) = Points::decode(&mut Reader::new(&flipped)) {
                assert_eq!(points.rows(), points.row_series.len());
            }
        }
    }

    #[test]
    fn a_selection_keeps_only_the_series_it_uses() {
        let picked = sample().select(&[2]);
        assert_eq!((picked.series.len(), picked.times.as_slice()), (1, &[i64::MAX][..]));
        assert_eq!(picked.fields[3].values.as_primitive::<Int64Type>().values()[0], 7);
    }

    #[test]
    fn the_parts_of_a_batch_are_as_if_their_rows_were_selected() {
        let all = sample();
        let selected = [all.select(&[0, 1]), all.select(&[2])];
        let parts = all.split(2);
        assert_eq!(
            parts.iter().map(encoded).collect::<Vec<_>>(),
            selected.map(|one| encoded(&one))
        );
    }
}
