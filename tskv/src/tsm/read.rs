//! Reads a TSM file: the footer once, then the pages a scan asks for.
#![deny(clippy::indexing_slicing)]

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array, AsArray};
use model::points::decode_array;
use model::wire::{Malformed, Reader};
use model::{ColumnId, TableId, ValueType};

use super::encodings::{self, vector_rows};
use super::footer::{
    self, HEADER_BYTES, MAGIC, Page, RowGroup, TRAILER_BYTES, VERSION, VERSION_READ_MIN,
};
use crate::decoded::FileMark;
use crate::disk::{Disk, DiskFile};
use crate::error::{Context, Error, Result};
use crate::run::{Run, RunColumn};
use crate::tombstone::Tombstone;

/// An open file.
#[derive(Debug)]
pub(crate) struct TsmFile {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    bytes: u64,
    groups: Vec<RowGroup>,
    mark: FileMark,
}

/// What a page is, for people.
pub(crate) struct PageInfo {
    pub(crate) kind: &'static str,
    pub(crate) column: Option<ColumnId>,
    pub(crate) value_type: Option<ValueType>,
    /// Its first byte.
    pub(crate) encoding: Option<u8>,
    pub(crate) bytes: u32,
    pub(crate) nulls: u32,
}

impl TsmFile {
    /// Opens a file and checks header, trailer and footer.
    pub(crate) fn open(disk: &dyn Disk, path: &Path) -> Result<Self> {
        let file = disk.open(path).context("open", path)?;
        let bytes = file.size().context("measure", path)?;
        if bytes < HEADER_BYTES + TRAILER_BYTES {
            return Err(Error::corrupt(path, 0, "shorter than a header and a trailer"));
        }
        let header = file.read_at(0, HEADER_BYTES as usize).context("read", path)?;
        check_header(&header).map_err(|error| Error::corrupt(path, 0, error))?;
        let at = bytes - TRAILER_BYTES;
        let trailer = file.read_at(at, TRAILER_BYTES as usize).context("read", path)?;
        let (offset, len, crc) =
            check_trailer(&trailer, at).map_err(|error| Error::corrupt(path, at, error))?;
        let footer = file.read_at(offset, len).context("read", path)?;
        if crc32fast::hash(&footer) != crc {
            return Err(Error::corrupt(path, offset, "footer checksum"));
        }
        let groups =
            footer::decode(&footer, offset).map_err(|error| Error::corrupt(path, offset, error))?;
        let mark = FileMark::fresh();
        Ok(Self { path: path.to_path_buf(), file, bytes, groups, mark })
    }

    /// Returns the row groups, in order of table, series and time.
    pub(crate) fn groups(&self) -> &[RowGroup] {
        &self.groups
    }

    /// Returns the numbers of a table's row groups.
    pub(crate) fn groups_of(&self, table: TableId) -> Range<usize> {
        let start = self.groups.partition_point(|group| group.table < table);
        let end = self.groups.partition_point(|group| group.table <= table);
        start..end
    }

    /// Returns each table with its number of rows.
    pub(crate) fn rows_by_table(&self) -> impl Iterator<Item = (TableId, u64)> {
        let tables = self.groups.chunk_by(|a, b| a.table == b.table);
        tables.filter_map(|groups| {
            let rows = groups.iter().map(|group| u64::from(group.rows)).sum();
            Some((groups.first()?.table, rows))
        })
    }

    /// Returns whether a tombstone may delete rows of the file.
    pub(crate) fn touched_by(&self, tombstone: &Tombstone) -> bool {
        let groups = self.groups.get(self.groups_of(tombstone.table)).unwrap_or_default();
        groups.iter().any(|group| tombstone.touches(group.series, &group.times))
    }

    /// Returns what no other open file has.
    pub(crate) fn mark(&self) -> FileMark {
        self.mark
    }

    /// Returns the file's path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the size of the file.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Reads the named columns of a row group; those it does not have are left out.
    pub(crate) fn read(&self, group: &RowGroup, columns: &[(ColumnId, ValueType)]) -> Result<Run> {
        let rows = group.rows as usize;
        let series = self.keys(group.series_page, rows)?;
        let series = series.into_iter().map(|s| s as u32).collect();
        let times = self.keys(group.time_page, rows)?.into();
        let columns = self.read_columns(group, columns, 0..group.vectors())?;
        Ok(Run { series, times, columns })
    }

