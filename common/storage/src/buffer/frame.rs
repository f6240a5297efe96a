//! Frames: the arena of page bytes and, for each frame, its header of atomics. The one module with `unsafe`.
//!
//! Safety argument of the module:
//!
//! 1. *Lifetime.* Frames and arena are one allocation owned by [`FrameArray`]. A [`FrameRef`] in a guard outlives any borrow of
//!    the pool, so the array is freed on drop only when no frame is pinned; otherwise it is leaked. Pins are taken only
//!    through `&FrameArray`, or from a pin that exists, so none can appear while it is dropped. Unpinning touches
//!    the frame for the last time in its `fetch_sub(Release)`, which the check in drop reads with `Acquire`.
//! 2. *Aliasing.* `&Page` and `&mut Page` are made only by the two latch types below and borrow from them. A frame that is being filled is latched exclusively before
//!    it can be found in the page table.
//! 3. *Validity.* Any bytes are a valid `Page` (it is a transparent array of bytes), and the arena is allocated zeroed.
//! 4. *Threads.* All header fields are atomics; the bytes follow rule 2.

use crate::page::Page;
use parking_lot::lock_api::{RawRwLock as _, RawRwLockDowngrade as _};
use towline_base::{ForkKind, Lsn, PAGE_SIZE, PageId, RelFileNode};

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::marker::PhantomData;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Pins of a frame: the low bits of its state.
pub(super) const PIN_MASK: u32 = (1 << 18) - 1;
/// One step of the usage count, which stands above the pins.
pub(super) const USAGE_ONE: u32 = 1 << 18;
const USAGE_MASK: u32 = 7 << 18;
/// The clock hand passes a frame this often before it goes (PostgreSQL's `BM_MAX_USAGE_COUNT`).
pub(super) const MAX_USAGE: u32 = 5;
/// The bytes are the page that the tag names.
pub(super) const VALID: u32 = 1 << 22;
/// Holds changes that are not written.
pub(super) const DIRTY: u32 = 1 << 23;
/// Somebody has taken a copy and will write it: one writer at a time, so that an old copy never follows a newer one.
pub(super) const WRITING: u32 = 1 << 24;
/// Somebody waits to be the only one with a pin.
pub(super) const CLEANUP_WAITER: u32 = 1 << 25;
/// Being given another page; it cannot be pinned.
pub(super) const CLAIMED: u32 = 1 << 26;
/// Stands in the page table under its tag.
pub(super) const TAGGED: u32 = 1 << 27;

/// No frame, the end of a chain.
pub(super) const NO_FRAME: u32 = u32::MAX;

/// Header of a frame: one cache line.
#[repr(align(64))]
pub(super) struct Frame {
    /// Pins, usage count and flags.
    pub(super) state: AtomicU32,
    /// Next frame of the same bucket of the page table.
    pub(super) next: AtomicU32,
    tag_space: AtomicU64,
    tag_block: AtomicU64,
    tag_fork: AtomicU32,
    /// Guards the bytes.
    latch: parking_lot::RawRwLock,
    /// Start of the first change that is not in a copy to be written; `u64::MAX` when clean.
    pub(super) rec_lsn: AtomicU64,
    /// End of the last logged change, as on the page, readable without the latch.
    pub(super) page_lsn: AtomicU64,
    bytes: NonNull<Page>,
}

// SAFETY: rule 4; the pointer leads into the arena of the same owner, reached by rule 2 only.
unsafe impl Send for Frame {}
// SAFETY: as above.
unsafe impl Sync for Frame {}

const _: () = assert!(size_of::<Frame>() == 64);

/// `rec_lsn` of a clean frame.
pub(super) const CLEAN: u64 = u64::MAX;

