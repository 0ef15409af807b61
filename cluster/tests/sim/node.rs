//! One life of a node: its log, its replicas and what it does by itself, until the power goes.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use cluster::{VnodeLogStore, VnodeMachine};
use futures::FutureExt;
use futures::future::BoxFuture;
use model::{NodeId, VnodeId};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use replication::transport::Services;
use replication::{
    Group, GroupConfig, HoldsGroup, Hosted, Image, Machine, Members, Network, Origin, Pieces,
    Purge, RaftHost, RaftService,
};
use tokio::task::JoinHandle;
use tskv::disk::{Disk, SimDisk};
use tskv::wal::{VnodeLog, Wal, WalConfig, WalWriter};
use tskv::{CompactionWish, DecodedCache, MemcacheGauge, Schemas, SeriesCache, Vnode, VnodeConfig};

use crate::invariants::{Invariants, Member, Stand};
use crate::wire::{Power, Wire, Wires};

const SERVICE: &str = "raft";

/// What a node keeps beside a group.
pub(crate) struct Replica {
    pub(crate) vnode: Arc<Vnode>,
    log: VnodeLog,
}

pub(crate) type Hosting = Hosted<Replica>;

/// A replica's place.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    pub(crate) set: usize,
    pub(crate) node: NodeId,
    pub(crate) origin: Origin,
}

/// Where replicas are: what the catalog would tell.
#[derive(Default)]
pub(crate) struct Places(Mutex<BTreeMap<Member, Place>>);

impl Places {
    pub(crate) fn put(&self, member: Member, place: Place) {
        self.0.lock().insert(member, place);
    }

    pub(crate) fn remove(&self, member: Member) {
        self.0.lock().remove(&member);
    }

    pub(crate) fn get(&self, member: Member) -> Option<Place> {
        self.0.lock().get(&member).cloned()
    }

    pub(crate) fn all(&self) -> Vec<(Member, Place)> {
        self.0.lock().iter().map(|(member, place)| (*member, place.clone())).collect()
    }

    fn on(&self, node: NodeId) -> Vec<(Member, Place)> {
        self.all().into_iter().filter(|(_, place)| place.node == node).collect()
    }
}

/// What all nodes share with who looks at them.
#[derive(Clone)]
pub(crate) struct Surroundings {
    pub(crate) wires: Arc<Wires>,
    pub(crate) places: Arc<Places>,
    pub(crate) invariants: Arc<Invariants>,
}

