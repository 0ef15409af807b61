//! The SQL route: one statement in, rows out as they are computed.

use std::convert::Infallible;

use arrow::array::AsArray;
use arrow::record_batch::RecordBatch;
use axum::body::Body;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use query::{Error, Output, RowWriter, Statement};

use crate::call::Call;
use crate::failure::Failure;
use crate::form::{accepted, content_type};

/// Rows as they are computed.
type Rows = BoxStream<'static, Result<RecordBatch, Error>>;

/// Runs the statement of a body.
pub(crate) async fn run(call: Call) -> Result<Response, Failure> {
    let Some(format) = accepted(&call.headers) else {
        let message = "rows are given as text/csv, text/tab-separated-values, text/plain, \
                       application/json, application/x-ndjson, application/vnd.apache.arrow.stream \
                       or application/vnd.apache.parquet";
        return Err(Failure::new(StatusCode::NOT_ACCEPTABLE, "0A000", message));
    };
    let text = call.text()?;
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
    let output = call.session.execute(&statement, &[]).await?;
    match output {
        Output::Rows(rows) | Output::Fetched(rows) => {
            let writer = RowWriter::new(format, &rows.schema())?;
            let rows = rows.map(|batch| batch.map_err(Error::from)).boxed();
            let body = stream(writer, rows).await?;
            Ok(([(CONTENT_TYPE, content_type(format))], body).into_response())
        }
        Output::Affected(_, count) => {
            let done = serde_json::json!({ "rows": count }).to_string();
            Ok(([(CONTENT_TYPE, "application/json")], done).into_response())
        }
        _ => Ok(StatusCode::OK.into_response()),
    }
}

/// Gives the statements that make everything, or the tenant that is named, one a line.
pub(crate) async fn dump_ddl(call: Call) -> Result<Response, Failure> {
    let of = call.parameters.tenant.as_ref().map_or_else(String::new, |tenant| {
        format!(" FOR TENANT \"{}\"", tenant.replace('"', "\"\""))
    });
    let statements = query::parse(&format!("SHOW DDL{of}"))?;
    let shown = statements.first().ok_or_else(|| Failure::bad_request("nothing to be shown"))?;
    let Output::Rows(mut rows) = call.session.execute(shown, &[]).await? else {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        return Err(Failure::new(status, "XX000", "SHOW DDL gives rows"));
    };
    let mut text = String::new();
    while let Some(batch) = rows.next().await {
        let batch = batch.map_err(Error::from)?;
        for line in batch.column(0).as_string::<i32>().iter().flatten() {
            // What switches tenants is a command of cnosdb-cli's.
            text.push_str(line);
            text.push_str(if line.starts_with('\\') { "\n" } else { ";\n" });
        }
    }
    Ok(([(CONTENT_TYPE, "application/sql")], text).into_response())
}

/// Sends rows as they come. The first bytes are waited for, so that an error before them has its status.
async fn stream(writer: RowWriter, rows: Rows) -> Result<Body, Failure> {
    let mut pieces = Box::pin(written(writer, rows));
    let first = pieces.next().await.transpose()?;
    let first = futures::stream::iter(first.map(Ok));
    Ok(Body::from_stream(first.chain(pieces)))
}

fn written(writer: RowWriter, rows: Rows) -> impl Stream<Item = Result<Bytes, Error>> + Send {
    futures::stream::try_unfold((Some(writer), rows), |(mut writer, mut rows)| async move {
        let Some(writing) = writer.as_mut() else { return Ok(None) };
        while let Some(batch) = rows.next().await {
            let ready = writing.put(batch?)?;
            if !ready.is_empty() {
                return Ok(Some((Bytes::from(ready), (writer, rows))));
            }
        }
        let rest = writer.take().map(RowWriter::end).transpose()?;
        Ok(Some((Bytes::from(rest.unwrap_or_default()), (None, rows))))
    })
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
