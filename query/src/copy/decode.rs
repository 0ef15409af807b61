//! Reads rows out of COPY's bytes, as they arrive in pieces.
//! Invariant: a row either goes into the builder whole or, with an error, not at all.

use std::ops::Range;

use memchr::{memchr, memchr_iter, memchr2};
use model::{Column, ColumnKind, ValueType};

use super::{CopyFormat, ROW_BYTES_MAX};
use crate::error::{Error, Result};
use crate::ingest::{Cell, RowsBuilder};

/// First bytes of the binary format.
const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xff\r\n\0";
/// Microseconds from the Unix epoch to 2000-01-01, where PostgreSQL's times begin.
const EPOCH_2000_US: i64 = 946_684_800_000_000;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyRow {
    /// A row was added.
    Row,
    /// A header or an end mark was passed.
    Skipped,
    /// The next row is not whole yet, or there is none.
    NeedsMore,
}

/// Holds what has not been read yet.
pub(super) struct Decoder {
    format: CopyFormat,
    columns: Vec<Column>,
    /// The tags, where they stand together.
    tags: Option<Range<usize>>,
    buffer: Vec<u8>,
    /// How much of the buffer was read.
    at: usize,
    lines: u64,
    header_left: bool,
    ended: bool,
    /// The text of the present line, unescaped, where something in it was escaped.
    text: Vec<u8>,
    fields: Vec<Field>,
}

/// Where a field stands in a line as it was sent, or in its text unescaped.
#[derive(Clone, Copy)]
struct Field {
    start: usize,
    end: usize,
    is_null: bool,
}

fn bad_format(message: impl Into<String>) -> Error {
    Error::new("22P04", message)
}

impl Decoder {
    pub(super) fn new(format: CopyFormat, columns: Vec<Column>) -> Self {
        let header_left = match &format {
            CopyFormat::Text { header, .. } | CopyFormat::Csv { header, .. } => *header,
            CopyFormat::Binary => true,
        };
        let is_tag = |column: &Column| column.kind == ColumnKind::Tag;
        let first = columns.iter().position(is_tag);
        let end = columns.iter().rposition(is_tag).map(|last| last + 1);
        let tags = first.zip(end).map(|(first, end)| first..end);
        let tags = tags.filter(|tags| columns[tags.clone()].iter().all(is_tag));
        Self {
            format,
            columns,
            tags,
            buffer: Vec::new(),
            at: 0,
            lines: 0,
            header_left,
            ended: false,
            text: Vec::new(),
            fields: Vec::new(),
        }
    }

    pub(super) fn is_binary(&self) -> bool {
        self.format == CopyFormat::Binary
    }

    /// Returns how many lines (rows, in binary) were read whole.
    pub(super) fn line(&self) -> u64 {
        self.lines
    }

    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<()> {
        self.buffer.drain(..self.at);
        self.at = 0;
        if self.buffer.len() > ROW_BYTES_MAX {
            return Err(Error::new("54000", "a row of COPY is longer than 16 MiB"));
        }
        self.buffer.extend_from_slice(bytes);
        Ok(())
    }

    /// Reads the next row into the builder.
    pub(super) fn next_row(&mut self, builder: &mut RowsBuilder, at_end: bool) -> Result<CopyRow> {
        if self.ended {
            self.at = self.buffer.len();
            return Ok(CopyRow::NeedsMore);
        }
        if self.is_binary() {
            return self.next_binary(builder, at_end);
        }
        let Some((start, end, next)) = self.line_at(at_end)? else { return Ok(CopyRow::NeedsMore) };
        if &self.buffer[start..end] == b"\\." {
            self.at = next;
            self.ended = true;
            return Ok(CopyRow::Skipped);
        }
        if self.header_left {
            self.header_left = false;
            self.at = next;
            self.lines += 1;
            return Ok(CopyRow::Skipped);
        }
        let is_plain = self.split(start, end)?;
        let text = if is_plain { &self.buffer[start..end] } else { &self.text[..] };
        self.push_fields(text, is_plain, builder)?;
        self.at = next;
        self.lines += 1;
        Ok(CopyRow::Row)
    }

