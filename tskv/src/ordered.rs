//! The series of a scan in the order of their tags, with the texts of these: what reading the rows of many series
//! needs first. Series never change, so that what was made of them once is kept for who asks for the same again.

use std::sync::Arc;

use arrow::array::builder::NullBufferBuilder;
use arrow::array::{Array, ArrayRef, DictionaryArray, StringArray, UInt32Array};
use arrow::buffer::{OffsetBuffer, ScalarBuffer};
use model::series_key::tags;
use model::{ColumnId, TableId};

use crate::error::Result;
use crate::index::{Salt, SeriesIndex};

/// Fewer series are put in order anew each time.
const KEPT_MIN: usize = 64;

/// Which series are asked for, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SeriesAsked {
    index: Salt,
    table: TableId,
    /// What they are put in order by; none: they stay in the order of their ids.
    pub(crate) order: Vec<ColumnId>,
    /// The tags whose texts are wanted.
    pub(crate) wanted: Vec<ColumnId>,
    count: usize,
    ends: Option<(u32, u32)>,
}

/// Series in order.
#[derive(Debug)]
pub(crate) struct OrderedSeries {
    /// As they were asked for.
    asked: Vec<u32>,
    /// In order.
    pub(crate) ids: Vec<u32>,
    /// The texts of each tag wanted, by place in the order; NULL where a series has none.
    texts: Vec<Arc<StringArray>>,
}

impl SeriesAsked {
    /// Asks for series of a table, in ascending order of their ids.
    pub(crate) fn new(
        index: &SeriesIndex,
        table: TableId,
        ids: &[u32],
        (order, wanted): (Vec<ColumnId>, Vec<ColumnId>),
    ) -> Self {
        let ends = ids.first().copied().zip(ids.last().copied());
        Self { index: index.salt(), table, order, wanted, count: ids.len(), ends }
    }

    /// Returns whether there are so many that it is worth keeping them.
    pub(crate) fn are_many(&self) -> bool {
        self.count >= KEPT_MIN
    }
}

impl OrderedSeries {
    /// Reads the keys of series and puts them in order, NULLs last.
    pub(crate) fn read(index: &SeriesIndex, ids: Vec<u32>, asked: &SeriesAsked) -> Result<Self> {
        let keys = index.keys(&ids)?;
        let (order, wanted) = (&asked.order, &asked.wanted);
        let mut columns = order.clone();
        columns.extend(wanted.iter().filter(|id| !order.contains(id)));
        let values = values_of(&keys, &columns);
        let of = |place: usize| &values[place * columns.len()..(place + 1) * columns.len()];
        let mut places: Vec<usize> = (0..ids.len()).collect();
        if !order.is_empty() {
            let key = |place: usize| of(place)[..order.len()].iter().map(|v| (v.is_none(), *v));
            places.sort_by(|a, b| key(*a).cmp(key(*b)).then(ids[*a].cmp(&ids[*b])));
        }
        let texts = wanted.iter().map(|id| {
            let at = columns.iter().position(|column| column == id);
            let texts = places.iter().map(|place| at.and_then(|at| of(*place)[at]));
            Arc::new(texts.collect())
        });
        let texts = texts.collect();
        Ok(Self { ids: places.iter().map(|place| ids[*place]).collect(), texts, asked: ids })
    }

    /// Returns whether these series are meant.
    pub(crate) fn are(&self, ids: &[u32]) -> bool {
        self.asked == ids
    }

    /// Returns about how many bytes of memory they take.
    pub(crate) fn bytes(&self) -> usize {
        let texts = self.texts.iter().map(|texts| texts.get_array_memory_size());
        8 * self.ids.len() + texts.sum::<usize>() + size_of::<Self>()
    }

    /// Returns the texts of a tag for rows of the series at these places, a dictionary of all series; `number`
    /// counts the tags wanted.
    pub(crate) fn dictionary(&self, number: usize, places: &ScalarBuffer<u32>) -> ArrayRef {
        let keys = UInt32Array::new(places.clone(), None);
        Arc::new(DictionaryArray::new(keys, Arc::clone(&self.texts[number]) as ArrayRef))
    }

    /// Returns the texts of a tag for rows of the series at these places: each text once, then as often as its
    /// series has rows. `number` counts the tags wanted.
    pub(crate) fn texts(&self, number: usize, places: &[u32]) -> ArrayRef {
        let texts = &self.texts[number];
        let mut offsets = Vec::with_capacity(places.len() + 1);
        offsets.push(0);
        // Texts of a tag are mostly about as long as one another.
        let first = places.first().map_or(0, |place| texts.value(*place as usize).len());
        let mut bytes = Vec::with_capacity(first * places.len());
        let mut nulls = NullBufferBuilder::new(places.len());
        // Rows of one series lie together: its text is written once, then doubled.
        for rows in places.chunk_by(|a, b| a == b) {
            let place = rows[0] as usize;
            if texts.is_null(place) {
                nulls.append_n_nulls(rows.len());
                offsets.resize(offsets.len() + rows.len(), bytes.len() as i32);
                continue;
            }
            nulls.append_n_non_nulls(rows.len());
            let (text, start) = (texts.value(place).as_bytes(), bytes.len());
            let end = start + text.len() * rows.len();
            bytes.extend_from_slice(text);
            while bytes.len() < end {
                let more = (end - bytes.len()).min(bytes.len() - start);
                bytes.extend_from_within(start..start + more);
            }
            let ends = (1..=rows.len()).map(|count| (start + count * text.len()) as i32);
            offsets.extend(ends);
        }
        let offsets = OffsetBuffer::new(offsets.into());
        Arc::new(StringArray::new(offsets, bytes.into(), nulls.finish()))
    }
}

/// Returns the values of some tags of each key, key after key; `None` for NULL.
fn values_of<'a>(keys: &'a [Arc<[u8]>], wanted: &[ColumnId]) -> Vec<Option<&'a str>> {
    let mut values = vec![None; keys.len() * wanted.len()];
    // Tags come in ascending order of their columns.
    let mut places: Vec<(ColumnId, usize)> = wanted.iter().copied().zip(0..).collect();
    places.sort_unstable();
    for (row, key) in values.chunks_exact_mut(wanted.len().max(1)).zip(keys) {
        let mut rest = places.as_slice();
        for (id, value) in tags(key) {
            while let [(column, at), more @ ..] = rest
                && *column <= id
            {
                if *column == id {
                    row[*at] = Some(value);
                }
                rest = more;
            }
        }
    }
    values
}

#[cfg(test)]
mod tests {
    use arrow::array::AsArray;
    use arrow::compute::cast;
    use arrow::datatypes::DataType;

    use super::*;

    #[test]
    fn texts_come_as_often_as_their_series_has_rows() {
        let known = [Some("a"), None, Some(""), Some("übér")];
        let texts = vec![Arc::new(known.iter().collect())];
        let series = OrderedSeries { asked: Vec::new(), ids: Vec::new(), texts };
        for places in
            [vec![], vec![0, 1, 2, 3, 0], vec![3; 7], [vec![1; 5], vec![2; 3], vec![3; 9]].concat()]
        {
            let found = series.texts(0, &places);
            let expected = places.iter().map(|place| known[*place as usize]);
            assert!(found.as_string::<i32>().iter().eq(expected), "{places:?}");
            let dictionary = series.dictionary(0, &places.into());
            assert_eq!(&cast(&dictionary, &DataType::Utf8).unwrap(), &found);
        }
    }
}
