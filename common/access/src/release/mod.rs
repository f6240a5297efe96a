//! Commit release: which commits clients and snapshots may know of (I4), in LSN order (I1).
//!
//! A committer registers a lower bound in its slot, inserts its commit record, stores its CSN, [enqueues](CommitQueue::enqueue) the commit
//! here, and clears the bound. [`CommitQueue::advance`] is called whenever a position moved (from the WAL writer's post-flush hook, from
//! the primary role's ack path, and by committers that need no flush). It pops the satisfied commits from the front of the LSN-ordered queue,
//! runs their invalidations, publishes `visible`, lets their relation locks fall, and tells those who wait for them, in this order (C2): so
//! whoever has heard of a commit finds its locks free.
//!
//! Why `visible` never passes a commit whose CSN is not stored (C1). `advance` reads the positions first and the lowest bound
//! second. If a position covers a commit record, the record was inserted, and its bound was registered before that; so the
//! bound is either still seen here, or it has been cleared, after the CSN was stored and the commit enqueued. Commits of level off
//! are covered by no position: for them the highest LSN enqueued so far, read before the bound as well, takes that place.
//!
//! Invariants asserted here: no commit arrives at or below `visible`, commits leave in LSN order (I1); `visible` never falls, and the quorum
//! is not beyond what is durable here (I2).
//!
//! Many may call `advance` at once, and nobody waits for another: whoever finds it running leaves a mark, and the one that
//! runs goes round again.

pub(crate) mod note;

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use smallvec::SmallVec;
use towline_base::{CriticalSection, Lsn, LsnPublisher, LsnWatch, RelFileNode};
use towline_wal::records::invalidation::Invalidation;

use self::note::ReleaseNote;
use crate::locks::{LockManager, LockTag, OwnerId};
use crate::step::{Wait, WaitKind};
use crate::txn::slots::TxnSlots;

/// `synchronous_commit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum CommitLevel {
    /// Answer without waiting for any disk.
    Off,
    /// Durable here.
    Local,
    /// Durable here and written by the commit quorum.
    RemoteWrite,
    /// Durable on the commit quorum.
    #[default]
    On,
    /// Durable on the commit quorum and readable on the required standbys.
    RemoteApply,
}

impl CommitLevel {
    /// PostgreSQL's word.
    pub fn as_str(self) -> &'static str {
        match self {
            CommitLevel::Off => "off",
            CommitLevel::Local => "local",
            CommitLevel::RemoteWrite => "remote_write",
            CommitLevel::On => "on",
            CommitLevel::RemoteApply => "remote_apply",
        }
    }
}

impl fmt::Display for CommitLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for CommitLevel {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        Ok(match text {
            "off" | "false" | "no" | "0" => CommitLevel::Off,
            "local" => CommitLevel::Local,
            "remote_write" => CommitLevel::RemoteWrite,
            "on" | "true" | "yes" | "1" => CommitLevel::On,
            "remote_apply" => CommitLevel::RemoteApply,
            _ => return Err(()),
        })
    }
}

/// What the end of a transaction does when it becomes visible, beyond waking its waiters.
#[derive(Debug, Default)]
pub struct Finish {
    /// Catalog invalidations, run just before `visible` passes the commit.
    pub invalidations: Vec<Invalidation>,
    /// Files of dropped relations, unlinked when the quorum has the commit.
    pub dropped: Vec<RelFileNode>,
}

/// Told of invalidations in LSN order, just before the LSN becomes visible.
pub trait Invalidator: Send + Sync + fmt::Debug {
    /// The catalog changed at `lsn`. Must be quick and must not touch pages.
    fn invalidate(&self, lsn: Lsn, messages: &[Invalidation]);
}

#[derive(Debug)]
struct Entry {
    lsn: Lsn,
    level: CommitLevel,
    owner: OwnerId,
    locks: SmallVec<[LockTag; 4]>,
    finish: Option<Box<Finish>>,
}

/// The positions that release depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReleasePositions {
    /// Durable here.
    pub flush: Lsn,
    /// Written by the commit quorum.
    pub quorum_written: Lsn,
    /// Durable on the commit quorum.
    pub quorum: Lsn,
}

