//! Row operations: insert, update, delete, lock. Resumable steps that never wait (DESIGN §5).
//!
//! An operation keeps one pending row and calls its [`crate::heap`] attempt until it is done. When a running transaction holds the row it
//! takes a place in the row's queue and returns a [`crate::Wait`]; the driver awaits it and calls `step` again, and the operation looks at the row
//! anew. What it then finds is an outcome, not a decision: READ COMMITTED re-checks the newest version in the executor and retries with
//! `retarget`; REPEATABLE READ gets 40001 here.
//!
//! A unique key that a running transaction may take or give up is waited for in the same way, after the heap tuple is in.

mod delete;
mod index;
mod insert;
mod lock;
mod update;

use towline_base::Tid;

use crate::catalog::Table;
use crate::error::{AccessError, Result};
use crate::heap::modify::{self, Myself, Verdict};
use crate::locks::RowTicket;
use crate::step::{Step, Wait};
use crate::txn::{Isolation, Transaction};

pub use delete::DeleteOp;
pub(crate) use index::wait_for;
pub use insert::{InsertOp, MultiInsertOp};
pub use lock::{LockRowOp, LockWait};
pub use update::UpdateOp;

/// How an operation on an existing row ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowOutcome {
    /// It is done; the address of the newest version (of the deleted one, for a delete).
    Done(Tid),
    /// Another transaction replaced the row meanwhile: look at this version, and `retarget` if it still qualifies. READ COMMITTED only.
    Updated {
        /// The newest version found so far.
        newest: Tid,
    },
    /// Another transaction deleted the row meanwhile. READ COMMITTED only.
    Deleted,
    /// The same command changed the row already: skip it.
    SelfModified,
    /// The row is locked, and the operation was told not to wait (SKIP LOCKED).
    Skipped,
}

/// What to do about a verdict that is not "free".
enum Refusal {
    Outcome(RowOutcome),
    Wait(Wait),
    /// The holder has ended: try again.
    Retry,
}

/// The transaction as the heap sees it; its command counts as used.
fn myself(txn: &mut Transaction) -> Result<Step<Myself>> {
    let xid = crate::ready!(txn.ensure_xid());
    let command = txn.use_command();
    Ok(Step::Done(Myself {
        xid,
        command,
        slot: txn.owner().slot(),
    }))
}

/// Turns a verdict into an outcome, an error, or a place in the row's queue.
fn refuse(
    txn: &mut Transaction,
    table: &Table,
    tid: Tid,
    verdict: Verdict,
    place: &mut Option<RowTicket>,
) -> Result<Refusal> {
    let (relation, rel) = (table.oid.0, table.node);
    let repeatable = txn.isolation() == Isolation::RepeatableRead;
    Ok(match verdict {
        Verdict::Free(_) => Refusal::Retry,
        Verdict::Held(xid) => match txn.wait_for_row((relation, tid), xid, place)? {
            Some(wait) => Refusal::Wait(wait),
            None => Refusal::Retry,
        },
        Verdict::ByMyself(_) => Refusal::Outcome(RowOutcome::SelfModified),
        Verdict::Gone => Refusal::Outcome(RowOutcome::Deleted),
        Verdict::Updated(newest, lsn) => {
            txn.raise_depends_on(lsn);
            if repeatable {
                return Err(AccessError::concurrent_update());
            }
            let newest = modify::follow(txn, rel, newest)?;
            Refusal::Outcome(RowOutcome::Updated { newest })
        }
        Verdict::Deleted(lsn) => {
            txn.raise_depends_on(lsn);
            if repeatable {
                return Err(AccessError::concurrent_delete());
            }
            Refusal::Outcome(RowOutcome::Deleted)
        }
    })
}

/// The row is the own transaction's now: the rest of its queue waits for this transaction.
fn took_row(place: &mut Option<RowTicket>, newest: Tid, me: &Myself) {
    if let Some(ticket) = place.take() {
        ticket.hand_on(newest, me.xid);
    }
}
