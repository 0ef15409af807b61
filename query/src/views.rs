//! Views: queries that are kept, and put in the places of their names before a query is planned; tables
//! made of a query's rows.
//!
//! A view reads with the rights of who asks, not of who made it. Its tables are named with their databases
//! when it is made, so that a search path does not change what it reads.

use std::str::FromStr;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::catalog::{Session as Planning, TableProvider};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{self, VisitMut};
use meta::{Command, NewColumn, View};
use model::{Codec, ColumnKind, TableId, ValueType};

use crate::access::{Need, Object};
use crate::error::{Error, Result};
use crate::output::Output;
use crate::scopes::{RELATIONS_MAX, each_table, too_many_relations};
use crate::session::Session;
use crate::sql::{Statement, TableAs, of_query, parse_one};
use crate::temporary::TemporaryTables;

/// How deep views may read views.
const DEPTH_MAX: usize = 16;

/// What is known while views are put in the places of their names.
struct Expansion {
    /// A view that must not be among them.
    forbidden: Option<TableId>,
    /// How many there were.
    views: usize,
}

pub(crate) fn quoted(name: &str) -> ast::Ident {
    ast::Ident::with_quote('"', name)
}

fn exists(name: &str) -> Error {
    Error::new("42P07", format!("relation \"{name}\" already exists"))
}

impl Session {
    pub(crate) async fn create_view(
        &self,
        (name, columns): (&[String], &[String]),
        replace: bool,
        query: &ast::Query,
    ) -> Result<Output> {
        let (database, name) = self.split_table(name)?;
        let database = self.user_database(&database)?.id;
        self.check(Need::Define(Object::database(database)))?;
        let mut query = query.clone();
        qualify(&mut query, &self.database_name(), &self.temporary)?;
        let definition = query.to_string();
        if let Some(old) = self.database().catalog().view(database, name) {
            let mut expansion = Expansion { forbidden: Some(old.id), views: 0 };
            self.expand(&mut query.clone(), 0, &mut expansion)?;
        }
        let found = self.columns_of(query).await?;
        if columns.len() > found.fields().len() {
            return Err(Error::syntax("CREATE VIEW names more columns than the query has"));
        }
        let mut named = Vec::new();
        for (at, field) in found.fields().iter().enumerate() {
            let name = columns.get(at).unwrap_or(field.name()).clone();
            if named.iter().any(|(other, _)| *other == name) {
                let message = format!("column \"{name}\" specified more than once");
                return Err(Error::new("42701", message));
            }
            named.push((name, field.data_type().to_string()));
        }
        let name = name.to_owned();
        let command = Command::CreateView {
            database,
            name,
            columns: named,
            definition,
            replace,
            external: false,
        };
        self.database().meta().submit(&command).await?;
        Ok(Output::Done("CREATE VIEW"))
    }

    /// Returns the columns of a query, which must have no parameters.
    async fn columns_of(&self, query: ast::Query) -> Result<SchemaRef> {
        self.columns_of_statement(of_query(Box::new(query))).await
    }

    /// Returns the columns of a query as a statement, which must have no parameters.
    pub(crate) async fn columns_of_statement(&self, query: Statement) -> Result<SchemaRef> {
        let prepared = self.prepare_statement(query, &[]).await?;
        if !prepared.parameters.is_empty() {
            return Err(Error::new("42P02", "there is no parameter here"));
        }
        prepared.columns.ok_or_else(|| Error::internal("a query has columns"))
    }

    pub(crate) async fn drop_views(
        &self,
        names: &[Vec<String>],
        if_exists: bool,
    ) -> Result<Output> {
        let mut commands = Vec::new();
        for parts in names {
            let (database, name) = self.split_table(parts)?;
            let database = self.user_database(&database)?.id;
            match self.database().catalog().view(database, name) {
                Some(view) if view.external => {
                    let error = Error::new("42809", format!("\"{name}\" is not a view"));
                    return Err(error.hint("DROP TABLE"));
                }
                Some(view) => {
                    self.check(Need::Define(Object::database(database)))?;
                    commands.push(Command::DropView { view: view.id });
                }
                None if if_exists => {
                    drop(self.skip("view", &parts.join("."), "does not exist", "DROP VIEW"));
                }
                None => {
                    let message = format!("view \"{}\" does not exist", parts.join("."));
                    return Err(Error::new("42P01", message));
                }
            }
        }
        self.submit_all(commands).await?;
        Ok(Output::Done("DROP VIEW"))
    }

