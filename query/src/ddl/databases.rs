//! Databases: made, changed, dropped at once or after a while, brought back.

use meta::{Catalog, Command, DatabaseChange, DatabaseOptions, Precision};
use model::PolicyId;
use model::time::Span;

use super::not_dropped;
use crate::access::{Need, Object};
use crate::error::{Error, Result};
use crate::output::Output;
use crate::policies::policy_of;
use crate::session::Session;
use crate::sql::{AlterDatabaseOption, Definition};

const DAY_NS: i64 = 86_400 * 1_000_000_000;
const HOUR_NS: i64 = 3_600 * 1_000_000_000;

impl Session {
    pub(super) async fn define_database(&self, definition: &Definition) -> Result<Output> {
        let catalog = self.database().catalog();
        let tenant = self.identity().tenant;
        match definition {
            Definition::CreateDatabase { name, if_not_exists, options } => {
                self.check(Need::Govern)?;
                if *if_not_exists && catalog.database(tenant, name).is_some() {
                    return Ok(self.skip("database", name, "already exists", "CREATE DATABASE"));
                }
                let options = options_of(options, &catalog)?;
                check_replicas(options.replicas, &catalog)?;
                let name = name.clone();
                self.submit(Command::CreateDatabase { tenant, name, options }, "CREATE DATABASE")
                    .await
            }
            Definition::AlterDatabase { name, option } => self.alter_database(name, option).await,
            Definition::RecoverDatabase { name, if_exists } => {
                let named = catalog.named_database(tenant, name);
                match named.filter(|one| one.drop_at.is_some()) {
                    Some(database) => {
                        let database = database.id;
                        self.check(Need::Define(Object::database(database)))?;
                        self.submit(Command::RecoverDatabase { database }, "RECOVER DATABASE").await
                    }
                    None if *if_exists => {
                        Ok(self.skip("database", name, "is not dropped", "RECOVER DATABASE"))
                    }
                    None => Err(not_dropped("database", "3F000", name)),
                }
            }
            Definition::DropDatabase { name, if_exists, after } => match self.user_database(name) {
                Ok(database) => {
                    let database = database.id;
                    self.check(Need::Define(Object::database(database)))?;
                    let command = match after {
                        None => Command::DropDatabase { database },
                        Some(after) => {
                            let drop_at = self.now_ns().saturating_add(*after);
                            Command::HideDatabase { database, drop_at }
                        }
                    };
                    self.submit(command, "DROP DATABASE").await
                }
                Err(_) if *if_exists => {
                    Ok(self.skip("database", name, "does not exist", "DROP DATABASE"))
                }
                Err(error) => Err(error),
            },
            _ => Err(Error::internal("a database was expected")),
        }
    }

    async fn alter_database(&self, name: &str, option: &AlterDatabaseOption) -> Result<Output> {
        let catalog = self.database().catalog();
        let database = self.user_database(name)?.id;
        self.check(Need::Define(Object::database(database)))?;
        let change = match *option {
            AlterDatabaseOption::Placement(ref policy) => {
                DatabaseChange::Placement(placement_of(&catalog, policy)?)
            }
            AlterDatabaseOption::Ttl(ttl) => DatabaseChange::Ttl(ttl),
            AlterDatabaseOption::Shard(shards) => DatabaseChange::Shards(shards),
            AlterDatabaseOption::VnodeDuration(ns) => DatabaseChange::VnodeDuration(ns),
            AlterDatabaseOption::Replica(replicas) => {
                check_replicas(replicas, &catalog)?;
                DatabaseChange::Replicas(replicas)
            }
            AlterDatabaseOption::StrictWrite(strict) => DatabaseChange::StrictWrite(strict),
            AlterDatabaseOption::MaxMemcacheSize(bytes) => DatabaseChange::MaxMemcache(bytes),
            AlterDatabaseOption::WalMaxFileSize(bytes) => DatabaseChange::WalMaxFile(bytes),
            AlterDatabaseOption::WalSync => return Ok(Output::Done("ALTER DATABASE")),
            AlterDatabaseOption::Precision(_) => return Err(fixed("PRECISION")),
            AlterDatabaseOption::MemcachePartitions(_) => {
                return Err(fixed("MEMCACHE_PARTITIONS"));
            }
            AlterDatabaseOption::MaxCacheReaders(_) => return Err(fixed("MAX_CACHE_READERS")),
        };
        self.submit(Command::AlterDatabase { database, change }, "ALTER DATABASE").await
    }
}

