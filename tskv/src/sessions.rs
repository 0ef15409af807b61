//! Which writes were applied, so that a retry is applied once.
//!
//! Per session the highest sequence and a window of what came below it are kept, for a bounded number
//! of sessions; the one quiet for longest (by the time in the commands, never by a local clock) is
//! forgotten first, alike on every replica.

use std::collections::BTreeMap;

use model::wire::{Decoded, Reader, Write, malformed};

/// Sequences below the highest that can still be told apart.
pub const SESSION_WINDOW: u64 = 1_024;
/// The most sessions remembered.
pub(crate) const SESSIONS_MAX: usize = 1_024;

const WORDS: usize = (SESSION_WINDOW / 64) as usize;

/// Names one write: who sends it, and its number there, from 1 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WriteId {
    /// The sending session, unique for ever.
    pub session: u64,
    /// The number of the write in its session.
    pub sequence: u64,
}

/// What is known of a write that arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Never,
    Before,
    TooLongAgo,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Session {
    highest: u64,
    /// Bit n: sequence `highest - n` was applied.
    window: [u64; WORDS],
    last_time_ns: i64,
}

/// The sessions of a vnode.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sessions {
    sessions: BTreeMap<u64, Session>,
}

impl Sessions {
    /// Notes a write and returns whether it was seen before.
    pub(crate) fn note(&mut self, id: WriteId, time_ns: i64) -> Seen {
        let fresh = Session { highest: 0, window: [0; WORDS], last_time_ns: time_ns };
        let session = self.sessions.entry(id.session).or_insert(fresh);
        session.last_time_ns = session.last_time_ns.max(time_ns);
        let seen = session.note(id.sequence);
        if self.sessions.len() > SESSIONS_MAX {
            let quiet = self.sessions.iter().filter(|(number, _)| **number != id.session);
            let quietest = quiet.min_by_key(|(number, session)| (session.last_time_ns, **number));
            if let Some(number) = quietest.map(|(number, _)| *number) {
                self.sessions.remove(&number);
            }
        }
        seen
    }

    /// Returns what is known of a write, without noting it.
    pub(crate) fn seen(&self, id: WriteId) -> Seen {
        self.sessions.get(&id.session).map_or(Seen::Never, |session| session.seen(id.sequence))
    }

    // FORMAT: docs/formats/summary.md, v1
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        out.put_varint(self.sessions.len() as u64);
        for (number, session) in &self.sessions {
            out.put_u64(*number);
            out.put_u64(session.highest);
            out.put_i64(session.last_time_ns);
            // Most sessions are new or have no holes: trailing equal words are left out.
            let used = WORDS - session.window.iter().rev().take_while(|word| **word == 0).count();
            out.put_u8(used as u8);
            for word in &session.window[..used] {
                out.put_u64(*word);
            }
        }
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Decoded<Self> {
        let mut sessions = BTreeMap::new();
        for _ in 0..reader.count(25)? {
            let number = reader.u64()?;
            let (highest, last_time_ns) = (reader.u64()?, reader.i64()?);
            let used = usize::from(reader.u8()?);
            let mut window = [0; WORDS];
            let Some(words) = window.get_mut(..used) else {
                return malformed("session window");
            };
            for word in words {
                *word = reader.u64()?;
            }
            sessions.insert(number, Session { highest, window, last_time_ns });
        }
        Ok(Self { sessions })
    }
}

impl Session {
    fn note(&mut self, sequence: u64) -> Seen {
        if sequence > self.highest {
            self.shift(sequence - self.highest);
            self.highest = sequence;
            self.window[0] |= 1;
            return Seen::Never;
        }
        let seen = self.seen(sequence);
        if seen == Seen::Never {
            let back = self.highest - sequence;
            self.window[(back / 64) as usize] |= 1 << (back % 64);
        }
        seen
    }

    fn seen(&self, sequence: u64) -> Seen {
        let Some(back) = self.highest.checked_sub(sequence) else { return Seen::Never };
        match self.window.get((back / 64) as usize) {
            None => Seen::TooLongAgo,
            Some(word) if word >> (back % 64) & 1 == 1 => Seen::Before,
            Some(_) => Seen::Never,
        }
    }

    fn shift(&mut self, by: u64) {
        let (words, bits) = ((by / 64) as usize, (by % 64) as u32);
        let old = self.window;
        for (at, word) in self.window.iter_mut().enumerate() {
            let from = |at: Option<usize>| at.and_then(|at| old.get(at)).copied().unwrap_or(0);
            let low = from(at.checked_sub(words));
            let high = from(at.checked_sub(words.saturating_add(1)));
            *word = if bits == 0 { low } else { low << bits | high >> (64 - bits) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(sequence: u64) -> WriteId {
        WriteId { session: 1, sequence }
    }

    #[test]
    fn a_write_is_new_once_in_any_order_within_the_window() {
        let mut sessions = Sessions::default();
        for sequence in [3, 1, 2, 200, 100, 1_100] {
            assert_eq!(sessions.seen(id(sequence)), Seen::Never, "{sequence}");
            assert_eq!(sessions.note(id(sequence), 0), Seen::Never, "{sequence}");
            assert_eq!(sessions.note(id(sequence), 0), Seen::Before, "{sequence}");
        }
        assert_eq!(sessions.note(id(100), 0), Seen::Before);
        assert_eq!(sessions.note(id(101), 0), Seen::Never);
        assert_eq!(sessions.note(id(5_000), 0), Seen::Never);
        assert_eq!(sessions.note(id(1_100), 0), Seen::TooLongAgo);
        let mut bytes = Vec::new();
        sessions.encode(&mut bytes);
        assert_eq!(Sessions::decode(&mut Reader::new(&bytes)), Ok(sessions));
    }

    #[test]
    fn the_session_quiet_for_longest_is_forgotten() {
        let mut sessions = Sessions::default();
        for session in 0..=SESSIONS_MAX as u64 {
            let time = if session == 7 { -1 } else { session as i64 };
            sessions.note(WriteId { session, sequence: 1 }, time);
        }
        assert_eq!(sessions.note(WriteId { session: 8, sequence: 1 }, 0), Seen::Before);
        assert_eq!(sessions.note(WriteId { session: 7, sequence: 1 }, 0), Seen::Never);
    }
}
