//! Answers, packed as their reader accepts (RFC 9110, 12.5.3), while they stream.

use std::io::{Result, Write};

use axum::body::{Body, HttpBody};
use axum::extract::Request;
use axum::http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, CONTENT_LENGTH, VARY};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use bytes::Bytes;
use futures::{Stream, StreamExt};

/// Answers of fewer bytes are sent as they are.
const PACKED_FROM: u64 = 1 << 10;
/// Levels that keep up with the rows they pack.
const GZIP_LEVEL: u32 = 4;
const ZSTD_LEVEL: i32 = 3;
const BROTLI_QUALITY: u32 = 4;
const BROTLI_WINDOW: u32 = 20;
const BROTLI_BUFFER: usize = 4 << 10;

/// How bytes are packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coding {
    Zstd,
    Gzip,
    Brotli,
    Lz4,
    Snappy,
    Deflate,
}

impl Coding {
    /// All codings, the one we prefer first.
    pub(crate) const ALL: [Self; 6] =
        [Self::Zstd, Self::Gzip, Self::Brotli, Self::Lz4, Self::Snappy, Self::Deflate];

    /// Returns the name headers have for it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Gzip => "gzip",
            Self::Brotli => "br",
            Self::Lz4 => "lz4",
            Self::Snappy => "snappy",
            Self::Deflate => "deflate",
        }
    }

    /// Returns the coding a reader likes best; of those it likes equally, the one we do.
    fn accepted(headers: &HeaderMap) -> Option<Self> {
        let text = headers.get(ACCEPT_ENCODING)?.to_str().ok()?.to_ascii_lowercase();
        let liked = |coding: Self| {
            let mut ranges = text.split(',').filter_map(|range| {
                let (name, weight) = range.split_once(';').unwrap_or((range, "q=1"));
                let weight = weight.trim().strip_prefix("q=").unwrap_or("1");
                (name.trim() == coding.name()).then(|| weight.trim().parse::<f32>().unwrap_or(0.0))
            });
            ranges.next_back().filter(|weight| *weight > 0.0)
        };
        let mut best: Option<(Self, f32)> = None;
        for coding in Self::ALL {
            let Some(weight) = liked(coding) else { continue };
            if best.is_none_or(|(_, other)| weight > other) {
                best = Some((coding, weight));
            }
        }
        best.map(|(coding, _)| coding)
    }
}

/// Packs bytes piece by piece.
pub(crate) enum Packer {
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    Brotli(Box<brotli::CompressorWriter<Vec<u8>>>),
    Lz4(Box<lz4_flex::frame::FrameEncoder<Vec<u8>>>),
    Snappy(Box<snap::write::FrameEncoder<Vec<u8>>>),
    Deflate(flate2::write::ZlibEncoder<Vec<u8>>),
}

impl Packer {
    pub(crate) fn new(coding: Coding) -> Result<Self> {
        let (out, level) = (Vec::new(), flate2::Compression::new(GZIP_LEVEL));
        Ok(match coding {
            Coding::Zstd => Self::Zstd(zstd::stream::write::Encoder::new(out, ZSTD_LEVEL)?),
            Coding::Gzip => Self::Gzip(flate2::write::GzEncoder::new(out, level)),
            Coding::Brotli => Self::Brotli(Box::new(brotli::CompressorWriter::new(
                out,
                BROTLI_BUFFER,
                BROTLI_QUALITY,
                BROTLI_WINDOW,
            ))),
            Coding::Lz4 => Self::Lz4(Box::new(lz4_flex::frame::FrameEncoder::new(out))),
            Coding::Snappy => Self::Snappy(Box::new(snap::write::FrameEncoder::new(out))),
            Coding::Deflate => Self::Deflate(flate2::write::ZlibEncoder::new(out, level)),
        })
    }

    /// Packs more bytes; returns what is ready, which may be nothing.
    pub(crate) fn put(&mut self, bytes: &[u8]) -> Result<Vec<u8>> {
        match self {
            Self::Zstd(encoder) => encoder.write_all(bytes)?,
            Self::Gzip(encoder) => encoder.write_all(bytes)?,
            Self::Brotli(encoder) => encoder.write_all(bytes)?,
            Self::Lz4(encoder) => encoder.write_all(bytes)?,
            Self::Snappy(encoder) => encoder.write_all(bytes)?,
            Self::Deflate(encoder) => encoder.write_all(bytes)?,
        }
        Ok(std::mem::take(match self {
            Self::Zstd(encoder) => encoder.get_mut(),
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Brotli(encoder) => encoder.get_mut(),
            Self::Lz4(encoder) => encoder.get_mut(),
            Self::Snappy(encoder) => encoder.get_mut(),
            Self::Deflate(encoder) => encoder.get_mut(),
        }))
    }

    /// Returns the rest.
    pub(crate) fn end(self) -> Result<Vec<u8>> {
        Ok(match self {
            Self::Zstd(encoder) => encoder.finish()?,
            Self::Gzip(encoder) => encoder.finish()?,
            Self::Brotli(encoder) => encoder.into_inner(),
            Self::Lz4(encoder) => encoder.finish()?,
            Self::Snappy(encoder) => encoder.into_inner().map_err(|error| error.into_error())?,
            Self::Deflate(encoder) => encoder.finish()?,
        })
    }
}

/// Packs the answer to a request.
pub(crate) async fn answers(request: Request, next: Next) -> Response {
    let coding = Coding::accepted(request.headers());
    let response = next.run(request).await;
    let Some(packer) = coding.and_then(|coding| Some((coding, Packer::new(coding).ok()?))) else {
        return response;
    };
    let is_small = response.body().size_hint().exact().is_some_and(|size| size < PACKED_FROM);
    if is_small || response.headers().contains_key(CONTENT_ENCODING) {
        return response;
    }
    let (coding, packer) = packer;
    let (mut head, body) = response.into_parts();
    head.headers.remove(CONTENT_LENGTH);
    head.headers.insert(CONTENT_ENCODING, HeaderValue::from_static(coding.name()));
    head.headers.append(VARY, HeaderValue::from_static("accept-encoding"));
    Response::from_parts(head, Body::from_stream(packed(body, packer)))
}

fn packed(
    body: Body,
    packer: Packer,
) -> impl Stream<Item = std::result::Result<Bytes, axum::Error>> {
    let begin = (body.into_data_stream(), Some(packer));
    futures::stream::try_unfold(begin, |(mut chunks, mut packer)| async move {
        let Some(packing) = packer.as_mut() else { return Ok(None) };
        while let Some(chunk) = chunks.next().await {
            let ready = packing.put(&chunk?).map_err(axum::Error::new)?;
            if !ready.is_empty() {
                return Ok(Some((Bytes::from(ready), (chunks, packer))));
            }
        }
        let rest = packer.take().map(Packer::end).transpose().map_err(axum::Error::new)?;
        Ok(Some((Bytes::from(rest.unwrap_or_default()), (chunks, None))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coding_a_reader_likes_best_is_chosen() {
        let accepted = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(ACCEPT_ENCODING, HeaderValue::from_static(text));
            Coding::accepted(&headers)
        };
        assert_eq!(accepted("gzip, deflate"), Some(Coding::Gzip));
        assert_eq!(accepted("deflate, gzip;q=0.5"), Some(Coding::Deflate));
        assert_eq!(accepted("gzip;q=0, BR"), Some(Coding::Brotli));
        assert_eq!(accepted("identity, x;q=1"), None);
        assert_eq!(Coding::accepted(&HeaderMap::new()), None);
    }
}
