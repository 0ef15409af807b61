//! Writers that go on until the server ends, by INSERT, by COPY and by line protocol, each over rows of
//! its own; and what must be found of them afterwards.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use bytes::Bytes;
use futures::SinkExt;
use tests::Server;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

const WRITERS: i64 = 8;
/// Rows of a batch; each batch writes over half of the one before.
pub(crate) const ROWS: i64 = 10;
pub(crate) const STEP: i64 = 5;
/// Batches acknowledged between two ends of the server.
const BATCHES: i64 = 60;

pub(crate) async fn connect(port: u16) -> Result<Client, tokio_postgres::Error> {
    let mut config = tokio_postgres::Config::new();
    let config = config.host("127.0.0.1").port(port).user("root").dbname("cnosdb");
    let (client, connection) = config.connect(NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// What a writer's rows are after its batches up to `last`: time → value.
pub(crate) fn rows_after(last: i64) -> BTreeMap<i64, i64> {
    let batches =
        (0..=last).flat_map(|batch| (0..ROWS).map(move |row| (batch * STEP + row, batch)));
    batches.collect()
}

/// Writes a batch over HTTP; false where it was not acknowledged.
async fn write_lines(port: u16, writer: i64, batch: i64) -> bool {
    let rows = (0..ROWS).map(|row| (batch * STEP + row, batch));
    let lines = rows.map(|(time, value)| format!("k,w=w{writer} v={value}i {time}\n"));
    let lines: String = lines.collect();
    let request = "POST /api/v1/write?db=public";
    let sent = move || tests::http(port, request, &[], lines.as_bytes());
    let answer = tokio::task::spawn_blocking(sent).await.unwrap();
    answer.is_ok_and(|answer| {
        assert_eq!(answer.status, 200, "{}", answer.body);
        true
    })
}

async fn write(client: &Client, writer: i64, batch: i64) -> Result<(), tokio_postgres::Error> {
    let rows = (0..ROWS).map(|row| (batch * STEP + row, batch));
    if writer % 3 == 0 {
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
async fn write_on(ports: Ports, writer: i64, first: i64, acks: Arc<AtomicI64>) -> (i64, i64) {
    let mut acked = first - 1;
    let Ok(client) = connect(ports.pg).await else { return (acked, acked) };
    loop {
        let batch = acked + 1;
        let written = if writer % 3 == 2 {
            write_lines(ports.http, writer, batch).await
        } else {
            write(&client, writer, batch).await.is_ok()
        };
        if !written {
            return (acked, batch);
        }
        acked = batch;
        acks.fetch_add(1, Ordering::SeqCst);
    }
}

pub(crate) async fn read(
    client: &Client,
    table: &str,
    writer: i64,
) -> Result<BTreeMap<i64, i64>, String> {
    let query = format!("SELECT time::bigint, v FROM {table} WHERE w = 'w{writer}'");
    let mut rows = BTreeMap::new();
    for message in client.simple_query(&query).await.map_err(|error| error.to_string())? {
        if let SimpleQueryMessage::Row(row) = message {
            let number = |at: usize| row.get(at).unwrap().parse::<i64>().unwrap();
            assert!(rows.insert(number(0), number(1)).is_none(), "a row twice");
        }
    }
    Ok(rows)
}

/// Where a server listens.
#[derive(Clone, Copy)]
struct Ports {
    pg: u16,
    http: u16,
}

/// The writers of a test, and what they know.
pub(crate) struct Writers {
    next: Vec<i64>,
    running: Vec<JoinHandle<(i64, i64)>>,
}

impl Writers {
    /// Makes the table they write to.
    pub(crate) async fn new(port: u16) -> Self {
        let client = connect(port).await.unwrap();
        client.simple_query("CREATE TABLE k (v BIGINT, TAGS(w))").await.unwrap();
        Self { next: vec![0; WRITERS as usize], running: Vec::new() }
    }

    /// Starts them, and returns once some batches were acknowledged.
    pub(crate) async fn start(&mut self, server: &Server) {
        let ports = Ports { pg: server.port, http: server.http_port };
        let acks = Arc::new(AtomicI64::new(0));
        let start = |(writer, first): (i64, &i64)| {
            tokio::spawn(write_on(ports, writer, *first, Arc::clone(&acks)))
        };
        self.running = (0..).zip(&self.next).map(start).collect();
        while acks.load(Ordering::SeqCst) < BATCHES {
            assert!(self.running.iter().any(|one| !one.is_finished()), "every writer ended early");
            tokio::task::yield_now().await;
        }
    }

    /// Compares what the server has with what was acknowledged and what was sent.
    pub(crate) async fn check(&mut self, port: u16) -> Result<(), String> {
        let client = connect(port).await.map_err(|error| error.to_string())?;
        for (writer, outcome) in (0..).zip(std::mem::take(&mut self.running)) {
            let (acked, sent) = outcome.await.unwrap();
            let rows = read(&client, "k", writer).await?;
            let found = [acked, sent].into_iter().find(|last| rows == rows_after(*last));
            let Some(found) = found else {
                return Err(format!(
                    "writer {writer}: acknowledged {acked}, sent {sent}: {rows:?}"
                ));
            };
            self.next[writer as usize] = found + 1;
        }
        Ok(())
    }
}
