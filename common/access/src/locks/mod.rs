//! Who waits for whom: relation locks, row queues, transaction ends, and the search for circles.
//!
//! - **Relation locks** ([`relation`]) have PostgreSQL's eight modes and conflict table, and a FIFO queue each. They are
//!   owned by an [`OwnerId`], one per transaction, and fall when the transaction's commit is *visible* (DESIGN §6, C2).
//! - **Row queues** ([`rows`]): a row is locked by its `xmax`, on the page; here is only the queue of those who
//!   found it locked. Only the head of a queue is woken (C8).
//! - **Deadlocks** ([`deadlock`]): nothing is tracked while all goes well; whoever waited longer than `deadlock_timeout`
//!   builds the waits-for graph from both tables and looks for a circle through itself.
//!
//! The manager never blocks a thread: a caller gets what it asked for, or a [`crate::WaitCell`] that is rung later.

pub mod deadlock;
pub mod relation;
pub mod rows;

use std::fmt;
use std::sync::Arc;

use towline_base::Xid;

use crate::error::Result;
use crate::txn::slots::TxnSlots;

pub use relation::{Acquired, LockMode, LockTag};
pub use rows::{RowKey, RowTicket};

use relation::RelationLocks;
use rows::RowWaits;

/// Who holds or waits for locks: one per transaction, never used again.
///
/// The low 32 bits are the transaction's slot (see [`TxnSlots`]), the high ones tell its users apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerId(pub u64);

impl OwnerId {
    /// Under which identity a transaction of the primary holds its locks on a standby.
    pub fn replayed(xid: Xid) -> OwnerId {
        OwnerId(1 << 63 | xid.0)
    }

    /// Whether this is such an identity: no transaction of this node.
    pub fn is_replayed(self) -> bool {
        self.0 >> 63 != 0
    }

    /// The slot of the transaction.
    pub fn slot(self) -> u32 {
        self.0 as u32
    }
}

impl fmt::Debug for OwnerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "owner {}.{}", self.0 >> 32, self.slot())
    }
}

/// All locks of a node.
#[derive(Debug)]
pub struct LockManager {
    pub(crate) relations: RelationLocks,
    pub(crate) rows: RowWaits,
    pub(crate) slots: Arc<TxnSlots>,
}

impl LockManager {
    /// No lock held.
    pub fn new(slots: Arc<TxnSlots>) -> Arc<Self> {
        Arc::new(LockManager {
            relations: RelationLocks::new(),
            rows: RowWaits::new(),
            slots,
        })
    }

    /// Asks for a relation or object lock; see [`RelationLocks::acquire`].
    pub fn acquire(&self, owner: OwnerId, tag: LockTag, mode: LockMode) -> Acquired {
        self.relations.acquire(owner, tag, mode)
    }

    /// Asks for a lock and does not queue; false when it is not free (NOWAIT).
    pub fn try_acquire(&self, owner: OwnerId, tag: LockTag, mode: LockMode) -> bool {
        self.relations.try_acquire(owner, tag, mode)
    }

    /// Gives up what `owner` holds or waits for under `tag`.
    pub fn release(&self, owner: OwnerId, tag: LockTag) {
        self.relations.release(owner, tag);
    }

    /// The xid has ended (its status is final): wakes the heads of the queues that it blocked. One load when nobody waits.
    pub fn xid_ended(&self, xid: Xid) {
        self.rows.xid_ended(xid);
    }

    /// 40P01 when `owner` waits, through others, for itself.
    pub fn check_deadlock(&self, owner: OwnerId) -> Result<()> {
        deadlock::check(self, owner)
    }
}
