//! RocksDB: the catalog's rows, its Raft log and its Raft state, each in a column family.
//!
//! Invariant: entries and votes are synced before they are acknowledged; what apply writes is not,
//! as the log replays it, but it is written in one batch with the raft state it belongs to.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use replication::{BegunAlone, Completion, LogStore};
use rocksdb::properties::{BLOCK_CACHE_USAGE, CUR_SIZE_ALL_MEM_TABLES, ESTIMATE_TABLE_READERS_MEM};
use rocksdb::{
    ColumnFamily, ColumnFamilyDescriptor, DB, Direction, IteratorMode, Options, WriteBatch,
    WriteOptions,
};

use crate::error::{Error, Result};

const LOG: &str = "log";
const STATE: &str = "state";
const ROWS: &str = "rows";

const VOTE: &[u8] = b"vote";
const COMMITTED: &[u8] = b"committed";
const PURGED: &[u8] = b"purged";
const APPLIED: &[u8] = b"applied";
const FORMAT: &[u8] = b"format";
const SNAPSHOT: &[u8] = b"snapshot";
/// The version of what is stored.
const VERSION: &[u8] = b"1";

/// The open database of a meta member.
#[derive(Clone, Debug)]
pub struct MetaStore {
    db: Arc<DB>,
}

fn io(error: rocksdb::Error) -> io::Error {
    io::Error::other(error)
}

impl MetaStore {
    /// Opens the database in `folder`, or begins one.
    ///
    /// # Errors
    /// A folder in use, a newer format, damage.
    pub fn open(folder: &Path) -> Result<Self> {
        let mut options = Options::default();
        options.create_if_missing(true);
        options.create_missing_column_families(true);
        options.set_max_background_jobs(2);
        options.set_keep_log_file_num(2);
        options.set_max_open_files(64);
        options.set_db_write_buffer_size(16 << 20);
        let mut family = Options::default();
        family.set_write_buffer_size(4 << 20);
        let families =
            [LOG, STATE, ROWS].map(|name| ColumnFamilyDescriptor::new(name, family.clone()));
        let unavailable = |error: rocksdb::Error| {
            Error::Unavailable(format!("open {}: {error}", folder.display()))
        };
        let db = DB::open_cf_descriptors(&options, folder, families).map_err(unavailable)?;
        let store = Self { db: Arc::new(db) };
        let damaged = |error: io::Error| Error::Corrupt(error.to_string());
        match store.get(STATE, FORMAT).map_err(damaged)? {
            None => store.put_synced(STATE, FORMAT, VERSION).map_err(damaged)?,
            Some(version) if version == VERSION => {}
            Some(version) => {
                let version = String::from_utf8_lossy(&version).into_owned();
                return Err(Error::Corrupt(format!(
                    "catalog format {version}; this program reads 1"
                )));
            }
        }
        Ok(store)
    }

    /// Returns the bytes of memory of blocks, indexes and what is not in a file yet.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let of = |name: &str, what| {
            self.db.property_int_value_cf(self.family(name), what).ok().flatten().unwrap_or(0)
        };
        // The families share one cache of blocks.
        let each = |name| of(name, CUR_SIZE_ALL_MEM_TABLES) + of(name, ESTIMATE_TABLE_READERS_MEM);
        [LOG, STATE, ROWS].into_iter().map(each).sum::<u64>() + of(ROWS, BLOCK_CACHE_USAGE)
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("opened with all column families")
    }

    fn get(&self, family: &str, key: &[u8]) -> io::Result<Option<Bytes>> {
        let value = self.db.get_cf(self.family(family), key).map_err(io)?;
        Ok(value.map(Bytes::from))
    }

    fn put_synced(&self, family: &str, key: &[u8], value: &[u8]) -> io::Result<()> {
        let mut batch = WriteBatch::default();
        batch.put_cf(self.family(family), key, value);
        self.write(batch, true)
    }

    fn write(&self, batch: WriteBatch, sync: bool) -> io::Result<()> {
        let mut options = WriteOptions::default();
        options.set_sync(sync);
        self.db.write_opt(batch, &options).map_err(io)
    }

    /// Returns all rows of the catalog.
    pub(crate) fn rows(&self) -> io::Result<Vec<Bytes>> {
        let rows = self.db.iterator_cf(self.family(ROWS), IteratorMode::Start);
        rows.map(|row| row.map(|(_, value)| Bytes::from(value)).map_err(io)).collect()
    }

    /// Returns the raft state of what was applied.
    pub(crate) fn applied(&self) -> io::Result<Option<Bytes>> {
        self.get(STATE, APPLIED)
    }

    /// Writes changed rows and the raft state they belong to, in one batch.
    pub(crate) fn apply(
        &self,
        rows: &[(Vec<u8>, Option<Vec<u8>>)],
        raft_state: &[u8],
    ) -> io::Result<()> {
        let mut batch = WriteBatch::default();
        for (key, row) in rows {
            match row {
                Some(row) => batch.put_cf(self.family(ROWS), key, row),
                None => batch.delete_cf(self.family(ROWS), key),
            }
        }
        batch.put_cf(self.family(STATE), APPLIED, raft_state);
        self.write(batch, false)
    }

    /// Replaces all rows, durably; `snapshot` is the image they came from.
    pub(crate) fn replace(
        &self,
        rows: &[(Vec<u8>, Bytes)],
        (raft_state, snapshot): (&[u8], &[u8]),
    ) -> io::Result<()> {
        let mut batch = WriteBatch::default();
        batch.delete_range_cf(self.family(ROWS), &[0_u8][..], &[0xff_u8][..]);
        for (key, row) in rows {
            batch.put_cf(self.family(ROWS), key, row);
        }
        batch.put_cf(self.family(STATE), APPLIED, raft_state);
        batch.put_cf(self.family(STATE), SNAPSHOT, snapshot);
        self.write(batch, true)
    }

    /// Begins as the only member of a group that has rows already, durably; `snapshot` is their image.
    pub(crate) fn begin_with(
        &self,
        rows: &[(Vec<u8>, Bytes)],
        snapshot: &[u8],
        begun: &BegunAlone,
    ) -> io::Result<()> {
        self.put_synced(STATE, VOTE, &begun.vote)?;
        let purged = [&index_key(begun.last_index)[..], &begun.last[..]].concat();
        self.put_synced(STATE, PURGED, &purged)?;
        self.replace(rows, (&begun.state, snapshot))
    }

    /// Keeps an image as the current snapshot, durably, and with it all that was applied.
    pub(crate) fn keep_snapshot(&self, snapshot: &[u8]) -> io::Result<()> {
        self.put_synced(STATE, SNAPSHOT, snapshot)
    }

    /// Returns the image kept last.
    pub(crate) fn snapshot(&self) -> io::Result<Option<Bytes>> {
        self.get(STATE, SNAPSHOT)
    }

    /// Runs a write off the async threads.
    async fn blocking(
        &self,
        write: impl FnOnce(&Self) -> io::Result<()> + Send + 'static,
    ) -> io::Result<()> {
        let store = self.clone();
        let done = tokio::task::spawn_blocking(move || write(&store)).await;
        done.map_err(io::Error::other)?
    }
}

