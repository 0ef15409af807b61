//! The token buckets that the nodes of a cluster share: kept in the memory of the meta member that leads.
//!
//! Another leader begins with `remote_initial` again: what a rate lets pass may be exceeded by that much
//! at an election, and no token costs a write of the log.

use std::collections::HashMap;

use model::TenantId;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::limits::{Rate, RateGroup, Rates};

/// The buckets there are.
#[derive(Debug, Default)]
pub(crate) struct Buckets(Mutex<HashMap<(TenantId, RateGroup), Bucket>>);

#[derive(Debug)]
struct Bucket {
    rate: Rate,
    tokens: u64,
    filled: Instant,
}

impl Bucket {
    fn new(rate: Rate) -> Self {
        Self { rate, tokens: rate.remote_initial.min(rate.remote_max), filled: Instant::now() }
    }

    fn fill(&mut self) {
        let interval = self.rate.remote_interval_ms.max(1);
        let passed = u64::try_from(self.filled.elapsed().as_millis()).unwrap_or(u64::MAX);
        let times = passed / interval;
        if times > 0 {
            let more = self.rate.remote_refill.saturating_mul(times);
            self.tokens = self.tokens.saturating_add(more).min(self.rate.remote_max);
            self.filled += std::time::Duration::from_millis(times * interval);
        }
    }
}

impl Buckets {
    /// Takes tokens out of a tenant's bucket: all that are wanted or, where there are fewer, those. A rate
    /// that was changed begins anew; where there is none everything is given.
    pub(crate) fn draw(
        &self,
        rates: Option<&Rates>,
        (tenant, group): (TenantId, RateGroup),
        wanted: u64,
    ) -> u64 {
        let mut buckets = self.0.lock();
        let Some(rate) = rates.and_then(|rates| rates.get(&group)) else {
            buckets.remove(&(tenant, group));
            return wanted;
        };
        let bucket = buckets.entry((tenant, group)).or_insert_with(|| Bucket::new(*rate));
        if bucket.rate != *rate {
            *bucket = Bucket::new(*rate);
        }
        bucket.fill();
        let given = wanted.min(bucket.tokens);
        bucket.tokens -= given;
        given
    }

    /// Forgets all, where another member led meanwhile.
    pub(crate) fn clear(&self) {
        self.0.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_bucket_gives_what_it_has_and_is_filled_by_the_interval() {
        let rate = Rate {
            remote_max: 10,
            remote_initial: 3,
            remote_refill: 4,
            remote_interval_ms: 100,
            local_max: 0,
            local_initial: 0,
        };
        let rates = Rates::from([(RateGroup::CoordQueries, rate)]);
        let buckets = Buckets::default();
        let key = (TenantId(1), RateGroup::CoordQueries);
        assert_eq!(buckets.draw(Some(&rates), key, 2), 2);
        assert_eq!(buckets.draw(Some(&rates), key, 2), 1);
        tokio::time::advance(Duration::from_millis(150)).await;
        assert_eq!(buckets.draw(Some(&rates), key, 9), 4);
        // Half an interval was left over.
        tokio::time::advance(Duration::from_millis(50)).await;
        assert_eq!(buckets.draw(Some(&rates), key, 9), 4);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(buckets.draw(Some(&rates), key, 99), 10);
        assert_eq!(buckets.draw(None, key, 99), 99);
    }
}
