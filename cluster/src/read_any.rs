//! Reads from any replica: this node's where it has one, else one that follows; and a second where the first
//! takes longer than it usually does.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use meta::{Bucket, ReplicaSet, VnodePlace};
use model::NodeId;
use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tskv::ScanRequest;

use crate::Cluster;
use crate::error::Result;
use crate::peers::{Request, Response};
use crate::read::{Scan, wire};
use crate::remote_scan::RemoteScan;

/// How long members that follow may take to open a scan, before who leads is asked.
const PATIENCE: Duration = Duration::from_secs(2);
/// Answers of a node from which it is told what is usual.
const ANSWERS: usize = 64;
/// What is usual of a node that gave fewer answers than [`ANSWERS_MIN`].
const USUAL: Duration = Duration::from_millis(100);
const ANSWERS_MIN: usize = 16;
/// Sooner than this no second one is asked.
const USUAL_MIN: Duration = Duration::from_millis(5);

/// How long nodes took to open scans lately.
#[derive(Debug, Default)]
pub(crate) struct OpenTimes(Mutex<HashMap<NodeId, VecDeque<Duration>>>);

impl OpenTimes {
    fn note(&self, node: NodeId, took: Duration) {
        let mut all = self.0.lock();
        let times = all.entry(node).or_default();
        if times.len() == ANSWERS {
            times.pop_front();
        }
        times.push_back(took);
    }

    /// Returns within what time 95 of 100 answers of a node come.
    fn usual(&self, node: NodeId) -> Duration {
        let mut times: Vec<Duration> =
            self.0.lock().get(&node).into_iter().flatten().copied().collect();
        if times.len() < ANSWERS_MIN {
            return USUAL;
        }
        times.sort_unstable();
        times[(times.len() - 1) * 95 / 100].max(USUAL_MIN)
    }
}

impl Cluster {
    /// Pins a scan of this node's member, or of another that follows; `None` where none can serve, or
    /// where only who leads could.
    pub(crate) async fn scan_any(
        &self,
        (bucket, set): (&Bucket, &ReplicaSet),
        request: &ScanRequest,
        stale: Duration,
    ) -> Result<Option<Scan>> {
        // One that leaves may get no log any more.
        let fit = |place: &&VnodePlace| place.state.stays();
        if set.vnodes.iter().filter(fit).any(|place| place.node == self.config.node) {
            return match self.open_scan_follower((bucket, set), stale, request).await {
                Ok(scan) => Ok(Some(Scan::Here(Box::new(scan)))),
                Err(error) => {
                    tracing::debug!(%error, "the vnode here does not serve");
                    Ok(None)
                }
            };
        }
        if stale.is_zero() {
            return Ok(None);
        }
        let leader = self.vnodes.leader_hint(set.id);
        let mut places: Vec<&VnodePlace> = set.vnodes.iter().filter(fit).collect();
        places.retain(|place| Some(place.node) != leader);
        places.sort_by_key(|place| self.vnodes.is_doubted(place.node));
        let first = tokio::time::timeout(PATIENCE, self.first_to_open(&places, request, stale));
        first.await.unwrap_or(Ok(None))
    }

    /// Asks one place after another, the next once those asked took longer than is usual, or failed; returns
    /// the scan of the first that answers.
    async fn first_to_open(
        &self,
        places: &[&VnodePlace],
        request: &ScanRequest,
        stale: Duration,
    ) -> Result<Option<Scan>> {
        let (mut rest, mut asked) = (places.iter(), FuturesUnordered::new());
        let mut next_at = Instant::now();
        loop {
            tokio::select! {
                biased;
                Some(opened) = asked.next(), if !asked.is_empty() => match opened {
                    Ok(Some(scan)) => return Ok(Some(scan)),
                    Ok(None) | Err(_) => next_at = Instant::now(),
                },
                () = tokio::time::sleep_until(next_at), if rest.len() > 0 => {
                    let Some(place) = rest.next() else { continue };
                    next_at = Instant::now() + self.open_times.usual(place.node);
                    asked.push(self.open_there(place, request, stale)?);
                }
                else => return Ok(None),
            }
        }
    }

    /// Has a follower pin a scan; `None` where it does not serve. It goes on where another was quicker: what
    /// is pinned is let go then, and its time is known.
    fn open_there(
        &self,
        place: &VnodePlace,
        request: &ScanRequest,
        stale: Duration,
    ) -> Result<JoinHandle<Option<Scan>>> {
        let (peers, times, node) = (self.peers.clone(), Arc::clone(&self.open_times), place.node);
        let (scan, schema) = wire(request)?;
        let stale_ms = u64::try_from(stale.as_millis()).ok();
        let open = Request::OpenScan { vnode: place.id, scan, stale_ms };
        Ok(tokio::spawn(async move {
            let (peers, begun) = (peers?, Instant::now());
            let answer = peers.ask(node, &open, &schema, PATIENCE).await;
            let Ok((Response::Scan(info), _)) = answer else { return None };
            times.note(node, begun.elapsed());
            Some(Scan::There(Box::new(RemoteScan::new(peers, node, info))))
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_usual_is_what_most_of_the_last_answers_took() {
        let (times, node) = (OpenTimes::default(), NodeId(1));
        assert_eq!(times.usual(node), USUAL);
        for millis in 0..1_000 {
            times.note(node, Duration::from_millis(millis));
        }
        assert_eq!(times.usual(node), Duration::from_millis(936 + 59));
        (0..ANSWERS).for_each(|_| times.note(node, Duration::ZERO));
        assert_eq!(times.usual(node), USUAL_MIN);
    }
}
