//! information_schema: what the SQL standard says of schemata, tables and columns.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, Int64Array, StringArray, new_null_array};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::{MemTable, SchemaProvider, TableProvider};
use datafusion::common::Result;
use datafusion::logical_expr::Documentation;

use super::{INFORMATION_SCHEMA, PG_CATALOG, SessionCatalogs};
use crate::access::{Need, check};
use crate::policies;
use crate::running;
use crate::show::{OPTIONS, options_in_words};
use crate::types::{pg_name, short_name};
use crate::views::view_schema;

const TABLES: [&str; 15] = [
    "schemata",
    "tables",
    "columns",
    "views",
    "table_constraints",
    "key_column_usage",
    "databases",
    "roles",
    "enabled_roles",
    "members",
    "database_privileges",
    "queries",
    "resource_status",
    "placement_policys",
    "routines",
];

/// What PostgreSQL says of columns and no column here has.
const ABSENT: [(&str, DataType); 7] = [
    ("column_default", DataType::Utf8),
    ("character_maximum_length", DataType::Int32),
    ("numeric_precision", DataType::Int32),
    ("numeric_scale", DataType::Int32),
    ("datetime_precision", DataType::Int32),
    ("domain_name", DataType::Utf8),
    ("collation_name", DataType::Utf8),
];

/// The schema of that name.
#[derive(Debug)]
pub(super) struct InformationSchema(pub(super) SessionCatalogs);

#[async_trait]
impl SchemaProvider for InformationSchema {
    fn table_names(&self) -> Vec<String> {
        TABLES.iter().map(|name| (*name).to_owned()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let batch = match name {
            "schemata" => self.schemata(),
            "tables" => self.tables(),
            "columns" => self.columns(),
            "databases" => self.databases(),
            "roles" => self.roles(),
            "enabled_roles" => texts(&["role_name"], &self.enabled_roles()),
            "members" => self.members(),
            "queries" => {
                let lines = running::lines(&self.0.database, self.0.identity);
                texts(&running::COLUMNS, &lines)
            }
            "resource_status" => self.resource_status(),
            "placement_policys" => self.placement_policies(),
            "database_privileges" => self.database_privileges(),
            "views" => self.views(),
            "routines" => self.routines(),
            "table_constraints" => texts(
                &[
                    "constraint_catalog",
                    "constraint_schema",
                    "constraint_name",
                    "table_schema",
                    "table_name",
                    "constraint_type",
                ],
                &[],
            ),
            "key_column_usage" => texts(
                &[
                    "constraint_catalog",
                    "constraint_schema",
                    "constraint_name",
                    "table_catalog",
                    "table_schema",
                    "table_name",
                    "column_name",
                    "ordinal_position",
                    "position_in_unique_constraint",
                ],
                &[],
            ),
            _ => return Ok(None),
        }?;
        let table = MemTable::try_new(batch.schema(), vec![vec![batch]])?;
        Ok(Some(Arc::new(table)))
    }

    fn table_exist(&self, name: &str) -> bool {
        TABLES.contains(&name)
    }
}

/// Builds a batch of texts.
pub(super) fn texts(names: &[&str], rows: &[Vec<String>]) -> Result<RecordBatch> {
    let fields: Vec<Field> =
        names.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect();
    let column = |at: usize| {
        Arc::new(StringArray::from_iter_values(rows.iter().map(|row| &row[at]))) as ArrayRef
    };
    let columns = (0..names.len()).map(column).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
}

impl InformationSchema {
    fn tenant_name(&self) -> String {
        self.0.names[0].clone()
    }

    fn schemata(&self) -> Result<RecordBatch> {
        let catalog = self.0.database.catalog();
        let mut names: Vec<String> =
            catalog.databases(self.0.identity.tenant).map(|one| one.name.clone()).collect();
        names.extend([INFORMATION_SCHEMA.to_owned(), PG_CATALOG.to_owned()]);
        let row = |name: String| vec![self.tenant_name(), name, "root".to_owned()];
        let rows: Vec<Vec<String>> = names.into_iter().map(row).collect();
        texts(&["catalog_name", "schema_name", "schema_owner"], &rows)
    }

