//! One client's state: who it is, where it is, what it set; and the running of its statements.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Weak};

use chrono::DateTime;
use cluster::Consistency;
use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::ScalarValue;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SendableRecordBatchStream, SessionState, SessionStateBuilder};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::prelude::SessionConfig;
use futures::future::{BoxFuture, FutureExt};
use futures::{Stream, StreamExt};
use meta::RateGroup;
use model::TableSchema;
use model::schema::TIME_ZONE;
use parking_lot::Mutex;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::access::{Identity, Need, check};
use crate::blocks::Block;
use crate::catalog::{
    BoundValues, SessionCatalogs, SessionNames, SystemCatalog, register_functions,
};
use crate::cursors::Kept;
use crate::database::Database;
use crate::error::{Error, Result, nearest};
use crate::instants::Zone;
use crate::output::{Notice, Output};
use crate::quotas::Admission;
use crate::running::Running;
use crate::settings::Settings;
use crate::sql::{DISCARD_TEMP, Definition, Statement, UserAction};
use crate::temporary::TemporaryTables;
use crate::usage::{Counted, Counters, RouteUsage, UsageKey};

/// A connected client.
pub struct Session {
    database: Arc<Database>,
    identity: Identity,
    user: String,
    /// The name the tenant was entered by.
    tenant: String,
    pub(crate) settings: Arc<Mutex<Settings>>,
    system: Arc<SystemCatalog>,
    pub(crate) temporary: Arc<TemporaryTables>,
    running: Arc<Mutex<CancellationToken>>,
    running_now: Mutex<Weak<Running>>,
    notices: Mutex<Vec<Notice>>,
    pub(crate) block: Block,
    pub(crate) kept: Kept,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session").field("user", &self.user).finish_non_exhaustive()
    }
}

/// Stops what a session runs.
#[derive(Clone, Debug)]
pub struct CancelHandle(Arc<Mutex<CancellationToken>>);

impl CancelHandle {
    /// Ends the running statement with 57014; does nothing where none runs.
    pub fn cancel(&self) {
        self.0.lock().cancel();
    }
}

/// How a session is entered.
pub(crate) struct Entry {
    pub(crate) identity: Identity,
    pub(crate) user: String,
    pub(crate) tenant: String,
    pub(crate) database: String,
}

fn canceled() -> Error {
    Error::new("57014", "canceling statement due to user request")
}

fn timed_out() -> Error {
    Error::new("57014", "canceling statement due to statement timeout")
}

/// Returns what writers are told that are to wait for less than a majority.
fn caution(consistency: Consistency) -> Option<&'static str> {
    match consistency {
        Consistency::One => Some(
            "what is written is not seen at once, and may be lost where the node that leads its replica set is lost \
             or another leads",
        ),
        Consistency::Any => Some(
            "what no majority can take at once is kept by this node, and seen once it is delivered: over \
             newer values, where there are such",
        ),
        Consistency::Quorum | Consistency::All => None,
    }
}

impl Session {
    pub(crate) fn new(database: Arc<Database>, entry: Entry) -> Result<Self> {
        let Entry { identity, user, tenant, database: schema } = entry;
        let shared = Arc::clone(&database);
        let system = Arc::new(SystemCatalog::new(shared, identity, tenant.clone())?);
        let mut settings = Settings::default();
        settings.set("search_path", Some(&schema))?;
        Ok(Self {
            database,
            identity,
            user,
            tenant,
            settings: Arc::new(Mutex::new(settings)),
            system,
            temporary: Arc::default(),
            running: Arc::default(),
            running_now: Mutex::default(),
            notices: Mutex::default(),
            block: Block::default(),
            kept: Kept::default(),
        })
    }

