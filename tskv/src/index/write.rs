//! Makes a segment: keys in order of id, then hashes in order, then entries in order.
//! Invariant: the file and its name are durable when `finish` returns.
// FORMAT: docs/formats/series_segment.md, v2

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::series_key;
use model::wire::Write;

use super::membership::Membership;
use super::postings::Postings;
use super::segment::{
    ALL, BLOCK_KEYS, CRC_BYTES, HASH_BYTES, HEADER_BYTES, MAGIC, TRAILER_BYTES, VERSION, entry_key,
    hash_of,
};
use crate::disk::{Disk, DiskFile, parent};
use crate::error::{Context, Result};

/// Hashes of a block.
const BLOCK_HASHES: usize = 256;
/// A block of entries ends once it has so many bytes.
const BLOCK_ENTRY_BYTES: usize = 4 << 10;
/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 1 << 20;

/// Writes the keys of neighbouring ids, the first of which is `first`, as one segment.
///
/// # Errors
/// A file of that name that is there already, and what the disk says.
pub(crate) fn write_segment(
    disk: &Arc<dyn Disk>,
    path: &Path,
    first: u32,
    keys: &[Arc<[u8]>],
) -> Result<()> {
    let mut writer = SegmentWriter::create(Arc::clone(disk), path, first)?;
    for key in keys {
        writer.key(key)?;
    }
    let mut hashes: Vec<(u64, u32)> =
        (first..).zip(keys).map(|(id, key)| (hash_of(key), id)).collect();
    hashes.sort_unstable();
    for (hash, id) in hashes {
        writer.hash(hash, id)?;
    }
    let mut tags = Vec::new();
    for (id, key) in (first..).zip(keys) {
        let table = series_key::check(key).expect("keys were checked when they were decoded");
        tags.push((table, ALL, "", id));
        tags.extend(series_key::tags(key).map(|(column, value)| (table, column, value, id)));
    }
    // As bytes of entries are in order: numbers are written big-endian.
    tags.sort_unstable();
    for entry in tags.chunk_by(|a, b| (a.0, a.1, a.2) == (b.0, b.1, b.2)) {
        let (table, column, value, _) = entry[0];
        let mut series = Postings::default();
        entry.iter().for_each(|(_, _, _, id)| series.push(*id));
        writer.entry(&entry_key(table, column, value), &series)?;
    }
    writer.finish()
}

/// Writes one segment.
pub(super) struct SegmentWriter {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    buffer: Vec<u8>,
    /// Offset in the file of the buffer's first byte.
    flushed: u64,
    first: u32,
    count: u32,
    /// The block being filled, and what is in it.
    block: Vec<u8>,
    in_block: usize,
    /// The first hash of the block, the first entry, and the entry before.
    first_hash: u64,
    first_entry: Box<[u8]>,
    last_entry: Vec<u8>,
    filter: Option<Membership>,
    keys: Vec<usize>,
    hashes: Vec<(u64, usize)>,
    filter_len: usize,
    entries: Vec<(Box<[u8]>, usize)>,
}

impl SegmentWriter {
    /// Begins a file that must not be there yet.
    pub(super) fn create(disk: Arc<dyn Disk>, path: &Path, first: u32) -> Result<Self> {
        let file = disk.create(path).context("create", path)?;
        let mut buffer = MAGIC.to_vec();
        buffer.put_u32(VERSION);
        buffer.put_u32(crc32fast::hash(&buffer));
        assert_eq!(buffer.len() as u64, HEADER_BYTES, "the header has a fixed length");
        Ok(Self {
            disk,
            path: path.to_path_buf(),
            file,
            buffer,
            flushed: 0,
            first,
            count: 0,
            block: Vec::new(),
            in_block: 0,
            first_hash: 0,
            first_entry: Box::default(),
            last_entry: Vec::new(),
            filter: None,
            keys: Vec::new(),
            hashes: Vec::new(),
            filter_len: 0,
            entries: Vec::new(),
        })
    }

    /// Adds the key of the next id.
    pub(super) fn key(&mut self, key: &[u8]) -> Result<()> {
        assert!(self.filter.is_none(), "keys come first");
        self.block.put_bytes(key);
        self.count += 1;
        self.in_block += 1;
        if self.in_block == BLOCK_KEYS { self.end_keys() } else { Ok(()) }
    }

