//! Places data and finds it: the only crate that knows both replication and storage.
//!
//! | module        | holds                                                                   |
//! |---------------|-------------------------------------------------------------------------|
//! | `router`      | which bucket and shard each row of a batch belongs to                   |
//! | `leader`      | who leads a replica set, found and asked                                |
//! | `peers`       | what nodes ask each other about rows                                    |
//! | `service`     | what this node does for the rows of others                              |
//! | `members`     | replica sets as the catalog wants them                                  |
//! | `balance`     | what nodes hold and lead, evened out                                    |
//! | `repair`      | replicas that differ, made anew                                         |
//! | `sleep`       | groups that nobody uses                                                 |
//! | `remote_scan` | a scan on another node; `wire_batch` is its rows on their way           |
//! | `replica_set` | a Raft group driving a vnode: the WAL as its log, the vnode its machine |
//! | `vnodes`      | the replica sets of this node, opened on need                           |
//! | `hand_off`    | writes that no majority could take                                      |
//! | `write`       | a batch to its replica sets, with backpressure                          |
//! | `end`         | buckets that end before their time                                      |
//! | `change`      | deletes and updates, under a lock                                       |
//! | `read`        | the scans that a query needs                                            |
//! | `read_any`    | the scans of any replica, the first that answers                        |
//! | `compaction`  | compactions, one at a time                                              |
//! | `series_limit` | how many series a tenant may have                                     |
//! | `measures`    | what can be measured of this node's data                                |
//! | `own_files`   | small files of a node, replaced whole                                   |
//! | `upkeep`      | flushes, expiry, removal of what was dropped                            |
//!
//! Invariant: it knows no SQL, and nothing above it knows where a row lies.

mod balance;
mod change;
mod compaction;
mod end;
mod error;
mod hand_off;
mod leader;
mod measures;
mod members;
mod own_files;
mod peers;
mod read;
mod read_any;
mod remote_scan;
mod repair;
mod replica_set;
mod router;
mod series_limit;
mod service;
mod sleep;
mod upkeep;
mod vnodes;
mod wire_batch;
mod write;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use meta::{Command, MetaClient, Reply};
use model::{Clock, NodeId};
use replication::transport::NodeNetwork;
use replication::{GroupConfig, Network, RaftService};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tskv::disk::Disk;
use tskv::wal::{Wal, WalConfig};
use tskv::{DecodedCache, MemcacheGauge, SeriesCache};

pub use change::ChangeLock;
pub use compaction::VnodeFiles;
pub use end::EndedBucket;
pub use error::{Error, Result};
use hand_off::HandOff;
pub use hand_off::HandedOff;
pub use measures::{GroupTotals, StorageMemory};
pub use members::ReplicaChecksum;
pub use peers::{GroupReport, PinnedScan};
use peers::{Peers, ROWS};
pub use read::{ReadFrom, Scan, ScanPart, Scans};
pub use replica_set::{VnodeLogStore, VnodeMachine};
use series_limit::KnownSeries;
use service::{Held, RowsService, VnodeMembers};
pub use tskv::wal::WalTotals;
pub use tskv::{
    Comparison, ExactCounts, KnownField, KnownGroup, Number, ScanColumn, ScanRequest, SeriesFilter,
    TagTest, ValueTest,
};
pub use upkeep::LocalSize;
use vnodes::Vnodes;
pub use write::Consistency;

/// The service that vnodes of a replica set speak to each other by.
const VNODES: &str = "vnode-raft";

/// Settings of a node's storage.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// Where everything lies.
    pub data_dir: PathBuf,
    /// This node.
    pub node: NodeId,
    /// Bytes of rows in memory, over all vnodes, at which writers wait.
    pub memcache_bytes_max: usize,
    /// Bytes of rows in memory at which a vnode is flushed.
    pub flush_bytes: usize,
    /// Bytes of the cache of series' ids.
    pub series_cache_bytes: usize,
    /// Bytes that the cache of files' decoded rows may take.
    pub decoded_cache_bytes: usize,
    /// Segments of the log above which those who hold the oldest are flushed.
    pub wal_segments_max: usize,
    /// Bytes of disk that writes handed off may take.
    pub hand_off_bytes_max: u64,
    /// A write that was handed off is given up after so long.
    pub hand_off_max: Duration,
    /// Settings of the log.
    pub wal: WalConfig,
    /// A node that gives no sign of life for so long is silent.
    pub node_silence: Duration,
    /// The vnodes of a node that is silent for so long are made anew elsewhere.
    pub rebuild_after: Duration,
    /// What nodes hold is evened out once it was uneven for so long.
    pub balance_after: Duration,
    /// Replicas are compared so often; `None`: never by themselves.
    pub compare_after: Option<Duration>,
    /// A vnode nobody used for so long is flushed and closed.
    pub idle_after: Duration,
}

