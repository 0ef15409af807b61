//! Batches of rows as text: CSV, TSV, JSON, NDJSON, or drawn as a table.

use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::datatypes::{DataType, Float32Type, Float64Type, Schema};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::arrow::util::pretty::pretty_format_batches_with_options;

/// As the original prints instants: UTC, without saying so.
const TIME_FORMAT: &str = "%Y-%m-%dT%H:%M:%S%.f";
/// The same, so that a reader elsewhere knows.
const ZONED_FORMAT: &str = "%Y-%m-%dT%H:%M:%S%.f%:z";

/// A form of text, in which rows come one after another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TextForm {
    /// Lines of values (RFC 4180).
    Lines {
        /// Between values.
        separator: char,
        /// Whether the first line names the columns.
        header: bool,
    },
    /// An array of objects.
    Json,
    /// Lines of objects.
    NdJson,
}

/// How rows are written as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextStyle {
    /// What is written around values.
    pub form: TextForm,
    /// Whether instants say their offset; they are in UTC where not.
    pub zoned: bool,
}

impl TextStyle {
    /// Lines of values with commas between, and a header.
    pub const CSV: Self =
        Self { form: TextForm::Lines { separator: ',', header: true }, zoned: false };
    /// Lines of values with tabs between, and a header.
    pub const TSV: Self =
        Self { form: TextForm::Lines { separator: '\t', header: true }, zoned: false };
    /// An array of objects.
    pub const JSON: Self = Self { form: TextForm::Json, zoned: false };
    /// Lines of objects.
    pub const NDJSON: Self = Self { form: TextForm::NdJson, zoned: false };

    fn options(self) -> FormatOptions<'static> {
        let zoned = if self.zoned { ZONED_FORMAT } else { TIME_FORMAT };
        options().with_timestamp_tz_format(Some(zoned))
    }
}

/// Rows of a text, as far as it is written.
pub(super) struct TextRows {
    style: TextStyle,
    /// What stands before the first row, until it is given out.
    begin: Option<String>,
    /// The names of the columns, as JSON has them.
    names: Vec<String>,
    is_empty: bool,
}

impl TextRows {
    /// Begins a text of rows.
    pub(super) fn new(style: TextStyle, schema: &Schema) -> Self {
        let names = || schema.fields().iter().map(|field| field.name());
        let begin = match style.form {
            TextForm::Lines { separator, header: true } => head(names(), separator),
            TextForm::Lines { .. } => String::new(),
            TextForm::Json => "[".to_owned(),
            TextForm::NdJson => String::new(),
        };
        let names = names().map(|name| json_text(name)).collect();
        Self { style, begin: Some(begin), names, is_empty: true }
    }

    /// Returns the text of a batch.
    ///
    /// # Errors
    /// A type that has no text.
    pub(super) fn put(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
        let options = self.style.options();
        let formatters =
            batch.columns().iter().map(|array| ArrayFormatter::try_new(array, &options));
        let formatters = formatters.collect::<Result<Vec<_>, _>>()?;
        let mut out = self.begin.take().unwrap_or_default();
        for row in 0..batch.num_rows() {
            match self.style.form {
                TextForm::Lines { separator, .. } => {
                    put_line(batch, &formatters, row, (separator, &mut out));
                }
                TextForm::Json => {
                    if !self.is_empty {
                        out.push(',');
                    }
                    self.put_object(batch, &formatters, row, &mut out);
                }
                TextForm::NdJson => {
                    self.put_object(batch, &formatters, row, &mut out);
                    out.push('\n');
                }
            }
            self.is_empty = false;
        }
        Ok(out.into_bytes())
    }

    /// Returns what stands after the last row.
    pub(super) fn end(self) -> Vec<u8> {
        let mut out = self.begin.unwrap_or_default();
        if self.style.form == TextForm::Json {
            out.push(']');
        }
        out.into_bytes()
    }

    fn put_object(
        &self,
        batch: &RecordBatch,
        formatters: &[ArrayFormatter<'_>],
        row: usize,
        out: &mut String,
    ) {
        out.push('{');
        for (at, (array, formatter)) in batch.columns().iter().zip(formatters).enumerate() {
            if at > 0 {
                out.push(',');
            }
            out.push_str(&self.names[at]);
            out.push(':');
            put_json(array, formatter, row, out);
        }
        out.push('}');
    }
}

/// Draws rows as a table; `None` where that would take more than so many bytes: each cell is as wide as the
/// widest of its column.
///
/// # Errors
/// A type that has no text.
pub(super) fn table(
    batches: &[RecordBatch],
    bytes_max: usize,
) -> Result<Option<Vec<u8>>, ArrowError> {
    let (options, mut widths, mut rows) = (options(), Vec::new(), 0_usize);
    for batch in batches {
        widths.resize(batch.num_columns(), 0_usize);
        rows += batch.num_rows();
        for (width, array) in widths.iter_mut().zip(batch.columns()) {
            let formatter = ArrayFormatter::try_new(array, &options)?;
            let len = |row: usize| formatter.value(row).to_string().len();
            *width = (0..batch.num_rows()).map(len).max().unwrap_or(0).max(*width);
        }
    }
    if rows.saturating_mul(widths.iter().sum()) > bytes_max {
        return Ok(None);
    }
    let table = pretty_format_batches_with_options(batches, &options)?;
    Ok(Some(format!("{table}\n").into_bytes()))
}

fn options() -> FormatOptions<'static> {
    FormatOptions::default()
        .with_timestamp_format(Some(TIME_FORMAT))
        .with_timestamp_tz_format(Some(TIME_FORMAT))
}

