//! One budget of memory: writers that bring far more than it, beside readers, do not make the process larger, lose
//! nothing and are refused nothing but what can be repeated; nor do queries that would hold more than it.

use std::fmt::Write;
use std::path::Path;
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
/// What the writers' server is given.
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

fn start(folder: &Path, budget: u64) -> Server {
    let settings = folder.join("settings.toml");
    std::fs::write(&settings, format!("[memory]\nbytes = {budget}\n")).unwrap();
    let settings = settings.to_str().unwrap();
    Server::start_with(&folder.join("data"), &[("CNOSDB_CONFIG", settings)])
}

#[test]
fn writers_beyond_the_budget_of_memory_wait() {
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), BUDGET);
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

/// Queries that sort, group, join or gather all rows, with an answer for so many.
fn large_queries(rows: u64) -> [(&'static str, u64); 7] {
    [
        (
            "SELECT sum(p) FROM (SELECT row_number() OVER (ORDER BY t) AS p FROM m) AS o",
            rows * (rows + 1) / 2,
        ),
        ("SELECT count(*) FROM (SELECT t, sum(n) FROM m GROUP BY t) AS o", rows),
        ("SELECT count(DISTINCT t) FROM m", rows),
        ("SELECT count(*) FROM (SELECT t FROM m UNION SELECT t || 'x' FROM m) AS o", 2 * rows),
        ("SELECT count(*) FROM m AS a JOIN m AS b ON a.t = b.t", rows),
        ("SELECT cardinality(array_agg(t)) FROM m", rows),
        ("SELECT length(string_agg(t, '')) FROM m", 256 * rows),
    ]
}

#[test]
fn queries_beyond_the_budget_of_memory_spill_or_are_refused() {
    const BUDGET: u64 = 512 << 20;
    const ROWS: u64 = 1_200_000;
    let folder = tempfile::tempdir().unwrap();
    let server = start(folder.path(), BUDGET);
    let begun = server.peak_bytes();
    let ask = |query: &str| {
        http(server.http_port, "POST /api/v1/sql?db=public", &[], query.as_bytes()).unwrap()
    };
    ask("CREATE TABLE m (t STRING, n BIGINT, TAGS(s))");
    let text = "repeat(md5(g::text), 8)";
    let rows = format!(
        "SELECT to_timestamp(g), 's' || g % 100, {text}, g FROM generate_series(1, {ROWS}) AS r(g)"
    );
    let written = ask(&format!("INSERT INTO m (time, s, t, n) {rows}"));
    assert_eq!(written.status, 200, "{}", written.body);
    let (mut answered, mut refused) = (0, 0);
    for (query, expected) in large_queries(ROWS) {
        let answer = ask(query);
        if answer.status == 200 {
            let expected = expected.to_string();
            assert!(answer.body.lines().any(|line| line == expected), "{query}: {}", answer.body);
            answered += 1;
        } else {
            let says_why = ["out of memory: ", "raise [query] memory_bytes"];
            let says_why = says_why.iter().all(|part| answer.body.contains(part));
            assert!(answer.status == 503 && says_why, "{query}: {}", answer.body);
            refused += 1;
        }
    }
    assert!(answered > 0 && refused > 0, "{answered} answered, {refused} refused");
    let (peak, mib) = (server.peak_bytes(), |bytes: u64| bytes >> 20);
    println!(
        "{answered} answered, {refused} refused; {} MiB at the start, {} MiB at most",
        mib(begun),
        mib(peak)
    );
    assert!(peak <= begun + BUDGET / 2 * 3, "{} MiB, then {} MiB", mib(begun), mib(peak));
}
