//! SHOW and DESCRIBE: what there is, as small tables of text.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use meta::DatabaseOptions;
use model::ColumnKind;
use model::size::bytes_in_words;
use model::time::{Span, span_in_words};

use crate::access::{Need, Object};
use crate::error::{Error, Result};
use crate::jobs;
use crate::nodes;
use crate::output::Output;
use crate::policies;
use crate::running;
use crate::session::Session;
use crate::sql::{Compacted, Show};

/// What a database is told to do, as columns.
pub(crate) const OPTIONS: [&str; 11] = [
    "ttl",
    "shard",
    "vnode_duration",
    "replica",
    "precision",
    "max_memcache_size",
    "memcache_partitions",
    "wal_max_file_size",
    "wal_sync",
    "strict_write",
    "max_cache_readers",
];

/// Returns the values of [`OPTIONS`].
pub(crate) fn options_in_words(options: &DatabaseOptions) -> Vec<String> {
    vec![
        span_in_words(options.ttl),
        options.shards.to_string(),
        span_in_words(Span::Ns(options.vnode_duration_ns)),
        options.replicas.to_string(),
        options.precision.sql().to_owned(),
        options.max_memcache_bytes.map(bytes_in_words).unwrap_or_default(),
        options.memcache_partitions.unwrap_or(1).to_string(),
        options.wal_max_file_bytes.map(bytes_in_words).unwrap_or_default(),
        "true".to_owned(),
        options.strict_write.to_string(),
        options.max_cache_readers.map(|count| count.to_string()).unwrap_or_default(),
    ]
}

/// Returns the columns of what is shown.
pub(crate) fn schema(shown: &Show) -> SchemaRef {
    let names: &[&str] = match shown {
        Show::Ddl(_) => &["ddl"],
        Show::Databases => &["database_name"],
        Show::Tables(_) => &["table_name"],
        Show::Tenants => &["tenant_name", "comment"],
        Show::Users => &["user_name", "is_admin", "comment"],
        Show::Database(_) => &OPTIONS,
        Show::Table(_) => &["column_name", "data_type", "column_type", "compression_codec"],
        Show::Compactions => &[
            "vnode_id",
            "database_name",
            "state",
            "files",
            "file_bytes",
            "tombstones",
            "flushed_bytes",
            "compacted_bytes",
            "compactions",
            "write_amplification",
        ],
        Show::Queries => &running::COLUMNS,
        Show::Series(_) => &["key"],
        Show::TagValues(..) => &["key", "value"],
        Show::TagKeys(..) => &["table_name", "key"],
        Show::FieldKeys(..) => &["table_name", "key", "data_type"],
        Show::Nodes => &nodes::NODES,
        Show::Replicas => &nodes::REPLICAS,
        Show::Vnodes => &nodes::VNODES,
        Show::Jobs => &jobs::COLUMNS,
        Show::Policies => &policies::COLUMNS,
        Show::Setting(name) => &[name.as_str()],
        Show::Settings => &["name", "setting"],
    };
    let fields: Vec<Field> =
        names.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect();
    Arc::new(Schema::new(fields))
}

impl Session {
    /// Shows what was asked for.
    pub(crate) async fn show(self: &Arc<Self>, shown: &Show) -> Result<Output> {
        let lines = match shown {
            Show::Series(series) => return self.show_series(series).await,
            Show::TagValues(series, keys) => return self.show_tag_values(series, keys).await,
            Show::TagKeys(..) | Show::FieldKeys(..) => self.key_lines(shown)?,
            Show::Ddl(tenants) => self.ddl_lines(tenants)?,
            Show::Queries => self.query_lines()?,
            Show::Compactions => self.compaction_lines().await?,
            Show::Nodes => self.node_lines().await?,
            Show::Replicas => self.replica_lines().await?,
            Show::Vnodes => self.vnode_lines().await?,
            Show::Jobs => self.job_lines()?,
            Show::Policies => self.policy_lines()?,
            other => self.lines(other)?,
        };
        let schema = schema(shown);
        let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        nodes::text_rows(&names, &lines)
    }