    /// Finds the next line: where it starts, ends, and where the one after it starts.
    fn line_at(&self, at_end: bool) -> Result<Option<(usize, usize, usize)>> {
        let rest = &self.buffer[self.at..];
        let newline = match &self.format {
            CopyFormat::Csv { quote, escape, .. } => csv_line_end(rest, *quote, *escape),
            _ => text_line_end(rest),
        };
        let (len, next) = match newline {
            Some(len) => (len, len + 1),
            None if at_end && !rest.is_empty() => (rest.len(), rest.len()),
            None => return Ok(None),
        };
        if newline.is_none()
            && matches!(self.format, CopyFormat::Csv { quote, .. } if rest.iter().filter(|b| **b == quote).count() % 2 == 1)
        {
            return Err(bad_format("unterminated CSV quoted field"));
        }
        let end = if len > 0 && rest[len - 1] == b'\r' { len - 1 } else { len };
        Ok(Some((self.at, self.at + end, self.at + next)))
    }

    /// Finds the fields of a line. Returns whether they stand in the line as it is.
    fn split(&mut self, start: usize, end: usize) -> Result<bool> {
        self.text.clear();
        self.fields.clear();
        let line = &self.buffer[start..end];
        let is_plain = match &self.format {
            CopyFormat::Text { .. } => memchr(b'\\', line).is_none(),
            CopyFormat::Csv { quote, escape, .. } => memchr2(*quote, *escape, line).is_none(),
            CopyFormat::Binary => false,
        };
        match &self.format {
            CopyFormat::Text { delimiter, null, .. } | CopyFormat::Csv { delimiter, null, .. }
                if is_plain =>
            {
                split_plain(line, (*delimiter, null.as_bytes()), &mut self.fields);
            }
            CopyFormat::Text { delimiter, null, .. } => {
                split_text(line, (*delimiter, null.as_bytes()), &mut self.text, &mut self.fields);
            }
            CopyFormat::Csv { delimiter, null, quote, escape, .. } => {
                let marks = (*delimiter, *quote, *escape);
                split_csv(line, marks, null.as_bytes(), (&mut self.text, &mut self.fields));
            }
            CopyFormat::Binary => return Err(Error::internal("binary rows have no lines")),
        }
        if self.fields.len() > self.columns.len() {
            return Err(bad_format("extra data after last expected column"));
        }
        if let Some(missing) = self.columns.get(self.fields.len()) {
            return Err(bad_format(format!("missing data for column \"{}\"", missing.name)));
        }
        Ok(is_plain)
    }

    fn push_fields(&self, text: &[u8], is_plain: bool, builder: &mut RowsBuilder) -> Result<()> {
        let text = std::str::from_utf8(text)
            .map_err(|_| Error::new("22021", "invalid byte sequence for encoding \"UTF8\""))?;
        // As they were sent, what stands between them tells them apart.
        let tags = self.tags.as_ref().filter(|_| is_plain);
        let known = tags.filter(|tags| {
            let (first, last) = (self.fields[tags.start], self.fields[tags.end - 1]);
            builder.take_sent_tags(&text.as_bytes()[first.start..last.end])
        });
        for (at, field) in self.fields.iter().enumerate() {
            if known.is_some_and(|tags| tags.contains(&at)) {
                continue;
            }
            let value = text.get(field.start..field.end);
            let value = value.ok_or_else(|| {
                Error::new("22021", "invalid byte sequence for encoding \"UTF8\"")
            })?;
            let cell = if field.is_null { Cell::Null } else { Cell::Text(value) };
            if let Err(mut error) = builder.push(at, cell) {
                builder.drop_partial_row();
                error.message = format!("{}, column {}", error.message, self.columns[at].name);
                return Err(error);
            }
        }
        builder.end_row();
        Ok(())
    }

