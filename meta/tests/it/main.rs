//! The catalog over RocksDB: openraft's own storage tests, and what a restart keeps.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::too_many_lines,
    reason = "tests say what they want, and stop where they do not get it"
)]

use meta::{Command, MetaMachine, MetaNode, MetaStore, Reply};
use model::NodeId;
use replication::suite::{self, Fresh};

struct FreshStore;

impl Fresh for FreshStore {
    type Log = MetaStore;
    type Machine = MetaMachine;
    type Guard = tempfile::TempDir;

    async fn make(&self) -> (tempfile::TempDir, MetaStore, MetaMachine) {
        let folder = tempfile::tempdir().unwrap();
        let store = MetaStore::open(folder.path()).unwrap();
        let machine = MetaMachine::open(store.clone()).unwrap();
        (folder, store, machine)
    }
}

#[test]
fn openrafts_storage_tests_pass_on_rocksdb() {
    suite::run(FreshStore).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_catalog_survives_restarts_and_ids_are_never_reused() {
    let folder = tempfile::tempdir().unwrap();
    let mut sessions = Vec::new();
    for round in 0..3 {
        let node = MetaNode::open_alone(folder.path(), NodeId(1)).await.unwrap();
        let client = node.client();
        client.submit(&Command::Bootstrap { verifier: None }).await.unwrap();
        let tenant = client.catalog().tenant("cnosdb").unwrap().id;
        let name = format!("t{round}");
        let create = Command::CreateTenant {
            name,
            comment: String::new(),
            drop_after_ns: None,
            limits: meta::ObjectLimits::default(),
            rates: meta::Rates::new(),
        };
        client.submit(&create).await.unwrap();
        assert!(client.submit(&create).await.is_err(), "a second one is refused");
        assert_eq!(client.catalog().tenants().count(), round + 2);
        assert!(client.catalog().database(tenant, "public").is_some());
        let Reply::Session(session) = client.submit(&Command::NewSession).await.unwrap() else {
            panic!("a session was asked for");
        };
        sessions.push(session);
        drop(client);
        node.close().await;
    }
    assert_eq!(sessions, [1, 2, 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_log_is_purged_and_the_catalog_stays() {
    let folder = tempfile::tempdir().unwrap();
    let node = MetaNode::open_alone(folder.path(), NodeId(1)).await.unwrap();
    let client = node.client();
    for _ in 0..1_100 {
        client.submit(&Command::NewSession).await.unwrap();
    }
    drop(client);
    node.close().await;
    let node = MetaNode::open_alone(folder.path(), NodeId(1)).await.unwrap();
    assert_eq!(node.client().submit(&Command::NewSession).await, Ok(Reply::Session(1_101)));
}
