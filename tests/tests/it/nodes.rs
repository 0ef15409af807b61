//! A cluster of real processes on this machine, and writers that go on while nodes come and go.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tests::Server;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::writers::{ROWS, STEP, connect, read, rows_after};

const WRITERS: i64 = 8;

/// Nodes of one cluster. A node keeps folder and rpc port over its restarts.
pub(crate) struct Nodes {
    folder: tempfile::TempDir,
    settings: String,
    rpc_ports: Vec<u16>,
    servers: Vec<Option<Server>>,
}

/// Returns a port that is free now.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Nodes {
    /// Starts so many nodes; the first begins the cluster.
    pub(crate) fn start(count: usize) -> Self {
        Self::start_with(count, "")
    }

    /// Starts so many nodes with more settings: first those of the cluster, then other sections.
    pub(crate) fn start_with(count: usize, settings: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), "s".repeat(32)).unwrap();
        // A dead node's vnodes come back soon.
        let settings = format!("[cluster]\nsilence_seconds = 2\nrebuild_seconds = 6\n{settings}");
        let mut nodes = Self { folder, settings, rpc_ports: Vec::new(), servers: Vec::new() };
        (0..count).for_each(|_| nodes.add());
        nodes
    }

    /// Starts one node more.
    pub(crate) fn add(&mut self) {
        self.rpc_ports.push(free_port());
        self.servers.push(None);
        self.restart(self.servers.len() - 1);
    }

    pub(crate) fn data_dir(&self, node: usize) -> PathBuf {
        self.folder.path().join(format!("node{node}"))
    }

    /// Returns the files of columns that a node has.
    pub(crate) fn column_files(&self, node: usize) -> Vec<PathBuf> {
        let (mut folders, mut files) = (vec![self.data_dir(node)], Vec::new());
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if path.extension().is_some_and(|extension| extension == "tsm") {
                    files.push(path);
                }
            }
        }
        files
    }

    /// Starts a node that does not run.
    pub(crate) fn restart(&mut self, node: usize) {
        let arguments = self.arguments(node);
        self.servers[node] = Some(Server::start_node(&self.data_dir(node), &arguments));
    }

    /// Starts all nodes at once.
    pub(crate) fn restart_all(&mut self) {
        let started = (0..self.servers.len()).map(|node| {
            let (data_dir, arguments) = (self.data_dir(node), self.arguments(node));
            std::thread::spawn(move || Server::start_node(&data_dir, &arguments))
        });
        let started: Vec<_> = started.collect();
        self.servers = started.into_iter().map(|one| Some(one.join().unwrap())).collect();
    }

    fn arguments(&self, node: usize) -> Vec<String> {
        let secret = self.folder.path().join("secret");
        let mut arguments = vec![
            "--rpc-addr".to_owned(),
            format!("127.0.0.1:{}", self.rpc_ports[node]),
            "--cluster-secret-file".to_owned(),
            secret.display().to_string(),
            "--config".to_owned(),
            self.config().display().to_string(),
        ];
        if node > 0 {
            let seeds: Vec<String> =
                self.rpc_ports[..node].iter().map(|port| format!("127.0.0.1:{port}")).collect();
            arguments.extend(["--join".to_owned(), seeds.join(",")]);
        }
        arguments
    }

    fn config(&self) -> PathBuf {
        let path = self.folder.path().join("cnosdb.toml");
        std::fs::write(&path, &self.settings).unwrap();
        path
    }

    pub(crate) fn kill(&mut self, node: usize) {
        self.servers[node].take().unwrap().kill();
    }

    /// Removes what a killed node stored.
    pub(crate) fn wipe(&mut self, node: usize) {
        std::fs::remove_dir_all(self.data_dir(node)).unwrap();
    }

    pub(crate) fn stop(&mut self, node: usize) {
        assert!(self.servers[node].take().unwrap().stop());
    }

    pub(crate) async fn client(&self, node: usize) -> Client {
        connect(self.port(node)).await.unwrap()
    }

    pub(crate) fn port(&self, node: usize) -> u16 {
        self.servers[node].as_ref().unwrap().port
    }

    /// Stops a node in its tracks; it knows of nothing.
    pub(crate) fn pause(&self, node: usize) {
        self.servers[node].as_ref().unwrap().signal("STOP");
    }

    pub(crate) fn resume(&self, node: usize) {
        self.servers[node].as_ref().unwrap().signal("CONT");
    }

    pub(crate) fn ports(&self) -> Vec<u16> {
        self.servers.iter().flatten().map(|server| server.port).collect()
    }
}

/// Runs a statement and returns its rows as text.
pub(crate) async fn lines(client: &Client, sql: &str) -> Vec<Vec<String>> {
    let messages = client.simple_query(sql).await.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    let rows = messages.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    rows.map(|row| (0..row.len()).map(|at| row.get(at).unwrap_or("").to_owned()).collect())
        .collect()
}

/// Asserts that all replicas of all sets have the same rows.
pub(crate) async fn assert_replicas_agree(client: &Client, replicas: usize) {
    for set in lines(client, "SHOW REPLICAS").await {
        let sums = lines(client, &format!("CHECKSUM GROUP {}", set[0])).await;
        assert_eq!(sums.len(), replicas, "{sums:?}");
        let first = (&sums[0][2], &sums[0][3]);
        assert!(sums.iter().all(|sum| (&sum[2], &sum[3]) == first), "{sums:?}");
    }
}

