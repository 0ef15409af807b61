//! Columns of rows to points, and points to the cluster. INSERT and COPY both end here.

use std::borrow::Cow;
use std::sync::Arc;

use cluster::Consistency;
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanBuilder, Float64Builder, Int64Builder, StringBuilder,
    TimestampNanosecondArray, TimestampNanosecondBuilder, UInt64Builder,
};
use datafusion::arrow::datatypes::TimestampNanosecondType;
use meta::{Precision, RateGroup};
use model::points::{POINTS_ROWS_MAX, PointsColumn, array_bytes};
use model::schema::TIME_ZONE;
use model::time::Span;
use model::{Column, ColumnKind, Points, TableSchema, ValueType};

use crate::access::Object;
use crate::database::Database;
use crate::error::{Error, Result, nearest};
use crate::geometry;
use crate::instants::{Zone, parse_instant};
use crate::quotas::Admission;
use crate::row_series::{RowSeries, SeriesKeys};
use crate::session::Session;
use crate::threads::beside_the_network;
use crate::usage::{Counted, Counters};

/// Where rows go: a table, and the columns that are named.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) database: Arc<meta::Database>,
    pub(crate) table: Arc<TableSchema>,
    pub(crate) columns: Vec<Column>,
    pub(crate) intake: Intake,
}

/// How rows come in: the zone and the moment that texts are read in, and what counts the rows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Intake {
    pub(crate) zone: Zone,
    pub(crate) now_ns: i64,
    pub(crate) usage: Arc<Counters>,
    /// Whose limits hold; nobody's where nothing is stored.
    pub(crate) admission: Option<Admission>,
    /// What is waited for.
    pub(crate) consistency: Consistency,
}

