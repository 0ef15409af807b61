//! Row groups at hand: what a reading decoded lately, and what of it is kept for others.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrow::array::UInt32Array;
use model::{ColumnId, ValueType};

use crate::decoded::{DecodedCache, GroupPart, Part};
use crate::error::Result;
use crate::run::{Run, RunColumn};
use crate::tsm::{TsmFile, vector_rows};

/// Row groups and vectors kept at hand, for series that share them.
const PARTS_AT_HAND: usize = 32;
/// The most bytes they take, but for one alone.
const BYTES_AT_HAND: usize = 64 << 20;

/// What was decoded lately.
#[derive(Clone, Default)]
pub(super) struct AtHand {
    parts: VecDeque<PartAtHand>,
    /// How many bytes they take.
    bytes: usize,
    /// Row groups that were looked into.
    pub(super) groups: usize,
    /// Vectors that were, without the rest of their row group.
    pub(super) vectors: usize,
    cache: Option<Arc<DecodedCache>>,
    /// How many bytes this reading, and what it was split into, may still leave in the cache.
    cache_bytes_left: Arc<AtomicUsize>,
}

/// A row group, or a vector of it, with some of its fields.
#[derive(Clone)]
struct PartAtHand {
    /// The file, and what of it.
    place: (usize, GroupPart),
    run: Arc<Run>,
    bytes: usize,
}

impl AtHand {
    /// Makes one that leaves in a cache what it decoded, and takes from there what others did.
    pub(super) fn with_cache(cache: Arc<DecodedCache>) -> Self {
        let left = AtomicUsize::new(cache.scan_bytes_max());
        Self { cache: Some(cache), cache_bytes_left: Arc::new(left), ..Self::default() }
    }

    /// Returns what is kept for others.
    pub(super) fn cache(&self) -> Option<&Arc<DecodedCache>> {
        self.cache.as_ref()
    }

    /// Returns a part of a file of some number with the fields wanted, and maybe others. Blocks on the disk.
    pub(super) fn read(
        &mut self,
        (number, file): (usize, &TsmFile),
        part: GroupPart,
        fields: &[(ColumnId, ValueType)],
    ) -> Result<Arc<Run>> {
        let place = (number, part);
        let group = &file.groups()[part.group];
        let at = self.parts.iter().position(|one| one.place == place);
        let known = match (at, &self.cache) {
            (Some(at), _) => Some(self.parts[at].clone()),
            (None, Some(cache)) => {
                let kept = cache.get(file.mark(), Part::Group(part));
                kept.map(|run| PartAtHand { place, bytes: run.bytes(), run })
            }
            (None, None) => None,
        };
        let is_missing = |(id, _): &&(ColumnId, ValueType)| {
            let of_group = group.column_types().any(|(of_group, _)| of_group == *id);
            let is_known = known.as_ref().is_some_and(|known| known.run.column(*id).is_some());
            of_group && !is_known
        };
        let missing: Vec<_> = fields.iter().filter(is_missing).copied().collect();
        let vectors = match part.vector {
            Some(vector) => vector..vector + 1,
            None => 0..group.vectors(),
        };
        let known_bytes = known.as_ref().map_or(0, |known| known.bytes);
        let run = match (known, part.vector) {
            (Some(known), _) if missing.is_empty() => {
                let run = Arc::clone(&known.run);
                if at.is_none() {
                    self.keep(known);
                }
                return Ok(run);
            }
            (Some(known), _) => {
                let mut run = Arc::unwrap_or_clone(known.run);
                run.columns.extend(file.read_columns(group, &missing, vectors)?);
                run
            }
            (None, Some(vector)) => {
                // What of the row group is there is copied, so that it need not be held.
                let all = self.read((number, file), GroupPart { vector: None, ..part }, &[])?;
                let rows = vector_rows(vector, all.rows());
                let picks: UInt32Array = rows.clone().map(|row| row as u32).collect();
                let known = missing.iter().filter_map(|(id, _)| all.column(*id));
                let known: Vec<RunColumn> = known.map(|column| column.pick(&picks)).collect();
                let is_unknown = |(id, _): &&(ColumnId, ValueType)| all.column(*id).is_none();
                let unknown: Vec<_> = missing.iter().filter(is_unknown).copied().collect();
                let mut columns = file.read_columns(group, &unknown, vectors)?;
                columns.extend(known);
                Run {
                    series: all.series[rows.clone()].to_vec().into(),
                    times: all.times[rows].to_vec().into(),
                    columns,
                }
            }
            (None, None) => file.read(group, &missing)?,
        };
        let (bytes, run) = (run.bytes(), Arc::new(run));
        if let Some(cache) = &self.cache {
            let take = |left: usize| left.checked_sub(bytes.saturating_sub(known_bytes));
            let left = &self.cache_bytes_left;
            if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
                cache.put(file.mark(), Part::Group(part), &run);
            }
        }
        let read = PartAtHand { place, run: Arc::clone(&run), bytes };
        match at {
            Some(at) => {
                self.bytes = self.bytes - known_bytes + bytes;
                self.parts[at] = read;
            }
            None => self.keep(read),
        }
        Ok(run)
    }

    fn keep(&mut self, part: PartAtHand) {
        match part.place.1.vector {
            Some(_) => self.vectors += 1,
            None => self.groups += 1,
        }
        self.bytes += part.bytes;
        while self.parts.len() == PARTS_AT_HAND || self.bytes > BYTES_AT_HAND {
            let Some(oldest) = self.parts.pop_front() else { break };
            self.bytes -= oldest.bytes;
        }
        self.parts.push_back(part);
    }
}