    /// Reads some vectors of the named columns of a row group; columns it does not have are left out.
    pub(crate) fn read_columns(
        &self,
        group: &RowGroup,
        columns: &[(ColumnId, ValueType)],
        vectors: Range<usize>,
    ) -> Result<Vec<RunColumn>> {
        let rows = group.rows as usize;
        let are_all = vectors == (0..group.vectors());
        let wanted = vector_rows(vectors.start, rows).start..vector_rows(vectors.end, rows).start;
        let mut read = Vec::with_capacity(columns.len());
        for (id, value_type) in columns {
            let Some(pages) = group.columns.iter().find(|column| column.id == *id) else {
                continue;
            };
            if pages.value_type != *value_type {
                let reason = format!("column {id} has another type than its table says");
                return Err(Error::corrupt(&self.path, pages.values.offset, reason));
            }
            let bytes = self.page(pages.values)?;
            let values = match are_all {
                true => encodings::decode(&bytes, *value_type, rows),
                false => encodings::decode_vectors(&bytes, *value_type, rows, vectors.clone()),
            };
            let values = values.map_err(|error| self.malformed(pages.values, error))?;
            let written = match pages.written {
                None => None,
                Some(page) => {
                    let bytes = self.page(page)?;
                    let bits = decode_array(&mut Reader::new(&bytes), ValueType::Bool, rows)
                        .map_err(|error| self.malformed(page, error))?;
                    Some(bits.as_boolean().values().slice(wanted.start, wanted.len()))
                }
            };
            debug_assert!(!are_all || values.null_count() == pages.nulls as usize);
            read.push(RunColumn { id: *id, value_type: *value_type, values, written });
        }
        Ok(read)
    }

    /// Reads the last row of each series of a row group, where they are kept apart.
    pub(crate) fn read_last(
        &self,
        group: &RowGroup,
        columns: &[(ColumnId, ValueType)],
    ) -> Result<Option<Run>> {
        let Some(page) = group.last_rows else { return Ok(None) };
        let bytes = self.page(page)?;
        let run = encodings::decode_run(&bytes, columns);
        run.map(Some).map_err(|error| self.malformed(page, error))
    }

    /// Reads and checks every page.
    pub(crate) fn verify(&self) -> Result<()> {
        for group in &self.groups {
            let columns: Vec<_> =
                group.columns.iter().map(|column| (column.id, column.value_type)).collect();
            self.read(group, &columns)?;
            self.read_last(group, &columns)?;
        }
        Ok(())
    }

    /// Returns the pages of a row group: keys, then columns, with the encoding of each.
    pub(crate) fn pages(&self, group: &RowGroup) -> Result<Vec<PageInfo>> {
        let info = |kind, page: Page| -> Result<PageInfo> {
            let encoding = self.page(page)?.first().copied();
            Ok(PageInfo {
                kind,
                column: None,
                value_type: None,
                encoding,
                bytes: page.len,
                nulls: 0,
            })
        };
        let mut pages = vec![info("series", group.series_page)?, info("time", group.time_page)?];
        for column in &group.columns {
            pages.push(PageInfo {
                column: Some(column.id),
                value_type: Some(column.value_type),
                nulls: column.nulls,
                ..info("column", column.values)?
            });
        }
        Ok(pages)
    }

    fn keys(&self, page: Page, rows: usize) -> Result<Vec<i64>> {
        let bytes = self.page(page)?;
        encodings::decode_keys(&bytes, rows).map_err(|error| self.malformed(page, error))
    }

    fn page(&self, page: Page) -> Result<Vec<u8>> {
        let bytes =
            self.file.read_at(page.offset, page.len as usize).context("read", &self.path)?;
        if crc32fast::hash(&bytes) != page.crc {
            return Err(Error::corrupt(&self.path, page.offset, "page checksum"));
        }
        Ok(bytes)
    }

    fn malformed(&self, page: Page, error: Malformed) -> Error {
        Error::corrupt(&self.path, page.offset, error)
    }
}

fn check_header(header: &[u8]) -> std::result::Result<(), Malformed> {
    let mut reader = Reader::new(header);
    let magic = reader.take(8)?;
    let version = reader.u32()?;
    let crc = reader.u32()?;
    if magic != MAGIC || crc != crc32fast::hash(header.get(..12).unwrap_or_default()) {
        return Err(Malformed("not a tsm file".to_owned()));
    }
    check_version(version)
}

fn check_version(version: u32) -> std::result::Result<(), Malformed> {
    if (VERSION_READ_MIN..=VERSION).contains(&version) {
        return Ok(());
    }
    let read = format!("this program reads {VERSION_READ_MIN} to {VERSION}");
    Err(Malformed(format!("tsm version {version}; {read}")))
}

