//! Bytes to an object that nobody sees until it is whole: parts are sent as they come, and become the
//! object by one last request. What does not come to that is forgotten.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload};
use tokio::runtime::Handle;

use super::location::failed;
use crate::error::{Error, Result};

/// Bytes sent at once, at first: more than the 5 MiB that S3 wants of all but the last.
const PIECE_BYTES: usize = 8 << 20;
/// After so many pieces they grow by as much: an object has 10,000 of them at most.
const PIECES_OF_A_SIZE: usize = 1_000;

/// An object whose bytes were sent; dropped before it is whole, they are given up.
pub(super) struct Sent {
    store: Arc<dyn ObjectStore>,
    path: Path,
    /// `None` where there were no bytes.
    upload: Option<Box<dyn MultipartUpload>>,
}

impl Drop for Sent {
    fn drop(&mut self) {
        let (Some(mut upload), Ok(runtime)) = (self.upload.take(), Handle::try_current()) else {
            return;
        };
        runtime.spawn(async move {
            if let Err(error) = upload.abort().await {
                tracing::warn!(%error, "an upload that failed may have left parts behind");
            }
        });
    }
}

/// Sends the bytes of an object.
pub(super) async fn send(
    store: Arc<dyn ObjectStore>,
    path: Path,
    mut bytes: BoxStream<'static, datafusion::common::Result<Bytes>>,
) -> Result<Sent> {
    let mut sent = Sent { store, path, upload: None };
    let (mut piece, mut pieces) = (BytesMut::new(), 0);
    loop {
        let more = bytes.next().await.transpose().map_err(Error::from)?;
        let ended = more.is_none();
        piece.extend_from_slice(&more.unwrap_or_default());
        let wanted = PIECE_BYTES * (1 + pieces / PIECES_OF_A_SIZE);
        if piece.len() >= wanted || (ended && !piece.is_empty()) {
            let payload = PutPayload::from_bytes(piece.split().freeze());
            let upload = match &mut sent.upload {
                Some(upload) => upload,
                None => {
                    let begun = sent.store.put_multipart(&sent.path).await.map_err(failed)?;
                    sent.upload.insert(begun)
                }
            };
            upload.put_part(payload).await.map_err(failed)?;
            pieces += 1;
        }
        if ended {
            return Ok(sent);
        }
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
        self.upload = None;
        Ok(std::mem::take(&mut self.path))
    }
}
