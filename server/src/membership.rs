//! This node among others: who it is, how it joins, and its part in the catalog.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use meta::{Command, MetaClient, MetaNode, NewNode, NodeRoles, Reply};
use model::NodeId;
use query::{Database, StageNetwork};
use replication::grpc::{GrpcTransport, Mounts, RpcServer, SECRET_BYTES_MIN, Secret};
use replication::transport::{NodeNetwork, Services, Transport};
use ring::rand::SecureRandom;
use serde::{Deserialize, Serialize};
use tskv::disk::{Disk, read_file, replace_file};

use crate::config::Config;
use crate::node::{check_reach, listen};

/// The id of whoever is alone or begins a cluster.
const FIRST: NodeId = NodeId(1);
/// The file of a data directory that says whose it is.
const NODE: &str = "node";
/// A pause before a cluster that does not answer is asked again.
const PAUSE: Duration = Duration::from_millis(500);

/// Who a data directory belongs to.
// FORMAT: docs/formats/data_directory.md, v1
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Identity {
    /// A random number, made with the directory.
    identity: String,
    /// What the cluster calls it; `None` before it has joined.
    node: Option<NodeId>,
    /// Which cluster; 0 where that is not known.
    #[serde(default)]
    cluster: u64,
}

/// This node among others.
pub(crate) struct Membership {
    node: NodeId,
    meta: MetaNode,
    rpc: Option<Rpc>,
}

/// The port for other nodes.
struct Rpc {
    network: NodeNetwork,
    transport: Arc<GrpcTransport>,
    mounts: Mounts,
    server: parking_lot::Mutex<Option<RpcServer>>,
    addr: SocketAddr,
}

