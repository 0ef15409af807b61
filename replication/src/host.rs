//! The groups of a process: opened when first needed, closed when idle, reopened after a failure.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use crate::error::{Error, Result};
use crate::group::{Group, GroupConfig};
use crate::network::HoldsGroup;

/// How long a group that failed stays closed, first time and at most.
const BACK_OFF_FIRST: Duration = Duration::from_millis(200);
const BACK_OFF_MOST: Duration = Duration::from_secs(30);

/// All groups of this process, by member id. `T` is what the owner keeps beside a group.
#[derive(Debug)]
pub struct RaftHost<T> {
    config: GroupConfig,
    slots: Mutex<HashMap<u64, Arc<AsyncMutex<Slot<T>>>>>,
}

#[derive(Debug)]
struct Slot<T> {
    open: Option<Arc<Hosted<T>>>,
    failures: u32,
    closed_until: Option<Instant>,
    /// What is damaged, where it did not open for that.
    damage: Option<String>,
}

/// An open group and what its owner keeps beside it.
#[derive(Debug)]
pub struct Hosted<T> {
    /// The group.
    pub group: Group,
    /// The owner's.
    pub beside: T,
}

impl<T: Send + Sync> HoldsGroup for Hosted<T> {
    fn group(&self) -> &Group {
        &self.group
    }
}

impl<T: Send + Sync + 'static> RaftHost<T> {
    /// Makes a host without groups.
    pub fn new(config: GroupConfig) -> Self {
        Self { config, slots: Mutex::new(HashMap::new()) }
    }

    fn slot(&self, member: u64) -> Arc<AsyncMutex<Slot<T>>> {
        let mut slots = self.slots.lock();
        let fresh = || Slot { open: None, failures: 0, closed_until: None, damage: None };
        Arc::clone(slots.entry(member).or_insert_with(|| Arc::new(AsyncMutex::new(fresh()))))
    }

    /// Returns the group of a member, opening it where it is not open. One that failed is opened
    /// again, at growing intervals. What was begun is ended, also where whoever asked for it is gone: it may
    /// take longer than anybody waits, and a group half open must not meet itself.
    ///
    /// # Errors
    /// What `open` says; `NotReady` while a failed group waits.
    pub async fn get<F>(
        &self,
        member: u64,
        open: impl FnOnce(GroupConfig) -> F,
    ) -> Result<Arc<Hosted<T>>>
    where
        F: Future<Output = Result<Hosted<T>>> + Send + 'static,
    {
        let mut slot = self.slot(member).lock_owned().await;
        if let Some(hosted) = &slot.open {
            let Some(failure) = hosted.group.failure() else { return Ok(Arc::clone(hosted)) };
            tracing::error!(member, failure, "a raft group stopped and is opened again");
            slot.open = None;
            slot.fail();
        }
        if let Some(until) = slot.closed_until
            && Instant::now() < until
        {
            let waits = || Error::NotReady(format!("member {member} failed and waits"));
            return Err(slot.damage.clone().map_or_else(waits, Error::Damaged));
        }
        let opening = open(self.config.clone());
        let opened = tokio::spawn(async move {
            match opening.await {
                Ok(hosted) => {
                    let hosted = Arc::new(hosted);
                    (slot.open, slot.damage) = (Some(Arc::clone(&hosted)), None);
                    Ok(hosted)
                }
                Err(error) => {
                    tracing::error!(member, %error, "a raft group does not open");
                    slot.fail();
                    slot.damage = match &error {
                        Error::Damaged(damage) => Some(damage.clone()),
                        _ => None,
                    };
                    Err(error)
                }
            }
        });
        opened.await.unwrap_or_else(|panicked| Err(Error::Stopped(panicked.to_string())))
    }

    /// Returns the members that were ever opened.
    pub fn members(&self) -> Vec<u64> {
        self.slots.lock().keys().copied().collect()
    }

    /// Returns the groups that are open now; those that are being opened or closed are left out.
    pub fn open_groups(&self) -> Vec<(u64, Arc<Hosted<T>>)> {
        let slots = self.slots.lock();
        let open = slots.iter().filter_map(|(member, slot)| {
            let slot = slot.try_lock().ok()?;
            slot.open.as_ref().map(|hosted| (*member, Arc::clone(hosted)))
        });
        open.collect()
    }

    /// Returns the members that do not open, for what they hold is damaged.
    pub fn damaged(&self) -> Vec<u64> {
        let slots = self.slots.lock();
        let is_damaged = |slot: &Arc<AsyncMutex<Slot<T>>>| {
            slot.try_lock().is_ok_and(|slot| slot.open.is_none() && slot.damage.is_some())
        };
        slots.iter().filter(|(_, slot)| is_damaged(slot)).map(|(member, _)| *member).collect()
    }

    /// Returns the group of a member where it is open.
    pub async fn open_group(&self, member: u64) -> Option<Arc<Hosted<T>>> {
        let slot = self.slots.lock().get(&member).map(Arc::clone)?;
        let slot = slot.lock().await;
        slot.open.as_ref().map(Arc::clone)
    }

    /// Lets go of a group that has stopped, so that its memory is free and the next use opens it anew.
    pub async fn discard_failed(&self, member: u64) {
        let slot = self.slot(member);
        let mut slot = slot.lock().await;
        if let Some(failure) = slot.open.as_ref().and_then(|hosted| hosted.group.failure()) {
            tracing::error!(member, failure, "a raft group stopped");
            slot.open = None;
            slot.fail();
        }
    }

    /// Closes a group once nobody else holds it. Returns false where somebody does. What was begun is ended.
    pub async fn close(&self, member: u64) -> bool {
        let mut slot = self.slot(member).lock_owned().await;
        let Some(hosted) = slot.open.take() else { return true };
        match Arc::try_unwrap(hosted) {
            Ok(hosted) => {
                let closing = tokio::spawn(async move {
                    hosted.group.close().await;
                    drop(slot);
                });
                if closing.await.is_err() {
                    tracing::error!(member, "the closing of a raft group panicked");
                }
                true
            }
            Err(used) => {
                slot.open = Some(used);
                false
            }
        }
    }
}

impl<T> Slot<T> {
    fn fail(&mut self) {
        let wait = BACK_OFF_FIRST.saturating_mul(1 << self.failures.min(10)).min(BACK_OFF_MOST);
        self.failures += 1;
        self.closed_until = Some(Instant::now() + wait);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use futures::FutureExt;
    use tokio::sync::Notify;

    use super::*;

    #[tokio::test]
    async fn an_opening_goes_on_where_whoever_asked_for_it_is_gone() {
        let host = RaftHost::<()>::new(GroupConfig::alone());
        let (begun, ended) = (Arc::new(AtomicU32::new(0)), Arc::new(Notify::new()));
        let open = |_| {
            let (begun, ended) = (Arc::clone(&begun), Arc::clone(&ended));
            async move {
                begun.fetch_add(1, Ordering::SeqCst);
                ended.notified().await;
                Err(Error::NotReady("as the test wants it".to_owned()))
            }
        };
        assert!(host.get(1, open).now_or_never().is_none());
        tokio::task::yield_now().await;
        ended.notify_one();
        assert!(host.get(1, open).await.is_err());
        assert_eq!(begun.load(Ordering::SeqCst), 1, "it was opened to its end, once");
    }
}
