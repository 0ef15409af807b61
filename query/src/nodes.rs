//! Nodes of the cluster, and which of them hold what: shown and changed.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::record_batch::RecordBatch;
use meta::{Bucket, Catalog, Command, NodeChange, ReplicaSet};
use model::{NodeId, ReplicaSetId, TimeRange, VnodeId};

use crate::access::Need;
use crate::error::{Error, Result};
use crate::output::{Output, rows};
use crate::session::Session;
use crate::sql::NodeStatement;

/// A node that gave no sign of life for longer is shown as silent.
const SILENT_MS: u64 = 5_000;

type Lines = Vec<Vec<String>>;

/// Columns of SHOW NODES.
pub(crate) const NODES: [&str; 10] = [
    "node_id",
    "name",
    "address",
    "zone",
    "roles",
    "state",
    "silent_ms",
    "vnodes",
    "leads",
    "disk_free_bytes",
];
/// Columns of SHOW REPLICAS; the vnode that leads has a star.
pub(crate) const REPLICAS: [&str; 5] =
    ["replica_id", "location", "database", "start_time", "end_time"];
/// Columns of SHOW VNODES.
pub(crate) const VNODES: [&str; 10] = [
    "vnode_id",
    "node_id",
    "replica_id",
    "database",
    "state",
    "role",
    "leader_vnode_id",
    "term",
    "last_index",
    "applied_index",
];

fn no_object(what: &str, id: impl std::fmt::Display) -> Error {
    Error::new("42704", format!("{what} {id} does not exist"))
}

/// Writes an instant.
pub(crate) fn time_text(ns: i64) -> String {
    use datafusion::arrow::temporal_conversions::timestamp_ns_to_datetime;
    timestamp_ns_to_datetime(ns).map_or_else(|| ns.to_string(), |time| time.to_string())
}

impl Session {
    pub(crate) async fn node_lines(&self) -> Result<Lines> {
        self.check(Need::Administer)?;
        let meta = self.database().meta();
        let catalog = self.database().catalog();
        // Without a quorum of meta members the nodes are known all the same, if not how they are.
        let reports = meta.nodes().await.map(|(_, reports)| reports).unwrap_or_default();
        let lines = catalog.nodes().map(|node| {
            let report = reports.iter().find(|report| report.node == node.id);
            let silent =
                report.and_then(|report| report.silent_ms).is_some_and(|ms| ms > SILENT_MS);
            let number = |value: Option<u64>| value.map(|n| n.to_string()).unwrap_or_default();
            let roles =
                [(node.roles.meta, "meta"), (node.roles.data, "data"), (node.roles.query, "query")];
            let roles = roles.iter().filter(|(has, _)| *has).map(|(_, name)| *name);
            vec![
                node.id.to_string(),
                node.name.clone(),
                node.addr.clone(),
                node.zone.clone(),
                roles.collect::<Vec<_>>().join(","),
                if silent { "silent" } else { node.state.name() }.to_owned(),
                number(report.and_then(|report| report.silent_ms)),
                number(report.map(|report| report.load.vnodes)),
                number(report.map(|report| report.load.leads)),
                number(report.map(|report| report.load.disk_free)),
            ]
        });
        Ok(lines.collect())
    }

    /// Returns the replica sets of the tenant with their buckets.
    fn replica_sets(&self, catalog: &Catalog) -> Vec<(String, Arc<Bucket>, ReplicaSet)> {
        let mut sets = Vec::new();
        for database in catalog.databases(self.identity().tenant) {
            for bucket in catalog.buckets(database.id, TimeRange::ALL) {
                for set in &bucket.replica_sets {
                    sets.push((database.name.clone(), Arc::clone(&bucket), set.clone()));
                }
            }
        }
        sets.sort_by_key(|(_, _, set)| set.id);
        sets
    }

    pub(crate) async fn replica_lines(&self) -> Result<Lines> {
        self.check(Need::See)?;
        let catalog = self.database().catalog();
        let groups = self.database().cluster().groups().await;
        let lines = self.replica_sets(&catalog).into_iter().map(|(database, bucket, set)| {
            let leads = |vnode: VnodeId| {
                groups.iter().any(|group| group.vnode == vnode && group.leader == Some(vnode))
            };
            let places = set.vnodes.iter().map(|place| {
                let star = if leads(place.id) { "*" } else { "" };
                format!("{}{star}", place.node)
            });
            vec![
                set.id.to_string(),
                places.collect::<Vec<_>>().join(","),
                database,
                time_text(bucket.times.min),
                time_text(bucket.times.max),
            ]
        });
        Ok(lines.collect())
    }

