//! One history of a replica set: every member applies the same entries at the same indexes, what was
//! acknowledged is among them, what came after an end is not, and every read shows what they had made at
//! one moment of its time.

use std::collections::BTreeMap;

use bytes::Bytes;
use tskv::WriteId;

use super::Member;
use crate::rows::{Change, Rows};

/// What clients sent and members applied.
#[derive(Default)]
pub(crate) struct History {
    sent: BTreeMap<Bytes, (WriteId, Change)>,
    /// By index, what was applied there first.
    entries: BTreeMap<u64, (Bytes, Vec<Bytes>)>,
    /// Where each change was applied first.
    applied_at: BTreeMap<WriteId, u64>,
    /// Where a change was refused for an end before it.
    ended_at: BTreeMap<WriteId, u64>,
    /// Values beyond this are refused by now.
    until: Option<i64>,
    /// The changes, in that order.
    changes: Vec<(u64, Change)>,
    /// Acknowledged or seen up to here.
    floor: u64,
    acknowledged: u64,
    /// How many of those were told of an end.
    ended: u64,
    refused: Vec<WriteId>,
    reads: u64,
}

impl History {
    pub(crate) fn sent(&mut self, id: WriteId, change: Change, command: Bytes) {
        self.sent.insert(command, (id, change));
    }

    pub(crate) fn applied(
        &mut self,
        index: u64,
        state: &Bytes,
        commands: &[Bytes],
    ) -> Result<(), String> {
        if let Some((state_before, before)) = self.entries.get(&index) {
            if state_before == state && before == commands {
                return Ok(());
            }
            return Err(format!("two entries at index {index}"));
        }
        for command in commands {
            let (id, change) = self.sent.get(command).ok_or("a command that nobody sent")?;
            if self.applied_at.contains_key(id) {
                continue;
            }
            match *change {
                Change::Put { value, .. } if self.until.is_some_and(|until| value > until) => {
                    self.ended_at.insert(*id, index);
                    continue;
                }
                Change::End { until } => self.until = self.until.max(Some(until)),
                Change::Put { .. } | Change::Delete { .. } => {}
            }
            self.applied_at.insert(*id, index);
            self.changes.push((index, *change));
        }
        let next = self.entries.last_key_value().map_or(0, |(last, _)| last + 1);
        self.entries.insert(index, (state.clone(), commands.to_vec()));
        if next == index {
            return Ok(());
        }
        Err(format!("index {index} was applied before {next} was"))
    }

    pub(crate) fn acknowledged(&mut self, id: WriteId, has_ended: bool) -> Result<(), String> {
        self.acknowledged += 1;
        self.ended += u64::from(has_ended);
        let index = if has_ended { &self.ended_at } else { &self.applied_at }.get(&id);
        let wrong = || format!("{id:?} was acknowledged, as after an end: {has_ended}, and is not");
        let index = index.ok_or_else(wrong)?;
        self.floor = self.floor.max(*index);
        Ok(())
    }

    pub(crate) fn refused(&mut self, id: WriteId) {
        self.refused.push(id);
    }

    pub(crate) fn floor(&self) -> u64 {
        self.floor
    }

    pub(crate) fn read(&mut self, floor: u64, index: u64, rows: &Rows) -> Result<(), String> {
        self.reads += 1;
        if index < floor {
            return Err(format!("a read shows index {index}, {floor} was known before it began"));
        }
        self.floor = self.floor.max(index);
        if self.rows_at(index) == *rows {
            return Ok(());
        }
        Err(format!("a read at index {index} shows other rows than were written"))
    }

    pub(crate) fn ends(&self, member: Member, rows: &Rows) -> Result<(), String> {
        if let Some(id) = self.refused.iter().find(|id| self.applied_at.contains_key(*id)) {
            return Err(format!("{id:?} was refused, and applied"));
        }
        let expected = self.rows_at(u64::MAX);
        if expected == *rows {
            return Ok(());
        }
        let missing = expected.keys().filter(|key| !rows.contains_key(*key)).count();
        let more = rows.keys().filter(|key| !expected.contains_key(*key)).count();
        Err(format!("at the end member {member} lacks {missing} rows and has {more} too many"))
    }

    fn rows_at(&self, index: u64) -> Rows {
        let mut rows = Rows::new();
        for (_, change) in self.changes.iter().take_while(|(at, _)| *at <= index) {
            change.apply_to(&mut rows);
        }
        rows
    }

    /// Returns how many changes were answered, how many of those with an end before them, and reads.
    pub(crate) fn counts(&self) -> [u64; 3] {
        [self.acknowledged, self.ended, self.reads]
    }
}
