//! What can be measured of the database at any moment, for those who watch it.

use std::collections::BTreeMap;

use crate::access::Need;
use crate::database::Database;
use crate::error::Result;
use crate::session::Session;

/// How a number changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MeasureKind {
    /// Up and down.
    Gauge,
    /// Up only, from the start of the process or of what is counted.
    Counter,
}

/// A number, what it is called and of what it is.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    /// How it changes.
    pub kind: MeasureKind,
    /// Its name, unit last.
    pub name: &'static str,
    /// One sentence on it.
    pub help: &'static str,
    /// Names and values that tell it from others of its name.
    pub labels: Vec<(&'static str, String)>,
    /// Its value now.
    pub value: f64,
}

impl Measure {
    /// A number that goes up and down.
    pub fn gauge(name: &'static str, help: &'static str, value: f64) -> Self {
        Self { kind: MeasureKind::Gauge, name, help, labels: Vec::new(), value }
    }

    /// A number that goes up only.
    pub fn counter(name: &'static str, help: &'static str, value: f64) -> Self {
        Self { kind: MeasureKind::Counter, name, help, labels: Vec::new(), value }
    }

    /// Bytes of memory, and who takes them.
    pub fn memory(consumer: &str, bytes: f64) -> Self {
        Self::gauge("memory_bytes", "Memory by who takes it", bytes).with("consumer", consumer)
    }

    /// Adds what tells it from others of its name.
    #[must_use]
    pub fn with(mut self, label: &'static str, value: &str) -> Self {
        self.labels.push((label, value.to_owned()));
        self
    }
}

/// What the vnodes of one database on this node add up to.
#[derive(Default)]
struct Files {
    vnodes: f64,
    files: f64,
    bytes: f64,
    tombstones: f64,
    series: f64,
    memcache: f64,
    flushed: f64,
    compacted: f64,
    compactions: f64,
}

impl Session {
    /// Refuses who may not watch the whole installation.
    ///
    /// # Errors
    /// 42501.
    pub fn check_watches(&self) -> Result<()> {
        self.check_password()?;
        self.check(Need::Administer)
    }
}

impl Database {
    /// Measures this node.
    pub async fn measures(&self) -> Vec<Measure> {
        let catalog = self.catalog();
        let count = |kind: &str, count: usize| {
            Measure::gauge("catalog_objects", "Objects of the catalog", count as f64)
                .with("kind", kind)
        };
        let databases: Vec<_> = catalog.all_databases().cloned().collect();
        let tables = databases.iter().map(|database| catalog.tables(database.id).count()).sum();
        let pool = &self.template().runtime_env().memory_pool;
        let mut measures = vec![
            count("tenant", catalog.tenants().count()),
            count("user", catalog.users().count()),
            count("database", databases.len()),
            count("table", tables),
            count("bucket", catalog.all_buckets().count()),
            count("node", catalog.nodes().count()),
            Measure::gauge(
                "running_statements",
                "Statements that run now",
                self.running().count() as f64,
            ),
        ];
        let storage = self.cluster().storage_memory();
        measures.extend(
            [
                ("queries", pool.reserved()),
                ("memcache", storage.memcache),
                ("log_tail", storage.log_tail),
                ("series_cache", storage.series_cache),
                ("decoded_cache", storage.decoded_cache),
            ]
            .map(|(consumer, bytes)| Measure::memory(consumer, bytes as f64)),
        );
        measures.extend(self.catalog_measures());
        measures.extend(self.cache_measures());
        measures.extend(self.group_measures().await);
        for (kind, ended) in self.running().ended() {
            let (count, seconds) = (ended.count as f64, ended.seconds);
            measures.extend(
                [
                    Measure::counter("statements", "Statements that have ended", count),
                    Measure::counter("statement_seconds", "How long they took", seconds),
                ]
                .map(|measure| measure.with("kind", kind)),
            );
        }
        measures.extend(self.wal_measures());
        measures.extend(self.vnode_measures().await);
        measures
    }

    /// Measures this node's part in the catalog, where it has one.
    fn catalog_measures(&self) -> Vec<Measure> {
        let Some((status, bytes)) = self.meta().member() else { return Vec::new() };
        let leads = status.leader.is_some_and(|(_, node)| node == self.cluster().node());
        let of = |name, help, value| Measure::gauge(name, help, value);
        vec![
            Measure::memory("catalog", bytes as f64),
            of("meta_leads", "Whether this node leads the catalog", f64::from(u8::from(leads))),
            of("meta_term", "The term of the catalog's group", status.term as f64),
            of(
                "meta_unapplied_entries",
                "Entries of the catalog's log not applied here",
                status.unapplied() as f64,
            ),
            of(
                "meta_behind_entries",
                "Entries that the slowest member lacks, as the leader knows",
                if leads { status.behind() as f64 } else { 0.0 },
            ),
        ]
    }

