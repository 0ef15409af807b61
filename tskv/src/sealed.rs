//! Small files that are written whole: a magic, a version, a body, and a checksum of all before it.
#![deny(clippy::indexing_slicing)]

use model::wire::{Decoded, Malformed, Reader, Write, malformed};

/// Begins a file of a kind.
pub fn begin(magic: &[u8; 8], version: u32) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    bytes.put_u32(version);
    bytes
}

/// Ends it with its checksum.
pub fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let crc = crc32fast::hash(&bytes);
    bytes.put_u32(crc);
    bytes
}

/// Checks the seal, the kind and the version; returns a reader of the body.
///
/// # Errors
/// Another file, or a damaged one.
pub fn open<'a>(bytes: &'a [u8], magic: &[u8; 8], version: u32) -> Decoded<Reader<'a>> {
    let Some((body, crc)) = bytes.split_last_chunk::<4>() else {
        return Err(Malformed("shorter than a checksum".to_owned()));
    };
    if crc32fast::hash(body) != u32::from_le_bytes(*crc) {
        return malformed("checksum");
    }
    let mut reader = Reader::new(body);
    if reader.take(8)? != magic || reader.u32()? != version {
        return malformed(format!("not a file of this kind, of version {version}"));
    }
    Ok(reader)
}