impl Membership {
    /// Takes the node's place, alone or among others; the catalog can be read and changed on return.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub(crate) async fn start(config: &Config, disk: &dyn Disk) -> Result<Self, String> {
        let identity = Identity::of(disk, &config.data_dir)?;
        if config.cluster.is_joined() {
            return Self::join(config, disk, identity).await;
        }
        let node = identity.node.unwrap_or(FIRST);
        if node != FIRST {
            return Err(format!("the data directory is of node {node} of a cluster: set rpc_addr"));
        }
        let meta = MetaNode::open_alone(&config.data_dir.join("meta"), node).await;
        let meta = meta.map_err(|error| error.to_string())?;
        bootstrap(&meta.client()).await?;
        let roles = NodeRoles { meta: true, data: true, query: true };
        register(&meta.client(), &new_node(config, &identity, (FIRST, roles), "")).await?;
        let cluster = meta.client().catalog().cluster();
        identity.keep(disk, &config.data_dir, (node, cluster))?;
        Ok(Self { node, meta, rpc: None })
    }

    async fn join(config: &Config, disk: &dyn Disk, identity: Identity) -> Result<Self, String> {
        let secret = read_secret(disk, Path::new(&config.cluster.secret_file))?;
        let addr = config.rpc_addr()?;
        check_reach(addr, config)?;
        let (listener, addr) = listen(addr).await?;
        let transport = Arc::new(GrpcTransport::new(secret.clone()));
        let (services, mounts) = (Services::default(), Mounts::default());
        secret.set_cluster(identity.cluster);
        let offered = (services.clone(), mounts.clone());
        let server = RpcServer::start(listener, secret.clone(), offered);
        let network = NodeNetwork { transport: Arc::<GrpcTransport>::clone(&transport), services };
        let advertised = match config.cluster.advertised_addr.as_str() {
            "" => addr.to_string(),
            given => given.to_owned(),
        };
        let roles = config.cluster.roles()?;
        let seeds = &config.cluster.join;
        let new = |node| new_node(config, &identity, (node, roles), &advertised);
        let begins = seeds.is_empty() && identity.node.is_none_or(|node| node == FIRST);
        let node = match identity.node {
            Some(node) => node,
            None if begins => FIRST,
            None => ask_to_join(&*network.transport, seeds, &new(NodeId(0))).await?,
        };
        let cluster = if identity.cluster != 0 {
            identity.cluster
        } else if begins {
            meta::cluster_number(&identity.identity)
        } else {
            first_catalog(&*network.transport, seeds).await?.cluster()
        };
        secret.set_cluster(cluster);
        identity.keep(disk, &config.data_dir, (node, cluster))?;
        let meta = if roles.meta {
            let folder = config.data_dir.join("meta");
            let opened = MetaNode::open_member(&folder, node, begins, &network).await;
            opened.map_err(|error| error.to_string())?
        } else {
            MetaNode::follow(first_catalog(&*network.transport, seeds).await?, &network)
        };
        if begins {
            bootstrap(&meta.client()).await?;
        }
        register_with_patience(&meta.client(), &new(node), node).await?;
        meta.wait_until_ready(node).await.map_err(|error| error.to_string())?;
        let server = parking_lot::Mutex::new(Some(server));
        Ok(Self { node, meta, rpc: Some(Rpc { network, transport, mounts, server, addr }) })
    }

    /// Returns the node's id.
    pub(crate) fn node(&self) -> NodeId {
        self.node
    }

    /// Returns a client of the catalog.
    pub(crate) fn client(&self) -> MetaClient {
        self.meta.client()
    }

    /// Returns the way to other nodes, where there may be some.
    pub(crate) fn network(&self) -> Option<NodeNetwork> {
        self.rpc.as_ref().map(|rpc| rpc.network.clone())
    }

    /// Returns how the stages of queries reach other nodes, where there may be some.
    pub(crate) fn stage_network(&self) -> Option<StageNetwork> {
        let transport = Arc::clone(&self.rpc.as_ref()?.transport);
        let channel = move |node| transport.peer(node).map_err(|error| error.to_string());
        Some(StageNetwork { node: self.node, channel: Arc::new(channel) })
    }

    /// Lets other nodes send stages of queries here.
    pub(crate) fn mount_stages(&self, database: &Database) {
        if let Some((rpc, service)) = self.rpc.as_ref().zip(database.stage_service()) {
            rpc.mounts.mount(query::STAGE_SERVICE, service);
        }
    }

    /// Returns where other nodes connect.
    pub(crate) fn rpc_addr(&self) -> Option<SocketAddr> {
        self.rpc.as_ref().map(|rpc| rpc.addr)
    }

    /// Answers other nodes no more.
    pub(crate) async fn stop_serving(&self) {
        if let Some(rpc) = &self.rpc {
            rpc.network.services.withdraw_all();
            rpc.mounts.withdraw_all();
            let server = rpc.server.lock().take();
            if let Some(server) = server {
                server.close().await;
            }
        }
    }

    /// Lets go of the catalog.
    pub(crate) async fn close(self) {
        self.meta.close().await;
    }
}

/// Returns the node that a data directory is of.
///
/// # Errors
/// A directory of none.
pub(crate) fn node_of(disk: &dyn Disk, data_dir: &Path) -> Result<NodeId, String> {
    let node = Identity::read(disk, data_dir)?.and_then(|identity| identity.node);
    node.ok_or_else(|| format!("{}: no node of a cluster", data_dir.display()))
}

impl Identity {
    fn of(disk: &dyn Disk, data_dir: &Path) -> Result<Self, String> {
        if let Some(known) = Self::read(disk, data_dir)? {
            return Ok(known);
        }
        let mut random = [0; 16];
        let filled = ring::rand::SystemRandom::new().fill(&mut random);
        filled.map_err(|_| "no randomness".to_owned())?;
        let identity = format!("{:032x}", u128::from_be_bytes(random));
        let fresh = Self { identity, node: None, cluster: 0 };
        // Before anybody hears of it: a node that joined must find itself again.
        fresh.write(disk, &data_dir.join(NODE))?;
        Ok(fresh)
    }

    /// Returns what a data directory says; `None` where it says nothing yet.
    fn read(disk: &dyn Disk, data_dir: &Path) -> Result<Option<Self>, String> {
        let path = data_dir.join(NODE);
        let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        match read_file(disk, &path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| at(&error)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(at(&error)),
        }
    }

