//! Calls to other nodes, over one connection each that is made again when it breaks.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::StreamExt;
use hyper_util::rt::TokioIo;
use model::NodeId;
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tower::service_fn;

use super::handshake::{self, Secret};
use super::{BytesCodec, CONNECTION_WINDOW, STREAM_WINDOW};
use crate::transport::{Answer, Answers, CallError, MESSAGE_BYTES_MAX, Transport};

/// How long a connection may take to come about.
const CONNECT_PATIENCE: Duration = Duration::from_secs(2);
/// A silent connection is asked for a sign of life this often, and given up as long after.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// The way to other nodes by gRPC. Clones share their connections.
#[derive(Clone)]
pub struct GrpcTransport {
    secret: Secret,
    nodes: Arc<Mutex<HashMap<NodeId, Peer>>>,
}

struct Peer {
    addr: String,
    channel: Channel,
}

impl std::fmt::Debug for GrpcTransport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let nodes = self.nodes.lock();
        f.debug_map().entries(nodes.iter().map(|(node, peer)| (node, &peer.addr))).finish()
    }
}

/// Marks what went wrong before anything was sent.
#[derive(Debug, thiserror::Error)]
#[error("connect to {addr}: {error}")]
struct NotConnected {
    addr: String,
    error: io::Error,
}

impl GrpcTransport {
    /// Makes a transport that knows no node yet.
    pub fn new(secret: Secret) -> Self {
        Self { secret, nodes: Arc::default() }
    }

    fn channel(&self, addr: &str) -> Channel {
        let secret = self.secret.clone();
        let to = addr.to_owned();
        let connect = service_fn(move |_| {
            let (secret, addr) = (secret.clone(), to.clone());
            async move {
                let connected = async {
                    let mut stream = TcpStream::connect(&addr).await?;
                    stream.set_nodelay(true)?;
                    handshake::connect(&mut stream, &secret).await?;
                    Ok(TokioIo::new(stream))
                };
                let in_time = tokio::time::timeout(CONNECT_PATIENCE, connected).await;
                let late = |_| Err(io::Error::from(io::ErrorKind::TimedOut));
                in_time.unwrap_or_else(late).map_err(|error| NotConnected { addr, error })
            }
        });
        // The connector knows where to go; the name is only for the requests' header.
        Endpoint::from_static("http://node")
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .connect_with_connector_lazy(connect)
    }

    /// Returns the connection to a node, for services with messages of their own. It is made when it is
    /// first used, and again when it breaks.
    ///
    /// # Errors
    /// A node whose address is not known.
    pub fn peer(&self, node: NodeId) -> Result<Channel, CallError> {
        let found = self.nodes.lock().get(&node).map(|peer| peer.channel.clone());
        let reason = || "its address is not known".to_owned();
        found.ok_or_else(|| CallError::Unreachable { node, reason: reason() })
    }
}

fn path(service: &str, method: &str) -> Result<PathAndQuery, CallError> {
    let path = format!("/{service}/{method}");
    path.try_into().map_err(|error| CallError::Refused(format!("service {service}: {error}")))
}

fn grpc(channel: Channel) -> tonic::client::Grpc<Channel> {
    tonic::client::Grpc::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX)
}

fn was_not_connected(status: &Status) -> bool {
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        if error.is::<NotConnected>() {
            return true;
        }
        source = error.source();
    }
    false
}

fn explain(node: NodeId, status: &Status) -> CallError {
    let mut reason = status.message().to_owned();
    let mut source = std::error::Error::source(status);
    while let Some(error) = source {
        reason = error.to_string();
        source = error.source();
    }
    if status.code() == Code::FailedPrecondition {
        CallError::Refused(status.message().to_owned())
    } else if was_not_connected(status) {
        CallError::Unreachable { node, reason }
    } else {
        CallError::Unknown { node, reason }
    }
}

async fn call(
    channel: Channel,
    node: NodeId,
    service: &'static str,
    request: Bytes,
    patience: Duration,
) -> Answer {
    let path = path(service, "call")?;
    let asked = async {
        let mut client = grpc(channel);
        let ready = client.ready().await;
        ready.map_err(|error| CallError::Unreachable { node, reason: error.to_string() })?;
        let answer = client.unary(Request::new(request), path, BytesCodec).await;
        answer.map(tonic::Response::into_inner).map_err(|status| explain(node, &status))
    };
    let late =
        |_| CallError::Unknown { node, reason: format!("none within {} ms", patience.as_millis()) };
    tokio::time::timeout(patience, asked).await.map_err(late)?
}

impl Transport for GrpcTransport {
    fn call(
        &self,
        node: NodeId,
        service: &'static str,
        request: Bytes,
        patience: Duration,
    ) -> BoxFuture<'static, Answer> {
        let channel = self.peer(node);
        async move { call(channel?, node, service, request, patience).await }.boxed()
    }

    fn set_address(&self, node: NodeId, addr: &str) {
        let mut nodes = self.nodes.lock();
        if nodes.get(&node).is_some_and(|peer| peer.addr == addr) {
            return;
        }
        let peer = Peer { addr: addr.to_owned(), channel: self.channel(addr) };
        nodes.insert(node, peer);
    }

    fn call_address(
        &self,
        addr: &str,
        service: &'static str,
        request: Bytes,
        patience: Duration,
    ) -> BoxFuture<'static, Answer> {
        call(self.channel(addr), NodeId(0), service, request, patience).boxed()
    }

    fn stream(
        &self,
        node: NodeId,
        service: &'static str,
        request: Bytes,
    ) -> BoxFuture<'static, Result<Answers, CallError>> {
        let channel = self.peer(node);
        async move {
            let path = path(service, "stream")?;
            let mut client = grpc(channel?);
            let ready = client.ready().await;
            ready.map_err(|error| CallError::Unreachable { node, reason: error.to_string() })?;
            let answers = client.server_streaming(Request::new(request), path, BytesCodec).await;
            let answers = answers.map_err(|status| explain(node, &status))?.into_inner();
            Ok(answers.map(move |one| one.map_err(|status| explain(node, &status))).boxed())
        }
        .boxed()
    }
}
