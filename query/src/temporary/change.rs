//! The statements that make, fill, change and drop temporary tables.
//!
//! What a statement reads it reads by an ordinary query; rows are replaced at once when all of it is
//! known, so that a statement that fails changes nothing.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BooleanArray, new_null_array};
use datafusion::arrow::compute::{
    CastOptions, cast_with_options, concat_batches, filter_record_batch, interleave,
};
use datafusion::arrow::datatypes::{Field, Schema, UInt64Type};
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::ScalarValue;
use datafusion::sql::sqlparser::ast;
use futures::StreamExt;

use super::define::{constraints_of, nullable, sql_type_of};
use super::table::{Constraints, NUMBER, TemporaryTable, bytes_of};
use super::{NUMBERED, TEMPORARY_SCHEMA, alias_of, qualified};
use crate::access::Need;
use crate::error::{Error, Result};
use crate::output::Output;
use crate::planning::parts;
use crate::session::Session;
use crate::sql::{
    NewTemporary, Statement, TemporaryContents, cast_to, fold, of_query, select_from, template,
};
use crate::views::quoted;

/// A change of rows, as it is asked for.
struct Change<'a> {
    table: Arc<TemporaryTable>,
    relation: &'a ast::TableFactor,
    selection: Option<&'a ast::Expr>,
}

impl Session {
    /// Runs CREATE TEMP TABLE, with columns or AS a query.
    pub(crate) async fn create_temporary(self: &Arc<Self>, new: &NewTemporary) -> Result<Output> {
        self.check(Need::See)?;
        let name = match new.name.as_slice() {
            [name] => name,
            [schema, name] if schema == TEMPORARY_SCHEMA => name,
            _ => {
                let message = "cannot create a temporary table in another schema than pg_temp";
                return Err(Error::new("42P16", message));
            }
        };
        if new.if_not_exists && self.temporary.named(std::slice::from_ref(name)).is_some() {
            return Ok(self.skip("relation", name, "already exists", "CREATE TABLE"));
        }
        let pool = Arc::clone(&self.runtime().memory_pool);
        match &new.contents {
            TemporaryContents::Columns(columns, constraints) => {
                let schema = self.defined_columns(columns).await?;
                let constraints = constraints_of(columns, constraints, &schema)?;
                let table = TemporaryTable::new(name.clone(), schema, constraints, &pool);
                self.temporary.add(name, table)?;
                Ok(Output::Done("CREATE TABLE"))
            }
            TemporaryContents::Query(query) => {
                let batch = self.collect(of_query(query.clone()), &[]).await?;
                let schema = nullable(&batch.schema())?;
                let rows = batch.num_rows() as u64;
                let table = TemporaryTable::new(
                    name.clone(),
                    Arc::clone(&schema),
                    Constraints::default(),
                    &pool,
                );
                table.append(vec![labeled(schema, batch.columns(), batch.num_rows())?])?;
                self.temporary.add(name, table)?;
                Ok(Output::Affected("SELECT", rows))
            }
        }
    }

    /// Returns the columns that definitions with SQL's types make.
    pub(crate) async fn defined_columns(&self, columns: &[ast::ColumnDef]) -> Result<Arc<Schema>> {
        let types = columns.iter().map(|column| {
            let null = ast::Expr::Value(ast::Value::Null.into());
            let name = ast::Ident::with_quote('"', fold(&column.name));
            (name, cast_to(null, column.data_type.clone()))
        });
        let read = query_of(types.collect(), None);
        nullable(&*self.columns_of_statement(read).await?)
    }

    /// Returns the temporary table that a statement changes, if it is one.
    pub(crate) fn temporary_target(
        &self,
        statement: &Statement,
    ) -> Result<Option<Arc<TemporaryTable>>> {
        let named = |name: &ast::ObjectName| Ok(self.temporary.named(&parts(name)?));
        match statement {
            Statement::Insert(insert) => match &insert.table {
                ast::TableObject::TableName(name) => named(name),
                _ => Ok(None),
            },
            Statement::Delete(delete) => {
                let (ast::FromTable::WithFromKeyword(from) | ast::FromTable::WithoutKeyword(from)) =
                    &delete.from;
                match from.first().map(|one| &one.relation) {
                    Some(ast::TableFactor::Table { name, .. }) => named(name),
                    _ => Ok(None),
                }
            }
            Statement::Update(update) => match &update.table.relation {
                ast::TableFactor::Table { name, .. } => named(name),
                _ => Ok(None),
            },
            Statement::Truncate(truncate) => {
                let found = truncate.table_names.iter().map(|target| named(&target.name));
                Ok(found.collect::<Result<Vec<_>>>()?.into_iter().flatten().next())
            }
            _ => Ok(None),
        }
    }

