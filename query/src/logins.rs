//! Who fails to log in waits: each failure from one address as one user makes the next try wait longer, so
//! that passwords cannot be guessed; who proves to be the user starts anew.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::error::{Error, Result};

/// Failures that cost nothing yet.
const FREE: u32 = 5;
/// The wait behind the first that does; each further one doubles it.
const WAIT_FIRST: Duration = Duration::from_secs(1);
const WAIT_MOST: Duration = Duration::from_secs(60);
/// Failures are forgotten when there was none for so long.
const MEMORY: Duration = Duration::from_secs(600);
/// The most users and addresses that are remembered.
const REMEMBERED_MAX: usize = 10_000;

/// The failures of late.
#[derive(Debug, Default)]
pub(crate) struct Logins(Mutex<HashMap<(String, IpAddr), Failures>>);

#[derive(Debug)]
struct Failures {
    count: u32,
    last: Instant,
}

impl Failures {
    /// Returns how long one has to wait behind the last.
    fn wait(&self) -> Duration {
        match self.count.checked_sub(FREE) {
            None | Some(0) => Duration::ZERO,
            Some(beyond) => WAIT_FIRST.saturating_mul(1 << (beyond - 1).min(10)).min(WAIT_MOST),
        }
    }
}

impl Logins {
    /// Refuses who has to wait.
    ///
    /// # Errors
    /// 53400, which says how long.
    pub(crate) fn check(&self, user: &str, from: IpAddr) -> Result<()> {
        let all = self.0.lock();
        let Some(failures) = all.get(&(user.to_owned(), from)) else { return Ok(()) };
        let left = failures.wait().saturating_sub(failures.last.elapsed());
        if left.is_zero() {
            return Ok(());
        }
        let message = format!("too many failed logins of user \"{user}\"");
        let seconds = left.as_secs() + 1;
        Err(Error::new("53400", message).hint(format!("try again in {seconds} seconds")))
    }

    /// Notes how a login ended.
    pub(crate) fn note(&self, user: &str, from: IpAddr, succeeded: bool) {
        let mut all = self.0.lock();
        let key = (user.to_owned(), from);
        if succeeded {
            all.remove(&key);
            return;
        }
        if all.len() >= REMEMBERED_MAX && !all.contains_key(&key) {
            all.retain(|_, failures| failures.last.elapsed() < MEMORY);
            if all.len() >= REMEMBERED_MAX {
                // The one that is the longest ago makes room.
                let oldest = all.iter().min_by_key(|(_, failures)| failures.last);
                if let Some(oldest) = oldest.map(|(key, _)| key.clone()) {
                    all.remove(&oldest);
                }
            }
        }
        let failures = all.entry(key).or_insert(Failures { count: 0, last: Instant::now() });
        if failures.last.elapsed() >= MEMORY {
            failures.count = 0;
        }
        failures.count = failures.count.saturating_add(1);
        failures.last = Instant::now();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    const THERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

    #[tokio::test(start_paused = true)]
    async fn each_failure_beyond_the_free_ones_makes_the_next_wait_longer() {
        let logins = Logins::default();
        for _ in 0..FREE {
            logins.note("u", HERE, false);
            assert!(logins.check("u", HERE).is_ok());
        }
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            logins.note("u", HERE, false);
            assert_eq!(logins.check("u", HERE).unwrap_err().sqlstate, "53400");
            assert!(logins.check("u", THERE).is_ok() && logins.check("v", HERE).is_ok());
            tokio::time::advance(Duration::from_secs(wait - 1)).await;
            assert!(logins.check("u", HERE).is_err());
            tokio::time::advance(Duration::from_secs(1)).await;
            assert!(logins.check("u", HERE).is_ok());
        }
        logins.note("u", HERE, true);
        logins.note("u", HERE, false);
        assert!(logins.check("u", HERE).is_ok());
    }

    #[test]
    fn no_more_than_so_many_are_remembered() {
        let logins = Logins::default();
        for n in 0..REMEMBERED_MAX + 10 {
            logins.note(&n.to_string(), HERE, false);
        }
        assert_eq!(logins.0.lock().len(), REMEMBERED_MAX);
    }
}
