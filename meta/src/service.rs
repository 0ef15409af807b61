//! What meta members do for other nodes: change the catalog, let it be followed, know who is alive.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt};
use futures::stream::{self, StreamExt};
use model::{NodeId, TenantId};
use parking_lot::Mutex;
use replication::transport::{Answers, CallError, Service, Transport};
use replication::{Group, GroupStatus};
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use crate::catalog::Catalog;
use crate::command::{self, Command};
use crate::error::{Error, Result};
use crate::limits::RateGroup;
use crate::machine::{Answer, CatalogChange, MetaMachine, Row, decode_answer};
use crate::placement;
use crate::rates::Buckets;

/// The service's name.
pub(crate) const META: &str = "meta";
/// How long a command may take at the member that leads.
pub(crate) const COMMAND_PATIENCE: Duration = Duration::from_secs(10);
/// A node that gave no sign of life for so long is taken for dead.
pub(crate) const SILENCE: Duration = Duration::from_secs(5);
/// A member without a leader for so long lets no one follow it: what it knows may be old.
const LEADERLESS_MAX: u32 = 3;
/// After so long without an answer one looks whether somebody else leads.
const DOUBT: Duration = Duration::from_secs(1);

/// What a meta member is asked.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    /// Change the catalog. Who does not lead passes it on once.
    Submit { command: Command, passed_on: bool },
    /// A sign of life.
    Heartbeat { node: NodeId, load: NodeLoad, passed_on: bool },
    /// Who is alive, and what do they carry?
    Nodes { passed_on: bool },
    /// Tokens of a tenant's rate.
    Draw { tenant: TenantId, group: RateGroup, wanted: u64, passed_on: bool },
    /// How often was the catalog changed?
    Version { passed_on: bool },
    /// All rows, as the member asked knows them.
    Rows,
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Response {
    Answer(Answer),
    Done,
    Nodes {
        leader: NodeId,
        nodes: Vec<NodeReport>,
    },
    Rows(Vec<Vec<u8>>),
    Version(u64),
    /// So many tokens are given.
    Drawn(u64),
    /// Nothing was done: nobody leads, or nobody who is known.
    NoLeader,
    /// Nobody knows whether it was done.
    Unknown(String),
}

/// What a node carries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeLoad {
    /// Bytes free on the disk of its data.
    pub disk_free: u64,
    /// Bytes of that disk.
    pub disk_size: u64,
    /// Vnodes open.
    pub vnodes: u64,
    /// Replica sets it leads.
    pub leads: u64,
}

/// A disk with less than this share free, or than this many bytes if that is less, is full.
const FULL_SHARE: u64 = 50;
const FULL_BYTES: u64 = 512 << 20;

impl NodeLoad {
    /// Returns whether the node's disk is full: it gets no vnodes and leads nothing. One that is not known
    /// is not.
    pub fn is_full(&self) -> bool {
        self.disk_size > 0 && self.disk_free < (self.disk_size / FULL_SHARE).min(FULL_BYTES)
    }
}

/// What the member that leads knows of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeReport {
    /// Which node.
    pub node: NodeId,
    /// Milliseconds since its last sign of life; `None` where there was none yet.
    pub silent_ms: Option<u64>,
    /// What it carries.
    pub load: NodeLoad,
}

impl NodeReport {
    /// Returns whether the node gave a sign of life within this time.
    pub fn was_heard_within(&self, time: Duration) -> bool {
        self.silent_ms.is_some_and(|ms| u128::from(ms) < time.as_millis())
    }
}

/// What is said while the catalog is followed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Event {
    /// All rows.
    Rows(Vec<Vec<u8>>),
    /// Changed rows.
    Changes(Vec<Row>),
    /// Nothing changed.
    Alive,
}

/// A meta member, as other nodes see it.
#[derive(Debug)]
pub(crate) struct MetaService {
    node: NodeId,
    group: Arc<Group>,
    catalog: watch::Receiver<Arc<Catalog>>,
    /// The group keeps it: once that is closed nobody does.
    machine: Weak<MetaMachine>,
    transport: Option<Arc<dyn Transport>>,
    alive: Mutex<HashMap<NodeId, (Instant, NodeLoad)>>,
    buckets: Buckets,
    /// Since when this member leads: before, it heard of nobody.
    leads_since: Mutex<Option<Instant>>,
}

pub(crate) fn encode<T: Serialize>(message: &T) -> Bytes {
    serde_json::to_vec(message).expect("messages have string keys").into()
}

