//! Taking an answer back: its client has given up the wait for a commit that it depends on (C3).
//!
//! The statement is over, its whole answer is still in the driver's hands, and the session is to go on. What the client is told instead,
//! and everything that the session says later, must be the same whatever the unconfirmed commit holds, since it may be lost in a failover:
//!
//! - **The words** are chosen by what kind of statement it is, whether a block was open before it and whether that had changed anything;
//!   never by what the statement found. An UPDATE outside of a block that found no row is told like one that found some and has
//!   committed: 08007, resolution unknown. Inside a block everything is rolled back, whether the statement failed or not: 57014.
//! - **The session** is as before: a statement of rows without volatile functions leaves nothing behind in it but its transaction.
//!   `set_config`, `setseed` and advisory locks are volatile functions; a utility statement may leave anything. Their answers are not
//!   taken back: the connection ends.
//!
//! So the session depends again on what it depended on before, which was visible then.

use towline_base::{Lsn, SqlState};

use super::Session;
use super::transaction::Block;
use crate::error::SqlError;
use crate::plan::{Plan, PlanBody};
use crate::sink::RowSink;

/// What has run since [`Session::hold`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Ran {
    /// Nothing that took a decision.
    #[default]
    Nothing,
    /// Statements of rows; whether one of them may change or lock rows.
    Rows { changes: bool },
    /// Something that may leave more behind than rows.
    Other,
}

/// How the session stood when the answer began.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Held {
    depends_on: Lsn,
    open: bool,
    /// The transaction had changed something already.
    changed: bool,
    ran: Ran,
}

impl Held {
    /// A statement with this plan begins.
    pub(super) fn runs(&mut self, plan: &Plan) {
        let mine = plan.locks_rows || matches!(plan.body, PlanBody::Change(_));
        self.ran = match self.ran {
            _ if plan.volatile => Ran::Other,
            Ran::Nothing => Ran::Rows { changes: mine },
            Ran::Rows { changes } => Ran::Rows {
                changes: changes || mine,
            },
            Ran::Other => Ran::Other,
        };
    }

    /// Any other statement begins.
    pub(super) fn runs_other(&mut self) {
        self.ran = Ran::Other;
    }
}

impl Session {
    /// The answer of a statement begins, and nothing before it waits for anything: [`Session::depends_on`] is visible.
    pub fn hold(&mut self) {
        let open = self.block == Block::Open;
        // Outside of a block, whether settings of the transaction last is the statement's outcome.
        let settings = !open && self.settings.borrow().is_changed();
        self.held = Held {
            depends_on: self.depends_on,
            open,
            changed: self.txn.as_ref().is_some_and(|txn| txn.xid().is_some()),
            ran: if settings { Ran::Other } else { Ran::Nothing },
        };
    }

    /// Takes back what was answered since [`Session::hold`], of which nothing may have left: what the client is told instead of it. A block
    /// that is open fails. `None`: this answer cannot be taken back, and nothing was done.
    pub fn withdraw(&mut self, reason: &SqlError, out: &mut dyn RowSink) -> Option<SqlError> {
        let Ran::Rows { changes } = self.held.ran else {
            return None;
        };
        if self.running.is_some() || reason.sqlstate() != SqlState::QUERY_CANCELED {
            return None;
        }
        let error = match (self.held.open, self.block) {
            (true, Block::Open | Block::Failed) => {
                self.fail();
                withdrawn(reason)
            }
            (false, Block::Idle) if self.txn.is_none() => {
                if changes || self.held.changed {
                    unknown(reason)
                } else {
                    withdrawn(reason)
                }
            }
            _ => return None,
        };
        self.tell(out);
        self.depends_on = self.held.depends_on;
        Some(error)
    }
}

/// Nothing is left of the statement.
fn withdrawn(reason: &SqlError) -> SqlError {
    SqlError::new(SqlState::QUERY_CANCELED, reason.message())
        .with_detail("The answer depends on a commit that is not confirmed.")
}

/// The statement may have committed, and it may have found nothing to do.
fn unknown(reason: &SqlError) -> SqlError {
    SqlError::new(
        SqlState::TRANSACTION_RESOLUTION_UNKNOWN,
        format!(
            "the wait for a commit that the answer depends on was given up: {}",
            reason.message()
        ),
    )
    .with_detail(
        "If the transaction has changed anything, it has committed locally, but it is not known whether the commit quorum has it.",
    )
}