    fn lines(&self, shown: &Show) -> Result<Vec<Vec<String>>> {
        let catalog = self.database().catalog();
        Ok(match shown {
            Show::Ddl(_)
            | Show::Compactions
            | Show::Nodes
            | Show::Replicas
            | Show::Vnodes
            | Show::Jobs
            | Show::Policies
            | Show::Queries
            | Show::Series(_)
            | Show::TagValues(..)
            | Show::TagKeys(..)
            | Show::FieldKeys(..) => Vec::new(),
            Show::Setting(name) => vec![vec![self.setting(name)?]],
            Show::Settings => {
                self.settings().into_iter().map(|(name, value)| vec![name, value]).collect()
            }
            Show::Databases => {
                self.check(Need::See)?;
                let databases = catalog.databases(self.identity().tenant);
                databases.map(|database| vec![database.name.clone()]).collect()
            }
            Show::Tables(on) => {
                self.check(Need::See)?;
                let name = on.clone().unwrap_or_else(|| self.database_name());
                let database = self.user_database(&name)?.id;
                catalog.tables(database).map(|table| vec![table.name.clone()]).collect()
            }
            Show::Tenants => {
                self.check(Need::Administer)?;
                let line =
                    |tenant: &Arc<meta::Tenant>| vec![tenant.name.clone(), tenant.comment.clone()];
                let there = catalog.tenants().filter(|tenant| tenant.drop_at.is_none());
                there.map(line).collect()
            }
            Show::Users => {
                self.check(Need::Administer)?;
                let line = |user: &Arc<meta::User>| {
                    vec![user.name.clone(), user.admin.to_string(), user.comment.clone()]
                };
                catalog.users().map(line).collect()
            }
            Show::Database(name) => {
                self.check(Need::See)?;
                vec![options_in_words(&self.user_database(name)?.options)]
            }
            Show::Table(name) => {
                self.check(Need::See)?;
                let (_, table) = self.user_table(name)?;
                table.columns.iter().map(describe_column).collect()
            }
        })
    }
}

impl Session {
    /// Lists the vnodes of the tenant that are open.
    async fn compaction_lines(&self) -> Result<Vec<Vec<String>>> {
        self.check(Need::See)?;
        let catalog = self.database().catalog();
        let files = self.database().cluster().vnode_files().await;
        let lines = files.into_iter().filter_map(|one| {
            let database = catalog.database_by_id(one.database)?;
            let own = database.tenant == self.identity().tenant;
            let written = one.flushed_bytes + one.compacted_bytes;
            let amplification = written as f64 / one.flushed_bytes.max(1) as f64;
            own.then(|| {
                vec![
                    one.vnode.to_string(),
                    database.name.clone(),
                    one.state.clone(),
                    one.size.files.to_string(),
                    one.size.file_bytes.to_string(),
                    one.size.tombstones.to_string(),
                    one.flushed_bytes.to_string(),
                    one.compacted_bytes.to_string(),
                    one.compactions.to_string(),
                    format!("{amplification:.2}"),
                ]
            })
        });
        Ok(lines.collect())
    }

    /// Runs a COMPACT: flushes what is in memory and makes one sorted run of each vnode.
    pub(crate) async fn compact(&self, what: &Compacted) -> Result<Output> {
        let cluster = self.database().cluster();
        match what {
            Compacted::Database(name) => {
                let database = self.user_database(name)?.id;
                self.check(Need::Define(Object::database(database)))?;
                cluster.compact(database, None).await?;
            }
            Compacted::Vnodes(vnodes) => {
                let catalog = self.database().catalog();
                for vnode in vnodes {
                    let database = catalog.databases(self.identity().tenant).find(|database| {
                        let buckets = catalog.buckets(database.id, model::TimeRange::ALL);
                        let mut places = buckets
                            .iter()
                            .flat_map(|bucket| &bucket.replica_sets)
                            .flat_map(|set| &set.vnodes);
                        places.any(|place| place.id.0 == *vnode)
                    });
                    let missing = || Error::new("42704", format!("vnode {vnode} does not exist"));
                    let database = database.ok_or_else(missing)?.id;
                    self.check(Need::Define(Object::database(database)))?;
                    cluster.compact(database, Some(model::VnodeId(*vnode))).await?;
                }
            }
        }
        Ok(Output::Done("COMPACT"))
    }
}

fn describe_column(column: &model::Column) -> Vec<String> {
    let kind = match column.kind {
        ColumnKind::Time => "TIME",
        ColumnKind::Tag => "TAG",
        ColumnKind::Field(_) => "FIELD",
    };
    [&column.name, &column.sql(), kind, &column.codec.to_string()].map(str::to_owned).to_vec()
}
