//! Index tuples: reading and forming them as PostgreSQL's `itup.h` and nbtree's pivot rules have it.
//!
//! ```text
//! 0 t_tid: block high u16, block low u16, offset u16   6 t_info u16: size 13 bits, 0x2000 alternative tid,
//! 0x4000 has variable-width attributes, 0x8000 has nulls   8 null bitmap of 32 bits, only with nulls; data at 8 or 16
//! ```
//! A leaf tuple's `t_tid` is the row's place. A pivot tuple (internal pages, high keys) has the alternative-tid bit: the
//! block is the downlink, the offset counts the attributes kept (12 bits) and says (0x1000) whether a row's place ends
//! the tuple as tie-breaker.

use smallvec::SmallVec;
use towline_base::{BlockNumber, Tid};
use towline_types::{AttrDesc, Payload, varlena};

use super::key::{KeyDescriptor, Values};

/// Bytes before the bitmap or the data.
pub(crate) const TUPLE_HEADER: usize = 8;
const BITMAP_BYTES: usize = 4;
const SIZE_MASK: u16 = 0x1fff;
const ALT_TID: u16 = 0x2000;
const HAS_VARWIDTH: u16 = 0x4000;
const HAS_NULLS: u16 = 0x8000;
const OFFSET_MASK: u16 = 0x0fff;
const PIVOT_HEAP_TID: u16 = 0x1000;
/// Payloads below this length get a 1-byte varlena header.
const SHORT_PAYLOAD: usize = 127;
/// A longer value, its header included, is compressed (PostgreSQL's `TOAST_INDEX_TARGET`).
const COMPRESS_ABOVE: usize = 510;
/// Bytes that a row's place takes at the end of a pivot tuple.
const TID_BYTES: usize = 6;

/// Tuple bytes being formed or kept.
pub(crate) type TupleBuf = SmallVec<[u8; 64]>;

/// The most bytes a leaf tuple may have, so that three fit a page with room for a tie-breaking tid (PostgreSQL's
/// `BTMaxItemSize`).
pub(crate) const MAX_TUPLE: usize = 2704;
/// The most bytes that a tuple can say it has.
pub(crate) const MAX_SIZE: usize = SIZE_MASK as usize;

const fn max_align(len: usize) -> usize {
    (len + 7) & !7
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    match bytes.get(at..at + 2) {
        Some(two) => u16::from_le_bytes([two[0], two[1]]),
        None => 0,
    }
}

fn read_tid(bytes: &[u8], at: usize) -> Tid {
    let block = u32::from(u16_at(bytes, at)) << 16 | u32::from(u16_at(bytes, at + 2));
    Tid::new(block, u16_at(bytes, at + 4))
}

fn tid_bytes(tid: Tid) -> [u8; TID_BYTES] {
    let mut out = [0; TID_BYTES];
    out[0..2].copy_from_slice(&((tid.block >> 16) as u16).to_le_bytes());
    out[2..4].copy_from_slice(&(tid.block as u16).to_le_bytes());
    out[4..6].copy_from_slice(&tid.offset.to_le_bytes());
    out
}

/// A view of one index tuple.
#[derive(Clone, Copy)]
pub(crate) struct IndexTuple<'a>(pub(crate) &'a [u8]);

impl<'a> IndexTuple<'a> {
    fn info(self) -> u16 {
        u16_at(self.0, 6)
    }

    /// Bytes of the tuple, as it says itself.
    pub(crate) fn size(self) -> usize {
        usize::from(self.info() & SIZE_MASK)
    }

    pub(crate) fn is_pivot(self) -> bool {
        self.info() & ALT_TID != 0
    }

    pub(crate) fn has_nulls(self) -> bool {
        self.info() & HAS_NULLS != 0
    }

    /// The child of a pivot tuple on an internal page.
    pub(crate) fn downlink(self) -> BlockNumber {
        read_tid(self.0, 0).block
    }

    /// Key attributes present: all of `total`, unless truncated.
    pub(crate) fn attribute_count(self, total: usize) -> usize {
        if self.is_pivot() {
            usize::from(u16_at(self.0, 4) & OFFSET_MASK).min(total)
        } else {
            total
        }
    }

    /// The row's place, on a pivot tuple only if it serves as tie-breaker.
    pub(crate) fn heap_tid(self) -> Option<Tid> {
        if !self.is_pivot() {
            return Some(read_tid(self.0, 0));
        }
        if u16_at(self.0, 4) & PIVOT_HEAP_TID == 0 {
            return None;
        }
        let end = self.size().min(self.0.len());
        end.checked_sub(TID_BYTES).map(|at| read_tid(self.0, at))
    }

    /// The `t_tid` of a leaf tuple.
    pub(crate) fn leaf_tid(self) -> Tid {
        read_tid(self.0, 0)
    }

    /// The null bitmap (a set bit is a value), if there is one.
    pub(crate) fn bitmap(self) -> Option<&'a [u8]> {
        if self.has_nulls() {
            self.0.get(TUPLE_HEADER..TUPLE_HEADER + BITMAP_BYTES)
        } else {
            None
        }
    }

    /// The attribute bytes.
    pub(crate) fn data(self) -> &'a [u8] {
        let start = if self.has_nulls() {
            max_align(TUPLE_HEADER + BITMAP_BYTES)
        } else {
            TUPLE_HEADER
        };
        self.0.get(start..).unwrap_or(&[])
    }
}

