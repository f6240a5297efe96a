//! `towline pagedump`: prints the pages of a relation file. It only reads, and shows as much of a damaged page as it can.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use towline_base::PAGE_SIZE;
use towline_base::limits::BLOCKS_PER_FILE;
use towline_storage::page::{ItemState, Page};

use crate::cli::PagedumpArgs;
use crate::refusal::{Outcome, Refusal, printed};

const BTREE_SPECIAL: usize = 16;
const BTREE_FLAGS: [(u16, &str); 8] = [
    (1, "leaf"),
    (2, "root"),
    (4, "deleted"),
    (8, "meta"),
    (16, "half-dead"),
    (64, "has-garbage"),
    (128, "incomplete-split"),
    (512, "has-fullxid"),
];

/// Prints the blocks of a file; a reader that goes away (`| head`) is no error.
pub(crate) fn run(args: &PagedumpArgs) -> Outcome {
    let unreadable =
        |error: io::Error| Refusal::new(format!("{} cannot be read: {error}.", args.file.display()));
    // Before it is opened: a pipe would be waited for.
    let metadata = std::fs::metadata(&args.file).map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(Refusal::new(format!(
            "{} is a directory; name a relation file in it.",
            args.file.display()
        )));
    }
    if !metadata.is_file() {
        return Err(Refusal::new(format!(
            "{} is not a file; name a relation file.",
            args.file.display()
        )));
    }
    let file = File::open(&args.file).map_err(unreadable)?;
    let len = metadata.len();
    let blocks = u32::try_from(len / PAGE_SIZE as u64).unwrap_or(u32::MAX);
    let range = match args.block {
        None => 0..blocks,
        Some(block) if block < blocks => block..block + 1,
        Some(block) => {
            return Err(Refusal::new(format!(
                "{} has {blocks} blocks; there is no block {block}.",
                args.file.display()
            )));
        }
    };
    let first = first_block(&args.file);
    let mut out = io::BufWriter::new(io::stdout().lock());
    for block in range {
        let mut bytes = [0; PAGE_SIZE];
        file.read_exact_at(&mut bytes, u64::from(block) * PAGE_SIZE as u64)
            .map_err(unreadable)?;
        if let Err(error) = dump(&mut out, first.saturating_add(block), &Page::from_bytes(bytes)) {
            return printed(Err(error));
        }
    }
    let rest = len % PAGE_SIZE as u64;
    if rest != 0 {
        printed(writeln!(out, "{rest} bytes behind the last whole block"))?;
    }
    printed(out.flush())
}

/// The number of a file's first block in its relation: `16384.2` begins at block 2 × 131,072. Checksums need it.
fn first_block(path: &Path) -> u32 {
    let part = path
        .extension()
        .and_then(|extension| extension.to_str())
        .and_then(|text| text.parse::<u32>().ok());
    part.unwrap_or(0).saturating_mul(BLOCKS_PER_FILE)
}

fn dump(out: &mut impl Write, block: u32, page: &Page) -> io::Result<()> {
    if page.is_all_zero() {
        return writeln!(out, "block {block}: empty");
    }
    let checksum = if page.verify_checksum(block) {
        "ok".to_owned()
    } else {
        format!("WRONG, computed {:#06x}", page.checksum(block))
    };
    writeln!(
        out,
        "block {block}: lsn {} checksum {:#06x} ({checksum}) flags {:#06x} lower {} upper {} special {} prune_xid {}",
        page.lsn(),
        page.stored_checksum(),
        page.flags(),
        page.lower(),
        page.upper(),
        page.special_offset(),
        page.prune_xid()
    )?;
    if let Err(error) = page.check_header() {
        return writeln!(out, "  header damaged: {error}");
    }
    let index = page.special().len() == BTREE_SPECIAL;
    if index && dump_btree(out, page.special())? {
        return Ok(());
    }
    for (offset, item) in page.item_ids() {
        write!(out, "  {offset:>3}: ")?;
        match item.state() {
            ItemState::Unused => writeln!(out, "unused")?,
            ItemState::Redirect => writeln!(out, "redirect to {}", item.redirect_target())?,
            ItemState::Dead if item.is_empty() => writeln!(out, "dead")?,
            ItemState::Normal | ItemState::Dead => {
                write!(out, "at {} length {}", item.offset(), item.len())?;
                match page.item_bytes(item) {
                    None => writeln!(out, " outside of the page")?,
                    Some(bytes) if index => dump_index_tuple(out, bytes)?,
                    Some(bytes) => dump_heap_tuple(out, bytes)?,
                }
            }
        }
    }
    Ok(())
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|bytes| u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|bytes| u32::from_le_bytes(*bytes))
}