pub(crate) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> std::result::Result<T, CallError> {
    serde_json::from_slice(bytes).map_err(|error| CallError::Refused(error.to_string()))
}

impl MetaService {
    pub(crate) fn new(
        node: NodeId,
        group: Arc<Group>,
        machine: &Arc<MetaMachine>,
        transport: Option<Arc<dyn Transport>>,
    ) -> Self {
        Self {
            node,
            group,
            catalog: machine.watch(),
            machine: Arc::downgrade(machine),
            transport,
            alive: Mutex::default(),
            buckets: Buckets::default(),
            leads_since: Mutex::default(),
        }
    }

    /// Returns what the member knows of its group, and the bytes of memory its store takes.
    pub(crate) fn watched(&self) -> (GroupStatus, u64) {
        let bytes = self.machine.upgrade().map_or(0, |machine| machine.memory_bytes());
        (self.group.status(), bytes)
    }

    /// Answers a request, here or where the leader is.
    pub(crate) async fn answer(&self, request: Request) -> Response {
        if self.leads() || matches!(request, Request::Rows) {
            return self.answer_here(request).await;
        }
        let (passed_on, request) = match request {
            Request::Submit { command, passed_on } => {
                (passed_on, Request::Submit { command, passed_on: true })
            }
            Request::Heartbeat { node, load, passed_on } => {
                (passed_on, Request::Heartbeat { node, load, passed_on: true })
            }
            Request::Nodes { passed_on } => (passed_on, Request::Nodes { passed_on: true }),
            Request::Draw { tenant, group, wanted, passed_on } => {
                (passed_on, Request::Draw { tenant, group, wanted, passed_on: true })
            }
            Request::Version { passed_on } => (passed_on, Request::Version { passed_on: true }),
            Request::Rows => (true, Request::Rows),
        };
        let leader = self.group.status().leader.map(|(_, node)| node);
        let leader = leader.filter(|leader| *leader != self.node && !passed_on);
        let (Some(leader), Some(transport)) = (leader, &self.transport) else {
            return Response::NoLeader;
        };
        let asked = transport.call(leader, META, encode(&request), COMMAND_PATIENCE);
        let asked = tokio::select! {
            asked = asked => asked,
            // The one that was asked may be cut off, or stand still.
            () = self.other_leader(leader) => {
                return Response::Unknown("another member leads now".to_owned());
            }
        };
        match asked.and_then(|answer| decode(&answer)) {
            Ok(response) => response,
            Err(CallError::Unreachable { .. } | CallError::Refused(_)) => Response::NoLeader,
            Err(error @ CallError::Unknown { .. }) => Response::Unknown(error.to_string()),
        }
    }

    /// Waits until another member leads. Not at once: this one may not have heard of the newest yet.
    async fn other_leader(&self, than: NodeId) {
        tokio::time::sleep(DOUBT).await;
        if self.group.wait_for_other_leader(than).await.is_err() {
            std::future::pending().await
        }
    }

    fn leads(&self) -> bool {
        let leads = self.group.leads();
        let mut since = self.leads_since.lock();
        if leads && since.is_none() {
            *since = Some(Instant::now());
            // What was heard in an earlier term is old.
            self.alive.lock().clear();
            self.buckets.clear();
        } else if !leads {
            *since = None;
        }
        leads
    }

    /// Returns whether a node gave a sign of life lately, as far as this member can know.
    fn answers(&self, node: NodeId) -> bool {
        let heard = self.alive.lock().get(&node).is_some_and(|(at, _)| at.elapsed() < SILENCE);
        let new = self.leads_since.lock().is_none_or(|since| since.elapsed() < SILENCE);
        heard || new || node == self.node
    }

    /// Returns what a node carries, as far as this member has heard.
    fn load(&self, node: NodeId) -> NodeLoad {
        self.alive.lock().get(&node).map(|(_, load)| *load).unwrap_or_default()
    }

