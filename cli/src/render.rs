//! Answers as tables, records, csv and json.

use comfy_table::{ContentArrangement, Table, presets};

/// The form of answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Drawn, as wide as the terminal.
    Table,
    /// Comma-separated, with a header.
    Csv,
    /// Separated by tabs, with a header; tabs, line ends and backslashes are escaped, NULL is \\N.
    Tsv,
    /// One array of objects.
    Json,
    /// An object a line.
    #[value(alias = "ndjson")]
    NdJson,
}

/// Prints rows.
pub(crate) fn rows(
    columns: &[String],
    rows: &[Vec<Option<String>>],
    format: Format,
    expanded: bool,
) {
    match format {
        Format::Table if expanded => records(columns, rows),
        Format::Table => table(columns, rows),
        Format::Csv => csv(columns, rows),
        Format::Tsv => tsv(columns, rows),
        Format::Json => json(columns, rows),
        Format::NdJson => rows.iter().for_each(|row| {
            println!("{}", serde_json::Value::from(object(columns, row)));
        }),
    }
}

fn table(columns: &[String], rows: &[Vec<Option<String>>]) {
    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(columns);
    for row in rows {
        table.add_row(row.iter().map(|cell| cell.as_deref().unwrap_or("NULL")));
    }
    println!("{table}");
    println!("({} row{})", rows.len(), if rows.len() == 1 { "" } else { "s" });
}

fn records(columns: &[String], rows: &[Vec<Option<String>>]) {
    let width = columns.iter().map(|column| column.chars().count()).max().unwrap_or(0);
    for (number, row) in rows.iter().enumerate() {
        println!("-[ RECORD {} ]-", number + 1);
        for (column, cell) in columns.iter().zip(row) {
            println!("{column:width$} | {}", cell.as_deref().unwrap_or("NULL"));
        }
    }
}

fn csv(columns: &[String], rows: &[Vec<Option<String>>]) {
    let quote = |text: &str| {
        if text.is_empty() || text.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", text.replace('"', "\"\""))
        } else {
            text.to_owned()
        }
    };
    let line = |cells: Vec<String>| println!("{}", cells.join(","));
    line(columns.iter().map(|column| quote(column)).collect());
    for row in rows {
        line(row.iter().map(|cell| cell.as_deref().map(quote).unwrap_or_default()).collect());
    }
}

fn tsv(columns: &[String], rows: &[Vec<Option<String>>]) {
    let escaped = |text: &str| {
        let text = text.replace('\\', "\\\\").replace('\t', "\\t");
        text.replace('\n', "\\n").replace('\r', "\\r")
    };
    let line = |cells: Vec<String>| println!("{}", cells.join("\t"));
    line(columns.iter().map(|column| escaped(column)).collect());
    for row in rows {
        let cell = |cell: &Option<String>| cell.as_deref().map_or("\\N".to_owned(), escaped);
        line(row.iter().map(cell).collect());
    }
}

fn json(columns: &[String], rows: &[Vec<Option<String>>]) {
    let all: Vec<serde_json::Value> = rows.iter().map(|row| object(columns, row).into()).collect();
    println!("{}", serde_json::Value::from(all));
}

/// Returns a row as an object of texts.
fn object(
    columns: &[String],
    row: &[Option<String>],
) -> serde_json::Map<String, serde_json::Value> {
    let cells = columns.iter().zip(row);
    cells.map(|(column, cell)| (column.clone(), cell.clone().into())).collect()
}
