//! What concerns buckets: made where rows need one, never overlapping, never without end.

use model::placement::bucket_range;
use model::{BucketId, DatabaseId, ErrorKind, NodeId, ReplicaSetId, TimeRange, VnodeId};

use crate::catalog::{
    Bucket, Catalog, Database, Entity, Key, PlacementPolicy, ReplicaSet, VnodePlace, VnodeState,
};
use crate::command::Reply;
use crate::error::{Error, Result};
use crate::placement::choose;

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
    let policy = catalog.policy_of(database.id).map(AsRef::as_ref);
    let times = free_range(catalog, &database, time);
    changes.counters.bucket += 1;
    let id = BucketId(changes.counters.bucket);
    let shards = 0..database.options.shards;
    let replica_sets = shards.map(|_| new_set(catalog, policy, nodes, replicas, changes));
    let replica_sets = replica_sets.collect::<Result<_>>()?;
    let bucket = Bucket { id, database: database.id, times, replica_sets, ending: None };
    changes.put(Entity::Bucket(bucket));
    changes.put(Entity::Database(database));
    Ok(Reply::Bucket(id))
}

fn new_set(
    catalog: &Catalog,
    policy: Option<&PlacementPolicy>,
    nodes: &[NodeId],
    replicas: usize,
    changes: &mut Changes,
) -> Result<ReplicaSet> {
    changes.counters.replica_set += 1;
    // Another node begins each set, so that those who lead are spread.
    let first = changes.counters.replica_set as usize;
    let chosen = choose(catalog, policy, (nodes, first), replicas)?;
    let vnodes = chosen.into_iter().map(|node| {
        changes.counters.vnode += 1;
        VnodePlace {
            id: VnodeId(changes.counters.vnode),
            node,
            state: VnodeState::Founder,
            replaces: None,
        }
    });
    let vnodes = vnodes.collect();
    Ok(ReplicaSet { id: ReplicaSetId(changes.counters.replica_set), vnodes })
}

pub(super) fn reset_replica_set(
    catalog: &Catalog,
    id: ReplicaSetId,
    nodes: &[NodeId],
    changes: &mut Changes,
) -> Result<()> {
    let found = catalog.replica_set(id).map(|(bucket, _)| Bucket::clone(bucket));
    let mut bucket = found.ok_or_else(|| Error::not_found("replica set", &id.to_string()))?;
    let replicas = database_of(catalog, bucket.database)?.options.replicas as usize;
    let policy = catalog.policy_of(bucket.database).map(AsRef::as_ref);
    for set in bucket.replica_sets.iter_mut().filter(|set| set.id == id) {
        *set = new_set(catalog, policy, nodes, replicas, changes)?;
    }
    changes.put(Entity::Bucket(bucket));
    Ok(())
}

fn bucket_by_id(catalog: &Catalog, id: BucketId) -> Result<Bucket> {
    let bucket = catalog.bucket(id).map(|bucket| Bucket::clone(bucket));
    bucket.ok_or_else(|| Error::not_found("bucket", &id.to_string()))
}

pub(super) fn begin_end(
    catalog: &Catalog,
    id: BucketId,
    until: i64,
    changes: &mut Changes,
) -> Result<()> {
    let mut bucket = bucket_by_id(catalog, id)?;
    // Where that is as it would end anyway, its replica sets have to be told so, too.
    let until = bucket.ending.map_or(until, |before| before.max(until));
    bucket.ending = Some(until.min(bucket.times.max));
    changes.put(Entity::Bucket(bucket));
    Ok(())
}

pub(super) fn end_bucket(
    catalog: &Catalog,
    id: BucketId,
    (until, told): (i64, &[ReplicaSetId]),
    changes: &mut Changes,
) -> Result<()> {
    let mut bucket = bucket_by_id(catalog, id)?;
    let sets = bucket.replica_sets.iter().map(|set| set.id);
    if bucket.ending != Some(until) || !sets.eq(told.iter().copied()) {
        return Ok(());
    }
    if until < bucket.times.min {
        changes.delete(Key::Bucket(id));
        return Ok(());
    }
    bucket.times.max = until;
    bucket.ending = None;
    changes.put(Entity::Bucket(bucket));
    Ok(())
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
