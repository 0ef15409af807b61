//! What a scan knows of row groups without reading them.

use std::sync::Arc;

use cluster::{KnownGroup, Scan, ScanColumn};
use datafusion::arrow::array::{ArrayRef, BooleanArray};
use datafusion::arrow::compute::filter;
use datafusion::common::stats::Precision;
use datafusion::common::{Result, Statistics};
use model::ValueType;

use super::TskvScanExec;

/// Fewer rows are sooner read than asked about.
const KNOWN_ROWS_MIN: usize = 32_768;
/// So many row groups are known at most, and the rest is read: one text for each of them fits an array.
const KNOWN_GROUPS_MAX: usize = 1 << 16;

/// Row groups of one vnode that an aggregate need not read, in the order of their rows.
#[derive(Debug)]
pub(crate) struct KnownRows {
    /// The partition, and the scan of it.
    place: (usize, usize),
    pub(crate) groups: Vec<KnownGroup>,
    /// For each tag that is read the values, one for each row group.
    pub(crate) tags: Vec<ArrayRef>,
}

impl KnownRows {
    /// Returns how many rows they have.
    pub(crate) fn rows(&self) -> usize {
        self.groups.iter().map(|group| group.rows).sum()
    }

    /// Returns some of them.
    pub(crate) fn only(self, which: impl FnOnce(&Self) -> Result<BooleanArray>) -> Result<Self> {
        let wanted = which(&self)?;
        let tags = self.tags.iter().map(|tag| Ok(filter(tag, &wanted)?)).collect::<Result<_>>()?;
        let groups = self.groups.into_iter().zip(&wanted);
        let groups = groups.filter(|(_, wanted)| *wanted == Some(true));
        Ok(Self { place: self.place, groups: groups.map(|(group, _)| group).collect(), tags })
    }
}

impl TskvScanExec {
    /// Returns whether so much lies in row groups that need perhaps not be read that it is worth asking.
    pub(crate) fn may_know_groups(&self) -> bool {
        let is_whole = self.limit.is_none() && !self.last_rows && self.node.is_none();
        if !is_whole || self.has_left_out || self.rows_expected() < KNOWN_ROWS_MIN {
            return false;
        }
        let scans = || self.partitions.iter().flatten();
        let known: usize = scans().map(Scan::rows_known_about).sum();
        known * 2 >= scans().map(Scan::rows_about).sum()
    }

    /// Returns about how many rows will come.
    pub(crate) fn rows_expected(&self) -> usize {
        self.statistics.num_rows.get_value().copied().unwrap_or(0)
    }

    /// Returns the row groups that need not be read.
    pub(crate) fn known_rows(&self) -> Vec<KnownRows> {
        let mut left = KNOWN_GROUPS_MAX;
        let mut known = Vec::new();
        for (partition, scans) in self.partitions.iter().enumerate() {
            for (number, scan) in scans.iter().enumerate() {
                let groups = scan.known_groups(left);
                left -= groups.len();
                known.push(KnownRows {
                    place: (partition, number),
                    tags: scan.tags_of(&groups),
                    groups,
                });
            }
        }
        known
    }

    /// Returns the scan without those row groups.
    pub(crate) fn without(&self, known: &[KnownRows]) -> Self {
        let mut statistics = Statistics::new_unknown(&self.schema);
        let rows = known.iter().map(KnownRows::rows).sum();
        let left = self.rows_expected().saturating_sub(rows);
        statistics.num_rows = Precision::Inexact(left);
        let statistics = Arc::new(statistics);
        let mut rest = Self { has_left_out: true, statistics, ..self.clone() };
        for one in known {
            let (partition, number) = one.place;
            rest.partitions[partition][number].leave_out(&one.groups);
        }
        rest
    }

    /// Returns whether a column is the time.
    pub(crate) fn is_time(&self, at: usize) -> bool {
        matches!(self.request.columns.get(at), Some(ScanColumn::Time))
    }

    /// Returns whether a column is a tag.
    pub(crate) fn is_tag(&self, at: usize) -> bool {
        matches!(self.request.columns.get(at), Some(ScanColumn::Tag(_)))
    }

    /// Returns the type of a column that is a field, and its place among the fields.
    pub(crate) fn field(&self, at: usize) -> Option<(usize, ValueType)> {
        let ScanColumn::Field(_, value_type) = self.request.columns.get(at)? else { return None };
        let before = self.request.columns[..at].iter();
        let fields = before.filter(|column| matches!(column, ScanColumn::Field(..)));
        Some((fields.count(), *value_type))
    }
}
