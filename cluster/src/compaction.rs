//! Compactions of this node's vnodes: one at a time, by upkeep or on demand.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use meta::VnodePlace;
use model::{DatabaseId, VnodeId};
use parking_lot::Mutex;
use replication::Purge;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tskv::CompactionWish;

use crate::Cluster;
use crate::error::{Error, Result};
use crate::peers::{Request, Response, done, not_answered};
use crate::vnodes::{HostedVnode, idle};

/// A vnode whose compaction failed is left alone for so long.
const FAILURE_PAUSE: Duration = Duration::from_secs(300);

/// How long the compaction of a vnode on another node may take.
const COMPACT_PATIENCE: Duration = Duration::from_secs(3_600);

/// What holds compactions together.
#[derive(Debug)]
pub(crate) struct Compactions {
    /// One at a time: a node's disk and memory serve reads and writes first.
    turn: Semaphore,
    stop: Arc<AtomicBool>,
    failed: Mutex<HashMap<VnodeId, Instant>>,
}

impl Default for Compactions {
    fn default() -> Self {
        Self { turn: Semaphore::new(1), stop: Arc::default(), failed: Mutex::default() }
    }
}

/// What is known of a vnode's files, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VnodeFiles {
    /// The vnode.
    pub vnode: VnodeId,
    /// Its database.
    pub database: DatabaseId,
    /// Its size.
    pub size: tskv::VnodeSize,
    /// Bytes written by flushes since it was opened.
    pub flushed_bytes: u64,
    /// Bytes written by compactions since it was opened.
    pub compacted_bytes: u64,
    /// Compactions since it was opened.
    pub compactions: u64,
    /// What it does now or waits for.
    pub state: String,
}

impl Compactions {
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    fn may_try(&self, vnode: VnodeId) -> bool {
        let mut failed = self.failed.lock();
        failed.retain(|_, since| since.elapsed() < FAILURE_PAUSE);
        !failed.contains_key(&vnode)
    }
}

impl Cluster {
    /// Compacts a vnode once. Returns whether there was something to do.
    async fn compact_once(&self, hosted: &HostedVnode, wish: CompactionWish) -> Result<bool> {
        let _turn = self.compactions.turn.acquire().await.map_err(Error::internal)?;
        let vnode = Arc::clone(&hosted.beside.vnode);
        let stop = Arc::clone(&self.compactions.stop);
        let id = vnode.id();
        let compacted = tokio::task::spawn_blocking(move || vnode.compact(wish, &stop)).await;
        match compacted.map_err(Error::internal)? {
            Ok(report) => {
                if let Some(report) = &report {
                    tracing::debug!(vnode = %id, ?report, "compacted");
                }
                Ok(report.is_some())
            }
            Err(error) => {
                self.compactions.failed.lock().insert(id, Instant::now());
                Err(error.into())
            }
        }
    }

    /// Compacts what levels ask for, of all vnodes open; and idle vnodes to one run.
    pub(crate) async fn compact_due(&self, cold_after: Duration) {
        for (member, hosted) in self.vnodes.open_now() {
            let cold = idle(&hosted) >= cold_after;
            let wish = if cold { CompactionWish::Cold } else { CompactionWish::Due };
            let vnode = &hosted.beside.vnode;
            if !self.compactions.may_try(vnode.id()) || !vnode.compaction_is_due(wish) {
                continue;
            }
            if let Err(error) = self.compact_once(&hosted, wish).await {
                tracing::error!(vnode = member, %error, "compaction failed");
            }
        }
    }

    /// Flushes and compacts the vnodes of a database, or one of them, to one sorted run each, on
    /// whatever nodes they are.
    ///
    /// # Errors
    /// A damaged file, what the disk says; a node that does not answer.
    pub async fn compact(&self, database: DatabaseId, only: Option<VnodeId>) -> Result<()> {
        for bucket in self.meta.catalog().buckets(database, model::TimeRange::ALL) {
            for set in &bucket.replica_sets {
                let wanted = |place: &&VnodePlace| only.is_none_or(|only| only == place.id);
                for place in set.vnodes.iter().filter(wanted) {
                    if place.node == self.config.node {
                        self.compact_whole(&*self.vnode(&bucket, set).await?).await?;
                    } else if let Some(peers) = &self.peers {
                        let request = Request::Compact { vnode: place.id };
                        let asked = peers.ask(place.node, &request, &[], COMPACT_PATIENCE).await;
                        done(asked.map_err(|error| not_answered(&error))?.0)?;
                    }
                }
            }
        }
        Ok(())
    }

    pub(crate) async fn compact_whole(&self, hosted: &HostedVnode) -> Result<()> {
        if hosted.beside.vnode.memcache_bytes() > 0 {
            hosted.group.snapshot(Purge::Replicated).await?;
        }
        self.compact_once(hosted, CompactionWish::Whole).await.map(|_| ())
    }

    /// Returns what is known of the files of the vnodes open on all nodes. A node that does not answer
    /// is left out.
    pub async fn vnode_files(&self) -> Vec<VnodeFiles> {
        let mut files = self.files_here().await;
        for response in self.ask_all(&Request::Files).await {
            if let Response::Files(more) = response {
                files.extend(more);
            }
        }
        files.sort_by_key(|one| one.vnode);
        files
    }

    /// Returns what is known of the files of the vnodes open on this node.
    pub async fn files_here(&self) -> Vec<VnodeFiles> {
        let catalog = self.meta.catalog();
        let open = self.vnodes.open_now();
        let files = open.iter().filter_map(|(member, hosted)| {
            let vnode = &hosted.beside.vnode;
            let totals = vnode.compaction_totals();
            let (flushed_bytes, compacted_bytes, compactions) = totals.get();
            let (bucket, _) = catalog.replica_set_of(VnodeId(*member))?;
            let state = if totals.running() {
                "running"
            } else if vnode.compaction_is_due(CompactionWish::Due) {
                "due"
            } else {
                "idle"
            };
            Some(VnodeFiles {
                vnode: vnode.id(),
                database: bucket.database,
                size: vnode.size(),
                flushed_bytes,
                compacted_bytes,
                compactions,
                state: state.to_owned(),
            })
        });
        files.collect()
    }
}
