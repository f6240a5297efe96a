//! Scripts of the rules by which a node lives, ends and comes back while its quorum is away (B2, B4, B5), each seen to fail with its rule
//! switched off.

use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

use towline_base::LsnPublisher;
use towline_base::rules::{Rule, RuleOff};
use towline_base::vfs::{CrashVfs, Unsynced};
use towline_types::Datum;

use super::driver::{COMMIT, Driver};
use super::node::{Failure, Node, config, long, rows, text};
use crate::catalog::Table;
use crate::engine::{EngineConfig, OpenedPrimary, QuorumMode};
use crate::ops::InsertOp;
use crate::testing::{clock, fresh_disk};
use crate::{CommitLevel, Engine, Step, Transaction, TxnOptions, WaitKind};

/// What is waited for comes at once, or never.
const LIMIT: Duration = Duration::from_secs(20);
/// Length of the texts of rows: five of them fill a page.
pub(super) const TEXT: usize = 1500;
/// Rows of the table that is only read: more pages than a full pool has left.
const READ: i32 = 320;

/// A disk with an empty table `t` and a table `u` of 64 pages.
pub(super) fn disk_with_tables() -> Result<CrashVfs, Failure> {
    let vfs = fresh_disk();
    let mut driver = Driver::start(&vfs)?;
    driver.text_length = TEXT;
    driver.create("t", COMMIT)?;
    driver.create("u", COMMIT)?;
    let filled: Vec<_> = (0..READ).map(|id| (id, Some(id))).collect();
    driver.change("u", &filled, COMMIT)?;
    driver.checkpoint()?;
    Ok(vfs.after_crash(Unsynced::Kept, 0))
}

/// A primary whose quorum is in the hands of the test: the standbys are there when it says so.
pub(super) struct Primary {
    pub(super) opened: OpenedPrimary,
    quorum: LsnPublisher,
    written: LsnPublisher,
}

impl Primary {
    /// Opens its log. Redo is still to come.
    pub(super) fn open(vfs: &CrashVfs, config: EngineConfig) -> Result<Primary, Failure> {
        let mut opened =
            Engine::open_primary(vfs.shared(), clock(), config, QuorumMode::Managed).map_err(text)?;
        let (quorum, written) = opened.quorum.take().ok_or("nobody can publish the quorum")?;
        Ok(Primary {
            opened,
            quorum,
            written,
        })
    }

    /// Starts with the standbys there.
    pub(super) fn start(vfs: &CrashVfs, config: EngineConfig) -> Result<Primary, Failure> {
        let mut primary = Primary::open(vfs, config)?;
        primary.acknowledge();
        primary.opened.recover().map_err(text)?;
        Ok(primary)
    }

    pub(super) fn engine(&self) -> &Arc<Engine> {
        &self.opened.engine
    }

    /// The standbys have all that the log has.
    pub(super) fn acknowledge(&mut self) {
        let wal = &self.opened.wal;
        let flush = wal.flush_here(wal.insert_lsn());
        self.quorum.advance(flush);
        self.written.advance(flush);
        self.opened.engine.release().advance(flush, flush, flush);
    }

    /// Runs a step to its end, with the standbys there.
    pub(super) fn drive<T>(
        &mut self,
        txn: &mut Transaction,
        mut step: impl FnMut(&mut Transaction) -> crate::Result<Step<T>>,
    ) -> Result<T, Failure> {
        loop {
            match step(txn).map_err(text)? {
                Step::Done(value) => return Ok(value),
                Step::Wait(wait) => {
                    self.acknowledge();
                    if !wait.block(LIMIT).map_err(text)? {
                        return Err("a wait does not end".to_owned());
                    }
                }
            }
        }
    }

    /// A transaction with an xid.
    pub(super) fn begin(&mut self) -> Result<Transaction, Failure> {
        let mut txn = self.engine().begin(TxnOptions::default()).map_err(text)?;
        self.drive(&mut txn, |txn| txn.ensure_xid())?;
        Ok(txn)
    }

    pub(super) fn table(&self, name: &str) -> Result<Arc<Table>, Failure> {
        let engine = self.engine();
        let view = engine.catalog().shared(engine).map_err(text)?;
        let found = view.tables().find(|table| &*table.name == name).cloned();
        found.ok_or_else(|| format!("there is no table {name}"))
    }