/// Returns the placement policy of that name; none where it is empty.
fn placement_of(catalog: &Catalog, name: &str) -> Result<Option<PolicyId>> {
    if name.is_empty() {
        return Ok(None);
    }
    Ok(Some(policy_of(catalog, name)?.id))
}

fn fixed(option: &str) -> Error {
    Error::new("0A000", format!("{option} is fixed when a database is created"))
}

fn check_replicas(replicas: u32, catalog: &Catalog) -> Result<()> {
    let nodes = catalog.nodes().filter(|node| node.roles.data).count();
    if replicas as usize <= nodes {
        return Ok(());
    }
    let are = if nodes == 1 { "is" } else { "are" };
    let message = format!("REPLICA {replicas} needs {replicas} data nodes, there {are} {nodes}");
    Err(Error::new("53000", message))
}

/// Reads the options of CREATE DATABASE. Without VNODE_DURATION buckets are a year long, or a twelfth
/// of the TTL in whole days, at least an hour.
fn options_of(options: &[AlterDatabaseOption], catalog: &Catalog) -> Result<DatabaseOptions> {
    let mut read = DatabaseOptions {
        ttl: Span::Infinite,
        shards: 1,
        vnode_duration_ns: 0,
        replicas: 1,
        precision: Precision::Ns,
        strict_write: false,
        max_memcache_bytes: None,
        memcache_partitions: None,
        wal_max_file_bytes: None,
        max_cache_readers: None,
        placement: None,
    };
    for (at, option) in options.iter().enumerate() {
        let same = |other: &AlterDatabaseOption| {
            std::mem::discriminant(other) == std::mem::discriminant(option)
        };
        if options[..at].iter().any(same) {
            return Err(Error::syntax("conflicting or redundant options"));
        }
        match *option {
            AlterDatabaseOption::Placement(ref policy) => {
                read.placement = placement_of(catalog, policy)?;
            }
            AlterDatabaseOption::Ttl(ttl) => read.ttl = ttl,
            AlterDatabaseOption::Shard(shards) => read.shards = shards,
            AlterDatabaseOption::VnodeDuration(ns) => read.vnode_duration_ns = ns,
            AlterDatabaseOption::Replica(replicas) => read.replicas = replicas,
            AlterDatabaseOption::Precision(precision) => read.precision = precision,
            AlterDatabaseOption::StrictWrite(strict) => read.strict_write = strict,
            AlterDatabaseOption::MaxMemcacheSize(bytes) => read.max_memcache_bytes = Some(bytes),
            AlterDatabaseOption::MemcachePartitions(count) => {
                read.memcache_partitions = Some(count)
            }
            AlterDatabaseOption::WalMaxFileSize(bytes) => read.wal_max_file_bytes = Some(bytes),
            AlterDatabaseOption::MaxCacheReaders(count) => read.max_cache_readers = Some(count),
            AlterDatabaseOption::WalSync => {}
        }
    }
    if read.vnode_duration_ns == 0 {
        read.vnode_duration_ns = match read.ttl {
            Span::Infinite => 365 * DAY_NS,
            Span::Ns(ttl) if ttl / 12 >= DAY_NS => ttl / 12 / DAY_NS * DAY_NS,
            Span::Ns(ttl) => (ttl / 12).max(HOUR_NS),
        };
    }
    Ok(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_the_ttl_where_nothing_is_said() {
        let duration = |ttl| {
            options_of(&[AlterDatabaseOption::Ttl(ttl)], &Catalog::default())
                .unwrap()
                .vnode_duration_ns
        };
        assert_eq!(duration(Span::Infinite), 365 * DAY_NS);
        assert_eq!(duration(Span::Ns(30 * DAY_NS)), 2 * DAY_NS);
        assert_eq!(duration(Span::Ns(DAY_NS)), 2 * HOUR_NS);
        assert_eq!(duration(Span::Ns(1)), HOUR_NS);
        let none = check_replicas(3, &Catalog::default());
        assert_eq!(none.unwrap_err().sqlstate, "53000");
    }
}
