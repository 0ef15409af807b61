//! SHOW and DESCRIBE: what there is, as small tables of text.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use model::ColumnKind;
use model::time::{Span, span_in_words};

use crate::access::Need;
use crate::error::Result;
use crate::output::{Output, rows};
use crate::session::Session;
use crate::sql::Show;

/// Returns the columns of what is shown.
pub(crate) fn schema(shown: &Show) -> SchemaRef {
    let names: &[&str] = match shown {
        Show::Databases => &["database_name"],
        Show::Tables(_) => &["table_name"],
        Show::Tenants => &["tenant_name", "comment"],
        Show::Users => &["user_name", "is_admin", "comment"],
        Show::Database(_) => &["ttl", "shard", "vnode_duration", "replica", "precision"],
        Show::Table(_) => &["column_name", "data_type", "column_type", "compression_codec"],
        Show::Setting(name) => &[name.as_str()],
        Show::Settings => &["name", "setting"],
    };
    let fields: Vec<Field> =
        names.iter().map(|name| Field::new(*name, DataType::Utf8, true)).collect();
    Arc::new(Schema::new(fields))
}

impl Session {
    /// Shows what was asked for.
    pub(crate) fn show(&self, shown: &Show) -> Result<Output> {
        let lines = self.lines(shown)?;
        let schema = schema(shown);
        let column = |at: usize| {
            Arc::new(StringArray::from_iter_values(lines.iter().map(|line| &line[at]))) as ArrayRef
        };
        let columns = (0..schema.fields().len()).map(column).collect();
        Ok(rows(RecordBatch::try_new(schema, columns)?))
    }

    fn lines(&self, shown: &Show) -> Result<Vec<Vec<String>>> {
        let catalog = self.database().catalog();
        Ok(match shown {
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
                catalog.tenants().map(line).collect()
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
                let options = self.user_database(name)?.options;
                vec![vec![
                    span_in_words(options.ttl),
                    options.shards.to_string(),
                    span_in_words(Span::Ns(options.vnode_duration_ns)),
                    options.replicas.to_string(),
                    options.precision.sql().to_owned(),
                ]]
            }
            Show::Table(name) => {
                self.check(Need::See)?;
                let (_, table) = self.user_table(name)?;
                table.columns.iter().map(describe_column).collect()
            }
        })
    }
}

fn describe_column(column: &model::Column) -> Vec<String> {
    let (data_type, kind) = match column.kind {
        ColumnKind::Time => ("TIMESTAMP", "TIME"),
        ColumnKind::Tag => ("STRING", "TAG"),
        ColumnKind::Field(value_type) => (value_type.sql(), "FIELD"),
    };
    [&column.name, data_type, kind, "DEFAULT"].map(str::to_owned).to_vec()
}
