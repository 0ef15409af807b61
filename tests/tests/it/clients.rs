//! Real clients: psql, our own, psycopg and pgjdbc connect, create, insert, copy and select.

use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};

use tests::{Server, binary};

fn here(name: &str) -> PathBuf {
    PathBuf::from("clients").join(name)
}

fn check(output: &Output) -> String {
    let (stdout, stderr) = (&output.stdout, &output.stderr);
    let text = String::from_utf8_lossy(stdout).into_owned();
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(stderr));
    text
}

fn psql(server: &Server, input: &str) -> Output {
    let mut child = Command::new("psql")
        .args(["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", &server.url()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("make test installs psql");
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn psql_creates_inserts_copies_and_looks_around() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let script = "\
CREATE DATABASE weather WITH TTL '3650d' SHARD 2;
SET search_path TO weather;
CREATE TABLE air (temperature DOUBLE, visibility BIGINT, TAGS(station));
INSERT INTO air VALUES ('2024-01-01T00:00:00Z', 'a', 1.5, 7), ('2024-01-01 01:00:00+01', 'b', NULL, 8);
COPY air (time, station, temperature) FROM STDIN;
2024-01-02 00:00:00\ta\t2.5
2024-01-02 00:00:00.000000001\ta\t\\N
\\.
SELECT station, count(*), sum(temperature) FROM air GROUP BY station ORDER BY station;
COPY (SELECT time, temperature FROM air WHERE station = 'a' ORDER BY time) TO STDOUT;
\\dt
\\d air
\\l
\\dn
\\du
";
    let text = check(&psql(&server, script));
    for line in [
        "a|3|4",
        "b|1|",
        "2024-01-02 00:00:00.000000001+00\t\\N",
        "weather|air|table|root",
        "temperature|double precision|||",
        "cnosdb|root|UTF8",
        "root|",
    ] {
        assert!(text.contains(line), "{line:?} is missing in:\n{text}");
    }
    let failed = psql(&server, "SELECT * FROM nowhere;");
    assert!(
        String::from_utf8_lossy(&failed.stderr).contains("relation \"nowhere\" does not exist")
    );
}

#[test]
fn a_password_is_asked_for_once_there_is_one() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_with(folder.path(), &[("CNOSDB_ROOT_PASSWORD", "s3cret")]);
    let run = |password: &str| {
        let mut command = Command::new("psql");
        let url = server.url();
        command.args(["-X", "-A", "-t", "-w", "-c", "SELECT 1", &url]);
        command.env("PGPASSWORD", password).output().unwrap()
    };
    assert_eq!(check(&run("s3cret")).trim(), "1");
    let refused = run("wrong");
    let error = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(error.contains("password authentication failed"), "{error}");
}

#[test]
fn our_own_client_runs_statements_files_and_copies() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let rows = folder.path().join("rows.csv");
    std::fs::write(&rows, "time,host,v\n2024-01-01T00:00:00Z,a,1\n2024-01-01T00:00:01Z,\"b,c\",\n")
        .unwrap();
    let run = |arguments: &[&str]| {
        let port = server.port.to_string();
        Command::new(binary("cnosdb-cli")).args(["-p", &port]).args(arguments).output().unwrap()
    };
    check(&run(&["-c", "CREATE TABLE m (v BIGINT, TAGS(host))"]));
    let copy =
        format!("\\copy m (time, host, v) FROM '{}' WITH (FORMAT csv, HEADER)", rows.display());
    assert!(check(&run(&["-c", &copy])).contains("COPY 2"));
    let csv = check(&run(&["--format", "csv", "-c", "SELECT host, v FROM m ORDER BY host"]));
    assert_eq!(csv, "host,v\na,1\n\"b,c\",\n");
    let json = check(&run(&["--format", "json", "-c", "SELECT v FROM m ORDER BY time"]));
    assert_eq!(json.trim(), r#"[{"v":"1"},{"v":null}]"#);
    assert_eq!(run(&["-c", "SELECT oops FROM m"]).status.code(), Some(1));
    assert_eq!(run(&["-p", "1", "-c", "SELECT 1"]).status.code(), Some(2));
}

#[test]
fn a_dump_of_the_catalog_makes_the_same_catalog() {
    let folder = tempfile::tempdir().unwrap();
    let made = "\
CREATE TENANT acme WITH comment = 'it''s', drop_after = '7d', object_config max_databases = 5 max_shard_number = 8;
CREATE USER ann WITH password = 'secret', comment = 'x', must_change_password = true;
CREATE USER \"Bob B\";
ALTER DATABASE public SET TTL '30d';
\\c acme
CREATE ROLE reader; CREATE ROLE boss INHERIT owner;
CREATE DATABASE d WITH TTL '100d' SHARD 3 VNODE_DURATION '1d' PRECISION 'ms' STRICT_WRITE 'true' MAX_MEMCACHE_SIZE '32MiB' MEMCACHE_PARTITIONS 2 WAL_MAX_FILE_SIZE '8MiB' MAX_CACHE_READERS 9;
CREATE TABLE d.\"M m\" (v DOUBLE CODEC(SDT(0.5)), n BIGINT UNSIGNED, place GEOMETRY(POINT, 0), TAGS(k, \"L\"));
ALTER TABLE d.\"M m\" ADD TAG late; ALTER TABLE d.\"M m\" ADD FIELD s STRING CODEC(ZSTD);
CREATE TABLE d.keyed (a STRING NOT NULL, v BOOLEAN, PRIMARY KEY (time, a));
CREATE VIEW d.later AS SELECT k, v FROM d.\"M m\" WHERE v > 1;
CREATE VIEW d.earlier (one) AS SELECT k FROM d.later;
CREATE EXTERNAL TABLE d.files (a INT, b TEXT) STORED AS CSV WITH HEADER ROW DELIMITER ';' LOCATION 'x.csv';
GRANT READ ON DATABASE d TO ROLE reader; GRANT WRITE ON TABLE d.keyed TO ROLE reader;
ALTER TENANT acme ADD USER ann AS reader; ALTER TENANT acme ADD USER \"Bob B\" AS owner;
";
    let cli = |server: &Server, arguments: &[&str]| {
        let mut command = Command::new(binary("cnosdb-cli"));
        command.args(["-p", &server.port.to_string()]).args(arguments);
        command.output().unwrap()
    };
    let first = Server::start(&folder.path().join("first"));
    let script = folder.path().join("made.sql");
    std::fs::write(&script, made).unwrap();
    check(&cli(&first, &["-f", script.to_str().unwrap()]));
    let dumped = check(&cli(&first, &["dump-ddl"]));
    assert!(dumped.contains("CODEC(SDT(0.5))") && !dumped.contains("secret"), "{dumped}");
    let dump = folder.path().join("dump.sql");
    std::fs::write(&dump, &dumped).unwrap();
    let second = Server::start(&folder.path().join("second"));
    check(&cli(&second, &["restore-dump-ddl", dump.to_str().unwrap()]));
    assert_eq!(check(&cli(&second, &["dump-ddl"])), dumped);
    // It may be run again, and may be of one tenant.
    check(&cli(&second, &["restore-dump-ddl", dump.to_str().unwrap()]));
    let of_one = check(&cli(&second, &["dump-ddl", "-t", "cnosdb"]));
    assert!(!of_one.contains("acme"), "{of_one}");
    let order = "SELECT string_agg(column_name, ',' ORDER BY ordinal_position) FROM \
        information_schema.columns WHERE table_name = 'M m'";
    let columns = |server: &Server| check(&cli(server, &["-d", "acme", "-c", order]));
    assert_eq!(columns(&first), columns(&second));
}

#[test]
fn who_fails_to_log_in_waits_and_the_audit_log_tells() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_with(folder.path(), &[("CNOSDB_ROOT_PASSWORD", "s3cret")]);
    let login = |password: &str| {
        let mut command = Command::new("psql");
        command.args(["-X", "-A", "-t", "-c", "CREATE USER IF NOT EXISTS u PASSWORD 'planted'"]);
        command.arg(server.url()).env("PGPASSWORD", password).output().unwrap()
    };
    check(&login("s3cret"));
    let told = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    for _ in 0..5 {
        assert!(told(&login("wrong")).contains("password authentication failed"));
    }
    let sixth = told(&login("wrong"));
    assert!(sixth.contains("password authentication failed"), "{sixth}");
    let seventh = told(&login("s3cret"));
    assert!(seventh.contains("too many failed logins"), "{seventh}");
    let basic = "Authorization: Basic cm9vdDp3cm9uZw==";
    let asked = tests::http(server.http_port, "POST /api/v1/sql", &[basic], b"SELECT 1").unwrap();
    assert_eq!(asked.status, 429, "{}", asked.body);
    // A name that nobody has costs as much as a wrong password.
    let nobody = "Authorization: Basic bm9ib2R5Ong=";
    let statuses = [401, 401, 401, 401, 401, 401, 429];
    for status in statuses {
        let asked = tests::http(server.http_port, "POST /api/v1/sql", &[nobody], b"SELECT 1");
        assert_eq!(asked.unwrap().status, status);
    }
    let log = std::fs::read_to_string(folder.path().join("audit.log")).unwrap();
    for told in
        ["\"outcome\":\"28P01\"", "\"outcome\":\"53400\"", "CreateUser", "\"from\":\"127.0.0.1\""]
    {
        assert!(log.contains(told), "{told}\n{log}");
    }
    assert!(!log.contains("planted") && !log.contains("s3cret"), "{log}");
}

