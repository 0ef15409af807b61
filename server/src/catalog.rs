//! The catalog of a stopped node, written out and restored.

use std::fs::File;
use std::io::{BufReader, BufWriter, Write, stdout};
use std::path::PathBuf;

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
            let mut out: Box<dyn Write> = match file {
                None => Box::new(stdout().lock()),
                Some(file) => {
                    let made = File::create_new(file);
                    let made = made.map_err(|error| format!("{}: {error}", file.display()))?;
                    Box::new(BufWriter::new(made))
                }
            };
            let version = meta::dump(&data_dir.join(FOLDER), &mut out);
            let version = version.map_err(|error| error.to_string())?;
            say(&format!("version {version} of the catalog was written"));
        }
        What::Restore { data_dir, file } => {
            let _lock = claim(data_dir)?;
            let node = node_of(&OsDisk, data_dir)?;
            let dump = File::open(file).map_err(|error| format!("{}: {error}", file.display()))?;
            let fresh = data_dir.join("meta.restored");
            let restored = meta::restore(&fresh, node, &mut BufReader::new(dump));
            let version = restored.map_err(|error| error.to_string())?;
            let (old, kept) = (data_dir.join(FOLDER), data_dir.join(REPLACED));
            let at = |error: std::io::Error| format!("{}: {error}", data_dir.display());
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

fn say(what: &str) {
    #[allow(clippy::print_stderr, reason = "standard output may be the dump")]
    {
        eprintln!("{what}");
    }
}
