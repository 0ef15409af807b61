//! A node's part in the catalog: a member of the meta group, or a follower of one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use model::NodeId;
use replication::transport::{CallError, NodeNetwork, Transport};
use replication::{Group, GroupConfig, HoldsGroup, Members, Network, Origin, Purge, RaftService};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::catalog::Catalog;
use crate::client::MetaClient;
use crate::command::{Command, NewNode, Reply};
use crate::error::{Error, Result};
use crate::machine::{MetaMachine, catalog_of, changed};
use crate::service::{
    COMMAND_PATIENCE, Event, META, MetaService, Request, Response, decode, encode,
};
use crate::store::MetaStore;

/// The service that meta members speak to each other by.
const META_RAFT: &str = "meta-raft";
/// The most members; more nodes than these follow.
const MEMBERS_MAX: usize = 5;
/// How often the member that leads looks who should be one.
const ROUND: Duration = Duration::from_millis(500);
/// The log of a member is purged when it has so many entries that a snapshot does not cover.
const LOG_ENTRIES: u64 = 1_000;
/// How long a new member may take to have the catalog.
const JOIN_PATIENCE: Duration = Duration::from_secs(60);
/// A pause before another member is asked.
const PAUSE: Duration = Duration::from_millis(200);

/// A node's part in the catalog.
#[derive(Debug)]
pub struct MetaNode {
    group: Option<Arc<Group>>,
    client: MetaClient,
    tasks: Vec<JoinHandle<()>>,
}

impl MetaNode {
    /// Opens the only member, whose data is in `folder`; it leads when this returns.
    ///
    /// # Errors
    /// A folder in use, damage.
    pub async fn open_alone(folder: &Path, node: NodeId) -> Result<Self> {
        let origin = Origin::Founded(BTreeMap::from([(node.0, node)]));
        let (group, machine) = open_group(folder, node, &GroupConfig::alone(), &origin).await?;
        let catalog = machine.watch();
        let service = MetaService::new(node, Arc::clone(&group), &machine, None);
        let tasks = vec![tokio::spawn(keep_log_short(Arc::clone(&group), catalog.clone()))];
        let client = MetaClient { catalog, here: Some(Arc::new(service)), transport: None };
        Ok(Self { group: Some(group), client, tasks })
    }

    /// Opens a member of several. `founds`: it began, or begins now, as the only one; others are added
    /// to it. It may not have a leader yet when this returns.
    ///
    /// # Errors
    /// A folder in use, damage.
    pub async fn open_member(
        folder: &Path,
        node: NodeId,
        founds: bool,
        network: &NodeNetwork,
    ) -> Result<Self> {
        let NodeNetwork { transport, services } = network;
        let way = Network::new(Arc::clone(transport), META_RAFT, node);
        let origin =
            if founds { Origin::Founded(BTreeMap::from([(node.0, node)])) } else { Origin::Added };
        // Before the group opens: a member that is known may speak to others at once.
        let config = GroupConfig::networked(way.clone());
        let store = open_store(folder).await?;
        let machine = Arc::new(MetaMachine::open(store.clone())?);
        let mut tasks = vec![tokio::spawn(keep_addresses(Arc::clone(transport), machine.watch()))];
        let group = Group::open(&config, (node.0, &origin), store, Arc::clone(&machine)).await;
        let group = Arc::new(group.map_err(|error| Error::Unavailable(error.to_string()))?);
        let member = OnlyMember { node, group: Arc::clone(&group) };
        services.offer(META_RAFT, Arc::new(RaftService::new(member, way)));
        let (catalog, transport) = (machine.watch(), Some(Arc::clone(transport)));
        let service =
            Arc::new(MetaService::new(node, Arc::clone(&group), &machine, transport.clone()));
        services.offer(META, Arc::<MetaService>::clone(&service));
        tasks.push(tokio::spawn(keep_members(Arc::clone(&group), catalog.clone())));
        tasks.push(tokio::spawn(keep_log_short(Arc::clone(&group), catalog.clone())));
        let client = MetaClient { catalog, here: Some(service), transport };
        Ok(Self { group: Some(group), client, tasks })
    }

    /// Follows the members that `catalog`, of this node's registration, names.
    pub fn follow(catalog: Catalog, network: &NodeNetwork) -> Self {
        let transport = Arc::clone(&network.transport);
        let (sender, receiver) = watch::channel(Arc::new(catalog));
        let tasks = vec![
            tokio::spawn(keep_addresses(Arc::clone(&transport), receiver.clone())),
            tokio::spawn(follow_members(Arc::clone(&transport), sender)),
        ];
        let client = MetaClient { catalog: receiver, here: None, transport: Some(transport) };
        Self { group: None, client, tasks }
    }

