//! The HTTP front end from outside: lines in, rows out, who may, and what is refused.

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

#[tokio::test(flavor = "multi_thread")]
async fn samples_of_opentsdb_become_tables_and_bad_points_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let post = |route: &str, body: &str| {
        http(server.http_port, &format!("POST {route}"), &[], body.as_bytes()).unwrap()
    };
    let lines = "put sys.cpu 1700000000 1.5 host=a dc=x\nsys.cpu 1700000001500 2 host=b\nrubbish\n";
    let answer = post("/api/v1/opentsdb/write", lines);
    assert_eq!(answer.status, 400, "{}", answer.body);
    assert!(answer.body.contains("\"line\":3"), "{}", answer.body);
    let points = r#"[{"metric":"sys.cpu","timestamp":1700000002,"value":"3","tags":{"host":"a"}},
        {"metric":"sys.mem","timestamp":1700000002,"value":7.5}]"#;
    assert_eq!(post("/api/v1/opentsdb/put", points).status, 204);
    assert_eq!(post("/api/put", r#"{"metric":"sys.mem","timestamp":1,"value":1}"#).status, 204);
    assert_eq!(post("/api/put", "{}").status, 400);
    let rows = post("/api/v1/sql", "SELECT host, dc, value FROM \"sys.cpu\" ORDER BY time");
    assert!(rows.body.contains("a,x,1.5\nb,,2.0\na,,3.0\n"), "{}", rows.body);
    let count = post("/api/v1/sql", "SELECT count(*) AS n FROM \"sys.mem\"");
    assert!(count.body.contains("\n2\n"), "{}", count.body);
}

/// Writes a field of a protocol buffer that holds bytes.
fn bytes_field(number: u8, bytes: &[u8]) -> Vec<u8> {
    [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

/// Packs bytes as snappy does, without finding anything to compress.
fn snappy(bytes: &[u8]) -> Vec<u8> {
    let len = u8::try_from(bytes.len()).unwrap();
    assert!(len < 128);
    [&[len, 60 << 2, len - 1], bytes].concat()
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_writes_and_reads_back_and_a_scrape_counts_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let label = |name: &str, value: &str| {
        let pair = [bytes_field(1, name.as_bytes()), bytes_field(2, value.as_bytes())].concat();
        bytes_field(1, &pair)
    };
    let sample = |value: f64, ms: u8| {
        let sample = [&[1 << 3 | 1][..], &value.to_le_bytes(), &[2 << 3, ms]].concat();
        bytes_field(2, &sample)
    };
    let series =
        [label("__name__", "up"), label("job", "x"), sample(1.5, 10), sample(2.5, 20)].concat();
    let written = snappy(&bytes_field(1, &series));
    let post = |route: &str, body: &[u8]| {
        http(server.http_port, &format!("POST {route}"), &[], body).unwrap()
    };
    assert_eq!(post("/api/v1/prom/write", &written).status, 204);
    assert_eq!(post("/api/v1/prom/write", b"rubbish").status, 400);
    let rows = post("/api/v1/sql", b"SELECT job, value FROM up ORDER BY time");
    assert!(rows.body.contains("x,1.5\nx,2.5\n"), "{}", rows.body);
    let matcher = |kind: u8, name: &str, value: &str| {
        let name = [bytes_field(2, name.as_bytes()), bytes_field(3, value.as_bytes())].concat();
        bytes_field(3, &[&[1 << 3, kind][..], &name].concat())
    };
    let read = |matchers: &[Vec<u8>]| {
        let query = [vec![1 << 3, 0, 2 << 3, 15], matchers.concat()].concat();
        post("/api/v1/prom/read", &snappy(&bytes_field(1, &query)))
    };
    // Of both samples only the first lies within the times.
    let found = read(&[matcher(0, "__name__", "up"), matcher(2, "job", "x|y")]);
    assert_eq!(found.status, 200);
    assert!(found.body.contains("job") && found.body.contains("up"), "{}", found.body);
    let none = read(&[matcher(0, "__name__", "up"), matcher(1, "job", "x")]);
    assert_eq!(none.status, 200);
    assert!(!none.body.contains("job"), "{}", none.body);
    let metrics = http(server.http_port, "GET /metrics", &[], b"").unwrap();
    assert_eq!(metrics.status, 200);
    let counted = |line: &str| assert!(metrics.body.contains(line), "{line}\n{}", metrics.body);
    counted("cnosdb_http_in_rows_total{protocol=\"prometheus\"} 2");
    counted("cnosdb_http_requests_total{path=\"/api/v1/prom/write\",status=\"400\"} 1");
    counted("cnosdb_wal_syncs_total");
    counted("cnosdb_raft_groups{tenant=\"cnosdb\",database=\"public\",role=\"leader\"} 1");
    counted("cnosdb_raft_unapplied_entries{tenant=\"cnosdb\",database=\"public\"} 0");
    counted("cnosdb_meta_leads{} 1");
    counted("cnosdb_cache_misses_total{cache=\"series\"} 2");
    for consumer in ["queries", "memcache", "log_tail", "series_cache", "catalog", "http_bodies"] {
        counted(&format!("cnosdb_memory_bytes{{consumer=\"{consumer}\"}} "));
    }
    counted("cnosdb_series{tenant=\"cnosdb\",database=\"public\"} 1");
    counted("# EOF");
}

#[test]
fn what_was_used_over_http_is_counted_by_route_and_outlives_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let lines = "m v=1 1\nm v=2 2";
    assert_eq!(send(&server, "POST /api/v1/write", lines).status, 200);
    let rows = send(&server, "POST /api/v1/sql", "SELECT v FROM m ORDER BY time").body;
    assert_eq!(send(&server, "GET /api/v1/ping", "").status, 200);
    let used = |server: &Server| {
        let used =
            ["http_writes", "http_data_in", "http_queries", "http_data_out", "coord_rows_in"];
        used.map(|table| {
            let sql = format!(
                "SELECT sum(value) FROM usage_schema.{table} WHERE tenant = 'cnosdb' AND \"user\" = 'root'{}",
                if table == "http_data_in" { " AND api = '/api/v1/write'" } else { "" }
            );
            let answer = send(server, "POST /api/v1/sql", &sql).body;
            // The body comes in chunks: the value is what follows the header.
            let value = answer.lines().skip_while(|line| *line != "sum").nth(1);
            value.unwrap().parse::<usize>().unwrap()
        })
    };
    let before = used(&server);
    assert_eq!((before[0], before[1], before[4]), (1, lines.len(), 2));
    // The questions themselves are counted too, before they are answered.
    assert_eq!(before[2], 4);
    assert!(before[3] > rows.len(), "{before:?}");
    assert!(server.stop());
    let after = used(&Server::start(folder.path()));
    assert_eq!((after[0], after[1], after[4]), (1, lines.len(), 2));
    assert!(after[2] > before[2] && after[3] > before[3], "{before:?} {after:?}");
}

#[test]
fn a_profile_of_the_process_is_given_to_administrators() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    send(&server, "POST /api/v1/sql", "CREATE USER guest");
    send(&server, "POST /api/v1/sql", "ALTER TENANT cnosdb ADD USER guest AS member");
    let profile =
        |parameters: &str| send(&server, &format!("GET /debug/pprof/profile?{parameters}"), "");
    assert_eq!(profile("u=guest&seconds=1").status, 403);
    assert_eq!(profile("seconds=soon").status, 400);
    let taken = profile("seconds=1");
    assert_eq!(taken.status, 200);
    assert!(taken.body.contains("nanoseconds"), "{}", taken.body);
}

#[test]
fn a_tenant_that_has_used_up_what_it_may_ask_for_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    // An hour's interval: nothing is filled again while this runs.
    let hour = "remote_interval = 3600000";
    sql(
        &server,
        &format!(
            "CREATE TENANT small WITH coord_queries remote_max = 5 remote_refill = 1 {hour} local_max = 2, \
             http_writes remote_max = 1 remote_refill = 1 {hour}, \
             coord_data_in remote_max = 1000 remote_refill = 1 {hour}, \
             coord_data_out remote_max = 4000 remote_refill = 1 {hour}"
        ),
    );
    let ask = |text: &str| send(&server, "POST /api/v1/sql?tenant=small", text);
    let write = |lines: &str| send(&server, "POST /api/v1/write?tenant=small&db=public", lines);
    assert_eq!(write("m f=1 1").status, 200);
    let refused = write("m f=1 2");
    assert_eq!(refused.status, 429);
    assert!(refused.body.contains("has used up its http_writes"), "{}", refused.body);
    let insert = "INSERT INTO m (time, f) VALUES (3, 1)";
    assert_eq!(ask(insert).status, 200);
    let many: Vec<String> = (4..400).map(|time| format!("({time}, 1)")).collect();
    let refused = ask(&format!("INSERT INTO m (time, f) VALUES {}", many.join(", ")));
    assert_eq!(refused.status, 429, "{}", refused.body);
    assert!(refused.body.contains("coord_data_in"), "{}", refused.body);
    let statuses: Vec<u16> = (0..6).map(|_| ask("SELECT count(*) FROM m").status).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 200, 429]);
    // Others are not meant.
    assert_eq!(sql(&server, "SELECT 1 AS one"), "one\n1\n");
    sql(&server, "ALTER TENANT small UNSET _limiter");
    assert_eq!(ask("SELECT count(*) FROM m").status, 200);
    sql(&server, "ALTER TENANT small SET object_config max_query_memory = '64KiB'");
    let sorted =
        "SELECT x FROM generate_series(1, 2000000) AS g(x) ORDER BY x % 7919, x DESC LIMIT 1000000";
    let refused = ask(sorted);
    let out_of_memory = refused.status == 503 || refused.body.contains("take 65536 bytes at most");
    assert!(out_of_memory, "{} {:.300}", refused.status, refused.body);
}