fn check_trailer(trailer: &[u8], at: u64) -> std::result::Result<(u64, usize, u32), Malformed> {
    let mut reader = Reader::new(trailer);
    let (offset, len, crc) = (reader.u64()?, reader.u64()?, reader.u32()?);
    check_version(reader.u32()?)?;
    if reader.u32()? != crc32fast::hash(trailer.get(..24).unwrap_or_default()) {
        return Err(Malformed("trailer checksum".to_owned()));
    }
    if offset < HEADER_BYTES || offset.checked_add(len) != Some(at) {
        return Err(Malformed("footer outside the file".to_owned()));
    }
    Ok((offset, len as usize, crc))
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "bytes of a test")]
mod tests {
    use arrow::array::{ArrayRef, BooleanArray, Float64Array, Int64Array, StringArray};
    use arrow::buffer::ScalarBuffer;

    use super::*;
    use crate::disk::{OsDisk, read_file, write_new_file};
    use crate::schemas::Schemas;
    use crate::tsm::{Effort, Ends, TsmWriter};

    fn column(id: u32, value_type: ValueType, values: ArrayRef) -> RunColumn {
        RunColumn { id: ColumnId(id), value_type, values, written: None }
    }

    /// Writes a file of two tables, the rows of the first of one series, and returns its path.
    fn write(folder: &Path) -> PathBuf {
        let path = folder.join("1.tsm");
        let disk: Arc<dyn Disk> = Arc::new(OsDisk);
        let schemas = Schemas::unknown();
        let mut writer = TsmWriter::create(disk, &path, Effort::Light, &schemas).unwrap();
        let doubles = Float64Array::from(vec![1.5, f64::NAN, -0.0]);
        let whole = Int64Array::from(vec![None, Some(7), Some(8)]);
        let columns = vec![
            column(1, ValueType::F64, Arc::new(doubles)),
            column(2, ValueType::I64, Arc::new(whole)),
            column(3, ValueType::Bool, Arc::new(BooleanArray::from(vec![true, false, false]))),
            column(4, ValueType::Str, Arc::new(StringArray::from(vec!["a", "b", "c"]))),
        ];
        let (series, times): (_, ScalarBuffer<i64>) = (vec![1; 3].into(), vec![10, 20, 30].into());
        let one = Run { series, times: times.clone(), columns: columns.clone() };
        writer.write_rows(TableId(1), one).unwrap();
        let several = Run { series: vec![1, 1, 2].into(), times, columns };
        writer.write_rows(TableId(2), several).unwrap();
        assert!(writer.finish().unwrap());
        path
    }

    #[test]
    fn the_ends_of_one_series_are_told_where_they_have_bits() {
        let folder = tempfile::tempdir().unwrap();
        let file = TsmFile::open(&OsDisk, &write(folder.path())).unwrap();
        let ends = |table, id| {
            let number = file.groups_of(TableId(table)).start;
            file.groups()[number].statistics(ColumnId(id)).unwrap().ends
        };
        let [first, last] = [1.5_f64, -0.0].map(f64::to_bits);
        assert_eq!(ends(1, 1), Some(Ends { first, last }));
        assert_eq!(ends(1, 2), None, "the first is NULL");
        assert_eq!(ends(1, 3), Some(Ends { first: 1, last: 0 }));
        assert_eq!(ends(1, 4), None, "texts");
        assert!((1..=4).all(|id| ends(2, id).is_none()), "two series");
    }

    #[test]
    fn files_of_versions_2_and_3_are_read_and_one_of_version_1_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = write(folder.path());
        let bytes = read_file(&OsDisk, &path).unwrap();
        let with_version = |version: u32| {
            let path = folder.path().join(format!("version_{version}.tsm"));
            let mut bytes = bytes.clone();
            let trailer = bytes.len() - TRAILER_BYTES as usize;
            for (version_at, from, crc_at) in [(8, 0, 12), (trailer + 20, trailer, trailer + 24)] {
                bytes[version_at..version_at + 4].copy_from_slice(&version.to_le_bytes());
                let crc = crc32fast::hash(&bytes[from..crc_at]);
                bytes[crc_at..crc_at + 4].copy_from_slice(&crc.to_le_bytes());
            }
            write_new_file(&OsDisk, &path, &bytes).unwrap();
            TsmFile::open(&OsDisk, &path).map(|file| file.verify())
        };
        assert!(
            (VERSION_READ_MIN..VERSION).all(|version| matches!(with_version(version), Ok(Ok(()))))
        );
        let refused = with_version(1).unwrap_err().to_string();
        assert!(refused.contains("tsm version 1; this program reads 2 to 4"), "{refused}");
    }
}
