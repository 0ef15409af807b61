//! The series of a scan in the order of their tags, with the texts of these: what reading the rows of many series
//! needs first. Series never change, so that what was made of them once is kept for who asks for the same again.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, StringArray, UInt32Array};
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
    texts: Vec<StringArray>,
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
            places.iter().map(|place| at.and_then(|at| of(*place)[at])).collect()
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
        let texts = self.texts.iter().map(Array::get_array_memory_size);
        8 * self.ids.len() + texts.sum::<usize>() + size_of::<Self>()
    }

    /// Returns the texts of a tag for rows of the series at these places; `number` counts the tags wanted.
    pub(crate) fn texts(&self, number: usize, places: &UInt32Array) -> ArrayRef {
        let texts = arrow::compute::take(&self.texts[number], places, None);
        texts.expect("places are inside the series")
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
