//! The statements that run now: who runs what since when, and how to stop them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use model::{TenantId, UserId};
use parking_lot::Mutex;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::access::{Identity, Need, check};
use crate::database::Database;
use crate::error::{Error, Result};
use crate::output::Output;
use crate::session::Session;
use crate::sql::Statement;

/// The longest text that is kept of a statement.
const TEXT_BYTES_MAX: usize = 4_096;

/// A statement that took so long is kept in the history.
const SLOW: Duration = Duration::from_secs(10);
/// So many of them are kept.
const HISTORY_MAX: usize = 1_000;

/// A statement that runs.
#[derive(Debug)]
pub(crate) struct Running {
    id: u64,
    text: String,
    kind: &'static str,
    who: Identity,
    user: String,
    tenant: String,
    database: String,
    since: Instant,
    token: CancellationToken,
    /// How far it is, where it copies rows.
    copy: OnceLock<Arc<CopyProgress>>,
    all: Weak<AllRunning>,
}

/// How far a copy is.
#[derive(Debug)]
pub(crate) struct CopyProgress {
    /// As PostgreSQL's pg_stat_progress_copy calls it.
    pub(crate) command: &'static str,
    pub(crate) kind: &'static str,
    /// The bytes there are to copy; 0 where nobody knows.
    pub(crate) bytes_total: u64,
    pub(crate) bytes: AtomicU64,
    pub(crate) rows: AtomicU64,
}

impl CopyProgress {
    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn add_rows(&self, rows: u64) {
        self.rows.fetch_add(rows, Ordering::Relaxed);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(all) = self.all.upgrade() {
            all.statements.lock().remove(&self.id);
            if self.since.elapsed() >= SLOW {
                let mut history = all.history.lock();
                if history.len() == HISTORY_MAX {
                    history.pop_front();
                }
                let state = if self.token.is_cancelled() { "canceled" } else { "done" };
                history.push_back(self.told(state));
            }
            let mut ended = all.ended.lock();
            let totals = ended.entry(self.kind).or_default();
            totals.count += 1;
            totals.seconds += self.since.elapsed().as_secs_f64();
        }
    }
}

/// All statements that run on this node.
#[derive(Debug, Default)]
pub(crate) struct AllRunning {
    next: AtomicU64,
    statements: Mutex<BTreeMap<u64, Weak<Running>>>,
    ended: Mutex<BTreeMap<&'static str, Ended>>,
    history: Mutex<VecDeque<Vec<String>>>,
}

/// Statements of a kind that have ended.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ended {
    pub(crate) count: u64,
    /// How long they took.
    pub(crate) seconds: f64,
}

impl AllRunning {
    /// Returns how many there are.
    pub(crate) fn count(&self) -> usize {
        self.statements.lock().len()
    }

    /// Returns how many of a statement's tenant began before it that read or write rows.
    pub(crate) fn count_before(&self, running: &Running) -> usize {
        let others = self.of(running.who.tenant, None);
        let is_counted = |kind| kind != "OTHER" && kind != "DEFINITION";
        others.iter().filter(|one| one.id < running.id && is_counted(one.kind)).count()
    }

    /// Returns the slow statements that have ended, the oldest first.
    pub(crate) fn history(&self) -> Vec<Vec<String>> {
        self.history.lock().iter().cloned().collect()
    }

    /// Returns what has ended since the start, by kind.
    pub(crate) fn ended(&self) -> BTreeMap<&'static str, Ended> {
        self.ended.lock().clone()
    }

    /// Returns those of a tenant, the oldest first.
    fn of(&self, tenant: TenantId, user: Option<UserId>) -> Vec<Arc<Running>> {
        // Upgraded all at once: one that ends here must not be dropped under the lock it then takes.
        let all: Vec<Arc<Running>> =
            self.statements.lock().values().filter_map(Weak::upgrade).collect();
        let own = |one: &Arc<Running>| {
            one.who.tenant == tenant && user.is_none_or(|user| one.who.user == user)
        };
        all.into_iter().filter(own).collect()
    }
}

