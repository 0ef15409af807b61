//! What happened in a simulation, in order: the same seed must give the same trace.

use std::collections::VecDeque;
use std::fmt::Display;
use std::hash::{DefaultHasher, Hash, Hasher};

use parking_lot::Mutex;
use tokio::time::Instant;

/// Events that are kept for people.
const KEPT: usize = 400;

/// The events of one simulation.
pub(crate) struct Trace {
    begun: Instant,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    steps: u64,
    faults: u64,
    hash: u64,
    last: VecDeque<String>,
}

impl Trace {
    pub(crate) fn new() -> Self {
        Self { begun: Instant::now(), state: Mutex::default() }
    }

    /// Notes a step that is too small to be told.
    pub(crate) fn step(&self, what: impl Hash) {
        let at = self.begun.elapsed().as_nanos();
        let mut state = self.state.lock();
        let mut hasher = DefaultHasher::new();
        (state.hash, at, what).hash(&mut hasher);
        state.hash = hasher.finish();
        state.steps += 1;
    }

    /// Notes what people want to read when something is wrong.
    pub(crate) fn tell(&self, event: impl Display) {
        let event = event.to_string();
        self.step(&event);
        let line = format!("{:9.3} s  {event}", self.begun.elapsed().as_secs_f64());
        let mut state = self.state.lock();
        if state.last.len() == KEPT {
            state.last.pop_front();
        }
        state.last.push_back(line);
    }

    /// Notes something that was done to the cluster.
    pub(crate) fn fault(&self, event: impl Display) {
        self.state.lock().faults += 1;
        self.tell(format!("fault: {event}"));
    }

    /// Returns how many steps and faults there were, and a number that stands for all of them.
    pub(crate) fn sums(&self) -> (u64, u64, u64) {
        let state = self.state.lock();
        (state.steps, state.faults, state.hash)
    }

    /// Returns the last events.
    pub(crate) fn last(&self) -> String {
        self.state.lock().last.iter().fold(String::new(), |text, line| text + line + "\n")
    }
}
