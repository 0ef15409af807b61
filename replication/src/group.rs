//! One Raft group of this process: proposals are gathered into entries, one fsync for many.
//!
//! openraft 0.9 logs each `client_write` with an fsync of its own, so commands that arrive while one
//! entry is under way share the next.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use model::NodeId;
use openraft::error::{CheckIsLeaderError, ClientWriteError, InitializeError, RaftError};
use openraft::{BasicNode, Config, LogIdOptionExt, Raft, SnapshotPolicy};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, RwLock, Semaphore, mpsc, oneshot};

use crate::error::{Error, Result};
use crate::log::{Durable, LogStore, RaftLog, told};
use crate::machine::{Files, Machine, RaftMachine};
use crate::network::{Links, Network, node_entry, node_of};
use crate::types::{Commands, TypeConfig};

/// Proposals that may wait for the next entry.
const PROPOSALS_MAX: usize = 1_024;
/// Entries that may be durable here alone while others follow.
const ENTRIES_AHEAD_MAX: usize = 256;
/// An entry is closed at this size.
const ENTRY_BYTES: usize = 8 << 20;
/// The same where entries travel: one must be sent and synced within a heartbeat.
const ENTRY_BYTES_SENT: usize = 1 << 20;
/// How long a group may take to open, to flush and to close.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How long a leader may take to begin its term.
const TERM_PATIENCE: Duration = Duration::from_secs(5);
/// How long a member that hears of a leader refuses its vote to others: openraft takes the longest timeout of
/// an election for it, milliseconds.
pub(crate) const LEASE_MS: u64 = 550;
/// How long an image may take to reach another member, milliseconds.
const IMAGE_PATIENCE_MS: u64 = 3_600_000;

pub(crate) type Metrics = openraft::RaftMetrics<u64, BasicNode>;

/// Settings of groups.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    raft: Arc<Config>,
    network: Option<Network>,
}

fn raft_config() -> Config {
    Config {
        cluster_name: "cnosdb".to_owned(),
        snapshot_policy: SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        install_snapshot_timeout: IMAGE_PATIENCE_MS,
        // Entries that are there are sent, however many: an image costs more.
        replication_lag_threshold: u64::MAX,
        ..Config::default()
    }
}

impl GroupConfig {
    /// Settings of groups of one member, in a process without others: they never wait for a timer.
    pub fn alone() -> Self {
        let raft = Config {
            heartbeat_interval: 10_000,
            election_timeout_min: 20_000,
            election_timeout_max: 40_000,
            enable_tick: false,
            ..raft_config()
        };
        Self { raft: Arc::new(raft), network: None }
    }

    /// Settings of groups whose members may be on several nodes.
    pub fn networked(network: Network) -> Self {
        // openraft takes the interval for the deadline of a replication call too, so that it must
        // outlast an fsync; a leader's loss is noticed within 0.6 to 1.4 s.
        let raft = Config {
            heartbeat_interval: 200,
            election_timeout_min: 350,
            election_timeout_max: LEASE_MS,
            ..raft_config()
        };
        Self { raft: Arc::new(raft), network: Some(network) }
    }
}

/// How a member comes to be in its group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// The group began, or begins now, with these members and their nodes, this one among them.
    Founded(BTreeMap<u64, NodeId>),
    /// It was, or will be, added to a group that was there before.
    Added,
}

struct Proposal {
    command: Bytes,
    reply: oneshot::Sender<Result<(Bytes, u64)>>,
    bounds: Bounds,
}

/// What holds for a proposal besides its command.
#[derive(Default)]
pub struct Bounds {
    /// It is proposed in this term or not at all.
    pub term: Option<u64>,
    /// Kept until the command is applied or known never to be, even where nobody waits for it any more.
    pub guard: Option<Box<dyn std::any::Any + Send>>,
    /// Told once the command is durable in this member's log, whether or not it is ever committed.
    pub durable: Option<oneshot::Sender<()>>,
}