    /// Makes a table of the rows of a query: `time` is its time, the columns named are its tags.
    pub(crate) async fn create_table_as(self: &Arc<Self>, table: &TableAs) -> Result<Output> {
        let (database, name) = self.split_table(&table.name)?;
        let database = self.user_database(&database)?;
        self.check(Need::Define(Object::database(database.id)))?;
        if self.database().catalog().table(database.id, name).is_some() {
            if table.if_not_exists {
                return Ok(self.skip("relation", name, "already exists", "CREATE TABLE AS"));
            }
            return Err(exists(name));
        }
        let schema = self.columns_of(table.query.as_ref().clone()).await?;
        let columns = new_columns(&schema, &table.tags)?;
        let names: Vec<String> =
            schema.fields().iter().map(|f| quoted(f.name()).to_string()).collect();
        let created =
            Command::CreateTable { database: database.id, name: name.to_owned(), columns };
        self.database().meta().submit(&created).await?;
        let insert = format!(
            "INSERT INTO {}.{} ({}) {}",
            quoted(&database.name),
            quoted(name),
            names.join(", "),
            table.query
        );
        let inserted = match parse_one(&insert)? {
            Some(Statement::Insert(insert)) => self.insert(&insert, &[]).await,
            _ => Err(Error::internal("an INSERT was made")),
        };
        match inserted {
            Ok(rows) => Ok(Output::Affected("SELECT", rows)),
            Err(error) => {
                // What could not be filled was never there.
                if let Some(table) = self.database().catalog().table(database.id, name) {
                    let dropped = Command::DropTable { table: table.id };
                    self.database().meta().submit(&dropped).await?;
                }
                Err(error)
            }
        }
    }

    /// Puts the queries of views in the places of their names.
    pub(crate) fn expand_views(&self, statement: &mut ast::Statement) -> Result<()> {
        self.expand(statement, 0, &mut Expansion { forbidden: None, views: 0 })
    }

    /// Expands what a node reads.
    fn expand<T: VisitMut>(
        &self,
        node: &mut T,
        depth: usize,
        expansion: &mut Expansion,
    ) -> Result<()> {
        if depth > DEPTH_MAX {
            let message = format!("views read views more than {DEPTH_MAX} deep");
            return Err(Error::new("54001", message));
        }
        each_table(node, |name, factor| {
            let Some(view) = self.view_named(name) else { return Ok(()) };
            expansion.views += 1;
            if expansion.views > RELATIONS_MAX {
                return Err(too_many_relations());
            }
            if expansion.forbidden == Some(view.id) {
                let message = format!("infinite recursion in view \"{}\"", view.name);
                return Err(Error::new("42P17", message));
            }
            let mut query = query_of(&view)?;
            self.expand(query.as_mut(), depth + 1, expansion)?;
            let ast::TableFactor::Table { alias, .. } = &*factor else { return Ok(()) };
            *factor = in_place(&view, query, alias.as_ref());
            Ok(())
        })
    }

    fn view_named(&self, name: &[String]) -> Option<Arc<View>> {
        let (database, view) = self.split_table(name).ok()?;
        let catalog = self.database().catalog();
        let database = catalog.database(self.identity().tenant, &database)?;
        catalog.view(database.id, view).filter(|view| !view.external).cloned()
    }
}

