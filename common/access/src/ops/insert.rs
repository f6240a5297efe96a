//! INSERT of one row, and of the many rows of a COPY.

use std::sync::Arc;

use towline_base::Tid;
use towline_types::Datum;

use super::index::Entries;
use super::myself;
use crate::catalog::Table;
use crate::error::Result;
use crate::heap::form_toasted;
use crate::heap::insert::{self, Inserter};
use crate::step::Step;
use crate::toast::Outgoing;
use crate::txn::Transaction;

/// Inserts one row.
#[derive(Debug)]
pub struct InsertOp {
    table: Arc<Table>,
    tuple: Vec<u8>,
    outgoing: Outgoing,
    tid: Option<Tid>,
    entries: Entries,
}

impl InsertOp {
    /// A row with a value for each column (dropped ones NULL). NOT NULL was checked by the caller.
    ///
    /// # Errors
    /// 54000 when the row does not fit a page.
    pub fn new(table: Arc<Table>, values: &[Datum]) -> Result<Self> {
        let mut tuple = Vec::new();
        let moved = form_toasted(&table.layout, values, table.toast_oid(), &mut tuple)?;
        Ok(InsertOp {
            table,
            tuple,
            outgoing: Outgoing::new(moved),
            tid: None,
            entries: Entries::default(),
        })
    }

    /// Makes the operation ready for another row of the same table, keeping its buffer.
    pub fn reset(&mut self, values: &[Datum]) -> Result<()> {
        self.tid = None;
        self.entries = Entries::default();
        let toast = self.table.toast_oid();
        self.outgoing = Outgoing::new(form_toasted(&self.table.layout, values, toast, &mut self.tuple)?);
        Ok(())
    }

    /// Goes on. The value is the new row's address; 23505 for a duplicate key.
    pub fn step(&mut self, txn: &mut Transaction) -> Result<Step<Tid>> {
        let tid = match self.tid {
            Some(tid) => tid,
            None => {
                let me = crate::ready!(myself(txn));
                crate::ready!(self.outgoing.step(txn, &self.table, &mut self.tuple));
                let who = Inserter {
                    xid: me.xid,
                    command: me.command,
                    slot: me.slot,
                };
                let engine = txn.engine().clone();
                let (rel, fillfactor) = (self.table.node, self.table.fillfactor);
                let tid = crate::ready!(insert::insert(&engine, rel, fillfactor, &who, &mut self.tuple));
                *self.tid.insert(tid)
            }
        };
        crate::ready!(
            self.entries
                .step(txn, &self.table, &self.tuple, &self.outgoing, tid)
        );
        txn.touched.inserted(&self.table, 1);
        Ok(Step::Done(tid))
    }
}

/// Rows that a COPY collects before it writes them.
const BATCH_ROWS: usize = 1000;
const BATCH_BYTES: usize = 64 * 1024;

/// Inserts many rows with one record per page: COPY, CREATE TABLE AS, INSERT … SELECT.
#[derive(Debug)]
pub struct MultiInsertOp {
    table: Arc<Table>,
    tuples: Vec<Vec<u8>>,
    /// What moves out of line, with the number of its tuple; the first of them are written.
    outgoing: Vec<(usize, Outgoing)>,
    written: usize,
    bytes: usize,
    /// Buffers to be used again.
    spare: Vec<Vec<u8>>,
    /// Addresses of the first tuples, which are in the heap; their index entries may be missing.
    placed: Vec<Tid>,
    /// Tuples done entirely.
    done: usize,
    entries: Entries,
}

impl MultiInsertOp {
    /// No rows yet.
    pub fn new(table: Arc<Table>) -> Self {
        MultiInsertOp {
            table,
            tuples: Vec::new(),
            outgoing: Vec::new(),
            written: 0,
            bytes: 0,
            spare: Vec::new(),
            placed: Vec::new(),
            done: 0,
            entries: Entries::default(),
        }
    }

    /// Adds a row; true when the batch is full and `step` should be called until it is done.
    pub fn push(&mut self, values: &[Datum]) -> Result<bool> {
        let mut tuple = self.spare.pop().unwrap_or_default();
        let toast = self.table.toast_oid();
        let moved = form_toasted(&self.table.layout, values, toast, &mut tuple)?;
        if !moved.is_empty() {
            let moved = Outgoing::new(moved);
            self.bytes += moved.len();
            self.outgoing.push((self.tuples.len(), moved));
        }
        self.bytes += tuple.len();
        self.tuples.push(tuple);
        Ok(self.is_full())
    }

    /// Whether the batch should be written.
    pub fn is_full(&self) -> bool {
        self.tuples.len() >= BATCH_ROWS || self.bytes >= BATCH_BYTES
    }

    /// Rows pushed and not written yet.
    pub fn pending(&self) -> usize {
        self.tuples.len()
    }

    /// Writes the batch; the value is the number of rows written.
    pub fn step(&mut self, txn: &mut Transaction) -> Result<Step<usize>> {
        loop {
            while self.done < self.placed.len() {
                let (tuple, tid) = (&self.tuples[self.done], self.placed[self.done]);
                let none = Outgoing::default();
                let outgoing = match self.outgoing.binary_search_by_key(&self.done, |(at, _)| *at) {
                    Ok(found) => &self.outgoing[found].1,
                    Err(_) => &none,
                };
                crate::ready!(self.entries.step(txn, &self.table, tuple, outgoing, tid));
                self.entries = Entries::default();
                self.done += 1;
            }
            if self.done == self.tuples.len() {
                let written = self.tuples.len();
                txn.touched.inserted(&self.table, written);
                self.spare.append(&mut self.tuples);
                self.placed.clear();
                self.outgoing.clear();
                (self.done, self.bytes, self.written) = (0, 0, 0);
                return Ok(Step::Done(written));
            }
            let me = crate::ready!(myself(txn));
            while let Some((at, outgoing)) = self.outgoing.get_mut(self.written) {
                crate::ready!(outgoing.step(txn, &self.table, &mut self.tuples[*at]));
                self.written += 1;
            }
            let who = Inserter {
                xid: me.xid,
                command: me.command,
                slot: me.slot,
            };
            let engine = txn.engine().clone();
            let rest = &mut self.tuples[self.placed.len()..];
            let (rel, fillfactor) = (self.table.node, self.table.fillfactor);
            let tids = crate::ready!(insert::multi_insert(&engine, rel, fillfactor, &who, rest));
            self.placed.extend(tids);
        }
    }
}
