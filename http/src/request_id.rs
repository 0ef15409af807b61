//! A name for each request, which its answer and what is logged meanwhile carry.

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;

/// The header, in requests and answers.
const HEADER: &str = "x-request-id";
/// The longest name that is taken over.
const LEN_MAX: usize = 64;

/// Names a request, as it says or at random.
pub(crate) async fn name(request: Request, next: Next) -> Response {
    let said = request.headers().get(HEADER).and_then(|id| id.to_str().ok());
    let said = said.filter(|id| !id.is_empty() && id.len() <= LEN_MAX);
    let id = said.map_or_else(|| format!("{:016x}", rand::random::<u64>()), str::to_owned);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let span = tracing::info_span!("http", id);
    let answered = async {
        let response = next.run(request).await;
        tracing::debug!(%method, path, status = response.status().as_u16(), "answered");
        response
    };
    let mut response = answered.instrument(span).await;
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HEADER, id);
    }
    response
}
