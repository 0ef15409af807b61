//! What is done to the cluster: power cuts, bad networks, changes of members, at random.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use model::NodeId;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use replication::Origin;
use tskv::disk::Fault;

use crate::node::Place;
use crate::wire::Weather;
use crate::world::{NODES, SETS, World};

/// How long a node is down at most, milliseconds.
const DOWN_MS: u64 = 4_000;
const CATCH_UP: Duration = Duration::from_secs(10);

/// Does harm until it is stopped.
pub(crate) async fn run(world: Arc<World>) {
    let mut random = StdRng::seed_from_u64(world.seed ^ 0xfa17);
    loop {
        tokio::time::sleep(Duration::from_millis(random.random_range(100..1_500))).await;
        let node = NodeId(random.random_range(1..=NODES));
        let set = random.random_range(0..SETS);
        match random.random_range(0..10) {
            0 | 1 => {
                world.trace.fault(format_args!("power of node {node} is cut"));
                world.cut_power(node).await;
                start_later(&world, node, &mut random);
            }
            2 => cut_power_within_writes(&world, node, &mut random).await,
            3 | 4 => cut_wires(&world, node, &mut random),
            5 => {
                world.trace.fault("all wires are mended");
                world.around.wires.heal();
            }
            6 => {
                let weather = Weather {
                    delay_max: Duration::from_millis(random.random_range(1..300)),
                    lost: random.random_range(0.0..0.2),
                    doubled: random.random_range(0.0..0.3),
                };
                world.trace.fault(format_args!("{weather:?}"));
                world.around.wires.set_weather(weather);
            }
            7 => {
                let time = Duration::from_millis(random.random_range(100..3_000));
                world.trace.fault(format_args!("node {node} is held for {time:?}"));
                world.around.wires.hold(node, time);
            }
            8 => hand_over(&world, set, &mut random).await,
            _ => replace_member(&world, set, &mut random).await,
        }
    }
}

fn start_later(world: &Arc<World>, node: NodeId, random: &mut StdRng) {
    let down = Duration::from_millis(random.random_range(0..DOWN_MS));
    let world = Arc::clone(world);
    tokio::spawn(async move {
        tokio::time::sleep(down).await;
        world.trace.tell(format_args!("node {node} starts again"));
        world.start(node).await;
    });
}

/// Cuts the power at one of the next operations of a disk: within a write, a flush, a compaction.
async fn cut_power_within_writes(world: &Arc<World>, node: NodeId, random: &mut StdRng) {
    let Some(running) = world.node(node) else { return };
    let at = running.disk.operations() + random.random_range(1..60);
    running.disk.fail_operation(at, Fault::PowerCut);
    world.trace.fault(format_args!("power of node {node} is cut at operation {at} of its disk"));
    for _ in 0..400 {
        if running.disk.lost_power() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    drop(running);
    world.cut_power(node).await;
    start_later(world, node, random);
}

/// Cuts the wires between a node and others, or one direction of them.
fn cut_wires(world: &World, node: NodeId, random: &mut StdRng) {
    let (out, back) = *[(true, true), (true, false), (false, true)].choose(random).unwrap();
    let others: Vec<NodeId> =
        (1..=NODES).map(NodeId).filter(|one| *one != node && random.random_bool(0.6)).collect();
    world.trace.fault(format_args!("node {node} to {others:?}: cut {out}, back {back}"));
    for other in others {
        if out {
            world.around.wires.cut(node, other);
        }
        if back {
            world.around.wires.cut(other, node);
        }
    }
}

async fn hand_over(world: &Arc<World>, set: usize, random: &mut StdRng) {
    let Some((_, hosting)) = world.leader(set, random).await else { return };
    let members = hosting.group.status().members;
    let Some(heir) = members.choose(random).map(|one| one.member) else { return };
    world.trace.fault(format_args!("set {set} is handed to member {heir}"));
    tokio::spawn(async move { hosting.group.hand_over(heir).await });
}

/// Adds a member on a node that has none of the set, and takes another away.
async fn replace_member(world: &Arc<World>, set: usize, random: &mut StdRng) {
    let Some((_, hosting)) = world.leader(set, random).await else { return };
    let status = hosting.group.status();
    let places = world.around.places.all();
    let taken: BTreeSet<NodeId> =
        places.iter().filter(|(_, place)| place.set == set).map(|(_, place)| place.node).collect();
    let free: Vec<NodeId> = (1..=NODES).map(NodeId).filter(|one| !taken.contains(one)).collect();
    let Some(node) = free.choose(random).copied() else { return };
    let voters: Vec<u64> =
        status.members.iter().filter(|one| one.votes).map(|one| one.member).collect();
    // Whoever is to go does not lead the others out.
    let others = voters.iter().filter(|one| Some(**one) != status.leader.map(|(leader, _)| leader));
    let Some(old) = others.copied().collect::<Vec<_>>().choose(random).copied() else { return };
    let new = world.next_member(set);
    world.around.places.put(new, Place { set, node, origin: Origin::Added });
    world.trace.fault(format_args!("set {set}: member {new} on node {node} instead of {old}"));
    let world = Arc::clone(world);
    tokio::spawn(async move {
        let group = &hosting.group;
        let replaced = async {
            group.add_learner(new, node).await?;
            group.wait_for_member(new, CATCH_UP).await?;
            let voters = voters.iter().copied().filter(|one| *one != old).chain([new]);
            group.set_voters(voters.collect()).await
        };
        let replaced = replaced.await;
        world.trace.tell(format_args!("set {set}: {new} instead of {old}: {replaced:?}"));
        world.tidy_up(set).await;
    });
}
