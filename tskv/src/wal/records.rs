//! What each vnode's log holds now, in memory: entries by index with their place on disk, and the
//! Raft states beside them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use model::VnodeId;
use parking_lot::Mutex;

use super::format::Record;
use super::segments::Position;

/// An entry: its payload while it is wanted in memory, its position once it is written.
#[derive(Debug)]
pub(super) struct Entry {
    /// Of its payload.
    bytes: usize,
    payload: Mutex<Option<Bytes>>,
    position: OnceLock<Position>,
}

/// The log of one vnode.
#[derive(Debug, Default)]
pub(super) struct VnodeRecords {
    pub(super) vote: Option<Bytes>,
    pub(super) committed: Option<Bytes>,
    committed_unwritten: bool,
    pub(super) purged: Option<(u64, Bytes)>,
    first: u64,
    entries: VecDeque<Arc<Entry>>,
    /// Of the payloads of all entries.
    bytes: u64,
    /// Oldest segment that vote, commit or purge point may be read from.
    state_segment: Option<u64>,
}

/// The logs of all vnodes.
#[derive(Debug, Default)]
pub(super) struct Logs {
    vnodes: BTreeMap<VnodeId, VnodeRecords>,
}

impl Entry {
    pub(super) fn cached(&self) -> Option<Bytes> {
        self.payload.lock().clone()
    }

    pub(super) fn position(&self) -> Option<Position> {
        self.position.get().copied()
    }

    pub(super) fn set_position(&self, position: Position) {
        assert!(self.position.set(position).is_ok(), "an entry is written once");
    }
}

impl VnodeRecords {
    pub(super) fn last_index(&self) -> Option<u64> {
        (!self.entries.is_empty()).then(|| self.first + self.entries.len() as u64 - 1)
    }

    /// Adds an entry whose place is not known yet.
    pub(super) fn push(&mut self, index: u64, payload: Bytes) -> Arc<Entry> {
        let entry = Arc::new(Entry {
            bytes: payload.len(),
            payload: Mutex::new(Some(payload)),
            position: OnceLock::new(),
        });
        // At start the record that purged what is missing may come behind what follows it; not here.
        if let Some((upto, _)) = &self.purged
            && self.entries.is_empty()
        {
            assert!(
                index <= upto + 1,
                "log has a hole: entry {index} behind {upto}, which is purged"
            );
        }
        self.push_entry(index, Arc::clone(&entry));
        entry
    }

    fn push_entry(&mut self, index: u64, entry: Arc<Entry>) {
        if self.purged.as_ref().is_some_and(|(upto, _)| index <= *upto) {
            return;
        }
        if self.entries.is_empty() {
            self.first = index;
        }
        let next = self.first + self.entries.len() as u64;
        assert!(index == next, "log has a hole: entry {index} where {next} is next");
        self.bytes += entry.bytes as u64;
        self.entries.push_back(entry);
    }

    pub(super) fn note_committed(&mut self, committed: Bytes) {
        self.committed = Some(committed);
        self.committed_unwritten = true;
    }

    /// Returns what is committed where the log on disk does not say it yet.
    pub(super) fn take_unwritten_committed(&mut self) -> Option<Bytes> {
        let unwritten = std::mem::take(&mut self.committed_unwritten);
        self.committed.clone().filter(|_| unwritten)
    }

    pub(super) fn truncate(&mut self, from: u64) {
        let keep = from.saturating_sub(self.first).min(self.entries.len() as u64);
        let dropped = self.entries.range(keep as usize..).map(|entry| entry.bytes as u64);
        self.bytes -= dropped.sum::<u64>();
        self.entries.truncate(keep as usize);
    }

    pub(super) fn purge(&mut self, upto: u64, log_id: Bytes) {
        while !self.entries.is_empty() && self.first <= upto {
            let dropped = self.entries.pop_front();
            self.bytes -= dropped.map_or(0, |entry| entry.bytes as u64);
            self.first += 1;
        }
        if self.purged.as_ref().is_none_or(|(before, _)| *before < upto) {
            self.purged = Some((upto, log_id));
        }
    }

