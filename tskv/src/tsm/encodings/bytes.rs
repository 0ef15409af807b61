//! Compressors of bytes: an array as it is, made smaller.
//! Invariant: no page unpacks to more than it says, nor to more than a page may.
#![deny(clippy::indexing_slicing)]

use std::io::{Read, Write as _};

use model::wire::{Decoded, Malformed, Reader, Write, malformed};

/// The most bytes one page may unpack to: as long as the longest batch of strings.
pub(super) const PAGE_BYTES_MAX: usize = 1 << 30;
const ZSTD_LEVEL: i32 = 3;

/// A compressor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Squeeze {
    Lz4,
    Zstd,
    Snappy,
    Gzip,
    Zlib,
    Bzip,
}

impl Squeeze {
    fn code(self) -> u8 {
        match self {
            Self::Lz4 => 1,
            Self::Zstd => 5,
            Self::Snappy => 6,
            Self::Gzip => 7,
            Self::Zlib => 8,
            Self::Bzip => 9,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Lz4 => "lz4",
            Self::Zstd => "zstd",
            Self::Snappy => "snappy",
            Self::Gzip => "gzip",
            Self::Zlib => "zlib",
            Self::Bzip => "bzip",
        }
    }

    /// Returns the compressor that an encoding's number means.
    pub(super) fn of_code(code: u8) -> Option<Self> {
        [Self::Lz4, Self::Zstd, Self::Snappy, Self::Gzip, Self::Zlib, Self::Bzip]
            .into_iter()
            .find(|squeeze| squeeze.code() == code)
    }

    /// Compresses: the code, the length unpacked, what is compressed.
    pub(super) fn encode(self, body: &[u8]) -> Option<Vec<u8>> {
        let mut out = vec![self.code()];
        out.put_varint(body.len() as u64);
        let packed = match self {
            Self::Lz4 => lz4_flex::block::compress(body),
            Self::Zstd => zstd::bulk::compress(body, ZSTD_LEVEL).ok()?,
            Self::Snappy => snap::raw::Encoder::new().compress_vec(body).ok()?,
            Self::Gzip => {
                let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level());
                encoder.write_all(body).ok()?;
                encoder.finish().ok()?
            }
            Self::Zlib => {
                let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), level());
                encoder.write_all(body).ok()?;
                encoder.finish().ok()?
            }
            Self::Bzip => {
                let best = bzip2::Compression::default();
                let mut encoder = bzip2::write::BzEncoder::new(Vec::new(), best);
                encoder.write_all(body).ok()?;
                encoder.finish().ok()?
            }
        };
        out.extend_from_slice(&packed);
        Some(out)
    }

    /// Unpacks what follows the code.
    pub(super) fn decode(self, reader: &mut Reader<'_>) -> Decoded<Vec<u8>> {
        let len = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
        // LZ4 cannot gain more than 255 to 1; the others stop at what they were told.
        if len > PAGE_BYTES_MAX || (self == Self::Lz4 && len / 256 > reader.remaining()) {
            return malformed("page unpacks to too much");
        }
        let packed = reader.take(reader.remaining())?;
        let raw = match self {
            Self::Lz4 => lz4_flex::block::decompress(packed, len).map_err(wrong)?,
            Self::Zstd => zstd::bulk::decompress(packed, len).map_err(wrong)?,
            Self::Snappy => {
                if snap::raw::decompress_len(packed).map_err(wrong)? != len {
                    return malformed("page unpacks to another length");
                }
                snap::raw::Decoder::new().decompress_vec(packed).map_err(wrong)?
            }
            Self::Gzip => read_all(flate2::bufread::GzDecoder::new(packed), len)?,
            Self::Zlib => read_all(flate2::bufread::ZlibDecoder::new(packed), len)?,
            Self::Bzip => read_all(bzip2::bufread::BzDecoder::new(packed), len)?,
        };
        if raw.len() == len { Ok(raw) } else { malformed("page unpacks to another length") }
    }
}

fn level() -> flate2::Compression {
    flate2::Compression::default()
}

fn wrong(error: impl std::fmt::Display) -> Malformed {
    Malformed(error.to_string())
}

/// Reads one byte more than is expected at most.
fn read_all(decoder: impl Read, len: usize) -> Decoded<Vec<u8>> {
    let mut raw = Vec::new();
    decoder.take(len as u64 + 1).read_to_end(&mut raw).map_err(wrong)?;
    Ok(raw)
}
