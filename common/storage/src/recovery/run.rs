//! [`Recovery`]: from the control file's checkpoint to the end of the log.

use super::appliers::{Appliers, Lane};
use super::{ProgressMeter, RecoveryProgress, RedoError, Replayer};
use crate::error::StorageError;
use towline_base::{Clock, Lsn, WaitOutcome};
use towline_wal::format::DecodedRecord;
use towline_wal::records::xlog::{CheckPoint, XlogOp};
use towline_wal::{EndOfWal, ReadOutcome, Rmgr, WalReader, WalSource};

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

/// Between tries of a record that a full disk holds up.
const SPACE_POLL: Duration = Duration::from_millis(500);
/// How often a wait for the quorum looks whether it was told to stop.
const STOP_POLL: Duration = Duration::from_millis(100);
/// Records applied between two looks at the clock.
const BATCH: usize = 1000;
/// The same for several appliers, which are done with all of them at each look.
const PARALLEL_BATCH: usize = 64 * 1024;

/// What a step of recovery came to.
#[derive(Debug)]
pub enum RecoveryStep {
    /// Records were applied; there are more.
    More,
    /// The next record waits for the quorum to reach this position.
    NeedsQuorum(Lsn),
    /// The disk has no room for what the next record needs: it is tried again by the next step.
    NoSpace(StorageError),
    /// The log, or the part that was asked for, is applied.
    Done(EndOfWal),
}

/// A recovery in progress. See the module.
#[derive(Debug)]
pub struct Recovery {
    replayer: Arc<Replayer>,
    source: WalSource,
    reader: WalReader,
    appliers: Option<Appliers>,
    limit: Option<Lsn>,
    start: Lsn,
    records: u64,
    meter: Option<ProgressMeter>,
}

impl Recovery {
    /// Begins at the redo pointer of the control file's checkpoint, after looking that the checkpoint record is there. `end` is where the
    /// log ends, when that is known; no record that ends behind it is applied.
    pub fn begin(
        replayer: Arc<Replayer>,
        source: WalSource,
        end: Option<Lsn>,
    ) -> Result<Recovery, RedoError> {
        let checkpoint = replayer.storage().control().get().checkpoint;
        check_checkpoint_record(&source, checkpoint.lsn, checkpoint.redo)?;
        let mut recovery = Recovery {
            reader: WalReader::new(source.clone(), checkpoint.redo),
            replayer,
            source,
            appliers: None,
            limit: None,
            start: checkpoint.redo,
            records: 0,
            meter: None,
        };
        if let Some(end) = end {
            recovery.set_limit(end);
        }
        Ok(recovery)
    }

    /// From now on pages are changed by `count` threads beside the one that reads the log, and with `prefetch` the system is asked to read
    /// pages that will be needed. Nobody may read pages before [`RecoveryStep::Done`].
    pub fn apply_with(&mut self, count: NonZeroUsize, prefetch: bool) -> Result<(), RedoError> {
        self.appliers = Some(Appliers::start(Arc::clone(&self.replayer), count, prefetch)?);
        Ok(())
    }

    /// Applies no record that ends behind `limit`. May be raised: after [`RecoveryStep::Done`] the next step goes on.
    pub fn set_limit(&mut self, limit: Lsn) {
        self.limit = Some(limit);
        self.reader.set_limit(limit);
    }

    /// From now on the progress is told to the storage after each step, and logged at most once in `interval` (never when that is zero).
    /// To be called when the limit is set.
    pub fn measure(&mut self, clock: Arc<dyn Clock>, interval: Duration) {
        self.meter = Some(ProgressMeter::new(clock, interval, self.start, self.limit));
        self.tell();
    }

    fn tell(&mut self) {
        let replayed = self.replayer.replayed();
        let Some(meter) = &mut self.meter else { return };
        let progress = meter.progress(replayed, self.records);
        if meter.is_line_due() {
            tracing::info!("redo in progress: {progress}");
        }
        self.replayer.storage().note_recovery(Some(progress));
    }

    /// Applies up to `max_records` records. With several appliers all of them are applied when it returns, but for what waits.
    pub fn step(&mut self, max_records: usize) -> Result<RecoveryStep, RedoError> {
        let outcome = self.apply(max_records);
        match outcome {
            Ok(RecoveryStep::Done(_)) => self.replayer.storage().note_recovery(None),
            _ => self.tell(),
        }
        outcome
    }

    fn apply(&mut self, max_records: usize) -> Result<RecoveryStep, RedoError> {
        for _ in 0..max_records {
            let dealt = match self
                .reader
                .next()
                .map_err(|error| RedoError::Log(error.to_string()))?
            {
                ReadOutcome::Record(record) => {
                    let applied = match &mut self.appliers {
                        Some(appliers) => deal(appliers, &self.replayer, &record),
                        None => self.replayer.replay_one(&record),
                    };
                    Ok((record.start, applied))
                }
                ReadOutcome::End(end) => Err(end),
            };
            let (start, applied) = match dealt {
                Ok(dealt) => dealt,
                Err(end) => return self.settle(RecoveryStep::Done(end)),
            };
            if let Err(error) = applied {
                self.read_again(start);
                return self.held_up(error);
            }
            self.records += 1;
            if self.appliers.is_none() {
                self.replayer.storage().note_shortage(None);
            }
        }
        self.settle(RecoveryStep::More)
    }

