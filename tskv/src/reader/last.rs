//! The last row of each series, without reading the others where that is possible.

use std::sync::Arc;

use super::{FileSource, RowReader, UNIT_SERIES_MAX, Wanted, groups_with};
use crate::decoded::{GroupPart, Part};
use crate::error::Result;
use crate::merge::{Columns, merge};
use crate::run::{Run, RunColumn};
use crate::tombstone::Masks;

/// The last rows of files with more series are not kept in memory.
const LAST_ROWS_SERIES_MAX: usize = 32_768;
/// All last rows of a file are read for this part of its series.
const SERIES_ASKED_SHARE: usize = 4;

impl RowReader {
    /// Returns the last row of each of the next series that have one; `None` at the end.
    ///
    /// A source's last row of a series is all that matters of it: of the rows at the last time of all,
    /// each is the last of its source, so that merging those gives the row as it is.
    ///
    /// # Errors
    /// As `next_run`.
    pub(crate) fn next_last_rows(&mut self) -> Result<Option<Run>> {
        let start = self.next_series;
        if start == self.end_series {
            return Ok(None);
        }
        self.next_series = (start + UNIT_SERIES_MAX).min(self.end_series);
        let mut ids = self.series[start..self.next_series].to_vec();
        ids.sort_unstable();
        let mut parts = Vec::new();
        for file in 0..self.files.len() {
            if let Some(run) = self.last_rows_of_file(file, ids.len())? {
                parts.extend(self.part(&run, &Masks::default(), &ids, self.times));
                continue;
            }
            let (lowest, highest) = (ids[0], ids[ids.len() - 1]);
            for number in groups_with(&self.files[file], lowest, highest).to_vec() {
                parts.extend(self.last_rows_of_group(file, number, &ids)?);
            }
        }
        for source in &self.runs {
            parts.extend(self.part(&source.run, &source.masks, &ids, self.times).map(last_rows));
        }
        let parts: Vec<&Run> = parts.iter().collect();
        Ok(Some(last_rows(merge(&parts, &Columns::These(&self.fields)))))
    }

    /// Returns the last rows of all series in a file, where they are what is asked for: nothing of the
    /// file was deleted, none of its rows is later than what is asked for, and either they are known or
    /// enough of them are asked for.
    fn last_rows_of_file(&mut self, file: usize, asked: usize) -> Result<Option<Run>> {
        let FileSource { file, masks, .. } = &self.files[file];
        let groups = &file.groups()[file.groups_of(self.table)];
        let within = groups.iter().all(|group| group.times.max <= self.times.max);
        if !masks.is_empty() || !within {
            return Ok(None);
        }
        let Some(cache) = self.at_hand.cache() else { return Ok(None) };
        let part = Part::LastRows(self.table);
        let kept = match cache.get(file.mark(), part) {
            Some(kept) => kept,
            None => {
                let series: usize = groups.iter().map(|group| group.series_count as usize).sum();
                if series > LAST_ROWS_SERIES_MAX || asked * SERIES_ASKED_SHARE < series {
                    return Ok(None);
                }
                let mut runs = Vec::with_capacity(groups.len());
                for group in groups {
                    let columns: Vec<_> = group.column_types().collect();
                    runs.push(match file.read_last(group, &columns)? {
                        Some(run) => run,
                        None => last_rows(file.read(group, &columns)?),
                    });
                }
                self.counts.groups += runs.len();
                let runs: Vec<&Run> = runs.iter().collect();
                let all = Arc::new(last_rows(merge(&runs, &Columns::All)));
                cache.put(file.mark(), part, &all);
                all
            }
        };
        let wanted = |column: &&RunColumn| self.fields.contains(&(column.id, column.value_type));
        Ok(Some(Run {
            series: kept.series.clone(),
            times: kept.times.clone(),
            columns: kept.columns.iter().filter(wanted).cloned().collect(),
        }))
    }

    fn last_rows_of_group(
        &mut self,
        file: usize,
        number: usize,
        ids: &[u32],
    ) -> Result<Option<Run>> {
        let source = &self.files[file];
        let group = &source.file.groups()[number];
        let first = ids.partition_point(|id| *id < group.series.0);
        if ids.get(first).is_none_or(|id| *id > group.series.1) {
            return Ok(None);
        }
        let masked = source.masks.iter().any(|one| one.touches(group.series, &group.times));
        if !masked && group.times.max <= self.times.max {
            let kept = source.file.read_last(group, &self.fields)?;
            if let Some(run) = kept {
                self.counts.groups += 1;
                return Ok(self.part(&run, &source.masks, ids, self.times));
            }
        }
        let all = GroupPart { group: number, vector: None };
        let run = self.rows_of((file, all), Wanted::Fields)?;
        Ok(self.part(&run, &self.files[file].masks, ids, self.times).map(last_rows))
    }
}

/// Returns the last row of each series.
fn last_rows(run: Run) -> Run {
    let picks: Vec<u32> = run.series_rows().map(|(_, _, end)| end as u32 - 1).collect();
    let series = picks.iter().map(|row| run.series[*row as usize]).collect();
    if picks.len() == run.rows() { run } else { run.pick(&picks, series) }
}
