//! The database as sqllogictest drives it, over either protocol.

use std::time::Duration;

use async_trait::async_trait;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType};
use tokio_postgres::types::{FromSql, Kind, Type};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// Microseconds from 1970 to 2000.
const EPOCH_2000_US: i64 = 946_684_800_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    Simple,
    Extended,
}

impl Protocol {
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Extended => "extended",
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{}: {message}", code.as_deref().unwrap_or("-----"))]
pub(crate) struct EngineError {
    code: Option<String>,
    message: String,
}

impl From<tokio_postgres::Error> for EngineError {
    fn from(error: tokio_postgres::Error) -> Self {
        match error.as_db_error() {
            Some(db) => {
                Self { code: Some(db.code().code().to_owned()), message: db.message().to_owned() }
            }
            None => Self { code: None, message: error.to_string() },
        }
    }
}

pub(crate) struct Engine {
    client: Client,
    protocol: Protocol,
}

/// So often a SELECT is asked: the last answer is what is compared. From the second time on its plan is kept.
fn times_asked() -> usize {
    let times = std::env::var("CNOSDB_SLT_TIMES").ok();
    times.and_then(|times| times.parse().ok()).unwrap_or(1)
}

fn cell(value: Option<&str>) -> String {
    match value {
        None => "NULL".to_owned(),
        Some("") => "(empty)".to_owned(),
        Some(text) => text.replace('\n', "\\n"),
    }
}

impl Engine {
    async fn ask(&self, sql: &str) -> Result<DBOutput<DefaultColumnType>, EngineError> {
        match self.protocol {
            Protocol::Simple => self.simple(sql).await,
            Protocol::Extended => self.extended(sql).await,
        }
    }

    pub(crate) async fn connect(
        port: u16,
        tenant: &str,
        protocol: Protocol,
    ) -> Result<Self, EngineError> {
        let mut config = tokio_postgres::Config::new();
        let config = config.host("127.0.0.1").port(port).user("root").dbname(tenant);
        // What few rows the cases have, nodes are to work on where they are.
        let config = config.options("-c min_remote_stage_rows=1");
        let (client, connection) = config.connect(NoTls).await?;
        tokio::spawn(connection);
        Ok(Self { client, protocol })
    }

    pub(crate) async fn execute(&self, sql: &str) -> Result<(), EngineError> {
        Ok(self.client.simple_query(sql).await.map(|_| ())?)
    }

    async fn simple(&self, sql: &str) -> Result<DBOutput<DefaultColumnType>, EngineError> {
        let (mut columns, mut rows, mut count) = (None, Vec::new(), 0);
        for message in self.client.simple_query(sql).await? {
            match message {
                SimpleQueryMessage::RowDescription(described) => columns = Some(described.len()),
                SimpleQueryMessage::Row(row) => {
                    rows.push((0..row.len()).map(|at| cell(row.get(at))).collect());
                }
                SimpleQueryMessage::CommandComplete(changed) => count = changed,
                _ => {}
            }
        }
        Ok(match columns {
            Some(columns) => DBOutput::Rows { types: vec![DefaultColumnType::Any; columns], rows },
            None => DBOutput::StatementComplete(count),
        })
    }

    async fn extended(&self, sql: &str) -> Result<DBOutput<DefaultColumnType>, EngineError> {
        let statement = self.client.prepare(sql).await?;
        let columns = statement.columns();
        if columns.is_empty() {
            let changed = self.client.execute(&statement, &[]).await?;
            return Ok(DBOutput::StatementComplete(changed));
        }
        let mut rows = Vec::new();
        for row in self.client.query(&statement, &[]).await? {
            let mut cells = Vec::with_capacity(columns.len());
            for (at, column) in columns.iter().enumerate() {
                let Raw(bytes) = row.try_get(at)?;
                let text = bytes.map(|bytes| text_of(column.type_(), &bytes));
                cells.push(cell(text.as_deref()));
            }
            rows.push(cells);
        }
        Ok(DBOutput::Rows { types: vec![DefaultColumnType::Any; columns.len()], rows })
    }
}

/// A field's bytes as they came.
struct Raw(Option<Vec<u8>>);

impl<'a> FromSql<'a> for Raw {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(Some(raw.to_vec())))
    }

    fn from_sql_null(_: &Type) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        Ok(Self(None))
    }

    fn accepts(_: &Type) -> bool {
        true
    }
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().unwrap_or_else(|_| panic!("{} bytes where {N} belong", bytes.len()))
}

