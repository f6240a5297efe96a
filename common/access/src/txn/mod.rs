//! Transactions: begin, snapshot per statement, commands, relation locks, commit and rollback.
//!
//! The life of a writing transaction: [`Engine::begin`] claims a slot; each statement calls [`Transaction::begin_statement`]; the first
//! change takes an xid ([`Transaction::ensure_xid`]); [`Transaction::commit`] (see [`commit`]) inserts the commit record, stores the
//! CSN and lets row locks fall; the driver then awaits `engine.release().wait(lsn, level)` and only then answers. A reader has no
//! xid, writes nothing and costs a slot.
//!
//! Relation locks are held until the commit is *visible* (C2), by the commit queue; row locks fall at once.

pub mod commit;
pub mod slots;
pub mod snapshot;
pub mod xids;

use std::fmt;
use std::sync::Arc;

use smallvec::SmallVec;
use towline_base::{Lsn, RelFileNode, Xid};
use towline_wal::records::invalidation::Invalidation;

use crate::activity::Touched;
use crate::csn::XidStatus;
use crate::engine::Engine;
use crate::error::{AccessError, Result};
use crate::locks::{Acquired, LockMode, LockTag, OwnerId, RowKey, RowTicket};
use crate::release::Finish;
use crate::session::Interrupts;
use crate::step::{Step, Wait, WaitKind};
use slots::SlotGuard;
use snapshot::ComboCids;
pub use snapshot::Snapshot;
use xids::Assign;

/// How a transaction sees others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Isolation {
    /// A snapshot for each statement; a row changed meanwhile is looked at again in its newest version.
    #[default]
    ReadCommitted,
    /// One snapshot; a row changed since is an error (40001).
    RepeatableRead,
}

impl Isolation {
    /// PostgreSQL's words.
    pub fn as_str(self) -> &'static str {
        match self {
            Isolation::ReadCommitted => "read committed",
            Isolation::RepeatableRead => "repeatable read",
        }
    }
}

/// How a transaction begins.
#[derive(Clone, Debug, Default)]
pub struct TxnOptions {
    /// Its isolation level.
    pub isolation: Isolation,
    /// Whether it may change nothing.
    pub read_only: bool,
    /// The session's process number, for lock messages.
    pub pid: i32,
    /// The session's flags: how replay cancels it, and what scans look at.
    pub interrupts: Option<Arc<Interrupts>>,
}

/// An open transaction. Dropping it rolls it back.
pub struct Transaction {
    pub(crate) engine: Arc<Engine>,
    pub(crate) slot: SlotGuard,
    isolation: Isolation,
    read_only: bool,
    interrupts: Option<Arc<Interrupts>>,
    pub(crate) xid: Xid,
    command: u32,
    /// The current command has changed something, so that the next statement needs another command id.
    command_used: bool,
    snapshot: Option<Lsn>,
    pub(crate) combos: ComboCids,
    depends_on: Lsn,
    held: SmallVec<[(LockTag, u16); 6]>,
    /// Exclusive locks that standbys must hear of and have not yet.
    pub(crate) unlogged_locks: SmallVec<[u32; 2]>,
    pub(crate) finish: Option<Box<Finish>>,
    pub(crate) created: Vec<RelFileNode>,
    /// What it has done to tables, for their counts.
    pub(crate) touched: Touched,
    pub(crate) ended: bool,
    /// The catalog's view of this transaction's own changes; see `catalog`.
    pub(crate) catalog_view: Option<Arc<dyn std::any::Any + Send + Sync>>,
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Transaction")
            .field("xid", &self.xid)
            .field("command", &self.command)
            .field("snapshot", &self.snapshot)
            .field("depends_on", &self.depends_on)
            .finish_non_exhaustive()
    }
}

impl Transaction {
    pub(crate) fn start(engine: Arc<Engine>, options: TxnOptions) -> Result<Self> {
        let pid = u32::try_from(options.pid).unwrap_or(0);
        let slot = engine.slots().claim(pid, options.interrupts.clone())?;
        Ok(Transaction {
            engine,
            slot,
            isolation: options.isolation,
            read_only: options.read_only,
            interrupts: options.interrupts,
            xid: Xid::INVALID,
            command: 0,
            command_used: false,
            snapshot: None,
            combos: ComboCids::default(),
            depends_on: Lsn::INVALID,
            held: SmallVec::new(),
            unlogged_locks: SmallVec::new(),
            finish: None,
            created: Vec::new(),
            touched: Touched::default(),
            ended: false,
            catalog_view: None,
        })
    }

