//! What concerns buckets: made where rows need one, never overlapping, never without end.

use model::placement::bucket_range;
use model::{BucketId, DatabaseId, ErrorKind, NodeId, ReplicaSetId, TimeRange, VnodeId};

use crate::catalog::{Bucket, Catalog, Database, Entity, ReplicaSet, VnodePlace, VnodeState};
use crate::command::Reply;
use crate::error::{Error, Result};

use super::databases::database_of;
use super::{Changes, MINUTE_NS};

/// The most buckets of one database.
const BUCKETS_MAX: usize = 100_000;

/// The most buckets of one database made within a minute of log time.
const BUCKETS_PER_MINUTE_MAX: u32 = 200;

pub(super) fn create_bucket(
    catalog: &Catalog,
    database: DatabaseId,
    (time, now): (i64, i64),
    nodes: &[NodeId],
    changes: &mut Changes,
) -> Result<Reply> {
    let mut database = database_of(catalog, database)?.clone();
    if let Some(bucket) = catalog.bucket_of(database.id, time) {
        return Ok(Reply::Bucket(bucket.id));
    }
    check_bucket_limits(catalog, &mut database, now)?;
    let replicas = database.options.replicas as usize;
    if nodes.len() < replicas {
        let message =
            format!("REPLICA {replicas} needs {replicas} data nodes, there are {}", nodes.len());
        return Err(Error::refused(ErrorKind::LimitReached, message));
    }
    let times = free_range(catalog, &database, time);
    changes.counters.bucket += 1;
    let id = BucketId(changes.counters.bucket);
    let replica_sets = (0..database.options.shards).map(|_| {
        changes.counters.replica_set += 1;
        // Another node begins each set, so that those who lead are spread.
        let first = changes.counters.replica_set as usize;
        let vnodes = (0..replicas).map(|replica| {
            changes.counters.vnode += 1;
            let node = nodes[(first + replica) % nodes.len()];
            VnodePlace { id: VnodeId(changes.counters.vnode), node, state: VnodeState::Founder }
        });
        ReplicaSet { id: ReplicaSetId(changes.counters.replica_set), vnodes: vnodes.collect() }
    });
    let replica_sets = replica_sets.collect();
    let bucket = Bucket { id, database: database.id, times, replica_sets };
    changes.put(Entity::Bucket(bucket));
    changes.put(Entity::Database(database));
    Ok(Reply::Bucket(id))
}

fn check_bucket_limits(catalog: &Catalog, database: &mut Database, now: i64) -> Result<()> {
    let limit = |message: String| Err(Error::refused(ErrorKind::LimitReached, message));
    let name = &database.name;
    if catalog.buckets(database.id, TimeRange::ALL).len() >= BUCKETS_MAX {
        return limit(format!("database \"{name}\" has {BUCKETS_MAX} buckets"));
    }
    let (start, count) = database.bucket_minute;
    if now.saturating_sub(start) >= MINUTE_NS || now < start {
        database.bucket_minute = (now, 1);
    } else if count < BUCKETS_PER_MINUTE_MAX {
        database.bucket_minute = (start, count + 1);
    } else {
        return limit(format!(
            "database \"{name}\" got {BUCKETS_PER_MINUTE_MAX} new buckets within a minute; \
             are the times of the rows right, or is VNODE_DURATION too short for them?"
        ));
    }
    Ok(())
}

/// Returns the slice of time around `time`, clipped to the buckets there are: after an ALTER of the
/// duration the grid is another one.
fn free_range(catalog: &Catalog, database: &Database, time: i64) -> TimeRange {
    let mut range = bucket_range(time, database.options.vnode_duration_ns);
    for bucket in catalog.buckets(database.id, range) {
        if bucket.times.max < time {
            range.min = range.min.max(bucket.times.max + 1);
        } else if bucket.times.min > time {
            range.max = range.max.min(bucket.times.min - 1);
        }
    }
    range
}
