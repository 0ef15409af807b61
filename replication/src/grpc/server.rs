//! The port that other nodes call.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, BoxStream, StreamExt};
use parking_lot::RwLock;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::codegen::{Service as TowerService, http};
use tonic::server::{Grpc, ServerStreamingService, UnaryService};
use tonic::transport::Server;
use tonic::transport::server::Connected;
use tonic::{Request, Response, Status};
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use super::handshake::{self, Secret};
use super::{BytesCodec, CONNECTION_WINDOW, STREAM_WINDOW};
use crate::transport::{CallError, MESSAGE_BYTES_MAX, Services};

/// Connections that may be proving themselves at once.
const UNPROVEN_MAX: usize = 64;
/// How long requests under way may take once the server is told to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(3);
/// Requests given up by who asked before this node saw them: many, where it stood still for a while.
const RESET_STREAMS_MAX: usize = 4_096;
/// A pause where no connection can be taken: out of file descriptors, say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// A service with messages of its own, made elsewhere.
type GrpcService = BoxCloneSyncService<http::Request<Body>, http::Response<Body>, Infallible>;

/// Services with messages of their own that a port serves beside the others, by their full names. They
/// come up while the node starts.
#[derive(Clone, Default)]
pub struct Mounts {
    by_name: Arc<RwLock<HashMap<&'static str, GrpcService>>>,
}

impl std::fmt::Debug for Mounts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.by_name.read().keys()).finish()
    }
}

impl Mounts {
    /// Lets others ask a service from now on, `package.Service` as its requests' paths say.
    pub fn mount<S>(&self, name: &'static str, service: S)
    where
        S: TowerService<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
        S: Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        self.by_name.write().insert(name, BoxCloneSyncService::new(service));
    }

    /// Ends all services.
    pub fn withdraw_all(&self) {
        self.by_name.write().clear();
    }

    fn find(&self, name: &str) -> Option<GrpcService> {
        self.by_name.read().get(name).cloned()
    }
}

/// A running port.
#[derive(Debug)]
pub struct RpcServer {
    stop: CancellationToken,
    accepting: JoinHandle<()>,
    serving: JoinHandle<()>,
}

impl RpcServer {
    /// Serves what `services` and `mounts` offer, now and later, to whoever knows the secret.
    pub fn start(
        listener: TcpListener,
        secret: Secret,
        (services, mounts): (Services, Mounts),
    ) -> Self {
        let stop = CancellationToken::new();
        let (proven, mut connections) = mpsc::channel(UNPROVEN_MAX);
        let accepting = tokio::spawn(accept_all(listener, secret, proven, stop.clone()));
        let incoming = stream::poll_fn(move |context| connections.poll_recv(context));
        let stopped = stop.clone();
        let serving = tokio::spawn(async move {
            let server = Server::builder()
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW)
                .http2_max_pending_accept_reset_streams(Some(RESET_STREAMS_MAX))
                .http2_keepalive_interval(Some(KEEP_ALIVE))
                .http2_keepalive_timeout(Some(KEEP_ALIVE));
            let served = server.serve_with_incoming_shutdown(
                Dispatch { services, mounts },
                incoming.map(Ok::<_, Infallible>),
                async move { stopped.cancelled().await },
            );
            if let Err(error) = served.await {
                tracing::error!(%error, "the port for other nodes failed");
            }
        });
        Self { stop, accepting, serving }
    }

    /// Takes no more calls; those under way get a moment.
    pub async fn close(mut self) {
        self.stop.cancel();
        self.accepting.abort();
        if tokio::time::timeout(STOP_PATIENCE, &mut self.serving).await.is_err() {
            self.serving.abort();
        }
    }
}

async fn accept_all(
    listener: TcpListener,
    secret: Secret,
    proven: mpsc::Sender<Proven>,
    stop: CancellationToken,
) {
    let unproven = Arc::new(Semaphore::new(UNPROVEN_MAX));
    loop {
        let Ok(place) = Arc::clone(&unproven).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let (mut stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "a connection of another node is not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (secret, proven) = (secret.clone(), proven.clone());
        tokio::spawn(async move {
            let _place = place;
            let shaken = async {
                stream.set_nodelay(true)?;
                handshake::accept(&mut stream, &secret).await
            };
            if let Err(error) = shaken.await {
                tracing::warn!(%from, %error, "a connection to the port for nodes is refused");
            } else if proven.send(Proven { stream, from }).await.is_err() {
                tracing::debug!("the port for nodes is closed");
            }
        });
    }
}

/// A connection whose other end knows the secret.
struct Proven {
    stream: TcpStream,
    from: SocketAddr,
}

impl Connected for Proven {
    type ConnectInfo = SocketAddr;

    fn connect_info(&self) -> SocketAddr {
        self.from
    }
}

impl AsyncRead for Proven {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Proven {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

fn status(error: CallError) -> Status {
    Status::failed_precondition(error.to_string())
}

/// Finds the service a request names.
#[derive(Clone)]
struct Dispatch {
    services: Services,
    mounts: Mounts,
}

impl TowerService<http::Request<Body>> for Dispatch {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (services, mounts) = (self.services.clone(), self.mounts.clone());
        async move {
            let path = request.uri().path().to_owned();
            let (name, method) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
            if let Some(mounted) = mounts.find(name) {
                return mounted.oneshot(request).await;
            }
            let asked = Asked { services, name: name.to_owned() };
            let mut grpc = Grpc::new(BytesCodec)
                .max_decoding_message_size(MESSAGE_BYTES_MAX)
                .max_encoding_message_size(MESSAGE_BYTES_MAX);
            Ok(match method {
                "call" => grpc.unary(asked, request).await,
                "stream" => grpc.server_streaming(asked, request).await,
                _ => Status::unimplemented(path).into_http(),
            })
        }
        .boxed()
    }
}

/// One request to one service.
struct Asked {
    services: Services,
    name: String,
}

impl UnaryService<Bytes> for Asked {
    type Response = Bytes;
    type Future = BoxFuture<'static, Result<Response<Bytes>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let (services, name) = (self.services.clone(), std::mem::take(&mut self.name));
        async move {
            let answer = services.call(&name, request.into_inner()).await;
            answer.map(Response::new).map_err(status)
        }
        .boxed()
    }
}

impl ServerStreamingService<Bytes> for Asked {
    type Response = Bytes;
    type ResponseStream = BoxStream<'static, Result<Bytes, Status>>;
    type Future = BoxFuture<'static, Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let answers = self.services.stream(&self.name, request.into_inner());
        let answers = answers.map(|answers| answers.map(|one| one.map_err(status)).boxed());
        async move { answers.map(Response::new).map_err(status) }.boxed()
    }
}
