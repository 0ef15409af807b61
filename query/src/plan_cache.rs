//! Plans kept for queries that differ in their constants alone: planning takes longer than most queries.
//!
//! | module      | holds                                                      |
//! |-------------|------------------------------------------------------------|
//! | `constants` | what is taken out of a query                               |
//! | `lists`     | what must not be taken out                                 |
//! | `slots`     | what stands for it in a plan, and how it comes in again     |
//!
//! The second time a kind of query comes it is planned with slots in the stead of its constants; from then on
//! its tables are opened with the constants of each query, and the slots are filled. Invariant: a kept plan
//! is used where planning anew would make the same one, or not at all: who asks is the same, with the same
//! names and zone; each table is the very same and may be read; and its scan has the layout that the plan was
//! made for. Whatever does not fit, or fails, is planned as ever.

mod constants;
mod lists;
mod slots;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::common::{ScalarValue, TableReference};
use datafusion::execution::{SessionState, TaskContext};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::sql::parser::Statement as DfStatement;
use model::TableSchema;
use model::generations::Generations;
use parking_lot::Mutex;

use crate::access::{Identity, Need, Object, check};
use crate::catalog::{BoundValues, ReadOptions};
use crate::error::Result;
use crate::known_groups;
use crate::planning::placeholder;
use crate::scan::{ScanLayout, TskvScanExec};
use crate::session::Session;
use crate::threads::takes_long;
use crate::types::sql_type;
use constants::{Constant, Taken, take};

/// Kinds of queries that are known at most, about.
const KINDS_MAX: usize = 512;
/// A longer text is not kept.
const TEXT_BYTES_MAX: usize = 16 << 10;
/// A plan that reads more columns of a table is not kept: it is large, and so are its rows.
const COLUMNS_MAX: usize = 512;
/// Plans of a kind of query, for as many layouts of its scans.
const LAYOUTS_MAX: usize = 4;

/// The types of a query's parameters, and the columns of its rows.
pub(crate) type Description = (Vec<DataType>, SchemaRef);

/// A plan and what it runs in.
pub(crate) type Ready = (Arc<dyn ExecutionPlan>, Arc<TaskContext>);

/// The plans of a node's sessions.
#[derive(Debug)]
pub(crate) struct PlanCache {
    kinds: Mutex<Generations<Arc<QueryKind>, Known>>,
    hits: AtomicU64,
    misses: AtomicU64,
}

/// What became of queries that were looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PlanTotals {
    /// Kinds of queries that are known.
    pub(crate) kinds: usize,
    /// Queries whose plan was kept.
    pub(crate) hits: u64,
    /// Queries that were planned.
    pub(crate) misses: u64,
}

/// What queries with one plan have in common.
#[derive(Debug, PartialEq, Eq, Hash)]
struct QueryKind {
    identity: Identity,
    /// What it is called, which `current_user` tells.
    user: String,
    tenant: String,
    database: String,
    zone: String,
    /// The query without its constants.
    text: String,
    /// How many of those it then has are its own parameters.
    parameters: usize,
}

/// What is known of a kind of query.
#[derive(Clone, Debug)]
enum Known {
    /// It came so often.
    Seen(u32),
    Kept(Arc<KeptQuery>),
}

#[derive(Debug)]
struct KeptQuery {
    tables: Vec<NamedTable>,
    /// The type of each parameter and constant.
    types: Vec<DataType>,
    /// What a client that asks is told.
    described: OnceLock<Description>,
    plans: Mutex<Vec<Arc<KeptPlan>>>,
}

/// A table as a query found it.
#[derive(Debug)]
struct NamedTable {
    database: Arc<meta::Database>,
    table: Arc<TableSchema>,
}

#[derive(Debug)]
struct KeptPlan {
    plan: Arc<dyn ExecutionPlan>,
    layouts: Vec<ScanLayout>,
}

impl PlanCache {
    /// Returns what became of queries so far.
    pub(crate) fn totals(&self) -> PlanTotals {
        PlanTotals {
            kinds: self.kinds.lock().cost(),
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
        }
    }

    fn put(&self, kind: &Arc<QueryKind>, known: Known) {
        self.kinds.lock().put(Arc::clone(kind), known, 1);
    }
}

