//! Rows into tuples.

use towline_storage::page::max_align;
use towline_types::{Datum, OutOfLine, RowDesc, Shortening};

use super::tuple::{HEADER, HEADER_ALIGNED, mask, write_header};
use crate::error::{AccessError, Result};

/// The largest tuple: a page less its header and one line pointer, aligned (PostgreSQL's `MaxHeapTupleSize`).
pub const MAX_TUPLE: usize = 8160;

/// A longer tuple has its values compressed or moved out of line: with tuples of this length four fit a page (PostgreSQL's
/// `TOAST_TUPLE_THRESHOLD` and `TOAST_TUPLE_TARGET`).
pub const TOAST_ABOVE: usize = 2032;

/// Builds the tuple of a row of a table without a TOAST table, as [`form_toasted`].
///
/// # Errors
/// 54000 when it does not fit a page.
pub fn form_tuple(layout: &RowDesc, values: &[Datum], out: &mut Vec<u8>) -> Result<()> {
    form_toasted(layout, values, None, out).map(|_| ())
}

/// Builds the tuple of a row in `out`, whose contents are replaced. xmin, command id and ctid are set when it is placed.
/// The values of a long one are compressed, or moved to the TOAST table with this OID, largest first, until it is no longer
/// than [`TOAST_ABOVE`]. What moves is returned; its pointers still lack their value ids.
///
/// # Errors
/// 54000 when it does not fit a page.
pub fn form_toasted(
    layout: &RowDesc,
    values: &[Datum],
    toast: Option<u32>,
    out: &mut Vec<u8>,
) -> Result<Vec<OutOfLine>> {
    out.clear();
    out.resize(HEADER, 0);
    let has_nulls = values.iter().any(Datum::is_null);
    let hoff = if has_nulls {
        max_align(HEADER + RowDesc::bitmap_len(values.len()))
    } else {
        HEADER_ALIGNED
    };
    if has_nulls {
        RowDesc::write_bitmap(values, out);
    }
    out.resize(hoff, 0);
    let formed = layout.form(values, out)?;
    let mut moved = Vec::new();
    if out.len() > TOAST_ABOVE {
        let how = Shortening {
            target: TOAST_ABOVE.saturating_sub(hoff),
            target_main: MAX_TUPLE.saturating_sub(hoff),
            // Without another place for it, what does not fit a page is of no use.
            limit: if toast.is_some() { usize::MAX } else { MAX_TUPLE },
            toast,
        };
        moved = layout.shorten(hoff, values, how, out)?;
    }
    if out.len() > MAX_TUPLE {
        return Err(AccessError::row_too_big(out.len(), MAX_TUPLE));
    }
    let mut bits = 0;
    if has_nulls {
        bits |= mask::HAS_NULL;
    }
    if formed.has_varwidth {
        bits |= mask::HAS_VARWIDTH;
    }
    if formed.has_external || !moved.is_empty() {
        bits |= mask::HAS_EXTERNAL;
    }
    write_header(out, values.len(), bits, hoff);
    Ok(moved)
}
