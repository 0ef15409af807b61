//! The series of a vnode: key to id and back, and the segments that keep them on disk.
//! Ids are given in log order, so that all replicas agree on them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use model::wire::{Malformed, Write};
use model::{ColumnId, TableId, series_key};
use serde::{Deserialize, Serialize};

use crate::disk::{Disk, read_file, write_new_file};
use crate::error::{Context, Error, Result};
use crate::sealed;

const MAGIC: &[u8; 8] = b"CNOSIDX\0";
const VERSION: u32 = 1;

/// Which series a scan wants: those for which every term holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesFilter {
    /// A tag and the values it may have; `None` is NULL.
    pub terms: Vec<(ColumnId, Vec<Option<String>>)>,
}

/// All series of a vnode, in memory.
#[derive(Debug, Default)]
pub(crate) struct SeriesTable {
    ids: HashMap<Arc<[u8]>, u32>,
    keys: Vec<Arc<[u8]>>,
    tables: HashMap<TableId, TableSeries>,
}

/// The series of one table.
#[derive(Debug, Default)]
struct TableSeries {
    /// In order of id.
    ids: Vec<u32>,
    /// The series that have a value of a tag, in order of id.
    by_tag: HashMap<ColumnId, HashMap<Box<str>, Vec<u32>>>,
}

impl SeriesTable {
    /// Returns the id of a key, giving the next one to a new key.
    pub(crate) fn id(&mut self, key: &[u8]) -> u32 {
        if let Some(id) = self.ids.get(key) {
            return *id;
        }
        let id = u32::try_from(self.keys.len()).expect("fewer than 2^32 series in a vnode");
        let key: Arc<[u8]> = key.into();
        self.tables.entry(table_of(&key)).or_default().push(id, &key);
        self.ids.insert(Arc::clone(&key), id);
        self.keys.push(key);
        id
    }

    /// Returns the id of a key, if it has one.
    pub(crate) fn find(&self, key: &[u8]) -> Option<u32> {
        self.ids.get(key).copied()
    }

    /// Returns the series of a table, in order of id.
    pub(crate) fn ids(&self, table: TableId) -> &[u32] {
        self.tables.get(&table).map_or(&[], |series| series.ids.as_slice())
    }

    /// Returns the key of an id that was given.
    pub(crate) fn key(&self, id: u32) -> &[u8] {
        &self.keys[id as usize]
    }

    pub(crate) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Returns the keys of ids `start..end`.
    pub(crate) fn range(&self, start: usize, end: usize) -> Vec<Arc<[u8]>> {
        self.keys[start..end].to_vec()
    }

    /// Returns the series of a table that a filter keeps, in order of id.
    pub(crate) fn matching(&self, table: TableId, filter: &SeriesFilter) -> Vec<(u32, Arc<[u8]>)> {
        let Some(series) = self.tables.get(&table) else { return Vec::new() };
        let candidates = series.candidates(filter);
        let found = candidates.iter().filter_map(|id| {
            let key = &self.keys[*id as usize];
            filter.keeps(key).then(|| (*id, Arc::clone(key)))
        });
        found.collect()
    }
}

impl TableSeries {
    fn push(&mut self, id: u32, key: &[u8]) {
        self.ids.push(id);
        for (column, value) in series_key::tags(key) {
            let values = self.by_tag.entry(column).or_default();
            match values.get_mut(value) {
                Some(series) => series.push(id),
                None => drop(values.insert(value.into(), vec![id])),
            }
        }
    }

    /// Returns the series that the term which leaves fewest keeps, in order of id; all of them where
    /// there is no term, or every term lets NULL pass.
    fn candidates(&self, filter: &SeriesFilter) -> Cow<'_, [u32]> {
        let lists = filter.terms.iter().filter_map(|(column, values)| {
            let known = self.by_tag.get(column);
            let lists = values.iter().map(|value| {
                let value = value.as_deref()?;
                Some(known.and_then(|known| known.get(value)).map_or(&[][..], Vec::as_slice))
            });
            lists.collect::<Option<Vec<&[u32]>>>()
        });
        let size = |lists: &Vec<&[u32]>| lists.iter().map(|list| list.len()).sum::<usize>();
        match lists.min_by_key(size) {
            None => Cow::Borrowed(&self.ids),
            Some(lists) => {
                let mut ids = lists.concat();
                ids.sort_unstable();
                ids.dedup();
                Cow::Owned(ids)
            }
        }
    }
}

