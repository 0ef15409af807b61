//! Line protocol: bytes to columns.
//!
//! `measurement[,tag=value…] field=value[,field=value…] [time]`, as InfluxDB describes it. Rows of one
//! table with the same fields make one batch, for a batch writes every column it names. A line that is
//! wrong is reported with its number, and the others are kept.
#![deny(clippy::indexing_slicing)]

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, StringBuilder, UInt64Builder,
};
use memchr::memchr;
use query::RowBatch;

/// The most lines that are reported one by one.
const REPORTED_MAX: usize = 100;

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

/// Reads a body of lines; a line without a time has `now_ns`.
pub fn parse(body: &[u8], precision: Precision, now_ns: i64) -> Parsed {
    let mut reading =
        Reading { groups: Vec::new(), heads: HashMap::new(), by_shape: HashMap::new() };
    let mut parsed = Parsed::default();
    let mut rest = body;
    let mut number = 0;
    while !rest.is_empty() {
        number += 1;
        let (line, after, newlines) = next_line(rest);
        rest = after;
        let line = line.trim_ascii();
        if !line.is_empty() && !line.starts_with(b"#") {
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
        number += newlines;
    }
    parsed.batches = reading.groups.into_iter().map(Group::finish).collect();
    parsed
}

/// Splits off a line. A newline within a text does not end it; how many there were is told.
fn next_line(bytes: &[u8]) -> (&[u8], &[u8], usize) {
    let end = memchr(b'\n', bytes).unwrap_or(bytes.len());
    let line = bytes.get(..end).unwrap_or_default();
    if memchr(b'"', line).is_none() {
        return (line, bytes.get(end + 1..).unwrap_or_default(), 0);
    }
    let (mut quoted, mut escaped, mut newlines) = (false, false, 0);
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b'\n' if !quoted => {
                let line = bytes.get(..at).unwrap_or_default();
                return (line, bytes.get(at + 1..).unwrap_or_default(), newlines);
            }
            b'\n' => newlines += 1,
            _ => {}
        }
    }
    // A quote that never ends spoils its line, not all that follow.
    if quoted {
        (line, bytes.get(end + 1..).unwrap_or_default(), 0)
    } else {
        (bytes, &[], newlines)
    }
}

/// A table and the tags of a series, as a line begins.
#[derive(Clone, Debug)]
struct Head {
    table: String,
    tags: Vec<(String, String)>,
}

struct Reading<'a> {
    groups: Vec<Group<'a>>,
    heads: HashMap<&'a [u8], Arc<Head>>,
    /// Table and fields with their types → group.
    by_shape: HashMap<Vec<u8>, usize>,
}

/// Rows of one table that have the same fields.
struct Group<'a> {
    table: String,
    series: Vec<Vec<(String, String)>>,
    numbers: HashMap<&'a [u8], u32>,
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
        let (head, rest) = split_unescaped(line, b' ').ok_or("no fields")?;
        let known = match self.heads.get(head) {
            Some(known) => Arc::clone(known),
            None => {
                let parsed = Arc::new(parse_head(head)?);
                self.heads.insert(head, Arc::clone(&parsed));
                parsed
            }
        };
        let mut fields: Vec<(&[u8], Value<'_>)> = Vec::with_capacity(16);
        let rest = parse_fields(rest.trim_ascii_start(), &mut fields)?.trim_ascii();
        let time = if rest.is_empty() { now_ns } else { parse_time(rest, precision)? };
        let mut shape = known.table.as_bytes().to_vec();
        for (name, value) in &fields {
            shape.extend_from_slice(&[0, value.code()]);
            shape.extend_from_slice(name);
        }
        let group = match self.by_shape.get(&shape) {
            Some(group) => *group,
            None => {
                let group = Group::new(&known.table, &fields)?;
                self.groups.push(group);
                self.by_shape.insert(shape, self.groups.len() - 1);
                self.groups.len() - 1
            }
        };
        let group = self.groups.get_mut(group).ok_or("no group")?;
        // All is checked before the first column grows, so that columns stay of one length.
        let texts = fields.iter().map(|(_, value)| value.text()).collect::<Result<Vec<_>, _>>()?;
        let next = u32::try_from(group.series.len()).map_err(|_| "too many series")?;
        let series = *group.numbers.entry(head).or_insert(next);
        if series == next {
            group.series.push(known.tags.clone());
        }
        group.row_series.push(series);
        group.times.push(time);
        group.lines.push(number as u32);
        for (((_, column), (_, value)), text) in group.fields.iter_mut().zip(&fields).zip(texts) {
            column.push(*value, text.as_deref());
        }
        Ok(())
    }
}

