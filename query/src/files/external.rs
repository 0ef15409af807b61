//! External tables: files that are read as a table is, and never written.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session as Planning, TableProvider};
use datafusion::datasource::listing::ListingTable;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use meta::{Command, View};
use object_store::path::Path;
use serde_json::{Value, json};

use super::form::FileForm;
use super::listing::{Listing, url_of};
use super::location::locate;
use crate::access::{Identity, Need, Object};
use crate::database::Database;
use crate::error::{Error, Result};
use crate::output::Output;
use crate::session::Session;
use crate::sql::{FileOptions, NewExternal};
use crate::views::view_schema;

/// An external table of the catalog.
#[derive(Debug)]
pub(crate) struct ExternalTable {
    schema: SchemaRef,
    /// The name its store is registered by.
    name: String,
    database: Arc<Database>,
    who: Identity,
    parts: ExternalParts,
}

impl Session {
    /// Runs CREATE EXTERNAL TABLE.
    pub(crate) async fn create_external(&self, new: &NewExternal) -> Result<Output> {
        let (database, name) = self.split_table(&new.name)?;
        let database = self.user_database(&database)?.id;
        self.check(Need::Define(Object::database(database)))?;
        let there = self.database().catalog().view(database, name).is_some();
        if new.if_not_exists && there {
            return Ok(self.skip("relation", name, "already exists", "CREATE EXTERNAL TABLE"));
        }
        self.check(Need::Govern)?;
        let form = FileForm::of(&new.format, &new.url)?;
        let (url, options) = (&new.url, &new.options);
        let location = locate(self.database(), self.identity(), url, options).await?;
        let listing = Listing { location, form, partitions: new.partitions.clone() };
        let columns = if new.columns.is_empty() {
            self.columns_of_files(&listing).await?
        } else {
            self.defined_columns(&new.columns).await?
        };
        if let Some(missing) =
            new.partitions.iter().find(|name| columns.field_with_name(name).is_err())
        {
            let message = format!("PARTITIONED BY names \"{missing}\", which is no column");
            return Err(Error::new("42703", message).hint("give it with the columns"));
        }
        if columns.fields().is_empty() {
            return Err(Error::new("42P16", "the files have no columns"));
        }
        let named = columns.fields().iter();
        let named = named.map(|field| (field.name().clone(), field.data_type().to_string()));
        let definition = json!({
            "location": new.url,
            "format": new.format,
            "partitions": new.partitions,
            "options": new.options,
        });
        let command = Command::CreateView {
            database,
            name: name.to_owned(),
            columns: named.collect(),
            definition: definition.to_string(),
            replace: false,
            external: true,
        };
        self.database().meta().submit(&command).await?;
        Ok(Output::Done("CREATE EXTERNAL TABLE"))
    }
}

/// Numbers the stores of tables that are not there yet.
static NEXT_STORE: AtomicU64 = AtomicU64::new(1);

impl Session {
    /// Finds out which columns files have.
    async fn columns_of_files(&self, listing: &Listing) -> Result<SchemaRef> {
        let name = format!("new{}", NEXT_STORE.fetch_add(1, Ordering::Relaxed));
        let state = self.state()?;
        let opened = listing.open(&state, &name, None).await;
        let store = url_of(&name, &Path::default(), true)?;
        if let Err(error) = state.runtime_env().deregister_object_store(store.as_ref()) {
            tracing::debug!(%error, "a store that could not be opened");
        }
        Ok(opened?.schema())
    }

    /// Returns the external table that a dotted name means, and its database.
    pub(crate) fn external(&self, name: &[String]) -> Option<(Arc<meta::Database>, Arc<View>)> {
        let (database, table) = self.split_table(name).ok()?;
        let catalog = self.database().catalog();
        let database = catalog.database(self.identity().tenant, &database)?;
        let view = catalog.view(database.id, table).filter(|view| view.external)?;
        Some((Arc::clone(database), Arc::clone(view)))
    }

    /// Returns what drops an external table, if there is one.
    pub(crate) fn drop_external(&self, name: &[String]) -> Result<Option<Command>> {
        let Some((database, view)) = self.external(name) else { return Ok(None) };
        self.check(Need::Define(Object::database(database.id)))?;
        Ok(Some(Command::DropView { view: view.id }))
    }
}

/// What the catalog holds of an external table.
#[derive(Debug)]
pub(crate) struct ExternalParts {
    /// Where its files are.
    pub(crate) url: String,
    /// How they are written.
    pub(crate) format: FileOptions,
    /// The columns that the names of their folders hold.
    pub(crate) partitions: Vec<String>,
    /// How the store is reached; no keys.
    pub(crate) options: FileOptions,
}

/// Reads what the catalog holds of an external table.
pub(crate) fn external_parts(view: &View) -> Result<ExternalParts> {
    let broken = || Error::new("XX001", format!("table \"{}\" cannot be read", view.name));
    let kept: Value = serde_json::from_str(&view.definition).map_err(|_| broken())?;
    let url = kept.get("location").and_then(Value::as_str).ok_or_else(broken)?;
    let list = |name: &str| kept.get(name).cloned().ok_or_else(broken);
    Ok(ExternalParts {
        url: url.to_owned(),
        format: serde_json::from_value(list("format")?).map_err(|_| broken())?,
        partitions: serde_json::from_value(list("partitions")?).map_err(|_| broken())?,
        options: serde_json::from_value(list("options")?).map_err(|_| broken())?,
    })
}

impl ExternalTable {
    /// Makes a table of what the catalog holds.
    pub(crate) fn of(database: &Arc<Database>, who: Identity, view: &View) -> Result<Self> {
        Ok(Self {
            schema: view_schema(view),
            name: format!("table{}", view.id),
            database: Arc::clone(database),
            who,
            parts: external_parts(view)?,
        })
    }

    async fn open(&self, state: &dyn Planning) -> Result<ListingTable> {
        let ExternalParts { url, format, partitions, options } = &self.parts;
        let form = FileForm::of(format, url)?;
        let location = locate(&self.database, self.who, url, options).await?;
        let listing = Listing { location, form, partitions: partitions.clone() };
        listing.open(state, &self.name, Some(&self.schema)).await
    }
}

#[async_trait]
impl TableProvider for ExternalTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> datafusion::common::Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Planning,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> datafusion::common::Result<Arc<dyn ExecutionPlan>> {
        let files = self.open(state).await?;
        // The files' own order of columns may be another.
        let columns = files.schema();
        let wanted = match projection {
            Some(places) => places.clone(),
            None => (0..self.schema.fields().len()).collect(),
        };
        let places = wanted.iter().map(|at| columns.index_of(self.schema.field(*at).name()));
        let places = places.collect::<std::result::Result<Vec<_>, _>>()?;
        files.scan(state, Some(&places), filters, limit).await
    }
}
