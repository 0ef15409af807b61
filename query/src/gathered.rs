//! Rows in fewer batches. What is written is committed batch by batch, and a join may give batches of one row.

use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::Result;
use datafusion::execution::SendableRecordBatchStream;
use futures::{Stream, StreamExt, stream};
use model::points::array_bytes;

/// No more rows than this are put together.
const TOGETHER_ROWS: usize = 8_192;
/// Nor more bytes.
const TOGETHER_BYTES: usize = 4 << 20;

/// Gives the same rows, small batches put together.
pub(crate) fn gathered(
    rows: SendableRecordBatchStream,
) -> impl Stream<Item = Result<RecordBatch>> + Unpin {
    let first = Gathering { rows, ahead: None };
    let together = stream::try_unfold(first, |mut gathering| async move {
        Ok(gathering.next().await?.map(|batch| (batch, gathering)))
    });
    together.boxed()
}

struct Gathering {
    rows: SendableRecordBatchStream,
    /// What did not fit in.
    ahead: Option<RecordBatch>,
}

impl Gathering {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        let (mut together, mut rows, mut bytes) = (Vec::new(), 0, 0);
        loop {
            let next = match self.ahead.take() {
                Some(batch) => batch,
                None => match self.rows.next().await {
                    Some(batch) => batch?,
                    None => break,
                },
            };
            rows += next.num_rows();
            bytes += next.columns().iter().map(array_bytes).sum::<usize>();
            if !together.is_empty() && (rows > TOGETHER_ROWS || bytes > TOGETHER_BYTES) {
                self.ahead = Some(next);
                break;
            }
            together.push(next);
        }
        Ok(match &*together {
            [] => None,
            [alone] => Some(alone.clone()),
            several => Some(concat_batches(&several[0].schema(), several)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array};
    use datafusion::arrow::datatypes::Int64Type;
    use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
    use futures::TryStreamExt;

    use super::*;

    #[tokio::test]
    async fn many_small_batches_come_as_few_of_the_same_rows() {
        let batch = |from: i64, to: i64| {
            let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(from..to));
            RecordBatch::try_from_iter([("n", numbers)]).unwrap()
        };
        let batches: Vec<_> = (0..5_000).map(|at| Ok(batch(at * 3, at * 3 + 3))).collect();
        let rows = RecordBatchStreamAdapter::new(batch(0, 0).schema(), stream::iter(batches));
        let found: Vec<RecordBatch> = gathered(Box::pin(rows)).try_collect().await.unwrap();
        assert_eq!(found.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [8_190, 6_810]);
        let numbers =
            found.iter().flat_map(|one| one.column(0).as_primitive::<Int64Type>().values());
        assert!(numbers.copied().eq(0..15_000));
    }
}
