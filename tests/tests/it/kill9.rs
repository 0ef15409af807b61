//! kill -9 under concurrent writers: what was acknowledged is there, once and unchanged; what was in
//! flight is there wholly or not at all.
//!
//! `CNOSDB_KILL_CYCLES` sets the number of kills (docs/testing.md).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use futures::SinkExt;
use tests::Server;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

const WRITERS: i64 = 8;
/// Rows of a batch; each batch writes over half of the one before.
const ROWS: i64 = 10;
const STEP: i64 = 5;
/// Batches acknowledged between two kills.
const BATCHES: i64 = 60;

async fn connect(port: u16) -> Result<Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    let config = config.host("127.0.0.1").port(port).user("root").dbname("cnosdb");
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// What a writer's rows are after its batches up to `last`: time → value.
fn rows_after(last: i64) -> BTreeMap<i64, i64> {
    let batches =
        (0..=last).flat_map(|batch| (0..ROWS).map(move |row| (batch * STEP + row, batch)));
    batches.collect()
}

async fn write(client: &Client, writer: i64, batch: i64) -> Result<(), tokio_postgres::Error> {
    let rows = (0..ROWS).map(|row| (batch * STEP + row, batch));
    if writer % 2 == 0 {
        let values: Vec<String> =
            rows.map(|(time, value)| format!("({time}, 'w{writer}', {value})")).collect();
        let insert = format!("INSERT INTO k (time, w, v) VALUES {}", values.join(", "));
        return client.simple_query(&insert).await.map(|_| ());
    }
    let lines: String = rows.map(|(time, value)| format!("{time}\tw{writer}\t{value}\n")).collect();
    let sink = client.copy_in("COPY k (time, w, v) FROM STDIN").await?;
    let mut sink = std::pin::pin!(sink);
    sink.send(Bytes::from(lines)).await?;
    sink.as_mut().finish().await.map(|_| ())
}

/// Writes until the server dies. Returns the last batch acknowledged and the last sent.
async fn write_on(port: u16, writer: i64, first: i64, acks: Arc<AtomicI64>) -> (i64, i64) {
    let mut acked = first - 1;
    let Ok(client) = connect(port).await else { return (acked, acked) };
    loop {
        let batch = acked + 1;
        if write(&client, writer, batch).await.is_err() {
            return (acked, batch);
        }
        acked = batch;
        acks.fetch_add(1, Ordering::SeqCst);
    }
}

async fn read(client: &Client, writer: i64) -> BTreeMap<i64, i64> {
    let query = format!("SELECT time::bigint, v FROM k WHERE w = 'w{writer}'");
    let mut rows = BTreeMap::new();
    for message in client.simple_query(&query).await.unwrap() {
        if let SimpleQueryMessage::Row(row) = message {
            let number = |at: usize| row.get(at).unwrap().parse::<i64>().unwrap();
            assert!(rows.insert(number(0), number(1)).is_none(), "a row twice");
        }
    }
    rows
}

fn cycles() -> u32 {
    std::env::var("CNOSDB_KILL_CYCLES").ok().and_then(|n| n.parse().ok()).unwrap_or(30)
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_loses_doubles_and_invents_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path());
    let client = connect(server.port).await.unwrap();
    client.simple_query("CREATE TABLE k (v BIGINT, TAGS(w))").await.unwrap();
    let mut next = vec![0_i64; WRITERS as usize];
    for cycle in 0..cycles() {
        let acks = Arc::new(AtomicI64::new(0));
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (acks, first) = (Arc::clone(&acks), next[writer as usize]);
                tokio::spawn(write_on(server.port, writer, first, acks))
            })
            .collect();
        while acks.load(Ordering::SeqCst) < BATCHES {
            tokio::task::yield_now().await;
        }
        server.kill();
        if cycle % 5 == 4 {
            Server::kill_in_recovery(folder.path(), cycle * 2_000);
        }
        server = Server::start(folder.path());
        let client = connect(server.port).await.unwrap();
        for (writer, outcome) in (0..).zip(writers) {
            let (acked, sent) = outcome.await.unwrap();
            let rows = read(&client, writer).await;
            let found = [acked, sent].into_iter().find(|last| rows == rows_after(*last));
            let Some(found) = found else {
                panic!(
                    "cycle {cycle}, writer {writer}: acknowledged {acked}, sent {sent}: {rows:?}"
                );
            };
            next[writer as usize] = found + 1;
        }
    }
}
