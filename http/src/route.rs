//! The route that a request goes by, and the counting of what it moves: for `/metrics` by route, for
//! `usage_schema` by who asks besides.

use std::sync::{Arc, OnceLock};

use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use futures::StreamExt;
use query::{Admission, RouteUsage};
use tokio::time::Instant;

use crate::failure::Failure;
use crate::metrics::Metrics;

/// What a route is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Rows in.
    Write,
    /// Rows out.
    Query,
    /// To watch the server; it is nobody's usage.
    Watch,
}

/// Where requests go that go nowhere: whoever asks must not make numbers without end.
const OTHER: &str = "other";

/// The route of a request.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) path: &'static str,
    pub(crate) purpose: Purpose,
    /// The counters of who asks, once that is known, and what may be asked for.
    asking: Arc<OnceLock<Asking>>,
}

/// Who asks.
#[derive(Clone, Debug)]
struct Asking {
    usage: RouteUsage,
    admission: Admission,
}

impl Route {
    /// Counts a request of somebody who is known, and the bytes of its body as it came.
    ///
    /// # Errors
    /// 429 where the tenant has used up what it may ask for.
    pub(crate) async fn asked(
        &self,
        session: &query::Session,
        bytes: usize,
    ) -> Result<(), Failure> {
        if self.purpose == Purpose::Watch {
            return Ok(());
        }
        let asking = self.asking.get_or_init(|| Asking {
            usage: session.route_usage(self.path),
            admission: session.admission(),
        });
        let writes = self.purpose == Purpose::Write;
        asking.usage.asked(writes, bytes);
        Ok(asking.admission.request(writes, bytes).await?)
    }
}

/// What counting needs.
#[derive(Clone)]
pub(crate) struct Routes {
    pub(crate) known: Arc<[(&'static str, Purpose)]>,
    pub(crate) metrics: Metrics,
}

/// Counts a request and its answer.
pub(crate) async fn count(
    State(routes): State<Routes>,
    mut request: Request,
    next: Next,
) -> Response {
    let asked = request.uri().path();
    let known = routes.known.iter().find(|(path, _)| *path == asked);
    let (path, purpose) = known.copied().unwrap_or((OTHER, Purpose::Watch));
    let route = Route { path, purpose, asking: Arc::default() };
    request.extensions_mut().insert(route.clone());
    let begun = Instant::now();
    let response = next.run(request).await;
    routes.metrics.answered(path, response.status(), begun.elapsed());
    match route.asking.get() {
        Some(asking) => counted(response, asking.clone()),
        None => response,
    }
}

/// Counts the bytes of an answer as they go.
fn counted(response: Response, Asking { usage, admission }: Asking) -> Response {
    let count = move |bytes: usize| {
        usage.answered(bytes);
        admission.answered(bytes);
    };
    if let Some(size) = response.body().size_hint().exact() {
        count(size as usize);
        return response;
    }
    response.map(|body| {
        Body::from_stream(body.into_data_stream().inspect(move |piece| {
            if let Ok(bytes) = piece {
                count(bytes.len());
            }
        }))
    })
}
