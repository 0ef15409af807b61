//! What a tenant may ask for on this node: rates, statements at once, memory of its queries.
//!
//! A rate is a token bucket that all nodes share (`meta`), and a bucket here that is filled from it: only
//! what the bucket here lacks is asked for, together with `local_max` more. Where no meta member answers,
//! statements pass: a limit is no reason to stand still.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use datafusion::common::{DataFusionError, Result as DfResult};
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};
use datafusion::execution::runtime_env::RuntimeEnv;
use meta::{Rate, RateGroup, Tenant};
use model::TenantId;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::database::Database;
use crate::error::{Error, Result};
use crate::running::Running;

/// The buckets and the memory of the tenants of this node.
#[derive(Debug, Default)]
pub(crate) struct Quotas {
    buckets: Mutex<HashMap<(TenantId, RateGroup), Arc<Bucket>>>,
    memory: Mutex<HashMap<TenantId, Arc<AtomicUsize>>>,
}

/// How long a statement waits for tokens of the shared bucket before it passes without.
const PATIENCE: Duration = Duration::from_millis(300);
/// How long nobody asks again after that.
const PAUSE: Duration = Duration::from_secs(1);

type Bucket = Mutex<Tokens>;

#[derive(Debug)]
struct Tokens {
    rate: Rate,
    /// Below 0 where more was given than there was.
    left: i64,
    /// No meta member answered lately.
    unanswered: Option<Instant>,
}

impl Tokens {
    fn new(rate: Rate) -> Self {
        Self { rate, left: whole(rate.local_initial), unanswered: None }
    }

    /// Takes tokens where they are there, else returns how many to ask for.
    fn take(&mut self, rate: Rate, count: i64) -> Option<u64> {
        if self.rate != rate {
            *self = Self::new(rate);
        }
        if self.left >= count {
            self.left -= count;
            return None;
        }
        let missing = count.saturating_sub(self.left).unsigned_abs();
        Some(missing.saturating_add(rate.local_max))
    }
}

