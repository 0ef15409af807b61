//! Writes routed over buckets and shards are read back, across flushes, restarts and drops.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use arrow::array::{AsArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, TimestampNanosecondType};
use cluster::{Cluster, ClusterConfig, ClusterNode, Consistency, ReadFrom};
use meta::{Command, DatabaseChange, MetaNode, NewNode, NodeRoles};
use model::clock::SetClock;
use model::points::{PointsColumn, SeriesDictionary};
use model::time::Span;
use model::{ColumnId, DatabaseId, NodeId, Points, SeriesKey, TableId, TimeRange, ValueType};
use tskv::disk::OsDisk;
use tskv::wal::WalConfig;
use tskv::{ScanColumn, ScanRequest, SeriesFilter};

const TABLE: TableId = TableId(1);
const TAG: ColumnId = ColumnId(1);
const FIELD: ColumnId = ColumnId(2);
const DAY: i64 = 86_400_000_000_000;

fn new_node() -> NewNode {
    NewNode {
        identity: "test".to_owned(),
        known_as: None,
        addr: String::new(),
        name: "test".to_owned(),
        zone: String::new(),
        roles: NodeRoles { meta: true, data: true, query: true },
    }
}

struct TestNode {
    meta: MetaNode,
    node: ClusterNode,
    clock: Arc<SetClock>,
}

impl TestNode {
    async fn start(folder: &Path) -> Self {
        let meta = MetaNode::open_alone(&folder.join("meta"), NodeId(1)).await.unwrap();
        let client = meta.client();
        client.submit(&Command::Bootstrap { verifier: None }).await.unwrap();
        client.submit(&Command::RegisterNode(new_node())).await.unwrap();
        let config = ClusterConfig {
            data_dir: folder.to_path_buf(),
            node: NodeId(1),
            memcache_bytes_max: 1 << 20,
            flush_bytes: 1 << 18,
            series_cache_bytes: 1 << 20,
            decoded_cache_bytes: 1 << 20,
            wal_segments_max: 4,
            wal: WalConfig { segment_bytes: 1 << 16, ..WalConfig::default() },
            node_silence: Duration::from_secs(5),
            rebuild_after: Duration::from_secs(60),
            balance_after: Duration::from_secs(60),
            compare_after: None,
            hand_off_bytes_max: 1 << 20,
            hand_off_max: Duration::from_secs(60),
            idle_after: Duration::from_secs(300),
        };
        let clock = Arc::new(SetClock::new(0));
        let node = ClusterNode::open(
            config,
            client,
            (Arc::new(OsDisk), Arc::<SetClock>::clone(&clock)),
            None,
        )
        .await
        .unwrap();
        Self { meta, node, clock }
    }

    async fn stop(self) {
        self.node.close().await;
        self.meta.close().await;
    }

    fn database(&self) -> DatabaseId {
        let catalog = self.meta.client().catalog();
        let tenant = catalog.tenant("cnosdb").unwrap().id;
        catalog.database(tenant, "public").unwrap().id
    }

    fn cluster(&self) -> Arc<Cluster> {
        self.node.cluster()
    }

    async fn write(&self, rows: &[(u32, i64, i64)]) {
        self.cluster().write(self.database(), points(rows), Consistency::Quorum).await.unwrap();
    }

    async fn rows(&self) -> BTreeMap<(i64, i64), usize> {
        let schema = Schema::new(vec![
            Field::new("time", model::schema::time_type(), false),
            Field::new("f", DataType::Int64, true),
        ]);
        let request = ScanRequest {
            table: TABLE,
            columns: vec![ScanColumn::Time, ScanColumn::Field(FIELD, ValueType::I64)],
            schema: Arc::new(schema),
            times: TimeRange::ALL,
            filter: SeriesFilter::default(),
            values: Vec::new(),
            order: vec![TAG],
        };
        let mut rows = BTreeMap::new();
        for mut part in
            self.cluster().scan(self.database(), &request, ReadFrom::Leader).await.unwrap().parts
        {
            while let Some(batch) = part.scan.next_batch().unwrap() {
                let times = batch.column(0).as_primitive::<TimestampNanosecondType>();
                let values = batch.column(1).as_primitive::<Int64Type>();
                for row in 0..batch.num_rows() {
                    *rows.entry((times.value(row), values.value(row))).or_default() += 1;
                }
            }
        }
        rows
    }
}

