//! Files as a table: DataFusion's readers over a store, under a name that nothing else is registered by.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::catalog::Session as Planning;
use datafusion::datasource::file_format::FileFormat;
use datafusion::datasource::file_format::avro::AvroFormat;
use datafusion::datasource::file_format::csv::CsvFormat;
use datafusion::datasource::file_format::json::JsonFormat;
use datafusion::datasource::file_format::parquet::ParquetFormat;
use datafusion::datasource::listing::{
    ListingOptions, ListingTable, ListingTableConfig, ListingTableUrl,
};
use object_store::path::Path;

use super::form::{FileForm, FileKind};
use super::location::Location;
use super::visible::Visible;
use crate::error::{Error, Result};

/// Files that are read as a table.
#[derive(Clone, Debug)]
pub(super) struct Listing {
    pub(super) location: Location,
    pub(super) form: FileForm,
    /// Columns that the names of folders hold, as `year=2024`.
    pub(super) partitions: Vec<String>,
}

/// Returns the URL of a path of the store that a name is registered for.
pub(super) fn url_of(name: &str, path: &Path, is_folder: bool) -> Result<ListingTableUrl> {
    let base = ListingTableUrl::parse(format!("{name}://files/"))?;
    let mut url = url::Url::parse(base.as_str()).map_err(Error::internal)?;
    // By its parts: what means something in a URL is part of a name here.
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.clear().extend(path.parts().map(|part| part.as_ref().to_owned()));
        if is_folder {
            segments.push("");
        }
    }
    Ok(ListingTableUrl::try_new(url, None)?)
}

impl Listing {
    /// Opens the files under a name. Their columns are found out where none are given.
    pub(super) async fn open(
        &self,
        state: &dyn Planning,
        name: &str,
        columns: Option<&Schema>,
    ) -> Result<ListingTable> {
        let place = &self.location.path;
        let base = url_of(name, &Path::default(), true)?;
        let store = Visible::of(Arc::clone(&self.location.store), place.clone());
        state.runtime_env().register_object_store(base.as_ref(), Arc::new(store));
        let files = self.location.objects().await?;
        let Some(first) = files.first() else {
            return Err(Error::new("58P01", format!("there is no file at \"{place}\"")));
        };
        let is_file = files.len() == 1 && first.location == *place;
        let url = url_of(name, place, !is_file)?;
        let format = self.format(first.location.as_ref());
        let partitions = self.partitions.iter().map(|name| {
            let known = columns.and_then(|columns| columns.field_with_name(name).ok());
            (name.clone(), known.map_or(DataType::Utf8, |field| field.data_type().clone()))
        });
        let options = ListingOptions::new(format)
            .with_file_extension("")
            .with_table_partition_cols(partitions.collect());
        let config = ListingTableConfig::new(url).with_listing_options(options);
        let config = match columns {
            Some(columns) => config.with_schema(self.in_files(columns)),
            None => config.infer_schema(state).await?,
        };
        Ok(ListingTable::try_new(config)?)
    }

    /// Returns the columns that are in the files themselves.
    fn in_files(&self, columns: &Schema) -> SchemaRef {
        let fields = columns.fields().iter();
        let fields = fields.filter(|field| !self.partitions.contains(field.name()));
        Arc::new(Schema::new(fields.cloned().collect::<Vec<_>>()))
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