    /// The functions, but for those that only stand for other SQL.
    fn routines(&self) -> Result<RecordBatch> {
        let state = self.0.database.template();
        let mut rows = Vec::new();
        let mut add = |name: &String, kind: &str, about: Option<&Documentation>| {
            if name.starts_with("__") || name.contains('.') {
                return;
            }
            let (syntax, about) = about
                .map(|about| (about.syntax_example.clone(), about.description.clone()))
                .unwrap_or_default();
            let row = [&self.tenant_name(), PG_CATALOG, name, "FUNCTION", kind, &syntax, &about];
            rows.push(row.iter().map(|part| (*part).to_owned()).collect());
        };
        for (name, function) in state.scalar_functions() {
            add(name, "SCALAR", function.documentation());
        }
        for (name, function) in state.aggregate_functions() {
            add(name, "AGGREGATE", function.documentation());
        }
        for (name, function) in state.window_functions() {
            add(name, "WINDOW", function.documentation());
        }
        rows.sort_unstable();
        let names = [
            "routine_catalog",
            "routine_schema",
            "routine_name",
            "routine_type",
            "function_type",
            "syntax_example",
            "description",
        ];
        texts(&names, &rows)
    }

    fn tables(&self) -> Result<RecordBatch> {
        let catalog = self.0.database.catalog();
        let mut rows = Vec::new();
        let mut add = |schema: &str, table: &str, kind: &str| {
            let row = [&self.tenant_name(), schema, table, kind];
            rows.push(row.iter().map(|part| (*part).to_owned()).collect());
        };
        for database in catalog.databases(self.0.identity.tenant) {
            for table in catalog.tables(database.id) {
                add(&database.name, &table.name, "BASE TABLE");
            }
            for view in catalog.views(database.id) {
                add(&database.name, &view.name, if view.external { "FOREIGN" } else { "VIEW" });
            }
        }
        TABLES.iter().for_each(|table| add(INFORMATION_SCHEMA, table, "VIEW"));
        texts(&["table_catalog", "table_schema", "table_name", "table_type"], &rows)
    }

    fn views(&self) -> Result<RecordBatch> {
        let catalog = self.0.database.catalog();
        let mut rows = Vec::new();
        for database in catalog.databases(self.0.identity.tenant) {
            for view in catalog.views(database.id).filter(|view| !view.external) {
                let row = [&self.tenant_name(), &database.name, &view.name, &view.definition];
                rows.push(row.iter().map(|part| (*part).clone()).collect());
            }
        }
        texts(&["table_catalog", "table_schema", "table_name", "view_definition"], &rows)
    }

    fn databases(&self) -> Result<RecordBatch> {
        let catalog = self.0.database.catalog();
        let row = |database: &Arc<meta::Database>| {
            let mut row = vec![self.tenant_name(), database.name.clone()];
            row.extend(options_in_words(&database.options));
            row
        };
        let rows: Vec<Vec<String>> = catalog.databases(self.0.identity.tenant).map(row).collect();
        let names: Vec<&str> =
            ["tenant_name", "database_name"].into_iter().chain(OPTIONS).collect();
        texts(&names, &rows)
    }

    /// What administrators alone see.
    fn placement_policies(&self) -> Result<RecordBatch> {
        let catalog = self.0.database.catalog();
        let sees = check(&catalog, self.0.identity, Need::Administer).is_ok();
        let policies = catalog.policies().filter(|_| sees);
        let rows: Vec<Vec<String>> =
            policies.map(|policy| policies::in_words(&catalog, policy)).collect();
        texts(&policies::COLUMNS, &rows)
    }

    /// What waits to be dropped.
    fn resource_status(&self) -> Result<RecordBatch> {
        let catalog = self.0.database.catalog();
        let line = |name: &str, action: &str, at: i64| {
            let time = chrono::DateTime::from_timestamp_nanos(at);
            let time = time.format("%Y-%m-%d %H:%M:%S+00").to_string();
            let row = [time.as_str(), name, action, "0", "Schedule", ""];
            row.map(str::to_owned).to_vec()
        };
        let databases = catalog.named_databases(self.0.identity.tenant);
        let rows = databases.filter_map(|one| Some(line(&one.name, "DropDatabase", one.drop_at?)));
        let mut rows: Vec<Vec<String>> = rows.collect();
        if check(&catalog, self.0.identity, Need::Administer).is_ok() {
            let tenants = catalog.tenants();
            rows.extend(
                tenants.filter_map(|one| Some(line(&one.name, "DropTenant", one.drop_at?))),
            );
        }
        texts(&["time", "name", "action", "try_count", "status", "comment"], &rows)
    }

    fn tenant(&self) -> Option<Arc<meta::Tenant>> {
        self.0.database.catalog().tenant_by_id(self.0.identity.tenant).cloned()
    }

