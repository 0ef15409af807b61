//! Clients: they put, delete, end and read through whoever leads, and repeat what was not answered.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tskv::{Outcome, WriteId};

use crate::node::{Hosting, Node};
use crate::rows::{self, Change};
use crate::world::{SETS, World};

const REGISTERS: u64 = 3;
/// Sessions are below this.
const SESSIONS_MAX: u64 = 8;
/// Of what is neither put nor deleted, so little ends a set.
const ENDS_ARE_ONE_OF: u32 = 8;
/// How many more values a client may have put when it comes to an end of its making.
const AHEAD_MAX: u64 = 60;
/// How often a client asks before it gives up.
const TRIES: usize = 8;
const PATIENCE: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(150);

/// A client: a session of writers.
pub(crate) struct Client {
    world: Arc<World>,
    session: u64,
    sequence: u64,
    random: StdRng,
}

impl Client {
    pub(crate) fn new(world: &Arc<World>, session: u64) -> Self {
        let random = StdRng::seed_from_u64(world.seed << 16 | session);
        Self { world: Arc::clone(world), session, sequence: 0, random }
    }

    /// Does one thing after another until the world ends.
    pub(crate) async fn act(mut self) {
        loop {
            tokio::time::sleep(Duration::from_millis(self.random.random_range(1..120))).await;
            let set = self.random.random_range(0..SETS);
            match self.random.random_range(0..10) {
                0..6 => {
                    self.put(set).await;
                }
                6 => {
                    let range = 1..=self.sequence.max(1);
                    let value = self.value(self.random.clone().random_range(range));
                    self.change(set, Change::Delete { value }).await;
                }
                7 if self.random.random_ratio(1, ENDS_ARE_ONE_OF) => {
                    let ahead = self.random.random_range(0..AHEAD_MAX);
                    let until = self.value(self.sequence + ahead);
                    self.change(set, Change::End { until }).await;
                }
                _ => self.read(set).await,
            }
        }
    }

    /// Returns a value that no other client puts, and that is about theirs: it is the time of a row.
    fn value(&self, sequence: u64) -> i64 {
        i64::try_from(sequence * SESSIONS_MAX + self.session).unwrap()
    }

    /// Puts a value into a register. Returns whether it was answered.
    pub(crate) async fn put(&mut self, set: usize) -> bool {
        let register = self.random.random_range(0..REGISTERS);
        let value = self.value(self.sequence + 1);
        self.change(set, Change::Put { register, value }).await
    }

    async fn change(&mut self, set: usize, change: Change) -> bool {
        self.sequence += 1;
        let id = WriteId { session: self.session, sequence: self.sequence };
        let command = change.command(id);
        let world = Arc::clone(&self.world);
        world.around.invariants.sends(set, id, change, command.clone());
        let mut is_refused = true;
        for _ in 0..TRIES {
            if let Some((node, hosting)) = world.leader(set, &mut self.random).await {
                match propose(&node, &hosting, command.clone()).await {
                    Answer::Done(code) => {
                        world.trace.step((self.session, self.sequence, code));
                        let outcome = Outcome::from_code(code);
                        if outcome == Some(Outcome::Unknown) {
                            world.around.invariants.broken(format!("{id:?} was forgotten"));
                        }
                        let has_ended = outcome == Some(Outcome::Ended);
                        world.around.invariants.acknowledges(set, id, has_ended);
                        return true;
                    }
                    Answer::Refused => {}
                    Answer::Unknown => is_refused = false,
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
        world.trace.step((self.session, self.sequence, is_refused));
        if is_refused {
            world.around.invariants.refuses(set, id);
        }
        false
    }

    async fn read(&mut self, set: usize) {
        let world = Arc::clone(&self.world);
        let floor = world.around.invariants.read_begins(set);
        let Some((node, hosting)) = world.leader(set, &mut self.random).await else { return };
        let barrier = tokio::time::timeout(PATIENCE, hosting.group.read_barrier()).await;
        let is_answered = world.sabotage.reads_without_barrier || matches!(barrier, Ok(Ok(())));
        if !is_answered || !node.power.is_on() {
            return;
        }
        match rows::read(&hosting.beside.vnode) {
            Ok(rows) => {
                let applied = hosting.beside.stands().applied;
                world.trace.step((set, applied, rows.len()));
                world.around.invariants.reads(set, floor, (applied, &rows));
            }
            Err(error) => world.around.invariants.broken(format!("a read fails: {error}")),
        }
    }
}

/// What a client hears.
enum Answer {
    /// The code of the outcome.
    Done(u8),
    /// It was not done.
    Refused,
    Unknown,
}

async fn propose(node: &Node, hosting: &Hosting, command: Bytes) -> Answer {
    let proposed = tokio::time::timeout(PATIENCE, hosting.group.propose(command)).await;
    match proposed {
        Ok(Ok(reply)) if node.power.is_on() => Answer::Done(reply[0]),
        Ok(Err(replication::Error::NotLeader { .. })) => Answer::Refused,
        _ => Answer::Unknown,
    }
}
