//! What a node does by itself: flush, close what is idle, drop what expired, remove what was dropped.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use meta::{Catalog, Command};
use model::time::Span;
use model::{TimeRange, VnodeId};
use replication::Purge;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::Cluster;
use crate::error::{Error, Result};
use crate::members::Seen;
use crate::vnodes::{HostedVnode, folder};

/// How often upkeep looks around by itself.
const ROUND: Duration = Duration::from_secs(1);
/// A vnode nobody used for so long is compacted to one run, before it is closed.
const COLD: Duration = Duration::from_secs(120);
/// How often one looks whether a dropped vnode is still in use.
const CLOSE_PAUSE: Duration = Duration::from_millis(20);
/// Rounds between two looks for replica sets whose lead may go back.
const BALANCE_ROUNDS: u32 = 3;
/// The next bucket is made when this share of the last is left, or less time.
const AHEAD_SHARE: i64 = 10;
const AHEAD_MAX_NS: i64 = 600 * 1_000_000_000;
/// Rounds between two looks for expired buckets, and for those that soon end.
const EXPIRY_ROUNDS: u32 = 60;

/// Wakes upkeep, and writers that wait for it.
#[derive(Debug, Default)]
pub(crate) struct Signals {
    wanted: Notify,
    done: Notify,
}

/// What this node holds of a database, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LocalSize {
    /// Vnodes open now.
    pub vnodes: usize,
    /// Bytes of their files.
    pub file_bytes: u64,
    /// Bytes of their rows in memory.
    pub memcache_bytes: usize,
}

/// What asks other nodes, beside the rounds, for they may not answer: one chore does not hold up another, and each
/// is done once at a time.
#[derive(Default)]
struct Chores {
    running: HashMap<&'static str, JoinHandle<()>>,
    seen: Arc<tokio::sync::Mutex<Seen>>,
}

impl Chores {
    /// Begins those that are due.
    fn begin(&mut self, cluster: &Arc<Cluster>, rounds: u32) {
        let seen = Arc::clone(&self.seen);
        self.begin_one("sleep", cluster, |node| async move { node.close_idle().await });
        self.begin_one("life", cluster, |node| async move { node.give_sign_of_life().await });
        self.begin_one("members", cluster, |node| async move { node.keep_members().await });
        self.begin_one("replace", cluster, |node| async move {
            node.replace_vnodes(&mut *seen.lock().await).await;
        });
        self.begin_one("compare", cluster, |node| async move { node.compare_due().await });
        self.begin_one("deliver", cluster, |node| async move { node.deliver().await });
        if rounds.is_multiple_of(BALANCE_ROUNDS) {
            self.begin_one("balance", cluster, |node| async move { node.balance_leaders().await });
        }
        if rounds >= EXPIRY_ROUNDS {
            self.begin_one("expire", cluster, |node| async move {
                node.drop_expired().await;
                node.make_buckets_ahead().await;
            });
        }
    }

    /// Begins one, unless it is still being done.
    fn begin_one<F: Future<Output = ()> + Send + 'static>(
        &mut self,
        name: &'static str,
        cluster: &Arc<Cluster>,
        work: impl FnOnce(Arc<Cluster>) -> F,
    ) {
        if self.running.get(name).is_none_or(JoinHandle::is_finished) {
            self.running.insert(name, tokio::spawn(work(Arc::clone(cluster))));
        }
    }

    /// Breaks them off.
    async fn end(self) {
        for (name, running) in self.running {
            running.abort();
            if running.await.is_err_and(|error| error.is_panic()) {
                tracing::error!(chore = name, "a chore of upkeep panicked");
            }
        }
    }
}

impl Signals {
    pub(crate) fn flush_wanted(&self) {
        self.wanted.notify_one();
    }

    /// Returns what completes after the next flush; take it before looking at the memory.
    pub(crate) fn flushed(&self) -> Notified<'_> {
        self.done.notified()
    }
}

/// Runs until told to stop.
pub(crate) async fn run(cluster: Arc<Cluster>, mut stop: oneshot::Receiver<()>) {
    let mut catalogs = cluster.meta.watch();
    let mut known = cluster.meta.catalog();
    let mut round = tokio::time::interval(ROUND);
    let mut rounds = 0_u32;
    // Beside the rounds: a compaction takes long, and flushes must not wait for it.
    let mut compacting: Option<JoinHandle<()>> = None;
    let mut chores = Chores::default();
    loop {
        tokio::select! {
            _ = &mut stop => break,
            _ = round.tick() => rounds += 1,
            () = cluster.signals.wanted.notified() => {}
            changed = catalogs.changed() => {
                if changed.is_err() {
                    break;
                }
                let fresh = Arc::clone(&catalogs.borrow_and_update());
                cluster.remove_dropped(&known, &fresh).await;
                known = fresh;
            }
        }
        cluster.flush_some().await;
        cluster.held.expire();
        if compacting.as_ref().is_none_or(JoinHandle::is_finished) {
            let cluster = Arc::clone(&cluster);
            compacting = Some(tokio::spawn(async move { cluster.compact_due(COLD).await }));
        }
        chores.begin(&cluster, rounds);
        if rounds >= EXPIRY_ROUNDS {
            rounds = 0;
        }
    }
    chores.end().await;
    if let Some(compacting) = compacting
        && let Err(error) = compacting.await
    {
        tracing::error!(%error, "a compaction panicked");
    }
}

