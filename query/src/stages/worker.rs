//! What this node does for the stages of other nodes' queries.

use std::convert::Infallible;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use async_trait::async_trait;
use cluster::Cluster;
use datafusion::common::Result;
use datafusion::execution::SessionState;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion_distributed::{DistributedExt, Worker, WorkerQueryContext, WorkerSessionBuilder};
use futures::FutureExt;
use futures::future::BoxFuture;
use model::TenantId;
use tokio::runtime::Handle;
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::{Service, http};

use super::codec::ScanCodec;
use crate::error::Error;

/// What a request says of its session's time zone.
pub(super) const ZONE_HEADER: &str = "x-cnosdb-time-zone";
/// What a request says of whose query it is: memory is counted as that tenant's.
pub(super) const TENANT_HEADER: &str = "x-cnosdb-tenant";
/// Gives the memory of a tenant's queries.
pub(super) type RuntimeOf = Arc<dyn Fn(TenantId) -> Arc<RuntimeEnv> + Send + Sync>;
/// The most bytes of a plan.
const PLAN_BYTES_MAX: usize = 64 << 20;

/// Makes what runs stages.
pub(super) fn worker(
    template: SessionState,
    cluster: Weak<Cluster>,
    runtime_of: RuntimeOf,
) -> Worker {
    let runtime = Arc::clone(template.runtime_env());
    Worker::from_session_builder(StageSessions { template, cluster, runtime_of })
        .with_runtime_env(runtime)
        .with_version(env!("CARGO_PKG_VERSION"))
}

/// Makes the session of a stage: the functions and the options that its plan was made with.
struct StageSessions {
    template: SessionState,
    cluster: Weak<Cluster>,
    runtime_of: RuntimeOf,
}

#[async_trait]
impl WorkerSessionBuilder for StageSessions {
    async fn build_session_state(&self, context: WorkerQueryContext) -> Result<SessionState> {
        let WorkerQueryContext { mut builder, headers } = context;
        let mut config = builder.config().take().unwrap_or_default();
        let options = config.options_mut();
        let extensions = std::mem::take(&mut options.extensions);
        options.clone_from(self.template.config_options());
        options.extensions = extensions;
        let told = |name| headers.get(name).and_then(|value| value.to_str().ok());
        if let Some(zone) = told(ZONE_HEADER) {
            options.execution.time_zone = Some(zone.to_owned());
        }
        let tenant = told(TENANT_HEADER).and_then(|id| id.parse().ok()).map(TenantId);
        let tenant = tenant.ok_or_else(|| Error::internal("a stage of no tenant"))?;
        let template = &self.template;
        Ok(builder
            .with_config(config)
            .with_runtime_env((self.runtime_of)(tenant))
            .with_scalar_functions(template.scalar_functions().values().cloned().collect())
            .with_aggregate_functions(template.aggregate_functions().values().cloned().collect())
            .with_window_functions(template.window_functions().values().cloned().collect())
            .with_distributed_user_codec(ScanCodec::receiving(Weak::clone(&self.cluster)))
            .build())
    }
}

/// Takes stages of other nodes. They run on the threads of queries: none of the network's waits for them.
#[derive(Clone)]
pub struct StageService {
    worker: Worker,
    threads: Handle,
}

impl StageService {
    pub(super) fn new(worker: Worker, threads: Handle) -> Self {
        Self { worker, threads }
    }
}

impl Service<http::Request<Body>> for StageService {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, std::result::Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::result::Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let server = self.worker.clone().into_worker_server();
        let mut server = server.max_decoding_message_size(PLAN_BYTES_MAX);
        let answered = self.threads.spawn(async move { server.call(request).await });
        async move {
            answered
                .await
                .unwrap_or_else(|error| Ok(Status::internal(error.to_string()).into_http()))
        }
        .boxed()
    }
}
