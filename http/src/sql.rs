//! The SQL route: one statement in, rows out as they are computed.

use std::convert::Infallible;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use axum::body::Body;
use axum::extract::{ConnectInfo, Query, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use query::{Error, Output, Statement};

use crate::auth::Parameters;
use crate::body::unpack;
use crate::failure::Failure;
use crate::rows::RowFormat;
use crate::server::{PeerAddr, Shared};

/// Runs the statement of a body.
pub(crate) async fn run(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(PeerAddr(peer)): ConnectInfo<PeerAddr>,
    Query(parameters): Query<Parameters>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Failure> {
    let Some(format) = RowFormat::accepted(&headers) else {
        let message = "rows are given as text/csv, text/tab-separated-values, application/json or \
                       application/x-ndjson";
        return Err(Failure::new(StatusCode::NOT_ACCEPTABLE, "0A000", message));
    };
    let session = shared.doorkeeper.enter(&headers, &parameters, peer).await?;
    let body = unpack(&headers, body)?;
    let text = std::str::from_utf8(&body);
    let text = text.map_err(|_| Failure::bad_request("the statement is not UTF-8"))?;
    let mut statements = query::parse(text)?;
    let (Some(statement), None) = (statements.pop(), statements.pop()) else {
        return Err(Failure::bad_request("the body must hold one statement"));
    };
    if matches!(statement, Statement::Copy(_)) {
        return Err(Failure::new(
            StatusCode::BAD_REQUEST,
            "0A000",
            "COPY needs a PostgreSQL client",
        ));
    }
    let output = session.execute(&statement, &[]).await?;
    match output {
        Output::Rows(rows) | Output::Fetched(rows) => {
            let schema = rows.schema();
            let rows = rows.map(|batch| batch.map_err(Error::from)).boxed();
            stream(schema, rows, format).await
        }
        Output::Affected(_, count) => {
            let done = serde_json::json!({ "rows": count }).to_string();
            Ok(([(CONTENT_TYPE, "application/json")], done).into_response())
        }
        _ => Ok(StatusCode::OK.into_response()),
    }
}

/// Sends rows as they come. The first is waited for, so that an error before it has its status.
async fn stream(
    schema: SchemaRef,
    mut rows: BoxStream<'static, Result<RecordBatch, Error>>,
    format: RowFormat,
) -> Result<Response, Failure> {
    let first = rows.next().await.transpose()?;
    let begin = format.begin(&schema);
    let rest = rows_as_text(first, rows, format);
    let begin = futures::stream::once(async move { Ok(Bytes::from(begin)) });
    let body = Body::from_stream(begin.chain(rest));
    Ok(([(CONTENT_TYPE, format.content_type())], body).into_response())
}

fn rows_as_text(
    first: Option<RecordBatch>,
    rows: BoxStream<'static, Result<RecordBatch, Error>>,
    format: RowFormat,
) -> impl Stream<Item = Result<Bytes, Error>> + Send + 'static {
    let first = futures::stream::iter(first.map(Ok));
    let numbered = first.chain(rows).scan(true, move |is_first, batch| {
        let text = batch.and_then(|batch| {
            let text = format.rows(&batch, *is_first);
            *is_first &= batch.num_rows() == 0;
            text.map_err(|error| Error::new("XX000", error.to_string()))
        });
        futures::future::ready(Some(text.map(Bytes::from)))
    });
    let end = futures::stream::once(async move { Ok(Bytes::from_static(format.end().as_bytes())) });
    numbered.chain(end)
}

/// Says that the server is there.
pub(crate) async fn ping() -> Result<Response, Infallible> {
    let body = serde_json::json!({ "status": "healthy", "version": env!("CARGO_PKG_VERSION") });
    Ok(([(CONTENT_TYPE, "application/json")], body.to_string()).into_response())
}

/// Says so as InfluxDB does.
pub(crate) async fn influx_ping() -> Result<Response, Infallible> {
    let version = concat!("CnosDB ", env!("CARGO_PKG_VERSION"));
    Ok((StatusCode::NO_CONTENT, [("X-Influxdb-Version", version)]).into_response())
}
