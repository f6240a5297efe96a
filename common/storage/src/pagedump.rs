//! `towline pagedump`: what a page says, in text, as far as a damaged one can be decoded. It only reads.
//!
//! Header and line pointers are printed here; what items and the special area mean (heap tuples, B-tree entries) is told by
//! a [`PageDetail`] of the layer above.

use crate::error::{StorageError, StorageResult};
use crate::page::{ItemId, ItemState, OffsetNumber, Page};
use towline_base::limits::BLOCKS_PER_FILE;
use towline_base::{BlockNumber, OpenMode, PAGE_SIZE, Vfs};

use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::path::Path;

/// Tells what stands inside a page.
pub trait PageDetail {
    /// Appends to the line of an item.
    fn item(&self, page: &Page, offset: OffsetNumber, item: ItemId, out: &mut String) {
        let _ = (page, offset, item, out);
    }

    /// Appends a line about the special area.
    fn special(&self, page: &Page, out: &mut String) {
        let _ = (page, out);
    }
}

/// Says nothing more.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoDetail;

impl PageDetail for NoDetail {}

/// Appends the text of one page, whose block number goes into its checksum.
pub fn dump_page(page: &Page, block: BlockNumber, detail: &dyn PageDetail, out: &mut String) {
    if page.is_all_zero() {
        let _ = writeln!(out, "block {block}: empty");
        return;
    }
    let _ = write!(
        out,
        "block {block}: lsn {} checksum {:#06x}",
        page.lsn(),
        page.stored_checksum()
    );
    let computed = page.checksum(block);
    match page.stored_checksum() {
        stored if stored == computed => out.push_str(" (good)"),
        0 => out.push_str(" (none)"),
        _ => {
            let _ = write!(out, " (wrong, computed {computed:#06x})");
        }
    }
    out.push_str(" flags");
    let flags = [
        (page.has_free_lines(), " HAS_FREE_LINES"),
        (page.is_full(), " PAGE_FULL"),
        (page.is_all_visible(), " ALL_VISIBLE"),
    ];
    flags
        .iter()
        .filter(|(set, _)| *set)
        .for_each(|(_, name)| out.push_str(name));
    let _ = writeln!(
        out,
        " ({:#06x}) lower {} upper {} special {} version {} prune_xid {}",
        page.flags(),
        page.lower(),
        page.upper(),
        page.special_offset(),
        page.size_and_version() & 0xff,
        page.prune_xid(),
    );
    if let Err(error) = page.check_header() {
        let _ = writeln!(out, "  {error}");
    }
    for (offset, item) in page.item_ids() {
        dump_item(page, offset, item, detail, out);
    }
    if !page.special().is_empty() {
        let _ = write!(out, "  special {} bytes", page.special().len());
        detail.special(page, out);
        out.push('\n');
    }
}

fn dump_item(page: &Page, offset: OffsetNumber, item: ItemId, detail: &dyn PageDetail, out: &mut String) {
    let _ = match item.state() {
        ItemState::Unused => write!(out, "  {offset:>4} unused"),
        ItemState::Normal => write!(
            out,
            "  {offset:>4} normal at {} length {}",
            item.offset(),
            item.len()
        ),
        ItemState::Redirect => write!(out, "  {offset:>4} redirect to {}", item.redirect_target()),
        ItemState::Dead if item.has_storage() => {
            write!(
                out,
                "  {offset:>4} dead at {} length {}",
                item.offset(),
                item.len()
            )
        }
        ItemState::Dead => write!(out, "  {offset:>4} dead"),
    };
    if item.has_storage() {
        match page.item_bytes(item) {
            Some(_) => detail.item(page, offset, item, out),
            None => out.push_str(" (reaches out of the page)"),
        }
    }
    out.push('\n');
}

