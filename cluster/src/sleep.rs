//! Groups that nobody uses sleep: nobody holds them in memory, no heartbeat wakes anybody.
//!
//! A group of one member is flushed and closed by its node. In a group of several, whoever leads asks the
//! others to sleep at the end of its log, and sleeps once all of them do; it keeps still meanwhile, for a
//! heartbeat would wake them. Whoever is called opens its member again: one that led leads on, and wakes the
//! others; where it is gone they elect another.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use meta::{ReplicaSet, VnodePlace, VnodeState};
use model::VnodeId;
use replication::{GroupStatus, Purge};

use crate::Cluster;
use crate::error::{Error, Result};
use crate::peers::{Request, done, not_answered};
use crate::vnodes::{HostedVnode, idle};

/// How long the others may take to sleep: after this they would look for another leader.
const SLEEP_PATIENCE: Duration = Duration::from_millis(300);
/// The most groups that are put to sleep in one round.
const SLEEPERS_MAX: usize = 200;

impl Cluster {
    /// Flushes and closes vnodes that nobody used for long.
    pub(crate) async fn close_idle(&self) {
        let catalog = self.meta.catalog();
        let mut asleep = 0;
        for (member, hosted) in self.vnodes.open_now().await {
            hosted.beside.vnode.release_pins();
            if idle(&hosted) < self.config.idle_after || asleep == SLEEPERS_MAX {
                continue;
            }
            let set = catalog.replica_set_of(VnodeId(member)).map(|(_, set)| set);
            let several = set.filter(|set| set.vnodes.len() > 1);
            if several.is_some() && !hosted.group.leads() {
                continue;
            }
            asleep += 1;
            if let Err(error) = self.flush_to_sleep(&hosted).await {
                tracing::error!(vnode = member, %error, "flush failed");
                drop(hosted);
                self.vnodes.discard_failed(member).await;
                continue;
            }
            if let Some(set) = several {
                hosted.group.keep_still(true);
                if let Err(error) = self.put_others_to_sleep(&hosted, set).await {
                    tracing::debug!(vnode = member, %error, "a group stays awake");
                    hosted.group.keep_still(false);
                    continue;
                }
            }
            self.known_series.note(VnodeId(member), hosted.beside.vnode.series());
            drop(hosted);
            if !self.vnodes.close(VnodeId(member)).await
                && let Some(hosted) = self.vnodes.open_one(VnodeId(member)).await
            {
                hosted.group.keep_still(false);
            }
        }
    }

    async fn flush_to_sleep(&self, hosted: &HostedVnode) -> Result<()> {
        if hosted.beside.vnode.memcache_bytes() > 0 {
            hosted.group.snapshot(Purge::Covered).await?;
        }
        Ok(())
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
        let busy = |why: &str| replication::Error::NotReady(format!("vnode {vnode} {why}"));
        let Some(hosted) = self.vnodes.open_one(vnode).await else { return Ok(()) };
        let status = hosted.group.status();
        let end = (status.term, status.last_index.unwrap_or(0));
        if hosted.group.leads() || end != at || status.unapplied() > 0 {
            return Err(busy("is not at the end").into());
        }
        if hosted.beside.vnode.memcache_bytes() > 0 {
            let flushed = Arc::clone(&hosted);
            tokio::spawn(async move {
                if let Err(error) = flushed.group.snapshot(Purge::Covered).await {
                    tracing::debug!(%error, "a vnode that is to sleep is not flushed yet");
                }
            });
            return Err(busy("flushes first").into());
        }
        hosted.group.keep_still(true);
        drop(hosted);
        if self.vnodes.close(vnode).await {
            return Ok(());
        }
        if let Some(hosted) = self.vnodes.open_one(vnode).await {
            hosted.group.keep_still(false);
        }
        Err(busy("is in use").into())
    }
}

/// Returns the end of the log, where all members have and count all of it and none comes or goes.
fn quiet_at(status: &GroupStatus, set: &ReplicaSet) -> Option<u64> {
    let settled = |place: &VnodePlace| {
        let stays = matches!(place.state, VnodeState::Founder | VnodeState::Joined);
        stays && status.members.iter().any(|one| one.member == place.id.0 && one.votes)
    };
    let as_wanted = status.settled
        && status.members.len() == set.vnodes.len()
        && set.vnodes.iter().all(settled);
    let quiet = as_wanted && status.unapplied() == 0 && status.behind() == 0;
    status.last_index.filter(|_| quiet)
}
