//! Many sessions over one engine with its real threads, at every commit level: each snapshot is a consistent state, an answered commit is in
//! every snapshot taken afterwards, and nobody waits for ever.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use towline_base::{SqlState, Tid};

use crate::catalog::Table;
use crate::heap::fetch::fetch_newest;
use crate::ops::{DeleteOp, InsertOp, LockRowOp, LockWait, RowOutcome, UpdateOp};
use crate::testing::*;
use crate::vacuum::{VacuumOp, VacuumOptions, VacuumStep};
use crate::{AccessError, CommitLevel, Isolation, Result, Step, Transaction, Wait};

const ACCOUNTS: i32 = 6;
const START: i32 = 1000;
const SESSIONS: usize = 6;
/// Rows of their own, in which the sessions count their commits, begin here.
const COUNTERS: i32 = 100;

const LEVELS: [CommitLevel; 5] = [
    CommitLevel::Off,
    CommitLevel::Local,
    CommitLevel::RemoteWrite,
    CommitLevel::On,
    CommitLevel::RemoteApply,
];

/// How long anything may wait before the run counts as hung.
const PATIENCE: Duration = Duration::from_secs(20);

struct World {
    rig: Rig,
    table: Arc<Table>,
    /// What each session waits for at the moment.
    board: Vec<Mutex<String>>,
    /// How many commits of each session have been answered.
    answered: Vec<AtomicI32>,
    commits: AtomicU64,
    wanted: u64,
    hung: AtomicBool,
}

struct Session<'a> {
    world: &'a World,
    number: usize,
    random: u64,
    count: i32,
    seen: BTreeMap<i32, i32>,
}

/// Why a transaction was given up.
enum GivenUp {
    Error(AccessError),
    /// As if its client had cancelled it while it waited.
    Cancelled,
    Hung,
}

impl From<AccessError> for GivenUp {
    fn from(error: AccessError) -> Self {
        GivenUp::Error(error)
    }
}

impl World {
    fn is_over(&self) -> bool {
        self.commits.load(Ordering::Relaxed) >= self.wanted || self.hung.load(Ordering::Relaxed)
    }

    /// Says once what everybody waits for, and lets everybody go.
    fn report_hang(&self) {
        if self.hung.swap(true, Ordering::SeqCst) {
            return;
        }
        for (number, waits) in self.board.iter().enumerate() {
            eprintln!("session {number}: {}", waits.lock());
        }
        let engine = &self.rig.engine;
        eprintln!("{engine:?}\n{:?}\n{:?}", engine.release(), engine.locks());
        eprintln!("{:?}\n{:?}", engine.release().positions(), engine.writer());
    }
}

