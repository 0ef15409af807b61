//! What the files of a stopped node say, for people: tables of text. Nothing is changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use model::series_key;

use crate::disk::{Disk, read_file};
use crate::error::{Context, Error, Result};
use crate::index::Segment;
use crate::summary::{self, VersionEdit};
use crate::tombstone::{self, Deleted};
use crate::tsm::{TsmFile, encodings};
use crate::version::{file_path, segment_path, tombstone_path};
use crate::wal;

/// A table of text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The names of its columns.
    pub columns: Vec<&'static str>,
    /// Its rows, each as long as there are columns.
    pub rows: Vec<Vec<String>>,
}

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// Where in it, if that is known.
    pub offset: Option<u64>,
    /// What is wrong.
    pub reason: String,
}

impl Damage {
    fn of(path: &Path, error: &Error) -> Self {
        match error {
            Error::Corrupt { path, offset, reason } => {
                Self { path: path.clone(), offset: Some(*offset), reason: reason.clone() }
            }
            other => Self { path: path.to_path_buf(), offset: None, reason: other.to_string() },
        }
    }
}

/// Lists the row groups of a TSM file, each column with its encoding.
///
/// # Errors
/// `Corrupt`, naming file and offset.
pub fn tsm(disk: &dyn Disk, path: &Path) -> Result<Table> {
    let file = TsmFile::open(disk, path)?;
    let columns = vec![
        "table",
        "rows",
        "series",
        "series_min",
        "series_max",
        "time_min",
        "time_max",
        "column",
        "type",
        "encoding",
        "bytes",
        "nulls",
    ];
    let mut rows = Vec::new();
    for group in file.groups() {
        for page in file.pages(group)? {
            rows.push(vec![
                group.table.to_string(),
                group.rows.to_string(),
                group.series_count.to_string(),
                group.series.0.to_string(),
                group.series.1.to_string(),
                group.times.min.to_string(),
                group.times.max.to_string(),
                page.column.map_or_else(|| page.kind.to_owned(), |id| id.to_string()),
                page.value_type.map_or_else(String::new, |of| of.sql().to_owned()),
                page.encoding.map_or_else(
                    || "?".to_owned(),
                    |code| encodings::name(page.value_type.is_none(), code).to_owned(),
                ),
                page.bytes.to_string(),
                page.nulls.to_string(),
            ]);
        }
    }
    Ok(Table { columns, rows })
}

/// Lists the series of a segment.
///
/// # Errors
/// `Corrupt`, naming file and offset.
pub fn index(disk: &dyn Disk, path: &Path) -> Result<Table> {
    let segment = Segment::open(disk, path, 0)?;
    let mut rows = Vec::new();
    for (id, key) in segment.ids().zip(segment.all_keys()?) {
        let mut row = vec![id.to_string()];
        match series_key::check(&key) {
            Ok(table) => {
                let tags = series_key::tags(&key);
                let tags = tags.map(|(column, value)| format!("{column}={value}"));
                row.extend([table.to_string(), tags.collect::<Vec<_>>().join(",")]);
            }
            Err(error) => row.extend([String::new(), error.to_string()]),
        }
        rows.push(row);
    }
    Ok(Table { columns: vec!["series", "table", "tags"], rows })
}

/// Lists the deletes of a file of tombstones.
///
/// # Errors
/// `Corrupt`, naming the file.
pub fn tombstones(disk: &dyn Disk, path: &Path) -> Result<Table> {
    let rows = tombstone::read(disk, path)?.into_iter().map(|one| {
        let (kind, count, times) = match &one.rows {
            Deleted::All(times) => ("all", String::new(), Some(*times)),
            Deleted::Series(series, times) => ("series", series.len().to_string(), Some(*times)),
            Deleted::Rows(rows) => ("rows", rows.len().to_string(), None),
        };
        let time = |of: fn(&model::TimeRange) -> i64| {
            times.as_ref().map(|times| of(times).to_string()).unwrap_or_default()
        };
        let (min, max) = (time(|times| times.min), time(|times| times.max));
        vec![one.table.to_string(), one.index.to_string(), kind.to_owned(), count, min, max]
    });
    let columns = vec!["table", "raft_index", "kind", "count", "time_min", "time_max"];
    Ok(Table { columns, rows: rows.collect() })
}

/// Lists the edits of a summary.
///
/// # Errors
/// `Corrupt`, naming file and offset.
pub fn summary(disk: &dyn Disk, path: &Path) -> Result<Table> {
    let bytes = read_file(disk, path).context("read", path)?;
    let edits = summary::edits(path, &bytes)?;
    let numbers = |list: &[u64]| {
        list.iter().map(|number| format!("{number:x}")).collect::<Vec<_>>().join(" ")
    };
    let rows = edits.list.iter().map(|(number, offset, edit)| {
        let files = edit
            .files
            .iter()
            .map(|file| format!("{:x}@{} (seen {})", file.number, file.level, file.seen));
        vec![
            number.to_string(),
            offset.to_string(),
            files.collect::<Vec<_>>().join(" "),
            numbers(&edit.tombstones),
            numbers(&edit.segments),
            numbers(&edit.removed),
            edit.applied.to_string(),
        ]
    });
    let rows = rows.collect();
    let columns = vec!["edit", "offset", "files", "tombstones", "segments", "removed", "applied"];
    Ok(Table { columns, rows })
}

