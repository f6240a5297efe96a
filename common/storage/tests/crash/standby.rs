//! Continuous replay and restartpoints: a standby beside the primary, reading the primary's segments.

use std::sync::Arc;
use std::time::Duration;

use crate::world::{self, Failure, History, text};
use towline_base::vfs::CrashVfs;
use towline_base::{Clock, ForkKind, Lsn, LsnPublisher, LsnWatch, ManualClock, Next};
use towline_storage::smgr::relation;
use towline_storage::{
    CheckpointSettings, CheckpointSource, Checkpointer, ControlFile, Recovery, RecoveryStep, Replayer,
    Storage,
};

/// A standby that has been started.
pub(crate) struct Standby {
    pub(crate) storage: Arc<Storage>,
    recovery: Recovery,
    checkpointer: Checkpointer,
    quorum: LsnPublisher,
    clock: Arc<ManualClock>,
}

impl Standby {
    /// Starts on `disk`, whose relation files and control file are its own; the log is read from `primary`'s disk.
    pub(crate) fn start(disk: &CrashVfs, primary: &CrashVfs) -> Result<Standby, Failure> {
        let vfs = disk.shared();
        let control = ControlFile::open(Arc::clone(&vfs), world::ROOT.as_ref()).map_err(text)?;
        let redo = control.get().checkpoint.redo;
        let (quorum, watch) = LsnWatch::new(redo);
        let storage = Storage::open(vfs, &world::storage_config(), control, watch).map_err(text)?;
        storage.set_strict_page_lsn_bound(true).map_err(text)?;
        let replayer = Arc::new(Replayer::new(
            Arc::clone(&storage),
            Arc::new(world::Managers),
            redo,
        ));
        let source = world::source(&primary.shared());
        let recovery = Recovery::begin(Arc::clone(&replayer), source, Some(redo)).map_err(text)?;
        let clock = Arc::new(ManualClock::new(0));
        let checkpointer = Checkpointer::new(
            Arc::clone(&storage),
            CheckpointSource::Standby(replayer),
            Arc::new(world::NoParticipant),
            None,
            clock.clone(),
            CheckpointSettings::default(),
        );
        Ok(Standby {
            storage,
            recovery,
            checkpointer,
            quorum,
            clock,
        })
    }

    /// Replays what the primary announces as quorum-durable.
    pub(crate) fn follow(&mut self, announced: Lsn) -> Result<(), Failure> {
        self.quorum.advance(announced.max(self.quorum.get()));
        self.recovery.set_limit(announced);
        loop {
            match self.recovery.step(10).map_err(text)? {
                RecoveryStep::More => {}
                RecoveryStep::NoSpace(error) => return Err(text(error)),
                RecoveryStep::NeedsQuorum(lsn) => {
                    return Err(format!("waits for {lsn} with {announced} announced"));
                }
                RecoveryStep::Done(_) => return Ok(()),
            }
        }
    }

    pub(crate) fn replayed(&self) -> Lsn {
        self.recovery.replayer().replayed()
    }

    pub(crate) fn redo(&self) -> Lsn {
        self.storage.control().get().checkpoint.redo
    }

    /// Lets `checkpoint_timeout` pass and runs what is due.
    pub(crate) fn restartpoint(&mut self) {
        self.clock.advance(Duration::from_secs(301));
        for _ in 0..1000 {
            match self.checkpointer.step(self.clock.now()) {
                Next::Now => {}
                Next::At(_) => self.clock.advance(Duration::from_secs(5)),
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) fn verify(&self, history: &History) -> Result<(), Failure> {
        world::verify(&self.storage, history, self.replayed(), || Ok(()))
    }
}

/// Compares the pages of both, LSNs included; checksums are set only when a page is written.
pub(crate) fn compare(primary: &Storage, standby: &Storage, history: &History) {
    for rel in world::contents_at(history, Lsn::MAX)
        .keys()
        .map(|rel| relation(*rel))
    {
        // After a restart a file may be longer by blocks of zeros that were allocated ahead of need.
        let length = |storage: &Storage| storage.nblocks(rel, ForkKind::Main).unwrap();
        let blocks = length(primary).min(length(standby));
        for block in 0..blocks {
            let id = towline_base::PageId::main(rel, block);
            let (mut one, mut two) = (
                (*primary.pin(id).unwrap().read()).clone(),
                (*standby.pin(id).unwrap().read()).clone(),
            );
            one.set_stored_checksum(0);
            two.set_stored_checksum(0);
            assert!(one == two, "{id} differs");
        }
    }
}
