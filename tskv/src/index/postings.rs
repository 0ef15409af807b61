//! Ascending ids as runs of neighbours: all series of a table are one run, whatever their number.
#![deny(clippy::indexing_slicing)]

use std::ops::Range;

use model::wire::{Decoded, Reader, Write, malformed};

/// Ascending ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Postings(Vec<Range<u32>>);

impl Postings {
    /// Adds an id that is above all that are there.
    pub(super) fn push(&mut self, id: u32) {
        match self.0.last_mut() {
            Some(last) if last.end == id => last.end += 1,
            _ => self.0.push(id..id + 1),
        }
    }

    /// Adds ids that are above all that are there.
    pub(super) fn append(&mut self, above: Self) {
        for run in above.0 {
            match self.0.last_mut() {
                Some(last) if last.end == run.start => last.end = run.end,
                _ => self.0.push(run),
            }
        }
    }

    /// Returns the number of ids.
    pub(super) fn len(&self) -> usize {
        self.0.iter().map(|run| run.len()).sum()
    }

    /// Appends the ids to a list.
    pub(super) fn extend_into(&self, ids: &mut Vec<u32>) {
        ids.reserve(self.len());
        for run in &self.0 {
            ids.extend(run.clone());
        }
    }

    /// Writes the ids, which are all in `within`: for each run the ids left out before it and its length
    /// less one, as varints.
    // FORMAT: docs/formats/series_segment.md, v2
    pub(super) fn encode(&self, within: &Range<u32>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut end = within.start;
        for run in &self.0 {
            bytes.put_varint(u64::from(run.start - end));
            bytes.put_varint(u64::from(run.end - run.start - 1));
            end = run.end;
        }
        bytes
    }

    /// Reads what [`Postings::encode`] wrote.
    pub(super) fn decode(bytes: &[u8], within: &Range<u32>) -> Decoded<Self> {
        let mut reader = Reader::new(bytes);
        let (mut runs, mut end) = (Vec::new(), u64::from(within.start));
        while reader.remaining() > 0 {
            let start = end.saturating_add(reader.varint()?);
            end = start.saturating_add(reader.varint()?).saturating_add(1);
            if end > u64::from(within.end) {
                return malformed("postings beyond the segment");
            }
            runs.push(start as u32..end as u32);
        }
        Ok(Self(runs))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ids: &[u32]) -> Postings {
        let mut postings = Postings::default();
        ids.iter().for_each(|id| postings.push(*id));
        postings
    }

    #[test]
    fn ids_survive_a_round_trip_and_ids_elsewhere_are_refused() {
        for ids in [vec![], vec![5], vec![5, 6, 7, 9], vec![5, 7, 9, 14], (5..15).collect()] {
            let encoded = of(&ids).encode(&(5..15));
            let mut found = Vec::new();
            Postings::decode(&encoded, &(5..15)).unwrap().extend_into(&mut found);
            assert_eq!(found, ids);
            assert!(ids.is_empty() || Postings::decode(&encoded, &(5..5)).is_err());
        }
        assert!(Postings::decode(&[0xff; 9], &(0..15)).is_err());
    }

    #[test]
    fn lists_are_joined() {
        for (below, above) in [(vec![], vec![3, 5]), (vec![1], vec![]), (vec![1, 2], vec![3, 5])] {
            let mut joined = of(&below);
            joined.append(of(&above));
            assert_eq!(joined, of(&[below, above].concat()));
        }
    }
}
