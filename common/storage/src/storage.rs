//! [`Storage`]: the parts put together, and the operations that concern a whole relation.

use crate::buffer::{Access, BufferPool, PinnedPage};
use crate::change::LoggedChange;
use crate::checkpoint::CheckpointStatistics;
use crate::control::ControlFile;
use crate::error::{StorageError, StorageResult};
use crate::fsm::FreeSpaceMap;
use crate::recovery::RecoveryProgress;
use crate::smgr::Smgr;
use crate::truncate::{PendingTruncation, PendingTruncations};
use crate::unlink::PendingUnlinks;
use parking_lot::Mutex;
use towline_base::rules::{self, Rule};
use towline_base::{BlockNumber, ForkKind, Lsn, LsnWatch, PageId, RelFileNode, Vfs, Xid};
use towline_wal::records::smgr::{SmgrCreate, SmgrOp, SmgrTruncate, truncate_flags};
use towline_wal::{Credit, Inserted, NoCredit, Rmgr, Wal, WritePermit, credit_for};

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// What a storage is opened with.
#[derive(Debug, Clone)]
pub struct StorageConfig {
    /// The data directory.
    pub root: PathBuf,
    /// Frames of the pool: `shared_buffers` / 8 kB.
    pub frames: usize,
    /// Bound of the relation files kept open.
    pub max_open_files: usize,
    /// WAL bytes that may stand above the quorum (a share of the WAL disk, B4).
    pub max_wal_above_quorum: u64,
}

impl StorageConfig {
    /// PostgreSQL's 128 MB of buffers over a data directory.
    pub fn new(root: impl Into<PathBuf>) -> StorageConfig {
        StorageConfig {
            root: root.into(),
            frames: 16_384,
            max_open_files: 1000,
            max_wal_above_quorum: 4 << 30,
        }
    }
}

type StopHook = Box<dyn Fn(&'static str) + Send + Sync>;

/// Pages, files and control file of one data directory.
pub struct Storage {
    vfs: Arc<dyn Vfs>,
    root: PathBuf,
    smgr: Arc<Smgr>,
    pool: Arc<BufferPool>,
    fsm: FreeSpaceMap,
    control: Arc<ControlFile>,
    quorum: LsnWatch,
    wal: OnceLock<Arc<Wal>>,
    unlinks: PendingUnlinks,
    truncations: PendingTruncations,
    checkpoints: CheckpointStatistics,
    max_wal_above_quorum: AtomicU64,
    short_of_space: AtomicBool,
    recovery: Mutex<Option<RecoveryProgress>>,
    stop_reason: OnceLock<&'static str>,
    stop_hook: Mutex<Option<StopHook>>,
}

impl std::fmt::Debug for Storage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Storage")
            .field("root", &self.root)
            .finish_non_exhaustive()
    }
}

impl Storage {
    /// Opens the storage of a data directory whose control file is open. Pages are written when `quorum` has their LSN: on a single node
    /// that is the flush position, on a standby the announced quorum.
    pub fn open(
        vfs: Arc<dyn Vfs>,
        config: &StorageConfig,
        control: ControlFile,
        quorum: LsnWatch,
    ) -> StorageResult<Arc<Storage>> {
        let control = Arc::new(control);
        let smgr = Arc::new(Smgr::new(Arc::clone(&vfs), &config.root, config.max_open_files));
        smgr.create_directories()?;
        let pool = BufferPool::new(
            config.frames,
            Arc::clone(&smgr),
            quorum.clone(),
            control.get().checksums,
        );
        let storage = Arc::new(Storage {
            vfs,
            root: config.root.clone(),
            smgr,
            pool: Arc::new(pool),
            fsm: FreeSpaceMap::new(),
            control,
            quorum,
            wal: OnceLock::new(),
            unlinks: PendingUnlinks::default(),
            truncations: PendingTruncations::default(),
            checkpoints: CheckpointStatistics::default(),
            max_wal_above_quorum: AtomicU64::new(config.max_wal_above_quorum),
            short_of_space: AtomicBool::new(false),
            recovery: Mutex::new(None),
            stop_reason: OnceLock::new(),
            stop_hook: Mutex::new(None),
        });
        // As the last run left it, until the node says otherwise.
        storage.keep_bound_if(storage.control.get().page_lsn_bound_is_strict);
        Ok(storage)
    }