    fn next_binary(&mut self, builder: &mut RowsBuilder, at_end: bool) -> Result<CopyRow> {
        let rest = &self.buffer[self.at..];
        let more = |what: &str| {
            if at_end && !rest.is_empty() { Err(bad_format(what)) } else { Ok(CopyRow::NeedsMore) }
        };
        if self.header_left {
            let Some(head) = rest.get(..19) else {
                return more("COPY file signature not recognized");
            };
            if head[..11] != SIGNATURE[..] {
                return Err(bad_format("COPY file signature not recognized"));
            }
            let extension = be_i32(&head[15..19]);
            let extension =
                usize::try_from(extension).map_err(|_| bad_format("invalid COPY file header"))?;
            if rest.len() < 19 + extension {
                return more("invalid COPY file header");
            }
            self.at += 19 + extension;
            self.header_left = false;
            return Ok(CopyRow::Skipped);
        }
        let Some(count) = rest.get(..2) else { return more("unexpected EOF in COPY data") };
        let count = i16::from_be_bytes([count[0], count[1]]);
        if count == -1 {
            self.at += 2;
            self.ended = true;
            return Ok(CopyRow::Skipped);
        }
        if usize::try_from(count).ok() != Some(self.columns.len()) {
            let expected = self.columns.len();
            return Err(bad_format(format!("row field count is {count}, expected {expected}")));
        }
        let Some(ranges) = binary_fields(rest, self.columns.len())? else {
            return more("unexpected EOF in COPY data");
        };
        for (at, (column, range)) in self.columns.iter().zip(&ranges).enumerate() {
            let bytes = range.map(|(start, end)| &rest[start..end]);
            let cell = bytes.map_or(Ok(Cell::Null), |bytes| binary_cell(bytes, column));
            if let Err(mut error) = cell.and_then(|cell| builder.push(at, cell)) {
                builder.drop_partial_row();
                error.message = format!("{}, column {}", error.message, column.name);
                return Err(error);
            }
        }
        builder.end_row();
        let widths = ranges.iter().map(|range| 4 + range.map_or(0, |(start, end)| end - start));
        self.at += 2 + widths.sum::<usize>();
        self.lines += 1;
        Ok(CopyRow::Row)
    }
}

fn be_i32(bytes: &[u8]) -> i32 {
    i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// Where a field of a binary row stands; `None` is NULL.
type BinaryField = Option<(usize, usize)>;

/// Finds the fields of a binary row, each as a range or NULL; `None` where the row is not whole.
fn binary_fields(row: &[u8], count: usize) -> Result<Option<Vec<BinaryField>>> {
    let mut ranges = Vec::with_capacity(count);
    let mut at = 2;
    for _ in 0..count {
        let Some(len) = row.get(at..at + 4) else { return Ok(None) };
        let len = be_i32(len);
        at += 4;
        if len == -1 {
            ranges.push(None);
            continue;
        }
        let len = usize::try_from(len).ok().filter(|len| *len <= ROW_BYTES_MAX);
        let len = len.ok_or_else(|| bad_format("invalid field size"))?;
        if row.len() < at + len {
            return Ok(None);
        }
        ranges.push(Some((at, at + len)));
        at += len;
    }
    Ok(Some(ranges))
}

fn binary_cell<'a>(bytes: &'a [u8], column: &Column) -> Result<Cell<'a>> {
    let wrong = || bad_format("incorrect binary data format");
    let integer = || match bytes.len() {
        2 => Some(i64::from(i16::from_be_bytes(bytes.try_into().ok()?))),
        4 => Some(i64::from(i32::from_be_bytes(bytes.try_into().ok()?))),
        8 => Some(i64::from_be_bytes(bytes.try_into().ok()?)),
        _ => None,
    };
    let text = || {
        std::str::from_utf8(bytes)
            .map_err(|_| Error::new("22021", "invalid byte sequence for encoding \"UTF8\""))
    };
    match column.kind {
        ColumnKind::Time => {
            let micros = integer().filter(|_| bytes.len() == 8).ok_or_else(wrong)?;
            let ns = micros.checked_add(EPOCH_2000_US).and_then(|us| us.checked_mul(1_000));
            ns.map(Cell::Time).ok_or_else(|| Error::new("22008", "timestamp out of range"))
        }
        ColumnKind::Tag | ColumnKind::Field(ValueType::Str) => Ok(Cell::Text(text()?)),
        ColumnKind::Field(ValueType::I64 | ValueType::U64) => {
            integer().map(Cell::I64).ok_or_else(wrong)
        }
        ColumnKind::Field(ValueType::F64) => match bytes.len() {
            4 => {
                Ok(Cell::F64(f64::from(f32::from_be_bytes(bytes.try_into().map_err(|_| wrong())?))))
            }
            8 => Ok(Cell::F64(f64::from_be_bytes(bytes.try_into().map_err(|_| wrong())?))),
            _ => Err(wrong()),
        },
        ColumnKind::Field(ValueType::Bool) => match bytes {
            [0] => Ok(Cell::Bool(false)),
            [1] => Ok(Cell::Bool(true)),
            _ => Err(wrong()),
        },
    }
}

