//! Bytes of what Raft stores: entries, votes, log ids, and the state that goes with applied rows.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use model::NodeId;
use model::wire::{Decoded, Reader, Write, malformed};
use openraft::{BasicNode, CommittedLeaderId, EntryPayload, Membership};

use crate::network::node_entry;
use crate::types::{Commands, Entry, LogId, StoredMembership, Vote};

const VERSION: u8 = 1;

// FORMAT: docs/formats/raft.md, v1
pub(crate) fn encode_entry(entry: &Entry) -> Bytes {
    let mut out = vec![VERSION];
    put_log_id(entry.log_id, &mut out);
    match &entry.payload {
        EntryPayload::Blank => out.put_u8(0),
        EntryPayload::Normal(Commands(commands)) => {
            out.put_u8(1);
            out.put_varint(commands.len() as u64);
            commands.iter().for_each(|command| out.put_bytes(command));
        }
        EntryPayload::Membership(membership) => {
            out.put_u8(2);
            put_membership(membership, &mut out);
        }
    }
    out.into()
}

/// Decodes an entry; its commands share the bytes given.
pub(crate) fn decode_entry(bytes: &Bytes) -> Decoded<Entry> {
    let mut reader = versioned(bytes)?;
    let log_id = take_log_id(&mut reader)?;
    let payload = match reader.u8()? {
        0 => EntryPayload::Blank,
        1 => {
            let count = reader.count(1)?;
            let mut commands = Vec::with_capacity(count);
            for _ in 0..count {
                commands.push(bytes.slice_ref(reader.bytes()?));
            }
            EntryPayload::Normal(Commands(commands))
        }
        2 => EntryPayload::Membership(take_membership(&mut reader)?),
        other => return malformed(format!("entry kind {other}")),
    };
    reader.finish()?;
    Ok(Entry { log_id, payload })
}

pub(crate) fn encode_log_id(log_id: LogId) -> Bytes {
    let mut out = vec![VERSION];
    put_log_id(log_id, &mut out);
    out.into()
}

pub(crate) fn decode_log_id(bytes: &[u8]) -> Decoded<LogId> {
    let mut reader = versioned(bytes)?;
    let log_id = take_log_id(&mut reader)?;
    reader.finish()?;
    Ok(log_id)
}

/// Reads the log id of an entry without its payload.
pub(crate) fn entry_log_id(bytes: &[u8]) -> Decoded<LogId> {
    take_log_id(&mut versioned(bytes)?)
}

pub(crate) fn encode_vote(vote: &Vote) -> Bytes {
    let mut out = vec![VERSION];
    put_vote(vote, &mut out);
    out.into()
}

pub(crate) fn decode_vote(bytes: &[u8]) -> Decoded<Vote> {
    let mut reader = versioned(bytes)?;
    let vote = take_vote(&mut reader)?;
    reader.finish()?;
    Ok(vote)
}

/// Encodes what is stored beside applied data: the last log id and the membership.
pub(crate) fn encode_state(last: Option<LogId>, membership: &StoredMembership) -> Bytes {
    let mut out = vec![VERSION];
    put_optional(last, &mut out);
    put_optional(*membership.log_id(), &mut out);
    put_membership(membership.membership(), &mut out);
    out.into()
}

pub(crate) fn decode_state(bytes: &[u8]) -> Decoded<(Option<LogId>, StoredMembership)> {
    let mut reader = versioned(bytes)?;
    let last = take_optional(&mut reader)?;
    let log_id = take_optional(&mut reader)?;
    let membership = take_membership(&mut reader)?;
    reader.finish()?;
    Ok((last, StoredMembership::new(log_id, membership)))
}

/// What a store holds of a group whose only member begins with rows that no log of it led to.
#[derive(Clone, Debug)]
pub struct BegunAlone {
    /// The place in the log that the rows stand for.
    pub last_index: u64,
    /// Its log id.
    pub last: Bytes,
    /// What is kept beside the rows.
    pub state: Bytes,
    /// The vote.
    pub vote: Bytes,
}

/// Returns what a store holds where a member of a node begins a group alone, with rows.
pub fn begun_alone(member: u64, node: NodeId) -> BegunAlone {
    let last = LogId::new(CommittedLeaderId::new(1, member), 1);
    let nodes = BTreeMap::from([(member, node_entry(node))]);
    let membership = Membership::new(vec![BTreeSet::from([member])], nodes);
    let state = encode_state(Some(last), &StoredMembership::new(Some(last), membership));
    let vote = encode_vote(&Vote::new(1, member));
    BegunAlone { last_index: last.index, last: encode_log_id(last), state, vote }
}

