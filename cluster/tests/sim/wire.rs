//! The simulated network: messages take their time, are lost, doubled, held back, or meet a cut wire,
//! in one direction or both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use model::NodeId;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use replication::transport::{Answer, CallError, Services, Transport};
use tokio::time::Instant;
use tskv::disk::SimDisk;

use crate::trace::Trace;

/// After how long a connection is known to be dead: the keep-alive of the real one.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

/// Whether one life of a node goes on.
#[derive(Clone, Debug)]
pub(crate) struct Power {
    on: Arc<AtomicBool>,
    disk: SimDisk,
}

impl Power {
    pub(crate) fn new(disk: SimDisk) -> Self {
        Self { on: Arc::new(AtomicBool::new(true)), disk }
    }

    pub(crate) fn cut(&self) {
        self.on.store(false, Ordering::Relaxed);
    }

    /// Returns some time after the power went off: what was asked then is never answered.
    async fn is_off(&self) {
        while self.is_on() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Returns whether the node can still say anything.
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed) && !self.disk.lost_power()
    }
}

/// How messages fare.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Weather {
    pub(crate) delay_max: Duration,
    pub(crate) lost: f64,
    pub(crate) doubled: f64,
}

impl Weather {
    pub(crate) const FAIR: Self =
        Self { delay_max: Duration::from_millis(2), lost: 0.0, doubled: 0.0 };
}

/// All wires between nodes.
pub(crate) struct Wires {
    trace: Arc<Trace>,
    state: Mutex<State>,
}

struct State {
    random: StdRng,
    nodes: BTreeMap<NodeId, (Services, Power)>,
    cut: BTreeSet<(NodeId, NodeId)>,
    held_until: BTreeMap<NodeId, Instant>,
    weather: Weather,
}

/// What becomes of one message.
struct Fate {
    arrives: Instant,
    is_lost: bool,
    again_after: Option<Duration>,
}

impl Wires {
    pub(crate) fn new(seed: u64, trace: Arc<Trace>) -> Self {
        let state = State {
            random: StdRng::seed_from_u64(seed),
            nodes: BTreeMap::new(),
            cut: BTreeSet::new(),
            held_until: BTreeMap::new(),
            weather: Weather::FAIR,
        };
        Self { trace, state: Mutex::new(state) }
    }

    pub(crate) fn plug_in(&self, node: NodeId, services: Services, power: Power) {
        self.state.lock().nodes.insert(node, (services, power));
    }

    pub(crate) fn unplug(&self, node: NodeId) {
        self.state.lock().nodes.remove(&node);
    }

    /// Lets nothing pass from one node to another.
    pub(crate) fn cut(&self, from: NodeId, to: NodeId) {
        self.state.lock().cut.insert((from, to));
    }

    /// Holds back all that a node says and is told, as if it stood still.
    pub(crate) fn hold(&self, node: NodeId, time: Duration) {
        self.state.lock().held_until.insert(node, Instant::now() + time);
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.state.lock().weather = weather;
    }

    /// Mends all wires.
    pub(crate) fn heal(&self) {
        let mut state = self.state.lock();
        state.cut.clear();
        state.held_until.clear();
        state.weather = Weather::FAIR;
    }

    fn fate(&self, from: NodeId, to: NodeId) -> Fate {
        let mut state = self.state.lock();
        let weather = state.weather;
        let most = u64::try_from(weather.delay_max.as_micros()).unwrap();
        let delay = Duration::from_micros(state.random.random_range(50..=most));
        let is_lost = state.random.random_bool(weather.lost);
        let again_after = state.random.random_bool(weather.doubled).then_some(delay * 5);
        let mut arrives = Instant::now() + delay;
        for node in [from, to] {
            arrives = arrives.max(state.held_until.get(&node).copied().unwrap_or(arrives));
        }
        Fate { arrives, is_lost, again_after }
    }

    fn is_cut(&self, from: NodeId, to: NodeId) -> bool {
        self.state.lock().cut.contains(&(from, to))
    }

    fn end(&self, node: NodeId) -> Option<(Services, Power)> {
        self.state.lock().nodes.get(&node).cloned()
    }
}

/// A node's end of the wires.
#[derive(Clone)]
pub(crate) struct Wire {
    pub(crate) wires: Arc<Wires>,
    pub(crate) node: NodeId,
    pub(crate) power: Power,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire").field("node", &self.node).finish_non_exhaustive()
    }
}

impl Wire {
    /// Brings a request to a node and its answer back.
    async fn carry(self, node: NodeId, service: &'static str, request: Bytes) -> Answer {
        let there = self.wires.fate(self.node, node);
        tokio::time::sleep_until(there.arrives).await;
        if there.is_lost || self.wires.is_cut(self.node, node) || !self.power.is_on() {
            return never_heard_of(node).await;
        }
        let Some((services, power)) = self.wires.end(node).filter(|(_, power)| power.is_on())
        else {
            return Err(CallError::Unreachable { node, reason: "it is down".to_owned() });
        };
        self.wires.trace.step((self.node.0, node.0, &request));
        if let Some(after) = there.again_after {
            let (services, request) = (services.clone(), request.clone());
            tokio::spawn(async move {
                tokio::time::sleep(after).await;
                drop(services.call(service, request).await);
            });
        }
        // Nobody there knows whether anybody still waits.
        let answer = tokio::spawn(async move { services.call(service, request).await });
        let answer = tokio::select! {
            answer = answer => answer.unwrap(),
            () = power.is_off() => return never_heard_of(node).await,
        };
        let back = self.wires.fate(node, self.node);
        let said = power.is_on();
        tokio::time::sleep_until(back.arrives).await;
        if back.is_lost || self.wires.is_cut(node, self.node) || !said {
            return never_heard_of(node).await;
        }
        answer
    }
}

/// What is lost is only noticed by nothing coming back.
async fn never_heard_of(node: NodeId) -> Answer {
    tokio::time::sleep(KEEP_ALIVE).await;
    Err(CallError::Unknown { node, reason: "the connection is dead".to_owned() })
}

impl Transport for Wire {
    fn call(
        &self,
        node: NodeId,
        service: &'static str,
        request: Bytes,
        patience: Duration,
    ) -> BoxFuture<'static, Answer> {
        let carried = tokio::time::timeout(patience, self.clone().carry(node, service, request));
        let late = move |_| Err(CallError::Unknown { node, reason: "no answer".to_owned() });
        async move { carried.await.unwrap_or_else(late) }.boxed()
    }
}
