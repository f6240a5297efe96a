//! Items and their line pointers: reading, adding, overwriting in place.
//!
//! What is removed and how the rest is moved together stands in `compact.rs`.

use super::{
    FIRST_OFFSET, HEADER_SIZE, ITEM_ID_SIZE, ItemId, MAX_HEAP_TUPLES, OffsetNumber, Page, PageError,
    max_align,
};
use towline_base::PAGE_SIZE;

/// Which line pointer a new item gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// A heap tuple: an unused line pointer if the page has one, else a new one, at most [`MAX_HEAP_TUPLES`] in all.
    Heap,
    /// Exactly this one, which must be unused or the next new one (redo of heap records).
    At(OffsetNumber),
    /// At this place in the order of line pointers, the later ones move up by one (B-tree).
    Insert(OffsetNumber),
}

impl Page {
    /// The line pointer, `None` beyond the last one.
    #[inline]
    pub fn item_id(&self, offset: OffsetNumber) -> Option<ItemId> {
        if offset < FIRST_OFFSET || offset > self.max_offset() {
            return None;
        }
        Some(ItemId(
            self.u32_at(HEADER_SIZE + (usize::from(offset) - 1) * ITEM_ID_SIZE),
        ))
    }

    /// Overwrites a line pointer that exists.
    #[inline]
    pub fn set_item_id(&mut self, offset: OffsetNumber, item: ItemId) -> Result<(), PageError> {
        if offset < FIRST_OFFSET || offset > self.max_offset() {
            return Err(PageError::InvalidOffset(offset));
        }
        self.put_item_id(offset, item);
        Ok(())
    }

    #[inline]
    pub(super) fn put_item_id(&mut self, offset: OffsetNumber, item: ItemId) {
        self.put_u32(HEADER_SIZE + (usize::from(offset) - 1) * ITEM_ID_SIZE, item.0);
    }

    /// The bytes that a line pointer stands for: `None` when it has none, or when they would reach out of the page.
    #[inline]
    pub fn item_bytes(&self, item: ItemId) -> Option<&[u8]> {
        if !item.has_storage() || item.offset() < HEADER_SIZE {
            return None;
        }
        self.0.get(item.offset()..item.offset() + item.len())
    }

    /// The bytes of a normal item: `None` for every other state.
    #[inline]
    pub fn item(&self, offset: OffsetNumber) -> Option<&[u8]> {
        let item = self.item_id(offset)?;
        if item.is_normal() {
            self.item_bytes(item)
        } else {
            None
        }
    }

    /// The bytes of a normal item, writable.
    #[inline]
    pub fn item_mut(&mut self, offset: OffsetNumber) -> Option<&mut [u8]> {
        let item = self.item_id(offset)?;
        if !item.is_normal() || !item.has_storage() || item.offset() < HEADER_SIZE {
            return None;
        }
        self.0.get_mut(item.offset()..item.offset() + item.len())
    }

