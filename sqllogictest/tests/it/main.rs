//! Runs every case file over the simple and the extended protocol, and on three nodes where each row is
//! on all of them and each bucket has three shards; each in a tenant of its own.
//!
//! `CNOSDB_SLT_COMPLETE=1` writes the answers of the simple protocol into the files instead; read the
//! difference before believing it.

#![allow(clippy::panic, clippy::disallowed_methods, reason = "tests")]

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
    rpc_port: Option<u16>,
}

/// The singleton and the nodes of a cluster, and where their data lies.
struct Servers {
    alone: Server,
    nodes: Vec<Server>,
    _folder: tempfile::TempDir,
}

/// What a case file runs on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Alone(Protocol),
    /// Three nodes, by the simple protocol.
    Nodes,
}

impl Way {
    fn label(self) -> &'static str {
        match self {
            Self::Alone(protocol) => protocol.label(),
            Self::Nodes => "nodes",
        }
    }

    fn protocol(self) -> Protocol {
        match self {
            Self::Alone(protocol) => protocol,
            Self::Nodes => Protocol::Simple,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn start(data_dir: &Path, arguments: &[String]) -> Server {
    let test = std::env::current_exe().expect("a running test has a path");
    let target = test.parent().and_then(Path::parent).expect("tests lie in target/<profile>/deps");
    let mut child = Command::new(target.join("cnosdb"))
        .args(["run", "--pg-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0"])
        .args(["--log", "warn,openraft=off"])
        .arg("--data-dir")
        .arg(data_dir)
        .args(arguments)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the binary is built before the tests run");
    let stdout = child.stdout.take().expect("stdout is piped");
    let (mut port, mut rpc_port) = (None, None);
    for line in BufReader::new(stdout).lines().map_while(Result::ok) {
        if line.starts_with("Node") {
            rpc_port = line.rsplit(':').next().and_then(|port| port.parse().ok());
        } else if line.starts_with("Ready") {
            let named = line.split(" -p ").nth(1).and_then(|rest| rest.split(' ').next());
            port = named.and_then(|port| port.parse().ok());
            break;
        }
    }
    Server { child, port: port.expect("the server says its port"), rpc_port }
}

fn start_all() -> Servers {
    let folder = tempfile::tempdir().expect("a folder for the data");
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "s".repeat(32)).expect("a secret");
    let alone = start(&folder.path().join("alone"), &[]);
    let mut nodes: Vec<Server> = Vec::new();
    for number in 0..3 {
        let mut arguments = vec!["--rpc-addr".to_owned(), "127.0.0.1:0".to_owned()];
        arguments.extend(["--cluster-secret-file".to_owned(), secret.display().to_string()]);
        if let Some(first) = nodes.first().and_then(|first| first.rpc_port) {
            arguments.extend(["--join".to_owned(), format!("127.0.0.1:{first}")]);
        }
        nodes.push(start(&folder.path().join(format!("node{number}")), &arguments));
    }
    Servers { alone, nodes, _folder: folder }
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

async fn run(port: u16, path: PathBuf, way: Way) -> Result<(), Failed> {
    let protocol = way.protocol();
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    let tenant = format!("{stem}_{}", way.label());
    let admin = Engine::connect(port, "cnosdb", Protocol::Simple).await?;
    admin.execute(&format!("CREATE TENANT \"{tenant}\"")).await?;
    if way == Way::Nodes {
        let owner = Engine::connect(port, &tenant, Protocol::Simple).await?;
        owner.execute("ALTER DATABASE public SET REPLICA 3").await?;
        owner.execute("ALTER DATABASE public SET SHARD 3").await?;
    }
    let name = tenant.clone();
    let mut runner = Runner::new(move || {
        let name = name.clone();
        async move { Engine::connect(port, &name, protocol).await }
    });
    runner.add_label(way.label());
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
    files(Path::new("cases"), &mut found);
    found.sort();
    let servers = Arc::new(start_all());
    let mut ways = vec![Way::Alone(Protocol::Simple)];
    if std::env::var_os("CNOSDB_SLT_COMPLETE").is_none() {
        ways.extend([Way::Alone(Protocol::Extended), Way::Nodes]);
    }
    let trials = ways.iter().flat_map(|way| {
        found.iter().enumerate().map(|(number, path)| {
            let name = format!("{} {}", way.label(), path.display());
            let nodes = &servers.nodes;
            let port = match way {
                Way::Alone(_) => servers.alone.port,
                Way::Nodes => nodes[number % nodes.len()].port,
            };
            let (path, way, handle) = (path.clone(), *way, runtime.handle().clone());
            Trial::test(name, move || handle.block_on(run(port, path, way)))
        })
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    drop(servers);
    conclusion.exit();
}
