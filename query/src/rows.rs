//! Batches of rows in the form a reader asks for: text, Arrow's stream, Parquet.

mod text;

use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::ipc::writer::StreamWriter;
use datafusion::arrow::record_batch::RecordBatch;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use crate::error::{Error, Result};
pub use text::{TextForm, TextStyle};
use text::{TextRows, table};

/// Rows of a row group of Parquet; they are held until it is full.
const ROW_GROUP_ROWS: usize = 1 << 17;
const ROW_GROUP_BYTES: usize = 32 << 20;
/// The most rows drawn as a table, for the widths of its columns are those of all rows; and their bytes.
const TABLE_ROWS_MAX: usize = 10_000;
const TABLE_BYTES_MAX: usize = 32 << 20;

/// A form rows are given in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowFormat {
    /// Text.
    Text(TextStyle),
    /// Drawn with lines, whole.
    Table,
    /// Arrow's stream of batches.
    Arrow,
    /// A file of Parquet.
    Parquet,
}

/// Turns batches into bytes of a form, one after another.
pub struct RowWriter(Writer);

enum Writer {
    Text(TextRows),
    /// The first batch is empty: it has the names where no other does.
    Table {
        batches: Vec<RecordBatch>,
        rows: usize,
        bytes: usize,
    },
    Arrow(Box<StreamWriter<Vec<u8>>>),
    Parquet(Box<ParquetRows>),
}

/// A file of Parquet as far as it is written.
struct ParquetRows {
    schema: SchemaRef,
    writer: ArrowWriter<Vec<u8>>,
}

impl RowWriter {
    /// Begins rows of a schema.
    ///
    /// # Errors
    /// A type that the form does not have.
    pub fn new(format: RowFormat, schema: &SchemaRef) -> Result<Self> {
        Ok(Self(match format {
            RowFormat::Text(style) => Writer::Text(TextRows::new(style, schema)),
            RowFormat::Table => {
                let names = RecordBatch::new_empty(SchemaRef::clone(schema));
                Writer::Table { batches: vec![names], rows: 0, bytes: 0 }
            }
            RowFormat::Arrow => {
                let writer = StreamWriter::try_new(Vec::new(), schema);
                Writer::Arrow(Box::new(writer.map_err(|error| failed(&error))?))
            }
            RowFormat::Parquet => Writer::Parquet(Box::new(ParquetRows::new(schema)?)),
        }))
    }

    /// Takes a batch; returns the bytes that are ready, which may be none.
    ///
    /// # Errors
    /// More rows than the form holds.
    pub fn put(&mut self, batch: RecordBatch) -> Result<Vec<u8>> {
        match &mut self.0 {
            Writer::Text(text) => text.put(&batch).map_err(|error| failed(&error)),
            Writer::Table { batches, rows, bytes } => {
                *rows += batch.num_rows();
                *bytes += batch.get_array_memory_size();
                if *rows > TABLE_ROWS_MAX || *bytes > TABLE_BYTES_MAX {
                    return Err(too_large());
                }
                batches.push(batch);
                Ok(Vec::new())
            }
            Writer::Arrow(writer) => {
                writer.write(&batch).map_err(|error| failed(&error))?;
                Ok(std::mem::take(writer.get_mut()))
            }
            Writer::Parquet(parquet) => parquet.put(&batch),
        }
    }

    /// Returns the rest.
    ///
    /// # Errors
    /// As [`RowWriter::put`].
    pub fn end(self) -> Result<Vec<u8>> {
        match self.0 {
            Writer::Text(text) => Ok(text.end()),
            Writer::Table { batches, .. } => {
                let drawn = table(&batches, TABLE_BYTES_MAX).map_err(|error| failed(&error))?;
                drawn.ok_or_else(too_large)
            }
            Writer::Arrow(mut writer) => {
                writer.finish().map_err(|error| failed(&error))?;
                Ok(std::mem::take(writer.get_mut()))
            }
            Writer::Parquet(parquet) => {
                parquet.writer.into_inner().map_err(|error| parquet_failed(&error))
            }
        }
    }
}

fn too_large() -> Error {
    let message = format!("a table of more than {TABLE_ROWS_MAX} rows or {TABLE_BYTES_MAX} bytes");
    Error::new("54000", message).hint("ask for text/csv")
}

fn failed(error: &ArrowError) -> Error {
    Error::new("XX000", error.to_string())
}

fn parquet_failed(error: &ParquetError) -> Error {
    Error::new("0A000", error.to_string())
}

