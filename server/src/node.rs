//! A node: its parts, started in order and stopped in reverse.

use std::fs::File;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cluster::{ClusterConfig, ClusterNode};
use http::{HttpConfig, HttpServer, TelnetConfig, TelnetServer};
use model::{NodeId, SystemClock};
use pg::{PgConfig, PgServer, tls_acceptor};
use query::{Database, DatabaseConfig, FilesConfig, UsageKeeper};
use ring::rand::SecureRandom;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tskv::disk::{Disk, OsDisk, read_file, write_new_file};
use tskv::wal::{WalConfig, WalWriter};

use crate::config::Config;
use crate::membership::Membership;
use crate::memory::{self, Shares};

/// The version of the data directory's layout.
const FORMAT: &str = "1\n";

/// A running node.
pub(crate) struct Node {
    membership: Membership,
    cluster: ClusterNode,
    front: Option<FrontEnds>,
    /// Held while the node runs: two processes on one directory would destroy it.
    _lock: File,
}

/// What clients connect to.
struct FrontEnds {
    pg: PgServer,
    http: HttpServer,
    /// OpenTSDB's lines, where they have a port.
    telnet: Option<TelnetServer>,
    addr: SocketAddr,
    http_addr: SocketAddr,
    telnet_addr: Option<SocketAddr>,
    usage: UsageKeeper,
}

/// The ports of clients, taken before anything slow begins.
struct Listeners {
    pg: (TcpListener, SocketAddr),
    http: (TcpListener, SocketAddr),
    telnet: Option<(TcpListener, SocketAddr)>,
}

impl Listeners {
    async fn open(config: &Config) -> Result<Self, String> {
        let telnet = match config.opentsdb_addr()? {
            Some(addr) => Some(listen(addr).await?),
            None => None,
        };
        let (pg, http) = (listen(config.pg_addr()?).await?, listen(config.http_addr()?).await?);
        Ok(Self { pg, http, telnet })
    }
}

impl Node {
    /// Starts everything; clients can connect when this returns. `queries` are the threads of queries.
    ///
    /// # Errors
    /// One line that says what is wrong.
    pub(crate) async fn start(config: Config, queries: Handle) -> Result<Self, String> {
        let disk: Arc<dyn Disk> = Arc::new(OsDisk);
        let tls = (tls(&config, "postgresql")?, tls(&config, "http/1.1")?);
        check_reach(config.pg_addr()?, &config)?;
        check_reach(config.http_addr()?, &config)?;
        if let Some(addr) = config.opentsdb_addr()? {
            check_is_closed(addr, &config)?;
        }
        let lock = claim(&*disk, &config.data_dir)?;
        let serves_clients = config.cluster.roles()?.query;
        let listeners = if serves_clients { Some(Listeners::open(&config).await?) } else { None };
        let shares = memory::shares(&config)?;
        let membership = Membership::start(&config, &*disk).await?;
        let clock = Arc::new(SystemClock);
        let cluster = ClusterNode::open(
            cluster_config(&config, &shares, membership.node()),
            membership.client(),
            (disk, Arc::<SystemClock>::clone(&clock)),
            membership.network(),
        );
        let cluster = cluster.await.map_err(|error| error.to_string())?;
        // Where no clients are served, too: stages of other nodes' queries run here.
        let database = Database::new(
            (membership.client(), cluster.cluster()),
            clock,
            &DatabaseConfig {
                memory_bytes: shares.queries,
                spill_bytes: config.query.spill_bytes,
                spill_dir: config.data_dir.join("spill"),
                files: files_config(&config),
                audit: config.data_dir.join("audit.log"),
            },
            queries,
            membership.stage_network(),
        );
        let database = database.map_err(|error| error.to_string())?;
        membership.mount_stages(&database);
        let front = match listeners {
            Some(listeners) => {
                let usage = database.keep_usage().await.map_err(|error| error.to_string())?;
                Some(FrontEnds::start(&config, shares.bodies, (database, usage), listeners, tls)?)
            }
            None => None,
        };
        Ok(Self { membership, cluster, front, _lock: lock })
    }

    /// Says how to connect.
    pub(crate) fn announce(&self) {
        let node = self.membership.node();
        let rpc = self.membership.rpc_addr();
        let rpc_text = rpc.map(|addr| addr.to_string());
        let (pg, http) = self.front.as_ref().map(|front| (front.addr, front.http_addr)).unzip();
        tracing::info!(%node, ?pg, ?http, rpc = rpc_text, "ready");
        #[allow(clippy::print_stdout, reason = "the lines people and scripts wait for")]
        {
            if let Some(rpc) = rpc {
                println!("Node {node} listens for other nodes on {rpc}");
            }
            if let Some(front) = &self.front {
                let (host, port) = (front.addr.ip(), front.addr.port());
                println!("HTTP listens on http://{}", front.http_addr);
                if let Some(addr) = front.telnet_addr {
                    println!("OpenTSDB's lines are taken on {addr}");
                }
                println!("Ready. Connect with:  psql -h {host} -p {port} -U root -d cnosdb");
            } else {
                println!("Ready. This node serves no clients.");
            }
        }
    }