    /// Returns what stops this session's statements.
    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle(Arc::clone(&self.running))
    }

    /// Returns what was to be said since the last call.
    pub fn take_notices(&self) -> Vec<Notice> {
        std::mem::take(&mut self.notices.lock())
    }

    /// Returns the settings that changed since the last call and that clients follow.
    pub fn take_reports(&self) -> Vec<(&'static str, String)> {
        self.settings.lock().take_reports()
    }

    /// Returns the settings every client is told when it connects.
    pub fn reported_settings(&self) -> Vec<(String, String)> {
        self.settings.lock().reported()
    }

    /// Changes a setting, as a client does when it connects.
    ///
    /// # Errors
    /// An unknown name, a value that does not fit.
    pub fn set(&self, name: &str, value: Option<&str>) -> Result<()> {
        self.settings.lock().set(name, value)
    }

    /// Returns what writes wait for.
    pub(crate) fn consistency(&self) -> Consistency {
        self.settings.lock().consistency()
    }

    /// Returns the columns of a cursor, which is a portal to clients.
    pub fn cursor_columns(&self, name: &str) -> Option<SchemaRef> {
        self.kept.cursor_columns(name)
    }

    /// Returns the counters of what this session uses of its database.
    pub(crate) fn usage(&self) -> Arc<Counters> {
        self.counters(None)
    }

    /// Returns the counters of what this session uses over a route of HTTP.
    pub fn route_usage(&self, route: &'static str) -> RouteUsage {
        RouteUsage(self.counters(Some(route.into())))
    }

    fn counters(&self, route: Option<Arc<str>>) -> Arc<Counters> {
        let catalog = self.database.catalog();
        let Identity { tenant, user } = self.identity;
        let database = catalog.database(tenant, &self.database_name()).map(|one| one.id);
        self.database.usage().of(UsageKey { tenant, database, user, route })
    }

    /// Asks in the name of the tenant for what its limits let it have.
    pub fn admission(&self) -> Admission {
        Admission::new(&self.database, self.identity.tenant)
    }

    /// Returns the zone that instants are read and written in.
    pub fn zone(&self) -> Zone {
        self.settings.lock().zone()
    }

    pub(crate) fn setting(&self, name: &str) -> Result<String> {
        self.settings.lock().get(name)
    }

    pub(crate) fn settings(&self) -> Vec<(String, String)> {
        self.settings.lock().all()
    }

    pub(crate) fn notice(&self, notice: Notice) {
        self.notices.lock().push(notice);
    }

    /// Runs a statement with parameters.
    ///
    /// # Errors
    /// What PostgreSQL would say; 57014 when it is cancelled or takes too long.
    pub async fn execute(
        self: &Arc<Self>,
        statement: &Statement,
        params: &[ScalarValue],
    ) -> Result<Output> {
        let token = CancellationToken::new();
        *self.running.lock() = token.clone();
        let running = self.note_running(statement, &token);
        *self.running_now.lock() = Arc::downgrade(&running);
        let timeout = self.settings.lock().statement_timeout();
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        // On the heap and without its type: it is deeper than front ends could hold.
        let run = async {
            match self.run(statement, params).await {
                // It may have been made through another node this moment.
                Err(error) if error.names_unknown() && self.database.meta().refresh().await => {
                    self.run(statement, params).await
                }
                other => other,
            }
        };
        let run: BoxFuture<'_, Result<Output>> = caught(run).boxed();
        let usage = self.usage();
        let counted = counted(statement);
        if let Some(counted) = counted {
            usage.add(counted, 1);
        }
        let admission = self.admission();
        let run = async {
            if let Some(group) = counted.and_then(rate_group) {
                admission.statement(&running, group).await?;
            }
            run.await
        };
        let output = tokio::select! {
            output = run => output,
            () = token.cancelled() => Err(canceled()),
            () = sleep_until(deadline) => Err(timed_out()),
        };
        self.audit(statement, &output);
        Ok(match output? {
            Output::Rows(rows) => {
                Output::Rows(guarded(rows, (token, running), (usage, admission), deadline))
            }
            Output::Fetched(rows) => {
                Output::Fetched(guarded(rows, (token, running), (usage, admission), deadline))
            }
            Output::CopyIn(mut copy) => {
                copy.keep_running(running);
                Output::CopyIn(copy)
            }
            Output::CopyOut(mut copy) => {
                copy.rows = guarded(copy.rows, (token, running), (usage, admission), deadline);
                Output::CopyOut(copy)
            }
            other => other,
        })
    }

    async fn run(
        self: &Arc<Self>,
        statement: &Statement,
        params: &[ScalarValue],
    ) -> Result<Output> {
        self.check_password_changed(statement)?;
        if let Some(table) = self.temporary_target(statement)? {
            return Box::pin(self.change_temporary(&table, statement, params)).await;
        }
        self.check_read_only(statement)?;
        match statement {
            Statement::Query(_) => {
                self.check(Need::See)?;
                Ok(Output::Rows(self.query(statement, params).await?))
            }
            Statement::Insert(insert) => {
                Ok(Output::Affected("INSERT", self.insert(insert, params).await?))
            }
            Statement::Copy(copy) => self.copy(copy, params).await,
            Statement::CopyInto(copy) => Box::pin(self.copy_into(copy)).await,
            Statement::Definition(definition) => Box::pin(self.define(definition)).await,
            Statement::Delete(_) => {
                Ok(Output::Affected("DELETE", self.change(statement, params).await?))
            }
            Statement::Update(_) => {
                Ok(Output::Affected("UPDATE", self.change(statement, params).await?))
            }
            Statement::Truncate(_) => {
                self.change(statement, params).await?;
                Ok(Output::Done("TRUNCATE TABLE"))
            }
            Statement::CreateTemporary(new) => Box::pin(self.create_temporary(new)).await,
            Statement::CreateTableAs(table) => Box::pin(self.create_table_as(table)).await,
            Statement::Compact(what) => self.compact(what).await,
            Statement::Kill(id) => self.kill(*id),
            Statement::Nodes(statement) => Box::pin(self.change_nodes(statement)).await,
            Statement::Show(shown) => Box::pin(self.show(shown)).await,
            Statement::Prepare(name, types, statement) => {
                self.keep_prepared(name, types, statement).await
            }
            Statement::Execute(name, arguments) => {
                let (statement, params) = self.kept_prepared(name, arguments).await?;
                Box::pin(self.run(&statement, &params)).await
            }
            Statement::Deallocate(name) => self.kept.deallocate(name.as_deref()),
            Statement::Declare(name, hold, query) => self.declare(name, *hold, query).await,
            Statement::Fetch(name, count) => self.fetch(name, *count),
            Statement::Close(name) => self.kept.close(name.as_deref()),
            Statement::DiscardAll => self.discard_all(),
            Statement::Set(..) | Statement::SetLocal(..) | Statement::ResetAll => {
                self.change_setting(statement)
            }
            Statement::Begin(tag, access) => Ok(self.begin(tag, *access)),
            Statement::Commit => Ok(self.commit()),
            Statement::Rollback => Ok(self.rollback()),
            Statement::Savepoint(action) => self.savepoint(action),
            Statement::Discard(tag) => Ok(self.discard(tag)),
        }
    }

    /// Runs what changes nothing here, but for DISCARD TEMP.
    fn discard(&self, tag: &'static str) -> Output {
        if tag == DISCARD_TEMP {
            self.temporary.clear();
        }
        Output::Done(tag)
    }

    fn discard_all(&self) -> Result<Output> {
        self.kept.close(None)?;
        self.kept.deallocate(None)?;
        self.settings.lock().reset();
        self.temporary.clear();
        Ok(Output::Done("DISCARD ALL"))
    }

    /// Refuses everything to a user who must change the password.
    pub(crate) fn check_password(&self) -> Result<()> {
        let catalog = self.database.catalog();
        if catalog.user_by_id(self.identity.user).is_some_and(|user| user.must_change_password) {
            return Err(Error::new("28P01", "the password must be changed first")
                .hint(format!("ALTER USER {} PASSWORD '…'", self.user)));
        }
        Ok(())
    }

    /// Refuses everything but a new password to a user who must change it.
    fn check_password_changed(&self, statement: &Statement) -> Result<()> {
        let own_password = |definition: &Definition| {
            matches!(definition, Definition::AlterUser { name, action: UserAction::Set(options) }
                if *name == self.user && options.password.is_some())
        };
        match statement {
            Statement::Definition(definition) if own_password(definition) => Ok(()),
            _ => self.check_password(),
        }
    }

    /// Runs SET, SET LOCAL, RESET.
    fn change_setting(&self, statement: &Statement) -> Result<Output> {
        match statement {
            Statement::Set(name, value) => {
                self.set(name, value.as_deref())?;
                if name.eq_ignore_ascii_case("consistency")
                    && let Some(caution) = caution(self.consistency())
                {
                    self.notice(Notice::plain(caution));
                }
                return Ok(Output::Done(if value.is_some() { "SET" } else { "RESET" }));
            }
            Statement::SetLocal(name, value) => {
                self.set_local(name, value.as_deref())?;
                return Ok(Output::Done("SET"));
            }
            _ => self.settings.lock().reset(),
        }
        Ok(Output::Done("RESET"))
    }

    fn set_local(&self, name: &str, value: Option<&str>) -> Result<()> {
        if self.is_in_block() {
            return self.settings.lock().set_local(name, value);
        }
        let message = "SET LOCAL can only be used in transaction blocks";
        self.notice(Notice::warning("25P01", message));
        Ok(())
    }

    /// Returns the statement that runs.
    pub(crate) fn running_now(&self) -> Weak<Running> {
        Weak::clone(&self.running_now.lock())
    }

    pub(crate) fn database(&self) -> &Arc<Database> {
        &self.database
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Returns the database's clock, nanoseconds since the epoch.
    pub fn now_ns(&self) -> i64 {
        self.database.now_ns()
    }

    pub(crate) fn user_name(&self) -> &str {
        &self.user
    }

    pub(crate) fn tenant_name(&self) -> String {
        self.tenant.clone()
    }

    /// Returns the name of the database that names without one are looked up in.
    pub(crate) fn database_name(&self) -> String {
        self.setting("search_path").unwrap_or_default()
    }

    pub(crate) fn check(&self, need: Need) -> Result<()> {
        check(&self.database.catalog(), self.identity, need)
    }

    /// Finds a user table by its dotted name.
    pub(crate) fn user_table(
        &self,
        name: &[String],
    ) -> Result<(Arc<meta::Database>, Arc<TableSchema>)> {
        let (database, table) = self.split_table(name)?;
        let database = self.user_database(&database)?;
        let catalog = self.database.catalog();
        if let Some(found) = catalog.table(database.id, table) {
            return Ok((database, Arc::clone(found)));
        }
        if let Some(view) = catalog.view(database.id, table) {
            let what = if view.external { "an external table" } else { "a view" };
            let message = format!("\"{table}\" is {what}, which is read only");
            return Err(Error::new("42809", message));
        }
        let error = Error::new("42P01", format!("relation \"{}\" does not exist", name.join(".")));
        let names = catalog.tables(database.id).map(|table| table.name.as_str());
        Err(match nearest(table, names) {
            Some(near) => error.hint(format!("perhaps you meant \"{near}\"")),
            None => error,
        })
    }

    /// Splits a dotted name into database and table; another tenant's does not exist.
    pub(crate) fn split_table<'a>(&self, name: &'a [String]) -> Result<(String, &'a str)> {
        match name {
            [table] => Ok((self.database_name(), table)),
            [database, table] => Ok((database.clone(), table)),
            [tenant, database, table] if self.tenant_names().contains(tenant) => {
                Ok((database.clone(), table))
            }
            [tenant, _, _] => {
                Err(Error::new("3D000", format!("tenant \"{tenant}\" does not exist")))
            }
            _ => Err(Error::syntax(format!("improper qualified name: {}", name.join(".")))),
        }
    }

    /// Finds a database of the tenant.
    pub(crate) fn user_database(&self, name: &str) -> Result<Arc<meta::Database>> {
        let catalog = self.database.catalog();
        if let Some(found) = catalog.database(self.identity.tenant, name) {
            return Ok(Arc::clone(found));
        }
        let error = Error::new("3F000", format!("database \"{name}\" does not exist"));
        let names = catalog.databases(self.identity.tenant).map(|one| one.name.as_str());
        Err(match nearest(name, names) {
            Some(near) => error.hint(format!("perhaps you meant \"{near}\"")),
            None => error,
        })
    }

    fn tenant_names(&self) -> Vec<String> {
        let catalog = self.database.catalog();
        let own = catalog.tenant_by_id(self.identity.tenant).map(|tenant| tenant.name.clone());
        let mut names = vec![self.tenant.clone()];
        names.extend(own.filter(|own| *own != self.tenant));
        names
    }

    /// Returns what queries run in, with the tenant's share of memory.
    pub(crate) fn runtime(&self) -> Arc<RuntimeEnv> {
        let shared = self.database.template().runtime_env();
        match self.database.catalog().tenant_by_id(self.identity.tenant) {
            Some(tenant) => self.database.quotas().runtime(shared, tenant),
            None => Arc::clone(shared),
        }
    }

    /// Makes the planner's state for one statement.
    pub(crate) fn state(&self) -> Result<SessionState> {
        self.state_with(&BoundValues::default())
    }

    /// Returns how the session's queries are run.
    pub(crate) fn config(&self) -> SessionConfig {
        let config = self.database.template().config().clone();
        let mut config = config.with_default_catalog_and_schema(&self.tenant, self.database_name());
        config.options_mut().execution.time_zone = Some(self.zone().arrow().to_owned());
        config
    }

    /// Makes the planner's state for a statement whose parameters stand for values.
    pub(crate) fn state_with(&self, bound: &BoundValues) -> Result<SessionState> {
        let zone = self.zone();
        let catalogs = SessionCatalogs {
            database: Arc::clone(&self.database),
            identity: self.identity,
            names: self.tenant_names(),
            system: Arc::clone(&self.system),
            temporary: Arc::clone(&self.temporary),
            zone: zone.clone(),
            bound: bound.clone(),
        };
        let (template, config) = (self.database.template(), self.config());
        let (runtime, catalogs) = (self.runtime(), Arc::new(catalogs));
        let as_template =
            Arc::ptr_eq(&runtime, template.runtime_env()) && zone.arrow() == TIME_ZONE;
        let mut state = if as_template {
            // A builder registers each function anew; it must where the zone differs, for now() and the like.
            let mut state = template.clone();
            *state.config_mut() = config;
            state.register_catalog_list(catalogs);
            state
        } else {
            let builder = SessionStateBuilder::new_from_existing(template.clone());
            builder
                .with_runtime_env(runtime)
                .with_config(config)
                .with_catalog_list(catalogs)
                .build()
        };
        let names = SessionNames {
            tenant: self.tenant.clone(),
            database: self.database_name(),
            user: self.user.clone(),
            settings: Arc::clone(&self.settings),
        };
        register_functions(&mut state, &names)?;
        state.mark_start_execution();
        // As PostgreSQL's clock: its drivers read no finer.
        let now = &mut state.execution_props_mut().query_execution_start_time;
        *now = now.and_then(|now| DateTime::from_timestamp_micros(now.timestamp_micros()));
        Ok(state)
    }
}