    /// The file layer.
    pub fn vfs(&self) -> &Arc<dyn Vfs> {
        &self.vfs
    }

    /// The data directory.
    pub fn root(&self) -> &std::path::Path {
        &self.root
    }

    /// The buffer pool.
    #[inline]
    pub fn pool(&self) -> &Arc<BufferPool> {
        &self.pool
    }

    /// Relation files.
    pub fn smgr(&self) -> &Arc<Smgr> {
        &self.smgr
    }

    /// The free space map.
    pub fn fsm(&self) -> &FreeSpaceMap {
        &self.fsm
    }

    /// The control file.
    pub fn control(&self) -> &ControlFile {
        &self.control
    }

    /// The position below which effects may reach disk.
    pub fn quorum(&self) -> &LsnWatch {
        &self.quorum
    }

    /// Relations whose files wait to be removed.
    pub fn unlinks(&self) -> &PendingUnlinks {
        &self.unlinks
    }

    /// What checkpoints have done since the start.
    pub fn checkpoints(&self) -> &CheckpointStatistics {
        &self.checkpoints
    }

    /// Gives the storage the log that its changes go to: once, when redo has ended.
    pub fn attach_wal(&self, wal: Arc<Wal>) -> StorageResult<()> {
        self.wal
            .set(wal)
            .map_err(|_| StorageError::Misuse("a storage gets its log once"))
    }

    /// The log; an error on a node that only replays.
    #[inline]
    pub fn wal(&self) -> StorageResult<&Arc<Wal>> {
        self.wal
            .get()
            .ok_or(StorageError::Misuse("this storage has no log: it only replays"))
    }

    /// Pins a page; see [`BufferPool::pin`].
    #[inline]
    pub fn pin(&self, id: PageId) -> StorageResult<PinnedPage> {
        self.pool.pin(id)
    }

    /// Pins a page of a large scan.
    #[inline]
    pub fn pin_for_scan(&self, id: PageId) -> StorageResult<PinnedPage> {
        self.pool.pin_for(id, Access::Scan)
    }

    /// Length of a fork in blocks.
    #[inline]
    pub fn nblocks(&self, rel: RelFileNode, fork: ForkKind) -> StorageResult<BlockNumber> {
        self.smgr.nblocks(rel, fork)
    }

    /// Takes room for a record of up to `bytes` log bytes (see [`credit_for`]), before anything is latched. `NeedsFlush` and `NeedsQuorum` are to
    /// be waited for; a flush is asked for here.
    pub fn credit(&self, bytes: u32) -> StorageResult<Credit> {
        self.credit_from(|wal| wal.credit(bytes))
    }

    /// As [`Self::credit`], for the record that ends a transaction: it finds room in the log when changes do not any more.
    pub fn credit_for_end(&self, bytes: u32) -> StorageResult<Credit> {
        self.credit_from(|wal| wal.credit_for_end(bytes))
    }

    fn credit_from(&self, take: impl FnOnce(&Wal) -> Result<Credit, NoCredit>) -> StorageResult<Credit> {
        let wal = self.wal()?;
        if !rules::is_off(Rule::RoomAboveQuorum) {
            self.room_above_quorum(wal.insert_lsn())?;
        }
        take(wal).map_err(|refusal| match refusal {
            NoCredit::NeedsFlush(lsn) => {
                wal.request_flush(lsn);
                StorageError::NeedsFlush(lsn)
            }
            NoCredit::TooLarge { .. } => StorageError::Misuse("a record is larger than the WAL buffers"),
        })
    }

