//! The canonical bytes of a series: table id, then (tag column id, value) pairs sorted by column id.
//! A tag that is NULL is left out, so NULL and the empty string differ.
//! The bytes are a persisted format, and their hash chooses the shard: neither may ever change.

use twox_hash::XxHash3_64;

use crate::ids::{ColumnId, TableId};
use crate::wire::{Decoded, Reader, Write, malformed};

/// The longest tag value, in bytes.
pub const TAG_VALUE_BYTES_MAX: usize = 16 * 1024;

/// A series key in its canonical bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SeriesKey(Box<[u8]>);

impl SeriesKey {
    /// Encodes a key. `tags` must be sorted by column id, without duplicates.
    // FORMAT: docs/formats/series_key.md, v1
    pub fn encode<'a>(
        table: TableId,
        tags: impl Iterator<Item = (ColumnId, Option<&'a str>)>,
    ) -> Self {
        let mut bytes = Vec::with_capacity(64);
        Self::encode_into(&mut bytes, table, tags);
        Self(bytes.into())
    }

    /// Appends the bytes of a key to `bytes`; see [`SeriesKey::encode`].
    pub fn encode_into<'a>(
        bytes: &mut Vec<u8>,
        table: TableId,
        tags: impl Iterator<Item = (ColumnId, Option<&'a str>)>,
    ) {
        bytes.put_u32(table.0);
        for (column, value) in tags {
            if let Some(value) = value {
                bytes.put_varint(u64::from(column.0));
                bytes.put_bytes(value.as_bytes());
            }
        }
    }

    /// Checks bytes from disk or network and takes them as a key.
    pub fn from_bytes(bytes: &[u8]) -> Decoded<Self> {
        check(bytes)?;
        Ok(Self(bytes.into()))
    }

    /// Returns the canonical bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Returns the table the series belongs to.
    pub fn table(&self) -> TableId {
        TableId(Reader::new(&self.0).u32().unwrap_or_default())
    }

    /// Returns the value of a tag, `None` where it is NULL.
    pub fn tag(&self, column: ColumnId) -> Option<&str> {
        tag(&self.0, column)
    }

    /// Returns the hash that chooses the shard: XXH3-64 of the bytes, seed 0.
    pub fn hash(&self) -> u64 {
        hash_bytes(&self.0)
    }
}

/// Returns the shard hash of a key's canonical bytes.
pub fn hash_bytes(key: &[u8]) -> u64 {
    XxHash3_64::oneshot(key)
}

/// Returns the value of a tag in a key's canonical bytes, `None` where it is NULL.
pub fn tag(key: &[u8], column: ColumnId) -> Option<&str> {
    tags(key).find(|(id, _)| *id == column).map(|(_, value)| value)
}

/// Returns the tags of a key's canonical bytes that are not NULL, in order of column.
pub fn tags(key: &[u8]) -> impl Iterator<Item = (ColumnId, &str)> {
    let mut reader = Reader::new(key.get(4..).unwrap_or_default());
    std::iter::from_fn(move || {
        if reader.remaining() == 0 {
            return None;
        }
        let column = u32::try_from(reader.varint().ok()?).ok()?;
        Some((ColumnId(column), reader.str().ok()?))
    })
}

/// Checks that bytes are a canonical series key.
pub fn check(key: &[u8]) -> Decoded<TableId> {
    let mut reader = Reader::new(key);
    let table = TableId(reader.u32()?);
    let mut last = None;
    while reader.remaining() > 0 {
        let column = reader.varint()?;
        if last.is_some_and(|last| column <= last) || column > u64::from(u32::MAX) {
            return malformed("series key: tags out of order");
        }
        last = Some(column);
        if reader.str()?.len() > TAG_VALUE_BYTES_MAX {
            return malformed("series key: tag value too long");
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_null_tag_differs_from_an_empty_one() {
        let key = |value| SeriesKey::encode(TableId(7), [(ColumnId(1), value)].into_iter());
        assert_ne!(key(None), key(Some("")));
        assert_eq!(key(Some("")).tag(ColumnId(1)), Some(""));
        assert_eq!(key(None).tag(ColumnId(1)), None);
        assert_eq!(key(None).table(), TableId(7));
    }

    #[test]
    fn bytes_and_hash_never_change() {
        let tags = [(ColumnId(1), Some("h1")), (ColumnId(300), Some("eu"))];
        let key = SeriesKey::encode(TableId(2), tags.into_iter());
        assert_eq!(key.as_bytes(), b"\x02\0\0\0\x01\x02h1\xac\x02\x02eu");
        assert_eq!(SeriesKey::from_bytes(key.as_bytes()), Ok(key.clone()));
        assert_eq!(key.hash(), hash_bytes(key.as_bytes()));
        assert!(SeriesKey::from_bytes(b"\x02\0\0\0\x02\0\x01\0").is_err());
    }
}
