//! Registers on three nodes, read and written by many while nodes are killed and paused: is there an
//! order of all operations that explains every answer, and agrees with when they began and ended?
//!
//! The checker is Wing and Gong's (J. Parallel and Distributed Computing 17, 1993) with Lowe's
//! memory of what was tried (Testing for linearizability, 2016).
//! `CNOSDB_HISTORIES` sets the number of histories (docs/testing.md).

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::nodes::{Nodes, lines};
use crate::writers::connect;

const CLIENTS: u64 = 6;
const REGISTERS: usize = 3;
/// Operations that end, in one history.
const OPERATIONS: u64 = 240;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Write(i64),
    /// What was found; `None`: no value yet.
    Read(Option<i64>),
}

/// One operation on a register, by a clock that counts beginnings and ends.
#[derive(Clone, Copy, Debug)]
struct Operation {
    kind: Kind,
    begun: u64,
    /// `None`: nobody knows whether it was done.
    ended: Option<u64>,
}

/// Returns whether one order of the operations explains them all.
fn is_linearizable(operations: &[Operation]) -> bool {
    let mut operations = operations.to_vec();
    operations.sort_by_key(|one| one.begun);
    let mut tried = HashSet::new();
    // What is placed already, and the value then.
    let mut open = vec![(vec![false; operations.len()], None)];
    while let Some((placed, value)) = open.pop() {
        if !tried.insert((placed.clone(), value)) {
            continue;
        }
        let left = || operations.iter().enumerate().filter(|(at, _)| !placed[*at]);
        if left().all(|(_, one)| one.ended.is_none()) {
            return true;
        }
        let first_end = left().filter_map(|(_, one)| one.ended).min().unwrap_or(u64::MAX);
        for (at, one) in left().take_while(|(_, one)| one.begun < first_end) {
            let next = match one.kind {
                Kind::Write(written) => Some(written),
                Kind::Read(found) if found == value => value,
                Kind::Read(_) => continue,
            };
            let mut placed = placed.clone();
            placed[at] = true;
            open.push((placed, next));
        }
    }
    false
}

fn operation(kind: Kind, begun: u64, ended: u64) -> Operation {
    Operation { kind, begun, ended: Some(ended) }
}

#[test]
fn the_checker_finds_stale_reads_lost_writes_and_accepts_what_is_possible() {
    use Kind::{Read, Write};
    let two = [operation(Write(1), 0, 1), operation(Write(2), 2, 3)];
    let with = |more: &[Operation]| [&two, more].concat();
    assert!(is_linearizable(&with(&[operation(Read(Some(2)), 4, 5)])));
    assert!(!is_linearizable(&with(&[operation(Read(Some(1)), 4, 5)])), "stale");
    assert!(!is_linearizable(&with(&[operation(Read(None), 4, 5)])), "lost");
    assert!(!is_linearizable(&with(&[operation(Read(Some(3)), 4, 5)])), "invented");
    let at_once = [operation(Write(1), 0, 9), operation(Write(2), 1, 3)];
    let order = [operation(Read(Some(2)), 2, 4), operation(Read(Some(1)), 5, 6)];
    assert!(is_linearizable(&[at_once, order].concat()));
    let back = [operation(Read(Some(2)), 4, 5), operation(Read(Some(1)), 6, 7)];
    assert!(!is_linearizable(&with(&back)), "back in time");
    // Of unknown outcome: seen or not, but not seen and then gone.
    let unknown = Operation { kind: Write(9), begun: 2, ended: None };
    assert!(is_linearizable(&[two[0], unknown, operation(Read(Some(1)), 3, 4)]));
    assert!(is_linearizable(&[two[0], unknown, operation(Read(Some(9)), 3, 4)]));
    let gone = [operation(Read(Some(9)), 3, 4), operation(Read(Some(1)), 5, 6)];
    assert!(!is_linearizable(&[&[two[0], unknown], &gone[..]].concat()));
}

/// What the clients of a history share.
struct History {
    number: u64,
    clock: AtomicU64,
    done: AtomicU64,
    next_value: AtomicI64,
    ports: Mutex<Vec<u16>>,
    registers: Vec<Mutex<Vec<Operation>>>,
}