fn new_columns(schema: &Schema, tags: &[String]) -> Result<Vec<NewColumn>> {
    for tag in tags {
        match schema.field_with_name(tag).map(Field::data_type) {
            Ok(DataType::Utf8) => {}
            Ok(_) => return Err(Error::new("42804", format!("tag \"{tag}\" must be a STRING"))),
            Err(_) => return Err(Error::new("42703", format!("column \"{tag}\" does not exist"))),
        }
    }
    if !schema
        .field_with_name("time")
        .is_ok_and(|f| matches!(f.data_type(), DataType::Timestamp(..)))
    {
        let error = Error::new("42703", "the query has no column \"time\" of instants");
        return Err(error.hint("name it: SELECT … AS time"));
    }
    let kind = |field: &Field| -> Result<ColumnKind> {
        if tags.contains(field.name()) {
            return Ok(ColumnKind::Tag);
        }
        Ok(ColumnKind::Field(match field.data_type() {
            DataType::UInt64 => ValueType::U64,
            whole if whole.is_integer() => ValueType::I64,
            DataType::Float32 | DataType::Float64 | DataType::Decimal128(..) => ValueType::F64,
            DataType::Boolean => ValueType::Bool,
            DataType::Utf8 => ValueType::Str,
            other => {
                let message =
                    format!("column \"{}\" of type {}", field.name(), crate::types::pg_name(other));
                return Err(Error::unsupported(message).hint("cast it to what a field can hold"));
            }
        }))
    };
    let fields = schema.fields().iter().filter(|field| field.name() != "time");
    let column = |field: &Arc<Field>| {
        Ok(NewColumn {
            name: field.name().clone(),
            kind: kind(field)?,
            not_null: false,
            codec: Codec::Default,
            shape: None,
        })
    };
    let mut columns = fields.map(column).collect::<Result<Vec<_>>>()?;
    columns.sort_by_key(|column| column.kind != ColumnKind::Tag);
    Ok(columns)
}

/// Names the tables of a query with their database.
fn qualify(query: &mut ast::Query, database: &str, own: &TemporaryTables) -> Result<()> {
    each_table(query, |found, factor| {
        if own.named(found).is_some() {
            return Err(Error::unsupported("a view of a temporary table"));
        }
        if let [table] = found
            && let ast::TableFactor::Table { name, .. } = factor
            && !table.starts_with("pg_")
        {
            *name = ast::ObjectName::from(vec![quoted(database), quoted(table)]);
        }
        Ok(())
    })
}

/// Reads the query that is kept of a view.
fn query_of(view: &View) -> Result<Box<ast::Query>> {
    let broken = || Error::new("XX001", format!("view \"{}\" cannot be read", view.name));
    let Some(Statement::Query(parsed)) = parse_one(&view.definition)? else {
        return Err(broken());
    };
    let DfStatement::Statement(parsed) = *parsed else { return Err(broken()) };
    let ast::Statement::Query(query) = *parsed else { return Err(broken()) };
    Ok(query)
}

/// Returns the query of a view, to stand where it is named.
fn in_place(
    view: &View,
    query: Box<ast::Query>,
    alias: Option<&ast::TableAlias>,
) -> ast::TableFactor {
    let column = |(name, _): &(String, String)| ast::TableAliasColumnDef {
        name: quoted(name),
        data_type: None,
    };
    let mut alias = alias.cloned().unwrap_or_else(|| ast::TableAlias {
        explicit: true,
        name: quoted(&view.name),
        columns: Vec::new(),
        at: None,
    });
    if alias.columns.is_empty() {
        alias.columns = view.columns.iter().map(column).collect();
    }
    ast::TableFactor::Derived { lateral: false, subquery: query, alias: Some(alias), sample: None }
}

/// A view as what lists tables sees it: its columns, and no rows.
#[derive(Debug)]
pub(crate) struct ViewShape(SchemaRef);

impl ViewShape {
    pub(crate) fn of(view: &View) -> Self {
        Self(view_schema(view))
    }
}

/// Returns the columns of a view.
pub(crate) fn view_schema(view: &View) -> SchemaRef {
    let field = |(name, data_type): &(String, String)| {
        Field::new(name, DataType::from_str(data_type).unwrap_or(DataType::Utf8), true)
    };
    Arc::new(Schema::new(view.columns.iter().map(field).collect::<Vec<_>>()))
}

#[async_trait]
impl TableProvider for ViewShape {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0)
    }

    fn table_type(&self) -> TableType {
        TableType::View
    }

    async fn scan(
        &self,
        _: &dyn Planning,
        _: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
        Err(Error::internal("a view was not put in the place of its name").into())
    }
}