    fn roles(&self) -> Result<RecordBatch> {
        let row = |name: &str, kind: &str, inherits: &str| {
            [name, kind, inherits].map(str::to_owned).to_vec()
        };
        let mut rows = vec![row("owner", "system", ""), row("member", "system", "")];
        if let Some(tenant) = self.tenant() {
            let custom = tenant.roles.iter();
            rows.extend(custom.map(|(name, role)| row(name, "custom", role.inherits.name())));
        }
        texts(&["role_name", "role_type", "inherit_role"], &rows)
    }

    /// The role of who asks; an administrator who is no member has none.
    fn enabled_roles(&self) -> Vec<Vec<String>> {
        let tenant = self.tenant();
        let role = tenant.as_ref().and_then(|one| one.members.get(&self.0.identity.user));
        role.map(|role| vec![role.name().to_owned()]).into_iter().collect()
    }

    fn members(&self) -> Result<RecordBatch> {
        let catalog = self.0.database.catalog();
        let mut rows = Vec::new();
        for (user, role) in self.tenant().iter().flat_map(|tenant| &tenant.members) {
            if let Some(user) = catalog.user_by_id(*user) {
                rows.push(vec![user.name.clone(), role.name().to_owned()]);
            }
        }
        texts(&["user_name", "role_name"], &rows)
    }

    fn database_privileges(&self) -> Result<RecordBatch> {
        let catalog = self.0.database.catalog();
        let grants = self.tenant().map(|tenant| crate::roles::grants(&catalog, &tenant));
        let row =
            |(database, table, level, role): (String, Option<String>, meta::Level, String)| {
                let table = table.unwrap_or_default();
                vec![self.tenant_name(), database, table, level.sql().to_owned(), role]
            };
        let rows: Vec<Vec<String>> = grants.unwrap_or_default().into_iter().map(row).collect();
        let names = ["tenant_name", "database_name", "table_name", "privilege_type", "role_name"];
        texts(&names, &rows)
    }

    fn columns(&self) -> Result<RecordBatch> {
        let catalog = self.0.database.catalog();
        let (mut rows, mut positions) = (Vec::new(), Vec::new());
        for database in catalog.databases(self.0.identity.tenant) {
            for table in catalog.tables(database.id) {
                for (at, column) in table.columns.iter().enumerate() {
                    let field = column.arrow();
                    let kind = match column.kind {
                        model::ColumnKind::Time => "TIME",
                        model::ColumnKind::Tag => "TAG",
                        model::ColumnKind::Field(_) => "FIELD",
                    };
                    let nullable = if field.is_nullable() { "YES" } else { "NO" };
                    let name = [&self.tenant_name(), &database.name, &table.name, &column.name];
                    let mut row: Vec<String> = name.iter().map(|part| (*part).clone()).collect();
                    let codec = column.codec.to_string();
                    let data_type = pg_name(field.data_type());
                    let rest = [data_type, nullable, kind, &codec, short_name(data_type)];
                    row.extend(rest.iter().map(|part| (*part).to_owned()));
                    rows.push(row);
                    positions.push(at as i64 + 1);
                }
            }
            for view in catalog.views(database.id) {
                for (at, field) in view_schema(view).fields().iter().enumerate() {
                    let name = [&self.tenant_name(), &database.name, &view.name, field.name()];
                    let mut row: Vec<String> = name.iter().map(|part| (*part).clone()).collect();
                    let data_type = pg_name(field.data_type());
                    let rest = [data_type, "YES", "FIELD", "DEFAULT", short_name(data_type)];
                    row.extend(rest.iter().map(|part| (*part).to_owned()));
                    rows.push(row);
                    positions.push(at as i64 + 1);
                }
            }
        }
        let names = [
            "table_catalog",
            "table_schema",
            "table_name",
            "column_name",
            "data_type",
            "is_nullable",
            "column_type",
            "compression_codec",
            "udt_name",
        ];
        let batch = texts(&names, &rows)?;
        let mut fields = batch.schema().fields().to_vec();
        let absent = |(name, of): &(&str, DataType)| Arc::new(Field::new(*name, of.clone(), true));
        fields.extend(ABSENT.iter().map(absent));
        fields.insert(4, Arc::new(Field::new("ordinal_position", DataType::Int64, false)));
        let mut columns = batch.columns().to_vec();
        columns.extend(ABSENT.iter().map(|(_, of)| new_null_array(of, rows.len())));
        columns.insert(4, Arc::new(Int64Array::from(positions)));
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }
}