/// A value as it was written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Cell<'a> {
    Null,
    /// In quotes, or a field of COPY.
    Text(&'a str),
    /// A number's digits.
    Number(&'a str),
    Bool(bool),
    I64(i64),
    F64(f64),
    /// An instant, nanoseconds.
    Time(i64),
}

/// Gathers rows of a target, column by column.
pub(crate) struct RowsBuilder {
    target: Target,
    builders: Vec<ColumnBuilder>,
    series: RowSeries,
    rows: usize,
    bytes: usize,
}

/// What takes the cells of a column.
enum ColumnBuilder {
    /// A tag, by its place: it makes the row's series.
    Tag(usize),
    Values(CellBuilder),
}

/// The text of the time read last, and what it says: rows of many series come with one time.
#[derive(Debug, Default)]
struct LastTime(String, i64);

enum CellBuilder {
    Time(TimestampNanosecondBuilder, LastTime),
    I64(Int64Builder),
    U64(UInt64Builder),
    F64(Float64Builder),
    Bool(BooleanBuilder),
    Str(StringBuilder),
}

impl Target {
    /// Returns the table, as privileges name it.
    pub(crate) fn object(&self) -> Object {
        Object::table(self.database.id, self.table.id)
    }

    /// Names columns of a table, all of them where `names` is empty.
    pub(crate) fn new(
        database: Arc<meta::Database>,
        table: Arc<TableSchema>,
        names: &[String],
        intake: Intake,
    ) -> Result<Self> {
        let mut columns: Vec<Column> = Vec::with_capacity(names.len());
        for name in names {
            let Some(column) = table.column(name) else {
                let message =
                    format!("column \"{name}\" of relation \"{}\" does not exist", table.name);
                let error = Error::new("42703", message);
                let known = table.columns.iter().map(|column| column.name.as_str());
                return Err(match nearest(name, known) {
                    Some(near) => error.hint(format!("perhaps you meant \"{near}\"")),
                    None => error,
                });
            };
            if columns.iter().any(|other| other.id == column.id) {
                let message = format!("column \"{name}\" specified more than once");
                return Err(Error::new("42701", message));
            }
            columns.push(column.clone());
        }
        if names.is_empty() {
            columns.clone_from(&table.columns);
        }
        if !columns.iter().any(|column| column.kind == ColumnKind::Time) {
            let message = format!("rows of \"{}\" need their \"time\"", table.name);
            return Err(Error::new("23502", message).hint("name the column \"time\""));
        }
        if let Some(tag) = table.tags().find(|tag| tag.not_null && !columns.contains(tag)) {
            return Err(null_value(&tag.name, &table.name));
        }
        Ok(Self { database, table, columns, intake })
    }

    /// Names every column of a table.
    pub(crate) fn whole(database: Arc<meta::Database>, table: Arc<TableSchema>) -> Self {
        let columns = table.columns.clone();
        Self { database, table, columns, intake: Intake::default() }
    }

    /// Turns one array a column, in the columns' Arrow types, into points.
    pub(crate) fn points(&self, arrays: &[ArrayRef], now_ns: i64) -> Result<Vec<Points>> {
        let rows = arrays.first().map_or(0, |array| array.len());
        let mut all = Vec::with_capacity(rows / POINTS_ROWS_MAX + 1);
        let mut start = 0;
        while start < rows {
            let len = (rows - start).min(POINTS_ROWS_MAX);
            let part: Vec<ArrayRef> = arrays.iter().map(|array| array.slice(start, len)).collect();
            all.push(self.part(&part, now_ns)?);
            start += len;
        }
        Ok(all)
    }

    /// As [`Target::points`], of values that were not stored before.
    pub(crate) fn new_points(&self, arrays: &[ArrayRef], now_ns: i64) -> Result<Vec<Points>> {
        self.points(arrays, now_ns).and_then(|points| self.admitted(points))
    }

    fn admitted(&self, mut points: Vec<Points>) -> Result<Vec<Points>> {
        points.iter_mut().try_for_each(|points| admit(&self.table, points))?;
        Ok(points)
    }

    fn part(&self, arrays: &[ArrayRef], now_ns: i64) -> Result<Points> {
        let of_kind =
            |kind: ColumnKind| self.columns.iter().zip(arrays).filter(move |(c, _)| c.kind == kind);
        let time = of_kind(ColumnKind::Time).next().map(|(_, array)| array);
        let time = time.ok_or_else(|| Error::internal("a target names its time"))?;
        let times = self.times(time.as_primitive(), now_ns)?;
        let tags: Vec<_> = of_kind(ColumnKind::Tag).collect();
        let (series, row_series) = self.series(&tags, times.len())?;
        let fields =
            self.columns.iter().zip(arrays).filter_map(|(column, array)| match column.kind {
                ColumnKind::Field(value_type) => {
                    Some(PointsColumn { id: column.id, value_type, values: Arc::clone(array) })
                }
                ColumnKind::Time | ColumnKind::Tag => None,
            });
        Ok(Points { table: self.table.id, series, row_series, times, fields: fields.collect() })
    }

    fn times(&self, times: &TimestampNanosecondArray, now_ns: i64) -> Result<Vec<i64>> {
        if times.null_count() > 0 {
            return Err(null_value("time", &self.table.name));
        }
        let times = times.values().to_vec();
        self.check_alive(&times, now_ns)?;
        Ok(times)
    }

    pub(crate) fn check_alive(&self, times: &[i64], now_ns: i64) -> Result<()> {
        let Span::Ns(ttl) = self.database.options.ttl else { return Ok(()) };
        let oldest = now_ns.saturating_sub(ttl);
        if times.iter().all(|time| *time >= oldest) {
            return Ok(());
        }
        let message = format!("a row is older than the TTL of database \"{}\"", self.database.name);
        Err(Error::new("22008", message)
            .hint("ALTER DATABASE ... SET TTL makes room for older rows"))
    }

    fn series(&self, tags: &[(&Column, &ArrayRef)], rows: usize) -> Result<(SeriesKeys, Vec<u32>)> {
        let mut series = RowSeries::new(self.table.id, &self.columns);
        let tags: Vec<_> =
            tags.iter().map(|(tag, array)| (series.place(tag), array.as_string::<i32>())).collect();
        for row in 0..rows {
            for (place, texts) in &tags {
                if texts.is_valid(row) {
                    series.push(*place, texts.value(row))?;
                }
            }
            series.end_row();
        }
        series.finish().map_err(|tag| null_value(tag, &self.table.name))
    }
}

/// Counts rows that were stored, and their bytes.
pub(crate) fn count(usage: &Counters, (rows, bytes): (u64, u64)) {
    usage.add(Counted::RowsIn, rows);
    usage.add(Counted::BytesIn, bytes);
}

/// Returns the rows of a batch, and about how many bytes they take in the log.
pub(crate) fn size(points: &Points) -> (u64, u64) {
    let fields: usize = points.fields.iter().map(|field| array_bytes(&field.values)).sum();
    let keys: usize = points.series.iter().map(|key| key.len()).sum();
    (points.rows() as u64, (fields + keys + points.rows() * 8) as u64)
}

/// Makes values ready that were not stored before: looks whether shapes are what their columns hold, and
/// applies lossy codecs.
pub(crate) fn admit(table: &TableSchema, points: &mut Points) -> Result<()> {
    for column in table.columns.iter().filter(|one| one.codec.is_lossy() || one.shape.is_some()) {
        let Some(at) = points.fields.iter().position(|field| field.id == column.id) else {
            continue;
        };
        if let Some(shape) = column.shape {
            let texts = points.fields[at].values.as_string::<i32>();
            let check = || {
                let mut texts = texts.iter().flatten();
                texts.try_for_each(|text| geometry::check(text, shape, column))
            };
            beside_the_network(check)?;
        }
        if column.codec.is_lossy() {
            model::lossy::reduce(points, at, column.codec);
        }
    }
    Ok(())
}

impl Intake {
    pub(crate) fn of(session: &Session) -> Self {
        Self {
            zone: session.zone(),
            now_ns: session.now_ns(),
            usage: session.usage(),
            admission: Some(session.admission()),
            consistency: session.consistency(),
        }
    }
}

pub(crate) fn null_value(column: &str, table: &str) -> Error {
    let message = format!(
        "null value in column \"{column}\" of relation \"{table}\" violates not-null constraint"
    );
    Error::new("23502", message)
}

impl RowsBuilder {
    pub(crate) fn new(target: Target) -> Self {
        let series = RowSeries::new(target.table.id, &target.columns);
        let builders = target.columns.iter().map(|column| match column.kind {
            ColumnKind::Tag => ColumnBuilder::Tag(series.place(column)),
            ColumnKind::Time => {
                let builder = TimestampNanosecondBuilder::new();
                let builder = builder.with_timezone(TIME_ZONE);
                ColumnBuilder::Values(CellBuilder::Time(builder, LastTime::default()))
            }
            ColumnKind::Field(value_type) => ColumnBuilder::Values(CellBuilder::of(value_type)),
        });
        let builders = builders.collect();
        Self { target, builders, series, rows: 0, bytes: 0 }
    }

    pub(crate) fn target(&self) -> &Target {
        &self.target
    }

    pub(crate) fn rows(&self) -> usize {
        self.rows
    }

    /// Returns about how many bytes the rows take.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds the value of a column of the current row.
    pub(crate) fn push(&mut self, at: usize, cell: Cell<'_>) -> Result<()> {
        let target = &self.target;
        self.bytes += match cell {
            Cell::Text(text) => text.len() + 4,
            _ => 8,
        };
        match (&mut self.builders[at], cell) {
            (ColumnBuilder::Tag(_), Cell::Null) => Ok(()),
            (ColumnBuilder::Tag(place), _) => self.series.push(*place, &text(cell)?),
            (ColumnBuilder::Values(builder), _) => {
                builder.push(cell, target.database.options.precision, &target.intake)
            }
        }
    }

    /// Takes the bytes that all tags of the current row were sent as. Returns whether that suffices, and they
    /// need not be pushed.
    pub(crate) fn take_sent_tags(&mut self, sent: &[u8]) -> bool {
        let is_known = self.series.take_sent(sent);
        self.bytes += if is_known { sent.len() } else { 0 };
        is_known
    }

    /// Ends the current row.
    pub(crate) fn end_row(&mut self) {
        self.series.end_row();
        self.rows += 1;
    }

    /// Gives the rows as points, and begins anew.
    pub(crate) fn finish(&mut self, now_ns: i64) -> Result<Vec<Points>> {
        (self.rows, self.bytes) = (0, 0);
        let (mut times, mut fields) = (None, Vec::with_capacity(self.builders.len()));
        for (column, builder) in self.target.columns.iter().zip(&mut self.builders) {
            let ColumnBuilder::Values(builder) = builder else { continue };
            let values = builder.finish();
            match column.kind {
                ColumnKind::Field(value_type) => {
                    fields.push(PointsColumn { id: column.id, value_type, values });
                }
                ColumnKind::Time | ColumnKind::Tag => times = Some(values),
            }
        }
        let series = self.series.finish();
        let times = times.ok_or_else(|| Error::internal("a target names its time"))?;
        let times = self.target.times(times.as_primitive(), now_ns)?;
        let (series, row_series) =
            series.map_err(|tag| null_value(tag, &self.target.table.name))?;
        let table = self.target.table.id;
        let points = Points { table, series, row_series, times, fields };
        self.target.admitted(points.split(POINTS_ROWS_MAX))
    }

    /// Drops the cells of a row that was not ended.
    pub(crate) fn drop_partial_row(&mut self) {
        let rows = self.rows;
        self.series.drop_partial_row();
        for builder in &mut self.builders {
            if let ColumnBuilder::Values(builder) = builder {
                builder.truncate(rows);
            }
        }
    }
}

impl LastTime {
    fn time(&mut self, cell: Cell<'_>, precision: Precision, intake: &Intake) -> Result<i64> {
        let Cell::Text(text) = cell else { return time(cell, precision, intake) };
        if text != self.0 || text.is_empty() {
            self.1 = time(cell, precision, intake)?;
            text.clone_into(&mut self.0);
        }
        Ok(self.1)
    }
}

impl CellBuilder {
    fn of(value_type: ValueType) -> Self {
        match value_type {
            ValueType::I64 => Self::I64(Int64Builder::new()),
            ValueType::U64 => Self::U64(UInt64Builder::new()),
            ValueType::F64 => Self::F64(Float64Builder::new()),
            ValueType::Bool => Self::Bool(BooleanBuilder::new()),
            ValueType::Str => Self::Str(StringBuilder::new()),
        }
    }

    fn push(&mut self, cell: Cell<'_>, precision: Precision, intake: &Intake) -> Result<()> {
        if matches!(cell, Cell::Null) {
            match self {
                Self::Time(builder, _) => builder.append_null(),
                Self::I64(builder) => builder.append_null(),
                Self::U64(builder) => builder.append_null(),
                Self::F64(builder) => builder.append_null(),
                Self::Bool(builder) => builder.append_null(),
                Self::Str(builder) => builder.append_null(),
            }
            return Ok(());
        }
        match self {
            Self::Time(builder, last) => {
                builder.append_value(last.time(cell, precision, intake)?);
            }
            Self::I64(builder) => builder.append_value(integer(cell)?),
            Self::U64(builder) => builder.append_value(unsigned(cell)?),
            Self::F64(builder) => builder.append_value(float(cell)?),
            Self::Bool(builder) => builder.append_value(boolean(cell)?),
            Self::Str(builder) => builder.append_value(text(cell)?),
        }
        Ok(())
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Time(builder, _) => Arc::new(builder.finish()),
            Self::I64(builder) => Arc::new(builder.finish()),
            Self::U64(builder) => Arc::new(builder.finish()),
            Self::F64(builder) => Arc::new(builder.finish()),
            Self::Bool(builder) => Arc::new(builder.finish()),
            Self::Str(builder) => Arc::new(builder.finish()),
        }
    }

    fn len(&self) -> usize {
        use datafusion::arrow::array::ArrayBuilder;
        match self {
            Self::Time(builder, _) => builder.len(),
            Self::I64(builder) => builder.len(),
            Self::U64(builder) => builder.len(),
            Self::F64(builder) => builder.len(),
            Self::Bool(builder) => builder.len(),
            Self::Str(builder) => builder.len(),
        }
    }

    /// Keeps the first `rows` values. Rebuilds the column, which only a refused row costs.
    fn truncate(&mut self, rows: usize) {
        if self.len() <= rows {
            return;
        }
        let kept = self.finish().slice(0, rows);
        match self {
            Self::Time(builder, _) => {
                builder.extend(kept.as_primitive::<TimestampNanosecondType>())
            }
            Self::I64(builder) => {
                builder.extend(kept.as_primitive::<datafusion::arrow::datatypes::Int64Type>())
            }
            Self::U64(builder) => {
                builder.extend(kept.as_primitive::<datafusion::arrow::datatypes::UInt64Type>())
            }
            Self::F64(builder) => {
                builder.extend(kept.as_primitive::<datafusion::arrow::datatypes::Float64Type>())
            }
            Self::Bool(builder) => builder.extend(kept.as_boolean()),
            Self::Str(builder) => builder.extend(kept.as_string::<i32>()),
        }
    }
}

