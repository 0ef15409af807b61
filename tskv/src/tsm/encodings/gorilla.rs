//! Floats as the XOR of neighbours (Pelkonen and others, "Gorilla: a fast, scalable, in-memory time
//! series database", VLDB 2015, section 4.1.2).
//!
//! The first value has its 64 bits. Then each: bit 0 where it equals the one before; 10 where the XOR's
//! bits lie within the last window, followed by these; 11, five bits of leading zeros, six bits of the
//! number of bits less one, and the bits. Bits fill bytes from the highest.
#![deny(clippy::indexing_slicing)]

use model::wire::{Decoded, Reader, malformed};

use super::PAGE_ROWS_MAX;

/// The most leading zeros that five bits say.
const LEADING_MAX: u32 = 31;

/// Appends values.
pub(super) fn pack(values: &[f64], out: &mut Vec<u8>) {
    let mut bits = Bits { out, held: 0, count: 0 };
    let Some(first) = values.first() else { return };
    let mut last = first.to_bits();
    bits.put(last, 64);
    // Leading zeros and length of the window.
    let mut window: Option<(u32, u32)> = None;
    for value in values.iter().skip(1) {
        let xor = value.to_bits() ^ last;
        last = value.to_bits();
        if xor == 0 {
            bits.put(0, 1);
            continue;
        }
        let leading = xor.leading_zeros().min(LEADING_MAX);
        let trailing = xor.trailing_zeros();
        match window {
            Some((before, len)) if leading >= before && trailing >= 64 - before - len => {
                bits.put(0b10, 2);
                bits.put(xor >> (64 - before - len), len);
            }
            _ => {
                let len = 64 - leading - trailing;
                bits.put(0b11, 2);
                bits.put(u64::from(leading), 5);
                bits.put(u64::from(len - 1), 6);
                bits.put(xor >> trailing, len);
                window = Some((leading, len));
            }
        }
    }
    bits.end();
}

/// Reads `count` values, which end the page.
pub(super) fn unpack(reader: &mut Reader<'_>, count: usize) -> Decoded<Vec<f64>> {
    if count > PAGE_ROWS_MAX {
        return malformed("too many numbers");
    }
    if count == 0 {
        return Ok(Vec::new());
    }
    let mut bits = Taken { bytes: reader.take(reader.remaining())?, at: 0 };
    let mut values = Vec::with_capacity(count);
    let mut last = bits.take(64)?;
    values.push(f64::from_bits(last));
    let mut window: Option<(u32, u32)> = None;
    while values.len() < count {
        if bits.take(1)? == 1 {
            if bits.take(1)? == 1 {
                let leading = bits.take(5)? as u32;
                window = Some((leading, bits.take(6)? as u32 + 1));
            }
            let Some((leading, len)) = window.filter(|(leading, len)| leading + len <= 64) else {
                return malformed("no window of bits");
            };
            last ^= bits.take(len)? << (64 - leading - len);
        }
        values.push(f64::from_bits(last));
    }
    bits.finish()?;
    Ok(values)
}

/// Bits that become bytes.
struct Bits<'a> {
    out: &'a mut Vec<u8>,
    held: u128,
    count: u32,
}

impl Bits<'_> {
    /// Appends the lowest `count` bits.
    fn put(&mut self, bits: u64, count: u32) {
        self.held = (self.held << count) | u128::from(bits);
        self.count += count;
        while self.count >= 8 {
            self.count -= 8;
            self.out.push((self.held >> self.count) as u8);
        }
        self.held &= (1 << self.count) - 1;
    }

    fn end(mut self) {
        if self.count > 0 {
            self.put(0, 8 - self.count);
        }
    }
}

/// Bytes taken bit by bit.
struct Taken<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Taken<'_> {
    /// Takes the next `count` bits, at most 64.
    fn take(&mut self, count: u32) -> Decoded<u64> {
        let end = self.at + count as usize;
        if end > self.bytes.len() * 8 {
            return malformed("fewer bits than values");
        }
        let (first, last) = (self.at / 8, end.div_ceil(8));
        let bytes = self.bytes.get(first..last).unwrap_or_default();
        let all = bytes.iter().fold(0_u128, |all, byte| (all << 8) | u128::from(*byte));
        self.at = end;
        let bits = all >> (last * 8 - end);
        Ok((bits & ((1_u128 << count) - 1)) as u64)
    }

    /// Fails when more than the rest of a byte is left.
    fn finish(&self) -> Decoded<()> {
        if self.bytes.len() == self.at.div_ceil(8) { Ok(()) } else { malformed("too many bits") }
    }
}
