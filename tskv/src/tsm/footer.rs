//! The map of a TSM file: its row groups, their key and time ranges, their pages and statistics.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use arrow::array::{Array, ArrayRef, AsArray};
use arrow::datatypes::{Float64Type, Int64Type, UInt64Type};
use model::wire::{Decoded, Reader, Write, malformed};
use model::{ColumnId, TableId, TimeRange, ValueType};

use super::encodings::{PAGE_ROWS_MAX, vectors};
use crate::value_test::ValueTest;

/// First bytes of a file.
pub(super) const MAGIC: &[u8; 8] = b"CNOSTSM\0";
/// The version of the format, and the oldest that is read: its columns have no ends, and no vectors.
pub(super) const VERSION: u32 = 4;
pub(super) const VERSION_READ_MIN: u32 = 2;
/// What of a column follows in the map.
const HAS_WRITTEN: u8 = 1;
const HAS_EXTREMES: u8 = 2;
const HAS_ENDS: u8 = 4;
const HAS_VECTORS: u8 = 8;
/// Smaller pages are soon decoded, for each vector again.
const SMALL_PAGE_BYTES: u32 = 1_536;
const SMALL_TEXT_BYTES: u32 = 64 << 10;
/// Magic, version, checksum of both.
pub(super) const HEADER_BYTES: u64 = 16;
/// Footer's offset, length and checksum, version, then the checksum of these.
pub(super) const TRAILER_BYTES: u64 = 28;

/// Where a page stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Page {
    pub(super) offset: u64,
    pub(super) len: u32,
    pub(super) crc: u32,
}

/// What is known of a page's values without reading it. Numbers are bits of the column's type;
/// `sum` wraps. None where the page has no value that is a number, or has a NaN.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Extremes {
    pub(crate) min: u64,
    pub(crate) max: u64,
    pub(crate) sum: u64,
}

/// The first and the last value of a page whose rows are of one series, as bits of their type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ends {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

/// What is known of a column of a row group that has it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ColumnStatistics {
    pub(crate) value_type: ValueType,
    pub(crate) nulls: usize,
    pub(crate) extremes: Option<Extremes>,
    pub(crate) ends: Option<Ends>,
}

/// A column of a row group.
#[derive(Clone, Debug)]
pub(super) struct ColumnPages {
    pub(super) id: ColumnId,
    pub(super) value_type: ValueType,
    pub(super) values: Page,
    /// Whether vectors of the values can be decoded by themselves.
    pub(super) has_vectors: bool,
    /// Which rows wrote the column; `None` where all did.
    pub(super) written: Option<Page>,
    pub(super) nulls: u32,
    /// Bytes of text, beyond eight for each value.
    pub(super) text_bytes: u32,
    pub(super) extremes: Option<Extremes>,
    /// `None` where one of them is NULL or a text, or where rows are of several series.
    pub(super) ends: Option<Ends>,
}

/// Rows that are read together.
#[derive(Clone, Debug)]
pub(crate) struct RowGroup {
    pub(crate) table: TableId,
    pub(crate) rows: u32,
    /// Number of distinct series.
    pub(crate) series_count: u32,
    /// Lowest and highest series.
    pub(crate) series: (u32, u32),
    pub(crate) times: TimeRange,
    pub(super) series_page: Page,
    pub(super) time_page: Page,
    pub(super) columns: Vec<ColumnPages>,
    /// The last row of each series, where that is much less than all rows.
    pub(super) last_rows: Option<Page>,
}

impl RowGroup {
    /// Returns about how many bytes the named columns take once decoded.
    pub(crate) fn value_bytes(&self, columns: &[(ColumnId, ValueType)]) -> usize {
        let wanted = |column: &&ColumnPages| columns.iter().any(|(id, _)| *id == column.id);
        let texts = self.columns.iter().filter(wanted).map(|column| column.text_bytes as usize);
        self.rows as usize * 8 * columns.len() + texts.sum::<usize>()
    }

    /// Adds what is known of a column: its NULLs, lowest and highest value, as bits. `None` where a
    /// value may be a NaN, which has no order.
    pub(crate) fn fold_column(
        &self,
        id: ColumnId,
        (nulls, range): (usize, Option<(u64, u64)>),
    ) -> Option<(usize, Option<(u64, u64)>)> {
        let Some(column) = self.columns.iter().find(|column| column.id == id) else {
            return Some((nulls + self.rows as usize, range));
        };
        let nulls = nulls + column.nulls as usize;
        let Some(extremes) = column.extremes else {
            // Text and booleans have none; neither have pages without a number.
            let is_empty = column.nulls == self.rows;
            let has_order = !matches!(column.value_type, ValueType::Bool | ValueType::Str);
            return (is_empty || !has_order).then_some((nulls, range));
        };
        let (low, high) = match range {
            Some((low, high)) => (
                least(column.value_type, low, extremes.min),
                greatest(column.value_type, high, extremes.max),
            ),
            None => (extremes.min, extremes.max),
        };
        Some((nulls, Some((low, high))))
    }

