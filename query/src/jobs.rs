//! What is being done in the background of the whole cluster, and can be given up.

use std::fmt;

use meta::{Catalog, Command, VnodeState};
use model::{DatabaseId, TenantId, VnodeId};

use crate::access::Need;
use crate::error::{Error, Result};
use crate::nodes::time_text;
use crate::output::Output;
use crate::session::Session;

/// Columns of SHOW JOBS.
pub(crate) const COLUMNS: [&str; 4] = ["job", "kind", "object", "detail"];

/// Something that is being done, or will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Job {
    /// A vnode is being filled.
    Fill(VnodeId),
    /// A database is dropped at a time.
    DropDatabase(DatabaseId),
    /// A tenant is dropped at a time.
    DropTenant(TenantId),
}

/// A job's name.
impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fill(vnode) => write!(f, "fill-{vnode}"),
            Self::DropDatabase(database) => write!(f, "drop-database-{database}"),
            Self::DropTenant(tenant) => write!(f, "drop-tenant-{tenant}"),
        }
    }
}

/// Returns all jobs, each with what it is about and how it stands.
fn jobs(catalog: &Catalog) -> Vec<(Job, &'static str, String, String)> {
    let mut jobs = Vec::new();
    for (_, set) in catalog.replica_sets() {
        for place in set.vnodes.iter().filter(|place| place.state == VnodeState::Joining) {
            let replaced = set.vnodes.iter().find(|one| Some(one.id) == place.replaces);
            let (kind, detail) = match replaced {
                Some(old) => (
                    "move",
                    format!("vnode {} of node {} to node {}", old.id, old.node, place.node),
                ),
                None => ("copy", format!("vnode {} on node {}", place.id, place.node)),
            };
            jobs.push((Job::Fill(place.id), kind, format!("replica set {}", set.id), detail));
        }
    }
    let when = |at: i64| format!("at {}", time_text(at));
    for database in catalog.all_databases() {
        if let Some(at) = database.drop_at {
            let object = format!("database {}", database.name);
            jobs.push((Job::DropDatabase(database.id), "drop", object, when(at)));
        }
    }
    for tenant in catalog.tenants() {
        if let Some(at) = tenant.drop_at {
            let object = format!("tenant {}", tenant.name);
            jobs.push((Job::DropTenant(tenant.id), "drop", object, when(at)));
        }
    }
    jobs
}

impl Session {
    pub(crate) fn job_lines(&self) -> Result<Vec<Vec<String>>> {
        self.check(Need::Administer)?;
        let jobs = jobs(&self.database().catalog());
        let line = |(job, kind, object, detail): (Job, &str, String, String)| {
            vec![job.to_string(), kind.to_owned(), object, detail]
        };
        Ok(jobs.into_iter().map(line).collect())
    }

    /// Gives a job up: a vnode that is being filled goes again, what waits to be dropped is brought back.
    pub(crate) async fn kill_job(&self, name: &str) -> Result<Output> {
        let jobs = jobs(&self.database().catalog());
        let found = jobs.into_iter().map(|(job, ..)| job).find(|job| job.to_string() == name);
        let job = found.ok_or_else(|| {
            Error::new("42704", format!("job \"{name}\" does not exist"))
                .hint("SHOW JOBS lists them")
        })?;
        let command = match job {
            Job::Fill(vnode) => Command::GiveUpVnode { vnode },
            Job::DropDatabase(database) => Command::RecoverDatabase { database },
            Job::DropTenant(tenant) => Command::RecoverTenant { tenant },
        };
        self.submit(command, "KILL JOB").await
    }
}
