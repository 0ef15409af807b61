//! The catalog's state machine over its store: applies commands, keeps the cache, makes images.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use model::wire::{Malformed, Reader, Write};
use parking_lot::Mutex;
use replication::{Image, Machine};
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, watch};

use crate::apply::apply;
use crate::catalog::{Catalog, Change, Counters, Entity, Key};
use crate::command::{self, Reply};
use crate::error::{Error, Result};
use crate::store::MetaStore;

/// Changes that who follows the catalog may lag behind.
const CHANGES_KEPT: usize = 1_024;

/// What one step changed: rows by key, `None` where one was deleted.
pub(crate) type CatalogChange = Arc<Vec<Row>>;

/// A machine's answer to a command.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) outcome: Result<Reply>,
    /// The catalog's version once the command was applied.
    pub(crate) version: u64,
}

/// The machine of the meta group.
#[derive(Debug)]
pub struct MetaMachine {
    store: MetaStore,
    catalog: watch::Sender<Arc<Catalog>>,
    changes: broadcast::Sender<CatalogChange>,
    /// Held while rows change, so that an image is of one moment.
    applying: Mutex<()>,
}

fn damaged(error: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error.to_string())
}

impl MetaMachine {
    /// Loads the catalog that the store holds.
    ///
    /// # Errors
    /// Rows that cannot be read.
    pub fn open(store: MetaStore) -> Result<Self> {
        let damaged = |error: io::Error| Error::Corrupt(error.to_string());
        let catalog = catalog_of(&store.rows().map_err(damaged)?).map_err(damaged)?;
        let (catalog, _) = watch::channel(Arc::new(catalog));
        let (changes, _) = broadcast::channel(CHANGES_KEPT);
        Ok(Self { store, catalog, changes, applying: Mutex::new(()) })
    }

    /// Returns all rows, and what changes from then on.
    pub(crate) fn follow(&self) -> io::Result<(Vec<Bytes>, broadcast::Receiver<CatalogChange>)> {
        let _guard = self.applying.lock();
        let changes = self.changes.subscribe();
        Ok((self.store.rows()?, changes))
    }

    /// Returns the catalog as it changes.
    pub fn watch(&self) -> watch::Receiver<Arc<Catalog>> {
        self.catalog.subscribe()
    }

    /// Returns the bytes of memory that the store takes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        self.store.memory_bytes()
    }

    fn apply_all(&self, raft_state: &[u8], commands: &[Bytes]) -> io::Result<Vec<Bytes>> {
        let _guard = self.applying.lock();
        let mut catalog = Catalog::clone(&self.catalog.borrow());
        let mut rows = Vec::new();
        let mut outcomes = Vec::with_capacity(commands.len());
        for command in commands {
            let command = command::decode(command).map_err(damaged)?;
            outcomes.push(apply(&catalog, command).map(|(changes, reply)| {
                changes.iter().for_each(|change| catalog.absorb(change));
                rows.extend(changes.iter().map(row_of));
                reply
            }));
        }
        if !rows.is_empty() {
            let version = catalog.counters.version + 1;
            let counters = Counters { version, ..catalog.counters };
            let change = Change::Put(Box::new(Entity::Counters(counters)));
            catalog.absorb(&change);
            rows.push(row_of(&change));
        }
        let rows = rows.into_iter().collect::<io::Result<Vec<_>>>()?;
        self.store.apply(&rows, raft_state)?;
        let version = catalog.version();
        if !rows.is_empty() {
            self.catalog.send_replace(Arc::new(catalog));
            // Nobody may follow at the moment.
            let _followers = self.changes.send(Arc::new(rows));
        }
        let answers = outcomes.into_iter().map(|outcome| Answer { outcome, version });
        answers.map(|answer| encode_answer(&answer)).collect()
    }
}

pub(crate) type Row = (Vec<u8>, Option<Vec<u8>>);

/// Makes a catalog of its rows.
pub(crate) fn catalog_of(rows: &[Bytes]) -> io::Result<Catalog> {
    let mut catalog = Catalog::default();
    for row in rows {
        catalog.put(decode_row(row)?);
    }
    Ok(catalog)
}

