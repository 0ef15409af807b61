//! One budget of memory, and who gets which share of it: rows that are not in files yet, queries, bodies of
//! requests, the cache of series. What has used up its share waits, spills or is refused; nothing takes
//! from another.
//!
//! Beside the budget lies what does not grow with load: the program, the catalog, footers of files, and the
//! unit that each compaction or scan works on.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::config::Config;

/// What glibc reads how many arenas there may be from (mallopt(3)), and the most that we let it have.
const ARENAS: &str = "MALLOC_ARENA_MAX";
const ARENAS_MAX: usize = 8;
/// From how many bytes on it gives back to the system what is freed, and what we say.
const GIVEN_BACK: &str = "MALLOC_MMAP_THRESHOLD_";
const GIVEN_BACK_BYTES: usize = 1 << 20;
/// The least that a node works with.
const BYTES_MIN: u64 = 128 << 20;
/// Where nothing can be found out.
const BYTES_UNKNOWN: u64 = 4 << 30;
/// More than this many rows in memory make nothing faster.
const MEMCACHE_BYTES_MAX: u64 = 1 << 30;
const FLUSH_BYTES_MAX: u64 = 64 << 20;
const BODIES_BYTES_MAX: u64 = 512 << 20;
const SERIES_CACHE_BYTES_MAX: u64 = 128 << 20;
const DECODED_CACHE_BYTES_MAX: u64 = 128 << 20;

/// Who may take how many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Shares {
    /// Rows not in files yet, over all vnodes.
    pub(crate) memcache: usize,
    /// Rows of one vnode from which on it is flushed.
    pub(crate) flush: usize,
    /// Queries, together.
    pub(crate) queries: usize,
    /// Bodies of requests over HTTP.
    pub(crate) bodies: usize,
    /// The ids of series met lately.
    pub(crate) series_cache: usize,
    /// Rows of files, decoded.
    pub(crate) decoded_cache: usize,
}

/// Returns the shares that the settings give, and for what they leave open those of the whole.
///
/// # Errors
/// A budget that is too small, shares that do not fit together.
pub(crate) fn shares(config: &Config) -> Result<Shares, String> {
    let whole = match config.memory.bytes {
        0 => (available(Path::new("/")) / 2).max(BYTES_MIN),
        bytes => bytes,
    };
    if whole < BYTES_MIN {
        return Err(format!("memory.bytes must be at least {BYTES_MIN}"));
    }
    let percent = |share: u64| whole / 100 * share;
    let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
    let or = |set: usize, share: u64| if set == 0 { size(share) } else { set };
    let memcache = or(config.storage.memcache_bytes, percent(20).min(MEMCACHE_BYTES_MAX));
    let flush = or(config.storage.flush_bytes, (memcache as u64 / 4).clamp(1, FLUSH_BYTES_MAX));
    if flush > memcache {
        return Err("storage.flush_bytes is above storage.memcache_bytes".to_owned());
    }
    Ok(Shares {
        memcache,
        flush,
        queries: or(config.query.memory_bytes, percent(50)),
        bodies: size(percent(20).min(BODIES_BYTES_MAX)),
        series_cache: size(percent(5).min(SERIES_CACHE_BYTES_MAX)),
        decoded_cache: size(percent(3).min(DECODED_CACHE_BYTES_MAX)),
    })
}

/// Begins the program anew where the system's allocator would give each thread an arena of its own, and keep
/// what large queries have freed: what one thread gives back there no other gets, and the process grew to
/// several times the budget. Threads that share wait for one another, and large columns are fresh pages each
/// time: queries take 5 to 8 % longer, those that hold many wide texts twice as long, so only who sets a budget
/// has it so.
pub(crate) fn bound_allocator() {
    if std::env::var_os(ARENAS).is_some() {
        return;
    }
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let arenas = threads.clamp(2, ARENAS_MAX).to_string();
    let Ok(program) = std::env::current_exe() else { return };
    let mut anew = Command::new(program);
    anew.args(std::env::args_os().skip(1)).env(ARENAS, arenas);
    let failed = anew.env(GIVEN_BACK, GIVEN_BACK_BYTES.to_string()).exec();
    // It runs as it is: larger, but right.
    tracing::warn!(%failed, "memory is not given back");
}

/// Returns the memory that the process may have: that of the machine, or less where a control group or a
/// limit of resources says so. `root` is `/`, elsewhere in tests.
fn available(root: &Path) -> u64 {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let machine = read("proc/meminfo").lines().find_map(|line| {
        let kib = line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?;
        kib.trim().parse::<u64>().ok()?.checked_mul(1_024)
    });
    let limits = read("proc/self/limits");
    let soft_limit = |name: &str| {
        let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    let all = [machine, soft_limit("Max data size"), soft_limit("Max address space")];
    let groups = groups(&read("proc/self/cgroup"));
    let of_group = |folder: PathBuf| {
        let text = fs::read_to_string(root.join(folder)).ok()?;
        text.trim().parse::<u64>().ok()
    };
    let least = all.into_iter().flatten().chain(groups.into_iter().filter_map(of_group)).min();
    least.unwrap_or(BYTES_UNKNOWN)
}

/// Returns the files that hold the limits of the control groups a process is in: its own and those above.
/// A line is `0::/path`, or of the first version `n:memory:/path`.
fn groups(lines: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in lines.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (parts.next(), parts.next()) else { continue };
        let (folder, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            named if named.split(',').any(|one| one == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let own = Path::new(group.trim_start_matches('/'));
        files.extend(own.ancestors().map(|above| Path::new(folder).join(above).join(file)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::disallowed_methods, reason = "files of a test")]
    fn the_least_of_all_limits_holds() {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert_eq!(available(root.path()), BYTES_UNKNOWN);
        put("proc/meminfo", "MemTotal:       24576000 kB\nMemFree: 1 kB\n");
        assert_eq!(available(root.path()), 24_576_000 * 1_024);
        put("proc/self/limits", "Limit  Soft  Hard\nMax data size  unlimited  unlimited  bytes\n");
        put("proc/self/cgroup", "0::/system.slice/db.service\n");
        put("sys/fs/cgroup/system.slice/db.service/memory.max", "max\n");
        put("sys/fs/cgroup/system.slice/memory.max", "1073741824\n");
        assert_eq!(available(root.path()), 1 << 30);
        put("proc/self/limits", "Max address space  536870912  unlimited  bytes\n");
        assert_eq!(available(root.path()), 512 << 20);
        put("proc/self/limits", "");
        put("proc/self/cgroup", "9:cpu:/a\n4:memory:/a\n");
        put("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "2147483648\n");
        assert_eq!(available(root.path()), 2 << 30);
    }

    #[test]
    fn shares_are_those_of_the_whole_unless_they_are_set() {
        let mut config = crate::config::load(&crate::config::Flags::default()).unwrap();
        config.memory.bytes = 1_000 << 20;
        let found = shares(&config).unwrap();
        assert_eq!(found.queries, 500 << 20);
        assert_eq!(found.memcache, 200 << 20);
        assert_eq!(found.flush, 50 << 20);
        let caches = found.series_cache + found.decoded_cache;
        assert!(found.memcache + found.queries + found.bodies + caches < 1_000 << 20);
        config.query.memory_bytes = 7;
        assert_eq!(shares(&config).unwrap().queries, 7);
        config.storage.flush_bytes = 201 << 20;
        assert!(shares(&config).is_err());
        config.memory.bytes = 1;
        assert!(shares(&config).is_err());
    }
}
