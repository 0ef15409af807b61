//! TSM files: immutable, sorted by (table, series, time), in row groups of one page per column.
//! Invariant: every byte is covered by a checksum, and none is trusted before it was checked.
//!
//! `encodings` packs values, `footer` is the map of a file, `write` makes one, `read` reads it.

pub(crate) mod encodings;
mod footer;
mod read;
mod write;

pub(crate) use encodings::{Effort, VECTOR_ROWS, vector_rows};
pub(crate) use footer::{ColumnStatistics, Ends, Extremes, RowGroup};
pub(crate) use read::TsmFile;
pub(crate) use write::TsmWriter;
