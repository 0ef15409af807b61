//! Passwords and keys that are told to the server are told to nobody: they are planted, and looked for in
//! all it says and writes.

use std::path::Path;

use tests::{Server, http};
use tokio_postgres::{NoTls, SimpleQueryMessage};

/// What every planted secret begins with.
const MARK: &str = "zq7Secret";

/// Statements with secrets in them, good and bad.
const STATEMENTS: [&str; 14] = [
    "CREATE USER one WITH password = 'zq7Secret01'",
    "CREATE USER one WITH password = 'zq7Secret02'",
    "ALTER USER one SET password = 'zq7Secret03'",
    "ALTER USER one PASSWORD 'zq7Secret04'",
    "ALTER USER nobody PASSWORD 'zq7Secret05'",
    "CREATE ROLE two LOGIN PASSWORD 'zq7Secret06'",
    "CREATE USER three PASSWORD 'zq7Secret07' BOGUS",
    "CREATE USER three PASSWORD 'zq7Secret08",
    "COPY INTO t FROM 's3://b/c' CONNECTION = (region = 'eu', access_key_id = 'zq7Secret09', secret_key = 'zq7Secret10')",
    "COPY INTO 's3://b/c' FROM t CONNECTION = (bogus = 'zq7Secret11')",
    "COPY INTO 'gcs://b/c' FROM t CONNECTION = (client_email = 'x', private_key = 'zq7Secret12')",
    "EXPLAIN CREATE USER four PASSWORD 'zq7Secret13'",
    "PREPARE p AS ALTER USER one PASSWORD 'zq7Secret14'",
    "BEGIN; ALTER USER one PASSWORD 'zq7Secret15'; SELECT 1/0",
];

/// What may show what was said before.
const QUESTIONS: [&str; 7] = [
    "SHOW QUERIES",
    "SELECT * FROM cluster_schema.sql_history",
    "SELECT * FROM cluster_schema.users",
    "SELECT * FROM pg_catalog.pg_stat_activity",
    "SELECT * FROM information_schema.queries",
    "SHOW DDL",
    "SHOW ALL",
];

async fn answers(server: &Server) -> String {
    let mut config = tokio_postgres::Config::new();
    let config = config.host("127.0.0.1").port(server.port).user("root").dbname("cnosdb");
    let (client, connection) = config.password("zq7Secret00").connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    let mut said = String::new();
    for statement in STATEMENTS {
        if let Err(error) = client.simple_query(statement).await {
            said += &format!("{error:?}\n");
        }
        drop(client.simple_query("ROLLBACK").await);
    }
    for question in QUESTIONS {
        for message in client.simple_query(question).await.unwrap() {
            if let SimpleQueryMessage::Row(row) = message {
                (0..row.len()).for_each(|at| said += row.get(at).unwrap_or_default());
                said.push('\n');
            }
        }
    }
    // A password that is wrong, over both protocols, is a secret too: it may be another server's.
    let wrong = config.user("one").password("zq7Secret16").connect(NoTls).await;
    said += &format!("{:?}\n", wrong.err());
    // root:zq7Secret17, one:zq7Secret15
    for basic in ["cm9vdDp6cTdTZWNyZXQxNw==", "b25lOnpxN1NlY3JldDE1"] {
        let headers = [format!("Authorization: Basic {basic}")];
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        let answer = http(server.http_port, "POST /api/v1/sql", &headers, b"SELECT now(");
        said += &format!("{answer:?}\n");
    }
    said
}

/// Looks for the mark in a file, or in all files of a folder.
fn find(path: &Path, found: &mut Vec<String>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            find(&entry.unwrap().path(), found);
        }
        return;
    }
    let Ok(bytes) = std::fs::read(path) else { return };
    if let Some(at) = bytes.windows(MARK.len()).position(|window| window == MARK.as_bytes()) {
        let shown =
            String::from_utf8_lossy(&bytes[at.saturating_sub(80)..(at + 20).min(bytes.len())]);
        found.push(format!("{}: {shown:?}", path.display()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_and_no_key_is_told_to_anybody_or_written_down() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let log = folder.path().join("log");
    let root = [("CNOSDB_ROOT_PASSWORD", "zq7Secret00")];
    let server = Server::start_logged(&data, &log, &root);
    let said = answers(&server).await;
    assert!(server.stop());
    let mut found = Vec::new();
    find(folder.path(), &mut found);
    let lines = said.lines().filter(|line| line.contains(MARK)).map(str::to_owned);
    found.extend(lines);
    assert!(found.is_empty(), "{found:#?}");
    // The log did say something of these statements.
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(log.lines().count() > 20, "the log is nearly empty");
}