#[test]
fn a_tenant_has_no_more_series_than_it_may() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    sql(&server, "CREATE TENANT small WITH object_config max_series = 3");
    let ask = |text: &str| send(&server, "POST /api/v1/sql?tenant=small", text);
    let write = |lines: &str| send(&server, "POST /api/v1/write?tenant=small&db=public", lines);
    assert_eq!(write("m,host=a f=1 1\nm,host=b f=1 1").status, 200);
    let refused = write("m,host=c f=1 1\nm,host=d f=1 1");
    assert_eq!(refused.status, 429, "{}", refused.body);
    assert!(refused.body.contains("may have 3 series on a node"), "{}", refused.body);
    assert_eq!(write("m,host=c f=1 1").status, 200);
    // Those that are there take rows; a move to a series of its own counts too.
    assert_eq!(write("m,host=a f=2 2").status, 200);
    assert_eq!(ask("INSERT INTO m (time, host, f) VALUES (3, 'e', 1)").status, 429);
    assert_eq!(ask("UPDATE m SET host = 'z' WHERE host = 'b'").status, 429);
    assert!(ask("SELECT count(*) FROM m").body.contains('4'));
    // Others are not meant, and the limit can be raised.
    assert_eq!(send(&server, "POST /api/v1/write?db=public", "m,host=q f=1 1").status, 200);
    sql(&server, "ALTER TENANT small SET object_config max_series = 4");
    assert_eq!(write("m,host=d f=1 1").status, 200);
    assert_eq!(write("m,host=e f=1 1").status, 429);
}