impl ParquetRows {
    fn new(schema: &Schema) -> Result<Self> {
        let fields = schema.fields().iter().map(|field| match field.data_type() {
            // Parquet's interval has no nanoseconds.
            DataType::Interval(_) | DataType::Duration(_) => {
                Arc::new(Field::new(field.name(), DataType::Utf8, field.is_nullable()))
            }
            _ => Arc::clone(field),
        });
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        let properties = WriterProperties::builder()
            .set_compression(Compression::ZSTD(ZstdLevel::default()))
            .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
            .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
            .build();
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties));
        Ok(Self { schema, writer: writer.map_err(|error| parquet_failed(&error))? })
    }

    fn put(&mut self, batch: &RecordBatch) -> Result<Vec<u8>> {
        let columns = batch.columns().iter().zip(self.schema.fields());
        let columns = columns.map(|(array, field)| {
            if array.data_type() == field.data_type() {
                return Ok(Arc::clone(array));
            }
            cast(array, field.data_type())
        });
        let columns = columns.collect::<std::result::Result<Vec<ArrayRef>, _>>();
        let batch = RecordBatch::try_new(
            Arc::clone(&self.schema),
            columns.map_err(|error| failed(&error))?,
        );
        self.writer
            .write(&batch.map_err(|error| failed(&error))?)
            .and_then(|()| Ok(self.writer.sync()?))
            .map_err(|error| parquet_failed(&error))?;
        // Where a piece lies in the file the writer counts by itself.
        Ok(std::mem::take(self.writer.inner_mut()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{
        Array, IntervalMonthDayNanoArray, StringArray, TimestampNanosecondArray,
    };
    use datafusion::arrow::datatypes::IntervalMonthDayNano;
    use datafusion::arrow::ipc::reader::StreamReader;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    fn sample() -> RecordBatch {
        let times = TimestampNanosecondArray::from(vec![1, 2]).with_timezone("+00:00");
        let span = IntervalMonthDayNano::new(1, 2, 3_000_000_000);
        RecordBatch::try_from_iter([
            ("time", Arc::new(times) as Arc<dyn Array>),
            ("s", Arc::new(StringArray::from(vec![Some("a"), None]))),
            ("span", Arc::new(IntervalMonthDayNanoArray::from(vec![span, span]))),
        ])
        .unwrap()
    }

    fn written(format: RowFormat, batches: &[RecordBatch]) -> Vec<u8> {
        let mut writer = RowWriter::new(format, &sample().schema()).unwrap();
        let mut bytes = Vec::new();
        for batch in batches {
            bytes.extend(writer.put(batch.clone()).unwrap());
        }
        bytes.extend(writer.end().unwrap());
        bytes
    }

    #[test]
    fn arrow_and_parquet_hold_the_rows_whatever_batches_they_came_in() {
        for batches in [vec![], vec![sample()], vec![sample(), sample()]] {
            let rows = 2 * batches.len();
            let stream = written(RowFormat::Arrow, &batches);
            let read = StreamReader::try_new(stream.as_slice(), None).unwrap();
            let read: Vec<RecordBatch> = read.map(std::result::Result::unwrap).collect();
            assert_eq!(read, batches);
            let file = bytes::Bytes::from(written(RowFormat::Parquet, &batches));
            let read = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
            let read: Vec<RecordBatch> = read.map(std::result::Result::unwrap).collect();
            assert_eq!(read.iter().map(RecordBatch::num_rows).sum::<usize>(), rows);
            if let Some(first) = read.first() {
                assert_eq!(first.slice(0, 2).column(0), batches[0].column(0));
                let spans = first.column(2).as_any().downcast_ref::<StringArray>().unwrap();
                assert_eq!(spans.value(0), "1 mons 2 days 3.000000000 secs");
            }
        }
    }

    #[test]
    fn a_table_is_drawn_with_one_width_a_column_and_has_an_end() {
        let text = String::from_utf8(written(RowFormat::Table, &[sample(), sample()])).unwrap();
        let widths: Vec<usize> = text.lines().map(str::len).collect();
        assert!(widths.len() == 8 && widths.iter().all(|width| *width == widths[0]), "{text}");
        let mut writer = RowWriter::new(RowFormat::Table, &sample().schema()).unwrap();
        let wide = (0..5_000).map(|n| "x".repeat(n / 4_999 * 10_000));
        let wide: ArrayRef = Arc::new(StringArray::from_iter_values(wide));
        let wide = RecordBatch::try_from_iter([("s", wide)]).unwrap();
        let mut drawn = RowWriter::new(RowFormat::Table, &wide.schema()).unwrap();
        drawn.put(wide).unwrap();
        assert_eq!(drawn.end().unwrap_err().sqlstate, "54000", "one wide cell widens all");
        let many = (0..=TABLE_ROWS_MAX / 2).try_for_each(|_| writer.put(sample()).map(|_| ()));
        assert_eq!(many.unwrap_err().sqlstate, "54000");
    }
}
