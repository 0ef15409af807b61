//! Files that hold columns, read by DataFusion's own readers, one file and one thread at a time: so a row
//! that is refused has a number.

use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::datasource::provider_as_source;
use datafusion::execution::cache::cache_manager::CacheManagerConfig;
use datafusion::execution::object_store::DefaultObjectStoreRegistry;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SendableRecordBatchStream, SessionState, SessionStateBuilder};
use datafusion::logical_expr::LogicalPlanBuilder;
use datafusion::physical_plan::execute_stream;
use futures::StreamExt;
use object_store::ObjectMeta;

use super::import::Import;
use super::listing::Listing;
use super::location::Location;
use crate::error::{Error, Result};
use crate::ingest::{Target, store};
use crate::insert::{convert, in_column};

impl Import {
    /// Reads a file of columns.
    pub(super) async fn batches(&self, file: &ObjectMeta) -> Result<u64> {
        let mut batches = self.scan(file).await?;
        let schema = batches.schema();
        let found: Vec<String> = schema.fields().iter().map(|one| one.name().clone()).collect();
        let target = self.target(&found)?;
        let place = |column: &model::Column| {
            schema.index_of(&column.name).map_err(|_| {
                let message = format!("the file has no column \"{}\"", column.name);
                Error::new("42703", message)
            })
        };
        let places = target.columns.iter().map(place).collect::<Result<Vec<_>>>()?;
        let mut rows = 0;
        while let Some(batch) = batches.next().await {
            let batch = batch?.project(&places)?;
            let arrays = match converted(&target, &batch) {
                Ok(arrays) => arrays,
                Err(error) => return Err(with_row(error, &target, &batch, rows)),
            };
            let points = target.new_points(&arrays, self.session.now_ns())?;
            store(self.session.database(), &target, points).await?;
            rows += batch.num_rows() as u64;
            self.progress.add_rows(batch.num_rows() as u64);
        }
        // Its readers take parts of it in any order.
        self.progress.add_bytes(file.size);
        Ok(rows)
    }

    async fn scan(&self, file: &ObjectMeta) -> Result<SendableRecordBatchStream> {
        let state = self.state()?;
        let location = Location { path: file.location.clone(), ..self.location.clone() };
        let listing = Listing { location, form: self.form, partitions: Vec::new() };
        let table = listing.open(&state, "file", None).await?;
        let source = provider_as_source(Arc::new(table));
        let plan = LogicalPlanBuilder::scan("file", source, None)?.build()?;
        let plan = state.create_physical_plan(&plan).await?;
        Ok(execute_stream(plan, state.task_ctx())?)
    }

    /// Returns a state with stores and caches of its own.
    fn state(&self) -> Result<SessionState> {
        let template = self.session.database().template();
        let runtime = RuntimeEnvBuilder::from_runtime_env(&self.session.runtime())
            .with_object_store_registry(Arc::new(DefaultObjectStoreRegistry::new()))
            .with_cache_manager(CacheManagerConfig::default())
            .build_arc()?;
        let config = template.config().clone().with_target_partitions(1);
        let state = SessionStateBuilder::new_from_existing(template.clone());
        Ok(state.with_config(config).with_runtime_env(runtime).build())
    }
}

fn converted(target: &Target, batch: &RecordBatch) -> Result<Vec<ArrayRef>> {
    let columns = batch.columns().iter().zip(&target.columns);
    columns
        .map(|(array, column)| {
            convert(array, column, target).map_err(|error| in_column(error, column))
        })
        .collect()
}

/// Adds to an error which row it is about: the first that is refused alone.
fn with_row(error: Error, target: &Target, batch: &RecordBatch, before: u64) -> Error {
    let refused = |row: &usize| converted(target, &batch.slice(*row, 1)).is_err();
    let mut error = error;
    if let Some(row) = (0..batch.num_rows()).find(refused) {
        error.message = format!("{}, row {}", error.message, before + row as u64 + 1);
    }
    error
}