impl Default for PlanCache {
    fn default() -> Self {
        let kinds = Mutex::new(Generations::new(KINDS_MAX / 2));
        Self { kinds, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }
}

impl KeptQuery {
    /// Returns whether its tables are what they were, and may still be read.
    fn holds(&self, session: &Session) -> bool {
        let catalog = session.database().catalog();
        let identity = session.identity();
        self.tables.iter().all(|NamedTable { database, table }| {
            let found = catalog.database(identity.tenant, &database.name);
            let same_database = found.is_some_and(|found| Arc::ptr_eq(found, database));
            let found = catalog.table(database.id, &table.name);
            let need = Need::Read(Object::table(database.id, table.id));
            !session.temporary.contains(&table.name)
                && same_database
                && found.is_some_and(|found| Arc::ptr_eq(found, table))
                && check(&catalog, identity, need).is_ok()
        })
    }

    fn plan_for(&self, layouts: &[ScanLayout]) -> Option<Arc<KeptPlan>> {
        let plans = self.plans.lock();
        plans.iter().find(|kept| kept.layouts == layouts).map(Arc::clone)
    }

    fn any_plan(&self) -> Option<Arc<KeptPlan>> {
        self.plans.lock().first().map(Arc::clone)
    }

    fn has_room(&self) -> bool {
        self.plans.lock().len() < LAYOUTS_MAX
    }

    /// Adds the plans of another that ask the same of storage: for one's scans the other's can be taken.
    fn add(&self, other: Self) {
        let mut plans = self.plans.lock();
        let ask_the_same = |one: &KeptPlan, other: &KeptPlan| {
            let (one, other) = (slots::scans(&one.plan), slots::scans(&other.plan));
            let mut both = one.iter().zip(&other);
            one.len() == other.len()
                && both.all(|(one, other)| match (one.reopening(), other.reopening()) {
                    (Some(one), Some(other)) => one.asks_same_as(other),
                    _ => false,
                })
        };
        for plan in other.plans.into_inner() {
            if plans.first().is_none_or(|first| ask_the_same(first, &plan)) {
                plans.push(plan);
            }
        }
    }
}

/// Returns whether a plan is soon done: it reads few rows, of this node, and few row groups for them.
pub(crate) fn reads_little(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let scan = plan.downcast_ref::<TskvScanExec>();
    scan.is_none_or(TskvScanExec::reads_little) && plan.children().into_iter().all(reads_little)
}

/// A query to be planned: of which kind it is, and what it has of its own.
struct Asked<'a> {
    kind: Arc<QueryKind>,
    query: DfStatement,
    /// How many parameters it has, whether their values are known or not.
    parameters: usize,
    params: &'a [ScalarValue],
    constants: Vec<Constant>,
}

impl Asked<'_> {
    /// Returns parameters and constants as values of their types; `None` where one is not exactly that, or
    /// NULL.
    fn values(&self, types: &[DataType], session: &Session) -> Option<Vec<ScalarValue>> {
        let (zone, now_ns) = (session.zone(), session.now_ns() / 1_000 * 1_000);
        let (of_params, of_constants) = types.split_at_checked(self.parameters)?;
        if self.params.len() != self.parameters {
            return None;
        }
        let params = self.params.iter().zip(of_params);
        let params = params
            .map(|(param, data_type)| (param.data_type() == *data_type).then(|| param.clone()));
        let constants = self.constants.iter().zip(of_constants);
        let constants =
            constants.map(|(constant, data_type)| constant.value(data_type, &zone, now_ns));
        // What is compared with NULL is not asked of storage, and never holds.
        let values: Vec<ScalarValue> = params.chain(constants).collect::<Option<_>>()?;
        (!values.iter().any(ScalarValue::is_null)).then_some(values)
    }
}

/// A query that was planned with slots, and its plan for the constants it came with.
type Planned = (KeptQuery, Arc<dyn ExecutionPlan>);

impl Session {
    /// Returns a plan that was kept, for the constants of a query; `None` where it has to be planned.
    pub(crate) async fn kept_plan(
        &self,
        query: &DfStatement,
        params: &[ScalarValue],
    ) -> Option<Ready> {
        let asked = self.asked(query, params)?;
        let cache = self.database().plans();
        let known = self.known(&asked.kind);
        if let Some(Known::Kept(kept)) = &known
            && let Some(plan) = self.plan_again(&asked, kept).await
        {
            cache.hits.fetch_add(1, Ordering::Relaxed);
            return Some((plan, self.context_to_run()));
        }
        cache.misses.fetch_add(1, Ordering::Relaxed);
        let plan = self.plan_newly(&asked, known).await?;
        Some((plan, self.context_to_run()))
    }