/// Finds the newline that ends a text line: one after a backslash belongs to the field.
fn text_line_end(rest: &[u8]) -> Option<usize> {
    let mut from = 0;
    while let Some(at) = memchr(b'\n', &rest[from..]) {
        let at = from + at;
        let slashes = rest[..at].iter().rev().take_while(|byte| **byte == b'\\').count();
        if slashes % 2 == 0 {
            return Some(at);
        }
        from = at + 1;
    }
    None
}

/// Finds the newline that ends a csv record: one within quotes belongs to the field.
fn csv_line_end(rest: &[u8], quote: u8, escape: u8) -> Option<usize> {
    let newline = memchr(b'\n', rest)?;
    if memchr2(quote, escape, &rest[..newline]).is_none() {
        return Some(newline);
    }
    let mut quoted = false;
    let mut bytes = rest.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        if quoted && *byte == escape && escape != quote {
            bytes.next();
        } else if *byte == quote {
            quoted = !quoted;
        } else if *byte == b'\n' && !quoted {
            return Some(at);
        }
    }
    None
}

/// Splits a line in which nothing is escaped or in quotes.
fn split_plain(line: &[u8], (delimiter, null): (u8, &[u8]), fields: &mut Vec<Field>) {
    let mut start = 0;
    let ends = memchr_iter(delimiter, line).chain(std::iter::once(line.len()));
    for end in ends {
        fields.push(Field { start, end, is_null: &line[start..end] == null });
        start = end + 1;
    }
}

fn split_text(
    line: &[u8],
    (delimiter, null): (u8, &[u8]),
    text: &mut Vec<u8>,
    fields: &mut Vec<Field>,
) {
    let (mut raw_start, mut start) = (0, text.len());
    let mut at = 0;
    loop {
        let rest = &line[at..];
        let plain = memchr2(b'\\', delimiter, rest).unwrap_or(rest.len());
        text.extend_from_slice(&rest[..plain]);
        at += plain;
        match line.get(at) {
            Some(byte) if *byte == b'\\' => {
                let (value, used) = unescape(&line[at + 1..]);
                text.extend(value);
                at += 1 + used;
            }
            end => {
                // NULL is told by the raw bytes: an escaped one is a value.
                let is_null = &line[raw_start..at] == null;
                if is_null {
                    text.truncate(start);
                }
                fields.push(Field { start, end: text.len(), is_null });
                if end.is_none() {
                    return;
                }
                at += 1;
                (raw_start, start) = (at, text.len());
            }
        }
    }
}

/// Returns what stands behind a backslash, and how many bytes it took.
fn unescape(rest: &[u8]) -> (Option<u8>, usize) {
    let digits = |base: u32, max: usize, from: &[u8]| {
        let digits: Vec<u32> =
            from.iter().take(max).map_while(|byte| char::from(*byte).to_digit(base)).collect();
        let value = digits.iter().fold(0_u32, |value, digit| value * base + digit);
        (Some((value & 0xff) as u8), digits.len())
    };
    match rest.first() {
        None => (Some(b'\\'), 0),
        Some(b'b') => (Some(8), 1),
        Some(b'f') => (Some(12), 1),
        Some(b'n') => (Some(b'\n'), 1),
        Some(b'r') => (Some(b'\r'), 1),
        Some(b't') => (Some(b'\t'), 1),
        Some(b'v') => (Some(11), 1),
        Some(b'x') if rest.get(1).is_some_and(u8::is_ascii_hexdigit) => {
            let (value, used) = digits(16, 2, &rest[1..]);
            (value, used + 1)
        }
        Some(b'0'..=b'7') => digits(8, 3, rest),
        Some(other) => (Some(*other), 1),
    }
}

