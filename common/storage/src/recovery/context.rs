//! [`RedoContext`]: the pages of one record, latched together, and what is to be done with each.
//!
//! All blocks of a record are latched before the first change and released after the last (C6), in the order of their block ids:
//! the order that the primary's sessions use. For each block it is decided here, once for every kind of record, whether its image
//! is restored, whether it is made anew, or whether its LSN says that the change is there already. So the functions of
//! the resource managers change a page only when [`RedoContext::page_mut`] gives it to them, and running redo twice is harmless.

use super::invalid::InvalidPages;
use super::{RedoError, ResourceManagers, consistency};
use crate::buffer::{PageWrite, PinnedPage};
use crate::error::{StorageError, StorageResult};
use crate::page::Page;
use crate::smgr::MAX_BLOCKS;
use crate::storage::Storage;
use smallvec::SmallVec;
use towline_base::{Lsn, PageId, RelFileNode};
use towline_wal::format::{BlockRef, CHECK_CONSISTENCY, DecodedRecord};

/// What redo has to do with a block of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedoAction {
    /// Apply the change: the page is as it was before the record. A block that the record makes anew comes zeroed.
    Apply,
    /// The record's image of the page is in place: nothing is left to do for it.
    Restored,
    /// The page has the change, or a later one.
    AlreadyDone,
    /// The block does not exist (any more): its relation is dropped or cut by a later record, or the record has no such block.
    Missing,
}

struct RedoBlock {
    id: u8,
    action: RedoAction,
    page: Option<PageWrite>,
    /// Changed although it had seen the record, or a later one.
    repeated: bool,
}

/// The pages of one record. See the module.
pub struct RedoContext<'a> {
    storage: &'a Storage,
    invalid: &'a InvalidPages,
    start: Lsn,
    end: Lsn,
    blocks: SmallVec<[RedoBlock; 4]>,
    /// Pages that the record does not name but its redo changes.
    others: SmallVec<[PageWrite; 2]>,
}

