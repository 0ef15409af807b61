//! What a member stores: the log is purged up to where files hold it, files hold what was applied; what
//! files hold and the term never go back, through crashes too.

use std::collections::BTreeMap;

use super::Member;

/// How far a member came.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stand {
    pub(crate) term: u64,
    /// Up to where its log is purged, its files hold what was applied, and it has applied.
    pub(crate) purged: u64,
    pub(crate) flushed: u64,
    pub(crate) applied: u64,
}

/// How each member stood last.
#[derive(Default)]
pub(crate) struct Orders(BTreeMap<Member, Stand>);

impl Orders {
    pub(crate) fn stands(&mut self, member: Member, now: Stand) -> Result<(), String> {
        let before = self.0.insert(member, now).unwrap_or_default();
        let in_order = now.purged <= now.flushed && now.flushed <= now.applied;
        // After a crash what was not flushed is applied anew, and what was being purged may be there again.
        let onward = before.term <= now.term && before.flushed <= now.flushed;
        if in_order && onward {
            return Ok(());
        }
        Err(format!("member {member} stood as {before:?} and stands as {now:?}"))
    }
}
