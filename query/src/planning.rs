//! Text to plan: names, parameters, pg_catalog's ways, then DataFusion.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::{ParamValues, ScalarValue, TableReference};
use datafusion::error::DataFusionError;
use datafusion::execution::context::SQLOptions;
use datafusion::execution::{SendableRecordBatchStream, SessionState};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::stream::{
    RecordBatchReceiverStreamBuilder, RecordBatchStreamAdapter,
};
use datafusion::physical_plan::{EmptyRecordBatchStream, ExecutionPlan, execute_stream};
use datafusion::sql::parser::{ExplainStatement, Statement as DfStatement};
use datafusion::sql::sqlparser::ast::{self, VisitMut, VisitorMut};

use futures::{FutureExt, StreamExt, stream};
use tokio_util::sync::CancellationToken;

use crate::arrays;
use crate::catalog::{BoundValues, mentions_catalog};
use crate::column_names::{name_columns, names, renamed};
use crate::error::{Error, Result, nearest};
use crate::insert::parameter_columns;
use crate::interrupt::interruptible;
use crate::nesting;
use crate::plan_cache;
use crate::scopes::check_relations;
use crate::session::{Session, caught};
use crate::settings::STAGE_ROWS;
use crate::show;
use crate::sql::{Statement, cast_to, fold, parse_one};
use crate::stages;
use crate::sugar;
use crate::threads::{here_or_elsewhere, takes_long};
use crate::types::{arrow_type, sql_type};

/// The most parameters of a statement, as in PostgreSQL's protocol.
pub(crate) const PARAMETERS_MAX: usize = 65_535;
/// Batches a query may be ahead of its client.
const BATCHES_AHEAD: usize = 2;

/// A statement that was parsed and looked at, ready to be run with parameters.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The statement; `None` where the text holds none.
    pub statement: Option<Arc<Statement>>,
    /// The type of each parameter.
    pub parameters: Vec<DataType>,
    /// The columns of the rows it gives, if it gives rows.
    pub columns: Option<SchemaRef>,
}

/// A query whose parameters are not known yet.
struct PlannedQuery {
    plan: LogicalPlan,
    /// The type of each parameter.
    parameters: Vec<DataType>,
    /// The numbers of those that are arrays whose elements the plan compares with.
    arrays: BTreeSet<usize>,
}

fn is_out_of_memory(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::ResourcesExhausted(_))
}

/// Returns the parts of a dotted name.
pub(crate) fn parts(name: &ast::ObjectName) -> Result<Vec<String>> {
    let part = |part: &ast::ObjectNamePart| part.as_ident().map(fold);
    name.0
        .iter()
        .map(part)
        .collect::<Option<_>>()
        .ok_or_else(|| Error::syntax("a name is expected"))
}

impl Session {
    /// Parses a statement and finds out its parameters and columns. `declared` are the types the
    /// client gave, by parameter.
    ///
    /// # Errors
    /// What is wrong with the text or the names in it.
    pub async fn prepare(
        self: &Arc<Self>,
        text: &str,
        declared: &[Option<DataType>],
    ) -> Result<Prepared> {
        let Some(statement) = parse_one(text)? else {
            return Ok(Prepared { statement: None, parameters: Vec::new(), columns: None });
        };
        let prepare = |statement: Statement| {
            if !is_planned(&statement) {
                return caught(self.prepare_statement(statement, declared)).boxed();
            }
            let (session, declared) = (Arc::clone(self), declared.to_vec());
            let prepare = async move { session.prepare_statement(statement, &declared).await };
            here_or_elsewhere(self.database().query_threads(), prepare).boxed()
        };
        match prepare(statement.clone()).await {
            Err(error) if error.names_unknown() && self.database().meta().refresh().await => {
                prepare(statement).await
            }
            other => other,
        }
    }