fn invalid(type_name: &str, text: &str) -> Error {
    Error::new("22P02", format!("invalid input syntax for type {type_name}: \"{text}\""))
}

fn mismatch(wanted: &str, given: &str) -> Error {
    Error::new("42804", format!("column is of type {wanted} but expression is of type {given}"))
}

fn out_of_range(type_name: &str, text: &str) -> Error {
    Error::new("22003", format!("value \"{text}\" is out of range for type {type_name}"))
}

/// Reads a few digits, whose number a double holds exactly: the fields of most rows.
fn short_whole(text: &str) -> Option<f64> {
    const DIGITS_MAX: usize = 15;
    if text.is_empty() || text.len() > DIGITS_MAX {
        return None;
    }
    let digits = text.bytes().map(|byte| byte.is_ascii_digit().then(|| u64::from(byte - b'0')));
    Some(digits.into_iter().try_fold(0, |number, digit| Some(number * 10 + digit?))? as f64)
}

/// Returns a text without white space around it; most have none.
fn trimmed(text: &str) -> &str {
    match text.as_bytes() {
        [first, .., last] if first.is_ascii_graphic() && last.is_ascii_graphic() => text,
        _ => text.trim(),
    }
}

/// Reads an instant: text with or without an offset, or a number in the database's precision.
fn time(cell: Cell<'_>, precision: Precision, intake: &Intake) -> Result<i64> {
    const NAME: &str = "timestamp with time zone";
    let scaled = |number: i64, text: &str| {
        number.checked_mul(precision.ns()).ok_or_else(|| out_of_range(NAME, text))
    };
    match cell {
        Cell::Time(ns) => Ok(ns),
        Cell::I64(number) => scaled(number, &number.to_string()),
        Cell::Number(text) => scaled(text.parse().map_err(|_| out_of_range(NAME, text))?, text),
        Cell::Text(text) => {
            let text = text.trim();
            let digits = text.strip_prefix('-').unwrap_or(text);
            if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return scaled(text.parse().map_err(|_| out_of_range(NAME, text))?, text);
            }
            parse_instant(text, &intake.zone, intake.now_ns).ok_or_else(|| {
                Error::new("22007", format!("invalid input syntax for type {NAME}: \"{text}\""))
            })
        }
        Cell::Bool(_) => Err(mismatch(NAME, "boolean")),
        Cell::F64(_) | Cell::Null => Err(mismatch(NAME, "double precision")),
    }
}