impl SeriesFilter {
    fn keeps(&self, key: &[u8]) -> bool {
        self.terms.iter().all(|(column, values)| {
            let value = tag(key, *column);
            values.iter().any(|wanted| wanted.as_deref() == value)
        })
    }
}

fn table_of(key: &[u8]) -> TableId {
    series_key::check(key).expect("keys were checked when the command was decoded")
}

/// Returns a tag's value in a key, `None` where it is NULL.
pub(crate) fn tag(key: &[u8], column: ColumnId) -> Option<&str> {
    series_key::tag(key, column)
}

/// Writes the keys of consecutive ids, the first of which is `first`, as one segment.
// FORMAT: docs/formats/series_segment.md, v1
pub(crate) fn write_segment(
    disk: &dyn Disk,
    path: &Path,
    first: usize,
    keys: &[Arc<[u8]>],
) -> Result<()> {
    let mut bytes = sealed::begin(MAGIC, VERSION);
    bytes.put_varint(first as u64);
    bytes.put_varint(keys.len() as u64);
    for key in keys {
        bytes.put_bytes(key);
    }
    write_new_file(disk, path, &sealed::seal(bytes)).context("write", path)
}

/// Reads a segment into `series`; segments must be read in order.
pub(crate) fn read_segment(disk: &dyn Disk, path: &Path, series: &mut SeriesTable) -> Result<()> {
    let bytes = read_file(disk, path).context("read", path)?;
    let replayed = replay(&bytes, series);
    replayed.map_err(|error| Error::corrupt(path, 0, error))
}

fn replay(bytes: &[u8], series: &mut SeriesTable) -> std::result::Result<(), Malformed> {
    let mut reader = sealed::open(bytes, MAGIC, VERSION)?;
    if reader.varint()? != series.len() as u64 {
        return Err(Malformed("segment out of order".to_owned()));
    }
    for _ in 0..reader.count(5)? {
        let key = reader.bytes()?;
        series_key::check(key)?;
        let next = series.len() as u32;
        if series.id(key) != next {
            return Err(Malformed("series twice".to_owned()));
        }
    }
    reader.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::SeriesKey;

    const TABLE: TableId = TableId(1);

    fn term(column: u32, values: &[Option<&str>]) -> (ColumnId, Vec<Option<String>>) {
        (ColumnId(column), values.iter().map(|value| value.map(str::to_owned)).collect())
    }

    #[test]
    fn a_filter_finds_what_a_walk_over_all_keys_finds() {
        let mut series = SeriesTable::default();
        let values = [None, Some(""), Some("a"), Some("b")];
        for n in 0..48 {
            let other = format!("{}", n / 16);
            let tags = [(ColumnId(1), values[n % 4]), (ColumnId(2), values[n / 4 % 4])];
            let tags = tags.into_iter().chain([(ColumnId(3), Some(other.as_str()))]);
            series.id(SeriesKey::encode(TABLE, tags).as_bytes());
        }
        let one = [None, Some(""), Some("a"), Some("nobody")];
        for first in one {
            for second in one {
                for terms in [
                    vec![],
                    vec![term(1, &[first])],
                    vec![term(1, &[first, Some("b"), first])],
                    vec![term(1, &[first]), term(2, &[second]), term(9, &[None])],
                    vec![term(9, &[second])],
                    vec![term(2, &[])],
                ] {
                    let filter = SeriesFilter { terms };
                    let found: Vec<u32> =
                        series.matching(TABLE, &filter).into_iter().map(|(id, _)| id).collect();
                    let walked = (0..series.len() as u32)
                        .filter(|id| filter.keeps(&series.keys[*id as usize]));
                    assert_eq!(found, walked.collect::<Vec<_>>(), "{filter:?}");
                }
            }
        }
    }
}
