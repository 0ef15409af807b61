//! The kit of the black-box tests: the real binary, started on a free port and a folder of its own.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running `cnosdb`.
pub struct Server {
    child: Child,
    /// The port PostgreSQL clients connect to.
    pub port: u16,
    /// The port HTTP clients connect to.
    pub http_port: u16,
    /// The port of OpenTSDB's lines, where there is one.
    pub opentsdb_port: Option<u16>,
}

/// What a server answered over HTTP.
#[derive(Debug)]
pub struct HttpAnswer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: String,
}

/// Sends one request over a connection of its own; `headers` are whole lines.
///
/// # Errors
/// What the sockets say.
///
/// # Panics
/// Where the head of the answer has no status.
pub fn http(port: u16, request: &str, headers: &[&str], body: &[u8]) -> io::Result<HttpAnswer> {
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let len = body.len();
    let head = format!(
        "{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {len}\r\n\
         {headers}\r\n"
    );
    socket.write_all(head.as_bytes())?;
    socket.write_all(body)?;
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer)?;
    let text = String::from_utf8_lossy(&answer).into_owned();
    // Nothing, or something that is not HTTP, such as an alert of TLS.
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Err(io::ErrorKind::UnexpectedEof.into());
    };
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok(HttpAnswer { status: status.expect("a head has a status"), body: body.to_owned() })
}

/// Returns a binary of the workspace, built beside the running test.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    let folder = test.parent().and_then(Path::parent).expect("tests lie in target/<profile>/deps");
    folder.join(name)
}

fn spawn(data_dir: &Path, arguments: &[String], envs: &[(&str, &str)]) -> Child {
    let mut command = command(data_dir, "warn,openraft=off");
    let command = command.args(arguments).envs(envs.iter().copied());
    command.spawn().expect("the binary is built before the tests run")
}

fn command(data_dir: &Path, log: &str) -> Command {
    let mut command = Command::new(binary("cnosdb"));
    command
        .args(["run", "--pg-addr", "127.0.0.1:0", "--http-addr", "127.0.0.1:0", "--log", log])
        .arg("--data-dir")
        .arg(data_dir)
        .stdout(Stdio::piped());
    command
}

impl Server {
    /// Starts the server and waits until it is ready.
    ///
    /// # Panics
    /// Where it ends instead.
    pub fn start(data_dir: &Path) -> Self {
        Self::start_with(data_dir, &[])
    }

    /// Starts the server with more in its environment.
    ///
    /// # Panics
    /// Where it ends instead.
    pub fn start_with(data_dir: &Path, envs: &[(&str, &str)]) -> Self {
        Self::try_start(data_dir, envs).expect("the server says that it is ready")
    }

    /// Starts the server with all it can say written to a file.
    ///
    /// # Panics
    /// Where it ends instead, or the file cannot be made.
    pub fn start_logged(data_dir: &Path, log: &Path, envs: &[(&str, &str)]) -> Self {
        let log = std::fs::File::create(log).expect("the log can be made");
        let mut command = command(data_dir, "trace");
        let child = command.stderr(log).envs(envs.iter().copied()).spawn();
        let child = child.expect("the binary is built before the tests run");
        Self::wait_until_ready(child).expect("the server says that it is ready")
    }

    /// Starts the server; `None` where it ends instead.
    ///
    /// # Panics
    /// Where its line of readiness is not as it should be.
    pub fn try_start(data_dir: &Path, envs: &[(&str, &str)]) -> Option<Self> {
        Self::wait_until_ready(spawn(data_dir, &[], envs))
    }

    /// Starts a node of a cluster with more arguments, and waits until it is ready.
    ///
    /// # Panics
    /// Where it ends instead.
    pub fn start_node(data_dir: &Path, arguments: &[String]) -> Self {
        let ready = Self::wait_until_ready(spawn(data_dir, arguments, &[]));
        ready.expect("the node says that it is ready")
    }

    fn wait_until_ready(mut child: Child) -> Option<Self> {
        let stdout = child.stdout.take().expect("stdout is piped");
        let lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let mut said = Vec::new();
        for line in lines {
            said.push(line);
            if said.last().is_some_and(|line| line.starts_with("Ready")) {
                break;
            }
        }
        let line = |begin: &str| said.iter().find(|line| line.starts_with(begin));
        let (Some(http), Some(ready)) = (line("HTTP"), line("Ready")) else {
            kill(&mut child);
            return None;
        };
        let last_port = |line: &String| line.rsplit(':').next().and_then(|port| port.parse().ok());
        let port = ready.split(" -p ").nth(1).and_then(|rest| rest.split(' ').next());
        let port = port.and_then(|port| port.parse().ok()).expect("the line names the port");
        let http_port = last_port(http).expect("the line names the port");
        let opentsdb_port = line("OpenTSDB").and_then(last_port);
        Some(Self { child, port, http_port, opentsdb_port })
    }

    /// Starts the server and kills it before it is ready, `polls` looks later.
    pub fn kill_in_recovery(data_dir: &Path, polls: u32) {
        let mut child = spawn(data_dir, &[], &[]);
        for _ in 0..polls {
            if child.try_wait().ok().flatten().is_some() {
                break;
            }
            std::thread::yield_now();
        }
        kill(&mut child);
    }

    /// Ends the process as a power cut of the process would: kill -9.
    pub fn kill(mut self) {
        kill(&mut self.child);
    }

    /// Returns the most bytes of memory the process ever held.
    ///
    /// # Panics
    /// Where the system does not say.
    pub fn peak_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("a process has a status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.expect("a status names the memory") * 1_024
    }

    /// Sends the process a signal by its name.
    ///
    /// # Panics
    /// Where it cannot be sent.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args(["-s", signal, &pid]).status();
        assert!(sent.is_ok_and(|status| status.success()), "kill -s {signal}");
    }

    /// Asks the process to stop and returns whether it ended well.
    ///
    /// # Panics
    /// Where it cannot be asked.
    pub fn stop(mut self) -> bool {
        self.signal("TERM");
        self.child.wait().is_ok_and(|status| status.success())
    }

    /// Returns what psycopg, psql and others connect with.
    pub fn url(&self) -> String {
        format!("postgresql://root@127.0.0.1:{}/cnosdb", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        kill(&mut self.child);
    }
}

fn kill(child: &mut Child) {
    // It may have ended by itself already; either way it is gone after `wait`.
    drop(child.kill());
    drop(child.wait());
}
