//! The write routes: line protocol to a session, line by line in the answer where something is wrong.

use axum::http::StatusCode;
use query::Error;
use serde_json::json;

use crate::call::Call;
use crate::failure::Failure;
use crate::lines::{Parsed, parse};

/// The most threads that read one body.
const THREADS_MAX: usize = 8;
/// The most lines the answer names one by one.
const REPORTED_MAX: usize = 100;

/// Takes lines the way of InfluxDB, which answers 204.
pub(crate) async fn influx_write(call: Call) -> Result<StatusCode, Failure> {
    write(call).await.map(|()| StatusCode::NO_CONTENT)
}

/// Takes lines the way of `POST /api/v1/write`.
pub(crate) async fn write(call: Call) -> Result<(), Failure> {
    let precision = call.parameters.precision()?.unwrap_or_default();
    let Call { shared, session, parameters, body, .. } = &call;
    let (body, now) = (body.clone(), session.now_ns());
    let parsed = tokio::task::spawn_blocking(move || {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        parse(&body, precision, now, threads.min(THREADS_MAX))
    })
    .await;
    let parsed = parsed.map_err(|_| Failure::bad_request("the lines could not be read"))?;
    if parameters.strict == Some(true) && parsed.bad_count > 0 {
        return Err(refused(&parsed, &[], 0));
    }
    let (mut failed, mut kept) = (Vec::new(), 0);
    let Parsed { batches, bad, bad_count, good_count } = parsed;
    for (batch, lines) in batches {
        if lines.is_empty() {
            continue;
        }
        let written = session.write_rows(&batch).await;
        for (rows, error) in written.refused {
            // Nobody asked for these lines alone: who may not write, or where there is no database, all
            // fail alike.
            if kept + written.kept == 0 && failed.is_empty() && !error.is_of_rows() {
                return Err(error.into());
            }
            // What may be taken another time is to be sent once more, wrong lines and all.
            if error.sqlstate.starts_with('5') {
                return Err(error.into());
            }
            failed.push((error, lines.get(rows).unwrap_or_default().to_vec()));
        }
        kept += written.kept;
    }
    shared.metrics.rows_in("lines", kept);
    let parsed = Parsed { batches: Vec::new(), bad, bad_count, good_count };
    if parsed.bad_count == 0 && failed.is_empty() {
        return Ok(());
    }
    Err(refused(&parsed, &failed, kept))
}

/// Names the lines that were not taken.
fn refused(parsed: &Parsed, failed: &[(Error, Vec<u32>)], kept: usize) -> Failure {
    let unreadable = parsed.bad.iter().map(|bad| (bad.number, bad.reason.clone()));
    let unwritten = failed.iter().flat_map(|(error, lines)| {
        let lines = lines.iter().take(REPORTED_MAX);
        lines.map(move |line| (*line as usize, error.message.clone()))
    });
    let mut all: Vec<(usize, String)> = unreadable.chain(unwritten).collect();
    all.sort();
    let count = parsed.bad_count + failed.iter().map(|(_, lines)| lines.len()).sum::<usize>();
    let lines = all.into_iter().take(REPORTED_MAX);
    let lines = lines.map(|(number, reason)| json!({ "line": number, "reason": reason }));
    let message = format!("partial write: {count} lines were not taken, {kept} were");
    Failure::new(StatusCode::BAD_REQUEST, "22P02", message).with_lines(lines.collect())
}
