//! User tables: their schema, what of a filter storage can answer, and the scans of a query.

use std::borrow::Cow;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use cluster::{
    Comparison, Number, ReadFrom, ScanColumn, ScanRequest, SeriesFilter, TagTest, ValueTest,
};
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::catalog::{SchemaProvider, Session, TableProvider};
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Result, ScalarValue, project_schema};
use datafusion::logical_expr::expr::{InList, Placeholder};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType,
};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_plan::ExecutionPlan;
use model::schema::TIME_ZONE;
use model::time::Span;
use model::{ColumnId, ColumnKind, TableSchema, TimeRange, ValueType};

use super::{SessionCatalogs, tag_tests};
use crate::access::{Need, Object, check};
use crate::error::Error;
use crate::files::ExternalTable;
use crate::instants::Zone;
use crate::planning::placeholder;
use crate::scan::{ScanOptions, TskvScanExec};
use crate::stages::{read_from, stage_rows_min};
use crate::views::ViewShape;

/// A database, as a schema.
#[derive(Debug)]
pub(super) struct DatabaseSchema {
    pub(super) catalogs: SessionCatalogs,
    pub(super) database: Arc<meta::Database>,
}

#[async_trait]
impl SchemaProvider for DatabaseSchema {
    fn table_names(&self) -> Vec<String> {
        let catalog = self.catalogs.database.catalog();
        let tables = catalog.tables(self.database.id).map(|table| table.name.clone());
        let views = catalog.views(self.database.id).map(|view| view.name.clone());
        tables.chain(views).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let catalog = self.catalogs.database.catalog();
        if let Some(table) = catalog.table(self.database.id, name) {
            let object = Object::table(self.database.id, table.id);
            check(&catalog, self.catalogs.identity, Need::Read(object))?;
            return Ok(Some(Arc::new(TskvTable {
                table: ReadTable {
                    database: Arc::clone(&self.database),
                    table: Arc::clone(table),
                    schema: in_zone(&table.arrow(), &self.catalogs.zone),
                },
                shared: Arc::clone(&self.catalogs.database),
                bound: self.catalogs.bound.clone(),
            })));
        }
        if let Some(view) = catalog.view(self.database.id, name) {
            if view.external {
                let object = Object::table(self.database.id, view.id);
                check(&catalog, self.catalogs.identity, Need::Read(object))?;
                let (database, who) = (&self.catalogs.database, self.catalogs.identity);
                return Ok(Some(Arc::new(ExternalTable::of(database, who, view)?)));
            }
            return Ok(Some(Arc::new(ViewShape::of(view))));
        }
        if name.starts_with("pg_") {
            // As PostgreSQL does: pg_catalog is searched, whatever the search path says.
            return self.catalogs.system.table(name).await;
        }
        Ok(None)
    }

    async fn table_type(&self, name: &str) -> Result<Option<TableType>> {
        let catalog = self.catalogs.database.catalog();
        if catalog.view(self.database.id, name).is_some_and(|view| !view.external) {
            return Ok(Some(TableType::View));
        }
        Ok(self.table_exist(name).then_some(TableType::Base))
    }

    fn table_exist(&self, name: &str) -> bool {
        let catalog = self.catalogs.database.catalog();
        catalog.table(self.database.id, name).is_some()
            || catalog.view(self.database.id, name).is_some()
            || (name.starts_with("pg_") && self.catalogs.system.table_exist(name))
    }
}

/// A table of rows in tskv.
#[derive(Debug)]
pub(crate) struct TskvTable {
    table: ReadTable,
    shared: Arc<crate::Database>,
    bound: BoundValues,
}

/// What is known of a table that is read.
#[derive(Clone, Debug)]
struct ReadTable {
    database: Arc<meta::Database>,
    table: Arc<TableSchema>,
    schema: SchemaRef,
}

/// What a query reads of a table: with it the table can be read again, with other constants.
#[derive(Clone, Debug)]
pub(crate) struct TableRead {
    table: ReadTable,
    projection: Option<Vec<usize>>,
    filters: Vec<Expr>,
    limit: Option<usize>,
}

