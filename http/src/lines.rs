//! Line protocol: bytes to columns.
//!
//! `measurement[,tag=value…] field=value[,field=value…] [time]`, as InfluxDB describes it. Rows of one
//! table with the same fields make one batch, for a batch writes every column it names. A line that is
//! wrong is reported with its number, and the others are kept.
#![deny(clippy::indexing_slicing)]

mod pieces;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, StringBuilder, UInt64Builder,
};
use foldhash::fast::RandomState;
use memchr::{memchr, memchr_iter};
use query::RowBatch;

use pieces::Piece;
pub use pieces::parse;

/// The most lines that are reported one by one.
const REPORTED_MAX: usize = 100;
/// The most tables and sets of fields of one body.
const GROUPS_MAX: usize = 10_000;
/// The most tags of a series, and fields of a line.
const TAGS_MAX: usize = 256;
const FIELDS_MAX: usize = 4_096;

/// The unit of times that are written as numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Nanoseconds.
    #[default]
    Ns,
    /// Microseconds.
    Us,
    /// Milliseconds.
    Ms,
    /// Seconds.
    S,
}

/// A line that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadLine {
    /// Its number, from 1.
    pub number: usize,
    /// What is wrong.
    pub reason: String,
}

/// What a body of lines says.
#[derive(Debug, Default)]
pub struct Parsed {
    /// The rows, in batches; beside each the numbers of its lines.
    pub batches: Vec<(RowBatch, Vec<u32>)>,
    /// The lines that were not taken, as far as they are reported.
    pub bad: Vec<BadLine>,
    /// How many were not taken.
    pub bad_count: usize,
    /// How many were.
    pub good_count: usize,
}

impl Precision {
    /// Reads a precision by its name.
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "" | "ns" | "n" => Self::Ns,
            "us" | "u" | "µ" => Self::Us,
            "ms" => Self::Ms,
            "s" => Self::S,
            _ => return None,
        })
    }

    pub(crate) fn ns(self) -> i64 {
        match self {
            Self::Ns => 1,
            Self::Us => 1_000,
            Self::Ms => 1_000_000,
            Self::S => 1_000_000_000,
        }
    }
}

/// Reads some of a body's lines.
fn parse_piece(piece: Piece<'_>, precision: Precision, now_ns: i64) -> Parsed {
    let mut reading = Reading::default();
    let mut parsed = Parsed::default();
    let Piece { bytes, number, texts_end } = piece;
    for (number, line) in (Lines { rest: bytes, number, texts_end }) {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        match reading.line(line, precision, now_ns, number) {
            Ok(()) => parsed.good_count += 1,
            Err(reason) => {
                parsed.bad_count += 1;
                if parsed.bad.len() < REPORTED_MAX {
                    parsed.bad.push(BadLine { number, reason });
                }
            }
        }
    }
    parsed.batches = reading.finish();
    parsed
}

/// The lines of a body, one after another.
struct Lines<'a> {
    rest: &'a [u8],
    /// The number of the line that comes next.
    number: usize,
    /// No text that never ends was met so far: each costs a look at all that follows, so only one is.
    texts_end: bool,
}

impl<'a> Iterator for Lines<'a> {
    type Item = (usize, &'a [u8]);

    /// Splits off a line. A newline within a text does not end it.
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let number = self.number;
        let newline = memchr(b'\n', self.rest).unwrap_or(self.rest.len());
        let first = self.rest.get(..newline).unwrap_or_default();
        let mut end = newline;
        if self.texts_end
            && let Some(fields) = fields_with_quotes(first)
        {
            match quoted_end(self.rest.get(fields..).unwrap_or_default()) {
                Some(found) => end = fields + found,
                // It spoils its line, not all that follow.
                None => self.texts_end = false,
            }
        }
        let line = self.rest.get(..end).unwrap_or_default();
        self.rest = self.rest.get(end + 1..).unwrap_or_default();
        self.number += 1 + memchr_iter(b'\n', line).count();
        Some((number, line))
    }
}

/// Returns where the fields of a line begin, where there are quotes in them: quotes in comments and tags are
/// letters like others.
fn fields_with_quotes(line: &[u8]) -> Option<usize> {
    memchr(b'"', line)?;
    let blanks = line.len() - line.trim_ascii_start().len();
    let line = line.trim_ascii_start();
    if line.starts_with(b"#") {
        return None;
    }
    let (head, fields) = split_unescaped(line, b' ')?;
    memchr(b'"', fields).map(|_| blanks + head.len() + 1)
}

