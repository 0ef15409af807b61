//! Row groups of which an aggregate need not read the rows, for their statistics tell enough.
//!
//! Such a group has rows of one series alone, all of them asked for; nothing of them was deleted, and
//! nothing else holds rows of that series within its times: so that it can be left out of a reading
//! without a trace.

use model::{ColumnId, TimeRange, ValueType};

use super::{FileSource, RowReader, groups_with};
use crate::tsm::{ColumnStatistics, Ends, Extremes, RowGroup};

/// A row group, and what is known of its rows.
#[derive(Clone, Debug, PartialEq)]
pub struct KnownGroup {
    /// The file, and its row group.
    place: (usize, usize),
    /// The series, by its place in the scan.
    pub(crate) series: u32,
    /// How many rows there are.
    pub rows: usize,
    /// The first and the last time.
    pub times: TimeRange,
    /// Each field asked for, in order.
    pub fields: Vec<KnownField>,
}

/// What is known of a field's values in a row group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownField {
    /// How many are not NULL.
    pub values: usize,
    /// What is known of them; `None` where they are no numbers, or a NaN is among them.
    pub numbers: Option<KnownNumbers>,
    /// The first and the last as bits of their type; `None` where one of them is NULL or a text.
    pub ends: Option<(u64, u64)>,
}

/// What is known of numbers, as bits of their type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownNumbers {
    /// The lowest.
    pub min: u64,
    /// The highest.
    pub max: u64,
    /// Their sum; `None` where it may have no room in their type.
    pub sum: Option<u64>,
}

impl RowReader {
    /// Returns how many rows lie in row groups of one series.
    pub(crate) fn rows_of_single_series(&self) -> usize {
        let groups = self
            .files
            .iter()
            .flat_map(|source| source.groups.iter().map(|number| &source.file.groups()[*number]));
        let of_one = groups.filter(|group| group.series_count == 1 && self.has_all(group));
        of_one.map(|group| group.rows as usize).sum()
    }

    fn has_all(&self, group: &RowGroup) -> bool {
        group.times.intersect(&self.times) == group.times
    }

    /// Returns the row groups that need not be read, `most` of them at most, by series and time.
    pub(crate) fn known_groups(&self, most: usize) -> Vec<KnownGroup> {
        let mut asked: Vec<(u32, u32)> = (self.next_series..self.end_series)
            .map(|place| (self.series[place], place as u32))
            .collect();
        asked.sort_unstable();
        let mut known = Vec::new();
        for (file, source) in self.files.iter().enumerate() {
            for number in &source.groups {
                let group = &source.file.groups()[*number];
                let (id, last) = group.series;
                if id != last || !self.has_all(group) || known.len() == most {
                    continue;
                }
                let Ok(at) = asked.binary_search_by_key(&id, |(id, _)| *id) else { continue };
                let is_masked =
                    source.masks.iter().any(|mask| mask.touches((id, id), &group.times));
                if is_masked || !self.is_alone(file, id, &group.times) {
                    continue;
                }
                let fields = self.fields.iter().map(|field| group.known_field(*field));
                let Some(fields) = fields.collect() else { continue };
                known.push(KnownGroup {
                    place: (file, *number),
                    series: asked[at].1,
                    rows: group.rows as usize,
                    times: group.times,
                    fields,
                });
            }
        }
        known.sort_unstable_by_key(|one| (one.series, one.times.min));
        known
    }

    /// Returns whether no other file and nothing in memory may hold rows of a series within some times.
    fn is_alone(&self, file: usize, id: u32, times: &TimeRange) -> bool {
        let mut others = self.files.iter().enumerate().filter(|(other, _)| *other != file);
        let is_in_memory = || {
            self.runs.iter().any(|source| {
                let (start, end) = source.run.rows_of(id, *times);
                start < end
            })
        };
        others.all(|(_, source)| !may_hold(source, id, times)) && !is_in_memory()
    }

    /// Has the reading leave out row groups that it knows.
    pub(crate) fn leave_out(&mut self, known: &[KnownGroup]) {
        let mut places: Vec<(usize, usize)> = known.iter().map(|one| one.place).collect();
        places.sort_unstable();
        for (file, source) in self.files.iter_mut().enumerate() {
            source.groups.retain(|number| places.binary_search(&(file, *number)).is_err());
        }
    }
}

/// Returns whether a file may hold rows of a series within some times.
fn may_hold(source: &FileSource, id: u32, times: &TimeRange) -> bool {
    let group = |number: &usize| &source.file.groups()[*number];
    let numbers = groups_with(source, id, id);
    let ends = numbers.first().into_iter().chain(numbers.last());
    // Between the first and the last, which it may share with others, they are its own, in order of time.
    let own = numbers.get(1..numbers.len().saturating_sub(1)).unwrap_or_default();
    let next = own.partition_point(|number| group(number).times.max < times.min);
    ends.chain(own.get(next)).any(|number| group(number).times.overlaps(times))
}

impl RowGroup {
    /// Returns what is known of a field, nothing of one that no row has; `None` where it was of another type.
    fn known_field(&self, (id, value_type): (ColumnId, ValueType)) -> Option<KnownField> {
        let Some(ColumnStatistics { value_type: of_type, nulls, extremes, ends }) =
            self.statistics(id)
        else {
            return Some(KnownField { values: 0, numbers: None, ends: None });
        };
        let values = self.rows as usize - nulls;
        let ends = ends.map(|Ends { first, last }| (first, last));
        let numbers = extremes.map(|Extremes { min, max, sum }| {
            let sum = has_room(value_type, (min, max), values).then_some(sum);
            KnownNumbers { min, max, sum }
        });
        (of_type == value_type).then_some(KnownField { values, numbers, ends })
    }
}

/// Returns whether the sum of so many values has room in their type: the statistics' own wraps.
fn has_room(value_type: ValueType, (min, max): (u64, u64), values: usize) -> bool {
    let Ok(values) = i128::try_from(values) else { return false };
    match value_type {
        ValueType::I64 => [min, max].into_iter().all(|bits| {
            let most = i128::from(bits.cast_signed()).checked_mul(values);
            most.is_some_and(|most| i64::try_from(most).is_ok())
        }),
        ValueType::U64 => {
            i128::from(max).checked_mul(values).is_some_and(|most| u64::try_from(most).is_ok())
        }
        ValueType::F64 => true,
        ValueType::Bool | ValueType::Str => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_is_told_only_where_it_cannot_have_wrapped() {
        let bits = i64::cast_unsigned;
        assert!(has_room(ValueType::I64, (bits(-5), bits(i64::MAX / 4)), 4));
        assert!(!has_room(ValueType::I64, (bits(-5), bits(i64::MAX / 4 + 1)), 4));
        assert!(!has_room(ValueType::I64, (bits(i64::MIN / 4 - 1), bits(0)), 4));
        assert!(has_room(ValueType::U64, (0, u64::MAX / 2), 2));
        assert!(!has_room(ValueType::U64, (0, u64::MAX / 2 + 1), 2));
    }
}
