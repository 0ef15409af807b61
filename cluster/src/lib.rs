//! Places data and finds it: the only crate that knows both replication and storage.
//!
//! | module        | holds                                                                   |
//! |---------------|-------------------------------------------------------------------------|
//! | `router`      | which bucket and shard each row of a batch belongs to                   |
//! | `replica_set` | a Raft group driving a vnode: the WAL as its log, the vnode its machine |
//! | `vnodes`      | the replica sets of this node, opened on need                           |
//! | `write`       | a batch to its replica sets, with backpressure                          |
//! | `change`      | deletes and updates, under a lock                                       |
//! | `read`        | the scans that a query needs                                            |
//! | `compaction`  | compactions, one at a time                                              |
//! | `upkeep`      | flushes, expiry, removal of what was dropped                            |
//!
//! Invariant: it knows no SQL, and nothing above it knows where a row lies.

mod change;
mod compaction;
mod error;
mod read;
mod replica_set;
mod router;
mod upkeep;
mod vnodes;
mod write;

use std::path::PathBuf;
use std::sync::Arc;

use meta::{Command, MetaClient, Reply};
use model::{Clock, NodeId};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tskv::MemcacheGauge;
use tskv::disk::Disk;
use tskv::wal::{Wal, WalConfig};

pub use change::ChangeLock;
pub use compaction::VnodeFiles;
pub use error::{Error, Result};
pub use read::{ScanPart, Scans};
pub use replica_set::{VnodeLogStore, VnodeMachine};
pub use tskv::{ExactCounts, ScanColumn, ScanRequest, SeriesFilter, VnodeScan};
pub use upkeep::LocalSize;
use vnodes::Vnodes;

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
    /// Segments of the log above which those who hold the oldest are flushed.
    pub wal_segments_max: usize,
    /// Settings of the log.
    pub wal: WalConfig,
}

/// The data of this node, and the way to all data.
#[derive(Debug)]
pub struct Cluster {
    pub(crate) config: ClusterConfig,
    pub(crate) meta: MetaClient,
    pub(crate) wal: Arc<Wal>,
    pub(crate) gauge: Arc<MemcacheGauge>,
    pub(crate) vnodes: Vnodes,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) signals: upkeep::Signals,
    pub(crate) compactions: compaction::Compactions,
}

/// A running node: the cluster and its upkeep.
#[derive(Debug)]
pub struct ClusterNode {
    cluster: Arc<Cluster>,
    stop: oneshot::Sender<()>,
    upkeep: JoinHandle<()>,
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
        disk: Arc<dyn Disk>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let wal = {
            let (disk, folder) = (Arc::clone(&disk), config.data_dir.join("wal"));
            let settings = config.wal.clone();
            let opened = move || Wal::open(disk, &folder, &settings);
            tokio::task::spawn_blocking(opened).await.map_err(Error::internal)??
        };
        let Reply::Session(session) = meta.submit(&Command::NewSession).await? else {
            return Err(Error::internal("a session was asked for"));
        };
        let gauge = Arc::new(MemcacheGauge::default());
        let cluster = Arc::new(Cluster {
            vnodes: Vnodes::new(session),
            signals: upkeep::Signals::default(),
            compactions: compaction::Compactions::default(),
            config,
            meta,
            wal,
            gauge,
            clock,
            disk,
        });
        cluster.remove_strangers().await?;
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
        self.cluster.vnodes.close_all().await;
        self.cluster.wal.close().await;
    }
}
