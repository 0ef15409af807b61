//! The catalog's state machine over its store: applies commands, keeps the cache, makes images.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use model::wire::{Malformed, Reader, Write};
use parking_lot::Mutex;
use replication::{Image, Machine};
use tokio::sync::watch;

use crate::apply::apply;
use crate::catalog::{Catalog, Change, Entity};
use crate::command::{self, Reply};
use crate::error::{Error, Result};
use crate::store::MetaStore;

/// The machine of the meta group.
#[derive(Debug)]
pub struct MetaMachine {
    store: MetaStore,
    catalog: watch::Sender<Arc<Catalog>>,
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
        let mut catalog = Catalog::at_version(1);
        for row in store.rows().map_err(damaged)? {
            catalog.put(decode_row(&row).map_err(damaged)?);
        }
        let (catalog, _) = watch::channel(Arc::new(catalog));
        Ok(Self { store, catalog, applying: Mutex::new(()) })
    }

    /// Returns the catalog as it changes.
    pub fn watch(&self) -> watch::Receiver<Arc<Catalog>> {
        self.catalog.subscribe()
    }

    fn apply_all(&self, raft_state: &[u8], commands: &[Bytes]) -> io::Result<Vec<Bytes>> {
        let _guard = self.applying.lock();
        let mut catalog = Catalog::clone(&self.catalog.borrow());
        let mut rows = Vec::new();
        let mut replies = Vec::with_capacity(commands.len());
        for command in commands {
            let command = command::decode(command).map_err(damaged)?;
            let answer = apply(&catalog, command).map(|(changes, reply)| {
                changes.iter().for_each(|change| catalog.absorb(change));
                rows.extend(changes.iter().map(row_of));
                reply
            });
            replies.push(encode_reply(&answer)?);
        }
        let rows = rows.into_iter().collect::<io::Result<Vec<_>>>()?;
        self.store.apply(&rows, raft_state)?;
        if !rows.is_empty() {
            catalog.version += 1;
            self.catalog.send_replace(Arc::new(catalog));
        }
        Ok(replies)
    }
}

type Row = (Vec<u8>, Option<Vec<u8>>);

fn row_of(change: &Change) -> io::Result<Row> {
    Ok(match change {
        Change::Put(entity) => (entity.key().bytes(), Some(encode_row(entity)?)),
        Change::Delete(key) => (key.bytes(), None),
    })
}

// FORMAT: docs/formats/meta.md, v1
fn encode_row(entity: &Entity) -> io::Result<Vec<u8>> {
    serde_json::to_vec(entity).map_err(damaged)
}

fn decode_row(row: &[u8]) -> io::Result<Entity> {
    serde_json::from_slice(row).map_err(damaged)
}

fn encode_reply(answer: &Result<Reply>) -> io::Result<Bytes> {
    serde_json::to_vec(answer).map(Bytes::from).map_err(damaged)
}

/// Decodes what [`MetaMachine`] answered to a command.
pub(crate) fn decode_reply(bytes: &[u8]) -> Result<Reply> {
    serde_json::from_slice(bytes).map_err(|error| Error::Corrupt(error.to_string()))?
}

/// Writes an image: the raft state, then every row.
fn encode_image(raft_state: Option<&Bytes>, rows: &[Bytes]) -> Bytes {
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
        let mut catalog = Catalog::at_version(self.catalog.borrow().version + 1);
        let mut keyed = Vec::with_capacity(rows.len());
        for row in rows {
            let entity = decode_row(&row)?;
            keyed.push((entity.key().bytes(), row.to_vec()));
            catalog.put(entity);
        }
        let raft_state = image.raft_state.unwrap_or_default();
        let rows: Vec<Bytes> = keyed.iter().map(|(_, row)| Bytes::copy_from_slice(row)).collect();
        let data = encode_image(Some(&raft_state), &rows);
        self.store.replace(&keyed, (&raft_state, &data))?;
        self.catalog.send_replace(Arc::new(catalog));
        Ok(())
    }
}