/// A member of a group.
pub struct Group {
    pub(crate) raft: Raft<TypeConfig>,
    /// openraft keeps it: once the group is closed nobody does.
    machine: Weak<dyn Files>,
    pub(crate) member: u64,
    pub(crate) network: Option<Network>,
    /// Held by who hands over the lead: no proposal and no read begins meanwhile.
    pub(crate) lead: Arc<RwLock<()>>,
    proposals: mpsc::Sender<Proposal>,
    closing: Mutex<Option<Closing>>,
    /// The term and the last index of a lead that the member took up again when it was opened.
    resumed: Option<(u64, u64)>,
    /// The index that the snapshot before the last covered: what followers lack is kept from there on.
    covered_before: Mutex<Option<u64>>,
    /// How many images the member takes now: it stands for no election meanwhile.
    pub(crate) images_taken: Mutex<usize>,
}

struct Closing {
    stop: oneshot::Sender<()>,
    proposer: tokio::task::JoinHandle<()>,
    /// Ends when nothing of openraft holds the machine any more.
    machine_in_use: mpsc::Receiver<()>,
}

/// How much of the log goes once it is covered by a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purge {
    /// All of it: a member that lacks some will get an image.
    Covered,
    /// What the other members have too, or what the snapshot before this one covered.
    Replicated,
}

impl std::fmt::Debug for Group {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Group").field("member", &self.member).finish_non_exhaustive()
    }
}

impl Group {
    /// Opens a member and replays its log. A member that is alone leads, and has applied all it
    /// holds, when this returns. A group of several is founded by [`Self::found`].
    ///
    /// # Errors
    /// What stopped the group, or that it is not ready in a minute.
    pub async fn open<L: LogStore, M: Machine>(
        config: &GroupConfig,
        (member, origin): (u64, &Origin),
        log: L,
        machine: Arc<M>,
    ) -> Result<Self> {
        let (in_use, machine_in_use) = mpsc::channel(1);
        let files: Weak<dyn Files> = Arc::<M>::downgrade(&machine);
        let machine = RaftMachine::new(machine, in_use);
        let durable = Durable::default();
        let covered = Some(machine.covered());
        let log = RaftLog { store: log, covered, durable: durable.clone() };
        let links = Links { network: config.network.clone(), member };
        let raft = Raft::new(member, Arc::clone(&config.raft), links, log, machine).await;
        let raft = raft.map_err(|error| Error::Stopped(error.to_string()))?;
        if let Err(error) = begin(&raft, member, origin).await {
            if let Err(join) = raft.shutdown().await {
                tracing::debug!(%join, "raft did not stop cleanly");
            }
            return Err(error);
        }
        let resumed = {
            let metrics = raft.metrics();
            let metrics = metrics.borrow();
            let last = metrics.last_log_index.filter(|_| metrics.state.is_leader());
            last.map(|last| (metrics.current_term, last))
        };
        let (proposals, queue) = mpsc::channel(PROPOSALS_MAX);
        let (stop, stopped) = oneshot::channel();
        let lead = Arc::<RwLock<()>>::default();
        let entry_bytes = if config.network.is_some() { ENTRY_BYTES_SENT } else { ENTRY_BYTES };
        let stages = Stages {
            raft: raft.clone(),
            lead: Arc::clone(&lead),
            entry_bytes,
            durable,
            ahead: Arc::new(Semaphore::new(ENTRIES_AHEAD_MAX)),
        };
        let proposer = propose_all(stages, queue, stopped);
        let proposer = tokio::spawn(proposer);
        let closing = Mutex::new(Some(Closing { stop, proposer, machine_in_use }));
        Ok(Self {
            raft,
            machine: files,
            member,
            network: config.network.clone(),
            lead,
            proposals,
            closing,
            resumed,
            covered_before: Mutex::new(None),
            images_taken: Mutex::new(0),
        })
    }