fn text(cell: Cell<'_>) -> Result<Cow<'_, str>> {
    Ok(match cell {
        Cell::Text(text) | Cell::Number(text) => Cow::Borrowed(text),
        Cell::Bool(value) => Cow::Borrowed(if value { "true" } else { "false" }),
        Cell::I64(value) => Cow::Owned(value.to_string()),
        Cell::F64(value) => Cow::Owned(value.to_string()),
        Cell::Time(_) | Cell::Null => return Err(mismatch("text", "timestamp with time zone")),
    })
}

fn integer(cell: Cell<'_>) -> Result<i64> {
    const NAME: &str = "bigint";
    let rounded = |value: f64, text: &str| {
        let whole = value.round();
        // 2^63 is the first double beyond the range.
        let inside = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&whole);
        if inside { Ok(whole as i64) } else { Err(out_of_range(NAME, text)) }
    };
    match cell {
        Cell::I64(value) => Ok(value),
        Cell::F64(value) => rounded(value, &value.to_string()),
        Cell::Text(text) => trimmed(text).parse().map_err(|_| {
            if text.trim().parse::<i128>().is_ok() {
                out_of_range(NAME, text)
            } else {
                invalid(NAME, text)
            }
        }),
        Cell::Number(text) => match text.parse() {
            Ok(value) => Ok(value),
            Err(_) if text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') => {
                Err(out_of_range(NAME, text))
            }
            Err(_) => rounded(text.parse().map_err(|_| invalid(NAME, text))?, text),
        },
        Cell::Bool(_) => Err(mismatch(NAME, "boolean")),
        Cell::Time(_) | Cell::Null => Err(mismatch(NAME, "timestamp with time zone")),
    }
}

