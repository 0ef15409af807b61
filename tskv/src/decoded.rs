//! What was read of files and decoded, of all vnodes of a node: row groups, the last rows of series, and series in
//! the order of their tags. It is kept, for neither a file nor a series ever changes. It is a cache only: what it does not know is read. What is in memory and
//! what was deleted since is none of its business: whoever asks merges the one and leaves out the other.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use model::TableId;
use model::generations::Generations;
use parking_lot::Mutex;

use crate::ordered::{OrderedSeries, SeriesAsked};
use crate::run::Run;

/// Bytes of memory where nobody says otherwise.
const BYTES: usize = 32 << 20;
/// What is kept as one, and what one scan leaves, is no more than this part of the cache.
const PARTS_MIN: usize = 4;
/// The part of the cache that series have.
const SERIES_SHARE: usize = 8;

/// Tells an open file from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileMark(u64);

impl FileMark {
    /// Returns one that no other file has.
    pub(crate) fn fresh() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// What is kept of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Part {
    /// The last row of each series of a table, with all its columns.
    LastRows(TableId),
    /// Rows of a row group, with the columns that were asked for, maybe none.
    Group(GroupPart),
}

/// A row group by its number, or a vector of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct GroupPart {
    pub(crate) group: usize,
    pub(crate) vector: Option<usize>,
}

/// Rows of files, decoded, and series in order.
#[derive(Debug)]
pub struct DecodedCache {
    /// Of a generation of rows, two of which are kept.
    bytes_max: usize,
    generations: Mutex<Generations<(FileMark, Part), Arc<Run>>>,
    /// Of a generation of series.
    series_bytes_max: usize,
    series: Mutex<Generations<SeriesAsked, Arc<OrderedSeries>>>,
}

impl Default for DecodedCache {
    fn default() -> Self {
        Self::new(BYTES)
    }
}

impl DecodedCache {
    /// Makes a cache that takes about so many bytes of memory at most.
    pub fn new(bytes: usize) -> Self {
        let series_bytes_max = bytes / SERIES_SHARE / 2;
        let bytes_max = bytes / 2 - series_bytes_max;
        Self {
            bytes_max,
            generations: Mutex::new(Generations::new(bytes_max)),
            series_bytes_max,
            series: Mutex::new(Generations::new(series_bytes_max)),
        }
    }

    /// Returns how many bytes of memory it takes.
    pub fn bytes(&self) -> usize {
        self.generations.lock().cost() + self.series.lock().cost()
    }

    /// Returns series in order.
    pub(crate) fn series(&self, asked: &SeriesAsked) -> Option<Arc<OrderedSeries>> {
        self.series.lock().get(asked)
    }

    /// Keeps them, unless they are too many.
    pub(crate) fn put_series(&self, asked: SeriesAsked, series: &Arc<OrderedSeries>) {
        let bytes = series.bytes();
        if bytes <= self.series_bytes_max / PARTS_MIN {
            self.series.lock().put(asked, Arc::clone(series), bytes);
        }
    }

    /// Returns the rows of a part of a file.
    pub(crate) fn get(&self, file: FileMark, part: Part) -> Option<Arc<Run>> {
        self.generations.lock().get(&(file, part))
    }

    /// Returns how many bytes one scan may leave: one that reads much would drive out what others ask for
    /// again and again.
    pub(crate) fn scan_bytes_max(&self) -> usize {
        self.bytes_max / PARTS_MIN
    }

    /// Keeps them, unless they are too many.
    pub(crate) fn put(&self, file: FileMark, part: Part, run: &Arc<Run>) {
        let bytes = run.bytes();
        if bytes <= self.bytes_max / PARTS_MIN {
            self.generations.lock().put((file, part), Arc::clone(run), bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PART: Part = Part::Group(GroupPart { group: 1, vector: None });

    fn rows(count: usize) -> Arc<Run> {
        let series = (0..count as u32).collect();
        Arc::new(Run { series, times: vec![0; count].into(), columns: Vec::new() })
    }

    #[test]
    fn what_was_asked_for_lately_is_kept_within_the_bytes_there_are() {
        let one = rows(100);
        let cache = DecodedCache::new(10 * one.bytes());
        let files: Vec<FileMark> = (0..20).map(|_| FileMark::fresh()).collect();
        for file in &files {
            cache.put(*file, PART, &one);
            assert!(cache.get(files[0], PART).is_some(), "it is asked for again and again");
            assert!(cache.bytes() <= 10 * one.bytes());
        }
        assert!(cache.get(files[1], PART).is_none(), "nobody asked for it");
        assert!(cache.get(files[19], Part::LastRows(TableId(1))).is_none(), "another part");
        let many = FileMark::fresh();
        cache.put(many, PART, &rows(200));
        assert!(cache.get(many, PART).is_none(), "more than its part");
    }
}