impl Frame {
    /// The page that this frame holds, or held last. Stable while the frame is pinned.
    #[inline]
    pub(super) fn id(&self) -> PageId {
        let space = self.tag_space.load(Ordering::Relaxed);
        let block = self.tag_block.load(Ordering::Relaxed);
        let fork = ForkKind::from_number(self.tag_fork.load(Ordering::Relaxed) as u8).unwrap_or_default();
        let rel = RelFileNode {
            spc: (space >> 32) as u32,
            db: space as u32,
            rel: (block >> 32) as u32,
        };
        PageId {
            rel,
            fork,
            block: block as u32,
        }
    }

    /// Compares without building a [`PageId`].
    #[inline]
    pub(super) fn holds(&self, id: &PageId) -> bool {
        self.tag_block.load(Ordering::Relaxed) == pack_block(id)
            && self.tag_space.load(Ordering::Relaxed) == pack_space(id)
            && self.tag_fork.load(Ordering::Relaxed) == id.fork as u32
    }

    /// Gives the frame another page; only for the one who has claimed it.
    pub(super) fn set_id(&self, id: &PageId) {
        self.tag_space.store(pack_space(id), Ordering::Relaxed);
        self.tag_block.store(pack_block(id), Ordering::Relaxed);
        self.tag_fork.store(id.fork as u32, Ordering::Relaxed);
    }

    /// Pins the frame if it still holds `id`; returns its state then. One compare-and-swap on the common path.
    #[inline]
    pub(super) fn try_pin(&self, id: &PageId, bump: bool) -> Option<u32> {
        let mut state = self.state.load(Ordering::Relaxed);
        loop {
            if state & (CLAIMED | TAGGED) != TAGGED || state & PIN_MASK == PIN_MASK {
                return None;
            }
            let usage = if bump && state & USAGE_MASK < MAX_USAGE * USAGE_ONE {
                USAGE_ONE
            } else {
                0
            };
            match self.state.compare_exchange_weak(
                state,
                state + 1 + usage,
                Ordering::Acquire,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(now) => state = now,
            }
        }
        // Pinned: the tag cannot change any more. It may have changed before, or the page may have been dropped meanwhile.
        let state = self.state.load(Ordering::Acquire);
        if self.holds(id) && state & TAGGED != 0 {
            return Some(state);
        }
        self.unpin();
        None
    }

    /// One more pin for somebody who has one.
    #[inline]
    pub(super) fn pin_again(&self) {
        let before = self.state.fetch_add(1, Ordering::Relaxed);
        assert!(
            before & PIN_MASK < PIN_MASK - 1,
            "a page is pinned 2^18 times: a leak of pins"
        );
    }

    /// Gives a pin back. Touches nothing of the pool after the subtraction (rule 1): waiters are woken through a static.
    #[inline]
    pub(super) fn unpin(&self) {
        let before = self.state.fetch_sub(1, Ordering::Release);
        debug_assert!(before & PIN_MASK != 0, "unpinned more often than pinned");
        if before & CLEANUP_WAITER != 0 {
            super::cleanup::wake_waiters();
        }
    }

    /// Pins now.
    #[inline]
    pub(super) fn pins(&self) -> u32 {
        self.state.load(Ordering::Acquire) & PIN_MASK
    }