    fn keep(
        &self,
        disk: &dyn Disk,
        data_dir: &Path,
        (node, cluster): (NodeId, u64),
    ) -> Result<(), String> {
        if self.node == Some(node) && self.cluster == cluster {
            return Ok(());
        }
        let known = Self { node: Some(node), cluster, ..self.clone() };
        known.write(disk, &data_dir.join(NODE))
    }

    fn write(&self, disk: &dyn Disk, path: &Path) -> Result<(), String> {
        let at = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
        let bytes = serde_json::to_vec(self).map_err(|error| at(&error))?;
        replace_file(disk, path, &bytes).map_err(|error| at(&error))
    }
}

fn new_node(
    config: &Config,
    identity: &Identity,
    (node, roles): (NodeId, NodeRoles),
    addr: &str,
) -> NewNode {
    let name = match config.cluster.name.as_str() {
        "" => format!("node-{node}"),
        name => name.to_owned(),
    };
    NewNode {
        identity: identity.identity.clone(),
        known_as: (node.0 > 0).then_some(node),
        addr: addr.to_owned(),
        name,
        zone: config.cluster.zone.clone(),
        roles,
    }
}

fn read_secret(disk: &dyn Disk, path: &Path) -> Result<Secret, String> {
    let bytes = read_file(disk, path).map_err(|error| format!("{}: {error}", path.display()))?;
    let secret = Secret::new(bytes.trim_ascii());
    secret.ok_or_else(|| {
        format!("{}: a secret has at least {SECRET_BYTES_MIN} bytes", path.display())
    })
}

/// Asks the nodes of a cluster until one of them takes this node in.
async fn ask_to_join(
    transport: &dyn Transport,
    seeds: &[String],
    node: &NewNode,
) -> Result<NodeId, String> {
    loop {
        match meta::register(transport, seeds, node).await {
            Ok(id) => return Ok(id),
            Err(error @ meta::Error::Refused { .. }) => return Err(error.to_string()),
            Err(error) => tracing::warn!(%error, "the cluster to join does not answer yet"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn first_catalog(
    transport: &dyn Transport,
    seeds: &[String],
) -> Result<meta::Catalog, String> {
    loop {
        match meta::fetch_catalog(transport, seeds).await {
            Ok(catalog) => return Ok(catalog),
            Err(error @ meta::Error::Corrupt(_)) => return Err(error.to_string()),
            Err(error) => tracing::warn!(%error, "no node of the cluster answers yet"),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn register(client: &MetaClient, node: &NewNode) -> Result<NodeId, String> {
    match client.submit(&Command::RegisterNode(node.clone())).await {
        Ok(Reply::Node(id)) => Ok(id),
        Ok(other) => Err(format!("a node's number was asked for, not {other:?}")),
        Err(error) => Err(error.to_string()),
    }
}

/// Says where the node is now; waits while the members that keep the catalog have no quorum.
async fn register_with_patience(
    client: &MetaClient,
    new: &NewNode,
    node: NodeId,
) -> Result<(), String> {
    loop {
        match client.submit(&Command::RegisterNode(new.clone())).await {
            Ok(Reply::Node(id)) if id == node => return Ok(()),
            Ok(_) => {
                return Err(format!(
                    "the cluster does not know node {node} any more: it was removed. Start with an \
                     empty data directory to join anew"
                ));
            }
            Err(error @ meta::Error::Refused { .. }) => return Err(error.to_string()),
            Err(error) => tracing::warn!(%error, "waits for others"),
        }
    }
}

async fn bootstrap(client: &MetaClient) -> Result<(), String> {
    if client.catalog().tenants().next().is_some() {
        return Ok(());
    }
    let password = std::env::var("CNOSDB_ROOT_PASSWORD").ok().filter(|text| !text.is_empty());
    let verifier = password.as_deref().map(query::make_verifier).transpose();
    let verifier = verifier.map_err(|error| error.to_string())?;
    let made = client.submit(&Command::Bootstrap { verifier }).await;
    made.map(|_| ()).map_err(|error| error.to_string())
}
