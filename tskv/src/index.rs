//! The series of a vnode: key to id and back, tag values to ids. Ids are given in log order, so that all
//! replicas agree on them.
//!
//! The index is a small LSM of its own: series that no file holds yet are in memory (`fresh`), a flush
//! makes them a segment (`segment`, `write`), and compaction merges segments (`merge`). Of a segment only
//! its directory and a filter are in memory. Keys met lately are known without a look at the disk
//! (`cache`, which all vnodes of a node share).
//!
//! Invariants: segments hold the ids from 0 on without a gap, oldest first; what is fresh follows them. An
//! id means the same key for ever, whatever is flushed, merged or taken from another replica meanwhile.

mod cache;
mod filter;
mod fresh;
mod membership;
mod merge;
mod postings;
mod segment;
mod write;

use std::path::Path;
use std::sync::Arc;

use model::TableId;
use parking_lot::RwLock;

pub(crate) use cache::Salt;
pub use cache::{SeriesCache, SeriesCacheTotals};
pub use filter::{SeriesFilter, TagTest};
use fresh::FreshSeries;
pub(crate) use merge::{merge, segments_due};
pub(crate) use segment::{Segment, salvage_keys};
pub(crate) use write::write_segment;

use crate::disk::Disk;
use crate::error::{Error, Result};
use crate::version::segment_path;

/// All series of a vnode.
#[derive(Debug)]
pub(crate) struct SeriesIndex {
    parts: RwLock<Parts>,
    cache: Arc<SeriesCache>,
}

#[derive(Debug)]
struct Parts {
    segments: Vec<Arc<Segment>>,
    fresh: FreshSeries,
    /// Tells this vnode's keys, as they are now, from all others in the cache.
    salt: Salt,
}

impl SeriesIndex {
    /// Opens the index of some segments of a vnode's folder, oldest first.
    ///
    /// # Errors
    /// A damaged segment, or one that does not begin where the one before it ends: `Corrupt`.
    pub(crate) fn open(
        disk: &dyn Disk,
        folder: &Path,
        numbers: &[u64],
        cache: Arc<SeriesCache>,
    ) -> Result<Self> {
        let mut segments: Vec<Arc<Segment>> = Vec::new();
        let mut end = 0;
        for number in numbers {
            let path = segment_path(folder, *number);
            let segment = Segment::open(disk, &path, *number)?;
            if segment.ids().start != end {
                return Err(Error::corrupt(&path, 0, "segment out of order"));
            }
            end = segment.ids().end;
            segments.push(Arc::new(segment));
        }
        let (fresh, salt) = (FreshSeries::new(end), cache.salt());
        Ok(Self { parts: RwLock::new(Parts { segments, fresh, salt }), cache })
    }

    /// Returns what tells its series from those of all others.
    pub(crate) fn salt(&self) -> Salt {
        self.parts.read().salt
    }

    /// Takes over all that another index holds.
    pub(crate) fn replace(&self, other: Self) {
        *self.parts.write() = other.parts.into_inner();
    }

    /// Returns the ids of keys, giving the next ones to new keys; and the bytes of memory these take.
    /// Calls must follow one another.
    ///
    /// # Errors
    /// A damaged segment, what the disk says: no id was given then.
    pub(crate) fn give_ids(&self, keys: &[Box<[u8]>]) -> Result<(Vec<u32>, usize)> {
        let (found, marks) = self.find_cached(keys)?;
        let mut bytes = 0;
        let mut parts = None;
        let mut ids = Vec::with_capacity(keys.len());
        for (key, found) in keys.iter().zip(&found) {
            ids.push(found.unwrap_or_else(|| {
                let parts = parts.get_or_insert_with(|| self.parts.write());
                let (id, more) = parts.fresh.give_id(key);
                bytes += more;
                id
            }));
        }
        drop(parts);
        for ((id, mark), found) in ids.iter().zip(marks).zip(&found) {
            if found.is_none() {
                self.cache.put(mark, *id);
            }
        }
        Ok((ids, bytes))
    }

    /// Returns the ids of those keys that have one.
    ///
    /// # Errors
    /// As [`SeriesIndex::give_ids`].
    pub(crate) fn find(&self, keys: &[Box<[u8]>]) -> Result<Vec<Option<u32>>> {
        self.find_cached(keys).map(|(found, _)| found)
    }

