//! Which series a scan or a delete wants, by their tags.

use model::{ColumnId, series_key};
use serde::{Deserialize, Serialize};

/// Which series a scan wants: those for which every term holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeriesFilter {
    /// A tag and the values it may have; `None` is NULL.
    pub terms: Vec<(ColumnId, Vec<Option<String>>)>,
}

impl SeriesFilter {
    /// Returns whether a series has the tags that are wanted.
    pub(super) fn keeps(&self, key: &[u8]) -> bool {
        self.terms.iter().all(|(column, values)| {
            let value = series_key::tag(key, *column);
            values.iter().any(|wanted| wanted.as_deref() == value)
        })
    }

    /// Returns the terms that only series with a value of their tag pass: the tag and its values.
    pub(super) fn lists(&self) -> impl Iterator<Item = (ColumnId, Vec<&str>)> {
        self.terms.iter().filter_map(|(column, values)| {
            let values = values.iter().map(Option::as_deref).collect::<Option<Vec<&str>>>()?;
            Some((*column, values))
        })
    }
}