/// Whether a commit at `lsn` may be released, its predecessors being so.
pub fn is_satisfied(level: CommitLevel, lsn: Lsn, positions: &ReleasePositions) -> bool {
    match level {
        CommitLevel::Off => true,
        CommitLevel::Local => lsn <= positions.flush,
        CommitLevel::RemoteWrite => lsn <= positions.flush && lsn <= positions.quorum_written,
        CommitLevel::On | CommitLevel::RemoteApply => lsn <= positions.quorum,
    }
}

/// What a release publishes.
struct Publishers {
    /// What snapshots may see.
    visible: LsnPublisher,
    /// What clients may be told of: visible, and the relation locks up to there have fallen.
    released: LsnPublisher,
    /// Told before anything is published.
    note: Option<ReleaseNote>,
}

/// The queue of commits that are not released yet.
pub struct CommitQueue {
    slots: Arc<TxnSlots>,
    locks: Arc<LockManager>,
    flush: AtomicU64,
    quorum_written: AtomicU64,
    quorum: AtomicU64,
    pending: Mutex<VecDeque<Entry>>,
    /// The highest LSN enqueued so far.
    queued: AtomicU64,
    /// Set by whoever found `publish` taken.
    again: AtomicBool,
    publish: Mutex<Publishers>,
    /// Satisfied commits wait for a commit in flight below them.
    held_by_bound: AtomicBool,
    visible: LsnWatch,
    /// See [`Publishers::released`].
    released: LsnWatch,
    /// The read horizon of the required standbys, for remote_apply; none on a node alone.
    applied: ArcSwap<Option<LsnWatch>>,
    invalidators: Mutex<Vec<Arc<dyn Invalidator>>>,
    dropped: Mutex<VecDeque<(Lsn, RelFileNode)>>,
    any_dropped: AtomicBool,
    /// Runs once, between a release's look at the bounds and its look at the queue.
    #[cfg(test)]
    between_looks: Mutex<Option<BetweenLooks>>,
}

/// What a test does in the middle of a release.
#[cfg(test)]
type BetweenLooks = Box<dyn FnOnce(&CommitQueue) + Send>;

impl fmt::Debug for CommitQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CommitQueue")
            .field("visible", &self.visible.get())
            .field("pending", &self.pending.lock().len())
            .finish_non_exhaustive()
    }
}

impl CommitQueue {
    /// An empty queue; `visible` begins at `start`.
    pub fn new(slots: Arc<TxnSlots>, locks: Arc<LockManager>, start: Lsn) -> Arc<Self> {
        let (visible_publisher, visible) = LsnWatch::new(start);
        let (released_publisher, released) = LsnWatch::new(start);
        let publishers = Publishers {
            visible: visible_publisher,
            released: released_publisher,
            note: None,
        };
        Arc::new(CommitQueue {
            slots,
            locks,
            flush: AtomicU64::new(start.0),
            quorum_written: AtomicU64::new(start.0),
            quorum: AtomicU64::new(start.0),
            pending: Mutex::new(VecDeque::new()),
            queued: AtomicU64::new(start.0),
            again: AtomicBool::new(false),
            publish: Mutex::new(publishers),
            held_by_bound: AtomicBool::new(false),
            visible,
            released,
            applied: ArcSwap::from_pointee(None),
            invalidators: Mutex::new(Vec::new()),
            dropped: Mutex::new(VecDeque::new()),
            any_dropped: AtomicBool::new(false),
            #[cfg(test)]
            between_looks: Mutex::new(None),
        })
    }

    /// Who is told of invalidations.
    pub fn add_invalidator(&self, invalidator: Arc<dyn Invalidator>) {
        self.invalidators.lock().push(invalidator);
    }

    /// From now on `note` is told of every release before it is published.
    pub(crate) fn keep_note(&self, note: ReleaseNote) {
        self.publish.lock().note = Some(note);
    }

    /// What snapshots may see.
    pub fn visible(&self) -> &LsnWatch {
        &self.visible
    }

    /// The positions as last told.
    pub fn positions(&self) -> ReleasePositions {
        ReleasePositions {
            flush: Lsn(self.flush.load(Ordering::SeqCst)),
            quorum_written: Lsn(self.quorum_written.load(Ordering::SeqCst)),
            quorum: Lsn(self.quorum.load(Ordering::SeqCst)),
        }
    }

