//! The seam between nodes: calls and streams to a named service of another node.
//!
//! A service is one word; what it is asked and answers are bytes of its owner's own format.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt};
use model::{ErrorKind, NodeId};
use parking_lot::RwLock;

/// The most bytes of one message between nodes.
pub const MESSAGE_BYTES_MAX: usize = 256 << 20;

/// Why a call gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The node was not reached: nothing was done there.
    #[error("node {node} is not reached: {reason}")]
    Unreachable {
        /// Which node.
        node: NodeId,
        /// What the network says.
        reason: String,
    },
    /// The node may or may not have done what it was asked.
    #[error("no answer from node {node}: {reason}")]
    Unknown {
        /// Which node.
        node: NodeId,
        /// What the network says.
        reason: String,
    },
    /// The node answered that it cannot serve.
    #[error("{0}")]
    Refused(String),
}

impl CallError {
    /// Returns what a caller can do about it.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Unavailable
    }
}

/// What a call returns.
pub type Answer = Result<Bytes, CallError>;

/// The answers of a service that streams.
pub type Answers = BoxStream<'static, Answer>;

/// The way to other nodes.
pub trait Transport: Send + Sync + std::fmt::Debug + 'static {
    /// Asks a service of a node and waits for its answer, no longer than `patience`.
    fn call(
        &self,
        node: NodeId,
        service: &'static str,
        request: Bytes,
        patience: Duration,
    ) -> BoxFuture<'static, Answer>;

    /// Says where a node is reached; a connection to elsewhere is let go of.
    fn set_address(&self, _node: NodeId, _addr: &str) {}

    /// Asks a service of whoever listens on an address. In an error the node is named 0. A transport
    /// between nodes of known numbers refuses.
    fn call_address(
        &self,
        addr: &str,
        _service: &'static str,
        _request: Bytes,
        _patience: Duration,
    ) -> BoxFuture<'static, Answer> {
        let refused = CallError::Refused(addr.to_owned());
        async move { Err(refused) }.boxed()
    }

    /// Asks a service of a node for a stream of answers, as fast as the caller takes them. A transport
    /// of single answers refuses.
    fn stream(
        &self,
        node: NodeId,
        _service: &'static str,
        _request: Bytes,
    ) -> BoxFuture<'static, Result<Answers, CallError>> {
        async move { Err(CallError::Refused(node.to_string())) }.boxed()
    }
}

/// How a node is joined with others.
#[derive(Clone, Debug)]
pub struct NodeNetwork {
    /// The way to other nodes.
    pub transport: Arc<dyn Transport>,
    /// What this node offers them.
    pub services: Services,
}

/// What a node does for others.
pub trait Service: Send + Sync + 'static {
    /// Answers one request.
    fn call(self: Arc<Self>, request: Bytes) -> BoxFuture<'static, Answer>;

    /// Answers one request with a stream.
    fn stream(self: Arc<Self>, _request: Bytes) -> Answers {
        let refused = CallError::Refused("the service does not stream".to_owned());
        stream::once(async { Err(refused) }).boxed()
    }
}

/// The services of a node, by name. They come up one after another while the node starts.
#[derive(Clone, Default)]
pub struct Services {
    by_name: Arc<RwLock<HashMap<&'static str, Arc<dyn Service>>>>,
}

impl std::fmt::Debug for Services {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.by_name.read().keys()).finish()
    }
}

impl Services {
    /// Lets others ask a service from now on.
    pub fn offer(&self, name: &'static str, service: Arc<dyn Service>) {
        self.by_name.write().insert(name, service);
    }

    /// Ends all services.
    pub fn withdraw_all(&self) {
        self.by_name.write().clear();
    }

    fn find(&self, name: &str) -> Result<Arc<dyn Service>, CallError> {
        let found = self.by_name.read().get(name).map(Arc::clone);
        found.ok_or_else(|| CallError::Refused(format!("service {name} is not up on this node")))
    }

    /// Asks a service of this node.
    pub async fn call(&self, name: &str, request: Bytes) -> Answer {
        self.find(name)?.call(request).await
    }

    /// Asks a service of this node for a stream.
    ///
    /// # Errors
    /// A service that is not there.
    pub fn stream(&self, name: &str, request: Bytes) -> Result<Answers, CallError> {
        Ok(self.find(name)?.stream(request))
    }
}