fn python(script: &str, arguments: &[String]) -> String {
    let python = std::env::var("CNOSDB_CLIENTS_PYTHON").expect("set by make test");
    check(&Command::new(python).arg(here(script)).args(arguments).output().unwrap())
}

#[test]
fn psycopg_binds_copies_and_streams() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    assert!(python("psycopg_client.py", &[server.url()]).ends_with("ok\n"));
}

#[test]
fn senders_of_points_and_readers_of_packed_answers_are_understood() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start_with(folder.path(), &[("CNOSDB_OPENTSDB_ADDR", "127.0.0.1:0")]);
    let ports = [server.http_port, server.opentsdb_port.unwrap()].map(|port| port.to_string());
    assert!(python("senders.py", &ports).ends_with("ok\n"));
}

/// S3, as moto speaks it, until it is dropped.
struct Store(Child);

impl Drop for Store {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn rows_go_to_s3_and_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let python_at = std::env::var("CNOSDB_CLIENTS_PYTHON").expect("set by make test");
    let mut store = Command::new(python_at)
        .arg(here("stores.py"))
        .arg("serve")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(store.stdout.take().unwrap()).lines();
    let _store = Store(store);
    let port = said.next().expect("moto says its port").unwrap();
    let config = folder.path().join("config");
    let text =
        format!("[files]\nurls = [\"s3://bucket/\"]\nendpoints = [\"http://127.0.0.1:{port}\"]\n");
    std::fs::write(&config, text).unwrap();
    let data = folder.path().join("data");
    let server = Server::start_with(&data, &[("CNOSDB_CONFIG", config.to_str().unwrap())]);
    assert!(python("stores.py", &["use".to_owned(), server.url(), port]).ends_with("ok\n"));
}

