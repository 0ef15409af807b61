//! The forms that rows are given in, as HTTP names them.

use axum::http::HeaderMap;
use axum::http::header::ACCEPT;
use query::{RowFormat, TextForm, TextStyle};

/// Chooses the first form a reader accepts; `None` where it accepts none.
pub(crate) fn accepted(headers: &HeaderMap) -> Option<RowFormat> {
    let Some(accept) = headers.get(ACCEPT) else { return Some(RowFormat::Text(TextStyle::CSV)) };
    let types = accept.to_str().ok()?.split(',');
    let mut types = types.map(|one| one.split(';').next().unwrap_or_default().trim());
    types.find_map(|one| {
        Some(match one {
            "*/*" | "text/*" | "text/csv" | "application/csv" | "" => {
                RowFormat::Text(TextStyle::CSV)
            }
            "text/tab-separated-values" | "text/tsv" | "application/tsv" => {
                RowFormat::Text(TextStyle::TSV)
            }
            "application/json" | "application/*" => RowFormat::Text(TextStyle::JSON),
            "application/x-ndjson" | "application/nd-json" | "application/ndjson" => {
                RowFormat::Text(TextStyle::NDJSON)
            }
            "text/plain" | "text/table" | "application/table" => RowFormat::Table,
            "application/vnd.apache.arrow.stream" => RowFormat::Arrow,
            "application/vnd.apache.parquet" => RowFormat::Parquet,
            _ => return None,
        })
    })
}

/// Returns the name of a form.
pub(crate) fn content_type(format: RowFormat) -> &'static str {
    match format {
        RowFormat::Text(style) => match style.form {
            TextForm::Lines { separator: '\t', .. } => "text/tab-separated-values; charset=utf-8",
            TextForm::Lines { .. } => "text/csv; charset=utf-8; header=present",
            TextForm::Json => "application/json",
            TextForm::NdJson => "application/x-ndjson",
        },
        RowFormat::Table => "text/plain; charset=utf-8",
        RowFormat::Arrow => "application/vnd.apache.arrow.stream",
        RowFormat::Parquet => "application/vnd.apache.parquet",
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn the_first_form_that_is_known_is_chosen() {
        let chosen = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT, HeaderValue::from_static(text));
            accepted(&headers)
        };
        let csv = Some(RowFormat::Text(TextStyle::CSV));
        assert_eq!(accepted(&HeaderMap::new()), csv);
        assert_eq!(
            chosen("image/png, application/json;q=0.9"),
            Some(RowFormat::Text(TextStyle::JSON))
        );
        assert_eq!(chosen("*/*"), csv);
        assert_eq!(chosen("application/vnd.apache.parquet"), Some(RowFormat::Parquet));
        assert_eq!(chosen("image/png"), None);
    }
}