impl History {
    fn tick(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::SeqCst)
    }

    fn port(&self, turn: usize) -> u16 {
        let ports = self.ports.lock();
        ports[turn % ports.len()]
    }

    /// Reads and writes until the history is long enough.
    async fn act(&self, client: u64) {
        let mut random = StdRng::seed_from_u64(self.number << 8 | client);
        let mut turn = usize::try_from(client).unwrap();
        let mut connected: Option<Client> = None;
        while self.done.load(Ordering::SeqCst) < OPERATIONS {
            let Some(connection) = &connected else {
                turn += 1;
                connected = connect(self.port(turn)).await.ok();
                tokio::task::yield_now().await;
                continue;
            };
            let register = random.random_range(0..REGISTERS);
            let key = format!("h{}r{register}", self.number);
            let begun = self.tick();
            if random.random_bool(0.5) {
                let value = self.next_value.fetch_add(1, Ordering::SeqCst);
                let write = format!("INSERT INTO c.r (time, k, v) VALUES (0, '{key}', {value})");
                let ended = connection.simple_query(&write).await.is_ok();
                let ended = ended.then(|| self.tick());
                let kind = Kind::Write(value);
                self.registers[register].lock().push(Operation { kind, begun, ended });
                if ended.is_none() {
                    connected = None;
                    continue;
                }
            } else {
                let read = format!("SELECT v FROM c.r WHERE k = '{key}'");
                let Ok(found) = connection.simple_query(&read).await else {
                    connected = None;
                    continue;
                };
                let found = found.iter().find_map(|message| match message {
                    SimpleQueryMessage::Row(row) => row.get(0).and_then(|text| text.parse().ok()),
                    _ => None,
                });
                let operation = operation(Kind::Read(found), begun, self.tick());
                self.registers[register].lock().push(operation);
            }
            self.done.fetch_add(1, Ordering::SeqCst);
        }
    }

    async fn wait_for(&self, done: u64) {
        while self.done.load(Ordering::SeqCst) < done {
            tokio::task::yield_now().await;
        }
    }
}

fn histories() -> u64 {
    std::env::var("CNOSDB_HISTORIES").ok().and_then(|n| n.parse().ok()).unwrap_or(4)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_history_of_registers_has_an_order_while_nodes_are_killed_and_paused() {
    let mut nodes = Nodes::start(3);
    let client = nodes.client(0).await;
    lines(&client, "CREATE DATABASE c WITH REPLICA 3 SHARD 2").await;
    lines(&client, "CREATE TABLE c.r (v BIGINT, TAGS(k))").await;
    let (mut operations, mut unknown) = (0, 0);
    for number in 0..histories() {
        let history = Arc::new(History {
            number,
            clock: AtomicU64::new(0),
            done: AtomicU64::new(0),
            next_value: AtomicI64::new(1),
            ports: Mutex::new(nodes.ports()),
            registers: (0..REGISTERS).map(|_| Mutex::default()).collect(),
        });
        let act = |client| {
            let history = Arc::clone(&history);
            tokio::spawn(async move { history.act(client).await })
        };
        let clients: Vec<_> = (0..CLIENTS).map(act).collect();
        history.wait_for(OPERATIONS / 4).await;
        let node = usize::try_from(number % 3).unwrap();
        if number % 2 == 0 {
            nodes.kill(node);
            history.ports.lock().remove(node);
            history.wait_for(OPERATIONS / 2).await;
            nodes.restart(node);
            *history.ports.lock() = nodes.ports();
        } else {
            nodes.pause(node);
            history.wait_for(OPERATIONS / 2).await;
            nodes.resume(node);
        }
        for client in clients {
            client.await.unwrap();
        }
        for register in &history.registers {
            let register = register.lock().clone();
            operations += register.len();
            unknown += register.iter().filter(|one| one.ended.is_none()).count();
            assert!(is_linearizable(&register), "history {number}: {register:?}");
        }
    }
    println!("{} histories, {operations} operations, {unknown} unknown", histories());
}