    /// Finds out the parameters and columns of a parsed statement.
    pub(crate) async fn prepare_statement(
        &self,
        statement: Statement,
        declared: &[Option<DataType>],
    ) -> Result<Prepared> {
        if let Some(table) = self.temporary_target(&statement)? {
            let parameters = match self.temporary_reading(&table, &statement).await? {
                Some(read) => Box::pin(self.prepare_statement(read, declared)).await?.parameters,
                None => Vec::new(),
            };
            return Ok(Prepared {
                statement: Some(Arc::new(statement)),
                parameters,
                columns: None,
            });
        }
        match statement {
            Statement::Query(query) => {
                let declared = &declared_by_place(&query, declared);
                let query = self.with_types(*query, declared);
                let describe = Box::pin(async {
                    let planned = self.plan_with_parameters(&query, declared).await?;
                    let columns = renamed(&self.coerced(&planned)?, &names(&query));
                    Ok((planned.parameters, columns))
                });
                let (parameters, columns) = self.description(&query, declared, describe).await?;
                let statement = Some(Arc::new(Statement::Query(Box::new(query))));
                Ok(Prepared { statement, parameters, columns: Some(columns) })
            }
            Statement::Insert(insert) => {
                let parameters = self.insert_parameters(&insert, declared).await?;
                let statement = Some(Arc::new(Statement::Insert(insert)));
                Ok(Prepared { statement, parameters, columns: None })
            }
            Statement::Delete(_) | Statement::Update(_) => {
                let mut parameters = Vec::new();
                if let Some(read) = self.reading(&statement)? {
                    let read = self.with_types(read, declared);
                    parameters = self.plan_with_parameters(&read, declared).await?.parameters;
                }
                Ok(Prepared { statement: Some(Arc::new(statement)), parameters, columns: None })
            }
            other => {
                let columns = match &other {
                    Statement::Show(shown) => Some(show::schema(shown)),
                    other => self.kept.columns(other)?,
                };
                Ok(Prepared { statement: Some(Arc::new(other)), parameters: Vec::new(), columns })
            }
        }
    }

    async fn insert_parameters(
        &self,
        insert: &ast::Insert,
        declared: &[Option<DataType>],
    ) -> Result<Vec<DataType>> {
        let target = self.insert_target(insert)?;
        let mut types: Vec<Option<DataType>> = parameter_columns(insert, &target)
            .into_iter()
            .map(|column| column.map(|column| column.arrow().data_type().clone()))
            .collect();
        if types.len() < declared.len() {
            types.resize(declared.len(), None);
        }
        for (found, declared) in types.iter_mut().zip(declared) {
            // A numeric is declared as a double, which has not all numbers without a sign.
            let is_numeric = declared == &Some(DataType::Float64);
            if declared.is_some() && !(is_numeric && *found == Some(DataType::UInt64)) {
                found.clone_from(declared);
            }
        }
        if let Some(source) = insert.source.as_ref()
            && !matches!(source.body.as_ref(), ast::SetExpr::Values(_))
        {
            let query = ast::Statement::Query(source.clone());
            let query = DfStatement::Statement(Box::new(query));
            let query = self.with_types(query, declared);
            return Ok(self.plan_with_parameters(&query, declared).await?.parameters);
        }
        Ok(types.into_iter().map(|found| found.unwrap_or(DataType::Utf8)).collect())
    }

