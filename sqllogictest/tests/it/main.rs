//! Runs every case file over the simple and the extended protocol, each in a tenant of its own.
//!
//! `CNOSDB_SLT_COMPLETE=1` writes the answers of the simple protocol into the files instead; read the
//! difference before believing it.

#![allow(clippy::panic, reason = "tests")]

mod engine;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use engine::{Engine, Protocol};
use libtest_mimic::{Arguments, Failed, Trial};
use sqllogictest::Runner;

struct Server {
    child: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn start() -> Server {
    let folder = tempfile::tempdir().expect("a folder for the data");
    let test = std::env::current_exe().expect("a running test has a path");
    let target = test.parent().and_then(Path::parent).expect("tests lie in target/<profile>/deps");
    let mut child = Command::new(target.join("cnosdb"))
        .args(["run", "--pg-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--log", "warn"])
        .arg("--data-dir")
        .arg(folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary is built before the tests run");
    let stdout = child.stdout.take().expect("stdout is piped");
    let ready =
        BufReader::new(stdout).lines().map_while(Result::ok).find(|l| l.starts_with("Ready"));
    let port = ready
        .as_deref()
        .and_then(|line| line.split(" -p ").nth(1)?.split(' ').next()?.parse().ok());
    Server { child, port: port.expect("the server says its port"), _folder: folder }
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "slt") {
            found.push(path);
        }
    }
}

async fn run(port: u16, path: PathBuf, protocol: Protocol) -> Result<(), Failed> {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let tenant = format!("{stem}_{}", protocol.label());
    let admin = Engine::connect(port, "cnosdb", Protocol::Simple).await?;
    admin.execute(&format!("CREATE TENANT \"{tenant}\"")).await?;
    let name = tenant.clone();
    let mut runner = Runner::new(move || {
        let name = name.clone();
        async move { Engine::connect(port, &name, protocol).await }
    });
    runner.add_label(protocol.label());
    let outcome = if std::env::var_os("CNOSDB_SLT_COMPLETE").is_some() {
        let validator = sqllogictest::default_validator;
        let completed = runner.update_test_file(
            &path,
            " ",
            validator,
            sqllogictest::default_normalizer,
            sqllogictest::default_column_validator,
        );
        completed.await.map_err(|error| Failed::from(error.to_string()))
    } else {
        runner.run_file_async(&path).await.map_err(|error| Failed::from(error.to_string()))
    };
    runner.shutdown_async().await;
    outcome
}

fn main() {
    let arguments = Arguments::from_args();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut found = Vec::new();
    files(&Path::new(env!("CARGO_MANIFEST_DIR")).join("cases"), &mut found);
    found.sort();
    let server = Arc::new(start());
    let mut protocols = vec![Protocol::Simple];
    if std::env::var_os("CNOSDB_SLT_COMPLETE").is_none() {
        protocols.push(Protocol::Extended);
    }
    let trials = protocols.iter().flat_map(|protocol| {
        found.iter().map(|path| {
            let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap_or(path);
            let name = format!("{} {}", protocol.label(), name.display());
            let (path, protocol, server) = (path.clone(), *protocol, Arc::clone(&server));
            let handle = runtime.handle().clone();
            Trial::test(name, move || handle.block_on(run(server.port, path, protocol)))
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    drop(server);
    conclusion.exit();
}
