//! The real Prometheus: it scrapes itself and the server, writes here, and another one that has nothing of
//! its own reads back what the first answers from its own store.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use tests::{Server, http};

struct Prometheus {
    child: Child,
    port: u16,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Prometheus {
    fn start(folder: &Path, port: u16, config: &str) -> Self {
        std::fs::create_dir(folder).unwrap();
        let file = folder.join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("make test installs Prometheus");
        Self { child, port }
    }

    /// Returns what a query gives at a time; nothing where it does not answer.
    fn ask(&self, query: &str, time: u64) -> Option<String> {
        let request = format!("GET /api/v1/query?time={time}&query={query}");
        let answer = http(self.port, &request, &[], b"").ok()?;
        let result = answer.body.find("\"result\":").map(|at| answer.body[at..].to_owned())?;
        (answer.status == 200 && !result.contains("\"result\":[]")).then_some(result)
    }
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[test]
fn prometheus_reads_back_by_remote_read_what_it_wrote_by_remote_write() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("cnosdb"));
    let (ours, port) = (format!("127.0.0.1:{}", server.http_port), free_port());
    let config = format!(
        "global: {{scrape_interval: 1s}}\nscrape_configs:\n- job_name: all\n  static_configs: \
         [{{targets: ['127.0.0.1:{port}', '{ours}']}}]\nremote_write:\n- url: \
         http://{ours}/api/v1/prom/write\n  queue_config: {{batch_send_deadline: 1s}}\n"
    );
    let writer = Prometheus::start(&folder.path().join("writer"), port, &config);
    let config = format!(
        "global: {{scrape_interval: 1h}}\nremote_read:\n- url: http://{ours}/api/v1/prom/read\n  \
         read_recent: true\n"
    );
    let reader = Prometheus::start(&folder.path().join("reader"), free_port(), &config);
    let queries = [
        "up",
        "sum(scrape_samples_scraped)",
        "count(%7B__name__%3D~%22prometheus_.%2B%22%7D)",
        "cnosdb_http_in_rows_total",
    ];
    let deadline = Instant::now() + Duration::from_secs(90);
    for query in queries {
        loop {
            // What was scraped then, both must know by now.
            let time = seconds() - 4;
            let (own, read) = (writer.ask(query, time), reader.ask(query, time));
            if own.is_some() && own == read {
                break;
            }
            assert!(Instant::now() < deadline, "{query} at {time}: {own:?} but {read:?}");
            std::thread::yield_now();
        }
    }
}
