//! A request as the routes take it: who asks, what it says beside its body, and its body.

use std::sync::Arc;

use axum::extract::{FromRequest, Query, Request};
use axum::http::HeaderMap;
use bytes::Bytes;
use query::Session;

use crate::auth::Parameters;
use crate::body::{Held, unpacked};
use crate::failure::Failure;
use crate::route::Route;
use crate::server::{PeerAddr, Shared};

/// A request of somebody who proved who they are, wholly read.
pub(crate) struct Call {
    pub(crate) shared: Arc<Shared>,
    pub(crate) session: Arc<Session>,
    pub(crate) peer: PeerAddr,
    pub(crate) parameters: Parameters,
    pub(crate) headers: HeaderMap,
    /// The body, unpacked.
    pub(crate) body: Bytes,
    /// The body's share of the budget.
    _held: Held,
}

impl FromRequest<Arc<Shared>> for Call {
    type Rejection = Failure;

    /// Lets nobody in before the body is read, so that strangers fill no memory.
    async fn from_request(request: Request, shared: &Arc<Shared>) -> Result<Self, Failure> {
        let (head, body) = request.into_parts();
        let peer = head.extensions.get::<PeerAddr>().copied();
        let peer = peer.ok_or_else(|| Failure::bad_request("a request from nowhere"))?;
        let Query(parameters) = Query::<Parameters>::try_from_uri(&head.uri)
            .map_err(|error| Failure::bad_request(error.body_text()))?;
        let session = shared.doorkeeper.enter(&head.headers, &parameters, peer.0).await?;
        let (packed, held) = shared.bodies.read(body).await?;
        if let Some(route) = head.extensions.get::<Route>() {
            shared.metrics.bytes_in(route.path, packed.len());
            route.asked(&session, packed.len()).await?;
        }
        let (body, held) = unpacked(&head.headers, packed, held).await?;
        let (shared, headers) = (Arc::clone(shared), head.headers);
        Ok(Self { shared, session, peer, parameters, headers, body, _held: held })
    }
}

impl Call {
    /// Returns the body as text.
    ///
    /// # Errors
    /// 400 where it is not UTF-8.
    pub(crate) fn text(&self) -> Result<&str, Failure> {
        std::str::from_utf8(&self.body).map_err(|_| Failure::bad_request("the body is not UTF-8"))
    }
}