/// A tid is stored as two halves of the block number and the offset.
fn tid_at(bytes: &[u8], at: usize) -> Option<String> {
    let block = u32::from(u16_at(bytes, at)?) << 16 | u32::from(u16_at(bytes, at + 2)?);
    Some(format!("({block},{})", u16_at(bytes, at + 4)?))
}

/// Prints nbtree's special space; true for a page without items (the meta page).
fn dump_btree(out: &mut impl Write, special: &[u8]) -> io::Result<bool> {
    let word = |at| u32_at(special, at).unwrap_or(0);
    let flags = u16_at(special, 12).unwrap_or(0);
    let names: Vec<&str> = BTREE_FLAGS
        .iter()
        .filter(|(bit, _)| flags & bit != 0)
        .map(|(_, name)| *name)
        .collect();
    writeln!(
        out,
        "  btree: left {} right {} level {} flags {}",
        word(0),
        word(4),
        word(8),
        names.join(" ")
    )?;
    Ok(flags & 8 != 0)
}

fn dump_index_tuple(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let tid = tid_at(bytes, 0).unwrap_or_else(|| "?".to_owned());
    let info = u16_at(bytes, 6).unwrap_or(0);
    write!(out, " tid {tid} info {info:#06x} key")?;
    dump_bytes(out, bytes.get(8..).unwrap_or_default())
}

fn dump_heap_tuple(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let (Some(xmin), Some(xmax), Some(cid), Some(tid), Some(infomask2), Some(infomask), Some(&hoff)) = (
        u32_at(bytes, 0),
        u32_at(bytes, 4),
        u32_at(bytes, 8),
        tid_at(bytes, 12),
        u16_at(bytes, 18),
        u16_at(bytes, 20),
        bytes.get(22),
    ) else {
        return writeln!(out, " shorter than a tuple header");
    };
    write!(
        out,
        " xmin {xmin} xmax {xmax} cid {cid} ctid {tid} natts {} infomask2 {infomask2:#06x} infomask {infomask:#06x} hoff {hoff} data",
        infomask2 & 0x07FF
    )?;
    dump_bytes(out, bytes.get(usize::from(hoff)..).unwrap_or_default())
}

fn dump_bytes(out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    write!(out, " ")?;
    for byte in bytes {
        write!(out, "{byte:02x}")?;
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use towline_storage::page::Placement;

    fn text(page: &Page) -> String {
        let mut out = Vec::new();
        dump(&mut out, 0, page).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_heap_page_shows_its_tuples() {
        let mut page = Page::zeroed();
        assert_eq!(text(&page), "block 0: empty\n");
        page.init(0);
        let mut tuple = vec![0; 28];
        tuple[0] = 7;
        tuple[22] = 24;
        tuple[24] = 0xAB;
        page.add_item(&tuple, Placement::Heap).unwrap();
        page.set_stored_checksum(page.checksum(0));
        let said = text(&page);
        assert!(
            said.contains("(ok)") && said.contains("xmin 7") && said.contains("data ab000000"),
            "{said}"
        );
    }

    #[test]
    fn damaged_pages_are_shown_and_never_panic() {
        let mut seed = 88_172_645_463_325_252u64;
        for round in 0..2000 {
            let mut page = Page::zeroed();
            page.init(if round % 2 == 0 { 0 } else { BTREE_SPECIAL });
            let _ = page.add_item(&[1; 40], Placement::Heap);
            for _ in 0..1 + round % 30 {
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                let at = (seed % 64) as usize;
                page.as_bytes_mut()[at] = (seed >> 40) as u8;
            }
            assert!(text(&page).starts_with("block 0"));
        }
    }

    #[test]
    fn later_parts_of_a_relation_know_their_blocks() {
        assert_eq!(first_block(Path::new("base/5/16384")), 0);
        assert_eq!(first_block(Path::new("base/5/16384.2")), 262_144);
        assert_eq!(first_block(Path::new("base/5/16384_vm")), 0);
    }
}
