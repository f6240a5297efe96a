//! Pins and latches as values: what is not dropped is held.
//!
//! A pin keeps a page in its frame; a latch, for reading or writing, keeps its bytes still. A session waits for nothing
//! but latches while it holds one, and then only in the order of the record that it writes (block 0 first), which redo follows
//! too (C6). Guards are not `Send`, so a latch cannot be carried over an await; pins can.

use super::cleanup;
use super::frame::{ExclusiveLatch, FrameRef, SharedLatch, VALID};
use crate::page::Page;
use towline_base::{Lsn, PageId};

use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::atomic::Ordering;

/// A page that stays in its frame while this lives. Cloning takes another pin.
pub struct PinnedPage {
    frame: FrameRef,
}

impl PinnedPage {
    /// Takes over a pin that the caller has taken on the frame.
    #[inline]
    pub(super) fn adopt(frame: FrameRef) -> PinnedPage {
        PinnedPage { frame }
    }

    #[inline]
    pub(super) fn frame(&self) -> FrameRef {
        self.frame
    }

    /// Which page this is.
    #[inline]
    pub fn id(&self) -> PageId {
        self.frame.id()
    }

    /// Latches for reading; waits for a writer. A thread that already reads the page must not ask again: a writer that
    /// waits in between would stop both.
    #[inline]
    pub fn read(self) -> PageRead {
        PageRead {
            latch: SharedLatch::lock(self.frame),
            pin: self,
        }
    }

    /// As [`PinnedPage::read`], borrowing the pin.
    #[inline]
    pub fn read_ref(&self) -> PageReadRef<'_> {
        PageReadRef {
            latch: SharedLatch::lock(self.frame),
            pin: PhantomData,
        }
    }

    /// Latches for writing; waits for readers and writers.
    #[inline]
    pub fn write(self) -> PageWrite {
        PageWrite {
            latch: ExclusiveLatch::lock(self.frame),
            pin: self,
        }
    }

    /// Latches for writing if nobody has the latch; gives the pin back otherwise.
    #[inline]
    pub fn try_write(self) -> Result<PageWrite, PinnedPage> {
        match ExclusiveLatch::try_lock(self.frame) {
            Some(latch) => Ok(PageWrite { latch, pin: self }),
            None => Err(self),
        }
    }

    /// The cleanup latch: for writing, and this pin is the only one, so that nobody remembers a place in the page. Waits on the
    /// thread until other pins are gone: for vacuum and redo, not for sessions.
    pub fn cleanup(self) -> PageWrite {
        let mut pin = self;
        loop {
            match pin.write().into_cleanup() {
                Ok(guard) => return guard,
                Err(guard) => pin = guard.unlatch(),
            }
            cleanup::wait_for_sole_pin(&pin.frame);
        }
    }

    /// The cleanup latch if it can be had at once; gives the pin back otherwise.
    pub fn try_cleanup(self) -> Result<PageWrite, PinnedPage> {
        self.try_write()?.into_cleanup().map_err(PageWrite::unlatch)
    }

    /// Latches for setting hints, if nobody has the latch.
    #[inline]
    pub fn try_hint(&self) -> Option<HintGuard<'_>> {
        ExclusiveLatch::try_lock(self.frame).map(|latch| HintGuard {
            latch,
            pin: PhantomData,
        })
    }

    pub(super) fn is_valid(&self) -> bool {
        self.frame.state.load(Ordering::Acquire) & VALID != 0
    }
}

impl Clone for PinnedPage {
    fn clone(&self) -> PinnedPage {
        self.frame.pin_again();
        PinnedPage { frame: self.frame }
    }
}

impl Drop for PinnedPage {
    #[inline]
    fn drop(&mut self) {
        self.frame.unpin();
    }
}

impl PartialEq for PinnedPage {
    fn eq(&self, other: &PinnedPage) -> bool {
        self.frame.is_same(other.frame)
    }
}

impl std::fmt::Debug for PinnedPage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PinnedPage({})", self.id())
    }
}

/// A page latched for reading, with its pin.
pub struct PageRead {
    // Dropped in this order: the latch falls before the pin.
    latch: SharedLatch,
    pin: PinnedPage,
}

impl PageRead {
    /// Which page this is.
    #[inline]
    pub fn id(&self) -> PageId {
        self.pin.id()
    }

