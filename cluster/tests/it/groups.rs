//! Groups of a few members over a transport in this process that can be cut: who leads, who may
//! answer, and that nothing acknowledged is lost when the lead changes hands.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use cluster::VnodeLogStore;
use futures::FutureExt;
use futures::future::BoxFuture;
use model::{NodeId, VnodeId};
use replication::transport::{Answer, CallError, Services, Transport};
use replication::{
    Group, GroupConfig, HoldsGroup, Image, Machine, Members, Network, Origin, RaftService,
};
use tskv::disk::SimDisk;
use tskv::wal::{Wal, WalConfig, WalWriter};

const PATIENCE: Duration = Duration::from_secs(10);

/// A machine that keeps every command.
#[derive(Default)]
struct Kept {
    state: Mutex<Option<Bytes>>,
    commands: Mutex<Vec<Bytes>>,
}

impl Machine for Kept {
    fn applied(&self) -> io::Result<Option<Bytes>> {
        Ok(self.state.lock().unwrap().clone())
    }

    async fn apply(&self, _: u64, state: Bytes, commands: Vec<Bytes>) -> io::Result<Vec<Bytes>> {
        *self.state.lock().unwrap() = Some(state);
        self.commands.lock().unwrap().extend(commands.iter().cloned());
        Ok(commands)
    }

    async fn snapshot(&self) -> io::Result<Image> {
        Ok(Image { raft_state: self.state.lock().unwrap().clone(), data: Bytes::new() })
    }

    fn last_snapshot(&self) -> io::Result<Option<Image>> {
        Ok(None)
    }

    async fn install(&self, _: Image) -> io::Result<()> {
        Err(io::Error::other("no image is given"))
    }
}

/// Which nodes hear each other.
#[derive(Debug, Default)]
struct Wires {
    nodes: Mutex<HashMap<NodeId, Services>>,
    cut: Mutex<HashSet<(NodeId, NodeId)>>,
}

/// A node's end of the wires.
#[derive(Clone, Debug)]
struct Wire {
    wires: Arc<Wires>,
    node: NodeId,
}

impl Wires {
    fn cut(&self, node: NodeId) {
        for other in self.nodes.lock().unwrap().keys().copied() {
            self.cut.lock().unwrap().extend([(node, other), (other, node)]);
        }
    }

    fn heal(&self) {
        self.cut.lock().unwrap().clear();
    }
}

impl Transport for Wire {
    fn call(
        &self,
        node: NodeId,
        service: &'static str,
        request: Bytes,
        patience: Duration,
    ) -> BoxFuture<'static, Answer> {
        let is_cut = self.wires.cut.lock().unwrap().contains(&(self.node, node));
        let services = self.wires.nodes.lock().unwrap().get(&node).cloned();
        let reason = "cut".to_owned();
        async move {
            let Some(services) = services.filter(|_| !is_cut) else {
                return Err(CallError::Unreachable { node, reason });
            };
            let late = |_| Err(CallError::Unknown { node, reason: "late".to_owned() });
            let asked = services.call(service, request);
            tokio::time::timeout(patience, asked).await.unwrap_or_else(late)
        }
        .boxed()
    }
}

struct OneMember(Arc<Group>, Arc<Wal>);

impl Members for OneMember {
    fn member(&self, _: u64) -> BoxFuture<'_, replication::Result<Arc<dyn HoldsGroup>>> {
        let group = Arc::clone(&self.0) as Arc<dyn HoldsGroup>;
        async move { Ok(group) }.boxed()
    }

    fn admit(&self) -> replication::Result<()> {
        self.1.admit().map_err(|error| replication::Error::NotReady(error.to_string()))
    }
}

struct Member {
    node: NodeId,
    group: Arc<Group>,
    machine: Arc<Kept>,
    disk: SimDisk,
}

/// Segments of the log, small enough to be filled.
const SEGMENT_BYTES: u64 = 64 << 10;

struct Few {
    wires: Arc<Wires>,
    members: Vec<Member>,
}

impl Few {
    async fn start(count: u64) -> Self {
        let wires = Arc::new(Wires::default());
        let founders: BTreeMap<u64, NodeId> = (1..=count).map(|id| (id, NodeId(id))).collect();
        let origin = Origin::Founded(founders);
        let mut members = Vec::new();
        for id in 1..=count {
            let node = NodeId(id);
            let wire = Wire { wires: Arc::clone(&wires), node };
            let network = Network::new(Arc::new(wire), "raft", node);
            let disk = SimDisk::default();
            let config = WalConfig {
                writer: WalWriter::Caller,
                segment_bytes: SEGMENT_BYTES,
                ..WalConfig::default()
            };
            let wal = Wal::open(Arc::new(disk.clone()), Path::new("wal"), &config).unwrap();
            let log = VnodeLogStore(wal.log(VnodeId(id)));
            let machine = Arc::new(Kept::default());
            let config = GroupConfig::networked(network.clone());
            let group = Group::open(&config, (id, &origin), log, Arc::clone(&machine)).await;
            let group = Arc::new(group.unwrap());
            let services = Services::default();
            let service = RaftService::new(OneMember(Arc::clone(&group), wal), network);
            services.offer("raft", Arc::new(service));
            wires.nodes.lock().unwrap().insert(node, services);
            members.push(Member { node, group, machine, disk });
        }
        members[0].group.found(&origin).await.unwrap();
        Self { wires, members }
    }

