//! Errors as HTTP gives them: a status by kind, and JSON with SQLSTATE and message.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use query::Error;
use serde_json::json;

/// What a route failed with.
#[derive(Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    sqlstate: &'static str,
    message: String,
    lines: Vec<serde_json::Value>,
}

impl Failure {
    pub(crate) fn new(
        status: StatusCode,
        sqlstate: &'static str,
        message: impl Into<String>,
    ) -> Self {
        Self { status, sqlstate, message: message.into(), lines: Vec::new() }
    }

    /// Adds what was wrong line by line.
    pub(crate) fn with_lines(mut self, lines: Vec<serde_json::Value>) -> Self {
        self.lines = lines;
        self
    }

    #[cfg(test)]
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns whether who asks may not do it.
    pub(crate) fn is_denied(&self) -> bool {
        self.sqlstate == "42501"
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "08P01", message)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = status_of(error.sqlstate);
        let message = match error.hint {
            Some(hint) => format!("{} ({hint})", error.message),
            None => error.message,
        };
        Self::new(status, error.sqlstate, message)
    }
}

/// Returns the status that goes with PostgreSQL's code.
fn status_of(sqlstate: &str) -> StatusCode {
    match sqlstate {
        "42501" => StatusCode::FORBIDDEN,
        "3D000" | "3F000" | "42P01" | "42704" => StatusCode::NOT_FOUND,
        "57014" => StatusCode::REQUEST_TIMEOUT,
        "42601" | "08P01" => StatusCode::BAD_REQUEST,
        "53200" | "53100" | "53300" | "57P03" | "40003" | "55P03" => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        "53400" => StatusCode::TOO_MANY_REQUESTS,
        "54000" | "54001" => StatusCode::PAYLOAD_TOO_LARGE,
        code if code.starts_with("28") => StatusCode::UNAUTHORIZED,
        code if code.starts_with("XX") => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        // "error" is where InfluxDB's clients look.
        let mut body = json!({
            "code": self.status.as_u16(),
            "sqlstate": self.sqlstate,
            "message": self.message,
            "error": self.message,
        });
        if !self.lines.is_empty() {
            body["lines"] = self.lines.into();
        }
        let mut response = (self.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self.status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Basic realm=\"cnosdb\", charset=\"UTF-8\"");
            headers.insert(WWW_AUTHENTICATE, challenge);
        }
        if matches!(self.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
