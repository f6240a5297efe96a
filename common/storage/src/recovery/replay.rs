//! Applying one record.

use super::appliers::Lane;
use super::invalid::InvalidPages;
use super::{RedoContext, RedoError};
use crate::control::CheckpointInfo;
use crate::error::StorageError;
use crate::page::Page;
use crate::storage::Storage;
use parking_lot::Mutex;
use towline_base::{ForkKind, Incarnation, Lsn, TimelineId, TimelineNumber, Xid};
use towline_wal::Rmgr;
use towline_wal::format::{BlockRef, DecodedRecord};
use towline_wal::records::smgr::{SmgrCreate, SmgrOp, SmgrTruncate, truncate_flags};
use towline_wal::records::xact::ParsedXactEnd;
use towline_wal::records::xlog::{CheckPoint, EndOfRecovery, OverwriteContrecord, XlogOp};

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What the layer above does with records. Storage applies its own part of XLOG and Storage records before it calls `redo`.
pub trait ResourceManagers: Send + Sync {
    /// Before any page of the record is latched: conflicts with readers are resolved here.
    fn prepare(&self, record: &DecodedRecord<'_>) -> Result<(), RedoError> {
        let _ = record;
        Ok(())
    }

    /// Whether redo needs the cleanup latch on a block: nobody may remember a place in the page (pruning, vacuum).
    fn needs_cleanup(&self, record: &DecodedRecord<'_>, block: u8) -> bool {
        let _ = (record, block);
        false
    }

    /// Whether redo of the record may run beside that of others that name none of its pages, but for pages of the visibility map: it changes
    /// no page that it does not name, and of the map's it only clears bits ([`RedoContext::page_to_repeat`]).
    fn may_run_beside_others(&self, record: &DecodedRecord<'_>) -> bool {
        let _ = record;
        true
    }

    /// Applies the record: to the pages that `context` gives out, and to the layer's own state. Called for every record, page images
    /// and checkpoints included.
    fn redo(&self, record: &DecodedRecord<'_>, context: &mut RedoContext<'_>) -> Result<(), RedoError>;

    /// Clears what may differ between the primary's page and ours after redo of the record: hints, unused bytes. LSN and checksum are
    /// cleared already. Called for main forks only, with pages that may be damaged.
    fn mask(&self, record: &DecodedRecord<'_>, page: &mut Page) {
        let _ = (record, page);
    }
}

/// Replays records on a storage. See the module above.
pub struct Replayer {
    storage: Arc<Storage>,
    managers: Arc<dyn ResourceManagers>,
    invalid: InvalidPages,
    /// End of the last record that was applied.
    replayed: AtomicU64,
    /// The last checkpoint record that was applied: where a restartpoint can be made.
    checkpoint: Mutex<Option<CheckpointInfo>>,
    timeline: Mutex<TimelineId>,
}

impl std::fmt::Debug for Replayer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replayer")
            .field("replayed", &self.replayed())
            .finish_non_exhaustive()
    }
}

impl Replayer {
    /// Replays onto `storage`, whose next record begins at or behind `start`.
    pub fn new(storage: Arc<Storage>, managers: Arc<dyn ResourceManagers>, start: Lsn) -> Replayer {
        let timeline = storage.control().get().checkpoint.timeline;
        Replayer {
            storage,
            managers,
            invalid: InvalidPages::default(),
            replayed: AtomicU64::new(start.0),
            checkpoint: Mutex::new(None),
            timeline: Mutex::new(timeline),
        }
    }

    /// The storage that is replayed onto.
    pub fn storage(&self) -> &Arc<Storage> {
        &self.storage
    }

    /// End of the last record that was applied.
    pub fn replayed(&self) -> Lsn {
        Lsn(self.replayed.load(Ordering::Acquire))
    }

    /// The last checkpoint record applied, for a restartpoint.
    pub fn last_checkpoint(&self) -> Option<CheckpointInfo> {
        *self.checkpoint.lock()
    }

    /// The timeline of the last record, by the end-of-recovery records seen.
    pub fn timeline(&self) -> TimelineId {
        *self.timeline.lock()
    }

    /// Fails when redo has met blocks that do not exist and that nothing later has dropped: to be asked when the data must be
    /// consistent.
    pub fn check_missing_pages(&self) -> Result<(), RedoError> {
        self.invalid
            .first()
            .map_or(Ok(()), |(page, lsn)| Err(RedoError::MissingPage { page, lsn }))
    }

