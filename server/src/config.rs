//! Settings: flags over `CNOSDB_*` environment over file over defaults. An unknown key is an error.

use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};

use meta::NodeRoles;
use serde::Deserialize;

use crate::memory;

/// The default settings, as `cnosdb config` prints them; parsed to give the defaults, so that the two
/// cannot differ.
pub(crate) const DEFAULTS: &str = include_str!("default.toml");

/// Settings that may be given on the command line.
#[derive(clap::Args, Default)]
pub(crate) struct Flags {
    /// File of settings; see `cnosdb config`.
    #[arg(long, env = "CNOSDB_CONFIG")]
    config: Option<PathBuf>,
    /// Where everything is stored.
    #[arg(long, env = "CNOSDB_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Address PostgreSQL clients connect to.
    #[arg(long, env = "CNOSDB_PG_ADDR")]
    pg_addr: Option<String>,
    /// Address HTTP clients connect to.
    #[arg(long, env = "CNOSDB_HTTP_ADDR")]
    http_addr: Option<String>,
    /// Address senders of OpenTSDB's lines connect to.
    #[arg(long, env = "CNOSDB_OPENTSDB_ADDR")]
    opentsdb_addr: Option<String>,
    #[command(flatten)]
    cluster: ClusterFlags,
    /// Log filter, such as `info` or `info,cluster=debug`.
    #[arg(long, env = "CNOSDB_LOG")]
    log: Option<String>,
}

/// Settings of the cluster that may be given on the command line.
#[derive(clap::Args, Default)]
struct ClusterFlags {
    /// Address other nodes connect to.
    #[arg(long, env = "CNOSDB_RPC_ADDR")]
    rpc_addr: Option<String>,
    /// Addresses of nodes of the cluster to join.
    #[arg(long, env = "CNOSDB_JOIN", value_delimiter = ',')]
    join: Option<Vec<String>>,
    /// What the node does: meta, data, query.
    #[arg(long, env = "CNOSDB_ROLES", value_delimiter = ',')]
    roles: Option<Vec<String>>,
    /// File of the secret that all nodes share.
    #[arg(long, env = "CNOSDB_CLUSTER_SECRET_FILE")]
    cluster_secret_file: Option<String>,
    /// What people call the node.
    #[arg(long, env = "CNOSDB_NODE_NAME")]
    node_name: Option<String>,
    /// What fails together with it.
    #[arg(long, env = "CNOSDB_ZONE")]
    zone: Option<String>,
}

/// All settings.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) data_dir: PathBuf,
    pub(crate) pg: Pg,
    pub(crate) http: Http,
    pub(crate) opentsdb: Opentsdb,
    pub(crate) security: Security,
    pub(crate) memory: Memory,
    pub(crate) storage: Storage,
    pub(crate) cluster: Cluster,
    pub(crate) query: Query,
    pub(crate) files: Files,
    pub(crate) log: Log,
}

/// The PostgreSQL front end.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Pg {
    pub(crate) addr: String,
    pub(crate) connections_max: usize,
}

/// The HTTP front end.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Http {
    pub(crate) addr: String,
    pub(crate) connections_max: usize,
}

/// The port of OpenTSDB's lines.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Opentsdb {
    pub(crate) addr: String,
    pub(crate) user: String,
    pub(crate) tenant: String,
    pub(crate) database: String,
    pub(crate) connections_max: usize,
}

/// Who may connect, and how.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Security {
    pub(crate) certificate: String,
    pub(crate) private_key: String,
    pub(crate) allow_plaintext: bool,
}

/// Files outside of the database.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Files {
    pub(crate) folder: String,
    pub(crate) urls: Vec<String>,
    pub(crate) endpoints: Vec<String>,
}

/// All memory that grows with load.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Memory {
    pub(crate) bytes: u64,
}

/// Memory and disk of storage.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Storage {
    pub(crate) memcache_bytes: usize,
    pub(crate) flush_bytes: usize,
    pub(crate) wal_segment_bytes: u64,
    pub(crate) wal_segments_max: usize,
    pub(crate) idle_seconds: u64,
    pub(crate) hand_off_bytes: u64,
    pub(crate) hand_off_seconds: u64,
}

/// This node among others.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Cluster {
    pub(crate) rpc_addr: String,
    pub(crate) advertised_addr: String,
    pub(crate) join: Vec<String>,
    pub(crate) roles: Vec<String>,
    pub(crate) secret_file: String,
    pub(crate) name: String,
    pub(crate) zone: String,
    pub(crate) silence_seconds: u64,
    pub(crate) rebuild_seconds: u64,
    pub(crate) balance_seconds: u64,
    pub(crate) compare_hours: u64,
}

