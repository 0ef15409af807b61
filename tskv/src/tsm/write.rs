//! Makes a TSM file from sorted runs.
//! Invariant: the file and its name are durable when `finish` returns.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray};
use model::TimeRange;
use model::points::encode_array;
use model::wire::Write;
use model::{TableId, ValueType};

use super::encodings::{self, Effort, PAGE_ROWS_MAX};
use super::footer::{self, ColumnPages, HEADER_BYTES, MAGIC, Page, RowGroup, VERSION};
use crate::disk::{Disk, DiskFile, parent};
use crate::error::{Context, Result};
use crate::merge::{Columns, merge};
use crate::run::{Run, RunColumn};
use crate::schemas::{Schemas, TableFate};

/// A row group may end at the end of a series once it has so many rows.
const GROUP_ROWS_FEW: usize = PAGE_ROWS_MAX / 2;
/// A row group ends once it has so many bytes of text.
const GROUP_TEXT_BYTES: usize = 8 << 20;
/// The last rows of series are kept apart where there are so many times as many rows.
const LAST_ROWS_SHARE: usize = 64;
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
    effort: Effort,
    schemas: Schemas,
    table: Option<TableId>,
    /// What the catalog says of the present table.
    fate: TableFate,
    /// Rows of the present table that wait for more, in order.
    pending: Vec<Run>,
    pending_rows: usize,
    pending_text_bytes: usize,
}

impl TsmWriter {
    /// Starts a file that must not be there yet.
    pub(crate) fn create(
        disk: Arc<dyn Disk>,
        path: &Path,
        effort: Effort,
        schemas: &Schemas,
    ) -> Result<Self> {
        let file = disk.create(path).context("create", path)?;
        let mut buffer = MAGIC.to_vec();
        buffer.put_u32(VERSION);
        buffer.put_u32(crc32fast::hash(&buffer));
        assert_eq!(buffer.len() as u64, HEADER_BYTES, "the header has a fixed length");
        Ok(Self {
            disk,
            path: path.to_path_buf(),
            file,
            buffer,
            flushed: 0,
            groups: Vec::new(),
            effort,
            schemas: schemas.clone(),
            table: None,
            fate: TableFate::Unknown,
            pending: Vec::new(),
            pending_rows: 0,
            pending_text_bytes: 0,
        })
    }

    /// Appends rows of a table. Tables must come in order of id, the rows of each in order of (series,
    /// time).
    pub(crate) fn write_rows(&mut self, table: TableId, run: Run) -> Result<()> {
        if self.table != Some(table) {
            self.end_table()?;
            assert!(self.groups.last().is_none_or(|last| last.table < table), "tables in order");
            self.table = Some(table);
            self.fate = self.schemas.table(table);
        }
        if run.rows() == 0 {
            return Ok(());
        }
        self.pending_rows += run.rows();
        self.pending_text_bytes += run.text_bytes(0, run.rows());
        self.pending.push(run);
        if self.pending_rows < 2 * PAGE_ROWS_MAX && self.pending_text_bytes < GROUP_TEXT_BYTES {
            return Ok(());
        }
        // The rest stays, so that the next rows fill the last group.
        let run = self.take_pending();
        let mut start = 0;
        while run.rows() - start > PAGE_ROWS_MAX {
            let end = group_end(&run, start);
            self.write_group(table, &run.slice(start, end))?;
            start = end;
        }
        if start < run.rows() {
            self.pending_rows = run.rows() - start;
            self.pending_text_bytes = run.text_bytes(start, run.rows());
            self.pending.push(run.slice(start, run.rows()));
        }
        if self.pending_text_bytes >= GROUP_TEXT_BYTES {
            self.end_table()?;
        }
        Ok(())
    }

    /// Writes what is pending of the present table.
    fn end_table(&mut self) -> Result<()> {
        let Some(table) = self.table else { return Ok(()) };
        let run = self.take_pending();
        let mut start = 0;
        while start < run.rows() {
            let end = group_end(&run, start);
            self.write_group(table, &run.slice(start, end))?;
            start = end;
        }
        Ok(())
    }