/// Returns where fields with quotes end, and their line; `None` where the last of them never does.
fn quoted_end(bytes: &[u8]) -> Option<usize> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'\n' if !quoted => return Some(at),
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            _ => {}
        }
    }
    (!quoted).then_some(bytes.len())
}

/// A table and the tags of a series, as a line begins.
#[derive(Clone, Debug)]
struct Head {
    table: String,
    tags: Vec<(String, String)>,
}

/// What the lines read so far say, and what is kept so that the next costs no allocation.
#[derive(Default)]
struct Reading<'a> {
    groups: Vec<Group>,
    heads: Vec<Head>,
    /// A head as it is written → its place.
    places: HashMap<&'a [u8], u32, RandomState>,
    /// Table and fields with their types → group.
    by_shape: HashMap<Vec<u8>, usize, RandomState>,
    /// The shape of the line being read, and its fields.
    shape: Vec<u8>,
    fields: Vec<(&'a [u8], Value<'a>)>,
    /// The shape of the line before, and its group.
    last: Option<(Vec<u8>, usize)>,
}

/// Rows of one table that have the same fields.
struct Group {
    table: String,
    /// The places of the heads of its series.
    series: Vec<u32>,
    /// A head's place → the number of its series.
    numbers: HashMap<u32, u32, RandomState>,
    row_series: Vec<u32>,
    times: Vec<i64>,
    lines: Vec<u32>,
    fields: Vec<(String, Column)>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Value<'a> {
    F64(f64),
    I64(i64),
    U64(u64),
    Bool(bool),
    /// Between the quotes, escapes and all.
    Text(&'a [u8]),
}

enum Column {
    F64(Float64Builder),
    I64(Int64Builder),
    U64(UInt64Builder),
    Bool(BooleanBuilder),
    Text(StringBuilder),
}

impl<'a> Reading<'a> {
    fn line(
        &mut self,
        line: &'a [u8],
        precision: Precision,
        now_ns: i64,
        number: usize,
    ) -> Result<(), String> {
        let (written, rest) = split_unescaped(line, b' ').ok_or("no fields")?;
        let head = match self.places.get(written) {
            Some(place) => *place,
            None => {
                let place = u32::try_from(self.heads.len()).map_err(|_| "too many series")?;
                self.heads.push(parse_head(written)?);
                self.places.insert(written, place);
                place
            }
        };
        self.fields.clear();
        let rest = parse_fields(rest.trim_ascii_start(), &mut self.fields)?.trim_ascii();
        let time = if rest.is_empty() { now_ns } else { parse_time(rest, precision)? };
        let group = self.group(head)?;
        let group = self.groups.get_mut(group).ok_or("no group")?;
        // All is checked before the first column grows, so that columns stay of one length.
        if self.fields.iter().any(|(_, value)| value.is_bad_text()) {
            return Err("text is not UTF-8".to_owned());
        }
        let next = group.series.len() as u32;
        let series = *group.numbers.entry(head).or_insert(next);
        if series == next {
            group.series.push(head);
        }
        group.row_series.push(series);
        group.times.push(time);
        group.lines.push(number as u32);
        for ((_, column), (_, value)) in group.fields.iter_mut().zip(&self.fields) {
            column.push(*value);
        }
        Ok(())
    }

    /// Returns the group of the fields just read, of the table a head names.
    fn group(&mut self, head: u32) -> Result<usize, String> {
        let head = self.heads.get(head as usize).ok_or("no head")?;
        self.shape.clear();
        // Each part behind its length: names may hold any byte.
        let mut put = |code: u8, name: &[u8]| {
            self.shape.push(code);
            self.shape.extend_from_slice(&name.len().to_le_bytes());
            self.shape.extend_from_slice(name);
        };
        put(0, head.table.as_bytes());
        self.fields.iter().for_each(|(name, value)| put(value.code(), name));
        if let Some((shape, group)) = &self.last
            && *shape == self.shape
        {
            return Ok(*group);
        }
        let group = match self.by_shape.get(&self.shape) {
            Some(group) => *group,
            None => {
                if self.groups.len() == GROUPS_MAX {
                    return Err(format!("more than {GROUPS_MAX} tables and sets of fields"));
                }
                self.groups.push(Group::new(&head.table, &self.fields)?);
                self.by_shape.insert(self.shape.clone(), self.groups.len() - 1);
                self.groups.len() - 1
            }
        };
        self.last = Some((self.shape.clone(), group));
        Ok(group)
    }