impl Cluster {
    fn take(&mut self, flags: &ClusterFlags) {
        fn put<T: Clone>(setting: &mut T, flag: Option<&T>) {
            if let Some(flag) = flag {
                setting.clone_from(flag);
            }
        }
        put(&mut self.rpc_addr, flags.rpc_addr.as_ref());
        put(&mut self.join, flags.join.as_ref());
        put(&mut self.roles, flags.roles.as_ref());
        put(&mut self.secret_file, flags.cluster_secret_file.as_ref());
        put(&mut self.name, flags.node_name.as_ref());
        put(&mut self.zone, flags.zone.as_ref());
        self.join.retain(|addr| !addr.is_empty());
    }

    /// Returns whether there may be other nodes.
    pub(crate) fn is_joined(&self) -> bool {
        !self.rpc_addr.is_empty()
    }

    /// Returns the roles by name.
    pub(crate) fn roles(&self) -> Result<NodeRoles, String> {
        let mut roles = NodeRoles { meta: false, data: false, query: false };
        for role in &self.roles {
            match role.as_str() {
                "meta" => roles.meta = true,
                "data" => roles.data = true,
                "query" => roles.query = true,
                other => {
                    return Err(format!("cluster.roles: \"{other}\" is none of meta, data, query"));
                }
            }
        }
        Ok(roles)
    }

    fn check(&self) -> Result<(), String> {
        let roles = self.roles()?;
        if !self.is_joined() {
            let all = NodeRoles { meta: true, data: true, query: true };
            if !self.join.is_empty() || roles != all {
                return Err("cluster.join and cluster.roles need cluster.rpc_addr".to_owned());
            }
            return Ok(());
        }
        if self.secret_file.is_empty() {
            return Err("cluster.rpc_addr needs cluster.secret_file".to_owned());
        }
        if self.join.is_empty() && !roles.meta {
            return Err("the node that begins a cluster needs the role meta".to_owned());
        }
        for seed in &self.join {
            let port = seed.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
            if port.is_none() {
                return Err(format!("cluster.join: \"{seed}\" is not an address host:port"));
            }
        }
        if self.silence_seconds == 0 {
            return Err("cluster.silence_seconds must be at least 1".to_owned());
        }
        address("rpc", &self.rpc_addr).map(|_| ())
    }
}

/// Memory and disk of queries.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Query {
    pub(crate) memory_bytes: usize,
    pub(crate) spill_bytes: u64,
}

/// The log.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Log {
    pub(crate) filter: String,
    pub(crate) format: LogFormat,
}

/// The form of the log.
#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// Reads the settings.
///
/// # Errors
/// One line that says what is wrong, and where.
pub(crate) fn load(flags: &Flags) -> Result<Config, String> {
    let mut config = read(flags.config.as_deref())?;
    if let Some(data_dir) = &flags.data_dir {
        config.data_dir.clone_from(data_dir);
    }
    if let Some(addr) = &flags.pg_addr {
        config.pg.addr.clone_from(addr);
    }
    if let Some(addr) = &flags.http_addr {
        config.http.addr.clone_from(addr);
    }
    if let Some(addr) = &flags.opentsdb_addr {
        config.opentsdb.addr.clone_from(addr);
    }
    config.cluster.take(&flags.cluster);
    if let Some(filter) = &flags.log {
        config.log.filter.clone_from(filter);
    }
    config.check()?;
    Ok(config)
}

/// Reads the defaults, and what a file puts over them.
fn read(file: Option<&Path>) -> Result<Config, String> {
    let mut table: toml::Table =
        DEFAULTS.parse().map_err(|error| format!("default settings: {error}"))?;
    if let Some(path) = file {
        let text = std::fs::read_to_string(path)
            .map_err(|error| format!("{}: {error}", path.display()))?;
        let file: toml::Table =
            text.parse().map_err(|error| format!("{}: {error}", path.display()))?;
        overlay(&mut table, file, "", path)?;
    }
    table.try_into().map_err(|error| format!("settings: {error}"))
}

/// Says whether a file of settings can be used.
pub(crate) fn check(file: &Path) -> Result<(), String> {
    read(Some(file))?.check()?;
    #[allow(clippy::print_stdout, reason = "this command is there to print")]
    {
        println!("{}: ok", file.display());
    }
    Ok(())
}