    /// Returns the bytes of all entries.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn range(&self, start: u64, end: u64) -> Vec<Arc<Entry>> {
        let from = start.max(self.first) - self.first;
        let to = end.saturating_sub(self.first).min(self.entries.len() as u64);
        if from >= to {
            return Vec::new();
        }
        self.entries.range(from as usize..to as usize).map(Arc::clone).collect()
    }

    pub(super) fn evict(&mut self, upto: u64) {
        let count =
            upto.saturating_add(1).saturating_sub(self.first).min(self.entries.len() as u64);
        // Newest first: what lies further back was let go of before.
        for entry in self.entries.range(..count as usize).rev() {
            if entry.position.get().is_none() {
                continue;
            }
            if entry.payload.lock().take().is_none() {
                break;
            }
        }
    }

    /// Returns the bytes of the payloads in memory: the newest entries, up to one that is let go of.
    fn bytes_in_memory(&self) -> usize {
        let newest = self.entries.iter().rev().map(|entry| entry.cached().map(|kept| kept.len()));
        newest.map_while(std::convert::identity).sum()
    }

    fn oldest_entry_segment(&self) -> Option<u64> {
        self.entries.front()?.position.get().map(|position| position.segment)
    }
}

impl Logs {
    pub(super) fn of(&mut self, vnode: VnodeId) -> &mut VnodeRecords {
        self.vnodes.entry(vnode).or_default()
    }

    pub(super) fn bytes_in_memory(&self) -> usize {
        self.vnodes.values().map(VnodeRecords::bytes_in_memory).sum()
    }

    pub(super) fn vnodes_with_entries(&self) -> Vec<VnodeId> {
        let full = self.vnodes.iter().filter(|(_, log)| !log.entries.is_empty());
        full.map(|(vnode, _)| *vnode).collect()
    }

    pub(super) fn forget(&mut self, vnode: VnodeId) {
        self.vnodes.remove(&vnode);
    }

    /// Returns the vnodes that have an entry in `segment` or an older one.
    pub(super) fn holding(&self, segment: u64) -> Vec<VnodeId> {
        let holds = |log: &VnodeRecords| log.oldest_entry_segment().is_some_and(|s| s <= segment);
        self.vnodes.iter().filter(|(_, log)| holds(log)).map(|(vnode, _)| *vnode).collect()
    }

    /// Returns the records that say again what `segment` and older ones alone may hold.
    pub(super) fn states_in(&self, segment: u64) -> Vec<Record> {
        let mut records = Vec::new();
        for (vnode, log) in &self.vnodes {
            if log.state_segment.is_none_or(|oldest| oldest > segment) {
                continue;
            }
            let vnode = *vnode;
            if let Some(vote) = log.vote.clone() {
                records.push(Record::Vote { vnode, vote });
            }
            if let Some((upto, log_id)) = log.purged.clone() {
                records.push(Record::Purge { vnode, upto, log_id });
            }
            if let Some(committed) = log.committed.clone() {
                records.push(Record::Committed { vnode, committed });
            }
        }
        records
    }

    pub(super) fn state_written(&mut self, vnode: VnodeId, segment: u64) {
        if let Some(log) = self.vnodes.get_mut(&vnode) {
            log.state_segment = Some(log.state_segment.map_or(segment, |old| old.min(segment)));
        }
    }

    pub(super) fn state_moved(&mut self, vnode: VnodeId, segment: u64) {
        if let Some(log) = self.vnodes.get_mut(&vnode) {
            log.state_segment = Some(segment);
        }
    }

    /// Replays a record read back from disk. Returns what is wrong when it does not fit.
    pub(super) fn replay(&mut self, record: Record, position: Position) -> Result<(), String> {
        let vnode = record.vnode();
        if !matches!(record, Record::Entry { .. }) {
            self.of(vnode);
            self.state_written(vnode, position.segment);
        }
        let log = self.of(vnode);
        match record {
            Record::Entry { index, payload, .. } => {
                log.truncate(index);
                let next = log.first + log.entries.len() as u64;
                if !log.entries.is_empty() && next != index {
                    return Err(format!("vnode {vnode}: entry {index} where {next} is next"));
                }
                let (bytes, position) = (payload.len(), OnceLock::from(position));
                let entry = Entry { bytes, payload: Mutex::new(None), position };
                log.push_entry(index, Arc::new(entry));
            }
            Record::Vote { vote, .. } => log.vote = Some(vote),
            Record::Committed { committed, .. } => log.committed = Some(committed),
            Record::Truncate { from, .. } => log.truncate(from),
            Record::Purge { upto, log_id, .. } => log.purge(upto, log_id),
            Record::Forget { .. } => self.forget(vnode),
        }
        Ok(())
    }
}