impl Group<'_> {
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
            numbers: HashMap::new(),
            row_series: Vec::new(),
            times: Vec::new(),
            lines: Vec::new(),
            fields: columns,
        })
    }

    fn finish(self) -> (RowBatch, Vec<u32>) {
        let fields = self.fields.into_iter().map(|(name, column)| (name, column.finish()));
        let batch = RowBatch {
            table: self.table,
            series: self.series,
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

    fn text(&self) -> Result<Option<String>, String> {
        let Self::Text(raw) = self else { return Ok(None) };
        let mut text = Vec::with_capacity(raw.len());
        let mut bytes = raw.iter().copied().peekable();
        while let Some(byte) = bytes.next() {
            let escaped = byte == b'\\' && matches!(bytes.peek(), Some(b'"' | b'\\'));
            text.push(if escaped { bytes.next().unwrap_or(byte) } else { byte });
        }
        String::from_utf8(text).map(Some).map_err(|_| "text is not UTF-8".to_owned())
    }
}

impl Column {
    fn of(value: Value<'_>) -> Self {
        match value {
            Value::F64(_) => Self::F64(Float64Builder::new()),
            Value::I64(_) => Self::I64(Int64Builder::new()),
            Value::U64(_) => Self::U64(UInt64Builder::new()),
            Value::Bool(_) => Self::Bool(BooleanBuilder::new()),
            Value::Text(_) => Self::Text(StringBuilder::new()),
        }
    }

    /// Adds a value of the column's type, which the group's shape promises.
    fn push(&mut self, value: Value<'_>, text: Option<&str>) {
        match (self, value) {
            (Self::F64(builder), Value::F64(value)) => builder.append_value(value),
            (Self::I64(builder), Value::I64(value)) => builder.append_value(value),
            (Self::U64(builder), Value::U64(value)) => builder.append_value(value),
            (Self::Bool(builder), Value::Bool(value)) => builder.append_value(value),
            (Self::Text(builder), Value::Text(_)) => builder.append_value(text.unwrap_or_default()),
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
#[allow(clippy::indexing_slicing, reason = "a test stops where it is wrong")]
mod tests {
    use super::*;
    use arrow::array::AsArray;
    use arrow::datatypes::{Float64Type, Int64Type, UInt64Type};

    fn ok(text: &str) -> Vec<RowBatch> {
        let parsed = parse(text.as_bytes(), Precision::Ns, 99);
        assert!(parsed.bad.is_empty(), "{text}: {:?}", parsed.bad);
        parsed.batches.into_iter().map(|(batch, _)| batch).collect()
    }

    fn reasons(text: &str) -> Vec<(usize, String)> {
        let parsed = parse(text.as_bytes(), Precision::Ns, 99);
        parsed.bad.into_iter().map(|bad| (bad.number, bad.reason)).collect()
    }

    #[test]
    fn all_types_escapes_and_times_are_read() {
        let text =
            "my\\ table,tag\\,a=x\\ y,b=\\= f=1.5,i=-3i,u=7u,t=T,s=\"a \\\"q\\\", \\\\ z\" 17\n";
        let batches = ok(text);
        let [batch] = batches.as_slice() else { panic!("{batches:?}") };
        assert_eq!(batch.table, "my table");
        let tags = [("tag,a", "x y"), ("b", "=")].map(|(a, b)| (a.to_owned(), b.to_owned()));
        assert_eq!(batch.series, [tags.to_vec()]);
        assert_eq!(batch.times, [17]);
        let field = |at: usize| &batch.fields[at].1;
        assert_eq!(field(0).as_primitive::<Float64Type>().value(0), 1.5);
        assert_eq!(field(1).as_primitive::<Int64Type>().value(0), -3);
        assert_eq!(field(2).as_primitive::<UInt64Type>().value(0), 7);
        assert!(field(3).as_boolean().value(0));
        assert_eq!(field(4).as_string::<i32>().value(0), "a \"q\", \\ z");
    }

    #[test]
    fn rows_are_grouped_by_table_and_fields() {
        let batches =
            ok("m,h=a x=1 1\nm,h=b x=2 2\r\n\n# said\nm,h=a x=3 3\nm,h=a x=1i 4\nn y=t\n");
        let rows: Vec<usize> = batches.iter().map(|batch| batch.times.len()).collect();
        assert_eq!(rows, [3, 1, 1]);
        assert_eq!(batches[0].row_series, [0, 1, 0]);
        assert_eq!(batches[2].times, [99], "without a time it is now");
        let two = ok("m s=\"one\ntwo\" 1\nm s=\"three\" 2");
        assert_eq!(two[0].fields[0].1.as_string::<i32>().value(0), "one\ntwo");
        assert_eq!(two[0].times, [1, 2]);
    }

    #[test]
    fn bad_lines_are_named_and_the_others_kept() {
        let text = "m\nm f\nm f=\nm f=1x\nm,a f=1\nm,a= f=1\nm f=1 x\nm f=1 9223372036854775808\n\
                    m f=\"open\nm,a=1,a=2 f=1\nm f=1,f=2\n,a=1 f=1\nm time=1\nm f=NaN\nm f=1,,g=2\nm good=1 1\n";
        let bad = reasons(text);
        let numbers: Vec<usize> = bad.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, (1..=15).collect::<Vec<_>>(), "{bad:?}");
        assert_eq!(parse(text.as_bytes(), Precision::Ns, 0).good_count, 1);
        let late = parse(b"m f=1 9300000000", Precision::S, 0);
        assert_eq!(late.bad_count, 1, "a time beyond the range of nanoseconds");
        assert_eq!(parse(b"m f=1 2", Precision::Ms, 0).batches[0].0.times, [2_000_000]);
    }

    #[test]
    fn no_bytes_make_it_panic() {
        let seed = b"cpu,host=a\\ b,dc=x f=1.5,i=3i,s=\"a\\\"b\",t=true 1700000000\nm x=1u\n";
        let mut state = 88_172_645_463_325_252_u64;
        for _ in 0..200_000 {
            let mut bytes = seed.to_vec();
            for _ in 0..4 {
                // Marsaglia's xorshift: the same bytes in every run.
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let at = (state as usize >> 8) % bytes.len();
                match state % 3 {
                    0 => bytes[at] = (state >> 40) as u8,
                    1 => drop(bytes.remove(at)),
                    _ => bytes.insert(at, b" ,=\\\"\n\xffi"[(state >> 50) as usize % 8]),
                }
            }
            let parsed = parse(&bytes, Precision::Ns, 0);
            for (batch, lines) in parsed.batches {
                assert_eq!(batch.times.len(), lines.len());
                assert!(batch.fields.iter().all(|(_, array)| array.len() == lines.len()));
            }
        }
    }
}