    /// Returns a client of this node.
    pub fn client(&self) -> MetaClient {
        self.client.clone()
    }

    /// Waits until this node's catalog knows the node itself, and somebody leads.
    ///
    /// # Errors
    /// `Unavailable` where that takes longer than a minute.
    pub async fn wait_until_ready(&self, node: NodeId) -> Result<()> {
        let mut catalog = self.client.watch();
        let known = catalog.wait_for(|catalog| catalog.node(node).is_some());
        match tokio::time::timeout(JOIN_PATIENCE, known).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => {
                Err(Error::Unavailable("no meta member sent the catalog in time".to_owned()))
            }
        }
    }

    /// Stops; clients get `Unavailable` from then on.
    pub async fn close(self) {
        for task in &self.tasks {
            task.abort();
        }
        if let Some(group) = self.group {
            group.close().await;
        }
    }
}

async fn open_store(folder: &Path) -> Result<MetaStore> {
    let folder = folder.to_path_buf();
    let opened = tokio::task::spawn_blocking(move || MetaStore::open(&folder)).await;
    opened.map_err(|error| Error::Unavailable(error.to_string()))?
}

async fn open_group(
    folder: &Path,
    node: NodeId,
    config: &GroupConfig,
    origin: &Origin,
) -> Result<(Arc<Group>, Arc<MetaMachine>)> {
    let store = open_store(folder).await?;
    let machine = Arc::new(MetaMachine::open(store.clone())?);
    let group = Group::open(config, (node.0, origin), store, Arc::clone(&machine)).await;
    let group = group.map_err(|error| Error::Unavailable(error.to_string()))?;
    Ok((Arc::new(group), machine))
}

/// The one meta member of a node.
struct OnlyMember {
    node: NodeId,
    group: Arc<Group>,
}

impl Members for OnlyMember {
    fn member(&self, member: u64) -> BoxFuture<'_, replication::Result<Arc<dyn HoldsGroup>>> {
        let found = (member == self.node.0).then(|| Arc::clone(&self.group) as Arc<dyn HoldsGroup>);
        let missing = move || replication::Error::NotReady(format!("member {member} is not here"));
        async move { found.ok_or_else(missing) }.boxed()
    }
}

/// Tells the transport where nodes are.
async fn keep_addresses(transport: Arc<dyn Transport>, mut catalog: watch::Receiver<Arc<Catalog>>) {
    loop {
        let now = Arc::clone(&catalog.borrow_and_update());
        for node in now.nodes().filter(|node| !node.addr.is_empty()) {
            transport.set_address(node.id, &node.addr);
        }
        if catalog.changed().await.is_err() {
            return;
        }
    }
}

/// Purges the log of a member when it has become long.
async fn keep_log_short(group: Arc<Group>, mut catalog: watch::Receiver<Arc<Catalog>>) {
    while catalog.changed().await.is_ok() {
        if group.uncovered() >= LOG_ENTRIES
            && let Err(error) = group.snapshot(Purge::Replicated).await
        {
            tracing::warn!(%error, "the catalog's log is not purged for now");
        }
    }
}

/// Makes members of the nodes that are to keep the catalog, and lets those go that are not.
async fn keep_members(group: Arc<Group>, catalog: watch::Receiver<Arc<Catalog>>) {
    let mut round = tokio::time::interval(ROUND);
    loop {
        round.tick().await;
        if !group.leads() {
            continue;
        }
        let now = Arc::clone(&catalog.borrow());
        if let Err(error) = change_members(&group, &now).await {
            tracing::warn!(%error, "the members that keep the catalog stay as they are for now");
        }
    }
}