fn unsigned(cell: Cell<'_>) -> Result<u64> {
    const NAME: &str = "bigint unsigned";
    match cell {
        Cell::I64(value) => {
            u64::try_from(value).map_err(|_| out_of_range(NAME, &value.to_string()))
        }
        Cell::Text(text) | Cell::Number(text) => text.trim().parse().map_err(|_| {
            if text.trim().parse::<f64>().is_ok() {
                out_of_range(NAME, text)
            } else {
                invalid(NAME, text)
            }
        }),
        Cell::F64(_) => Err(mismatch(NAME, "double precision")),
        Cell::Bool(_) => Err(mismatch(NAME, "boolean")),
        Cell::Time(_) | Cell::Null => Err(mismatch(NAME, "timestamp with time zone")),
    }
}

fn float(cell: Cell<'_>) -> Result<f64> {
    const NAME: &str = "double precision";
    match cell {
        Cell::F64(value) => Ok(value),
        Cell::I64(value) => Ok(value as f64),
        Cell::Text(text) | Cell::Number(text) => {
            let text = trimmed(text);
            if let Some(value) = short_whole(text) {
                return Ok(value);
            }
            let value: f64 = text.parse().map_err(|_| invalid(NAME, text))?;
            let is_spelt = || {
                text.bytes().any(|byte| byte.is_ascii_alphabetic() && !matches!(byte, b'e' | b'E'))
            };
            if value.is_infinite() && !is_spelt() {
                return Err(out_of_range(NAME, text));
            }
            Ok(value)
        }
        Cell::Bool(_) => Err(mismatch(NAME, "boolean")),
        Cell::Time(_) | Cell::Null => Err(mismatch(NAME, "timestamp with time zone")),
    }
}

