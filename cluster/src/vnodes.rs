//! The replica sets of this node, opened on first need and closed when flushed and idle.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use meta::{Bucket, DatabaseOptions, ReplicaSet, VnodeState};
use model::{NodeId, ReplicaSetId, VnodeId};
use parking_lot::Mutex;
use replication::RaftHost;
use replication::{Group, GroupConfig, Origin};
use tokio::sync::RwLock;
use tokio::time::Instant;
use tskv::wal::VnodeLog;
use tskv::{Schemas, TableFate, Vnode, VnodeConfig, WriteId};

use crate::error::{Error, Result};
use crate::replica_set::{VnodeLogStore, VnodeMachine};
use crate::{Cluster, ClusterConfig};

/// How long a node that stood still is asked after others.
const DOUBT_TIME: Duration = Duration::from_secs(5);

/// What is kept beside a vnode's group.
#[derive(Debug)]
pub(crate) struct OpenVnode {
    pub(crate) vnode: Arc<Vnode>,
    /// Writers share it; who changes rows it has read holds it alone.
    pub(crate) changes: Arc<RwLock<()>>,
    /// What all that was acknowledged had at a moment, of others too.
    pub(crate) fresh: Mutex<Option<(Instant, u64)>>,
    last_use: Mutex<LastUse>,
}

/// When a vnode was used last, and what it had applied then.
#[derive(Debug)]
struct LastUse {
    at: Instant,
    applied: Option<u64>,
}

pub(crate) type HostedVnode = replication::Hosted<OpenVnode>;

/// The open vnodes of this node.
#[derive(Debug)]
pub(crate) struct Vnodes {
    host: RaftHost<OpenVnode>,
    session: u64,
    /// Last sequence used, by replica set; it outlives the group's being closed.
    sequences: Mutex<HashMap<ReplicaSetId, Arc<AtomicU64>>>,
    /// Nodes that stood still when they were asked, and since when.
    doubted: Mutex<HashMap<NodeId, Instant>>,
    /// Who led a replica set when it was asked last.
    leaders: Mutex<HashMap<ReplicaSetId, NodeId>>,
}

impl Vnodes {
    pub(crate) fn new(session: u64, groups: GroupConfig) -> Self {
        let host = RaftHost::new(groups);
        Self {
            host,
            session,
            sequences: Mutex::default(),
            doubted: Mutex::default(),
            leaders: Mutex::default(),
        }
    }

    /// Returns the number of this node's session of writers.
    pub(crate) fn session(&self) -> u64 {
        self.session
    }

    /// Has others asked before a node for a while.
    pub(crate) fn doubt(&self, node: NodeId) {
        self.doubted.lock().insert(node, Instant::now());
    }

    pub(crate) fn is_doubted(&self, node: NodeId) -> bool {
        let mut doubted = self.doubted.lock();
        doubted.retain(|_, since| since.elapsed() < DOUBT_TIME);
        doubted.contains_key(&node)
    }

    pub(crate) fn leader_hint(&self, set: ReplicaSetId) -> Option<NodeId> {
        self.leaders.lock().get(&set).copied()
    }

    pub(crate) fn note_leader(&self, set: ReplicaSetId, node: NodeId) {
        self.leaders.lock().insert(set, node);
    }

    pub(crate) fn forget_leader(&self, set: ReplicaSetId) {
        self.leaders.lock().remove(&set);
    }

    /// Returns the id of the next write to a replica set.
    pub(crate) fn next_write(&self, set: ReplicaSetId) -> WriteId {
        let counter = Arc::clone(self.sequences.lock().entry(set).or_default());
        WriteId { session: self.session, sequence: counter.fetch_add(1, Ordering::Relaxed) + 1 }
    }

    pub(crate) fn open_now(&self) -> Vec<(u64, Arc<HostedVnode>)> {
        self.host.open_groups()
    }

    /// Returns the vnodes that do not open, for a file of theirs is damaged.
    pub(crate) fn damaged(&self) -> Vec<u64> {
        self.host.damaged()
    }

    /// Returns a vnode that is open.
    pub(crate) async fn open_one(&self, vnode: VnodeId) -> Option<Arc<HostedVnode>> {
        self.host.open_group(vnode.0).await
    }

    /// Closes a vnode unless somebody holds it.
    pub(crate) async fn close(&self, vnode: VnodeId) -> bool {
        self.host.close(vnode.0).await
    }

    pub(crate) async fn discard_failed(&self, member: u64) {
        self.host.discard_failed(member).await;
    }

    /// Forgets a replica set that was dropped; never one that lives, whose sequences would begin anew.
    pub(crate) fn forget(&self, set: ReplicaSetId) {
        self.sequences.lock().remove(&set);
        self.leaders.lock().remove(&set);
    }

    pub(crate) async fn close_all(&self) {
        for member in self.host.members() {
            if !self.host.close(member).await {
                tracing::warn!(vnode = member, "still in use while the node stops");
            }
        }
    }
}

/// Returns how long nobody used a vnode: nobody of this node, and nobody wrote to it. Heartbeats are no use.
pub(crate) fn idle(hosted: &HostedVnode) -> Duration {
    let applied = hosted.group.status().applied;
    let mut last = hosted.beside.last_use.lock();
    if last.applied != applied {
        *last = LastUse { at: Instant::now(), applied };
    }
    last.at.elapsed()
}

/// Notes that a vnode is used.
pub(crate) fn use_now(hosted: &HostedVnode) {
    hosted.beside.last_use.lock().at = Instant::now();
}