fn index_key(index: u64) -> [u8; 8] {
    index.to_be_bytes()
}

impl LogStore for MetaStore {
    fn purged(&self) -> io::Result<Option<Bytes>> {
        let purged = self.get(STATE, PURGED)?;
        Ok(purged.map(|value| value.slice(8..)))
    }

    fn last(&self) -> io::Result<Option<Bytes>> {
        let mut entries = self.db.iterator_cf(self.family(LOG), IteratorMode::End);
        entries
            .next()
            .map(|entry| entry.map(|(_, value)| Bytes::from(value)).map_err(io))
            .transpose()
    }

    fn read(&self, start: u64, end: u64, bytes_max: usize) -> io::Result<Vec<Bytes>> {
        let start = index_key(start);
        let from = IteratorMode::From(&start, Direction::Forward);
        let mut entries = Vec::new();
        let mut bytes = 0;
        for entry in self.db.iterator_cf(self.family(LOG), from) {
            let (key, value) = entry.map_err(io)?;
            if *key >= index_key(end)[..] || (bytes >= bytes_max && !entries.is_empty()) {
                break;
            }
            bytes += value.len();
            entries.push(Bytes::from(value));
        }
        Ok(entries)
    }

    fn vote(&self) -> io::Result<Option<Bytes>> {
        self.get(STATE, VOTE)
    }

    fn committed(&self) -> io::Result<Option<Bytes>> {
        self.get(STATE, COMMITTED)
    }

    async fn append(&self, entries: Vec<(u64, Bytes)>, done: Completion) -> io::Result<()> {
        let written = self.blocking(move |store| {
            let mut batch = WriteBatch::default();
            for (index, entry) in entries {
                batch.put_cf(store.family(LOG), index_key(index), entry);
            }
            store.write(batch, true)
        });
        done(written.await);
        Ok(())
    }

    async fn save_vote(&self, vote: Bytes) -> io::Result<()> {
        self.blocking(move |store| store.put_synced(STATE, VOTE, &vote)).await
    }

    async fn save_committed(&self, committed: Bytes) -> io::Result<()> {
        let mut batch = WriteBatch::default();
        batch.put_cf(self.family(STATE), COMMITTED, committed);
        self.write(batch, false)
    }

    async fn truncate(&self, from: u64) -> io::Result<()> {
        self.blocking(move |store| {
            let mut batch = WriteBatch::default();
            batch.delete_range_cf(store.family(LOG), &index_key(from)[..], &[0xff; 9][..]);
            store.write(batch, true)
        })
        .await
    }

    async fn purge(&self, upto: u64, log_id: Bytes) -> io::Result<()> {
        self.blocking(move |store| {
            let before = store.get(STATE, PURGED)?;
            let mut batch = WriteBatch::default();
            let end = index_key(upto.saturating_add(1));
            batch.delete_range_cf(store.family(LOG), &index_key(0)[..], &end[..]);
            if before.is_none_or(|before| before[..8] < index_key(upto)[..]) {
                let value = [&index_key(upto)[..], &log_id[..]].concat();
                batch.put_cf(store.family(STATE), PURGED, value);
            }
            store.write(batch, true)
        })
        .await
    }
}