/// Forms a tuple of these attributes (payloads, `None` for NULL) with `tid`, laid out as PostgreSQL's `index_form_tuple`
/// does, long values compressed. One that is too long to be stored comes out longer than [`MAX_TUPLE`].
pub(crate) fn form(key: &KeyDescriptor, values: &[Option<Payload<'_>>], tid: Tid, out: &mut TupleBuf) {
    out.clear();
    let nulls = values.iter().any(Option::is_none);
    let start = if nulls {
        max_align(TUPLE_HEADER + BITMAP_BYTES)
    } else {
        TUPLE_HEADER
    };
    out.resize(start, 0);
    let mut varwidth = false;
    for (index, (value, attr)) in values.iter().zip(key.layout.attrs()).enumerate() {
        let Some(payload) = value else { continue };
        if nulls {
            out[TUPLE_HEADER + index / 8] |= 1 << (index % 8);
        }
        varwidth |= attr.len < 0;
        if let Some(bytes) = compressed(attr, payload) {
            let at = start + attr.align.up(out.len() - start);
            out.resize(at, 0);
            out.extend_from_slice(&bytes);
            continue;
        }
        match attr.len {
            -1 if attr.packable && payload.len() < SHORT_PAYLOAD => {
                out.push(((payload.len() as u8 + 1) << 1) | 1)
            }
            -1 => {
                let at = start + attr.align.up(out.len() - start);
                out.resize(at, 0);
                out.extend_from_slice(&(((payload.len() + 4) as u32) << 2).to_le_bytes());
            }
            -2 => {}
            _ => {
                let at = start + attr.align.up(out.len() - start);
                out.resize(at, 0);
            }
        }
        if attr.len == -2 {
            let end = payload
                .iter()
                .position(|byte| *byte == 0)
                .unwrap_or(payload.len());
            out.extend_from_slice(&payload[..end]);
            out.push(0);
        } else {
            out.extend_from_slice(payload);
        }
    }
    let size = max_align(out.len());
    out.resize(size, 0);
    let mut info = size as u16 & SIZE_MASK;
    if nulls {
        info |= HAS_NULLS;
    }
    if varwidth {
        info |= HAS_VARWIDTH;
    }
    out[0..TID_BYTES].copy_from_slice(&tid_bytes(tid));
    out[6..8].copy_from_slice(&info.to_le_bytes());
}

/// A value compressed, with its header, if it is long and that makes it shorter.
fn compressed(attr: &AttrDesc, payload: &[u8]) -> Option<Vec<u8>> {
    let long = payload.len() + 4 > COMPRESS_ABOVE && attr.packable;
    if long {
        varlena::compressed(payload, MAX_SIZE)
    } else {
        None
    }
}

/// Makes `out` the pivot that separates `last_left` from `first_right` (PostgreSQL's `_bt_truncate`): the fewest leading
/// attributes of `first_right` that tell them apart, or all of them and `last_left`'s place.
pub(crate) fn truncate(
    key: &KeyDescriptor,
    last_left: IndexTuple<'_>,
    first_right: IndexTuple<'_>,
    out: &mut TupleBuf,
) {
    let keep = key.distinguishing(last_left, first_right);
    let total = key.columns.len();
    if keep <= total {
        prefix_pivot(key, first_right, keep, None, out);
    } else {
        prefix_pivot(key, first_right, total, last_left.heap_tid(), out);
    }
}

/// Makes `out` a pivot of the first `keep` attributes of `source`, with `tid` as tie-breaker if given; no downlink yet.
fn prefix_pivot(
    key: &KeyDescriptor,
    source: IndexTuple<'_>,
    keep: usize,
    tid: Option<Tid>,
    out: &mut TupleBuf,
) {
    let mut values = Values::new();
    key.split(source, keep, &mut values);
    form(key, &values, Tid::new(0, 0), out);
    let mut count = keep as u16 & OFFSET_MASK;
    if let Some(tid) = tid {
        // The place stands in the last six bytes of an extra eight.
        let size = out.len() + max_align(TID_BYTES);
        out.resize(size, 0);
        out[size - TID_BYTES..].copy_from_slice(&tid_bytes(tid));
        count |= PIVOT_HEAP_TID;
        let info = u16_at(out, 6) & !SIZE_MASK | (size as u16 & SIZE_MASK);
        out[6..8].copy_from_slice(&info.to_le_bytes());
    }
    out[4..6].copy_from_slice(&count.to_le_bytes());
    let info = u16_at(out, 6) | ALT_TID;
    out[6..8].copy_from_slice(&info.to_le_bytes());
}

/// Stores the downlink of a pivot tuple, keeping the rest.
pub(crate) fn set_downlink(tuple: &mut [u8], child: BlockNumber) {
    let tid = tid_bytes(Tid::new(child, 0));
    tuple[0..4].copy_from_slice(&tid[0..4]);
}

/// The pivot without attributes: the first data item of an internal page, below everything.
pub(crate) fn minus_infinity(child: BlockNumber) -> [u8; TUPLE_HEADER] {
    let mut out = [0; TUPLE_HEADER];
    out[6..8].copy_from_slice(&(TUPLE_HEADER as u16 | ALT_TID).to_le_bytes());
    set_downlink(&mut out, child);
    out
}
