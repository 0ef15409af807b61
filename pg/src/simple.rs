//! The simple query protocol: a text of statements, answers in text.

use std::fmt::Debug;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::BytesMut;
use futures::{Sink, SinkExt, Stream, StreamExt};
use pgwire::api::portal::Format;
use pgwire::api::query::{
    SimpleQueryHandler, send_execution_response, send_query_response, send_ready_for_query,
};
use pgwire::api::results::{FieldFormat, FieldInfo, QueryResponse, Response, Tag};
use pgwire::api::store::PortalStore;
use pgwire::api::{ClientInfo, ClientPortalStore, PgWireConnectionState as State};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::data::DataRow;
use pgwire::messages::response::{EmptyQueryResponse, TransactionStatus};
use pgwire::messages::simplequery::Query;
use query::{Error, Output, Statement, TypedColumn, Zone, typed_columns};

use crate::connection::{Connection, wire_error};
use crate::copy;
use crate::encode::put_field;
use crate::types::field_info;

#[async_trait]
impl SimpleQueryHandler for Connection {
    async fn on_query<C>(&self, client: &mut C, query: Query) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let statements = query::parse(&query.query).map_err(wire_error)?;
        if statements.is_empty() {
            let empty = PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new());
            client.feed(empty).await?;
        }
        let last = statements.len();
        for (at, statement) in statements.iter().enumerate() {
            let output = self.execute(client, statement, &[]).await?;
            self.send_asides(client).await?;
            let is_last = at + 1 == last;
            if let Output::CopyIn(rows) = output {
                if !is_last {
                    let message = "COPY FROM STDIN must be the last statement";
                    return Err(wire_error(Error::new("0A000", message)));
                }
                copy::begin(client, &rows, false).await?;
                *self.copy.lock().await = Some(rows);
                // The answer follows the rows.
                return Ok(());
            }
            self.answer(client, output).await?;
        }
        let status = client.transaction_status();
        send_ready_for_query(client, status).await
    }

    async fn do_query<C>(&self, _client: &mut C, _query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        Err(wire_error(Error::new("XX000", "on_query answers")))
    }
}

impl Connection {
    /// Runs a statement, unless the block it stands in has failed.
    pub(crate) async fn execute<C>(
        &self,
        client: &mut C,
        statement: &Statement,
        params: &[query::ScalarValue],
    ) -> PgWireResult<Output>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        let failed = client.transaction_status() == TransactionStatus::Error;
        let may_end_it = matches!(
            statement,
            Statement::Commit
                | Statement::Rollback
                | Statement::Savepoint(query::Savepoint::BackTo(_))
        );
        if failed && !may_end_it {
            let message =
                "current transaction is aborted, commands ignored until end of transaction block";
            return Err(wire_error(Error::new("25P02", message)));
        }
        let output = self.session()?.execute(statement, params).await.map_err(wire_error)?;
        Ok(match output {
            Output::End(_) if failed => Output::End("ROLLBACK"),
            other => other,
        })
    }

    async fn answer<C>(&self, client: &mut C, output: Output) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        match output {
            Output::Rows(rows) => {
                let fields = fields(&rows.schema(), &Format::UnifiedText);
                let rows = data_rows(
                    rows,
                    fields.iter().map(FieldInfo::format).collect(),
                    self.session()?.zone(),
                );
                send_query_response(client, QueryResponse::new(fields, rows), true).await
            }
            Output::Fetched(rows) => {
                let fields = fields(&rows.schema(), &Format::UnifiedText);
                let rows = data_rows(
                    rows,
                    fields.iter().map(FieldInfo::format).collect(),
                    self.session()?.zone(),
                );
                let mut response = QueryResponse::new(fields, rows);
                response.set_command_tag("FETCH");
                send_query_response(client, response, true).await
            }
            Output::CopyOut(rows) => copy::send(client, rows, &self.session()?.zone()).await,
            other => {
                if let Some(tag) = tag(client, &other) {
                    send_execution_response(client, tag).await?;
                }
                Ok(())
            }
        }
    }
}

/// Returns the tag of an output without rows, and moves the block's status along.
pub(crate) fn tag<C: ClientInfo>(client: &mut C, output: &Output) -> Option<Tag> {
    match output {
        Output::Affected("INSERT", rows) => {
            Some(Tag::new("INSERT").with_oid(0).with_rows(*rows as usize))
        }
        Output::Affected(tag, rows) => Some(Tag::new(tag).with_rows(*rows as usize)),
        Output::Done(tag) => Some(Tag::new(tag)),
        Output::Begin(tag) => {
            let status = client.transaction_status().to_in_transaction_state();
            client.set_transaction_status(status);
            Some(Tag::new(tag))
        }
        Output::Resumed(tag) => {
            client.set_transaction_status(TransactionStatus::Transaction);
            Some(Tag::new(tag))
        }
        Output::End(tag) => {
            client.set_transaction_status(TransactionStatus::Idle);
            Some(Tag::new(tag))
        }
        Output::Rows(_)
        | Output::Fetched(_)
        | Output::CopyIn(_)
        | Output::CopyOut(_)
        | Output::Empty => None,
    }
}

/// Describes the columns of rows.
pub(crate) fn fields(schema: &SchemaRef, format: &Format) -> Arc<Vec<FieldInfo>> {
    let field = |(at, field): (usize, &arrow::datatypes::FieldRef)| {
        field_info(field, format.format_for(at))
    };
    Arc::new(schema.fields().iter().enumerate().map(field).collect())
}

struct RowState<S> {
    batches: S,
    columns: Vec<TypedColumn>,
    row: usize,
    rows: usize,
    formats: Vec<FieldFormat>,
    zone: Zone,
    buffer: BytesMut,
}

/// Turns batches into rows on the wire, as they come.
pub(crate) fn data_rows<S, E>(
    batches: S,
    formats: Vec<FieldFormat>,
    zone: Zone,
) -> impl Stream<Item = PgWireResult<DataRow>> + Send + 'static
where
    S: Stream<Item = Result<arrow::record_batch::RecordBatch, E>> + Unpin + Send + 'static,
    Error: From<E>,
    E: Send + 'static,
{
    let start = RowState {
        batches,
        columns: Vec::new(),
        row: 0,
        rows: 0,
        formats,
        zone,
        buffer: BytesMut::new(),
    };
    futures::stream::try_unfold(start, |mut state| async move {
        while state.row == state.rows {
            let Some(batch) = state.batches.next().await else { return Ok(None) };
            let batch = batch.map_err(wire_error)?;
            state.columns = typed_columns(&batch, &state.zone).map_err(wire_error)?;
            (state.row, state.rows) = (0, batch.num_rows());
        }
        for (column, format) in state.columns.iter().zip(&state.formats) {
            put_field(column, state.row, *format, &mut state.buffer).map_err(wire_error)?;
        }
        state.row += 1;
        let row = DataRow::new(state.buffer.split(), state.columns.len() as i16);
        Ok(Some((row, state)))
    })
}

/// Puts the connection into COPY's state.
pub(crate) fn copying<C: ClientInfo>(client: &mut C, extended: bool) {
    client.set_state(State::CopyInProgress(extended));
}
