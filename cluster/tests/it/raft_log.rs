//! openraft's own storage tests on views of one shared write-ahead log, while other groups append to
//! it and its segments are purged.

use std::io;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use cluster::VnodeLogStore;
use model::VnodeId;
use replication::suite::{self, Fresh};
use replication::{Image, Machine};
use std::sync::Mutex;
use tskv::disk::OsDisk;
use tskv::wal::{Wal, WalConfig};

/// A machine that remembers only how far it came.
#[derive(Default)]
struct Counter {
    state: Mutex<Option<Bytes>>,
    image: Mutex<Option<Image>>,
}

impl Machine for Counter {
    fn applied(&self) -> io::Result<Option<Bytes>> {
        Ok(self.state.lock().unwrap().clone())
    }

    async fn apply(&self, _: u64, state: Bytes, commands: Vec<Bytes>) -> io::Result<Vec<Bytes>> {
        *self.state.lock().unwrap() = Some(state);
        Ok(commands)
    }

    async fn snapshot(&self) -> io::Result<Image> {
        let raft_state = self.state.lock().unwrap().clone();
        let image = Image { raft_state, data: Bytes::new() };
        *self.image.lock().unwrap() = Some(image.clone());
        Ok(image)
    }

    fn last_snapshot(&self) -> io::Result<Option<Image>> {
        Ok(self.image.lock().unwrap().clone())
    }

    async fn install(&self, image: Image) -> io::Result<()> {
        self.state.lock().unwrap().clone_from(&image.raft_state);
        *self.image.lock().unwrap() = Some(image);
        Ok(())
    }
}

/// Another group that keeps appending and purging, so that segments come and go.
struct Neighbour {
    task: tokio::task::JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct SharedLog;

impl Fresh for SharedLog {
    type Log = VnodeLogStore;
    type Machine = Counter;
    type Guard = Neighbour;

    async fn make(&self) -> (Neighbour, VnodeLogStore, Counter) {
        let folder = tempfile::tempdir().unwrap();
        let config = WalConfig { segment_bytes: 8_192, ..WalConfig::default() };
        let path = folder.path().join("wal");
        let wal = Wal::open(Arc::new(OsDisk), Path::new(&path), &config).unwrap();
        let other = wal.log(VnodeId(99));
        let task = tokio::spawn(async move {
            for index in 0..u64::MAX {
                let (sender, receiver) = tokio::sync::oneshot::channel();
                let done = Box::new(move |outcome: tskv::Result<()>| drop(sender.send(outcome)));
                other.append(vec![(index, Bytes::from(vec![7; 500]))], done).await;
                if !matches!(receiver.await, Ok(Ok(()))) {
                    return;
                }
                if index % 10 == 9 {
                    other.purge(index - 2, Bytes::from_static(b"neighbour")).await.unwrap();
                }
            }
        });
        let guard = Neighbour { task, _folder: folder };
        (guard, VnodeLogStore(wal.log(VnodeId(1))), Counter::default())
    }
}

#[test]
fn openrafts_storage_tests_pass_on_the_shared_log() {
    suite::run(SharedLog).unwrap();
}
