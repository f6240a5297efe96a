//! [`Engine`]: one node's database below SQL: storage, WAL, transactions, locks, catalog, in one value.
//!
//! An engine is a primary (it has a [`Writer`]: a log and a permit) or a standby (it has none, and replay feeds it). Promotion gives it a
//! writer in place; a primary becomes a standby only by reopening from disk (B7). It starts no thread by itself: the node calls
//! `start_background`, or steps the loops.

mod background;
mod config;
mod open;
pub(crate) mod participant;
mod replay;
mod write;

use std::fmt;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use towline_base::{Clock, Lsn, LsnWatch, Vfs, Xid};
use towline_storage::{Replayer, Storage};
use towline_wal::{Wal, WritePermit};

use crate::catalog::CatalogCache;
use crate::cluster::ClusterInfo;
use crate::csn::CsnLog;
use crate::error::{AccessError, Result};
use crate::heap::place::Targets;
use crate::locks::LockManager;
use crate::release::CommitQueue;
use crate::release::note::NoteSync;
use crate::session::SessionRegistry;
use crate::txn::commit::PendingAbort;
use crate::txn::slots::TxnSlots;
use crate::txn::snapshot::Horizon;
use crate::txn::xids::XidSource;
use crate::txn::{Transaction, TxnOptions};

pub use config::EngineConfig;
pub use open::{OpenedPrimary, QuorumMode, open_alone};
pub use participant::RetentionHooks;

use background::Background;
use participant::Participant;
use replay::Managers;

/// What lets a primary write: the log and the permit for its timeline.
#[derive(Debug, Clone)]
pub struct Writer {
    /// The log.
    pub wal: Arc<Wal>,
    /// The right to insert into it.
    pub permit: WritePermit,
}

/// See the module.
pub struct Engine {
    config: EngineConfig,
    vfs: Arc<dyn Vfs>,
    clock: Arc<dyn Clock>,
    writer: ArcSwapOption<Writer>,
    storage: Arc<Storage>,
    targets: Targets,
    quorum: LsnWatch,
    slots: Arc<TxnSlots>,
    locks: Arc<LockManager>,
    csn: Arc<CsnLog>,
    xids: Arc<XidSource>,
    release: Arc<CommitQueue>,
    horizon: Horizon,
    sessions: Arc<SessionRegistry>,
    cluster: OnceLock<Arc<dyn ClusterInfo>>,
    pending_aborts: Mutex<Vec<PendingAbort>>,
    has_pending_aborts: AtomicBool,
    failed: AtomicBool,
    catalog: Arc<CatalogCache>,
    managers: Arc<Managers>,
    replayer: Option<Arc<Replayer>>,
    participant: Arc<Participant>,
    background: Mutex<Option<Background>>,
    /// Open transactions that have an xid, for `commit_siblings`.
    open_writers: Arc<AtomicU32>,
    /// The next number for a value that is stored out of line, if its TOAST table has none of this number.
    next_toast_value: AtomicU32,
    /// End of the first record of this node's timeline as a primary, or 0.
    first_record: AtomicU64,
    /// Until its thread is started.
    note_sync: Mutex<Option<NoteSync>>,
}

