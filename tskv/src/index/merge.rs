//! Merging segments: neighbours become one, block by block. Of what is read no more than a block of each is
//! in memory, of what is written the directory and the filter.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::postings::Postings;
use super::segment::{Entry, Segment};
use super::write::SegmentWriter;
use crate::disk::Disk;
use crate::error::Result;

/// So many neighbours of like size become one.
const MERGE_SEGMENTS: usize = 4;
/// Sizes are alike where none is so many times as large as a newer one.
const LIKE: usize = 2;

/// Returns the places of neighbours that are due to become one, the newest where there are several.
/// `sizes` are in order of age.
pub(crate) fn segments_due(sizes: &[usize]) -> Option<Range<usize>> {
    (MERGE_SEGMENTS..=sizes.len()).rev().find_map(|end| {
        let mut largest = *sizes.get(end - 1)?;
        let older = sizes.get(..end)?.iter().rev();
        let alike = older.take_while(|size| {
            let is_alike = **size <= largest * LIKE;
            largest = largest.max(**size);
            is_alike
        });
        let start = end - alike.count();
        (end - start >= MERGE_SEGMENTS).then_some(start..end)
    })
}

/// Writes neighbours, oldest first, as one. Returns whether it was not stopped meanwhile.
///
/// # Errors
/// A damaged segment, what the disk says.
pub(crate) fn merge(
    disk: &Arc<dyn Disk>,
    path: &Path,
    segments: &[Arc<Segment>],
    stop: &AtomicBool,
) -> Result<bool> {
    let first = segments.first().map_or(0, |segment| segment.ids().start);
    let mut writer = SegmentWriter::create(Arc::clone(disk), path, first)?;
    for segment in segments {
        for number in 0..segment.blocks()[0] {
            if stop.load(Ordering::Acquire) {
                return Ok(false);
            }
            for key in segment.keys_of_block(number)? {
                writer.key(&key)?;
            }
        }
    }
    let hashes = |segment: &Arc<Segment>, number| segment.hashes_of_block(number);
    let mut all = Merge::new(segments, |segment| segment.blocks()[1], hashes)?;
    while let Some((hash, id)) = all.next()? {
        if stop.load(Ordering::Acquire) {
            return Ok(false);
        }
        writer.hash(hash, id)?;
    }
    let entries = |segment: &Arc<Segment>, number| {
        let entries = segment.entries_of_block(number)?;
        Ok(entries.into_iter().map(|Entry { key, series }| (key, Values(series))).collect())
    };
    let mut all = Merge::new(segments, |segment| segment.blocks()[2], entries)?;
    let mut last: Option<(Vec<u8>, Postings)> = None;
    while let Some((key, Values(series))) = all.next()? {
        if stop.load(Ordering::Acquire) {
            return Ok(false);
        }
        match &mut last {
            Some((same, before)) if *same == key => before.append(series),
            _ => {
                if let Some((key, series)) = last.replace((key, series)) {
                    writer.entry(&key, &series)?;
                }
            }
        }
    }
    if let Some((key, series)) = last {
        writer.entry(&key, &series)?;
    }
    writer.finish()?;
    Ok(true)
}

/// Series of an entry, which have no part in its order.
struct Values(Postings);

/// One of several lists.
struct List<K, V> {
    blocks: usize,
    next: usize,
    /// What is left of the block before the next.
    left: std::vec::IntoIter<(K, V)>,
}

/// Several ordered lists as one, block by block; equal keys come in the order of the lists.
struct Merge<'a, K, V, R> {
    segments: &'a [Arc<Segment>],
    read: R,
    lists: Vec<List<K, V>>,
    heads: BinaryHeap<Reverse<(K, usize)>>,
    values: Vec<Option<V>>,
}

impl<'a, K: Ord, V, R> Merge<'a, K, V, R>
where
    R: Fn(&Arc<Segment>, usize) -> Result<Vec<(K, V)>>,
{
    fn new(
        segments: &'a [Arc<Segment>],
        blocks: impl Fn(&Segment) -> usize,
        read: R,
    ) -> Result<Self> {
        let list = |segment: &Arc<Segment>| List {
            blocks: blocks(segment),
            next: 0,
            left: Vec::new().into_iter(),
        };
        let mut merge = Self {
            segments,
            read,
            lists: segments.iter().map(list).collect(),
            heads: BinaryHeap::new(),
            values: segments.iter().map(|_| None).collect(),
        };
        for list in 0..segments.len() {
            merge.advance(list)?;
        }
        Ok(merge)
    }

    fn next(&mut self) -> Result<Option<(K, V)>> {
        let Some(Reverse((key, list))) = self.heads.pop() else { return Ok(None) };
        let value = self.values[list].take().expect("a head has its value");
        self.advance(list)?;
        Ok(Some((key, value)))
    }

    fn advance(&mut self, list: usize) -> Result<()> {
        let List { blocks, next, left } = &mut self.lists[list];
        loop {
            if let Some((key, value)) = left.next() {
                self.heads.push(Reverse((key, list)));
                self.values[list] = Some(value);
                return Ok(());
            }
            if next == blocks {
                return Ok(());
            }
            *left = (self.read)(&self.segments[list], *next)?.into_iter();
            *next += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_of_like_size_are_merged_and_each_series_is_copied_seldom() {
        assert_eq!(segments_due(&[]), None);
        assert_eq!(segments_due(&[5, 5, 5]), None);
        assert_eq!(segments_due(&[5, 5, 5, 5]), Some(0..4));
        assert_eq!(segments_due(&[1_000, 5, 5, 5, 5]), Some(1..5));
        assert_eq!(segments_due(&[1_000, 5, 5, 5]), None);
        assert_eq!(segments_due(&[8, 5, 9, 6, 1]), Some(0..4));
        let (mut sizes, mut copied) = (Vec::new(), 0);
        for _ in 0..1_000 {
            sizes.push(1);
            while let Some(due) = segments_due(&sizes) {
                let sum: usize = sizes[due.clone()].iter().sum();
                copied += sum;
                sizes.splice(due, [sum]);
            }
            assert!(sizes.len() < 16, "{sizes:?}");
        }
        assert!(copied < 8 * 1_000, "{copied}");
    }
}