/// A node that runs.
pub(crate) struct Node {
    pub(crate) id: NodeId,
    pub(crate) power: Power,
    pub(crate) disk: SimDisk,
    around: Surroundings,
    wal: Arc<Wal>,
    host: RaftHost<Replica>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Node {
    /// Starts a node on what its disk holds.
    ///
    /// # Errors
    /// A log that is damaged.
    pub(crate) async fn start(
        (id, life): (NodeId, u64),
        disk: SimDisk,
        around: Surroundings,
    ) -> Result<Arc<Self>, String> {
        let config =
            WalConfig { segment_bytes: 8_192, writer: WalWriter::Test, on_failure: |_| {} };
        let wal = Wal::open(Arc::new(disk.clone()), Path::new("wal"), &config);
        let wal = wal.map_err(|error| format!("node {id} does not start: {error}"))?;
        let power = Power::new(disk.clone());
        let wires = Arc::clone(&around.wires);
        let wire = Wire { wires: Arc::clone(&wires), node: id, power: power.clone() };
        let network = Network::new(Arc::new(wire), SERVICE, id);
        let host = RaftHost::new(GroupConfig::networked(network.clone()));
        let tasks = Mutex::default();
        let node = Arc::new(Self { id, power, disk, around, wal, host, tasks });
        let services = Services::default();
        let service = RaftService::new(Called(Arc::downgrade(&node)), network);
        services.offer(SERVICE, Arc::new(service));
        wires.plug_in(id, services, node.power.clone());
        let random = |what: u64| StdRng::seed_from_u64(what << 32 | id.0 << 16 | life);
        let tasks = [
            tokio::spawn(write_log(Arc::clone(&node.wal), random(1))),
            tokio::spawn(keep_up(Arc::clone(&node), random(2))),
        ];
        node.tasks.lock().extend(tasks);
        Ok(node)
    }

    /// Returns a replica of this node, opening it where it is not open.
    pub(crate) async fn replica(
        self: &Arc<Self>,
        member: Member,
    ) -> replication::Result<Arc<Hosting>> {
        let place = self.around.places.get(member).filter(|place| place.node == self.id);
        let gone = || replication::Error::NotReady(format!("member {member} is not here"));
        let place = place.ok_or_else(gone)?;
        let node = Arc::clone(self);
        let open = |config| async move { node.open(&config, member, place).await };
        self.host.get(member, open).await
    }

    async fn open(
        &self,
        config: &GroupConfig,
        member: Member,
        place: Place,
    ) -> replication::Result<Hosting> {
        let stopped = |error: tskv::Error| replication::Error::Stopped(error.to_string());
        let log = self.wal.log(VnodeId(member));
        let config_of_vnode = VnodeConfig {
            disk: Arc::new(self.disk.clone()),
            folder: folder(member),
            gauge: Arc::new(MemcacheGauge::default()),
            cache: Arc::new(SeriesCache::default()),
            decoded: Arc::new(DecodedCache::default()),
            schemas: Schemas::unknown(),
            partitions: 1,
            readers_max: None,
        };
        let vnode = Vnode::open(config_of_vnode, VnodeId(member)).map_err(stopped)?;
        vnode.check_covers(log.purged().map_or(0, |(upto, _)| upto)).map_err(stopped)?;
        let vnode = Arc::new(vnode);
        let machine = Watched {
            machine: VnodeMachine::new(Arc::clone(&vnode), log.clone(), true),
            set: place.set,
            power: self.power.clone(),
            invariants: Arc::clone(&self.around.invariants),
        };
        let store = VnodeLogStore(log.clone());
        let group = Group::open(config, (member, &place.origin), store, Arc::new(machine)).await?;
        Ok(Hosted { group, beside: Replica { vnode, log } })
    }

    /// Returns the replicas that are open.
    pub(crate) async fn open_replicas(&self) -> Vec<(Member, Arc<Hosting>)> {
        let mut open = self.host.open_groups();
        open.sort_by_key(|(member, _)| *member);
        open
    }

    /// Removes a replica that was taken out of its set.
    pub(crate) async fn destroy(&self, member: Member) {
        if self.host.close(member).await
            && self.wal.forget(VnodeId(member)).await.is_ok()
            && let Err(error) = self.disk.remove_folder(&folder(member))
        {
            assert!(self.disk.lost_power(), "{error}");
        }
    }

    /// Ends this life at once.
    pub(crate) async fn cut_power(self: Arc<Self>) {
        self.power.cut();
        self.around.wires.unplug(self.id);
        self.tasks.lock().drain(..).for_each(|task| task.abort());
        // Nobody hears of what it still does, nor does its disk; but it shall not run on for ever.
        for (_, hosted) in self.open_replicas().await {
            tokio::spawn(async move { hosted.group.close().await });
        }
    }
}

fn folder(member: Member) -> PathBuf {
    PathBuf::from(format!("vnode/{member}"))
}

/// Writes the log a while after something was appended.
async fn write_log(wal: Arc<Wal>, mut random: StdRng) {
    loop {
        tokio::time::sleep(Duration::from_micros(random.random_range(100..4_000))).await;
        wal.write_queued();
    }
}

/// Opens what should be open, flushes and compacts now and then.
async fn keep_up(node: Arc<Node>, mut random: StdRng) {
    loop {
        for (member, place) in node.around.places.on(node.id) {
            match node.replica(member).await {
                // All founders at once would split the vote again and again.
                Ok(hosted) if random.random_bool(0.3) => {
                    drop(hosted.group.found(&place.origin).await);
                }
                Err(replication::Error::Stopped(error)) if node.power.is_on() => {
                    let broken = format!("member {member} does not open: {error}");
                    node.around.invariants.broken(broken);
                }
                Ok(_) | Err(_) => {}
            }
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(50..1_500))).await;
        for (_, hosted) in node.open_replicas().await {
            if random.random_bool(0.5) {
                // A group without a leader may refuse.
                drop(hosted.group.snapshot(Purge::Replicated).await);
            }
            if random.random_bool(0.2) {
                let wish = [CompactionWish::Due, CompactionWish::Whole][random.random_range(0..2)];
                let compacted = hosted.beside.vnode.compact(wish, &false.into());
                assert!(compacted.is_ok() || node.disk.lost_power(), "{compacted:?}");
            }
        }
    }
}

/// The members of a node as others call them.
struct Called(Weak<Node>);

impl Members for Called {
    fn member(&self, member: u64) -> BoxFuture<'_, replication::Result<Arc<dyn HoldsGroup>>> {
        let node = self.0.upgrade();
        async move {
            let down = || replication::Error::NotReady("the node is down".to_owned());
            let hosted = node.ok_or_else(down)?.replica(member).await?;
            Ok(hosted as Arc<dyn HoldsGroup>)
        }
        .boxed()
    }
}

impl Replica {
    /// Returns how far log, files and memory came; the term is the group's to tell.
    pub(crate) fn stands(&self) -> Stand {
        let applied = |progress: Option<tskv::Progress>| progress.map_or(0, |one| one.applied);
        Stand {
            term: 0,
            purged: self.log.purged().map_or(0, |(upto, _)| upto),
            flushed: applied(self.vnode.flushed()),
            applied: applied(self.vnode.progress()),
        }
    }
}

/// A vnode's machine, and somebody who looks on.
struct Watched {
    machine: VnodeMachine,
    set: usize,
    power: Power,
    invariants: Arc<Invariants>,
}

impl Machine for Watched {
    fn applied(&self) -> io::Result<Option<Bytes>> {
        self.machine.applied()
    }

    async fn apply(
        &self,
        index: u64,
        raft_state: Bytes,
        commands: Vec<Bytes>,
    ) -> io::Result<Vec<Bytes>> {
        if self.power.is_on() {
            self.invariants.applies(self.set, index, &raft_state, &commands);
        }
        self.machine.apply(index, raft_state, commands).await
    }

    async fn snapshot(&self) -> io::Result<Image> {
        self.machine.snapshot().await
    }

    fn last_snapshot(&self) -> io::Result<Option<Image>> {
        self.machine.last_snapshot()
    }

    async fn fetch(&self, image: &Image, from: Pieces) -> io::Result<()> {
        self.machine.fetch(image, from).await
    }

    async fn read_piece(&self, part: &str, offset: u64, len: u32) -> io::Result<Bytes> {
        self.machine.read_piece(part, offset, len).await
    }

    async fn install(&self, image: Image) -> io::Result<()> {
        self.machine.install(image).await
    }
}