    /// Where remote_apply replies look: the read horizon that the required standbys have reached.
    pub fn set_applied(&self, applied: Option<LsnWatch>) {
        self.applied.store(Arc::new(applied));
    }

    /// Queues a commit whose record is inserted and whose CSN is stored; its bound is still registered.
    pub fn enqueue(
        &self,
        lsn: Lsn,
        level: CommitLevel,
        owner: OwnerId,
        locks: SmallVec<[LockTag; 4]>,
        finish: Option<Box<Finish>>,
    ) {
        let entry = Entry {
            lsn,
            level,
            owner,
            locks,
            finish,
        };
        let mut pending = self.pending.lock();
        let visible = self.visible.get();
        assert!(
            lsn > visible,
            "a commit at {lsn} arrives when {visible} is visible (I1)"
        );
        // Committers arrive almost in LSN order: the place is found from the back.
        let mut at = pending.len();
        while at > 0 && pending[at - 1].lsn > lsn {
            at -= 1;
        }
        assert!(at == 0 || pending[at - 1].lsn < lsn, "two commits at {lsn}");
        pending.insert(at, entry);
        self.queued.fetch_max(lsn.0, Ordering::SeqCst);
    }

    /// Positions have moved: releases what is satisfied now. Values below earlier ones are ignored.
    ///
    /// # Panics
    /// When the quorum is beyond the flush (I2), or a release would break I1.
    pub fn advance(&self, flush: Lsn, quorum_written: Lsn, quorum: Lsn) {
        let flush = flush.max(Lsn(self.flush.fetch_max(flush.0, Ordering::SeqCst)));
        assert!(
            quorum <= flush,
            "the quorum {quorum} is beyond the flush {flush} (I2)"
        );
        self.quorum_written.fetch_max(quorum_written.0, Ordering::SeqCst);
        self.quorum.fetch_max(quorum.0, Ordering::SeqCst);
        self.release();
    }

    /// Releases what the known positions allow.
    pub fn release(&self) {
        loop {
            self.again.store(true, Ordering::SeqCst);
            let Some(mut publishers) = self.publish.try_lock() else {
                return;
            };
            while self.again.swap(false, Ordering::SeqCst) {
                self.release_group(&mut publishers);
            }
            drop(publishers);
            if !self.again.load(Ordering::SeqCst) {
                return;
            }
        }
    }

    fn release_group(&self, publishers: &mut Publishers) {
        // A commit that has left the queue and is not published would never be seen, and its locks never fall.
        let section = CriticalSection::enter("commits taken from the queue and not released");
        self.release_satisfied(publishers);
        section.leave();
    }

    fn release_satisfied(&self, publishers: &mut Publishers) {
        // Positions first, the bound second: see the module.
        let queued = Lsn(self.queued.load(Ordering::SeqCst));
        let positions = self.positions();
        let mut group: SmallVec<[Entry; 16]> = SmallVec::new();
        loop {
            let bound = self.slots.lowest_bound().unwrap_or(Lsn::MAX);
            #[cfg(test)]
            self.run_between_looks();
            if !self.pop_satisfied(&positions, queued, bound, &mut group) {
                break;
            }
            // Held back by a commit in flight alone. Whoever clears its bound sees the mark and releases; if it was cleared before the
            // mark stood, the bound has changed, and we go round ourselves.
            self.held_by_bound.store(true, Ordering::SeqCst);
            if self.slots.lowest_bound().unwrap_or(Lsn::MAX) == bound {
                break;
            }
        }
        let Some(last) = group.last() else { return };
        let visible = last.lsn;
        assert!(
            group.windows(2).all(|pair| pair[0].lsn < pair[1].lsn),
            "commits leave in LSN order (I1)"
        );
        assert!(
            visible > publishers.visible.get(),
            "visible would move from {} to {visible} (I2)",
            publishers.visible.get()
        );
        if group.iter().any(|entry| entry.finish.is_some()) {
            self.before_visible(&group);
        }
        if let Some(note) = &mut publishers.note {
            note.tell(&positions, visible);
        }
        publishers.visible.advance(visible);
        for entry in &group {
            for tag in &entry.locks {
                self.locks.release(entry.owner, *tag);
            }
        }
        publishers.released.advance(visible);
    }

    #[cfg(test)]
    fn run_between_looks(&self) {
        let run = self.between_looks.lock().take();
        if let Some(run) = run {
            run(self);
        }
    }