    pub(crate) async fn vnode_lines(&self) -> Result<Lines> {
        self.check(Need::See)?;
        let catalog = self.database().catalog();
        let groups = self.database().cluster().groups().await;
        let mut lines = Vec::new();
        for (database, _, set) in self.replica_sets(&catalog) {
            for place in &set.vnodes {
                let group = groups.iter().find(|group| group.vnode == place.id);
                let number = |value: Option<u64>| value.map(|n| n.to_string()).unwrap_or_default();
                let role = group.map(|group| match (group.leader == Some(place.id), group.votes) {
                    (true, _) => "leader",
                    (false, true) => "follower",
                    (false, false) => "learner",
                });
                lines.push(vec![
                    place.id.to_string(),
                    place.node.to_string(),
                    set.id.to_string(),
                    database.clone(),
                    place.state.name().to_owned(),
                    role.unwrap_or("closed").to_owned(),
                    number(group.and_then(|group| group.leader).map(|leader| leader.0)),
                    number(group.map(|group| group.term)),
                    number(group.map(|group| group.last_index)),
                    number(group.map(|group| group.applied)),
                ]);
            }
        }
        Ok(lines)
    }

    /// Runs a statement about nodes.
    pub(crate) async fn change_nodes(&self, statement: &NodeStatement) -> Result<Output> {
        use NodeStatement as Node;
        self.check(Need::Administer)?;
        match statement {
            Node::Checksum(set) => self.checksum_group(ReplicaSetId(*set)).await,
            Node::Repair(set) => self.repair_replicas(ReplicaSetId(*set)).await,
            Node::TruncateShards(database) => self.truncate_shards(database.as_deref()).await,
            Node::KillJob(name) => self.kill_job(name).await,
            Node::CreatePolicy { name, if_not_exists, terms } => {
                self.create_policy(name, *if_not_exists, terms).await
            }
            Node::AlterPolicy { name, if_exists, terms } => {
                self.alter_policy(name, *if_exists, terms).await
            }
            Node::DropPolicy { name, if_exists } => self.drop_policy(name, *if_exists).await,
            Node::Promote(set, node) => {
                let vnode = vnode_on(&self.database().catalog(), *set, *node)?;
                self.database().cluster().promote(vnode).await?;
                Ok(Output::Done("REPLICA PROMOTE"))
            }
            _ => {
                let catalog = self.database().catalog();
                let (command, tag) = command_of(&catalog, statement)?;
                let changed = match &command {
                    Command::AddVnode { replica_set, .. } => Some(*replica_set),
                    Command::LeaveVnode { vnode } => Some(set_of(&catalog, vnode.0)?),
                    _ => None,
                };
                if let Some(set) = changed {
                    self.database().cluster().ensure_replica_set_led(set).await?;
                }
                self.database().meta().submit(&command).await?;
                Ok(Output::Done(tag))
            }
        }
    }

    async fn truncate_shards(&self, database: Option<&str>) -> Result<Output> {
        let only = database.map(|name| self.user_database(name)).transpose()?;
        let ended = self.database().cluster().end_hot_buckets(only.map(|one| one.id)).await?;
        let catalog = self.database().catalog();
        let lines: Lines = ended
            .into_iter()
            .map(|one| {
                let database = catalog.database_by_id(one.database);
                let name = database.map(|database| database.name.clone()).unwrap_or_default();
                // One that is gone held no rows.
                let end = one.until.map(time_text).unwrap_or_default();
                vec![one.bucket.to_string(), name, end]
            })
            .collect();
        text_rows(&["bucket_id", "database", "end_time"], &lines)
    }

    async fn repair_replicas(&self, set: ReplicaSetId) -> Result<Output> {
        let rebuilt = self.database().cluster().repair_replicas(set).await?;
        let lines: Lines = rebuilt.iter().map(|vnode| vec![vnode.to_string()]).collect();
        text_rows(&["rebuilt_vnode_id"], &lines)
    }