async fn change_members(group: &Group, catalog: &Catalog) -> replication::Result<()> {
    let keepers = catalog.nodes().filter(|node| node.roles.meta).map(|node| node.id);
    let wanted: BTreeSet<u64> = keepers.take(MEMBERS_MAX).map(|node| node.0).collect();
    let status = group.status();
    if wanted.is_empty() {
        return Ok(());
    }
    for node in &wanted {
        if status.members.iter().all(|one| one.member != *node) {
            tracing::info!(node, "a node begins to keep the catalog");
            group.add_learner(*node, NodeId(*node)).await?;
        }
    }
    let last = status.last_index.unwrap_or(0);
    let fit = status.members.iter().filter(|one| {
        let caught_up = one.matched.is_some_and(|matched| matched + 8 >= last);
        wanted.contains(&one.member) && (one.votes || caught_up)
    });
    let voters: BTreeSet<u64> = fit.map(|one| one.member).collect();
    let now = status.members.iter().filter(|one| one.votes).map(|one| one.member);
    if !voters.is_empty() && voters != now.collect() {
        tracing::info!(?voters, "the members that keep the catalog change");
        group.set_voters(voters).await?;
    }
    let gone: BTreeSet<u64> = status
        .members
        .iter()
        .filter(|one| !one.votes && !wanted.contains(&one.member))
        .map(|one| one.member)
        .collect();
    if !gone.is_empty() {
        group.remove_learners(gone).await?;
    }
    Ok(())
}

/// Keeps a cache up to date by following one member after another.
async fn follow_members(transport: Arc<dyn Transport>, cache: watch::Sender<Arc<Catalog>>) {
    loop {
        let known = Arc::clone(&cache.borrow());
        for node in known.nodes().filter(|node| node.roles.meta) {
            if let Err(error) = follow_one(&*transport, node.id, &cache).await {
                tracing::debug!(node = %node.id, %error, "the catalog is followed elsewhere");
            }
            if cache.is_closed() {
                return;
            }
        }
        tokio::time::sleep(PAUSE).await;
    }
}

async fn follow_one(
    transport: &dyn Transport,
    node: NodeId,
    cache: &watch::Sender<Arc<Catalog>>,
) -> std::result::Result<(), CallError> {
    let damaged = |error: std::io::Error| CallError::Refused(error.to_string());
    let mut events = transport.stream(node, META, Bytes::new()).await?;
    while let Some(event) = events.next().await {
        let fresh = match decode(&event?)? {
            Event::Alive => continue,
            Event::Rows(rows) => {
                let rows: Vec<Bytes> = rows.into_iter().map(Bytes::from).collect();
                catalog_of(&rows).map_err(damaged)?
            }
            Event::Changes(rows) => changed(&cache.borrow(), &rows).map_err(damaged)?,
        };
        // A member that lags behind another must not take back what is known.
        if fresh.version() >= cache.borrow().version() {
            cache.send_replace(Arc::new(fresh));
        } else {
            return Ok(());
        }
    }
    Ok(())
}

/// Registers a node with a cluster whose nodes listen on `addresses`. Returns its id.
///
/// # Errors
/// `Refused` by the cluster; `Unavailable` where nobody answers.
pub async fn register(
    transport: &dyn Transport,
    addresses: &[String],
    node: &NewNode,
) -> Result<NodeId> {
    let command = Command::RegisterNode(node.clone());
    let request = encode(&Request::Submit { command, passed_on: false });
    let mut failed = "no address to join was given".to_owned();
    for addr in addresses {
        let asked = transport.call_address(addr, META, request.clone(), COMMAND_PATIENCE).await;
        match asked.and_then(|answer| decode(&answer)) {
            Ok(Response::Answer(answer)) => match answer.outcome? {
                Reply::Node(id) => return Ok(id),
                other => failed = format!("{addr} answered {other:?}"),
            },
            Ok(other) => failed = format!("{addr} answered {other:?}"),
            Err(CallError::Unreachable { reason, .. } | CallError::Unknown { reason, .. }) => {
                failed = reason;
            }
            Err(CallError::Refused(reason)) => failed = format!("{addr}: {reason}"),
        }
    }
    Err(Error::Unavailable(failed))
}

/// Returns the catalog of a cluster, from whoever of `addresses` answers: for a node that keeps none.
///
/// # Errors
/// `Unavailable` where nobody answers.
pub async fn fetch_catalog(transport: &dyn Transport, addresses: &[String]) -> Result<Catalog> {
    let mut failed = "no address to join was given".to_owned();
    let request = encode(&Request::Rows);
    for addr in addresses {
        let asked = transport.call_address(addr, META, request.clone(), COMMAND_PATIENCE).await;
        match asked.and_then(|answer| decode(&answer)) {
            Ok(Response::Rows(rows)) => {
                let rows: Vec<Bytes> = rows.into_iter().map(Bytes::from).collect();
                return catalog_of(&rows).map_err(|error| Error::Corrupt(error.to_string()));
            }
            Ok(other) => failed = format!("{addr} answered {other:?}"),
            Err(error) => failed = format!("{addr}: {error}"),
        }
    }
    Err(Error::Unavailable(failed))
}