impl fmt::Debug for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine")
            .field("standby", &self.is_standby())
            .field("visible", &self.visible().get())
            .field("next_xid", &self.next_xid())
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Begins a transaction.
    pub fn begin(self: &Arc<Self>, options: TxnOptions) -> Result<Transaction> {
        if self.failed.load(Ordering::Relaxed) {
            return Err(AccessError::terminated());
        }
        if self.release.has_dropped() {
            self.unlink_dropped();
        }
        if self.has_pending_aborts.load(Ordering::Relaxed) {
            self.log_pending_aborts();
        }
        Transaction::start(Arc::clone(self), options)
    }

    /// The configuration it was opened with.
    pub fn config(&self) -> &EngineConfig {
        &self.config
    }

    /// The file layer.
    pub fn vfs(&self) -> &Arc<dyn Vfs> {
        &self.vfs
    }

    /// The clocks.
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.clock
    }

    /// Pages and files.
    #[inline]
    pub fn storage(&self) -> &Storage {
        &self.storage
    }

    /// The same, to be kept.
    pub fn storage_arc(&self) -> Arc<Storage> {
        Arc::clone(&self.storage)
    }

    /// The catalog as it is now; see [`CatalogCache::view`].
    #[inline]
    pub fn catalog(&self) -> &Arc<CatalogCache> {
        &self.catalog
    }

    /// Tells checkpoints the next object id.
    pub(crate) fn note_next_oid(&self, next: u32) {
        self.participant.next_oid.fetch_max(next, Ordering::SeqCst);
    }

    /// See the field.
    pub(crate) fn next_toast_value(&self) -> &AtomicU32 {
        &self.next_toast_value
    }

    pub(crate) fn targets(&self) -> &Targets {
        &self.targets
    }

    /// True while replay feeds it and nothing may be written.
    pub fn is_standby(&self) -> bool {
        self.writer.load().is_none()
    }

    /// The log and the permit; 25006 on a standby.
    pub fn writer(&self) -> Result<Arc<Writer>> {
        self.writer.load_full().ok_or_else(|| {
            AccessError::new(
                towline_base::SqlState::READ_ONLY_SQL_TRANSACTION,
                "cannot execute a write while the node is a standby",
            )
        })
    }

    /// What snapshots may see: on a primary the last released commit, on a standby the read horizon.
    pub fn visible(&self) -> &LsnWatch {
        self.release.visible()
    }

    /// Durable on the commit quorum (on a standby: as announced).
    pub fn quorum(&self) -> &LsnWatch {
        &self.quorum
    }

    /// The queue of commits not released yet.
    pub fn release(&self) -> &Arc<CommitQueue> {
        &self.release
    }

    /// The lock tables.
    pub fn locks(&self) -> &Arc<LockManager> {
        &self.locks
    }

    /// Which transactions committed, and when.
    pub fn csn(&self) -> &CsnLog {
        &self.csn
    }

    /// The open transactions.
    pub fn slots(&self) -> &Arc<TxnSlots> {
        &self.slots
    }

    /// The counter of xids.
    pub fn xids(&self) -> &XidSource {
        &self.xids
    }

    /// The next xid.
    #[inline]
    pub fn next_xid(&self) -> Xid {
        self.xids.next()
    }

    /// At or below every xid that runs, or will be given out.
    pub(crate) fn oldest_running_xid(&self) -> Xid {
        // In this order: an xid below the one read here is in its slot by now, or has ended.
        let next = self.next_xid();
        self.slots.oldest_xid().map_or(next, |xid| xid.min(next))
    }

    /// Who is connected.
    pub fn sessions(&self) -> &Arc<SessionRegistry> {
        &self.sessions
    }

    /// What the node tells of the cluster, once it has said so.
    pub fn cluster(&self) -> Option<&Arc<dyn ClusterInfo>> {
        self.cluster.get()
    }

    /// Installs the node's view of the cluster. Once.
    pub fn set_cluster(&self, cluster: Arc<dyn ClusterInfo>) {
        let _ = self.cluster.set(cluster);
    }

    /// The oldest snapshot that standbys reported, or none.
    pub fn set_feedback(&self, oldest: Option<Lsn>) {
        self.horizon.set_feedback(oldest);
    }

    /// min(visible, live snapshots, feedback), now: versions deleted at or below it are needed by nobody.
    pub fn vacuum_horizon(&self) -> Lsn {
        self.horizon.compute(&self.slots, self.visible())
    }

    /// The conflict LSN for removing index items that were marked dead at some earlier time.
    pub(crate) fn removal_horizon(&self) -> Lsn {
        self.vacuum_horizon();
        self.horizon.highest()
    }

    /// A vacuum horizon that may be a little old; cheap.
    pub(crate) fn recent_horizon(&self) -> Lsn {
        self.horizon.recent(&self.slots, self.visible())
    }

    /// What a committed hint, an all-visible bit and a freeze need of a commit LSN: below it nothing can be taken back, and
    /// everybody sees it (B8).
    pub(crate) fn settled(&self) -> Lsn {
        let settled = self.recent_horizon().min(self.quorum.get());
        // A standby replays only what is flushed here and on the quorum.
        if self.is_standby() {
            settled
        } else {
            settled.min(self.release.positions().flush)
        }
    }

    /// Something failed that no statement can answer for: no transaction begins any more, and the node should stop.
    pub(crate) fn fail(&self, error: &AccessError) {
        tracing::error!(%error, "the engine has failed and must be restarted");
        self.failed.store(true, Ordering::SeqCst);
    }

    /// Whether the node should stop.
    pub fn has_failed(&self) -> bool {
        self.failed.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod crash;
#[cfg(test)]
mod crash_tests;
#[cfg(test)]
mod linearity_tests;
#[cfg(test)]
mod model_tests;
#[cfg(test)]
mod standby_tests;
#[cfg(test)]
mod start_tests;
#[cfg(test)]
mod stress_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod wraparound_tests;
