//! Bounded little-endian reading and writing. Every decoder of the project reads through [`Reader`].
//! Invariant: no input, whatever its bytes, makes a reader panic or allocate more than the input's size.

use std::fmt;

/// Bytes that are not what the format says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Malformed(pub String);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed bytes: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

/// Shorthand of a decoder's result.
pub type Decoded<T> = Result<T, Malformed>;

/// Builds the error of a decoder.
pub fn malformed<T>(what: impl Into<String>) -> Decoded<T> {
    Err(Malformed(what.into()))
}

/// Reads a byte slice from front to back.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Starts at the first byte of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// Returns how many bytes have been read.
    pub fn position(&self) -> usize {
        self.at
    }

    /// Returns how many bytes are left.
    pub fn remaining(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// Takes the next `len` bytes.
    pub fn take(&mut self, len: usize) -> Decoded<&'a [u8]> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let Some(end) = end else {
            return malformed(format!("{len} bytes wanted, {} left", self.remaining()));
        };
        let taken = self.bytes.get(self.at..end).unwrap_or_default();
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    /// Reads one byte.
    pub fn u8(&mut self) -> Decoded<u8> {
        Ok(self.array::<1>()?[0])
    }

    /// Reads a 32-bit number.
    pub fn u32(&mut self) -> Decoded<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// Reads a 64-bit number.
    pub fn u64(&mut self) -> Decoded<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// Reads a signed 64-bit number.
    pub fn i64(&mut self) -> Decoded<i64> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// Reads an unsigned LEB128 number of at most 64 bits.
    pub fn varint(&mut self) -> Decoded<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let part = u64::from(byte & 0x7f);
            if shift == 63 && part > 1 {
                return malformed("varint above 64 bits");
            }
            value |= part << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        malformed("varint without end")
    }

    /// Reads a count of things that take at least `min_size` bytes each, so that a count is never
    /// believed beyond what the input could hold.
    pub fn count(&mut self, min_size: usize) -> Decoded<usize> {
        let count = usize::try_from(self.varint()?).map_err(|e| Malformed(e.to_string()))?;
        if count > self.remaining() / min_size.max(1) {
            return malformed(format!("count {count} in {} bytes", self.remaining()));
        }
        Ok(count)
    }

    /// Reads a length-prefixed byte string.
    pub fn bytes(&mut self) -> Decoded<&'a [u8]> {
        let len = self.count(1)?;
        self.take(len)
    }

    /// Reads a length-prefixed UTF-8 string.
    pub fn str(&mut self) -> Decoded<&'a str> {
        std::str::from_utf8(self.bytes()?).map_err(|e| Malformed(e.to_string()))
    }

    /// Fails when bytes are left.
    pub fn finish(&self) -> Decoded<()> {
        if self.remaining() == 0 {
            Ok(())
        } else {
            malformed(format!("{} bytes too many", self.remaining()))
        }
    }
}

/// Appends numbers and strings to a byte vector, as [`Reader`] reads them.
pub trait Write {
    /// Appends one byte.
    fn put_u8(&mut self, value: u8);
    /// Appends a 32-bit number.
    fn put_u32(&mut self, value: u32);
    /// Appends a 64-bit number.
    fn put_u64(&mut self, value: u64);
    /// Appends a signed 64-bit number.
    fn put_i64(&mut self, value: i64);
    /// Appends an unsigned LEB128 number.
    fn put_varint(&mut self, value: u64);
    /// Appends a length-prefixed byte string.
    fn put_bytes(&mut self, value: &[u8]);
}

impl Write for Vec<u8> {
    fn put_u8(&mut self, value: u8) {
        self.push(value);
    }

    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_i64(&mut self, value: i64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }

    fn put_bytes(&mut self, value: &[u8]) {
        self.put_varint(value.len() as u64);
        self.extend_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_survive_a_round_trip() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            bytes.put_varint(value);
            let mut reader = Reader::new(&bytes);
            assert_eq!(reader.varint(), Ok(value));
            assert_eq!(reader.finish(), Ok(()));
        }
    }

    #[test]
    fn a_count_beyond_the_input_is_refused() {
        let mut bytes = Vec::new();
        bytes.put_varint(1 << 40);
        assert!(Reader::new(&bytes).count(1).is_err());
        assert!(Reader::new(&[0xff; 12]).varint().is_err());
    }
}