impl Cluster {
    /// Returns this node's member of a replica set, opening it where it is not open and founding the
    /// group where nobody has.
    pub(crate) async fn vnode(
        &self,
        bucket: &Bucket,
        replica_set: &ReplicaSet,
    ) -> Result<Arc<HostedVnode>> {
        let hosted = self.called_vnode(bucket, replica_set).await?;
        use_now(&hosted);
        hosted.group.found(&origin(replica_set, hosted.beside.vnode.id())).await?;
        Ok(hosted)
    }

    /// Returns this node's member of a replica set, as other members call it: they have founded the
    /// group.
    pub(crate) async fn called_vnode(
        &self,
        bucket: &Bucket,
        replica_set: &ReplicaSet,
    ) -> Result<Arc<HostedVnode>> {
        let here = replica_set.vnodes.iter().find(|place| place.node == self.config.node);
        let Some(place) = here else {
            let message = format!("replica set {} has no vnode on this node", replica_set.id);
            return Err(Error::Internal(message));
        };
        let id = place.id;
        let open = |config| {
            let opening = self.opening(bucket, replica_set, id);
            async move { opening.map_err(|error| stopped(&error))?.open(config).await }
        };
        Ok(self.vnodes.host.get(id.0, open).await?)
    }

    fn folder(&self, bucket: &Bucket, set: &ReplicaSet, vnode: VnodeId) -> Result<PathBuf> {
        let catalog = self.meta.catalog();
        let database = catalog.database_by_id(bucket.database);
        let database = database.ok_or_else(|| Error::internal("the database was dropped"))?;
        // A statement may hold an older catalog: what was dropped must not come to life again.
        if !catalog.buckets(bucket.database, bucket.times).iter().any(|one| one.id == bucket.id) {
            return Err(Error::internal("the bucket was dropped"));
        }
        Ok(folder(
            &self.config,
            [
                u64::from(database.tenant.0),
                u64::from(database.id.0),
                u64::from(bucket.id.0),
                u64::from(set.id.0),
                vnode.0,
            ],
        ))
    }

    /// Returns all that the opening of a vnode needs.
    fn opening(&self, bucket: &Bucket, set: &ReplicaSet, id: VnodeId) -> Result<Opening> {
        let options = self.options_of(id);
        let vnode = VnodeConfig {
            disk: Arc::clone(&self.disk),
            folder: self.folder(bucket, set, id)?,
            gauge: Arc::clone(&self.gauge),
            cache: Arc::clone(&self.series_cache),
            decoded: Arc::clone(&self.decoded_cache),
            schemas: self.schemas(),
            partitions: options
                .and_then(|options| options.memcache_partitions)
                .map_or(1, |count| count as usize),
            readers_max: options
                .and_then(|options| options.max_cache_readers)
                .map(|count| count as usize),
        };
        let (log, gives_images) = (self.wal.log(id), self.peers.is_some());
        Ok(Opening { id, vnode, log, origin: origin(set, id), gives_images })
    }

    /// Returns the options of a vnode's database.
    pub(crate) fn options_of(&self, vnode: VnodeId) -> Option<DatabaseOptions> {
        let catalog = self.meta.catalog();
        let (bucket, _) = catalog.replica_set_of(vnode)?;
        Some(catalog.database_by_id(bucket.database)?.options)
    }

    /// Returns what storage may ask of the catalog.
    fn schemas(&self) -> Schemas {
        let meta = self.meta.clone();
        Schemas::new(move |table| {
            let catalog = meta.catalog();
            match catalog.table_by_id(table) {
                Some(schema) => TableFate::Live(Arc::clone(schema)),
                None if catalog.table_was_dropped(table) => TableFate::Dropped,
                None => TableFate::Unknown,
            }
        })
    }
}

/// A vnode about to be opened.
struct Opening {
    id: VnodeId,
    vnode: VnodeConfig,
    log: VnodeLog,
    origin: Origin,
    gives_images: bool,
}

impl Opening {
    async fn open(self, config: GroupConfig) -> replication::Result<HostedVnode> {
        let Self { id, vnode, log, origin, gives_images } = self;
        let purged = log.purged().map_or(0, |(upto, _)| upto);
        let opened = tokio::task::spawn_blocking(move || {
            let vnode = Vnode::open(vnode, id)?;
            vnode.check_covers(purged)?;
            Ok::<_, tskv::Error>(vnode)
        });
        let vnode = opened.await.map_err(|error| stopped(&error))?.map_err(|error| {
            let damaged = error.kind() == model::ErrorKind::Corrupt;
            if damaged { replication::Error::Damaged(error.to_string()) } else { stopped(&error) }
        })?;
        let vnode = Arc::new(vnode);
        let machine = VnodeMachine::new(Arc::clone(&vnode), log.clone(), gives_images);
        let store = VnodeLogStore(log);
        let group = Group::open(&config, (id.0, &origin), store, Arc::new(machine)).await?;
        let last_use = Mutex::new(LastUse { at: Instant::now(), applied: None });
        let beside =
            OpenVnode { vnode, changes: Arc::default(), fresh: Mutex::default(), last_use };
        Ok(HostedVnode { group, beside })
    }
}

/// Returns how a vnode comes to be in its group, as the catalog tells.
fn origin(set: &ReplicaSet, vnode: VnodeId) -> Origin {
    let founders = set.vnodes.iter().filter(|place| place.state == VnodeState::Founder);
    let founders: BTreeMap<u64, NodeId> = founders.map(|place| (place.id.0, place.node)).collect();
    if founders.contains_key(&vnode.0) { Origin::Founded(founders) } else { Origin::Added }
}

fn stopped(error: &dyn std::fmt::Display) -> replication::Error {
    replication::Error::Stopped(error.to_string())
}

/// Returns the folder named by tenant, database, bucket, replica set and vnode.
pub(crate) fn folder(config: &ClusterConfig, ids: [u64; 5]) -> PathBuf {
    ids.iter().fold(config.data_dir.clone(), |path, id| path.join(id.to_string()))
}
