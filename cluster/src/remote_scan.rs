//! A scan of a vnode on another node: pinned there when the query is planned, read when it runs.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use model::NodeId;
use parking_lot::Mutex;
use replication::transport::Answers;
use tokio::runtime::Handle;
use tskv::{ExactCounts, ScanCounts};

use crate::error::{Error, Result};
use crate::peers::{Peers, PinnedScan, Request, ScanInfo, not_answered};
use crate::wire_batch::{Decoder, Message};

/// How long it may take to let go of a scan.
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

/// A scan under way on another node, or a part of it. A clone begins anew.
pub struct RemoteScan {
    pinned: Arc<Pinned>,
    part: usize,
    parts: usize,
    last_rows: bool,
    /// Locked by nobody: it is there so that scans can be shared before they run.
    rows: Option<Mutex<Rows>>,
    read: ScanCounts,
}

/// Lets go of the scan on the other node when the last part of it is dropped.
struct Pinned {
    peers: Peers,
    node: NodeId,
    info: ScanInfo,
    runtime: Handle,
}

struct Rows {
    answers: Answers,
    decoder: Decoder,
    ready: VecDeque<RecordBatch>,
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let (peers, node) = (self.peers.clone(), self.node);
        let close = Request::CloseScan { scan: self.info.scan };
        self.runtime.spawn(async move {
            if let Err(error) = peers.ask(node, &close, &[], CLOSE_PATIENCE).await {
                tracing::debug!(%error, "a scan of another node ends by itself later");
            }
        });
    }
}

impl std::fmt::Debug for RemoteScan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemoteScan").field("node", &self.pinned.node).finish_non_exhaustive()
    }
}

impl Clone for RemoteScan {
    fn clone(&self) -> Self {
        self.part_of(self.part, self.parts)
    }
}

impl RemoteScan {
    pub(crate) fn new(peers: Peers, node: NodeId, info: ScanInfo) -> Self {
        let read = info.counts;
        let pinned = Arc::new(Pinned { peers, node, info, runtime: Handle::current() });
        Self { pinned, part: 0, parts: 1, last_rows: false, rows: None, read }
    }

    fn part_of(&self, part: usize, parts: usize) -> Self {
        let (pinned, last_rows) = (Arc::clone(&self.pinned), self.last_rows);
        let read = self.pinned.info.counts;
        Self { pinned, part, parts, last_rows, rows: None, read }
    }

    /// Returns the node that reads.
    pub(crate) fn node(&self) -> NodeId {
        self.pinned.node
    }

    /// Returns what that node knows the scan by. It is pinned as long as this is kept.
    pub(crate) fn pinned(&self) -> PinnedScan {
        PinnedScan {
            scan: self.pinned.info.scan,
            part: self.part,
            parts: self.parts,
            last_rows: self.last_rows,
        }
    }

    pub(crate) fn split(&self, parts: usize) -> Vec<Self> {
        let parts = parts.clamp(1, self.pinned.info.counts.series.max(1));
        (0..parts).map(|part| self.part_of(part, parts)).collect()
    }

    pub(crate) fn is_ordered(&self) -> bool {
        self.pinned.info.ordered
    }

    pub(crate) fn exact(&self) -> Option<ExactCounts> {
        self.pinned.info.exact.clone()
    }

    pub(crate) fn only_last_rows(mut self) -> Self {
        self.last_rows = true;
        self
    }

    pub(crate) fn rows_about(&self) -> usize {
        self.pinned.info.rows_about
    }

    pub(crate) fn counts(&self) -> ScanCounts {
        self.read
    }

    /// Returns the next rows; `None` at the end. Blocks on the network: not for async threads.
    pub(crate) fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        let runtime = self.pinned.runtime.clone();
        runtime.block_on(self.next())
    }

    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        if self.rows.is_none() {
            let answers = self.pinned.peers.read(self.pinned.node, &self.pinned()).await;
            let answers = answers.map_err(|error| not_answered(&error))?;
            let (decoder, ready) = (Decoder::default(), VecDeque::new());
            self.rows = Some(Mutex::new(Rows { answers, decoder, ready }));
        }
        let Some(rows) = self.rows.as_mut().map(Mutex::get_mut) else { return Ok(None) };
        loop {
            if let Some(batch) = rows.ready.pop_front() {
                return Ok(Some(batch));
            }
            // A stream that ends without saying so broke off: its rows are not all.
            let broken = || Error::internal("the rows of another node broke off");
            let message = rows.answers.next().await.ok_or_else(broken)?;
            match rows.decoder.message(&message.map_err(|error| not_answered(&error))?)? {
                Message::Batches(batches) => rows.ready.extend(batches),
                Message::End(counts) => {
                    self.read = counts;
                    return Ok(None);
                }
            }
        }
    }
}