    /// Line pointer numbers and line pointers, in order.
    pub fn item_ids(
        &self,
    ) -> impl DoubleEndedIterator<Item = (OffsetNumber, ItemId)> + ExactSizeIterator + '_ {
        let count = usize::from(self.max_offset());
        self.0[HEADER_SIZE..HEADER_SIZE + count * ITEM_ID_SIZE]
            .as_chunks::<ITEM_ID_SIZE>()
            .0
            .iter()
            .enumerate()
            .map(|(index, raw)| (index as OffsetNumber + 1, ItemId(u32::from_le_bytes(*raw))))
    }

    /// Bytes between line pointers and items.
    #[inline]
    pub fn exact_free_space(&self) -> usize {
        self.upper().saturating_sub(self.lower())
    }

    /// Bytes that one more item may take, its new line pointer accounted for (PostgreSQL's `PageGetFreeSpace`).
    #[inline]
    pub fn free_space(&self) -> usize {
        self.exact_free_space().saturating_sub(ITEM_ID_SIZE)
    }

    /// As [`Page::free_space`], and 0 when the heap's limit of line pointers is reached and none is unused.
    pub fn heap_free_space(&self) -> usize {
        let free = self.free_space();
        if free == 0 || usize::from(self.max_offset()) < MAX_HEAP_TUPLES {
            return free;
        }
        if self.has_free_lines() && self.item_ids().any(|(_, item)| !item.is_used()) {
            free
        } else {
            0
        }
    }

    /// Adds an item, its bytes copied to the upper end of the free space, and returns its line pointer number.
    pub fn add_item(&mut self, data: &[u8], placement: Placement) -> Result<OffsetNumber, PageError> {
        self.check_bounds()?;
        if data.is_empty() || data.len() >= PAGE_SIZE {
            return Err(PageError::NoSpace);
        }
        let next = self.max_offset() + 1;
        let (offset, shift) = match placement {
            Placement::Heap => (self.heap_slot(next), false),
            Placement::At(offset) => (offset, false),
            Placement::Insert(offset) => (offset, offset < next),
        };
        if offset < FIRST_OFFSET || offset > next {
            return Err(PageError::InvalidOffset(offset));
        }
        if !shift && offset < next && self.item_id(offset).is_some_and(ItemId::is_used) {
            return Err(PageError::InvalidOffset(offset));
        }
        if !matches!(placement, Placement::Insert(_)) && usize::from(offset) > MAX_HEAP_TUPLES {
            return Err(PageError::NoSpace);
        }
        let grows = shift || offset == next;
        let lower = self.lower() + if grows { ITEM_ID_SIZE } else { 0 };
        let Some(upper) = self
            .upper()
            .checked_sub(max_align(data.len()))
            .filter(|upper| *upper >= lower)
        else {
            return Err(PageError::NoSpace);
        };
        if shift {
            let start = HEADER_SIZE + (usize::from(offset) - 1) * ITEM_ID_SIZE;
            self.0
                .copy_within(start..lower - ITEM_ID_SIZE, start + ITEM_ID_SIZE);
        }
        self.0[upper..upper + data.len()].copy_from_slice(data);
        self.0[upper + data.len()..upper + max_align(data.len())].fill(0);
        self.set_lower(lower);
        self.set_upper(upper);
        self.put_item_id(offset, ItemId::normal(upper, data.len()));
        Ok(offset)
    }

    /// An unused line pointer, or `next`; corrects the free-lines hint when it was wrong.
    fn heap_slot(&mut self, next: OffsetNumber) -> OffsetNumber {
        if self.has_free_lines() {
            if let Some((offset, _)) = self.item_ids().find(|(_, item)| !item.is_used()) {
                return offset;
            }
            self.set_has_free_lines(false);
        }
        next
    }

    /// Replaces a normal item, keeping its line pointer number; the others move when the aligned size changes.
    pub fn overwrite_item(&mut self, offset: OffsetNumber, data: &[u8]) -> Result<(), PageError> {
        self.check_bounds()?;
        let item = self
            .item_id(offset)
            .filter(|item| item.is_normal())
            .ok_or(PageError::InvalidOffset(offset))?;
        self.item_bytes(item)
            .ok_or(PageError::Corrupt("an item reaches out of the page"))?;
        if data.is_empty() || data.len() >= PAGE_SIZE {
            return Err(PageError::NoSpace);
        }
        let (old, new) = (max_align(item.len()), max_align(data.len()));
        if new > old + self.exact_free_space() {
            return Err(PageError::NoSpace);
        }
        let mut at = item.offset();
        // Also where nothing moves: the padding behind an item that a damaged line pointer leads to may be out of the page.
        let upper = self.upper();
        if at < upper || at + old > self.special_offset() {
            return Err(PageError::Corrupt("an item stands outside the item area"));
        }
        if new != old {
            self.0.copy_within(upper..at, upper + old - new);
            self.set_upper(upper + old - new);
            self.shift_items_below(at, old as isize - new as isize);
            at = at + old - new;
        }
        self.0[at..at + data.len()].copy_from_slice(data);
        self.0[at + data.len()..at + new].fill(0);
        self.put_item_id(offset, ItemId::normal(at, data.len()));
        Ok(())
    }

    /// Adds `by` to the offsets of all items that stand below `limit`: their bytes have just been moved.
    pub(super) fn shift_items_below(&mut self, limit: usize, by: isize) {
        for offset in FIRST_OFFSET..=self.max_offset() {
            if let Some(item) = self.item_id(offset)
                && item.has_storage()
                && item.offset() < limit
            {
                let moved = item.offset().saturating_add_signed(by) & 0x7fff;
                self.put_item_id(offset, ItemId((item.0 & !0x7fff) | moved as u32));
            }
        }
    }

    /// The bounds that every mutation relies on.
    pub(super) fn check_bounds(&self) -> Result<(), PageError> {
        let (lower, upper, special) = (self.lower(), self.upper(), self.special_offset());
        if lower < HEADER_SIZE || lower > upper || upper > special || special > PAGE_SIZE {
            return Err(PageError::Corrupt(
                "lower, upper and special do not follow each other",
            ));
        }
        Ok(())
    }
}
