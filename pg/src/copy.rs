//! COPY, both ways: bytes to the session, and rows to text, csv and binary.

use std::fmt::Debug;

use async_trait::async_trait;
use bytes::{BufMut, BytesMut};
use futures::{Sink, SinkExt, StreamExt};
use pgwire::api::ClientInfo;
use pgwire::api::copy::{CopyHandler, send_copy_in_response};
use pgwire::api::query::send_execution_response;
use pgwire::api::results::{CopyResponse, FieldFormat, Tag};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::copy::{CopyData, CopyDone, CopyFail, CopyOutResponse};
use query::{CopyFormat, CopyIn, CopyOut, Error, TypedColumn, Zone, typed_columns};

use crate::connection::{Connection, wire_error};
use crate::encode::put_field;
use crate::simple::copying;

/// Tells the client to send rows.
pub(crate) async fn begin<C>(client: &mut C, rows: &CopyIn, extended: bool) -> PgWireResult<()>
where
    C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
    C::Error: Debug,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    let (is_binary, columns) = rows.shape();
    let nothing = futures::stream::empty();
    send_copy_in_response(client, CopyResponse::new(i8::from(is_binary), columns, nothing)).await?;
    copying(client, extended);
    Ok(())
}

#[async_trait]
impl CopyHandler for Connection {
    async fn on_copy_data<C>(&self, _client: &mut C, data: CopyData) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        match self.copy.lock().await.as_mut() {
            Some(rows) => rows.push(&data.data).await.map_err(wire_error),
            None => Ok(()),
        }
    }

    async fn on_copy_done<C>(&self, client: &mut C, _done: CopyDone) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let Some(rows) = self.copy.lock().await.take() else { return Ok(()) };
        let stored = rows.finish().await.map_err(wire_error)?;
        send_execution_response(client, Tag::new("COPY").with_rows(stored as usize)).await
    }

    async fn on_copy_fail<C>(&self, _client: &mut C, fail: CopyFail) -> PgWireError
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        drop(self.copy.lock().await.take());
        let message = format!("COPY from stdin failed: {}", fail.message);
        wire_error(Error::new("57014", message))
    }
}

/// Sends rows in the format that was asked for.
pub(crate) async fn send<C>(client: &mut C, mut out: CopyOut, zone: &Zone) -> PgWireResult<()>
where
    C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
    C::Error: Debug,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    let columns = out.schema().fields().len();
    let is_binary = out.format == CopyFormat::Binary;
    let format = i16::from(is_binary);
    let response = CopyOutResponse::new(format as i8, columns as i16, vec![format; columns]);
    client.feed(PgWireBackendMessage::CopyOutResponse(response)).await?;
    let mut buffer = BytesMut::new();
    let names: Vec<String> = out.schema().fields().iter().map(|f| f.name().clone()).collect();
    put_head(&out.format, &names, &mut buffer);
    if !is_binary && !buffer.is_empty() {
        let data = CopyData::new(buffer.split().freeze());
        client.feed(PgWireBackendMessage::CopyData(data)).await?;
    }
    let mut sent = 0;
    while let Some(batch) = out.rows.next().await {
        let batch = batch.map_err(wire_error)?;
        let columns = typed_columns(&batch, zone).map_err(wire_error)?;
        for row in 0..batch.num_rows() {
            put_row(&out.format, &columns, row, &mut buffer).map_err(wire_error)?;
            // A message a row, as PostgreSQL sends: psycopg and others count on it.
            let data = CopyData::new(buffer.split().freeze());
            client.feed(PgWireBackendMessage::CopyData(data)).await?;
        }
        sent += batch.num_rows();
    }
    if is_binary {
        buffer.put_i16(-1);
    }
    if !buffer.is_empty() {
        let data = CopyData::new(buffer.split().freeze());
        client.feed(PgWireBackendMessage::CopyData(data)).await?;
    }
    client.feed(PgWireBackendMessage::CopyDone(CopyDone::new())).await?;
    send_execution_response(client, Tag::new("COPY").with_rows(sent)).await
}

fn put_head(format: &CopyFormat, names: &[String], out: &mut BytesMut) {
    match format {
        CopyFormat::Binary => {
            out.put_slice(b"PGCOPY\n\xff\r\n\0");
            out.put_i32(0);
            out.put_i32(0);
        }
        CopyFormat::Text { header: true, delimiter, .. } => {
            for (at, name) in names.iter().enumerate() {
                put_separator(at, *delimiter, out);
                put_text(name.as_bytes(), *delimiter, out);
            }
            out.put_u8(b'\n');
        }
        CopyFormat::Csv { header: true, delimiter, quote, escape, .. } => {
            for (at, name) in names.iter().enumerate() {
                put_separator(at, *delimiter, out);
                put_csv(name.as_bytes(), (*delimiter, *quote, *escape), "", out);
            }
            out.put_u8(b'\n');
        }
        CopyFormat::Text { .. } | CopyFormat::Csv { .. } => {}
    }
}

fn put_separator(at: usize, delimiter: u8, out: &mut BytesMut) {
    if at > 0 {
        out.put_u8(delimiter);
    }
}

fn put_row(
    format: &CopyFormat,
    columns: &[TypedColumn],
    row: usize,
    out: &mut BytesMut,
) -> Result<(), Error> {
    let mut value = BytesMut::new();
    match format {
        CopyFormat::Binary => {
            out.put_i16(columns.len() as i16);
            for column in columns {
                put_field(column, row, FieldFormat::Binary, out)?;
            }
            return Ok(());
        }
        CopyFormat::Text { delimiter, null, .. } => {
            for (at, column) in columns.iter().enumerate() {
                put_separator(at, *delimiter, out);
                value.clear();
                if column.put_text(row, &mut value)? {
                    put_text(&value, *delimiter, out);
                } else {
                    out.put_slice(null.as_bytes());
                }
            }
        }
        CopyFormat::Csv { delimiter, null, quote, escape, .. } => {
            for (at, column) in columns.iter().enumerate() {
                put_separator(at, *delimiter, out);
                value.clear();
                if column.put_text(row, &mut value)? {
                    put_csv(&value, (*delimiter, *quote, *escape), null, out);
                } else {
                    out.put_slice(null.as_bytes());
                }
            }
        }
    }
    out.put_u8(b'\n');
    Ok(())
}

fn put_text(value: &[u8], delimiter: u8, out: &mut BytesMut) {
    for byte in value {
        match byte {
            b'\\' => out.put_slice(b"\\\\"),
            b'\n' => out.put_slice(b"\\n"),
            b'\r' => out.put_slice(b"\\r"),
            b'\t' => out.put_slice(b"\\t"),
            byte if *byte == delimiter => {
                out.put_u8(b'\\');
                out.put_u8(*byte);
            }
            byte => out.put_u8(*byte),
        }
    }
}

fn put_csv(value: &[u8], (delimiter, quote, escape): (u8, u8, u8), null: &str, out: &mut BytesMut) {
    let special = |byte: &u8| *byte == delimiter || *byte == quote || matches!(byte, b'\n' | b'\r');
    // What reads like NULL, or like the end of the data, is quoted to stay a value.
    if value != null.as_bytes() && value != b"\\." && !value.iter().any(special) {
        out.put_slice(value);
        return;
    }
    out.put_u8(quote);
    for byte in value {
        if *byte == quote || *byte == escape {
            out.put_u8(escape);
        }
        out.put_u8(*byte);
    }
    out.put_u8(quote);
}