/// Where the nodes that run now take clients; writers look here after each failure.
pub(crate) type LivePorts = Arc<Mutex<Vec<u16>>>;

/// Writers that repeat what was not acknowledged on another node, until told to stop.
pub(crate) struct ClusterWriters {
    ports: LivePorts,
    stop: Arc<AtomicBool>,
    acks: Arc<AtomicI64>,
    each: Vec<Arc<AtomicI64>>,
    /// Told of each acknowledgement: who waits for some leaves the processors to the nodes.
    acked: Arc<Notify>,
    gaps: Arc<Mutex<Vec<(Instant, Duration)>>>,
    running: Vec<JoinHandle<i64>>,
}

impl ClusterWriters {
    /// Makes the table and starts the writers.
    pub(crate) async fn start(nodes: &Nodes, options: &str) -> Self {
        let client = nodes.client(0).await;
        lines(&client, &format!("CREATE DATABASE c WITH {options}")).await;
        lines(&client, "CREATE TABLE c.k (v BIGINT, TAGS(w))").await;
        let ports: LivePorts = Arc::new(Mutex::new(nodes.ports()));
        let mut writers = Self {
            ports,
            stop: Arc::default(),
            acks: Arc::default(),
            each: (0..WRITERS).map(|_| Arc::default()).collect(),
            acked: Arc::default(),
            gaps: Arc::default(),
            running: Vec::new(),
        };
        writers.running =
            (0..WRITERS).map(|writer| tokio::spawn(writers.write_on(writer))).collect();
        writers
    }

    fn write_on(&self, writer: i64) -> impl Future<Output = i64> + use<> {
        let (ports, stop) = (Arc::clone(&self.ports), Arc::clone(&self.stop));
        let (acks, gaps) = (Arc::clone(&self.acks), Arc::clone(&self.gaps));
        let own = Arc::clone(&self.each[usize::try_from(writer).unwrap()]);
        let acked = Arc::clone(&self.acked);
        async move {
            let mut batch = 0;
            let mut turn = usize::try_from(writer).unwrap();
            let mut client: Option<Client> = None;
            let mut last = Instant::now();
            while !stop.load(Ordering::SeqCst) {
                let Some(connected) = &client else {
                    let port = {
                        let ports = ports.lock();
                        ports[turn % ports.len()]
                    };
                    turn += 1;
                    client = connect(port).await.ok();
                    tokio::task::yield_now().await;
                    continue;
                };
                let rows = (0..ROWS).map(|row| (batch * STEP + row, batch));
                let values: Vec<String> =
                    rows.map(|(time, value)| format!("({time}, 'w{writer}', {value})")).collect();
                let insert = format!("INSERT INTO c.k (time, w, v) VALUES {}", values.join(", "));
                if connected.simple_query(&insert).await.is_ok() {
                    batch += 1;
                    gaps.lock().push((last, last.elapsed()));
                    last = Instant::now();
                    acks.fetch_add(1, Ordering::SeqCst);
                    own.fetch_add(1, Ordering::SeqCst);
                    acked.notify_waiters();
                } else {
                    client = None;
                }
            }
            batch - 1
        }
    }

    /// Waits until so many batches more are acknowledged.
    pub(crate) async fn go_on(&self, batches: i64) {
        let wanted = self.acks.load(Ordering::SeqCst) + batches;
        self.acked(|| self.acks.load(Ordering::SeqCst) >= wanted).await;
    }

    /// Waits until every writer got one acknowledgement more than it waits for now.
    pub(crate) async fn go_on_each(&self) {
        let counts =
            || -> Vec<i64> { self.each.iter().map(|count| count.load(Ordering::SeqCst)).collect() };
        let before = counts();
        let each_went_on = || counts().iter().zip(&before).all(|(now, before)| *now >= before + 2);
        self.acked(each_went_on).await;
    }

    /// Waits for acknowledgements until there are enough.
    async fn acked(&self, are_enough: impl Fn() -> bool) {
        let acked = async {
            loop {
                let next = self.acked.notified();
                if are_enough() {
                    break;
                }
                next.await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), acked).await;
        assert!(waited.is_ok(), "writes do not go on");
    }

    /// Says which nodes take clients now.
    pub(crate) fn use_nodes(&self, nodes: &Nodes) {
        *self.ports.lock() = nodes.ports();
    }

    /// Returns the longest time that a writer waited for an acknowledgement, of waits that touch the
    /// time from `start` to `end`.
    pub(crate) fn gap_within(&self, start: Instant, end: Instant) -> Duration {
        let gaps = self.gaps.lock();
        let across = gaps.iter().filter(|(from, len)| *from <= end && start <= *from + *len);
        across.map(|(_, len)| *len).max().unwrap_or_default()
    }

    /// Ends the writers. Every row they were told of must be there, as any node reads it.
    pub(crate) async fn finish(mut self, nodes: &Nodes) {
        self.stop.store(true, Ordering::SeqCst);
        let mut last = Vec::new();
        for running in std::mem::take(&mut self.running) {
            last.push(running.await.unwrap());
        }
        for port in nodes.ports() {
            let client = connect(port).await.unwrap();
            for (writer, last) in (0..).zip(&last) {
                let rows = read(&client, "c.k", writer).await.unwrap();
                // A batch that was sent last may be in or not.
                let expected = [rows_after(*last), rows_after(*last + 1)];
                assert!(expected.contains(&rows), "writer {writer}: acknowledged {last}");
            }
        }
    }
}
