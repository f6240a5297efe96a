//! The root: made with the first tuple, and a level higher whenever it was split.

use towline_base::{BlockNumber, ForkKind};
use towline_storage::PageWrite;
use towline_wal::Credit;
use towline_wal::records::btree::{BtreeMetadata, BtreeNewRoot, BtreeOp};

use super::context::Pressure;
use super::context::{Credited, IndexContext};
use super::page::{self, INCOMPLETE_SPLIT, LEAF, META_BLOCK, Meta, NO_SIBLING, Opaque, ROOT};
use super::search;
use super::split_pages::{append, item_area};
use super::tuple::{TupleBuf, minus_infinity, set_downlink};
use crate::catalog::Index;
use crate::error::Result;

/// The metapage's fields as a record carries them.
pub(super) fn metadata(meta: &Meta) -> BtreeMetadata {
    BtreeMetadata {
        version: 4,
        root: meta.root,
        level: meta.level,
        fastroot: meta.fast_root,
        fastlevel: meta.fast_level,
        last_cleanup_num_delpages: meta.deleted_pages,
        allequalimage: meta.all_equal_image,
    }
}

/// The fields of a record as the metapage has them.
pub(super) fn from_metadata(data: &BtreeMetadata) -> Meta {
    Meta {
        root: data.root,
        level: data.level,
        fast_root: data.fastroot,
        fast_level: data.fastlevel,
        deleted_pages: data.last_cleanup_num_delpages,
        all_equal_image: data.allequalimage,
    }
}

/// Makes an empty leaf the root of an index that has none; somebody else may have been first. Returns a wait when the WAL
/// buffers have no room: nothing was done then.
pub(super) fn create(cx: &IndexContext<'_>, index: &Index) -> Result<Option<Pressure>> {
    let credit = match cx.credit(IndexContext::record_size(2, 64))? {
        Credited::Yes(credit) => credit,
        Credited::No(wait) => return Ok(Some(wait)),
    };
    let meta_page = search::pin(cx.pool(), index, META_BLOCK)?.write();
    let meta = Meta::read(&meta_page, &index.name)?;
    if meta.root != NO_SIBLING {
        return Ok(None);
    }
    let root = cx.pool().extend(index.node, ForkKind::Main)?.write();
    let block = root.id().block;
    let mut change = cx.change(credit, BtreeOp::NewRoot);
    let root = change.page_init(root);
    page::init(
        change.page_mut(root),
        &Opaque {
            prev: 0,
            next: 0,
            level: 0,
            flags: ROOT | LEAF,
            cycle: 0,
        },
    );
    write_meta(&mut change, meta_page, block, 0);
    change.payload(&BtreeNewRoot {
        rootblk: block,
        level: 0,
    });
    change.finish()?;
    index.hints.set_root(block, 0);
    Ok(None)
}

/// Puts a new root above the root `left` that was split, `high_key` being its high key.
pub(super) fn grow(
    cx: &IndexContext<'_>,
    index: &Index,
    credit: Credit,
    left: PageWrite,
    high_key: &TupleBuf,
) -> Result<()> {
    let opaque = page::opaque(&left);
    let left_block = left.id().block;
    let level = opaque.level + 1;
    let root = cx.pool().extend(index.node, ForkKind::Main)?.write();
    let root_block = root.id().block;
    let meta_page = search::pin(cx.pool(), index, META_BLOCK)?.write();
    Meta::read(&meta_page, &index.name)?;

    let mut new_root = towline_storage::Page::zeroed();
    page::init(
        &mut new_root,
        &Opaque {
            prev: 0,
            next: 0,
            level,
            flags: ROOT,
            cycle: 0,
        },
    );
    let mut right_item = high_key.clone();
    set_downlink(&mut right_item, opaque.next);
    append(&mut new_root, &minus_infinity(left_block))
        .and_then(|()| append(&mut new_root, &right_item))
        .map_err(|error| page::corrupted(&index.name, format!("cannot make a root: {error}")))?;

    let mut change = cx.change(credit, BtreeOp::NewRoot);
    let root = change.page_init(root);
    change.page_mut(root).clone_from(&new_root);
    change.block_data(root, item_area(&new_root));
    let left = change.page_as(1, left);
    page::update_flags(change.page_mut(left), 0, INCOMPLETE_SPLIT);
    write_meta(&mut change, meta_page, root_block, level);
    change.payload(&BtreeNewRoot {
        rootblk: root_block,
        level,
    });
    change.finish()?;
    index.hints.set_root(root_block, level);
    Ok(())
}

fn write_meta(
    change: &mut super::context::IndexChange<'_>,
    meta_page: PageWrite,
    root: BlockNumber,
    level: u32,
) {
    let meta = Meta::new(root, level);
    let block = change.page_init_as(2, meta_page);
    meta.write(change.page_mut(block));
    change.block_payload(block, &metadata(&meta));
}