fn points(rows: &[(u32, i64, i64)]) -> Points {
    let mut series = SeriesDictionary::default();
    let row_series = rows.iter().map(|(host, _, _)| {
        let host = host.to_string();
        series.number(SeriesKey::encode(TABLE, [(TAG, Some(host.as_str()))].into_iter()).as_bytes())
    });
    let row_series = row_series.collect();
    let values = Int64Array::from_iter_values(rows.iter().map(|row| row.2));
    Points {
        table: TABLE,
        series: series.into_keys(),
        row_series,
        times: rows.iter().map(|row| row.1).collect(),
        fields: vec![PointsColumn {
            id: FIELD,
            value_type: ValueType::I64,
            values: Arc::new(values),
        }],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_over_many_buckets_and_shards_come_back_once_after_flushes_and_restarts() {
    let folder = tempfile::tempdir().unwrap();
    let mut node = TestNode::start(folder.path()).await;
    let database = node.database();
    for change in [DatabaseChange::Shards(3), DatabaseChange::VnodeDuration(DAY)] {
        let alter = Command::AlterDatabase { database, change };
        node.meta.client().submit(&alter).await.unwrap();
    }
    let mut expected = BTreeMap::new();
    for round in 0..6_i64 {
        let rows: Vec<(u32, i64, i64)> = (0..4_000)
            .map(|n| (n % 50, i64::from(n) % 5 * DAY + i64::from(n), i64::from(n) + round))
            .collect();
        node.write(&rows).await;
        expected = rows.iter().map(|(_, time, value)| ((*time, *value), 1)).collect();
        if round == 2 {
            node.cluster().flush_all().await.unwrap();
        }
        if round % 2 == 1 {
            node.stop().await;
            node = TestNode::start(folder.path()).await;
        }
        assert_eq!(node.rows().await, expected, "round {round}");
    }
    node.cluster().flush_all().await.unwrap();
    assert_eq!(node.rows().await, expected);
    node.stop().await;
}

/// Drives a future until it is woken the given number of times, and drops it then.
async fn broken_off<F: Future>(future: F, after: u32) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    let mut left = after;
    std::future::poll_fn(|context| {
        let Some(fewer) = left.checked_sub(1) else { return Poll::Ready(None) };
        left = fewer;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_of_buckets_that_broke_off_anywhere_is_carried_on_by_who_writes() {
    let folder = tempfile::tempdir().unwrap();
    let node = TestNode::start(folder.path()).await;
    let database = node.database();
    let change = DatabaseChange::Shards(3);
    node.meta.client().submit(&Command::AlterDatabase { database, change }).await.unwrap();
    let mut expected = BTreeMap::new();
    let mut has_ended = 0;
    for round in 0..12_i64 {
        // The rows are around the end that is asked for.
        let rows: Vec<_> = (0..30).map(|n| (n as u32, round * 100 + n, n)).collect();
        node.write(&rows[..20]).await;
        node.clock.set(round * 100 + 10);
        let cluster = node.cluster();
        let ended = broken_off(cluster.end_hot_buckets(None), round as u32).await;
        has_ended += u32::from(ended.is_some_and(|ended| !ended.unwrap().is_empty()));
        node.write(&rows[10..]).await;
        expected.extend(rows.iter().map(|(_, time, value)| ((*time, *value), 1)));
        assert_eq!(node.rows().await, expected, "round {round}");
    }
    assert!(has_ended > 0, "none was carried through");
    let catalog = node.meta.client().catalog();
    let buckets = catalog.buckets(database, TimeRange::ALL);
    assert!(buckets.len() > 3, "{} buckets", buckets.len());
    assert!(buckets.windows(2).all(|pair| pair[0].times.max < pair[1].times.min));
    assert!(buckets.iter().all(|bucket| bucket.ending.is_none() || bucket.times.max > 1_100));
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_with_a_row_at_its_last_instant_cannot_end_before_and_takes_rows_on() {
    let folder = tempfile::tempdir().unwrap();
    let node = TestNode::start(folder.path()).await;
    node.write(&[(1, 5, 0)]).await;
    let bucket_of = |time| node.meta.client().catalog().bucket_of(node.database(), time).cloned();
    let bucket = bucket_of(5).unwrap();
    node.write(&[(1, bucket.times.max, 1)]).await;
    node.clock.set(10);
    let ended = node.cluster().end_hot_buckets(None).await.unwrap();
    assert_eq!(ended[0].until, Some(bucket.times.max));
    node.write(&[(1, 20, 2)]).await;
    assert_eq!(bucket_of(20).unwrap().id, bucket.id);
    assert_eq!(node.rows().await.len(), 3);
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_wait_for_memory_and_all_rows_arrive() {
    let folder = tempfile::tempdir().unwrap();
    let node = Arc::new(TestNode::start(folder.path()).await);
    let writers = (0..4_i64).map(|writer| {
        let node = Arc::clone(&node);
        tokio::spawn(async move {
            for batch in 0..20_i64 {
                let rows: Vec<_> = (0..2_000_i64)
                    .map(|n| (n as u32 % 9, (batch * 4 + writer) * 2_000 + n, n))
                    .collect();
                node.write(&rows).await;
            }
        })
    });
    for writer in writers.collect::<Vec<_>>() {
        writer.await.unwrap();
    }
    assert_eq!(node.rows().await.len(), 160_000);
    assert!(node.cluster().local_size().await.file_bytes > 0, "memory was freed by flushing");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compaction_that_is_asked_for_amid_another_covers_what_came_between() {
    let folder = tempfile::tempdir().unwrap();
    let node = TestNode::start(folder.path()).await;
    let (database, cluster) = (node.database(), node.cluster());
    let rows = |round: i64| -> Vec<(u32, i64, i64)> {
        (0..1_000_i64).map(|n| (n as u32 % 9, round * 1_000 + n, n)).collect()
    };
    for round in 0..30_i64 {
        node.write(&rows(2 * round)).await;
        let first = tokio::spawn({
            let cluster = Arc::clone(&cluster);
            async move { cluster.compact(database, None).await }
        });
        node.write(&rows(2 * round + 1)).await;
        cluster.compact(database, None).await.unwrap();
        first.await.unwrap().unwrap();
    }
    assert_eq!(node.rows().await.len(), 60_000);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_database_leaves_no_file_and_no_log_entry() {
    let folder = tempfile::tempdir().unwrap();
    let node = TestNode::start(folder.path()).await;
    let client = node.meta.client();
    let tenant = client.catalog().tenant("cnosdb").unwrap().id;
    let options = client.catalog().database_by_id(node.database()).unwrap().options;
    let name = "d".to_owned();
    client.submit(&Command::CreateDatabase { tenant, name, options }).await.unwrap();
    let database = client.catalog().database(tenant, "d").unwrap().id;
    node.cluster().write(database, points(&[(1, 1, 1)]), Consistency::Quorum).await.unwrap();
    let path = folder.path().join(tenant.to_string()).join(database.to_string());
    let bucket = |path: &Path| std::fs::read_dir(path).map_or(0, Iterator::count);
    assert_eq!(bucket(&path), 1);
    client.submit(&Command::DropDatabase { database }).await.unwrap();
    node.stop().await;
    let node = TestNode::start(folder.path()).await;
    let left = walk(&path);
    assert!(left.iter().all(|path| path.is_dir()), "{left:?}");
    node.stop().await;
}

fn walk(path: &Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    let below = entries.flatten().map(|entry| entry.path());
    below.flat_map(|path| [vec![path.clone()], walk(&path)].concat()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_option_of_life_time_is_kept_with_the_database() {
    let folder = tempfile::tempdir().unwrap();
    let node = TestNode::start(folder.path()).await;
    let database = node.database();
    let change = DatabaseChange::Ttl(Span::Ns(DAY));
    node.meta.client().submit(&Command::AlterDatabase { database, change }).await.unwrap();
    node.clock.set(3 * DAY);
    let catalog = node.meta.client().catalog();
    assert_eq!(catalog.database_by_id(database).unwrap().options.ttl, Span::Ns(DAY));
    node.stop().await;
}
