//! The WAL buffers: a ring of memory in which a byte of the log lives at its LSN modulo the ring's size.
//!
//! This module and its callers (`copy`, `flush`'s writing, `Wal::read_recent`) are where this crate uses `unsafe`. Who may
//! touch a byte at log position `p`, and why no two parties ever do so at odds:
//!
//! - **One inserter** may write it, from its reservation of `p` until it gives up its insertion slot. Reservations are disjoint,
//!   and a credit guarantees before the reservation that `p` lies less than one ring size above the floor: the lowest position
//!   that anybody may still read (the write position, and the pins of readers).
//! - **Readers** (the writer thread, `read_recent`) may read it while it is complete (its inserter gave up its slot, which
//!   they saw with acquire ordering) and at or above the floor, which they hold down.
//!
//! So a byte is written by one thread or read by several, never both at once.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;

use towline_base::Lsn;

/// The memory. Its size is a multiple of the WAL page, so a piece of one WAL page never wraps.
#[derive(Debug)]
pub(crate) struct Ring {
    memory: NonNull<u8>,
    size: usize,
}

// SAFETY: the memory is plain bytes owned by the ring; the module's rules keep its threads apart.
unsafe impl Send for Ring {}
// SAFETY: as above; `write` and `slices` are unsafe functions whose callers vouch for the rules.
unsafe impl Sync for Ring {}

impl Ring {
    /// `size` bytes of zeros.
    pub(crate) fn new(size: usize) -> Self {
        let layout = Self::layout(size);
        // SAFETY: the layout's size is not zero (asserted in `layout`).
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else {
            handle_alloc_error(layout)
        };
        Self { memory, size }
    }

    fn layout(size: usize) -> Layout {
        assert!(
            size > 0 && size.is_multiple_of(crate::format::WAL_PAGE),
            "a ring holds whole WAL pages"
        );
        Layout::from_size_align(size, 4096).expect("a ring's size is far below isize::MAX")
    }

    /// Copies `bytes` to their place; they must not cross a ring's end (a piece of one WAL page never does).
    ///
    /// # Safety
    /// The caller owns `[at, at + bytes.len())` as an inserter (see the module).
    pub(crate) unsafe fn write(&self, at: Lsn, bytes: &[u8]) {
        let offset = (at.0 % self.size as u64) as usize;
        assert!(offset + bytes.len() <= self.size, "a piece does not wrap");
        // SAFETY: in bounds by the assertion; nobody else accesses the range by the caller's promise.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.memory.as_ptr().add(offset), bytes.len())
        };
    }

    /// The bytes `[from, to)` as at most two slices.
    ///
    /// # Safety
    /// The range is complete and held above the floor as long as the slices live (see the module).
    pub(crate) unsafe fn slices(&self, from: Lsn, to: Lsn) -> (&[u8], &[u8]) {
        let length = to.distance_from(from) as usize;
        assert!(length <= self.size, "a range is not longer than the ring");
        let offset = (from.0 % self.size as u64) as usize;
        let first = length.min(self.size - offset);
        // SAFETY: both parts are in bounds: offset + first <= size, length - first <= size. Nobody writes them meanwhile, by
        // the caller's promise.
        unsafe {
            (
                std::slice::from_raw_parts(self.memory.as_ptr().add(offset), first),
                std::slice::from_raw_parts(self.memory.as_ptr(), length - first),
            )
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with the same layout, freed once.
        unsafe { dealloc(self.memory.as_ptr(), Self::layout(self.size)) };
    }
}
