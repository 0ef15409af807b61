//! Rows on their way between nodes: Arrow IPC messages, then how the scan ended.
//!
//! The first byte of a message says what it is: 0 batches of the Arrow IPC stream format, 1 the end
//! with what was read, 2 a failure, 3 a number of rows of which no column is wanted.
// FORMAT: docs/formats/rpc.md, v1

use std::sync::Arc;

use arrow::buffer::Buffer;
use arrow::datatypes::Schema;
use arrow::error::ArrowError;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use bytes::Bytes;
use model::ErrorKind;
use tskv::ScanCounts;

use crate::error::{Error, Result};

const BATCH: u8 = 0;
const END: u8 = 1;
const FAILURE: u8 = 2;
const ROWS: u8 = 3;

/// Makes messages of batches.
#[derive(Default)]
pub(crate) struct Encoder {
    writer: Option<StreamWriter<Vec<u8>>>,
    ended: bool,
}

impl Encoder {
    pub(crate) fn batch(&mut self, batch: &RecordBatch) -> std::result::Result<Bytes, ArrowError> {
        if batch.num_columns() == 0 {
            // A stream's decoder yields nothing of a batch without bytes.
            let mut message = vec![ROWS];
            message.extend_from_slice(&(batch.num_rows() as u64).to_le_bytes());
            return Ok(message.into());
        }
        if self.writer.is_none() {
            self.writer = Some(StreamWriter::try_new(vec![BATCH], &batch.schema())?);
        }
        let Some(writer) = &mut self.writer else { return Ok(Bytes::new()) };
        writer.write(batch)?;
        Ok(std::mem::replace(writer.get_mut(), vec![BATCH]).into())
    }

    pub(crate) fn end(&mut self, counts: &ScanCounts) -> Bytes {
        self.last(END, counts)
    }

    pub(crate) fn failure(&mut self, error: &Error) -> Bytes {
        self.last(FAILURE, &(error.kind(), error.to_string()))
    }

    fn last(&mut self, kind: u8, what: &impl serde::Serialize) -> Bytes {
        self.ended = true;
        let mut message = vec![kind];
        message.extend(serde_json::to_vec(what).expect("no keys but strings"));
        message.into()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }
}

/// What a message says.
pub(crate) enum Message {
    Batches(Vec<RecordBatch>),
    End(ScanCounts),
}

/// Makes batches of messages.
#[derive(Default)]
pub(crate) struct Decoder(StreamDecoder);

impl Decoder {
    /// Reads a message.
    ///
    /// # Errors
    /// What the other end failed with; bytes that are no message.
    pub(crate) fn message(&mut self, message: &Bytes) -> Result<Message> {
        let Some((kind, _)) = message.split_first() else {
            return Err(Error::internal("an empty message of rows"));
        };
        let body = message.slice(1..);
        match *kind {
            BATCH => {
                // Aligned anew: behind the first byte values would lie askew.
                let mut buffer = Buffer::from(&body[..]);
                let mut batches = Vec::new();
                while !buffer.is_empty() {
                    batches.extend(self.0.decode(&mut buffer).map_err(Error::internal)?);
                }
                Ok(Message::Batches(batches))
            }
            ROWS => {
                let rows = <[u8; 8]>::try_from(&body[..]).map_err(Error::internal)?;
                let rows = usize::try_from(u64::from_le_bytes(rows)).map_err(Error::internal)?;
                let options = RecordBatchOptions::new().with_row_count(Some(rows));
                let schema = Arc::new(Schema::empty());
                let batch = RecordBatch::try_new_with_options(schema, Vec::new(), &options);
                Ok(Message::Batches(vec![batch.map_err(Error::internal)?]))
            }
            END => serde_json::from_slice(&body).map(Message::End).map_err(Error::internal),
            FAILURE => {
                let (kind, message): (ErrorKind, String) =
                    serde_json::from_slice(&body).map_err(Error::internal)?;
                Err(Error::Remote { kind, message })
            }
            other => Err(Error::internal(format!("message of rows of kind {other}"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field};

    use super::*;

    fn sent(batches: &[RecordBatch]) -> Vec<RecordBatch> {
        let (mut encoder, mut decoder) = (Encoder::default(), Decoder::default());
        let mut received = Vec::new();
        for batch in batches {
            match decoder.message(&encoder.batch(batch).unwrap()).unwrap() {
                Message::Batches(more) => received.extend(more),
                Message::End(_) => panic!("it did not end"),
            }
        }
        let counts = ScanCounts { files: 3, ..ScanCounts::default() };
        let end = decoder.message(&encoder.end(&counts)).unwrap();
        assert!(matches!(end, Message::End(read) if read == counts));
        received
    }

    #[test]
    fn batches_arrive_as_they_were_sent() {
        let fields = [("a", DataType::Int64), ("b", DataType::Utf8)];
        let fields = fields.map(|(name, kind)| Field::new(name, kind, true));
        let schema = Arc::new(Schema::new(fields.to_vec()));
        let batch = |from: i64| {
            let numbers = Int64Array::from_iter((from..from + 3).map(|n| (n != 2).then_some(n)));
            let texts = StringArray::from_iter((0..3).map(|n| (n != 1).then(|| format!("t{n}"))));
            RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(numbers), Arc::new(texts)])
                .unwrap()
        };
        let batches = [batch(0), batch(3), batch(6)];
        assert_eq!(sent(&batches), batches);
    }

    #[test]
    fn rows_of_which_no_column_is_wanted_are_counted() {
        let options = RecordBatchOptions::new().with_row_count(Some(7));
        let schema = Arc::new(Schema::empty());
        let batch = RecordBatch::try_new_with_options(schema, Vec::new(), &options).unwrap();
        assert_eq!(sent(&[batch.clone(), batch.clone()]), [batch.clone(), batch]);
    }

    #[test]
    fn a_failure_arrives_with_its_kind() {
        let error = Error::Remote { kind: ErrorKind::Corrupt, message: "m".to_owned() };
        let message = Encoder::default().failure(&error);
        let received = Decoder::default().message(&message).err().unwrap();
        assert_eq!((received.kind(), received.to_string()), (ErrorKind::Corrupt, "m".to_owned()));
    }
}