    async fn checksum_group(&self, set: ReplicaSetId) -> Result<Output> {
        let checksums = self.database().cluster().checksums(set).await?;
        let lines: Lines = checksums
            .into_iter()
            .map(|one| {
                let (rows, checksum) = match one.checksum {
                    Ok(sum) => (sum.rows.to_string(), format!("{:016x}", sum.hash)),
                    Err(error) => (String::new(), error.to_string()),
                };
                vec![one.vnode.to_string(), one.node.to_string(), rows, checksum]
            })
            .collect();
        text_rows(&["vnode_id", "node_id", "rows", "checksum"], &lines)
    }
}

fn set_of(catalog: &Catalog, vnode: u64) -> Result<ReplicaSetId> {
    let found = catalog.replica_set_of(VnodeId(vnode)).map(|(_, set)| set.id);
    found.ok_or_else(|| no_object("vnode", vnode))
}

fn vnode_on(catalog: &Catalog, set: u32, node: u64) -> Result<VnodeId> {
    let found = catalog.replica_set(ReplicaSetId(set)).map(|(_, set)| set);
    let found = found.ok_or_else(|| no_object("replica set", set))?;
    let place = found.vnodes.iter().find(|place| place.node.0 == node);
    let message = || format!("replica set {set} has no vnode on node {node}");
    place.map(|place| place.id).ok_or_else(|| Error::new("42704", message()))
}

/// Returns what a statement asks of the catalog, and its tag.
fn command_of(catalog: &Catalog, statement: &NodeStatement) -> Result<(Command, &'static str)> {
    use NodeStatement as Node;
    let add = |replica_set, node: u64, replaces| Command::AddVnode {
        replica_set,
        node: NodeId(node),
        replaces,
    };
    Ok(match statement {
        Node::State(node, state) => {
            let change = NodeChange::State(*state);
            (Command::AlterNode { node: NodeId(*node), change }, "ALTER NODE")
        }
        Node::Address(node, addr) => {
            check_address(catalog, *node, addr)?;
            let change = NodeChange::Address(addr.clone());
            (Command::AlterNode { node: NodeId(*node), change }, "ALTER NODE")
        }
        Node::Remove(node) => (Command::RemoveNode { node: NodeId(*node) }, "REMOVE NODE"),
        Node::Move(vnode, node) => {
            (add(set_of(catalog, *vnode)?, *node, Some(VnodeId(*vnode))), "ALTER VNODE")
        }
        Node::Copy(vnode, node) => (add(set_of(catalog, *vnode)?, *node, None), "ALTER VNODE"),
        Node::Drop(vnode) => {
            set_of(catalog, *vnode)?;
            (Command::LeaveVnode { vnode: VnodeId(*vnode) }, "DROP VNODE")
        }
        Node::Add(set, node) => (add(ReplicaSetId(*set), *node, None), "REPLICA ADD"),
        Node::RemoveReplica(set, node) => {
            (Command::LeaveVnode { vnode: vnode_on(catalog, *set, *node)? }, "REPLICA REMOVE")
        }
        Node::Destroy(set) => {
            let (replica_set, nodes) = (ReplicaSetId(*set), Vec::new());
            (Command::ResetReplicaSet { replica_set, nodes }, "REPLICA DESTROY")
        }
        other => return Err(Error::internal(format!("{other:?} is no change of the catalog"))),
    })
}

fn check_address(catalog: &Catalog, node: u64, addr: &str) -> Result<()> {
    let port = addr
        .rsplit_once(':')
        .and_then(|(host, port)| (!host.is_empty()).then(|| port.parse::<u16>().ok()).flatten());
    if port.is_none_or(|port| port == 0) {
        return Err(Error::new("22023", format!("\"{addr}\" is not an address host:port")));
    }
    match catalog.nodes().find(|other| other.addr == addr && other.id.0 != node) {
        Some(other) => {
            Err(Error::new("42710", format!("node {} has the address {addr}", other.id)))
        }
        None => Ok(()),
    }
}

/// Makes rows of lines of text.
pub(crate) fn text_rows(names: &[&str], lines: &Lines) -> Result<Output> {
    let fields: Vec<Field> =
        names.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect();
    let column = |at: usize| {
        Arc::new(StringArray::from_iter_values(lines.iter().map(|line| &line[at]))) as ArrayRef
    };
    let columns = (0..names.len()).map(column).collect();
    Ok(rows(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?))
}