    /// Lowers the usage count by one if nothing else happened to the state.
    pub(super) fn cool(&self, state: u32) {
        let _ = self
            .state
            .compare_exchange(state, state - USAGE_ONE, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Usage count in a state.
    #[inline]
    pub(super) fn usage(state: u32) -> u32 {
        (state & USAGE_MASK) / USAGE_ONE
    }

    /// Marks the frame dirty by a change that starts at `start` or later. Under the exclusive latch.
    pub(super) fn mark_dirty(&self, start: Lsn) {
        self.rec_lsn.fetch_min(start.0, Ordering::Relaxed);
        self.state.fetch_or(DIRTY, Ordering::Release);
    }
}

#[inline]
fn pack_space(id: &PageId) -> u64 {
    u64::from(id.rel.spc) << 32 | u64::from(id.rel.db)
}

#[inline]
fn pack_block(id: &PageId) -> u64 {
    u64::from(id.rel.rel) << 32 | u64::from(id.block)
}

/// A frame that is known to live: by a borrow of the array, or by a pin (rule 1).
#[derive(Clone, Copy)]
pub(super) struct FrameRef(NonNull<Frame>);

// SAFETY: rule 4.
unsafe impl Send for FrameRef {}
// SAFETY: rule 4.
unsafe impl Sync for FrameRef {}

impl FrameRef {
    /// A reference for a guard that holds a pin, which keeps the frame alive (rule 1).
    pub(super) fn pinned(frame: &Frame) -> FrameRef {
        debug_assert!(frame.pins() > 0);
        FrameRef(NonNull::from(frame))
    }

    /// A reference for code that borrows the pool, and so the array, for at least as long (rule 1).
    pub(super) fn held(frame: &Frame) -> FrameRef {
        FrameRef(NonNull::from(frame))
    }

    /// Whether both are the same frame.
    pub(super) fn is_same(self, other: FrameRef) -> bool {
        self.0 == other.0
    }
}

impl std::ops::Deref for FrameRef {
    type Target = Frame;

    #[inline]
    fn deref(&self) -> &Frame {
        // SAFETY: rule 1: the holder has a pin.
        unsafe { self.0.as_ref() }
    }
}

/// A latch for reading. Its owner holds a pin, or has claimed the frame, for as long (rule 1).
pub(super) struct SharedLatch {
    frame: FrameRef,
    not_send: PhantomData<*const ()>,
}

impl SharedLatch {
    /// Waits for writers.
    #[inline]
    pub(super) fn lock(frame: FrameRef) -> SharedLatch {
        frame.latch.lock_shared();
        SharedLatch {
            frame,
            not_send: PhantomData,
        }
    }

    /// Fails when a writer has the latch or waits for it.
    #[inline]
    pub(super) fn try_lock(frame: FrameRef) -> Option<SharedLatch> {
        // Not `then_some`: the value must not be made, and dropped, when the lock was refused.
        frame.latch.try_lock_shared().then(|| SharedLatch {
            frame,
            not_send: PhantomData,
        })
    }

    /// The bytes.
    #[inline]
    pub(super) fn page(&self) -> &Page {
        // SAFETY: rules 1 to 3: the shared latch is held as long as the borrow of `self`.
        unsafe { self.frame.bytes.as_ref() }
    }
}

impl Drop for SharedLatch {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: locked when `self` was made, unlocked once, by the thread that locked it (not Send).
        unsafe { self.frame.latch.unlock_shared() };
    }
}

/// A latch for writing. Its owner holds a pin, or has claimed the frame, for as long (rule 1).
pub(super) struct ExclusiveLatch {
    frame: FrameRef,
    not_send: PhantomData<*const ()>,
}

impl ExclusiveLatch {
    /// Waits for readers and writers.
    #[inline]
    pub(super) fn lock(frame: FrameRef) -> ExclusiveLatch {
        frame.latch.lock_exclusive();
        ExclusiveLatch {
            frame,
            not_send: PhantomData,
        }
    }

    /// Fails when anybody has the latch.
    #[inline]
    pub(super) fn try_lock(frame: FrameRef) -> Option<ExclusiveLatch> {
        // Not `then_some`: the value must not be made, and dropped, when the lock was refused.
        frame.latch.try_lock_exclusive().then(|| ExclusiveLatch {
            frame,
            not_send: PhantomData,
        })
    }

    /// Keeps reading, lets no writer in between.
    pub(super) fn downgrade(self) -> SharedLatch {
        let latch = ManuallyDrop::new(self);
        // SAFETY: held exclusively; from here on it is the shared latch that will be unlocked.
        unsafe { latch.frame.latch.downgrade() };
        SharedLatch {
            frame: latch.frame,
            not_send: PhantomData,
        }
    }