    /// The engine it belongs to.
    pub fn engine(&self) -> &Arc<Engine> {
        &self.engine
    }

    /// Its isolation level.
    pub fn isolation(&self) -> Isolation {
        self.isolation
    }

    /// SET TRANSACTION ISOLATION LEVEL, before the first snapshot (the caller checks).
    pub fn set_isolation(&mut self, isolation: Isolation) {
        self.isolation = isolation;
    }

    /// Whether it may change nothing.
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// SET TRANSACTION READ ONLY / READ WRITE.
    pub fn set_read_only(&mut self, read_only: bool) {
        self.read_only = read_only;
    }

    /// Its xid, once it has changed something.
    pub fn xid(&self) -> Option<Xid> {
        self.xid.is_valid().then_some(self.xid)
    }

    /// Under which identity it holds locks.
    pub fn owner(&self) -> OwnerId {
        self.slot.owner()
    }

    /// Whether a snapshot was taken.
    pub fn has_snapshot(&self) -> bool {
        self.snapshot.is_some()
    }

    /// The commit that must be visible before anything this transaction decided may be told (C3).
    pub fn depends_on(&self) -> Lsn {
        self.depends_on
    }

    /// Raises [`Transaction::depends_on`]: a decision was taken on a change committed at `lsn`.
    pub fn raise_depends_on(&mut self, lsn: Lsn) {
        if lsn > self.depends_on && lsn > self.engine.visible().get() {
            self.depends_on = lsn;
        }
    }

    /// Starts a statement: a new snapshot in READ COMMITTED, the first one in REPEATABLE READ; a new command id when the last
    /// command changed something.
    pub fn begin_statement(&mut self) -> Snapshot {
        self.next_command();
        if self.snapshot.is_none() || self.isolation == Isolation::ReadCommitted {
            self.snapshot = Some(self.take_snapshot());
        }
        self.snapshot()
    }

    /// A snapshot of now. One that is published already stays: a suspended portal, or the whole transaction, may still read with it. It is
    /// the older one, and so protects this one as well.
    fn take_snapshot(&self) -> Lsn {
        match self.slot.snapshot() {
            Some(_) => self.engine.visible().get(),
            None => snapshot::take(&self.slot, self.engine.visible()),
        }
    }

    /// Ends a statement in READ COMMITTED: what it saw need not be kept. Only when no portal still reads with an older snapshot.
    pub fn end_statement(&mut self) {
        if self.isolation == Isolation::ReadCommitted {
            self.slot.set_snapshot(None);
            self.snapshot = None;
        }
    }

    /// The current snapshot with the current command id; takes one if there is none.
    pub fn snapshot(&mut self) -> Snapshot {
        let lsn = match self.snapshot {
            Some(lsn) => lsn,
            None => {
                let lsn = self.take_snapshot();
                *self.snapshot.insert(lsn)
            }
        };
        Snapshot {
            lsn,
            xid: self.xid,
            command: self.command,
            next_xid: self.engine.next_xid(),
        }
    }

    /// A snapshot of what is committed and visible now, whatever the isolation level: what DDL reads the catalog with. Registered like
    /// any other, so it lives until the statement ends.
    pub fn latest_snapshot(&mut self) -> Snapshot {
        let lsn = self.take_snapshot();
        self.snapshot.get_or_insert(lsn);
        Snapshot {
            lsn,
            xid: self.xid,
            command: self.command,
            next_xid: self.engine.next_xid(),
        }
    }

    /// The current command id.
    pub fn command(&self) -> u32 {
        self.command
    }

    /// Makes the own changes so far visible to what follows (between the statements of one transaction, and inside DDL).
    pub fn next_command(&mut self) {
        if self.command_used {
            self.command += 1;
            self.command_used = false;
        }
    }

    pub(crate) fn use_command(&mut self) -> u32 {
        self.command_used = true;
        self.command
    }

