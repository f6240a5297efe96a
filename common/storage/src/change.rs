//! [`LoggedChange`]: the recipe of a logged change as a type, and the only way to change a page outside redo.
//!
//! The order (PostgreSQL's `transam/README`, here enforced): take credit before anything is latched ([`crate::Storage::credit`]);
//! latch the pages; hand them over ([`LoggedChange::page`]); change them ([`LoggedChange::page_mut`]); say what redo needs
//! ([`LoggedChange::data`]); [`LoggedChange::finish`] marks the pages dirty, inserts the record, sets their LSN, and only then
//! unlatches.
//!
//! The pages are marked dirty before the insertion: a checkpoint whose redo pointer passes the record then finds them dirty, and waits
//! for their latch before it copies them.
//!
//! A change that has touched a page must be logged: memory would be ahead of the log otherwise, and readers would see what never
//! happened. So when the log refuses the record, or the change is dropped half-way, the storage stops: no page is given out any
//! more, and the node restarts from disk. What may fail (room on the page, a missing block, a revoked permit seen early) is
//! therefore asked before `page_mut`. Unwinding out of such a change aborts the process at once: from the first `page_mut` to the
//! stamp is a critical section.

use crate::buffer::PageWrite;
use crate::error::{StorageError, StorageResult};
use crate::page::Page;
use crate::storage::Storage;
use smallvec::SmallVec;
use towline_base::{CriticalSection, Xid, failpoint};
use towline_wal::records::Payload;
use towline_wal::{BlockFlags, Credit, Inserted, PageBytes, RecordBuilder, Rmgr, WritePermit};

use std::cell::Cell;

/// Most pages of one change: PostgreSQL's bound of block references.
pub const MAX_PAGES: usize = 33;

thread_local! {
    /// A builder kept for the thread's next change, so that its buffers are reused.
    static SPARE_BUILDER: Cell<Option<Box<RecordBuilder>>> = const { Cell::new(None) };
}

/// Latched pages of a change, in the order of their block ids.
pub type ChangedPages = SmallVec<[PageWrite; 4]>;

/// See the module.
pub struct LoggedChange<'a> {
    storage: &'a Storage,
    permit: &'a WritePermit,
    credit: Option<Credit>,
    /// Present until the change is finished or dropped.
    builder: Option<Box<RecordBuilder>>,
    ids: SmallVec<[u8; 4]>,
    pages: ChangedPages,
    touched: bool,
}

impl<'a> LoggedChange<'a> {
    /// Begins a change whose record gets this resource manager, info byte and xid ([`Xid::INVALID`] for none).
    pub fn new(
        storage: &'a Storage,
        permit: &'a WritePermit,
        credit: Credit,
        rmgr: Rmgr,
        info: u8,
        xid: Xid,
    ) -> LoggedChange<'a> {
        let mut builder = SPARE_BUILDER.take().unwrap_or_default();
        builder.begin(rmgr, info, xid.low32());
        LoggedChange {
            storage,
            permit,
            credit: Some(credit),
            builder: Some(builder),
            ids: SmallVec::new(),
            pages: SmallVec::new(),
            touched: false,
        }
    }

    /// Adds a page under the next block id and returns that id. Before the page is changed.
    pub fn page(&mut self, page: PageWrite, flags: BlockFlags) -> u8 {
        let id = self.ids.last().map_or(0, |last| last + 1);
        self.page_as(id, page, flags)
    }

    /// Adds a page under a block id above the last one.
    ///
    /// # Panics
    /// When ids do not ascend: the code that builds the record is wrong.
    pub fn page_as(&mut self, id: u8, page: PageWrite, flags: BlockFlags) -> u8 {
        debug_assert!(
            self.pages.iter().all(|other| other.id() != page.id()),
            "a page takes part once"
        );
        self.builder_mut().block(id, page.id(), flags);
        self.ids.push(id);
        self.pages.push(page);
        id
    }

    /// The page of a block id.
    ///
    /// # Panics
    /// When no page was added under `id`.
    pub fn page_ref(&self, id: u8) -> &Page {
        &self.pages[self.index_of(id)]
    }

    /// The page of a block id, to change. From here on the change must be finished; see the module.
    ///
    /// # Panics
    /// When no page was added under `id`.
    pub fn page_mut(&mut self, id: u8) -> &mut Page {
        self.touched = true;
        let index = self.index_of(id);
        self.pages[index].bytes_mut()
    }

    fn index_of(&self, id: u8) -> usize {
        self.ids
            .iter()
            .position(|known| *known == id)
            .expect("the page was added under this block id")
    }

    /// Appends to the data of a block: what redo needs when it has no image of the page.
    pub fn block_data(&mut self, id: u8, data: &[u8]) -> &mut Self {
        self.builder_mut().block_data(id, data);
        self
    }

    /// Appends a payload struct to the data of a block.
    pub fn block_payload<P: Payload + ?Sized>(&mut self, id: u8, payload: &P) -> &mut Self {
        self.builder_mut().block_payload(id, payload);
        self
    }

    /// Appends to the main data of the record.
    pub fn data(&mut self, data: &[u8]) -> &mut Self {
        self.builder_mut().data(data);
        self
    }

    /// Appends a payload struct to the main data.
    pub fn payload<P: Payload + ?Sized>(&mut self, payload: &P) -> &mut Self {
        self.builder_mut().payload(payload);
        self
    }

    /// The builder, for what has no method here.
    ///
    /// # Panics
    /// Never before the change is finished.
    pub fn builder_mut(&mut self) -> &mut RecordBuilder {
        self.builder
            .as_mut()
            .expect("present until the change is finished")
    }

    /// Logs the change and lets go of the pages. The end of the record is the pages' LSN.
    pub fn finish(self) -> StorageResult<Inserted> {
        self.finish_keeping().map(|(inserted, _pages)| inserted)
    }

    /// As [`LoggedChange::finish`], and gives the pages back, still latched, in the order of their block ids.
    pub fn finish_keeping(mut self) -> StorageResult<(Inserted, ChangedPages)> {
        // A test panics here.
        let _ = failpoint!("storage::before_log");
        let wal = self.storage.wal()?;
        let credit = self
            .credit
            .take()
            .ok_or(StorageError::Misuse("a change is finished once"))?;
        let mut builder = self
            .builder
            .take()
            .ok_or(StorageError::Misuse("a change is finished once"))?;
        let earliest = wal.insert_lsn();
        for page in &self.pages {
            page.mark_dirty(earliest);
        }
        let bytes: SmallVec<[&PageBytes; 4]> = self.pages.iter().map(|page| page.as_bytes()).collect();
        let inserted = wal.insert(self.permit, credit, &mut builder, &bytes);
        drop(bytes);
        SPARE_BUILDER.set(Some(builder));
        // On an error the drop of `self` stops the storage if a page was touched.
        let inserted = inserted.map_err(|error| StorageError::Wal(error.to_string()))?;
        for page in &mut self.pages {
            page.stamp(inserted.end);
        }
        self.touched = false;
        Ok((inserted, std::mem::take(&mut self.pages)))
    }
}

impl Drop for LoggedChange<'_> {
    fn drop(&mut self) {
        if self.touched {
            // Ends the process when this drop is an unwinding.
            drop(CriticalSection::enter("a page changed and not logged"));
            self.storage
                .stop("a change has touched a page and could not be logged");
        }
        if let Some(builder) = self.builder.take() {
            SPARE_BUILDER.set(Some(builder));
        }
    }
}
