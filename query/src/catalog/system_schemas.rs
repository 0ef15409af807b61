//! `usage_schema` and `cluster_schema`: what a tenant uses of this node, and what the installation holds.
//!
//! A tenant sees its own usage; who is an administrator sees all of it in the first tenant. The
//! installation's tenants, users and slow statements are for administrators alone.

use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::array::{ArrayRef, StringArray, TimestampNanosecondArray, UInt64Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::{MemTable, SchemaProvider, TableProvider};
use datafusion::common::Result;
use model::schema::{TIME_ZONE, time_type};
use model::time::span_in_words;

use super::SessionCatalogs;
use super::information_schema::texts;
use crate::access::{Need, check};
use crate::nodes::time_text;
use crate::running;
use crate::usage::{COUNTED, Counted, UsageKey};

pub(crate) const USAGE_SCHEMA: &str = "usage_schema";
pub(crate) const CLUSTER_SCHEMA: &str = "cluster_schema";

/// Tables of what vnodes take.
const VNODES: [&str; 2] = ["vnode_disk_storage", "vnode_cache_size"];
const CLUSTER: [&str; 4] = ["tenants", "users", "sql_history", "hand_off"];

/// The schema of what is used.
#[derive(Debug)]
pub(super) struct UsageSchema(pub(super) SessionCatalogs);

/// The schema of the installation.
#[derive(Debug)]
pub(super) struct ClusterSchema(pub(super) SessionCatalogs);

/// A number of now, and what it is of.
struct Reading {
    labels: Vec<String>,
    value: u64,
}

#[async_trait]
impl SchemaProvider for UsageSchema {
    fn table_names(&self) -> Vec<String> {
        let counters = COUNTED.into_iter().map(Counted::name);
        counters.chain(VNODES).map(str::to_owned).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let batch = if let Some(counted) = COUNTED.into_iter().find(|one| one.name() == name) {
            let labels = ["database", "node_id", "tenant", "user", "api"];
            let shown = if counted.by_route() { labels.len() } else { labels.len() - 1 };
            self.batch(&labels[..shown], self.counters(counted))?
        } else if VNODES.contains(&name) {
            let readings = self.vnodes(name).await;
            self.batch(&["database", "node_id", "tenant", "vnode_id"], readings)?
        } else {
            return Ok(None);
        };
        let table = MemTable::try_new(batch.schema(), vec![vec![batch]])?;
        Ok(Some(Arc::new(table)))
    }

    fn table_exist(&self, name: &str) -> bool {
        VNODES.contains(&name) || COUNTED.into_iter().any(|counted| counted.name() == name)
    }
}

impl UsageSchema {
    /// Returns whether who asks may see what a tenant uses.
    fn sees(&self, tenant: model::TenantId) -> bool {
        let catalog = self.0.database.catalog();
        let own = self.0.identity.tenant;
        let in_first = catalog.tenant_by_id(own).is_some_and(|own| own.name == meta::FIRST_TENANT);
        tenant == own || (in_first && check(&catalog, self.0.identity, Need::Administer).is_ok())
    }

    fn counters(&self, counted: Counted) -> Vec<Reading> {
        let catalog = self.0.database.catalog();
        let node = self.0.database.cluster().node().to_string();
        let all = self.0.database.usage().all();
        let of_kind = |key: &UsageKey| key.route.is_some() == counted.by_route();
        let seen = all.into_iter().filter(|(key, _)| of_kind(key) && self.sees(key.tenant));
        seen.filter_map(|(key, counters)| {
            let database = key.database.and_then(|id| catalog.database_by_id(id));
            let database = database.map(|one| one.name.clone()).unwrap_or_default();
            let tenant = catalog.tenant_by_id(key.tenant)?.name.clone();
            let user = catalog.user_by_id(key.user).map(|one| one.name.clone()).unwrap_or_default();
            let route = key.route.as_deref().unwrap_or_default().to_owned();
            let labels = vec![database, node.clone(), tenant, user, route];
            Some(Reading { labels, value: counters.get(counted) })
        })
        .collect()
    }

    async fn vnodes(&self, name: &str) -> Vec<Reading> {
        let catalog = self.0.database.catalog();
        let node = self.0.database.cluster().node().to_string();
        let files = self.0.database.cluster().files_here().await;
        let readings = files.into_iter().filter_map(|one| {
            let database = catalog.database_by_id(one.database)?;
            let tenant = catalog.tenant_by_id(database.tenant).filter(|one| self.sees(one.id))?;
            let value = match name {
                "vnode_cache_size" => one.size.memcache_bytes as u64,
                _ => one.size.file_bytes,
            };
            let labels = [&database.name, &node, &tenant.name, &one.vnode.to_string()];
            Some(Reading { labels: labels.map(Clone::clone).to_vec(), value })
        });
        readings.collect()
    }

    /// Makes a table of readings: time, what they are of, value.
    fn batch(&self, labels: &[&str], readings: Vec<Reading>) -> Result<RecordBatch> {
        let mut fields = vec![Field::new("time", time_type(), false)];
        fields.extend(labels.iter().map(|name| Field::new(*name, DataType::Utf8, true)));
        fields.push(Field::new("value", DataType::UInt64, false));
        let times = vec![self.0.database.now_ns(); readings.len()];
        let times = TimestampNanosecondArray::from(times).with_timezone(TIME_ZONE);
        let mut columns: Vec<ArrayRef> = vec![Arc::new(times)];
        for at in 0..labels.len() {
            let texts = readings.iter().map(|reading| &reading.labels[at]);
            columns.push(Arc::new(StringArray::from_iter_values(texts)));
        }
        let values = readings.iter().map(|reading| reading.value);
        columns.push(Arc::new(UInt64Array::from_iter_values(values)));
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }
}

#[async_trait]
impl SchemaProvider for ClusterSchema {
    fn table_names(&self) -> Vec<String> {
        CLUSTER.map(str::to_owned).to_vec()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        if !self.table_exist(name) {
            return Ok(None);
        }
        let catalog = self.0.database.catalog();
        check(&catalog, self.0.identity, Need::Administer)?;
        let batch = match name {
            "tenants" => self.tenants(),
            "users" => self.users(),
            "hand_off" => self.hand_off().await,
            _ => texts(&running::COLUMNS, &self.0.database.running().history()),
        }?;
        let table = MemTable::try_new(batch.schema(), vec![vec![batch]])?;
        Ok(Some(Arc::new(table)))
    }

    fn table_exist(&self, name: &str) -> bool {
        CLUSTER.contains(&name)
    }
}

impl ClusterSchema {
    fn tenants(&self) -> Result<RecordBatch> {
        let catalog = self.0.database.catalog();
        let rows = catalog.tenants().map(|tenant| {
            let after = tenant.drop_after_ns.map(|ns| span_in_words(model::time::Span::Ns(ns)));
            let limits: serde_json::Map<String, serde_json::Value> = tenant
                .limits
                .named()
                .into_iter()
                .map(|(name, limit)| (name.to_owned(), limit.into()))
                .collect();
            let rates: serde_json::Map<String, serde_json::Value> = tenant
                .rates
                .iter()
                .map(|(group, rate)| {
                    let parts = rate.named().map(|(name, value)| (name.to_owned(), value.into()));
                    (
                        group.name().to_owned(),
                        serde_json::Value::Object(parts.into_iter().collect()),
                    )
                })
                .collect();
            let mut options = serde_json::json!({
                "comment": tenant.comment,
                "drop_after": after,
                "object_config": limits,
            });
            if !rates.is_empty() {
                options["request_config"] = rates.into();
            }
            let state = if tenant.drop_at.is_some() { "dropped" } else { "ready" };
            vec![tenant.name.clone(), options.to_string(), state.to_owned()]
        });
        texts(&["tenant_name", "tenant_options", "state"], &rows.collect::<Vec<_>>())
    }

    async fn hand_off(&self) -> Result<RecordBatch> {
        let catalog = self.0.database.catalog();
        let waiting = self.0.database.cluster().handed_off().await;
        let rows = waiting.into_iter().map(|one| {
            let bucket = catalog.replica_set(one.replica_set).map(|(bucket, _)| bucket.database);
            let database = bucket.and_then(|id| catalog.database_by_id(id));
            vec![
                one.node.to_string(),
                one.replica_set.to_string(),
                database.map(|database| database.name.clone()).unwrap_or_default(),
                one.writes.to_string(),
                one.bytes.to_string(),
                time_text(one.oldest_ns),
            ]
        });
        let columns = ["node_id", "replica_id", "database", "writes", "bytes", "oldest"];
        texts(&columns, &rows.collect::<Vec<_>>())
    }

    fn users(&self) -> Result<RecordBatch> {
        let catalog = self.0.database.catalog();
        let rows = catalog.users().map(|user| {
            let options = serde_json::json!({
                "comment": user.comment,
                "hash_password": user.verifier.as_ref().map(|_| "*****"),
                "rsa_public_key": user.rsa_public_key,
                "must_change_password": user.must_change_password,
                "granted_admin": user.admin,
            });
            vec![user.name.clone(), user.admin.to_string(), options.to_string()]
        });
        texts(&["user_name", "is_admin", "user_options"], &rows.collect::<Vec<_>>())
    }
}