impl<'a> RedoContext<'a> {
    /// Latches the record's blocks and restores images. `needs_cleanup` says which blocks need the cleanup latch.
    pub(super) fn latch(
        storage: &'a Storage,
        invalid: &'a InvalidPages,
        record: &DecodedRecord<'_>,
        needs_cleanup: impl Fn(u8) -> bool,
    ) -> Result<RedoContext<'a>, RedoError> {
        let mut context = RedoContext {
            storage,
            invalid,
            start: record.start,
            end: record.end,
            blocks: SmallVec::new(),
            others: SmallVec::new(),
        };
        // No record changes a page under two names: of one that says so, the second latch would wait for the first.
        for (at, block) in record.blocks.iter().enumerate() {
            if block.page.block >= MAX_BLOCKS {
                let what = format!(
                    "it names {}, beyond the last block that a relation can have",
                    block.page
                );
                return Err(RedoError::record(record.start, what));
            }
            if record.blocks[..at].iter().any(|other| other.page == block.page) {
                return Err(context.named_twice(block.page));
            }
        }
        // All pins first: where one cannot be had (no frame, a full disk), no page has been touched, and the record can be tried again.
        let pins: SmallVec<[Option<PinnedPage>; 4]> = record
            .blocks
            .iter()
            .map(|block| context.pin_block(block))
            .collect::<Result<_, _>>()?;
        for (block, pin) in record.blocks.iter().zip(pins) {
            let (action, page) = context.latch_block(block, pin, needs_cleanup(block.id))?;
            context.blocks.push(RedoBlock {
                id: block.id,
                action,
                page,
                repeated: false,
            });
        }
        Ok(context)
    }

    fn named_twice(&self, page: PageId) -> RedoError {
        RedoError::record(self.start, format!("it changes {page} twice"))
    }

    /// Pins a block's page, made when the record says all of it; `None` when there is no such block.
    fn pin_block(&self, block: &BlockRef<'_>) -> StorageResult<Option<PinnedPage>> {
        if block.has_apply_image() || block.will_init() {
            self.make_page(block.page).map(Some)
        } else {
            self.existing_page(block.page)
        }
    }

    fn latch_block(
        &self,
        block: &BlockRef<'_>,
        pin: Option<PinnedPage>,
        cleanup: bool,
    ) -> Result<(RedoAction, Option<PageWrite>), RedoError> {
        let id = block.page;
        let latch = |pin: PinnedPage| if cleanup { pin.cleanup() } else { pin.write() };
        let Some(pin) = pin else {
            self.invalid.add(id, self.start);
            return Ok((RedoAction::Missing, None));
        };
        if block.has_apply_image() || block.will_init() {
            let mut page = latch(pin);
            if let Some(image) = block.image.filter(|image| image.apply()) {
                consistency::restore_into(self.start, block, &image, page.bytes_mut())?;
                return Ok((RedoAction::Restored, Some(page)));
            }
            page.bytes_mut().as_bytes_mut().fill(0);
            return Ok((RedoAction::Apply, Some(page)));
        }
        let page = latch(pin);
        if page.is_new() {
            self.invalid.add(id, self.start);
            return Ok((RedoAction::Missing, None));
        }
        let action = if page.lsn() >= self.end {
            RedoAction::AlreadyDone
        } else {
            RedoAction::Apply
        };
        Ok((action, Some(page)))
    }

    /// Pins a page whose bytes do not matter, creating its block, and its file, where a crash or a later drop has taken them.
    fn make_page(&self, id: PageId) -> StorageResult<PinnedPage> {
        match self.storage.smgr().nblocks(id.rel, id.fork) {
            Ok(blocks) if id.block < blocks => {}
            Ok(_) | Err(StorageError::NoSuchRelation(_)) => {
                self.storage
                    .smgr()
                    .ensure_blocks(id.rel, id.fork, id.block.saturating_add(1))?;
            }
            Err(error) => return Err(error),
        }
        self.storage.pool().pin_zeroed(id)
    }

    /// Pins a page; `None` when there is no such block. A page that is in the pool exists, so files are asked only for the others.
    fn existing_page(&self, id: PageId) -> StorageResult<Option<PinnedPage>> {
        match self.storage.pool().pin(id) {
            Ok(pin) => Ok(Some(pin)),
            Err(StorageError::NoSuchBlock(_) | StorageError::NoSuchRelation(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The storage, for what is not about pages.
    pub fn storage(&self) -> &'a Storage {
        self.storage
    }

    /// What is to be done with a block.
    pub fn action(&self, id: u8) -> RedoAction {
        self.find(id).map_or(RedoAction::Missing, |block| block.action)
    }

    /// The page of a block, to change: only when the action is [`RedoAction::Apply`].
    pub fn page_mut(&mut self, id: u8) -> Option<&mut Page> {
        let block = self.blocks.iter_mut().find(|block| block.id == id)?;
        match block.action {
            RedoAction::Apply => block.page.as_mut().map(PageWrite::bytes_mut),
            RedoAction::Restored | RedoAction::AlreadyDone | RedoAction::Missing => None,
        }
    }

    /// The page of a block, for a change that bears being repeated, also behind later ones: only an image of the page makes it needless. The
    /// page keeps its LSN when that is higher.
    pub fn page_to_repeat(&mut self, id: u8) -> Option<&mut Page> {
        let block = self.blocks.iter_mut().find(|block| block.id == id)?;
        match block.action {
            RedoAction::Apply | RedoAction::AlreadyDone => {
                block.repeated = true;
                block.page.as_mut().map(PageWrite::bytes_mut)
            }
            RedoAction::Restored | RedoAction::Missing => None,
        }
    }

    /// The page of a block, to read, whatever is to be done with it.
    pub fn page(&self, id: u8) -> Option<&Page> {
        self.find(id)?.page.as_deref()
    }

    /// Another page that this redo changes, named by no block reference, or by none that carries its state; created zeroed when
    /// it does not exist and `create`. The change must bear being repeated: the page's LSN does not guard it. It gets the
    /// record's LSN if that is higher, and stays latched until the record is done.
    pub fn other_page(&mut self, id: PageId, create: bool) -> Result<Option<&mut Page>, RedoError> {
        if let Some(index) = self.others.iter().position(|page| page.id() == id) {
            return Ok(Some(self.others[index].bytes_mut()));
        }
        let latched = |block: &RedoBlock| block.page.as_ref().is_some_and(|page| page.id() == id);
        if self.blocks.iter().any(latched) {
            return Err(self.named_twice(id));
        }
        let pin = match self.existing_page(id)? {
            Some(pin) => pin,
            None if create => self.make_page(id)?,
            None => return Ok(None),
        };
        self.others.push(pin.write());
        Ok(self.others.last_mut().map(PageWrite::bytes_mut))
    }

    /// The record drops a relation: its pages leave memory, its files go after a later checkpoint.
    pub fn drop_relation(&mut self, rel: RelFileNode) {
        self.invalid.forget_relation(rel, 0);
        self.storage.unlink_after(self.end, rel);
    }

    fn find(&self, id: u8) -> Option<&RedoBlock> {
        self.blocks.iter().find(|block| block.id == id)
    }

    /// Compares the pages, as they are after redo, with the images that a record of `wal_consistency_checking` carries. A page that
    /// has seen later records is passed over.
    pub(super) fn check(
        &self,
        record: &DecodedRecord<'_>,
        managers: &dyn ResourceManagers,
    ) -> Result<(), RedoError> {
        if record.header.info & CHECK_CONSISTENCY == 0 {
            return Ok(());
        }
        for (block, done) in record.blocks.iter().zip(&self.blocks) {
            let (Some(image), Some(page)) = (block.image.filter(|image| !image.apply()), &done.page) else {
                continue;
            };
            let comparable = match done.action {
                RedoAction::Apply => true,
                RedoAction::AlreadyDone => page.lsn() == self.end,
                RedoAction::Restored | RedoAction::Missing => false,
            };
            if comparable {
                consistency::compare(record, block, &image, page, managers)?;
            }
        }
        Ok(())
    }

    /// Marks and stamps what was changed and lets go of everything.
    pub(super) fn complete(mut self) {
        for block in &mut self.blocks {
            match (block.action, &mut block.page) {
                (RedoAction::Apply | RedoAction::Restored, Some(page)) => {
                    page.mark_dirty(self.start);
                    page.stamp(self.end);
                }
                (RedoAction::AlreadyDone, Some(page)) if block.repeated => {
                    page.mark_dirty(self.start);
                    let end = self.end.max(page.lsn());
                    page.stamp(end);
                }
                _ => {}
            }
        }
        for page in &mut self.others {
            page.mark_dirty(self.start);
            let end = self.end.max(page.lsn());
            page.stamp(end);
        }
    }
}
