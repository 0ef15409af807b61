//! Replication simulated: openraft, our log and vnodes on a seeded disk, network and clock in one
//! thread. The same seed gives the same trace. Every sleep is of the simulated clock.
//!
//! `CNOSDB_SIM_SEEDS` sets how many seeds are tried, `CNOSDB_SIM_FIRST` the first of them
//! (docs/testing.md).

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    reason = "tests say what they want, and stop where they do not get it"
)]

mod clients;
mod entropy;
mod faults;
mod invariants;
mod node;
mod rows;
mod trace;
mod wire;
mod world;

use std::sync::atomic::{AtomicUsize, Ordering};

use world::{Report, Sabotage};

/// Seeds that once found something: a hole in a log, a proposer that waited for ever, a stale read.
const FOUND: [u64; 6] = [718, 761, 838, 899, 9, 2982];

/// Simulates one seed on a thread of its own.
fn simulate(seed: u64, sabotage: Sabotage) -> Report {
    // A panic names the seed.
    let thread = std::thread::Builder::new().name(format!("seed {seed}"));
    let simulated = thread.spawn(move || {
        entropy::seed(seed);
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = runtime.enable_time().start_paused(true).build().unwrap();
        runtime.block_on(world::run(seed, sabotage))
    });
    simulated.unwrap().join().unwrap()
}

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Simulates many seeds, on as many threads as there are cores.
fn simulate_all(seeds: &[u64]) -> Vec<(u64, Report)> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut reports = Vec::new();
        loop {
            let Some(seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)).copied() else {
                return reports;
            };
            reports.push((seed, simulate(seed, Sabotage::default())));
        }
    };
    std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    })
}

#[test]
fn no_seed_breaks_an_invariant_and_all_heal() {
    let first = number("CNOSDB_SIM_FIRST", 1);
    let seeds = number("CNOSDB_SIM_SEEDS", 200);
    let (mut steps, mut faults, mut acknowledged, mut ended, mut reads) = (0, 0, 0, 0, 0);
    let all: Vec<u64> = (first..first + seeds).chain(FOUND).collect();
    let mut found = Vec::new();
    for (seed, report) in simulate_all(&all) {
        let Report { broken, last_events, .. } = &report;
        if !broken.is_empty() {
            println!("{last_events}\nseed {seed}: {broken:#?}");
            found.push(seed);
        }
        steps += report.steps;
        faults += report.faults;
        acknowledged += report.acknowledged;
        ended += report.ended;
        reads += report.reads;
    }
    println!(
        "{seeds} seeds: {steps} steps, {faults} faults, {acknowledged} changes acknowledged, \
         {ended} of them after an end, {reads} reads"
    );
    assert!(found.is_empty(), "these seeds found something: {found:?}");
    let is_busy = acknowledged > seeds * 20 && reads > seeds * 5 && ended > seeds;
    assert!(is_busy, "hardly anything was done");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in [1, 2, 3] {
        assert_eq!(simulate(seed, Sabotage::default()), simulate(seed, Sabotage::default()));
    }
}

#[test]
fn disks_that_forget_and_reads_without_a_barrier_are_noticed() {
    for sabotage in [
        Sabotage { disks_are_lost: true, ..Sabotage::default() },
        Sabotage { reads_without_barrier: true, ..Sabotage::default() },
    ] {
        let found = (1..40).any(|seed| !simulate(seed, sabotage).broken.is_empty());
        assert!(found, "{sabotage:?} was not noticed");
    }
}
