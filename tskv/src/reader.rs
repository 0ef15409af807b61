//! Reads the rows of one table out of files and memory: prunes by series and time, applies
//! tombstones, merges what overlaps. Scans and compactions both read through it.
//!
//! Memory: one unit of rows, bounded by [`UNIT_ROWS`] and [`UNIT_BYTES`], and the pages it is made of.

mod at_hand;
mod expected;
pub(crate) mod known;
mod last;

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::UInt32Array;
use arrow::buffer::BooleanBuffer;
use model::{ColumnId, TableId, TimeRange, ValueType};
use serde::{Deserialize, Serialize};

use self::at_hand::AtHand;
use self::expected::Estimate;
use crate::decoded::{DecodedCache, GroupPart};
use crate::error::Result;
use crate::merge::{Piece, merge_pieces};
use crate::run::{Run, RunColumn};
use crate::tombstone::{Masks, surviving};
use crate::tsm::{RowGroup, TsmFile, VECTOR_ROWS};
use crate::value_test::ValueTest;
use crate::version::SuperVersion;

/// Rows merged at a time, estimated.
const UNIT_ROWS: usize = 65_536;
/// Fewer are merged at a time where fewer are wanted, but not fewer than this.
const UNIT_ROWS_MIN: usize = 2_048;
/// Bytes of values merged at a time, estimated.
const UNIT_BYTES: usize = 16 << 20;
/// Rows that pass are picked out where they are less than this part; else who asks sorts them out.
const PASSING_SHARE: usize = 4;
/// Where a run has so many rows, or so many series, for each series asked for, these are searched for, else it is
/// walked.
const ROWS_WALKED: usize = 2_048;
const SERIES_WALKED: usize = 16;
/// Series merged at a time.
const UNIT_SERIES_MAX: usize = 8_192;
/// What lies in a run is copied out of it where it is less than this part: the rest need not be held for it.
const HELD_SHARE: usize = 4;
/// With more places of rows at one time, nobody asks whether they are disjoint: it would take longer
/// than to read them.
const PLACES_MAX: usize = 4_096;
/// Above so many series, each is taken to have the mean of rows in memory.
const SERIES_COUNTED_MAX: usize = 4_096;

/// A file's row groups that may hold rows asked for, and the tombstones over them.
#[derive(Clone)]
struct FileSource {
    file: Arc<TsmFile>,
    groups: Vec<usize>,
    masks: Masks,
}

/// A run in memory and the tombstones over it.
#[derive(Clone)]
struct RunSource {
    run: Arc<Run>,
    masks: Masks,
}

/// What was read of how much.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanCounts {
    /// Files with rows of the table in the time range.
    pub files: usize,
    /// All files.
    pub files_all: usize,
    /// Row groups that were looked into, as far as the scan came.
    pub groups: usize,
    /// Row groups of the table.
    pub groups_all: usize,
    /// Vectors that were looked into without the rest of their row group.
    #[serde(default)]
    pub vectors: usize,
    /// Series the filter kept.
    pub series: usize,
}

/// What is known of the rows of a table without reading them, exactly.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExactCounts {
    /// Rows.
    pub rows: usize,
    /// For each column asked for, in order: NULLs, and the lowest and highest value as bits of its
    /// type where they are known.
    pub columns: Vec<(usize, Option<(u64, u64)>)>,
    /// The lowest and highest time; `None` without rows.
    pub times: Option<TimeRange>,
}

/// Which rows a reader yields, and in which order of series.
pub(crate) struct RowRequest {
    pub(crate) table: TableId,
    pub(crate) times: TimeRange,
    pub(crate) fields: Vec<(ColumnId, ValueType)>,
    /// In the order they are to come.
    pub(crate) series: Vec<u32>,
    /// Rows that fail one may be left out.
    pub(crate) tests: Vec<ValueTest>,
}

impl RowRequest {
    /// Asks for all rows of some series.
    pub(crate) fn all(
        table: TableId,
        fields: Vec<(ColumnId, ValueType)>,
        series: Vec<u32>,
    ) -> Self {
        Self { table, times: TimeRange::ALL, fields, series, tests: Vec::new() }
    }
}

