//! The series that no segment holds yet, in memory.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use model::{ColumnId, TableId, series_key};

use super::filter::SeriesFilter;

/// Bytes of memory a series takes beside its key, about; and each of its tags.
const SERIES_BYTES: usize = 96;
const TAG_BYTES: usize = 32;

/// Series with the ids from some first one on.
#[derive(Debug)]
pub(super) struct FreshSeries {
    first: u32,
    ids: HashMap<Arc<[u8]>, u32, RandomState>,
    keys: Vec<Arc<[u8]>>,
    tables: HashMap<TableId, TableSeries>,
}

/// The series of one table.
#[derive(Debug, Default)]
struct TableSeries {
    /// In order of id.
    ids: Vec<u32>,
    /// The series that have a value of a tag, in order of id.
    by_tag: HashMap<ColumnId, HashMap<Box<str>, Vec<u32>, RandomState>>,
}

impl FreshSeries {
    /// Begins with none; the first will have this id.
    pub(super) fn new(first: u32) -> Self {
        Self { first, ids: HashMap::default(), keys: Vec::new(), tables: HashMap::new() }
    }

    /// Returns the id of a key, giving the next one to a new key; and the bytes of memory that takes.
    pub(super) fn give_id(&mut self, key: &[u8]) -> (u32, usize) {
        if let Some(id) = self.ids.get(key) {
            return (*id, 0);
        }
        let id = self.end();
        let key: Arc<[u8]> = key.into();
        let bytes = self.push(Arc::clone(&key), id);
        (id, bytes)
    }

    fn push(&mut self, key: Arc<[u8]>, id: u32) -> usize {
        let table = series_key::check(&key).expect("keys were checked when they were decoded");
        let tags = self.tables.entry(table).or_default().push(id, &key);
        let bytes = 2 * key.len() + SERIES_BYTES + tags * TAG_BYTES;
        self.keys.push(Arc::clone(&key));
        self.ids.insert(key, id);
        bytes
    }

    /// Returns the id of a key, if it has one.
    pub(super) fn find(&self, key: &[u8]) -> Option<u32> {
        self.ids.get(key).copied()
    }

    /// Returns the id of the first series.
    pub(super) fn first(&self) -> u32 {
        self.first
    }

    /// Returns the id the next new series will have.
    pub(super) fn end(&self) -> u32 {
        let len = u32::try_from(self.keys.len()).ok();
        let end = len.and_then(|len| self.first.checked_add(len));
        end.expect("fewer than 2^32 series in a vnode")
    }

    /// Returns the keys in order of id.
    pub(super) fn keys(&self) -> &[Arc<[u8]>] {
        &self.keys
    }

    /// Forgets the series with an id below `end`.
    pub(super) fn drop_before(&mut self, end: u32) {
        let kept = self.keys.split_off((end - self.first) as usize);
        *self = Self::new(end);
        for key in kept {
            let id = self.end();
            self.push(key, id);
        }
    }

    /// Returns the series of a table that a filter keeps, in order of id.
    pub(super) fn matching(&self, table: TableId, filter: &SeriesFilter) -> Vec<u32> {
        let Some(series) = self.tables.get(&table) else { return Vec::new() };
        let (candidates, sieve) = (series.candidates(filter), filter.sieve());
        let key = |id: &u32| &self.keys[(*id - self.first) as usize];
        candidates.iter().copied().filter(|id| sieve.keeps(key(id))).collect()
    }
}

impl TableSeries {
    /// Adds a series. Returns the number of its tags.
    fn push(&mut self, id: u32, key: &[u8]) -> usize {
        self.ids.push(id);
        let mut tags = 0;
        for (column, value) in series_key::tags(key) {
            tags += 1;
            let values = self.by_tag.entry(column).or_default();
            match values.get_mut(value) {
                Some(series) => series.push(id),
                None => drop(values.insert(value.into(), vec![id])),
            }
        }
        tags
    }

    /// Returns the series that the term which leaves fewest keeps, in order of id; all of them where
    /// there is no term, or every term lets NULL pass.
    fn candidates(&self, filter: &SeriesFilter) -> Cow<'_, [u32]> {
        let lists = filter.lists().map(|(column, values)| {
            let known = self.by_tag.get(&column);
            let list = |value: &str| known.and_then(|known| known.get(value));
            values.into_iter().filter_map(list).map(Vec::as_slice).collect::<Vec<&[u32]>>()
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
