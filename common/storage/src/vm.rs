//! The visibility map: two bits for each heap page, in PostgreSQL's layout, in a logged fork of its own.
//!
//! Here are the places and the bits; the access layer logs their changes together with the heap's.

use crate::page::{HEADER_SIZE, Page};
use towline_base::{BlockNumber, ForkKind, PAGE_SIZE, PageId, RelFileNode};

/// Every tuple of the heap page is visible to everybody.
pub const ALL_VISIBLE: u8 = 1;
/// Every tuple of the heap page is frozen, too.
pub const ALL_FROZEN: u8 = 2;
/// Both bits.
pub const VALID_BITS: u8 = ALL_VISIBLE | ALL_FROZEN;

/// Heap pages that one page of the map covers.
pub const HEAP_BLOCKS_PER_PAGE: u32 = ((PAGE_SIZE - HEADER_SIZE) * 4) as u32;

/// The page of the map that holds the bits of a heap block.
pub fn map_page(rel: RelFileNode, heap_block: BlockNumber) -> PageId {
    PageId {
        rel,
        fork: ForkKind::Vm,
        block: heap_block / HEAP_BLOCKS_PER_PAGE,
    }
}

/// Blocks that the map of a heap of `heap_blocks` needs.
pub fn map_blocks(heap_blocks: BlockNumber) -> BlockNumber {
    heap_blocks.div_ceil(HEAP_BLOCKS_PER_PAGE)
}

fn place(heap_block: BlockNumber) -> (usize, u32) {
    let within = heap_block % HEAP_BLOCKS_PER_PAGE;
    (HEADER_SIZE + (within / 4) as usize, (within % 4) * 2)
}

/// The bits of a heap block in its map page; 0 on a page that was never initialised.
pub fn get(page: &Page, heap_block: BlockNumber) -> u8 {
    let (byte, shift) = place(heap_block);
    (page.as_bytes()[byte] >> shift) & VALID_BITS
}

/// Sets bits of a heap block; true when that changed something.
pub fn set(page: &mut Page, heap_block: BlockNumber, bits: u8) -> bool {
    let (byte, shift) = place(heap_block);
    let byte = &mut page.as_bytes_mut()[byte];
    let before = *byte;
    *byte |= (bits & VALID_BITS) << shift;
    *byte != before
}

/// Clears bits of a heap block; true when that changed something.
pub fn clear(page: &mut Page, heap_block: BlockNumber, bits: u8) -> bool {
    let (byte, shift) = place(heap_block);
    let byte = &mut page.as_bytes_mut()[byte];
    let before = *byte;
    *byte &= !((bits & VALID_BITS) << shift);
    *byte != before
}

/// Clears the bits of every heap block from `heap_block` on, in the map page that holds it: the heap was cut there.
pub fn clear_from(page: &mut Page, heap_block: BlockNumber) {
    let (byte, shift) = place(heap_block);
    let bytes = page.as_bytes_mut();
    bytes[byte] &= (1u16 << shift).wrapping_sub(1) as u8;
    bytes[byte + 1..].fill(0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_of_neighbours_are_apart() {
        let mut page = Page::boxed_zeroed();
        page.init(0);
        for block in [0, 1, 2, 3, 4, HEAP_BLOCKS_PER_PAGE - 1] {
            assert!(set(&mut page, block, ALL_VISIBLE));
            assert!(!set(&mut page, block, ALL_VISIBLE));
        }
        assert!(set(&mut page, 2, ALL_FROZEN));
        assert!(clear(&mut page, 1, VALID_BITS));
        let seen: Vec<u8> = (0..6).map(|block| get(&page, block)).collect();
        assert_eq!(seen, [1, 0, 3, 1, 1, 0]);
        assert_eq!(page.as_bytes()[24], 0b0111_0001);
        clear_from(&mut page, 3);
        let seen: Vec<u8> = (0..6).map(|block| get(&page, block)).collect();
        assert_eq!(seen, [1, 0, 3, 0, 0, 0]);
        assert_eq!(get(&page, HEAP_BLOCKS_PER_PAGE - 1), 0);
    }

    #[test]
    fn the_map_has_postgresqls_density() {
        assert_eq!(HEAP_BLOCKS_PER_PAGE, 32_672);
        assert_eq!(map_page(crate::smgr::relation(1), 32_672).block, 1);
        assert_eq!((map_blocks(0), map_blocks(1), map_blocks(32_673)), (0, 1, 2));
    }
}