/// A reading under way. It sees what was pinned; a clone starts where it stands.
#[derive(Clone)]
pub(crate) struct RowReader {
    table: TableId,
    times: TimeRange,
    fields: Vec<(ColumnId, ValueType)>,
    tests: Vec<ValueTest>,
    files: Vec<FileSource>,
    runs: Vec<RunSource>,
    series: Arc<Vec<u32>>,
    /// Where in `series` each stands; nothing where they ascend.
    rank: Option<Arc<HashMap<u32, u32>>>,
    next_series: usize,
    end_series: usize,
    unit_rows: usize,
    units: VecDeque<Unit>,
    /// What is left of the last unit.
    ready: VecDeque<Run>,
    at_hand: AtHand,
    counts: ScanCounts,
    /// Where series are many: the mean of their rows in memory.
    in_memory: Option<Estimate>,
}

/// Which fields of a row group are wanted.
#[derive(Clone, Copy)]
enum Wanted {
    /// None: series and times alone.
    Keys,
    /// All that are asked for.
    Fields,
    /// Those of the tests.
    Tested,
}

/// Rows of a run.
struct Found {
    run: Arc<Run>,
    /// Where they are: (rank of the series, start, end), in order of rank.
    places: Vec<(u32, usize, usize)>,
}

impl Found {
    fn all(run: Run) -> Self {
        Self { places: run.series_rows().collect(), run: Arc::new(run) }
    }
}

/// Rows merged together: some series within some time.
#[derive(Clone, Copy, Debug)]
struct Unit {
    ranks: (usize, usize),
    times: TimeRange,
}

impl RowReader {
    pub(crate) fn new(pinned: &SuperVersion, request: RowRequest) -> Self {
        let RowRequest { table, times, fields, series, mut tests } = request;
        tests.retain(|test| fields.contains(&(test.column, test.number.value_type())));
        let mut counts = ScanCounts {
            files_all: pinned.version.files.len(),
            series: series.len(),
            ..ScanCounts::default()
        };
        let mut files = Vec::new();
        for one in &pinned.version.files {
            let of_table = one.file.groups_of(table);
            counts.groups_all += of_table.len();
            let inside = |number: &usize| one.file.groups()[*number].times.overlaps(&times);
            let groups: Vec<usize> = of_table.filter(inside).collect();
            if !groups.is_empty() {
                counts.files += 1;
                let masks = pinned.file_masks(&one.entry, table);
                files.push(FileSource { file: Arc::clone(&one.file), groups, masks });
            }
        }
        let runs = pinned.runs.iter().map(|(order, run)| RunSource {
            run: Arc::clone(run),
            masks: pinned.run_masks(*order),
        });
        let runs: Vec<RunSource> = runs.collect();
        let in_memory =
            (series.len() > SERIES_COUNTED_MAX).then(|| Estimate::mean(&runs, series.len()));
        let ranks = || series.iter().enumerate().map(|(rank, id)| (*id, rank as u32)).collect();
        let rank = (!series.is_sorted()).then(|| Arc::new(ranks()));
        Self {
            table,
            times,
            fields,
            tests,
            files,
            runs,
            in_memory,
            next_series: 0,
            end_series: series.len(),
            unit_rows: UNIT_ROWS,
            series: Arc::new(series),
            rank,
            units: VecDeque::new(),
            ready: VecDeque::new(),
            at_hand: AtHand::default(),
            counts,
        }
    }

    /// Has what is decoded kept in a cache, and takes from there what others have decoded.
    pub(crate) fn with_cache(self, cache: Arc<DecodedCache>) -> Self {
        Self { at_hand: AtHand::with_cache(cache), ..self }
    }

    /// Returns the series, in visiting order.
    pub(crate) fn series(&self) -> &[u32] {
        &self.series
    }

    /// Returns where a series stands among them.
    fn rank(&self, id: u32) -> u32 {
        match &self.rank {
            Some(rank) => rank[&id],
            None => self.series.partition_point(|other| *other < id) as u32,
        }
    }

    /// Returns what was read so far.
    pub(crate) fn counts(&self) -> ScanCounts {
        let groups = self.counts.groups + self.at_hand.groups;
        ScanCounts { groups, vectors: self.at_hand.vectors, ..self.counts }
    }

