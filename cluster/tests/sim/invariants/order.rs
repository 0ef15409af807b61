//! What a member stores: the log is purged up to where files hold it, files hold what was applied, and
//! none of it goes back, through crashes too; nor does its term.

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
        // What was applied and not flushed is applied anew after a crash.
        let onward =
            before.term <= now.term && before.purged <= now.purged && before.flushed <= now.flushed;
        if in_order && onward {
            return Ok(());
        }
        Err(format!("member {member} stood as {before:?} and stands as {now:?}"))
    }
}
