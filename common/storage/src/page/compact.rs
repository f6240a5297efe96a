//! Removing items and moving the rest together.
//!
//! After each of these the items stand without gaps at the end of the page, in the order they had, so the result depends only
//! on the page before and the arguments: redo, which calls the same functions, ends with the same bytes.

use super::{
    FIRST_OFFSET, HEADER_SIZE, ITEM_ID_SIZE, ItemId, MAX_ITEMS, OffsetNumber, Page, PageError, max_align,
};
use smallvec::SmallVec;

/// An item that stays: its line pointer number and where it stands now.
struct Kept {
    offset: OffsetNumber,
    item: ItemId,
}

type KeptItems = SmallVec<[Kept; 64]>;

impl Page {
    /// Moves all items together after line pointers were set unused, dead or redirect (PostgreSQL's
    /// `PageRepairFragmentation`). Line pointers keep their numbers; the hint of free lines is set as found.
    pub fn repair_fragmentation(&mut self) -> Result<(), PageError> {
        self.check_bounds()?;
        let mut kept = KeptItems::new();
        let mut unused = false;
        for (offset, item) in self.item_ids() {
            if item.has_storage() {
                kept.push(Kept { offset, item });
            }
            unused |= !item.is_used();
        }
        self.check_kept(&kept)?;
        for offset in FIRST_OFFSET..=self.max_offset() {
            if self.item_id(offset).is_some_and(|item| !item.is_used()) {
                self.put_item_id(offset, ItemId::UNUSED);
            }
        }
        self.compactify(&mut kept);
        self.set_has_free_lines(unused);
        Ok(())
    }

    /// Gives back the unused line pointers at the end of the array, all but the first one (PostgreSQL's
    /// `PageTruncateLinePointerArray`).
    pub fn truncate_line_pointers(&mut self) -> Result<(), PageError> {
        self.check_bounds()?;
        let mut last = self.max_offset();
        let before = last;
        while last > FIRST_OFFSET && self.item_id(last).is_some_and(|item| !item.is_used()) {
            last -= 1;
        }
        if last < before {
            let lower = HEADER_SIZE + usize::from(last) * ITEM_ID_SIZE;
            let end = self.lower();
            self.0[lower..end].fill(0);
            self.set_lower(lower);
        }
        let unused = self.item_ids().any(|(_, item)| !item.is_used());
        self.set_has_free_lines(unused);
        Ok(())
    }

    /// Removes items and their line pointers; the later line pointers move down (B-tree). `offsets` ascends strictly.
    pub fn remove_items(&mut self, offsets: &[OffsetNumber]) -> Result<(), PageError> {
        self.check_bounds()?;
        let max = self.max_offset();
        let ascending = offsets.windows(2).all(|pair| pair[0] < pair[1]);
        if let Some(bad) = offsets
            .iter()
            .find(|offset| **offset < FIRST_OFFSET || **offset > max)
        {
            return Err(PageError::InvalidOffset(*bad));
        }
        if !ascending {
            return Err(PageError::InvalidOffset(0));
        }
        let mut kept = KeptItems::new();
        let mut remaining: SmallVec<[ItemId; 64]> = SmallVec::new();
        let mut gone = offsets.iter().copied().peekable();
        for (offset, item) in self.item_ids() {
            if gone.next_if_eq(&offset).is_some() {
                continue;
            }
            remaining.push(item);
            if item.has_storage() {
                kept.push(Kept {
                    offset: remaining.len() as OffsetNumber,
                    item,
                });
            }
        }
        self.check_kept(&kept)?;
        let end = self.lower();
        let lower = HEADER_SIZE + remaining.len() * ITEM_ID_SIZE;
        for (index, item) in remaining.iter().enumerate() {
            self.put_item_id(index as OffsetNumber + 1, *item);
        }
        self.0[lower..end].fill(0);
        self.set_lower(lower);
        self.compactify(&mut kept);
        Ok(())
    }

    /// Removes one item, keeping every line pointer number: the line pointer becomes unused, or goes when it is the last one.
    pub fn remove_item_keep_order(&mut self, offset: OffsetNumber) -> Result<(), PageError> {
        self.check_bounds()?;
        let max = self.max_offset();
        let item = self.item_id(offset).ok_or(PageError::InvalidOffset(offset))?;
        let (upper, at, size) = (self.upper(), item.offset(), max_align(item.len()));
        if item.has_storage() && (at < upper || at + size > self.special_offset()) {
            return Err(PageError::Corrupt("an item stands outside the item area"));
        }
        self.put_item_id(offset, ItemId::UNUSED);
        if offset == max {
            let lower = self.lower() - ITEM_ID_SIZE;
            self.set_lower(lower);
        }
        if item.has_storage() {
            self.0.copy_within(upper..at, upper + size);
            self.0[upper..upper + size].fill(0);
            self.set_upper(upper + size);
            self.shift_items_below(at, size as isize);
        }
        Ok(())
    }

    /// What removing and moving items relies on, to be asked before a logged change begins: every item stands in the item area, and
    /// together they claim no more room than there is.
    pub fn check_items(&self) -> Result<(), PageError> {
        self.check_bounds()?;
        let mut total = 0;
        for (offset, item) in self.item_ids().filter(|(_, item)| item.has_storage()) {
            self.check_place(offset, item)?;
            total += max_align(item.len());
        }
        if total > self.special_offset() - self.lower() {
            return Err(PageError::Corrupt("items overlap"));
        }
        Ok(())
    }

    /// As [`Page::check_items`] for one normal item.
    pub fn check_item(&self, offset: OffsetNumber) -> Result<(), PageError> {
        self.check_bounds()?;
        match self.item_id(offset) {
            Some(item) if item.is_normal() && item.has_storage() => self.check_place(offset, item),
            _ => Err(PageError::InvalidOffset(offset)),
        }
    }

    fn check_place(&self, offset: OffsetNumber, item: ItemId) -> Result<(), PageError> {
        let (start, end) = (item.offset(), item.offset() + max_align(item.len()));
        if start < self.upper() || end > self.special_offset() || start % 8 != 0 {
            return Err(PageError::MisplacedItem(offset));
        }
        Ok(())
    }

    /// All kept items stand in the item area and do not claim more room than there is.
    fn check_kept(&self, kept: &[Kept]) -> Result<(), PageError> {
        debug_assert!(kept.len() <= MAX_ITEMS);
        let special = self.special_offset();
        let mut total = 0;
        for Kept { item, offset } in kept {
            self.check_place(*offset, *item)?;
            total += max_align(item.len());
        }
        if total > special - self.lower() {
            return Err(PageError::Corrupt("items overlap"));
        }
        Ok(())
    }

    /// Moves the kept items, highest first, up against the special area. What becomes free is zeroed, so that equal histories
    /// give equal bytes.
    fn compactify(&mut self, kept: &mut KeptItems) {
        kept.sort_unstable_by_key(|kept| core::cmp::Reverse(kept.item.offset()));
        let before = self.upper();
        let mut upper = self.special_offset();
        for Kept { offset, item } in kept.iter() {
            let size = max_align(item.len());
            // Overlapping items would make this run below `before`; check_kept bounds the sum, so it stays in the page.
            upper -= size;
            if upper != item.offset() {
                self.0.copy_within(item.offset()..item.offset() + size, upper);
                self.put_item_id(*offset, ItemId((item.0 & !0x7fff) | upper as u32));
            }
        }
        if upper > before {
            self.0[before..upper].fill(0);
        }
        self.set_upper(upper);
    }
}
