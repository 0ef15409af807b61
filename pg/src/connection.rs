//! One connection: TLS, startup, then messages until the client leaves or misbehaves.
//!
//! The loop is ours and not pgwire's, which goes on reading after a failed login.
//! Invariant: an error before the session exists is FATAL and ends the connection.

use std::collections::HashMap;
use std::fmt::Debug;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use futures::{Sink, SinkExt, StreamExt};
use parking_lot::Mutex;
use pgwire::api::auth::{
    ServerParameterProvider, StartupHandler, finish_authentication, protocol_negotiation,
    save_startup_parameters_to_metadata,
};
use pgwire::api::cancel::CancelHandler;
use pgwire::api::{ClientInfo, PgWireConnectionState as State, PidSecretKeyGenerator};
use pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use pgwire::messages::cancel::CancelRequest;
use pgwire::messages::response::NoticeResponse;
use pgwire::messages::startup::{Authentication, PasswordMessageFamily, Startup};
use pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use pgwire::tokio::TlsAcceptor;
use pgwire::tokio::server::{
    MaybeTls, PgWireMessageServerCodec, negotiate_tls, process_error, process_message,
};
use query::{CopyIn, Error, Notice, Session, Verifier};
use tokio::net::TcpStream;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::{Instant, timeout_at};
use tokio_util::codec::Framed;

use crate::auth::{Challenge, MECHANISM, mock_verifier};
use crate::extended::WireStatement;
use crate::server::Shared;

/// How long a client has to prove who it is.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest message before the login, and after it.
const STARTUP_BYTES_MAX: usize = 8 << 10;
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Rows are gathered to so many bytes before they are sent.
const SEND_BYTES: usize = 64 << 10;
/// How often a client that waits for its answer is looked after.
const GONE_ROUND: Duration = Duration::from_secs(1);

type Socket = Framed<MaybeTls, PgWireMessageServerCodec<WireStatement>>;

/// The state of one connection, and all its handlers.
pub(crate) struct Connection {
    pub(crate) shared: Arc<Shared>,
    peer: SocketAddr,
    login: Mutex<Login>,
    session: OnceLock<Arc<Session>>,
    /// Rows on their way in.
    pub(crate) copy: AsyncMutex<Option<Box<CopyIn>>>,
    /// What a cancel request must name, while the session lives.
    key: OnceLock<(i32, Vec<u8>)>,
    permit: OnceLock<tokio::sync::OwnedSemaphorePermit>,
}

enum Login {
    Start,
    First(Params),
    Final(Params, Box<Challenge>),
    Done,
}

type Params = HashMap<String, String>;

pub(crate) fn user_error(error: Error, severity: &str) -> PgWireError {
    let message = error.message.replace('\0', "");
    let mut info = ErrorInfo::new(severity.to_owned(), error.sqlstate.to_owned(), message);
    info.severity_nonlocalized = Some(severity.to_owned());
    info.hint = error.hint;
    info.position = error.position.map(|position| position.to_string());
    PgWireError::UserError(Box::new(info))
}

/// Gives an error of a statement its form on the wire.
pub(crate) fn wire_error(error: impl Into<Error>) -> PgWireError {
    user_error(error.into(), "ERROR")
}

fn fatal(sqlstate: &'static str, message: impl Into<String>) -> PgWireError {
    user_error(Error::new(sqlstate, message), "FATAL")
}

impl Connection {
    pub(crate) fn new(shared: Arc<Shared>, peer: SocketAddr) -> Self {
        Self {
            shared,
            peer,
            login: Mutex::new(Login::Start),
            session: OnceLock::new(),
            copy: AsyncMutex::new(None),
            key: OnceLock::new(),
            permit: OnceLock::new(),
        }
    }

    /// Returns the session of a client that has logged in.
    pub(crate) fn session(&self) -> PgWireResult<&Arc<Session>> {
        self.session.get().ok_or_else(|| fatal("08P01", "a login must come first"))
    }

    fn verifier(&self, user: &str) -> (Verifier, bool) {
        match self.shared.database.verifier(user) {
            Some(Some(verifier)) => (verifier, true),
            Some(None) | None => (mock_verifier(&self.shared.mock_secret, user), false),
        }
    }