/// Makes an error of a panic: a fault in one statement ends that statement, not the connection.
pub(crate) async fn caught<T>(run: impl Future<Output = Result<T>>) -> Result<T> {
    let caught = AssertUnwindSafe(run).catch_unwind().await;
    caught.unwrap_or_else(|_| Err(Error::internal("a statement panicked; the log says where")))
}

async fn sleep_until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Returns what a statement is counted as.
fn counted(statement: &Statement) -> Option<Counted> {
    match statement {
        Statement::Query(_)
        | Statement::Execute(..)
        | Statement::Declare(..)
        | Statement::CreateTemporary(_) => Some(Counted::Queries),
        Statement::Insert(_)
        | Statement::Delete(_)
        | Statement::Update(_)
        | Statement::Copy(_)
        | Statement::CopyInto(_)
        | Statement::Truncate(_)
        | Statement::CreateTableAs(_) => Some(Counted::Writes),
        _ => None,
    }
}

fn rate_group(counted: Counted) -> Option<RateGroup> {
    match counted {
        Counted::Queries => Some(RateGroup::CoordQueries),
        Counted::Writes => Some(RateGroup::CoordWrites),
        _ => None,
    }
}

/// Ends a stream when it is cancelled or out of time; until then its statement runs.
fn guarded(
    rows: SendableRecordBatchStream,
    (token, running): (CancellationToken, Arc<Running>),
    (usage, admission): (Arc<Counters>, Admission),
    deadline: Option<Instant>,
) -> SendableRecordBatchStream {
    let schema = rows.schema();
    let stream = futures::stream::unfold(Some((rows, token, running)), move |state| {
        let (usage, admission) = (Arc::clone(&usage), admission.clone());
        async move {
            let (mut rows, token, running) = state?;
            let next = tokio::select! {
                biased;
                () = token.cancelled() => Err(canceled()),
                next = caught(next_before(&mut rows, deadline)) => next,
            };
            if let Ok(Some(Ok(batch))) = &next {
                let bytes = bytes_of(batch);
                usage.add(Counted::RowsOut, batch.num_rows() as u64);
                usage.add(Counted::BytesOut, bytes);
                if let Err(error) = admission.take(RateGroup::CoordDataOut, bytes).await {
                    return Some((Err(error.into()), None));
                }
            }
            match next {
                Ok(Some(batch)) => Some((batch, Some((rows, token, running)))),
                Ok(None) => None,
                Err(error) => Some((Err(error.into()), None)),
            }
        }
    });
    let stream: std::pin::Pin<Box<dyn Stream<Item = _> + Send>> = Box::pin(stream);
    Box::pin(RecordBatchStreamAdapter::new(schema, stream))
}

/// Returns the bytes of a batch's rows, without what its arrays share with others.
fn bytes_of(batch: &RecordBatch) -> u64 {
    let bytes = |column: &ArrayRef| column.to_data().get_slice_memory_size().unwrap_or(0);
    batch.columns().iter().map(bytes).sum::<usize>() as u64
}

type Batch = datafusion::common::Result<RecordBatch>;

async fn next_before(
    rows: &mut SendableRecordBatchStream,
    deadline: Option<Instant>,
) -> Result<Option<Batch>> {
    match deadline {
        None => Ok(rows.next().await),
        Some(deadline) => timeout_at(deadline, rows.next()).await.map_err(|_| timed_out()),
    }
}