    /// Runs INSERT, DELETE, UPDATE or TRUNCATE of a temporary table.
    pub(crate) async fn change_temporary(
        self: &Arc<Self>,
        table: &Arc<TemporaryTable>,
        statement: &Statement,
        params: &[ScalarValue],
    ) -> Result<Output> {
        self.check(Need::See)?;
        self.note_write();
        if let Statement::Truncate(truncate) = statement {
            return self.truncate_temporary(truncate);
        }
        let read = self.temporary_reading(table, statement).await?;
        let read = read.ok_or_else(|| Error::internal("a change of rows was expected"))?;
        let found = self.collect(read, params).await?;
        let rows = found.num_rows();
        let tag = match statement {
            Statement::Insert(insert) => {
                let targets = insert_columns(table, &insert.columns)?;
                table.append(vec![widened(table, &targets, &found)?])?;
                "INSERT"
            }
            Statement::Update(update) => {
                let targets = assigned(table, update)?.into_iter().map(|(at, _)| at);
                table.replace(replaced(table, &targets.collect::<Vec<_>>(), &found)?)?;
                "UPDATE"
            }
            _ => {
                let all = table.all()?;
                let mut kept = vec![true; all.num_rows()];
                numbers(&found).for_each(|number| kept[number] = false);
                table.replace(filter_record_batch(&all, &BooleanArray::from(kept))?)?;
                "DELETE"
            }
        };
        Ok(Output::Affected(tag, rows as u64))
    }

    fn truncate_temporary(&self, truncate: &ast::Truncate) -> Result<Output> {
        let named = |target: &ast::TruncateTableTarget| {
            let found = self.temporary.named(&parts(&target.name)?);
            found.ok_or_else(|| {
                Error::unsupported("TRUNCATE of temporary tables and others at once")
            })
        };
        let tables = truncate.table_names.iter().map(named).collect::<Result<Vec<_>>>()?;
        for table in tables {
            table.replace(RecordBatch::new_empty(Arc::clone(table.columns())))?;
        }
        Ok(Output::Done("TRUNCATE TABLE"))
    }

    /// Returns the query whose rows an INSERT into a temporary table stores.
    async fn temporary_rows(
        &self,
        table: &TemporaryTable,
        insert: &ast::Insert,
    ) -> Result<Statement> {
        if insert.returning.is_some() || insert.on.is_some() {
            return Err(Error::unsupported("RETURNING and ON CONFLICT of a temporary table"));
        }
        let source = insert.source.as_ref().ok_or_else(|| Error::unsupported("DEFAULT VALUES"))?;
        let targets = insert_columns(table, &insert.columns)?;
        let width = match source.body.as_ref() {
            ast::SetExpr::Values(values) => {
                let widths = values.rows.iter().map(|row| row.content.len());
                widths.max().unwrap_or(0)
            }
            _ => {
                let read = of_query(source.clone());
                let read = Box::pin(self.prepare_statement(read, &[])).await?;
                read.columns.map_or(0, |columns| columns.fields().len())
            }
        };
        if width > targets.len() {
            return Err(Error::syntax("INSERT has more expressions than target columns"));
        }
        if width < targets.len() && !insert.columns.is_empty() {
            return Err(Error::syntax("INSERT has more target columns than expressions"));
        }
        // Literals are cast where they stand: that is where texts are read as PostgreSQL reads them.
        let mut source = source.clone();
        if let ast::SetExpr::Values(values) = source.body.as_mut() {
            for row in &mut values.rows {
                for (value, target) in row.content.iter_mut().zip(&targets) {
                    if let Some(data_type) = sql_type_of(table.columns().field(*target).data_type())
                    {
                        *value = cast_to(value.clone(), data_type);
                    }
                }
            }
        }
        let incoming = |at: usize| quoted(&format!("c{at}"));
        let columns = targets.iter().take(width).enumerate().map(|(at, target)| {
            let field = table.columns().field(*target);
            let value = ast::Expr::Identifier(incoming(at));
            let value = match sql_type_of(field.data_type()) {
                Some(data_type) => cast_to(value, data_type),
                None => value,
            };
            (quoted(field.name()), value)
        });
        let mut alias = alias_of("incoming");
        let column = |at| ast::TableAliasColumnDef { name: incoming(at), data_type: None };
        alias.columns = (0..width).map(column).collect();
        let from = ast::TableFactor::Derived {
            lateral: false,
            subquery: source,
            alias: Some(alias),
            sample: None,
        };
        Ok(query_of(columns.collect(), Some(from)))
    }

