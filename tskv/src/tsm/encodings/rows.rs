//! A few rows as one page: keys and columns one after another.
#![deny(clippy::indexing_slicing)]

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, BooleanArray};
use model::points::{decode_array, encode_array};
use model::wire::{Decoded, Reader, Write, malformed};
use model::{Codec, ColumnId, ValueType};

use super::{Effort, PAGE_ROWS_MAX, decode, decode_keys, encode, encode_keys};
use crate::run::{Run, RunColumn};

/// Encodes rows, one of each series.
// FORMAT: docs/formats/tsm.md, v4
pub(crate) fn encode_run(run: &Run) -> Vec<u8> {
    let stretches = vec![1; run.rows()];
    let series: Vec<i64> = run.series.iter().map(|series| i64::from(*series)).collect();
    let mut out = Vec::new();
    out.put_varint(run.rows() as u64);
    out.put_bytes(&encode_keys(&series, &stretches, Effort::Light));
    out.put_bytes(&encode_keys(&run.times, &stretches, Effort::Light));
    out.put_varint(run.columns.len() as u64);
    for column in &run.columns {
        out.put_u32(column.id.0);
        out.put_u8(column.value_type.code());
        out.put_bytes(&encode(&column.values, column.value_type, Effort::Light, Codec::Default));
        match &column.written {
            None => out.put_u8(0),
            Some(written) => {
                out.put_u8(1);
                let bits: ArrayRef = Arc::new(BooleanArray::new(written.clone(), None));
                let mut bytes = Vec::new();
                encode_array(&bits, ValueType::Bool, &mut bytes);
                out.put_bytes(&bytes);
            }
        }
    }
    out
}

/// Decodes rows; only the named columns are unpacked.
pub(crate) fn decode_run(bytes: &[u8], columns: &[(ColumnId, ValueType)]) -> Decoded<Run> {
    let mut reader = Reader::new(bytes);
    let rows = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
    if rows > PAGE_ROWS_MAX {
        return malformed("too many rows");
    }
    let series = decode_keys(reader.bytes()?, rows)?;
    let series = series.into_iter().map(|series| series as u32).collect();
    let times = decode_keys(reader.bytes()?, rows)?.into();
    let mut run = Run { series, times, columns: Vec::with_capacity(columns.len()) };
    for _ in 0..reader.count(8)? {
        let id = ColumnId(reader.u32()?);
        let code = reader.u8()?;
        let values = reader.bytes()?;
        let written = match reader.u8()? {
            0 => None,
            1 => Some(reader.bytes()?),
            other => return malformed(format!("written {other}")),
        };
        let Some((_, value_type)) = columns.iter().find(|(wanted, _)| *wanted == id) else {
            continue;
        };
        if value_type.code() != code {
            return malformed(format!("column {id} has another type than its table says"));
        }
        let bits = |bytes| decode_array(&mut Reader::new(bytes), ValueType::Bool, rows);
        let written = written.map(bits).transpose()?;
        run.columns.push(RunColumn {
            id,
            value_type: *value_type,
            values: decode(values, *value_type, rows)?,
            written: written.map(|bits| bits.as_boolean().values().clone()),
        });
    }
    reader.finish()?;
    Ok(run)
}
