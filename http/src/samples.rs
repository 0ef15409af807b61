//! Samples of metrics, gathered into batches: one table per metric, a tag per label, the field `value`.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float64Array};
use query::{RowBatch, Session};

/// The field that holds a sample.
pub(crate) const VALUE: &str = "value";
/// Columns every table has; a label of that name gets an underscore before it.
const TAKEN: [&str; 2] = ["time", VALUE];

/// Samples of several metrics.
#[derive(Debug, Default)]
pub(crate) struct Samples {
    tables: HashMap<String, Table>,
}

/// What became of samples.
pub(crate) struct Stored {
    pub(crate) rows: usize,
    pub(crate) rows_failed: usize,
    /// What the first that was not taken failed with. One that may be taken another time goes before others,
    /// so that senders repeat.
    pub(crate) failed: Option<query::Error>,
}

type Tags = Vec<(String, String)>;

#[derive(Debug, Default)]
struct Table {
    series: Vec<Tags>,
    numbers: HashMap<Tags, u32>,
    row_series: Vec<u32>,
    times: Vec<i64>,
    values: Vec<f64>,
}

/// Returns the tag a label is kept as.
pub(crate) fn tag_of(label: &str) -> String {
    if TAKEN.contains(&label.trim_start_matches('_')) {
        return format!("_{label}");
    }
    label.to_owned()
}

/// Returns the label a tag was.
pub(crate) fn label_of(tag: &str) -> &str {
    match tag.strip_prefix('_') {
        Some(label) if TAKEN.contains(&label.trim_start_matches('_')) => label,
        _ => tag,
    }
}

impl Samples {
    /// Adds samples of one series: times in nanoseconds.
    pub(crate) fn add(
        &mut self,
        metric: &str,
        mut tags: Tags,
        samples: impl Iterator<Item = (i64, f64)>,
    ) {
        tags.retain(|(_, value)| !value.is_empty());
        tags.sort();
        let table = match self.tables.get_mut(metric) {
            Some(table) => table,
            None => self.tables.entry(metric.to_owned()).or_default(),
        };
        let number = match table.numbers.get(&tags) {
            Some(number) => *number,
            None => {
                let number = table.series.len() as u32;
                table.series.push(tags.clone());
                table.numbers.insert(tags, number);
                number
            }
        };
        for (time, value) in samples {
            table.row_series.push(number);
            table.times.push(time);
            table.values.push(value);
        }
    }

    /// Stores all samples, each metric by itself.
    pub(crate) async fn store(self, session: &Session) -> Stored {
        let (mut rows_stored, mut rows_failed, mut failed) = (0, 0, None::<query::Error>);
        for (name, table) in self.tables {
            if table.times.is_empty() {
                continue;
            }
            let rows = table.times.len();
            let values: ArrayRef = Arc::new(Float64Array::from(table.values));
            let batch = RowBatch {
                table: name,
                series: table.series,
                row_series: table.row_series,
                times: table.times,
                fields: vec![(VALUE.to_owned(), values)],
            };
            let written = session.write_rows(&batch).await;
            rows_stored += written.kept;
            rows_failed += rows - written.kept;
            for (_, error) in written.refused {
                if failed.is_none() || error.sqlstate.starts_with('5') {
                    failed = Some(error);
                }
            }
        }
        Stored { rows: rows_stored, rows_failed, failed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_are_columns_come_back_as_they_were() {
        for label in ["value", "time", "_value", "le", "__name"] {
            assert_eq!(label_of(&tag_of(label)), label);
            assert!(!TAKEN.contains(&tag_of(label).as_str()));
        }
    }
}