    /// Returns the query that INSERT, DELETE or UPDATE of a temporary table reads; `None` for others.
    pub(crate) async fn temporary_reading(
        &self,
        table: &Arc<TemporaryTable>,
        statement: &Statement,
    ) -> Result<Option<Statement>> {
        Ok(Some(match statement {
            Statement::Insert(insert) => self.temporary_rows(table, insert).await?,
            Statement::Delete(delete) => deleted(table, delete)?.numbered(Vec::new()),
            Statement::Update(update) => {
                let plain = update.from.is_none()
                    && update.returning.is_none()
                    && update.or.is_none()
                    && update.order_by.is_empty()
                    && update.limit.is_none();
                if !plain {
                    return Err(Error::unsupported("UPDATE with anything but SET and WHERE"));
                }
                let change = Change::of(table, &update.table, update.selection.as_ref())?;
                let values = assigned(table, update)?.into_iter().map(|(at, value)| {
                    let field = table.columns().field(at);
                    let value = match sql_type_of(field.data_type()) {
                        Some(data_type) => cast_to(value, data_type),
                        None => value,
                    };
                    (quoted(field.name()), value)
                });
                change.numbered(values.collect())
            }
            _ => return Ok(None),
        }))
    }

    /// Reads all rows of a query.
    async fn collect(
        self: &Arc<Self>,
        query: Statement,
        params: &[ScalarValue],
    ) -> Result<RecordBatch> {
        let mut rows = self.query(&query, params).await?;
        let (schema, mut batches, mut bytes) = (rows.schema(), Vec::new(), 0);
        while let Some(batch) = rows.next().await {
            batches.push(batch?);
            bytes += bytes_of(&batches[batches.len() - 1..]);
            self.temporary.check_room(bytes)?;
        }
        Ok(concat_batches(&schema, &batches)?)
    }
}

impl<'a> Change<'a> {
    /// Returns the query of some values of each row that is chosen, and the row's number.
    fn numbered(&self, mut values: Vec<(ast::Ident, ast::Expr)>) -> Statement {
        let mut relation = self.relation.clone();
        if let ast::TableFactor::Table { name, alias, .. } = &mut relation {
            let called = alias.get_or_insert_with(|| alias_of(self.table.name()));
            *name = qualified(&format!("{}{NUMBERED}", self.table.name()));
            let number = vec![called.name.clone(), quoted(NUMBER)];
            values.push((quoted(NUMBER), ast::Expr::CompoundIdentifier(number)));
        }
        let relation = ast::TableWithJoins { relation, joins: Vec::new() };
        select_from(relation, self.selection.cloned(), items(values))
    }

    fn of(
        table: &Arc<TemporaryTable>,
        relation: &'a ast::TableWithJoins,
        selection: Option<&'a ast::Expr>,
    ) -> Result<Self> {
        match &relation.relation {
            factor @ ast::TableFactor::Table { .. } if relation.joins.is_empty() => {
                Ok(Self { table: Arc::clone(table), relation: factor, selection })
            }
            _ => Err(Error::unsupported("a change of a join")),
        }
    }
}

/// Reads a DELETE.
fn deleted<'a>(table: &Arc<TemporaryTable>, delete: &'a ast::Delete) -> Result<Change<'a>> {
    let plain = delete.using.is_none()
        && delete.returning.is_none()
        && delete.tables.is_empty()
        && delete.order_by.is_empty()
        && delete.limit.is_none();
    if !plain {
        return Err(Error::unsupported("DELETE with anything but FROM and WHERE"));
    }
    let (ast::FromTable::WithFromKeyword(from) | ast::FromTable::WithoutKeyword(from)) =
        &delete.from;
    match from.as_slice() {
        [relation] => Change::of(table, relation, delete.selection.as_ref()),
        _ => Err(Error::unsupported("DELETE of several tables")),
    }
}

