//! Makes a TSM file from sorted runs.
//! Invariant: the file and its name are durable when `finish` returns.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, BooleanArray};
use model::TimeRange;
use model::points::encode_array;
use model::wire::Write;
use model::{TableId, ValueType};

use super::encodings::{self, PAGE_ROWS_MAX};
use super::footer::{self, ColumnPages, HEADER_BYTES, MAGIC, Page, RowGroup, VERSION};
use crate::disk::{Disk, DiskFile, parent};
use crate::error::{Context, Result};
use crate::run::{Run, RunColumn};

/// A row group may end at the end of a series once it has so many rows.
const GROUP_ROWS_FEW: usize = PAGE_ROWS_MAX / 2;
/// Bytes gathered before they are written.
const BUFFER_BYTES: usize = 1 << 20;

/// Writes one file.
pub(crate) struct TsmWriter {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    buffer: Vec<u8>,
    /// Offset in the file of the buffer's first byte.
    flushed: u64,
    groups: Vec<RowGroup>,
}

impl TsmWriter {
    /// Starts a file that must not be there yet.
    pub(crate) fn create(disk: Arc<dyn Disk>, path: &Path) -> Result<Self> {
        let file = disk.create(path).context("create", path)?;
        let mut buffer = MAGIC.to_vec();
        buffer.put_u32(VERSION);
        buffer.put_u32(crc32fast::hash(&buffer));
        assert_eq!(buffer.len() as u64, HEADER_BYTES, "the header has a fixed length");
        Ok(Self { disk, path: path.to_path_buf(), file, buffer, flushed: 0, groups: Vec::new() })
    }

    /// Appends the rows of a table; tables must come in order of id, each once.
    pub(crate) fn write_table(&mut self, table: TableId, run: &Run) -> Result<()> {
        assert!(self.groups.last().is_none_or(|last| last.table < table), "tables in order");
        let mut start = 0;
        while start < run.rows() {
            let end = group_end(run, start);
            self.write_group(table, &run.slice(start, end))?;
            start = end;
        }
        Ok(())
    }

    fn write_group(&mut self, table: TableId, run: &Run) -> Result<()> {
        let series: Vec<i64> = run.series.iter().map(|series| i64::from(*series)).collect();
        let mut packed = Vec::new();
        encodings::pack(&series, &mut packed);
        let series_page = self.write_page(&packed)?;
        packed.clear();
        encodings::pack(&run.times, &mut packed);
        let time_page = self.write_page(&packed)?;
        let mut columns = Vec::with_capacity(run.columns.len());
        for column in &run.columns {
            if column.written.as_ref().is_none_or(|written| written.count_set_bits() > 0) {
                columns.push(self.write_column(column)?);
            }
        }
        let mut times = TimeRange { min: i64::MAX, max: i64::MIN };
        for time in &run.times {
            times.min = times.min.min(*time);
            times.max = times.max.max(*time);
        }
        let changes = run.series.windows(2).filter(|pair| pair[0] != pair[1]).count();
        self.groups.push(RowGroup {
            table,
            rows: run.rows() as u32,
            series_count: changes as u32 + 1,
            series: (run.series[0], run.series[run.rows() - 1]),
            times,
            series_page,
            time_page,
            columns,
        });
        Ok(())
    }

    fn write_column(&mut self, column: &RunColumn) -> Result<ColumnPages> {
        let values = self.write_page(&encodings::encode(&column.values, column.value_type))?;
        let written = match &column.written {
            None => None,
            Some(written) => {
                let bits: ArrayRef = Arc::new(BooleanArray::new(written.clone(), None));
                let mut bytes = Vec::new();
                encode_array(&bits, ValueType::Bool, &mut bytes);
                Some(self.write_page(&bytes)?)
            }
        };
        Ok(ColumnPages {
            id: column.id,
            value_type: column.value_type,
            values,
            written,
            nulls: column.values.null_count() as u32,
            extremes: footer::extremes(&column.values, column.value_type),
        })
    }

    fn write_page(&mut self, bytes: &[u8]) -> Result<Page> {
        let offset = self.flushed + self.buffer.len() as u64;
        let len = u32::try_from(bytes.len()).expect("a page is below 4 GiB: its batch was");
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush_buffer()?;
        }
        Ok(Page { offset, len, crc: crc32fast::hash(bytes) })
    }

    fn flush_buffer(&mut self) -> Result<()> {
        self.file.write_at(self.flushed, &self.buffer).context("write", &self.path)?;
        self.flushed += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes the footer and makes file and name durable.
    pub(crate) fn finish(mut self) -> Result<()> {
        let footer = footer::encode(&self.groups);
        let offset = self.flushed + self.buffer.len() as u64;
        self.buffer.extend_from_slice(&footer);
        let mut trailer = Vec::new();
        trailer.put_u64(offset);
        trailer.put_u64(footer.len() as u64);
        trailer.put_u32(crc32fast::hash(&footer));
        trailer.put_u32(VERSION);
        trailer.put_u32(crc32fast::hash(&trailer));
        self.buffer.extend_from_slice(&trailer);
        self.flush_buffer()?;
        self.file.sync().context("sync", &self.path)?;
        let folder = parent(&self.path);
        self.disk.sync_folder(folder).context("sync", folder)
    }
}

/// Returns where the row group that begins at `start` ends: full, or at the end of a series once it
/// is half full, so that long series share no pages and short ones share many.
fn group_end(run: &Run, start: usize) -> usize {
    let full = (start + PAGE_ROWS_MAX).min(run.rows());
    if full == run.rows() {
        return full;
    }
    let few = start + GROUP_ROWS_FEW;
    let boundary = (few..full).rev().find(|row| run.series[*row - 1] != run.series[*row]);
    boundary.unwrap_or(full)
}