    /// The bytes.
    #[inline]
    pub(super) fn page(&self) -> &Page {
        // SAFETY: rules 1 to 3: the exclusive latch is held as long as the borrow of `self`.
        unsafe { self.frame.bytes.as_ref() }
    }

    /// The bytes, to change.
    #[inline]
    pub(super) fn page_mut(&mut self) -> &mut Page {
        // SAFETY: as in `page`, and `self` is borrowed mutably, so this is the only reference.
        unsafe { &mut *self.frame.bytes.as_ptr() }
    }
}

impl Drop for ExclusiveLatch {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: locked when `self` was made, unlocked once, by the thread that locked it (not Send).
        unsafe { self.frame.latch.unlock_exclusive() };
    }
}

/// All frames, headers and bytes, allocated once.
pub(super) struct FrameArray {
    headers: NonNull<Frame>,
    count: usize,
    header_layout: Layout,
    arena: NonNull<u8>,
    arena_layout: Layout,
}

// SAFETY: rule 4.
unsafe impl Send for FrameArray {}
// SAFETY: rule 4.
unsafe impl Sync for FrameArray {}

/// Alignment of the pages, for the kernel's and the hardware's sake.
const PAGE_ALIGNMENT: usize = 4096;

impl FrameArray {
    /// Allocates `count` frames. The arena is asked for as zeroed memory of small alignment and aligned by hand, so that the
    /// system gives pages of memory only when frames are used.
    pub(super) fn new(count: usize) -> FrameArray {
        assert!(
            count > 0 && count < NO_FRAME as usize,
            "a pool has between 1 and 2^32-2 frames"
        );
        let arena_layout =
            Layout::from_size_align(count * PAGE_SIZE + PAGE_ALIGNMENT, 16).expect("pool size fits memory");
        let header_layout = Layout::array::<Frame>(count).expect("pool size fits memory");
        // SAFETY: both layouts have a size above zero.
        let (arena, headers) = unsafe { (alloc_zeroed(arena_layout), alloc_zeroed(header_layout)) };
        let Some(arena) = NonNull::new(arena) else {
            handle_alloc_error(arena_layout)
        };
        let Some(headers) = NonNull::new(headers.cast::<Frame>()) else {
            handle_alloc_error(header_layout)
        };
        let skip = arena.as_ptr().align_offset(PAGE_ALIGNMENT);
        for index in 0..count {
            // SAFETY: `skip` < PAGE_ALIGNMENT, so each page lies inside the arena; each header is written once, in bounds, before
            // anybody can see it.
            unsafe {
                let bytes = arena.add(skip + index * PAGE_SIZE).cast::<Page>();
                headers.add(index).write(Frame {
                    state: AtomicU32::new(0),
                    next: AtomicU32::new(NO_FRAME),
                    tag_space: AtomicU64::new(0),
                    tag_block: AtomicU64::new(0),
                    tag_fork: AtomicU32::new(0),
                    latch: parking_lot::RawRwLock::INIT,
                    rec_lsn: AtomicU64::new(CLEAN),
                    page_lsn: AtomicU64::new(0),
                    bytes,
                });
            }
        }
        FrameArray {
            headers,
            count,
            header_layout,
            arena,
            arena_layout,
        }
    }

    /// All headers.
    #[inline]
    pub(super) fn as_slice(&self) -> &[Frame] {
        // SAFETY: `count` headers were written in `new` and live as long as `self`.
        unsafe { std::slice::from_raw_parts(self.headers.as_ptr(), self.count) }
    }
}

impl Drop for FrameArray {
    fn drop(&mut self) {
        if self.as_slice().iter().any(|frame| frame.pins() > 0) {
            tracing::warn!("a buffer pool is dropped while pages are pinned; its memory is kept");
            return;
        }
        // SAFETY: rule 1: nobody has a pin, so no reference into the array is left; the layouts are those of `new`.
        unsafe {
            dealloc(self.headers.as_ptr().cast(), self.header_layout);
            dealloc(self.arena.as_ptr(), self.arena_layout);
        }
    }
}