/// Returns a catalog with some rows changed.
pub(crate) fn changed(catalog: &Catalog, rows: &[Row]) -> io::Result<Catalog> {
    let mut catalog = catalog.clone();
    for (key, row) in rows {
        let change = match row {
            Some(row) => Change::Put(Box::new(decode_row(row)?)),
            None => Change::Delete(Key::from_bytes(key).ok_or_else(|| damaged("a row's key"))?),
        };
        catalog.absorb(&change);
    }
    Ok(catalog)
}

fn row_of(change: &Change) -> io::Result<Row> {
    Ok(match change {
        Change::Put(entity) => (entity.key().bytes(), Some(encode_row(entity)?)),
        Change::Delete(key) => (key.bytes(), None),
    })
}

// FORMAT: docs/formats/meta.md, v1
pub(crate) fn encode_row(entity: &Entity) -> io::Result<Vec<u8>> {
    serde_json::to_vec(entity).map_err(damaged)
}

pub(crate) fn decode_row(row: &[u8]) -> io::Result<Entity> {
    serde_json::from_slice(row).map_err(damaged)
}

/// Returns rows with their keys.
pub(crate) fn keyed(rows: Vec<Bytes>) -> io::Result<Vec<(Vec<u8>, Bytes)>> {
    rows.into_iter().map(|row| Ok((decode_row(&row)?.key().bytes(), row))).collect()
}

fn encode_answer(answer: &Answer) -> io::Result<Bytes> {
    serde_json::to_vec(answer).map(Bytes::from).map_err(damaged)
}

/// Decodes what [`MetaMachine`] answered to a command.
pub(crate) fn decode_answer(bytes: &[u8]) -> Result<Answer> {
    serde_json::from_slice(bytes).map_err(|error| Error::Corrupt(error.to_string()))
}

/// Writes an image: the raft state, then every row.
pub(crate) fn encode_image(raft_state: Option<&Bytes>, rows: &[Bytes]) -> Bytes {
    let mut out = Vec::new();
    out.put_bytes(raft_state.map_or(&[][..], |state| &state[..]));
    out.put_varint(rows.len() as u64);
    rows.iter().for_each(|row| out.put_bytes(row));
    out.into()
}

fn decode_image(bytes: &[u8]) -> std::result::Result<(Option<Bytes>, Vec<Bytes>), Malformed> {
    let mut reader = Reader::new(bytes);
    let state = Bytes::copy_from_slice(reader.bytes()?);
    let count = reader.count(1)?;
    let rows = (0..count).map(|_| reader.bytes().map(Bytes::copy_from_slice));
    let rows = rows.collect::<std::result::Result<_, _>>()?;
    Ok(((!state.is_empty()).then_some(state), rows))
}

impl Machine for MetaMachine {
    fn applied(&self) -> io::Result<Option<Bytes>> {
        self.store.applied()
    }

    async fn apply(
        &self,
        _index: u64,
        raft_state: Bytes,
        commands: Vec<Bytes>,
    ) -> io::Result<Vec<Bytes>> {
        self.apply_all(&raft_state, &commands)
    }

    async fn snapshot(&self) -> io::Result<Image> {
        let _guard = self.applying.lock();
        let raft_state = self.store.applied()?;
        let rows = self.store.rows()?;
        let data = encode_image(raft_state.as_ref(), &rows);
        self.store.keep_snapshot(&data)?;
        Ok(Image { raft_state, data })
    }

    fn last_snapshot(&self) -> io::Result<Option<Image>> {
        let Some(data) = self.store.snapshot()? else { return Ok(None) };
        let (raft_state, _) = decode_image(&data).map_err(damaged)?;
        Ok(Some(Image { raft_state, data }))
    }

    async fn install(&self, image: Image) -> io::Result<()> {
        let _guard = self.applying.lock();
        let (_, rows) = decode_image(&image.data).map_err(damaged)?;
        let catalog = catalog_of(&rows)?;
        let raft_state = image.raft_state.unwrap_or_default();
        let data = encode_image(Some(&raft_state), &rows);
        self.store.replace(&keyed(rows)?, (&raft_state, &data))?;
        self.catalog.send_replace(Arc::new(catalog));
        // Who follows by changes has missed some: an empty change tells them to begin anew.
        let changes: Vec<Row> = Vec::new();
        let _followers = self.changes.send(Arc::new(changes));
        Ok(())
    }
}