    /// The pin, still held by this guard.
    #[inline]
    pub fn pin(&self) -> &PinnedPage {
        &self.pin
    }

    /// Gives up the latch and keeps the pin.
    #[inline]
    pub fn unlatch(self) -> PinnedPage {
        let PageRead { latch, pin } = self;
        drop(latch);
        pin
    }
}

impl Deref for PageRead {
    type Target = Page;

    #[inline]
    fn deref(&self) -> &Page {
        self.latch.page()
    }
}

/// A page latched for reading; the pin is borrowed.
pub struct PageReadRef<'a> {
    latch: SharedLatch,
    pin: PhantomData<&'a PinnedPage>,
}

impl Deref for PageReadRef<'_> {
    type Target = Page;

    #[inline]
    fn deref(&self) -> &Page {
        self.latch.page()
    }
}

/// A page latched for writing, with its pin. It shows the page; only [`crate::LoggedChange`] and redo change it, hints aside.
pub struct PageWrite {
    // Dropped in this order: the latch falls before the pin.
    latch: ExclusiveLatch,
    pin: PinnedPage,
}

impl PageWrite {
    /// Which page this is.
    #[inline]
    pub fn id(&self) -> PageId {
        self.pin.id()
    }

    /// The pin, still held by this guard.
    #[inline]
    pub fn pin(&self) -> &PinnedPage {
        &self.pin
    }

    /// Gives up the latch and keeps the pin.
    #[inline]
    pub fn unlatch(self) -> PinnedPage {
        let PageWrite { latch, pin } = self;
        drop(latch);
        pin
    }

    /// True when this guard has the only pin: a cleanup latch.
    #[inline]
    pub fn is_cleanup(&self) -> bool {
        self.pin.frame.pins() == 1
    }

    /// Turns the latch into one for reading without letting a writer in between.
    pub fn downgrade(self) -> PageRead {
        let PageWrite { latch, pin } = self;
        PageRead {
            latch: latch.downgrade(),
            pin,
        }
    }

    /// Keeps the guard if it is a cleanup latch.
    fn into_cleanup(self) -> Result<PageWrite, PageWrite> {
        if self.is_cleanup() { Ok(self) } else { Err(self) }
    }

    /// The bytes for setting hints (committed bits, dead line pointers of an index): what may be lost at any time, on any node.
    /// The page does not become dirty, so a hint reaches disk only with a later logged change (B8). Whether the
    /// hint may be set at all is the caller's question (DESIGN §6).
    #[inline]
    pub fn hint_mut(&mut self) -> &mut Page {
        self.bytes_mut()
    }

    /// The bytes for a logged change or redo.
    #[inline]
    pub(crate) fn bytes_mut(&mut self) -> &mut Page {
        self.latch.page_mut()
    }

    /// The page will differ from disk by a change whose record starts at `start` or later. Before the record is inserted, so that
    /// a checkpoint whose redo pointer passes the record finds the page dirty.
    #[inline]
    pub(crate) fn mark_dirty(&self, start: Lsn) {
        self.pin.frame.mark_dirty(start);
    }

    /// Sets the page's LSN, on the page and in its frame.
    #[inline]
    pub(crate) fn stamp(&mut self, end: Lsn) {
        self.bytes_mut().set_lsn(end);
        self.pin.frame.page_lsn.store(end.0, Ordering::Release);
    }
}

impl Deref for PageWrite {
    type Target = Page;

    #[inline]
    fn deref(&self) -> &Page {
        self.latch.page()
    }
}

/// A page latched for setting hints; the pin is borrowed. See [`PageWrite::hint_mut`].
pub struct HintGuard<'a> {
    latch: ExclusiveLatch,
    pin: PhantomData<&'a PinnedPage>,
}

impl HintGuard<'_> {
    /// The bytes; see [`PageWrite::hint_mut`].
    #[inline]
    pub fn page_mut(&mut self) -> &mut Page {
        self.latch.page_mut()
    }
}

impl Deref for HintGuard<'_> {
    type Target = Page;

    #[inline]
    fn deref(&self) -> &Page {
        self.latch.page()
    }
}

impl std::fmt::Debug for PageRead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PageRead({})", self.id())
    }
}

impl std::fmt::Debug for PageWrite {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PageWrite({})", self.id())
    }
}