    /// Takes satisfied commits up to `bound` from the queue. True when the next one is satisfied, too, but above the bound.
    fn pop_satisfied(
        &self,
        positions: &ReleasePositions,
        queued: Lsn,
        bound: Lsn,
        group: &mut SmallVec<[Entry; 16]>,
    ) -> bool {
        let mut pending = self.pending.lock();
        while let Some(front) = pending.front() {
            // One that arrived since has a release of its own coming.
            if front.lsn > queued || !is_satisfied(front.level, front.lsn, positions) {
                return false;
            }
            if front.lsn > bound {
                return true;
            }
            group.extend(pending.pop_front());
        }
        false
    }

    /// A committer has cleared its bound: releases what was held back by it alone.
    pub fn bound_cleared(&self) {
        if self.held_by_bound.swap(false, Ordering::SeqCst) {
            self.release();
        }
    }

    #[cold]
    fn before_visible(&self, group: &[Entry]) {
        let invalidators = self.invalidators.lock().clone();
        for entry in group {
            let Some(finish) = &entry.finish else { continue };
            self.finish(entry.lsn, finish, &invalidators);
        }
    }

    fn finish(&self, lsn: Lsn, finish: &Finish, invalidators: &[Arc<dyn Invalidator>]) {
        if !finish.invalidations.is_empty() {
            for invalidator in invalidators {
                invalidator.invalidate(lsn, &finish.invalidations);
            }
        }
        if !finish.dropped.is_empty() {
            self.add_dropped(lsn, finish.dropped.iter().copied());
        }
    }

    /// Files that may be unlinked: their drop (or the abort of their creation) is at most `quorum`.
    pub fn take_dropped(&self, quorum: Lsn) -> Vec<(Lsn, RelFileNode)> {
        let mut dropped = self.dropped.lock();
        let mut taken = Vec::new();
        dropped.retain(|(lsn, rel)| {
            let ready = *lsn <= quorum;
            if ready {
                taken.push((*lsn, *rel));
            }
            !ready
        });
        self.any_dropped.store(!dropped.is_empty(), Ordering::SeqCst);
        taken
    }

    /// Whether [`CommitQueue::take_dropped`] may have something.
    pub fn has_dropped(&self) -> bool {
        self.any_dropped.load(Ordering::Relaxed)
    }

    /// Files to be unlinked once the quorum has `lsn` (those an aborted transaction had created).
    pub fn add_dropped(&self, lsn: Lsn, rels: impl IntoIterator<Item = RelFileNode>) {
        let mut dropped = self.dropped.lock();
        dropped.extend(rels.into_iter().map(|rel| (lsn, rel)));
        self.any_dropped.store(!dropped.is_empty(), Ordering::SeqCst);
    }

    /// A standby's read horizon moved to `horizon`: `finished` are the commits on the way that have something to do, in LSN order.
    ///
    /// # Panics
    /// When the horizon would move backwards (I2).
    pub fn advance_horizon(&self, horizon: Lsn, finished: &[(Lsn, Finish)]) {
        let mut publishers = self.publish.lock();
        if !finished.is_empty() {
            let invalidators = self.invalidators.lock().clone();
            for (lsn, finish) in finished {
                self.finish(*lsn, finish, &invalidators);
            }
        }
        publishers.visible.advance(horizon);
        publishers.released.advance(horizon);
    }

    /// Waits until the commit at `lsn` is released, and for remote_apply also until the required standbys can read it.
    pub fn wait(&self, lsn: Lsn, level: CommitLevel) -> Wait {
        let applied = match level {
            CommitLevel::RemoteApply => self
                .applied
                .load()
                .as_ref()
                .as_ref()
                .map(|watch| watch.wait_for(lsn)),
            _ => None,
        };
        Wait::commit(WaitKind::Visible(lsn), self.released.wait_for(lsn), applied)
    }

    /// Whether the commit at `lsn` is released: snapshots see it, and its relation locks have fallen.
    pub fn is_visible(&self, lsn: Lsn) -> bool {
        self.released.get() >= lsn
    }

    /// How many commits wait.
    pub fn pending(&self) -> usize {
        self.pending.lock().len()
    }
}

#[cfg(test)]
mod tests;
