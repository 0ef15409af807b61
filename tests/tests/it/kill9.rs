//! kill -9 under concurrent writers: what was acknowledged is there, once and unchanged; what was in
//! flight is there wholly or not at all.
//!
//! `CNOSDB_KILL_CYCLES` sets the number of kills (docs/testing.md).

use tests::Server;

use crate::writers::Writers;

fn cycles() -> u32 {
    std::env::var("CNOSDB_KILL_CYCLES").ok().and_then(|n| n.parse().ok()).unwrap_or(30)
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_loses_doubles_and_invents_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Server::start(folder.path());
    let mut writers = Writers::new(server.port).await;
    for cycle in 0..cycles() {
        writers.start(&server).await;
        server.kill();
        if cycle % 5 == 4 {
            Server::kill_in_recovery(folder.path(), cycle * 2_000);
        }
        server = Server::start(folder.path());
        if let Err(wrong) = writers.check(server.port).await {
            panic!("cycle {cycle}, {wrong}");
        }
    }
}