    /// Returns whether the user may enter without a password: from this machine, where it has none.
    fn is_trusted(&self, user: &str) -> bool {
        let without_password = matches!(self.shared.database.verifier(user), Some(None));
        without_password && self.peer.ip().is_loopback()
    }

    /// Opens the session and applies what the client asked for when it connected.
    fn open_session(&self, params: &Params) -> PgWireResult<()> {
        let permit = Arc::clone(&self.shared.sessions).try_acquire_owned();
        let permit = permit.map_err(|_| fatal("53300", "sorry, too many clients already"))?;
        let user = params.get("user").map(String::as_str).unwrap_or_default();
        let name = params.get("database").map_or(user, String::as_str);
        let mut settings: Vec<(String, String)> = Vec::new();
        for (name, value) in params {
            match name.as_str() {
                "user" | "database" | "replication" => {}
                "options" => settings.extend(options(value)?),
                name if name.starts_with("_pq_.") => {}
                _ => settings.push((name.clone(), value.clone())),
            }
        }
        let chosen = settings.iter().position(|(name, _)| name == "tenant");
        let tenant = chosen.map(|at| settings.remove(at).1);
        let session = self.shared.database.connect(user, name, tenant.as_deref());
        let session = session.map_err(|error| user_error(error, "FATAL"))?;
        for (name, value) in settings {
            match session.set(&name, Some(&value)) {
                Ok(()) => {}
                // Drivers send the zone of their machine unasked: it must not keep them out.
                Err(_) if name.eq_ignore_ascii_case("timezone") => {
                    tracing::debug!(value, "a client's time zone is not supported: it gets UTC");
                }
                Err(error) => return Err(user_error(error, "FATAL")),
            }
        }
        drop(session.take_reports());
        let first = self.session.set(Arc::new(session)).is_ok() && self.permit.set(permit).is_ok();
        if first { Ok(()) } else { Err(fatal("08P01", "a second login")) }
    }

    async fn enter<C>(&self, client: &mut C, params: &Params) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        self.open_session(params)?;
        let session = self.session()?;
        let (pid, secret) = self.shared.pids.generate(client);
        client.set_pid_and_secret_key(pid, secret.clone());
        let key = (pid, secret.to_bytes().to_vec());
        self.shared.cancels.lock().insert(key.clone(), session.cancel_handle());
        if self.key.set(key).is_err() {
            return Err(fatal("08P01", "a second login"));
        }
        finish_authentication(client, &Reported(session.reported_settings())).await
    }

    async fn login<C>(&self, client: &mut C, message: PgWireFrontendMessage) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        // After any error the state stays `Done`, in which nothing works.
        let login = std::mem::replace(&mut *self.login.lock(), Login::Done);
        match (login, message) {
            (Login::Start, PgWireFrontendMessage::Startup(startup)) => {
                let params = startup_params(client, &startup).await?;
                let user = params.get("user").cloned().unwrap_or_default();
                if self.is_trusted(&user) {
                    self.shared.database.note_login(&user, self.peer.ip(), true);
                    return self.enter(client, &params).await;
                }
                let may_try = self.shared.database.check_login(&user, self.peer.ip());
                may_try.map_err(|error| user_error(error, "FATAL"))?;
                client.set_state(State::AuthenticationInProgress);
                *self.login.lock() = Login::First(params);
                let offer = Authentication::SASL(vec![MECHANISM.to_owned()]);
                client.send(PgWireBackendMessage::Authentication(offer)).await?;
                Ok(())
            }
            (
                Login::First(params),
                PgWireFrontendMessage::PasswordMessageFamily(PasswordMessageFamily::Raw(bytes)),
            ) => {
                let user = params.get("user").map(String::as_str).unwrap_or_default();
                let (verifier, is_known) = self.verifier(user);
                let begun = Challenge::begin(&bytes, verifier, is_known);
                let (challenge, answer) = begun.map_err(|error| user_error(error, "FATAL"))?;
                *self.login.lock() = Login::Final(params, Box::new(challenge));
                let answer = Authentication::SASLContinue(answer.into());
                client.send(PgWireBackendMessage::Authentication(answer)).await?;
                Ok(())
            }
            (
                Login::Final(params, challenge),
                PgWireFrontendMessage::PasswordMessageFamily(PasswordMessageFamily::Raw(bytes)),
            ) => {
                let user = params.get("user").map(String::as_str).unwrap_or_default();
                let finished =
                    challenge.finish(&bytes).map_err(|error| user_error(error, "FATAL"))?;
                self.shared.database.note_login(user, self.peer.ip(), finished.is_some());
                let Some(answer) = finished else {
                    tracing::warn!(user, peer = %self.peer, "login refused");
                    let message = format!("password authentication failed for user \"{user}\"");
                    return Err(fatal("28P01", message));
                };
                let answer = Authentication::SASLFinal(answer.into());
                client.feed(PgWireBackendMessage::Authentication(answer)).await?;
                self.enter(client, &params).await
            }
            _ => Err(fatal("08P01", "unexpected message during authentication")),
        }
    }

    /// Sends what the session wants to be said.
    pub(crate) async fn send_asides<C>(&self, client: &mut C) -> PgWireResult<()>
    where
        C: Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let session = self.session()?;
        for Notice { severity, sqlstate, message } in session.take_notices() {
            let mut info = ErrorInfo::new(severity.to_owned(), sqlstate.to_owned(), message);
            info.severity_nonlocalized = Some(severity.to_owned());
            let notice = NoticeResponse::from(info);
            client.feed(PgWireBackendMessage::NoticeResponse(notice)).await?;
        }
        for (name, value) in session.take_reports() {
            let status = pgwire::messages::startup::ParameterStatus::new(name.to_owned(), value);
            client.feed(PgWireBackendMessage::ParameterStatus(status)).await?;
        }
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(key) = self.key.get() {
            self.shared.cancels.lock().remove(key);
        }
        if let Some(session) = self.session.get() {
            session.cancel_handle().cancel();
        }
    }
}