/// Returns the places of the columns that an UPDATE assigns to, and what it assigns.
fn assigned(table: &TemporaryTable, update: &ast::Update) -> Result<Vec<(usize, ast::Expr)>> {
    let mut all: Vec<(usize, ast::Expr)> = Vec::new();
    for assignment in &update.assignments {
        let ast::AssignmentTarget::ColumnName(name) = &assignment.target else {
            return Err(Error::unsupported("assignment to a list of columns"));
        };
        let name = parts(name)?.pop().unwrap_or_default();
        let at = column_named(table, &name)?;
        if all.iter().any(|(other, _)| *other == at) {
            let message = format!("multiple assignments to same column \"{name}\"");
            return Err(Error::new("42601", message));
        }
        all.push((at, assignment.value.clone()));
    }
    Ok(all)
}

/// Returns the numbers of rows, which are their last column.
fn numbers(found: &RecordBatch) -> impl Iterator<Item = usize> {
    let numbers = found.columns().last().map(|column| column.as_primitive::<UInt64Type>());
    numbers.into_iter().flat_map(|numbers| numbers.values()).map(|number| *number as usize)
}

/// Returns rows as the table keeps them; what no column of theirs is for is NULL.
fn widened(table: &TemporaryTable, targets: &[usize], rows: &RecordBatch) -> Result<RecordBatch> {
    let columns = table.columns().fields().iter().enumerate().map(|(at, field)| {
        match targets.iter().take(rows.num_columns()).position(|target| *target == at) {
            Some(place) => Arc::clone(rows.column(place)),
            None => new_null_array(field.data_type(), rows.num_rows()),
        }
    });
    labeled(Arc::clone(table.columns()), &columns.collect::<Vec<_>>(), rows.num_rows())
}

/// Returns all rows of a table, with other values in those that are numbered.
fn replaced(table: &TemporaryTable, targets: &[usize], rows: &RecordBatch) -> Result<RecordBatch> {
    let all = table.all()?;
    let mut from: Vec<(usize, usize)> = (0..all.num_rows()).map(|row| (0, row)).collect();
    for (row, number) in numbers(rows).enumerate() {
        from[number] = (1, row);
    }
    let mut columns = all.columns().to_vec();
    for (place, at) in targets.iter().enumerate() {
        let new = as_type(rows.column(place), table.columns().field(*at))?;
        columns[*at] = interleave(&[columns[*at].as_ref(), new.as_ref()], &from)?;
    }
    labeled(Arc::clone(table.columns()), &columns, all.num_rows())
}

fn items(columns: Vec<(ast::Ident, ast::Expr)>) -> Vec<ast::SelectItem> {
    let item = |(alias, expr)| ast::SelectItem::ExprWithAlias { expr, alias };
    columns.into_iter().map(item).collect()
}

/// Returns the query of some expressions, over nothing or something.
fn query_of(columns: Vec<(ast::Ident, ast::Expr)>, from: Option<ast::TableFactor>) -> Statement {
    let mut query = template();
    if let ast::SetExpr::Select(select) = query.body.as_mut() {
        select.projection = items(columns);
        let relation = |relation| ast::TableWithJoins { relation, joins: Vec::new() };
        select.from = from.map(relation).into_iter().collect();
    }
    of_query(Box::new(query))
}

fn column_named(table: &TemporaryTable, name: &str) -> Result<usize> {
    table.columns().index_of(name).map_err(|_| {
        let message = format!("column \"{name}\" of relation \"{}\" does not exist", table.name());
        Error::new("42703", message)
    })
}

/// Returns the places of the columns that an INSERT names; all where it names none.
fn insert_columns(table: &TemporaryTable, names: &[ast::ObjectName]) -> Result<Vec<usize>> {
    if names.is_empty() {
        return Ok((0..table.columns().fields().len()).collect());
    }
    let mut places = Vec::new();
    for name in names {
        let name = parts(name)?.pop().unwrap_or_default();
        let place = column_named(table, &name)?;
        if places.contains(&place) {
            let message = format!("column \"{name}\" specified more than once");
            return Err(Error::new("42701", message));
        }
        places.push(place);
    }
    Ok(places)
}

fn labeled(schema: Arc<Schema>, columns: &[ArrayRef], rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let columns: Result<Vec<ArrayRef>> =
        columns.iter().zip(schema.fields()).map(|(column, field)| as_type(column, field)).collect();
    Ok(RecordBatch::try_new_with_options(schema, columns?, &options)?)
}

/// Returns values as a column keeps them, where the planner left them in a type that is like it.
fn as_type(values: &ArrayRef, field: &Field) -> Result<ArrayRef> {
    if values.data_type() == field.data_type() {
        return Ok(Arc::clone(values));
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    Ok(cast_with_options(values, field.data_type(), &options)?)
}
