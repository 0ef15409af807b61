//! The extended query protocol: parse, bind, describe, execute.
//!
//! pgwire's own handlers gather all rows before they send the first, and trust the counts that
//! clients send; these do neither.

use std::fmt::Debug;
use std::sync::Arc;

use async_trait::async_trait;
use futures::{Sink, SinkExt, StreamExt};
use pgwire::api::portal::{Format, Portal, PortalExecutionState};
use pgwire::api::query::{ExtendedQueryHandler, send_execution_response};
use pgwire::api::results::{FieldFormat, FieldInfo, QueryResponse, Response, Tag};
use pgwire::api::stmt::{QueryParser, StoredStatement};
use pgwire::api::store::{Entry, PortalStore};
use pgwire::api::{ClientInfo, ClientPortalStore, DEFAULT_NAME, Type};
use pgwire::error::{PgWireError, PgWireResult};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::data::{FieldDescription, NoData, ParameterDescription, RowDescription};
use pgwire::messages::extendedquery::{
    Bind, BindComplete, Describe, Execute, Parse, ParseComplete, PortalSuspended,
    TARGET_TYPE_BYTE_STATEMENT,
};
use pgwire::messages::response::EmptyQueryResponse;
use query::{Error, Output, Prepared, ScalarValue};

use crate::connection::{Connection, wire_error};
use crate::simple::{copying, data_rows, fields, tag};
use crate::types::{arrow_type, wire_type};
use crate::{copy, decode};

/// A prepared statement, as pgwire keeps it.
#[derive(Clone, Debug)]
pub(crate) struct WireStatement {
    prepared: Arc<Prepared>,
    parameters: Vec<Type>,
}

/// pgwire asks for a parser; statements are parsed by the session instead.
pub(crate) struct NoParser;

fn unused() -> PgWireError {
    wire_error(Error::new("XX000", "on_parse prepares"))
}

#[async_trait]
impl QueryParser for NoParser {
    type Statement = WireStatement;

    async fn parse_sql<C>(
        &self,
        _client: &C,
        _sql: &str,
        _types: &[Option<Type>],
    ) -> PgWireResult<Option<WireStatement>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        Err(unused())
    }

    fn get_parameter_types(&self, statement: &WireStatement) -> PgWireResult<Vec<Type>> {
        Ok(statement.parameters.clone())
    }

    fn get_result_schema(
        &self,
        _statement: &WireStatement,
        _format: Option<&Format>,
    ) -> PgWireResult<Vec<FieldInfo>> {
        Err(unused())
    }
}

fn missing_statement(name: &str) -> PgWireError {
    wire_error(Error::new("26000", format!("prepared statement \"{name}\" does not exist")))
}

fn missing_portal(name: &str) -> PgWireError {
    wire_error(Error::new("34000", format!("portal \"{name}\" does not exist")))
}

fn check_bind(bind: &Bind, statement: &WireStatement) -> PgWireResult<()> {
    let refuse = |message: String| Err(wire_error(Error::new("08P01", message)));
    let (given, wanted) = (bind.parameters.len(), statement.parameters.len());
    if given != wanted {
        return refuse(format!(
            "bind message supplies {given} parameters, but the statement requires {wanted}"
        ));
    }
    let formats = bind.parameter_format_codes.len();
    if formats > 1 && formats != wanted {
        return refuse(format!(
            "bind message has {formats} parameter formats but {wanted} parameters"
        ));
    }
    let columns = statement.prepared.columns.as_ref().map_or(0, |schema| schema.fields().len());
    let formats = bind.result_column_format_codes.len();
    if formats > 1 && formats != columns {
        return refuse(format!(
            "bind message has {formats} result formats but query has {columns} columns"
        ));
    }
    let mut codes = bind.parameter_format_codes.iter().chain(&bind.result_column_format_codes);
    if codes.any(|code| !matches!(code, 0 | 1)) {
        return Err(wire_error(Error::new("22023", "unsupported format code")));
    }
    Ok(())
}

#[async_trait]
impl ExtendedQueryHandler for Connection {
    type Statement = WireStatement;
    type QueryParser = NoParser;

    fn query_parser(&self) -> Arc<NoParser> {
        Arc::new(NoParser)
    }

