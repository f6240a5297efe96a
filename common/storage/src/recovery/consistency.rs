//! `wal_consistency_checking`: pages after redo, compared with the primary's as the record carries them.
//!
//! A record that is checked has an image of each page after the change, beside what redo needs. What may rightly differ is masked on
//! both sides first: the page's LSN and checksum here, hints and unused bytes by the resource manager, which knows the kind of page.

use super::{RedoError, ResourceManagers};
use crate::page::Page;
use towline_base::{ForkKind, Lsn};
use towline_wal::format::{BlockImage, BlockRef, DecodedRecord};
use towline_wal::records;

/// The image of `block` as a page, or the error that names record and block.
pub(super) fn restore(
    start: Lsn,
    block: &BlockRef<'_>,
    image: &BlockImage<'_>,
) -> Result<Box<Page>, RedoError> {
    let mut page = Page::boxed_zeroed();
    restore_into(start, block, image, &mut page)?;
    Ok(page)
}

/// Writes the image of `block` over `page`, which stays as it was on an error.
pub(super) fn restore_into(
    start: Lsn,
    block: &BlockRef<'_>,
    image: &BlockImage<'_>,
    page: &mut Page,
) -> Result<(), RedoError> {
    image.restore(page.as_bytes_mut()).map_err(|error| {
        RedoError::record(
            start,
            format!("the image of {} cannot be restored: {error}", block.page),
        )
    })
}

/// Compares a page that has seen the record, and nothing later, with the image that the record carries for checking.
pub(super) fn compare(
    record: &DecodedRecord<'_>,
    block: &BlockRef<'_>,
    image: &BlockImage<'_>,
    replayed: &Page,
    managers: &dyn ResourceManagers,
) -> Result<(), RedoError> {
    if block.page.fork != ForkKind::Main {
        // The map's bits are also cleared by records that do not name its page, in an order of their own.
        return Ok(());
    }
    let mut theirs = restore(record.start, block, image)?;
    let mut ours = Box::new(replayed.clone());
    for page in [&mut theirs, &mut ours] {
        page.set_lsn(Lsn::INVALID);
        page.set_stored_checksum(0);
        managers.mask(record, page);
    }
    let differs = theirs.as_bytes().iter().zip(ours.as_bytes());
    match differs.enumerate().find(|(_, (theirs, ours))| theirs != ours) {
        None => Ok(()),
        Some((offset, _)) => Err(RedoError::Inconsistent {
            page: block.page,
            lsn: record.start,
            record: name(record),
            offset,
        }),
    }
}

/// A record's manager and kind, as dumps print them.
fn name(record: &DecodedRecord<'_>) -> String {
    let kind = records::identify(record.rmgr(), record.header.info).unwrap_or("UNKNOWN");
    format!("{}/{kind}", record.rmgr())
}