    fn find_cached(&self, keys: &[Box<[u8]>]) -> Result<(Vec<Option<u32>>, Vec<cache::Mark>)> {
        let (mut found, marks, segments) = {
            let parts = self.parts.read();
            let marks: Vec<cache::Mark> = keys.iter().map(|key| parts.salt.mark(key)).collect();
            let find = |(key, mark): (_, &cache::Mark)| {
                self.cache.get(*mark).or_else(|| parts.fresh.find(key))
            };
            let keys = keys.iter().map(AsRef::as_ref);
            let found: Vec<Option<u32>> = keys.zip(&marks).map(find).collect();
            // With what is fresh: a key is in one of both.
            let all = found.iter().all(Option::is_some);
            (found, marks, if all { Vec::new() } else { parts.segments.clone() })
        };
        for ((key, found), mark) in keys.iter().zip(&mut found).zip(&marks) {
            if found.is_none() {
                *found = find_in(&segments, key)?;
                if let Some(id) = found {
                    self.cache.put(*mark, *id);
                }
            }
        }
        Ok((found, marks))
    }

    /// Returns the number of series.
    pub(crate) fn len(&self) -> usize {
        self.parts.read().fresh.end() as usize
    }

    /// Returns the series of a table that a filter keeps, in order of id.
    ///
    /// # Errors
    /// A damaged segment, what the disk says.
    pub(crate) fn matching(&self, table: TableId, filter: &SeriesFilter) -> Result<Vec<u32>> {
        let (segments, fresh) = {
            let parts = self.parts.read();
            (parts.segments.clone(), parts.fresh.matching(table, filter))
        };
        let mut ids = Vec::new();
        for segment in &segments {
            segment.matching(table, filter, &mut ids)?;
        }
        ids.extend(fresh);
        Ok(ids)
    }

    /// Returns the keys of ids that were given, in their order; the ids must ascend.
    ///
    /// # Errors
    /// As [`SeriesIndex::matching`].
    pub(crate) fn keys(&self, ids: &[u32]) -> Result<Vec<Arc<[u8]>>> {
        let (segments, fresh) = {
            let parts = self.parts.read();
            let first = parts.fresh.first();
            let fresh = &ids[ids.partition_point(|id| *id < first)..];
            let key = |id: &u32| Arc::clone(&parts.fresh.keys()[(id - first) as usize]);
            (parts.segments.clone(), fresh.iter().map(key).collect::<Vec<_>>())
        };
        let mut keys = Vec::with_capacity(ids.len());
        let mut rest = ids;
        for segment in &segments {
            let end = rest.partition_point(|id| *id < segment.ids().end);
            segment.keys(&rest[..end], &mut keys)?;
            rest = &rest[end..];
        }
        keys.extend(fresh);
        Ok(keys)
    }

    /// Returns the keys that no segment holds, and the id of the first.
    pub(crate) fn fresh(&self) -> (u32, Vec<Arc<[u8]>>) {
        let parts = self.parts.read();
        (parts.fresh.first(), parts.fresh.keys().to_vec())
    }

    /// Takes a segment that holds what was fresh first.
    pub(crate) fn flushed(&self, segment: Arc<Segment>) {
        let mut parts = self.parts.write();
        parts.fresh.drop_before(segment.ids().end);
        parts.segments.push(segment);
    }

    /// Returns the segments, oldest first.
    pub(crate) fn segments(&self) -> Vec<Arc<Segment>> {
        self.parts.read().segments.clone()
    }

    /// Puts a segment in the place of those it was merged of.
    pub(crate) fn merged(&self, old: &[Arc<Segment>], segment: Arc<Segment>) {
        let mut parts = self.parts.write();
        let same = |all: &[Arc<Segment>]| {
            all.iter().zip(old).all(|(one, other)| one.number() == other.number())
        };
        let Some(at) = parts.segments.windows(old.len()).position(same) else { return };
        parts.segments.splice(at..at + old.len(), [segment]);
    }
}

fn find_in(segments: &[Arc<Segment>], key: &[u8]) -> Result<Option<u32>> {
    for segment in segments.iter().rev() {
        if let Some(id) = segment.find(key)? {
            return Ok(Some(id));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests;
