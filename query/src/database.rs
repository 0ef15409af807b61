//! What all sessions share, and who may connect.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use cluster::Cluster;
use datafusion::error::DataFusionError;
use datafusion::execution::cache::cache_manager::CacheManagerConfig;
use datafusion::execution::config::SessionConfig;
use datafusion::execution::disk_manager::{DiskManagerBuilder, DiskManagerMode};
use datafusion::execution::memory_pool::{FairSpillPool, TrackConsumersPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionState, SessionStateBuilder, SessionStateDefaults};
use meta::{Catalog, MetaClient, Tenant, User};
use model::Clock;
use model::schema::TIME_ZONE;
use tokio::runtime::Handle;

use crate::access::{Identity, may_enter};
use crate::audit::Audit;
use crate::error::{Error, Result};
use crate::files::FilesConfig;
use crate::key_pairs::PublicKey;
use crate::logins::Logins;
use crate::plan_cache::PlanCache;
use crate::quotas::Quotas;
use crate::running::AllRunning;
use crate::scram::Verifier;
use crate::session::{Entry, Session};
use crate::stages::{StageNetwork, StageService, Stages};
use crate::usage::Usage;

/// The tenant and the database that everyone starts with.
const DEFAULT_TENANT: &str = "cnosdb";
const DEFAULT_DATABASE: &str = "public";
/// Consumers named when memory runs out.
const CONSUMERS_NAMED: std::num::NonZeroUsize =
    std::num::NonZeroUsize::new(5).expect("five is not zero");

/// Settings of query processing.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// Bytes of memory all queries share; what does not fit spills to disk.
    pub memory_bytes: usize,
    /// Bytes of disk all queries may spill to.
    pub spill_bytes: u64,
    /// Where they spill.
    pub spill_dir: PathBuf,
    /// Which files outside of the database they may use.
    pub files: FilesConfig,
    /// The file of the audit log.
    pub audit: PathBuf,
}

/// The database, as front ends see it.
#[derive(Debug)]
pub struct Database {
    meta: MetaClient,
    cluster: Arc<Cluster>,
    clock: Arc<dyn Clock>,
    template: SessionState,
    threads: Handle,
    running: Arc<AllRunning>,
    usage: Usage,
    files: FilesConfig,
    logins: Logins,
    audit: Audit,
    quotas: Arc<Quotas>,
    /// What part of queries other nodes do; `None` where there are none.
    stages: Option<Stages>,
    plans: PlanCache,
}

impl Database {
    /// Joins catalog and data. `threads` run the queries; they should be none that serve clients.
    /// `network` leads to the nodes that do part of them, where there are others.
    ///
    /// # Errors
    /// A spill folder that cannot be used.
    pub fn new(
        (meta, cluster): (MetaClient, Arc<Cluster>),
        clock: Arc<dyn Clock>,
        config: &DatabaseConfig,
        threads: Handle,
        network: Option<StageNetwork>,
    ) -> Result<Arc<Self>> {
        let mut template = template(config)?;
        let quotas = Arc::<Quotas>::default();
        let stages = |network| {
            let (meta, quotas) = (meta.clone(), Arc::clone(&quotas));
            let shared = Arc::clone(template.runtime_env());
            let runtime_of = move |tenant| match meta.catalog().tenant_by_id(tenant) {
                Some(tenant) => quotas.runtime(&shared, tenant),
                None => Arc::clone(&shared),
            };
            Stages::new(network, &template, Arc::downgrade(&cluster), Arc::new(runtime_of))
        };
        let stages = network.map(stages).transpose()?;
        if let Some(stages) = &stages {
            template = stages.in_template(template)?;
        }
        let (running, usage) = (Arc::default(), Usage::default());
        Ok(Arc::new(Self {
            meta,
            cluster,
            clock,
            template,
            threads,
            running,
            usage,
            files: config.files.clone(),
            logins: Logins::default(),
            audit: Audit::open(&config.audit)?,
            quotas,
            stages,
            plans: PlanCache::default(),
        }))
    }

    /// Returns the service that takes stages of other nodes' queries, where there are others.
    pub fn stage_service(&self) -> Option<StageService> {
        Some(self.stages.as_ref()?.service(self.threads.clone()))
    }

    /// Returns whether other nodes may do part of a query.
    pub(crate) fn has_stages(&self) -> bool {
        self.stages.is_some()
    }