struct Reported(Vec<(String, String)>);

impl ServerParameterProvider for Reported {
    fn server_parameters<C: ClientInfo>(&self, _client: &C) -> Option<HashMap<String, String>> {
        Some(self.0.iter().cloned().collect())
    }
}

async fn startup_params<C>(client: &mut C, startup: &Startup) -> PgWireResult<Params>
where
    C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
    C::Error: Debug,
    PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
{
    protocol_negotiation(client, startup).await?;
    save_startup_parameters_to_metadata(client, startup);
    let params: Params =
        startup.parameters.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    if params.get("user").is_none_or(String::is_empty) {
        return Err(fatal("28000", "no PostgreSQL user name specified in startup packet"));
    }
    let replication = params.get("replication").map(String::as_str);
    if !matches!(replication, None | Some("false" | "off" | "no" | "0")) {
        return Err(fatal("0A000", "replication connections are not supported"));
    }
    Ok(params)
}

/// Reads `-c name=value`, `-cname=value` and `--name=value`.
fn options(text: &str) -> PgWireResult<Vec<(String, String)>> {
    let mut found = Vec::new();
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        let setting = match word.strip_prefix("--") {
            Some(setting) => Some(setting),
            None => match word.strip_prefix("-c") {
                Some("") => words.next(),
                other => other,
            },
        };
        let pair = setting.and_then(|setting| setting.split_once('='));
        let Some((name, value)) = pair else {
            return Err(fatal("42601", format!("invalid command-line argument: {word}")));
        };
        found.push((name.replace('-', "_"), value.to_owned()));
    }
    Ok(found)
}

#[async_trait]
impl StartupHandler for Connection {
    async fn on_startup<C>(
        &self,
        client: &mut C,
        message: PgWireFrontendMessage,
    ) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        self.login(client, message).await
    }
}

#[async_trait]
impl CancelHandler for Connection {
    async fn on_cancel_request(&self, request: CancelRequest) {
        let key = (request.pid, request.secret_key.to_bytes().to_vec());
        // Whoever knows the key may cancel; a wrong one is answered by silence.
        if let Some(handle) = self.shared.cancels.lock().get(&key) {
            handle.cancel();
        }
    }
}