    /// Applies one record. Records must come in order, each once; after [`RedoError::NeedsQuorum`] the same record again.
    pub fn replay_one(&self, record: &DecodedRecord<'_>) -> Result<(), RedoError> {
        self.apply(record)?;
        self.note_replayed(record.end);
        Ok(())
    }

    /// Everything up to `end` is applied.
    pub(super) fn note_replayed(&self, end: Lsn) {
        self.replayed.fetch_max(end.0, Ordering::AcqRel);
    }

    /// Who applies a record where there are several appliers.
    pub(super) fn lane(&self, record: &DecodedRecord<'_>) -> Lane {
        let pages = if record.blocks.is_empty() {
            Lane::Aside
        } else if !record.blocks.iter().any(makes_map) && self.managers.may_run_beside_others(record) {
            Lane::Pages
        } else {
            Lane::Alone
        };
        let drops_none =
            || ParsedXactEnd::decode(record.header.info, record.main).is_ok_and(|end| end.dropped.is_empty());
        match record.rmgr() {
            _ if record.overwrote.is_some() => Lane::Alone,
            Rmgr::Heap | Rmgr::Heap2 | Rmgr::Btree => pages,
            Rmgr::Xlog => match XlogOp::from_info(record.header.info) {
                Some(XlogOp::Fpi | XlogOp::FpiForHint) => pages,
                _ => Lane::Alone,
            },
            Rmgr::Transaction if record.blocks.is_empty() && drops_none() => Lane::Aside,
            Rmgr::Transaction | Rmgr::Storage | Rmgr::Standby | Rmgr::Towline | Rmgr::Foreign(_) => {
                Lane::Alone
            }
        }
    }

    /// Applies one record; what comes before it may be applied later where that makes no difference.
    pub(super) fn apply(&self, record: &DecodedRecord<'_>) -> Result<(), RedoError> {
        // Redo obeys the pool's limit too (B4); below the quorum there is always room.
        self.storage.pool().quorum_room(record.end)?;
        check_overwritten(record)?;
        self.managers.prepare(record)?;
        match record.rmgr() {
            Rmgr::Storage => self.replay_files(record)?,
            Rmgr::Xlog => self.check_images(record)?,
            Rmgr::Transaction | Rmgr::Standby | Rmgr::Heap2 | Rmgr::Heap | Rmgr::Btree | Rmgr::Towline => {}
            Rmgr::Foreign(id) => {
                return Err(RedoError::record(
                    record.start,
                    format!("resource manager {id} is not known"),
                ));
            }
        }
        let needs_cleanup = |block| self.managers.needs_cleanup(record, block);
        let mut context = RedoContext::latch(&self.storage, &self.invalid, record, needs_cleanup)?;
        let redone = self.managers.redo(record, &mut context);
        match redone.and_then(|()| context.check(record, &*self.managers)) {
            Ok(()) => context.complete(),
            Err(error) => {
                // Pages may be half changed: nobody may see them, and nobody may write them.
                self.storage.stop("redo of a record has failed");
                return Err(error);
            }
        }
        if record.rmgr() == Rmgr::Xlog {
            self.note_checkpoint(record)?;
        }
        Ok(())
    }

    fn check_images(&self, record: &DecodedRecord<'_>) -> Result<(), RedoError> {
        match XlogOp::from_info(record.header.info) {
            Some(XlogOp::Fpi | XlogOp::FpiForHint) => {
                if record.blocks.iter().any(|block| !block.has_apply_image()) {
                    return Err(RedoError::record(
                        record.start,
                        "a page image record has no image",
                    ));
                }
                Ok(())
            }
            Some(_) => Ok(()),
            None => Err(RedoError::record(record.start, "unknown kind of XLOG record")),
        }
    }

    fn note_checkpoint(&self, record: &DecodedRecord<'_>) -> Result<(), RedoError> {
        let payload =
            |error: towline_wal::records::PayloadError| RedoError::record(record.start, error.to_string());
        match XlogOp::from_info(record.header.info) {
            Some(op @ (XlogOp::CheckpointOnline | XlogOp::CheckpointShutdown)) => {
                let body = CheckPoint::decode(record.main).map_err(payload)?;
                let info = self.checkpoint_info(record, &body, op)?;
                *self.checkpoint.lock() = Some(info);
            }
            Some(XlogOp::EndOfRecovery) => {
                let body = EndOfRecovery::decode(record.main).map_err(payload)?;
                *self.timeline.lock() = TimelineId {
                    number: TimelineNumber(body.timeline),
                    incarnation: body.incarnation,
                };
            }
            _ => {}
        }
        Ok(())
    }

