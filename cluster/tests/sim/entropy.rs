//! What the standard library takes for random: seeded on the threads of simulations.
//!
//! Hash maps, tokio's `select!` and `watch`, and openraft's timers draw from it. A thread draws its
//! key once, so that every simulation runs on a thread of its own.

use std::cell::Cell;

thread_local! {
    static STATE: Cell<u64> = const { Cell::new(0) };
}

/// Decides what this thread will take for random; to be called before anything else on it.
pub(crate) fn seed(seed: u64) {
    STATE.set(seed);
}

/// Draws the next number: splitmix64 (Steele, Lea and Flood, OOPSLA 2014).
fn draw() -> u64 {
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Stands before the C library's function of this name (getrandom(2)), which the standard library
/// calls.
///
/// # Safety
/// `buffer` points to `len` bytes that may be written.
#[unsafe(no_mangle)]
#[allow(unsafe_code, reason = "the standard library has no other way in")]
unsafe extern "C" fn getrandom(buffer: *mut u8, len: usize, _flags: u32) -> isize {
    // SAFETY: the caller lends the buffer, as the C library's function demands.
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer, len) };
    for chunk in buffer.chunks_mut(8) {
        chunk.copy_from_slice(&draw().to_le_bytes()[..chunk.len()]);
    }
    isize::try_from(len).unwrap_or(isize::MAX)
}

#[test]
fn threads_with_the_same_seed_hash_alike() {
    let hash = |number: u64| {
        let hash = move || {
            use std::hash::{BuildHasher, RandomState};
            seed(number);
            RandomState::new().hash_one(7)
        };
        std::thread::spawn(hash).join().unwrap()
    };
    assert_eq!(hash(1), hash(1));
    assert_ne!(hash(1), hash(2));
}