    /// Returns the member that leads, as one who is not cut off sees it.
    async fn leader(&self, seen_from: usize) -> usize {
        let (leader, _) = self.members[seen_from].group.wait_for_leader(PATIENCE).await.unwrap();
        usize::try_from(leader).unwrap() - 1
    }

    /// Proposes to whoever leads, until it is acknowledged.
    async fn propose(&self, from: usize, command: &'static [u8]) {
        loop {
            let leader = self.leader(from).await;
            let proposed = self.members[leader].group.propose(Bytes::from_static(command));
            match tokio::time::timeout(PATIENCE, proposed).await.unwrap() {
                Ok(_) => return,
                Err(replication::Error::NotLeader { .. }) => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    }

    async fn wait_until_all_hold(&self, commands: &[&'static [u8]]) {
        for member in &self.members {
            let deadline = tokio::time::Instant::now() + PATIENCE;
            while *member.machine.commands.lock().unwrap() != commands {
                assert!(tokio::time::Instant::now() < deadline, "node {} lags", member.node);
                tokio::task::yield_now().await;
            }
        }
    }
}

/// Elections may go to another member so often, on a machine that is busy.
const HAND_OVERS: u32 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn the_lead_is_handed_over_and_no_proposal_is_lost() {
    let few = Few::start(3).await;
    few.propose(0, b"a").await;
    let mut expected: Vec<&'static [u8]> = vec![b"a"];
    for round in 0..4 {
        let heir = (few.leader(0).await + 1) % 3;
        // An election may go to the third member; then that one is asked.
        for attempt in 0..=HAND_OVERS {
            let leader = few.leader(0).await;
            if leader == heir {
                break;
            }
            assert!(attempt < HAND_OVERS, "round {round}: member {leader} leads, not {heir}");
            let handed = few.members[leader].group.hand_over(heir as u64 + 1);
            let (handed, ()) = tokio::join!(handed, few.propose(leader, b"b"));
            expected.push(b"b");
            // Whether the heir leads is asked above: it may learn of it later than the old leader.
            match handed {
                Ok(())
                | Err(replication::Error::NotLeader { .. } | replication::Error::NotReady(_)) => {}
                Err(error) => panic!("{error}"),
            }
        }
    }
    few.wait_until_all_hold(&expected).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_lead_goes_to_any_of_four_members() {
    let few = Few::start(4).await;
    few.propose(0, b"a").await;
    // Who waits least before it stands for election is another one each time.
    for heir in 0..4 {
        for attempt in 0..=HAND_OVERS {
            let leader = few.leader(heir).await;
            if leader == heir {
                break;
            }
            assert!(attempt < HAND_OVERS, "member {leader} leads, not {heir}");
            // On a machine that is busy another may stand for election before it.
            let _refused = few.members[leader].group.hand_over(heir as u64 + 1).await;
            // The heir may take one for the leader who is it no more; who acknowledges is.
            few.propose(heir, b"b").await;
        }
    }
}

// In time that passes only while nobody has anything to do.
#[tokio::test(start_paused = true)]
async fn proposals_wait_a_lease_at_most_for_an_heir_that_is_lost() {
    let few = Few::start(3).await;
    few.propose(0, b"a").await;
    let leader = few.leader(0).await;
    let heir = (leader + 1) % 3;
    few.wires.cut(few.members[heir].node);
    few.propose(leader, b"b").await;
    let begun = tokio::time::Instant::now();
    let handed = few.members[leader].group.hand_over(heir as u64 + 1);
    let (handed, ()) = tokio::join!(handed, few.propose(leader, b"c"));
    assert!(matches!(handed, Err(replication::Error::NotReady(_))), "{handed:?}");
    assert!(begun.elapsed() < Duration::from_secs(1), "they waited {:?}", begun.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_cut_off_answers_no_read_and_what_others_acknowledge_stays() {
    let few = Few::start(3).await;
    few.propose(0, b"a").await;
    let old = few.leader(0).await;
    few.members[old].group.read_barrier().await.unwrap();
    few.wires.cut(few.members[old].node);
    // It still believes that it leads; what it is told goes nowhere.
    let lost = few.members[old].group.propose(Bytes::from_static(b"lost"));
    assert!(lost.now_or_never().is_none(), "nobody can have acknowledged it");
    let other = (old + 1) % 3;
    let node = few.members[old].node;
    few.members[other].group.wait_for_other_leader(node).await.unwrap();
    few.propose(other, b"b").await;
    let refused = few.members[old].group.read_barrier().await;
    assert!(matches!(refused, Err(replication::Error::NotLeader { .. })), "{refused:?}");
    few.wires.heal();
    few.propose(other, b"c").await;
    few.wait_until_all_hold(&[b"a", b"b", b"c"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_without_space_takes_nothing_more_and_catches_up_once_there_is_some() {
    static COMMAND: [u8; 1 << 10] = [7; 1 << 10];
    let few = Few::start(3).await;
    few.propose(0, &COMMAND).await;
    let leader = few.leader(0).await;
    let follower = (leader + 1) % 3;
    few.members[follower].disk.fill(true);
    // Four times what its log has place for, with the segment in reserve.
    let commands = 8 * SEGMENT_BYTES as usize / COMMAND.len();
    for _ in 1..commands {
        few.propose(leader, &COMMAND).await;
    }
    let held = few.members[follower].machine.commands.lock().unwrap().len();
    assert!(held < commands, "what has no space cannot hold all {commands}");
    assert_eq!(few.leader(follower).await, leader, "it hears of its leader all the same");
    few.members[follower].disk.fill(false);
    few.wait_until_all_hold(&vec![&COMMAND[..]; commands]).await;
}
