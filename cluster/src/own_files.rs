//! Small files of a node that other parts keep beside its data: read whole, replaced whole.

use std::path::PathBuf;
use std::sync::Arc;

use tskv::disk::{read_file, replace_file};

use crate::Cluster;
use crate::error::{Error, Result};

impl Cluster {
    fn own_file(&self, name: &str) -> PathBuf {
        self.config.data_dir.join(name)
    }

    /// Returns what a file of this node holds; `None` where there is none.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn read_own_file(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let (disk, path) = (Arc::clone(&self.disk), self.own_file(name));
        let read = tokio::task::spawn_blocking(move || match read_file(&*disk, &path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        });
        read.await.map_err(Error::internal)?.map_err(Error::internal)
    }

    /// Replaces a file of this node: after a crash it holds what it held or what it is to hold.
    ///
    /// # Errors
    /// What the disk says.
    pub async fn replace_own_file(&self, name: &str, bytes: Vec<u8>) -> Result<()> {
        let (disk, path) = (Arc::clone(&self.disk), self.own_file(name));
        let replaced = tokio::task::spawn_blocking(move || replace_file(&*disk, &path, &bytes));
        replaced.await.map_err(Error::internal)?.map_err(Error::internal)
    }
}
