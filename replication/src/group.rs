//! One Raft group of this process: proposals are gathered into entries, one fsync for many.
//!
//! openraft 0.9 logs each `client_write` with an fsync of its own, so commands that arrive while one
//! entry is under way share the next.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::error::{ClientWriteError, RaftError};
use openraft::{BasicNode, Config, LogIdOptionExt, Raft, SnapshotPolicy};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use crate::error::{Error, Result};
use crate::log::{LogStore, RaftLog};
use crate::machine::{Machine, RaftMachine};
use crate::network::NoPeers;
use crate::types::{Commands, TypeConfig};

/// Proposals that may wait for the next entry.
const PROPOSALS_MAX: usize = 1_024;
/// An entry is closed at this size.
const ENTRY_BYTES: usize = 8 << 20;
/// How long a group may take to open, to flush and to close.
const PATIENCE: Duration = Duration::from_secs(60);

/// Settings of groups.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    raft: Arc<Config>,
}

impl Default for GroupConfig {
    fn default() -> Self {
        // A group of one never waits for a timer: it leads as soon as it is opened.
        let raft = Config {
            cluster_name: "cnosdb".to_owned(),
            heartbeat_interval: 10_000,
            election_timeout_min: 20_000,
            election_timeout_max: 40_000,
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: u64::MAX,
            enable_tick: false,
            ..Config::default()
        };
        Self { raft: Arc::new(raft) }
    }
}

struct Proposal {
    command: Bytes,
    reply: oneshot::Sender<Result<Bytes>>,
}

/// A group, leading and up to date once it is open.
pub struct Group {
    raft: Raft<TypeConfig>,
    proposals: mpsc::Sender<Proposal>,
    closing: Mutex<Option<Closing>>,
}

struct Closing {
    stop: oneshot::Sender<()>,
    proposer: tokio::task::JoinHandle<()>,
    /// Ends when nothing of openraft holds the machine any more.
    machine_in_use: mpsc::Receiver<()>,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").finish_non_exhaustive()
    }
}

impl Group {
    /// Opens a member of a group of one: replays its log, leads, and has applied all it holds when
    /// this returns.
    ///
    /// # Errors
    /// What stopped the group, or that it is not ready in a minute.
    pub async fn open<L: LogStore, M: Machine>(
        config: &GroupConfig,
        member: u64,
        log: L,
        machine: Arc<M>,
    ) -> Result<Self> {
        let (in_use, machine_in_use) = mpsc::channel(1);
        let (log, machine) = (RaftLog(log), RaftMachine::new(machine, in_use));
        let raft = Raft::new(member, Arc::clone(&config.raft), NoPeers, log, machine).await;
        let raft = raft.map_err(|error| Error::Stopped(error.to_string()))?;
        if let Err(error) = lead(&raft, member).await {
            if let Err(join) = raft.shutdown().await {
                tracing::debug!(%join, "raft did not stop cleanly");
            }
            return Err(error);
        }
        let (proposals, queue) = mpsc::channel(PROPOSALS_MAX);
        let (stop, stopped) = oneshot::channel();
        let proposer = tokio::spawn(propose_all(raft.clone(), queue, stopped));
        let closing = Mutex::new(Some(Closing { stop, proposer, machine_in_use }));
        Ok(Self { raft, proposals, closing })
    }

    /// Proposes a command and returns the machine's reply once it is committed and applied.
    ///
    /// # Errors
    /// `Stopped`: nobody knows whether the command was applied.
    pub async fn propose(&self, command: Bytes) -> Result<Bytes> {
        let (reply, receiver) = oneshot::channel();
        let stopped = || Error::Stopped("it takes no proposals any more".to_owned());
        self.proposals.send(Proposal { command, reply }).await.map_err(|_| stopped())?;
        receiver.await.map_err(|_| stopped())?
    }

