//! What must hold, whatever fails.

mod history;
mod order;

use std::collections::BTreeMap;

use bytes::Bytes;
use parking_lot::Mutex;
use tskv::WriteId;

use crate::rows::{Change, Rows};
use history::History;
use order::Orders;
pub(crate) use order::Stand;

/// A replica of a replica set: its number is its Raft member id.
pub(crate) type Member = u64;

/// What was seen so far, and what of it was wrong.
#[derive(Default)]
pub(crate) struct Invariants {
    histories: Mutex<BTreeMap<usize, History>>,
    orders: Mutex<Orders>,
    broken: Mutex<Vec<String>>,
}

impl Invariants {
    /// Notes what is wrong, if anything is.
    fn check(&self, what: Result<(), String>) {
        let mut known = self.broken.lock();
        if let Err(broken) = what
            && !known.contains(&broken)
        {
            known.push(broken);
        }
    }

    /// Notes something that must not happen at all.
    pub(crate) fn broken(&self, what: String) {
        self.check(Err(what));
    }

    /// Returns all that was wrong.
    pub(crate) fn found(&self) -> Vec<String> {
        self.broken.lock().clone()
    }

    /// A member applies an entry.
    pub(crate) fn applies(&self, set: usize, index: u64, state: &Bytes, commands: &[Bytes]) {
        self.check(self.histories.lock().entry(set).or_default().applied(index, state, commands));
    }

    /// A client is about to send a command.
    pub(crate) fn sends(&self, set: usize, id: WriteId, change: Change, command: Bytes) {
        self.histories.lock().entry(set).or_default().sent(id, change, command);
    }

    /// A client was told that its command is applied, or that it comes after an end.
    pub(crate) fn acknowledges(&self, set: usize, id: WriteId, has_ended: bool) {
        let mut histories = self.histories.lock();
        self.check(histories.entry(set).or_default().acknowledged(id, has_ended));
    }

    /// A client was told that its command is not applied.
    pub(crate) fn refuses(&self, set: usize, id: WriteId) {
        self.histories.lock().entry(set).or_default().refused(id);
    }

    /// Returns the index that a read which begins now must not be behind of.
    pub(crate) fn read_begins(&self, set: usize) -> u64 {
        self.histories.lock().entry(set).or_default().floor()
    }

    /// A read that began at `floor` found these rows, at an index.
    pub(crate) fn reads(&self, set: usize, floor: u64, (index, rows): (u64, &Rows)) {
        let mut histories = self.histories.lock();
        self.check(histories.entry(set).or_default().read(floor, index, rows));
    }

    /// A member was seen to stand so.
    pub(crate) fn stands(&self, member: Member, stand: Stand) {
        self.check(self.orders.lock().stands(member, stand));
    }

    /// At the end a replica holds these rows.
    pub(crate) fn ends(&self, set: usize, member: Member, rows: &Rows) {
        let mut histories = self.histories.lock();
        self.check(histories.entry(set).or_default().ends(member, rows));
    }

    /// Returns how many changes were acknowledged, how many of those came after an end, and how many reads
    /// were answered.
    pub(crate) fn counts(&self) -> [u64; 3] {
        let histories = self.histories.lock();
        let counts = histories.values().map(History::counts);
        counts.fold([0; 3], |sum, one| std::array::from_fn(|at| sum[at] + one[at]))
    }
}