fn whole(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Asks in the name of a tenant.
#[derive(Clone, Debug)]
pub struct Admission {
    database: Arc<Database>,
    tenant: TenantId,
}

impl Admission {
    pub(crate) fn new(database: &Arc<Database>, tenant: TenantId) -> Self {
        Self { database: Arc::clone(database), tenant }
    }

    /// Takes `count` from what the tenant may still have of a group.
    ///
    /// # Errors
    /// 53400 where there is less.
    pub(crate) async fn take(&self, group: RateGroup, count: u64) -> Result<()> {
        let catalog = self.database.catalog();
        let Some(tenant) = catalog.tenant_by_id(self.tenant) else { return Ok(()) };
        let Some(rate) = tenant.rates.get(&group) else { return Ok(()) };
        let (rate, count) = (*rate, whole(count));
        let bucket = self.database.quotas().bucket((self.tenant, group), rate);
        let wanted = {
            let mut tokens = bucket.lock();
            match tokens.take(rate, count) {
                None => return Ok(()),
                Some(_) if tokens.unanswered.is_some_and(|at| at.elapsed() < PAUSE) => {
                    return Ok(());
                }
                Some(wanted) => wanted,
            }
        };
        // More than there can ever be is not asked for.
        let most = rate.remote_max.saturating_add(rate.local_max);
        if wanted <= most.saturating_add(rate.local_max) {
            let meta = self.database.meta();
            let drawn = tokio::time::timeout(PATIENCE, meta.draw(self.tenant, group, wanted)).await;
            let mut tokens = bucket.lock();
            let Ok(Ok(given)) = drawn else {
                tokens.unanswered = Some(Instant::now());
                return Ok(());
            };
            tokens.unanswered = None;
            tokens.left = tokens.left.saturating_add(whole(given));
            if tokens.take(rate, count).is_none() {
                return Ok(());
            }
            // What was given for nothing is not piled up.
            tokens.left = tokens.left.min(whole(rate.local_max));
        }
        let message = format!("tenant \"{}\" has used up its {}", tenant.name, group.name());
        Err(Error::new("53400", message).hint(format!(
            "it gets {} every {} ms, and {} at most at once",
            rate.remote_refill, rate.remote_interval_ms, rate.remote_max
        )))
    }

    /// Takes what was given already: what there is too little of is owed by the next request.
    fn owe(&self, group: RateGroup, count: u64) {
        let catalog = self.database.catalog();
        let rate = catalog.tenant_by_id(self.tenant).and_then(|one| one.rates.get(&group).copied());
        if let Some(rate) = rate {
            let bucket = self.database.quotas().bucket((self.tenant, group), rate);
            let mut tokens = bucket.lock();
            tokens.left = tokens.left.saturating_sub(whole(count));
        }
    }

    /// Takes a request over HTTP and the bytes of its body.
    ///
    /// # Errors
    /// 53400 where the tenant may ask for less.
    pub async fn request(&self, writes: bool, bytes: usize) -> Result<()> {
        let group = if writes { RateGroup::HttpWrites } else { RateGroup::HttpQueries };
        self.take(group, 1).await?;
        self.take(RateGroup::HttpDataOut, 0).await?;
        self.take(RateGroup::HttpDataIn, bytes as u64).await
    }

    /// Notes bytes of an answer over HTTP. What was done is answered: who had too much is refused later.
    pub fn answered(&self, bytes: usize) {
        self.owe(RateGroup::HttpDataOut, bytes as u64);
    }

    /// Lets a statement begin that is counted in a group.
    ///
    /// # Errors
    /// 53400 where its rate or the number of statements at once is used up.
    pub(crate) async fn statement(&self, running: &Running, group: RateGroup) -> Result<()> {
        let catalog = self.database.catalog();
        let tenant = catalog.tenant_by_id(self.tenant);
        if let Some(tenant) = tenant
            && let Some(most) = tenant.limits.statements
            && self.database.running().count_before(running) >= most as usize
        {
            let message = format!("tenant \"{}\" runs {most} statements already", tenant.name);
            return Err(Error::new("53400", message).hint("this is its max_running_statements"));
        }
        self.take(group, 1).await
    }
}

impl Quotas {
    fn bucket(&self, key: (TenantId, RateGroup), rate: Rate) -> Arc<Bucket> {
        let mut buckets = self.buckets.lock();
        let fresh = || Arc::new(Bucket::new(Tokens::new(rate)));
        Arc::clone(buckets.entry(key).or_insert_with(fresh))
    }

    /// Returns what a tenant's queries run in: with a share of the memory, where it has a limit.
    pub(crate) fn runtime(&self, shared: &Arc<RuntimeEnv>, tenant: &Tenant) -> Arc<RuntimeEnv> {
        let Some(most) = tenant.limits.query_memory else { return Arc::clone(shared) };
        let used = Arc::clone(self.memory.lock().entry(tenant.id).or_default());
        let pool = TenantPool {
            inner: Arc::clone(&shared.memory_pool),
            used,
            most: usize::try_from(most).unwrap_or(usize::MAX),
            tenant: tenant.name.clone(),
        };
        Arc::new(RuntimeEnv { memory_pool: Arc::new(pool), ..shared.as_ref().clone() })
    }
}

/// The memory of all queries, of which a tenant takes so much at most.
#[derive(Debug)]
struct TenantPool {
    inner: Arc<dyn MemoryPool>,
    used: Arc<AtomicUsize>,
    most: usize,
    tenant: String,
}

impl fmt::Display for TenantPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tenant {}: {} of {} bytes", self.tenant, self.reserved(), self.most)
    }
}

impl MemoryPool for TenantPool {
    fn name(&self) -> &'static str {
        "tenant"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.inner.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.inner.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.used.fetch_add(additional, Ordering::AcqRel);
        self.inner.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.used.fetch_sub(shrink, Ordering::AcqRel);
        self.inner.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> DfResult<()> {
        let more = |used: usize| used.checked_add(additional).filter(|sum| *sum <= self.most);
        if self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_err() {
            let (tenant, most) = (&self.tenant, self.most);
            let message = format!("the queries of tenant \"{tenant}\" take {most} bytes at most");
            return Err(DataFusionError::ResourcesExhausted(message));
        }
        let grown = self.inner.try_grow(reservation, additional);
        if grown.is_err() {
            self.used.fetch_sub(additional, Ordering::AcqRel);
        }
        grown
    }

    fn reserved(&self) -> usize {
        self.used.load(Ordering::Acquire)
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.most)
    }
}
