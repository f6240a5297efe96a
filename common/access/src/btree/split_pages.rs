//! Building the two halves of a split page. The insert path and redo call the same function for the left half, so that
//! primary and standby hold the same bytes.

use towline_base::BlockNumber;
use towline_storage::{OffsetNumber, Page, PageError, Placement};

use super::page::{self, HIGH_KEY, INCOMPLETE_SPLIT, LEAF, Opaque, init, item};
use super::split_point::SplitPoint;
use super::tuple::{IndexTuple, minus_infinity};

/// The right half, and the high key of the left one is formed by the caller.
pub(super) struct NewItem<'a> {
    pub(super) bytes: &'a [u8],
    /// Where it goes in the old page's numbering.
    pub(super) offset: OffsetNumber,
}

/// Appends an item behind the last one.
pub(super) fn append(page: &mut Page, bytes: &[u8]) -> Result<(), PageError> {
    let next = page.max_offset() + 1;
    page.add_item(bytes, Placement::Insert(next)).map(|_| ())
}

/// Rebuilds the left half from `old`: `high_key`, then the old items before `point`, the new one among them if it goes left.
pub(super) fn left_half(
    old: &Page,
    point: SplitPoint,
    new_item: Option<&NewItem<'_>>,
    high_key: &[u8],
    right: BlockNumber,
) -> Result<Page, PageError> {
    let was = page::opaque(old);
    let mut left = Page::zeroed();
    let flags = (was.flags & LEAF) | INCOMPLETE_SPLIT;
    init(
        &mut left,
        &Opaque {
            prev: was.prev,
            next: right,
            level: was.level,
            flags,
            cycle: 0,
        },
    );
    append(&mut left, high_key)?;
    for offset in was.first_data()..point.first_right {
        if let Some(new) = new_item
            && new.offset == offset
        {
            append(&mut left, new.bytes)?;
        }
        append(
            &mut left,
            item(old, offset).ok_or(PageError::InvalidOffset(offset))?,
        )?;
    }
    if let Some(new) = new_item
        && new.offset == point.first_right
    {
        append(&mut left, new.bytes)?;
    }
    Ok(left)
}

/// Builds the right half: the old high key, then the items from `point` on, the new one among them if it goes right. On an
/// internal page the first of them loses its attributes.
pub(super) fn right_half(
    old: &Page,
    point: SplitPoint,
    new_item: &NewItem<'_>,
    left: BlockNumber,
) -> Result<Page, PageError> {
    let was = page::opaque(old);
    let mut right = Page::zeroed();
    init(
        &mut right,
        &Opaque {
            prev: left,
            next: was.next,
            level: was.level,
            flags: was.flags & LEAF,
            cycle: 0,
        },
    );
    if !was.is_rightmost() {
        append(
            &mut right,
            item(old, HIGH_KEY).ok_or(PageError::InvalidOffset(HIGH_KEY))?,
        )?;
    }
    let mut first = !was.is_leaf();
    let mut add = |bytes: &[u8]| {
        if std::mem::take(&mut first) {
            append(&mut right, &minus_infinity(IndexTuple(bytes).downlink()))
        } else {
            append(&mut right, bytes)
        }
    };
    for offset in point.first_right..=old.max_offset() {
        if !point.new_on_left && new_item.offset == offset {
            add(new_item.bytes)?;
        }
        add(item(old, offset).ok_or(PageError::InvalidOffset(offset))?)?;
    }
    if !point.new_on_left && new_item.offset > old.max_offset() {
        add(new_item.bytes)?;
    }
    Ok(right)
}

/// The items of a page as PostgreSQL logs them for a page that redo builds anew: the bytes from `pd_upper` to the special
/// area, the last item first.
pub(super) fn item_area(page: &Page) -> &[u8] {
    page.as_bytes()
        .get(page.upper()..page.special_offset())
        .unwrap_or(&[])
}

/// Adds the items of [`item_area`] to an empty page, giving the same layout (PostgreSQL's `_bt_restore_page`).
pub(super) fn restore_items(page: &mut Page, area: &[u8]) -> Result<(), PageError> {
    let mut items = Vec::new();
    let mut rest = area;
    while !rest.is_empty() {
        let size = (IndexTuple(rest).size() + 7) & !7;
        let Some((bytes, behind)) = rest.split_at_checked(size).filter(|_| size >= 8) else {
            return Err(PageError::Corrupt("logged index tuples do not add up"));
        };
        items.push(bytes);
        rest = behind;
    }
    for bytes in items.iter().rev() {
        append(page, bytes)?;
    }
    Ok(())
}
