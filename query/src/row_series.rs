//! The series of rows whose tags come one by one: each row's key is made at once, so that no column of tags is
//! ever built.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use model::points::SeriesDictionary;
use model::series_key::TAG_VALUE_BYTES_MAX;
use model::{Column, ColumnKind, SeriesKey, TableId};

use crate::error::{Error, Result};

/// The distinct series of a batch.
pub(crate) type SeriesKeys = Vec<Box<[u8]>>;

/// The most series of a batch that are known by their tags as they were sent.
const KNOWN_MAX: usize = 4_096;

/// Numbers the series of rows as they come.
pub(crate) struct RowSeries {
    table: TableId,
    /// In order of their ids, as keys have them.
    tags: Vec<RowTag>,
    /// The texts of the present row.
    text: String,
    key: Vec<u8>,
    /// The key of the row before, and its number: rows of one series often stand together.
    last: Option<(Vec<u8>, u32)>,
    dictionary: SeriesDictionary,
    /// Series by the bytes that a row's tags were sent as.
    known: HashMap<Box<[u8]>, u32, RandomState>,
    present: Present,
    numbers: Vec<u32>,
    /// A tag that must not be NULL, and was.
    null: Option<usize>,
}

/// What is known of the present row as a whole.
#[derive(Default)]
enum Present {
    #[default]
    Nothing,
    /// The bytes its tags were sent as, of a series that is not known by them.
    Sent(Box<[u8]>),
    /// The number of its series.
    Number(u32),
}

/// A tag, and where its text is in the present row.
struct RowTag {
    column: Column,
    text: Option<(usize, usize)>,
}

impl RowSeries {
    /// Begins rows of a table, of which these columns are named.
    pub(crate) fn new(table: TableId, columns: &[Column]) -> Self {
        let mut tags: Vec<_> =
            columns.iter().filter(|column| column.kind == ColumnKind::Tag).cloned().collect();
        tags.sort_by_key(|column| column.id);
        let tags = tags.into_iter().map(|column| RowTag { column, text: None });
        Self {
            table,
            tags: tags.collect(),
            text: String::new(),
            key: Vec::new(),
            last: None,
            dictionary: SeriesDictionary::default(),
            known: HashMap::default(),
            present: Present::Nothing,
            numbers: Vec::new(),
            null: None,
        }
    }

    /// Returns the place of a tag.
    pub(crate) fn place(&self, column: &Column) -> usize {
        self.tags.partition_point(|tag| tag.column.id < column.id)
    }

    /// Takes the bytes that all tags of the present row were sent as, which are alike for rows of one series.
    /// Returns whether that suffices: else the tags are to be pushed.
    pub(crate) fn take_sent(&mut self, sent: &[u8]) -> bool {
        self.present = match self.known.get(sent) {
            Some(number) => Present::Number(*number),
            None if self.known.len() < KNOWN_MAX => Present::Sent(sent.into()),
            None => Present::Nothing,
        };
        matches!(self.present, Present::Number(_))
    }

    /// Takes the text of a tag of the present row.
    pub(crate) fn push(&mut self, place: usize, text: &str) -> Result<()> {
        let tag = &mut self.tags[place];
        if text.len() > TAG_VALUE_BYTES_MAX {
            let name = &tag.column.name;
            let message = format!("a value of tag \"{name}\" is longer than 16 KiB");
            return Err(Error::new("22001", message));
        }
        let start = self.text.len();
        self.text.push_str(text);
        tag.text = Some((start, self.text.len()));
        Ok(())
    }

    /// Ends the present row: a tag that had no text is NULL.
    pub(crate) fn end_row(&mut self) {
        let number = match std::mem::take(&mut self.present) {
            Present::Number(number) => number,
            Present::Sent(sent) => {
                let number = self.number();
                self.known.insert(sent, number);
                number
            }
            Present::Nothing => self.number(),
        };
        self.numbers.push(number);
        self.drop_partial_row();
    }

    /// Returns the number of the present row's series, by its tags.
    fn number(&mut self) -> u32 {
        let text = &self.text;
        let values = self
            .tags
            .iter()
            .map(|tag| (tag.column.id, tag.text.and_then(|(start, end)| text.get(start..end))));
        self.key.clear();
        SeriesKey::encode_into(&mut self.key, self.table, values);
        if self.null.is_none() {
            let is_wrong = |tag: &RowTag| tag.column.not_null && tag.text.is_none();
            self.null = self.tags.iter().position(is_wrong);
        }
        match &mut self.last {
            Some((key, number)) if *key == self.key => *number,
            Some((key, number)) => {
                *number = self.dictionary.number(&self.key);
                key.clone_from(&self.key);
                *number
            }
            None => {
                let number = self.dictionary.number(&self.key);
                self.last = Some((self.key.clone(), number));
                number
            }
        }
    }

    /// Drops what came of a row that was not ended.
    pub(crate) fn drop_partial_row(&mut self) {
        self.text.clear();
        self.present = Present::Nothing;
        self.tags.iter_mut().for_each(|tag| tag.text = None);
    }

    /// Gives the keys of the series, and for each row the number of its own; begins anew. Returns the name of a
    /// tag that must not be NULL and was instead, where there is one.
    pub(crate) fn finish(&mut self) -> std::result::Result<(SeriesKeys, Vec<u32>), &str> {
        self.last = None;
        self.known.clear();
        let keys = std::mem::take(&mut self.dictionary).into_keys();
        let numbers = std::mem::take(&mut self.numbers);
        match self.null.take() {
            Some(tag) => Err(&self.tags[tag].column.name),
            None => Ok((keys, numbers)),
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{Codec, ColumnId};

    use super::*;

    fn tag(id: u32, not_null: bool) -> Column {
        Column {
            id: ColumnId(id),
            name: format!("t{id}"),
            kind: ColumnKind::Tag,
            not_null,
            codec: Codec::Default,
            shape: None,
        }
    }

    #[test]
    fn a_series_is_its_tags_in_order_of_id_whatever_order_they_come_in() {
        let (second, first) = (tag(7, false), tag(3, true));
        let mut rows = RowSeries::new(TableId(1), &[second.clone(), first.clone()]);
        for texts in [("b", Some("a")), ("", None), ("b", Some("a")), ("a", Some("b"))] {
            rows.push(rows.place(&first), texts.0).unwrap();
            if let Some(text) = texts.1 {
                rows.push(rows.place(&second), text).unwrap();
            }
            rows.end_row();
        }
        assert!(!rows.take_sent(b"sent"));
        rows.push(rows.place(&second), "of a row that never ends").unwrap();
        rows.drop_partial_row();
        for is_known in [false, true] {
            assert_eq!(rows.take_sent(b"b,c"), is_known);
            if !is_known {
                rows.push(rows.place(&first), "b").unwrap();
                rows.push(rows.place(&second), "c").unwrap();
            }
            rows.end_row();
        }
        let (keys, numbers) = rows.finish().unwrap();
        assert_eq!(numbers, [0, 1, 0, 2, 3, 3]);
        assert!(!rows.take_sent(b"b,c"), "numbers are of one batch");
        let values = [(first.id, Some("b")), (second.id, Some("a"))];
        assert_eq!(&*keys[0], SeriesKey::encode(TableId(1), values.into_iter()).as_bytes());
        rows.end_row();
        assert_eq!(rows.finish(), Err("t3"));
        assert!(rows.push(0, &"x".repeat(TAG_VALUE_BYTES_MAX + 1)).is_err());
    }
}
