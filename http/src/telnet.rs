//! OpenTSDB's lines on a port of their own: `put metric time value tag=value …`. A line that was taken is
//! answered with nothing, one that was not with why, as OpenTSDB does. Whoever reaches the port writes as
//! the user the settings name: the protocol knows no passwords.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, BytesMut};
use query::{Database, Session};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::opentsdb::add_line;
use crate::samples::Samples;
use crate::sockets::{Port, accept};

/// The longest line that is waited for.
const LINE_BYTES_MAX: usize = 16 << 10;
/// The most bytes that are read, and the lines among them stored, at once.
const READ_BYTES: usize = 256 << 10;
/// How long a connection may say nothing, or leave answers unread.
const IDLE_PATIENCE: Duration = Duration::from_secs(600);
/// How requests of HTTP begin: a page in somebody's browser must not write here.
const HTTP: [&str; 6] = ["GET", "POST", "PUT", "HEAD", "OPTIONS", "DELETE"];

/// Who the port writes as, and where.
#[derive(Clone)]
pub struct TelnetConfig {
    /// The user.
    pub user: String,
    /// The tenant.
    pub tenant: String,
    /// The database.
    pub database: String,
    /// Connections at once.
    pub connections_max: usize,
}

/// The running port.
pub struct TelnetServer(Port);

impl TelnetServer {
    /// Serves senders of `listener` until it is closed.
    pub fn start(listener: TcpListener, database: Arc<Database>, config: TelnetConfig) -> Self {
        Self(Port::open(|stop| serve(listener, database, Arc::new(config), stop)))
    }

    /// Takes no more lines, and waits for those that are being stored.
    pub async fn close(self) {
        self.0.close().await;
    }
}

async fn serve(
    listener: TcpListener,
    database: Arc<Database>,
    config: Arc<TelnetConfig>,
    stop: CancellationToken,
) {
    let connections = TaskTracker::new();
    accept(listener, config.connections_max, &stop, |tcp, peer| {
        let (database, config, stop) = (Arc::clone(&database), Arc::clone(&config), stop.clone());
        connections.track_future(async move {
            if let Err(error) = connection(tcp, peer, &database, &config, stop).await {
                tracing::debug!(%peer, %error, "a connection ended early");
            }
        })
    })
    .await;
    connections.close();
    connections.wait().await;
}

/// Takes the lines of a connection until it ends, or the server does.
async fn connection(
    mut tcp: TcpStream,
    peer: SocketAddr,
    database: &Arc<Database>,
    config: &TelnetConfig,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let session = database.connect(&config.user, &config.tenant, None);
    let session = session.and_then(|session| {
        session.set("search_path", Some(&config.database))?;
        Ok(session)
    });
    let session = match session {
        Ok(session) => session,
        Err(error) => {
            tracing::warn!(%peer, error = error.message, "lines of OpenTSDB are refused");
            return tcp.write_all(format!("error: {}\n", error.message).as_bytes()).await;
        }
    };
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(READ_BYTES);
        let read = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            read = timeout(IDLE_PATIENCE, tcp.read_buf(&mut buffer)) => read,
        };
        if !matches!(read, Ok(Ok(bytes)) if bytes > 0) {
            return Ok(());
        }
        let whole = memchr::memrchr(b'\n', &buffer).map_or(0, |end| end + 1);
        let mut answer = take(&session, &buffer[..whole]).await;
        buffer.advance(whole);
        if buffer.len() > LINE_BYTES_MAX {
            answer.text.push_str("error: the line is too long\n");
            answer.ends = true;
        }
        let written = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            written = timeout(IDLE_PATIENCE, tcp.write_all(answer.text.as_bytes())) => written,
        };
        if answer.ends || !matches!(written, Ok(Ok(()))) {
            return Ok(());
        }
    }
}

/// What a sender is told.
struct Answer {
    text: String,
    ends: bool,
}

/// Stores lines that came together.
async fn take(session: &Session, lines: &[u8]) -> Answer {
    let (mut samples, mut text, mut ends) = (Samples::default(), String::new(), false);
    for line in lines.split(|byte| *byte == b'\n') {
        let Ok(line) = std::str::from_utf8(line) else {
            text.push_str("put: not UTF-8\n");
            continue;
        };
        let line = line.trim();
        match line.split_ascii_whitespace().next() {
            None => {}
            Some("put") => {
                if let Err(reason) = add_line(&mut samples, line, None) {
                    text.push_str(&format!("put: {reason}: {line}\n"));
                }
            }
            Some("version") => text.push_str(concat!("CnosDB ", env!("CARGO_PKG_VERSION"), "\n")),
            Some("exit" | "quit") => ends = true,
            Some(word) if HTTP.contains(&word) => ends = true,
            Some(other) => text.push_str(&format!("unknown command: {other}\n")),
        }
        if ends {
            break;
        }
    }
    if let Some(error) = samples.store(session).await.failed {
        text.push_str(&format!("put: {}\n", error.message));
    }
    Answer { text, ends }
}