    /// Returns why the group has stopped, if it has.
    pub fn failure(&self) -> Option<String> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        metrics.running_state.as_ref().err().map(ToString::to_string)
    }

    /// Makes durable what was applied so far and purges the log up to there.
    ///
    /// # Errors
    /// What stopped the group.
    pub async fn snapshot(&self) -> Result<()> {
        let wanted = self.raft.metrics().borrow().last_applied;
        let fatal = |error: openraft::error::Fatal<u64>| Error::Stopped(error.to_string());
        self.raft.trigger().snapshot().await.map_err(fatal)?;
        let covered = self.wait(move |metrics| metrics.snapshot >= wanted).await?;
        if let Some(upto) = covered.index() {
            self.raft.trigger().purge_log(upto).await.map_err(fatal)?;
            self.wait(move |metrics| metrics.purged.index() >= Some(upto)).await?;
        }
        Ok(())
    }

    async fn wait(
        &self,
        reached: impl Fn(&openraft::RaftMetrics<u64, BasicNode>) -> bool + Send + Sync,
    ) -> Result<Option<openraft::LogId<u64>>> {
        let done = |metrics: &openraft::RaftMetrics<u64, BasicNode>| {
            reached(metrics) || metrics.running_state.is_err()
        };
        let metrics = self.raft.wait(Some(PATIENCE)).metrics(done, "snapshot and purge").await;
        let metrics = metrics.map_err(|error| Error::Stopped(error.to_string()))?;
        metrics.running_state.map_err(|error| Error::Stopped(error.to_string()))?;
        Ok(metrics.snapshot)
    }

    /// Answers what was proposed, then stops; log and machine are let go of when this returns.
    pub async fn close(&self) {
        let closing = self.closing.lock().take();
        let Some(Closing { stop, proposer, mut machine_in_use }) = closing else { return };
        drop(stop);
        if let Err(error) = proposer.await {
            tracing::error!(%error, "the proposer of a raft group panicked");
        }
        if let Err(error) = self.raft.shutdown().await {
            tracing::debug!(%error, "raft did not stop cleanly");
        }
        if tokio::time::timeout(PATIENCE, machine_in_use.recv()).await.is_err() {
            tracing::warn!("a raft group still works on its last entries");
        }
    }
}

async fn lead(raft: &Raft<TypeConfig>, member: u64) -> Result<()> {
    let stopped = |error: &dyn std::fmt::Display| Error::Stopped(error.to_string());
    if raft.is_initialized().await.map_err(|error| stopped(&error))? {
        // Does nothing where the stored vote made this member leader already.
        raft.trigger().elect().await.map_err(|error| stopped(&error))?;
    } else {
        let members = BTreeMap::from([(member, BasicNode::default())]);
        raft.initialize(members).await.map_err(|error| stopped(&error))?;
    }
    let leads = |metrics: &openraft::RaftMetrics<u64, BasicNode>| {
        metrics.state.is_leader() || metrics.running_state.is_err()
    };
    let metrics = raft.wait(Some(PATIENCE)).metrics(leads, "lead").await;
    let metrics = metrics.map_err(|error| Error::NotReady(error.to_string()))?;
    metrics.running_state.map_err(|error| stopped(&error))?;
    raft.ensure_linearizable().await.map_err(|error| stopped(&error))?;
    Ok(())
}

async fn propose_all(
    raft: Raft<TypeConfig>,
    mut queue: mpsc::Receiver<Proposal>,
    mut stop: oneshot::Receiver<()>,
) {
    loop {
        let first = tokio::select! {
            biased;
            first = queue.recv() => first,
            _ = &mut stop, if !queue.is_closed() => {
                // No more from now on; what is queued is still answered.
                queue.close();
                continue;
            }
        };
        let Some(first) = first else { return };
        let mut bytes = first.command.len();
        let (mut commands, mut replies) = (vec![first.command], vec![first.reply]);
        while bytes < ENTRY_BYTES
            && let Ok(next) = queue.try_recv()
        {
            bytes += next.command.len();
            commands.push(next.command);
            replies.push(next.reply);
        }
        let answers = match raft.client_write(Commands(commands)).await {
            Ok(written) => written.data.0.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(translate(&error)); replies.len()],
        };
        for (reply, answer) in replies.into_iter().zip(answers) {
            if reply.send(answer).is_err() {
                tracing::debug!("nobody waits for this proposal any more");
            }
        }
    }
}

fn translate(error: &RaftError<u64, ClientWriteError<u64, BasicNode>>) -> Error {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            Error::NotLeader { leader: forward.leader_id }
        }
        other => Error::Stopped(other.to_string()),
    }
}