/// Where and in how many parts a query reads.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadOptions {
    /// Which replicas.
    pub(crate) from: ReadFrom,
    /// How many threads there are to read.
    pub(crate) partitions_wanted: usize,
    /// From how many rows on other nodes work on what they read, rather than send it.
    pub(crate) stage_rows_min: usize,
}

/// The values that parameters of a query stand for while it is planned, once they are known: of a filter
/// that compares with one, storage can tell by the value whether it answers it.
#[derive(Clone, Debug, Default)]
pub(crate) struct BoundValues(Arc<OnceLock<Vec<ScalarValue>>>);

impl BoundValues {
    /// Makes them known, once.
    pub(crate) fn set(&self, values: Vec<ScalarValue>) {
        self.0.get_or_init(|| values);
    }

    fn known(&self) -> Option<&[ScalarValue]> {
        self.0.get().map(Vec::as_slice)
    }
}

/// Returns a schema whose times are given in a zone.
fn in_zone(schema: &SchemaRef, zone: &Zone) -> SchemaRef {
    if zone.arrow() == TIME_ZONE {
        return Arc::clone(schema);
    }
    let fields = schema.fields().iter().map(|field| match field.data_type() {
        DataType::Timestamp(unit, Some(_)) => {
            let zoned = DataType::Timestamp(*unit, Some(zone.arrow().into()));
            Arc::new(field.as_ref().clone().with_data_type(zoned))
        }
        _ => Arc::clone(field),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// What of a filter storage answers by itself: exactly, but for values, of which it may give more.
#[derive(Clone, Debug, Default)]
struct Pushed {
    times: Option<TimeRange>,
    tags: SeriesFilter,
    values: Vec<ValueTest>,
}

impl Pushed {
    fn term(column: ColumnId, values: Vec<Option<String>>) -> Self {
        let terms = vec![(column, values)];
        Self { tags: SeriesFilter { terms, ..SeriesFilter::default() }, ..Self::default() }
    }

    /// Returns what holds where either does; `None` where that is not values of one tag.
    fn or(self, other: Self) -> Option<Self> {
        let (column, mut values) = self.one_term()?;
        let (same, others) = other.one_term()?;
        values.extend(others);
        (column == same).then(|| Self::term(column, values))
    }

    fn one_term(mut self) -> Option<(ColumnId, Vec<Option<String>>)> {
        let is_alone = self.times.is_none() && self.tags.tests.is_empty() && self.values.is_empty();
        let term = self.tags.terms.pop().filter(|_| is_alone)?;
        self.tags.terms.is_empty().then_some(term)
    }

    fn tests(column: ColumnId, tests: Vec<TagTest>) -> Self {
        let tests = tests.into_iter().map(|test| (column, test)).collect();
        Self { tags: SeriesFilter { tests, ..SeriesFilter::default() }, ..Self::default() }
    }
}

#[async_trait]
impl TableProvider for TskvTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.table.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let values = self.bound.known().unwrap_or_default();
        let answered = |filter: &&Expr| {
            Ok(match self.table.push(bound(filter, values)?.as_ref()) {
                Some(pushed) if pushed.values.is_empty() => TableProviderFilterPushDown::Exact,
                Some(_) => TableProviderFilterPushDown::Inexact,
                None => TableProviderFilterPushDown::Unsupported,
            })
        };
        filters.iter().map(answered).collect()
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let (table, projection, filters) =
            (self.table.clone(), projection.cloned(), filters.to_vec());
        let read = TableRead { table, projection, filters, limit };
        let options = ReadOptions {
            from: read_from(state.config_options()),
            partitions_wanted: state.config().target_partitions(),
            stage_rows_min: stage_rows_min(state.config_options()),
        };
        let values = self.bound.known();
        let scan = read.open(&self.shared, options, values.unwrap_or_default()).await?;
        let scan = scan.ok_or_else(|| Error::internal("a filter was said to be answered"))?;
        Ok(Arc::new(if values.is_some() { scan.reopened_by(read) } else { scan }))
    }
}

impl TskvTable {
    /// Returns what kind of column a name is.
    pub(crate) fn kind_of(&self, name: &str) -> Option<ColumnKind> {
        self.table.table.column(name).map(|column| column.kind)
    }
}

impl TableRead {
    /// Returns whether another asks the same of storage, for the same bound values.
    pub(crate) fn asks_same_as(&self, other: &Self) -> bool {
        let of = |read: &Self| (read.projection.clone(), read.filters.clone(), read.limit);
        self.table.table.id == other.table.table.id && of(self) == of(other)
    }

    /// Begins to read. `None` where storage cannot answer a filter with these values.
    ///
    /// # Errors
    /// What the cluster says.
    pub(crate) async fn open(
        &self,
        shared: &crate::Database,
        options: ReadOptions,
        bound_values: &[ScalarValue],
    ) -> Result<Option<TskvScanExec>> {
        let ReadTable { database, table, schema } = &self.table;
        let projection = self.projection.as_ref();
        let all: Vec<usize> = (0..table.columns.len()).collect();
        let columns = projection.unwrap_or(&all).iter().map(|at| {
            let column = &table.columns[*at];
            match column.kind {
                ColumnKind::Time => ScanColumn::Time,
                ColumnKind::Tag => ScanColumn::Tag(column.id),
                ColumnKind::Field(value_type) => ScanColumn::Field(column.id, value_type),
            }
        });
        let (mut times, mut filter) = (self.table.alive(shared), SeriesFilter::default());
        let mut values = Vec::new();
        for one in &self.filters {
            let Some(pushed) = self.table.push(bound(one, bound_values)?.as_ref()) else {
                return Ok(None);
            };
            times = pushed.times.map_or(times, |range| times.intersect(&range));
            filter.terms.extend(pushed.tags.terms);
            filter.tests.extend(pushed.tags.tests);
            values.extend(pushed.values);
        }
        let request = ScanRequest {
            table: table.id,
            columns: columns.collect(),
            schema: project_schema(&table.arrow(), projection)?,
            times,
            filter,
            values,
            order: table.tags().map(|tag| tag.id).collect(),
        };
        let scans = shared.cluster().scan(database.id, &request, options.from).await;
        let scans = scans.map_err(Error::from)?;
        let tags: Vec<String> = table.tags().map(|tag| tag.name.clone()).collect();
        let options = ScanOptions {
            tags: &tags,
            schema: project_schema(schema, projection)?,
            limit: self.limit,
            partitions_wanted: options.partitions_wanted,
            stage_rows_min: options.stage_rows_min,
        };
        TskvScanExec::new(&table.name, request, scans, options).map(Some)
    }
}

/// Puts values in the stead of a filter's parameters, and computes what then is constant.
fn bound<'a>(filter: &'a Expr, values: &[ScalarValue]) -> Result<Cow<'a, Expr>> {
    let value = |expr| match &expr {
        Expr::Placeholder(Placeholder { id, .. }) => {
            match placeholder(id).and_then(|number| values.get(number - 1)) {
                Some(value) => Ok(Transformed::yes(Expr::Literal(value.clone(), None))),
                None => Ok(Transformed::no(expr)),
            }
        }
        _ => Ok(Transformed::no(expr)),
    };
    if values.is_empty() || !filter.exists(|expr| Ok(matches!(expr, Expr::Placeholder(_))))? {
        return Ok(Cow::Borrowed(filter));
    }
    let simplifier = ExprSimplifier::new(SimplifyContext::default());
    let computed = filter.clone().transform_up(value).data()?.transform_down(|expr| {
        if matches!(expr, Expr::Literal(..)) || expr.any_column_refs() {
            return Ok(Transformed::no(expr));
        }
        Ok(Transformed::new(simplifier.simplify(expr)?, true, TreeNodeRecursion::Jump))
    });
    computed.data().map(Cow::Owned)
}