    fn finish(self) -> Vec<(RowBatch, Vec<u32>)> {
        let heads = self.heads;
        self.groups.into_iter().map(|group| group.finish(&heads)).collect()
    }
}

impl Group {
    fn new(table: &str, fields: &[(&[u8], Value<'_>)]) -> Result<Self, String> {
        let mut columns: Vec<(String, Column)> = Vec::with_capacity(fields.len());
        for (name, value) in fields {
            let name = unescape(name)?;
            check_name(&name, "field")?;
            if columns.iter().any(|(other, _)| *other == name) {
                return Err(format!("field \"{name}\" twice"));
            }
            columns.push((name, Column::of(*value)));
        }
        Ok(Self {
            table: table.to_owned(),
            series: Vec::new(),
            numbers: HashMap::default(),
            row_series: Vec::new(),
            times: Vec::new(),
            lines: Vec::new(),
            fields: columns,
        })
    }

    fn finish(self, heads: &[Head]) -> (RowBatch, Vec<u32>) {
        let series = self.series.iter().filter_map(|place| heads.get(*place as usize));
        let fields = self.fields.into_iter().map(|(name, column)| (name, column.finish()));
        let batch = RowBatch {
            table: self.table,
            series: series.map(|head| head.tags.clone()).collect(),
            row_series: self.row_series,
            times: self.times,
            fields: fields.collect(),
        };
        (batch, self.lines)
    }
}

impl Value<'_> {
    fn code(&self) -> u8 {
        match self {
            Self::F64(_) => 1,
            Self::I64(_) => 2,
            Self::U64(_) => 3,
            Self::Bool(_) => 4,
            Self::Text(_) => 5,
        }
    }

    /// Returns whether it is a text that is not UTF-8. A backslash more or less changes nothing in that.
    fn is_bad_text(&self) -> bool {
        matches!(self, Self::Text(raw) if std::str::from_utf8(raw).is_err())
    }
}

/// Takes the backslashes away that stand before a quote or a backslash.
fn text_of(raw: &[u8]) -> Cow<'_, str> {
    if memchr(b'\\', raw).is_none() {
        return String::from_utf8_lossy(raw);
    }
    let mut text = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let escaped = byte == b'\\' && matches!(bytes.peek(), Some(b'"' | b'\\'));
        text.push(if escaped { bytes.next().unwrap_or(byte) } else { byte });
    }
    Cow::Owned(String::from_utf8_lossy(&text).into_owned())
}

impl Column {
    fn of(value: Value<'_>) -> Self {
        match value {
            Value::F64(_) => Self::F64(Float64Builder::with_capacity(0)),
            Value::I64(_) => Self::I64(Int64Builder::with_capacity(0)),
            Value::U64(_) => Self::U64(UInt64Builder::with_capacity(0)),
            Value::Bool(_) => Self::Bool(BooleanBuilder::with_capacity(0)),
            Value::Text(_) => Self::Text(StringBuilder::with_capacity(0, 0)),
        }
    }

    /// Adds a value of the column's type, which the group's shape promises.
    fn push(&mut self, value: Value<'_>) {
        match (self, value) {
            (Self::F64(builder), Value::F64(value)) => builder.append_value(value),
            (Self::I64(builder), Value::I64(value)) => builder.append_value(value),
            (Self::U64(builder), Value::U64(value)) => builder.append_value(value),
            (Self::Bool(builder), Value::Bool(value)) => builder.append_value(value),
            (Self::Text(builder), Value::Text(raw)) => builder.append_value(text_of(raw)),
            _ => unreachable!("a group's rows have the types of its shape"),
        }
    }

    fn finish(self) -> ArrayRef {
        match self {
            Self::F64(mut builder) => Arc::new(builder.finish()),
            Self::I64(mut builder) => Arc::new(builder.finish()),
            Self::U64(mut builder) => Arc::new(builder.finish()),
            Self::Bool(mut builder) => Arc::new(builder.finish()),
            Self::Text(mut builder) => Arc::new(builder.finish()),
        }
    }
}

/// Splits at the first `wanted` that no backslash stands before.
fn split_unescaped(bytes: &[u8], wanted: u8) -> Option<(&[u8], &[u8])> {
    let mut from = 0;
    loop {
        let at = from + memchr(wanted, bytes.get(from..)?)?;
        let before = bytes.get(..at)?;
        let backslashes = before.iter().rev().take_while(|byte| **byte == b'\\').count();
        if backslashes % 2 == 0 {
            return Some((before, bytes.get(at + 1..)?));
        }
        from = at + 1;
    }
}

