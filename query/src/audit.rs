//! The audit log: who logged in or was refused, and who changed what there is and who may do what. A file of
//! the node with a line of JSON an event; passwords and keys are in none.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde_json::json;

use crate::error::{Error, Result};
use crate::session::Session;
use crate::sql::Statement;

/// A file is put aside at this size, and so many that were are kept.
const FILE_BYTES: u64 = 64 << 20;
const FILES_KEPT: usize = 4;
/// The longest text of what was done.
const TEXT_BYTES_MAX: usize = 16 << 10;

/// The audit log of a node.
#[derive(Debug)]
pub(crate) struct Audit {
    path: PathBuf,
    file: Mutex<(File, u64)>,
}

impl Audit {
    /// Opens the log in a file.
    ///
    /// # Errors
    /// 58030 where it cannot be written.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let opened = open(path);
        let file =
            opened.map_err(|error| Error::new("58030", format!("{}: {error}", path.display())))?;
        Ok(Self { path: path.to_path_buf(), file: Mutex::new(file) })
    }

    /// Notes how a login ended.
    pub(crate) fn login(&self, now_ns: i64, user: &str, from: IpAddr, outcome: &str) {
        let from = from.to_string();
        self.write(
            now_ns,
            &json!({ "event": "login", "user": user, "from": from, "outcome": outcome }),
        );
    }

    fn statement(&self, session: &Session, what: &str, outcome: &str) {
        let event = json!({
            "event": "statement",
            "user": session.user_name(),
            "tenant": session.tenant_name(),
            "database": session.database_name(),
            "what": what,
            "outcome": outcome,
        });
        self.write(session.now_ns(), &event);
    }

    fn write(&self, now_ns: i64, event: &serde_json::Value) {
        let time = chrono::DateTime::from_timestamp_nanos(now_ns).to_rfc3339();
        let mut line = json!({ "time": time });
        if let (Some(line), Some(event)) = (line.as_object_mut(), event.as_object()) {
            line.extend(event.clone());
        }
        let line = format!("{line}\n");
        let mut file = self.file.lock();
        if let Err(error) = self.append(&mut file, line.as_bytes()) {
            tracing::error!(%error, path = %self.path.display(), "the audit log lacks an event");
        }
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "which of its files a crash leaves is all the same"
    )]
    fn append(&self, (file, size): &mut (File, u64), line: &[u8]) -> std::io::Result<()> {
        if *size + line.len() as u64 > FILE_BYTES {
            for number in (1..FILES_KEPT).rev() {
                let (from, to) = (self.aside(number), self.aside(number + 1));
                if from.exists() {
                    std::fs::rename(from, to)?;
                }
            }
            std::fs::rename(&self.path, self.aside(1))?;
            (*file, *size) = open(&self.path)?;
        }
        file.write_all(line)?;
        *size += line.len() as u64;
        Ok(())
    }

    fn aside(&self, number: usize) -> PathBuf {
        let mut path = self.path.clone().into_os_string();
        path.push(format!(".{number}"));
        path.into()
    }
}

fn open(path: &Path) -> std::io::Result<(File, u64)> {
    let file = OpenOptions::new().create(true).append(true).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

/// Returns what is told of a statement; `None` of one that is not told.
fn told(statement: &Statement) -> Option<String> {
    let mut text = match statement {
        Statement::Definition(definition) => format!("{definition:?}"),
        Statement::Nodes(nodes) => format!("{nodes:?}"),
        Statement::CopyInto(copy) => format!("{copy:?}"),
        Statement::CreateTableAs(table) => format!("CreateTable {{ name: {:?} }}", table.name),
        Statement::Truncate(truncate) => truncate.to_string(),
        Statement::Kill(id) => format!("Kill({id})"),
        _ => return None,
    };
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    }
    Some(text)
}

impl Session {
    /// Notes a statement that changed what there is, or was to.
    pub(crate) fn audit<T>(&self, statement: &Statement, outcome: &Result<T>) {
        if let Some(what) = told(statement) {
            let outcome = outcome.as_ref().err().map_or("ok", |error| error.sqlstate);
            self.database().audit().statement(self, &what, outcome);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_full_is_put_aside_and_the_oldest_goes() {
        let folder = std::env::temp_dir().join(format!("cnosdb-audit-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("audit.log");
        let audit = Audit::open(&path).unwrap();
        for user in 0..FILES_KEPT + 3 {
            audit.file.lock().1 = FILE_BYTES;
            audit.login(0, &user.to_string(), "127.0.0.1".parse().unwrap(), "ok");
        }
        let mut names: Vec<_> =
            std::fs::read_dir(&folder).unwrap().map(|one| one.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(
            names,
            ["audit.log", "audit.log.1", "audit.log.2", "audit.log.3", "audit.log.4"]
        );
        let last = std::fs::read_to_string(&path).unwrap();
        assert!(last.contains("\"user\":\"6\"") && last.lines().count() == 1, "{last}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
