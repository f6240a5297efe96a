//! Chunks of values that no row version from now on points to.

use smallvec::SmallVec;
use towline_base::{PageId, Tid};
use towline_types::{Stored, ToastPointer};

use super::damaged;
use super::read::chunks_of;
use crate::btree::IndexScan;
use crate::catalog::Table;
use crate::error::Result;
use crate::heap::modify::{self, Attempt, Myself, Verdict};
use crate::heap::tuple::TupleRef;
use crate::heap::visibility::tuple_at;
use crate::locks::{LockMode, LockTag};
use crate::step::{Step, Wait};
use crate::txn::Transaction;

/// Chunks deleted before others are let run.
const CHUNKS_PER_TURN: u32 = 256;

/// Values to be deleted with the row version that the own transaction has deleted or replaced.
#[derive(Debug, Default)]
pub(crate) struct Removal {
    values: SmallVec<[ToastPointer; 1]>,
    scan: Option<Box<IndexScan>>,
    /// The chunk that is being deleted.
    at: Option<Tid>,
    chunks: u32,
}

/// The values out of line that a version points to.
fn pointers_of(table: &Table, tuple: TupleRef<'_>) -> Result<SmallVec<[ToastPointer; 1]>> {
    let mut found = SmallVec::new();
    if tuple.has_external() {
        let mut cursor = table.layout.cursor(tuple.data(), tuple.bitmap(), tuple.natts());
        for _ in 0..table.layout.len().min(tuple.natts()) {
            if let Some(Stored::External(pointer)) = cursor.next_stored()? {
                found.push(pointer);
            }
        }
    }
    Ok(found)
}

impl Removal {
    /// The values of the version at `tid`, which the own transaction has deleted or replaced, but for those that the version which took
    /// its place has too.
    pub(crate) fn of(
        txn: &Transaction,
        table: &Table,
        tid: Tid,
        successor: Option<TupleRef<'_>>,
    ) -> Result<Removal> {
        let mut values = {
            let storage = txn.engine().storage();
            let page = storage.pin(PageId::main(table.node, tid.block))?.read();
            match tuple_at(&page, tid.block, tid.offset)? {
                Some(old) => pointers_of(table, old)?,
                None => SmallVec::new(),
            }
        };
        if let Some(new) = successor {
            let kept = pointers_of(table, new)?;
            values.retain(|pointer| !kept.contains(pointer));
        }
        Ok(Removal {
            values,
            ..Removal::default()
        })
    }

    /// Whether nothing is left to delete.
    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Deletes what is left to delete.
    pub(crate) fn step(&mut self, txn: &mut Transaction, table: &Table, me: &Myself) -> Result<Step<()>> {
        while let Some(pointer) = self.values.last().copied() {
            let toast = table
                .toast
                .as_ref()
                .filter(|toast| toast.oid.0 == pointer.relation);
            let Some(toast) = toast else {
                return Err(super::read::ToastReader::new(table, pointer)
                    .err()
                    .unwrap_or_else(|| super::no_index(table)));
            };
            crate::ready!(txn.lock(LockTag::Relation(toast.oid.0), LockMode::RowExclusive));
            let scan = match &mut self.scan {
                Some(scan) => scan,
                None => self.scan.insert(Box::new(chunks_of(toast, pointer.value)?)),
            };
            loop {
                let tid = match self.at {
                    Some(tid) => tid,
                    None => match scan.next(txn.engine().storage().pool())? {
                        Some(tid) => *self.at.insert(tid),
                        None => break,
                    },
                };
                if is_chunk_of(txn, toast, tid, pointer.value)? {
                    match crate::ready!(modify::delete(txn, toast.node, tid, me)) {
                        // What an aborted transaction left is nobody's.
                        Attempt::Done(..) | Attempt::Refused(Verdict::Gone) => {}
                        Attempt::Refused(_) => {
                            let what = format!("chunk at {tid} is deleted already");
                            return Err(damaged(toast, pointer.value, what));
                        }
                    }
                }
                self.at = None;
                self.chunks += 1;
                if self.chunks.is_multiple_of(CHUNKS_PER_TURN) {
                    txn.check_interrupts()?;
                    return Ok(Step::Wait(Wait::turn()));
                }
            }
            self.scan = None;
            self.values.pop();
        }
        Ok(Step::Done(()))
    }
}

/// Whether the place holds a chunk of the value, and not one of a newer value that was given the place.
fn is_chunk_of(txn: &Transaction, toast: &Table, tid: Tid, value: u32) -> Result<bool> {
    let storage = txn.engine().storage();
    let page = storage.pin(PageId::main(toast.node, tid.block))?.read();
    let Some(tuple) = tuple_at(&page, tid.block, tid.offset)? else {
        return Ok(false);
    };
    let id = toast
        .layout
        .stored(tuple.data(), tuple.bitmap(), tuple.natts(), 0)?;
    Ok(matches!(id, Some(Stored::Plain(bytes)) if bytes == value.to_le_bytes()))
}