    fn end_keys(&mut self) -> Result<()> {
        if self.in_block == 0 {
            return Ok(());
        }
        self.in_block = 0;
        let raw = std::mem::take(&mut self.block);
        let packed = lz4_flex::block::compress(&raw);
        let mut block = Vec::with_capacity(raw.len().min(packed.len()) + 4);
        if packed.len() < raw.len() {
            block.put_varint(raw.len() as u64);
            block.extend_from_slice(&packed);
        } else {
            block.put_varint(0);
            block.extend_from_slice(&raw);
        }
        self.keys.push(block.len());
        self.put_block(&block)
    }

    /// Adds the hash of a key and its id, in order.
    pub(super) fn hash(&mut self, hash: u64, id: u32) -> Result<()> {
        if self.filter.is_none() {
            self.end_keys()?;
        }
        let count = self.count as usize;
        self.filter.get_or_insert_with(|| Membership::new(count)).insert(hash);
        if self.block.is_empty() {
            self.first_hash = hash;
        }
        self.block.put_u64(hash);
        self.block.put_u32(id);
        if self.block.len() == BLOCK_HASHES * HASH_BYTES { self.end_hashes() } else { Ok(()) }
    }

    fn end_hashes(&mut self) -> Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = std::mem::take(&mut self.block);
        self.hashes.push((self.first_hash, block.len()));
        self.put_block(&block)
    }

    /// Writes the filter, once all hashes are known.
    fn end_filter(&mut self) -> Result<()> {
        if self.filter_len > 0 {
            return Ok(());
        }
        self.end_keys()?;
        self.end_hashes()?;
        let filter = self.filter.get_or_insert_with(|| Membership::new(0)).encode();
        self.filter_len = filter.len();
        self.put_block(&filter)
    }

    /// Adds an entry, in order.
    pub(super) fn entry(&mut self, key: &[u8], series: &Postings) -> Result<()> {
        self.end_filter()?;
        let shared = if self.block.is_empty() {
            self.first_entry = key.into();
            0
        } else {
            self.last_entry.iter().zip(key).take_while(|(a, b)| a == b).count()
        };
        self.block.put_varint(shared as u64);
        self.block.put_bytes(&key[shared..]);
        self.block.put_bytes(&series.encode(&(self.first..self.first + self.count)));
        self.last_entry.clear();
        self.last_entry.extend_from_slice(key);
        if self.block.len() >= BLOCK_ENTRY_BYTES { self.end_entries() } else { Ok(()) }
    }

    fn end_entries(&mut self) -> Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = std::mem::take(&mut self.block);
        self.entries.push((std::mem::take(&mut self.first_entry), block.len()));
        self.put_block(&block)
    }

    fn put_block(&mut self, block: &[u8]) -> Result<()> {
        self.buffer.extend_from_slice(block);
        self.buffer.put_u32(crc32fast::hash(block));
        if self.buffer.len() >= BUFFER_BYTES { self.write_out() } else { Ok(()) }
    }

    fn write_out(&mut self) -> Result<()> {
        self.file.write_at(self.flushed, &self.buffer).context("write", &self.path)?;
        self.flushed += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes the directory and makes all durable.
    pub(super) fn finish(mut self) -> Result<()> {
        self.end_filter()?;
        self.end_entries()?;
        let directory = self.directory();
        let offset = self.flushed + self.buffer.len() as u64;
        self.buffer.extend_from_slice(&directory);
        let mut trailer = Vec::with_capacity(TRAILER_BYTES as usize);
        trailer.put_u64(offset);
        trailer.put_u64(directory.len() as u64);
        trailer.put_u32(crc32fast::hash(&directory));
        trailer.put_u32(crc32fast::hash(&trailer));
        self.buffer.extend_from_slice(&trailer);
        self.write_out()?;
        self.file.sync().context("sync", &self.path)?;
        let folder = parent(&self.path);
        self.disk.sync_folder(folder).context("sync", folder)
    }

    fn directory(&self) -> Vec<u8> {
        let mut directory = Vec::new();
        directory.put_varint(u64::from(self.first));
        directory.put_varint(u64::from(self.count));
        directory.put_varint(self.keys.len() as u64);
        for len in &self.keys {
            directory.put_varint(*len as u64);
        }
        directory.put_varint(self.hashes.len() as u64);
        for (first, len) in &self.hashes {
            directory.put_u64(*first);
            directory.put_varint(*len as u64);
        }
        directory.put_varint(self.filter_len as u64);
        directory.put_varint(self.entries.len() as u64);
        for (first, len) in &self.entries {
            directory.put_bytes(first);
            directory.put_varint(*len as u64);
        }
        directory
    }
}

const _: () = assert!(CRC_BYTES == 4, "checksums are CRC-32");
