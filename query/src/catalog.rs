//! Databases and tables as DataFusion sees them: catalog = tenant, schema = database.
//!
//! `tables` gives user tables, `information_schema` and `system` (pg_catalog) what describes them.
//! Invariant: a session's catalog list holds its own tenant and nothing else.

mod information_schema;
mod session_functions;
mod system;
mod system_schemas;
mod tables;
mod tag_tests;

use std::sync::Arc;

use datafusion::catalog::{CatalogProvider, CatalogProviderList, SchemaProvider};

use crate::access::Identity;
use crate::database::Database;
use crate::instants::Zone;
use crate::temporary::{TEMPORARY_SCHEMA, TemporarySchema, TemporaryTables};
pub(crate) use system::{
    SessionNames, SystemCatalog, catalog_replacement, mentions_catalog, register_functions,
};
use system_schemas::{CLUSTER_SCHEMA, USAGE_SCHEMA};
pub(crate) use tables::{BoundValues, ReadOptions, TableRead, TskvTable};

pub(crate) const INFORMATION_SCHEMA: &str = "information_schema";
pub(crate) const PG_CATALOG: &str = "pg_catalog";

/// The catalogs a session sees: its tenant, under the name it connected by and its own.
#[derive(Clone, Debug)]
pub(crate) struct SessionCatalogs {
    pub(crate) database: Arc<Database>,
    pub(crate) identity: Identity,
    /// The names the tenant answers to, the one of the connection first.
    pub(crate) names: Vec<String>,
    pub(crate) system: Arc<SystemCatalog>,
    pub(crate) temporary: Arc<TemporaryTables>,
    /// The zone that times of tables are given in.
    pub(crate) zone: Zone,
    /// What the parameters of the query stand for.
    pub(crate) bound: BoundValues,
}

impl CatalogProviderList for SessionCatalogs {
    fn register_catalog(
        &self,
        _name: String,
        _catalog: Arc<dyn CatalogProvider>,
    ) -> Option<Arc<dyn CatalogProvider>> {
        None
    }

    fn catalog_names(&self) -> Vec<String> {
        self.names.iter().take(1).cloned().collect()
    }

    fn catalog(&self, name: &str) -> Option<Arc<dyn CatalogProvider>> {
        let known = self.names.iter().any(|known| known == name);
        known.then(|| Arc::new(TenantCatalog(self.clone())) as Arc<dyn CatalogProvider>)
    }
}

/// A tenant.
#[derive(Debug)]
struct TenantCatalog(SessionCatalogs);

impl CatalogProvider for TenantCatalog {
    fn schema_names(&self) -> Vec<String> {
        let catalog = self.0.database.catalog();
        let databases = catalog.databases(self.0.identity.tenant);
        let mut names: Vec<String> = databases.map(|database| database.name.clone()).collect();
        let system = [INFORMATION_SCHEMA, PG_CATALOG, USAGE_SCHEMA, CLUSTER_SCHEMA];
        names.extend(system.map(str::to_owned));
        names
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        match name {
            INFORMATION_SCHEMA => {
                Some(Arc::new(information_schema::InformationSchema(self.0.clone())))
            }
            USAGE_SCHEMA => Some(Arc::new(system_schemas::UsageSchema(self.0.clone()))),
            CLUSTER_SCHEMA => Some(Arc::new(system_schemas::ClusterSchema(self.0.clone()))),
            TEMPORARY_SCHEMA => Some(Arc::new(TemporarySchema(Arc::clone(&self.0.temporary)))),
            PG_CATALOG => Some(Arc::clone(&self.0.system) as Arc<dyn SchemaProvider>),
            _ => {
                let catalog = self.0.database.catalog();
                let database = catalog.database(self.0.identity.tenant, name)?;
                Some(Arc::new(tables::DatabaseSchema {
                    catalogs: self.0.clone(),
                    database: Arc::clone(database),
                }))
            }
        }
    }
}
