//! Batches of rows as text: CSV, TSV, JSON, NDJSON.

use arrow::array::{Array, AsArray};
use arrow::datatypes::{DataType, Float32Type, Float64Type, SchemaRef};
use arrow::error::ArrowError;
use arrow::record_batch::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use axum::http::HeaderMap;
use axum::http::header::ACCEPT;

/// As the original prints instants: UTC, without saying so.
const TIME_FORMAT: &str = "%Y-%m-%dT%H:%M:%S%.f";

/// A form rows are given in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RowFormat {
    Csv,
    Tsv,
    Json,
    NdJson,
}

impl RowFormat {
    /// Chooses the first form a client accepts; `None` where it accepts none.
    pub(crate) fn accepted(headers: &HeaderMap) -> Option<Self> {
        let Some(accept) = headers.get(ACCEPT) else { return Some(Self::Csv) };
        let types = accept.to_str().ok()?.split(',');
        let mut types = types.map(|one| one.split(';').next().unwrap_or_default().trim());
        types.find_map(|one| {
            Some(match one {
                "*/*" | "text/*" | "text/csv" | "application/csv" | "" => Self::Csv,
                "text/tab-separated-values" | "application/tsv" => Self::Tsv,
                "application/json" | "application/*" => Self::Json,
                "application/x-ndjson" | "application/nd-json" | "application/ndjson" => {
                    Self::NdJson
                }
                _ => return None,
            })
        })
    }

    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Csv => "text/csv; charset=utf-8; header=present",
            Self::Tsv => "text/tab-separated-values; charset=utf-8",
            Self::Json => "application/json",
            Self::NdJson => "application/x-ndjson",
        }
    }

    /// Returns what stands before the first row.
    pub(crate) fn begin(self, schema: &SchemaRef) -> String {
        let separator = match self {
            Self::Csv => ',',
            Self::Tsv => '\t',
            Self::Json => return "[".to_owned(),
            Self::NdJson => return String::new(),
        };
        let mut line = String::new();
        for (at, field) in schema.fields().iter().enumerate() {
            if at > 0 {
                line.push(separator);
            }
            put_cell(field.name(), separator, &mut line);
        }
        line.push('\n');
        line
    }

    /// Returns what stands after the last row.
    pub(crate) fn end(self) -> &'static str {
        if self == Self::Json { "]" } else { "" }
    }

    /// Writes the rows of a batch; `first` says whether no row was written before.
    ///
    /// # Errors
    /// A type that has no text.
    pub(crate) fn rows(self, batch: &RecordBatch, first: bool) -> Result<String, ArrowError> {
        let options = FormatOptions::default()
            .with_timestamp_format(Some(TIME_FORMAT))
            .with_timestamp_tz_format(Some(TIME_FORMAT));
        let formatters =
            batch.columns().iter().map(|array| ArrayFormatter::try_new(array, &options));
        let formatters = formatters.collect::<Result<Vec<_>, _>>()?;
        let schema = batch.schema();
        let names: Vec<String> =
            schema.fields().iter().map(|field| json_text(field.name())).collect();
        let mut out = String::new();
        for row in 0..batch.num_rows() {
            if self == Self::Json && !(first && row == 0) {
                out.push(',');
            }
            match self {
                Self::Csv => put_line(batch, &formatters, row, (',', &mut out)),
                Self::Tsv => put_line(batch, &formatters, row, ('\t', &mut out)),
                Self::Json | Self::NdJson => {
                    out.push('{');
                    for (at, (array, formatter)) in
                        batch.columns().iter().zip(&formatters).enumerate()
                    {
                        if at > 0 {
                            out.push(',');
                        }
                        out.push_str(&names[at]);
                        out.push(':');
                        put_json(array, formatter, row, &mut out);
                    }
                    out.push('}');
                    if self == Self::NdJson {
                        out.push('\n');
                    }
                }
            }
        }
        Ok(out)
    }
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
        if array.is_valid(row) {
            put_cell(&formatter.value(row).to_string(), separator, out);
        }
    }
    out.push('\n');
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
    if array.is_null(row) {
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
    use arrow::array::{Float64Array, StringArray, TimestampNanosecondArray};
    use axum::http::HeaderValue;
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
    fn rows_are_text_in_every_form() {
        let batch = sample();
        let text = |format: RowFormat| {
            let rows = format.rows(&batch, true).unwrap();
            format!("{}{rows}{}", format.begin(&batch.schema()), format.end())
        };
        let csv = "time,\"say \"\"x\"\"\",v\n1970-01-01T00:00:00,\"a,b\",1.5\n1970-01-01T00:00:01.500,,NaN\n";
        assert_eq!(text(RowFormat::Csv), csv);
        let json: serde_json::Value = serde_json::from_str(&text(RowFormat::Json)).unwrap();
        assert_eq!(json[0]["say \"x\""], "a,b");
        assert_eq!(
            (&json[1]["say \"x\""], &json[1]["v"]),
            (&serde_json::Value::Null, &"NaN".into())
        );
        assert_eq!(text(RowFormat::NdJson).lines().count(), 2);
        assert!(text(RowFormat::Tsv).starts_with("time\t"));
    }

    #[test]
    fn the_first_form_that_is_known_is_chosen() {
        let accepted = |text| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(text));
            RowFormat::accepted(&headers)
        };
        assert_eq!(accepted("application/json"), Some(RowFormat::Json));
        assert_eq!(accepted("image/png, */*;q=0.8"), Some(RowFormat::Csv));
        assert_eq!(accepted("image/png"), None);
        assert_eq!(RowFormat::accepted(&HeaderMap::new()), Some(RowFormat::Csv));
    }
}
