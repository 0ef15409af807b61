//! Nodes over gRPC: HTTP/2 on connections that begin by proving knowledge of the cluster's secret.
//!
//! | module      | holds                                             |
//! |-------------|---------------------------------------------------|
//! | `handshake` | the mutual proof before the first byte of HTTP/2  |
//! | `client`    | one connection a node                             |
//! | `server`    | the port that other nodes call                    |

mod client;
mod handshake;
mod server;

use bytes::{Buf, BufMut, Bytes};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

pub use client::GrpcTransport;
pub use handshake::{SECRET_BYTES_MIN, Secret};
pub use server::{Mounts, RpcServer};

/// Window of a stream and of a connection: what may be under way unread.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

/// Messages are bytes as they are.
#[derive(Clone, Copy, Debug, Default)]
struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let len = buffer.remaining();
        Ok(Some(buffer.copy_to_bytes(len)))
    }
}
