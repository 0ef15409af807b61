//! Random upserts, retries, flushes and restarts leave what a plain map would hold.

use model::TimeRange;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tskv::disk::SimDisk;
use tskv::{Outcome, SeriesFilter, WriteId};

use crate::store::{Rows, TAG, TestVnode, TestWrite};

fn check(seed: u64, steps: usize) {
    let mut random = StdRng::seed_from_u64(seed);
    let disk = SimDisk::default();
    let mut store = TestVnode::open(&disk).unwrap();
    let mut rows = Rows::new();
    let mut sent: Vec<(WriteId, TestWrite)> = Vec::new();
    for step in 0..steps {
        match random.random_range(0..20) {
            0 => store.flush().unwrap(),
            1 => {
                drop(store);
                store = TestVnode::open(&disk).unwrap();
            }
            2 | 3 if !sent.is_empty() => {
                let (id, write) = &sent[random.random_range(0..sent.len())];
                assert_eq!(store.write(*id, write).unwrap(), Outcome::AppliedBefore);
            }
            4 => assert_eq!(store.rows().unwrap(), rows, "seed {seed}, step {step}"),
            5 => {
                let from = random.random_range(-25..20);
                let times = TimeRange { min: from, max: from + random.random_range(0..20) };
                let wanted = if random.random_bool(0.5) { Some("a".to_owned()) } else { None };
                let filter = SeriesFilter { terms: vec![(TAG, vec![wanted.clone()])] };
                let mut expected = rows.clone();
                expected.retain(|(tag, time), _| *tag == wanted && times.contains(*time));
                assert_eq!(store.scan(times, filter).unwrap(), expected, "seed {seed}");
            }
            _ => {
                let write = TestWrite::random(&mut random);
                let id = WriteId { session: random.random_range(1..4), sequence: step as u64 + 1 };
                assert_eq!(store.write(id, &write).unwrap(), Outcome::Applied);
                write.apply_to(&mut rows);
                sent.push((id, write));
            }
        }
    }
    assert_eq!(store.rows().unwrap(), rows, "seed {seed}");
    store.flush().unwrap();
    store.vnode().verify().unwrap();
    assert!(store.wal().vnodes_with_entries().is_empty(), "a flushed log is purged");
}

#[test]
fn upserts_retries_flushes_and_restarts_equal_a_plain_map() {
    for seed in 0..60 {
        check(seed, 150);
    }
}