    async fn answer_here(&self, request: Request) -> Response {
        match request {
            Request::Submit { command, .. } => self.submit(command).await,
            Request::Heartbeat { node, load, .. } => {
                self.alive.lock().insert(node, (Instant::now(), load));
                Response::Done
            }
            Request::Nodes { .. } => {
                let alive = self.alive.lock();
                let catalog = self.catalog.borrow().clone();
                let nodes = catalog.nodes().map(|node| {
                    let heard = alive.get(&node.id);
                    let silent = heard.map(|(at, _)| at.elapsed().as_millis());
                    NodeReport {
                        node: node.id,
                        silent_ms: silent.and_then(|ms| u64::try_from(ms).ok()),
                        load: heard.map(|(_, load)| *load).unwrap_or_default(),
                    }
                });
                Response::Nodes { leader: self.node, nodes: nodes.collect() }
            }
            Request::Draw { tenant, group, wanted, .. } => {
                let catalog = self.catalog.borrow().clone();
                let rates = catalog.tenant_by_id(tenant).map(|tenant| &tenant.rates);
                Response::Drawn(self.buckets.draw(rates, (tenant, group), wanted))
            }
            Request::Version { .. } => match self.group.read_barrier().await {
                Ok(()) => Response::Version(self.catalog.borrow().version()),
                Err(_) => Response::NoLeader,
            },
            Request::Rows => match self.rows_and_changes() {
                Ok((rows, _)) => Response::Rows(rows.iter().map(|row| row.to_vec()).collect()),
                Err(error) => Response::Unknown(error.to_string()),
            },
        }
    }

    async fn submit(&self, mut command: Command) -> Response {
        let catalog = self.catalog.borrow().clone();
        let placed = match &mut command {
            Command::CreateBucket { nodes, database, .. } => Some((*database, nodes)),
            Command::ResetReplicaSet { nodes, replica_set } => {
                catalog.replica_set(*replica_set).map(|(bucket, _)| (bucket.database, nodes))
            }
            _ => None,
        };
        if let Some((database, nodes)) = placed.filter(|(_, nodes)| nodes.is_empty()) {
            let answers = |node| self.answers(node);
            let load = |node| self.load(node);
            *nodes = placement::candidates(&catalog, database, answers, load);
        }
        let bytes = match command::encode(&command) {
            Ok(bytes) => bytes,
            Err(error) => return Response::Answer(Answer { outcome: Err(error), version: 0 }),
        };
        let proposed = tokio::time::timeout(COMMAND_PATIENCE, self.group.propose(bytes)).await;
        match proposed {
            Err(_) => Response::Unknown("no answer in time".to_owned()),
            Ok(Err(replication::Error::NotLeader { .. })) => Response::NoLeader,
            Ok(Err(error)) => Response::Unknown(error.to_string()),
            Ok(Ok(answer)) => match decode_answer(&answer) {
                Ok(answer) => Response::Answer(answer),
                Err(error) => Response::Unknown(error.to_string()),
            },
        }
    }

    fn rows_and_changes(&self) -> Result<(Vec<Bytes>, broadcast::Receiver<CatalogChange>)> {
        let machine = self.machine.upgrade();
        let machine = machine.ok_or_else(|| Error::Unavailable("it is closed".to_owned()))?;
        machine.follow().map_err(|error| Error::Corrupt(error.to_string()))
    }

    /// Returns all rows, then each change as it comes.
    fn follow(&self) -> Result<Answers> {
        let (rows, changes) = self.rows_and_changes()?;
        let rows = Event::Rows(rows.iter().map(|row| row.to_vec()).collect());
        let group = Arc::clone(&self.group);
        let state = (changes, group, 0_u32);
        let later = stream::unfold(state, |(mut changes, group, mut leaderless)| async move {
            let event = next_event(&mut changes).await?;
            leaderless = if group.status().leader.is_some() { 0 } else { leaderless + 1 };
            (leaderless < LEADERLESS_MAX).then_some((event, (changes, group, leaderless)))
        });
        let events = stream::once(async { rows }).chain(later);
        Ok(events.map(|event| Ok(encode(&event))).boxed())
    }
}

/// Returns the next change, or a sign of life after a second; `None` where some were missed.
async fn next_event(changes: &mut broadcast::Receiver<CatalogChange>) -> Option<Event> {
    match tokio::time::timeout(Duration::from_secs(1), changes.recv()).await {
        Err(_) => Some(Event::Alive),
        Ok(Ok(rows)) if !rows.is_empty() => Some(Event::Changes(rows.to_vec())),
        Ok(_) => None,
    }
}

impl Service for MetaService {
    fn call(self: Arc<Self>, request: Bytes) -> BoxFuture<'static, replication::transport::Answer> {
        async move { Ok(encode(&self.answer(decode(&request)?).await)) }.boxed()
    }

    fn stream(self: Arc<Self>, _request: Bytes) -> Answers {
        self.follow().unwrap_or_else(|error| {
            let refused = CallError::Refused(error.to_string());
            stream::once(async { Err(refused) }).boxed()
        })
    }
}