fn boolean(cell: Cell<'_>) -> Result<bool> {
    const NAME: &str = "boolean";
    match cell {
        Cell::Bool(value) => Ok(value),
        Cell::Text(text) => match text.trim().to_ascii_lowercase().as_str() {
            "t" | "true" | "y" | "yes" | "on" | "1" => Ok(true),
            "f" | "false" | "n" | "no" | "off" | "0" => Ok(false),
            _ => Err(invalid(NAME, text)),
        },
        Cell::Number(_) | Cell::I64(_) => Err(mismatch(NAME, "integer")),
        Cell::F64(_) => Err(mismatch(NAME, "double precision")),
        Cell::Time(_) | Cell::Null => Err(mismatch(NAME, "timestamp with time zone")),
    }
}

/// Stores points; every row is durable and visible when this returns. Where a later batch fails, the
/// error says that earlier ones are kept.
pub(crate) async fn store(database: &Database, target: &Target, points: Vec<Points>) -> Result<()> {
    for (number, points) in points.into_iter().enumerate() {
        let size = size(&points);
        let stored = store_one(database, target, points, size).await;
        if let Err(error) = stored {
            if number == 0 {
                return Err(error);
            }
            let message = format!("the first {number} batches of rows are kept: {}", error.message);
            return Err(Error::new("40003", message).hint("repeating the statement is harmless"));
        }
        count(&target.intake.usage, size);
    }
    Ok(())
}

