//! Line pointers: PostgreSQL's `ItemIdData`, 15 bits of offset, 2 of state, 15 of length.

use super::OffsetNumber;

/// What a line pointer stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ItemState {
    /// Free to be taken again.
    Unused,
    /// Points to an item on this page.
    Normal,
    /// A heap-only chain begins at another line pointer of this page.
    Redirect,
    /// The item is dead; it may still have its bytes.
    Dead,
}

/// One line pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ItemId(pub u32);

impl ItemId {
    /// A line pointer that is free.
    pub const UNUSED: ItemId = ItemId(0);

    /// Points to `len` bytes at `offset`.
    #[inline]
    pub const fn normal(offset: usize, len: usize) -> ItemId {
        ItemId::pack(offset, 1, len)
    }

    /// Leads to line pointer `target`.
    #[inline]
    pub const fn redirect(target: OffsetNumber) -> ItemId {
        ItemId::pack(target as usize, 2, 0)
    }

    /// Dead without bytes, what pruning leaves.
    #[inline]
    pub const fn dead() -> ItemId {
        ItemId::pack(0, 3, 0)
    }

    /// The same item, marked dead, its bytes kept (what an index scan leaves as a hint).
    #[inline]
    pub const fn to_dead(self) -> ItemId {
        ItemId(self.0 | (3 << 15))
    }

    const fn pack(offset: usize, state: u32, len: usize) -> ItemId {
        ItemId((offset as u32 & 0x7fff) | (state << 15) | ((len as u32 & 0x7fff) << 17))
    }

    /// The state bits.
    #[inline]
    pub const fn state(self) -> ItemState {
        match (self.0 >> 15) & 3 {
            0 => ItemState::Unused,
            1 => ItemState::Normal,
            2 => ItemState::Redirect,
            _ => ItemState::Dead,
        }
    }

    /// Offset of the item in the page (for a redirect: the target line pointer).
    #[inline]
    pub const fn offset(self) -> usize {
        (self.0 & 0x7fff) as usize
    }

    /// Length of the item.
    #[inline]
    pub const fn len(self) -> usize {
        (self.0 >> 17) as usize
    }

    /// True when the item has no bytes.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Where a redirect leads.
    #[inline]
    pub const fn redirect_target(self) -> OffsetNumber {
        self.offset() as OffsetNumber
    }

    /// Points to an item.
    #[inline]
    pub const fn is_normal(self) -> bool {
        matches!(self.state(), ItemState::Normal)
    }

    /// Anything but unused.
    #[inline]
    pub const fn is_used(self) -> bool {
        !matches!(self.state(), ItemState::Unused)
    }

    /// Leads to another line pointer.
    #[inline]
    pub const fn is_redirect(self) -> bool {
        matches!(self.state(), ItemState::Redirect)
    }

    /// Dead, with or without bytes.
    #[inline]
    pub const fn is_dead(self) -> bool {
        matches!(self.state(), ItemState::Dead)
    }

    /// The item occupies bytes of the page, whatever its state.
    #[inline]
    pub const fn has_storage(self) -> bool {
        !self.is_empty()
    }
}
