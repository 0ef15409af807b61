//! Columns to the fields of PostgreSQL's rows: text as `query` writes it, binary here.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray};
use bytes::{BufMut, BytesMut};
use pgwire::api::results::FieldFormat;
use query::{TypedColumn, Zone, typed_column};

/// Nanoseconds from the Unix epoch to 2000-01-01.
const EPOCH_2000_NS: i64 = 946_684_800_000_000_000;
const EPOCH_2000_DAYS: i32 = 10_957;

/// Writes a field of a row: its length, then its bytes.
///
/// # Errors
/// A value that its wire type cannot hold.
pub(crate) fn put_field(
    column: &TypedColumn,
    row: usize,
    format: FieldFormat,
    out: &mut BytesMut,
) -> Result<(), query::Error> {
    if column.is_null(row) {
        out.put_i32(-1);
        return Ok(());
    }
    let start = out.len();
    out.put_i32(0);
    match format {
        FieldFormat::Text => {
            column.put_text(row, out)?;
        }
        FieldFormat::Binary => put_binary(column, row, out)?,
    }
    let len = i32::try_from(out.len() - start - 4)
        .map_err(|_| query::Error::new("54000", "a value is larger than 2 GiB"))?;
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
    Ok(())
}

fn put_binary(column: &TypedColumn, row: usize, out: &mut BytesMut) -> Result<(), query::Error> {
    match column {
        TypedColumn::Bool(array) => out.put_u8(u8::from(array.value(row))),
        TypedColumn::I16(array) => out.put_i16(array.value(row)),
        TypedColumn::I32(array) => out.put_i32(array.value(row)),
        TypedColumn::I64(array) => out.put_i64(array.value(row)),
        TypedColumn::U64(array) => put_numeric(array.value(row), out),
        TypedColumn::F32(array) => out.put_f32(array.value(row)),
        TypedColumn::F64(array) => out.put_f64(array.value(row)),
        TypedColumn::Time(array, _) => {
            let since = array.value(row).checked_sub(EPOCH_2000_NS);
            let since =
                since.ok_or_else(|| query::Error::new("22008", "timestamp out of range"))?;
            out.put_i64(since.div_euclid(1_000));
        }
        TypedColumn::Date(array) => out.put_i32(array.value(row) - EPOCH_2000_DAYS),
        TypedColumn::Bytes(array) => out.put_slice(array.value(row)),
        TypedColumn::Interval(array) => {
            let interval = array.value(row);
            out.put_i64(interval.nanoseconds.div_euclid(1_000));
            out.put_i32(interval.days);
            out.put_i32(interval.months);
        }
        TypedColumn::Decimal(array) => put_decimal(array.value(row), array.scale(), out),
        TypedColumn::List(array, zone) => return binary_list(&array.value(row), zone, out),
        // Sent as text, which is its own binary form.
        TypedColumn::Text(_) | TypedColumn::Other(_) => {
            column.put_text(row, out)?;
        }
    }
    Ok(())
}

/// Writes an array of any number of dimensions; those of one dimension must have one length.
fn binary_list(items: &ArrayRef, zone: &Zone, out: &mut BytesMut) -> Result<(), query::Error> {
    let (mut items, mut lengths) = (Arc::clone(items), vec![items.len()]);
    while let Some(lists) = items.as_list_opt::<i32>() {
        let length = if lists.is_empty() { 0 } else { lists.value_length(0) };
        if lists.null_count() > 0 || (0..lists.len()).any(|row| lists.value_length(row) != length) {
            let message = "multidimensional arrays must have sub-arrays with matching dimensions";
            return Err(query::Error::new("2202E", message));
        }
        let first = lists.value_offsets()[0] as usize;
        lengths.push(length as usize);
        items = lists.values().slice(first, lists.len() * length as usize);
    }
    let column = typed_column(&items, zone)?;
    let field = arrow::datatypes::Field::new("item", items.data_type().clone(), true);
    let lengths = if items.is_empty() { Vec::new() } else { lengths };
    out.put_i32(lengths.len() as i32);
    out.put_i32(i32::from(items.null_count() > 0));
    out.put_u32(crate::types::wire_type(&field).oid());
    for length in lengths {
        out.put_i32(length as i32);
        out.put_i32(1);
    }
    (0..items.len()).try_for_each(|row| put_field(&column, row, FieldFormat::Binary, out))
}

/// Writes an unsigned number as NUMERIC.
fn put_numeric(value: u64, out: &mut BytesMut) {
    put_decimal(i128::from(value), 0, out);
}

/// Writes a number of so many digits behind the point as NUMERIC: digits of base 10,000, of which the
/// first has the weight, and a sign.
fn put_decimal(value: i128, scale: i8, out: &mut BytesMut) {
    let behind = usize::from(scale.max(0).unsigned_abs());
    // As text first: no power of ten overflows there. A negative scale counts zeros before the point.
    let zeros = usize::from(scale.min(0).unsigned_abs());
    let text = format!("{}{}", value.unsigned_abs(), "0".repeat(zeros));
    let text = format!("{text:0>width$}", width = behind + 1);
    let (whole, fraction) = text.split_at(text.len() - behind);
    // The point stands between two digits of base 10,000.
    let whole = format!("{whole:0>width$}", width = whole.len().next_multiple_of(4));
    let fraction = format!("{fraction:0<width$}", width = behind.next_multiple_of(4));
    let all = [whole.as_bytes(), fraction.as_bytes()].concat();
    let digit = |four: &[u8]| four.iter().fold(0, |all, one| all * 10 + i16::from(one - b'0'));
    let digits: Vec<i16> = all.chunks(4).map(digit).collect();
    let leading = digits.iter().take_while(|digit| **digit == 0).count();
    let kept = digits[leading..].iter().rposition(|digit| *digit != 0).map_or(0, |last| last + 1);
    let weight = (whole.len() / 4) as i16 - 1 - leading as i16;
    out.put_i16(kept as i16);
    out.put_i16(if kept == 0 { 0 } else { weight });
    out.put_u16(if value < 0 { 0x4000 } else { 0 });
    out.put_i16(behind as i16);
    digits[leading..leading + kept].iter().for_each(|digit| out.put_i16(*digit));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsigned_numbers_survive_as_numeric() {
        let mut out = BytesMut::new();
        put_numeric(1_0002_0000, &mut out);
        assert_eq!(out.to_vec(), [0, 2, 0, 2, 0, 0, 0, 0, 0, 1, 0, 2]);
        out.clear();
        put_numeric(0, &mut out);
        assert_eq!(out.to_vec(), [0; 8]);
    }

    #[test]
    fn decimals_keep_their_scale_and_sign() {
        let cases: [(i128, i8, &[i16]); 5] = [
            (5 * 10_i128.pow(37), 38, &[1, -1, 0, 38, 5_000]),
            (-12_345, 2, &[2, 0, 0x4000, 2, 123, 4_500]),
            (5, 5, &[1, -2, 0, 5, 5_000]),
            (10_000, 0, &[1, 1, 0, 0, 1]),
            (100, 2, &[1, 0, 0, 2, 1]),
        ];
        for (value, scale, expected) in cases {
            let mut out = BytesMut::new();
            put_decimal(value, scale, &mut out);
            let expected: Vec<u8> = expected.iter().flat_map(|n| n.to_be_bytes()).collect();
            assert_eq!(out.to_vec(), expected, "{value} {scale}");
        }
    }
}
