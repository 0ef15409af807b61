//! The counters of usage in a file of the node, written every few seconds and at the end: what a bill is
//! made from outlives the process. A crash loses what was counted since the file was written last.
//!
//! The format is docs/formats/usage.md.

use std::sync::Arc;
use std::time::Duration;

use model::series_key::hash_bytes;
use model::{DatabaseId, TenantId, UserId};
use serde_json::{Map, Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{COUNTED, Usage, UsageKey};
use crate::database::Database;
use crate::error::Result;

/// The file, in the node's folder.
const FILE: &str = "usage";
/// What is kept of one that cannot be read.
const DAMAGED: &str = "usage.damaged";
/// How its first line begins: name and version.
const HEAD: &str = "cnosdb-usage 1 ";
/// Stands for users that are gone.
const NOBODY: UserId = UserId(0);
/// How often it is written, where something was counted.
const INTERVAL: Duration = Duration::from_secs(10);

/// Writes the counters down while the node runs.
#[derive(Debug)]
pub struct UsageKeeper {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl UsageKeeper {
    /// Writes the counters a last time.
    pub async fn close(self) {
        self.stop.cancel();
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the counters of usage are not written");
        }
    }
}

impl Database {
    /// Goes on from the counters that the node wrote down when it ran last, and writes them down from now
    /// on. A damaged file is put aside: counting begins anew.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn keep_usage(self: &Arc<Self>) -> Result<UsageKeeper> {
        let file = self.cluster().read_own_file(FILE).await?;
        if let Some(bytes) = file
            && let Err(reason) = decode(&bytes, self.usage())
        {
            tracing::error!(reason, "the counters of usage begin anew, see {DAMAGED}");
            self.cluster().replace_own_file(DAMAGED, bytes).await?;
        }
        let stop = CancellationToken::new();
        let task = tokio::spawn(keep(Arc::clone(self), stop.clone()));
        Ok(UsageKeeper { stop, task })
    }
}

async fn keep(database: Arc<Database>, stop: CancellationToken) {
    let mut written = encode(database.usage());
    loop {
        let last = tokio::time::timeout(INTERVAL, stop.cancelled()).await.is_ok();
        forget_dropped(&database);
        let now = encode(database.usage());
        if now != written {
            match database.cluster().replace_own_file(FILE, now.clone()).await {
                Ok(()) => written = now,
                Err(error) => tracing::warn!(?error, "the counters of usage are not written"),
            }
        }
        if last {
            return;
        }
    }
}

/// Counts what dropped databases and users of a tenant used under no name, so that keys do not pile up;
/// forgets what dropped tenants did.
fn forget_dropped(database: &Database) {
    let catalog = database.catalog();
    database.usage().rename(|key| {
        catalog.tenant_by_id(key.tenant)?;
        let known = |id: &DatabaseId| catalog.database_by_id(*id).is_some();
        let user = catalog.user_by_id(key.user).map_or(NOBODY, |user| user.id);
        Some(UsageKey { database: key.database.filter(known), user, ..key.clone() })
    });
}

fn encode(usage: &Usage) -> Vec<u8> {
    let keys = usage.all().into_iter().map(|(key, counters)| {
        let counts = COUNTED.into_iter().map(|what| (what, counters.get(what)));
        let counts = counts.filter(|(_, count)| *count > 0);
        let counts: Map<String, Value> =
            counts.map(|(what, count)| (what.name().to_owned(), count.into())).collect();
        json!({
            "tenant": key.tenant.0,
            "database": key.database.map(|id| id.0),
            "user": key.user.0,
            "route": key.route.as_deref(),
            "counts": counts,
        })
    });
    let body = Value::Array(keys.collect()).to_string();
    format!("{HEAD}{:016x}\n{body}\n", hash_bytes(body.as_bytes())).into_bytes()
}

/// Adds what a file holds to the counters; what it says in part is not added.
fn decode(bytes: &[u8], usage: &Usage) -> std::result::Result<(), &'static str> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text")?;
    let (head, body) = text.split_once('\n').ok_or("its first line does not end")?;
    let hash = head.strip_prefix(HEAD).ok_or("it is none, or of another version")?;
    let body = body.strip_suffix('\n').ok_or("its last line does not end")?;
    if u64::from_str_radix(hash, 16) != Ok(hash_bytes(body.as_bytes())) {
        return Err("its hash is another");
    }
    let keys: Vec<Value> = serde_json::from_str(body).map_err(|_| "it is no JSON")?;
    let read = keys.iter().map(key_and_counts).collect::<Option<Vec<_>>>();
    for (key, counts) in read.ok_or("a key is not as it should be")? {
        let counters = usage.of(key);
        for what in COUNTED {
            counters.add(what, counts.get(what.name()).and_then(Value::as_u64).unwrap_or(0));
        }
    }
    Ok(())
}

fn key_and_counts(value: &Value) -> Option<(UsageKey, &Map<String, Value>)> {
    let id = |name: &str| value.get(name)?.as_u64().and_then(|id| u32::try_from(id).ok());
    let key = UsageKey {
        tenant: TenantId(id("tenant")?),
        database: id("database").map(DatabaseId),
        user: UserId(id("user")?),
        route: value.get("route")?.as_str().map(Arc::from),
    };
    Some((key, value.get("counts")?.as_object()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::usage::Counted;

    fn used() -> Usage {
        let usage = Usage::default();
        let key = |route: Option<&str>| UsageKey {
            tenant: TenantId(1),
            database: route.is_none().then_some(DatabaseId(7)),
            user: UserId(3),
            route: route.map(Arc::from),
        };
        usage.of(key(None)).add(Counted::RowsIn, u64::MAX);
        usage.of(key(Some("/api/v1/write"))).add(Counted::HttpBytesOut, 12);
        usage
    }

    #[test]
    fn counters_that_are_written_down_are_read_as_they_were() {
        let written = encode(&used());
        let read = Usage::default();
        decode(&written, &read).expect("it is whole");
        assert_eq!(encode(&read), written);
    }

    #[test]
    fn a_byte_that_changed_or_is_missing_is_noticed() {
        let written = encode(&used());
        for at in 0..written.len() {
            let mut changed = written.clone();
            changed[at] ^= 0x01;
            assert!(decode(&changed, &Usage::default()).is_err(), "byte {at}");
            assert!(decode(&written[..at], &Usage::default()).is_err(), "length {at}");
        }
    }
}
