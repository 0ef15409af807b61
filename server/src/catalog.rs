//! The catalog of a stopped node, written out and restored.

use std::fs::File;
use std::io::{BufReader, BufWriter, stdout};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use tskv::disk::{Disk, OsDisk};

use crate::membership::node_of;
use crate::tools::claim;

/// Where the catalog lies in a data directory, and where one that was replaced is put.
const FOLDER: &str = "meta";
const REPLACED: &str = "meta.replaced";

/// What is to be done with a catalog.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Writes the catalog of a stopped node to standard output, or to a file.
    Dump {
        /// The data directory.
        data_dir: PathBuf,
        /// The file; it must not be there.
        file: Option<PathBuf>,
    },
    /// Has a stopped node keep the catalog of a dump, alone at first; what it kept goes to `meta.replaced`. The
    /// other nodes that keep a catalog must be stopped, and their folder `meta` removed.
    Restore {
        /// The data directory.
        data_dir: PathBuf,
        /// The dump.
        file: PathBuf,
    },
}

/// Writes out, or restores.
///
/// # Errors
/// One line that says what is wrong.
pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    match &arguments.what {
        What::Dump { data_dir, file } => {
            // Held until all is done.
            let _lock = claim(data_dir)?;
            let folder = data_dir.join(FOLDER);
            let version = match file {
                None => meta::dump(&folder, &mut stdout().lock()).map_err(|e| e.to_string()),
                Some(file) => dump_to(&folder, file),
            }?;
            say(&format!("version {version} of the catalog was written"));
        }
        What::Restore { data_dir, file } => {
            let _lock = claim(data_dir)?;
            let node = node_of(&OsDisk, data_dir)?;
            let dump = File::open(file).map_err(|error| format!("{}: {error}", file.display()))?;
            let at = |error: std::io::Error| format!("{}: {error}", data_dir.display());
            let (old, kept) = (data_dir.join(FOLDER), data_dir.join(REPLACED));
            if kept.try_exists().map_err(at)? {
                return Err(format!("{} is there already: move it away", kept.display()));
            }
            let fresh = data_dir.join("meta.restored");
            // Of a try that failed.
            OsDisk.remove_folder(&fresh).map_err(at)?;
            let restored = meta::restore(&fresh, node, &mut BufReader::new(dump));
            let version = restored.map_err(|error| error.to_string())?;
            if old.try_exists().map_err(at)? {
                OsDisk.rename(&old, &kept).map_err(at)?;
            }
            OsDisk.rename(&fresh, &old).map_err(at)?;
            OsDisk.sync_folder(data_dir).map_err(at)?;
            say(&format!("node {node} keeps version {version} of the catalog, alone for now"));
        }
    }
    Ok(())
}

/// Writes the catalog to a new file, which nobody else may read: verifiers of passwords are in it.
fn dump_to(folder: &Path, file: &Path) -> Result<u64, String> {
    let at = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
    let made = File::options().write(true).create_new(true).mode(0o600).open(file);
    let mut out = BufWriter::new(made.map_err(|error| at(&error))?);
    let dumped = meta::dump(folder, &mut out).map_err(|error| error.to_string());
    let synced = |version| out.get_ref().sync_all().map(|()| version).map_err(|error| at(&error));
    let dumped = dumped.and_then(synced);
    if dumped.is_err() {
        OsDisk.remove(file).map_err(|error| at(&error))?;
    }
    dumped
}

fn say(what: &str) {
    #[allow(clippy::print_stderr, reason = "standard output may be the dump")]
    {
        eprintln!("{what}");
    }
}
