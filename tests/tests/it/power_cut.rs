//! A power cut: the file system forgets what was not synced, and the process goes with it.
//!
//! An ext4 image on a loop device, shut down by `EXT4_IOC_SHUTDOWN` without flushing its journal. This
//! needs root and loop devices; elsewhere the test says so and passes.
//! `CNOSDB_POWER_CUTS` sets the number of cuts (docs/testing.md).

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use tests::Server;

use crate::writers::Writers;

const IMAGE_MIB: u32 = 512;
/// `EXT4_IOC_SHUTDOWN`, with the flag that says: do not flush the log.
const SHUTDOWN: &str = "import fcntl, os, struct, sys; \
    fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587D, struct.pack('I', 2))";
/// Synchronization that does nothing and says it did.
const NO_SYNC: &str = "int fsync(int f) { return 0; }\nint fdatasync(int f) { return 0; }\n\
    int sync_file_range(int f, long o, long n, unsigned g) { return 0; }\n";

/// A file system that can lose its power.
struct Disk {
    folder: TempDir,
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(arguments).output().map_err(|e| e.to_string())?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { Ok(()) } else { Err(format!("{program}: {said}")) }
}

impl Disk {
    /// Makes the file system; an error says why this machine cannot.
    fn make() -> Result<Self, String> {
        let disk = Self { folder: tempfile::tempdir().unwrap() };
        std::fs::create_dir(disk.mounted()).unwrap();
        let size = format!("{IMAGE_MIB}M");
        run("truncate", &["-s", &size, text(&disk.image())])?;
        run("mkfs.ext4", &["-q", "-F", text(&disk.image())])?;
        disk.mount()?;
        Ok(disk)
    }

    fn image(&self) -> PathBuf {
        self.folder.path().join("image")
    }

    fn mounted(&self) -> PathBuf {
        self.folder.path().join("mounted")
    }

    fn data(&self) -> PathBuf {
        self.mounted().join("data")
    }

    fn mount(&self) -> Result<(), String> {
        run("mount", &["-o", "loop", text(&self.image()), text(&self.mounted())])
    }

    /// Takes the power away.
    fn cut(&self) {
        run("python3", &["-c", SHUTDOWN, text(&self.mounted())]).unwrap();
    }

    /// Gives it back.
    fn restore(&self) {
        run("umount", &[text(&self.mounted())]).unwrap();
        self.mount().unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Err(error) = run("umount", &["-l", text(&self.mounted())]) {
            println!("{error}");
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn cuts() -> u32 {
    std::env::var("CNOSDB_POWER_CUTS").ok().and_then(|n| n.parse().ok()).unwrap_or(10)
}

/// Cuts the power under writers, again and again. Returns what was wrong first, `None` where the disk
/// cannot be made here.
async fn cut_power(cuts: u32, envs: &[(&str, &str)]) -> Option<Result<(), String>> {
    let disk = match Disk::make() {
        Ok(disk) => disk,
        Err(why) => {
            println!("not run: no power to cut on this machine ({})", why.trim());
            return None;
        }
    };
    let mut server = Server::start_with(&disk.data(), envs);
    let mut writers = Writers::new(server.port).await;
    for cut in 0..cuts {
        writers.start(&server).await;
        // The processor stops with the disk: nothing is acknowledged that comes after.
        server.signal("STOP");
        disk.cut();
        server.kill();
        disk.restore();
        let Some(started) = Server::try_start(&disk.data(), envs) else {
            return Some(Err(format!("cut {cut}: the server does not start")));
        };
        server = started;
        if let Err(wrong) = writers.check(server.port).await {
            return Some(Err(format!("cut {cut}, {wrong}")));
        }
    }
    server.kill();
    Some(Ok(()))
}

#[tokio::test(flavor = "multi_thread")]
async fn power_cuts_lose_double_and_invent_nothing() {
    if let Some(Err(wrong)) = cut_power(cuts(), &[]).await {
        panic!("{wrong}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn power_cuts_are_noticed_when_fsync_does_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let (source, library) = (folder.path().join("no_sync.c"), folder.path().join("no_sync.so"));
    std::fs::write(&source, NO_SYNC).unwrap();
    run("cc", &["-shared", "-fPIC", "-o", text(&library), text(&source)]).unwrap();
    let outcome = cut_power(10, &[("LD_PRELOAD", text(&library))]).await;
    assert!(outcome.is_none_or(|outcome| outcome.is_err()), "ten cuts without fsync, none noticed");
}