impl ReadTable {
    /// Returns the times of rows that have not outlived the database's TTL.
    fn alive(&self, shared: &crate::Database) -> TimeRange {
        match self.database.options.ttl {
            Span::Infinite => TimeRange::ALL,
            Span::Ns(ttl) => {
                let oldest = shared.now_ns().saturating_sub(ttl);
                TimeRange { min: oldest, max: i64::MAX }
            }
        }
    }

    fn push(&self, filter: &Expr) -> Option<Pushed> {
        match filter {
            // IN of two or three values becomes this.
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => {
                self.push(left)?.or(self.push(right)?)
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                let (column, op, literal) = match (left.as_ref(), right.as_ref()) {
                    (Expr::Column(column), Expr::Literal(literal, _)) => (column, *op, literal),
                    (Expr::Literal(literal, _), Expr::Column(column)) => {
                        (column, op.swap()?, literal)
                    }
                    _ => return None,
                };
                let column = self.table.column(column.name())?;
                match column.kind {
                    ColumnKind::Time => {
                        Some(Pushed { times: Some(range(op, literal)?), ..Pushed::default() })
                    }
                    ColumnKind::Tag if op == Operator::Eq => {
                        Some(Pushed::term(column.id, vec![Some(text(literal)?)]))
                    }
                    ColumnKind::Tag => {
                        let test = tag_tests::compared(op, text(literal)?)?;
                        Some(Pushed::tests(column.id, vec![test]))
                    }
                    ColumnKind::Field(value_type) => {
                        let values = vec![ValueTest {
                            column: column.id,
                            comparison: comparison(op)?,
                            number: number(literal, value_type)?,
                        }];
                        Some(Pushed { values, ..Pushed::default() })
                    }
                }
            }
            Expr::InList(InList { expr, list, negated }) => {
                let values = list.iter().map(|value| match value {
                    Expr::Literal(literal, _) => text(literal),
                    _ => None,
                });
                let (tag, values) = (self.tag(expr)?, values.collect::<Option<Vec<String>>>()?);
                Some(if *negated {
                    Pushed::tests(tag, vec![TagTest::NoneOf(values)])
                } else {
                    Pushed::term(tag, values.into_iter().map(Some).collect())
                })
            }
            Expr::Like(like) => {
                let Expr::Literal(pattern, _) = like.pattern.as_ref() else { return None };
                let tests = tag_tests::like(like, &text(pattern)?)?;
                Some(Pushed::tests(self.tag(&like.expr)?, tests))
            }
            Expr::IsNull(expr) => Some(Pushed::term(self.tag(expr)?, vec![None])),
            Expr::IsNotNull(expr) => {
                Some(Pushed::tests(self.tag(expr)?, vec![TagTest::NoneOf(Vec::new())]))
            }
            _ => None,
        }
    }

