//! Numbers in vectors of [`VECTOR_ROWS`] rows, each of which can be decoded without the others. All share what
//! pco found out about them: it is its wrapped format, a chunk of several pages.

use std::ops::Range;

use arrow::buffer::NullBuffer;
use model::wire::{Decoded, Malformed, Reader, Write, malformed};
use pco::data_types::Number;
use pco::errors::PcoError;
use pco::wrapped::{FileCompressor, FileDecompressor};
use pco::{ChunkConfig, PagingSpec};

use super::PCO_LEVEL;

/// Rows of a vector; the last one of a page has what is left.
pub(crate) const VECTOR_ROWS: usize = 1_024;

/// Returns how many vectors so many rows are.
pub(crate) fn vectors(rows: usize) -> usize {
    rows.div_ceil(VECTOR_ROWS)
}

/// Returns the rows of a vector of a page.
pub(crate) fn vector_rows(vector: usize, rows: usize) -> Range<usize> {
    let start = (vector * VECTOR_ROWS).min(rows);
    start..(start + VECTOR_ROWS).min(rows)
}

/// Returns how many values each vector has.
pub(super) fn value_counts(nulls: Option<&NullBuffer>, rows: usize) -> Vec<usize> {
    let count = |vector| {
        let rows = vector_rows(vector, rows);
        let nulls = nulls.map_or(0, |nulls| nulls.slice(rows.start, rows.len()).null_count());
        rows.len() - nulls
    };
    (0..vectors(rows)).map(count).collect()
}

/// Appends values, so many of each vector; nothing where pco has no use for them.
pub(super) fn press<T: Number>(values: &[T], counts: &[usize], out: &mut Vec<u8>) -> Option<()> {
    let pages: Vec<usize> = counts.iter().copied().filter(|count| *count > 0).collect();
    let config = ChunkConfig::default().with_compression_level(PCO_LEVEL);
    let config = config.with_paging_spec(PagingSpec::Exact(pages.clone()));
    let file = FileCompressor::default();
    let mut chunk = file.chunk_compressor(values, &config).ok()?;
    let mut body = file.write_header(Vec::new()).ok()?;
    body = chunk.write_meta(body).ok()?;
    let mut lens = Vec::with_capacity(pages.len());
    for page in 0..pages.len() {
        let start = body.len();
        body = chunk.write_page(page, body).ok()?;
        lens.push((body.len() - start) as u64);
    }
    let mut lens = lens.into_iter();
    for count in counts {
        out.put_varint(if *count > 0 { lens.next()? } else { 0 });
    }
    out.extend_from_slice(&body);
    Some(())
}

/// Reads the values of some vectors; `counts` says how many each vector has.
pub(super) fn unpress<T: Number + Default>(
    reader: &mut Reader<'_>,
    counts: &[usize],
    wanted: Range<usize>,
) -> Decoded<Vec<T>> {
    let mut lens = Vec::with_capacity(counts.len());
    for count in counts {
        let len = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
        if *count == 0 && len != 0 {
            return malformed("a vector without values has bytes");
        }
        lens.push(len);
    }
    let wrong = |error: PcoError| Malformed(error.to_string());
    let body = reader.take(reader.remaining())?;
    let (file, rest) = FileDecompressor::new(body).map_err(wrong)?;
    let (mut chunk, rest) = file.chunk_decompressor::<T, _>(rest).map_err(wrong)?;
    let mut pages = Reader::new(rest);
    let Some(wanted_counts) = counts.get(wanted.clone()) else {
        return malformed("no such vector");
    };
    let mut values = vec![T::default(); wanted_counts.iter().sum()];
    let mut left = values.as_mut_slice();
    for (vector, (count, len)) in counts.iter().zip(lens).enumerate() {
        let page = pages.take(len)?;
        if wanted.contains(&vector) && *count > 0 {
            let (own, after) = std::mem::take(&mut left).split_at_mut(*count);
            let mut vector = chunk.page_decompressor(page, *count).map_err(wrong)?;
            if vector.read(own).map_err(wrong)?.n_processed != *count {
                return malformed("fewer numbers than rows");
            }
            left = after;
        }
    }
    pages.finish()?;
    Ok(values)
}