    /// Runs a query with parameters; what may take long on the threads of queries: one that never yields holds
    /// up other queries, but no connection, no cancel and no write.
    pub(crate) async fn query(
        self: &Arc<Self>,
        query: &Statement,
        params: &[ScalarValue],
    ) -> Result<SendableRecordBatchStream> {
        let Statement::Query(query) = query else {
            return Err(Error::internal("a query was expected"));
        };
        let (session, query, params) = (Arc::clone(self), query.clone(), params.to_vec());
        let threads = self.database().query_threads();
        let interrupt = CancellationToken::new();
        let stopped_unread = interrupt.clone().drop_guard();
        let run = async move {
            let mut rows = session.start_query(&query, params, &interrupt).await?;
            // Most answers are one batch, and need no task of their own to come through.
            let mut first: Vec<_> = rows.next().await.into_iter().collect();
            let over = first.last().is_none_or(|batch| batch.is_err());
            let second = if over { Some(None) } else { rows.next().now_or_never() };
            let ended = matches!(second, Some(None));
            first.extend(second.flatten());
            Ok((first, rows, ended))
        };
        let (first, mut rows, ended) = here_or_elsewhere(threads, run).await?;
        let schema = rows.schema();
        let first = stream::iter(first);
        if ended {
            return Ok(Box::pin(RecordBatchStreamAdapter::new(schema, first)));
        }
        let mut builder = RecordBatchReceiverStreamBuilder::new(rows.schema(), BATCHES_AHEAD);
        let sender = builder.tx();
        builder.spawn_on(
            async move {
                while let Some(batch) = rows.next().await {
                    if sender.send(batch).await.is_err() {
                        break;
                    }
                }
                Ok(())
            },
            threads,
        );
        let rows = first.chain(builder.build()).inspect(move |_| {
            let _until_dropped = &stopped_unread;
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    async fn start_query(
        &self,
        query: &DfStatement,
        params: Vec<ScalarValue>,
        interrupt: &CancellationToken,
    ) -> Result<SendableRecordBatchStream> {
        let rows = self.rows(query, params, interrupt).await?;
        let schema = renamed(&rows.schema(), &names(query));
        let relabel = Arc::clone(&schema);
        let rows = rows.map(move |batch| {
            let batch = batch?;
            let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
            let columns = batch.columns().to_vec();
            Ok(RecordBatch::try_new_with_options(Arc::clone(&relabel), columns, &options)?)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }

    /// Plans a query and begins to run it. Where a stage on another node fails before it gave a row (the
    /// node may be lost), all rows are read from here instead: what is wrong then is told as it is.
    async fn rows(
        &self,
        query: &DfStatement,
        params: Vec<ScalarValue>,
        interrupt: &CancellationToken,
    ) -> Result<SendableRecordBatchStream> {
        if let Some((plan, context)) = self.kept_plan(query, &params).await {
            if !plan_cache::reads_little(&plan) {
                takes_long().await;
            }
            return Ok(execute_stream(interruptible(plan, interrupt)?, context)?);
        }
        let mut state = self.state_to_run(&BoundValues::default())?;
        let plan = self.physical_plan_in(&state, query, params.clone()).await?;
        if !stages::has_stages(&plan)? {
            return Ok(execute_stream(interruptible(plan, interrupt)?, state.task_ctx())?);
        }
        let plan = interruptible(stages::finished(plan, &mut state).await?, interrupt)?;
        let mut rows = execute_stream(plan, state.task_ctx())?;
        let schema = rows.schema();
        match rows.next().await {
            // What found no memory would find none again.
            Some(Err(error)) if is_out_of_memory(&error) => return Err(error.into()),
            Some(Err(error)) => tracing::info!(%error, "a query is done once more, without stages"),
            Some(Ok(first)) => {
                let rows = stream::once(async { Ok(first) }).chain(rows);
                return Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)));
            }
            None => return Ok(Box::pin(EmptyRecordBatchStream::new(schema))),
        }
        let state = self.state()?;
        let plan = self.physical_plan_in(&state, query, params).await?;
        Ok(execute_stream(interruptible(plan, interrupt)?, state.task_ctx())?)
    }

    /// Makes the state of a query that other nodes may do a part of.
    pub(crate) fn state_to_run(&self, bound: &BoundValues) -> Result<SessionState> {
        let mut state = self.state_with(bound)?;
        if let Some(rows_min) = self.stage_rows_min()? {
            let from = self.settings.lock().read_from();
            stages::allow(&mut state, self.identity().tenant, rows_min, from)?;
        }
        Ok(state)
    }

    /// Returns from how many rows on other nodes those work on what they read; `None` where there are no
    /// others.
    pub(crate) fn stage_rows_min(&self) -> Result<Option<usize>> {
        if !self.database().has_stages() {
            return Ok(None);
        }
        let rows = self.settings.lock().get(STAGE_ROWS)?;
        Ok(rows.parse().ok())
    }

    /// Returns the columns of a plan as they will be sent: coercion may change their types. NULLs of
    /// the parameters' types stand for the parameters.
    fn coerced(&self, planned: &PlannedQuery) -> Result<SchemaRef> {
        let state = self.state()?;
        let stands_for = |(at, found): (usize, &DataType)| match found {
            // It is compared with its elements.
            DataType::List(item) if planned.arrays.contains(&(at + 1)) => {
                ScalarValue::try_new_null(item.data_type())
            }
            found => ScalarValue::try_new_null(found),
        };
        let nulls = planned.parameters.iter().enumerate().map(stands_for);
        let nulls = nulls.collect::<datafusion::common::Result<Vec<_>>>()?;
        let plan = planned.plan.clone();
        let plan = plan.replace_params_with_values(&ParamValues::from(nulls))?;
        let plan = state.analyzer().execute_and_check(plan, state.config_options(), |_, _| {})?;
        Ok(Arc::clone(plan.schema().inner()))
    }

    /// Plans a query without running it.
    pub(crate) async fn physical_plan(
        &self,
        query: &Statement,
        params: Vec<ScalarValue>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let Statement::Query(query) = query else {
            return Err(Error::internal("a query was expected"));
        };
        self.physical_plan_in(&self.state()?, query, params).await
    }

    async fn physical_plan_in(
        &self,
        state: &SessionState,
        query: &DfStatement,
        params: Vec<ScalarValue>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (mut plan, _) = self.plan_in(state, query, Some(&params)).await?;
        if !params.is_empty() || !plan.get_parameter_names()?.is_empty() {
            plan = plan.replace_params_with_values(&ParamValues::from(params))?;
        }
        Ok(state.create_physical_plan(&plan).await?)
    }

    /// Plans a query whose parameters are not known yet. Returns their types too.
    async fn plan_with_parameters(
        &self,
        query: &DfStatement,
        declared: &[Option<DataType>],
    ) -> Result<PlannedQuery> {
        let (plan, arrays) = self.plan_in(&self.state()?, query, None).await?;
        let mut parameters = parameters_of(&plan, declared)?;
        for number in &arrays {
            if let Some(found) = parameters.get_mut(number - 1)
                && !matches!(found, DataType::List(_))
            {
                *found = DataType::new_list(found.clone(), true);
            }
        }
        Ok(PlannedQuery { plan, parameters, arrays })
    }

    /// Plans a query. Returns the numbers of parameters that are arrays, too.
    pub(crate) async fn plan_in(
        &self,
        state: &SessionState,
        query: &DfStatement,
        params: Option<&[ScalarValue]>,
    ) -> Result<(LogicalPlan, BTreeSet<usize>)> {
        takes_long().await;
        refuse_misread(query)?;
        let mut query = query.clone();
        self.temporary.qualify(&mut query)?;
        self.expand_all(&mut query)?;
        let arrays = arrays::expand(&mut query, params)?;
        let query = rewrite(query)?;
        self.check_names(state, &query)?;
        let plan = state.statement_to_plan(query).await?;
        let options = SQLOptions::new();
        let options =
            options.with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
        options.verify_plan(&plan)?;
        Ok((plan, arrays))
    }

    fn expand_all(&self, query: &mut DfStatement) -> Result<()> {
        match query {
            DfStatement::Statement(statement) => {
                self.expand_views(statement)?;
                check_relations(statement)?;
                nesting::check(statement)
            }
            DfStatement::Explain(explain) => self.expand_all(&mut explain.statement),
            _ => Ok(()),
        }
    }

    /// Gives a missing tenant, database or table its own error: the planner would only say that the
    /// table is not found.
    fn check_names(&self, state: &SessionState, query: &DfStatement) -> Result<()> {
        for reference in state.resolve_table_references(query)? {
            let (catalog, schema, table) = match &reference {
                TableReference::Bare { table } => (None, None, table),
                TableReference::Partial { schema, table } => (None, Some(schema), table),
                TableReference::Full { catalog, schema, table } => {
                    (Some(catalog), Some(schema), table)
                }
            };
            if catalog.is_none()
                && schema.is_none()
                && state.table_functions().contains_key(&**table)
            {
                continue;
            }
            let catalog = catalog.map_or_else(|| self.tenant_name(), |name| name.to_string());
            let Some(found) = state.catalog_list().catalog(&catalog) else {
                return Err(Error::new("3D000", format!("tenant \"{catalog}\" does not exist")));
            };
            let schema = schema.map_or_else(|| self.database_name(), |name| name.to_string());
            let Some(found) = found.schema(&schema) else {
                return Err(Error::new("3F000", format!("database \"{schema}\" does not exist")));
            };
            if !found.table_exist(table) {
                let error = Error::new("42P01", format!("relation \"{reference}\" does not exist"));
                let names = found.table_names();
                return Err(match nearest(table, names.iter().map(String::as_str)) {
                    Some(near) => error.hint(format!("perhaps you meant \"{near}\"")),
                    None => error,
                });
            }
        }
        Ok(())
    }

    /// Writes the types a client declared into the text, as casts: that is where inference looks.
    fn with_types(&self, query: DfStatement, declared: &[Option<DataType>]) -> DfStatement {
        if declared.iter().all(Option::is_none) {
            return query;
        }
        match query {
            DfStatement::Statement(mut statement) => {
                let walked = statement.visit(&mut Typed { declared });
                debug_assert!(walked.is_continue());
                DfStatement::Statement(statement)
            }
            other => other,
        }
    }
}

/// Returns whether preparing a statement plans a query, which may take long: that is not done on the threads
/// of connections.
fn is_planned(statement: &Statement) -> bool {
    match statement {
        Statement::Insert(insert) => insert
            .source
            .as_ref()
            .is_some_and(|source| !matches!(source.body.as_ref(), ast::SetExpr::Values(_))),
        Statement::Query(_) | Statement::Delete(_) | Statement::Update(_) => true,
        _ => false,
    }
}

/// Refuses what the planner would take for something else: an error is allowed, a guess is not.
fn refuse_misread(query: &DfStatement) -> Result<()> {
    let statement = match query {
        DfStatement::Statement(statement) => statement.as_ref(),
        DfStatement::Explain(explain) => return refuse_misread(&explain.statement),
        _ => return Ok(()),
    };
    if let ast::Statement::Query(query) = statement
        && !query.locks.is_empty()
    {
        return Err(Error::unsupported("FOR UPDATE"));
    }
    let checked = ast::visit_expressions(statement, |expression| {
        let what = match expression {
            ast::Expr::SimilarTo { pattern, .. } if sugar::literal_text(pattern).is_none() => {
                "SIMILAR TO a pattern that is no literal"
            }
            ast::Expr::Function(ast::Function {
                over: Some(ast::WindowType::WindowSpec(window)),
                ..
            }) if window.window_frame.as_ref().is_some_and(has_negative_bound) => {
                let message = "invalid preceding or following size in window function";
                return ControlFlow::Break(Error::new("22013", message));
            }
            _ => return ControlFlow::Continue(()),
        };
        ControlFlow::Break(Error::unsupported(what))
    });
    match checked {
        ControlFlow::Break(error) => Err(error),
        ControlFlow::Continue(()) => Ok(()),
    }
}

/// Returns whether a frame begins after, or ends before, where its words say.
fn has_negative_bound(frame: &ast::WindowFrame) -> bool {
    let is_negative = |bound: &ast::WindowFrameBound| match bound {
        ast::WindowFrameBound::Preceding(Some(size))
        | ast::WindowFrameBound::Following(Some(size)) => match size.as_ref() {
            ast::Expr::UnaryOp { op: ast::UnaryOperator::Minus, .. } => true,
            ast::Expr::Interval(interval) => sugar::literal_text(&interval.value)
                .is_some_and(|words| words.trim_start().starts_with('-')),
            _ => false,
        },
        _ => false,
    };
    is_negative(&frame.start_bound) || frame.end_bound.as_ref().is_some_and(is_negative)
}

fn rewrite(query: DfStatement) -> Result<DfStatement> {
    Ok(match query {
        DfStatement::Statement(statement) => {
            let rewritten = mentions_catalog(&statement).map(Box::new);
            let mut statement = rewritten.unwrap_or(statement);
            name_columns(&mut statement);
            sugar::rewrite(&mut statement)?;
            nesting::check(&mut statement)?;
            DfStatement::Statement(statement)
        }
        DfStatement::Explain(explain) => {
            let statement = Box::new(rewrite(*explain.statement)?);
            DfStatement::Explain(ExplainStatement { statement, ..explain })
        }
        other => other,
    })
}

/// Declares parameters by where they stand, where the client does not say: those of LIMIT, OFFSET and FETCH
/// are whole numbers, those cast to an array are arrays.
fn declared_by_place(query: &DfStatement, declared: &[Option<DataType>]) -> Vec<Option<DataType>> {
    struct Places(BTreeMap<usize, DataType>);
    impl Places {
        fn note(&mut self, expression: Option<&ast::Expr>) {
            if let Some(ast::Expr::Value(value)) = expression
                && let ast::Value::Placeholder(name) = &value.value
            {
                self.0.extend(placeholder(name).map(|number| (number, DataType::Int64)));
            }
        }
    }
    impl ast::Visitor for Places {
        type Break = ();

        fn pre_visit_query(&mut self, query: &ast::Query) -> ControlFlow<()> {
            if let Some(ast::LimitClause::LimitOffset { limit, offset, .. }) = &query.limit_clause {
                self.note(limit.as_ref());
                self.note(offset.as_ref().map(|offset| &offset.value));
            }
            self.note(query.fetch.as_ref().and_then(|fetch| fetch.quantity.as_ref()));
            ControlFlow::Continue(())
        }

        fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<()> {
            if let ast::Expr::Cast { expr, data_type: ast::DataType::Array(of), .. } = expr
                && let ast::Expr::Value(value) = expr.as_ref()
                && let ast::Value::Placeholder(name) = &value.value
            {
                let of = sugar::element_type(of).and_then(arrow_type);
                let array = of.map(|of| DataType::new_list(of, true));
                self.0.extend(placeholder(name).zip(array));
            }
            ControlFlow::Continue(())
        }
    }
    let mut declared = declared.to_vec();
    let DfStatement::Statement(statement) = query else { return declared };
    let mut places = Places(BTreeMap::new());
    let walked = ast::Visit::visit(statement, &mut places);
    debug_assert!(walked.is_continue());
    for (number, data_type) in places.0 {
        if declared.len() < number {
            declared.resize(number, None);
        }
        if let Some(wanted) = declared.get_mut(number - 1) {
            wanted.get_or_insert(data_type);
        }
    }
    declared
}

struct Typed<'a> {
    declared: &'a [Option<DataType>],
}

impl VisitorMut for Typed<'_> {
    type Break = ();

