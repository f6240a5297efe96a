//! What VACUUM and ANALYZE tell the planner: rows and pages of a table and of its indexes, in pg_class.

use std::sync::Arc;

use towline_base::{ForkKind, Oid};

use crate::catalog::Table;
use crate::ddl::{DdlOp, Statement, UpdateStatistics};
use crate::error::Result;
use crate::step::Step;
use crate::txn::Transaction;

/// Writes the sizes, in the caller's transaction.
#[derive(Debug)]
pub struct SizesOp {
    table: Arc<Table>,
    rows: f64,
    owner: Oid,
    /// The table, then its indexes.
    at: usize,
    op: Option<Box<DdlOp>>,
}

impl SizesOp {
    /// So many rows were counted, on behalf of the role `owner`.
    pub fn new(table: Arc<Table>, rows: f64, owner: Oid) -> Self {
        SizesOp {
            table,
            rows,
            owner,
            at: 0,
            op: None,
        }
    }

    /// Goes on. A VACUUM that is there to get xids back has none for this, and does without.
    pub fn step(&mut self, txn: &mut Transaction) -> Result<Step<()>> {
        if txn.xid().is_none() && txn.engine().xids().is_exhausted() {
            return Ok(Step::Done(()));
        }
        loop {
            let (oid, node) = match self.at.checked_sub(1) {
                None => (self.table.oid, self.table.node),
                Some(at) => match self.table.indexes.get(at) {
                    Some(index) => (index.oid, index.node),
                    None => return Ok(Step::Done(())),
                },
            };
            let op = match &mut self.op {
                Some(op) => op,
                None => {
                    let pages = txn.engine().storage().nblocks(node, ForkKind::Main).unwrap_or(0);
                    let statement = Statement::UpdateStatistics(UpdateStatistics {
                        relation: oid,
                        pages,
                        rows: self.rows,
                    });
                    self.op.insert(Box::new(DdlOp::new(statement, self.owner)))
                }
            };
            crate::ready!(op.step(txn));
            self.op = None;
            self.at += 1;
        }
    }
}
