//! Request bodies: read at no less than a pace, held within a budget that all share, and unpacked within
//! limits, for a small bomb must not become a large allocation.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::{HeaderMap, StatusCode, header::CONTENT_ENCODING};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use crate::failure::Failure;

/// The most bytes of a body as it comes.
const BODY_BYTES_MAX: usize = 64 << 20;
/// The most bytes of a body once unpacked.
const UNPACKED_BYTES_MAX: usize = 256 << 20;
/// The most bytes a body unpacks to for one of its own, once it is beyond the free ones.
const RATIO_MAX: usize = 200;
/// Bytes to which a body may unpack whatever its ratio.
const RATIO_FREE_BYTES: usize = 1 << 20;
/// How long a body may keep one waiting before its pace counts.
const PATIENCE: Duration = Duration::from_secs(10);
/// The bytes that must come in a second from then on.
const PACE: usize = 1 << 10;
/// The least that is unpacked at once.
const PIECE_BYTES: usize = 64 << 10;
/// Bytes a permit of the budget stands for.
const PERMIT_BYTES: usize = 1 << 10;
/// How framed snappy begins; a body that begins otherwise is one block of it.
const SNAPPY_FRAMES: &[u8] = b"\xff\x06\x00\x00sNaPpY";

/// The budget that all bodies share.
pub(crate) struct Bodies {
    bytes_max: usize,
    free: Arc<Semaphore>,
}

/// A share of the budget; given back when it is dropped.
pub(crate) struct Held {
    free: Arc<Semaphore>,
    permit: Option<OwnedSemaphorePermit>,
}

impl Held {
    /// Takes more of the budget until it is for so many bytes, or fails: who waited for it would hold what
    /// others wait for.
    fn grow_to(&mut self, bytes: usize) -> Result<(), Failure> {
        let has = self.permit.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = bytes.div_ceil(PERMIT_BYTES).saturating_sub(has);
        let permits = u32::try_from(more).unwrap_or(u32::MAX);
        let Ok(more) = Arc::clone(&self.free).try_acquire_many_owned(permits) else {
            let message = "the bodies of requests hold all memory they may";
            return Err(Failure::new(StatusCode::SERVICE_UNAVAILABLE, "53200", message));
        };
        match &mut self.permit {
            Some(permit) => permit.merge(more),
            None => self.permit = Some(more),
        }
        Ok(())
    }
}

impl Bodies {
    /// Makes a budget of so many bytes of all bodies that are held at once, packed and unpacked.
    pub(crate) fn new(bytes_max: usize) -> Self {
        let permits = (bytes_max / PERMIT_BYTES).min(Semaphore::MAX_PERMITS);
        Self { bytes_max: permits * PERMIT_BYTES, free: Arc::new(Semaphore::new(permits)) }
    }

    /// Returns the bytes of the budget that are taken.
    pub(crate) fn held_bytes(&self) -> usize {
        self.bytes_max - self.free.available_permits() * PERMIT_BYTES
    }

    /// Reads a body as it comes.
    ///
    /// # Errors
    /// 408 for one that comes too slowly, 413 for too many bytes, 503 while others hold the budget.
    pub(crate) async fn read(&self, body: Body) -> Result<(Bytes, Held), Failure> {
        if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
            return Err(too_large());
        }
        let (begun, mut last) = (Instant::now(), Instant::now());
        let mut chunks = body.into_data_stream();
        let mut held = Held { free: Arc::clone(&self.free), permit: None };
        let mut bytes = BytesMut::new();
        loop {
            let pace = Duration::from_secs((bytes.len() / PACE) as u64);
            let until = (begun + pace).min(last) + PATIENCE;
            let Ok(chunk) = timeout_at(until, chunks.next()).await else {
                let message = format!("the body comes slower than {PACE} bytes a second");
                return Err(Failure::new(StatusCode::REQUEST_TIMEOUT, "08006", message));
            };
            last = Instant::now();
            let Some(chunk) = chunk else { return Ok((bytes.freeze(), held)) };
            let chunk = chunk.map_err(|error| {
                Failure::bad_request(format!("the body could not be read: {error}"))
            })?;
            if bytes.len() + chunk.len() > BODY_BYTES_MAX {
                return Err(too_large());
            }
            held.grow_to(bytes.len() + chunk.len())?;
            bytes.extend_from_slice(&chunk);
        }
    }
}