    /// Founds a group of several where nobody has yet, and stands for election. Whoever is called by
    /// others needs not: all of them standing at once would split the vote.
    ///
    /// # Errors
    /// What stopped the group.
    pub async fn found(&self, origin: &Origin) -> Result<()> {
        let blank = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow();
            metrics.membership_config.membership().get_joint_config().is_empty()
        };
        let Origin::Founded(members) = origin else { return Ok(()) };
        if !blank {
            return Ok(());
        }
        match self.raft.initialize(entries(members)).await {
            // Others were quicker.
            Ok(()) | Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(Error::Stopped(error.to_string())),
        }
    }

    /// Proposes a command and returns the machine's reply once it is committed and applied.
    ///
    /// # Errors
    /// `NotLeader`: it was not applied. `Stopped`: nobody knows whether it was.
    pub async fn propose(&self, command: Bytes) -> Result<Bytes> {
        Ok(self.propose_within(command, Bounds::default()).await?.0)
    }

    /// Proposes a command under conditions. Returns the index of its entry too.
    ///
    /// # Errors
    /// As `propose`; `NotLeader` also where the term is another one.
    pub async fn propose_within(&self, command: Bytes, bounds: Bounds) -> Result<(Bytes, u64)> {
        let (reply, receiver) = oneshot::channel();
        let stopped = || Error::Stopped("it takes no proposals any more".to_owned());
        self.proposals.send(Proposal { command, reply, bounds }).await.map_err(|_| stopped())?;
        receiver.await.map_err(|_| stopped())?
    }

    /// Returns once what this member then holds is all that was acknowledged before the call.
    ///
    /// # Errors
    /// `NotLeader`, also where a quorum cannot be asked.
    pub async fn read_barrier(&self) -> Result<()> {
        let resumed = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow();
            let mut voters = metrics.membership_config.voter_ids();
            // What a member alone has acknowledged, it has applied.
            if metrics.state.is_leader() && voters.all(|voter| voter == self.member) {
                return Ok(());
            }
            self.resumed.filter(|(term, _)| *term == metrics.current_term)
        };
        let barrier = async {
            let _leads = self.lead.read().await;
            self.raft.ensure_linearizable().await
        };
        match tokio::time::timeout(TERM_PATIENCE, barrier).await {
            Ok(Ok(_)) => match resumed {
                Some(resumed) => self.wait_for_resumed(resumed).await,
                None => Ok(()),
            },
            Ok(Err(RaftError::APIError(CheckIsLeaderError::ForwardToLeader(forward)))) => {
                Err(self.not_leader(forward.leader_id))
            }
            Ok(Err(RaftError::APIError(CheckIsLeaderError::QuorumNotEnough(_)))) | Err(_) => {
                Err(Error::NotLeader { leader: None })
            }
            Ok(Err(RaftError::Fatal(fatal))) => Err(Error::Stopped(fatal.to_string())),
        }
    }

    /// Waits until this member has applied what it had acknowledged before it was opened again.
    ///
    /// openraft lets who led lead on after a restart, in the same term, and knows no more of what was
    /// committed than the disk tells, which is less: its own barrier would let older rows be read.
    async fn wait_for_resumed(&self, (term, last): (u64, u64)) -> Result<()> {
        let reached = move |metrics: &Metrics| {
            metrics.current_term != term || metrics.last_applied.index() >= Some(last)
        };
        let waited = self.wait(reached, TERM_PATIENCE).await;
        match waited {
            Ok(metrics) if metrics.last_applied.index() >= Some(last) => Ok(()),
            Ok(_) | Err(Error::NotReady(_)) => Err(Error::NotLeader { leader: None }),
            Err(error) => Err(error),
        }
    }

    fn not_leader(&self, leader: Option<u64>) -> Error {
        let metrics = self.raft.metrics();
        let membership = Arc::clone(&metrics.borrow().membership_config);
        let node = leader.and_then(|leader| membership.membership().get_node(&leader));
        Error::NotLeader { leader: leader.zip(node.and_then(node_of)) }
    }

    /// Returns the files of the machine.
    pub(crate) fn files(&self) -> Result<Arc<dyn Files>> {
        self.machine.upgrade().ok_or_else(|| Error::Stopped("it is closed".to_owned()))
    }

    /// Returns why the group has stopped, if it has.
    pub fn failure(&self) -> Option<String> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        metrics.running_state.as_ref().err().map(ToString::to_string)
    }

    /// Makes durable what was applied so far and purges the log up to there, or less.
    ///
    /// # Errors
    /// What stopped the group.
    pub async fn snapshot(&self, purge: Purge) -> Result<()> {
        let wanted = self.raft.metrics().borrow().last_applied;
        let fatal = |error: openraft::error::Fatal<u64>| Error::Stopped(error.to_string());
        let mut seen = self.raft.metrics().borrow().snapshot;
        let covered = loop {
            // One that is being made already, which covers less, is not made anew: it is asked for again.
            self.raft.trigger().snapshot().await.map_err(fatal)?;
            let made =
                move |metrics: &Metrics| metrics.snapshot >= wanted || metrics.snapshot > seen;
            let snapshot = self.wait(made, PATIENCE).await?.snapshot;
            if snapshot >= wanted {
                break snapshot;
            }
            seen = snapshot;
        };
        let Some(covered) = covered.index() else { return Ok(()) };
        let before = self.covered_before.lock().replace(covered);
        let upto = match purge {
            Purge::Covered => Some(covered),
            Purge::Replicated => self.lagging().max(before).map(|upto| upto.min(covered)),
        };
        if let Some(upto) = upto {
            self.raft.trigger().purge_log(upto).await.map_err(fatal)?;
            self.wait(move |metrics| metrics.purged.index() >= Some(upto), PATIENCE).await?;
        }
        Ok(())
    }

    /// Returns how many entries were applied since the last snapshot.
    pub fn uncovered(&self) -> u64 {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let applied = metrics.last_applied.index().map_or(0, |index| index + 1);
        applied.saturating_sub(metrics.snapshot.index().map_or(0, |index| index + 1))
    }

    /// Returns the index that all members have, as far as this one knows: a follower knows nothing.
    fn lagging(&self) -> Option<u64> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow();
        let alone = metrics.membership_config.nodes().count() == 1;
        match &metrics.replication {
            Some(others) => others.values().map(LogIdOptionExt::index).min().unwrap_or(None),
            None if alone => metrics.snapshot.index(),
            None => None,
        }
    }

    /// Waits until the group's state is as asked.
    pub(crate) async fn wait(
        &self,
        reached: impl Fn(&Metrics) -> bool + Send + Sync,
        patience: Duration,
    ) -> Result<Metrics> {
        let done = |metrics: &Metrics| reached(metrics) || metrics.running_state.is_err();
        let metrics = self.raft.wait(Some(patience)).metrics(done, "state").await;
        let metrics = metrics.map_err(|error| Error::NotReady(error.to_string()))?;
        let failed = metrics.running_state.as_ref().err().map(ToString::to_string);
        failed.map_or(Ok(metrics), |failure| Err(Error::Stopped(failure)))
    }

    /// Answers what was proposed, then stops; log and machine are let go of when this returns.
    pub async fn close(&self) {
        let closing = self.closing.lock().take();
        let Some(Closing { stop, mut proposer, mut machine_in_use }) = closing else { return };
        drop(stop);
        // A leader that has lost its quorum would answer never.
        match tokio::time::timeout(TERM_PATIENCE, &mut proposer).await {
            Ok(Err(error)) => tracing::error!(%error, "the proposer of a raft group panicked"),
            Ok(Ok(())) => {}
            Err(_) => proposer.abort(),
        }
        if let Err(error) = self.raft.shutdown().await {
            tracing::debug!(%error, "raft did not stop cleanly");
        }
        if tokio::time::timeout(PATIENCE, machine_in_use.recv()).await.is_err() {
            tracing::warn!("a raft group still works on its last entries");
        }
    }
}

