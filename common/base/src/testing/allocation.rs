//! An allocator that remembers the largest piece asked for, so that a fuzzer sees a length from its input used unchecked.
//!
//! Safety: every call is handed on unchanged to the system's allocator, which keeps the contract of [`GlobalAlloc`]; beside that,
//! only an atomic number is raised.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

static LARGEST: AtomicUsize = AtomicUsize::new(0);

/// A test installs it as its `#[global_allocator]`.
#[derive(Debug, Clone, Copy, Default)]
pub struct WatchedAllocator;

impl WatchedAllocator {
    /// Bytes of the largest piece since the last reset; 0 where it is not installed.
    pub fn largest() -> usize {
        LARGEST.load(Ordering::Relaxed)
    }

    pub(super) fn reset() {
        LARGEST.store(0, Ordering::Relaxed);
    }

    fn note(size: usize) {
        // A read is cheaper than a write that every thread does to one cache line.
        if size > LARGEST.load(Ordering::Relaxed) {
            LARGEST.fetch_max(size, Ordering::Relaxed);
        }
    }
}

// SAFETY: see the module: all of it is the system allocator's doing.
unsafe impl GlobalAlloc for WatchedAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::note(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::note(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::note(size);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}