/// Takes the backslashes away that stand before a comma, an equals sign or a blank.
fn unescape(bytes: &[u8]) -> Result<String, String> {
    let mut text = Vec::with_capacity(bytes.len());
    let mut rest = bytes.iter().copied().peekable();
    while let Some(byte) = rest.next() {
        let escaped = byte == b'\\' && matches!(rest.peek(), Some(b',' | b'=' | b' ' | b'\\'));
        text.push(if escaped { rest.next().unwrap_or(byte) } else { byte });
    }
    String::from_utf8(text).map_err(|_| "a name or tag is not UTF-8".to_owned())
}

fn check_name(name: &str, what: &str) -> Result<(), String> {
    if name.is_empty() {
        return Err(format!("empty {what} name"));
    }
    if name.len() > model::schema::NAME_BYTES_MAX {
        return Err(format!("{what} name longer than {} bytes", model::schema::NAME_BYTES_MAX));
    }
    if name == "time" {
        return Err(format!("a {what} may not be called \"time\""));
    }
    Ok(())
}

fn parse_head(head: &[u8]) -> Result<Head, String> {
    let (table, mut rest) = match split_unescaped(head, b',') {
        Some((table, rest)) => (table, Some(rest)),
        None => (head, None),
    };
    let table = unescape(table)?;
    check_name(&table, "measurement")?;
    let mut tags: Vec<(String, String)> = Vec::new();
    while let Some(all) = rest {
        let (pair, after) = match split_unescaped(all, b',') {
            Some((pair, after)) => (pair, Some(after)),
            None => (all, None),
        };
        rest = after;
        let (name, value) = split_unescaped(pair, b'=').ok_or("a tag without a value")?;
        let (name, value) = (unescape(name)?, unescape(value)?);
        check_name(&name, "tag")?;
        if value.is_empty() {
            return Err(format!("tag \"{name}\" is empty"));
        }
        if tags.iter().any(|(other, _)| *other == name) {
            return Err(format!("tag \"{name}\" twice"));
        }
        if tags.len() == TAGS_MAX {
            return Err(format!("more than {TAGS_MAX} tags"));
        }
        tags.push((name, value));
    }
    Ok(Head { table, tags })
}

/// Reads the fields; returns what follows them.
fn parse_fields<'a>(
    mut rest: &'a [u8],
    fields: &mut Vec<(&'a [u8], Value<'a>)>,
) -> Result<&'a [u8], String> {
    loop {
        let (name, after) = split_unescaped(rest, b'=').ok_or("a field without a value")?;
        let holds = |byte| split_unescaped(name, byte).is_some();
        if name.is_empty() || holds(b' ') || holds(b',') {
            return Err("a field without a value".to_owned());
        }
        let (value, after) = parse_value(after)?;
        if fields.len() == FIELDS_MAX {
            return Err(format!("more than {FIELDS_MAX} fields"));
        }
        fields.push((name, value));
        match after.split_first() {
            Some((b',', more)) => rest = more,
            Some((b' ', more)) => return Ok(more),
            None => return Ok(&[]),
            Some(_) => return Err("something follows a field's value".to_owned()),
        }
    }
}

fn parse_value(bytes: &[u8]) -> Result<(Value<'_>, &[u8]), String> {
    if let Some(quoted) = bytes.strip_prefix(b"\"") {
        let (text, after) = split_unescaped(quoted, b'"').ok_or("a text without its end")?;
        return Ok((Value::Text(text), after));
    }
    let end = bytes.iter().position(|byte| matches!(byte, b',' | b' ')).unwrap_or(bytes.len());
    let (token, after) = bytes.split_at(end);
    let wrong = || format!("not a value: {}", String::from_utf8_lossy(token));
    let value = match token {
        b"t" | b"T" | b"true" | b"True" | b"TRUE" => Value::Bool(true),
        b"f" | b"F" | b"false" | b"False" | b"FALSE" => Value::Bool(false),
        [digits @ .., b'i'] => Value::I64(lexical_core::parse::<i64>(digits).map_err(|_| wrong())?),
        [digits @ .., b'u'] => Value::U64(lexical_core::parse::<u64>(digits).map_err(|_| wrong())?),
        digits => {
            let value = lexical_core::parse::<f64>(digits).map_err(|_| wrong())?;
            if !value.is_finite() {
                return Err(wrong());
            }
            Value::F64(value)
        }
    };
    Ok((value, after))
}

fn parse_time(bytes: &[u8], precision: Precision) -> Result<i64, String> {
    let wrong = || format!("not a time: {}", String::from_utf8_lossy(bytes));
    let number = lexical_core::parse::<i64>(bytes).map_err(|_| wrong())?;
    number.checked_mul(precision.ns()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests;