/// Dumps blocks of one relation file to `sink`, a page at a time. `part` is the file's number in its relation (0 for the first gigabyte), from
/// which block numbers follow. Ends at the end of the file; a block that is cut off there is reported.
pub fn dump_file(
    vfs: &dyn Vfs,
    path: &Path,
    part: u32,
    blocks: RangeInclusive<BlockNumber>,
    detail: &dyn PageDetail,
    mut sink: impl FnMut(&str),
) -> StorageResult<()> {
    let io = |action, error| StorageError::io(action, path, error);
    let file = vfs
        .open(path, OpenMode::Read)
        .map_err(|error| io("open", error))?;
    let length = file.len().map_err(|error| io("measure", error))?;
    let first = part.saturating_mul(BLOCKS_PER_FILE);
    let mut page = Page::boxed_zeroed();
    let mut text = String::new();
    for index in 0..length.div_ceil(PAGE_SIZE as u64).min(BLOCKS_PER_FILE.into()) {
        let block = first.saturating_add(index as u32);
        if !blocks.contains(&block) {
            continue;
        }
        text.clear();
        let offset = index * PAGE_SIZE as u64;
        if offset + PAGE_SIZE as u64 > length {
            let _ = writeln!(text, "block {block}: cut off after {} bytes", length - offset);
        } else {
            file.read_exact_at(page.as_bytes_mut(), offset)
                .map_err(|error| io("read", error))?;
            dump_page(&page, block, detail, &mut text);
        }
        sink(&text);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::page::Placement;
    use proptest::prelude::*;

    struct Lengths;

    impl PageDetail for Lengths {
        fn item(&self, page: &Page, offset: OffsetNumber, _item: ItemId, out: &mut String) {
            let _ = write!(
                out,
                " first byte {}",
                page.item(offset).map_or(0, |bytes| bytes[0])
            );
        }

        fn special(&self, _page: &Page, out: &mut String) {
            out.push_str(" (of a test)");
        }
    }

    #[test]
    fn a_page_is_told_line_by_line() {
        let mut page = Page::boxed_zeroed();
        page.init(16);
        page.add_item(&[7; 10], Placement::Heap).unwrap();
        page.add_item(&[8; 20], Placement::Heap).unwrap();
        page.set_item_id(1, ItemId::redirect(2)).unwrap();
        page.set_lsn(towline_base::Lsn(0x100_0028));
        page.set_stored_checksum(page.checksum(3));
        let mut text = String::new();
        dump_page(&page, 3, &Lengths, &mut text);
        let expected = format!(
            "block 3: lsn 0/1000028 checksum {:#06x} (good) flags (0x0000) lower 32 upper 8136 special 8176 version 4 prune_xid 0\n   \
             \x20 1 redirect to 2\n     2 normal at 8136 length 20 first byte 8\n  special 16 bytes (of a test)\n",
            page.stored_checksum()
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn a_file_is_dumped_to_its_torn_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("16384.1");
        let mut bytes = vec![0; 8192 * 2 + 100];
        bytes[8192 + 5000] = 1;
        std::fs::write(&path, bytes).unwrap();
        let mut lines = Vec::new();
        dump_file(&towline_base::OsVfs, &path, 1, 0..=u32::MAX, &NoDetail, |text| {
            lines.push(text.to_owned())
        })
        .unwrap();
        assert_eq!(lines[0], "block 131072: empty\n");
        assert!(
            lines[1].contains("corrupted page: no upper bound, but not all zero"),
            "{}",
            lines[1]
        );
        assert_eq!(lines[2], "block 131074: cut off after 100 bytes\n");
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_dumped(words in prop::collection::vec((0usize..8190, any::<u16>()), 0..60)) {
            let mut page = Page::boxed_zeroed();
            page.init(0);
            for (at, word) in words {
                page.as_bytes_mut()[at..at + 2].copy_from_slice(&word.to_le_bytes());
            }
            dump_page(&page, 0, &NoDetail, &mut String::new());
        }
    }
}
