//! Starting, stopping, and refusing to start.

use std::process::Command;

use tests::{Server, binary};

fn refused(arguments: &[&str]) -> String {
    let output = Command::new(binary("cnosdb")).arg("run").args(arguments).output().unwrap();
    assert!(!output.status.success(), "{arguments:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_stopped_server_ends_well_and_a_second_one_on_its_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let path = folder.path().to_str().unwrap();
    let error = refused(&["--data-dir", path, "--pg-addr", "127.0.0.1:0"]);
    assert!(error.contains("in use by another process"), "{error}");
    let other = tempfile::tempdir().unwrap();
    let taken = format!("127.0.0.1:{}", server.port);
    let error = refused(&["--data-dir", other.path().to_str().unwrap(), "--pg-addr", &taken]);
    assert!(error.contains("listen on"), "{error}");
    assert!(server.stop());
}

#[test]
fn a_newer_format_and_an_open_address_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("format"), "99\n").unwrap();
    let path = folder.path().to_str().unwrap();
    let error = refused(&["--data-dir", path, "--pg-addr", "127.0.0.1:0"]);
    assert!(error.contains("format 99"), "{error}");
    let error = refused(&["--data-dir", path, "--pg-addr", "0.0.0.0:0"]);
    assert!(error.contains("can be reached from other machines"), "{error}");
}

#[test]
fn the_default_settings_are_settings() {
    let output = Command::new(binary("cnosdb")).arg("config").output().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("cnosdb.toml");
    std::fs::write(&path, [&output.stdout[..], b"\nunknown = 1\n"].concat()).unwrap();
    let error = refused(&["--config", path.to_str().unwrap()]);
    assert!(error.contains("unknown"), "{error}");
}