    /// Returns what is known of a kind of query whose plan is kept, or else what `describe` finds out. Where the
    /// text does not tell all that a client declared of the parameters, nothing is known.
    pub(crate) async fn description(
        &self,
        query: &DfStatement,
        declared: &[Option<DataType>],
        describe: impl Future<Output = Result<Description>>,
    ) -> Result<Description> {
        let in_text = |declared: &DataType| sql_type(declared).is_some();
        let are_in_text = declared.iter().flatten().all(in_text);
        let asked = self.asked(query, &[]);
        let asked = asked.filter(|asked| are_in_text && declared.len() <= asked.parameters);
        let Some(Known::Kept(kept)) = asked.and_then(|asked| self.known(&asked.kind)) else {
            return describe.await;
        };
        if let Some(described) = kept.described.get() {
            return Ok(described.clone());
        }
        let described = describe.await?;
        Ok(kept.described.get_or_init(|| described).clone())
    }

    /// Returns what is known of a kind of query; nothing where its tables are no more what they were.
    fn known(&self, kind: &QueryKind) -> Option<Known> {
        let known = self.database().plans().kinds.lock().get(kind)?;
        let holds = match &known {
            Known::Kept(kept) => kept.holds(self),
            Known::Seen(_) => true,
        };
        holds.then_some(known)
    }

    fn context_to_run(&self) -> Arc<TaskContext> {
        // The functions of a plan are in it: none is looked up by its name.
        Arc::new(TaskContext::new(
            None,
            self.database().template().session_id().to_owned(),
            self.config(),
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            self.runtime(),
        ))
    }

