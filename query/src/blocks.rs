//! Blocks of statements, BEGIN to COMMIT: each statement commits by itself, so that a block keeps only what
//! PostgreSQL's clients look at: whether one is open, its savepoints, settings and cursors.

use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::sql::sqlparser::ast;
use parking_lot::Mutex;

use crate::error::{Error, Result};
use crate::output::{Notice, Output};
use crate::session::Session;
use crate::sql::{Access, Savepoint, Statement};

/// The most savepoints of a block.
const SAVEPOINTS_MAX: usize = 1_024;

/// The block a session is in, if it is in one.
#[derive(Debug, Default)]
pub(crate) struct Block {
    is_open: AtomicBool,
    has_written: AtomicBool,
    savepoints: Mutex<Vec<String>>,
}

impl Session {
    pub(crate) fn is_in_block(&self) -> bool {
        self.block.is_open.load(Ordering::Acquire)
    }

    /// Notes that rows are about to be changed.
    pub(crate) fn note_write(&self) {
        if self.is_in_block() {
            self.block.has_written.store(true, Ordering::Release);
        }
    }

    pub(crate) fn begin(&self, tag: &'static str, access: Option<Access>) -> Output {
        if self.block.is_open.swap(true, Ordering::AcqRel) {
            let message = "there is already a transaction in progress";
            self.notice(Notice::warning("25001", message));
        } else {
            self.settings.lock().begin_block(access);
        }
        Output::Begin(tag)
    }

    /// Refuses what would change something in a block that may not.
    pub(crate) fn check_read_only(&self, statement: &Statement) -> Result<()> {
        let Some(what) = change(statement) else { return Ok(()) };
        if !self.settings.lock().is_read_only() {
            return Ok(());
        }
        let message = format!("cannot execute {what} in a read-only transaction");
        Err(Error::new("25006", message))
    }

    pub(crate) fn commit(&self) -> Output {
        self.end_block(true);
        Output::End("COMMIT")
    }

    pub(crate) fn rollback(&self) -> Output {
        if self.end_block(false) {
            self.warn_of_what_is_kept();
        }
        Output::End("ROLLBACK")
    }

    fn warn_of_what_is_kept(&self) {
        let message = "what was written is kept: each statement commits by itself";
        self.notice(Notice::warning("25000", message));
    }

    /// Ends a block. Returns whether something was written in it.
    fn end_block(&self, keep: bool) -> bool {
        self.settings.lock().end_block(keep);
        self.block.savepoints.lock().clear();
        if !self.block.is_open.swap(false, Ordering::AcqRel) {
            self.notice(Notice::warning("25P01", "there is no transaction in progress"));
        }
        self.kept.end_block();
        self.block.has_written.swap(false, Ordering::AcqRel)
    }

    /// Sets a savepoint, gives it up, or goes back to it: what was written since is kept all the same.
    pub(crate) fn savepoint(&self, action: &Savepoint) -> Result<Output> {
        let (Savepoint::Set(name) | Savepoint::Release(name) | Savepoint::BackTo(name)) = action;
        if !self.is_in_block() {
            let message = format!("{} can only be used in transaction blocks", action.tag());
            return Err(Error::new("25P01", message));
        }
        let mut savepoints = self.block.savepoints.lock();
        if let Savepoint::Set(name) = action {
            if savepoints.len() == SAVEPOINTS_MAX {
                let message = format!("more than {SAVEPOINTS_MAX} savepoints in a block");
                return Err(Error::new("53400", message));
            }
            savepoints.push(name.clone());
            return Ok(Output::Done("SAVEPOINT"));
        }
        let found = savepoints.iter().rposition(|one| one == name);
        let missing = || Error::new("3B001", format!("savepoint \"{name}\" does not exist"));
        let at = found.ok_or_else(missing)?;
        if matches!(action, Savepoint::Release(_)) {
            savepoints.truncate(at);
            return Ok(Output::Done("RELEASE"));
        }
        savepoints.truncate(at + 1);
        if self.block.has_written.load(Ordering::Acquire) {
            self.warn_of_what_is_kept();
        }
        Ok(Output::Resumed("ROLLBACK"))
    }
}

/// Returns what a statement changes things by, if it does.
fn change(statement: &Statement) -> Option<&'static str> {
    Some(match statement {
        Statement::Insert(_) => "INSERT",
        Statement::Delete(_) => "DELETE",
        Statement::Update(_) => "UPDATE",
        Statement::Truncate(_) => "TRUNCATE TABLE",
        Statement::CopyInto(_) => "COPY INTO",
        Statement::Copy(copy) => match copy.as_ref() {
            ast::Statement::Copy { to: false, .. } => "COPY FROM",
            _ => return None,
        },
        Statement::Definition(_) => "a change of the catalog",
        Statement::CreateTableAs(_) => "CREATE TABLE AS",
        Statement::CreateTemporary(_) => "CREATE TABLE",
        Statement::Compact(_) => "COMPACT",
        Statement::Nodes(_) => "a change of nodes",
        _ => return None,
    })
}