impl Session<'_> {
    fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % bound
    }

    fn wait(&mut self, mut wait: Wait, may_cancel: bool) -> std::result::Result<(), GivenUp> {
        let kind = wait.kind();
        *self.world.board[self.number].lock() = format!("waits for {kind:?} since {:?}", Instant::now());
        if may_cancel && kind.can_deadlock() && self.below(30) == 0 {
            return Err(GivenUp::Cancelled);
        }
        let begun = Instant::now();
        while let Err(again) = wait.block_briefly(Duration::from_millis(20))? {
            again.check_deadlock()?;
            if begun.elapsed() > PATIENCE {
                self.world.report_hang();
            }
            if self.world.hung.load(Ordering::SeqCst) {
                return Err(GivenUp::Hung);
            }
            wait = again;
        }
        *self.world.board[self.number].lock() = "runs".to_owned();
        Ok(())
    }

    fn drive<T>(
        &mut self,
        txn: &mut Transaction,
        mut step: impl FnMut(&mut Transaction) -> Result<Step<T>>,
    ) -> std::result::Result<T, GivenUp> {
        loop {
            match step(txn)? {
                Step::Done(value) => return Ok(value),
                Step::Wait(wait) => self.wait(wait, true)?,
            }
        }
    }

    /// Begins a statement, whose snapshot keeps the address from being used again.
    fn row(txn: &mut Transaction, table: &Table, id: i32) -> (Tid, i32) {
        let snapshot = txn.begin_statement();
        let found = all_at(txn, &snapshot, table)
            .into_iter()
            .find(|(_, row)| row.0 == id);
        let (tid, row) = found.expect("every row is in every snapshot once");
        (tid, row.1)
    }

    /// The row has been deleted by a commit that may not be visible yet: another statement must find its successor.
    fn wait_out(&mut self, txn: &mut Transaction) -> std::result::Result<(), GivenUp> {
        let wait = txn.engine().wait_visible(txn.depends_on());
        self.wait(wait, false)
    }

    fn add(&mut self, txn: &mut Transaction, id: i32, delta: i32) -> std::result::Result<(), GivenUp> {
        let table = Arc::clone(&self.world.table);
        'statement: loop {
            let (tid, value) = Self::row(txn, &table, id);
            let mut op = UpdateOp::new(table.clone(), tid, &values((id, value + delta)))?;
            loop {
                match self.drive(txn, |txn| op.step(txn))? {
                    RowOutcome::Done(_) => return Ok(()),
                    RowOutcome::Updated { newest } => {
                        let row =
                            fetch_newest(txn, table.node, newest)?.map(|row| decode(&table, row.tuple()));
                        let Some(row) = row else { continue 'statement };
                        op.retarget(newest, &values((id, row.1 + delta)))?;
                    }
                    RowOutcome::Deleted => {
                        drop(op);
                        self.wait_out(txn)?;
                        continue 'statement;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    fn lock(&mut self, txn: &mut Transaction, id: i32) -> std::result::Result<(), GivenUp> {
        let table = Arc::clone(&self.world.table);
        'statement: loop {
            let (tid, _) = Self::row(txn, &table, id);
            let mut op = LockRowOp::new(table.clone(), tid, LockWait::Wait);
            loop {
                match self.drive(txn, |txn| op.step(txn))? {
                    RowOutcome::Done(_) => return Ok(()),
                    RowOutcome::Updated { newest } => op.retarget(newest),
                    RowOutcome::Deleted => {
                        drop(op);
                        self.wait_out(txn)?;
                        continue 'statement;
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    /// Deletes the row and inserts it anew, under the same key.
    fn replace(&mut self, txn: &mut Transaction, id: i32) -> std::result::Result<(), GivenUp> {
        let table = Arc::clone(&self.world.table);
        'statement: loop {
            let (mut tid, mut value) = Self::row(txn, &table, id);
            let mut op = DeleteOp::new(table.clone(), tid);
            loop {
                match self.drive(txn, |txn| op.step(txn))? {
                    RowOutcome::Done(_) => break,
                    RowOutcome::Updated { newest } => {
                        tid = newest;
                        let row = fetch_newest(txn, table.node, tid)?.map(|row| decode(&table, row.tuple()));
                        let Some(row) = row else { continue 'statement };
                        value = row.1;
                        op.retarget(tid);
                    }
                    RowOutcome::Deleted => {
                        drop(op);
                        self.wait_out(txn)?;
                        continue 'statement;
                    }
                    other => panic!("{other:?}"),
                }
            }
            txn.begin_statement();
            let mut op = InsertOp::new(table.clone(), &values((id, value)))?;
            self.drive(txn, |txn| op.step(txn))?;
            return Ok(());
        }
    }

    /// One snapshot: the sum holds, nothing answered is missing, nothing seen before is gone.
    fn look(&mut self) {
        let answered: Vec<i32> = self
            .world
            .answered
            .iter()
            .map(|count| count.load(Ordering::SeqCst))
            .collect();
        let mut txn = begin(&self.world.rig.engine, Isolation::RepeatableRead);
        for _ in 0..2 {
            let found: BTreeMap<i32, i32> = rows(&mut txn, &self.world.table)
                .into_iter()
                .map(|(_, row)| row)
                .collect();
            assert_eq!(found.len(), ACCOUNTS as usize + SESSIONS);
            let sum: i32 = found.range(..COUNTERS).map(|(_, value)| value).sum();
            assert_eq!(sum, ACCOUNTS * START, "the sum holds in every snapshot");
            for (session, answered) in answered.iter().enumerate() {
                let count = found[&(COUNTERS + session as i32)];
                assert!(
                    count >= *answered,
                    "commit {answered} of session {session} was answered, and {count} are seen"
                );
                let before = self.seen.insert(session as i32, count).unwrap_or(0);
                assert!(
                    count >= before,
                    "session {session} went back from {before} to {count}"
                );
            }
            assert_eq!(found[&(COUNTERS + self.number as i32)], self.count);
        }
    }

    fn transaction(&mut self) -> std::result::Result<(), GivenUp> {
        let from = self.below(ACCOUNTS as u64) as i32;
        let to = (from + 1 + self.below(ACCOUNTS as u64 - 1) as i32) % ACCOUNTS;
        let amount = self.below(10) as i32;
        let mut txn = begin(&self.world.rig.engine, Isolation::ReadCommitted);
        match self.below(8) {
            0 => self.replace(&mut txn, from)?,
            1 => {
                self.lock(&mut txn, to)?;
                self.add(&mut txn, to, amount)?;
                self.add(&mut txn, from, -amount)?;
            }
            2 => {
                self.add(&mut txn, from, amount)?;
                txn.rollback();
                return Ok(());
            }
            _ => {
                self.add(&mut txn, from, -amount)?;
                self.add(&mut txn, to, amount)?;
            }
        }
        self.add(&mut txn, COUNTERS + self.number as i32, 1)?;
        let level = LEVELS[self.below(LEVELS.len() as u64) as usize];
        let engine = Arc::clone(txn.engine());
        let lsn = self.drive(&mut txn, |txn| txn.commit(level))?;
        drop(txn);
        self.wait(engine.release().wait(lsn, level), false)?;
        self.count += 1;
        self.world.answered[self.number].store(self.count, Ordering::SeqCst);
        self.world.commits.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn run(&mut self) {
        while !self.world.is_over() {
            match self.transaction() {
                Ok(()) | Err(GivenUp::Cancelled) => {}
                Err(GivenUp::Hung) => return,
                Err(GivenUp::Error(error)) => {
                    assert_eq!(error.sqlstate(), SqlState::DEADLOCK_DETECTED, "{error}");
                }
            }
            if self.below(3) == 0 {
                self.look();
            }
        }
        *self.world.board[self.number].lock() = "has ended".to_owned();
    }
}

/// Vacuums and checkpoints as long as the sessions run.
fn maintain(world: &World) {
    while !world.is_over() {
        let mut txn = world.rig.begin();
        let mut op = VacuumOp::new(&txn, world.table.clone(), VacuumOptions::freezing(true))
            .unwrap()
            .keep_length();
        loop {
            match op.step(&mut txn).unwrap() {
                VacuumStep::Done(_) => break,
                VacuumStep::More => {}
                VacuumStep::Wait(wait) => {
                    if !wait.block(PATIENCE).unwrap() {
                        world.report_hang();
                        return;
                    }
                }
            }
        }
        drop(world.rig.engine.checkpoint());
    }
}

#[test]
fn answered_commits_are_in_every_later_snapshot_and_nobody_hangs() {
    let wanted = std::env::var("TOWLINE_STRESS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(1_000);
    let rig = Rig::new();
    let table = table(20_000, true, 80);
    rig.make_table(&table);
    let mut txn = rig.begin();
    for id in 0..ACCOUNTS {
        insert(&mut txn, &table, (id, START));
    }
    for session in 0..SESSIONS {
        insert(&mut txn, &table, (COUNTERS + session as i32, 0));
    }
    commit(txn);
    let world = World {
        rig,
        table,
        board: (0..SESSIONS).map(|_| Mutex::default()).collect(),
        answered: (0..SESSIONS).map(|_| AtomicI32::new(0)).collect(),
        commits: AtomicU64::new(0),
        wanted,
        hung: AtomicBool::new(false),
    };
    std::thread::scope(|scope| {
        for number in 0..SESSIONS {
            let world = &world;
            scope.spawn(move || {
                let mut session = Session {
                    world,
                    number,
                    random: (number as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
                    count: 0,
                    seen: BTreeMap::new(),
                };
                // A session that fails must not leave the others running for ever.
                let ended = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| session.run()));
                if let Err(panic) = ended {
                    world.report_hang();
                    std::panic::resume_unwind(panic);
                }
            });
        }
        scope.spawn(|| maintain(&world));
    });
    assert!(!world.hung.load(Ordering::SeqCst), "somebody waited for ever");
    let counts: Vec<i32> = world
        .answered
        .iter()
        .map(|count| count.load(Ordering::SeqCst))
        .collect();
    let World { rig, table, .. } = world;
    let check = |rig: &Rig| {
        let found: BTreeMap<i32, i32> = rig.rows(&table).into_iter().collect();
        let sum: i32 = found.range(..COUNTERS).map(|(_, value)| value).sum();
        assert_eq!(sum, ACCOUNTS * START);
        let counted: Vec<i32> = found.range(COUNTERS..).map(|(_, count)| *count).collect();
        assert_eq!(counted, counts);
    };
    check(&rig);
    // A lasting commit makes those at level off durable that were answered before it.
    let mut txn = rig.begin();
    insert(&mut txn, &table, (COUNTERS - 1, 0));
    commit(txn);
    check(&Rig::open(rig.crash()));
}