/// Returns what people may see of a statement; never a definition, which may hold a password.
fn text_of(statement: &Statement) -> (&'static str, String) {
    let (kind, mut text) = match statement {
        Statement::Query(query) => ("SELECT", query.to_string()),
        Statement::Insert(insert) => ("INSERT", format!("INSERT INTO {} …", insert.table)),
        Statement::Delete(delete) => ("DELETE", delete.to_string()),
        Statement::Update(update) => ("UPDATE", update.to_string()),
        Statement::Truncate(truncate) => ("TRUNCATE", truncate.to_string()),
        Statement::Copy(copy) => ("COPY", copy.to_string()),
        Statement::CopyInto(_) => ("COPY", "COPY INTO …".to_owned()),
        Statement::CreateTableAs(table) => ("CREATE TABLE AS", table.query.to_string()),
        Statement::Compact(_) => ("COMPACT", "COMPACT …".to_owned()),
        Statement::Execute(name, _) => ("EXECUTE", format!("EXECUTE {name}")),
        Statement::Definition(_) => ("DEFINITION", "…".to_owned()),
        _ => ("OTHER", "…".to_owned()),
    };
    if text.len() > TEXT_BYTES_MAX {
        text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
        text.push('…');
    }
    (kind, text)
}

impl Session {
    /// Notes that a statement runs, until what is returned is dropped.
    pub(crate) fn note_running(
        &self,
        statement: &Statement,
        token: &CancellationToken,
    ) -> Arc<Running> {
        let all = self.database().running();
        let id = all.next.fetch_add(1, Ordering::Relaxed) + 1;
        let (kind, text) = text_of(statement);
        let running = Arc::new(Running {
            id,
            text,
            kind,
            who: self.identity(),
            user: self.user_name().to_owned(),
            tenant: self.tenant_name(),
            database: self.database_name(),
            since: Instant::now(),
            token: token.clone(),
            copy: OnceLock::new(),
            all: Arc::downgrade(all),
        });
        all.statements.lock().insert(id, Arc::downgrade(&running));
        running
    }

    /// Begins to tell how far the copy is that this session runs; `bytes_total` is 0 where nobody knows.
    pub(crate) fn begin_copy(
        &self,
        (command, kind): (&'static str, &'static str),
        bytes_total: u64,
    ) -> Arc<CopyProgress> {
        let (bytes, rows) = (AtomicU64::new(0), AtomicU64::new(0));
        let made = Arc::new(CopyProgress { command, kind, bytes_total, bytes, rows });
        let running = self.running_now().upgrade();
        let kept =
            running.map(|running| Arc::clone(running.copy.get_or_init(|| Arc::clone(&made))));
        kept.unwrap_or(made)
    }

    /// Lists the statements that run.
    pub(crate) fn query_lines(&self) -> Result<Vec<Vec<String>>> {
        self.check(Need::See)?;
        Ok(lines(self.database(), self.identity()))
    }

    /// Stops a statement: it ends with 57014.
    pub(crate) fn kill(&self, id: u64) -> Result<Output> {
        self.check(Need::See)?;
        let found = visible(self.database(), self.identity()).into_iter().find(|one| one.id == id);
        let missing = || Error::new("42704", format!("query {id} does not run"));
        found.ok_or_else(missing)?.token.cancel();
        Ok(Output::Done("KILL"))
    }
}

/// What is shown of each statement.
pub(crate) const COLUMNS: [&str; 8] = [
    "query_id",
    "query_type",
    "query_text",
    "user_name",
    "tenant_name",
    "database_name",
    "state",
    "duration",
];

impl Running {
    /// Fails where somebody stopped it.
    pub(crate) fn check(&self) -> Result<()> {
        if self.token.is_cancelled() {
            return Err(Error::new("57014", "canceling statement due to user request"));
        }
        Ok(())
    }

    /// Tells of the statement, as people see it.
    fn told(&self, state: &str) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.kind.to_owned(),
            self.text.clone(),
            self.user.clone(),
            self.tenant.clone(),
            self.database.clone(),
            state.to_owned(),
            format!("{:.3}", self.since.elapsed().as_secs_f64()),
        ]
    }
}

/// Returns the statements of the tenant that a user may see and stop: an owner all, others their own.
fn visible(database: &Database, who: Identity) -> Vec<Arc<Running>> {
    let governs = check(&database.catalog(), who, Need::Govern).is_ok();
    database.running().of(who.tenant, (!governs).then_some(who.user))
}

/// Lists the copies a user may see: the numbers of their statements, and how far they are.
pub(crate) fn copies(database: &Database, who: Identity) -> Vec<(u64, Arc<CopyProgress>)> {
    let copy = |one: &Arc<Running>| Some((one.id, Arc::clone(one.copy.get()?)));
    visible(database, who).iter().filter_map(copy).collect()
}

/// Lists the statements a user may see.
pub(crate) fn lines(database: &Database, who: Identity) -> Vec<Vec<String>> {
    let state = |one: &Running| if one.token.is_cancelled() { "canceled" } else { "running" };
    visible(database, who).iter().map(|one| one.told(state(one))).collect()
}
