//! The proof that both ends of a connection know the cluster's secret.
//!
//! Three passes, mutual, with fresh numbers of both ends (ISO/IEC 9798-4, mechanism 4, HMAC-SHA-256):
//! nothing recorded can be played again, and the secret is never sent. Both ends say which cluster they
//! are of, where they know: a node that lost its directory and began another one is let in nowhere.
// FORMAT: docs/formats/rpc.md, v1

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ring::hmac;
use ring::rand::{SecureRandom, SystemRandom};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The fewest bytes of a secret.
pub const SECRET_BYTES_MIN: usize = 32;

const GREETING: &[u8; 8] = b"CNOSRPC1";
const NONCE: usize = 32;
const PROOF: usize = 32;
const CLUSTER: usize = 8;
/// How long an unproven connection may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// What the nodes of a cluster know and nobody else does, and which cluster it is.
#[derive(Clone)]
pub struct Secret {
    key: Arc<hmac::Key>,
    /// The number that tells the cluster from others; 0 where it is not known yet.
    cluster: Arc<AtomicU64>,
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl Secret {
    /// Makes a secret of at least [`SECRET_BYTES_MIN`] bytes; `None` of fewer.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let key = || Arc::new(hmac::Key::new(hmac::HMAC_SHA256, bytes));
        (bytes.len() >= SECRET_BYTES_MIN).then(|| Self { key: key(), cluster: Arc::default() })
    }

    /// Says which cluster it is; 0: not known.
    pub fn set_cluster(&self, cluster: u64) {
        self.cluster.store(cluster, Ordering::Release);
    }

    /// Returns what proves the secret, and the number of the cluster.
    fn prove(&self, side: &str, ours: &[u8], theirs: &[u8]) -> Vec<u8> {
        let cluster = self.cluster.load(Ordering::Acquire).to_le_bytes();
        let message = [GREETING, side.as_bytes(), ours, theirs, &cluster].concat();
        [hmac::sign(&self.key, &message).as_ref(), &cluster].concat()
    }

    fn check(&self, side: &str, (provers, ours): (&[u8], &[u8]), proof: &[u8]) -> io::Result<()> {
        let refuse = |kind, message: &str| Err(io::Error::new(kind, message));
        let Some((proof, cluster)) = proof.split_last_chunk::<CLUSTER>() else {
            return refuse(io::ErrorKind::InvalidData, "a proof of another length");
        };
        let message = [GREETING, side.as_bytes(), provers, ours, cluster].concat();
        if hmac::verify(&self.key, &message, proof).is_err() {
            let message = "the two ends do not have the same secret";
            return refuse(io::ErrorKind::PermissionDenied, message);
        }
        let (theirs, own) = (u64::from_le_bytes(*cluster), self.cluster.load(Ordering::Acquire));
        if theirs != 0 && own != 0 && theirs != own {
            let message = "the other end is of another cluster that has the same secret";
            return refuse(io::ErrorKind::PermissionDenied, message);
        }
        Ok(())
    }
}

fn nonce() -> io::Result<[u8; NONCE]> {
    let mut nonce = [0; NONCE];
    SystemRandom::new().fill(&mut nonce).map_err(|_| io::Error::other("no randomness"))?;
    Ok(nonce)
}

async fn in_time<T>(step: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    let timed_out = |_| io::Error::new(io::ErrorKind::TimedOut, "the handshake takes too long");
    tokio::time::timeout(PATIENCE, step).await.map_err(timed_out)?
}

/// The end that connects.
pub(super) async fn connect(stream: &mut TcpStream, secret: &Secret) -> io::Result<()> {
    in_time(async {
        let ours = nonce()?;
        stream.write_all(&[&GREETING[..], &ours].concat()).await?;
        let mut answer = [0; NONCE + PROOF + CLUSTER];
        let other = "the other end is no port for nodes, or refuses this one";
        let refused = |error: io::Error| io::Error::new(error.kind(), other);
        stream.read_exact(&mut answer).await.map_err(refused)?;
        let (theirs, proof) = answer.split_at(NONCE);
        secret.check("server", (theirs, &ours), proof)?;
        stream.write_all(&secret.prove("client", &ours, theirs)).await
    })
    .await
}

/// The end that is called.
pub(super) async fn accept(stream: &mut TcpStream, secret: &Secret) -> io::Result<()> {
    in_time(async {
        let mut hello = [0; GREETING.len() + NONCE];
        stream.read_exact(&mut hello).await?;
        let (greeting, theirs) = hello.split_at(GREETING.len());
        if greeting != GREETING {
            let message = "the other end is no node of this version";
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        }
        let ours = nonce()?;
        let proof = secret.prove("server", &ours, theirs);
        stream.write_all(&[&ours[..], &proof].concat()).await?;
        let mut proof = [0; PROOF + CLUSTER];
        stream.read_exact(&mut proof).await?;
        secret.check("client", (theirs, &ours), &proof)
    })
    .await
}