    /// Returns what row groups and runs say of all rows, where that is exact: they lie wholly within
    /// the times, no two of them may hold the same row, and no delete masks any of them. The reader
    /// must read every series of its table.
    pub(crate) fn exact(&self) -> Option<ExactCounts> {
        let mut counts = ExactCounts::default();
        counts.columns.resize(self.fields.len(), (0, None));
        let mut boxes: Vec<(usize, Place)> = Vec::new();
        for (file, source) in self.files.iter().enumerate() {
            for number in &source.groups {
                let group = &source.file.groups()[*number];
                let masked = source.masks.iter().any(|one| one.touches(group.series, &group.times));
                if masked || group.times.intersect(&self.times) != group.times {
                    return None;
                }
                boxes.push((file, Place { times: group.times, series: group.series }));
                counts.add(group.rows as usize, group.times);
                for (column, (id, _)) in counts.columns.iter_mut().zip(&self.fields) {
                    *column = group.fold_column(*id, *column)?;
                }
            }
        }
        // Runs in memory are small and tell no lowest and highest values: with one, a scan is as quick.
        if !self.runs.is_empty() {
            let has_columns = !self.fields.is_empty();
            let runs = self.runs.iter().filter(|source| source.run.rows() > 0).enumerate();
            for (number, source) in runs {
                let place = source.run.place();
                let masked = source.masks.iter().any(|one| one.touches(place.series, &place.times));
                let inside = place.times.intersect(&self.times) == place.times;
                if masked || has_columns || !inside {
                    return None;
                }
                counts.add(source.run.rows(), place.times);
                boxes.push((self.files.len() + number, place));
            }
        }
        disjoint(boxes).then_some(counts)
    }

    /// Restricts the reading to a part of the series, by their place in the order.
    pub(crate) fn restrict(&mut self, start: usize, end: usize) {
        assert!(start <= end && end <= self.series.len(), "part of the series");
        (self.next_series, self.end_series) = (start, end);
        self.counts.series = end - start;
    }

    /// Has about so many rows merged at a time, where no more are wanted.
    pub(crate) fn limit(&mut self, rows: usize) {
        self.unit_rows = rows.clamp(UNIT_ROWS_MIN, UNIT_ROWS);
    }

    /// Returns the next rows, in order of (place of the series, time); `None` at the end. In the
    /// answer a series is its place in the order asked for. Blocks on the disk.
    ///
    /// # Errors
    /// `Corrupt`, naming file and offset; what the disk says.
    pub(crate) fn next_run(&mut self) -> Result<Option<Run>> {
        while self.ready.is_empty() {
            let Some(unit) = self.next_unit() else { return Ok(None) };
            self.ready = self.read(unit)?.into();
        }
        Ok(self.ready.pop_front())
    }

    fn next_unit(&mut self) -> Option<Unit> {
        if let Some(unit) = self.units.pop_front() {
            return Some(unit);
        }
        let start = self.next_series;
        let mut all = Estimate::default();
        while self.next_series < self.end_series && self.next_series - start < UNIT_SERIES_MAX {
            let one = self.estimate(self.series[self.next_series]);
            let (rows, bytes) = (all.rows + one.rows, all.bytes + one.bytes);
            if all.rows > 0 && (rows > self.unit_rows || bytes > UNIT_BYTES) {
                break;
            }
            all = Estimate { rows, bytes };
            self.next_series += 1;
        }
        if start == self.next_series {
            return None;
        }
        let ranks = (start, self.next_series);
        let parts = (all.rows / self.unit_rows).max(all.bytes / UNIT_BYTES);
        if ranks.1 - ranks.0 == 1 && parts > 1 {
            let slices = self.slices(self.series[start], parts);
            self.units = slices.into_iter().map(|times| Unit { ranks, times }).collect();
            return self.units.pop_front();
        }
        Some(Unit { ranks, times: self.times })
    }

    fn groups_of(&self, series: u32) -> impl Iterator<Item = &RowGroup> {
        self.files.iter().flat_map(move |source| {
            let groups = groups_with(source, series, series).iter();
            groups.map(|number| &source.file.groups()[*number])
        })
    }

    /// Cuts the time of one long series into about so many parts, where its row groups end.
    fn slices(&self, series: u32, parts: usize) -> Vec<TimeRange> {
        let all = self.times;
        let mut ends: Vec<i64> = self.groups_of(series).map(|group| group.times.max).collect();
        for source in &self.runs {
            let (start, end) = source.run.rows_of(series, all);
            let step = ((end - start) / parts.max(1)).clamp(1, UNIT_ROWS / 8);
            ends.extend(source.run.times[start..end].iter().skip(step).step_by(step));
        }
        ends.sort_unstable();
        let step = (ends.len() / parts.max(1)).max(1);
        let mut slices = Vec::new();
        let mut from = all.min;
        for end in ends.iter().skip(step - 1).step_by(step) {
            if from <= *end && *end < all.max {
                slices.push(TimeRange { min: from, max: *end });
                from = *end + 1;
            }
        }
        slices.push(TimeRange { min: from, max: all.max });
        slices
    }

