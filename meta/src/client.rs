//! What the rest of the program talks to: a cached catalog, and a way to change it.

use std::sync::Arc;
use std::time::Duration;

use model::{NodeId, TenantId};
use replication::GroupStatus;
use replication::transport::{CallError, Transport};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::catalog::Catalog;
use crate::command::{Command, Reply};
use crate::error::{Error, Result};
use crate::limits::RateGroup;
use crate::service::{
    COMMAND_PATIENCE, META, MetaService, NodeLoad, NodeReport, Request, Response, decode, encode,
};

/// How long a change of the catalog may take.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long one waits for another leader before asking again.
const PAUSE: Duration = Duration::from_millis(100);

/// Reads and changes the catalog. Clones share one cache.
#[derive(Clone, Debug)]
pub struct MetaClient {
    pub(crate) catalog: watch::Receiver<Arc<Catalog>>,
    /// The member of this process.
    pub(crate) here: Option<Arc<MetaService>>,
    /// The way to the members of other processes.
    pub(crate) transport: Option<Arc<dyn Transport>>,
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
    /// `Refused`: nothing changed. `Unavailable`: nobody knows, or nobody leads.
    pub async fn submit(&self, command: &Command) -> Result<Reply> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let request = Request::Submit { command: command.clone(), passed_on: false };
            let failed = match self.ask(request).await {
                Ok(Response::Answer(answer)) => {
                    let reply = answer.outcome?;
                    self.wait_for(answer.version, deadline).await?;
                    return Ok(reply);
                }
                Ok(Response::NoLeader) => "no meta member leads".to_owned(),
                Ok(Response::Unknown(reason)) if command.is_repeatable() => reason,
                Ok(Response::Unknown(reason)) => return Err(Error::Unknown(reason)),
                Ok(_) => return Err(Error::Corrupt("another answer was asked for".to_owned())),
                Err(error) => error,
            };
            if Instant::now() + PAUSE >= deadline {
                return Err(Error::Unavailable(failed));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Hears of what others have changed, for who did not find what may have been made this moment.
    /// Returns whether there was something. Where no member can tell, there was not.
    pub async fn refresh(&self) -> bool {
        if self.transport.is_none() {
            return false;
        }
        let known = self.catalog.borrow().version();
        match self.ask(Request::Version { passed_on: false }).await {
            Ok(Response::Version(version)) if version > known => {
                self.wait_for(version, Instant::now() + DEADLINE).await.is_ok()
            }
            Ok(_) => false,
            Err(error) => {
                tracing::debug!(%error, "the catalog is as it was");
                false
            }
        }
    }

    /// Takes tokens out of the bucket that all nodes share for a tenant. Returns how many there were.
    ///
    /// # Errors
    /// `Unavailable` where no member leads.
    pub async fn draw(&self, tenant: TenantId, group: RateGroup, wanted: u64) -> Result<u64> {
        match self.ask(Request::Draw { tenant, group, wanted, passed_on: false }).await {
            Ok(Response::Drawn(given)) => Ok(given),
            Ok(other) => Err(Error::Unavailable(format!("{other:?}"))),
            Err(error) => Err(Error::Unavailable(error)),
        }
    }

    /// Gives a sign of life, with what this node carries.
    ///
    /// # Errors
    /// `Unavailable` where no member leads.
    pub async fn heartbeat(&self, node: NodeId, load: NodeLoad) -> Result<()> {
        match self.ask(Request::Heartbeat { node, load, passed_on: false }).await {
            Ok(Response::Done) => Ok(()),
            Ok(other) => Err(Error::Unavailable(format!("{other:?}"))),
            Err(error) => Err(Error::Unavailable(error)),
        }
    }

    /// Returns the meta member that leads, and what it knows of all nodes.
    ///
    /// # Errors
    /// `Unavailable` where no member leads.
    pub async fn nodes(&self) -> Result<(NodeId, Vec<NodeReport>)> {
        match self.ask(Request::Nodes { passed_on: false }).await {
            Ok(Response::Nodes { leader, nodes }) => Ok((leader, nodes)),
            Ok(other) => Err(Error::Unavailable(format!("{other:?}"))),
            Err(error) => Err(Error::Unavailable(error)),
        }
    }

    /// Returns what the member of this process knows of its group, and the bytes of memory its store
    /// takes; `None` where this process only follows.
    pub fn member(&self) -> Option<(GroupStatus, u64)> {
        self.here.as_ref().map(|here| here.watched())
    }

    /// Asks the member of this process, else those of others, one after another.
    async fn ask(&self, request: Request) -> std::result::Result<Response, String> {
        if let Some(here) = &self.here {
            return Ok(here.answer(request).await);
        }
        let Some(transport) = &self.transport else { return Err("no meta member".to_owned()) };
        let catalog = self.catalog();
        let request = encode(&request);
        let mut failed = "no meta member is known".to_owned();
        for node in catalog.nodes().filter(|node| node.roles.meta) {
            let asked = transport.call(node.id, META, request.clone(), COMMAND_PATIENCE).await;
            match asked.and_then(|answer| decode(&answer)) {
                Ok(Response::NoLeader) => failed = format!("node {} knows no leader", node.id),
                Ok(response) => return Ok(response),
                Err(CallError::Unknown { reason, .. }) => return Ok(Response::Unknown(reason)),
                Err(error) => failed = error.to_string(),
            }
        }
        Err(failed)
    }

    async fn wait_for(&self, version: u64, deadline: Instant) -> Result<()> {
        let mut catalog = self.catalog.clone();
        let seen = catalog.wait_for(|catalog| catalog.version() >= version);
        let late = "it was done, but this node has not heard of it yet";
        match tokio::time::timeout_at(deadline, seen).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Error::Unavailable(late.to_owned())),
        }
    }
}