    /// Returns what is known of a column; `None` where no row has it.
    pub(crate) fn statistics(&self, id: ColumnId) -> Option<ColumnStatistics> {
        let column = self.columns.iter().find(|column| column.id == id)?;
        let &ColumnPages { value_type, nulls, extremes, ends, .. } = column;
        Some(ColumnStatistics { value_type, nulls: nulls as usize, extremes, ends })
    }

    /// Returns whether no row can pass a test.
    pub(crate) fn fails(&self, test: &ValueTest) -> bool {
        let Some(column) = self.columns.iter().find(|column| column.id == test.column) else {
            return true;
        };
        if column.value_type != test.number.value_type() {
            return false;
        }
        let is_empty = column.nulls == self.rows;
        is_empty || column.extremes.is_some_and(|found| test.fails_within(found.min, found.max))
    }

    /// Returns how many vectors its rows are.
    pub(crate) fn vectors(&self) -> usize {
        vectors(self.rows as usize)
    }

    /// Returns whether a vector of the named columns takes much less to decode than all of them.
    pub(crate) fn has_vectors(&self, columns: &[(ColumnId, ValueType)]) -> bool {
        let wanted = |column: &&ColumnPages| columns.iter().any(|(id, _)| *id == column.id);
        let mut wanted = self.columns.iter().filter(wanted);
        let is_small = |column: &ColumnPages| {
            column.values.len <= SMALL_PAGE_BYTES && column.text_bytes <= SMALL_TEXT_BYTES
        };
        self.vectors() > 1
            && wanted.clone().any(|column| column.has_vectors)
            && wanted.all(|column| column.has_vectors || is_small(column))
    }

    /// Returns every column the group has.
    pub(crate) fn column_types(&self) -> impl Iterator<Item = (ColumnId, ValueType)> {
        self.columns.iter().map(|column| (column.id, column.value_type))
    }
}

fn least(value_type: ValueType, a: u64, b: u64) -> u64 {
    let a_is_less = match value_type {
        ValueType::I64 => a.cast_signed() < b.cast_signed(),
        ValueType::F64 => f64::from_bits(a) < f64::from_bits(b),
        ValueType::U64 | ValueType::Bool | ValueType::Str => a < b,
    };
    if a_is_less { a } else { b }
}

fn greatest(value_type: ValueType, a: u64, b: u64) -> u64 {
    if least(value_type, a, b) == a { b } else { a }
}

/// Computes a page's statistics.
pub(super) fn extremes(values: &ArrayRef, value_type: ValueType) -> Option<Extremes> {
    match value_type {
        ValueType::I64 => {
            let values = || values.as_primitive::<Int64Type>().iter().flatten();
            let sum = values().fold(0_i64, i64::wrapping_add);
            let bits = i64::cast_unsigned;
            Some(Extremes {
                min: bits(values().min()?),
                max: bits(values().max()?),
                sum: bits(sum),
            })
        }
        ValueType::U64 => {
            let values = || values.as_primitive::<UInt64Type>().iter().flatten();
            let sum = values().fold(0_u64, u64::wrapping_add);
            Some(Extremes { min: values().min()?, max: values().max()?, sum })
        }
        ValueType::F64 => {
            let values = values.as_primitive::<Float64Type>();
            if values.null_count() == 0 {
                extremes_of_doubles(values.values().iter().copied())
            } else {
                extremes_of_doubles(values.iter().flatten())
            }
        }
        ValueType::Bool | ValueType::Str => None,
    }
}

/// Returns the first and the last of the values of one series.
pub(super) fn ends(values: &ArrayRef, value_type: ValueType) -> Option<Ends> {
    let bits = |row: usize| {
        let is_there = row < values.len() && values.is_valid(row);
        is_there.then(|| match value_type {
            ValueType::I64 => Some(values.as_primitive::<Int64Type>().value(row).cast_unsigned()),
            ValueType::U64 => Some(values.as_primitive::<UInt64Type>().value(row)),
            ValueType::F64 => Some(values.as_primitive::<Float64Type>().value(row).to_bits()),
            ValueType::Bool => Some(u64::from(values.as_boolean().value(row))),
            ValueType::Str => None,
        })?
    };
    Some(Ends { first: bits(0)?, last: bits(values.len().checked_sub(1)?)? })
}

fn extremes_of_doubles(values: impl Iterator<Item = f64> + Clone) -> Option<Extremes> {
    let sum = values.clone().sum::<f64>();
    // Any NaN makes the sum one; so do infinities of both signs.
    if sum.is_nan() && values.clone().any(f64::is_nan) {
        return None;
    }
    let min = values.clone().reduce(f64::min)?.to_bits();
    let max = values.reduce(f64::max)?.to_bits();
    Some(Extremes { min, max, sum: sum.to_bits() })
}

