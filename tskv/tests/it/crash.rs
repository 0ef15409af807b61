//! A power cut after every single disk operation, with several surviving subsets of what was not
//! synced: what was acknowledged is there, what was in flight is there wholly or not at all.
//!
//! `CNOSDB_CRASH_SEEDS` sets how many workloads are run (docs/testing.md).

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tskv::disk::{SimDisk, SimEvent, SimState};
use tskv::{CompactionWish, WriteId};

use crate::store::{Rows, TestDelete, TestVnode, TestWrite};

const SURVIVORS: u64 = 8;
const SENT: u64 = 1 << 32;

#[derive(Clone)]
enum Change {
    Write(TestWrite),
    Delete(TestDelete),
    End(i64),
}

struct Workload {
    changes: Vec<Change>,
    journal: Vec<SimEvent>,
}

/// Runs random writes, deletes, ends, flushes, compactions and restarts; marks in the journal what was sent and acknowledged.
fn run(seed: u64) -> Workload {
    let mut random = StdRng::seed_from_u64(seed);
    let disk = SimDisk::default();
    let mut store = TestVnode::open(&disk).unwrap();
    let mut changes = Vec::new();
    for step in 0..16 {
        let id = WriteId { session: 1, sequence: step + 1 };
        match random.random_range(0..11) {
            0 | 1 => store.flush().unwrap(),
            2 => store = TestVnode::open(&disk).unwrap(),
            3 => store.compact(CompactionWish::Whole).unwrap(),
            4 => {
                let delete = TestDelete::random(&mut random);
                changes.push(Change::Delete(delete.clone()));
                disk.mark(SENT | changes.len() as u64);
                store.delete(id, &delete).unwrap();
                disk.mark(changes.len() as u64);
            }
            5 => {
                let until = random.random_range(-5..25);
                changes.push(Change::End(until));
                disk.mark(SENT | changes.len() as u64);
                store.end(id, until).unwrap();
                disk.mark(changes.len() as u64);
            }
            _ => {
                let write = TestWrite::random(&mut random);
                changes.push(Change::Write(write.clone()));
                disk.mark(SENT | changes.len() as u64);
                store.write(id, &write).unwrap();
                disk.mark(changes.len() as u64);
            }
        }
    }
    Workload { changes, journal: disk.journal() }
}

fn expected(changes: &[Change]) -> Rows {
    let mut rows = Rows::new();
    // Rows later than the last end are refused, with all that came with them.
    let mut last = i64::MAX;
    let mut is_ended = false;
    for change in changes {
        match change {
            Change::End(until) => {
                last = if is_ended { last.max(*until) } else { *until };
                is_ended = true;
            }
            Change::Write(write) if write.rows.iter().any(|(_, time, _)| *time > last) => {}
            Change::Write(write) => write.apply_to(&mut rows),
            Change::Delete(delete) => delete.apply_to(&mut rows),
        }
    }
    rows
}

/// Crashes after every event of the journal. Returns how many states were tried and how many were
/// wrong.
fn enumerate(workload: &Workload, seed: u64) -> (u64, u64) {
    let (mut tried, mut wrong) = (0, 0);
    let (mut sent, mut acked) = (0, 0);
    let mut state = SimState::default();
    for (at, event) in workload.journal.iter().enumerate() {
        state.apply(event);
        match event {
            SimEvent::Mark(mark) if mark & SENT != 0 => sent = (mark & !SENT) as usize,
            SimEvent::Mark(mark) => acked = *mark as usize,
            _ => {}
        }
        let allowed = [expected(&workload.changes[..acked]), expected(&workload.changes[..sent])];
        for survivor in 0..SURVIVORS {
            let disk = state.crash(seed ^ (at as u64) << 8 ^ survivor << 40);
            tried += 1;
            let holds = |disk: &SimDisk| {
                let read = TestVnode::open(disk).and_then(|store| store.rows());
                read.is_ok_and(|rows| allowed.contains(&rows))
            };
            // The power goes a second time, after what recovery did.
            let again = || holds(&disk.state().crash(survivor));
            if !holds(&disk) || !again() {
                wrong += 1;
            }
        }
    }
    (tried, wrong)
}

fn seeds() -> u64 {
    std::env::var("CNOSDB_CRASH_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(16)
}

#[test]
fn no_crash_loses_doubles_or_invents_rows() {
    let mut tried = 0;
    for seed in 0..seeds() {
        let (states, wrong) = enumerate(&run(seed), seed);
        assert_eq!(wrong, 0, "seed {seed}: {wrong} of {states} crash states are wrong");
        tried += states;
    }
    println!("{tried} crash states, none wrong");
}

#[test]
fn the_enumeration_notices_when_fsync_does_nothing() {
    let caught = (0..4).filter(|seed| {
        let mut workload = run(*seed);
        workload.journal.retain(|event| !matches!(event, SimEvent::Sync(_)));
        enumerate(&workload, *seed).1 > 0
    });
    assert_eq!(caught.count(), 4);
}