/// The data of this node, and the way to all data.
#[derive(Debug)]
pub struct Cluster {
    pub(crate) config: ClusterConfig,
    pub(crate) meta: MetaClient,
    pub(crate) wal: Arc<Wal>,
    pub(crate) gauge: Arc<MemcacheGauge>,
    pub(crate) series_cache: Arc<SeriesCache>,
    pub(crate) decoded_cache: Arc<DecodedCache>,
    pub(crate) vnodes: Vnodes,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) signals: upkeep::Signals,
    pub(crate) compactions: compaction::Compactions,
    /// The way to the rows of other nodes; `None` where there are none.
    pub(crate) peers: Option<Peers>,
    pub(crate) held: Held,
    pub(crate) known_series: KnownSeries,
    pub(crate) compared: repair::Compared,
    pub(crate) open_times: Arc<read_any::OpenTimes>,
    pub(crate) hand_off: Arc<HandOff>,
}

/// A running node: the cluster and its upkeep.
#[derive(Debug)]
pub struct ClusterNode {
    cluster: Arc<Cluster>,
    stop: oneshot::Sender<()>,
    upkeep: JoinHandle<()>,
}

impl Cluster {
    /// Returns this node.
    pub fn node(&self) -> NodeId {
        self.config.node
    }
}

impl ClusterNode {
    /// Opens the log, removes what was dropped meanwhile and starts the upkeep. Vnodes open when they
    /// are first needed.
    ///
    /// # Errors
    /// A damaged log, an unavailable catalog.
    pub async fn open(
        config: ClusterConfig,
        meta: MetaClient,
        (disk, clock): (Arc<dyn Disk>, Arc<dyn Clock>),
        network: Option<NodeNetwork>,
    ) -> Result<Self> {
        let wal = {
            let (disk, folder) = (Arc::clone(&disk), config.data_dir.join(tskv::wal::FOLDER));
            let settings = config.wal.clone();
            let opened = move || Wal::open(disk, &folder, &settings);
            tokio::task::spawn_blocking(opened).await.map_err(Error::internal)??
        };
        let hand_off = {
            let (disk, folder) = (Arc::clone(&disk), config.data_dir.clone());
            let bytes_max = config.hand_off_bytes_max;
            let opened = move || HandOff::open(disk, &folder, bytes_max);
            let opened = tokio::task::spawn_blocking(opened).await.map_err(Error::internal)?;
            opened.map_err(Error::internal)?
        };
        let Reply::Session(session) = meta.submit(&Command::NewSession).await? else {
            return Err(Error::internal("a session was asked for"));
        };
        let gauge = Arc::new(MemcacheGauge::default());
        let way = network
            .as_ref()
            .map(|network| Network::new(Arc::clone(&network.transport), VNODES, config.node));
        let groups = way.clone().map_or_else(GroupConfig::alone, GroupConfig::networked);
        let series_cache = Arc::new(SeriesCache::new(config.series_cache_bytes));
        let decoded_cache = Arc::new(DecodedCache::new(config.decoded_cache_bytes));
        let cluster = Arc::new(Cluster {
            vnodes: Vnodes::new(session, groups),
            peers: network.as_ref().map(|network| Peers(Arc::clone(&network.transport))),
            held: Held::default(),
            known_series: KnownSeries::default(),
            compared: repair::Compared::default(),
            open_times: Arc::default(),
            hand_off: Arc::new(hand_off),
            signals: upkeep::Signals::default(),
            compactions: compaction::Compactions::default(),
            config,
            meta,
            wal,
            gauge,
            series_cache,
            decoded_cache,
            clock,
            disk,
        });
        cluster.remove_strangers().await?;
        if let (Some(network), Some(way)) = (network, way) {
            let members = VnodeMembers(Arc::downgrade(&cluster));
            network.services.offer(VNODES, Arc::new(RaftService::new(members, way)));
            network.services.offer(ROWS, Arc::new(RowsService(Arc::downgrade(&cluster))));
        }
        let (stop, stopped) = oneshot::channel();
        let upkeep = tokio::spawn(upkeep::run(Arc::clone(&cluster), stopped));
        Ok(Self { cluster, stop, upkeep })
    }

    /// Returns the way to the data.
    pub fn cluster(&self) -> Arc<Cluster> {
        Arc::clone(&self.cluster)
    }

    /// Stops upkeep, groups and log, in this order.
    pub async fn close(self) {
        drop(self.stop);
        self.cluster.compactions.stop();
        if let Err(error) = self.upkeep.await {
            tracing::error!(%error, "upkeep panicked");
        }
        self.cluster.held.clear();
        self.cluster.vnodes.close_all().await;
        self.cluster.wal.close().await;
    }
}
