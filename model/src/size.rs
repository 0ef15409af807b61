//! Sizes in bytes as people write them: `'128MiB'`, `'300M'`, `'1GB'`.

/// Units, the longest name first where one begins another.
const UNITS: [(&str, u64); 13] = [
    ("KIB", 1 << 10),
    ("MIB", 1 << 20),
    ("GIB", 1 << 30),
    ("TIB", 1 << 40),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("K", 1 << 10),
    ("M", 1 << 20),
    ("G", 1 << 30),
    ("T", 1 << 40),
    ("B", 1),
];

/// Reads a size; a bare number means bytes, `K` and the like are powers of 1,024.
///
/// # Errors
/// Says what is wrong with the text.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let upper = text.trim().to_ascii_uppercase();
    let digits = upper.find(|c: char| !c.is_ascii_digit()).unwrap_or(upper.len());
    let (number, unit) = upper.split_at(digits);
    let invalid = || format!("invalid size \"{text}\": write it as '128MiB'");
    let number: u64 = number.parse().map_err(|_| invalid())?;
    let scale = match unit.trim() {
        "" => 1,
        unit => UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(invalid)?.1,
    };
    number.checked_mul(scale).ok_or_else(|| format!("size \"{text}\" is too large"))
}

/// Writes a size in the largest unit of 1,024 that it is a multiple of.
pub fn bytes_in_words(bytes: u64) -> String {
    let units = [("TiB", 1_u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let unit = units.into_iter().find(|(_, scale)| bytes > 0 && bytes.is_multiple_of(*scale));
    unit.map_or_else(|| format!("{bytes} B"), |(name, scale)| format!("{} {name}", bytes / scale))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written_as_people_do() {
        let cases = [("128MiB", 1 << 27), ("300M", 300 << 20), ("1 gb", 1_000_000_000), ("7", 7)];
        for (text, bytes) in cases {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "MB", "1x", "-1", "99999999999TB"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
        assert_eq!(bytes_in_words(1 << 27), "128 MiB");
        assert_eq!(bytes_in_words(1_000), "1000 B");
    }
}
