//! A port: accepts connections, so many at once, until it is closed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long what was begun may take to end when a port is closed.
const STOP_PATIENCE: Duration = Duration::from_secs(3);
/// How long to wait when the system gives no socket.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A port that is served.
pub(crate) struct Port {
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Port {
    /// Begins to serve; `serve` ends soon after the token it is given is cancelled.
    pub(crate) fn open<F>(serve: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let stop = CancellationToken::new();
        let serving = tokio::spawn(serve(stop.clone()));
        Self { stop, serving }
    }

    /// Takes nothing more, and waits for what was begun.
    pub(crate) async fn close(self) {
        self.stop.cancel();
        let mut serving = self.serving;
        if tokio::time::timeout(STOP_PATIENCE, &mut serving).await.is_err() {
            serving.abort();
        }
    }
}

/// Accepts until `stop` is cancelled, and serves each connection beside the others: a slow client holds up
/// nobody. One too many is closed.
pub(crate) async fn accept<F>(
    listener: TcpListener,
    connections_max: usize,
    stop: &CancellationToken,
    mut serve: impl FnMut(TcpStream, SocketAddr) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(connections_max));
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        let (tcp, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = Arc::clone(&places).try_acquire_owned() else {
            let local = listener.local_addr().ok();
            tracing::warn!(%peer, ?local, "too many connections");
            continue;
        };
        let served = serve(tcp, peer);
        tokio::spawn(async move {
            let _permit = permit;
            served.await;
        });
    }
}