/// Writes binary fields as the simple protocol would.
fn text_of(data_type: &Type, bytes: &[u8]) -> String {
    match *data_type {
        Type::BOOL => if bytes == [1] { "t" } else { "f" }.to_owned(),
        Type::INT2 => i16::from_be_bytes(array(bytes)).to_string(),
        Type::INT4 | Type::OID => i32::from_be_bytes(array(bytes)).to_string(),
        Type::INT8 => i64::from_be_bytes(array(bytes)).to_string(),
        Type::FLOAT4 => short_float(f32::from_be_bytes(array(bytes))),
        Type::BYTEA => {
            let digits = bytes.iter().map(|byte| format!("{byte:02x}"));
            format!("\\x{}", digits.collect::<String>())
        }
        Type::FLOAT8 => float(f64::from_be_bytes(array(bytes)), 1e15),
        Type::TIMESTAMPTZ => format!("{}+00", time(bytes)),
        Type::TIMESTAMP => time(bytes),
        Type::DATE => {
            let days = i64::from(i32::from_be_bytes(array(bytes))) + EPOCH_2000_US / 86_400_000_000;
            date(days)
        }
        Type::NUMERIC => numeric(bytes),
        Type::INTERVAL => interval(bytes),
        _ if matches!(data_type.kind(), Kind::Array(_)) => list(data_type, bytes),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}

/// Writes a number as PostgreSQL does; from `long` on with an exponent.
fn float(value: f64, long: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "Infinity" } else { "-Infinity" }.to_owned();
    }
    if value != 0.0 && (value.abs() >= long || value.abs() < 1e-4) {
        let text = format!("{value:e}");
        let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
        let (sign, digits) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
        return format!("{mantissa}e{sign}{digits:0>2}");
    }
    format!("{value}")
}

/// Writes the shortest digits that tell a single-precision number from its neighbours.
fn short_float(value: f32) -> String {
    float(value.to_string().parse().unwrap_or(f64::NAN), 1e6)
}

fn date(days: i64) -> String {
    // Counted from 0000-03-01, as years then end with the leap day.
    let (mut year, mut left) = (1970, days);
    let leap = |year: i64| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    while left < 0 {
        year -= 1;
        left += if leap(year) { 366 } else { 365 };
    }
    while left >= if leap(year) { 366 } else { 365 } {
        left -= if leap(year) { 366 } else { 365 };
        year += 1;
    }
    let lengths = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while left >= lengths[month] {
        left -= lengths[month];
        month += 1;
    }
    format!("{year:04}-{:02}-{:02}", month + 1, left + 1)
}

