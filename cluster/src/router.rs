//! Which bucket and shard each row of a batch belongs to.

use std::collections::BTreeMap;
use std::sync::Arc;

use meta::{Bucket, Catalog, ReplicaSet};
use model::placement::shard_of;
use model::series_key::hash_bytes;
use model::{DatabaseId, Points};

use crate::error::{Error, Result};

/// Rows for one replica set.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) bucket: Arc<Bucket>,
    pub(crate) replica_set: ReplicaSet,
    pub(crate) points: Points,
}

/// Returns a time of the batch that no bucket holds yet.
pub(crate) fn missing_bucket(
    catalog: &Catalog,
    database: DatabaseId,
    points: &Points,
) -> Option<i64> {
    let range = points.time_range();
    let first = catalog.bucket_of(database, range.min);
    if first.is_some_and(|bucket| bucket.times.contains(range.max)) {
        return None;
    }
    points.times.iter().copied().find(|time| catalog.bucket_of(database, *time).is_none())
}

/// Splits a batch by bucket and shard; every row must have a bucket.
///
/// # Errors
/// A row without one: the bucket was dropped this moment.
pub(crate) fn split(catalog: &Catalog, database: DatabaseId, points: Points) -> Result<Vec<Part>> {
    let bucket_of = |time: i64| {
        let bucket = catalog.bucket_of(database, time);
        bucket.ok_or_else(|| Error::internal("a bucket was dropped during the write"))
    };
    let range = points.time_range();
    let first = bucket_of(range.min)?;
    if first.times.contains(range.max) {
        return Ok(split_by_shard(first, points));
    }
    let mut rows: BTreeMap<i64, (Arc<Bucket>, Vec<u32>)> = BTreeMap::new();
    let mut last = Arc::clone(first);
    for (row, time) in points.times.iter().enumerate() {
        if !last.times.contains(*time) {
            last = Arc::clone(bucket_of(*time)?);
        }
        let fresh = || (Arc::clone(&last), Vec::new());
        rows.entry(last.times.min).or_insert_with(fresh).1.push(row as u32);
    }
    let parts = rows.into_values();
    let parts = parts.flat_map(|(bucket, rows)| split_by_shard(&bucket, points.select(&rows)));
    Ok(parts.collect())
}

fn split_by_shard(bucket: &Arc<Bucket>, points: Points) -> Vec<Part> {
    let shards = bucket.replica_sets.len() as u32;
    let part = |shard: u32, points| Part {
        bucket: Arc::clone(bucket),
        replica_set: bucket.replica_sets[shard as usize].clone(),
        points,
    };
    if shards == 1 {
        return vec![part(0, points)];
    }
    let of_series: Vec<u32> =
        points.series.iter().map(|key| shard_of(hash_bytes(key), shards)).collect();
    let mut rows: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
    for (row, series) in points.row_series.iter().enumerate() {
        rows.entry(of_series[*series as usize]).or_default().push(row as u32);
    }
    if rows.len() == 1 {
        let shard = rows.into_keys().next().unwrap_or_default();
        return vec![part(shard, points)];
    }
    rows.into_iter().map(|(shard, rows)| part(shard, points.select(&rows))).collect()
}