    fn checkpoint_info(
        &self,
        record: &DecodedRecord<'_>,
        body: &CheckPoint,
        op: XlogOp,
    ) -> Result<CheckpointInfo, RedoError> {
        if body.redo > record.start {
            return Err(RedoError::record(
                record.start,
                "a checkpoint's redo pointer is behind its record",
            ));
        }
        let next_xid = Xid(body.next_xid);
        let known = *self.timeline.lock();
        let number = TimelineNumber(body.timeline);
        let incarnation = if known.number == number {
            known.incarnation
        } else {
            Incarnation::ZERO
        };
        Ok(CheckpointInfo {
            lsn: record.start,
            end: record.end,
            redo: body.redo,
            timeline: TimelineId { number, incarnation },
            previous_timeline: TimelineNumber(body.prev_timeline),
            next_xid,
            next_oid: body.next_oid,
            oldest_xid: Xid::from_low32(body.oldest_xid, next_xid),
            oldest_active_xid: match op {
                XlogOp::CheckpointShutdown => Xid::INVALID,
                _ => Xid::from_low32(body.oldest_active_xid, next_xid),
            },
            // Seconds since 1970 in the record, microseconds since 2000 here.
            time: body
                .time
                .saturating_sub(towline_base::clock::POSTGRES_EPOCH_UNIX_SECONDS)
                .saturating_mul(1_000_000),
        })
    }

    fn replay_files(&self, record: &DecodedRecord<'_>) -> Result<(), RedoError> {
        let payload =
            |error: towline_wal::records::PayloadError| RedoError::record(record.start, error.to_string());
        match SmgrOp::from_info(record.header.info) {
            Some(SmgrOp::Create) => {
                let create = SmgrCreate::decode(record.main).map_err(payload)?;
                let fork = u8::try_from(create.fork).ok().and_then(ForkKind::from_number);
                let fork = fork.ok_or_else(|| RedoError::record(record.start, "unknown fork"))?;
                self.wait_for_quorum(record)?;
                self.storage
                    .unlinks()
                    .settle(self.storage.smgr(), self.storage.pool(), create.rel)?;
                self.storage.pool().drop_pages(create.rel, Some(fork), 0);
                self.storage.smgr().create_or_empty(create.rel, fork)?;
            }
            Some(SmgrOp::Truncate) => {
                let truncate = SmgrTruncate::decode(record.main).map_err(payload)?;
                self.wait_for_quorum(record)?;
                if truncate.flags & truncate_flags::HEAP != 0 {
                    self.invalid.forget_relation(truncate.rel, truncate.block);
                }
                match self
                    .storage
                    .truncate_now(truncate.rel, truncate.block, truncate.flags)
                {
                    // Dropped later, and gone before the crash.
                    Ok(()) | Err(StorageError::NoSuchRelation(_)) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            None => return Err(RedoError::record(record.start, "unknown kind of Storage record")),
        }
        Ok(())
    }

    /// File operations reach disk at once, so redo waits here until the quorum has their record (I7, B1).
    fn wait_for_quorum(&self, record: &DecodedRecord<'_>) -> Result<(), RedoError> {
        if record.end > self.storage.quorum().get() {
            return Err(RedoError::NeedsQuorum(record.end));
        }
        Ok(())
    }
}

/// A record that was left incomplete is passed over only where an OVERWRITE_CONTRECORD record names it, and such a record stands nowhere
/// else: otherwise part of the log is missing. No Towline writes one (a start opens a timeline instead), but a log may bring one.
fn check_overwritten(record: &DecodedRecord<'_>) -> Result<(), RedoError> {
    let op = XlogOp::from_info(record.header.info);
    let named = if record.rmgr() == Rmgr::Xlog && op == Some(XlogOp::OverwriteContrecord) {
        let body = OverwriteContrecord::decode(record.main)
            .map_err(|error| RedoError::record(record.start, error.to_string()))?;
        Some(body.overwritten_lsn)
    } else {
        None
    };
    let what = match (named, record.overwrote) {
        (named, found) if named == found => return Ok(()),
        (Some(named), Some(found)) => {
            format!("it gives up the record at {named}, and the incomplete one is at {found}")
        }
        (Some(named), None) => {
            format!("it gives up the record at {named}, and no incomplete record stands before it")
        }
        (None, found) => format!(
            "the record at {} before it is incomplete, and no record gives it up",
            found.unwrap_or_default()
        ),
    };
    Err(RedoError::record(record.start, what))
}

/// Whether the reference gives a whole page of the visibility map.
fn makes_map(block: &BlockRef<'_>) -> bool {
    block.page.fork == ForkKind::Vm && (block.has_apply_image() || block.will_init())
}