    /// How many rows of the table a new transaction sees.
    pub(super) fn count(&self, table: &Table) -> Result<usize, Failure> {
        let mut txn = self.engine().begin(TxnOptions::default()).map_err(text)?;
        Ok(rows(&mut txn, table)?.len())
    }

    /// WAL above the quorum, in bytes.
    fn above_quorum(&self) -> u64 {
        self.opened.wal.insert_lsn().distance_from(self.quorum.get())
    }

    /// Inserts rows with the standbys away, until a statement waits for the quorum, which it gives back, or fails, or there are `most`.
    fn insert_alone(
        &self,
        txn: &mut Transaction,
        table: &Arc<Table>,
        most: i32,
    ) -> Result<Option<InsertOp>, Failure> {
        for id in 0..most {
            txn.begin_statement();
            let row = [Datum::Int4(id), Datum::Int4(0), Datum::text(&long(id, TEXT))];
            let mut op = InsertOp::new(Arc::clone(table), &row).map_err(text)?;
            loop {
                match op.step(txn) {
                    Ok(Step::Done(_)) => break,
                    Ok(Step::Wait(wait)) => match wait.kind() {
                        WaitKind::Quorum(_) => return Ok(Some(op)),
                        WaitKind::Flush(lsn) => {
                            self.opened.wal.flush_here(lsn);
                        }
                        other => return Err(format!("an insert waits for {other:?}")),
                    },
                    Err(_) => return Ok(None),
                }
            }
        }
        Ok(None)
    }
}

/// B4, frames: the standbys are away and a transaction changes as much as it can. Whether others can still read what is not in the pool; and
/// when the standbys are back, everything goes on.
fn a_reader_finds_frames_without_a_quorum() -> Result<bool, Failure> {
    let disk = disk_with_tables()?;
    let mut primary = Primary::start(&disk, config())?;
    let (t, u) = (primary.table("t")?, primary.table("u")?);
    let mut txn = primary.begin()?;
    let held = primary.insert_alone(&mut txn, &t, 5000)?;
    if primary.count(&u) != Ok(READ as usize) {
        return Ok(false);
    }
    let mut op = held.ok_or("nothing held the writer back, and there is room for a reader")?;
    primary.drive(&mut txn, |txn| op.step(txn))?;
    primary.drive(&mut txn, |txn| txn.commit(CommitLevel::On))?;
    primary.acknowledge();
    Ok(primary.count(&t)? > 100)
}

#[test]
fn a_node_whose_quorum_is_away_goes_on_reading() {
    assert!(a_reader_finds_frames_without_a_quorum().unwrap());
}

#[cfg(debug_assertions)]
#[test]
fn without_the_bound_of_frames_above_the_quorum_nobody_could_read() {
    let _off = RuleOff::new(Rule::RoomAboveQuorum);
    assert!(!a_reader_finds_frames_without_a_quorum().unwrap());
}

/// B4, log: whether a writer is held back before it has filled the disk of the log.
fn the_log_above_the_quorum_is_bounded() -> Result<bool, Failure> {
    const SHARE: u64 = 1 << 20;
    let disk = disk_with_tables()?;
    let roomy = EngineConfig {
        shared_buffers: 4096,
        max_wal_above_quorum: SHARE,
        ..config()
    };
    let mut primary = Primary::start(&disk, roomy)?;
    let t = primary.table("t")?;
    let mut txn = primary.begin()?;
    let held = primary.insert_alone(&mut txn, &t, 1000)?;
    // What a statement may do before it asks again is a few records, each with its pages' images.
    Ok(held.is_some() && primary.above_quorum() < SHARE + (256 << 10))
}

#[test]
fn a_node_whose_quorum_is_away_fills_no_more_than_a_share_of_the_logs_disk() {
    assert!(the_log_above_the_quorum_is_bounded().unwrap());
}

#[cfg(debug_assertions)]
#[test]
fn without_the_bound_of_the_log_above_the_quorum_its_disk_would_fill() {
    let _off = RuleOff::new(Rule::RoomAboveQuorum);
    assert!(!the_log_above_the_quorum_is_bounded().unwrap());
}

