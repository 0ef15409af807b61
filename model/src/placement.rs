//! Where rows belong: the bucket of a timestamp and the shard of a series.

use crate::time::TimeRange;

/// Returns the slice of time that holds `time_ns` when buckets are `duration_ns` long: Euclidean,
/// so that times before 1970 fall into whole buckets too. The ends are clipped to what `i64` holds.
pub fn bucket_range(time_ns: i64, duration_ns: i64) -> TimeRange {
    assert!(duration_ns > 0, "bucket duration must be positive: {duration_ns}");
    let (time, duration) = (i128::from(time_ns), i128::from(duration_ns));
    let start = time.div_euclid(duration) * duration;
    let end = start + duration - 1;
    let clip = |ns: i128| ns.clamp(i128::from(i64::MIN), i128::from(i64::MAX)) as i64;
    TimeRange { min: clip(start), max: clip(end) }
}

/// Returns the shard of a series hash among `shards`.
pub fn shard_of(hash: u64, shards: u32) -> u32 {
    assert!(shards > 0, "a bucket has at least one shard");
    (hash % u64::from(shards)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_tile_time_before_and_after_the_epoch() {
        assert_eq!(bucket_range(-1, 10), TimeRange { min: -10, max: -1 });
        assert_eq!(bucket_range(0, 10), TimeRange { min: 0, max: 9 });
        assert_eq!(bucket_range(10, 10), TimeRange { min: 10, max: 19 });
        assert_eq!(bucket_range(i64::MAX, 10).max, i64::MAX);
        assert_eq!(bucket_range(i64::MIN, 10).min, i64::MIN);
    }
}