    async fn on_parse<C>(&self, client: &mut C, message: Parse) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        let declared: Vec<Option<Type>> = message
            .type_oids
            .iter()
            .map(|oid| Type::from_oid(*oid).filter(|t| *t != Type::UNKNOWN))
            .collect();
        let types: Vec<_> =
            declared.iter().map(|found| found.as_ref().and_then(arrow_type)).collect();
        let prepared = self.session()?.prepare(&message.query, &types).await.map_err(wire_error)?;
        if prepared.statement.is_none() {
            client.portal_store().put_empty_statement(name);
        } else {
            let wire = |(at, found): (usize, &arrow::datatypes::DataType)| {
                let field = arrow::datatypes::Field::new("p", found.clone(), true);
                declared.get(at).and_then(Clone::clone).unwrap_or_else(|| wire_type(&field))
            };
            let parameters: Vec<Type> = prepared.parameters.iter().enumerate().map(wire).collect();
            let known = parameters.iter().cloned().map(Some).collect();
            let statement = WireStatement { prepared: Arc::new(prepared), parameters };
            let stored = StoredStatement::new(name.to_owned(), statement, known);
            client.portal_store().put_statement(Arc::new(stored));
        }
        client.feed(PgWireBackendMessage::ParseComplete(ParseComplete::new())).await?;
        Ok(())
    }

    async fn on_bind<C>(&self, client: &mut C, message: Bind) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.statement_name.as_deref().unwrap_or(DEFAULT_NAME);
        let portal_name = message.portal_name.as_deref().unwrap_or(DEFAULT_NAME);
        match client.portal_store().get_statement(name) {
            Some(Entry::Value(statement)) => {
                check_bind(&message, &statement.statement)?;
                let portal = Portal::try_new(&message, statement)?;
                client.portal_store().put_portal(Arc::new(portal));
            }
            Some(Entry::Empty) => client.portal_store().put_empty_portal(portal_name),
            None => return Err(missing_statement(name)),
        }
        client.feed(PgWireBackendMessage::BindComplete(BindComplete::new())).await?;
        Ok(())
    }

    async fn on_describe<C>(&self, client: &mut C, message: Describe) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        let mut of_cursor = None;
        let (statement, format) = if message.target_type == TARGET_TYPE_BYTE_STATEMENT {
            let found = match client.portal_store().get_statement(name) {
                Some(Entry::Value(statement)) => Some(statement.statement.clone()),
                Some(Entry::Empty) => None,
                None => return Err(missing_statement(name)),
            };
            let parameters = found.as_ref().map(|statement| statement.parameters.as_slice());
            let oids = parameters.unwrap_or_default().iter().map(Type::oid).collect();
            let description = ParameterDescription::new(oids);
            client.feed(PgWireBackendMessage::ParameterDescription(description)).await?;
            (found, Format::UnifiedText)
        } else {
            match client.portal_store().get_portal(name) {
                Some(Entry::Value(portal)) => {
                    (Some(portal.statement.statement.clone()), portal.result_column_format.clone())
                }
                Some(Entry::Empty) => (None, Format::UnifiedText),
                None => {
                    // A cursor of DECLARE is a portal.
                    of_cursor = self.session()?.cursor_columns(name);
                    if of_cursor.is_none() {
                        return Err(missing_portal(name));
                    }
                    (None, Format::UnifiedText)
                }
            }
        };
        let columns = statement.and_then(|statement| statement.prepared.columns.clone());
        let columns = columns.or(of_cursor);
        let answer = match columns {
            None => PgWireBackendMessage::NoData(NoData::new()),
            Some(schema) => {
                let fields = fields(&schema, &format);
                let described = fields.iter().map(FieldDescription::from).collect();
                PgWireBackendMessage::RowDescription(RowDescription::new(described))
            }
        };
        client.feed(answer).await?;
        Ok(())
    }

    async fn on_execute<C>(&self, client: &mut C, message: Execute) -> PgWireResult<()>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let name = message.name.as_deref().unwrap_or(DEFAULT_NAME);
        let portal = match client.portal_store().get_portal(name) {
            Some(Entry::Value(portal)) => portal,
            Some(Entry::Empty) => {
                let empty = PgWireBackendMessage::EmptyQueryResponse(EmptyQueryResponse::new());
                client.feed(empty).await?;
                return Ok(());
            }
            None => return Err(missing_portal(name)),
        };
        // Zero and below: all rows.
        let rows_max = usize::try_from(message.max_rows).unwrap_or(0);
        let mut state = portal.state.lock().await;
        if matches!(*state, PortalExecutionState::Initial) {
            *state = PortalExecutionState::Finished;
            let Some(rows) = self.start(client, &portal).await? else { return Ok(()) };
            *state = PortalExecutionState::Suspended(rows);
        }
        let PortalExecutionState::Suspended(rows) = &mut *state else {
            return send_execution_response(client, Tag::new("SELECT").with_rows(0)).await;
        };
        match send_rows(client, rows, rows_max).await {
            Ok((_, true)) => {
                let suspended = PgWireBackendMessage::PortalSuspended(PortalSuspended::new());
                client.feed(suspended).await?;
                Ok(())
            }
            Ok((sent, false)) => {
                let tag = Tag::new(rows.command_tag()).with_rows(sent);
                *state = PortalExecutionState::Finished;
                send_execution_response(client, tag).await
            }
            Err(error) => {
                *state = PortalExecutionState::Finished;
                Err(error)
            }
        }
    }

    async fn do_query<C>(
        &self,
        _client: &mut C,
        _portal: &Portal<Self::Statement>,
        _max_rows: usize,
    ) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Self::Statement>,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        Err(wire_error(Error::new("XX000", "on_execute answers")))
    }
}

