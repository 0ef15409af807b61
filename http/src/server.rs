//! Sockets, TLS, routes, and the stop that finishes what was begun.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::extract::connect_info::Connected;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodRouter, get, post};
use axum::serve::{IncomingStream, Listener};
use query::Database;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::auth::Doorkeeper;
use crate::body::BODY_BYTES_MAX;
use crate::metrics::Metrics;
use crate::{metrics, opentsdb, prometheus, sql, write};

/// How long a TLS handshake may take.
const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
/// Connections whose handshake is done and that wait to be served.
const READY_MAX: usize = 64;
/// How long requests may take to end when the server stops.
const STOP_PATIENCE: Duration = Duration::from_secs(3);
/// How long to wait when the system gives no socket.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Settings of the front end.
#[derive(Clone)]
pub struct HttpConfig {
    /// Connections at once.
    pub connections_max: usize,
    /// Encrypts all connections.
    pub tls: Option<TlsAcceptor>,
}

/// What all requests share.
pub(crate) struct Shared {
    pub(crate) doorkeeper: Doorkeeper,
    pub(crate) database: Arc<Database>,
    pub(crate) metrics: Metrics,
}

/// Returns all paths that are served, and by what.
fn routes() -> Vec<(&'static str, MethodRouter<Arc<Shared>>)> {
    vec![
        ("/api/v1/write", post(write::write)),
        ("/write", post(write::influx_write)),
        ("/api/v2/write", post(write::influx_write)),
        ("/api/v1/prom/write", post(prometheus::write)),
        ("/api/v1/prom/read", post(prometheus::read)),
        ("/api/v1/opentsdb/write", post(opentsdb::lines)),
        ("/api/v1/opentsdb/put", post(opentsdb::put)),
        ("/api/put", post(opentsdb::put)),
        ("/api/v1/sql", post(sql::run)),
        ("/metrics", get(metrics::scrape)),
        ("/api/v1/ping", get(sql::ping)),
        ("/ping", get(sql::influx_ping)),
    ]
}

/// The running front end.
pub struct HttpServer {
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl HttpServer {
    /// Serves clients of `listener` until it is closed.
    pub fn start(listener: TcpListener, database: Arc<Database>, config: HttpConfig) -> Self {
        let routes = routes();
        let metrics = Metrics::of(routes.iter().map(|(path, _)| *path).collect());
        let doorkeeper = Doorkeeper::new(Arc::clone(&database));
        let shared = Arc::new(Shared { doorkeeper, database, metrics: metrics.clone() });
        let routes = routes
            .into_iter()
            .fold(Router::new(), |all, (path, route)| all.route(path, route))
            .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
            .layer(from_fn_with_state(metrics, metrics::count))
            .with_state(shared);
        let stop = CancellationToken::new();
        let listener = Sockets::new(listener, config, stop.clone());
        let service = routes.into_make_service_with_connect_info::<PeerAddr>();
        let stopped = stop.clone();
        let serving = tokio::spawn(async move {
            let served = axum::serve(listener, service);
            let served = served.with_graceful_shutdown(stopped.cancelled_owned());
            if let Err(error) = served.await {
                tracing::error!(%error, "the http front end failed");
            }
        });
        Self { stop, serving }
    }

    /// Takes no more requests, and waits for those that were begun.
    pub async fn close(self) {
        self.stop.cancel();
        let mut serving = self.serving;
        if tokio::time::timeout(STOP_PATIENCE, &mut serving).await.is_err() {
            serving.abort();
        }
    }
}

/// The sockets of clients, encrypted or not.
struct Sockets {
    ready: mpsc::Receiver<(Socket, SocketAddr)>,
    local: std::io::Result<SocketAddr>,
    _accepting: JoinHandle<()>,
}

impl Sockets {
    fn new(listener: TcpListener, config: HttpConfig, stop: CancellationToken) -> Self {
        let (sender, ready) = mpsc::channel(READY_MAX);
        let local = listener.local_addr();
        let accepting = tokio::spawn(accept(listener, config, sender, stop));
        Self { ready, local, _accepting: accepting }
    }
}

/// Accepts, and shakes hands beside accepting: a slow client holds up nobody.
async fn accept(
    listener: TcpListener,
    config: HttpConfig,
    ready: mpsc::Sender<(Socket, SocketAddr)>,
    stop: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(config.connections_max));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (tcp, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!(%peer, "too many http connections");
            continue;
        };
        let (ready, tls) = (ready.clone(), config.tls.clone());
        tokio::spawn(async move {
            let stream = match tls {
                None => Stream::Plain(tcp),
                Some(tls) => {
                    let shaken = tokio::time::timeout(HANDSHAKE_PATIENCE, tls.accept(tcp)).await;
                    let Ok(Ok(stream)) = shaken else { return };
                    Stream::Tls(Box::new(stream))
                }
            };
            if ready.send((Socket { stream, _permit: permit }, peer)).await.is_err() {
                tracing::debug!(%peer, "came while the server stops");
            }
        });
    }
}

impl Listener for Sockets {
    type Io = Socket;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Socket, SocketAddr) {
        match self.ready.recv().await {
            Some(socket) => socket,
            // Nobody accepts any more: the server stops, and drops this future.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        match &self.local {
            Ok(addr) => Ok(*addr),
            Err(error) => Err(std::io::Error::new(error.kind(), error.to_string())),
        }
    }
}

impl Connected<IncomingStream<'_, Sockets>> for PeerAddr {
    fn connect_info(stream: IncomingStream<'_, Sockets>) -> Self {
        Self(*stream.remote_addr())
    }
}

/// Who a connection is with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PeerAddr(pub(crate) SocketAddr);

/// A connection, and its place among those allowed.
struct Socket {
    stream: Stream,
    _permit: OwnedSemaphorePermit,
}

enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Stream::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Stream::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_flush(context),
            Stream::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        match &mut self.stream {
            Stream::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Stream::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
