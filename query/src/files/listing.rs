//! Files as a table: DataFusion's readers over a store, under a name that nothing else is registered by.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::catalog::Session as Planning;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::avro::AvroFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{
    ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl,
};

use super::form::{FileForm, FileKind};
use super::location::Location;
use crate::error::{Error, Result};

/// Files that are read as a table.
#[derive(Clone, Debug)]
pub(super) struct Listing {
    pub(super) location: Location,
    pub(super) form: FileForm,
    /// Columns that the names of folders hold, as `year=2024`.
    pub(super) partitions: Vec<String>,
}

impl Listing {
    /// Opens the files under a name. Their columns are found out where none are given.
    pub(super) async fn open(
        &self,
        state: &dyn Planning,
        name: &str,
        columns: Option<SchemaRef>,
    ) -> Result<ListingTable> {
        let host = format!("{name}://files/");
        let base = ListingTableUrl::parse(&host)?;
        let store = Arc::clone(&self.location.store);
        state.runtime_env().register_object_store(base.as_ref(), store);
        let files = self.location.objects().await?;
        let Some(first) = files.first() else {
            let path = &self.location.path;
            return Err(Error::new("58P01", format!("there is no file at \"{path}\"")));
        };
        let is_file = files.len() == 1 && first.location == self.location.path;
        let end = if is_file { "" } else { "/" };
        let url = ListingTableUrl::parse(format!("{host}{}{end}", self.location.path))?;
        let format = self.format(first.location.as_ref());
        let partitions =
            self.partitions.iter().map(|name| (name.clone(), DataType::Utf8)).collect();
        let options = ListingOptions::new(format)
            .with_file_extension("")
            .with_table_partition_cols(partitions);
        let config = ListingTableConfig::new(url).with_listing_options(options);
        let config = match columns {
            Some(columns) => config.with_schema(columns),
            None => config.infer_schema(state).await?,
        };
        Ok(ListingTable::try_new(config)?)
    }

    fn format(&self, name: &str) -> Arc<dyn FileFormat> {
        let compression = self.form.compression(name);
        match self.form.kind {
            FileKind::Parquet => Arc::new(ParquetFormat::new().with_force_view_types(false)),
            FileKind::Avro => Arc::new(AvroFormat),
            FileKind::Csv { delimiter, header } => Arc::new(
                CsvFormat::default()
                    .with_has_header(header)
                    .with_delimiter(delimiter)
                    .with_newlines_in_values(true)
                    .with_file_compression_type(compression),
            ),
            FileKind::NdJson => {
                Arc::new(JsonFormat::default().with_file_compression_type(compression))
            }
        }
    }
}