/// B2: the standbys are away, much is changed, and the primary crashes. They come back, have all of its log, and acknowledge what they are
/// sent of the new timeline: which is nothing, before its first record is there. Redo needs frames, and so the quorum. Whether it ends.
fn a_primary_comes_back_from_much_log_above_its_quorum() -> Result<bool, Failure> {
    let disk = disk_with_tables()?;
    let roomy = EngineConfig {
        shared_buffers: 512,
        ..config()
    };
    let mut primary = Primary::start(&disk, roomy)?;
    let t = primary.table("t")?;
    let mut txn = primary.begin()?;
    if primary.insert_alone(&mut txn, &t, 5000)?.is_none() {
        return Err("nothing held the writer back".to_owned());
    }
    let wal = &primary.opened.wal;
    wal.flush_here(wal.insert_lsn());
    let disk = disk.after_crash(Unsynced::Lost, 0);
    let small = EngineConfig {
        shared_buffers: 96,
        ..config()
    };
    let mut again = Primary::open(&disk, small)?;
    if again.opened.first_record_end > again.opened.history.begin() {
        again.acknowledge();
    }
    // They send no more than one acknowledgement of what they have: who waits for another waits for ever, or here, ends with an error.
    again.quorum.close();
    if again.opened.recover().is_err() {
        return Ok(false);
    }
    let (t, u) = (again.table("t")?, again.table("u")?);
    Ok((again.count(&t)?, again.count(&u)?) == (0, READ as usize))
}

#[test]
fn redo_needs_no_more_of_the_quorum_than_the_first_record_brings() {
    assert!(a_primary_comes_back_from_much_log_above_its_quorum().unwrap());
}

#[cfg(debug_assertions)]
#[test]
fn without_the_record_before_redo_redo_would_wait_for_ever() {
    let _off = RuleOff::new(Rule::RecordBeforeRedo);
    assert!(!a_primary_comes_back_from_much_log_above_its_quorum().unwrap());
}

/// B5: the standbys are away and the node is told to stop. Whether it does so within `patience`; its next start finds everything.
fn a_node_stops_without_its_quorum(off: bool, patience: Duration) -> Result<bool, Failure> {
    let disk = disk_with_tables()?;
    let hasty = EngineConfig {
        shutdown_timeout: Duration::from_millis(50),
        ..config()
    };
    let mut primary = Primary::start(&disk, hasty)?;
    let t = primary.table("t")?;
    let mut txn = primary.begin()?;
    let row = [Datum::Int4(1), Datum::Int4(1), Datum::text(&long(1, TEXT))];
    let mut op = InsertOp::new(t, &row).map_err(text)?;
    primary.drive(&mut txn, |txn| op.step(txn))?;
    primary.drive(&mut txn, |txn| txn.commit(CommitLevel::On))?;
    primary.acknowledge();
    drop(txn);
    let engine = Arc::clone(primary.engine());
    let writer = engine.start_wal_writer(&primary.opened.wal).map_err(text)?;
    engine
        .start_background_with(&primary.opened.history, writer)
        .map_err(text)?;
    // The shutdown checkpoint needs the quorum, which does not come.
    let (ended, end) = mpsc::channel();
    let stopping = std::thread::spawn(move || {
        let _off = off.then(|| RuleOff::new(Rule::ShutdownEnds));
        let _ = ended.send(engine.shutdown().is_ok());
    });
    let deadline = Instant::now() + LIMIT;
    let (mut next, mut stopped) = (end.recv_timeout(patience), true);
    while let Err(RecvTimeoutError::Timeout) = next {
        // It waits for them still, so they come.
        stopped = false;
        if Instant::now() > deadline {
            return Err("the node does not stop although its quorum is there".to_owned());
        }
        let flush = primary.opened.wal.positions().flush.get();
        primary.quorum.advance(flush.max(primary.quorum.get()));
        next = end.recv_timeout(Duration::from_millis(5));
    }
    stopping.join().map_err(|_| "the shutdown has panicked")?;
    if next == Ok(stopped) {
        return Err(format!(
            "a shutdown was clean: {stopped}, with the quorum there: {}",
            !stopped
        ));
    }
    drop(primary);
    let found = Node::start(&disk.after_crash(Unsynced::Lost, 0))?.contents()?;
    if found["t"].rows.len() != 1 || found["u"].rows.len() != READ as usize {
        return Err("the next start has lost something".to_owned());
    }
    Ok(stopped)
}

#[test]
fn a_shutdown_without_the_quorum_gives_up_its_checkpoint_and_loses_nothing() {
    assert!(a_node_stops_without_its_quorum(false, LIMIT).unwrap());
}

#[cfg(debug_assertions)]
#[test]
fn without_its_bound_a_shutdown_would_wait_for_the_quorum_for_ever() {
    assert!(!a_node_stops_without_its_quorum(true, Duration::from_secs(1)).unwrap());
}