/// Founds the group where that is still to be done. A member that is alone leads on return.
async fn begin(raft: &Raft<TypeConfig>, member: u64, origin: &Origin) -> Result<()> {
    let stopped = |error: &dyn std::fmt::Display| Error::Stopped(error.to_string());
    if raft.is_initialized().await.map_err(|error| stopped(&error))? {
        let membership = Arc::clone(&raft.metrics().borrow().membership_config);
        if !membership.voter_ids().eq([member]) {
            return Ok(());
        }
        // Does nothing where the stored vote made this member leader already.
        raft.trigger().elect().await.map_err(|error| stopped(&error))?;
    } else {
        let Origin::Founded(members) = origin else { return Ok(()) };
        if members.len() > 1 {
            return Ok(());
        }
        raft.initialize(entries(members)).await.map_err(|error| stopped(&error))?;
    }
    let leads = |metrics: &Metrics| metrics.state.is_leader() || metrics.running_state.is_err();
    let metrics = raft.wait(Some(PATIENCE)).metrics(leads, "lead").await;
    let metrics = metrics.map_err(|error| Error::NotReady(error.to_string()))?;
    metrics.running_state.map_err(|error| stopped(&error))?;
    raft.ensure_linearizable().await.map_err(|error| stopped(&error))?;
    let all = |metrics: &Metrics| {
        metrics.last_applied.index() >= metrics.last_log_index || metrics.running_state.is_err()
    };
    let metrics = raft.wait(Some(PATIENCE)).metrics(all, "all applied").await;
    let metrics = metrics.map_err(|error| Error::NotReady(error.to_string()))?;
    metrics.running_state.map_err(|error| stopped(&error))?;
    Ok(())
}

