//! Random schedules of row waits: every step of every waiter is scheduled by hand, so a lost wake-up is a state in which nobody can go on.
//!
//! The model keeps what the pages and the CSN log keep (versions with their holders, outcomes of xids) and makes the same looks in the same
//! order as the operations do; the queues are the real ones.

use super::*;
use crate::txn::slots::TxnSlots;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Outcome {
    Running,
    Committed,
    Aborted,
}

/// One version of a row.
#[derive(Clone, Copy, Debug)]
struct Version {
    holder: Option<Xid>,
    /// The holder only locks it; else it replaces it by this version.
    successor: Option<u16>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    /// About to look at the version.
    Look,
    /// In the queue, about to look at the blocker once more.
    LookAgain(Xid),
    /// Waiting for the bell.
    Asleep,
    /// It has the row, or has given up; its outcome comes next.
    Ending(Outcome),
    /// The outcome is stored; those who wait for it are told next.
    Telling,
}

struct Actor {
    xid: Xid,
    target: u16,
    state: State,
    place: Option<RowTicket>,
}

struct World {
    locks: Arc<LockManager>,
    outcomes: HashMap<Xid, Outcome>,
    versions: Vec<Version>,
    actors: Vec<Actor>,
    next_xid: u64,
    random: u64,
}

const ROWS: u16 = 2;

impl World {
    fn new(seed: u64, actors: usize) -> Self {
        let mut world = World {
            locks: LockManager::new(TxnSlots::new(1)),
            outcomes: HashMap::new(),
            versions: (0..ROWS)
                .map(|_| Version {
                    holder: None,
                    successor: None,
                })
                .collect(),
            actors: Vec::new(),
            next_xid: 100,
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
        };
        for _ in 0..actors {
            let actor = world.fresh();
            world.actors.push(actor);
        }
        world
    }

    fn below(&mut self, bound: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % bound as u64) as usize
    }

    /// A transaction that saw some version of a row when its statement began: the first or the newest.
    fn fresh(&mut self) -> Actor {
        self.next_xid += 1;
        let xid = Xid(self.next_xid);
        self.outcomes.insert(xid, Outcome::Running);
        let row = self.below(usize::from(ROWS)) as u16;
        let target = if self.below(2) == 0 { row } else { self.newest(row) };
        Actor {
            xid,
            target,
            state: State::Look,
            place: None,
        }
    }

    fn newest(&self, mut at: u16) -> u16 {
        while let Version {
            holder: Some(holder),
            successor: Some(next),
        } = self.versions[usize::from(at)]
            && self.outcomes[&holder] == Outcome::Committed
        {
            at = next;
        }
        at
    }

    fn can_run(actor: &Actor) -> bool {
        actor.state != State::Asleep || actor.place.as_ref().is_some_and(|place| place.cell().is_rung())
    }

    fn key(target: u16) -> RowKey {
        (1, Tid::new(0, target + 1))
    }

    /// As the operation's step: judge the version, take it, queue, or follow it.
    fn look(&mut self, at: usize) {
        let (xid, target) = (self.actors[at].xid, self.actors[at].target);
        let version = self.versions[usize::from(target)];
        let holder = version
            .holder
            .map(|holder| (holder, self.outcomes[&holder]))
            .filter(|(_, outcome)| *outcome != Outcome::Aborted);
        match (holder, version.successor) {
            (Some((holder, Outcome::Running)), _) => {
                let owner = OwnerId(xid.0);
                match &mut self.actors[at].place {
                    Some(place) => place.again(Self::key(target), holder),
                    empty => {
                        *empty = Some(RowTicket::row(&self.locks, owner, Self::key(target), holder));
                    }
                }
                self.actors[at].state = State::LookAgain(holder);
            }
            (Some((_, Outcome::Committed)), Some(_)) => {
                // The newest version is looked at anew; sometimes it does not qualify any more.
                self.actors[at].target = self.newest(target);
                if self.below(4) == 0 {
                    self.give_up(at, Outcome::Committed);
                }
            }
            _ => {
                let successor = (self.below(3) > 0).then_some(self.versions.len() as u16);
                if successor.is_some() {
                    self.versions.push(Version {
                        holder: None,
                        successor: None,
                    });
                }
                self.versions[usize::from(target)] = Version {
                    holder: Some(xid),
                    successor,
                };
                if let Some(place) = self.actors[at].place.take() {
                    let newest = successor.unwrap_or(target);
                    place.hand_on(Tid::new(0, newest + 1), xid);
                }
                let outcome = if self.below(3) == 0 {
                    Outcome::Aborted
                } else {
                    Outcome::Committed
                };
                self.actors[at].state = State::Ending(outcome);
            }
        }
    }

    fn give_up(&mut self, at: usize, outcome: Outcome) {
        self.actors[at].place = None;
        self.actors[at].state = State::Ending(outcome);
    }

    fn step(&mut self, at: usize) {
        match self.actors[at].state {
            State::Look | State::Asleep => {
                self.actors[at].state = State::Look;
                self.look(at);
            }
            State::LookAgain(blocker) => {
                self.actors[at].state = if self.outcomes[&blocker] == Outcome::Running {
                    State::Asleep
                } else {
                    State::Look
                };
            }
            State::Ending(outcome) => {
                self.outcomes.insert(self.actors[at].xid, outcome);
                self.actors[at].state = State::Telling;
            }
            State::Telling => {
                self.locks.xid_ended(self.actors[at].xid);
                self.actors.swap_remove(at);
            }
        }
    }

    /// Runs until every transaction has ended; `newcomers` more arrive meanwhile.
    fn run(&mut self, seed: u64, mut newcomers: usize) {
        while !self.actors.is_empty() {
            if newcomers > 0 && self.below(8) == 0 {
                newcomers -= 1;
                let actor = self.fresh();
                self.actors.push(actor);
            }
            let at = self.below(self.actors.len());
            // A cancel may hit anybody who waits, awake or not.
            let waits = matches!(
                self.actors[at].state,
                State::Asleep | State::LookAgain(_) | State::Look
            );
            if waits && self.below(40) == 0 {
                self.give_up(at, Outcome::Aborted);
                continue;
            }
            if Self::can_run(&self.actors[at]) {
                self.step(at);
            } else {
                assert!(
                    self.actors.iter().any(Self::can_run),
                    "seed {seed}: a wake-up was lost: {:?} sleep, {:?}",
                    self.actors
                        .iter()
                        .map(|actor| (actor.xid, actor.target))
                        .collect::<Vec<_>>(),
                    self.locks.rows.tables.lock()
                );
            }
        }
        assert!(self.locks.rows.is_idle(), "seed {seed}: something stayed behind");
    }
}

#[test]
fn no_schedule_of_takers_leavers_and_newcomers_loses_a_wake_up() {
    let setting = |name: &str, default| {
        std::env::var(name)
            .ok()
            .and_then(|n| n.parse().ok())
            .unwrap_or(default)
    };
    let (first, seeds) = (
        setting("TOWLINE_SCHEDULE_FIRST", 1u64),
        setting("TOWLINE_SCHEDULES", 10_000u64),
    );
    for seed in first..first + seeds {
        World::new(seed, 3 + (seed % 5) as usize).run(seed, 30);
    }
}