    /// `step`, when the appliers are done.
    fn settle(&mut self, step: RecoveryStep) -> Result<RecoveryStep, RedoError> {
        let Some(appliers) = &mut self.appliers else {
            return Ok(step);
        };
        match appliers.drain() {
            Ok(()) => {
                self.replayer.storage().note_shortage(None);
                self.replayer.note_replayed(self.reader.position());
                Ok(step)
            }
            Err(error) => self.held_up(error),
        }
    }

    fn held_up(&self, error: RedoError) -> Result<RecoveryStep, RedoError> {
        match error {
            RedoError::NeedsQuorum(lsn) => Ok(RecoveryStep::NeedsQuorum(lsn)),
            RedoError::NoSpace(error) => {
                self.replayer.storage().note_shortage(Some(&error));
                Ok(RecoveryStep::NoSpace(error))
            }
            error => Err(error),
        }
    }

    /// Applies everything, waiting for the quorum, and for space on a full disk, on this thread, and returns where the log ends.
    pub fn run(&mut self) -> Result<EndOfWal, RedoError> {
        loop {
            if let Some(end) = self.run_until(&|| false)? {
                return Ok(end);
            }
        }
    }

    /// As [`Self::run`], until `stopped` says so: between batches, and while it waits. `None` when it was stopped; what is applied stays,
    /// as after a crash, and a later call goes on.
    pub fn run_until(&mut self, stopped: &dyn Fn() -> bool) -> Result<Option<EndOfWal>, RedoError> {
        let batch = if self.appliers.is_some() {
            PARALLEL_BATCH
        } else {
            BATCH
        };
        while !stopped() {
            match self.step(batch)? {
                RecoveryStep::More => {}
                RecoveryStep::NeedsQuorum(lsn) => {
                    let quorum = self.replayer.storage().quorum();
                    while !stopped() && quorum.wait_for(lsn).block(Some(STOP_POLL)) == WaitOutcome::TimedOut {
                    }
                    if quorum.is_closed() {
                        return Err(RedoError::NeedsQuorum(lsn));
                    }
                }
                RecoveryStep::NoSpace(_) => std::thread::sleep(SPACE_POLL),
                RecoveryStep::Done(end) => return Ok(Some(end)),
            }
        }
        Ok(None)
    }

    /// How far it is.
    pub fn progress(&self) -> RecoveryProgress {
        let replayed = self.replayer.replayed();
        match &self.meter {
            Some(meter) => meter.progress(replayed, self.records),
            None => RecoveryProgress {
                start: self.start,
                replayed,
                target: self.limit,
                records: self.records,
                elapsed: Duration::ZERO,
            },
        }
    }

    /// The replayer, which goes on being used on a standby.
    pub fn replayer(&self) -> &Arc<Replayer> {
        &self.replayer
    }

    fn read_again(&mut self, start: Lsn) {
        self.reader = WalReader::new(self.source.clone(), start);
        if let Some(limit) = self.limit {
            self.reader.set_limit(limit);
        }
    }
}

/// Has a record applied, now or with others.
fn deal(appliers: &mut Appliers, replayer: &Replayer, record: &DecodedRecord<'_>) -> Result<(), RedoError> {
    match replayer.lane(record) {
        Lane::Pages => appliers.push(record),
        Lane::Aside => replayer.apply(record),
        Lane::Alone => {
            appliers.drain()?;
            replayer.replay_one(record)
        }
    }
}

/// The control file's checkpoint must be in the log, as it says; otherwise WAL is missing, and redo from it would be wrong.
fn check_checkpoint_record(source: &WalSource, lsn: Lsn, redo: Lsn) -> Result<(), RedoError> {
    let mut reader = WalReader::new(source.clone(), lsn);
    let missing = |what: String| {
        RedoError::Log(format!(
            "could not locate a valid checkpoint record at {lsn}, which the control file names: {what}"
        ))
    };
    match reader.next().map_err(|error| missing(error.to_string()))? {
        ReadOutcome::Record(record) => {
            let op = XlogOp::from_info(record.header.info);
            let is_checkpoint = matches!(op, Some(XlogOp::CheckpointOnline | XlogOp::CheckpointShutdown));
            if record.rmgr() != Rmgr::Xlog || !is_checkpoint {
                return Err(missing("the record there is of another kind".to_owned()));
            }
            let body = CheckPoint::decode(record.main).map_err(|error| missing(error.to_string()))?;
            if body.redo != redo {
                return Err(missing(format!("its redo pointer is {}, not {redo}", body.redo)));
            }
            Ok(())
        }
        ReadOutcome::End(end) => Err(missing(format!("{:?} at {}", end.reason, end.found_at))),
    }
}
