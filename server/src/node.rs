//! A node: its parts, started in order and stopped in reverse.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use cluster::{ClusterConfig, ClusterNode};
use http::{HttpConfig, HttpServer};
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
    http: HttpServer,
    addr: SocketAddr,
    http_addr: SocketAddr,
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
        let (pg_tls, http_tls) = (tls(&config, "postgresql")?, tls(&config, "http/1.1")?);
        let (addr, http_addr) = (config.pg_addr()?, config.http_addr()?);
        check_reach(addr, &config)?;
        check_reach(http_addr, &config)?;
        let lock = claim(&*disk, &config.data_dir)?;
        let (listener, addr) = listen(addr).await?;
        let (http_listener, http_addr) = listen(http_addr).await?;
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
        let connections_max = config.http.connections_max;
        let http = HttpConfig { connections_max, tls: http_tls };
        let http = HttpServer::start(http_listener, Arc::clone(&database), http);
        let pg = PgConfig { sessions_max: config.pg.connections_max, tls: pg_tls, mock_secret };
        let pg = PgServer::start(listener, database, pg);
        Ok(Self { meta, cluster, pg, http, addr, http_addr, _lock: lock })
    }

    /// Says how to connect.
    pub(crate) fn announce(&self) {
        let (host, port) = (self.addr.ip(), self.addr.port());
        tracing::info!(pg_addr = %self.addr, http_addr = %self.http_addr, "ready");
        #[allow(clippy::print_stdout, reason = "the line people and scripts wait for")]
        {
            println!("HTTP listens on http://{}", self.http_addr);
            println!("Ready. Connect with:  psql -h {host} -p {port} -U root -d cnosdb");
        }
    }

    /// Stops everything, last started first.
    pub(crate) async fn stop(self) {
        self.http.close().await;
        self.pg.close().await;
        self.cluster.close().await;
        self.meta.close().await;
    }
}

/// Refuses an address that other machines reach without encryption, or a word that it needs none.
fn check_reach(addr: SocketAddr, config: &Config) -> Result<(), String> {
    let security = &config.security;
    if !addr.ip().is_loopback() && security.certificate.is_empty() && !security.allow_plaintext {
        return Err(format!(
            "{addr} can be reached from other machines: set security.certificate and \
             security.private_key, or security.allow_plaintext = true"
        ));
    }
    Ok(())
}

async fn listen(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), String> {
    let at = |error: std::io::Error| format!("listen on {addr}: {error}");
    let listener = TcpListener::bind(addr).await.map_err(at)?;
    let addr = listener.local_addr().map_err(at)?;
    Ok((listener, addr))
}

fn tls(config: &Config, protocol: &str) -> Result<Option<pg::TlsAcceptor>, String> {
    let security = &config.security;
    if security.certificate.is_empty() {
        return Ok(None);
    }
    let (certificate, key) = (Path::new(&security.certificate), Path::new(&security.private_key));
    tls_acceptor(certificate, key, protocol).map(Some)
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
