//! pg_catalog, so that psql, drivers and tools find what they ask for. Most of it is
//! `datafusion-pg-catalog`; databases, roles and some functions are ours.

use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::sync::{Arc, LazyLock};

use async_trait::async_trait;
use datafusion::arrow::array::{
    ArrayRef, BooleanArray, Int32Array, Int64Array, StringArray, new_null_array,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::{MemTable, SchemaProvider, TableProvider};
use datafusion::common::{Result, ScalarValue};
use datafusion::datasource::{ViewTable, provider_as_source};
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::logical_expr::{
    ColumnarValue, LogicalPlanBuilder, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    TableType, TypeSignature, Volatility, ident, lit,
};
use datafusion::sql::sqlparser::ast::{self, Visit, VisitMut, Visitor, VisitorMut};
use datafusion_pg_catalog::pg_catalog::catalog_info::CatalogInfo;
use datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_pg_catalog::pg_catalog::{
    self, PG_CATALOG_TABLES, PgCatalogSchemaProvider, PgCatalogStaticTables, oid_field::oid_field,
};
use datafusion_pg_catalog::sql::PostgresCompatibilityParser;
use model::{TenantId, UserId};
use parking_lot::Mutex;

use super::PG_CATALOG;
use crate::access::Identity;
use crate::database::Database;
use crate::error::Error;
use crate::running::{self, CopyProgress};
use crate::settings::Settings;
use crate::views::view_schema;

type Statics = std::result::Result<Arc<PgCatalogStaticTables>, String>;

/// The tables that never change, decoded once in a process.
static STATICS: LazyLock<Statics> = LazyLock::new(|| {
    PgCatalogStaticTables::try_new().map(Arc::new).map_err(|error| error.to_string())
});
static REWRITER: LazyLock<PostgresCompatibilityParser> =
    LazyLock::new(PostgresCompatibilityParser::new);

/// pg_catalog of one tenant.
#[derive(Debug)]
pub(crate) struct SystemCatalog {
    inner: PgCatalogSchemaProvider<TenantObjects, EmptyContextProvider>,
    objects: TenantObjects,
    user: UserId,
}

/// What the tenant has, out of the cached catalog.
#[derive(Clone, Debug)]
struct TenantObjects {
    database: Arc<Database>,
    tenant: TenantId,
    name: String,
}

#[async_trait]
impl CatalogInfo for TenantObjects {
    async fn catalog_names(&self) -> Result<Vec<String>> {
        Ok(vec![self.name.clone()])
    }

    async fn schema_names(&self, _: &str) -> Result<Option<Vec<String>>> {
        let catalog = self.database.catalog();
        let mut names: Vec<String> =
            catalog.databases(self.tenant).map(|database| database.name.clone()).collect();
        names.push(PG_CATALOG.to_owned());
        Ok(Some(names))
    }

    async fn table_names(&self, _: &str, schema: &str) -> Result<Option<Vec<String>>> {
        let catalog = self.database.catalog();
        let database = catalog.database(self.tenant, schema);
        let Some(database) = database else { return Ok(Some(Vec::new())) };
        let tables = catalog.tables(database.id).map(|table| table.name.clone());
        let views = catalog.views(database.id).map(|view| view.name.clone());
        Ok(Some(tables.chain(views).collect()))
    }

    async fn table_schema(&self, _: &str, schema: &str, table: &str) -> Result<Option<SchemaRef>> {
        let catalog = self.database.catalog();
        let database = catalog.database(self.tenant, schema);
        let Some(database) = database else { return Ok(None) };
        Ok(match catalog.table(database.id, table) {
            Some(table) => Some(table.arrow()),
            None => catalog.view(database.id, table).map(|view| view_schema(view)),
        })
    }

    async fn table_type(&self, _: &str, schema: &str, table: &str) -> Result<Option<TableType>> {
        let catalog = self.database.catalog();
        let database = catalog.database(self.tenant, schema);
        let view = database.and_then(|database| catalog.view(database.id, table));
        Ok(Some(if view.is_some_and(|view| !view.external) {
            TableType::View
        } else {
            TableType::Base
        }))
    }
}

impl SystemCatalog {
    /// Makes the catalog of a tenant that is known under `name`.
    pub(crate) fn new(
        database: Arc<Database>,
        Identity { user, tenant }: Identity,
        name: String,
    ) -> Result<Self, Error> {
        let statics = STATICS.as_ref().map_err(Error::internal)?;
        let objects = TenantObjects { database, tenant, name };
        let inner = PgCatalogSchemaProvider::try_new(
            objects.clone(),
            Arc::clone(statics),
            EmptyContextProvider,
        );
        Ok(Self { inner: inner.map_err(Error::from)?, objects, user })
    }

    /// The tenant, and nothing else: others do not exist for who is here.
    fn pg_database(&self) -> Result<RecordBatch> {
        let text = |value: &str| Arc::new(StringArray::from(vec![Some(value)])) as ArrayRef;
        let none = || Arc::new(StringArray::from(vec![None::<&str>])) as ArrayRef;
        let int = |value: i32| Arc::new(Int32Array::from(vec![value])) as ArrayRef;
        let bool = |value: bool| Arc::new(BooleanArray::from(vec![value])) as ArrayRef;
        let oid = i32::try_from(self.objects.tenant.0).unwrap_or(0);
        batch(vec![
            ("oid", int(oid)),
            ("datname", text(&self.objects.name)),
            ("datdba", int(10)),
            ("encoding", int(6)),
            ("datlocprovider", text("c")),
            ("datistemplate", bool(false)),
            ("datallowconn", bool(true)),
            ("datconnlimit", int(-1)),
            ("datcollate", text("C.UTF-8")),
            ("datctype", text("C.UTF-8")),
            ("daticulocale", none()),
            ("dattablespace", int(1663)),
            ("datacl", no_privileges()),
        ])
    }

    /// The statements that run, as far as who is here may see them.
    fn pg_stat_activity(&self) -> Result<RecordBatch> {
        let identity = Identity { user: self.user, tenant: self.objects.tenant };
        let lines = running::lines(&self.objects.database, identity);
        let text = |at: usize| {
            Arc::new(StringArray::from_iter_values(lines.iter().map(|line| &line[at]))) as ArrayRef
        };
        let all = |value: &str| {
            Arc::new(StringArray::from_iter_values(lines.iter().map(|_| value))) as ArrayRef
        };
        let none = || Arc::new(StringArray::from(vec![None::<&str>; lines.len()])) as ArrayRef;
        let pids = lines.iter().map(|line| line[0].parse::<i32>().ok());
        batch(vec![
            ("pid", Arc::new(Int32Array::from_iter(pids))),
            ("datname", text(4)),
            ("usename", text(3)),
            ("application_name", none()),
            ("client_addr", none()),
            ("wait_event_type", none()),
            ("wait_event", none()),
            ("state", all("active")),
            ("query", text(2)),
            ("backend_type", all("client backend")),
        ])
    }

    /// How far the copies are that run, as far as who is here may see them.
    fn pg_stat_progress_copy(&self) -> Result<RecordBatch> {
        let identity = Identity { user: self.user, tenant: self.objects.tenant };
        let copies = running::copies(&self.objects.database, identity);
        let text = |of: fn(&CopyProgress) -> &'static str| {
            let texts = copies.iter().map(|(_, copy)| of(copy));
            Arc::new(StringArray::from_iter_values(texts)) as ArrayRef
        };
        let count = |of: fn(&CopyProgress) -> u64| {
            let counts = copies.iter().map(|(_, copy)| i64::try_from(of(copy)).ok());
            Arc::new(Int64Array::from_iter(counts)) as ArrayRef
        };
        let tenant = copies.iter().map(|_| self.objects.name.as_str());
        batch(vec![
            (
                "pid",
                Arc::new(Int32Array::from_iter(
                    copies.iter().map(|(id, _)| i32::try_from(*id).ok()),
                )),
            ),
            ("datname", Arc::new(StringArray::from_iter_values(tenant))),
            ("command", text(|copy| copy.command)),
            ("type", text(|copy| copy.kind)),
            ("bytes_processed", count(|copy| copy.bytes.load(Ordering::Relaxed))),
            ("bytes_total", count(|copy| copy.bytes_total)),
            ("tuples_processed", count(|copy| copy.rows.load(Ordering::Relaxed))),
        ])
    }

    fn pg_roles(&self) -> Result<RecordBatch> {
        let catalog = self.objects.database.catalog();
        let tenant = catalog.tenant_by_id(self.objects.tenant);
        let members = catalog.users().filter(|user| {
            user.admin || tenant.is_some_and(|tenant| tenant.members.contains_key(&user.id))
        });
        let users: Vec<_> = members.collect();
        let admin = || Arc::new(BooleanArray::from_iter(users.iter().map(|u| Some(u.admin))));
        let all = |value: bool| Arc::new(BooleanArray::from(vec![value; users.len()])) as ArrayRef;
        let oids = users.iter().map(|user| i32::try_from(user.id.0).unwrap_or(0) + 9);
        let names = StringArray::from_iter_values(users.iter().map(|user| &user.name));
        batch(vec![
            ("oid", Arc::new(Int32Array::from_iter_values(oids))),
            ("rolname", Arc::new(names)),
            ("rolsuper", admin()),
            ("rolinherit", all(true)),
            ("rolcreaterole", admin()),
            ("rolcreatedb", admin()),
            ("rolcanlogin", all(true)),
            ("rolreplication", all(false)),
            ("rolconnlimit", Arc::new(Int32Array::from(vec![-1; users.len()]))),
            ("rolvaliduntil", Arc::new(StringArray::from(vec![None::<&str>; users.len()]))),
            ("rolbypassrls", all(false)),
        ])
    }
}

