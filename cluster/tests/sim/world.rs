//! A cluster in one thread: nodes, clients and faults for a while, then peace, and everybody agrees.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use model::NodeId;
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use replication::Origin;
use tskv::disk::{Fault, SimDisk};

use crate::clients::Client;
use crate::faults;
use crate::invariants::{Invariants, Member, Stand};
use crate::node::{Hosting, Node, Place, Places, Surroundings};
use crate::rows;
use crate::trace::Trace;
use crate::wire::Wires;

pub(crate) const NODES: u64 = 5;
pub(crate) const SETS: usize = 2;
const FOUNDERS: u64 = 3;
const CLIENTS: u64 = 4;
/// How long there are faults, and how long healing may take after them.
const FAULTS: Duration = Duration::from_secs(20);
const HEALING: Duration = Duration::from_secs(20);
const LOOK: Duration = Duration::from_millis(20);

/// What is made wrong, so that it must be found.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sabotage {
    /// A node that loses power loses its disk too, and comes back as if it had not.
    pub(crate) disks_are_lost: bool,
    /// Reads are answered by who believes that it leads.
    pub(crate) reads_without_barrier: bool,
}

/// What came of a simulation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) broken: Vec<String>,
    pub(crate) steps: u64,
    pub(crate) faults: u64,
    pub(crate) acknowledged: u64,
    /// How many of those came after an end.
    pub(crate) ended: u64,
    pub(crate) reads: u64,
    /// Stands for all that happened.
    pub(crate) hash: u64,
    pub(crate) last_events: String,
}

/// One simulation.
pub(crate) struct World {
    pub(crate) seed: u64,
    pub(crate) sabotage: Sabotage,
    pub(crate) trace: Arc<Trace>,
    pub(crate) around: Surroundings,
    state: Mutex<State>,
}

struct State {
    random: StdRng,
    running: BTreeMap<NodeId, Arc<Node>>,
    /// The disks of nodes that are down.
    disks: BTreeMap<NodeId, SimDisk>,
    lives: u64,
    members: [u64; SETS],
}

/// Simulates to the end. On a thread of its own.
pub(crate) async fn run(seed: u64, sabotage: Sabotage) -> Report {
    let trace = Arc::new(Trace::new());
    let around = Surroundings {
        wires: Arc::new(Wires::new(seed, Arc::clone(&trace))),
        places: Arc::new(Places::default()),
        invariants: Arc::new(Invariants::default()),
    };
    let state = State {
        random: StdRng::seed_from_u64(seed ^ 0x0f),
        running: BTreeMap::new(),
        disks: (1..=NODES).map(|node| (NodeId(node), SimDisk::default())).collect(),
        lives: 0,
        members: [0; SETS],
    };
    let world = World { seed, sabotage, trace, around, state: Mutex::new(state) };
    let world = Arc::new(world);
    world.found().await;
    let watching = tokio::spawn(watch(Arc::clone(&world)));
    let clients = (1..=CLIENTS).map(|session| tokio::spawn(Client::new(&world, session).act()));
    let clients: Vec<_> = clients.collect();
    let faults = tokio::spawn(faults::run(Arc::clone(&world)));
    tokio::time::sleep(FAULTS).await;
    faults.abort();
    clients.into_iter().for_each(|client| client.abort());
    world.heal().await;
    watching.abort();
    world.report()
}

/// Looks at every replica again and again.
async fn watch(world: Arc<World>) {
    loop {
        tokio::time::sleep(LOOK).await;
        for node in world.running() {
            for (member, hosting) in node.open_replicas().await {
                world.look(&node, member, &hosting);
            }
        }
    }
}

impl World {
    async fn found(&self) {
        for set in 0..SETS {
            let founders = (0..FOUNDERS).map(|at| {
                let node = NodeId((at + set as u64) % NODES + 1);
                (self.next_member(set), node)
            });
            let founders: BTreeMap<Member, NodeId> = founders.collect();
            for (member, node) in &founders {
                let origin = Origin::Founded(founders.clone());
                self.around.places.put(*member, Place { set, node: *node, origin });
            }
        }
        for node in 1..=NODES {
            self.start(NodeId(node)).await;
        }
    }

    /// Returns a member id that was never used.
    pub(crate) fn next_member(&self, set: usize) -> Member {
        let mut state = self.state.lock();
        state.members[set] += 1;
        (set as u64 + 1) * 1_000 + state.members[set]
    }

    pub(crate) fn node(&self, node: NodeId) -> Option<Arc<Node>> {
        self.state.lock().running.get(&node).cloned()
    }

    fn running(&self) -> Vec<Arc<Node>> {
        self.state.lock().running.values().cloned().collect()
    }

    /// Starts a node that is down.
    pub(crate) async fn start(&self, id: NodeId) {
        let (disk, life) = {
            let mut state = self.state.lock();
            state.lives += 1;
            let Some(disk) = state.disks.remove(&id) else { return };
            (disk, state.lives)
        };
        match Node::start((id, life), disk, self.around.clone()).await {
            Ok(node) => drop(self.state.lock().running.insert(id, node)),
            Err(broken) => self.around.invariants.broken(broken),
        }
    }