fn entries(members: &BTreeMap<u64, NodeId>) -> BTreeMap<u64, BasicNode> {
    members.iter().map(|(member, node)| (*member, node_entry(*node))).collect()
}

/// What a proposer works with.
struct Stages {
    raft: Raft<TypeConfig>,
    lead: Arc<RwLock<()>>,
    entry_bytes: usize,
    durable: Durable,
    /// Places for entries that are durable here and not committed yet, while others follow.
    ahead: Arc<Semaphore>,
}

/// Commands that share an entry, and what comes with them.
struct Gathered {
    commands: Commands,
    replies: Vec<oneshot::Sender<Result<(Bytes, u64)>>>,
    guards: Vec<Option<Box<dyn std::any::Any + Send>>>,
    durable: Vec<oneshot::Sender<()>>,
}

impl Stages {
    /// Gathers what waits behind a proposal, up to the size of an entry.
    fn gather(&self, first: Proposal, queue: &mut mpsc::Receiver<Proposal>) -> Gathered {
        let mut bytes = first.command.len();
        let mut all = Gathered {
            commands: Commands(vec![first.command]),
            replies: vec![first.reply],
            guards: vec![first.bounds.guard],
            durable: first.bounds.durable.into_iter().collect(),
        };
        while bytes < self.entry_bytes
            && let Ok(next) = queue.try_recv()
        {
            let Some(next) = self.admit(next) else { continue };
            bytes += next.command.len();
            all.commands.0.push(next.command);
            all.replies.push(next.reply);
            all.guards.push(next.bounds.guard);
            all.durable.extend(next.bounds.durable);
        }
        all
    }

    /// Returns a place ahead of entries that are not committed yet, and what tells that this entry is durable
    /// here: where no more than that is asked for, the next one does not wait for others.
    fn place_ahead(
        &self,
        durable: &mut Vec<oneshot::Sender<()>>,
        proposals: usize,
    ) -> Option<(OwnedSemaphorePermit, oneshot::Receiver<()>)> {
        if durable.len() < proposals {
            return None;
        }
        let place = Arc::clone(&self.ahead).try_acquire_owned().ok()?;
        let (told, here) = oneshot::channel();
        durable.push(told);
        Some((place, here))
    }

    /// Returns once this member does not lead, or in another term than now.
    async fn deposed(&self) {
        let mut metrics = self.raft.metrics();
        let term = metrics.borrow().current_term;
        let gone = |metrics: &Metrics| {
            !metrics.state.is_leader()
                || metrics.current_term != term
                || metrics.running_state.is_err()
        };
        if metrics.wait_for(gone).await.is_err() {
            tracing::debug!("the group is closed");
        }
    }