/// A column of access lists, all NULL.
fn no_privileges() -> ArrayRef {
    let item = Arc::new(Field::new("item", DataType::Utf8, true));
    new_null_array(&DataType::List(item), 1)
}

fn batch(columns: Vec<(&str, ArrayRef)>) -> Result<RecordBatch> {
    let field = |(name, array): &(&str, ArrayRef)| match *name {
        "oid" => oid_field("oid", "oid", false),
        name => Field::new(name, array.data_type().clone(), true),
    };
    let fields: Vec<Field> = columns.iter().map(field).collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}

#[async_trait]
impl SchemaProvider for SystemCatalog {
    fn table_names(&self) -> Vec<String> {
        self.inner.table_names()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let batch = match name {
            "pg_database" => self.pg_database()?,
            "pg_roles" => self.pg_roles()?,
            "pg_stat_activity" => self.pg_stat_activity()?,
            "pg_stat_progress_copy" => self.pg_stat_progress_copy()?,
            _ => {
                return self
                    .inner
                    .table(name)
                    .await?
                    .map(|found| completed(name, found))
                    .transpose();
            }
        };
        Ok(Some(Arc::new(MemTable::try_new(batch.schema(), vec![vec![batch]])?)))
    }

    fn table_exist(&self, name: &str) -> bool {
        ["pg_stat_activity", "pg_stat_progress_copy"].contains(&name)
            || self.inner.table_exist(name)
    }
}

