//! Whether a file of a vnode was found damaged while the vnode was in use.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use model::ErrorKind;

use crate::error::Result;

/// Shared by all who read the files of a vnode.
#[derive(Clone, Debug, Default)]
pub(crate) struct Damage(Arc<AtomicBool>);

impl Damage {
    /// Looks at an outcome, and gives it back.
    pub(crate) fn note<T>(&self, outcome: Result<T>) -> Result<T> {
        if outcome.as_ref().is_err_and(|error| error.kind() == ErrorKind::Corrupt) {
            self.0.store(true, Ordering::Release);
        }
        outcome
    }

    /// Takes it back: all was read and sound.
    pub(crate) fn clear(&self) {
        self.0.store(false, Ordering::Release);
    }

    pub(crate) fn was_found(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}
