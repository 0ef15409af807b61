//! openraft's own storage tests, to be run on every log and machine of the project.

use std::sync::Arc;

use openraft::testing::{StoreBuilder, Suite};

use crate::log::{Durable, LogStore, RaftLog};
use crate::machine::{Machine, RaftMachine};
use crate::types::{StorageError, TypeConfig};

/// Makes a fresh, empty log and machine, and what must outlive them.
pub trait Fresh: Send + Sync {
    /// The log under test.
    type Log: LogStore;
    /// The machine under test.
    type Machine: Machine;
    /// Dropped after log and machine: a folder, say.
    type Guard: Send + Sync;

    /// Makes them.
    fn make(&self) -> impl Future<Output = (Self::Guard, Self::Log, Self::Machine)> + Send;
}

struct Builder<F>(F);

impl<F: Fresh> StoreBuilder<TypeConfig, RaftLog<F::Log>, RaftMachine<F::Machine>, F::Guard>
    for Builder<F>
{
    async fn build(
        &self,
    ) -> Result<(F::Guard, RaftLog<F::Log>, RaftMachine<F::Machine>), StorageError> {
        let (guard, log, machine) = self.0.make().await;
        let (in_use, _) = tokio::sync::mpsc::channel(1);
        let log = RaftLog { store: log, covered: None, durable: Durable::default() };
        Ok((guard, log, RaftMachine::new(Arc::new(machine), in_use)))
    }
}

/// Runs all tests; must not be called from within a runtime.
///
/// # Errors
/// The storage error that failed a test; a failed assertion panics.
pub fn run<F: Fresh>(fresh: F) -> Result<(), String> {
    Suite::test_all(Builder(fresh)).map_err(|error| error.to_string())
}
