//! A segment: the series of neighbouring ids on disk, which never change.
//!
//! Keys stand in blocks in order of id, so that an id finds its key by counting. Hashes of keys stand in
//! order beside their ids, so that a key finds its id; a filter in memory spares most looks for keys that
//! are not there. Entries (table, tag, value → ids) stand in order, so that a value finds its series, and
//! the values of a tag can be walked.
#![deny(clippy::indexing_slicing)]

use std::cmp::Ordering;
use std::ops::{Bound, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::wire::{Decoded, Malformed, Reader, malformed};
use model::{ColumnId, TableId, series_key};

use super::filter::SeriesFilter;
use super::membership::Membership;
use super::postings::Postings;
use crate::disk::{Disk, DiskFile};
use crate::error::{Context, Error, Result};

pub(super) const MAGIC: &[u8; 8] = b"CNOSIDX\0";
pub(super) const VERSION: u32 = 2;
/// Magic, version, checksum of both.
pub(super) const HEADER_BYTES: u64 = 16;
/// The directory's offset, length and checksum, then the checksum of these.
pub(super) const TRAILER_BYTES: u64 = 24;
/// Keys of a block.
pub(super) const BLOCK_KEYS: usize = 64;
/// Bytes of a hash and its id.
pub(super) const HASH_BYTES: usize = 12;
/// What a block's checksum takes.
pub(super) const CRC_BYTES: u64 = 4;
/// The most bytes LZ4 makes of one.
const LZ4_RATIO_MAX: usize = 255;
/// With so few series to look at no walk over values is worth while.
const FEW: usize = 64;
/// The tag under whose empty value all series of a table are found.
pub(super) const ALL: ColumnId = ColumnId(u32::MAX);

/// Where a block stands; its checksum follows it.
#[derive(Clone, Copy, Debug)]
struct Block {
    offset: u64,
    len: usize,
}

/// An open segment.
#[derive(Debug)]
pub(crate) struct Segment {
    number: u64,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    ids: Range<u32>,
    keys: Vec<Block>,
    /// Beside each block its first hash.
    hashes: Vec<(u64, Block)>,
    filter: Membership,
    /// Beside each block its first entry.
    entries: Vec<(Box<[u8]>, Block)>,
}

/// What an entry says.
pub(super) struct Entry {
    /// See [`entry_key`].
    pub(super) key: Vec<u8>,
    pub(super) series: Postings,
}

/// Returns the hash a key stands under.
pub(super) fn hash_of(key: &[u8]) -> u64 {
    // Mixed once more: all keys of a shard share some bits of the hash that chose it.
    let hash = series_key::hash_bytes(key);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

/// Returns the bytes by which entries are in order.
pub(super) fn entry_key(table: TableId, column: ColumnId, value: &str) -> Vec<u8> {
    [&table.0.to_be_bytes(), &column.0.to_be_bytes(), value.as_bytes()].concat()
}

impl Segment {
    /// Opens a segment and reads its directory.
    ///
    /// # Errors
    /// `Corrupt`, naming file and offset.
    pub(crate) fn open(disk: &dyn Disk, path: &Path, number: u64) -> Result<Self> {
        let (mut segment, filter) = Self::without_filter(disk, path, number)?;
        let bits = segment.block(filter)?;
        segment.filter = Membership::decode(&bits)
            .ok_or_else(|| segment.corrupt(filter, Malformed("filter".to_owned())))?;
        Ok(segment)
    }

    /// Opens a segment, and says where its filter stands.
    fn without_filter(disk: &dyn Disk, path: &Path, number: u64) -> Result<(Self, Block)> {
        let file = disk.open(path).context("open", path)?;
        let bytes = file.size().context("measure", path)?;
        if bytes < HEADER_BYTES + TRAILER_BYTES {
            return Err(Error::corrupt(path, 0, "shorter than a header and a trailer"));
        }
        let header = file.read_at(0, HEADER_BYTES as usize).context("read", path)?;
        check_header(&header).map_err(|error| Error::corrupt(path, 0, error))?;
        let at = bytes - TRAILER_BYTES;
        let trailer = file.read_at(at, TRAILER_BYTES as usize).context("read", path)?;
        let trailer = Trailer::decode(&trailer, at);
        let trailer = trailer.map_err(|error| Error::corrupt(path, at, error))?;
        let directory = file.read_at(trailer.offset, trailer.len).context("read", path)?;
        let at = |error: Malformed| Error::corrupt(path, trailer.offset, error);
        if crc32fast::hash(&directory) != trailer.crc {
            return Err(at(Malformed("directory checksum".to_owned())));
        }
        let directory = Directory::decode(&directory, trailer.offset).map_err(at)?;
        let Directory { ids, keys, hashes, filter, entries } = directory;
        let segment = Self {
            number,
            path: path.to_path_buf(),
            file,
            ids,
            keys,
            hashes,
            filter: Membership::new(0),
            entries,
        };
        Ok((segment, filter))
    }

    /// Reads all keys, in order of their ids.
    pub(crate) fn all_keys(&self) -> Result<Vec<Arc<[u8]>>> {
        let mut keys = Vec::with_capacity(self.ids.len());
        for number in 0..self.keys.len() {
            keys.extend(self.keys_of_block(number)?);
        }
        Ok(keys)
    }

    /// Returns the ids of its series.
    pub(crate) fn ids(&self) -> Range<u32> {
        self.ids.clone()
    }

    /// Returns the number of the file.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Returns the file's path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads and checks every block.
    ///
    /// # Errors
    /// `Corrupt`, naming file and offset.
    pub(crate) fn verify(&self) -> Result<()> {
        for number in 0..self.keys.len() {
            self.keys_of_block(number)?;
        }
        for number in 0..self.hashes.len() {
            self.hashes_of_block(number)?;
        }
        for number in 0..self.entries.len() {
            self.entries_of_block(number)?;
        }
        Ok(())
    }

    /// Returns the id of a key, if it is here.
    pub(super) fn find(&self, key: &[u8]) -> Result<Option<u32>> {
        let hash = hash_of(key);
        if !self.filter.may_hold(hash) {
            return Ok(None);
        }
        let from = self.hashes.partition_point(|(first, _)| *first < hash).saturating_sub(1);
        for number in from..self.hashes.len() {
            if self.hashes.get(number).is_some_and(|(first, _)| *first > hash) {
                break;
            }
            for (other, id) in self.hashes_of_block(number)? {
                if other == hash && *self.key(id)? == *key {
                    return Ok(Some(id));
                }
            }
        }
        Ok(None)
    }

    /// Returns the key of an id of the segment.
    fn key(&self, id: u32) -> Result<Arc<[u8]>> {
        let mut keys = Vec::with_capacity(1);
        self.keys(&[id], &mut keys)?;
        keys.pop().ok_or_else(|| Error::Stopped("a segment gave no key".to_owned()))
    }

    /// Appends the keys of ids of the segment, which ascend.
    pub(super) fn keys(&self, ids: &[u32], keys: &mut Vec<Arc<[u8]>>) -> Result<()> {
        let block_of = |id: &u32| (id - self.ids.start) as usize / BLOCK_KEYS;
        for of_block in ids.chunk_by(|a, b| block_of(a) == block_of(b)) {
            let Some(first) = of_block.first() else { continue };
            let number = block_of(first);
            let block = self.keys_of_block(number)?;
            let start = self.ids.start as usize + number * BLOCK_KEYS;
            keys.extend(of_block.iter().filter_map(|id| block.get(*id as usize - start).cloned()));
        }
        Ok(())
    }

    /// Returns the series of a table.
    pub(super) fn table_ids(&self, table: TableId) -> Result<Postings> {
        Ok(self.find_entry(&entry_key(table, ALL, ""))?.unwrap_or_default())
    }

    /// Appends the series of a table that a filter keeps. Keys are looked at only where values of tags do
    /// not tell.
    pub(super) fn matching(
        &self,
        table: TableId,
        filter: &SeriesFilter,
        ids: &mut Vec<u32>,
    ) -> Result<()> {
        let mut found: Option<Vec<u32>> = None;
        let mut narrow = |mut more: Vec<u32>| {
            more.sort_unstable();
            more.dedup();
            if let Some(before) = &found {
                more.retain(|id| before.binary_search(id).is_ok());
            }
            let few = more.len() <= FEW;
            found = Some(more);
            few
        };
        let mut few = false;
        for (column, values) in filter.lists() {
            let mut of_term = Vec::new();
            for value in values {
                if let Some(series) = self.find_entry(&entry_key(table, column, value))? {
                    series.extend_into(&mut of_term);
                }
            }
            few = narrow(of_term);
        }
        for (column, bounds) in filter.walks() {
            if !few {
                few = narrow(self.walk(table, column, bounds)?);
            }
        }
        let candidates = match found {
            Some(found) => found,
            None => {
                let mut all = Vec::new();
                self.table_ids(table)?.extend_into(&mut all);
                all
            }
        };
        if filter.is_told_by_lists() {
            ids.extend(candidates);
            return Ok(());
        }
        let sieve = filter.sieve();
        let mut keys = Vec::with_capacity(BLOCK_KEYS);
        for some in candidates.chunks(BLOCK_KEYS) {
            keys.clear();
            self.keys(some, &mut keys)?;
            ids.extend(
                some.iter().zip(&keys).filter(|(_, key)| sieve.keeps(key)).map(|(id, _)| *id),
            );
        }
        Ok(())
    }

    /// Returns the series of which a tag lies within bounds.
    fn walk(
        &self,
        table: TableId,
        column: ColumnId,
        (low, high): (Bound<&str>, Bound<&str>),
    ) -> Result<Vec<u32>> {
        let begin = entry_key(table, column, "");
        let low = match low {
            Bound::Included(low) | Bound::Excluded(low) => entry_key(table, column, low),
            Bound::Unbounded => begin.clone(),
        };
        let high = match high {
            Bound::Included(high) | Bound::Excluded(high) => Some(entry_key(table, column, high)),
            Bound::Unbounded => None,
        };
        let first = self.entries.partition_point(|(first, _)| **first <= *low).saturating_sub(1);
        let mut found = Vec::new();
        for number in first..self.entries.len() {
            let ended = self.entries_in_order(number, |key, series| {
                let of_tag = key.get(..begin.len()) == Some(begin.as_slice());
                // Whether a bound itself is inside is seen when its series' keys are looked at.
                let beyond = high.as_ref().is_some_and(|high| *key > **high);
                if *key >= *low && (beyond || !of_tag) {
                    return Ok(Some(()));
                }
                if *key >= *low {
                    Postings::decode(series, &self.ids)?.extend_into(&mut found);
                }
                Ok(None)
            })?;
            if ended.is_some() {
                break;
            }
        }
        Ok(found)
    }

    fn find_entry(&self, key: &[u8]) -> Result<Option<Postings>> {
        let number = self.entries.partition_point(|(first, _)| **first <= *key);
        let Some(number) = number.checked_sub(1) else { return Ok(None) };
        let found = self.entries_in_order(number, |other, series| match other.cmp(key) {
            Ordering::Less => Ok(None),
            Ordering::Equal => Ok(Some(Some(Postings::decode(series, &self.ids)?))),
            Ordering::Greater => Ok(Some(None)),
        })?;
        Ok(found.flatten())
    }

    /// Shows the key of each entry of a block with what is written of its series, in order, until something is
    /// found.
    fn entries_in_order<T>(
        &self,
        number: usize,
        mut look: impl FnMut(&[u8], &[u8]) -> Decoded<Option<T>>,
    ) -> Result<Option<T>> {
        let Some((_, block)) = self.entries.get(number) else { return Ok(None) };
        let bytes = self.block(*block)?;
        let mut entries = Entries::of(&bytes);
        let mut find = || {
            while let Some(series) = entries.next()? {
                let found = look(&entries.key, series)?;
                if found.is_some() {
                    return Ok(found);
                }
            }
            Ok(None)
        };
        find().map_err(|error| self.corrupt(*block, error))
    }

    /// Returns the number of blocks of keys, of hashes and of entries.
    pub(super) fn blocks(&self) -> [usize; 3] {
        [self.keys.len(), self.hashes.len(), self.entries.len()]
    }

    /// Reads a block of keys.
    pub(super) fn keys_of_block(&self, number: usize) -> Result<Vec<Arc<[u8]>>> {
        let Some(block) = self.keys.get(number).copied() else { return Ok(Vec::new()) };
        let left = self.ids.len() - number * BLOCK_KEYS;
        let bytes = self.block(block)?;
        decode_keys(&bytes, left.min(BLOCK_KEYS)).map_err(|error| self.corrupt(block, error))
    }

    /// Reads a block of hashes, each with its id.
    pub(super) fn hashes_of_block(&self, number: usize) -> Result<Vec<(u64, u32)>> {
        let Some((_, block)) = self.hashes.get(number).copied() else { return Ok(Vec::new()) };
        let bytes = self.block(block)?;
        decode_hashes(&bytes, &self.ids).map_err(|error| self.corrupt(block, error))
    }

    /// Reads a block of entries.
    pub(super) fn entries_of_block(&self, number: usize) -> Result<Vec<Entry>> {
        let Some((_, block)) = self.entries.get(number) else { return Ok(Vec::new()) };
        let bytes = self.block(*block)?;
        decode_entries(&bytes, &self.ids).map_err(|error| self.corrupt(*block, error))
    }

    fn block(&self, block: Block) -> Result<Vec<u8>> {
        let len = block.len + CRC_BYTES as usize;
        let mut bytes = self.file.read_at(block.offset, len).context("read", &self.path)?;
        let crc = bytes.split_off(block.len);
        if crc32fast::hash(&bytes).to_le_bytes() != *crc {
            return Err(self.corrupt(block, Malformed("block checksum".to_owned())));
        }
        Ok(bytes)
    }

    fn corrupt(&self, block: Block, error: Malformed) -> Error {
        Error::corrupt(&self.path, block.offset, error)
    }
}

/// Reads the keys of a segment of which other parts may be damaged: its first id, and its keys.
///
/// # Errors
/// `Corrupt` where the keys are what is damaged.
pub(crate) fn salvage_keys(disk: &dyn Disk, path: &Path) -> Result<(u32, Vec<Arc<[u8]>>)> {
    let (segment, _) = Segment::without_filter(disk, path, 0)?;
    Ok((segment.ids.start, segment.all_keys()?))
}

fn check_header(header: &[u8]) -> Decoded<()> {
    let mut reader = Reader::new(header);
    let (magic, version, crc) = (reader.take(8)?, reader.u32()?, reader.u32()?);
    let summed = header.get(..12).map(crc32fast::hash);
    if magic != MAGIC || summed != Some(crc) {
        return malformed("not an index segment");
    }
    if version != VERSION {
        return malformed(format!("version {version} of index segments is not known"));
    }
    Ok(())
}

struct Trailer {
    offset: u64,
    len: usize,
    crc: u32,
}

impl Trailer {
    /// Reads the trailer of a file, which stands at `at`.
    fn decode(bytes: &[u8], at: u64) -> Decoded<Self> {
        let mut reader = Reader::new(bytes);
        let (offset, len) = (reader.u64()?, reader.u64()?);
        let (crc, own) = (reader.u32()?, reader.u32()?);
        if bytes.get(..20).map(crc32fast::hash) != Some(own) {
            return malformed("trailer checksum");
        }
        if offset < HEADER_BYTES || offset.checked_add(len) != Some(at) {
            return malformed("the directory is elsewhere");
        }
        let len = usize::try_from(len).map_err(|_| Malformed("directory too long".to_owned()))?;
        Ok(Self { offset, len, crc })
    }
}

/// Where everything in a segment stands.
struct Directory {
    ids: Range<u32>,
    keys: Vec<Block>,
    hashes: Vec<(u64, Block)>,
    filter: Block,
    entries: Vec<(Box<[u8]>, Block)>,
}

/// Gives blocks their places, one behind the other.
struct Places {
    next: u64,
    end: u64,
}

impl Places {
    fn block(&mut self, len: u64) -> Decoded<Block> {
        let block = Block { offset: self.next, len: usize::try_from(len).unwrap_or(usize::MAX) };
        let next = self.next.checked_add(len).and_then(|end| end.checked_add(CRC_BYTES));
        match next.filter(|next| *next <= self.end) {
            Some(next) => self.next = next,
            None => return malformed("a block beyond the directory"),
        }
        Ok(block)
    }
}

impl Directory {
    /// Reads a directory, which stands at `end`.
    fn decode(bytes: &[u8], end: u64) -> Decoded<Self> {
        let mut reader = Reader::new(bytes);
        let mut places = Places { next: HEADER_BYTES, end };
        let id = |id: u64| u32::try_from(id).map_err(|_| Malformed("id out of range".to_owned()));
        let first = id(reader.varint()?)?;
        let last = id(u64::from(first).saturating_add(reader.varint()?))?;
        let ids = first..last;
        let mut keys = Vec::new();
        for _ in 0..reader.count(1)? {
            keys.push(places.block(reader.varint()?)?);
        }
        let mut hashes = Vec::new();
        for _ in 0..reader.count(9)? {
            hashes.push((reader.u64()?, places.block(reader.varint()?)?));
        }
        let filter = places.block(reader.varint()?)?;
        let mut entries = Vec::new();
        for _ in 0..reader.count(2)? {
            entries.push((reader.bytes()?.into(), places.block(reader.varint()?)?));
        }
        reader.finish()?;
        if places.next != end || keys.len() != ids.len().div_ceil(BLOCK_KEYS) {
            return malformed("directory does not describe the segment");
        }
        Ok(Self { ids, keys, hashes, filter, entries })
    }
}

/// Reads a block of keys: the length they have unpacked, or none where they are not packed, then the keys.
fn decode_keys(bytes: &[u8], count: usize) -> Decoded<Vec<Arc<[u8]>>> {
    let mut reader = Reader::new(bytes);
    let len = reader.varint()? as usize;
    let rest = reader.take(reader.remaining())?;
    let unpacked;
    let body = if len == 0 {
        rest
    } else {
        if len > rest.len().saturating_mul(LZ4_RATIO_MAX) {
            return malformed("keys too long");
        }
        unpacked = lz4_flex::block::decompress(rest, len)
            .map_err(|error| Malformed(format!("keys do not unpack: {error}")))?;
        unpacked.as_slice()
    };
    let mut reader = Reader::new(body);
    let mut keys = Vec::with_capacity(count);
    for _ in 0..count {
        let key = reader.bytes()?;
        series_key::check(key)?;
        keys.push(key.into());
    }
    reader.finish()?;
    Ok(keys)
}

fn decode_hashes(bytes: &[u8], ids: &Range<u32>) -> Decoded<Vec<(u64, u32)>> {
    let mut reader = Reader::new(bytes);
    let mut hashes = Vec::with_capacity(bytes.len() / HASH_BYTES);
    while reader.remaining() > 0 {
        let (hash, id) = (reader.u64()?, reader.u32()?);
        if !ids.contains(&id) {
            return malformed("a hash of a series elsewhere");
        }
        hashes.push((hash, id));
    }
    Ok(hashes)
}

/// Reads the entries of a block one after another: what each key shares with the one before it, the rest of it,
/// its series.
struct Entries<'a> {
    reader: Reader<'a>,
    /// The key of the present one.
    key: Vec<u8>,
}

impl<'a> Entries<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self { reader: Reader::new(bytes), key: Vec::new() }
    }

    /// Goes on to the next one. Returns what is written of its series.
    fn next(&mut self) -> Decoded<Option<&'a [u8]>> {
        if self.reader.remaining() == 0 {
            return Ok(None);
        }
        let shared = usize::try_from(self.reader.varint()?).unwrap_or(usize::MAX);
        if shared > self.key.len() {
            return malformed("entry without its begin");
        }
        self.key.truncate(shared);
        self.key.extend_from_slice(self.reader.bytes()?);
        Ok(Some(self.reader.bytes()?))
    }
}

/// Reads a block of entries.
fn decode_entries(bytes: &[u8], ids: &Range<u32>) -> Decoded<Vec<Entry>> {
    let mut reader = Entries::of(bytes);
    let mut entries: Vec<Entry> = Vec::new();
    while let Some(series) = reader.next()? {
        entries.push(Entry { key: reader.key.clone(), series: Postings::decode(series, ids)? });
    }
    Ok(entries)
}

/// Gives bytes to every decoder of this file, which may refuse them but not panic.
#[cfg(test)]
pub(super) fn decode_anything(bytes: &[u8]) {
    let ids = 5..15;
    drop(check_header(bytes));
    drop(Trailer::decode(bytes, 100));
    drop(Directory::decode(bytes, 100));
    drop(decode_keys(bytes, 3));
    drop(decode_hashes(bytes, &ids));
    drop(decode_entries(bytes, &ids));
    drop(Membership::decode(bytes));
}