fn versioned(bytes: &[u8]) -> Decoded<Reader<'_>> {
    let mut reader = Reader::new(bytes);
    match reader.u8()? {
        VERSION => Ok(reader),
        other => malformed(format!("raft record version {other}; this program reads {VERSION}")),
    }
}

pub(crate) fn put_vote(vote: &Vote, out: &mut Vec<u8>) {
    out.put_varint(vote.leader_id.term);
    out.put_varint(vote.leader_id.node_id);
    out.put_u8(u8::from(vote.committed));
}

pub(crate) fn take_vote(reader: &mut Reader<'_>) -> Decoded<Vote> {
    let (term, member) = (reader.varint()?, reader.varint()?);
    let committed = reader.u8()? != 0;
    Ok(if committed { Vote::new_committed(term, member) } else { Vote::new(term, member) })
}

fn put_log_id(log_id: LogId, out: &mut Vec<u8>) {
    out.put_varint(log_id.leader_id.term);
    out.put_varint(log_id.leader_id.node_id);
    out.put_varint(log_id.index);
}

fn take_log_id(reader: &mut Reader<'_>) -> Decoded<LogId> {
    let leader = CommittedLeaderId::new(reader.varint()?, reader.varint()?);
    Ok(LogId::new(leader, reader.varint()?))
}

pub(crate) fn put_optional(log_id: Option<LogId>, out: &mut Vec<u8>) {
    out.put_u8(u8::from(log_id.is_some()));
    if let Some(log_id) = log_id {
        put_log_id(log_id, out);
    }
}

pub(crate) fn take_optional(reader: &mut Reader<'_>) -> Decoded<Option<LogId>> {
    if reader.u8()? == 0 { Ok(None) } else { take_log_id(reader).map(Some) }
}

pub(crate) fn put_membership(membership: &Membership<u64, BasicNode>, out: &mut Vec<u8>) {
    out.put_varint(membership.get_joint_config().len() as u64);
    for config in membership.get_joint_config() {
        out.put_varint(config.len() as u64);
        config.iter().for_each(|id| out.put_varint(*id));
    }
    let nodes: Vec<_> = membership.nodes().collect();
    out.put_varint(nodes.len() as u64);
    for (id, node) in nodes {
        out.put_varint(*id);
        out.put_bytes(node.addr.as_bytes());
    }
}

pub(crate) fn take_membership(reader: &mut Reader<'_>) -> Decoded<Membership<u64, BasicNode>> {
    let mut configs = Vec::new();
    for _ in 0..reader.count(1)? {
        let count = reader.count(1)?;
        configs.push((0..count).map(|_| reader.varint()).collect::<Decoded<BTreeSet<u64>>>()?);
    }
    let mut nodes = BTreeMap::new();
    for _ in 0..reader.count(2)? {
        let id = reader.varint()?;
        nodes.insert(id, BasicNode::new(reader.str()?));
    }
    Ok(Membership::new(configs, nodes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_survive_a_round_trip_and_no_truncation_passes() {
        let log_id = LogId::new(CommittedLeaderId::new(3, 7), 300);
        let nodes = BTreeMap::from([(7, BasicNode::new("here:1"))]);
        let membership = Membership::new(vec![BTreeSet::from([7])], nodes);
        let commands = Commands(vec![Bytes::from_static(b"a"), Bytes::new()]);
        for payload in [
            EntryPayload::Blank,
            EntryPayload::Normal(commands),
            EntryPayload::Membership(membership.clone()),
        ] {
            let entry = Entry { log_id, payload };
            let bytes = encode_entry(&entry);
            assert_eq!(decode_entry(&bytes), Ok(entry));
            assert_eq!(entry_log_id(&bytes), Ok(log_id));
            for len in 0..bytes.len() {
                assert!(decode_entry(&bytes.slice(..len)).is_err());
            }
        }
        let stored = StoredMembership::new(Some(log_id), membership);
        let state = encode_state(Some(log_id), &stored);
        assert_eq!(decode_state(&state), Ok((Some(log_id), stored)));
        let vote = Vote::new_committed(4, 9);
        assert_eq!(decode_vote(&encode_vote(&vote)), Ok(vote));
    }
}
