//! Batches made by a thread of its own, ahead of who polls. They are handed over several at a time: each time
//! costs two changes of threads.

use datafusion::arrow::array::Array;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::runtime::SpawnedTask;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::SendableRecordBatchStream;
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::stream;
use tokio::sync::mpsc;

/// The most batches of a hand-over: those of one run, which share its columns.
const BATCHES_MAX: usize = 8;
/// No more batches are added to so many bytes.
const BYTES_ENOUGH: usize = 4 << 20;
/// Hand-overs the thread may be ahead.
const AHEAD: usize = 1;

type Batches = Vec<Result<RecordBatch>>;

struct Ahead {
    ready: std::vec::IntoIter<Result<RecordBatch>>,
    receiver: mpsc::Receiver<Batches>,
    /// Until it has ended.
    thread: Option<SpawnedTask<()>>,
}

/// Returns batches that a thread makes; it goes no further once the stream is dropped.
pub(super) fn ahead(
    schema: SchemaRef,
    batches: impl Iterator<Item = Result<RecordBatch>> + Send + 'static,
) -> SendableRecordBatchStream {
    let (sender, receiver) = mpsc::channel(AHEAD);
    let thread = SpawnedTask::spawn_blocking(move || make(batches, &sender));
    let ahead = Ahead { ready: Vec::new().into_iter(), receiver, thread: Some(thread) };
    let batches = stream::unfold(ahead, |mut ahead| async { Some((ahead.next().await?, ahead)) });
    Box::pin(cooperative(RecordBatchStreamAdapter::new(schema, Box::pin(batches))))
}

fn make(mut batches: impl Iterator<Item = Result<RecordBatch>>, sender: &mpsc::Sender<Batches>) {
    // The first is wanted at once.
    let mut most = 1;
    loop {
        let (mut some, mut bytes) = (Vec::with_capacity(most), 0);
        while some.len() < most && bytes < BYTES_ENOUGH {
            let Some(batch) = batches.next() else { break };
            bytes += batch.as_ref().map_or(0, bytes_of);
            some.push(batch);
        }
        if some.is_empty() || sender.blocking_send(some).is_err() {
            return;
        }
        most = (2 * most).min(BATCHES_MAX);
    }
}

/// Returns how many bytes the rows of a batch take, of columns that it may share with others.
fn bytes_of(batch: &RecordBatch) -> usize {
    let columns = batch.columns().iter();
    columns.map(|column| column.to_data().get_slice_memory_size().unwrap_or_default()).sum()
}

impl Ahead {
    async fn next(&mut self) -> Option<Result<RecordBatch>> {
        loop {
            if let Some(batch) = self.ready.next() {
                return Some(batch);
            }
            match self.receiver.recv().await {
                Some(batches) => self.ready = batches.into_iter(),
                None => {
                    // Where it panicked, so does who polls.
                    let ended = self.thread.take()?.join_unwind().await;
                    return ended
                        .err()
                        .map(|error| Err(DataFusionError::ExecutionJoin(Box::new(error))));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use datafusion::arrow::array::Int64Array;
    use datafusion::arrow::datatypes::{DataType, Field, Schema};
    use datafusion::common::exec_datafusion_err;
    use futures::StreamExt;

    fn batch(number: i64) -> RecordBatch {
        let schema = Schema::new(vec![Field::new("n", DataType::Int64, false)]);
        let numbers = Arc::new(Int64Array::from(vec![number]));
        RecordBatch::try_new(Arc::new(schema), vec![numbers]).unwrap()
    }

    #[tokio::test]
    async fn batches_come_in_order_until_one_fails() {
        let made = (0..100).map(|number| match number {
            99 => Err(exec_datafusion_err!("it fails")),
            _ => Ok(batch(number)),
        });
        let mut batches = ahead(batch(0).schema(), made);
        for number in 0..99 {
            let found = batches.next().await.unwrap().unwrap();
            assert_eq!(found, batch(number));
        }
        assert!(batches.next().await.unwrap().is_err());
        assert!(batches.next().await.is_none());
    }

    #[tokio::test]
    async fn a_thread_whose_stream_is_dropped_ends() {
        let (kept, ended) = tokio::sync::oneshot::channel::<()>();
        let endless = (0..).map(move |number| {
            assert!(!kept.is_closed());
            Ok(batch(number))
        });
        let mut batches = ahead(batch(0).schema(), endless);
        assert!(batches.next().await.is_some());
        drop(batches);
        assert!(ended.await.is_err(), "it is dropped with what the thread makes batches of");
    }
}
