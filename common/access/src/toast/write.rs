//! Chunks of new values, written before the row that points to them.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use towline_base::PageId;
use towline_types::{Datum, OutOfLine, Stored};

use super::read::chunks_of;
use super::{CHUNK, no_index};
use crate::btree::{Direction, IndexScan, ScanBounds};
use crate::catalog::{FIRST_USER_OID, Table};
use crate::engine::Engine;
use crate::error::{AccessError, Result};
use crate::heap::visibility::tuple_at;
use crate::locks::{LockMode, LockTag};
use crate::ops::MultiInsertOp;
use crate::step::{Step, Wait};
use crate::txn::Transaction;

/// Batches of chunks written before others are let run: half a megabyte.
const BATCHES_PER_TURN: u32 = 8;
/// Entries at the end of the index that are looked at for a live one.
const MOST_DEAD: usize = 1000;

/// The values of one row that move out of line, and how far they are.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    values: Vec<OutOfLine>,
    /// Values whose chunks are all written.
    done: usize,
    chunks: Option<Chunks>,
}

/// The chunks of one value being written.
#[derive(Debug)]
struct Chunks {
    value: u32,
    written: usize,
    next: i32,
    batch: Box<MultiInsertOp>,
    batches: u32,
}

impl Outgoing {
    /// These values, of which nothing is written yet.
    pub(crate) fn new(values: Vec<OutOfLine>) -> Outgoing {
        Outgoing {
            values,
            done: 0,
            chunks: None,
        }
    }

    /// Whether nothing moves out of line.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Bytes of all chunks.
    pub(crate) fn len(&self) -> usize {
        self.values.iter().map(|value| value.bytes().len()).sum()
    }

    /// The payload of an attribute that moves out of line here.
    pub(crate) fn payload(&self, attr: usize) -> Result<Option<Vec<u8>>> {
        let found = self.values.iter().find(|value| value.attr == attr);
        Ok(found.map(OutOfLine::payload).transpose()?)
    }

    /// Writes what is left to write, and the numbers of the values into the pointers of `tuple`.
    pub(crate) fn step(
        &mut self,
        txn: &mut Transaction,
        table: &Table,
        tuple: &mut [u8],
    ) -> Result<Step<()>> {
        if self.done == self.values.len() {
            return Ok(Step::Done(()));
        }
        let toast = table
            .toast
            .as_ref()
            .ok_or_else(|| AccessError::internal("a value moves out of line where nothing can go"))?;
        crate::ready!(txn.lock(LockTag::Relation(toast.oid.0), LockMode::RowExclusive));
        while let Some(out) = self.values.get_mut(self.done) {
            let chunks = match &mut self.chunks {
                Some(chunks) => chunks,
                None => {
                    out.pointer.value = new_value(txn.engine(), toast)?;
                    let place = tuple.get_mut(out.at..out.at + towline_types::ToastPointer::SIZE);
                    place
                        .ok_or_else(|| AccessError::internal("a TOAST pointer lies outside of its row"))?
                        .copy_from_slice(&out.pointer.encode());
                    self.chunks.insert(Chunks {
                        value: out.pointer.value,
                        written: 0,
                        next: 0,
                        batch: Box::new(MultiInsertOp::new(Arc::clone(toast))),
                        batches: 0,
                    })
                }
            };
            crate::ready!(chunks.step(txn, out.bytes()));
            self.chunks = None;
            self.done += 1;
        }
        Ok(Step::Done(()))
    }
}

impl Chunks {
    fn step(&mut self, txn: &mut Transaction, bytes: &[u8]) -> Result<Step<()>> {
        loop {
            while self.written < bytes.len() && !self.batch.is_full() {
                let chunk = &bytes[self.written..bytes.len().min(self.written + CHUNK)];
                self.batch.push(&[
                    Datum::Oid(self.value),
                    Datum::Int4(self.next),
                    Datum::Bytea(chunk.into()),
                ])?;
                self.written += chunk.len();
                self.next += 1;
            }
            if self.batch.pending() == 0 {
                return Ok(Step::Done(()));
            }
            txn.check_interrupts()?;
            crate::ready!(self.batch.step(txn));
            self.batches += 1;
            if self.batches.is_multiple_of(BATCHES_PER_TURN) && self.written < bytes.len() {
                return Ok(Step::Wait(Wait::turn()));
            }
        }
    }
}

/// A number that no value of this TOAST table has, not even a dead one whose chunks are still there.
///
/// The counter is one for all tables of the node and only says where to look first: after a start it begins anew, and goes behind the
/// highest number of a table where it finds its own taken. Two transactions never get the same number from it.
fn new_value(engine: &Engine, toast: &Arc<Table>) -> Result<u32> {
    let counter = engine.next_toast_value();
    loop {
        let value = counter.fetch_add(1, Ordering::SeqCst);
        if value < FIRST_USER_OID {
            // All numbers were used once. Those below are left to others, as PostgreSQL does.
            counter.fetch_max(FIRST_USER_OID, Ordering::SeqCst);
            continue;
        }
        if chunks_of(toast, value)?.next(engine.storage().pool())?.is_none() {
            return Ok(value);
        }
        if let Some(last) = last_value(engine, toast)?
            && last >= value
            && last < u32::MAX
        {
            counter.fetch_max(last + 1, Ordering::SeqCst);
        }
    }
}

/// About the highest number in a TOAST table.
fn last_value(engine: &Engine, toast: &Table) -> Result<Option<u32>> {
    let index = toast.indexes.first().ok_or_else(|| no_index(toast))?;
    let mut scan = IndexScan::new(Arc::clone(index), &ScanBounds::default(), Direction::Backward)?;
    for _ in 0..MOST_DEAD {
        let Some(tid) = scan.next(engine.storage().pool())? else {
            return Ok(None);
        };
        let page = engine.storage().pin(PageId::main(toast.node, tid.block))?.read();
        let Some(tuple) = tuple_at(&page, tid.block, tid.offset)? else {
            continue;
        };
        if let Some(Stored::Plain(&[a, b, c, d])) =
            toast
                .layout
                .stored(tuple.data(), tuple.bitmap(), tuple.natts(), 0)?
        {
            return Ok(Some(u32::from_le_bytes([a, b, c, d])));
        }
    }
    Ok(None)
}