    fn asked<'a>(&self, query: &DfStatement, params: &'a [ScalarValue]) -> Option<Asked<'a>> {
        let is_array = |param: &ScalarValue| matches!(param.data_type(), DataType::List(_));
        if params.iter().any(is_array) {
            return None;
        }
        let taken = take(query)?;
        if params.len() > taken.parameters {
            return None;
        }
        let text = taken.query.to_string();
        let kind = QueryKind {
            identity: self.identity(),
            user: self.user_name().to_owned(),
            tenant: self.tenant_name(),
            database: self.database_name(),
            zone: self.zone().name().to_owned(),
            text,
            parameters: taken.parameters,
        };
        let Taken { query, parameters, constants } = taken;
        let asked = Asked { kind: Arc::new(kind), query, parameters, params, constants };
        (asked.kind.text.len() <= TEXT_BYTES_MAX).then_some(asked)
    }

    /// Plans a query with slots, where that is worth a try, and keeps its plan where that can be. What cannot
    /// be kept now may be another time: it is tried the second, third, fifth, ninth … time.
    async fn plan_newly(
        &self,
        asked: &Asked<'_>,
        known: Option<Known>,
    ) -> Option<Arc<dyn ExecutionPlan>> {
        let cache = self.database().plans();
        let (times, kept) = match known {
            None => (0, None),
            Some(Known::Seen(times)) => (times, None),
            Some(Known::Kept(kept)) => {
                // Another layout is worth another plan; other types of constants are not.
                if !kept.has_room() || asked.values(&kept.types, self).is_none() {
                    return None;
                }
                (1, Some(kept))
            }
        };
        let planned = match times.is_power_of_two() {
            true => self.plan_with_slots(asked).await.ok().flatten(),
            false => None,
        };
        let (planned, plan) = planned.unzip();
        match (planned, kept) {
            (None, None) => cache.put(&asked.kind, Known::Seen(times.saturating_add(1))),
            (None, Some(_)) => {}
            (Some(planned), None) => cache.put(&asked.kind, Known::Kept(Arc::new(planned))),
            (Some(planned), Some(kept)) => kept.add(planned),
        }
        plan
    }

    /// Fills the plan of a kind of query whose scans have the layout that these constants give them.
    async fn plan_again(
        &self,
        asked: &Asked<'_>,
        kept: &KeptQuery,
    ) -> Option<Arc<dyn ExecutionPlan>> {
        let values = asked.values(&kept.types, self)?;
        let any = kept.any_plan()?;
        if !any.layouts.iter().all(|layout| layout.is_small) {
            takes_long().await;
        }
        let scans = self.open_again(&any, &values).await.ok()??;
        if scans.iter().any(|scan| scan.is_known() && !scan.is_small()) {
            return None;
        }
        let layouts: Vec<ScanLayout> = scans.iter().map(TskvScanExec::layout).collect();
        let found = kept.plan_for(&layouts)?;
        let plan = slots::filled(&found.plan, &mut scans.into_iter(), Some(&values)).ok()?;
        known_groups::left_out(plan).ok()
    }

    /// Opens the scans of a kept plan with other constants; `None` where storage cannot answer a filter with
    /// them, or other nodes had better do a part.
    async fn open_again(
        &self,
        kept: &KeptPlan,
        values: &[ScalarValue],
    ) -> Result<Option<Vec<TskvScanExec>>> {
        let rows_min = self.stage_rows_min()?;
        let options = ReadOptions {
            from: self.settings.lock().read_from(),
            partitions_wanted: self.database().template().config().target_partitions(),
            stage_rows_min: rows_min.unwrap_or(usize::MAX),
        };
        let mut scans = Vec::new();
        for scan in slots::scans(&kept.plan) {
            let Some(read) = scan.reopening() else { return Ok(None) };
            let opened = read.open(self.database(), options, values).await?;
            let Some(opened) = opened.and_then(|opened| scan.like(opened)) else {
                return Ok(None);
            };
            if opened.rows_elsewhere() >= options.stage_rows_min {
                return Ok(None);
            }
            scans.push(opened);
        }
        Ok(Some(scans))
    }

    /// Plans a query with slots. `None` where its plan cannot be kept: what it computes is not the same at all
    /// times, or has nodes with a state of their own; or its constants, or the rows as they are now, tell too
    /// much.
    async fn plan_with_slots(&self, asked: &Asked<'_>) -> Result<Option<Planned>> {
        let bound = BoundValues::default();
        let state = self.state_to_run(&bound)?;
        let Some(tables) = self.named_tables(&state, &asked.query)? else {
            return Ok(None);
        };
        let (plan, arrays) = self.plan_in(&state, &asked.query, Some(asked.params)).await?;
        if !arrays.is_empty() || !slots::is_immutable(&plan)? || lists::meet(&plan)? {
            return Ok(None);
        }
        let types = plan.get_parameter_types()?;
        let count = asked.parameters + asked.constants.len();
        let mut of_number: Vec<Option<DataType>> = vec![None; count];
        for (name, data_type) in types {
            if let Some(found) = placeholder(&name).and_then(|at| of_number.get_mut(at - 1)) {
                *found = data_type;
            }
        }
        let Some(types) = of_number.into_iter().collect::<Option<Vec<DataType>>>() else {
            return Ok(None);
        };
        let Some(values) = asked.values(&types, self) else { return Ok(None) };
        bound.set(values.clone());
        let Some(plan) = slots::with_slots(state.optimize(&plan)?)? else {
            return Ok(None);
        };
        let plan = state.query_planner().create_physical_plan(&plan, &state).await?;
        let scans = slots::scans(&plan);
        if scans.iter().any(|scan| scan.schema().fields().len() > COLUMNS_MAX) {
            return Ok(None);
        }
        let Some(layouts) = slots::layouts(&plan)? else {
            return Ok(None);
        };
        let empty = slots::filled(&plan, &mut scans.iter().map(TskvScanExec::emptied), None)?;
        let kept = KeptPlan { plan: empty, layouts };
        let plans = Mutex::new(vec![Arc::new(kept)]);
        let kept = KeptQuery { tables, types, described: OnceLock::new(), plans };
        let plan = slots::filled(&plan, &mut scans.into_iter(), Some(&values))?;
        Ok(Some((kept, plan)))
    }

    /// Finds the tables that a query names; `None` where one is none of the tenant's own, or a view.
    fn named_tables(
        &self,
        state: &SessionState,
        query: &DfStatement,
    ) -> Result<Option<Vec<NamedTable>>> {
        let catalog = self.database().catalog();
        let find = |reference: &TableReference| {
            let is_own = reference.catalog().is_none_or(|name| name == self.tenant_name());
            let schema = reference.schema().map_or_else(|| self.database_name(), str::to_owned);
            let found = catalog.database(self.identity().tenant, &schema).filter(|_| is_own)?;
            let (database, table) =
                (Arc::clone(found), catalog.table(found.id, reference.table())?);
            let is_hidden = self.temporary.contains(&table.name);
            (!is_hidden).then(|| NamedTable { database, table: Arc::clone(table) })
        };
        Ok(state.resolve_table_references(query)?.iter().map(find).collect())
    }
}