    /// The error of a raised flag. Looked at by scans at every page.
    #[inline]
    pub fn check_interrupts(&self) -> Result<()> {
        match &self.interrupts {
            Some(interrupts) => interrupts.check(),
            None => Ok(()),
        }
    }

    /// 40001 when replay on a standby has meanwhile removed what this transaction's snapshot sees: asked when a statement has read its last
    /// row, since what it did not find may be what was removed.
    pub fn check_conflict(&self) -> Result<()> {
        match &self.interrupts {
            Some(interrupts) if interrupts.is_conflict() => interrupts.check(),
            _ => Ok(()),
        }
    }

    /// 25006 unless this transaction may write here and now. `command` is the statement's tag, as in "cannot execute INSERT in …".
    pub fn check_writable(&self, command: &str) -> Result<()> {
        if self.engine.is_standby() {
            return Err(AccessError::new(
                towline_base::SqlState::READ_ONLY_SQL_TRANSACTION,
                format!("cannot execute {command} in a read-only transaction"),
            ));
        }
        if self.read_only {
            Err(AccessError::read_only(command))
        } else {
            Ok(())
        }
    }

    /// Takes an xid if there is none yet. May wait for the quorum to reach the reservation.
    pub fn ensure_xid(&mut self) -> Result<Step<Xid>> {
        if self.xid.is_valid() {
            return Ok(Step::Done(self.xid));
        }
        loop {
            let quorum = self.engine.quorum().get();
            let (slot, csn) = (&self.slot, self.engine.csn());
            let assigned = self.engine.xids().assign(quorum, |xid| {
                csn.extend_to(xid)?;
                slot.set_xid(xid);
                Ok(())
            })?;
            match assigned {
                Assign::Assigned(xid, reserve) => {
                    self.xid = xid;
                    self.engine.writer_began();
                    if let Some(limit) = reserve {
                        // Ahead of need: failing to log it now only means that somebody else tries again later.
                        if let Step::Wait(_) = self.engine.reserve_xids(limit)? {}
                    }
                    return Ok(Step::Done(xid));
                }
                Assign::Reserve(limit) => {
                    if let Step::Wait(wait) = self.engine.reserve_xids(limit)? {
                        return Ok(Step::Wait(wait));
                    }
                }
                Assign::WaitFor(lsn) => return Ok(Step::Wait(self.engine.wait_quorum(lsn))),
                Assign::Busy(ended) => return Ok(Step::Wait(Wait::lsn(WaitKind::Xid, ended))),
            }
        }
    }

    /// Takes a lock, held until the end of the transaction is visible. An access exclusive lock on a relation is logged for standbys.
    pub fn lock(&mut self, tag: LockTag, mode: LockMode) -> Result<Step<()>> {
        let bit = 1u16 << (mode as u16);
        let held = self.held.iter().position(|(other, _)| *other == tag);
        if held.is_none_or(|at| self.held[at].1 & bit == 0) {
            let acquired = self.engine.locks().acquire(self.owner(), tag, mode);
            let at = held.unwrap_or_else(|| {
                self.held.push((tag, 0));
                self.held.len() - 1
            });
            if let Acquired::Queued(cell) = acquired {
                let locks = Arc::clone(self.engine.locks());
                return Ok(Step::Wait(Wait::cell(WaitKind::Lock, cell, locks, self.owner())));
            }
            self.held[at].1 |= bit;
            if let (LockTag::Relation(oid), LockMode::AccessExclusive) = (tag, mode) {
                self.unlogged_locks.push(oid);
            }
        }
        self.log_exclusive_locks()
    }

    /// Takes a lock only if it is free now.
    pub fn try_lock(&mut self, tag: LockTag, mode: LockMode) -> Result<Step<bool>> {
        let bit = 1u16 << (mode as u16);
        let held = self.held.iter().position(|(other, _)| *other == tag);
        if held.is_none_or(|at| self.held[at].1 & bit == 0) {
            if !self.engine.locks().try_acquire(self.owner(), tag, mode) {
                return Ok(Step::Done(false));
            }
            match held {
                Some(at) => self.held[at].1 |= bit,
                None => self.held.push((tag, bit)),
            }
            if let (LockTag::Relation(oid), LockMode::AccessExclusive) = (tag, mode) {
                self.unlogged_locks.push(oid);
            }
        }
        Ok(self.log_exclusive_locks()?.map(|()| true))
    }

