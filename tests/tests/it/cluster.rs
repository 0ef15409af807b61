//! Clusters of real processes: what survives the loss of nodes, and how long writes wait.
//!
//! `CNOSDB_NODE_KILLS` sets the number of kills (docs/testing.md).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::nodes::{ClusterWriters, Nodes, assert_replicas_agree, lines};

/// So many entries may lie between a replica and the furthest of its set while both go on.
const FOLLOWS_WITHIN: u64 = 50;

fn kills() -> usize {
    std::env::var("CNOSDB_NODE_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(6)
}

/// Returns the node that leads the catalog, or a replica set, counted from 0.
async fn leader(nodes: &Nodes, from: usize) -> Option<usize> {
    let client = nodes.client(from).await;
    let sets = lines(&client, "SHOW REPLICAS").await;
    let starred = sets.first()?[1].split(',').find(|node| node.ends_with('*'))?;
    starred.trim_end_matches('*').parse::<usize>().ok().map(|node| node - 1)
}

/// Waits until every replica is about as far as the others of its set: who is killed then is the only one
/// that is missing.
async fn all_follow(client: &tokio_postgres::Client) {
    wait_until(client, "SHOW VNODES", |vnodes| {
        let applied = |vnode: &Vec<String>| vnode[9].parse::<u64>().unwrap_or(0);
        vnodes.iter().all(|vnode| {
            let of_set = vnodes.iter().filter(|other| other[2] == vnode[2]);
            let furthest = of_set.map(applied).max().unwrap_or(0);
            vnode[5] != "closed" && applied(vnode) + FOLLOWS_WITHIN >= furthest
        })
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_nodes_lose_and_double_nothing_and_replicas_agree_afterwards() {
    let mut nodes = Nodes::start(3);
    let writers = ClusterWriters::start(&nodes, "REPLICA 3 SHARD 2").await;
    writers.go_on(40).await;
    let mut gaps = Vec::new();
    for kill in 0..kills() {
        all_follow(&nodes.client(0).await).await;
        // Every second time the one that leads a replica set.
        let chosen = if kill % 2 == 0 { leader(&nodes, kill % 3).await } else { None };
        let node = chosen.unwrap_or(kill % 3);
        let start = Instant::now();
        nodes.kill(node);
        let end = Instant::now();
        writers.go_on_each().await;
        gaps.push(writers.gap_within(start, end));
        nodes.restart(node);
        writers.use_nodes(&nodes);
        writers.go_on(40).await;
    }
    writers.finish(&nodes).await;
    assert_replicas_agree(&nodes.client(0).await, 3).await;
    gaps.sort_unstable();
    let at = |share: usize| gaps[(gaps.len() - 1) * share / 100];
    println!("{} kills: gap p50 {:?}, p99 {:?}", gaps.len(), at(50), at(99));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_nodes_vnodes_are_made_anew_on_another_and_a_wiped_node_joins_as_a_new_one() {
    let mut nodes = Nodes::start(4);
    let writers = ClusterWriters::start(&nodes, "REPLICA 3 SHARD 2").await;
    writers.go_on(100).await;
    let lost = leader(&nodes, 0).await.unwrap_or(1).max(1);
    nodes.kill(lost);
    let client = nodes.client(0).await;
    wait_until(&client, "SHOW VNODES", |vnodes| {
        let gone = (lost + 1).to_string();
        vnodes.len() == 6 && vnodes.iter().all(|vnode| vnode[1] != gone && vnode[4] == "joined")
    })
    .await;
    writers.go_on(40).await;
    nodes.wipe(lost);
    nodes.restart(lost);
    let known = lines(&client, "SHOW NODES").await;
    assert_eq!(known.len(), 5, "the wiped node is another one: {known:?}");
    lines(&client, &format!("REMOVE NODE {}", lost + 1)).await;
    writers.use_nodes(&nodes);
    writers.go_on(40).await;
    writers.finish(&nodes).await;
    assert_replicas_agree(&nodes.client(0).await, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_people_promote_leads_and_leads_again_after_it_was_away() {
    let mut nodes = Nodes::start(3);
    let writers = ClusterWriters::start(&nodes, "REPLICA 3 SHARD 1").await;
    writers.go_on(40).await;
    let client = nodes.client(0).await;
    // Not the one it goes back to by itself.
    let location = lines(&client, "SHOW REPLICAS").await[0][1].clone();
    let last = location.trim_end_matches('*').rsplit(',').next().unwrap().to_owned();
    lines(&client, &format!("REPLICA PROMOTE REPLICA_ID 1 NODE_ID {last}")).await;
    let starred = format!("{last}*");
    let leads = |sets: &[Vec<String>]| sets[0][1].split(',').any(|node| node == starred);
    wait_until(&client, "SHOW REPLICAS", leads).await;
    let node = last.parse::<usize>().unwrap() - 1;
    nodes.kill(node);
    writers.go_on_each().await;
    nodes.restart(node);
    writers.use_nodes(&nodes);
    let client = nodes.client(node).await;
    wait_until(&client, "SHOW REPLICAS", leads).await;
    writers.finish(&nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn buckets_end_under_writers_and_every_row_is_there_once() {
    const WRITERS: usize = 6;
    let nodes = Nodes::start(3);
    let client = nodes.client(0).await;
    run(&client, &["CREATE DATABASE hot WITH REPLICA 3", "CREATE TABLE hot.t (n BIGINT, TAGS(w))"])
        .await;
    let written: Vec<_> = (0..WRITERS).map(|_| Arc::new(AtomicU64::new(0))).collect();
    let mut writers = Vec::new();
    for (writer, written) in written.iter().enumerate() {
        let (client, written) = (nodes.client(writer % 3).await, Arc::clone(written));
        // Some write ahead of the clock.
        let ahead = ["0 s", "100 ms"][writer % 2];
        let consistency = ["quorum", "one", "all"][writer % 3];
        writers.push(tokio::spawn(async move {
            lines(&client, &format!("SET consistency = '{consistency}'")).await;
            loop {
                let n = written.load(Ordering::SeqCst);
                let time = format!("clock_timestamp() + INTERVAL '{ahead}'");
                let insert =
                    format!("INSERT INTO hot.t (time, w, n) SELECT {time}, 'w{writer}', {n}");
                lines(&client, &insert).await;
                written.fetch_add(1, Ordering::SeqCst);
            }
        }));
    }
    let count = |written: &[Arc<AtomicU64>]| -> Vec<u64> {
        written.iter().map(|one| one.load(Ordering::SeqCst)).collect()
    };
    for round in 0..6 {
        let before = count(&written);
        while count(&written).iter().zip(&before).any(|(now, before)| *now < before + 10) {
            assert!(writers.iter().all(|writer| !writer.is_finished()), "a write failed");
            tokio::task::yield_now().await;
        }
        lines(&client, &format!("ALTER DATABASE hot SET SHARD {}", 1 + round % 3)).await;
        let other = nodes.client(round % 3).await;
        let ended = lines(&other, "TRUNCATE SHARDS OF DATABASE hot").await;
        assert!(!ended.is_empty());
    }
    writers.iter().for_each(JoinHandle::abort);
    let counts = count(&written);
    let sql = "SELECT w, count(n), count(DISTINCT n), max(n) FROM hot.t GROUP BY w ORDER BY w";
    // The last of each may be there unacknowledged; what is only durable is seen soon.
    wait_until(&client, sql, |found| {
        found.len() == WRITERS
            && found.iter().zip(&counts).all(|(found, count)| {
                let all = (count.to_string(), (count + 1).to_string());
                found[1] == found[2] && (found[1] == all.0 || found[1] == all.1)
            })
    })
    .await;
    let sets = lines(&client, "SHOW REPLICAS").await;
    let buckets: BTreeSet<(&str, &str)> =
        sets.iter().map(|set| (set[3].as_str(), set[4].as_str())).collect();
    assert!(buckets.len() >= 5, "{buckets:?}");
    let ends = buckets.iter().zip(buckets.iter().skip(1));
    assert!(ends.into_iter().all(|(one, next)| one.1 < next.0), "{buckets:?}");
    assert_replicas_agree(&client, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn updates_are_applied_once_each_while_the_lead_moves() {
    let nodes = Nodes::start(3);
    let client = nodes.client(0).await;
    run(
        &client,
        &[
            "CREATE DATABASE moving WITH REPLICA 3",
            "CREATE TABLE moving.counter (n BIGINT)",
            "INSERT INTO moving.counter (time, n) VALUES (1, 0)",
        ],
    )
    .await;
    let other = nodes.client(1).await;
    let moves = tokio::spawn(async move {
        for turn in 0..6 {
            let sql = format!("REPLICA PROMOTE REPLICA_ID 1 NODE_ID {}", turn % 3 + 1);
            // It may have been refused: the updates are what counts.
            drop(other.simple_query(&sql).await);
        }
    });
    let mut updates = 0;
    while !moves.is_finished() {
        lines(&client, "UPDATE moving.counter SET n = n + 1").await;
        updates += 1;
    }
    let counted = lines(&client, "SELECT n FROM moving.counter").await;
    assert_eq!(counted, [[updates.to_string()]]);
}

/// Drains and removes the third of three nodes under writes.
async fn drain(options: &str, replicas: usize, shards: usize) {
    let mut nodes = Nodes::start(3);
    let writers = ClusterWriters::start(&nodes, options).await;
    writers.go_on(100).await;
    let client = nodes.client(0).await;
    lines(&client, "ALTER NODE 3 DRAIN").await;
    wait_until(&client, "SHOW VNODES", |vnodes| {
        let away = vnodes.iter().all(|vnode| vnode[1] != "3" && vnode[4] == "joined");
        vnodes.len() == replicas * shards && away
    })
    .await;
    lines(&client, "REMOVE NODE 3").await;
    writers.go_on(40).await;
    nodes.stop(2);
    writers.use_nodes(&nodes);
    writers.go_on(40).await;
    writers.finish(&nodes).await;
    assert_replicas_agree(&client, replicas).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_gives_everything_away_while_writes_go_on() {
    drain("REPLICA 2 SHARD 3", 2, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_node_gives_away_the_only_replica_it_has() {
    drain("REPLICA 1 SHARD 3", 1, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_node_that_lost_its_directory_begins_another_cluster_and_disturbs_nobody() {
    let mut nodes = Nodes::start(3);
    let writers = ClusterWriters::start(&nodes, "REPLICA 3 SHARD 2").await;
    writers.go_on(60).await;
    nodes.kill(0);
    nodes.wipe(0);
    nodes.restart(0);
    let client = nodes.client(0).await;
    let databases = lines(&client, "SHOW DATABASES").await;
    assert!(databases.iter().all(|database| database[0] != "c"), "{databases:?}");
    nodes.stop(0);
    writers.use_nodes(&nodes);
    writers.go_on(40).await;
    writers.finish(&nodes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_stop_and_start_and_every_row_is_there() {
    let mut nodes = Nodes::start(3);
    let writers = ClusterWriters::start(&nodes, "REPLICA 3 SHARD 2").await;
    writers.go_on(60).await;
    let client = nodes.client(1).await;
    let before = lines(&client, "SELECT count(*) FROM c.k").await;
    assert_ne!(before[0][0], "0");
    (0..3).for_each(|node| nodes.kill(node));
    // The first waits for a quorum, so that all must start at once.
    nodes.restart_all();
    writers.use_nodes(&nodes);
    writers.go_on(40).await;
    writers.finish(&nodes).await;
    assert_replicas_agree(&nodes.client(2).await, 3).await;
}

/// Counts what each node has, of lines that name nodes.
fn by_node<'a>(names: impl Iterator<Item = &'a str>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name.to_owned()).or_default() += 1;
    }
    counts
}

/// Returns whether so many nodes have about the same.
fn are_even(counts: &BTreeMap<String, usize>, nodes: usize) -> bool {
    let (most, least) = (counts.values().max(), counts.values().min());
    counts.len() == nodes && most.zip(least).is_some_and(|(most, least)| most - least < 2)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_joins_under_writes_gets_its_share_of_vnodes_and_leads() {
    let mut nodes = Nodes::start_with(3, "balance_seconds = 1\n");
    let writers = ClusterWriters::start(&nodes, "REPLICA 3 SHARD 4").await;
    writers.go_on(60).await;
    nodes.add();
    let client = nodes.client(3).await;
    wait_until(&client, "SHOW VNODES", |vnodes| {
        let held = by_node(vnodes.iter().map(|vnode| vnode[1].as_str()));
        let leaders = vnodes.iter().filter(|vnode| vnode[5] == "leader");
        let led = by_node(leaders.map(|vnode| vnode[1].as_str()));
        let settled = vnodes.iter().all(|vnode| ["joined", "founder"].contains(&vnode[4].as_str()));
        vnodes.len() == 12 && settled && are_even(&held, 4) && are_even(&led, 4)
    })
    .await;
    writers.use_nodes(&nodes);
    writers.go_on(60).await;
    writers.finish(&nodes).await;
    assert_replicas_agree(&client, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_that_nobody_uses_sleep_and_wake_when_they_are_used_again() {
    let mut nodes = Nodes::start_with(3, "[storage]\nidle_seconds = 1\n");
    let client = nodes.client(0).await;
    run(&client, &[
        "CREATE DATABASE quiet WITH REPLICA 3 SHARD 4",
        "CREATE TABLE quiet.m (v BIGINT, TAGS(host))",
        "INSERT INTO quiet.m (time, host, v) SELECT i, 'h' || i, i FROM generate_series(1, 100) AS g(i)",
    ])
    .await;
    let asleep = |vnodes: &[Vec<String>]| {
        vnodes.len() == 12 && vnodes.iter().all(|vnode| vnode[5] == "closed")
    };
    wait_until(&client, "SHOW VNODES", asleep).await;
    let sum = "SELECT count(*), sum(v) FROM quiet.m";
    assert_eq!(lines(&nodes.client(1).await, sum).await, [["100", "5050"]]);
    lines(&client, "INSERT INTO quiet.m (time, host, v) VALUES (101, 'h101', 101)").await;
    wait_until(&client, "SHOW VNODES", asleep).await;
    // Another node has to lead what the lost one led in its sleep.
    nodes.kill(2);
    assert_eq!(lines(&client, sum).await, [["101", "5151"]]);
    nodes.restart(2);
    assert_eq!(lines(&nodes.client(2).await, sum).await, [["101", "5151"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_file_is_damaged_is_made_anew_from_the_others() {
    let (nodes, leader, follower) = with_a_follower().await;
    let client = nodes.client(leader).await;
    let rows = "SELECT i, i * 2654435761 % 4294967296 FROM generate_series(2, 5000) AS g(i)";
    lines(&client, &format!("INSERT INTO r.m (time, v) {rows}")).await;
    lines(&client, "COMPACT DATABASE r").await;
    let sound = lines(&client, "REPLICA REPAIR REPLICA_ID 1").await;
    assert!(sound.is_empty(), "nothing differs yet: {sound:?}");
    let all = |rows: &[Vec<String>]| rows[0] == ["5000"];
    for node in [follower, leader] {
        for file in nodes.column_files(node) {
            let mut bytes = std::fs::read(&file).unwrap();
            // What stands at both ends is checked when the file is opened.
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0xff;
            std::fs::write(&file, bytes).unwrap();
        }
        if node == follower {
            let rebuilt = lines(&client, "REPLICA REPAIR REPLICA_ID 1").await;
            assert_eq!(rebuilt.len(), 1, "{rebuilt:?}");
        } else {
            // Nobody asks for it: whoever reads finds the damage, and then it is mended.
            assert_eq!(code(&client, "SELECT sum(v) FROM r.m").await, "XX001");
        }
        let joined = |vnodes: &[Vec<String>]| {
            let there = |node: usize| vnodes.iter().any(|vnode| vnode[1] == (node + 1).to_string());
            let newest = vnodes.iter().filter_map(|vnode| vnode[0].parse::<u32>().ok()).max();
            let expected = if node == follower { 4 } else { 5 };
            newest == Some(expected)
                && (0..3).all(there)
                && vnodes.iter().all(|vnode| vnode[4] == "joined")
        };
        wait_until(&client, "SHOW VNODES", joined).await;
        wait_until(&client, "SELECT count(v) FROM r.m", all).await;
        assert_replicas_agree(&client, 3).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_written_and_read_on_while_the_catalog_has_no_majority() {
    let mut nodes = Nodes::start(3);
    let client = nodes.client(0).await;
    run(
        &client,
        &[
            "CREATE DATABASE alone WITH REPLICA 1",
            "CREATE TABLE alone.m (v BIGINT)",
            "INSERT INTO alone.m (time, v) VALUES (1, 1)",
        ],
    )
    .await;
    let vnode = lines(&client, "SHOW VNODES").await[0].clone();
    if vnode[1] != "1" {
        lines(&client, &format!("MOVE VNODE {} TO NODE 1", vnode[0])).await;
        let moved = |vnodes: &[Vec<String>]| vnodes.len() == 1 && vnodes[0][1] == "1";
        wait_until(&client, "SHOW VNODES", moved).await;
    }
    nodes.kill(1);
    nodes.kill(2);
    for at in 2..30 {
        lines(&client, &format!("INSERT INTO alone.m (time, v) VALUES ({at}, {at})")).await;
    }
    assert_eq!(lines(&client, "SELECT count(*) FROM alone.m").await, [["29"]]);
    // Once there is a majority again it may be done yet.
    assert_eq!(code(&client, "CREATE TABLE alone.other (v BIGINT)").await, "40003");
    nodes.restart(1);
    wait_until(&client, "SELECT count(*) FROM alone.m", |rows| rows[0] == ["29"]).await;
    lines(&client, "CREATE TABLE IF NOT EXISTS alone.other (v BIGINT)").await;
    lines(&client, "INSERT INTO alone.other (time, v) VALUES (1, 1)").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_whose_catalog_lost_its_majority_goes_on_with_a_dump_of_it() {
    let (mut nodes, _, _) = with_a_follower().await;
    (0..3).for_each(|node| nodes.stop(node));
    let (data_dir, dump) = (nodes.data_dir(0), nodes.data_dir(0).with_extension("dump"));
    let catalog = |arguments: &[&std::path::Path]| {
        let program = tests::binary("cnosdb");
        let done = std::process::Command::new(program).arg("catalog").args(arguments).output();
        let done = done.unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    catalog(&["dump".as_ref(), &data_dir, &dump]);
    // What is written after it was made is not taken for what comes after it is restored.
    nodes.restart_all();
    lines(&nodes.client(1).await, "INSERT INTO r.m (time, v) VALUES (3, 3)").await;
    (0..3).for_each(|node| nodes.stop(node));
    (0..3).for_each(|node| std::fs::remove_dir_all(nodes.data_dir(node).join("meta")).unwrap());
    catalog(&["restore".as_ref(), &data_dir, &dump]);
    nodes.restart_all();
    let client = nodes.client(2).await;
    for node in 0..3 {
        let at = 10 + node;
        let insert = format!("INSERT INTO r.m (time, v) VALUES ({at}, 10)");
        lines(&nodes.client(node).await, &insert).await;
    }
    assert_eq!(lines(&client, "SELECT count(*), sum(v) FROM r.m").await, [["5", "34"]]);
    // All three keep it again: one may go.
    lines(&client, "CREATE TABLE r.other (v BIGINT)").await;
    wait_until(&client, "SHOW NODES", |nodes| nodes.len() == 3).await;
    assert_replicas_agree(&client, 3).await;
}

async fn run(client: &tokio_postgres::Client, statements: &[&str]) {
    for sql in statements {
        lines(client, sql).await;
    }
}

/// Makes a table of three replicas, with a row.
async fn make_replicated(client: &tokio_postgres::Client) {
    run(
        client,
        &[
            "CREATE DATABASE r WITH REPLICA 3",
            "CREATE TABLE r.m (v BIGINT)",
            "INSERT INTO r.m (time, v) VALUES (1, 1)",
        ],
    )
    .await;
}

/// Three nodes with a table of three replicas, and the number of one that follows, counted from 0.
async fn with_a_follower() -> (Nodes, usize, usize) {
    let nodes = Nodes::start(3);
    let client = nodes.client(0).await;
    make_replicated(&client).await;
    let leader = leader(&nodes, 0).await.unwrap();
    let follower = (0..3).find(|node| *node != leader).unwrap();
    (nodes, leader, follower)
}

async fn code(client: &tokio_postgres::Client, sql: &str) -> String {
    let error = client.simple_query(sql).await.unwrap_err();
    error.code().unwrap_or_else(|| panic!("{error:?}")).code().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_waits_for_all_members_or_for_one_as_it_is_asked_to() {
    let (nodes, leader, follower) = with_a_follower().await;
    let client = nodes.client(leader).await;
    lines(&client, "SET consistency = 'all'").await;
    lines(&client, "INSERT INTO r.m (time, v) VALUES (2, 2)").await;
    nodes.pause(follower);
    assert_eq!(code(&client, "INSERT INTO r.m (time, v) VALUES (3, 3)").await, "40003");
    let other = 3 - leader - follower;
    nodes.pause(other);
    lines(&client, "SET consistency = 'one'").await;
    for at in 4..=9 {
        lines(&client, &format!("INSERT INTO r.m (time, v) VALUES ({at}, {at})")).await;
    }
    nodes.resume(follower);
    // Of these two only who has all of the log can be voted for; of all three another could, without it.
    let all = |rows: &[Vec<String>]| rows[0] == ["9", "45"];
    wait_until(&client, "SELECT count(*), sum(v) FROM r.m", all).await;
    nodes.resume(other);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_no_majority_takes_is_kept_by_its_node_and_delivered_later() {
    let (mut nodes, leader, follower) = with_a_follower().await;
    let others = [follower, 3 - leader - follower];
    let client = nodes.client(leader).await;
    lines(&client, "SET consistency = 'any'").await;
    others.iter().for_each(|node| nodes.pause(*node));
    for at in 2..=9 {
        lines(&client, &format!("INSERT INTO r.m (time, v) VALUES ({at}, {at})")).await;
    }
    let waiting = "SELECT writes FROM cluster_schema.hand_off";
    assert_eq!(lines(&client, waiting).await, [["8"]]);
    nodes.kill(leader);
    others.iter().for_each(|node| nodes.resume(*node));
    nodes.restart(leader);
    let client = nodes.client(follower).await;
    let all = |rows: &[Vec<String>]| rows[0] == ["9", "45"];
    wait_until(&client, "SELECT count(*), sum(v) FROM r.m", all).await;
    wait_until(&client, waiting, <[Vec<String>]>::is_empty).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn any_replica_tells_what_was_acknowledged_or_what_is_old_enough() {
    let (nodes, leader, follower) = with_a_follower().await;
    let (writer, reader) = (nodes.client(leader).await, nodes.client(follower).await);
    lines(&reader, "SET read_from = 'any'").await;
    for at in 2..40 {
        lines(&writer, &format!("INSERT INTO r.m (time, v) VALUES ({at}, {at})")).await;
        let seen = lines(&reader, "SELECT count(*) FROM r.m").await;
        assert_eq!(seen, [[at.to_string()]], "what was acknowledged is seen");
    }
    lines(&reader, "SET max_staleness = '60s'").await;
    assert_eq!(lines(&reader, "SELECT count(*) FROM r.m").await, [["39"]]);
    // Nobody leads whom it could ask.
    (0..3).filter(|node| *node != follower).for_each(|node| nodes.pause(node));
    assert_eq!(lines(&reader, "SELECT count(*) FROM r.m").await, [["39"]]);
    (0..3).filter(|node| *node != follower).for_each(|node| nodes.resume(node));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_replica_stands_still_another_is_read_that_does_not_lead() {
    let nodes = Nodes::start(4);
    let client = nodes.client(0).await;
    make_replicated(&client).await;
    let location = lines(&client, "SHOW REPLICAS").await[0][1].clone();
    let held: Vec<&str> = location.split(',').collect();
    let number = |node: &str| node.trim_end_matches('*').parse::<usize>().unwrap() - 1;
    let outside = (0..4).find(|node| held.iter().all(|one| number(one) != *node)).unwrap();
    let followers = held.iter().filter(|node| !node.ends_with('*')).map(|node| number(node));
    let followers: Vec<usize> = followers.collect();
    let reader = nodes.client(outside).await;
    let read = async || {
        let plan = lines(&reader, "EXPLAIN ANALYZE SELECT v FROM r.m").await;
        let plan = plan.concat().join("\n");
        let reads = |node: &&usize| plan.contains(&format!("rows_of_nodes=[{}]", **node + 1));
        followers.iter().find(reads).copied().unwrap_or_else(|| panic!("{plan}"))
    };
    // It has to know who leads, to read from others.
    lines(&reader, "SELECT v FROM r.m").await;
    lines(&reader, "SET read_from = 'any'").await;
    lines(&reader, "SET max_staleness = '60s'").await;
    let first = read().await;
    nodes.pause(first);
    let second = read().await;
    assert_ne!(second, first);
    nodes.resume(first);
}

/// Asks until the rows are as wanted.
async fn wait_until(
    client: &tokio_postgres::Client,
    sql: &str,
    wanted: impl Fn(&[Vec<String>]) -> bool,
) {
    let deadline = Instant::now() + Duration::from_secs(90);
    loop {
        let rows = lines(client, sql).await;
        if wanted(&rows) {
            return;
        }
        assert!(Instant::now() < deadline, "{sql}: {rows:?}");
        tokio::task::yield_now().await;
    }
}
