//! External tables: files that are read as a table is, and never written.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::catalog::{Session as Planning, TableProvider};
use datafusion::datasource::listing::ListingTable;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;
use meta::{Command, View};
use serde_json::{Value, json};

use super::form::FileForm;
use super::listing::Listing;
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
    listing: Listing,
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
        let form = FileForm::of(&new.format, &new.url)?;
        let location = locate(self.database(), self.identity(), &new.url, &Vec::new())?;
        let listing = Listing { location, form, partitions: new.partitions.clone() };
        let columns = if new.columns.is_empty() {
            let state = self.state()?;
            let name = format!("new{}", uuid(self.now_ns()));
            listing.open(&state, &name, None).await?.schema()
        } else {
            self.defined_columns(&new.columns).await?
        };
        if columns.fields().is_empty() {
            return Err(Error::new("42P16", "the files have no columns"));
        }
        let named = columns.fields().iter();
        let named = named.map(|field| (field.name().clone(), field.data_type().to_string()));
        let definition = json!({
            "location": new.url,
            "format": new.format,
            "partitions": new.partitions,
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

/// Tells one statement's name of a store from another's.
fn uuid(now_ns: i64) -> String {
    format!("{now_ns:x}")
}

impl Session {
    /// Drops an external table. Returns whether there was one.
    pub(crate) async fn drop_external(&self, name: &[String]) -> Result<bool> {
        let Ok((database, table)) = self.split_table(name) else { return Ok(false) };
        let catalog = self.database().catalog();
        let tenant = self.identity().tenant;
        let Some(database) = catalog.database(tenant, &database) else { return Ok(false) };
        let found = catalog.view(database.id, table).filter(|view| view.external);
        let Some(view) = found else { return Ok(false) };
        self.check(Need::Define(Object::database(database.id)))?;
        self.database().meta().submit(&Command::DropView { view: view.id }).await?;
        Ok(true)
    }
}

impl ExternalTable {
    /// Makes a table of what the catalog holds.
    pub(crate) fn of(database: &Arc<Database>, who: Identity, view: &View) -> Result<Self> {
        let broken = || Error::new("XX001", format!("table \"{}\" cannot be read", view.name));
        let kept: Value = serde_json::from_str(&view.definition).map_err(|_| broken())?;
        let url = kept.get("location").and_then(Value::as_str).ok_or_else(broken)?;
        let list = |name: &str| kept.get(name).cloned().ok_or_else(broken);
        let format: FileOptions = serde_json::from_value(list("format")?).map_err(|_| broken())?;
        let partitions: Vec<String> =
            serde_json::from_value(list("partitions")?).map_err(|_| broken())?;
        let form = FileForm::of(&format, url)?;
        let location = locate(database, who, url, &Vec::new())?;
        Ok(Self {
            schema: view_schema(view),
            name: format!("table{}", view.id),
            listing: Listing { location, form, partitions },
        })
    }

    async fn open(&self, state: &dyn Planning) -> Result<ListingTable> {
        // Those of the folders' names are not in the files.
        let in_files = self.schema.fields().iter();
        let in_files = in_files.filter(|one| !self.listing.partitions.contains(one.name()));
        let columns = Arc::new(Schema::new(in_files.cloned().collect::<Vec<_>>()));
        self.listing.open(state, &self.name, Some(columns)).await
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