    /// Whether it holds `tag` in `mode` or a stronger one.
    pub fn holds_lock(&self, tag: LockTag, mode: LockMode) -> bool {
        self.held
            .iter()
            .any(|(other, modes)| *other == tag && modes >> (mode as u16) != 0)
    }

    /// Gives up a lock before the end (a lock that protected nothing, because its object was gone).
    pub fn unlock(&mut self, tag: LockTag) {
        self.held.retain(|(other, _)| *other != tag);
        self.engine.locks().release(self.owner(), tag);
    }

    fn log_exclusive_locks(&mut self) -> Result<Step<()>> {
        if self.unlogged_locks.is_empty() {
            return Ok(Step::Done(()));
        }
        if self.engine.is_standby() {
            self.unlogged_locks.clear();
            return Ok(Step::Done(()));
        }
        let xid = crate::ready!(self.ensure_xid());
        let rels = std::mem::take(&mut self.unlogged_locks);
        match self.engine.log_standby_locks(xid, &rels) {
            Ok(Step::Done(())) => {
                self.slot.set_logged_locks();
                Ok(Step::Done(()))
            }
            other => {
                self.unlogged_locks = rels;
                other
            }
        }
    }

    /// Waits in the queue of a row that `blocker` holds. `place` keeps the place between steps. `None` when the blocker has
    /// ended meanwhile: look at the row again.
    pub fn wait_for_row(
        &self,
        key: RowKey,
        blocker: Xid,
        place: &mut Option<RowTicket>,
    ) -> Result<Option<Wait>> {
        let locks = self.engine.locks();
        match place {
            Some(ticket) => ticket.again(key, blocker),
            None => *place = Some(RowTicket::row(locks, self.owner(), key, blocker)),
        }
        self.wait_at(place, blocker)
    }

    /// Waits for the end of a transaction. `None` when it has ended: look again.
    pub fn wait_for_xid(&self, blocker: Xid, place: &mut Option<RowTicket>) -> Result<Option<Wait>> {
        *place = None;
        *place = Some(RowTicket::xid(self.engine.locks(), self.owner(), blocker));
        self.wait_at(place, blocker)
    }

    fn wait_at(&self, place: &Option<RowTicket>, blocker: Xid) -> Result<Option<Wait>> {
        if self.engine.csn().status(blocker)? != XidStatus::InProgress {
            return Ok(None);
        }
        let Some(ticket) = place else { return Ok(None) };
        let locks = Arc::clone(self.engine.locks());
        Ok(Some(Wait::cell(
            WaitKind::Row,
            Arc::clone(ticket.cell()),
            locks,
            self.owner(),
        )))
    }

    /// The relation's file was made by this transaction: removed if it rolls back.
    pub fn add_created(&mut self, rel: RelFileNode) {
        self.created.push(rel);
    }

    /// The relation's file goes when the commit is quorum-durable; nothing happens on rollback.
    pub fn add_dropped(&mut self, rel: RelFileNode) {
        self.finish_mut().dropped.push(rel);
    }

    /// The catalog changed: told to every cache, here and on standbys, just before the commit becomes visible.
    pub fn add_invalidation(&mut self, message: Invalidation) {
        self.finish_mut().invalidations.push(message);
    }

    /// Whether it has changed the catalog: it then sees a catalog of its own.
    pub fn has_catalog_changes(&self) -> bool {
        self.catalog_changes() > 0
    }

    /// How many invalidations it has collected.
    pub(crate) fn catalog_changes(&self) -> usize {
        self.finish
            .as_ref()
            .map_or(0, |finish| finish.invalidations.len())
    }

    fn finish_mut(&mut self) -> &mut Finish {
        self.finish.get_or_insert_default()
    }

    fn take_locks(&mut self) -> SmallVec<[LockTag; 4]> {
        std::mem::take(&mut self.held)
            .into_iter()
            .map(|(tag, _)| tag)
            .collect()
    }

    fn release_locks(&mut self) {
        let owner = self.owner();
        for tag in self.take_locks() {
            self.engine.locks().release(owner, tag);
        }
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        self.abort();
    }
}