#[test]
fn pgjdbc_binds_and_reads_metadata() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let output = Command::new("java")
        .args(["-cp", "/usr/share/java/postgresql.jar"])
        .arg(here("JdbcClient.java"))
        .arg(format!("jdbc:postgresql://127.0.0.1:{}/cnosdb?user=root", server.port))
        .output()
        .unwrap();
    assert!(check(&output).ends_with("ok\n"));
}

#[test]
fn psql_connects_over_tls_and_checks_the_certificate() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (certificate, key, config) = (path("certificate.pem"), path("key.pem"), path("config"));
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"])
        .args(["-keyout", &key, "-out", &certificate])
        .output()
        .expect("make test installs openssl");
    check(&made);
    let text = format!("[security]\ncertificate = \"{certificate}\"\nprivate_key = \"{key}\"\n");
    std::fs::write(&config, text).unwrap();
    let data = folder.path().join("data");
    let server = Server::start_with(&data, &[("CNOSDB_CONFIG", &config)]);
    let connect = |mode: &str| {
        let url = format!("{}?sslmode={mode}&sslrootcert={certificate}", server.url());
        Command::new("psql").args(["-X", "-A", "-t", "-c", "SELECT 'safe'", &url]).output().unwrap()
    };
    assert_eq!(check(&connect("verify-full")), "safe\n");
    assert_eq!(check(&connect("disable")), "safe\n", "loopback needs no TLS");
    // HTTP is encrypted throughout once there is a certificate.
    let plain = tests::http(server.http_port, "GET /api/v1/ping", &[], b"");
    assert!(plain.is_err_and(|error| error.kind() != std::io::ErrorKind::ConnectionRefused));
    let fetch = "import ssl, sys, urllib.request; \
        context = ssl.create_default_context(cafile=sys.argv[1]); \
        print(urllib.request.urlopen(sys.argv[2], context=context).status)";
    let url = format!("https://localhost:{}/api/v1/ping", server.http_port);
    let fetched =
        Command::new("python3").args(["-c", fetch, certificate.as_str(), url.as_str()]).output();
    assert_eq!(check(&fetched.unwrap()), "200\n");
}
