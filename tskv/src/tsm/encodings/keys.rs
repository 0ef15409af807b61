//! Encodings of keys: the series of a page's rows, and their times.

use model::wire::{Decoded, Reader, Write, malformed};

use super::integers::{pack, unpack};
use super::{Effort, press, unpress};

/// Packed integers.
const PACKED: u8 = 0;
/// Packed integers, one after another for each stretch of rows of one series.
const STRETCHES: u8 = 1;
/// Pco.
const PCO: u8 = 2;
/// Value and number of repetitions, again and again.
const RUNS: u8 = 3;

/// Returns what an encoding is called.
pub(super) fn name(code: u8) -> &'static str {
    match code {
        PACKED => "packed",
        STRETCHES => "stretches",
        PCO => "pco",
        RUNS => "runs",
        _ => "?",
    }
}

/// Encodes one half of the keys of a page's rows: series or times. `stretches` are the numbers of
/// rows of one series each, in order.
pub(crate) fn encode_keys(keys: &[i64], stretches: &[usize], effort: Effort) -> Vec<u8> {
    let mut best = vec![PACKED];
    pack(keys, &mut best);
    let mut by_stretch = vec![STRETCHES];
    by_stretch.put_varint(stretches.len() as u64);
    let mut rest = keys;
    for len in stretches {
        let (stretch, after) = rest.split_at(*len);
        by_stretch.put_varint(*len as u64);
        pack(stretch, &mut by_stretch);
        rest = after;
    }
    let mut runs = vec![RUNS];
    for run in keys.chunk_by(|a, b| a == b) {
        runs.put_i64(run.first().copied().unwrap_or_default());
        runs.put_varint(run.len() as u64);
    }
    let pressed = match effort {
        Effort::Light => None,
        Effort::Dense => press(keys).map(|pressed| [&[PCO], pressed.as_slice()].concat()),
    };
    for candidate in [Some(by_stretch), Some(runs), pressed].into_iter().flatten() {
        if candidate.len() < best.len() {
            best = candidate;
        }
    }
    best
}

/// Decodes the keys of `rows` rows.
pub(crate) fn decode_keys(bytes: &[u8], rows: usize) -> Decoded<Vec<i64>> {
    let mut reader = Reader::new(bytes);
    let keys = match reader.u8()? {
        PACKED => unpack(&mut reader, rows)?,
        STRETCHES => {
            let mut keys = Vec::with_capacity(rows);
            for _ in 0..reader.count(18)? {
                let len = usize::try_from(reader.varint()?).unwrap_or(usize::MAX);
                if len > rows - keys.len() {
                    return malformed("stretch longer than its page");
                }
                keys.extend(unpack(&mut reader, len)?);
            }
            keys
        }
        PCO => unpress(reader.take(reader.remaining())?, rows)?,
        RUNS => {
            let mut keys = Vec::with_capacity(rows);
            while reader.remaining() > 0 {
                let (key, len) = (reader.i64()?, reader.varint()?);
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                if len > rows - keys.len() {
                    return malformed("run longer than its page");
                }
                keys.resize(keys.len() + len, key);
            }
            keys
        }
        other => return malformed(format!("encoding of keys {other}")),
    };
    reader.finish()?;
    if keys.len() == rows { Ok(keys) } else { malformed("fewer keys than rows") }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing, reason = "a test stops where it is wrong")]
mod tests {
    use super::*;

    #[test]
    fn keys_survive_whatever_their_stretches() {
        let times: Vec<i64> = (0..4).flat_map(|_| (0..50).map(|i| i * 10_000_000_000)).collect();
        let series: Vec<i64> = (0..200).map(|row| row / 50).collect();
        let wild = vec![i64::MIN, i64::MAX, 0, -1, 7];
        for effort in [Effort::Light, Effort::Dense] {
            for (keys, stretches) in
                [(&times, &[50; 4][..]), (&series, &[50; 4]), (&wild, &[2, 3]), (&vec![], &[])]
            {
                let bytes = encode_keys(keys, stretches, effort);
                assert_eq!(decode_keys(&bytes, keys.len()).unwrap(), *keys);
                assert!(decode_keys(&bytes, keys.len() + 1).is_err());
                for len in 0..bytes.len() {
                    if let Ok(short) = decode_keys(&bytes[..len], keys.len()) {
                        assert_eq!(short.len(), keys.len());
                    }
                }
            }
            assert!(encode_keys(&times, &[50; 4], effort).len() < 80);
            assert!(encode_keys(&series, &[50; 4], effort).len() < 60);
        }
    }
}
