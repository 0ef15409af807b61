//! How many rows a reading expects, told from statistics alone.

use model::TimeRange;

use super::{RowReader, RunSource};
use crate::tsm::RowGroup;

/// Of so many series the rows that will come are added up one by one.
const SERIES_EXPECTED_MAX: usize = 256;
/// So many row groups are few to decode.
const GROUPS_FEW: usize = 16;

/// About how many rows of a series there are, and how many bytes of values they take decoded.
#[derive(Clone, Copy, Default)]
pub(super) struct Estimate {
    pub(super) rows: usize,
    pub(super) bytes: usize,
}

impl Estimate {
    /// Returns the mean of rows in memory.
    pub(super) fn mean(runs: &[RunSource], series: usize) -> Estimate {
        let rows: usize = runs.iter().map(|source| source.run.rows()).sum();
        let bytes: usize = runs.iter().map(|source| source.run.bytes()).sum();
        Estimate { rows: rows.div_ceil(series), bytes: bytes.div_ceil(series) }
    }
}

impl RowReader {
    /// Returns about how many rows will come: those of a row group are taken to lie evenly among its
    /// series and over its times.
    pub(crate) fn rows_expected(&self) -> usize {
        let series = &self.series[self.next_series..self.end_series];
        let within = |group: &RowGroup| group.rows as f64 * share(&group.times, &self.times);
        if series.len() > SERIES_EXPECTED_MAX {
            let groups = self.files.iter().flat_map(|source| {
                source.groups.iter().map(|number| within(&source.file.groups()[*number]))
            });
            let in_memory: usize = self.runs.iter().map(|source| source.run.rows()).sum();
            return groups.sum::<f64>() as usize + in_memory;
        }
        let expected = series.iter().map(|id| {
            let of_one = |group: &RowGroup| within(group) / f64::from(group.series_count.max(1));
            let in_memory = self.runs.iter().map(|source| {
                let (start, end) = source.run.rows_of(*id, self.times);
                end - start
            });
            self.groups_of(*id).map(of_one).sum::<f64>().ceil() as usize + in_memory.sum::<usize>()
        });
        expected.sum()
    }

    /// Returns whether few series are asked for, in few row groups.
    pub(crate) fn reads_little(&self) -> bool {
        let series = &self.series[self.next_series..self.end_series];
        let groups = || series.iter().flat_map(|id| self.groups_of(*id));
        series.len() <= SERIES_EXPECTED_MAX && groups().nth(GROUPS_FEW).is_none()
    }

    /// Returns about how much a series holds.
    pub(super) fn estimate(&self, series: u32) -> Estimate {
        let mut all = Estimate::default();
        for group in self.groups_of(series) {
            let share = group.series_count.max(1) as usize;
            all.rows += (group.rows as usize).div_ceil(share);
            all.bytes += group.value_bytes(&self.fields).div_ceil(share);
        }
        if let Some(mean) = self.in_memory {
            return Estimate { rows: all.rows + mean.rows, bytes: all.bytes + mean.bytes };
        }
        for source in &self.runs {
            let (start, end) = source.run.rows_of(series, self.times);
            all.rows += end - start;
            all.bytes += (end - start) * self.fields.len() * 8 + source.run.text_bytes(start, end);
        }
        all
    }
}

/// Returns how much of some times lies within others, 0 to 1.
fn share(times: &TimeRange, within: &TimeRange) -> f64 {
    let length = |times: &TimeRange| times.max.saturating_sub(times.min) as f64 + 1.0;
    let shared = times.intersect(within);
    if shared.is_empty() { 0.0 } else { length(&shared) / length(times) }
}