impl Cluster {
    /// Flushes vnodes that are large, the largest where memory is short, and those that keep old
    /// segments of the log.
    async fn flush_some(&self) {
        let holders = self.wal.holders_of_oldest(self.config.wal_segments_max);
        let open = self.vnodes.open_now();
        for vnode in &holders {
            if !open.iter().any(|(member, _)| *member == vnode.0) {
                self.open_holder(*vnode).await;
            }
        }
        let mut due: Vec<_> = self.vnodes.open_now();
        let short = self.gauge.bytes() >= self.config.memcache_bytes_max / 2;
        let size = |hosted: &HostedVnode| hosted.beside.vnode.memcache_bytes();
        let largest = due.iter().map(|(_, hosted)| size(hosted)).max().unwrap_or(0);
        due.retain(|(member, hosted)| {
            let bytes = size(hosted);
            self.is_full(VnodeId(*member), bytes)
                || (short && bytes > 0 && bytes == largest)
                || holders.contains(&VnodeId(*member))
        });
        for (member, hosted) in due {
            // Who holds the oldest segment must let go of it, whatever others lack.
            let holds = holders.contains(&VnodeId(member));
            let purge = if holds { Purge::Covered } else { Purge::Replicated };
            if let Err(error) = hosted.group.snapshot(purge).await {
                tracing::error!(vnode = member, %error, "flush failed");
                drop(hosted);
                self.vnodes.discard_failed(member).await;
            }
            self.signals.done.notify_waiters();
        }
    }

    /// Returns whether a vnode holds so much in memory, or back from the log, that it is to be flushed.
    fn is_full(&self, vnode: VnodeId, bytes: usize) -> bool {
        let options = self.options_of(vnode);
        let most = options.and_then(|options| options.max_memcache_bytes);
        let most = most.map_or(usize::MAX, |most| usize::try_from(most).unwrap_or(usize::MAX));
        let log = options.and_then(|options| options.wal_max_file_bytes);
        bytes >= most.min(self.config.flush_bytes)
            || (bytes > 0 && log.is_some_and(|most| self.wal.log(vnode).bytes() > most))
    }

    /// Opens a vnode that nothing has used since the start, so that it can be flushed.
    async fn open_holder(&self, vnode: VnodeId) {
        if let Err(error) = self.vnode_by_id(vnode).await {
            tracing::error!(%vnode, %error, "a vnode that holds the log does not open");
        }
    }

    async fn drop_for_good(&self, command: &Command) {
        if let Err(error) = self.meta.submit(command).await {
            tracing::warn!(%error, "what was dropped stays for now");
        }
    }

    async fn drop_expired(&self) {
        let catalog = self.meta.catalog();
        let now = self.clock.now_ns();
        let due = |drop_at: Option<i64>| drop_at.filter(|at| *at <= now);
        for tenant in catalog.tenants() {
            if let Some(drop_at) = due(tenant.drop_at) {
                tracing::info!(tenant = tenant.name, "a dropped tenant's time is over");
                self.drop_for_good(&Command::DropHiddenTenant { tenant: tenant.id, drop_at }).await;
            }
        }
        for database in catalog.all_databases() {
            if let Some(drop_at) = due(database.drop_at) {
                tracing::info!(database = database.name, "a dropped database's time is over");
                let drop = Command::DropHiddenDatabase { database: database.id, drop_at };
                self.drop_for_good(&drop).await;
            }
        }
        for database in catalog.all_databases() {
            let Span::Ns(ttl) = database.options.ttl else { continue };
            let oldest = now.saturating_sub(ttl);
            for bucket in catalog.buckets(database.id, TimeRange { min: i64::MIN, max: oldest }) {
                if bucket.times.max >= oldest {
                    continue;
                }
                tracing::info!(database = database.name, bucket = %bucket.id, "bucket expired");
                let dropped = self.meta.submit(&Command::DropBucket { bucket: bucket.id }).await;
                if let Err(error) = dropped {
                    tracing::warn!(%error, "an expired bucket stays for now");
                }
            }
        }
    }

