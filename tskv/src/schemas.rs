//! What storage may ask of the catalog, outside of apply: whether rows are still wanted, and how they
//! are to be stored.
//!
//! The answer may be old: a table or column that the catalog does not know yet is kept.

use std::fmt;
use std::sync::Arc;

use model::{Codec, ColumnId, TableId, TableSchema};

/// What the catalog knows of a table.
#[derive(Clone, Debug)]
pub enum TableFate {
    /// It is there.
    Live(Arc<TableSchema>),
    /// It was there; its rows are wanted no more.
    Dropped,
    /// The catalog at hand may be older than the table.
    Unknown,
}

type Lookup = dyn Fn(TableId) -> TableFate + Send + Sync;

/// Asks the catalog about tables.
#[derive(Clone)]
pub struct Schemas(Arc<Lookup>);

impl Schemas {
    /// Asks through `lookup`.
    pub fn new(lookup: impl Fn(TableId) -> TableFate + Send + Sync + 'static) -> Self {
        Self(Arc::new(lookup))
    }

    /// Knows nothing, so that everything is kept.
    pub fn unknown() -> Self {
        Self::new(|_| TableFate::Unknown)
    }

    pub(crate) fn table(&self, table: TableId) -> TableFate {
        (self.0)(table)
    }
}

impl TableFate {
    /// Returns whether values of a column are still wanted.
    pub(crate) fn keeps(&self, column: ColumnId) -> bool {
        match self {
            Self::Live(schema) => {
                column.0 >= schema.next_column
                    || schema.columns.iter().any(|known| known.id == column)
            }
            Self::Dropped => false,
            Self::Unknown => true,
        }
    }

    /// Returns which encodings pages of a column may have.
    pub(crate) fn codec(&self, column: ColumnId) -> Codec {
        let Self::Live(schema) = self else { return Codec::Default };
        let known = schema.columns.iter().find(|known| known.id == column);
        known.map_or(Codec::Default, |known| known.codec)
    }
}

impl fmt::Debug for Schemas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Schemas")
    }
}
