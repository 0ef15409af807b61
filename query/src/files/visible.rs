//! A store without the files that others keep for themselves: whoever lists it does not find them. It is
//! read from, and never written.

use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::location::is_hidden;

/// A store as it is seen below a place.
#[derive(Debug)]
pub(super) struct Visible {
    store: Arc<dyn ObjectStore>,
    place: Path,
}

impl Visible {
    pub(super) fn of(store: Arc<dyn ObjectStore>, place: Path) -> Self {
        Self { store, place }
    }
}

impl std::fmt::Display for Visible {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "files at {}", self.place)
    }
}

fn only_read() -> Error {
    Error::NotSupported { source: "these files are only read".into() }
}

#[async_trait]
impl ObjectStore for Visible {
    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> Result<PutResult> {
        Err(only_read())
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        Err(only_read())
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.store.get_opts(location, options).await
    }

    fn delete_stream(
        &self,
        _: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        futures::stream::once(async { Err(only_read()) }).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let place = self.place.clone();
        let seen = move |object: &ObjectMeta| !is_hidden(&place, &object.location);
        self.store
            .list(prefix)
            .try_filter(move |object| futures::future::ready(seen(object)))
            .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let mut listed = self.store.list_with_delimiter(prefix).await?;
        listed.objects.retain(|object| !is_hidden(&self.place, &object.location));
        listed.common_prefixes.retain(|folder| !is_hidden(&self.place, folder));
        Ok(listed)
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(only_read())
    }
}