    fn cache_measures(&self) -> impl Iterator<Item = Measure> {
        let series = self.cluster().series_cache_totals();
        let plans = self.plans().totals();
        let caches = [
            ("series", series.keys as f64, series.hits as f64, series.misses as f64),
            ("plans", plans.kinds as f64, plans.hits as f64, plans.misses as f64),
        ];
        caches.into_iter().flat_map(|(cache, keys, hits, misses)| {
            [
                Measure::gauge("cache_keys", "What a cache holds", keys),
                Measure::counter("cache_hits", "Questions a cache answered", hits),
                Measure::counter("cache_misses", "Questions it did not", misses),
            ]
            .map(|measure| measure.with("cache", cache))
        })
    }

    async fn group_measures(&self) -> Vec<Measure> {
        let catalog = self.catalog();
        let mut measures = Vec::new();
        for (database, totals) in self.cluster().group_totals().await {
            let Some(database) = catalog.database_by_id(database) else { continue };
            let tenant = catalog.tenant_by_id(database.tenant).map_or("", |tenant| &tenant.name);
            let labeled =
                |measure: Measure| measure.with("tenant", tenant).with("database", &database.name);
            let roles = [
                ("leader", totals.led),
                ("follower", totals.followed),
                ("leaderless", totals.leaderless),
            ];
            measures.extend(roles.map(|(role, count)| {
                let help = "Raft groups open on this node, by its part in them";
                labeled(Measure::gauge("raft_groups", help, count as f64)).with("role", role)
            }));
            let of = |name, help, value: u64| labeled(Measure::gauge(name, help, value as f64));
            measures.extend([
                of("raft_terms", "Terms of the groups added up: elections", totals.terms),
                of("raft_unapplied_entries", "Entries not applied here", totals.unapplied),
                of(
                    "raft_behind_entries",
                    "Entries that the slowest members of groups led here lack",
                    totals.behind,
                ),
            ]);
        }
        measures
    }

    fn wal_measures(&self) -> [Measure; 4] {
        let totals = self.cluster().wal_totals();
        let seconds = totals.sync_ns as f64 / 1e9;
        [
            Measure::counter("wal_syncs", "Groups made durable by one fsync", totals.syncs as f64),
            Measure::counter("wal_sync_seconds", "How long they took", seconds),
            Measure::counter("wal_requests", "Requests that were in them", totals.requests as f64),
            Measure::counter("wal_bytes", "Bytes that were in them", totals.bytes as f64),
        ]
    }

    async fn vnode_measures(&self) -> Vec<Measure> {
        let catalog = self.catalog();
        let mut sums: BTreeMap<(String, String), Files> = BTreeMap::new();
        for one in self.cluster().files_here().await {
            let Some(database) = catalog.database_by_id(one.database) else { continue };
            let tenant = catalog.tenant_by_id(database.tenant).map(|tenant| tenant.name.clone());
            let key = (tenant.unwrap_or_default(), database.name.clone());
            let sum = sums.entry(key).or_default();
            sum.vnodes += 1.0;
            sum.files += one.size.files as f64;
            sum.bytes += one.size.file_bytes as f64;
            sum.tombstones += one.size.tombstones as f64;
            sum.series += one.size.series as f64;
            sum.memcache += one.size.memcache_bytes as f64;
            sum.flushed += one.flushed_bytes as f64;
            sum.compacted += one.compacted_bytes as f64;
            sum.compactions += one.compactions as f64;
        }
        let mut measures = Vec::new();
        for ((tenant, database), sum) in sums {
            let labeled =
                |measure: Measure| measure.with("tenant", &tenant).with("database", &database);
            let of = |name, help, value| labeled(Measure::gauge(name, help, value));
            let since = |name, help, value| labeled(Measure::counter(name, help, value));
            measures.extend([
                of("vnodes_open", "Vnodes open on this node", sum.vnodes),
                of("tsm_files", "TSM files of open vnodes", sum.files),
                of("tsm_bytes", "Bytes of the TSM files of open vnodes", sum.bytes),
                of("tombstones", "Tombstones of open vnodes", sum.tombstones),
                of("series", "Series of open vnodes", sum.series),
                of("memcache_bytes", "Bytes of rows not yet in a file", sum.memcache),
                since("flushed_bytes", "Bytes flushed since vnodes were opened", sum.flushed),
                since("compacted_bytes", "Bytes compacted since vnodes were opened", sum.compacted),
                since("compactions", "Compactions since vnodes were opened", sum.compactions),
            ]);
        }
        measures
    }
}
