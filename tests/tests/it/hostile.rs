//! Hostile bodies: each is answered with what is wrong, or cut off; good requests are served
//! meanwhile, and memory stays bounded.
//!
//! `CNOSDB_HOSTILE_BODIES` sets their number (docs/testing.md).

use std::io::Write;
use std::net::TcpStream;

use flate2::Compression;
use flate2::write::GzEncoder;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tests::{Server, http};

const SEED: u64 = 6;
/// The most bytes the server may grow by.
const GROWTH_MAX: u64 = 512 << 20;
/// Connections that say little or nothing while all this goes on.
const SLOW_SENDERS: usize = 100;

const ROUTES: [&str; 8] = [
    "POST /api/v1/write?db=public",
    "POST /write?db=public&precision=s",
    "POST /api/v2/write?bucket=public",
    "POST /api/v1/prom/write?db=public",
    "POST /api/v1/prom/read?db=public",
    "POST /api/v1/opentsdb/write?db=public",
    "POST /api/put?db=public",
    "POST /api/v1/sql?db=public",
];
const CODINGS: [&str; 7] = ["gzip", "deflate", "br", "zstd", "lz4", "snappy", "identity"];

fn bodies() -> u32 {
    std::env::var("CNOSDB_HOSTILE_BODIES").ok().and_then(|n| n.parse().ok()).unwrap_or(300)
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn noise(random: &mut StdRng, most: usize) -> Vec<u8> {
    let len = random.random_range(0..most);
    (0..len).map(|_| random.random()).collect()
}

/// Changes a few bytes of something good.
fn mutated(random: &mut StdRng, good: &[u8]) -> Vec<u8> {
    let mut bytes = good.to_vec();
    for _ in 0..random.random_range(1..5) {
        let at = random.random_range(0..bytes.len());
        match random.random_range(0..3) {
            0 => bytes[at] = random.random(),
            1 => drop(bytes.remove(at)),
            _ => bytes.insert(at, b" ,=\\\"\n\xff{"[random.random_range(0..8)]),
        }
    }
    bytes
}

/// A body, and the coding it claims to have.
fn hostile(random: &mut StdRng, bomb: &[u8]) -> (Vec<u8>, Option<&'static str>) {
    let good: [&[u8]; 4] = [
        b"cpu,host=a\\ b,dc=x f=1.5,i=3i,s=\"a\\\"b\",t=true 1700000000\nm x=1u\n",
        b"put sys.cpu 1700000000 1.5 host=a dc=x\n",
        br#"[{"metric":"sys.cpu","timestamp":1700000002,"value":"3","tags":{"host":"a"}}]"#,
        b"SELECT host, max(f) FROM cpu WHERE time > '2020-01-01' GROUP BY host",
    ];
    let coding = CODINGS[random.random_range(0..CODINGS.len())];
    match random.random_range(0..14) {
        0 => (bomb.to_vec(), Some("gzip")),
        1 => {
            let packed = gzip(&good[0].repeat(100));
            (packed[..random.random_range(0..packed.len())].to_vec(), Some("gzip"))
        }
        2 => (gzip(good[0]), Some(coding).filter(|coding| *coding != "gzip")),
        3 => (noise(random, 10_000), Some(coding)),
        4 => (noise(random, 10_000), None),
        5 => (vec![b'a'; random.random_range(1..4 << 20)], None),
        6 => {
            let values = ["NaN", "inf", "-inf", "1e999", "1i1", "--1", "9223372036854775808i"];
            let value = values[random.random_range(0..values.len())];
            (format!("m f={value} 1").into_bytes(), None)
        }
        7 => {
            let tags: String = (0..10_000).map(|tag| format!(",t{tag}=x")).collect();
            (format!("wide{tags} f=1 1").into_bytes(), None)
        }
        8 => (b"m,t=\xff\xfe f=1 1\nm,t=a f=\"\xc0\" 1".to_vec(), None),
        9 => (b"[".repeat(random.random_range(1..200_000)), None),
        11 => {
            let lines = |n| format!("m{} f{n}=1 1\n", n % 7);
            ((0..random.random_range(0..1_000)).map(lines).collect::<String>().into(), None)
        }
        12 => (gzip(&b"x\n".repeat(random.random_range(1..4_000_000))), Some("gzip")),
        10 => ([b"SELECT ".to_vec(), b"(".repeat(random.random_range(1..50_000))].concat(), None),
        _ => {
            let good = good[random.random_range(0..good.len())];
            (mutated(random, good), None)
        }
    }
}

fn slow_senders(port: u16) -> Vec<TcpStream> {
    let heads = [
        "",
        "POST /api/v1/wr",
        "POST /api/v1/write?db=public HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nm f=",
        "POST /api/v1/write?db=public HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nm",
        "POST /api/v1/write HTTP/1.1\r\nContent-Length: 99999999999999\r\n\r\n",
        "POST /api/v1/write HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ];
    let send = |head: &&str| {
        let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket.write_all(head.as_bytes()).unwrap();
        socket
    };
    heads.iter().cycle().take(SLOW_SENDERS).map(send).collect()
}

#[test]
fn hostile_bodies_are_answered_or_cut_off_while_good_requests_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let mut random = StdRng::seed_from_u64(SEED);
    let bomb = gzip(&vec![b'0'; 300 << 20]);
    let _slow = slow_senders(server.http_port);
    let before = server.peak_bytes();
    for number in 0..bodies() {
        let (body, coding) = hostile(&mut random, &bomb);
        let route = ROUTES[random.random_range(0..ROUTES.len())];
        let header = coding.map(|coding| format!("Content-Encoding: {coding}"));
        let headers: Vec<&str> = header.as_deref().into_iter().collect();
        // Cut off is good as well.
        if let Ok(answer) = http(server.http_port, route, &headers, &body) {
            let begin = String::from_utf8_lossy(&body[..body.len().min(60)]);
            let of = format!("{number}: {route} {coding:?} {begin:?}: {}", answer.body);
            assert!(answer.status < 500, "{}: {of}", answer.status);
        }
        if number % 50 == 0 {
            let line = format!("good v={number}i {number}");
            let written = http(server.http_port, ROUTES[0], &[], line.as_bytes()).unwrap();
            assert_eq!(written.status, 200, "{}", written.body);
            let read = http(server.http_port, ROUTES[7], &[], b"SELECT max(v) FROM good").unwrap();
            assert!(read.body.contains(&number.to_string()), "{}", read.body);
        }
    }
    let grown = server.peak_bytes().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "{grown} bytes more");
}