    /// Makes the next bucket of databases that are written to now, where this one soon ends: else all
    /// writers would wait for it at once.
    async fn make_buckets_ahead(&self) {
        let leads = self.meta.nodes().await.is_ok_and(|(leader, _)| leader == self.config.node);
        let (catalog, now) = (self.meta.catalog(), self.clock.now_ns());
        for database in catalog.all_databases().filter(|one| leads && one.drop_at.is_none()) {
            let Some(bucket) = catalog.bucket_of(database.id, now) else { continue };
            let ahead = (database.options.vnode_duration_ns / AHEAD_SHARE).min(AHEAD_MAX_NS);
            let time = bucket.times.max.saturating_add(1);
            let soon = time.saturating_sub(now) <= ahead;
            if !soon || catalog.bucket_of(database.id, time).is_some() {
                continue;
            }
            let create =
                Command::CreateBucket { database: database.id, time, nodes: Vec::new(), now };
            if let Err(error) = self.meta.submit(&create).await {
                tracing::debug!(database = database.name, %error, "no bucket is made ahead");
            }
        }
    }

    /// Removes vnodes that the older catalog has and the newer does not.
    async fn remove_dropped(&self, older: &Catalog, newer: &Catalog) {
        // Only what is known to be dropped: a set may be made, and written to, after this catalog.
        for (_, set) in older.replica_sets() {
            if newer.replica_set(set.id).is_none() {
                self.vnodes.forget(set.id);
            }
        }
        let kept = places(newer, self);
        for (vnode, folder) in places(older, self) {
            if !kept.contains_key(&vnode)
                && let Err(error) = self.remove_vnode(vnode, folder).await
            {
                tracing::error!(%vnode, %error, "a dropped vnode is left on disk");
            }
        }
    }

    async fn remove_vnode(&self, vnode: VnodeId, folder: PathBuf) -> Result<()> {
        self.held.unlock_vnode(vnode);
        while !self.vnodes.close(vnode).await {
            // A statement or compaction that began before the drop still holds it.
            tokio::time::sleep(CLOSE_PAUSE).await;
        }
        self.wal.forget(vnode).await?;
        let disk = Arc::clone(&self.disk);
        let removed = tokio::task::spawn_blocking(move || disk.remove_folder(&folder)).await;
        removed.map_err(Error::internal)?.map_err(Error::internal)
    }

    /// Removes folders and log entries of vnodes that the catalog does not know: they were dropped
    /// while this node was down, or the removal was interrupted.
    pub(crate) async fn remove_strangers(&self) -> Result<()> {
        let known = places(&self.meta.catalog(), self);
        for vnode in self.wal.vnodes_with_entries() {
            if !known.contains_key(&vnode) {
                self.wal.forget(vnode).await?;
            }
        }
        let known: BTreeSet<PathBuf> = known.into_values().collect();
        let (disk, root) = (Arc::clone(&self.disk), self.config.data_dir.clone());
        let removed = tokio::task::spawn_blocking(move || {
            for folder in vnode_folders(&*disk, root)? {
                if !known.contains(&folder) {
                    tracing::info!(folder = %folder.display(), "remove a dropped vnode");
                    disk.remove_folder(&folder)?;
                }
            }
            Ok::<_, std::io::Error>(())
        });
        removed.await.map_err(Error::internal)?.map_err(Error::internal)
    }

    /// Returns what the open vnodes of this node hold.
    pub async fn local_size(&self) -> LocalSize {
        let mut total = LocalSize::default();
        for (_, hosted) in self.vnodes.open_now() {
            let size = hosted.beside.vnode.size();
            total.vnodes += 1;
            total.file_bytes += size.file_bytes;
            total.memcache_bytes += size.memcache_bytes;
        }
        total
    }

    /// Writes all rows in memory to files.
    ///
    /// # Errors
    /// A vnode that cannot be flushed.
    pub async fn flush_all(&self) -> Result<()> {
        for (_, hosted) in self.vnodes.open_now() {
            hosted.group.snapshot(Purge::Covered).await?;
        }
        Ok(())
    }
}

/// Returns the vnodes of this node and their folders.
fn places(catalog: &Catalog, cluster: &Cluster) -> BTreeMap<VnodeId, PathBuf> {
    let mut places = BTreeMap::new();
    for bucket in catalog.all_buckets() {
        let Some(database) = catalog.database_by_id(bucket.database) else { continue };
        for set in &bucket.replica_sets {
            for place in set.vnodes.iter().filter(|place| place.node == cluster.config.node) {
                let ids = [
                    u64::from(database.tenant.0),
                    u64::from(database.id.0),
                    u64::from(bucket.id.0),
                    u64::from(set.id.0),
                    place.id.0,
                ];
                places.insert(place.id, folder(&cluster.config, ids));
            }
        }
    }
    places
}

/// Lists the folders of vnodes: five levels of numbers below the data directory.
fn vnode_folders(disk: &dyn tskv::disk::Disk, root: PathBuf) -> std::io::Result<Vec<PathBuf>> {
    let mut level = vec![root];
    for _ in 0..5 {
        let mut below = Vec::new();
        for folder in level {
            for name in disk.list(&folder)? {
                if name.bytes().all(|byte| byte.is_ascii_digit()) {
                    below.push(folder.join(name));
                }
            }
        }
        level = below;
    }
    Ok(level)
}
