//! Batches of rows in the form a reader asks for: text, Arrow's stream, Parquet.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;
use query::Error;

use crate::text::{TextForm, TextRows, table};

/// Rows of a row group of Parquet; they are held until it is full.
const ROW_GROUP_ROWS: usize = 1 << 17;
const ROW_GROUP_BYTES: usize = 32 << 20;
/// The most rows drawn as a table, for the widths of its columns are those of all rows; and their bytes.
const TABLE_ROWS_MAX: usize = 10_000;
const TABLE_BYTES_MAX: usize = 32 << 20;

/// A form rows are given in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowFormat {
    Text(TextForm),
    Table,
    Arrow,
    Parquet,
}

impl RowFormat {
    /// Chooses the first form a reader accepts; `None` where it accepts none.
    pub(crate) fn accepted(headers: &HeaderMap) -> Option<Self> {
        let Some(accept) = headers.get(ACCEPT) else { return Some(Self::Text(TextForm::Csv)) };
        let types = accept.to_str().ok()?.split(',');
        let mut types = types.map(|one| one.split(';').next().unwrap_or_default().trim());
        types.find_map(|one| {
            Some(match one {
                "*/*" | "text/*" | "text/csv" | "application/csv" | "" => Self::Text(TextForm::Csv),
                "text/tab-separated-values" | "text/tsv" | "application/tsv" => {
                    Self::Text(TextForm::Tsv)
                }
                "application/json" | "application/*" => Self::Text(TextForm::Json),
                "application/x-ndjson" | "application/nd-json" | "application/ndjson" => {
                    Self::Text(TextForm::NdJson)
                }
                "text/plain" | "text/table" | "application/table" => Self::Table,
                "application/vnd.apache.arrow.stream" => Self::Arrow,
                "application/vnd.apache.parquet" => Self::Parquet,
                _ => return None,
            })
        })
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Text(form) => form.content_type(),
            Self::Table => "text/plain; charset=utf-8",
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Parquet => "application/vnd.apache.parquet",
        }
    }
}

/// Turns batches into bytes of a form, one after another.
pub(crate) enum RowWriter {
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
pub(crate) struct ParquetRows {
    schema: SchemaRef,
    writer: ArrowWriter<Vec<u8>>,
}

impl RowWriter {
    /// Begins rows of a schema.
    ///
    /// # Errors
    /// A type that the form does not have.
    pub(crate) fn new(format: RowFormat, schema: &SchemaRef) -> Result<Self, Error> {
        Ok(match format {
            RowFormat::Text(form) => Self::Text(TextRows::new(form, schema)),
            RowFormat::Table => {
                let names = RecordBatch::new_empty(SchemaRef::clone(schema));
                Self::Table { batches: vec![names], rows: 0, bytes: 0 }
            }
            RowFormat::Arrow => {
                let writer = StreamWriter::try_new(Vec::new(), schema);
                Self::Arrow(Box::new(writer.map_err(|error| failed(&error))?))
            }
            RowFormat::Parquet => Self::Parquet(Box::new(ParquetRows::new(schema)?)),
        })
    }

    /// Takes a batch; returns the bytes that are ready, which may be none.
    ///
    /// # Errors
    /// More rows than the form holds.
    pub(crate) fn put(&mut self, batch: RecordBatch) -> Result<Vec<u8>, Error> {
        match self {
            Self::Text(text) => text.put(&batch).map_err(|error| failed(&error)),
            Self::Table { batches, rows, bytes } => {
                *rows += batch.num_rows();
                *bytes += batch.get_array_memory_size();
                if *rows > TABLE_ROWS_MAX || *bytes > TABLE_BYTES_MAX {
                    return Err(too_large());
                }
                batches.push(batch);
                Ok(Vec::new())
            }
            Self::Arrow(writer) => {
                writer.write(&batch).map_err(|error| failed(&error))?;
                Ok(std::mem::take(writer.get_mut()))
            }
            Self::Parquet(parquet) => parquet.put(&batch),
        }
    }

    /// Returns the rest.
    ///
    /// # Errors
    /// As [`RowWriter::put`].
    pub(crate) fn end(self) -> Result<Vec<u8>, Error> {
        match self {
            Self::Text(text) => Ok(text.end()),
            Self::Table { batches, .. } => {
                let drawn = table(&batches, TABLE_BYTES_MAX).map_err(|error| failed(&error))?;
                drawn.ok_or_else(too_large)
            }
            Self::Arrow(mut writer) => {
                writer.finish().map_err(|error| failed(&error))?;
                Ok(std::mem::take(writer.get_mut()))
            }
            Self::Parquet(parquet) => {
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
    fn new(schema: &Schema) -> Result<Self, Error> {
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

    fn put(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, Error> {
        let columns = batch.columns().iter().zip(self.schema.fields());
        let columns = columns.map(|(array, field)| {
            if array.data_type() == field.data_type() {
                return Ok(Arc::clone(array));
            }
            cast(array, field.data_type())
        });
        let columns = columns.collect::<Result<Vec<ArrayRef>, _>>();
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
    use arrow::array::{Array, IntervalMonthDayNanoArray, StringArray, TimestampNanosecondArray};
    use arrow::datatypes::IntervalMonthDayNano;
    use arrow::ipc::reader::StreamReader;
    use axum::http::HeaderValue;
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
            let read: Vec<RecordBatch> = read.map(Result::unwrap).collect();
            assert_eq!(read, batches);
            let file = bytes::Bytes::from(written(RowFormat::Parquet, &batches));
            let read = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
            let read: Vec<RecordBatch> = read.map(Result::unwrap).collect();
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

    #[test]
    fn the_first_form_that_is_known_is_chosen() {
        let accepted = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(text));
            RowFormat::accepted(&headers)
        };
        let csv = Some(RowFormat::Text(TextForm::Csv));
        assert_eq!(RowFormat::accepted(&HeaderMap::new()), csv);
        assert_eq!(
            accepted("image/png, application/json;q=0.9"),
            Some(RowFormat::Text(TextForm::Json))
        );
        assert_eq!(accepted("*/*"), csv);
        assert_eq!(accepted("application/vnd.apache.parquet"), Some(RowFormat::Parquet));
        assert_eq!(accepted("image/png"), None);
    }
}
