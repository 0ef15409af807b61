//! How far a copy came, on a line of a terminal that is written over.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use tokio::time::Instant;

const PAUSE: Duration = Duration::from_millis(200);
const WIDTH: usize = 30;

/// The progress of one copy; silent where standard error is no terminal.
pub(crate) struct Progress {
    total: Option<u64>,
    begun: Instant,
    shown: Option<Instant>,
    is_seen: bool,
}

impl Progress {
    /// Begins; `total` in bytes, where it is known.
    pub(crate) fn new(total: Option<u64>) -> Self {
        let is_seen = std::io::stderr().is_terminal();
        Self { total, begun: Instant::now(), shown: None, is_seen }
    }

    /// Returns whether anybody sees it.
    pub(crate) fn is_seen(&self) -> bool {
        self.is_seen
    }

    /// Says how many bytes there are in all; 0 where nobody knows.
    pub(crate) fn of(&mut self, total: u64) {
        self.total = Some(total).filter(|total| *total > 0);
    }

    /// Shows how many bytes were moved, now and then.
    pub(crate) fn moved(&mut self, bytes: u64) {
        let is_due = self.shown.unwrap_or(self.begun).elapsed() >= PAUSE;
        if self.is_seen && is_due {
            self.shown = Some(Instant::now());
            let seconds = self.begun.elapsed().as_secs_f64();
            eprint!("\r{}", line(bytes, self.total, seconds));
            // A line that does not come at once is no harm.
            std::io::stderr().flush().ok();
        }
    }

    /// Wipes the line.
    pub(crate) fn end(&self) {
        if self.shown.is_some() {
            eprint!("\r{:width$}\r", "", width = WIDTH + 48);
        }
    }
}

fn line(bytes: u64, total: Option<u64>, seconds: f64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    let speed = mib / seconds.max(0.001);
    match total.filter(|total| *total > 0) {
        Some(total) => {
            let share = (bytes as f64 / total as f64).min(1.0);
            let filled = (share * WIDTH as f64) as usize;
            let bar = "#".repeat(filled) + &"-".repeat(WIDTH - filled);
            format!("[{bar}] {:3.0} %  {mib:.1} MiB  {speed:.1} MiB/s ", share * 100.0)
        }
        None => format!("{mib:.1} MiB  {speed:.1} MiB/s "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_filled_by_the_share_of_bytes() {
        let half = line(1 << 20, Some(2 << 20), 2.0);
        assert!(half.starts_with(&format!("[{}{}]  50 %", "#".repeat(15), "-".repeat(15))));
        assert!(half.contains("1.0 MiB  0.5 MiB/s"));
        assert_eq!(line(3 << 20, None, 1.0), "3.0 MiB  3.0 MiB/s ");
        assert!(line(9, Some(3), 1.0).contains("100 %"));
    }
}
