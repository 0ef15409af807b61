//! Who may do what: every row of tests/data/access.txt, by every kind of user.

use tests::Server;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

const TABLE: &str = include_str!("../../data/access.txt");
/// The users of the table, in its order.
const USERS: [(&str, char); 7] = [
    ("root", 'a'),
    ("the_owner", 'o'),
    ("the_definer", 'd'),
    ("the_writer", 'w'),
    ("the_reader", 'r'),
    ("the_table_reader", 't'),
    ("the_member", 'm'),
];

async fn connect(server: &Server, user: &str, tenant: &str) -> Result<Client, String> {
    let settings = format!("host=127.0.0.1 port={} user={user} dbname={tenant}", server.port);
    let (client, connection) = tokio_postgres::connect(&settings, NoTls).await.map_err(code)?;
    tokio::spawn(connection);
    Ok(client)
}

#[expect(clippy::needless_pass_by_value, reason = "it is used where errors are mapped")]
fn code(error: tokio_postgres::Error) -> String {
    error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned())
}

async fn run(client: &Client, sql: &str) -> Result<Vec<SimpleQueryMessage>, String> {
    if sql.ends_with("TO STDOUT") {
        return client.copy_out(sql).await.map(|_| Vec::new()).map_err(code);
    }
    client.simple_query(sql).await.map_err(code)
}

async fn set_up(server: &Server) -> Client {
    let root = connect(server, "root", "cnosdb").await.unwrap();
    run(&root, "CREATE TENANT acme; CREATE TENANT other").await.unwrap();
    for name in ["the_owner", "the_definer", "the_writer", "the_reader", "the_table_reader"] {
        run(&root, &format!("CREATE USER {name}")).await.unwrap();
    }
    for name in ["the_member", "nobody", "foreigner", "goner"] {
        run(&root, &format!("CREATE USER {name}")).await.unwrap();
    }
    run(&root, "ALTER TENANT acme ADD USER the_owner AS owner").await.unwrap();
    run(&root, "ALTER TENANT acme ADD USER goner AS owner").await.unwrap();
    run(&root, "ALTER TENANT other ADD USER foreigner AS owner").await.unwrap();
    let owner = connect(server, "the_owner", "acme").await.unwrap();
    for sql in [
        "CREATE DATABASE d",
        "CREATE TABLE d.a (v DOUBLE, TAGS(k))",
        "CREATE TABLE d.b (v DOUBLE, TAGS(k))",
        "CREATE TABLE d.empty (v DOUBLE)",
        "CREATE VIEW d.the_view AS SELECT v FROM d.b",
        "INSERT INTO d.b (time, k, v) VALUES (1, 'x', 1)",
        "CREATE ROLE definer",
        "CREATE ROLE writer INHERIT member",
        "CREATE ROLE reader",
        "CREATE ROLE table_reader",
        "GRANT ALL ON DATABASE d TO ROLE definer",
        "GRANT SELECT, INSERT ON SCHEMA d TO writer",
        "GRANT READ ON DATABASE d TO reader",
        "GRANT SELECT ON d.a TO table_reader",
        "GRANT definer TO the_definer",
        "GRANT writer TO the_writer",
        "GRANT reader TO the_reader",
        "ALTER TENANT acme ADD USER the_table_reader AS table_reader",
        "GRANT member TO the_member",
    ] {
        run(&owner, sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
    for letter in USERS.iter().map(|user| user.1).chain(['g']) {
        let table = format!(
            "CREATE TABLE d.old_{letter} (v DOUBLE); CREATE DATABASE old_{letter}; \
             CREATE VIEW d.old_view_{letter} AS SELECT 1 AS one"
        );
        run(&owner, &table).await.unwrap();
    }
    root
}

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_is_allowed_to_whom_the_table_says() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let root = set_up(&server).await;
    let goner = connect(&server, "goner", "acme").await.unwrap();
    run(&root, "DROP USER goner").await.unwrap();
    let mut wrong = Vec::new();
    for (at, (user, letter)) in USERS.iter().enumerate() {
        let client = connect(&server, user, "acme").await.unwrap();
        for (outcomes, sql) in rows() {
            let expected = outcomes.as_bytes()[at] as char;
            let sql = sql.replace("{u}", &letter.to_string());
            let found = run(&client, &sql).await;
            let fits = match (&found, expected) {
                (Err(code), '-') => code == "42501",
                // There is no such object, and everyone is told so.
                (Err(code), _) => ["42704", "3D000", "3F000", "58P01"].contains(&code.as_str()),
                (Ok(_), expected) => expected == '+',
            };
            if !fits {
                wrong.push(format!("{user}: {sql}: {:?}", found.err()));
            }
        }
    }
    for (outcomes, sql) in rows().filter(|(outcomes, _)| outcomes.contains('-')) {
        let found = run(&goner, &sql.replace("{u}", "g")).await;
        if found.as_ref().err().is_none_or(|code| code != "28000") {
            wrong.push(format!("the dropped user: {sql} {outcomes}: {:?}", found.err()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for user in ["nobody", "foreigner"] {
        assert_eq!(connect(&server, user, "acme").await.err().as_deref(), Some("3D000"));
        assert_eq!(connect(&server, user, "no_such_tenant").await.err().as_deref(), Some("3D000"));
    }
    let foreigner = connect(&server, "foreigner", "other").await.unwrap();
    for sql in ["SELECT * FROM acme.d.a", "INSERT INTO acme.d.a (time, v) VALUES (1, 1)"] {
        assert_eq!(run(&foreigner, sql).await.err().as_deref(), Some("3D000"), "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_a_role_reaches_open_sessions_and_a_new_password_is_demanded() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    set_up(&server).await;
    let owner = connect(&server, "the_owner", "acme").await.unwrap();
    let reader = connect(&server, "the_reader", "acme").await.unwrap();
    run(&reader, "PREPARE p AS SELECT v FROM d.b WHERE v > 0").await.unwrap();
    // Its plan is kept.
    for _ in 0..3 {
        run(&reader, "EXECUTE p").await.unwrap();
    }
    run(&owner, "REVOKE READ ON DATABASE d FROM reader").await.unwrap();
    assert_eq!(run(&reader, "EXECUTE p").await.err().as_deref(), Some("42501"));
    run(&owner, "GRANT WRITE ON DATABASE d TO reader").await.unwrap();
    run(&reader, "INSERT INTO d.b (time, v) VALUES (2, 2)").await.unwrap();
    run(&owner, "REVOKE WRITE ON DATABASE d FROM reader").await.unwrap();
    run(&reader, "SELECT v FROM d.b").await.unwrap();
    assert_eq!(run(&owner, "DROP ROLE reader").await.err().as_deref(), Some("55006"));

    let root = connect(&server, "root", "cnosdb").await.unwrap();
    run(&root, "ALTER USER the_reader SET must_change_password = true").await.unwrap();
    assert_eq!(run(&reader, "SELECT v FROM d.b").await.err().as_deref(), Some("28P01"));
    run(&reader, "ALTER USER the_reader PASSWORD 'a new one'").await.unwrap();
    run(&reader, "SELECT v FROM d.b").await.unwrap();
}

fn rows() -> impl Iterator<Item = (&'static str, &'static str)> {
    let rows = TABLE.lines().filter(|line| !line.starts_with('#'));
    rows.map(|row| row.split_once('\t').unwrap())
}