/// Reads the next message, refusing one that grows beyond `limit`.
async fn next_message(
    socket: &mut Socket,
    limit: usize,
) -> Option<PgWireResult<PgWireFrontendMessage>> {
    std::future::poll_fn(|context| match socket.poll_next_unpin(context) {
        Poll::Pending if socket.read_buffer().len() > limit => {
            let size = socket.read_buffer().len();
            Poll::Ready(Some(Err(PgWireError::MessageTooLarge(limit, size))))
        }
        other => other,
    })
    .await
}

async fn close_fatally(socket: &mut Socket, error: PgWireError) {
    let mut info: ErrorInfo = error.into();
    info.severity = "FATAL".to_owned();
    info.severity_nonlocalized = Some("FATAL".to_owned());
    let message = PgWireBackendMessage::ErrorResponse(info.into());
    if let Err(error) = socket.send(message).await {
        tracing::debug!(%error, "the client is gone");
    }
    if let Err(error) = socket.close().await {
        tracing::debug!(%error, "the client is gone");
    }
}

/// Ends when the client has gone away.
async fn gone(watch: &std::net::TcpStream) {
    let mut round = tokio::time::interval(GONE_ROUND);
    loop {
        round.tick().await;
        match watch.peek(&mut [0]) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

/// Serves one client.
///
/// # Errors
/// What the socket says.
pub(crate) async fn serve(
    tcp: TcpStream,
    tls: Option<TlsAcceptor>,
    connection: Arc<Connection>,
) -> std::io::Result<()> {
    let watch = std::net::TcpStream::from(tcp.as_fd().try_clone_to_owned()?);
    let deadline = Instant::now() + STARTUP_TIMEOUT;
    let negotiated = timeout_at(deadline, negotiate_tls::<WireStatement>(tcp, tls)).await;
    let Ok(negotiated) = negotiated else { return Ok(()) };
    let Some(mut socket) = negotiated? else { return Ok(()) };
    if socket.is_secure() && !socket.read_buffer().is_empty() {
        // Sent before the handshake, by who knows whom.
        return Ok(());
    }
    socket.set_backpressure_boundary(SEND_BYTES);
    loop {
        let in_startup =
            matches!(socket.state(), State::AwaitingStartup | State::AuthenticationInProgress);
        let message = if in_startup {
            match timeout_at(deadline, next_message(&mut socket, STARTUP_BYTES_MAX)).await {
                Ok(message) => message,
                Err(_) => return Ok(()),
            }
        } else {
            tokio::select! {
                message = next_message(&mut socket, MESSAGE_BYTES_MAX) => message,
                () = connection.shared.stop.cancelled() => {
                    let message = "terminating connection due to administrator command";
                    close_fatally(&mut socket, fatal("57P01", message)).await;
                    return Ok(());
                }
            }
        };
        let message = match message {
            None => return Ok(()),
            Some(Err(error)) => {
                close_fatally(&mut socket, error).await;
                return Ok(());
            }
            Some(Ok(PgWireFrontendMessage::Terminate(_))) => return Ok(()),
            Some(Ok(message)) => message,
        };
        let is_cancel = matches!(message, PgWireFrontendMessage::CancelRequest(_));
        let is_extended = match socket.state() {
            State::CopyInProgress(extended) => extended,
            _ => message.is_extended_query(),
        };
        let handlers = || Arc::clone(&connection);
        let (a, b, c, d, e) = (handlers(), handlers(), handlers(), handlers(), handlers());
        let processed = tokio::select! {
            processed = process_message(message, &mut socket, a, b, c, d, e) => processed,
            () = gone(&watch) => return Ok(()),
        };
        if let Err(error) = processed {
            let info: ErrorInfo = error.into();
            let is_fatal = info.is_fatal();
            let error = PgWireError::UserError(Box::new(info));
            if in_startup || is_fatal {
                close_fatally(&mut socket, error).await;
                return Ok(());
            }
            drop(connection.copy.lock().await.take());
            process_error(&mut socket, error, is_extended).await?;
        }
        if is_cancel {
            return Ok(());
        }
    }
}