#[test]
fn the_catalog_is_told_as_the_statements_that_make_it() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    sql(&server, "CREATE DATABASE \"Odd; name\" WITH TTL '30d' WAL_MAX_FILE_SIZE '2MiB'");
    sql(&server, "CREATE TENANT other");
    let all = send(&server, "GET /api/v1/dump/sql/ddl", "");
    assert_eq!(all.status, 200);
    for part in ["CREATE TENANT IF NOT EXISTS \"other\"", "\"Odd; name\"", "'2097152'"] {
        assert!(all.body.contains(part), "{part}: {}", all.body);
    }
    let of_one = send(&server, "GET /api/v1/dump/sql/ddl?tenant=other", "");
    assert!(of_one.body.contains("\"other\"") && !of_one.body.contains("Odd"), "{}", of_one.body);
    assert_eq!(send(&server, "GET /api/v1/dump/sql/ddl?tenant=nobody", "").status, 404);
}

/// Runs openssl, which answers on its standard output.
fn openssl(arguments: &[&str], input: &[u8]) -> Vec<u8> {
    use std::io::Write;
    let piped = std::process::Stdio::piped;
    let mut running = std::process::Command::new("openssl")
        .args(arguments)
        .stdin(piped())
        .stdout(piped())
        .stderr(piped())
        .spawn()
        .unwrap();
    running.stdin.take().unwrap().write_all(input).unwrap();
    let done = running.wait_with_output().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    done.stdout
}

