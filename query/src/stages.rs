//! Stages of a query that run on the nodes that hold the rows: what passes a filter, partial aggregates and
//! the first rows of an order travel, not all rows.
//!
//! | module   | holds                                                             |
//! |----------|-------------------------------------------------------------------|
//! | `cut`    | where a plan is cut: what lies below runs where the rows are      |
//! | `codec`  | a scan on its way                                                 |
//! | `worker` | what this node does for the stages of others                      |
//!
//! The stages, their tasks and what travels between them are datafusion-distributed's; ours is where the
//! cuts are, who runs what, and the way to other nodes. Invariant: a plan without stages gives the same
//! rows, for a scan reads any vnode from anywhere; so a query whose stage fails before its first row is
//! done once more without them.

mod codec;
mod cut;
mod worker;

use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use cluster::{Cluster, ReadFrom};
use datafusion::catalog::Session as PlanningSession;
use datafusion::common::extensions_options;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::config::{ConfigExtension, ConfigOptions};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::context::QueryPlanner;
use datafusion::execution::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::analyze::AnalyzeExec;
use datafusion::prelude::SessionConfig;
use datafusion_distributed::grpc::{BoxCloneSyncChannel, create_worker_client};
use datafusion_distributed::{
    ChannelResolver, DistributedExt, DistributedLeafExec, NetworkBoundaryExt, RouteTasksEvent,
    RouteTasksEventResponse, SessionStateBuilderExt, Worker, WorkerChannel, WorkerResolver,
};
use model::{NodeId, TenantId};
use tokio::runtime::Handle;
use tonic::codegen::http::{HeaderName, HeaderValue};
use tonic::transport::Channel;
use url::Url;

use crate::error::Error;
use crate::scan::TskvScanExec;
use cut::CutStages;
pub use worker::StageService;
use worker::{RuntimeOf, TENANT_HEADER, ZONE_HEADER};

/// The name of the service that takes stages, as the paths of its requests say.
pub const STAGE_SERVICE: &str = "worker.WorkerService";

extensions_options! {
    /// What a query says of stages.
    struct StageOptions {
        /// From how many rows on other nodes work on what they read; where nothing is said, from none.
        pub rows_min: usize, default = usize::MAX
        /// Whether any replica may be read, of what is as old in milliseconds; empty: those that lead.
        pub any_stale_ms: Option<u64>, default = None
    }
}

impl ConfigExtension for StageOptions {
    const PREFIX: &'static str = "stages";
}

/// Returns from how many rows on other nodes work on what they read: below that the rows are here sooner
/// than a plan is there.
pub(crate) fn stage_rows_min(options: &ConfigOptions) -> usize {
    options.extensions.get::<StageOptions>().map_or(usize::MAX, |options| options.rows_min)
}

/// Returns which replicas a query reads; those that lead where nothing is said.
pub(crate) fn read_from(options: &ConfigOptions) -> ReadFrom {
    let stale = options.extensions.get::<StageOptions>().and_then(|options| options.any_stale_ms);
    let any = |ms| ReadFrom::Any { stale: Duration::from_millis(ms) };
    stale.map_or(ReadFrom::Leader, any)
}

/// Lets a query of a tenant have stages, from so many rows on other nodes on, and read other replicas than
/// those that lead.
///
/// # Errors
/// None that is known.
pub(crate) fn allow(
    state: &mut SessionState,
    tenant: TenantId,
    rows_min: usize,
    from: ReadFrom,
) -> Result<()> {
    let mut config = state.config().clone();
    let any_stale_ms = match from {
        ReadFrom::Leader => None,
        ReadFrom::Any { stale } => u64::try_from(stale.as_millis()).ok(),
    };
    config.options_mut().extensions.insert(StageOptions { rows_min, any_stale_ms });
    let zone = config.options().execution.time_zone.clone().unwrap_or_default();
    let zone = HeaderValue::try_from(zone).map_err(|error| Error::internal(error.to_string()))?;
    let headers = [
        (HeaderName::from_static(ZONE_HEADER), zone),
        (HeaderName::from_static(TENANT_HEADER), HeaderValue::from(tenant.0)),
    ];
    let headers = headers.into_iter().collect();
    *state.config_mut() = config.with_distributed_passthrough_headers(headers)?;
    // Functions are made with these: of other options they would be others.
    let options = Arc::clone(state.config().options());
    state.execution_props_mut().config_options = Some(options);
    Ok(())
}

/// The way of stages to other nodes.
#[derive(Clone)]
pub struct StageNetwork {
    /// This node.
    pub node: NodeId,
    /// Gives the connection to a node, or says why there is none.
    pub channel: ChannelTo,
}

/// Gives the connection to a node, or says why there is none.
pub type ChannelTo = Arc<dyn Fn(NodeId) -> std::result::Result<Channel, String> + Send + Sync>;

/// The stages of this node's queries, and of others' that run here.
#[derive(Clone)]
pub(crate) struct Stages {
    network: StageNetwork,
    worker: Worker,
    own: Url,
}