/// Lists the records of the log.
///
/// # Errors
/// `Corrupt`, naming file and offset.
pub fn wal(disk: &Arc<dyn Disk>, folder: &Path) -> Result<Table> {
    let columns = vec!["segment", "offset", "batch", "record", "vnode", "raft_index", "bytes"];
    let mut rows = Vec::new();
    wal::each_record(&**disk, folder, &mut |record| {
        rows.push(vec![
            format!("{:x}", record.segment),
            record.offset.to_string(),
            record.batch.to_string(),
            record.kind.to_owned(),
            record.vnode.to_string(),
            record.index.map_or_else(String::new, |index| index.to_string()),
            record.bytes.to_string(),
        ]);
    })?;
    Ok(Table { columns, rows })
}

/// Lists the vnodes below a folder: files, bytes, rows, series, what is damaged.
///
/// # Errors
/// What the disk says.
pub fn report(disk: &dyn Disk, folder: &Path) -> Result<Table> {
    let columns = vec![
        "vnode",
        "files",
        "bytes",
        "rows",
        "series",
        "segments",
        "tombstone_files",
        "applied",
        "damaged",
    ];
    let mut rows = Vec::new();
    for vnode in vnodes(disk, folder)? {
        let (mut bytes, mut count, mut series, mut damaged) = (0, 0, 0, 0);
        let whole = match whole(disk, &vnode) {
            Ok(whole) => whole,
            Err(_) => {
                damaged += 1;
                VersionEdit::default()
            }
        };
        for entry in &whole.files {
            match TsmFile::open(disk, &file_path(&vnode, entry.number)) {
                Ok(file) => {
                    bytes += file.bytes();
                    count += file.rows_by_table().map(|(_, rows)| rows).sum::<u64>();
                }
                Err(_) => damaged += 1,
            }
        }
        for number in &whole.segments {
            match Segment::open(disk, &segment_path(&vnode, *number), *number) {
                Ok(segment) => series += segment.ids().len(),
                Err(_) => damaged += 1,
            }
        }
        rows.push(vec![
            vnode.display().to_string(),
            whole.files.len().to_string(),
            bytes.to_string(),
            count.to_string(),
            series.to_string(),
            whole.segments.len().to_string(),
            whole.tombstones.len().to_string(),
            whole.applied.to_string(),
            damaged.to_string(),
        ]);
    }
    Ok(Table { columns, rows })
}

/// Reads and checks every byte of the vnodes below a folder, and of the log beside them.
///
/// # Errors
/// What the disk says.
pub fn verify(disk: &Arc<dyn Disk>, folder: &Path) -> Result<Vec<Damage>> {
    let mut damages = Vec::new();
    for vnode in vnodes(&**disk, folder)? {
        damages.extend(damages_of(&**disk, &vnode)?);
    }
    let log = folder.join(wal::FOLDER);
    if is_there(&**disk, &log)
        && let Err(error) = wal::each_record(&**disk, &log, &mut |_| {})
    {
        damages.push(Damage::of(&log, &error));
    }
    Ok(damages)
}

/// Returns what is wrong with the files of a vnode.
pub(crate) fn damages_of(disk: &dyn Disk, vnode: &Path) -> Result<Vec<Damage>> {
    let whole = match whole(disk, vnode) {
        Ok(whole) => whole,
        Err(error @ Error::Corrupt { .. }) => {
            return Ok(vec![Damage::of(&vnode.join(summary::NAME), &error)]);
        }
        Err(error) => return Err(error),
    };
    let mut damages = Vec::new();
    // What the disk does not let one read is no damage of the file.
    let mut check = |path: &Path, outcome: Result<()>| match outcome {
        Ok(()) => Ok(()),
        Err(error @ Error::Corrupt { .. }) => {
            damages.push(Damage::of(path, &error));
            Ok(())
        }
        Err(Error::Io { source, context }) if source.kind() == std::io::ErrorKind::NotFound => {
            damages.push(Damage { path: path.to_path_buf(), offset: None, reason: context });
            Ok(())
        }
        Err(other) => Err(other),
    };
    for entry in &whole.files {
        let path = file_path(vnode, entry.number);
        check(&path, TsmFile::open(disk, &path).and_then(|file| file.verify()))?;
    }
    for number in &whole.segments {
        let path = segment_path(vnode, *number);
        check(&path, Segment::open(disk, &path, *number).and_then(|segment| segment.verify()))?;
    }
    for number in &whole.tombstones {
        let path = tombstone_path(vnode, *number);
        check(&path, tombstone::read(disk, &path).map(drop))?;
    }
    Ok(damages)
}

/// Returns all edits of a vnode's summary as one.
pub(crate) fn whole(disk: &dyn Disk, vnode: &Path) -> Result<VersionEdit> {
    let path = vnode.join(summary::NAME);
    match read_file(disk, &path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(VersionEdit::default()),
        other => Ok(summary::edits(&path, &other.context("read", &path)?)?.whole),
    }
}

/// Finds the folders of vnodes: those that hold a summary, or files of rows.
pub(crate) fn vnodes(disk: &dyn Disk, folder: &Path) -> Result<Vec<PathBuf>> {
    /// Tenant, database, bucket, replica set, vnode.
    const DEPTH: usize = 6;
    let mut found = Vec::new();
    let mut folders = vec![(folder.to_path_buf(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        let Ok(names) = disk.list(&folder) else { continue };
        if names.iter().any(|name| name == summary::NAME || name == "tsm") {
            found.push(folder);
        } else if depth < DEPTH {
            folders.extend(names.into_iter().map(|name| (folder.join(name), depth + 1)));
        }
    }
    found.sort();
    if found.is_empty() && !is_there(disk, folder) {
        let missing = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(missing).context("list", folder);
    }
    Ok(found)
}

fn is_there(disk: &dyn Disk, folder: &Path) -> bool {
    disk.list(folder).is_ok()
}