/// Makes a JSON Web Token of a user, signed by a key.
fn token(key: &str, claims: &str) -> String {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
    let signed =
        format!("{}.{}", BASE64.encode(r#"{"alg":"RS256","typ":"JWT"}"#), BASE64.encode(claims));
    let signature = openssl(&["dgst", "-sha256", "-sign", key], signed.as_bytes());
    format!("{signed}.{}", BASE64.encode(signature))
}

#[test]
fn a_user_logs_in_by_its_key_and_nobody_else_does() {
    use base64::Engine;
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_with(folder.path(), &[("CNOSDB_ROOT_PASSWORD", "secret")]);
    let root = "Authorization: Basic cm9vdDpzZWNyZXQ=";
    let ask = |header: &str, text: &str| {
        http(server.http_port, "POST /api/v1/sql", &[header], text.as_bytes()).unwrap()
    };
    let key = |name: &str| {
        let path = folder.path().join(name).to_str().unwrap().to_owned();
        openssl(&["genrsa", "-out", &path, "2048"], b"");
        path
    };
    let (own, other) = (key("own.pem"), key("other.pem"));
    let public = String::from_utf8(openssl(&["rsa", "-in", &own, "-pubout"], b"")).unwrap();
    let made = ask(root, &format!("CREATE USER robot WITH rsa_public_key = '{public}'"));
    assert_eq!(made.status, 200, "{}", made.body);
    assert_eq!(ask(root, "ALTER TENANT cnosdb ADD USER robot AS member").status, 200);
    let status = |header: &str| ask(header, "SELECT 1").status;
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let bearer = |key: &str, user: &str, until: u64| {
        let claims = format!("{{\"sub\":\"{user}\",\"exp\":{until}}}");
        format!("Authorization: Bearer {}", token(key, &claims))
    };
    let good = bearer(&own, "robot", now + 60);
    let answer = ask(&good, "SELECT current_user");
    assert!(answer.status == 200 && answer.body.contains("robot"), "{}", answer.body);
    assert_eq!(status(&bearer(&own, "robot", now - 60)), 401);
    assert_eq!(status(&bearer(&own, "robot", now + 1_000_000)), 401);
    assert_eq!(status(&bearer(&own, "root", now + 60)), 401);
    assert_eq!(status(&bearer(&other, "robot", now + 60)), 401);
    let none = format!("{{\"sub\":\"robot\",\"exp\":{}}}", now + 60);
    let base64 = base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let unsigned =
        format!("{}.{}.", base64.encode(r#"{"alg":"none"}"#), base64.encode(none.as_bytes()));
    assert_eq!(status(&format!("Authorization: Bearer {unsigned}")), 401);
    // As users of the original do: the key itself, in base64.
    let standard = base64::engine::general_purpose::STANDARD;
    let private = |path: &str| standard.encode(std::fs::read(path).unwrap());
    let by_key = |path: &str| {
        let headers = [
            format!("Authorization: Basic {}", standard.encode("robot:")),
            format!("X-CnosDB-PrivateKey: {}", private(path)),
        ];
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        http(server.http_port, "POST /api/v1/sql", &headers, b"SELECT 1").unwrap().status
    };
    assert_eq!(by_key(&own), 200);
    assert_eq!(by_key(&other), 401);
    // A key that is none is refused, and one that is taken away proves nothing.
    assert_eq!(ask(root, "ALTER USER robot SET rsa_public_key = 'rubbish'").status, 422);
    assert_eq!(ask(root, "ALTER USER robot SET rsa_public_key = ''").status, 200);
    assert_eq!(status(&good), 401);
}