/// Puts the keys of a file over the defaults; every key must be among them.
fn overlay(
    base: &mut toml::Table,
    over: toml::Table,
    prefix: &str,
    path: &Path,
) -> Result<(), String> {
    for (key, value) in over {
        let Some(old) = base.get_mut(&key) else {
            let near =
                base.keys().min_by_key(|known| distance(known, &key)).cloned().unwrap_or_default();
            let file = path.display();
            return Err(format!(
                "{file}: unknown setting \"{prefix}{key}\"; did you mean \"{prefix}{near}\"?"
            ));
        };
        match (old, value) {
            (toml::Value::Table(old), toml::Value::Table(value)) => {
                overlay(old, value, &format!("{prefix}{key}."), path)?;
            }
            (old, value) => *old = value,
        }
    }
    Ok(())
}

/// Counts the letters that differ, place by place, and the difference in length.
fn distance(a: &str, b: &str) -> usize {
    let same = a.chars().zip(b.chars()).filter(|(a, b)| a == b).count();
    a.len().max(b.len()) - same
}

impl Config {
    fn check(&self) -> Result<(), String> {
        if self.storage.wal_segment_bytes < 1 << 20 {
            return Err("storage.wal_segment_bytes must be at least 1 MiB".to_owned());
        }
        memory::shares(self)?;
        if self.storage.idle_seconds == 0 {
            return Err("storage.idle_seconds must be at least 1".to_owned());
        }
        if self.storage.wal_segments_max < 2 {
            return Err("storage.wal_segments_max must be at least 2".to_owned());
        }
        let connections =
            [self.pg.connections_max, self.http.connections_max, self.opentsdb.connections_max];
        if connections.contains(&0) {
            return Err("connections_max of pg, http and opentsdb must be at least 1".to_owned());
        }
        if self.security.certificate.is_empty() != self.security.private_key.is_empty() {
            return Err("security.certificate and security.private_key go together".to_owned());
        }
        self.cluster.check()?;
        self.pg_addr()?;
        self.opentsdb_addr()?;
        self.http_addr().map(|_| ())
    }

    /// Returns the address of the PostgreSQL front end.
    pub(crate) fn pg_addr(&self) -> Result<SocketAddr, String> {
        address("pg", &self.pg.addr)
    }

    /// Returns the address of the port for other nodes.
    pub(crate) fn rpc_addr(&self) -> Result<SocketAddr, String> {
        address("rpc", &self.cluster.rpc_addr)
    }

    /// Returns the address of the port of OpenTSDB's lines, if there is to be one.
    pub(crate) fn opentsdb_addr(&self) -> Result<Option<SocketAddr>, String> {
        if self.opentsdb.addr.is_empty() {
            return Ok(None);
        }
        address("opentsdb", &self.opentsdb.addr).map(Some)
    }

    /// Returns the address of the HTTP front end.
    pub(crate) fn http_addr(&self) -> Result<SocketAddr, String> {
        address("http", &self.http.addr)
    }
}

fn address(of: &str, addr: &str) -> Result<SocketAddr, String> {
    let found = addr.to_socket_addrs().map_err(|error| format!("{of} address {addr}: {error}"));
    found?.next().ok_or_else(|| format!("{of} address {addr} means no address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load_text(text: &str) -> Result<Config, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cnosdb.toml");
        #[allow(clippy::disallowed_methods, reason = "a test's own file")]
        std::fs::write(&path, text).unwrap();
        load(&Flags { config: Some(path), ..Flags::default() })
    }

    #[test]
    fn an_unknown_key_is_an_error_with_the_nearest_name() {
        let error = load_text("[pg]\nadr = \"x\"").err().unwrap();
        assert!(error.contains("\"pg.adr\"") && error.contains("\"pg.addr\""), "{error}");
        assert!(load_text("[pg]\naddr = \"127.0.0.1:1\"").is_ok());
    }

    #[test]
    fn bad_values_are_refused() {
        for text in [
            "[pg]\naddr = \"nowhere\"",
            "[pg]\nconnections_max = 0",
            "[memory]\nbytes = 1",
            "[log]\nformat = \"xml\"",
            "[security]\ncertificate = \"a\"",
            "[cluster]\nroles = [\"cook\"]",
            "[cluster]\nroles = [\"data\"]",
            "[cluster]\nrpc_addr = \"127.0.0.1:1\"",
            "[cluster]\njoin = [\"127.0.0.1:1\"]",
            "data_dir = 5",
        ] {
            assert!(load_text(text).is_err(), "{text}");
        }
    }
}