    /// Reads the rows of a unit out of all sources.
    fn read(&mut self, unit: Unit) -> Result<Vec<Run>> {
        let mut found: Vec<Found> = Vec::new();
        let mut ids = self.series[unit.ranks.0..unit.ranks.1].to_vec();
        ids.sort_unstable();
        let (Some(lowest), Some(highest)) = (ids.first(), ids.last()) else {
            return Ok(Vec::new());
        };
        let in_memory = self.runs.iter();
        let in_memory =
            in_memory.filter_map(|one| self.found(&one.run, &one.masks, &ids, unit.times));
        let in_memory: Vec<Found> = in_memory.collect();
        let mut groups: Vec<(usize, usize)> = Vec::new();
        for (file, source) in self.files.iter().enumerate() {
            let numbers = groups_with(source, *lowest, *highest).iter().copied();
            let holds = |number: &usize| {
                let group = &source.file.groups()[*number];
                let first = ids.partition_point(|id| *id < group.series.0);
                let holds = ids.get(first).is_some_and(|id| *id <= group.series.1);
                holds && group.times.overlaps(&unit.times)
            };
            groups.extend(numbers.filter(holds).map(|number| (file, number)));
        }
        // Only rows that nothing else may be merged with can be tested by themselves.
        let of_one_file = groups.iter().all(|(file, _)| *file == groups[0].0);
        let are_tested = !self.tests.is_empty() && of_one_file && in_memory.is_empty();
        for (file, number) in groups {
            let group = &self.files[file].file.groups()[number];
            if are_tested && self.tests.iter().any(|test| group.fails(test)) {
                continue;
            }
            for part in self.parts_asked((file, number), &ids, unit.times)? {
                if are_tested {
                    self.add_passing((file, part), &ids, unit.times, &mut found)?;
                } else {
                    let run = self.rows_of((file, part), Wanted::Fields)?;
                    found.extend(self.found(&run, &self.files[file].masks, &ids, unit.times));
                }
            }
        }
        found.extend(in_memory);
        let pieces = found.iter().enumerate().flat_map(|(run, found)| {
            let places = found.places.iter();
            places.map(move |(series, start, end)| Piece {
                series: *series,
                run,
                start: *start,
                end: *end,
            })
        });
        let pieces = pieces.collect();
        let runs: Vec<&Run> = found.iter().map(|found| found.run.as_ref()).collect();
        Ok(merge_pieces(&runs, pieces, &self.fields))
    }

    /// Returns what has to be decoded of a row group for the rows of some series and times.
    fn parts_asked(
        &mut self,
        (file, number): (usize, usize),
        ids: &[u32],
        times: TimeRange,
    ) -> Result<Vec<GroupPart>> {
        let all = GroupPart { group: number, vector: None };
        let group = &self.files[file].file.groups()[number];
        let from = ids.partition_point(|id| *id < group.series.0);
        let to = ids.partition_point(|id| *id <= group.series.1);
        let has_others = to - from < group.series_count as usize;
        let has_all_times = times.intersect(&group.times) == group.times;
        if !group.has_vectors(&self.fields) || (!has_others && has_all_times) {
            return Ok(vec![all]);
        }
        let run = self.rows_of((file, all), Wanted::Keys)?;
        let places = self.places(&run, &self.files[file].masks, ids, times);
        let rows = places.into_iter().map(|(_, start, end)| start..end);
        Ok(self.parts_with(rows, &run, (file, number)))
    }

    /// Returns the vectors that some rows of a row group are in, or all of it where they are most, or all is
    /// decoded.
    fn parts_with(
        &self,
        rows: impl Iterator<Item = Range<usize>>,
        run: &Run,
        (file, number): (usize, usize),
    ) -> Vec<GroupPart> {
        let group = &self.files[file].file.groups()[number];
        let is_decoded = |(id, _): &(ColumnId, ValueType)| {
            run.column(*id).is_some() || group.statistics(*id).is_none()
        };
        let part = |vector| GroupPart { group: number, vector };
        if !group.has_vectors(&self.fields) || self.fields.iter().all(is_decoded) {
            return vec![part(None)];
        }
        let mut vectors: Vec<usize> = rows
            .flat_map(|rows| rows.start / VECTOR_ROWS..rows.end.div_ceil(VECTOR_ROWS))
            .collect();
        vectors.sort_unstable();
        vectors.dedup();
        if vectors.len() > group.vectors() / 2 {
            return vec![part(None)];
        }
        vectors.into_iter().map(|vector| part(Some(vector))).collect()
    }

