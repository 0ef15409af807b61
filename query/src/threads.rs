//! On which thread work is done: a connection's own, beside it, or one of those of queries.

use futures::FutureExt;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinHandle;

use crate::error::{Error, Result};
use crate::session::caught;

/// Runs what takes long where other tasks of the thread go on elsewhere meanwhile.
pub(crate) fn beside_the_network<T>(work: impl FnOnce() -> T) -> T {
    let several = Handle::try_current()
        .is_ok_and(|runtime| runtime.runtime_flavor() == RuntimeFlavor::MultiThread);
    if several { tokio::task::block_in_place(work) } else { work() }
}

/// A task that ends with who waits for it.
pub(crate) struct AbortOnDrop<T>(pub(crate) JoinHandle<Result<T>>);

impl<T> AbortOnDrop<T> {
    pub(crate) async fn finish(mut self) -> Result<T> {
        (&mut self.0).await.map_err(Error::internal)?
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Does work here until it waits for something, or says that it [`takes_long`], then goes on with it on other
/// threads. What is soon done needs no other thread, which would have to wake up for it, and this one for the
/// answer.
pub(crate) async fn here_or_elsewhere<T: Send + 'static>(
    threads: &Handle,
    work: impl Future<Output = Result<T>> + Send + 'static,
) -> Result<T> {
    let mut work = Box::pin(caught(work));
    let done = beside_the_network(|| {
        let _its_tasks_are_theirs = threads.enter();
        (&mut work).now_or_never()
    });
    match done {
        Some(done) => done,
        None => AbortOnDrop(threads.spawn(work)).finish().await,
    }
}

/// Has work that was begun by [`here_or_elsewhere`] go on elsewhere.
pub(crate) async fn takes_long() {
    tokio::task::yield_now().await;
}
