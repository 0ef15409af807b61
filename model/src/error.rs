//! The kinds of error. Front ends map kinds, not errors, to SQLSTATEs and status codes.

/// What a caller can do about an error; every crate's `Error` answers `kind()` with one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum ErrorKind {
    /// The named object is not there, or not for this caller.
    NotFound,
    /// The named object is there already.
    AlreadyExists,
    /// The request can never succeed as it stands.
    InvalidInput,
    /// The caller may not do this.
    Denied,
    /// The request contradicts the present state.
    Conflict,
    /// A named limit was reached.
    LimitReached,
    /// It may succeed later, unchanged.
    Unavailable,
    /// Stored bytes are not what was written.
    Corrupt,
    /// A fault of ours.
    Internal,
}
