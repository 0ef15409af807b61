//! Bytes to an object that nobody sees until it is whole: parts are sent as they come, and become the
//! object by one last request.

use std::sync::Arc;

use bytes::BytesMut;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};

use super::location::failed;
use crate::error::{Error, Result};

/// Bytes sent at once: more than the 5 MiB that S3 wants of all but the last.
const PIECE_BYTES: usize = 8 << 20;

/// An object whose bytes were all sent.
pub(super) struct Sent {
    store: Arc<dyn ObjectStore>,
    pub(super) path: Path,
    /// `None` where there were no bytes.
    upload: Option<Box<dyn MultipartUpload>>,
}

/// Sends the bytes of an object.
pub(super) async fn send(
    store: Arc<dyn ObjectStore>,
    path: Path,
    mut bytes: BoxStream<'static, datafusion::common::Result<bytes::Bytes>>,
) -> Result<Sent> {
    let mut upload: Option<Box<dyn MultipartUpload>> = None;
    let mut piece = BytesMut::new();
    loop {
        let more = bytes.next().await.transpose().map_err(Error::from)?;
        let ended = more.is_none();
        piece.extend_from_slice(&more.unwrap_or_default());
        if piece.len() >= PIECE_BYTES || (ended && !piece.is_empty()) {
            let upload = match &mut upload {
                Some(upload) => upload,
                None => upload.insert(store.put_multipart(&path).await.map_err(failed)?),
            };
            let payload = PutPayload::from_bytes(piece.split().freeze());
            if let Err(error) = upload.put_part(payload).await {
                give_up(upload.as_mut()).await;
                return Err(failed(error));
            }
        }
        if ended {
            return Ok(Sent { store, path, upload });
        }
    }
}

async fn give_up(upload: &mut dyn MultipartUpload) {
    if let Err(error) = upload.abort().await {
        tracing::warn!(%error, "an upload that failed may have left parts behind");
    }
}

impl Sent {
    /// Makes the object of what was sent.
    pub(super) async fn complete(mut self) -> Result<Path> {
        match &mut self.upload {
            Some(upload) => upload.complete().await.map(|_| ()),
            None => self.store.put(&self.path, PutPayload::new()).await.map(|_| ()),
        }
        .map_err(failed)?;
        Ok(self.path)
    }

    /// Forgets what was sent.
    pub(super) async fn abandon(mut self) {
        if let Some(upload) = &mut self.upload {
            give_up(upload.as_mut()).await;
        }
    }
}
