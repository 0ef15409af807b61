//! A scan on its way to the node that reads it.
//!
//! The length of what is known of it, that in JSON, then its schema as DataFusion's protobuf.
// FORMAT: docs/formats/rpc.md, v1

use std::sync::{Arc, Weak};

use cluster::Cluster;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::Result;
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};
use datafusion_proto::protobuf;
use prost::Message;

use crate::error::Error;
use crate::scan::{SentScan, TskvScanExec};

/// Writes scans, and reads those that are pinned on this node.
#[derive(Clone, Debug)]
pub(super) struct ScanCodec(Option<Weak<Cluster>>);

impl ScanCodec {
    /// One that only writes.
    pub(super) fn sending() -> Self {
        Self(None)
    }

    /// One that reads, too.
    pub(super) fn receiving(cluster: Weak<Cluster>) -> Self {
        Self(Some(cluster))
    }
}

fn unreadable(what: impl std::fmt::Display) -> DataFusionError {
    Error::internal(format!("a scan of another node cannot be read: {what}")).into()
}

fn encode(sent: &SentScan, schema: &SchemaRef, out: &mut Vec<u8>) -> Result<()> {
    let head = serde_json::to_vec(sent).map_err(|error| Error::internal(error.to_string()))?;
    let schema: protobuf::Schema = schema.as_ref().try_into()?;
    let len = u32::try_from(head.len()).map_err(unreadable)?;
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(&head);
    schema.encode(out).map_err(unreadable)
}

fn decode(bytes: &[u8]) -> Result<(SentScan, SchemaRef)> {
    let short = || unreadable("it is cut short");
    let (len, rest) = bytes.split_first_chunk().ok_or_else(short)?;
    let len = u32::from_le_bytes(*len) as usize;
    let (head, schema) = rest.split_at_checked(len).ok_or_else(short)?;
    let sent = serde_json::from_slice(head).map_err(unreadable)?;
    let schema = protobuf::Schema::decode(schema).map_err(unreadable)?;
    let schema = Schema::try_from(&schema)?;
    Ok((sent, Arc::new(schema)))
}

impl PhysicalExtensionCodec for ScanCodec {
    fn try_decode(
        &self,
        bytes: &[u8],
        _: &[Arc<dyn ExecutionPlan>],
        _: &TaskContext,
        _: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let cluster = self.0.as_ref().and_then(Weak::upgrade);
        let cluster = cluster.ok_or_else(|| unreadable("the node is stopping"))?;
        let (sent, schema) = decode(bytes)?;
        let find =
            |pinned: &_| cluster.pinned_scan(pinned).map_err(|error| Error::from(error).into());
        Ok(Arc::new(TskvScanExec::received(sent, schema, find)?))
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        out: &mut Vec<u8>,
        _: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let scan = node.downcast_ref::<TskvScanExec>();
        let Some(sent) = scan.and_then(TskvScanExec::sent) else {
            return Err(Error::internal(format!("{} cannot be sent", node.name())).into());
        };
        encode(&sent, &node.schema(), out)
    }
}
