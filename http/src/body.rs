//! Request bodies, unpacked within limits: a small bomb must not become a large allocation.

use std::io::Read;

use axum::http::{HeaderMap, StatusCode, header::CONTENT_ENCODING};
use bytes::Bytes;

use crate::failure::Failure;

/// The most bytes of a body as it comes.
pub(crate) const BODY_BYTES_MAX: usize = 64 << 20;
/// The most bytes of a body once unpacked.
const UNPACKED_BYTES_MAX: u64 = 256 << 20;

/// Unpacks a body as its headers say.
///
/// # Errors
/// 415 for an encoding that is not known, 400 for bytes that are not of it, 413 for too many.
pub(crate) fn unpack(headers: &HeaderMap, body: Bytes) -> Result<Bytes, Failure> {
    let Some(encoding) = headers.get(CONTENT_ENCODING) else { return Ok(body) };
    match encoding.to_str().unwrap_or_default().to_ascii_lowercase().as_str() {
        "" | "identity" => Ok(body),
        "gzip" | "x-gzip" => read(flate2::read::MultiGzDecoder::new(body.as_ref())),
        "deflate" => read(flate2::read::ZlibDecoder::new(body.as_ref())),
        "zstd" => read(
            zstd::stream::read::Decoder::new(body.as_ref())
                .map_err(|error| Failure::bad_request(format!("the body is not zstd: {error}")))?,
        ),
        other => Err(Failure::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "0A000",
            format!("content encoding \"{other}\" is none of gzip, deflate, zstd"),
        )),
    }
}

fn read(packed: impl Read) -> Result<Bytes, Failure> {
    let mut unpacked = Vec::new();
    let read = packed.take(UNPACKED_BYTES_MAX + 1).read_to_end(&mut unpacked);
    read.map_err(|error| Failure::bad_request(format!("the body does not unpack: {error}")))?;
    if unpacked.len() as u64 > UNPACKED_BYTES_MAX {
        let message = format!("the body unpacks to more than {UNPACKED_BYTES_MAX} bytes");
        return Err(Failure::new(StatusCode::PAYLOAD_TOO_LARGE, "54000", message));
    }
    Ok(unpacked.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;
    use std::io::Write;

    fn with(encoding: &'static str, body: Vec<u8>) -> Result<Bytes, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        unpack(&headers, body.into())
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn bodies_unpack_and_bombs_and_rubbish_are_refused() {
        assert_eq!(with("gzip", gzip(b"m f=1")).unwrap(), "m f=1");
        assert_eq!(with("zstd", zstd::encode_all(&b"m f=1"[..], 1).unwrap()).unwrap(), "m f=1");
        let bomb = gzip(&vec![0; UNPACKED_BYTES_MAX as usize + 1]);
        assert!(bomb.len() < 1 << 20);
        assert!(with("gzip", bomb).is_err());
        assert!(with("gzip", b"rubbish".to_vec()).is_err());
        assert!(with("rot13", b"x".to_vec()).is_err());
    }
}
