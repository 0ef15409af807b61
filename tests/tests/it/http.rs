//! The HTTP front end from outside: lines in, rows out, who may, and what is refused.

use std::io::Write;
use std::net::TcpStream;

use tests::{HttpAnswer, Server, http};

fn send(server: &Server, request: &str, body: &str) -> HttpAnswer {
    http(server.http_port, request, &[], body.as_bytes()).unwrap()
}

fn sql(server: &Server, text: &str) -> String {
    let answer = send(server, "POST /api/v1/sql?db=public", text);
    assert_eq!(answer.status, 200, "{text}: {}", answer.body);
    // A body without a length comes in chunks: the sizes are lines of their own.
    let lines = answer.body.split("\r\n").enumerate();
    let chunks: String = lines.filter(|(at, _)| at % 2 == 1).map(|(_, line)| line).collect();
    if chunks.is_empty() { answer.body } else { chunks }
}

#[test]
fn lines_become_tables_that_grow_and_are_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let lines = "cpu,host=a,dc=x user=1.5,n=3i 1700000000000\n\
                 cpu,host=b user=2.5,ok=t,s=\"x, \\\"y\\\"\" 1700000001000\n\
                 mem,host=a free=7u 1700000000000\n";
    let request = "POST /api/v1/write?db=public&precision=ms";
    assert_eq!(send(&server, request, lines).status, 200);
    assert_eq!(send(&server, "POST /write?db=public&precision=ms", lines).status, 204);
    assert_eq!(send(&server, "POST /api/v2/write?bucket=public&precision=ms", lines).status, 204);
    let rows = "time,host,dc,user,n,ok,s\n\
                2023-11-14T22:13:20,a,x,1.5,3,,\n\
                2023-11-14T22:13:21,b,,2.5,,true,\"x, \"\"y\"\"\"\n";
    assert_eq!(
        sql(&server, "SELECT time, host, dc, \"user\", n, ok, s FROM cpu ORDER BY time"),
        rows
    );
    assert_eq!(sql(&server, "SELECT free FROM mem"), "free\n7\n");
    // A field that a later line names is a new column; the same row takes it.
    assert_eq!(send(&server, request, "cpu,host=a,dc=x late=1i 1700000000000").status, 200);
    let one = "SELECT \"user\", late FROM cpu WHERE host = 'a'";
    assert_eq!(sql(&server, one), "user,late\n1.5,1\n");
    assert_eq!(sql(&server, "DELETE FROM cpu WHERE host = 'b'"), "{\"rows\":1}");
}

#[test]
fn good_lines_are_kept_and_bad_ones_named() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    assert_eq!(send(&server, "POST /api/v1/write?db=public", "m f=1 1").status, 200);
    let mixed = "m f=2 2\nrubbish\nm f=\"text\" 3\nm f=4 4\n";
    let answer = send(&server, "POST /api/v1/write?db=public", mixed);
    assert_eq!(answer.status, 400);
    for part in ["\"line\":2", "\"line\":3", "2 lines were not taken, 2 were"] {
        assert!(answer.body.contains(part), "{part}: {}", answer.body);
    }
    assert_eq!(sql(&server, "SELECT f FROM m ORDER BY time"), "f\n1.0\n2.0\n4.0\n");
    let strict = send(&server, "POST /api/v1/write?db=public&strict=true", "m f=5 5\nrubbish\n");
    assert_eq!(strict.status, 400);
    assert_eq!(sql(&server, "SELECT count(*) FROM m"), "count\n3\n");
}

#[test]
fn every_refusal_has_its_status() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_with(folder.path(), &[("CNOSDB_ROOT_PASSWORD", "secret")]);
    let basic = "Authorization: Basic cm9vdDpzZWNyZXQ=";
    let ask = |headers: &[&str], text: &str| {
        let answer = http(server.http_port, "POST /api/v1/sql", headers, text.as_bytes());
        answer.unwrap().status
    };
    assert_eq!(ask(&[], "SELECT 1"), 401);
    assert_eq!(ask(&["Authorization: Basic cm9vdDp3cm9uZw=="], "SELECT 1"), 401);
    assert_eq!(ask(&["Authorization: Token nobody:secret"], "SELECT 1"), 401);
    assert_eq!(ask(&["Authorization: Bearer x"], "SELECT 1"), 401);
    assert_eq!(ask(&[basic], "SELECT 1"), 200);
    assert_eq!(ask(&["Authorization: Token root:secret"], "SELECT 1"), 200);
    assert_eq!(ask(&[basic], "SELEC 1"), 400);
    assert_eq!(ask(&[basic], "SELECT 1; SELECT 2"), 400);
    assert_eq!(ask(&[basic], "SELECT * FROM nowhere"), 404);
    assert_eq!(ask(&[basic], "SELECT nothing"), 422);
    assert_eq!(ask(&[basic, "Accept: image/png"], "SELECT 1"), 406);
    assert_eq!(ask(&[basic, "Content-Encoding: rot13"], "SELECT 1"), 415);
    assert_eq!(ask(&[basic, "Content-Encoding: gzip"], "SELECT 1"), 400);
    let write = |request: &str| http(server.http_port, request, &[basic], b"m f=1").unwrap().status;
    assert_eq!(write("POST /api/v1/write?db=nowhere"), 404);
    assert_eq!(write("POST /api/v1/write?tenant=nowhere"), 404);
    assert_eq!(write("POST /api/v1/write?precision=h"), 400);
    assert_eq!(write("GET /api/v1/write"), 405);
    assert_eq!(write("POST /nowhere"), 404);
    assert_eq!(http(server.http_port, "HEAD /api/v1/ping", &[], b"").unwrap().status, 200);
}

#[test]
fn hostile_bytes_are_answered_or_cut_off_and_others_are_served() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let heads = [
        "GET / HTTP/9.9\r\n\r\n",
        "\0\0\0\0",
        "POST /api/v1/write HTTP/1.1\r\nContent-Length: 99999999999999\r\n\r\n",
        "POST /api/v1/write HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "POST /api/v1/write HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "POST /api/v1/write HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf",
    ];
    let mut open = Vec::new();
    for head in heads.iter().cycle().take(120) {
        let mut socket = TcpStream::connect(("127.0.0.1", server.http_port)).unwrap();
        socket.write_all(head.as_bytes()).unwrap();
        open.push(socket);
    }
    let long = format!("m f=1 {}", "9".repeat(1 << 20));
    assert_eq!(send(&server, "POST /api/v1/write?db=public", &long).status, 400);
    let wide: String = (0..10_000).map(|tag| format!(",t{tag}=x")).collect();
    let status = send(&server, "POST /api/v1/write?db=public", &format!("m{wide} f=1 1")).status;
    assert!((400..500).contains(&status), "10,000 tags: {status}");
    let invalid = http(server.http_port, "POST /api/v1/write?db=public", &[], b"m,t=\xff f=1 1");
    assert_eq!(invalid.unwrap().status, 400);
    assert_eq!(sql(&server, "SELECT 1 AS one"), "one\n1\n");
}
