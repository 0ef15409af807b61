//! User tables: their schema, what of a filter storage can answer, and the scans of a query.

use std::sync::Arc;

use async_trait::async_trait;
use cluster::{ScanColumn, ScanRequest, SeriesFilter, TagTest};
use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::catalog::{SchemaProvider, Session, TableProvider};
use datafusion::common::{Result, ScalarValue, project_schema};
use datafusion::logical_expr::{
    BinaryExpr, Expr, Operator, TableProviderFilterPushDown, TableType, expr::InList,
};
use datafusion::physical_plan::ExecutionPlan;
use model::schema::TIME_ZONE;
use model::time::Span;
use model::{ColumnId, ColumnKind, TableSchema, TimeRange};

use super::{SessionCatalogs, tag_tests};
use crate::access::{Need, Object, check};
use crate::error::Error;
use crate::files::ExternalTable;
use crate::instants::Zone;
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
                database: Arc::clone(&self.database),
                table: Arc::clone(table),
                schema: in_zone(&table.arrow(), &self.catalogs.zone),
                shared: Arc::clone(&self.catalogs.database),
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
    database: Arc<meta::Database>,
    table: Arc<TableSchema>,
    schema: SchemaRef,
    shared: Arc<crate::Database>,
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

/// What of a filter storage answers by itself, exactly.
#[derive(Clone, Debug, Default)]
struct Pushed {
    times: Option<TimeRange>,
    tags: SeriesFilter,
}

impl Pushed {
    fn term(column: ColumnId, values: Vec<Option<String>>) -> Self {
        let terms = vec![(column, values)];
        Self { tags: SeriesFilter { terms, ..SeriesFilter::default() }, ..Self::default() }
    }

    fn tests(column: ColumnId, tests: Vec<TagTest>) -> Self {
        let tests = tests.into_iter().map(|test| (column, test)).collect();
        Self { tags: SeriesFilter { tests, ..SeriesFilter::default() }, ..Self::default() }
    }
}

#[async_trait]
impl TableProvider for TskvTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> Result<Vec<TableProviderFilterPushDown>> {
        let exact = |filter: &&Expr| match self.push(filter) {
            Some(_) => TableProviderFilterPushDown::Exact,
            None => TableProviderFilterPushDown::Unsupported,
        };
        Ok(filters.iter().map(exact).collect())
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let schema = project_schema(&self.table.arrow(), projection)?;
        let shown = project_schema(&self.schema, projection)?;
        let all: Vec<usize> = (0..self.table.columns.len()).collect();
        let columns = projection.unwrap_or(&all).iter().map(|at| {
            let column = &self.table.columns[*at];
            match column.kind {
                ColumnKind::Time => ScanColumn::Time,
                ColumnKind::Tag => ScanColumn::Tag(column.id),
                ColumnKind::Field(value_type) => ScanColumn::Field(column.id, value_type),
            }
        });
        let (mut times, mut filter) = (self.alive(), SeriesFilter::default());
        for pushed in filters.iter().filter_map(|filter| self.push(filter)) {
            times = pushed.times.map_or(times, |range| times.intersect(&range));
            filter.terms.extend(pushed.tags.terms);
            filter.tests.extend(pushed.tags.tests);
        }
        let request = ScanRequest {
            table: self.table.id,
            columns: columns.collect(),
            schema,
            times,
            filter,
            order: self.table.tags().map(|tag| tag.id).collect(),
        };
        let from = read_from(state.config_options());
        let scans = self.shared.cluster().scan(self.database.id, &request, from).await;
        let scans = scans.map_err(Error::from)?;
        let tags: Vec<String> = self.table.tags().map(|tag| tag.name.clone()).collect();
        let options = ScanOptions {
            tags: &tags,
            schema: shown,
            limit,
            partitions_wanted: state.config().target_partitions(),
            stage_rows_min: stage_rows_min(state.config_options()),
        };
        Ok(Arc::new(TskvScanExec::new(&self.table.name, request, scans, options)?))
    }
}

impl TskvTable {
    /// Returns what kind of column a name is.
    pub(crate) fn kind_of(&self, name: &str) -> Option<ColumnKind> {
        self.table.column(name).map(|column| column.kind)
    }

    /// Returns the times of rows that have not outlived the database's TTL.
    fn alive(&self) -> TimeRange {
        match self.database.options.ttl {
            Span::Infinite => TimeRange::ALL,
            Span::Ns(ttl) => {
                let oldest = self.shared.now_ns().saturating_sub(ttl);
                TimeRange { min: oldest, max: i64::MAX }
            }
        }
    }

    fn push(&self, filter: &Expr) -> Option<Pushed> {
        match filter {
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
                    ColumnKind::Field(_) => None,
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
