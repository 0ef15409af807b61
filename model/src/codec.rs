//! The CODEC of a column: which encodings its pages may have, and how far its values may deviate.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::schema::{ColumnKind, ValueType};

/// How far a value that is kept may lie from the one that was written: finite and above zero.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Deviation(f64);

// It is never NaN.
impl Eq for Deviation {}

impl Deviation {
    /// Returns the bound, in the unit of the values.
    pub fn bound(self) -> f64 {
        self.0
    }
}

/// The encodings that pages of a column may have. Within them a page's is chosen by measured size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Codec {
    /// The best of all that fit the type.
    #[default]
    Default,
    /// As the values are.
    Null,
    /// Packed differences.
    Delta,
    /// Packed differences of differences.
    DeltaTs,
    /// Quantile compression: pco.
    Quantile,
    /// XOR of neighbours.
    Gorilla,
    /// Decimals as integers.
    Alp,
    /// One bit a value.
    Bitpack,
    /// Distinct texts and their numbers.
    Dictionary,
    /// Values and how often they repeat.
    Rle,
    /// Snappy.
    Snappy,
    /// Zstandard.
    Zstd,
    /// LZ4.
    Lz4,
    /// gzip.
    Gzip,
    /// zlib.
    Zlib,
    /// bzip2.
    Bzip,
    /// Swinging door trending: straight lines within the deviation.
    Sdt(Deviation),
    /// A value within the deviation of the one before becomes that one.
    Deadband(Deviation),
    /// So many bits of the mantissa are kept: a relative error of at most 2^-(bits + 1).
    Quantize(u8),
}

/// Codecs by name, without those that take an argument.
const PLAIN: [(&str, Codec); 17] = [
    ("DEFAULT", Codec::Default),
    ("NULL", Codec::Null),
    ("DELTA", Codec::Delta),
    ("DELTATS", Codec::DeltaTs),
    ("QUANTILE", Codec::Quantile),
    ("PCO", Codec::Quantile),
    ("GORILLA", Codec::Gorilla),
    ("ALP", Codec::Alp),
    ("BITPACK", Codec::Bitpack),
    ("DICTIONARY", Codec::Dictionary),
    ("RLE", Codec::Rle),
    ("SNAPPY", Codec::Snappy),
    ("ZSTD", Codec::Zstd),
    ("LZ4", Codec::Lz4),
    ("GZIP", Codec::Gzip),
    ("ZLIB", Codec::Zlib),
    ("BZIP", Codec::Bzip),
];

/// The bits of a double's mantissa.
const MANTISSA_BITS: u8 = 52;

impl Codec {
    /// Finds a codec by its name, in any case, and its argument.
    ///
    /// # Errors
    /// What is wrong with name or argument.
    pub fn named(name: &str, argument: Option<f64>) -> Result<Self, String> {
        let name = name.to_ascii_uppercase();
        let deviation = |argument: f64| {
            let fits = argument.is_finite() && argument > 0.0;
            let wrong = || format!("the deviation of {name} must be a number above 0");
            fits.then_some(Deviation(argument)).ok_or_else(wrong)
        };
        if let Some((_, codec)) = PLAIN.iter().find(|(known, _)| *known == name) {
            return match argument {
                None => Ok(*codec),
                Some(_) => Err(format!("codec {name} takes no argument")),
            };
        }
        match (name.as_str(), argument) {
            ("SDT", Some(argument)) => deviation(argument).map(Self::Sdt),
            ("DEADBAND", Some(argument)) => deviation(argument).map(Self::Deadband),
            ("QUANTIZE", Some(bits))
                if bits.fract() == 0.0 && (1.0..=f64::from(MANTISSA_BITS)).contains(&bits) =>
            {
                Ok(Self::Quantize(bits as u8))
            }
            ("QUANTIZE", Some(_)) => Err("QUANTIZE keeps between 1 and 52 bits".to_owned()),
            ("SDT" | "DEADBAND", None) => Err(format!("{name} needs a deviation: {name}(0.1)")),
            ("QUANTIZE", None) => Err("QUANTIZE needs a number of bits: QUANTIZE(12)".to_owned()),
            _ => Err(format!("unknown codec {name}")),
        }
    }

    /// Returns whether a column of a kind may have this codec.
    pub fn fits(self, kind: ColumnKind) -> bool {
        use ValueType::{Bool, F64, I64, Str, U64};
        let types: &[ValueType] = match self {
            Self::Default => return true,
            // The encoding of the keys of rows is not a column's choice.
            _ if !matches!(kind, ColumnKind::Field(_)) => return false,
            Self::Null | Self::Rle => return true,
            Self::Delta | Self::DeltaTs => &[I64, U64],
            Self::Quantile | Self::Sdt(_) | Self::Deadband(_) => &[I64, U64, F64],
            Self::Gorilla | Self::Alp | Self::Quantize(_) => &[F64],
            Self::Bitpack => &[Bool],
            Self::Dictionary
            | Self::Snappy
            | Self::Zstd
            | Self::Lz4
            | Self::Gzip
            | Self::Zlib
            | Self::Bzip => &[Str],
        };
        matches!(kind, ColumnKind::Field(value_type) if types.contains(&value_type))
    }

    /// Returns whether values change when they are written.
    pub fn is_lossy(self) -> bool {
        matches!(self, Self::Sdt(_) | Self::Deadband(_) | Self::Quantize(_))
    }
}

impl fmt::Display for Codec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sdt(deviation) => write!(f, "SDT({})", deviation.0),
            Self::Deadband(deviation) => write!(f, "DEADBAND({})", deviation.0),
            Self::Quantize(bits) => write!(f, "QUANTIZE({bits})"),
            plain => {
                let named = PLAIN.iter().find(|(_, codec)| codec == plain);
                f.write_str(named.map_or("DEFAULT", |(name, _)| name))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_codec_is_read_as_it_is_written() {
        for (name, codec) in PLAIN {
            assert_eq!(Codec::named(&name.to_lowercase(), None), Ok(codec));
            assert_eq!(Codec::named(&codec.to_string(), None), Ok(codec));
            assert!(Codec::named(name, Some(1.0)).is_err());
        }
        assert_eq!(Codec::named("sdt", Some(0.1)).unwrap().to_string(), "SDT(0.1)");
        assert_eq!(Codec::named("Deadband", Some(2.0)).unwrap().to_string(), "DEADBAND(2)");
        assert_eq!(Codec::named("quantize", Some(12.0)).unwrap(), Codec::Quantize(12));
        for (name, argument) in [
            ("SDT", Some(0.0)),
            ("SDT", Some(f64::NAN)),
            ("DEADBAND", None),
            ("QUANTIZE", Some(0.5)),
            ("ZIP", None),
        ] {
            assert!(Codec::named(name, argument).is_err(), "{name} {argument:?}");
        }
    }
}
