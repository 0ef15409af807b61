//! Groups that nobody uses sleep: nobody holds them in memory, no heartbeat wakes anybody.
//!
//! A group of one member is flushed and closed by its node. In a group of several, whoever leads asks the
//! others to sleep at the end of its log, and sleeps once all of them do; it keeps still meanwhile, for a
//! heartbeat would wake them. Whoever is called opens its member again: one that led leads on, and wakes the
//! others; where it is gone they elect another.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use futures::stream::{self, StreamExt};
use meta::{ReplicaSet, VnodePlace};
use model::{NodeId, VnodeId};
use replication::{GroupStatus, Purge};

use crate::Cluster;
use crate::error::{Error, Result};
use crate::peers::{Request, done, not_answered};
use crate::vnodes::{HostedVnode, idle, use_now};

/// How long the others may take to sleep: after this they would look for another leader.
const SLEEP_PATIENCE: Duration = Duration::from_millis(300);
/// The most groups that are put to sleep in one round, and at once.
const SLEEPERS_MAX: usize = 512;
const SLEEPING_AT_ONCE: usize = 16;
/// A node that gave no sign of life for so long is not there.
const LATELY: Duration = Duration::from_secs(3);

impl Cluster {
    /// Flushes and closes vnodes that nobody used for long.
    pub(crate) async fn close_idle(&self) {
        let mut idle_now = Vec::new();
        for (member, hosted) in self.vnodes.open_now() {
            hosted.beside.vnode.release_pins();
            if idle(&hosted) >= self.config.idle_after && idle_now.len() < SLEEPERS_MAX {
                idle_now.push(VnodeId(member));
            }
        }
        if idle_now.is_empty() {
            return;
        }
        let catalog = self.meta.catalog();
        // Where a node is not there its groups would be woken as often as they are put to sleep.
        let reports = self.meta.nodes().await.map(|(_, reports)| reports).unwrap_or_default();
        let answers = |node: NodeId| {
            reports.iter().any(|one| one.node == node && one.was_heard_within(LATELY))
        };
        let (catalog, answers) = (&catalog, &answers);
        let slept = idle_now.into_iter().map(|vnode| async move {
            let set = catalog.replica_set_of(vnode).map(|(_, set)| set);
            let several = set.filter(|set| set.vnodes.len() > 1);
            if several.is_some_and(|set| !set.vnodes.iter().all(|place| answers(place.node))) {
                return;
            }
            if let Err(error) = self.sleep_now(vnode, several).await {
                tracing::debug!(%vnode, %error, "a vnode stays awake");
                self.vnodes.discard_failed(vnode.0).await;
                if let Some(hosted) = self.vnodes.open_one(vnode).await {
                    hosted.group.keep_still(false);
                    // Again later: each try wakes those that slept.
                    use_now(&hosted);
                }
            }
        });
        stream::iter(slept).for_each_concurrent(SLEEPING_AT_ONCE, |slept| slept).await;
    }

    async fn sleep_now(&self, vnode: VnodeId, several: Option<&ReplicaSet>) -> Result<()> {
        let Some(hosted) = self.vnodes.open_one(vnode).await else { return Ok(()) };
        let flush = hosted.beside.vnode.memcache_bytes() > 0;
        match several {
            None if flush => hosted.group.snapshot(Purge::Covered).await?,
            None => {}
            // Whoever leads puts the others to sleep.
            Some(_) if !hosted.group.leads() => return Ok(()),
            Some(set) => {
                quiet_at(&hosted.group.status(), set)
                    .ok_or_else(|| busy(vnode, "is not alone at the end"))?;
                if flush {
                    hosted.group.snapshot(Purge::Replicated).await?;
                }
                hosted.group.keep_still(true);
                self.put_others_to_sleep(&hosted, set).await?;
            }
        }
        self.known_series.note(vnode, hosted.beside.vnode.series());
        drop(hosted);
        if self.vnodes.close(vnode).await { Ok(()) } else { Err(busy(vnode, "is in use").into()) }
    }

    async fn put_others_to_sleep(&self, hosted: &HostedVnode, set: &ReplicaSet) -> Result<()> {
        let status = hosted.group.status();
        let (Some(index), Some(peers)) = (quiet_at(&status, set), &self.peers) else {
            return Err(Error::internal("not all members have all, or they change"));
        };
        let others = set.vnodes.iter().filter(|place| place.node != self.config.node);
        let asked = others.map(|place| async move {
            let request = Request::Sleep { vnode: place.id, term: status.term, index };
            let asked = peers.ask(place.node, &request, &[], SLEEP_PATIENCE).await;
            done(asked.map_err(|error| not_answered(&error))?.0)
        });
        join_all(asked).await.into_iter().collect()
    }

    /// Closes a member of a group that another leads, at the end of its log. One that has rows in memory
    /// flushes them first, and sleeps when it is asked again.
    pub(crate) async fn sleep_here(&self, vnode: VnodeId, at: (u64, u64)) -> Result<()> {
        let Some(hosted) = self.vnodes.open_one(vnode).await else { return Ok(()) };
        let status = hosted.group.status();
        let end = (status.term, status.last_index.unwrap_or(0));
        if hosted.group.leads() || end != at || status.unapplied() > 0 {
            return Err(busy(vnode, "is not at the end").into());
        }
        if hosted.beside.vnode.memcache_bytes() > 0 {
            let flushed = Arc::clone(&hosted);
            tokio::spawn(async move {
                if let Err(error) = flushed.group.snapshot(Purge::Replicated).await {
                    tracing::debug!(%error, "a vnode that is to sleep is not flushed yet");
                }
            });
            return Err(busy(vnode, "flushes first").into());
        }
        hosted.group.keep_still(true);
        drop(hosted);
        if self.vnodes.close(vnode).await {
            return Ok(());
        }
        if let Some(hosted) = self.vnodes.open_one(vnode).await {
            hosted.group.keep_still(false);
        }
        Err(busy(vnode, "is in use").into())
    }
}

fn busy(vnode: VnodeId, why: &str) -> replication::Error {
    replication::Error::NotReady(format!("vnode {vnode} {why}"))
}

/// Returns the end of the log, where all members have and count all of it and none comes or goes.
fn quiet_at(status: &GroupStatus, set: &ReplicaSet) -> Option<u64> {
    let settled = |place: &VnodePlace| {
        place.state.stays()
            && status.members.iter().any(|one| one.member == place.id.0 && one.votes)
    };
    let as_wanted = status.settled
        && status.members.len() == set.vnodes.len()
        && set.vnodes.iter().all(settled);
    let quiet = as_wanted && status.unapplied() == 0 && status.behind() == 0;
    status.last_index.filter(|_| quiet)
}