/// Columns that psql asks for and that are missing, or no lists; nothing here has any of it.
const LISTS: [(&str, &[&str]); 6] = [
    ("pg_class", &["reloptions", "relacl"]),
    ("pg_namespace", &["nspacl"]),
    ("pg_attribute", &["attacl", "attoptions", "attfdwoptions"]),
    ("pg_default_acl", &["defaclacl"]),
    ("pg_db_role_setting", &["setconfig"]),
    ("pg_type", &["typacl"]),
];

/// Gives a table the columns that are lists, all NULL.
fn completed(name: &str, table: Arc<dyn TableProvider>) -> Result<Arc<dyn TableProvider>> {
    let Some((_, lists)) = LISTS.iter().find(|(table, _)| *table == name) else { return Ok(table) };
    let schema = table.schema();
    let kept = schema.fields().iter().filter(|field| !lists.contains(&field.name().as_str()));
    let kept = kept.map(|field| ident(field.name()));
    let null = ScalarValue::try_new_null(&DataType::new_list(DataType::Utf8, true))?;
    let lists = lists.iter().map(|list| lit(null.clone()).alias(*list));
    let columns: Vec<_> = kept.chain(lists).collect();
    let plan = LogicalPlanBuilder::scan(name, provider_as_source(table), None)?;
    let plan = plan.project(columns)?.build()?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}