    /// Adds the rows of a part of a row group that pass the tests, and maybe others. Fields that are tested are
    /// read first, then the others of vectors where a row passes.
    fn add_passing(
        &mut self,
        (file, part): (usize, GroupPart),
        ids: &[u32],
        times: TimeRange,
        found: &mut Vec<Found>,
    ) -> Result<()> {
        let run = self.rows_of((file, part), Wanted::Tested)?;
        let places = self.places(&run, &self.files[file].masks, ids, times);
        let Some(tested) = self.taken(&run, &places) else { return Ok(()) };
        let mut passing = BooleanBuffer::new_set(tested.rows());
        for test in &self.tests {
            let Some(column) = tested.column(test.column) else { return Ok(()) };
            passing = &passing & &test.passing(&column.values);
        }
        let count = passing.count_set_bits();
        if count == 0 {
            return Ok(());
        }
        let are_few = count <= tested.rows() / PASSING_SHARE;
        if are_few && part.vector.is_none() {
            let rows: Vec<usize> = places.iter().flat_map(|(_, start, end)| *start..*end).collect();
            let rows = passing.set_indices().map(|row| rows[row]..rows[row] + 1);
            let parts = self.parts_with(rows, &run, (file, part.group));
            if parts.iter().all(|part| part.vector.is_some()) {
                let mut parts = parts.into_iter();
                return parts
                    .try_for_each(|part| self.add_passing((file, part), ids, times, found));
            }
        }
        let run = self.rows_of((file, part), Wanted::Fields)?;
        found.extend(self.taken(&run, &places).map(|all| {
            Found::all(if are_few {
                let picks: Vec<u32> = passing.set_indices().map(|row| row as u32).collect();
                let series = picks.iter().map(|row| all.series[*row as usize]).collect();
                all.pick(&picks, series)
            } else {
                all
            })
        }));
        Ok(())
    }

    /// Returns a part of a file's row group with the fields wanted, and maybe others.
    fn rows_of(&mut self, (file, part): (usize, GroupPart), wanted: Wanted) -> Result<Arc<Run>> {
        let is_tested =
            |(id, _): &&(ColumnId, ValueType)| self.tests.iter().any(|test| test.column == *id);
        let fields = match wanted {
            Wanted::Keys => Vec::new(),
            Wanted::Fields => self.fields.clone(),
            Wanted::Tested => self.fields.iter().filter(is_tested).copied().collect(),
        };
        self.at_hand.read((file, &self.files[file].file), part, &fields)
    }

    /// Finds the rows of some series and times in a run.
    fn found(&self, run: &Arc<Run>, masks: &Masks, ids: &[u32], times: TimeRange) -> Option<Found> {
        let places = self.places(run, masks, ids, times);
        let rows: usize = places.iter().map(|(_, start, end)| end - start).sum();
        if rows < run.rows() / HELD_SHARE {
            return self.taken(run, &places).map(Found::all);
        }
        (rows > 0).then(|| Found { run: Arc::clone(run), places })
    }

    /// Takes the rows of some series and times out of one run, in order of rank.
    fn part(&self, run: &Run, masks: &Masks, ids: &[u32], times: TimeRange) -> Option<Run> {
        self.taken(run, &self.places(run, masks, ids, times))
    }

    /// Returns where the rows of some series and times are in a run, as (rank, start, end) in order of rank.
    fn places(
        &self,
        run: &Run,
        masks: &Masks,
        ids: &[u32],
        times: TimeRange,
    ) -> Vec<(u32, usize, usize)> {
        let (Some(first), Some(last)) = (run.series.first(), run.series.last()) else {
            return Vec::new();
        };
        let from = ids.partition_point(|id| id < first);
        let to = ids.partition_point(|id| id <= last);
        let ids = &ids[from..to.max(from)];
        let mut found: Vec<(u32, usize, usize)> = Vec::new();
        let mut find = |id: u32, (start, end): (usize, usize)| {
            if start < end {
                let rank = self.rank(id);
                surviving_rows(run, masks, (id, start, end), |start, end| {
                    found.push((rank, start, end));
                });
            }
        };
        // At most so many series are in the run.
        let span = (last - first) as usize + 1;
        let are_few = ids.len() < run.rows() / ROWS_WALKED || ids.len() < span / SERIES_WALKED;
        if are_few && ids.len() < run.rows() / SERIES_WALKED {
            ids.iter().for_each(|id| find(*id, run.rows_of(*id, times)));
        } else {
            // Walking the run costs less than searching it for each.
            for (id, start, end) in run.series_rows() {
                if ids.binary_search(&id).is_ok() {
                    find(id, run.within(start, end, times));
                }
            }
        }
        found.sort_unstable();
        found
    }