/// Unpacks a body as its headers say.
///
/// # Errors
/// 415 for an encoding that is not known, 400 for bytes that are not of it, 413 for too many bytes, 503
/// while others hold the budget.
pub(crate) async fn unpacked(
    headers: &HeaderMap,
    packed: Bytes,
    mut held: Held,
) -> Result<(Bytes, Held), Failure> {
    let Some(coding) = headers.get(CONTENT_ENCODING) else { return Ok((packed, held)) };
    let coding = coding.to_str().unwrap_or_default().to_ascii_lowercase();
    if matches!(coding.as_str(), "" | "identity") {
        return Ok((packed, held));
    }
    let unpacking = tokio::task::spawn_blocking(move || {
        let mut hold = |bytes: usize| held.grow_to(packed.len() + bytes);
        let body = unpack(&coding, &packed, &mut hold)?;
        Ok((body, held))
    });
    unpacking.await.map_err(|_| Failure::bad_request("the body does not unpack"))?
}

fn too_large() -> Failure {
    let message = format!("the body has more than {BODY_BYTES_MAX} bytes");
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "54000", message)
}

/// Asked before so many bytes are held.
type Hold<'a> = &'a mut dyn FnMut(usize) -> Result<(), Failure>;

/// Unpacks a body of a coding.
fn unpack(coding: &str, packed: &[u8], hold: Hold<'_>) -> Result<Bytes, Failure> {
    let bytes_max = packed.len().saturating_mul(RATIO_MAX);
    let bytes_max = bytes_max.clamp(RATIO_FREE_BYTES, UNPACKED_BYTES_MAX);
    match coding {
        "gzip" | "x-gzip" => read(flate2::read::MultiGzDecoder::new(packed), bytes_max, hold),
        // The name means zlib's format (RFC 9110, 8.4.1.2); some send what it is made of.
        "deflate" if is_zlib(packed) => {
            read(flate2::read::ZlibDecoder::new(packed), bytes_max, hold)
        }
        "deflate" => read(flate2::read::DeflateDecoder::new(packed), bytes_max, hold),
        "br" => read(brotli::Decompressor::new(packed, PERMIT_BYTES), bytes_max, hold),
        "zstd" => read(
            zstd::stream::read::Decoder::new(packed)
                .map_err(|error| Failure::bad_request(format!("the body is not zstd: {error}")))?,
            bytes_max,
            hold,
        ),
        "lz4" => read(lz4_flex::frame::FrameDecoder::new(packed), bytes_max, hold),
        "snappy" if packed.starts_with(SNAPPY_FRAMES) => {
            read(snap::read::FrameDecoder::new(packed), bytes_max, hold)
        }
        "snappy" => {
            hold(bytes_max.min(snap::raw::decompress_len(packed).unwrap_or(0)))?;
            snappy_block(packed, bytes_max)
        }
        other => {
            let message = format!(
                "content encoding \"{other}\" is none of gzip, deflate, br, zstd, snappy, lz4"
            );
            Err(Failure::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "0A000", message))
        }
    }
}

/// Returns whether bytes begin as zlib's format does (RFC 1950, 2.2).
fn is_zlib(packed: &[u8]) -> bool {
    let [method, flags, ..] = packed else { return false };
    method & 0xf == 8 && u16::from_be_bytes([*method, *flags]).is_multiple_of(31)
}

/// Unpacks a block of snappy, whose length its first bytes say.
pub(crate) fn snappy_block(packed: &[u8], bytes_max: usize) -> Result<Bytes, Failure> {
    let rubbish = |error: snap::Error| Failure::bad_request(format!("not snappy: {error}"));
    let len = snap::raw::decompress_len(packed).map_err(rubbish)?;
    if len > bytes_max {
        return Err(bomb(bytes_max));
    }
    Ok(snap::raw::Decoder::new().decompress_vec(packed).map_err(rubbish)?.into())
}