    /// Takes what is not wanted any more, or not in this term, out of the way.
    fn admit(&self, proposal: Proposal) -> Option<Proposal> {
        if proposal.reply.is_closed() {
            return None;
        }
        let now = self.raft.metrics().borrow().current_term;
        if proposal.bounds.term.is_none_or(|term| term == now) {
            return Some(proposal);
        }
        if proposal.reply.send(Err(Error::NotLeader { leader: None })).is_err() {
            tracing::debug!("nobody waits for this proposal any more");
        }
        None
    }
}

async fn propose_all(
    stages: Stages,
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
        let _leads = stages.lead.read().await;
        let Some(first) = stages.admit(first) else { continue };
        let Gathered { commands, replies, guards, mut durable } = stages.gather(first, &mut queue);
        let raft = stages.raft.clone();
        let (place, durable_here) = stages.place_ahead(&mut durable, replies.len()).unzip();
        let noted = stages.durable.note(&commands, durable);
        let mut writing = Box::pin(async move {
            let written = raft.client_write(commands).await;
            drop(noted);
            written
        });
        tokio::select! {
            biased;
            written = &mut writing => {
                answer(replies, Some(written));
                drop(guards);
            }
            () = told(durable_here) => {
                let held = (guards, place);
                tokio::spawn(answer_later(stages.raft.clone(), writing, replies, held));
            }
            // It may be answered yet, or never: openraft forgets what an image covers. Others do not wait.
            () = stages.deposed() => {
                tokio::spawn(answer_later(stages.raft.clone(), writing, replies, guards));
            }
        }
    }
}

/// Answers who proposed the commands of an entry once it is known what became of it; what is held for them is
/// let go of then.
async fn answer_later(
    raft: Raft<TypeConfig>,
    writing: impl Future<Output = Written>,
    replies: Vec<oneshot::Sender<Result<(Bytes, u64)>>>,
    held: impl Send,
) {
    let written = tokio::time::timeout(TERM_PATIENCE, writing).await.ok();
    if written.is_none() {
        outlived(&raft).await;
    }
    answer(replies, written);
    drop(held);
}

/// Waits until what the log holds now is applied, or belongs to a term that is over: then nothing of it
/// happens unseen any more.
async fn outlived(raft: &Raft<TypeConfig>) {
    let mut metrics = raft.metrics();
    let (term, last) = {
        let now = metrics.borrow();
        (now.current_term, now.last_log_index)
    };
    let over = |now: &Metrics| {
        now.current_term != term || now.last_applied.index() >= last || now.running_state.is_err()
    };
    if tokio::time::timeout(PATIENCE, metrics.wait_for(over)).await.is_err() {
        tracing::warn!("a proposal stayed open for a minute");
    }
}

type Written = std::result::Result<
    openraft::raft::ClientWriteResponse<TypeConfig>,
    RaftError<u64, ClientWriteError<u64, BasicNode>>,
>;

/// Tells who proposed the commands of an entry what became of it; `None`: nobody knows.
fn answer(replies: Vec<oneshot::Sender<Result<(Bytes, u64)>>>, written: Option<Written>) {
    let answers = match written {
        Some(Ok(written)) => {
            let index = written.log_id.index;
            written.data.0.into_iter().map(|reply| Ok((reply, index))).collect()
        }
        Some(Err(error)) => vec![Err(translate(&error)); replies.len()],
        None => vec![Err(Error::Stopped("the lead was lost".to_owned())); replies.len()],
    };
    for (reply, answer) in replies.into_iter().zip(answers) {
        if reply.send(answer).is_err() {
            tracing::debug!("nobody waits for this proposal any more");
        }
    }
}

pub(crate) fn translate(error: &RaftError<u64, ClientWriteError<u64, BasicNode>>) -> Error {
    match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(forward)) => {
            let node = forward.leader_node.as_ref().and_then(node_of);
            Error::NotLeader { leader: forward.leader_id.zip(node) }
        }
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
            Error::Refused(error.to_string())
        }
        RaftError::Fatal(fatal) => Error::Stopped(fatal.to_string()),
    }
}
