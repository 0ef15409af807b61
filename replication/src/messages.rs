//! Bytes of what members of a group say to each other.
#![deny(clippy::indexing_slicing, clippy::cast_possible_truncation)]

use bytes::Bytes;
use model::wire::{Decoded, Reader, Write, malformed};
use openraft::SnapshotMeta;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};

use crate::codec::{
    decode_entry, encode_entry, put_membership, put_optional, put_vote, take_membership,
    take_optional, take_vote,
};
use crate::types::{LogId, StoredMembership, TypeConfig, Vote};

const VERSION: u8 = 1;

pub(crate) type AppendRequest = AppendEntriesRequest<TypeConfig>;
pub(crate) type AppendResponse = AppendEntriesResponse<u64>;
pub(crate) type Meta = SnapshotMeta<u64, openraft::BasicNode>;

/// What one member asks another.
#[derive(Debug)]
pub(crate) enum Message {
    /// Take these entries, or none, as a sign of life.
    Append(AppendRequest),
    /// Vote for me.
    Vote(VoteRequest<u64>),
    /// Replace your data; the files that `data` names are at member `source` on `node`.
    Image { vote: Vote, meta: Meta, data: Bytes, node: u64, source: u64 },
    /// Send a piece of a file of an image you gave.
    Piece { part: String, offset: u64, len: u32 },
    /// Stand for election now.
    Elect,
}

/// What is answered.
#[derive(Debug)]
pub(crate) enum Reply {
    Append(AppendResponse),
    Vote(VoteResponse<u64>),
    Image {
        vote: Vote,
    },
    Piece(Bytes),
    Done,
    /// The member cannot answer: it does not open, it failed.
    Failed(String),
}

// FORMAT: docs/formats/rpc.md, v1
pub(crate) fn encode(target: u64, message: &Message) -> Bytes {
    let mut out = vec![VERSION];
    out.put_varint(target);
    match message {
        Message::Append(request) => {
            out.put_u8(1);
            put_vote(&request.vote, &mut out);
            put_optional(request.prev_log_id, &mut out);
            put_optional(request.leader_commit, &mut out);
            out.put_varint(request.entries.len() as u64);
            request.entries.iter().for_each(|entry| out.put_bytes(&encode_entry(entry)));
        }
        Message::Vote(request) => {
            out.put_u8(2);
            put_vote(&request.vote, &mut out);
            put_optional(request.last_log_id, &mut out);
        }
        Message::Image { vote, meta, data, node, source } => {
            out.put_u8(3);
            put_vote(vote, &mut out);
            put_optional(meta.last_log_id, &mut out);
            put_optional(*meta.last_membership.log_id(), &mut out);
            put_membership(meta.last_membership.membership(), &mut out);
            out.put_bytes(meta.snapshot_id.as_bytes());
            out.put_bytes(data);
            out.put_varint(*node);
            out.put_varint(*source);
        }
        Message::Piece { part, offset, len } => {
            out.put_u8(4);
            out.put_bytes(part.as_bytes());
            out.put_u64(*offset);
            out.put_u32(*len);
        }
        Message::Elect => out.put_u8(5),
    }
    out.into()
}

/// Returns the member that is asked, and what.
pub(crate) fn decode(bytes: &Bytes) -> Decoded<(u64, Message)> {
    let mut reader = versioned(bytes)?;
    let target = reader.varint()?;
    let message = match reader.u8()? {
        1 => {
            let vote = take_vote(&mut reader)?;
            let prev_log_id = take_optional(&mut reader)?;
            let leader_commit = take_optional(&mut reader)?;
            let mut entries = Vec::new();
            for _ in 0..reader.count(1)? {
                entries.push(decode_entry(&bytes.slice_ref(reader.bytes()?))?);
            }
            Message::Append(AppendRequest { vote, prev_log_id, entries, leader_commit })
        }
        2 => {
            let vote = take_vote(&mut reader)?;
            Message::Vote(VoteRequest { vote, last_log_id: take_optional(&mut reader)? })
        }
        3 => {
            let vote = take_vote(&mut reader)?;
            let last_log_id = take_optional(&mut reader)?;
            let membership_id: Option<LogId> = take_optional(&mut reader)?;
            let membership = take_membership(&mut reader)?;
            let last_membership = StoredMembership::new(membership_id, membership);
            let snapshot_id = reader.str()?.to_owned();
            let meta = Meta { last_log_id, last_membership, snapshot_id };
            let data = bytes.slice_ref(reader.bytes()?);
            Message::Image { vote, meta, data, node: reader.varint()?, source: reader.varint()? }
        }
        4 => Message::Piece {
            part: reader.str()?.to_owned(),
            offset: reader.u64()?,
            len: reader.u32()?,
        },
        5 => Message::Elect,
        other => return malformed(format!("message kind {other}")),
    };
    reader.finish()?;
    Ok((target, message))
}