    /// Returns the tag that an expression is.
    fn tag(&self, expr: &Expr) -> Option<ColumnId> {
        let Expr::Column(column) = expr else { return None };
        let column = self.table.column(column.name())?;
        (column.kind == ColumnKind::Tag).then_some(column.id)
    }
}

fn text(literal: &ScalarValue) -> Option<String> {
    literal.try_as_str().flatten().map(str::to_owned)
}

fn comparison(op: Operator) -> Option<Comparison> {
    Some(match op {
        Operator::Eq => Comparison::Eq,
        Operator::Lt => Comparison::Lt,
        Operator::LtEq => Comparison::LtEq,
        Operator::Gt => Comparison::Gt,
        Operator::GtEq => Comparison::GtEq,
        _ => return None,
    })
}

/// Returns a literal as a number that values of a type compare with.
fn number(literal: &ScalarValue, value_type: ValueType) -> Option<Number> {
    match (literal, value_type) {
        (ScalarValue::Int64(Some(number)), ValueType::I64) => Some(Number::I64(*number)),
        (ScalarValue::UInt64(Some(number)), ValueType::U64) => Some(Number::U64(*number)),
        (ScalarValue::Float64(Some(number)), ValueType::F64) if !number.is_nan() => {
            Some(Number::F64(number.to_bits()))
        }
        _ => None,
    }
}

/// Returns the times for which `time op literal` holds.
fn range(op: Operator, literal: &ScalarValue) -> Option<TimeRange> {
    // A zone only says how the literal was written: the number is an instant in UTC.
    let ScalarValue::TimestampNanosecond(Some(at), Some(_)) = literal else { return None };
    let all = TimeRange::ALL;
    let none = TimeRange { min: i64::MAX, max: i64::MIN };
    Some(match op {
        Operator::Eq => TimeRange { min: *at, max: *at },
        Operator::Lt => at.checked_sub(1).map_or(none, |max| TimeRange { max, ..all }),
        Operator::LtEq => TimeRange { max: *at, ..all },
        Operator::Gt => at.checked_add(1).map_or(none, |min| TimeRange { min, ..all }),
        Operator::GtEq => TimeRange { min: *at, ..all },
        _ => return None,
    })
}
