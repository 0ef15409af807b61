//! Sockets, TLS, routes, and the stop that finishes what was begun.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::{MethodRouter, get, post};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use query::Database;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::auth::Doorkeeper;
use crate::body::Bodies;
use crate::metrics::Metrics;
use crate::route::{Purpose, Routes};
use crate::sockets::{Port, accept};
use crate::{metrics, opentsdb, pack, profile, prometheus, request_id, route, sql, write};

/// How long a TLS handshake may take.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
/// How long the headers of a request may take, and a connection may be idle before them.
const HEADERS_PATIENCE: Duration = Duration::from_secs(60);
/// The most bytes of the headers of a request; more is 431.
const HEADERS_BYTES_MAX: usize = 32 << 10;

/// Settings of the front end.
#[derive(Clone)]
pub struct HttpConfig {
    /// Connections at once.
    pub connections_max: usize,
    /// Bytes of bodies that are held at once.
    pub bodies_bytes_max: usize,
    /// Encrypts all connections.
    pub tls: Option<TlsAcceptor>,
}

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) doorkeeper: Doorkeeper,
    pub(crate) database: Arc<Database>,
    pub(crate) metrics: Metrics,
    pub(crate) bodies: Bodies,
}

/// Who a connection is with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerAddr(pub(crate) SocketAddr);

/// Returns all paths that are served, what for, and by what.
fn routes() -> Vec<(&'static str, Purpose, MethodRouter<Arc<Shared>>)> {
    use Purpose::{Query, Watch, Write};
    vec![
        ("/api/v1/write", Write, post(write::write)),
        ("/write", Write, post(write::influx_write)),
        ("/api/v2/write", Write, post(write::influx_write)),
        ("/api/v1/prom/write", Write, post(prometheus::write)),
        ("/api/v1/prom/read", Query, post(prometheus::read)),
        ("/api/v1/opentsdb/write", Write, post(opentsdb::lines)),
        ("/api/v1/opentsdb/put", Write, post(opentsdb::put)),
        ("/api/put", Write, post(opentsdb::put)),
        ("/api/version", Watch, get(opentsdb::version)),
        ("/api/v1/sql", Query, post(sql::run)),
        ("/api/v1/dump/sql/ddl", Query, get(sql::dump_ddl)),
        ("/metrics", Watch, get(metrics::scrape)),
        ("/debug/pprof/profile", Watch, get(profile::cpu)),
        ("/api/v1/ping", Watch, get(sql::ping)),
        ("/ping", Watch, get(sql::influx_ping)),
    ]
}

/// The running front end.
pub struct HttpServer(Port);

impl HttpServer {
    /// Serves clients of `listener` until it is closed.
    pub fn start(listener: TcpListener, database: Arc<Database>, config: HttpConfig) -> Self {
        let routes = routes();
        let known = routes.iter().map(|(path, purpose, _)| (*path, *purpose)).collect();
        let metrics = Metrics::default();
        let doorkeeper = Doorkeeper::new(Arc::clone(&database));
        let counted = Routes { known, metrics: metrics.clone() };
        let bodies = Bodies::new(config.bodies_bytes_max);
        let routes = routes
            .into_iter()
            .fold(Router::new(), |all, (path, _, route)| all.route(path, route))
            .layer(from_fn(pack::answers))
            .layer(from_fn_with_state(counted, route::count))
            .layer(from_fn(request_id::name))
            .with_state(Arc::new(Shared { doorkeeper, database, metrics, bodies }));
        Self(Port::open(|stop| serve(listener, routes, config, stop)))
    }

    /// Takes no more requests, and waits for those that were begun.
    pub async fn close(self) {
        self.0.close().await;
    }
}

async fn serve(listener: TcpListener, routes: Router, config: HttpConfig, stop: CancellationToken) {
    let graceful = GracefulShutdown::new();
    accept(listener, config.connections_max, &stop, |tcp, peer| {
        let (routes, tls, watcher) = (routes.clone(), config.tls.clone(), graceful.watcher());
        async move {
            let Some(tls) = tls else { return connection(tcp, peer, routes, watcher).await };
            let shaken = tokio::time::timeout(HANDSHAKE_PATIENCE, tls.accept(tcp)).await;
            if let Ok(Ok(stream)) = shaken {
                connection(stream, peer, routes, watcher).await;
            }
        }
    })
    .await;
    graceful.shutdown().await;
}

/// Serves the requests of one connection.
async fn connection<S>(stream: S, peer: SocketAddr, routes: Router, watcher: Watcher)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(PeerAddr(peer));
        routes.clone().oneshot(request.map(Body::new))
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_PATIENCE)
        .max_buf_size(HEADERS_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = watcher.watch(served).await {
        tracing::debug!(%peer, %error, "a connection ended early");
    }
}