    /// Stops everything, last started first.
    pub(crate) async fn stop(self) {
        if let Some(front) = self.front {
            if let Some(telnet) = front.telnet {
                telnet.close().await;
            }
            front.http.close().await;
            front.pg.close().await;
            front.usage.close().await;
        }
        self.membership.stop_serving().await;
        self.cluster.close().await;
        self.membership.close().await;
    }
}

impl FrontEnds {
    fn start(
        config: &Config,
        bodies_bytes_max: usize,
        (database, usage): (Arc<Database>, UsageKeeper),
        listeners: Listeners,
        (pg_tls, http_tls): (Option<pg::TlsAcceptor>, Option<pg::TlsAcceptor>),
    ) -> Result<Self, String> {
        let mut mock_secret = [0; 32];
        let filled = ring::rand::SystemRandom::new().fill(&mut mock_secret);
        filled.map_err(|_| "no randomness".to_owned())?;
        let Listeners { pg: (listener, addr), http: (http_listener, http_addr), telnet } =
            listeners;
        let connections_max = config.http.connections_max;
        let http = HttpConfig { connections_max, bodies_bytes_max, tls: http_tls };
        let http = HttpServer::start(http_listener, Arc::clone(&database), http);
        let pg = PgConfig { sessions_max: config.pg.connections_max, tls: pg_tls, mock_secret };
        let (telnet, telnet_addr) = telnet
            .map(|(listener, addr)| (start_telnet(config, listener, &database), addr))
            .unzip();
        let pg = PgServer::start(listener, database, pg);
        Ok(Self { pg, http, telnet, addr, http_addr, telnet_addr, usage })
    }
}

fn start_telnet(config: &Config, listener: TcpListener, database: &Arc<Database>) -> TelnetServer {
    let settings = config.opentsdb.clone();
    let telnet = TelnetConfig {
        user: settings.user,
        tenant: settings.tenant,
        database: settings.database,
        connections_max: settings.connections_max,
    };
    TelnetServer::start(listener, Arc::clone(database), telnet)
}

/// Refuses an address that other machines reach, of a port that asks nobody who they are, without a word
/// that the network is closed.
fn check_is_closed(addr: SocketAddr, config: &Config) -> Result<(), String> {
    if addr.ip().is_loopback() || config.security.allow_plaintext {
        return Ok(());
    }
    Err(format!(
        "{addr} can be reached from other machines, and OpenTSDB's lines know no passwords: set \
         security.allow_plaintext = true where the network is closed"
    ))
}

/// Refuses an address that other machines reach without encryption, or a word that it needs none.
pub(crate) fn check_reach(addr: SocketAddr, config: &Config) -> Result<(), String> {
    let security = &config.security;
    if !addr.ip().is_loopback() && security.certificate.is_empty() && !security.allow_plaintext {
        return Err(format!(
            "{addr} can be reached from other machines: set security.certificate and \
             security.private_key, or, for the port for nodes and for closed networks, \
             security.allow_plaintext = true"
        ));
    }
    Ok(())
}

pub(crate) async fn listen(addr: SocketAddr) -> Result<(TcpListener, SocketAddr), String> {
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

fn files_config(config: &Config) -> FilesConfig {
    let folder = match config.files.folder.as_str() {
        "" => config.data_dir.join("files"),
        named => named.into(),
    };
    FilesConfig {
        folder,
        urls: config.files.urls.clone(),
        endpoints: config.files.endpoints.clone(),
    }
}

fn cluster_config(config: &Config, shares: &Shares, node: NodeId) -> ClusterConfig {
    ClusterConfig {
        data_dir: config.data_dir.clone(),
        node,
        node_silence: Duration::from_secs(config.cluster.silence_seconds),
        rebuild_after: Duration::from_secs(config.cluster.rebuild_seconds),
        balance_after: Duration::from_secs(config.cluster.balance_seconds),
        compare_after: Some(config.cluster.compare_hours)
            .filter(|hours| *hours > 0)
            .map(|hours| Duration::from_secs(hours.saturating_mul(3_600))),
        idle_after: Duration::from_secs(config.storage.idle_seconds),
        hand_off_bytes_max: config.storage.hand_off_bytes,
        hand_off_max: Duration::from_secs(config.storage.hand_off_seconds),
        memcache_bytes_max: shares.memcache,
        flush_bytes: shares.flush,
        series_cache_bytes: shares.series_cache,
        decoded_cache_bytes: shares.decoded_cache,
        wal_segments_max: config.storage.wal_segments_max,
        wal: WalConfig {
            segment_bytes: config.storage.wal_segment_bytes,
            writer: WalWriter::Thread,
            on_failure: |error| {
                // Nothing may be acknowledged any more, and nobody knows what is on disk.
                tracing::error!(%error, "the write-ahead log failed: the process ends");
                std::process::abort();
            },
        },
    }
}