/// Encodes the map.
// FORMAT: docs/formats/tsm.md, v4
pub(super) fn encode(groups: &[RowGroup]) -> Vec<u8> {
    let mut out = Vec::new();
    out.put_varint(groups.len() as u64);
    for group in groups {
        out.put_u32(group.table.0);
        out.put_u32(group.rows);
        out.put_u32(group.series_count);
        out.put_u32(group.series.0);
        out.put_u32(group.series.1);
        out.put_i64(group.times.min);
        out.put_i64(group.times.max);
        put_page(group.series_page, &mut out);
        put_page(group.time_page, &mut out);
        out.put_u8(u8::from(group.last_rows.is_some()));
        if let Some(page) = group.last_rows {
            put_page(page, &mut out);
        }
        out.put_varint(group.columns.len() as u64);
        for column in &group.columns {
            out.put_u32(column.id.0);
            out.put_u8(column.value_type.code());
            out.put_u32(column.nulls);
            out.put_u32(column.text_bytes);
            let flag = |is_there: bool, flag: u8| if is_there { flag } else { 0 };
            out.put_u8(
                flag(column.written.is_some(), HAS_WRITTEN)
                    | flag(column.extremes.is_some(), HAS_EXTREMES)
                    | flag(column.ends.is_some(), HAS_ENDS)
                    | flag(column.has_vectors, HAS_VECTORS),
            );
            put_page(column.values, &mut out);
            if let Some(page) = column.written {
                put_page(page, &mut out);
            }
            if let Some(extremes) = column.extremes {
                out.put_u64(extremes.min);
                out.put_u64(extremes.max);
                out.put_u64(extremes.sum);
            }
            if let Some(ends) = column.ends {
                out.put_u64(ends.first);
                out.put_u64(ends.last);
            }
        }
    }
    out
}

/// Decodes the map of a file whose pages end at `pages_end`.
pub(super) fn decode(bytes: &[u8], pages_end: u64) -> Decoded<Vec<RowGroup>> {
    let mut reader = Reader::new(bytes);
    let count = reader.count(70)?;
    let mut groups = Vec::with_capacity(count);
    for _ in 0..count {
        let table = TableId(reader.u32()?);
        let rows = reader.u32()?;
        if rows == 0 || usize::try_from(rows).unwrap_or(usize::MAX) > PAGE_ROWS_MAX {
            return malformed(format!("row group of {rows} rows"));
        }
        let series_count = reader.u32()?;
        let series = (reader.u32()?, reader.u32()?);
        let times = TimeRange { min: reader.i64()?, max: reader.i64()? };
        let series_page = take_page(&mut reader, pages_end)?;
        let time_page = take_page(&mut reader, pages_end)?;
        let last_rows = match reader.u8()? {
            0 => None,
            1 => Some(take_page(&mut reader, pages_end)?),
            other => return malformed(format!("last rows {other}")),
        };
        let columns = reader.count(30)?;
        let columns =
            (0..columns).map(|_| take_column(&mut reader, pages_end)).collect::<Decoded<_>>()?;
        groups.push(RowGroup {
            table,
            rows,
            series_count,
            series,
            times,
            series_page,
            time_page,
            columns,
            last_rows,
        });
    }
    reader.finish()?;
    Ok(groups)
}

fn take_column(reader: &mut Reader<'_>, pages_end: u64) -> Decoded<ColumnPages> {
    let id = ColumnId(reader.u32()?);
    let code = reader.u8()?;
    let Some(value_type) = ValueType::from_code(code) else {
        return malformed(format!("value type {code}"));
    };
    let nulls = reader.u32()?;
    let text_bytes = reader.u32()?;
    let flags = reader.u8()?;
    if flags > HAS_WRITTEN | HAS_EXTREMES | HAS_ENDS | HAS_VECTORS {
        return malformed(format!("column flags {flags}"));
    }
    let has = |flag: u8| flags & flag != 0;
    let values = take_page(reader, pages_end)?;
    let written = if has(HAS_WRITTEN) { Some(take_page(reader, pages_end)?) } else { None };
    let extremes = if has(HAS_EXTREMES) {
        Some(Extremes { min: reader.u64()?, max: reader.u64()?, sum: reader.u64()? })
    } else {
        None
    };
    let ends =
        if has(HAS_ENDS) { Some(Ends { first: reader.u64()?, last: reader.u64()? }) } else { None };
    let has_vectors = has(HAS_VECTORS);
    Ok(ColumnPages {
        id,
        value_type,
        values,
        has_vectors,
        written,
        nulls,
        text_bytes,
        extremes,
        ends,
    })
}

fn put_page(page: Page, out: &mut Vec<u8>) {
    out.put_u64(page.offset);
    out.put_u32(page.len);
    out.put_u32(page.crc);
}

fn take_page(reader: &mut Reader<'_>, pages_end: u64) -> Decoded<Page> {
    let page = Page { offset: reader.u64()?, len: reader.u32()?, crc: reader.u32()? };
    let end = page.offset.checked_add(u64::from(page.len));
    if page.offset < HEADER_BYTES || end.is_none_or(|end| end > pages_end) {
        return malformed("page outside the file");
    }
    Ok(page)
}