/// Returns whether a statement reads pg_catalog.
fn reads_catalog(statement: &ast::Statement) -> bool {
    struct Mentions;
    impl Visitor for Mentions {
        type Break = ();

        fn pre_visit_relation(&mut self, relation: &ast::ObjectName) -> ControlFlow<()> {
            let parts: Vec<_> = relation.0.iter().filter_map(|part| part.as_ident()).collect();
            let system = match parts.as_slice() {
                [table] => PG_CATALOG_TABLES.contains(&table.value.as_str()),
                [.., schema, _] => schema.value == PG_CATALOG,
                [] => false,
            };
            if system { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    statement.visit(&mut Mentions).is_break()
}

/// Returns what stands in for a query that a client is known to send and that cannot be planned:
/// told by its text, and answered without reading pg_catalog at all.
pub(crate) fn catalog_replacement(text: &str) -> Option<ast::Statement> {
    if !text.contains("pg_catalog.") {
        return None;
    }
    let replaced = REWRITER.parse(text).ok()?.pop()?;
    (!reads_catalog(&replaced)).then_some(replaced)
}

/// Returns the statement as it can be planned where it asks pg_catalog, as clients write it; `None`
/// where it does not: the rewriting is not fit for queries in general.
pub(crate) fn mentions_catalog(statement: &ast::Statement) -> Option<ast::Statement> {
    reads_catalog(statement).then(|| {
        let mut rewritten = REWRITER.rewrite(statement.clone());
        if VisitMut::visit(&mut rewritten, &mut ArraySubqueries).is_break() {
            tracing::debug!("a subquery of a catalog query was not rewritten");
        }
        rewritten
    })
}

/// `ARRAY(SELECT …)` in a catalog query becomes the empty array: nothing here has members.
struct ArraySubqueries;

impl VisitorMut for ArraySubqueries {
    type Break = ();

    fn pre_visit_expr(&mut self, expression: &mut ast::Expr) -> ControlFlow<()> {
        if let ast::Expr::Function(function) = expression
            && matches!(function.args, ast::FunctionArguments::Subquery(_))
        {
            *expression = ast::Expr::Array(ast::Array { elem: Vec::new(), named: true });
        }
        ControlFlow::Continue(())
    }
}

/// A function that answers the same to everything.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Constant {
    name: &'static str,
    value: ScalarValue,
    signature: Signature,
}

impl ScalarUDFImpl for Constant {
    fn name(&self) -> &'static str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.value.data_type())
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Ok(ColumnarValue::Scalar(self.value.clone()))
    }
}

fn constant(name: &'static str, value: ScalarValue) -> ScalarUDF {
    let any = vec![TypeSignature::Nullary, TypeSignature::VariadicAny];
    let signature = Signature::one_of(any, Volatility::Stable);
    ScalarUDF::from(Constant { name, value, signature })
}

/// Everything here can be named without its schema.
const VISIBLE: [&str; 9] = [
    "pg_collation_is_visible",
    "pg_conversion_is_visible",
    "pg_function_is_visible",
    "pg_opclass_is_visible",
    "pg_operator_is_visible",
    "pg_opfamily_is_visible",
    "pg_statistics_obj_is_visible",
    "pg_ts_config_is_visible",
    "pg_type_is_visible",
];

/// What tools ask of objects that are not here, or that have none of it.
const UNTOLD: [&str; 11] = [
    "pg_get_function_arguments",
    "pg_get_function_identity_arguments",
    "pg_get_function_result",
    "pg_get_functiondef",
    "pg_get_indexdef",
    "pg_get_serial_sequence",
    "pg_get_triggerdef",
    "pg_get_viewdef",
    "pg_tablespace_location",
    "pg_ts_parser_is_visible",
    "shobj_description",
];

/// Sizes that nobody counts by name: `information_schema` and `SHOW VNODES` tell of bytes.
const UNCOUNTED: [&str; 4] =
    ["pg_database_size", "pg_indexes_size", "pg_table_size", "pg_tablespace_size"];

/// What a session's own functions answer.
pub(crate) struct SessionNames {
    pub(crate) tenant: String,
    pub(crate) database: String,
    pub(crate) user: String,
    pub(crate) settings: Arc<Mutex<Settings>>,
}

/// Registers PostgreSQL's information functions for a session.
pub(crate) fn register_functions(state: &mut SessionState, names: &SessionNames) -> Result<()> {
    let mut functions = vec![
        pg_catalog::create_current_schemas_udf(),
        pg_catalog::create_pg_table_is_visible(),
        pg_catalog::format_type::create_format_type_udf(),
        pg_catalog::pg_get_expr_udf::create_pg_get_expr_udf(),
        pg_catalog::create_pg_get_partkeydef_udf(),
        pg_catalog::create_pg_relation_is_publishable_udf(),
        pg_catalog::create_pg_get_statisticsobjdef_columns_udf(),
        pg_catalog::create_pg_backend_pid_udf(),
        pg_catalog::create_pg_relation_size_udf(),
        pg_catalog::create_pg_total_relation_size_udf(),
        pg_catalog::create_pg_stat_get_numscans(),
        pg_catalog::create_pg_get_constraintdef(),
        pg_catalog::create_pg_get_partition_ancestors_udf(),
        pg_catalog::quote_ident_udf::create_parse_ident_udf(),
        pg_catalog::array_bounds_udf::create_array_upper_udf(),
        pg_catalog::array_bounds_udf::create_array_lower_udf(),
    ];
    let privileges = [
        "has_table_privilege",
        "has_schema_privilege",
        "has_database_privilege",
        "has_any_column_privilege",
    ];
    functions.extend(privileges.map(pg_catalog::has_privilege_udf::create_has_privilege_udf));
    // All here belongs to the first user, in one encoding.
    functions.push(constant("pg_get_userbyid", ScalarValue::from("root")));
    functions.push(constant("pg_encoding_to_char", ScalarValue::from("UTF8")));
    functions.push(constant("pg_char_to_encoding", ScalarValue::from(6_i32)));
    functions.push(constant("getdatabaseencoding", ScalarValue::from("UTF8")));
    functions.extend(VISIBLE.map(|name| constant(name, ScalarValue::from(true))));
    functions.extend(UNTOLD.map(|name| constant(name, ScalarValue::Utf8(None))));
    functions.extend(UNCOUNTED.map(|name| constant(name, ScalarValue::Int64(None))));
    let version = format!("PostgreSQL {}", crate::settings::SERVER_VERSION);
    for (name, qualified, value) in [
        ("current_database", "pg_catalog.current_database", &names.tenant),
        ("current_catalog", "pg_catalog.current_catalog", &names.tenant),
        ("current_tenant", "pg_catalog.current_tenant", &names.tenant),
        ("current_schema", "pg_catalog.current_schema", &names.database),
        ("current_user", "pg_catalog.current_user", &names.user),
        ("session_user", "pg_catalog.session_user", &names.user),
        ("current_role", "pg_catalog.current_role", &names.user),
        ("user", "pg_catalog.user", &names.user),
        ("version", "pg_catalog.version", &version),
    ] {
        let value = ScalarValue::from(value.as_str());
        functions.push(constant(name, value).with_aliases([qualified]));
    }
    functions.extend(super::session_functions::all(&names.settings));
    for function in functions {
        state.register_udf(Arc::new(function))?;
    }
    Ok(())
}
