//! Replicas that differ are made anew: those whose files are damaged, and those whose rows are not what most
//! replicas of the set have.
//!
//! Each node compares the sets it is first in from time to time, and at once those of which it found a file
//! damaged. What is wrong is told from what the replicas answer alone, never from who leads.

use std::collections::HashMap;
use std::time::Duration;

use meta::{Catalog, Command};
use model::{ErrorKind, ReplicaSetId, VnodeId};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::Cluster;
use crate::error::{Error, Result};
use crate::members::ReplicaChecksum;

/// A set with a damaged file is compared again after so long at the soonest.
const PAUSE: Duration = Duration::from_secs(600);

/// When replica sets were compared last.
#[derive(Debug, Default)]
pub(crate) struct Compared {
    /// Or first seen.
    all: Mutex<HashMap<ReplicaSetId, Instant>>,
    /// For a damaged file.
    damaged: Mutex<HashMap<ReplicaSetId, Instant>>,
}

impl Compared {
    /// Returns whether a set was not compared for so long; one that is new is not.
    fn is_due(&self, set: ReplicaSetId, after: Duration) -> bool {
        self.all.lock().entry(set).or_insert_with(Instant::now).elapsed() >= after
    }

    /// Returns whether a set with a damaged file is to be compared now.
    fn begin_damaged(&self, set: ReplicaSetId) -> bool {
        let mut damaged = self.damaged.lock();
        let due = damaged.get(&set).is_none_or(|at| at.elapsed() >= PAUSE);
        if due {
            damaged.insert(set, Instant::now());
        }
        due
    }

    /// Notes that a set is compared now; forgets those that are gone.
    fn note(&self, set: ReplicaSetId, catalog: &Catalog) {
        for compared in [&self.all, &self.damaged] {
            compared.lock().retain(|set, _| catalog.replica_set(*set).is_some());
        }
        self.all.lock().insert(set, Instant::now());
    }
}

impl Cluster {
    /// Compares the replicas of one set, where one is due.
    pub(crate) async fn compare_due(&self) {
        if self.peers.is_none() {
            return;
        }
        let catalog = self.meta.catalog();
        let Some(set) = self.due(&catalog).await else { return };
        self.compared.note(set, &catalog);
        match Box::pin(self.repair_replicas(set)).await {
            Ok(None) => tracing::debug!(replica_set = %set, "replicas were compared"),
            Ok(Some(vnode)) => tracing::warn!(replica_set = %set, %vnode, "a replica is made anew"),
            Err(error) => tracing::warn!(replica_set = %set, %error, "replicas are not compared"),
        }
    }

    async fn due(&self, catalog: &Catalog) -> Option<ReplicaSetId> {
        let open = self.vnodes.open_now();
        let in_use = open.iter().filter(|(_, hosted)| hosted.beside.vnode.is_damaged());
        let in_use = in_use.map(|(member, _)| *member);
        for member in in_use.chain(self.vnodes.damaged()) {
            let set = catalog.replica_set_of(VnodeId(member)).map(|(_, set)| set);
            if let Some(set) = set.filter(|set| set.vnodes.len() > 1)
                && self.compared.begin_damaged(set.id)
            {
                return Some(set.id);
            }
        }
        let after = self.config.compare_after?;
        let mine = catalog.replica_sets().map(|(_, set)| set).filter(|set| {
            let first = set.vnodes.first().is_some_and(|first| first.node == self.config.node);
            first && set.vnodes.len() > 1
        });
        mine.map(|set| set.id).find(|set| self.compared.is_due(*set, after))
    }

    /// Compares the replicas of a set and has one that differs made anew, from the others. Returns that one.
    ///
    /// # Errors
    /// A replica set that is not there, or that nobody leads; one whose vnodes come or go just now.
    pub async fn repair_replicas(&self, id: ReplicaSetId) -> Result<Option<VnodeId>> {
        let Some(vnode) = differing(&self.checksums(id).await?) else { return Ok(None) };
        // What is dropped meanwhile replicas forget at different times: who differs must do so twice.
        if differing(&self.checksums(id).await?) != Some(vnode) {
            return Ok(None);
        }
        self.meta.submit(&Command::RebuildVnode { vnode }).await?;
        Ok(Some(vnode))
    }
}

/// Returns a replica that is damaged or differs, where it is clear which the others are to be told from, and
/// those that are sound are a majority without it.
fn differing(replicas: &[ReplicaChecksum]) -> Option<VnodeId> {
    let damaged = |error: &Error| error.kind() == ErrorKind::Corrupt;
    let silent = |one: &ReplicaChecksum| one.checksum.as_ref().is_err_and(|error| !damaged(error));
    if replicas.iter().any(silent) {
        return None;
    }
    let rows = |one: &ReplicaChecksum| one.checksum.as_ref().ok().map(|sum| (sum.rows, sum.hash));
    let known: Vec<(u64, u64)> = replicas.iter().filter_map(rows).collect();
    let count = |sum: &(u64, u64)| known.iter().filter(|one| *one == sum).count();
    let sound = known.iter().max_by_key(|sum| count(sum))?;
    // More than half of all; or half, where none says otherwise.
    let needed = if count(sound) == known.len() { replicas.len() } else { replicas.len() + 1 };
    if count(sound) * 2 < needed {
        return None;
    }
    let differs = |one: &&ReplicaChecksum| match &one.checksum {
        Ok(sum) => (sum.rows, sum.hash) != *sound,
        Err(error) => damaged(error),
    };
    replicas.iter().find(differs).map(|one| one.vnode)
}

#[cfg(test)]
mod tests {
    use model::NodeId;
    use tskv::VnodeChecksum;

    use super::*;

    /// Makes replicas 1, 2, …: of a hash, damaged, or without an answer.
    fn replicas(answers: &[std::result::Result<u64, ErrorKind>]) -> Vec<ReplicaChecksum> {
        let replica = |(id, answer): (u64, &std::result::Result<u64, ErrorKind>)| ReplicaChecksum {
            vnode: VnodeId(id),
            node: NodeId(id),
            checksum: answer
                .map(|hash| VnodeChecksum { index: 9, rows: 1, hash })
                .map_err(|kind| Error::Remote { kind, message: String::new() }),
        };
        (1..).zip(answers).map(replica).collect()
    }

    #[test]
    fn what_differs_from_most_or_is_damaged_is_made_anew_and_what_is_unclear_is_left() {
        let (damaged, silent) = (Err(ErrorKind::Corrupt), Err(ErrorKind::Unavailable));
        let cases = [
            (&[Ok(7), Ok(7), Ok(7)][..], None),
            (&[Ok(7), Ok(8), Ok(7)], Some(2)),
            (&[Ok(8), Ok(7), Ok(7)], Some(1)),
            (&[Ok(7), damaged, Ok(7)], Some(2)),
            (&[damaged, damaged, Ok(7)], None),
            (&[Ok(7), silent, damaged], None),
            (&[Ok(7), Ok(7), damaged, Ok(7), damaged], Some(3)),
            (&[Ok(7), damaged], Some(2)),
            (&[Ok(7), Ok(8)], None),
            (&[Ok(7), Ok(8), damaged], None),
            (&[Ok(7), Ok(8), silent], None),
            (&[Ok(7), Ok(7), silent], None),
            (&[damaged, damaged, damaged], None),
            (&[damaged, silent, silent], None),
        ];
        for (answers, expected) in cases {
            let found = differing(&replicas(answers));
            assert_eq!(found, expected.map(VnodeId), "{answers:?}");
        }
    }
}