impl std::fmt::Debug for Stages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stages").field("own", &self.own.as_str()).finish_non_exhaustive()
    }
}

impl Stages {
    /// Makes them; `template` is what sessions start from.
    ///
    /// # Errors
    /// None that is known.
    pub(crate) fn new(
        network: StageNetwork,
        template: &SessionState,
        cluster: Weak<Cluster>,
        runtime_of: RuntimeOf,
    ) -> Result<Self> {
        let own = url(network.node)?;
        let worker = worker::worker(template.clone(), cluster, runtime_of);
        Ok(Self { worker, network, own })
    }

    /// Returns what sessions start from, able to make stages.
    pub(crate) fn in_template(&self, template: SessionState) -> Result<SessionState> {
        let cut = CutStages::new(self.network.node, template.clone());
        let local = self.worker.to_local_worker_context(self.own.clone());
        let config = template
            .config()
            .clone()
            .with_distributed_worker_resolver(self.clone())
            .with_distributed_metrics_collection(false)?
            .with_distributed_channel_resolver(self.clone())
            .with_distributed_user_codec(codec::ScanCodec::sending())
            .with_distributed_local_worker_context(local)
            .with_distributed_route_tasks_handler(route);
        Ok(SessionStateBuilder::new_from_existing(template)
            .with_config(config)
            .with_physical_optimizer_rule(Arc::new(cut))
            .build())
    }

    /// Returns the service that takes stages of other nodes; they run on `threads`.
    pub(crate) fn service(&self, threads: Handle) -> StageService {
        StageService::new(self.worker.clone(), threads)
    }
}

/// Returns whether a plan has stages.
pub(crate) fn has_stages(plan: &Arc<dyn ExecutionPlan>) -> Result<bool> {
    plan.exists(|plan| Ok(plan.is_network_boundary()))
}

/// Makes a plan that was cut ready to run in a session.
///
/// # Errors
/// None that is known.
pub(crate) async fn finished(
    plan: Arc<dyn ExecutionPlan>,
    state: &mut SessionState,
) -> Result<Arc<dyn ExecutionPlan>> {
    // What was read where is told by EXPLAIN ANALYZE alone: to wait for it takes time.
    if plan.is::<AnalyzeExec>() {
        let config = state.config().clone();
        *state.config_mut() = config.with_distributed_metrics_collection(true)?;
    }
    let mut builder = SessionStateBuilder::new()
        .with_config(SessionConfig::new())
        .with_query_planner(Arc::new(Planned(plan)))
        .with_distributed_planner();
    let planner = builder.query_planner().take();
    let planner = planner.ok_or_else(|| Error::internal("a planner was just set"))?;
    planner.create_physical_plan(&LogicalPlan::default(), state).await
}

/// Gives a plan that is there already.
#[derive(Debug)]
struct Planned(Arc<dyn ExecutionPlan>);

#[async_trait]
impl QueryPlanner for Planned {
    async fn create_physical_plan(
        &self,
        _: &LogicalPlan,
        _: &dyn PlanningSession,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::clone(&self.0))
    }
}

/// The name of a node where stages are sent. The connection knows where it is.
fn url(node: NodeId) -> Result<Url> {
    let text = format!("http://node-{node}/");
    Url::parse(&text).map_err(|error| Error::internal(format!("{text}: {error}")).into())
}

fn node_of(url: &Url) -> Option<NodeId> {
    url.host_str()?.strip_prefix("node-")?.parse().ok().map(NodeId)
}

/// Sends the tasks of a stage to the nodes that read.
fn route(event: RouteTasksEvent<'_>) -> Option<Result<RouteTasksEventResponse>> {
    let mut urls = None;
    let found = event.plan.apply(|plan| {
        let Some(leaf) = plan.downcast_ref::<DistributedLeafExec>() else {
            return Ok(TreeNodeRecursion::Continue);
        };
        let node = |scan: &Arc<dyn ExecutionPlan>| {
            let node = scan.downcast_ref::<TskvScanExec>().and_then(TskvScanExec::node);
            url(node.ok_or_else(|| Error::internal("a stage reads nothing of a node"))?)
        };
        urls = Some(leaf.variants().iter().map(node).collect::<Result<Vec<Url>>>()?);
        Ok(TreeNodeRecursion::Stop)
    });
    match found {
        Ok(_) => urls.map(|urls| Ok(RouteTasksEventResponse::new(urls))),
        Err(error) => Some(Err(error)),
    }
}

impl WorkerResolver for Stages {
    fn get_urls(&self) -> Result<Vec<Url>> {
        Ok(vec![self.own.clone()])
    }
}

#[async_trait]
impl ChannelResolver for Stages {
    async fn get_worker_client_for_url(&self, url: &Url) -> Result<Box<dyn WorkerChannel>> {
        let node = node_of(url).ok_or_else(|| Error::internal(format!("{url} is no node")))?;
        let channel = (self.network.channel)(node).map_err(DataFusionError::Execution)?;
        Ok(create_worker_client(BoxCloneSyncChannel::new(channel)))
    }
}