    /// Refuses who failed to log in too often to try again so soon.
    ///
    /// # Errors
    /// 53400, which says how long to wait.
    pub fn check_login(&self, user: &str, from: IpAddr) -> Result<()> {
        let checked = self.logins.check(user, from);
        if checked.is_err() {
            self.audit.login(self.now_ns(), user, from, "53400");
        }
        checked
    }

    /// Notes how a login by password ended.
    pub fn note_login(&self, user: &str, from: IpAddr, succeeded: bool) {
        self.logins.note(user, from, succeeded);
        self.audit.login(self.now_ns(), user, from, if succeeded { "ok" } else { "28P01" });
    }

    pub(crate) fn plans(&self) -> &PlanCache {
        &self.plans
    }

    pub(crate) fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    pub(crate) fn audit(&self) -> &Audit {
        &self.audit
    }

    pub(crate) fn running(&self) -> &Arc<AllRunning> {
        &self.running
    }

    pub(crate) fn usage(&self) -> &Usage {
        &self.usage
    }

    pub(crate) fn files(&self) -> &FilesConfig {
        &self.files
    }

    pub(crate) fn query_threads(&self) -> &Handle {
        &self.threads
    }

    pub(crate) fn meta(&self) -> &MetaClient {
        &self.meta
    }

    pub(crate) fn catalog(&self) -> Arc<Catalog> {
        self.meta.catalog()
    }

    pub(crate) fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// Returns the time now, nanoseconds since the epoch.
    pub fn now_ns(&self) -> i64 {
        self.clock.now_ns()
    }

    pub(crate) fn template(&self) -> &SessionState {
        &self.template
    }

    /// Returns the verifier of a user's password: `None` where there is no such user, `Some(None)`
    /// where it has no password.
    pub fn verifier(&self, user: &str) -> Option<Option<Verifier>> {
        let catalog = self.catalog();
        let user = catalog.user(user)?;
        // Who has a key proves to be the user by that.
        let verifier = user.verifier.as_deref();
        let verifier = verifier.or(user.rsa_public_key.as_ref().map(|_| ""));
        Some(verifier.map(|text| {
            // One that cannot be read lets nobody in.
            let unusable = || Verifier {
                iterations: 1,
                salt: Vec::new(),
                stored_key: vec![0; 32],
                server_key: vec![0; 32],
            };
            Verifier::parse(text).unwrap_or_else(unusable)
        }))
    }

    /// Returns the public key of a user who has one.
    pub fn public_key(&self, user: &str) -> Option<PublicKey> {
        let catalog = self.catalog();
        PublicKey::parse(catalog.user(user)?.rsa_public_key.as_deref()?).ok()
    }

    /// Opens a session for a user who has proved to be that user. `name` is what the client calls the
    /// database, `tenant` what it chose besides.
    ///
    /// # Errors
    /// 3D000 where the name resolves to nothing the user may enter.
    pub fn connect(
        self: &Arc<Self>,
        user: &str,
        name: &str,
        tenant: Option<&str>,
    ) -> Result<Session> {
        let catalog = self.catalog();
        let Some(user) = catalog.user(user) else {
            return Err(Error::new("28000", format!("role \"{user}\" does not exist")));
        };
        let found = match tenant {
            Some(tenant) => enter(&catalog, user, tenant).map(|found| {
                let named = catalog.database(found.id, name).map(|database| database.name.clone());
                (found, tenant.to_owned(), named.unwrap_or_else(|| DEFAULT_DATABASE.to_owned()))
            }),
            None => resolve(&catalog, user, name),
        };
        let Some((tenant, entered_as, database)) = found else {
            return Err(Error::new("3D000", format!("database \"{name}\" does not exist")));
        };
        let identity = Identity { user: user.id, tenant: tenant.id };
        let entry = Entry { identity, user: user.name.clone(), tenant: entered_as, database };
        Session::new(Arc::clone(self), entry)
    }
}

fn enter<'a>(catalog: &'a Catalog, user: &User, name: &str) -> Option<&'a Tenant> {
    catalog.tenant(name).map(AsRef::as_ref).filter(|tenant| may_enter(user, tenant))
}