pub(crate) fn encode_reply(reply: &Reply) -> Bytes {
    let mut out = vec![VERSION];
    match reply {
        Reply::Append(AppendResponse::Success) => out.put_u8(1),
        Reply::Append(AppendResponse::PartialSuccess(upto)) => {
            out.put_u8(2);
            put_optional(*upto, &mut out);
        }
        Reply::Append(AppendResponse::Conflict) => out.put_u8(3),
        Reply::Append(AppendResponse::HigherVote(vote)) => {
            out.put_u8(4);
            put_vote(vote, &mut out);
        }
        Reply::Vote(response) => {
            out.put_u8(5);
            put_vote(&response.vote, &mut out);
            out.put_u8(u8::from(response.vote_granted));
            put_optional(response.last_log_id, &mut out);
        }
        Reply::Image { vote } => {
            out.put_u8(6);
            put_vote(vote, &mut out);
        }
        Reply::Piece(piece) => {
            out.put_u8(7);
            out.put_bytes(piece);
        }
        Reply::Done => out.put_u8(8),
        Reply::Failed(reason) => {
            out.put_u8(9);
            out.put_bytes(reason.as_bytes());
        }
    }
    out.into()
}

pub(crate) fn decode_reply(bytes: &Bytes) -> Decoded<Reply> {
    let mut reader = versioned(bytes)?;
    let reply = match reader.u8()? {
        1 => Reply::Append(AppendResponse::Success),
        2 => Reply::Append(AppendResponse::PartialSuccess(take_optional(&mut reader)?)),
        3 => Reply::Append(AppendResponse::Conflict),
        4 => Reply::Append(AppendResponse::HigherVote(take_vote(&mut reader)?)),
        5 => {
            let vote = take_vote(&mut reader)?;
            let vote_granted = reader.u8()? != 0;
            Reply::Vote(VoteResponse {
                vote,
                vote_granted,
                last_log_id: take_optional(&mut reader)?,
            })
        }
        6 => Reply::Image { vote: take_vote(&mut reader)? },
        7 => Reply::Piece(bytes.slice_ref(reader.bytes()?)),
        8 => Reply::Done,
        9 => Reply::Failed(reader.str()?.to_owned()),
        other => return malformed(format!("reply kind {other}")),
    };
    reader.finish()?;
    Ok(reply)
}

fn versioned(bytes: &[u8]) -> Decoded<Reader<'_>> {
    let mut reader = Reader::new(bytes);
    match reader.u8()? {
        VERSION => Ok(reader),
        other => malformed(format!("message version {other}; this program reads {VERSION}")),
    }
}

#[cfg(test)]
mod tests {
    use openraft::{CommittedLeaderId, EntryPayload};

    use super::*;
    use crate::types::{Commands, Entry};

    #[test]
    fn messages_survive_a_round_trip_and_no_truncation_passes() {
        let log_id = LogId::new(CommittedLeaderId::new(3, 7), 300);
        let commands = Commands(vec![Bytes::from_static(b"a"), Bytes::new()]);
        let entries = vec![Entry { log_id, payload: EntryPayload::Normal(commands) }];
        let vote = Vote::new_committed(4, 9);
        let meta = Meta { snapshot_id: "s".to_owned(), ..Meta::default() };
        let messages = [
            Message::Append(AppendRequest {
                vote,
                prev_log_id: Some(log_id),
                entries,
                leader_commit: None,
            }),
            Message::Vote(VoteRequest { vote, last_log_id: Some(log_id) }),
            Message::Image { vote, meta, data: Bytes::from_static(b"d"), node: 1, source: 2 },
            Message::Piece { part: "tsm/1".to_owned(), offset: 5, len: 6 },
            Message::Elect,
        ];
        for message in messages {
            let bytes = encode(5, &message);
            let (target, again) = decode(&bytes).unwrap();
            assert_eq!((target, encode(5, &again)), (5, bytes.clone()));
            for len in 0..bytes.len() {
                assert!(decode(&bytes.slice(..len)).is_err());
            }
        }
        let replies = [
            Reply::Append(AppendResponse::PartialSuccess(Some(log_id))),
            Reply::Append(AppendResponse::HigherVote(vote)),
            Reply::Vote(VoteResponse { vote, vote_granted: true, last_log_id: None }),
            Reply::Image { vote },
            Reply::Piece(Bytes::from_static(b"p")),
            Reply::Done,
            Reply::Failed("f".to_owned()),
        ];
        for reply in replies {
            let bytes = encode_reply(&reply);
            assert_eq!(encode_reply(&decode_reply(&bytes).unwrap()), bytes);
            for len in 0..bytes.len() {
                assert!(decode_reply(&bytes.slice(..len)).is_err());
            }
        }
    }
}
