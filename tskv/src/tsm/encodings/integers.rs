//! Integers packed as deltas, frame of reference, bit-packed (as in Goldstein, Ramakrishnan, Shaft,
//! "Compressing relations and indexes", 1998), whole or stretch by stretch.
#![deny(clippy::indexing_slicing)]

use model::wire::{Decoded, Reader, Write, malformed};

use super::PAGE_ROWS_MAX;

/// Bytes looked at for one integer.
const WINDOW_BYTES: usize = size_of::<u128>();

/// Appends integers: first value, smallest delta, bit width, then (delta - smallest) in that width.
pub(super) fn pack(values: &[i64], out: &mut Vec<u8>) {
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
        if bits >= u64::BITS {
            out.put_u64(held as u64);
            held >>= u64::BITS;
            bits -= u64::BITS;
        }
    }
    let rest = (held as u64).to_le_bytes();
    out.extend(rest.iter().take(bits.div_ceil(8) as usize));
}

/// Reads `count` integers that [`pack`] wrote.
pub(super) fn unpack(reader: &mut Reader<'_>, count: usize) -> Decoded<Vec<i64>> {
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
    let mut values = Vec::with_capacity(count);
    values.push(value);
    let mut next = |offset: u64| {
        value = value.wrapping_add(smallest.wrapping_add(offset.cast_signed()));
        value
    };
    if width == 0 {
        values.extend((1..count).map(|_| next(0)));
        return Ok(values);
    }
    // An offset begins in one of eight bits and has 64 at most: a window of 16 bytes holds each.
    let mask = u64::MAX >> (u64::BITS - width);
    let mut padded = Vec::with_capacity(bytes.len() + WINDOW_BYTES);
    padded.extend_from_slice(bytes);
    padded.resize(bytes.len() + WINDOW_BYTES, 0);
    values.extend((0..count - 1).map(|number| {
        let bit = number * width as usize;
        let window = padded.get(bit / 8..).and_then(<[u8]>::first_chunk::<WINDOW_BYTES>);
        let window = window.map_or(0, |window| u128::from_le_bytes(*window));
        next((window >> (bit % 8)) as u64 & mask)
    }));
    Ok(values)
}