    /// Takes the rows in some places out of a run; `None` where there are none.
    fn taken(&self, run: &Run, places: &[(u32, usize, usize)]) -> Option<Run> {
        let (_, start, _) = *places.first()?;
        let rows = places.iter().map(|(_, start, end)| end - start).sum();
        let mut ranks = Vec::with_capacity(rows);
        for (rank, start, end) in places {
            ranks.resize(ranks.len() + end - start, *rank);
        }
        let together = places.windows(2).all(|pair| pair[0].2 == pair[1].1);
        let is_wanted = |column: &&RunColumn| self.fields.iter().any(|(id, _)| *id == column.id);
        let columns = run.columns.iter().filter(is_wanted);
        if together {
            let end = start + ranks.len();
            let times = run.times.slice(start, end - start);
            let columns = columns.map(|column| column.slice(start, end)).collect();
            return Some(Run { series: ranks.into(), times, columns });
        }
        let picks: Vec<u32> =
            places.iter().flat_map(|(_, start, end)| *start as u32..*end as u32).collect();
        let times = picks.iter().map(|row| run.times[*row as usize]).collect();
        let picks = UInt32Array::from(picks);
        let columns = columns.map(|column| column.pick(&picks)).collect();
        Some(Run { series: ranks.into(), times, columns })
    }
}

/// The series and times some rows lie within.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) series: (u32, u32),
    pub(crate) times: TimeRange,
}

impl ExactCounts {
    fn add(&mut self, rows: usize, times: TimeRange) {
        self.rows += rows;
        self.times = Some(match self.times {
            None => times,
            Some(so_far) => {
                TimeRange { min: so_far.min.min(times.min), max: so_far.max.max(times.max) }
            }
        });
    }
}

/// Returns whether no two places of different sources share a series and an instant.
fn disjoint(mut places: Vec<(usize, Place)>) -> bool {
    places.sort_unstable_by_key(|(_, place)| place.times.min);
    let mut open: Vec<(usize, Place)> = Vec::new();
    for (source, place) in places {
        open.retain(|(_, other)| other.times.max >= place.times.min);
        let meets = |(of, other): &(usize, Place)| {
            *of != source && other.series.0 <= place.series.1 && place.series.0 <= other.series.1
        };
        if open.iter().any(meets) || open.len() > PLACES_MAX {
            return false;
        }
        open.push((source, place));
    }
    true
}

/// Returns the rows of a run that no tombstone deleted; `None` where that is all of them.
pub(crate) fn survivors(run: &Run, masks: &Masks) -> Option<Run> {
    let mut picks: Vec<u32> = Vec::with_capacity(run.rows());
    for (series, start, end) in run.series_rows() {
        surviving_rows(run, masks, (series, start, end), |start, end| {
            picks.extend(start as u32..end as u32);
        });
    }
    let series = picks.iter().map(|row| run.series[*row as usize]).collect();
    (picks.len() < run.rows()).then(|| run.pick(&picks, series))
}

/// Returns a file's row groups that may hold series from `lowest` to `highest`.
fn groups_with(source: &FileSource, lowest: u32, highest: u32) -> &[usize] {
    let groups = source.file.groups();
    let start = source.groups.partition_point(|number| groups[*number].series.1 < lowest);
    let end = source.groups.partition_point(|number| groups[*number].series.0 <= highest);
    &source.groups[start..end.max(start)]
}

/// Calls `keep` with each stretch of rows of a series that no tombstone deleted.
fn surviving_rows(
    run: &Run,
    masks: &Masks,
    (series, start, end): (u32, usize, usize),
    mut keep: impl FnMut(usize, usize),
) {
    let Some(kept) = surviving(masks, series, &run.times[start..end]) else {
        keep(start, end);
        return;
    };
    let mut at = 0;
    for stretch in kept.chunk_by(|a, b| a == b) {
        if stretch[0] {
            keep(start + at, start + at + stretch.len());
        }
        at += stretch.len();
    }
}
