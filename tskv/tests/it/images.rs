//! A replica that takes another's image holds what the other has flushed, whatever it held before.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tskv::disk::{SimDisk, SimState};
use tskv::{CompactionWish, Error, Outcome, WriteId};

use crate::store::{Rows, TestDelete, TestVnode, TestWrite};

/// Two replicas and the rows that the first has flushed.
struct Pair {
    disk: SimDisk,
    ahead: TestVnode,
    behind: TestVnode,
    flushed: Rows,
    sequence: u64,
}

impl Pair {
    /// Applies random changes to both, then more of them to one alone.
    fn new(random: &mut StdRng) -> Self {
        let disk = SimDisk::default();
        let ahead = TestVnode::open(&SimDisk::default()).unwrap();
        let behind = TestVnode::open(&disk).unwrap();
        let mut pair = Self { disk, ahead, behind, flushed: Rows::new(), sequence: 0 };
        for step in 0..24 {
            pair.change(random, step < 8);
        }
        pair.ahead.flush().unwrap();
        pair.flushed = pair.ahead.rows().unwrap();
        pair
    }

    fn change(&mut self, random: &mut StdRng, both: bool) {
        self.sequence += 1;
        let id = WriteId { session: 1, sequence: self.sequence };
        let stores = std::iter::once(&mut self.ahead).chain(both.then_some(&mut self.behind));
        match random.random_range(0..8) {
            0 => stores.for_each(|store| store.flush().unwrap()),
            1 => stores.for_each(|store| store.compact(CompactionWish::Whole).unwrap()),
            2 => {
                let delete = TestDelete::random(random);
                stores.for_each(|store| {
                    store.delete(id, &delete).unwrap();
                });
            }
            _ => {
                let write = TestWrite::random(random);
                stores.for_each(|store| {
                    store.write(id, &write).unwrap();
                });
            }
        }
    }
}

#[test]
fn an_image_replaces_whatever_was_there_and_later_changes_apply_to_it() {
    for seed in 0..300 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut pair = Pair::new(&mut random);
        pair.behind.take_image(&pair.ahead).unwrap();
        assert_eq!(pair.behind.rows().unwrap(), pair.flushed, "seed {seed}");
        for _ in 0..8 {
            pair.change(&mut random, true);
        }
        assert_eq!(pair.behind.rows().unwrap(), pair.ahead.rows().unwrap(), "seed {seed}");
        let again = TestVnode::open(&pair.disk).unwrap();
        assert_eq!(again.rows().unwrap(), pair.ahead.rows().unwrap(), "seed {seed}");
    }
}

#[test]
fn a_crash_while_an_image_is_taken_leaves_the_old_rows_or_the_new() {
    for seed in 0..20 {
        let mut random = StdRng::seed_from_u64(seed);
        let mut pair = Pair::new(&mut random);
        let old = pair.behind.rows().unwrap();
        let before = pair.disk.journal().len();
        pair.behind.take_image(&pair.ahead).unwrap();
        let mut state = SimState::default();
        for (at, event) in pair.disk.journal().iter().enumerate() {
            state.apply(event);
            if at < before {
                continue;
            }
            for survivor in 0..4 {
                let disk = state.crash(seed ^ (at as u64) << 8 ^ survivor << 40);
                let rows = TestVnode::open(&disk).unwrap().rows().unwrap();
                assert!(rows == old || rows == pair.flushed, "seed {seed}, event {at}");
            }
        }
        let rows = TestVnode::open(&state.crash(seed)).unwrap().rows().unwrap();
        assert_eq!(rows, pair.flushed, "seed {seed}");
    }
}

#[test]
fn a_file_that_changed_on_its_way_is_refused_and_fetched_again() {
    let mut pair = Pair::new(&mut StdRng::seed_from_u64(7));
    let old = pair.behind.rows().unwrap();
    let (_, manifest) = pair.ahead.vnode().image().unwrap().unwrap();
    let mut first = true;
    while let Some(piece) = pair.behind.vnode().missing_piece(&manifest).unwrap() {
        let bytes = pair.ahead.vnode().read_piece(&piece.part, piece.offset, piece.len).unwrap();
        let mut bytes = bytes.to_vec();
        if std::mem::take(&mut first) {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        pair.behind.vnode().keep_piece(&manifest, &piece, &bytes).unwrap();
    }
    let checked = pair.behind.vnode().check_image(&manifest);
    assert!(matches!(checked, Err(Error::Corrupt { .. })), "{checked:?}");
    assert_eq!(pair.behind.rows().unwrap(), old);
    pair.behind.take_image(&pair.ahead).unwrap();
    assert_eq!(pair.behind.rows().unwrap(), pair.flushed);
}

#[test]
fn an_image_brings_what_was_applied_so_that_a_retry_is_known() {
    let mut ahead = TestVnode::open(&SimDisk::default()).unwrap();
    let mut behind = TestVnode::open(&SimDisk::default()).unwrap();
    let write = TestWrite::random(&mut StdRng::seed_from_u64(1));
    let id = WriteId { session: 3, sequence: 1 };
    ahead.write(id, &write).unwrap();
    ahead.flush().unwrap();
    behind.take_image(&ahead).unwrap();
    assert_eq!(behind.write(id, &write).unwrap(), Outcome::AppliedBefore);
}
