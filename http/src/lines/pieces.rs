//! A large body is read by several threads: cut between lines, so that each piece is read by itself.

use std::thread::ScopedJoinHandle;

use super::{BadLine, GROUPS_MAX, Lines, Parsed, Precision, REPORTED_MAX, parse_piece};

/// A piece has at least so many bytes: below, handing it over costs more than reading it.
const PIECE_BYTES: usize = 512 << 10;

/// A stretch of whole lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Piece<'a> {
    pub(super) bytes: &'a [u8],
    /// The number of its first line.
    pub(super) number: usize,
    /// As in [`Lines`].
    pub(super) texts_end: bool,
}

/// Cuts a body into at most `wanted` pieces of about one length.
pub(super) fn cut(body: &[u8], wanted: usize) -> Vec<Piece<'_>> {
    let count = (body.len() / PIECE_BYTES).clamp(1, wanted.max(1));
    let share = body.len().div_ceil(count);
    let mut pieces = Vec::with_capacity(count);
    let mut lines = Lines { rest: body, number: 1, texts_end: true };
    loop {
        let (rest, number, texts_end) = (lines.rest, lines.number, lines.texts_end);
        if rest.is_empty() {
            break;
        }
        if pieces.len() + 1 == count {
            pieces.push(Piece { bytes: rest, number, texts_end });
            break;
        }
        while rest.len() - lines.rest.len() < share && lines.next().is_some() {}
        let len = rest.len() - lines.rest.len();
        let bytes = rest.get(..len).unwrap_or_default();
        pieces.push(Piece { bytes, number, texts_end });
    }
    pieces
}

/// Reads a body with as many threads as help; a line without a time has `now_ns`.
pub fn parse(body: &[u8], precision: Precision, now_ns: i64, threads: usize) -> Parsed {
    let pieces = cut(body, threads);
    let [first, others @ ..] = pieces.as_slice() else { return Parsed::default() };
    let read = |piece: &Piece<'_>| parse_piece(*piece, precision, now_ns);
    std::thread::scope(|scope| {
        let begin = |piece| std::thread::Builder::new().spawn_scoped(scope, move || read(piece));
        let others: Vec<_> = others.iter().map(|piece| (piece, begin(piece))).collect();
        let mut parsed = read(first);
        for (piece, other) in others {
            match other.map(ScopedJoinHandle::join) {
                Ok(Ok(other)) => parsed.append(other),
                Ok(Err(panic)) => std::panic::resume_unwind(panic),
                // There are too many threads already.
                Err(_) => parsed.append(read(piece)),
            }
        }
        parsed
    })
}

impl Parsed {
    /// Adds what later lines say.
    fn append(&mut self, later: Self) {
        let mut later = later;
        let room = GROUPS_MAX.saturating_sub(self.batches.len());
        for (_, lines) in later.batches.drain(room.min(later.batches.len())..) {
            later.good_count -= lines.len();
            later.bad_count += lines.len();
            let reason = format!("more than {GROUPS_MAX} tables and sets of fields");
            let bad = |line: &u32| BadLine { number: *line as usize, reason: reason.clone() };
            let left = REPORTED_MAX.saturating_sub(later.bad.len());
            later.bad.extend(lines.iter().take(left).map(bad));
        }
        later.bad.sort_by_key(|bad| bad.number);
        self.batches.extend(later.batches);
        let left = REPORTED_MAX.saturating_sub(self.bad.len());
        let bad: Vec<BadLine> = later.bad.into_iter().take(left).collect();
        self.bad.extend(bad);
        self.bad_count += later.bad_count;
        self.good_count += later.good_count;
    }
}
