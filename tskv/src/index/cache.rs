//! The ids of keys met lately, of all vnodes of a node. It is a cache only: what it does not know is
//! looked up.
//!
//! A key is known by 128 bits of XXH3 under a salt that nobody outside can know, so that no two keys that
//! are met are taken for one another.

use std::collections::HashMap;

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use twox_hash::XxHash3_128;

/// Parts with a lock of their own.
const SHARDS: usize = 16;
/// Bytes of memory where nobody says otherwise.
const BYTES: usize = 100 << 20;
/// The least keys of a generation of a shard.
const GENERATION_KEYS_MIN: usize = 1 << 10;

/// Bytes of a slot of a map: mark, id, and the byte of control that hashbrown keeps for it.
const SLOT_BYTES: usize = size_of::<(Mark, u32)>() + 1;

/// What a key is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Mark(u64, u64);

/// Tells the keys of one index from those of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Salt(u64);

/// The ids of keys met lately.
#[derive(Debug)]
pub struct SeriesCache {
    shards: Vec<Mutex<Generations>>,
    /// Keys of a generation of a shard.
    generation_keys: usize,
}

/// What the cache holds, and how often it knew what it was asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SeriesCacheTotals {
    /// Keys.
    pub keys: usize,
    /// Bytes of memory they take, about.
    pub bytes: usize,
    /// Questions that were answered.
    pub hits: u64,
    /// Questions that were not.
    pub misses: u64,
}

/// When the young one is full it becomes the old one, and what was old is forgotten.
#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Mark, u32, RandomState>,
    old: HashMap<Mark, u32, RandomState>,
    hits: u64,
    misses: u64,
}

impl Default for SeriesCache {
    fn default() -> Self {
        Self::new(BYTES)
    }
}

impl Salt {
    pub(super) fn mark(self, key: &[u8]) -> Mark {
        let hash = XxHash3_128::oneshot_with_seed(self.0, key);
        Mark((hash >> 64) as u64, hash as u64)
    }
}

impl SeriesCache {
    /// Makes a cache that takes about so many bytes of memory at most.
    pub fn new(bytes: usize) -> Self {
        // Two generations, and maps that are up to twice as large as what is in them.
        let keys = bytes / (4 * SLOT_BYTES * SHARDS);
        Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            generation_keys: keys.max(GENERATION_KEYS_MIN),
        }
    }

    /// Returns a salt that no other index has.
    pub(super) fn salt(&self) -> Salt {
        Salt(rand::random())
    }

    pub(super) fn get(&self, mark: Mark) -> Option<u32> {
        self.shard(mark).lock().get(mark, self.generation_keys)
    }

    /// Returns what the cache holds and has done.
    pub fn totals(&self) -> SeriesCacheTotals {
        let mut totals = SeriesCacheTotals::default();
        for shard in &self.shards {
            let shard = shard.lock();
            totals.keys += shard.young.len() + shard.old.len();
            totals.bytes += (shard.young.capacity() + shard.old.capacity()) * SLOT_BYTES;
            totals.hits += shard.hits;
            totals.misses += shard.misses;
        }
        totals
    }

    pub(super) fn put(&self, mark: Mark, id: u32) {
        self.shard(mark).lock().put(mark, id, self.generation_keys);
    }

    #[cfg(test)]
    pub(super) fn forget(&self) {
        self.shards.iter().for_each(|shard| *shard.lock() = Generations::default());
    }

    fn shard(&self, mark: Mark) -> &Mutex<Generations> {
        &self.shards[(mark.0 % SHARDS as u64) as usize]
    }
}

impl Generations {
    fn get(&mut self, mark: Mark, keys_max: usize) -> Option<u32> {
        let known = self.young.get(&mark).copied();
        let known = known.or_else(|| {
            let id = self.old.get(&mark).copied()?;
            self.put(mark, id, keys_max);
            Some(id)
        });
        *(if known.is_some() { &mut self.hits } else { &mut self.misses }) += 1;
        known
    }

    fn put(&mut self, mark: Mark, id: u32, keys_max: usize) {
        if self.young.len() >= keys_max {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(mark, id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_met_lately_is_known_and_memory_is_bounded() {
        let bytes = 8 << 20;
        let cache = SeriesCache::new(bytes);
        let (salt, other) = (cache.salt(), cache.salt());
        let all = 4 * SHARDS * cache.generation_keys;
        for n in 0..all {
            cache.put(salt.mark(&n.to_le_bytes()), n as u32);
        }
        let last = all - 1;
        assert_eq!(cache.get(salt.mark(&last.to_le_bytes())), Some(last as u32));
        assert_eq!(cache.get(other.mark(&last.to_le_bytes())), None);
        let totals = cache.totals();
        assert!(totals.keys <= 2 * SHARDS * cache.generation_keys, "{totals:?}");
        assert!(totals.bytes <= bytes, "{totals:?}");
        assert_eq!((totals.hits, totals.misses), (1, 1));
    }
}