async fn store_one(
    database: &Database,
    target: &Target,
    points: Points,
    (_, bytes): (u64, u64),
) -> Result<()> {
    if let Some(admission) = &target.intake.admission {
        admission.take(RateGroup::CoordDataIn, bytes).await?;
    }
    let consistency = target.intake.consistency;
    Ok(database.cluster().write(target.database.id, points, consistency).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_postgresql_reads_them() {
        assert_eq!(integer(Cell::Number("1.5")).unwrap(), 2);
        assert_eq!(integer(Cell::Text(" 7 ")).unwrap(), 7);
        assert_eq!(integer(Cell::Text("x")).unwrap_err().sqlstate, "22P02");
        assert_eq!(integer(Cell::Number("9223372036854775808")).unwrap_err().sqlstate, "22003");
        assert_eq!(integer(Cell::F64(9.3e18)).unwrap_err().sqlstate, "22003");
        assert_eq!(unsigned(Cell::Number("18446744073709551615")).unwrap(), u64::MAX);
        assert_eq!(unsigned(Cell::I64(-1)).unwrap_err().sqlstate, "22003");
        let doubles = [("58", 58.0), ("-0", -0.0), ("999999999999999", 999_999_999_999_999.0)];
        for (text, value) in doubles {
            assert_eq!(float(Cell::Text(text)).unwrap().to_bits(), f64::to_bits(value), "{text}");
        }
        assert_eq!(float(Cell::Text("5/")).unwrap_err().sqlstate, "22P02");
        assert!(float(Cell::Text("Infinity")).unwrap().is_infinite());
        assert!(float(Cell::Text("NaN")).unwrap().is_nan());
        assert_eq!(float(Cell::Number("1e999")).unwrap_err().sqlstate, "22003");
        assert!(boolean(Cell::Text("ON")).unwrap());
    }

    #[test]
    fn times_have_an_offset_a_zone_or_a_precision() {
        let intake = Intake::default();
        let read = |text| time(Cell::Text(text), Precision::Ms, &intake);
        let second = 1_000_000_000;
        assert_eq!(read("1970-01-01T00:00:01Z").unwrap(), second);
        assert_eq!(read("1970-01-01 01:00:01+01").unwrap(), second);
        assert_eq!(read("1970-01-01 00:00:01.000000001").unwrap(), second + 1);
        assert_eq!(read("1970-01-01").unwrap(), 0);
        assert_eq!(read("1000").unwrap(), second);
        assert_eq!(time(Cell::Number("-1"), Precision::Us, &intake).unwrap(), -1_000);
        assert_eq!(read("yesterday-ish").unwrap_err().sqlstate, "22007");
    }
}
