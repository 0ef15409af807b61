//! Accepts connections, limits how many there are, and stops them.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use pgwire::api::RandomPidSecretKeyGenerator;
use pgwire::tokio::TlsAcceptor;
use query::{CancelHandle, Database};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::connection::{Connection, serve};

/// Sockets that are open at once, logged in or not.
const SOCKETS_OVER_SESSIONS: usize = 64;
/// How long connections may take to end when the server stops.
const STOP_PATIENCE: Duration = Duration::from_secs(3);
/// How long to wait when the system gives no socket.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Settings of the front end.
#[derive(Clone)]
pub struct PgConfig {
    /// Sessions at once.
    pub sessions_max: usize,
    /// Encrypts connections whose clients ask for it.
    pub tls: Option<TlsAcceptor>,
    /// Secret of this installation, so that unknown users look like known ones.
    pub mock_secret: [u8; 32],
}

/// What all connections share.
pub(crate) struct Shared {
    pub(crate) database: Arc<Database>,
    pub(crate) cancels: Mutex<HashMap<(i32, Vec<u8>), CancelHandle>>,
    pub(crate) pids: RandomPidSecretKeyGenerator,
    pub(crate) mock_secret: [u8; 32],
    pub(crate) sessions: Arc<Semaphore>,
    pub(crate) stop: CancellationToken,
}

/// The running front end.
pub struct PgServer {
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl PgServer {
    /// Serves clients of `listener` until it is closed.
    pub fn start(listener: TcpListener, database: Arc<Database>, config: PgConfig) -> Self {
        let shared = Arc::new(Shared {
            database,
            cancels: Mutex::default(),
            pids: RandomPidSecretKeyGenerator::default(),
            mock_secret: config.mock_secret,
            sessions: Arc::new(Semaphore::new(config.sessions_max)),
            stop: CancellationToken::new(),
        });
        let sockets = Arc::new(Semaphore::new(config.sessions_max + SOCKETS_OVER_SESSIONS));
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared), config.tls, sockets));
        Self { shared, accepting }
    }

    /// Ends all connections.
    pub async fn close(self) {
        self.shared.stop.cancel();
        if let Err(error) = self.accepting.await {
            tracing::error!(%error, "the pg front end panicked");
        }
    }
}

async fn accept(
    listener: TcpListener,
    shared: Arc<Shared>,
    tls: Option<TlsAcceptor>,
    sockets: Arc<Semaphore>,
) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = shared.stop.cancelled() => break,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(%error, "a connection panicked");
                }
                continue;
            }
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, peer)) => {
                let Ok(permit) = Arc::clone(&sockets).try_acquire_owned() else {
                    tracing::warn!(%peer, "too many connections");
                    continue;
                };
                let connection = Arc::new(Connection::new(Arc::clone(&shared), peer));
                let tls = tls.clone();
                connections.spawn(async move {
                    if let Err(error) = serve(tcp, tls, connection).await {
                        tracing::debug!(%peer, %error, "connection ended");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(STOP_PATIENCE, ended).await.is_err() {
        connections.abort_all();
    }
}

/// Makes the acceptor of TLS connections from a certificate chain and its key, in PEM, for clients
/// that speak `protocol` (its name in ALPN, RFC 7301).
///
/// # Errors
/// Files that cannot be read or do not fit each other.
pub fn tls_acceptor(
    certificate: &Path,
    private_key: &Path,
    protocol: &str,
) -> Result<TlsAcceptor, String> {
    let at = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .map_err(|error| at(certificate, &error))?;
    let key = PrivateKeyDer::from_pem_file(private_key).map_err(|error| at(private_key, &error))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| at(certificate, &error))?;
    config.alpn_protocols = vec![protocol.as_bytes().to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