    /// Whether one more change may be made when WAL is inserted up to `insert`: frames and WAL above the quorum are bounded (B4).
    #[inline]
    fn room_above_quorum(&self, insert: Lsn) -> StorageResult<()> {
        self.pool.quorum_room(insert)?;
        let limit = self.max_wal_above_quorum.load(Ordering::Relaxed);
        if insert.distance_from(self.quorum.get()) > limit {
            return Err(StorageError::NeedsQuorum(insert.saturating_sub(limit)));
        }
        Ok(())
    }

    /// Changes how many WAL bytes may stand above the quorum.
    pub fn set_max_wal_above_quorum(&self, bytes: u64) {
        self.max_wal_above_quorum.store(bytes, Ordering::Relaxed);
    }

    /// Creates an empty fork and logs that. The transaction that aborts, or drops the relation, hands it to
    /// [`Storage::unlink_after`]. Takes its own credit, so nothing may be latched.
    pub fn create_fork(
        &self,
        permit: &WritePermit,
        xid: Xid,
        rel: RelFileNode,
        fork: ForkKind,
    ) -> StorageResult<Inserted> {
        let payload = SmgrCreate {
            rel,
            fork: fork as i32,
        };
        let credit = self.credit(credit_for(0, 64))?;
        // The file first: an error then leaves no record; a crash in between leaves an empty file that nobody refers to.
        self.smgr.create(rel, fork)?;
        let mut change = LoggedChange::new(self, permit, credit, Rmgr::Storage, SmgrOp::Create as u8, xid);
        change.payload(&payload);
        change.finish()
    }

    /// Logs that a relation will be cut to `blocks` (visibility map included). Effects follow with [`PendingTruncation::finish`] once the
    /// quorum has the record: the caller holds the relation's exclusive lock all the time. Takes its own credit.
    pub fn log_truncate(
        self: &Arc<Self>,
        permit: &WritePermit,
        xid: Xid,
        rel: RelFileNode,
        blocks: BlockNumber,
    ) -> StorageResult<PendingTruncation> {
        let credit = self.credit(credit_for(0, 64))?;
        let ticket = self.truncations.register(self.wal()?.insert_lsn());
        let mut change = LoggedChange::new(self, permit, credit, Rmgr::Storage, SmgrOp::Truncate as u8, xid);
        change.payload(&SmgrTruncate {
            block: blocks,
            rel,
            flags: truncate_flags::ALL,
        });
        let inserted = change.finish().inspect_err(|_| self.truncations.clear(ticket))?;
        Ok(PendingTruncation::new(
            Arc::clone(self),
            ticket,
            inserted.end,
            rel,
            blocks,
        ))
    }

    /// Logged truncations that are not carried out.
    pub(crate) fn truncations(&self) -> &PendingTruncations {
        &self.truncations
    }

    /// Cuts a relation and its visibility map, in memory and on disk.
    pub(crate) fn truncate_now(
        &self,
        rel: RelFileNode,
        blocks: BlockNumber,
        flags: i32,
    ) -> StorageResult<()> {
        if flags & truncate_flags::HEAP != 0 {
            self.smgr.shrink(rel, ForkKind::Main, blocks)?;
            self.pool.drop_pages(rel, Some(ForkKind::Main), blocks);
            self.smgr.truncate(rel, ForkKind::Main, blocks)?;
        }
        if flags & truncate_flags::VM != 0 && self.smgr.exists(rel, ForkKind::Vm)? {
            let keep = crate::vm::map_blocks(blocks);
            self.smgr.shrink(rel, ForkKind::Vm, keep)?;
            self.pool.drop_pages(rel, Some(ForkKind::Vm), keep);
            self.smgr.truncate(rel, ForkKind::Vm, keep)?;
        }
        self.fsm.truncate(rel, blocks);
        Ok(())
    }