    fn post_visit_expr(&mut self, expression: &mut ast::Expr) -> ControlFlow<()> {
        let number = match expression {
            ast::Expr::Value(value) => match &value.value {
                ast::Value::Placeholder(name) => placeholder(name),
                _ => None,
            },
            _ => None,
        };
        let declared = number.and_then(|number| self.declared.get(number - 1)?.as_ref());
        if let Some(data_type) = declared.and_then(sql_type) {
            let null = ast::Expr::Value(ast::Value::Null.with_empty_span());
            let inner = std::mem::replace(expression, null);
            *expression = cast_to(inner, data_type);
        }
        ControlFlow::Continue(())
    }
}

/// Returns the number of `$n`.
pub(crate) fn placeholder(name: &str) -> Option<usize> {
    let number = name.strip_prefix('$')?.parse::<usize>().ok()?;
    (1..=PARAMETERS_MAX).contains(&number).then_some(number)
}

/// Returns the type of each parameter: declared, else inferred, else text.
fn parameters_of(plan: &LogicalPlan, declared: &[Option<DataType>]) -> Result<Vec<DataType>> {
    let inferred: BTreeMap<usize, Option<DataType>> = plan
        .get_parameter_types()?
        .into_iter()
        .filter_map(|(name, data_type)| Some((placeholder(&name)?, data_type)))
        .collect();
    let count = inferred.keys().next_back().copied().unwrap_or(0).max(declared.len());
    let of = |number: usize| {
        let declared = declared.get(number - 1).and_then(Clone::clone);
        let inferred = || inferred.get(&number).cloned().flatten();
        let found = declared.or_else(inferred).filter(|found| *found != DataType::Null);
        found.unwrap_or(DataType::Utf8)
    };
    Ok((1..=count).map(of).collect())
}