    fn take_pending(&mut self) -> Run {
        let pending = std::mem::take(&mut self.pending);
        (self.pending_rows, self.pending_text_bytes) = (0, 0);
        let pending: Vec<&Run> = pending.iter().collect();
        merge(&pending, &Columns::All)
    }

    fn write_group(&mut self, table: TableId, run: &Run) -> Result<()> {
        let series: Vec<i64> = run.series.iter().map(|series| i64::from(*series)).collect();
        let stretches: Vec<usize> = run.series_rows().map(|(_, start, end)| end - start).collect();
        let series_page =
            self.write_page(&encodings::encode_keys(&series, &stretches, self.effort))?;
        let time_page =
            self.write_page(&encodings::encode_keys(&run.times, &stretches, self.effort))?;
        let mut columns = Vec::with_capacity(run.columns.len());
        for column in &run.columns {
            if column.written.as_ref().is_none_or(|written| written.count_set_bits() > 0) {
                columns.push(self.write_column(column, stretches.len())?);
            }
        }
        let last_rows = self.write_last_rows(run, stretches.len())?;
        let mut times = TimeRange { min: i64::MAX, max: i64::MIN };
        for time in &run.times {
            times.min = times.min.min(*time);
            times.max = times.max.max(*time);
        }
        self.groups.push(RowGroup {
            table,
            rows: run.rows() as u32,
            series_count: stretches.len() as u32,
            series: (run.series[0], run.series[run.rows() - 1]),
            times,
            series_page,
            time_page,
            columns,
            last_rows,
        });
        Ok(())
    }

    fn write_column(&mut self, column: &RunColumn, series: usize) -> Result<ColumnPages> {
        let codec = self.fate.codec(column.id);
        let values = encodings::encode(&column.values, column.value_type, self.effort, codec);
        let has_vectors = encodings::has_vectors(&values);
        let values = self.write_page(&values)?;
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
            has_vectors,
            written,
            nulls: column.values.null_count() as u32,
            text_bytes: text_bytes(column),
            extremes: footer::extremes(&column.values, column.value_type),
            ends: if series == 1 { footer::ends(&column.values, column.value_type) } else { None },
        })
    }

    /// Writes the last row of each series once more, so that the newest values are found without
    /// decoding all.
    fn write_last_rows(&mut self, run: &Run, series: usize) -> Result<Option<Page>> {
        if series * LAST_ROWS_SHARE > run.rows() {
            return Ok(None);
        }
        let picks: Vec<u32> = run.series_rows().map(|(_, _, end)| end as u32 - 1).collect();
        let series = picks.iter().map(|row| run.series[*row as usize]).collect();
        let bytes = encodings::encode_run(&run.pick(&picks, series));
        self.write_page(&bytes).map(Some)
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

    /// Writes the footer and makes file and name durable. Returns false where there is no row: the
    /// file is then of no use.
    pub(crate) fn finish(mut self) -> Result<bool> {
        self.end_table()?;
        if self.groups.is_empty() {
            return Ok(false);
        }
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
        self.disk.sync_folder(folder).context("sync", folder)?;
        Ok(true)
    }
}

fn text_bytes(column: &RunColumn) -> u32 {
    match column.value_type {
        ValueType::Str => {
            let offsets = column.values.as_string::<i32>().value_offsets();
            offsets.last().zip(offsets.first()).map_or(0, |(last, first)| last.abs_diff(*first))
        }
        ValueType::I64 | ValueType::U64 | ValueType::F64 | ValueType::Bool => 0,
    }
}

/// Returns where the row group that begins at `start` ends: full, or at the end of a series once it
/// is half full, so that long series share no pages and short ones share many.
fn group_end(run: &Run, start: usize) -> usize {
    let mut full = (start + PAGE_ROWS_MAX).min(run.rows());
    while full > start + 1 && run.text_bytes(start, full) > GROUP_TEXT_BYTES {
        full = start + (full - start) / 2;
    }
    if full == run.rows() || full < start + GROUP_ROWS_FEW {
        return full;
    }
    let few = start + GROUP_ROWS_FEW;
    let boundary = (few..full).rev().find(|row| run.series[*row - 1] != run.series[*row]);
    boundary.unwrap_or(full)
}
