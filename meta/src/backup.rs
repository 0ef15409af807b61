//! The catalog of a stopped node as lines of text, and back: for the day when most who keep it are lost.

use std::io::{self, BufRead, Read, Write};
use std::path::Path;

use bytes::Bytes;
use model::NodeId;
use serde::{Deserialize, Serialize};

use crate::catalog::Entity;
use crate::error::{Error, Result};
use crate::machine::{catalog_of, decode_row, encode_image, encode_row, keyed};
use crate::store::MetaStore;

const VERSION: u32 = 1;
/// The longest line that is read: no row of a catalog is as long.
const LINE_BYTES_MAX: u64 = 64 << 20;

/// Ids of each kind, and columns of each table, that a restored catalog leaves out.
const IDS_SKIPPED: u32 = 1 << 20;
const COLUMNS_SKIPPED: u32 = 1 << 12;

/// The first line.
#[derive(Debug, Deserialize, Serialize)]
struct Header {
    /// The version of the lines.
    cnosdb_catalog: u32,
    /// The version of the catalog: of two dumps the higher is the newer.
    version: u64,
    rows: usize,
}

fn damaged(error: impl std::fmt::Display) -> Error {
    Error::Corrupt(error.to_string())
}

/// Writes the catalog in a folder as lines of JSON: a header, then a line for each row. Returns its version.
///
/// # Errors
/// A folder without a catalog, or one in use; what the output says.
// FORMAT: docs/formats/meta.md, v1
pub fn dump(folder: &Path, out: &mut impl Write) -> Result<u64> {
    if !folder.is_dir() {
        return Err(Error::Unavailable(format!("{}: there is no catalog", folder.display())));
    }
    let rows = MetaStore::open(folder)?.rows().map_err(damaged)?;
    let version = catalog_of(&rows).map_err(damaged)?.version();
    let header = Header { cnosdb_catalog: VERSION, version, rows: rows.len() };
    let mut write = || -> io::Result<()> {
        serde_json::to_writer(&mut *out, &header)?;
        out.write_all(b"\n")?;
        for row in &rows {
            out.write_all(row)?;
            out.write_all(b"\n")?;
        }
        out.flush()
    };
    write().map_err(|error| Error::Unavailable(error.to_string()))?;
    Ok(version)
}

/// Returns a row whose counters are beyond all that may have been handed out after the dump: a session, table
/// or vnode of then must not be taken for one that is yet to come.
fn beyond(row: &Bytes) -> io::Result<Bytes> {
    let entity = match decode_row(row)? {
        Entity::Counters(counters) => Entity::Counters(counters.raised(IDS_SKIPPED)),
        Entity::Table(mut table) => {
            table.next_column = table.next_column.saturating_add(COLUMNS_SKIPPED);
            Entity::Table(table)
        }
        _ => return Ok(row.clone()),
    };
    Ok(encode_row(&entity)?.into())
}

/// Makes a catalog of a dump in a folder that is not there yet: a node is its only member, which others join.
/// Returns its version.
///
/// # Errors
/// A folder that is there; lines that are no whole dump; a node that the dump does not know.
pub fn restore(folder: &Path, node: NodeId, dump: &mut impl BufRead) -> Result<u64> {
    if folder.try_exists().map_err(|error| Error::Unavailable(error.to_string()))? {
        return Err(Error::Unavailable(format!("{} is there already", folder.display())));
    }
    let mut line = || -> Result<Bytes> {
        let mut line = Vec::new();
        let read = dump.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        read.map_err(|error| Error::Unavailable(error.to_string()))?;
        if line.pop() != Some(b'\n') {
            return Err(damaged("the dump ends before its last line"));
        }
        Ok(line.into())
    };
    let header: Header = serde_json::from_slice(&line()?).map_err(damaged)?;
    if header.cnosdb_catalog != VERSION {
        let version = header.cnosdb_catalog;
        return Err(damaged(format!("dump version {version}; this program reads {VERSION}")));
    }
    let rows: Vec<Bytes> = (0..header.rows).map(|_| line()).collect::<Result<_>>()?;
    let catalog = catalog_of(&rows).map_err(damaged)?;
    if catalog.version() != header.version {
        return Err(damaged("the rows are of another catalog than the first line says"));
    }
    if catalog.node(node).is_none() {
        return Err(Error::not_found("node", &node.to_string()));
    }
    let rows = rows.iter().map(beyond).collect::<io::Result<Vec<_>>>();
    let rows = rows.map_err(damaged)?;
    let begun = replication::begun_alone(node.0, node);
    let image = encode_image(Some(&begun.state), &rows);
    let rows = keyed(rows).map_err(damaged)?;
    let store = MetaStore::open(folder)?;
    store.begin_with(&rows, &image, &begun).map_err(damaged)?;
    Ok(header.version)
}