/// Reads the names of columns out of a header line of CSV.
///
/// # Errors
/// 22021 for a line that is not UTF-8.
pub(crate) fn header_names(line: &[u8], delimiter: u8) -> Result<Vec<String>> {
    // Some programs begin UTF-8 with a mark of it.
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let (mut text, mut fields) = (Vec::new(), Vec::new());
    split_csv(line, (delimiter, b'"', b'"'), b"", (&mut text, &mut fields));
    let names = fields.iter().map(|field| {
        let name = std::str::from_utf8(&text[field.start..field.end]).map(str::to_owned);
        name.map_err(|_| Error::new("22021", "invalid byte sequence for encoding \"UTF8\""))
    });
    names.collect()
}

fn split_csv(
    line: &[u8],
    (delimiter, quote, escape): (u8, u8, u8),
    null: &[u8],
    (text, fields): (&mut Vec<u8>, &mut Vec<Field>),
) {
    let (mut quoted, mut was_quoted, mut start) = (false, false, text.len());
    let mut at = 0;
    loop {
        let byte = line.get(at).copied();
        match byte {
            Some(byte) if quoted => {
                if byte == escape
                    && line.get(at + 1).is_some_and(|next| *next == quote || *next == escape)
                {
                    text.push(line[at + 1]);
                    at += 1;
                } else if byte == quote {
                    quoted = false;
                } else {
                    text.push(byte);
                }
            }
            Some(byte) if byte == quote => {
                quoted = true;
                was_quoted = true;
            }
            Some(byte) if byte != delimiter => text.push(byte),
            end => {
                let is_null = !was_quoted && &text[start..] == null;
                if is_null {
                    text.truncate(start);
                }
                fields.push(Field { start, end: text.len(), is_null });
                if end.is_none() {
                    return;
                }
                (was_quoted, start) = (false, text.len());
            }
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(line: &[u8]) -> Vec<Option<String>> {
        let (mut text, mut fields) = (Vec::new(), Vec::new());
        split_text(line, (b'\t', b"\\N"), &mut text, &mut fields);
        let found = values(&text, &fields);
        if !line.contains(&b'\\') {
            assert_eq!(found, plain(line, (b'\t', b"\\N")));
        }
        found
    }

    fn plain(line: &[u8], marks: (u8, &[u8])) -> Vec<Option<String>> {
        let mut fields = Vec::new();
        split_plain(line, marks, &mut fields);
        values(line, &fields)
    }

    fn csv(line: &[u8]) -> Vec<Option<String>> {
        let (mut text, mut fields) = (Vec::new(), Vec::new());
        split_csv(line, (b',', b'"', b'"'), b"", (&mut text, &mut fields));
        values(&text, &fields)
    }

    fn values(text: &[u8], fields: &[Field]) -> Vec<Option<String>> {
        let value = fields.iter().map(|field| {
            let value = String::from_utf8(text[field.start..field.end].to_vec()).unwrap();
            (!field.is_null).then_some(value)
        });
        value.collect()
    }

    #[test]
    fn text_fields_are_unescaped_and_only_a_bare_mark_is_null() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(texts(b"a\t\\N\t"), [some("a"), None, some("")]);
        assert_eq!(texts(b"a\t\tb"), [some("a"), some(""), some("b")]);
        assert_eq!(texts(b""), [some("")]);
        assert_eq!(texts(b"\\\\N\tx\\ty\\101\\x42"), [some("\\N"), some("x\tyAB")]);
        assert_eq!(text_line_end(b"a\\\nb\nc"), Some(4));
    }

    #[test]
    fn csv_fields_hold_quotes_delimiters_and_newlines() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(csv(b"1,,\"\""), [some("1"), None, some("")]);
        assert_eq!(csv(b"1,,b"), plain(b"1,,b", (b',', b"")));
        assert_eq!(csv(b"\"a,\"\"b\"\"\nc\",d"), [some("a,\"b\"\nc"), some("d")]);
        assert_eq!(csv_line_end(b"\"a\n\"\"\",b\nc", b'"', b'"'), Some(8));
    }
}