    /// Cuts a node's power; its disk keeps what was synced and some of what was not.
    pub(crate) async fn cut_power(&self, id: NodeId) {
        let Some(node) = self.state.lock().running.remove(&id) else { return };
        let survivors = self.state.lock().random.random();
        let disk = match self.sabotage.disks_are_lost {
            true => SimDisk::default(),
            false => node.disk.state().crash(survivors),
        };
        node.cut_power().await;
        self.state.lock().disks.insert(id, disk);
    }

    /// Returns a node that says it leads a set, and its replica.
    pub(crate) async fn leader(
        &self,
        set: usize,
        random: &mut StdRng,
    ) -> Option<(Arc<Node>, Arc<Hosting>)> {
        let mut nodes = self.running();
        nodes.shuffle(random);
        for node in nodes {
            for (member, hosting) in node.open_replicas().await {
                let place = self.around.places.get(member);
                if place.is_some_and(|place| place.set == set) && hosting.group.leads() {
                    return Some((node, hosting));
                }
            }
        }
        None
    }

    /// Notes how a replica stands.
    fn look(&self, node: &Node, member: Member, hosting: &Hosting) {
        if node.power.is_on() && !self.sabotage.disks_are_lost {
            let term = hosting.group.status().term;
            let stand = Stand { term, ..hosting.beside.stands() };
            self.around.invariants.stands(member, stand);
        }
    }

    /// Removes replicas that the members of their set agree to be without.
    pub(crate) async fn tidy_up(&self, set: usize) {
        let mut random = StdRng::seed_from_u64(self.seed);
        let Some((_, hosting)) = self.leader(set, &mut random).await else { return };
        if hosting.group.read_barrier().await.is_err() {
            return;
        }
        let status = hosting.group.status();
        if !status.settled || !hosting.group.leads() {
            return;
        }
        let members: BTreeSet<Member> = status.members.iter().map(|one| one.member).collect();
        let voters = |member| status.members.iter().any(|one| one.member == member && one.votes);
        let idle = members.iter().copied().filter(|member| !voters(*member)).collect();
        drop(hosting.group.remove_learners(idle).await);
        for (member, place) in self.around.places.all() {
            // One that was ordered lately may not be a member yet.
            let newest = self.state.lock().members[set] + (set as u64 + 1) * 1_000;
            if place.set == set && !members.contains(&member) && member < newest {
                self.trace.tell(format_args!("member {member} is removed"));
                self.around.places.remove(member);
                if let Some(node) = self.node(place.node) {
                    node.destroy(member).await;
                }
            }
        }
    }

    /// Ends all faults; then every set must soon take writes, and its members hold the same.
    async fn heal(self: &Arc<Self>) {
        self.trace.tell("peace");
        self.around.wires.heal();
        for node in 1..=NODES {
            match self.node(NodeId(node)) {
                Some(running) if running.disk.lost_power() => self.cut_power(running.id).await,
                Some(running) => running.disk.fail_operation(u64::MAX, Fault::Io),
                None => {}
            }
            self.start(NodeId(node)).await;
        }
        for set in 0..SETS {
            let mut client = Client::new(self, CLIENTS + 1 + set as u64);
            let healed = async {
                while !client.put(set).await {}
                self.agree(set).await;
            };
            if tokio::time::timeout(HEALING, healed).await.is_err() {
                let members = self.members(set).await;
                self.around.invariants.broken(format!("set {set} does not heal: {members:#?}"));
            }
        }
    }

    /// Waits until all members of a set have applied the same, then compares their rows.
    async fn agree(&self, set: usize) {
        let mut random = StdRng::seed_from_u64(self.seed);
        loop {
            tokio::time::sleep(LOOK).await;
            let Some((_, leader)) = self.leader(set, &mut random).await else { continue };
            let status = leader.group.status();
            let mut same = Vec::new();
            for member in &status.members {
                let Some(node) = self.node(member.node) else { continue };
                let Ok(hosting) = node.replica(member.member).await else { continue };
                if hosting.group.status().applied == status.last_index {
                    same.push((member.member, hosting));
                }
            }
            if same.len() < status.members.len() {
                continue;
            }
            for (member, hosting) in same {
                match rows::read(&hosting.beside.vnode) {
                    Ok(rows) => self.around.invariants.ends(set, member, &rows),
                    Err(error) => self.around.invariants.broken(format!("{member}: {error}")),
                }
            }
            return;
        }
    }

    /// Tells what is known of the members of a set.
    async fn members(&self, set: usize) -> Vec<String> {
        let mut told = Vec::new();
        for node in self.running() {
            for (member, hosting) in node.open_replicas().await {
                let place = self.around.places.get(member);
                if place.is_none_or(|place| place.set == set) {
                    let failure = hosting.group.failure();
                    let stands = hosting.beside.stands();
                    let status = hosting.group.status();
                    told.push(format!("{member}, {failure:?}, {stands:?}: {status:?}"));
                }
            }
        }
        told
    }

    fn report(&self) -> Report {
        let (steps, faults, hash) = self.trace.sums();
        let [acknowledged, ended, reads] = self.around.invariants.counts();
        let broken = self.around.invariants.found();
        let last_events = self.trace.last();
        Report { broken, steps, faults, acknowledged, ended, reads, hash, last_events }
    }
}