/// Writes the names of columns as a line.
fn head<'a>(names: impl Iterator<Item = &'a String>, separator: char) -> String {
    let mut line = String::new();
    for (at, name) in names.enumerate() {
        if at > 0 {
            line.push(separator);
        }
        put_cell(name, separator, &mut line);
    }
    line.push('\n');
    line
}

fn put_line(
    batch: &RecordBatch,
    formatters: &[ArrayFormatter<'_>],
    row: usize,
    (separator, out): (char, &mut String),
) {
    for (at, (array, formatter)) in batch.columns().iter().zip(formatters).enumerate() {
        if at > 0 {
            out.push(separator);
        }
        if !is_null(array, row) {
            put_cell(&formatter.value(row).to_string(), separator, out);
        }
    }
    out.push('\n');
}

/// Returns whether a value is NULL; all are of a column that has no type.
fn is_null(array: &dyn Array, row: usize) -> bool {
    array.is_null(row) || array.data_type() == &DataType::Null
}

/// Writes a value; in quotes where it needs them (RFC 4180). An empty text is told from NULL by them.
fn put_cell(text: &str, separator: char, out: &mut String) {
    let plain = !text.is_empty() && !text.contains([separator, '"', '\n', '\r']);
    if plain {
        out.push_str(text);
        return;
    }
    out.push('"');
    out.push_str(&text.replace('"', "\"\""));
    out.push('"');
}

fn put_json(array: &dyn Array, formatter: &ArrayFormatter<'_>, row: usize, out: &mut String) {
    if is_null(array, row) {
        out.push_str("null");
        return;
    }
    let finite = match array.data_type() {
        DataType::Float64 => array.as_primitive::<Float64Type>().value(row).is_finite(),
        DataType::Float32 => array.as_primitive::<Float32Type>().value(row).is_finite(),
        _ => true,
    };
    let text = formatter.value(row).to_string();
    let bare = array.data_type().is_numeric() || array.data_type() == &DataType::Boolean;
    if bare && finite {
        out.push_str(&text);
    } else {
        out.push_str(&json_text(&text));
    }
}

fn json_text(text: &str) -> String {
    serde_json::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::arrow::array::{
        Float64Array, NullArray, StringArray, TimestampNanosecondArray,
    };
    use std::sync::Arc;

    fn sample() -> RecordBatch {
        let times = TimestampNanosecondArray::from(vec![0, 1_500_000_000]).with_timezone("+00:00");
        RecordBatch::try_from_iter([
            ("time", Arc::new(times) as Arc<dyn Array>),
            ("say \"x\"", Arc::new(StringArray::from(vec![Some("a,b"), None]))),
            ("v", Arc::new(Float64Array::from(vec![1.5, f64::NAN]))),
        ])
        .unwrap()
    }

    #[test]
    fn a_column_without_a_type_is_null() {
        let nulls: Arc<dyn Array> = Arc::new(NullArray::new(1));
        let batch = RecordBatch::try_from_iter([("n", nulls)]).unwrap();
        let mut rows = TextRows::new(TextStyle::NDJSON, &batch.schema());
        assert_eq!(rows.put(&batch).unwrap(), b"{\"n\":null}\n");
    }

    #[test]
    fn rows_are_text_in_every_form() {
        let batch = sample();
        let text = |style: TextStyle| {
            let mut rows = TextRows::new(style, &batch.schema());
            let mut text = rows.put(&batch).unwrap();
            text.extend(rows.end());
            String::from_utf8(text).unwrap()
        };
        let csv = "time,\"say \"\"x\"\"\",v\n1970-01-01T00:00:00,\"a,b\",1.5\n1970-01-01T00:00:01.500,,NaN\n";
        assert_eq!(text(TextStyle::CSV), csv);
        let json: serde_json::Value = serde_json::from_str(&text(TextStyle::JSON)).unwrap();
        assert_eq!(json[0]["say \"x\""], "a,b");
        assert_eq!(
            (&json[1]["say \"x\""], &json[1]["v"]),
            (&serde_json::Value::Null, &"NaN".into())
        );
        assert_eq!(text(TextStyle::NDJSON).lines().count(), 2);
        assert!(text(TextStyle::TSV).starts_with("time\t"));
        let lines = TextForm::Lines { separator: ';', header: false };
        let zoned = text(TextStyle { form: lines, zoned: true });
        assert!(zoned.starts_with("1970-01-01T00:00:00+00:00;a,b;1.5\n"), "{zoned}");
    }
}
