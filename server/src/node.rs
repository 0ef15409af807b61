//! A node: its parts, started in order and stopped in reverse.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use cluster::{ClusterConfig, ClusterNode};
use meta::{Command, MetaNode};
use model::{NodeId, SystemClock};
use pg::{PgConfig, PgServer, tls_acceptor};
use query::{Database, DatabaseConfig};
use ring::rand::SecureRandom;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tskv::disk::{Disk, OsDisk, read_file, write_new_file};
use tskv::wal::WalConfig;

use crate::config::Config;

/// The version of the data directory's layout.
const FORMAT: &str = "1\n";
/// A singleton's own id.
const NODE: NodeId = NodeId(1);

/// A running node.
pub(crate) struct Node {
    meta: MetaNode,
    cluster: ClusterNode,
    pg: PgServer,
    addr: SocketAddr,
    /// Held while the node runs: two processes on one directory would destroy it.
    _lock: File,
}

impl Node {
    /// Starts everything; clients can connect when this returns. `queries` are the threads of queries.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub(crate) async fn start(config: Config, queries: Handle) -> Result<Self, String> {
        let disk: Arc<dyn Disk> = Arc::new(OsDisk);
        let addr = config.pg_addr()?;
        let tls = tls(&config)?;
        if !addr.ip().is_loopback() && tls.is_none() && !config.security.allow_plaintext {
            return Err(format!(
                "{addr} can be reached from other machines: set security.certificate and \
                 security.private_key, or security.allow_plaintext = true"
            ));
        }
        let lock = claim(&*disk, &config.data_dir)?;
        let listener = TcpListener::bind(addr).await;
        let listener = listener.map_err(|error| format!("listen on {addr}: {error}"))?;
        let addr = listener.local_addr().map_err(|error| format!("listen on {addr}: {error}"))?;
        let meta =
            MetaNode::open(&config.data_dir.join("meta")).await.map_err(|e| e.to_string())?;
        bootstrap(&meta).await?;
        let clock = Arc::new(SystemClock);
        let cluster = ClusterNode::open(
            cluster_config(&config),
            meta.client(),
            disk,
            Arc::<SystemClock>::clone(&clock),
        );
        let cluster = cluster.await.map_err(|error| error.to_string())?;
        let query = DatabaseConfig {
            memory_bytes: config.query.memory_bytes,
            spill_bytes: config.query.spill_bytes,
            spill_dir: config.data_dir.join("spill"),
        };
        let database = Database::new(meta.client(), cluster.cluster(), clock, &query, queries);
        let database = database.map_err(|error| error.to_string())?;
        let mut mock_secret = [0; 32];
        let filled = ring::rand::SystemRandom::new().fill(&mut mock_secret);
        filled.map_err(|_| "no randomness".to_owned())?;
        let pg = PgConfig { sessions_max: config.pg.connections_max, tls, mock_secret };
        let pg = PgServer::start(listener, database, pg);
        Ok(Self { meta, cluster, pg, addr, _lock: lock })
    }

    /// Says how to connect.
    pub(crate) fn announce(&self) {
        let (host, port) = (self.addr.ip(), self.addr.port());
        tracing::info!(addr = %self.addr, "ready");
        #[allow(clippy::print_stdout, reason = "the line people and scripts wait for")]
        {
            println!("Ready. Connect with:  psql -h {host} -p {port} -U root -d cnosdb");
        }
    }

    /// Stops everything, last started first.
    pub(crate) async fn stop(self) {
        self.pg.close().await;
        self.cluster.close().await;
        self.meta.close().await;
    }
}

fn tls(config: &Config) -> Result<Option<pg::TlsAcceptor>, String> {
    let security = &config.security;
    if security.certificate.is_empty() {
        return Ok(None);
    }
    tls_acceptor(Path::new(&security.certificate), Path::new(&security.private_key)).map(Some)
}

/// Takes the data directory for this process alone and checks its format.
fn claim(disk: &dyn Disk, data_dir: &Path) -> Result<File, String> {
    let at =
        |error: &dyn std::fmt::Display| format!("data directory {}: {error}", data_dir.display());
    disk.make_folders(data_dir).map_err(|error| at(&error))?;
    let lock = File::options().create(true).truncate(false).write(true).open(data_dir.join("lock"));
    let lock = lock.map_err(|error| at(&error))?;
    lock.try_lock().map_err(|_| at(&"is in use by another process"))?;
    let format = data_dir.join("format");
    match read_file(disk, &format) {
        Ok(found) if found == FORMAT.as_bytes() => Ok(lock),
        Ok(found) => {
            let found = String::from_utf8_lossy(&found).trim().to_owned();
            Err(at(&format!("has format {found}; this program reads {}", FORMAT.trim())))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            write_new_file(disk, &format, FORMAT.as_bytes()).map_err(|error| at(&error))?;
            Ok(lock)
        }
        Err(error) => Err(at(&error)),
    }
}

async fn bootstrap(meta: &MetaNode) -> Result<(), String> {
    if meta.client().catalog().tenants().next().is_some() {
        return Ok(());
    }
    let password = std::env::var("CNOSDB_ROOT_PASSWORD").ok().filter(|text| !text.is_empty());
    let verifier = password.as_deref().map(query::make_verifier).transpose();
    let verifier = verifier.map_err(|error| error.to_string())?;
    let made = meta.client().submit(&Command::Bootstrap { verifier }).await;
    made.map(|_| ()).map_err(|error| error.to_string())
}

fn cluster_config(config: &Config) -> ClusterConfig {
    ClusterConfig {
        data_dir: config.data_dir.clone(),
        node: NODE,
        memcache_bytes_max: config.storage.memcache_bytes,
        flush_bytes: config.storage.flush_bytes,
        wal_segments_max: config.storage.wal_segments_max,
        wal: WalConfig {
            segment_bytes: config.storage.wal_segment_bytes,
            writer_thread: true,
            on_failure: |error| {
                // Nothing may be acknowledged any more, and nobody knows what is on disk.
                tracing::error!(%error, "the write-ahead log failed: the process ends");
                std::process::abort();
            },
        },
    }
}
