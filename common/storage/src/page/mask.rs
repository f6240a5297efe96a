//! Masking: clearing what may rightly differ between two copies of a page, so that the rest can be compared byte by byte.

use super::{ItemId, Page, max_align};

/// Bits of a line pointer that hold its state.
const STATE: u32 = 3 << 15;
/// The state of a line pointer with an item.
const NORMAL: u32 = 1 << 15;

impl Page {
    /// Clears what redo need not restore on any page: the header's hints and the bytes between line pointers and items. For
    /// comparing pages.
    pub fn mask_unused(&mut self) {
        self.set_prune_xid(0);
        self.set_full(false);
        self.set_has_free_lines(false);
        let hole = self.hole();
        self.as_bytes_mut()[hole].fill(0);
    }

    /// Clears the bytes behind items up to their alignment. For comparing pages.
    pub fn mask_padding(&mut self) {
        for number in 1..=self.max_offset() {
            let Some(item) = self
                .item_id(number)
                .filter(|item| self.item_bytes(*item).is_some())
            else {
                continue;
            };
            let end = item.offset() + item.len();
            if let Some(padding) = self.as_bytes_mut().get_mut(end..max_align(end)) {
                padding.fill(0);
            }
        }
    }

    /// Makes items that are marked dead and still have their bytes look like the others: the mark is a hint. For comparing pages.
    pub fn mask_dead_marks(&mut self) {
        for number in 1..=self.max_offset() {
            let Some(item) = self.item_id(number) else {
                continue;
            };
            if item.is_dead() && item.has_storage() {
                // The line pointer exists, so it can be set.
                let _ = self.set_item_id(number, ItemId(item.0 & !STATE | NORMAL));
            }
        }
    }
}
