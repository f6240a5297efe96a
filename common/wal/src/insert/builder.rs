//! [`RecordBuilder`]: what a record says, before it is known whether page images go with it.
//!
//! Reusable: buffers keep their capacity, so building a record allocates nothing in the steady state. The pages themselves
//! are not held here: `Wal::insert` takes them (as they are after the change, latched by the caller) and decides which need an
//! image, so that neither an image nor data is copied before it goes to the WAL buffers.

use towline_base::{PAGE_SIZE, PageId};

use crate::format::{MAX_BLOCK_ID, PositionMap};
use crate::records::Payload;
use crate::rmgr::Rmgr;

/// The bytes of a data page.
pub type PageBytes = [u8; PAGE_SIZE];

/// How a page takes part in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BlockFlags(u8);

impl BlockFlags {
    /// An image when the page was last changed before the image threshold; no hole is looked for.
    pub const DEFAULT: BlockFlags = BlockFlags(0);
    /// The page has PostgreSQL's header: the bytes between `pd_lower` and `pd_upper` are zero for redo and left out of images.
    pub const STANDARD: BlockFlags = BlockFlags(1);
    /// Redo makes the page from nothing: no image, ever.
    pub const WILL_INIT: BlockFlags = BlockFlags(2 | 8);
    /// Always an image.
    pub const FORCE_IMAGE: BlockFlags = BlockFlags(4);
    /// Never an image (the page is written in a way that survives tearing).
    pub const NO_IMAGE: BlockFlags = BlockFlags(8);
    /// The block data is kept beside an image.
    pub const KEEP_DATA: BlockFlags = BlockFlags(16);

    /// Whether all bits of `other` are set.
    pub const fn contains(self, other: BlockFlags) -> bool {
        self.0 & other.0 == other.0
    }
}

impl std::ops::BitOr for BlockFlags {
    type Output = BlockFlags;
    fn bitor(self, other: BlockFlags) -> BlockFlags {
        BlockFlags(self.0 | other.0)
    }
}

/// One page of a record under construction.
#[derive(Debug)]
pub(crate) struct BlockPart {
    pub(crate) id: u8,
    pub(crate) page: PageId,
    pub(crate) flags: BlockFlags,
    pub(crate) data: Vec<u8>,
}

/// A record under construction. See the module.
#[derive(Debug)]
pub struct RecordBuilder {
    pub(crate) rmgr: Rmgr,
    pub(crate) info: u8,
    pub(crate) xid: u32,
    /// Only the first `used` are part of the record; the others keep their buffers for later.
    blocks: Vec<BlockPart>,
    used: usize,
    pub(crate) main: Vec<u8>,
    /// The assembled header part; owned here so that its buffer is reused.
    pub(crate) header: Vec<u8>,
    /// Compressed images, one behind the other.
    pub(crate) compressed: Vec<u8>,
}

impl Default for RecordBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl RecordBuilder {
    /// An empty builder; call [`Self::begin`] before each record.
    pub fn new() -> Self {
        Self {
            rmgr: Rmgr::Xlog,
            info: 0,
            xid: 0,
            blocks: Vec::new(),
            used: 0,
            main: Vec::new(),
            header: Vec::new(),
            compressed: Vec::new(),
        }
    }

    /// Starts a record, forgetting the one before. `info` is the whole `xl_info` byte; `xid32` the low half of the xid, or 0.
    pub fn begin(&mut self, rmgr: Rmgr, info: u8, xid32: u32) -> &mut Self {
        self.rmgr = rmgr;
        self.info = info;
        self.xid = xid32;
        self.used = 0;
        self.main.clear();
        self
    }

    /// Adds a page under a block id. Ids must be added in ascending order; the page's bytes are given to `Wal::insert` in the
    /// same order.
    ///
    /// # Panics
    /// When ids are out of order or above 32: the code that builds the record is wrong.
    pub fn block(&mut self, id: u8, page: PageId, flags: BlockFlags) -> &mut Self {
        assert!(
            id <= MAX_BLOCK_ID && self.blocks().last().is_none_or(|last| last.id < id),
            "block ids ascend"
        );
        match self.blocks.get_mut(self.used) {
            Some(part) => {
                part.id = id;
                part.page = page;
                part.flags = flags;
                part.data.clear();
            }
            None => self.blocks.push(BlockPart {
                id,
                page,
                flags,
                data: Vec::new(),
            }),
        }
        self.used += 1;
        self
    }

    /// Appends to the data of a block, which an image makes unnecessary (so it is left out with one, unless KEEP_DATA).
    ///
    /// # Panics
    /// When the block was not added.
    pub fn block_data(&mut self, id: u8, data: &[u8]) -> &mut Self {
        self.block_buffer(id).extend_from_slice(data);
        self
    }

    /// The data buffer of a block, to append to.
    ///
    /// # Panics
    /// When the block was not added.
    pub fn block_buffer(&mut self, id: u8) -> &mut Vec<u8> {
        let used = self.used;
        let part = self.blocks[..used].iter_mut().find(|part| part.id == id);
        &mut part.expect("the block was added before its data").data
    }

    /// Appends a payload struct to a block's data.
    pub fn block_payload<P: Payload + ?Sized>(&mut self, id: u8, payload: &P) -> &mut Self {
        payload.encode(self.block_buffer(id));
        self
    }

    /// Appends to the main data.
    pub fn data(&mut self, data: &[u8]) -> &mut Self {
        self.main.extend_from_slice(data);
        self
    }

    /// The main data buffer, to append to.
    pub fn data_buffer(&mut self) -> &mut Vec<u8> {
        &mut self.main
    }

    /// Appends a payload struct to the main data.
    pub fn payload<P: Payload + ?Sized>(&mut self, payload: &P) -> &mut Self {
        payload.encode(&mut self.main);
        self
    }

    /// Pages in the record.
    pub fn block_count(&self) -> usize {
        self.used
    }

    pub(crate) fn blocks(&self) -> &[BlockPart] {
        &self.blocks[..self.used]
    }

    /// Upper bound of the log bytes that this record can take, all images included: what a credit must cover.
    pub fn credit_needed(&self) -> u32 {
        let data: usize = self.blocks().iter().map(|block| block.data.len()).sum();
        credit_for(self.used, data + self.main.len())
    }
}

/// Upper bound of the log bytes of a record with `blocks` page images and `data` bytes of block and main data.
pub fn credit_for(blocks: usize, data: usize) -> u32 {
    const FIXED: usize = 64;
    const PER_BLOCK: usize = PAGE_SIZE + 32;
    u32::try_from(PositionMap::worst_case(
        (FIXED + blocks * PER_BLOCK + data) as u64,
    ))
    .unwrap_or(u32::MAX)
}