fn read(mut unpacking: impl Read, bytes_max: usize, hold: Hold<'_>) -> Result<Bytes, Failure> {
    let mut unpacked = Vec::new();
    loop {
        // As much as there is once more, for that is what a list of bytes grows by.
        let more = unpacked.len().clamp(PIECE_BYTES, bytes_max + 1);
        hold(unpacked.len() + more)?;
        unpacked.reserve_exact(more);
        let read = unpacking.by_ref().take(more as u64).read_to_end(&mut unpacked);
        let read = read
            .map_err(|error| Failure::bad_request(format!("the body does not unpack: {error}")))?;
        if unpacked.len() > bytes_max {
            return Err(bomb(bytes_max));
        }
        if read < more {
            return Ok(unpacked.into());
        }
    }
}

fn bomb(bytes_max: usize) -> Failure {
    let message = format!("the body unpacks to more than {bytes_max} bytes");
    Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "54000", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pack::{Coding, Packer};

    fn packed(coding: Coding, bytes: &[u8]) -> Vec<u8> {
        let mut packer = Packer::new(coding).unwrap();
        let mut packed = packer.put(bytes).unwrap();
        packed.extend(packer.end().unwrap());
        packed
    }

    fn unpack(coding: &str, packed: &[u8]) -> Result<Bytes, Failure> {
        super::unpack(coding, packed, &mut |_| Ok(()))
    }

    #[test]
    fn what_is_packed_in_any_coding_unpacks_and_bombs_and_rubbish_are_refused() {
        for coding in Coding::ALL {
            let name = coding.name();
            assert_eq!(unpack(name, &packed(coding, b"m f=1")).unwrap(), "m f=1", "{name}");
            let bomb = packed(coding, &vec![0; 64 << 20]);
            assert!(unpack(name, &bomb).is_err() || bomb.len() * RATIO_MAX >= 64 << 20, "{name}");
            assert!(unpack(name, b"rubbish that is of no coding").is_err(), "{name}");
        }
        assert!(unpack("rot13", b"x").is_err());
        let block = snap::raw::Encoder::new().compress_vec(b"m f=1").unwrap();
        assert_eq!(unpack("snappy", &block).unwrap(), "m f=1");
        assert!(unpack("snappy", b"\xff\xff\xff\xff\x0f").is_err(), "4 GiB, as it says");
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_crawls_is_given_up_and_one_that_keeps_the_pace_is_read() {
        let dripping = |bytes: usize, pause: u64| {
            let drips = futures::stream::unfold(0, move |sent| async move {
                if sent == 30 {
                    return None;
                }
                tokio::time::sleep(Duration::from_secs(pause)).await;
                Some((Ok::<_, std::io::Error>(Bytes::from(vec![b'x'; bytes])), sent + 1))
            });
            Body::from_stream(drips)
        };
        let bodies = Bodies::new(1 << 30);
        let status = |failure: Failure| failure.status();
        let crawls = bodies.read(dripping(10, 1)).await;
        assert_eq!(crawls.map(|_| ()).map_err(status), Err(StatusCode::REQUEST_TIMEOUT));
        let (bytes, held) = bodies.read(dripping(2_048, 1)).await.unwrap();
        assert_eq!(bytes.len(), 30 * 2_048);
        let silent = bodies.read(dripping(60_000, 11)).await;
        assert_eq!(silent.map(|_| ()).map_err(status), Err(StatusCode::REQUEST_TIMEOUT));
        assert_eq!(bodies.held_bytes(), 30 * 2_048);
        let packed = packed(Coding::Gzip, &vec![7; 100_000]);
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, "gzip".parse().unwrap());
        let (bytes, more) = unpacked(&headers, packed.into(), held).await.unwrap();
        assert!(bytes.len() == 100_000 && bodies.held_bytes() >= 100_000);
        drop(more);
        assert_eq!(bodies.held_bytes(), 0);
    }
}
