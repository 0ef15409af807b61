//! The reading of a partition's scans, one after another: on a thread of its own, or by whoever polls.

use std::sync::Arc;
use std::vec::IntoIter;

use cluster::Scan;
use datafusion::arrow::array::{ArrayRef, AsArray, MutableArrayData, make_array};
use datafusion::arrow::datatypes::{DataType, SchemaRef, TimestampNanosecondType};
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::Result;
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::metrics::{
    BaselineMetrics, Count, ExecutionPlanMetricsSet, MetricBuilder, RecordOutput,
};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{StreamExt, stream};
use tokio::task::yield_now;

use super::ahead::ahead;
use crate::error::Error;

/// Batches that are read in place before others have their turn.
const BATCHES_IN_TURN: usize = 16;

/// What is read, and how much of it was.
pub(super) struct Reading {
    schema: SchemaRef,
    scans: IntoIter<Scan>,
    present: Option<Scan>,
    /// How many rows still suffice.
    left: usize,
    /// Whether each batch has values of its own.
    is_held: bool,
    metrics: BaselineMetrics,
    counts: Counts,
}

struct Counts {
    files: Count,
    files_all: Count,
    groups: Count,
    groups_all: Count,
    vectors: Count,
}

impl Reading {
    pub(super) fn new(
        (schema, scans): (&SchemaRef, Vec<Scan>),
        (limit, is_held): (Option<usize>, bool),
        (metrics, partition): (&ExecutionPlanMetricsSet, usize),
    ) -> Self {
        let count = |name: &'static str| MetricBuilder::new(metrics).counter(name, partition);
        Self {
            schema: Arc::clone(schema),
            scans: scans.into_iter(),
            present: None,
            left: limit.unwrap_or(usize::MAX),
            is_held,
            metrics: BaselineMetrics::new(metrics, partition),
            counts: Counts {
                files: count("files_read"),
                files_all: count("files_all"),
                groups: count("row_groups_read"),
                groups_all: count("row_groups_all"),
                vectors: count("vectors_read"),
            },
        }
    }

    /// Reads on a thread of its own, a little ahead of who polls.
    pub(super) fn ahead(self) -> SendableRecordBatchStream {
        ahead(Arc::clone(&self.schema), self)
    }

    /// Reads when polled, on the thread that polls, and lets others have their turn in between.
    pub(super) fn in_place(self) -> SendableRecordBatchStream {
        let schema = Arc::clone(&self.schema);
        let batches = stream::iter(self).enumerate().then(|(number, batch)| async move {
            if number % BATCHES_IN_TURN == BATCHES_IN_TURN - 1 {
                yield_now().await;
            }
            batch
        });
        Box::pin(cooperative(RecordBatchStreamAdapter::new(schema, Box::pin(batches))))
    }

    fn read(&mut self) -> Result<Option<RecordBatch>> {
        while self.left > 0 {
            let Some(scan) = &mut self.present else {
                self.present = self.scans.next();
                if self.present.is_none() {
                    break;
                }
                continue;
            };
            if let Some(batch) = scan.next_batch().map_err(Error::from)? {
                self.left = self.left.saturating_sub(batch.num_rows());
                let batch = if self.is_held { copied(batch)? } else { batch };
                return Ok(Some(in_zone(batch, &self.schema)?.record_output(&self.metrics)));
            }
            self.end_present();
        }
        self.end_present();
        self.metrics.done();
        Ok(None)
    }

    fn end_present(&mut self) {
        if let Some(read) = self.present.take().map(|scan| scan.counts()) {
            self.counts.files.add(read.files);
            self.counts.files_all.add(read.files_all);
            self.counts.groups.add(read.groups);
            self.counts.groups_all.add(read.groups_all);
            self.counts.vectors.add(read.vectors);
        }
    }
}

impl Iterator for Reading {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.read().transpose();
        if !matches!(batch, Some(Ok(_))) {
            // What failed or is over stays so.
            (self.left, self.present) = (0, None);
        }
        batch
    }
}

/// Returns a batch with values of its own: batches of one run share its columns, so that who holds on to one
/// would hold all of them, and count them once for each batch.
fn copied(batch: RecordBatch) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let columns = batch.columns().iter().map(|column| {
        let data = column.to_data();
        let mut copy = MutableArrayData::new(vec![&data], false, rows);
        copy.try_extend(0, 0, rows)?;
        Ok(make_array(copy.freeze()))
    });
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let columns = columns.collect::<Result<_>>()?;
    Ok(RecordBatch::try_new_with_options(batch.schema(), columns, &options)?)
}

/// Gives the times of a batch the zone of a schema: the numbers stay.
fn in_zone(batch: RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    if batch.schema_ref() == schema {
        return Ok(batch);
    }
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
        match (column.as_primitive_opt::<TimestampNanosecondType>(), field.data_type()) {
            (Some(times), DataType::Timestamp(_, zone)) => {
                Arc::new(times.clone().with_timezone_opt(zone.clone())) as ArrayRef
            }
            _ => Arc::clone(column),
        }
    });
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns.collect(), &options)?)
}
