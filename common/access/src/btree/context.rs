//! What a change of an index needs from outside, in one place: pages, WAL credit, the permit, the transaction's xid.

use towline_base::{Lsn, Xid};
use towline_storage::{BufferPool, LoggedChange, Page, PageWrite, Storage, StorageError};
use towline_wal::records::Payload;
use towline_wal::records::btree::BtreeOp;
use towline_wal::{BlockFlags, Credit, Rmgr, WritePermit, credit_for};

use crate::error::Result;

/// Why a change could not begin: the caller waits for this with nothing latched, and tries again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressure {
    /// The WAL buffers have no room until this position is flushed.
    Flush(Lsn),
    /// Too much stands above the quorum until it reaches this position.
    Quorum(Lsn),
}

/// What a change of an index needs.
#[derive(Clone, Copy)]
pub struct IndexContext<'a> {
    /// Pages and WAL.
    pub storage: &'a Storage,
    /// The right to write.
    pub permit: &'a WritePermit,
    /// The changing transaction, [`Xid::INVALID`] for vacuum.
    pub xid: Xid,
    /// The highest horizon that any item can have been marked dead by; asked when dead items are removed.
    pub horizon: &'a dyn Fn() -> Lsn,
}

impl std::fmt::Debug for IndexContext<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IndexContext")
            .field("xid", &self.xid)
            .finish_non_exhaustive()
    }
}

/// The answer to asking for credit.
pub(crate) enum Credited {
    Yes(Credit),
    No(Pressure),
}

impl<'a> IndexContext<'a> {
    pub(crate) fn pool(&self) -> &'a BufferPool {
        self.storage.pool()
    }

    /// Asks for room for one record of at most `bytes`; before anything is latched.
    pub(crate) fn credit(&self, bytes: u32) -> Result<Credited> {
        match self.storage.credit(bytes) {
            Ok(credit) => Ok(Credited::Yes(credit)),
            Err(StorageError::NeedsFlush(lsn)) => Ok(Credited::No(Pressure::Flush(lsn))),
            Err(StorageError::NeedsQuorum(lsn)) => Ok(Credited::No(Pressure::Quorum(lsn))),
            Err(error) => Err(error.into()),
        }
    }

    /// The credit that a record with this many pages and bytes of data needs.
    pub(crate) fn record_size(pages: usize, data: usize) -> u32 {
        credit_for(pages, data)
    }

    /// Begins a change.
    pub(crate) fn change(&self, credit: Credit, op: BtreeOp) -> IndexChange<'a> {
        IndexChange(LoggedChange::new(
            self.storage,
            self.permit,
            credit,
            Rmgr::Btree,
            op as u8,
            self.xid,
        ))
    }
}

/// A logged change of B-tree pages.
pub(crate) struct IndexChange<'a>(LoggedChange<'a>);

impl IndexChange<'_> {
    /// Adds a page under the next block id.
    pub(crate) fn page(&mut self, page: PageWrite) -> u8 {
        self.0.page(page, BlockFlags::STANDARD)
    }

    /// Adds a page under this block id.
    pub(crate) fn page_as(&mut self, id: u8, page: PageWrite) -> u8 {
        self.0.page_as(id, page, BlockFlags::STANDARD)
    }

    /// Adds a page that redo makes from nothing, under the next block id.
    pub(crate) fn page_init(&mut self, page: PageWrite) -> u8 {
        self.0.page(page, BlockFlags::STANDARD | BlockFlags::WILL_INIT)
    }

    /// Adds a page that redo makes from nothing, under this block id.
    pub(crate) fn page_init_as(&mut self, id: u8, page: PageWrite) -> u8 {
        self.0
            .page_as(id, page, BlockFlags::STANDARD | BlockFlags::WILL_INIT)
    }

    /// The page of a block id, to change.
    pub(crate) fn page_mut(&mut self, id: u8) -> &mut Page {
        self.0.page_mut(id)
    }

    /// Appends to the data of a block.
    pub(crate) fn block_data(&mut self, id: u8, data: &[u8]) {
        self.0.block_data(id, data);
    }

    /// Appends a payload to the data of a block.
    pub(crate) fn block_payload<P: Payload + ?Sized>(&mut self, id: u8, payload: &P) {
        self.0.block_payload(id, payload);
    }

    /// Appends a payload to the main data.
    pub(crate) fn payload<P: Payload + ?Sized>(&mut self, payload: &P) {
        self.0.payload(payload);
    }

    /// Logs the change.
    pub(crate) fn finish(self) -> Result<()> {
        self.0.finish()?;
        Ok(())
    }
}
