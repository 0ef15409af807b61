//! What the rest of the program talks to: a cached catalog, and a way to change it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use replication::{Group, GroupConfig};
use tokio::sync::watch;

use crate::catalog::Catalog;
use crate::command::{self, Command, Reply};
use crate::error::{Error, Result};
use crate::machine::{MetaMachine, decode_reply};
use crate::store::MetaStore;

/// The member id of the only meta member.
const MEMBER: u64 = 1;
/// How long a change of the catalog may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// The log is purged after this many commands.
const SNAPSHOT_COMMANDS: u64 = 1_000;

/// A meta member of this process.
#[derive(Debug)]
pub struct MetaNode {
    group: Arc<Group>,
    client: MetaClient,
}

/// Reads and changes the catalog. Clones share one cache.
#[derive(Clone, Debug)]
pub struct MetaClient {
    group: Arc<Group>,
    catalog: watch::Receiver<Arc<Catalog>>,
    commands: Arc<std::sync::atomic::AtomicU64>,
}

impl MetaNode {
    /// Opens the member whose data is in `folder`; it leads when this returns.
    ///
    /// # Errors
    /// A folder in use, damage.
    pub async fn open(folder: &Path) -> Result<Self> {
        let folder = folder.to_path_buf();
        let opened = tokio::task::spawn_blocking(move || MetaStore::open(&folder)).await;
        let store = opened.map_err(|error| Error::Unavailable(error.to_string()))??;
        let machine = Arc::new(MetaMachine::open(store.clone())?);
        let catalog = machine.watch();
        let group = Group::open(&GroupConfig::default(), MEMBER, store, machine).await;
        let group = Arc::new(group.map_err(|error| Error::Unavailable(error.to_string()))?);
        let client = MetaClient { group: Arc::clone(&group), catalog, commands: Arc::default() };
        Ok(Self { group, client })
    }

    /// Returns a client of this member.
    pub fn client(&self) -> MetaClient {
        self.client.clone()
    }

    /// Stops the member; its clients get `Unavailable` from then on.
    pub async fn close(self) {
        self.group.close().await;
    }
}

impl MetaClient {
    /// Returns the catalog as this process knows it; never leaves the process.
    pub fn catalog(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalog.borrow())
    }

    /// Returns the catalog as it changes.
    pub fn watch(&self) -> watch::Receiver<Arc<Catalog>> {
        self.catalog.clone()
    }

    /// Changes the catalog. The change is in this process's cache when this returns.
    ///
    /// # Errors
    /// `Refused`: nothing changed. `Unavailable`: nobody knows.
    pub async fn submit(&self, command: &Command) -> Result<Reply> {
        let bytes = command::encode(command)?;
        let proposed = tokio::time::timeout(DEADLINE, self.group.propose(bytes)).await;
        let reply = proposed
            .map_err(|_| Error::Unavailable("no answer in time".to_owned()))?
            .map_err(|error| Error::Unavailable(error.to_string()))?;
        let count = self.commands.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        if count.is_multiple_of(SNAPSHOT_COMMANDS)
            && let Err(error) = self.group.snapshot().await
        {
            tracing::warn!(%error, "the catalog's log is not purged for now");
        }
        decode_reply(&reply)
    }
}