impl Connection {
    /// Runs a portal's statement. Answers by itself where there are no rows.
    async fn start<C>(
        &self,
        client: &mut C,
        portal: &Portal<WireStatement>,
    ) -> PgWireResult<Option<QueryResponse>>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let prepared = &portal.statement.statement.prepared;
        let Some(statement) = &prepared.statement else { return Ok(None) };
        let session = self.session()?;
        let clock = decode::Clock { zone: session.zone(), now_ns: session.now_ns() };
        let types = prepared.parameters.iter().zip(&portal.statement.statement.parameters);
        let params = portal.parameters.iter().zip(types).enumerate().map(|(at, (bytes, types))| {
            let is_binary = portal.parameter_format.is_binary(at);
            let value = decode::parameter(bytes.as_deref(), is_binary, types, &clock);
            value.map_err(|mut error| {
                error.message = format!("{} (parameter ${})", error.message, at + 1);
                wire_error(error)
            })
        });
        let params: Vec<ScalarValue> = params.collect::<PgWireResult<_>>()?;
        let output = self.execute(client, statement, &params).await?;
        self.send_asides(client).await?;
        match output {
            Output::Rows(rows) => {
                let fields = fields(&rows.schema(), &portal.result_column_format);
                check_described(prepared, &fields, &portal.result_column_format)?;
                let formats: Vec<FieldFormat> = fields.iter().map(FieldInfo::format).collect();
                Ok(Some(QueryResponse::new(
                    fields,
                    data_rows(rows, formats, self.session()?.zone()),
                )))
            }
            Output::Fetched(rows) => {
                let fields = fields(&rows.schema(), &portal.result_column_format);
                let formats: Vec<FieldFormat> = fields.iter().map(FieldInfo::format).collect();
                let mut response =
                    QueryResponse::new(fields, data_rows(rows, formats, self.session()?.zone()));
                response.set_command_tag("FETCH");
                Ok(Some(response))
            }
            Output::CopyIn(rows) => {
                copy::begin(client, &rows, true).await?;
                *self.copy.lock().await = Some(rows);
                copying(client, true);
                Ok(None)
            }
            Output::CopyOut(rows) => {
                copy::send(client, rows, &self.session()?.zone()).await?;
                Ok(None)
            }
            other => {
                if let Some(tag) = tag(client, &other) {
                    send_execution_response(client, tag).await?;
                }
                Ok(None)
            }
        }
    }
}

/// Refuses rows of other columns than the client was told of: a table was changed meanwhile.
fn check_described(prepared: &Prepared, found: &[FieldInfo], format: &Format) -> PgWireResult<()> {
    let Some(schema) = &prepared.columns else { return Ok(()) };
    let described = fields(schema, format);
    let same = |(one, other): (&FieldInfo, &FieldInfo)| one.datatype() == other.datatype();
    if described.len() == found.len() && described.iter().zip(found).all(same) {
        return Ok(());
    }
    let message = "cached plan must not change result type";
    Err(wire_error(Error::new("0A000", message).hint("prepare the statement again")))
}

/// Sends up to `rows_max` rows, all where it is 0. Returns how many, and whether there may be more.
async fn send_rows<C>(
    client: &mut C,
    rows: &mut QueryResponse,
    rows_max: usize,
) -> PgWireResult<(usize, bool)>
where
    C: Sink<PgWireBackendMessage> + Unpin + Send + Sync,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    let mut sent = 0;
    loop {
        if rows_max != 0 && sent >= rows_max {
            return Ok((sent, true));
        }
        match rows.data_rows.next().await {
            Some(row) => {
                client.feed(PgWireBackendMessage::DataRow(row?)).await?;
                sent += 1;
            }
            None => return Ok((sent, false)),
        }
    }
}
