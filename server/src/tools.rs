//! What can be done with a data directory while no server runs on it: look into files, check them, repair.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};
use comfy_table::presets;
use tskv::disk::{Disk, OsDisk};
use tskv::inspect::{self, Damage, Table};
use tskv::repair;

/// Looks into files; nothing is changed.
#[derive(Args)]
pub(crate) struct Inspect {
    #[command(subcommand)]
    what: Inspected,
    /// How the answer is written.
    #[arg(long, value_enum, default_value = "table", global = true)]
    format: Format,
}

#[derive(Subcommand)]
enum Inspected {
    /// The row groups and pages of a TSM file.
    Tsm { file: PathBuf },
    /// The records of the log, in the folder `wal` of a data directory.
    Wal { folder: PathBuf },
    /// The edits of a vnode's summary.
    Summary { file: PathBuf },
    /// The series of an index segment.
    Index { file: PathBuf },
    /// The deletes of a file of tombstones.
    Tombstone { file: PathBuf },
    /// The vnodes below a folder: files, bytes, rows, series.
    Report { folder: PathBuf },
    /// Reads and checks every byte below a folder; fails where something is damaged.
    Verify { folder: PathBuf },
}

/// Takes damaged files away, so that vnodes open again.
#[derive(Args)]
pub(crate) struct Repair {
    /// The data directory of a stopped node, or the folder of a vnode in it.
    folder: PathBuf,
    /// Only say what would be done.
    #[arg(long)]
    dry_run: bool,
    /// How the answer is written.
    #[arg(long, value_enum, default_value = "table")]
    format: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    Table,
    Csv,
    Json,
}

/// Prints what a file or folder holds.
pub(crate) fn inspect(arguments: &Inspect) -> Result<(), String> {
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    let table = match &arguments.what {
        Inspected::Tsm { file } => inspect::tsm(&*disk, file),
        Inspected::Wal { folder } => inspect::wal(&disk, folder),
        Inspected::Summary { file } => inspect::summary(&*disk, file),
        Inspected::Index { file } => inspect::index(&*disk, file),
        Inspected::Tombstone { file } => inspect::tombstones(&*disk, file),
        Inspected::Report { folder } => inspect::report(&*disk, folder),
        Inspected::Verify { folder } => {
            let damages = inspect::verify(&disk, folder).map_err(|error| error.to_string())?;
            let rows = damages.iter().map(|damage| told(damage, None)).collect();
            print(&Table { columns: vec!["file", "offset", "reason"], rows }, arguments.format);
            return match damages.len() {
                0 => Ok(()),
                count => Err(format!("{count} files are damaged: see cnosdb repair --dry-run")),
            };
        }
    };
    print(&table.map_err(|error| error.to_string())?, arguments.format);
    Ok(())
}

/// Repairs, and prints what was done.
pub(crate) fn mend(arguments: &Repair) -> Result<(), String> {
    let disk: Arc<dyn Disk> = Arc::new(OsDisk);
    // Held until all is done.
    let lock = claim(&arguments.folder)?;
    let repairs = repair::repair(&disk, &arguments.folder, arguments.dry_run);
    drop(lock);
    let repairs = repairs.map_err(|error| error.to_string())?;
    let rows =
        repairs.iter().map(|one| told(&one.damage, Some(one.action.name()))).collect::<Vec<_>>();
    print(&Table { columns: vec!["file", "offset", "reason", "action"], rows }, arguments.format);
    match repairs.iter().filter(|one| one.action == repair::Action::Left).count() {
        0 => Ok(()),
        left => {
            Err(format!("{left} damaged files are left as they are: see docs/operations/files.md"))
        }
    }
}

/// Takes the data directory that a folder lies in for this process alone, as a server does.
pub(crate) fn claim(folder: &Path) -> Result<Option<File>, String> {
    let folder = folder.canonicalize().map_err(|error| format!("{}: {error}", folder.display()))?;
    let Some(lock) = folder.ancestors().map(|one| one.join("lock")).find(|lock| lock.is_file())
    else {
        // A copy of a vnode, say: nobody else knows of it.
        return Ok(None);
    };
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", lock.display());
    let file = File::options().write(true).open(&lock).map_err(|error| at(&error))?;
    file.try_lock().map_err(|_| at(&"a server works in this data directory: stop it first"))?;
    Ok(Some(file))
}

fn told(damage: &Damage, action: Option<&str>) -> Vec<String> {
    let offset = damage.offset.map_or_else(String::new, |offset| offset.to_string());
    let mut row = vec![damage.path.display().to_string(), offset, damage.reason.clone()];
    row.extend(action.map(str::to_owned));
    row
}

#[allow(clippy::print_stdout, reason = "these commands are there to print")]
fn print(table: &Table, format: Format) {
    match format {
        Format::Table => {
            let mut drawn = comfy_table::Table::new();
            drawn.load_preset(presets::ASCII_MARKDOWN).set_header(&table.columns);
            drawn.add_rows(&table.rows);
            println!("{drawn}");
        }
        Format::Csv => {
            println!("{}", table.columns.join(","));
            for row in &table.rows {
                let cells: Vec<String> = row.iter().map(|cell| quoted(cell)).collect();
                println!("{}", cells.join(","));
            }
        }
        Format::Json => {
            let rows = table.rows.iter().map(|row| {
                let cells = table.columns.iter().zip(row);
                let cells = cells.map(|(name, cell)| ((*name).to_owned(), cell.clone().into()));
                serde_json::Value::Object(cells.collect())
            });
            println!("{}", serde_json::Value::Array(rows.collect()));
        }
    }
}

fn quoted(cell: &str) -> String {
    if cell.contains(['"', ',', '\n']) {
        return format!("\"{}\"", cell.replace('"', "\"\""));
    }
    cell.to_owned()
}
