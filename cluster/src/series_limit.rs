//! The limit on a tenant's series: looked at by whoever leads, before rows are proposed, so that replicas
//! never disagree about it.
//!
//! Counted are the series of the tenant's vnodes on this node, one that is in several buckets once for
//! each: that is what memory and disk have to hold. What others propose at the same moment counts too.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use model::{TenantId, VnodeId};
use parking_lot::Mutex;

use crate::Cluster;
use crate::error::{Error, Result};
use crate::vnodes::HostedVnode;

/// What is known of the series of this node's vnodes.
#[derive(Debug, Default)]
pub(crate) struct KnownSeries {
    /// Of vnodes that are closed.
    closed: Mutex<HashMap<VnodeId, usize>>,
    /// Of rows that are being proposed, by tenant.
    proposed: Arc<Mutex<HashMap<TenantId, usize>>>,
}

/// New series that are being proposed; they count until this is dropped.
#[derive(Debug)]
pub(crate) struct Reserved {
    proposed: Arc<Mutex<HashMap<TenantId, usize>>>,
    tenant: TenantId,
    count: usize,
}

impl KnownSeries {
    /// Notes the series of a vnode that is about to be closed.
    pub(crate) fn note(&self, vnode: VnodeId, count: usize) {
        self.closed.lock().insert(vnode, count);
    }

    fn reserve(&self, tenant: TenantId, count: usize) -> (Reserved, usize) {
        let mut proposed = self.proposed.lock();
        let all = proposed.entry(tenant).or_default();
        *all += count;
        (Reserved { proposed: Arc::clone(&self.proposed), tenant, count }, *all)
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let mut proposed = self.proposed.lock();
        let left = proposed.get(&self.tenant).copied().unwrap_or(0).saturating_sub(self.count);
        if left == 0 {
            proposed.remove(&self.tenant);
        } else {
            proposed.insert(self.tenant, left);
        }
    }
}

impl Cluster {
    /// Refuses a command with new series that the tenant may not have.
    ///
    /// # Errors
    /// `SeriesLimit`; vnodes of the tenant that do not open.
    pub(crate) async fn reserve_series(
        &self,
        hosted: &Arc<HostedVnode>,
        command: &Bytes,
    ) -> Result<Option<Reserved>> {
        let catalog = self.meta.catalog();
        let vnode = hosted.beside.vnode.id();
        let set = catalog.replica_set_of(vnode);
        let database = set.and_then(|(bucket, _)| catalog.database_by_id(bucket.database));
        let tenant = database.and_then(|database| catalog.tenant_by_id(database.tenant));
        let Some(tenant) = tenant else { return Ok(None) };
        let Some(max) = tenant.limits.series else { return Ok(None) };
        let (storage, command) = (Arc::clone(&hosted.beside.vnode), command.clone());
        let counted = tokio::task::spawn_blocking(move || storage.new_series(&command));
        let fresh = counted.await.map_err(Error::internal)??;
        if fresh == 0 {
            return Ok(None);
        }
        // Before one counts: of two who write at once none passes unseen.
        let (reserved, proposed) = self.known_series.reserve(tenant.id, fresh);
        let held = self.series_of(tenant.id).await?;
        let wanted = (held + proposed) as u64;
        if wanted <= max {
            return Ok(Some(reserved));
        }
        Err(Error::SeriesLimit { tenant: tenant.name.clone(), max, wanted })
    }

    /// Counts the series of a tenant's vnodes here; those that nobody opened since the start are opened.
    async fn series_of(&self, tenant: TenantId) -> Result<usize> {
        let catalog = self.meta.catalog();
        let of_tenant = |database| {
            catalog.database_by_id(database).is_some_and(|database| database.tenant == tenant)
        };
        let buckets = catalog.all_buckets().filter(|bucket| of_tenant(bucket.database));
        let sets = buckets.flat_map(|bucket| &bucket.replica_sets);
        let here = sets.flat_map(|set| &set.vnodes).filter(|one| one.node == self.config.node);
        let mut counts: HashMap<VnodeId, Option<usize>> = {
            let closed = self.known_series.closed.lock();
            here.map(|place| (place.id, closed.get(&place.id).copied())).collect()
        };
        for (member, hosted) in self.vnodes.open_now() {
            if let Some(count) = counts.get_mut(&VnodeId(member)) {
                *count = Some(hosted.beside.vnode.series());
            }
        }
        let mut all = 0;
        for (vnode, count) in counts {
            all += match count {
                Some(count) => count,
                None => self.vnode_by_id(vnode).await?.beside.vnode.series(),
            };
        }
        Ok(all)
    }
}
