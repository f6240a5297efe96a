//! A value out of its chunks.

use std::sync::Arc;

use towline_base::{PageId, Tid, Xid};
use towline_types::{Datum, Stored, ToastPointer, disk};

use super::{CHUNK, damaged, no_index};
use crate::btree::{Direction, IndexScan, ScanBounds};
use crate::catalog::{Index, Table};
use crate::error::{AccessError, Result};
use crate::heap::visibility::{Outcome, inserter, tuple_at};
use crate::txn::Transaction;

/// Bytes read before the whole length that a pointer tells is reserved: one that is damaged must prove itself first.
const TRUST_AFTER: usize = 32 * CHUNK;

/// The scan for the chunks of one value, in their order.
pub(super) fn chunks_of(toast: &Table, value: u32) -> Result<IndexScan> {
    let index: &Arc<Index> = toast.indexes.first().ok_or_else(|| no_index(toast))?;
    let bounds = ScanBounds::equal(vec![Datum::Oid(value)]);
    IndexScan::new(Arc::clone(index), &bounds, Direction::Forward)
}

/// Reads one value, some chunks at a time; nothing is latched or pinned in between.
#[derive(Debug)]
pub struct ToastReader {
    toast: Arc<Table>,
    pointer: ToastPointer,
    scan: IndexScan,
    next: usize,
    bytes: Vec<u8>,
}

impl ToastReader {
    /// A reader of the value that a row of `table` points to.
    ///
    /// # Errors
    /// XX001 when it points to another table's values.
    pub fn new(table: &Table, pointer: ToastPointer) -> Result<ToastReader> {
        let toast = table
            .toast
            .as_ref()
            .filter(|toast| toast.oid.0 == pointer.relation);
        let Some(toast) = toast else {
            return Err(AccessError::corrupted(format!(
                "a row of \"{}\" points to toast value {} in relation {}, which is not its TOAST table",
                table.name, pointer.value, pointer.relation
            ))
            .with_table(&table.schema_name, &table.name));
        };
        Ok(ToastReader {
            toast: Arc::clone(toast),
            pointer,
            scan: chunks_of(toast, pointer.value)?,
            next: 0,
            bytes: Vec::with_capacity(pointer.stored_len().min(TRUST_AFTER)),
        })
    }

    /// Reads up to `chunks` more chunks. The value's payload, when it is whole.
    ///
    /// # Errors
    /// XX001 for a chunk that is missing, too much, or of a wrong size; an interrupt.
    pub fn step(&mut self, txn: &Transaction, chunks: usize) -> Result<Option<Vec<u8>>> {
        let total = self.pointer.stored_len().div_ceil(CHUNK);
        for _ in 0..chunks {
            let Some(tid) = self.scan.next(txn.engine().storage().pool())? else {
                // What is missing may have been removed by replay, which raises the flag first.
                txn.check_interrupts()?;
                if self.next < total {
                    let what = format!("missing chunk number {}", self.next);
                    return Err(damaged(&self.toast, self.pointer.value, what));
                }
                return self.finish().map(Some);
            };
            let taken = self.take(txn, tid, total);
            // Before anything is called damage.
            txn.check_interrupts()?;
            taken?;
        }
        Ok(None)
    }

    /// Bytes reserved for the value.
    #[cfg(test)]
    pub(super) fn reserved(&self) -> usize {
        self.bytes.capacity()
    }

    fn finish(&mut self) -> Result<Vec<u8>> {
        let bytes = std::mem::take(&mut self.bytes);
        self.pointer
            .unpack(bytes)
            .map_err(|error| damaged(&self.toast, self.pointer.value, error))
    }

    /// Adds the chunk at `tid`, if one of this value is there.
    fn take(&mut self, txn: &Transaction, tid: Tid, total: usize) -> Result<()> {
        let (engine, toast) = (txn.engine(), &self.toast);
        let page = engine.storage().pin(PageId::main(toast.node, tid.block))?.read();
        let Some(tuple) = tuple_at(&page, tid.block, tid.offset)? else {
            return Ok(());
        };
        if inserter(
            engine.csn(),
            tuple,
            txn.xid().unwrap_or(Xid::INVALID),
            engine.next_xid(),
        )? == Outcome::None
        {
            return Ok(());
        }
        let value = self.pointer.value;
        let part = |at| {
            toast
                .layout
                .stored(tuple.data(), tuple.bitmap(), tuple.natts(), at)
        };
        let word = |at| -> Result<Option<u32>> {
            Ok(match part(at)? {
                Some(Stored::Plain(&[a, b, c, d])) => Some(u32::from_le_bytes([a, b, c, d])),
                _ => None,
            })
        };
        if word(0)? != Some(value) {
            // The place was given to a chunk of a newer value.
            return Ok(());
        }
        let Some(Stored::Plain(data)) = part(2)? else {
            return Err(damaged(toast, value, format!("chunk at {tid} without data")));
        };
        let number = word(1)?.map_or(-1, |number| number as i32);
        if usize::try_from(number) != Ok(self.next) || self.next >= total {
            let what = if self.next < total {
                format!("unexpected chunk number {number} (expected {})", self.next)
            } else {
                format!(
                    "unexpected chunk number {number} (out of range 0..{})",
                    total as i64 - 1
                )
            };
            return Err(damaged(toast, value, what));
        }
        let expected = CHUNK.min(self.pointer.stored_len() - self.bytes.len());
        if data.len() != expected {
            let what = format!(
                "unexpected chunk size {} (expected {expected}) in chunk {number} of {total}",
                data.len()
            );
            return Err(damaged(toast, value, what));
        }
        if self.bytes.len() == TRUST_AFTER {
            self.bytes.reserve_exact(self.pointer.stored_len() - TRUST_AFTER);
        }
        self.bytes.extend_from_slice(data);
        self.next += 1;
        Ok(())
    }
}

/// The payload of the value that a row of `table` points to, read at one go: where a step cannot be left.
pub fn read_value(txn: &Transaction, table: &Table, pointer: ToastPointer) -> Result<Vec<u8>> {
    let mut reader = ToastReader::new(table, pointer)?;
    loop {
        if let Some(payload) = reader.step(txn, 256)? {
            return Ok(payload);
        }
    }
}

/// Fetches every value of a row that stands out of line, at one go.
pub fn fetch_all(txn: &Transaction, table: &Table, row: &mut [Datum]) -> Result<()> {
    for (value, column) in row.iter_mut().zip(&table.columns) {
        if let Datum::External(pointer) = value {
            *value = disk::read(column.column_type.id, &read_value(txn, table, *pointer)?)?;
        }
    }
    Ok(())
}