    /// The relation is dropped (or its creation rolled back) by the record that ends at `logged`: its pages leave memory now, its files
    /// after a checkpoint behind that record, which the quorum then has (I7). Its number may be used again when
    /// [`Smgr::exists`] denies it. Nobody may use the relation any more.
    pub fn unlink_after(&self, logged: Lsn, rel: RelFileNode) {
        self.pool.drop_pages(rel, None, 0);
        self.fsm.forget(rel);
        self.unlinks.add(logged, rel);
        if rules::is_off(Rule::FilesBelowQuorum) {
            let _ = self.unlinks.settle(&self.smgr, &self.pool, rel);
        }
    }

    /// Whether the control file's bound of page LSNs is raised durably before each page that needs it: on standbys, and on primaries
    /// without voters. Otherwise it is only noted at checkpoints.
    pub fn set_strict_page_lsn_bound(&self, strict: bool) -> StorageResult<()> {
        let highest = self.pool.highest_written();
        let now = self.control.get();
        if now.page_lsn_bound_is_strict == strict && now.page_lsn_bound >= highest {
            return Ok(());
        }
        let change = |data: &mut crate::control::ControlData| {
            data.page_lsn_bound = data.page_lsn_bound.max(highest);
            data.page_lsn_bound_is_strict = strict;
        };
        if strict {
            // Writers are held to the old bound first, so that none slips between what is noted and what is kept.
            self.keep_bound_if(true);
            self.control.update(change)
        } else {
            self.control.update(change)?;
            self.keep_bound_if(false);
            Ok(())
        }
    }

    fn keep_bound_if(&self, strict: bool) {
        if !strict {
            return self.pool.give_up_page_lsn_bound();
        }
        let (control, quorum) = (Arc::clone(&self.control), self.quorum.clone());
        self.pool
            .keep_page_lsn_bound(self.control.get().page_lsn_bound, move |lsn| {
                // As high as any page can be now, so that one sync serves many pages.
                let bound = lsn.max(quorum.get());
                control.update(|data| data.page_lsn_bound = data.page_lsn_bound.max(bound))?;
                Ok(bound)
            });
    }

    /// Redo has met a full disk (with the error), or has gone on (`None`). Said in the log when it changes.
    pub fn note_shortage(&self, error: Option<&StorageError>) {
        let short = error.is_some();
        if self.short_of_space.load(Ordering::Relaxed) == short {
            return;
        }
        self.short_of_space.store(short, Ordering::Relaxed);
        match error {
            Some(error) => {
                tracing::warn!(%error, "redo is paused: the disk is full; it goes on when there is space")
            }
            None => tracing::info!("redo goes on: there is space again"),
        }
    }

    /// Whether redo is paused by a full disk: the node is not healthy.
    pub fn is_short_of_space(&self) -> bool {
        self.short_of_space.load(Ordering::Relaxed)
    }

    /// How far the redo of a start is; `None` when there is none.
    pub fn note_recovery(&self, progress: Option<RecoveryProgress>) {
        *self.recovery.lock() = progress;
    }

    /// What was noted last.
    pub fn recovery(&self) -> Option<RecoveryProgress> {
        *self.recovery.lock()
    }

    /// Memory is ahead of the log, or a sync has failed: gives out no page any more and tells the node to stop.
    pub fn stop(&self, why: &'static str) {
        self.stop_saying(why, &why);
    }

    /// As [`Storage::stop`], because of this error.
    pub fn stop_after(&self, why: &'static str, error: &StorageError) {
        self.stop_saying(why, &format_args!("{why}: {error}"));
    }

    fn stop_saying(&self, why: &'static str, reason: &dyn std::fmt::Display) {
        self.pool.stop();
        if self.stop_reason.set(why).is_ok() {
            tracing::error!(%reason, "the storage stops; the node must restart from disk");
            if let Some(hook) = &*self.stop_hook.lock() {
                hook(why);
            }
        }
    }

    /// Why the storage has stopped, if it has.
    pub fn stop_reason(&self) -> Option<&'static str> {
        self.stop_reason.get().copied()
    }

    /// Called once when the storage stops: the node ends.
    pub fn set_stop_hook(&self, hook: impl Fn(&'static str) + Send + Sync + 'static) {
        *self.stop_hook.lock() = Some(Box::new(hook));
    }
}
