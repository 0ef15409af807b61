//! One budget of memory: writers that bring far more than it, beside readers, do not make the process larger, lose
//! nothing and are refused nothing but what can be repeated.

use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tests::{Server, http};

/// Writers at once.
const WRITERS: u64 = 6;
/// Bodies of each.
const BODIES: u64 = 8;
/// Rows of each body, of some 300 bytes.
const ROWS: u64 = 8_000;
/// What the test gives the server.
const BUDGET: u64 = 128 << 20;
/// Beside the budget: the unit a compaction or a scan works on, and what the allocator has not given back.
const BESIDE: u64 = 384 << 20;

/// Rows whose texts do not compress.
fn body(writer: u64, number: u64) -> String {
    let mut random = StdRng::seed_from_u64(writer * 1_000 + number);
    let mut lines = String::new();
    for row in 0..ROWS {
        let mut text = String::new();
        for _ in 0..16 {
            write!(text, "{:016x}", random.random::<u64>()).unwrap();
        }
        let (time, series) = (number * ROWS + row, row % 500);
        writeln!(lines, "m,w=w{writer},s=s{series} t=\"{text}\",n={row}i {time}").unwrap();
    }
    lines
}

/// Repeats a request that is refused for want of memory.
fn insist(server: &Server, request: &str, body: &str) -> String {
    for _ in 0..10_000 {
        let answer = http(server.http_port, request, &[], body.as_bytes()).unwrap();
        match answer.status {
            200 => return answer.body,
            503 => {}
            status => panic!("{status}: {:.300}", answer.body),
        }
    }
    panic!("refused again and again");
}

#[test]
fn writers_beyond_the_budget_of_memory_wait() {
    let folder = tempfile::tempdir().unwrap();
    let settings = folder.path().join("settings.toml");
    std::fs::write(&settings, format!("[memory]\nbytes = {BUDGET}\n")).unwrap();
    let settings = settings.to_str().unwrap();
    let server = Server::start_with(&folder.path().join("data"), &[("CNOSDB_CONFIG", settings)]);
    let begun = server.peak_bytes();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let server = &server;
                scope.spawn(move || {
                    for number in 0..BODIES {
                        let lines = body(writer, number);
                        insist(server, "POST /api/v1/write?db=public", &lines);
                    }
                })
            })
            .collect();
        for query in ["SELECT count(*) FROM m", "SELECT s, count(*), max(n) FROM m GROUP BY s"] {
            let (server, done) = (&server, &done);
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let request = "POST /api/v1/sql?db=public";
                    // The table may not be there yet.
                    http(server.http_port, request, &[], query.as_bytes()).unwrap();
                }
            });
        }
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        done.store(true, Ordering::Relaxed);
    });
    let counted = insist(&server, "POST /api/v1/sql?db=public", "SELECT count(*), sum(n) FROM m");
    let (rows, sum) = (WRITERS * BODIES * ROWS, WRITERS * BODIES * ROWS * (ROWS - 1) / 2);
    assert!(counted.contains(&format!("{rows},{sum}")), "{counted}");
    let (peak, mib) = (server.peak_bytes(), |bytes: u64| bytes >> 20);
    println!("{} MiB at the start, {} MiB at most", mib(begun), mib(peak));
    assert!(peak <= begun + BUDGET + BESIDE, "{} MiB, then {} MiB", mib(begun), mib(peak));
}
