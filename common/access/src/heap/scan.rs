//! A sequential scan, a page at a time.
//!
//! Each page is looked at under its latch once: the visible line pointers are noted and the page is copied, so that rows are handed out with
//! nothing latched or pinned. The scan ends at the length the relation had when it began: later pages hold only what the
//! snapshot does not see.

use smallvec::SmallVec;
use towline_base::{ForkKind, PageId, RelFileNode, Tid};
use towline_storage::Page;

use super::fetch::settle_page;
use super::prune;
use super::tuple::TupleRef;
use super::visibility::{Visibility, tuple_at};
use crate::error::Result;
use crate::txn::{Snapshot, Transaction};

/// A scan of one relation.
pub struct HeapScan {
    rel: RelFileNode,
    next: u32,
    end: u32,
    page: Box<Page>,
    block: u32,
    visible: SmallVec<[u16; 128]>,
    at: usize,
}

impl std::fmt::Debug for HeapScan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HeapScan({}, block {} of {})", self.rel, self.next, self.end)
    }
}

impl HeapScan {
    /// A scan of the whole relation.
    pub fn new(txn: &Transaction, rel: RelFileNode) -> Result<Self> {
        let end = txn.engine().storage().nblocks(rel, ForkKind::Main)?;
        Ok(HeapScan {
            rel,
            next: 0,
            end,
            page: Page::boxed_zeroed(),
            block: 0,
            visible: SmallVec::new(),
            at: 0,
        })
    }

    /// Begins again at the first block.
    pub fn restart(&mut self, txn: &Transaction) -> Result<()> {
        self.end = txn.engine().storage().nblocks(self.rel, ForkKind::Main)?;
        self.next = 0;
        self.visible.clear();
        self.at = 0;
        Ok(())
    }

    /// Blocks left to read.
    pub fn blocks_left(&self) -> u32 {
        self.end - self.next
    }

    /// Reads the next page that has rows for the snapshot; false at the end. Looks at the interrupts at every page.
    pub fn next_page(&mut self, txn: &Transaction, snapshot: &Snapshot) -> Result<bool> {
        while self.next < self.end {
            let block = self.next;
            self.next += 1;
            self.load(txn, snapshot, block)?;
            // After the page was read: replay on a standby raises the flag before it removes what this snapshot sees.
            txn.check_interrupts()?;
            if !self.visible.is_empty() {
                return Ok(true);
            }
        }
        self.visible.clear();
        self.at = 0;
        Ok(false)
    }

    fn load(&mut self, txn: &Transaction, snapshot: &Snapshot, block: u32) -> Result<()> {
        let engine = txn.engine();
        self.visible.clear();
        self.at = 0;
        self.block = block;
        let pinned = engine.storage().pin_for_scan(PageId::main(self.rel, block))?;
        prune::prune_opportunistically(engine, &pinned);
        self.page
            .as_bytes_mut()
            .copy_from_slice(pinned.read_ref().as_bytes());
        let mut visibility = Visibility::new(engine.csn(), snapshot, &txn.combos);
        let mut unhinted = false;
        for offset in 1..=self.page.max_offset() {
            if let Some(tuple) = tuple_at(&self.page, block, offset)? {
                unhinted |= tuple.infomask() & super::tuple::mask::XMIN_FROZEN == 0;
                if visibility.sees(tuple)? {
                    self.visible.push(offset);
                }
            }
        }
        // The whole page was looked up anyway: leave what was learnt for the next reader, where it may be left.
        if unhinted {
            settle_page(engine, &pinned)?;
        }
        Ok(())
    }

    /// The next row of the current page.
    #[inline]
    pub fn next_row(&mut self) -> Option<(Tid, TupleRef<'_>)> {
        let offset = *self.visible.get(self.at)?;
        self.at += 1;
        let tuple = self.page.item(offset).and_then(TupleRef::new)?;
        Some((Tid::new(self.block, offset), tuple))
    }

    /// The rows of the current page.
    pub fn rows(&self) -> impl Iterator<Item = (Tid, TupleRef<'_>)> + '_ {
        self.visible.iter().filter_map(|offset| {
            let tuple = self.page.item(*offset).and_then(TupleRef::new)?;
            Some((Tid::new(self.block, *offset), tuple))
        })
    }
}
