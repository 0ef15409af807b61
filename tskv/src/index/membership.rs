//! A filter that says of most keys which are not there that they are not: a Bloom filter whose probes
//! for one key lie in one line of 512 bits (Putze, Sanders and Singler, *Cache-, Hash- and Space-Efficient
//! Bloom Filters*, 2007). About one absent key in a hundred passes.
#![cfg_attr(not(test), deny(clippy::indexing_slicing))]

/// Words of a line.
const WORDS: usize = 8;
/// Bits that a key is given.
const BITS_OF_KEY: usize = 10;
/// Bits that are set for a key.
const PROBES: u32 = 6;

/// The keys of a segment, about.
#[derive(Debug)]
pub(super) struct Membership(Vec<[u64; WORDS]>);

impl Membership {
    /// Makes room for some keys.
    pub(super) fn new(keys: usize) -> Self {
        Self(vec![[0; WORDS]; (keys * BITS_OF_KEY).div_ceil(WORDS * 64).max(1)])
    }

    /// Notes the hash of a key.
    pub(super) fn insert(&mut self, hash: u64) {
        let at = self.line(hash);
        if let Some(line) = self.0.get_mut(at) {
            for (word, bit) in line.iter_mut().zip(probes(hash)) {
                *word |= bit;
            }
        }
    }

    /// Returns whether a key of this hash may be there.
    pub(super) fn may_hold(&self, hash: u64) -> bool {
        let line = self.0.get(self.line(hash));
        line.is_none_or(|line| line.iter().zip(probes(hash)).all(|(word, bit)| word & bit == bit))
    }

    fn line(&self, hash: u64) -> usize {
        ((u128::from(hash) * self.0.len() as u128) >> 64) as usize
    }

    // FORMAT: docs/formats/series_segment.md, v2
    pub(super) fn encode(&self) -> Vec<u8> {
        self.0.iter().flatten().flat_map(|word| word.to_le_bytes()).collect()
    }

    /// Reads what [`Membership::encode`] wrote; `None` where that is not it.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let (words, rest) = bytes.as_chunks::<8>();
        let (lines, more) = words.as_chunks::<WORDS>();
        let line = |line: &[[u8; 8]; WORDS]| line.map(u64::from_le_bytes);
        let whole = rest.is_empty() && more.is_empty() && !lines.is_empty();
        whole.then(|| Self(lines.iter().map(line).collect()))
    }
}

/// Returns the bits a key has in the words of its line.
fn probes(hash: u64) -> [u64; WORDS] {
    let mut words = [0_u64; WORDS];
    let mut state = hash;
    for _ in 0..PROBES {
        // Knuth's multiplier: each step gives other high bits.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let bit = (state >> 55) as usize;
        if let Some(word) = words.get_mut(bit / 64) {
            *word |= 1 << (bit % 64);
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    #[test]
    fn keys_that_are_there_pass_and_most_others_do_not() {
        let mut random = StdRng::seed_from_u64(1);
        let hashes: Vec<u64> = (0..20_000).map(|_| random.random()).collect();
        let (inside, outside) = hashes.split_at(10_000);
        let mut made = Membership::new(inside.len());
        inside.iter().for_each(|hash| made.insert(*hash));
        let read = Membership::decode(&made.encode()).unwrap();
        assert!(inside.iter().all(|hash| read.may_hold(*hash)));
        let passed = outside.iter().filter(|hash| read.may_hold(**hash)).count();
        assert!(passed < 300, "{passed} of 10,000");
        assert!(Membership::decode(&made.encode()[1..]).is_none());
        assert!(Membership::decode(&[]).is_none());
    }
}