/// Resolves the name of a connection, in the order of docs/guide/connect.md: a tenant;
/// `tenant.database`; a database of the default tenant; `postgres` or the user's own name.
fn resolve<'a>(
    catalog: &'a Catalog,
    user: &User,
    name: &str,
) -> Option<(&'a Tenant, String, String)> {
    let default = || DEFAULT_DATABASE.to_owned();
    if let Some(tenant) = enter(catalog, user, name) {
        return Some((tenant, name.to_owned(), default()));
    }
    if let Some((tenant, database)) = name.split_once('.')
        && let Some(found) = enter(catalog, user, tenant)
    {
        // The database need not be there yet: its first use will say so.
        return Some((found, tenant.to_owned(), database.to_owned()));
    }
    let tenant = enter(catalog, user, DEFAULT_TENANT)?;
    if catalog.database(tenant.id, name).is_some() {
        return Some((tenant, DEFAULT_TENANT.to_owned(), name.to_owned()));
    }
    (name == "postgres" || name == user.name).then(|| (tenant, name.to_owned(), default()))
}

/// Builds what every session starts from: functions, rules and the shared memory.
fn template(config: &DatabaseConfig) -> Result<SessionState> {
    let pool = FairSpillPool::new(config.memory_bytes);
    let disk = DiskManagerBuilder::default()
        .with_mode(DiskManagerMode::Directories(vec![config.spill_dir.clone()]))
        .with_max_temp_directory_size(config.spill_bytes);
    // What a file holds is asked anew: a cache knows files by their paths alone, whose store is another's.
    let caches = CacheManagerConfig::default()
        .with_metadata_cache_limit(0)
        .with_list_files_cache_limit(0)
        .with_file_statistics_cache_limit(0);
    let runtime = RuntimeEnvBuilder::new()
        .with_cache_manager(caches)
        .with_memory_pool(Arc::new(TrackConsumersPool::new(pool, CONSUMERS_NAMED)))
        .with_disk_manager_builder(disk)
        .build_arc()?;
    let mut session = SessionConfig::new()
        .with_create_default_catalog_and_schema(false)
        .with_information_schema(false)
        .with_collect_statistics(false)
        .with_prefer_existing_sort(true);
    let options = session.options_mut();
    options.sql_parser.dialect = datafusion::config::Dialect::PostgreSQL;
    options.sql_parser.map_string_types_to_utf8view = false;
    options.execution.time_zone = Some(TIME_ZONE.to_owned());
    // A few rows are not worth another thread, though their number is an estimate.
    options.execution.use_row_number_estimates_to_optimize_partitioning = true;
    options.explain.show_statistics = false;
    let mut planners = SessionStateDefaults::default_expr_planners();
    planners.insert(0, Arc::new(crate::functions::IntervalScaling));
    // Only what computes: no file formats, no table factories, no way to files of the server.
    let state = SessionStateBuilder::new()
        .with_config(session)
        .with_runtime_env(runtime)
        .with_expr_planners(planners)
        .with_scalar_functions(crate::functions::scalar())
        .with_aggregate_functions(crate::functions::aggregate())
        .with_window_functions(SessionStateDefaults::default_window_functions())
        .with_table_function_list(SessionStateDefaults::default_table_functions())
        .with_type_planner(Arc::new(crate::types::PgTypes))
        .with_analyzer_rule(Arc::new(crate::empty_subqueries::EmptySubqueries))
        .with_analyzer_rule(Arc::new(crate::zones::Instants))
        .with_analyzer_rule(Arc::new(crate::correlated::CorrelatedKeys))
        .with_analyzer_rule(Arc::new(crate::exact_numbers::ExactNumbers))
        .with_analyzer_rule(Arc::new(crate::text_casts::TextCasts))
        .with_analyzer_rule(Arc::new(crate::functions::windows::SlidingWindows))
        .with_analyzer_rule(Arc::new(crate::gap_fill::GapFilling))
        .with_analyzer_rule(Arc::new(crate::distinct_on::NewestRows))
        .with_analyzer_rule(Arc::new(crate::as_of::AsOfJoins))
        .with_optimizer_rule(Arc::new(crate::lossy_casts::LossyCasts))
        .with_query_planner(Arc::new(crate::extensions::Planner))
        .with_physical_optimizer_rule(Arc::new(crate::last_rows::LastRows))
        .with_physical_optimizer_rule(Arc::new(crate::held_rows::HeldRows))
        .with_physical_optimizer_rule(Arc::new(crate::known_groups::KnownGroups))
        .with_physical_optimizer_rule(Arc::new(crate::stretches::Stretches))
        .build();
    Ok::<_, DataFusionError>(state).map_err(Error::from)
}