fn time(bytes: &[u8]) -> String {
    let us = i64::from_be_bytes(array(bytes)) + EPOCH_2000_US;
    let of_day = us.rem_euclid(86_400_000_000);
    let seconds = of_day / 1_000_000;
    let fraction = of_day % 1_000_000;
    let fraction = if fraction == 0 {
        String::new()
    } else {
        format!(".{fraction:06}").trim_end_matches('0').to_owned()
    };
    let day = date(us.div_euclid(86_400_000_000));
    format!("{day} {:02}:{:02}:{:02}{fraction}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

fn numeric(bytes: &[u8]) -> String {
    let word = |at: usize| i16::from_be_bytes(array(&bytes[at * 2..at * 2 + 2]));
    let (count, weight, behind) = (word(0), word(1), word(3) as usize);
    let digit = |at: i16| if (0..count).contains(&at) { word(4 + at as usize) } else { 0 };
    let digits = |from: i16, to: i16| -> String {
        (from..to).map(|at| format!("{:04}", digit(at))).collect()
    };
    let whole = digits(0, weight + 1);
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let sign = if word(2) == 0x4000 { "-" } else { "" };
    if behind == 0 {
        return format!("{sign}{whole}");
    }
    let fraction = digits(weight + 1, weight + 1 + behind.div_ceil(4) as i16);
    format!("{sign}{whole}.{}", &fraction[..behind])
}

/// Writes an interval as the simple protocol would.
fn interval(bytes: &[u8]) -> String {
    let us = i64::from_be_bytes(array(&bytes[..8]));
    let days = i32::from_be_bytes(array(&bytes[8..12]));
    let months = i32::from_be_bytes(array(&bytes[12..]));
    let (mut words, mut before) = (Vec::new(), false);
    for (value, unit) in [(months / 12, "year"), (months % 12, "mon"), (days, "day")] {
        if value != 0 {
            let plus = if before && value > 0 { "+" } else { "" };
            words.push(format!("{plus}{value} {unit}{}", if value == 1 { "" } else { "s" }));
            before = value < 0;
        }
    }
    if us != 0 || words.is_empty() {
        let sign = if us < 0 {
            "-"
        } else if before {
            "+"
        } else {
            ""
        };
        let (seconds, fraction) = (us.abs() / 1_000_000, us.abs() % 1_000_000);
        let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
        let mut time = format!("{sign}{hours:02}:{minutes:02}:{:02}", seconds % 60);
        if fraction > 0 {
            time.push_str(format!(".{fraction:06}").trim_end_matches('0'));
        }
        words.push(time);
    }
    words.join(" ")
}

fn list(data_type: &Type, bytes: &[u8]) -> String {
    let Kind::Array(inner) = data_type.kind() else { return String::new() };
    let word = |at: usize| i32::from_be_bytes(array(&bytes[at..at + 4]));
    if word(0) == 0 {
        return "{}".to_owned();
    }
    let dimensions = word(0) as usize;
    let lengths: Vec<usize> = (0..dimensions).map(|at| word(12 + at * 8) as usize).collect();
    let mut at = 12 + dimensions * 8;
    let mut items = Vec::new();
    for _ in 0..lengths.iter().product() {
        let len = word(at);
        at += 4;
        if len < 0 {
            items.push("NULL".to_owned());
        } else {
            items.push(quoted(&text_of(inner, &bytes[at..at + len as usize])));
            at += len as usize;
        }
    }
    for length in lengths.iter().rev() {
        items = items.chunks(*length).map(|part| format!("{{{}}}", part.join(","))).collect();
    }
    items.concat()
}

/// Quotes an element where array_out does.
fn quoted(text: &str) -> String {
    let is_special = |c: char| matches!(c, '{' | '}' | ',' | '"' | '\\') || c.is_ascii_whitespace();
    if text.is_empty() || text.eq_ignore_ascii_case("null") || text.contains(is_special) {
        return format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    }
    text.to_owned()
}

#[async_trait]
impl AsyncDB for Engine {
    type Error = EngineError;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, EngineError> {
        let times = if sql.trim_start().starts_with("SELECT") { times_asked() } else { 1 };
        let mut answer = self.ask(sql).await;
        for _ in 1..times {
            // In a block, what comes after an error has another one.
            if answer.is_ok() {
                answer = self.ask(sql).await;
            }
        }
        answer
    }

    async fn shutdown(&mut self) {}

    fn engine_name(&self) -> &str {
        self.protocol.label()
    }

    async fn sleep(duration: Duration) {
        tokio::time::sleep(duration).await;
    }

    fn error_sql_state(error: &EngineError) -> Option<String> {
        error.code.clone()
    }
}
