//! The heap tuple: PostgreSQL 15's header, read and changed in place.
//!
//! ```text
//!  0 t_xmin u32   4 t_xmax u32   8 t_cid u32   12 t_ctid (block high u16, block low u16, offset u16)
//! 18 t_infomask2 u16   20 t_infomask u16   22 t_hoff u8   23 null bitmap, if any   t_hoff: attributes
//! ```
//!
//! Source of names and bits: `htup_details.h`. A [`TupleRef`] is checked once, when it is made: a header that does not
//! fit its item is corruption, so the accessors need no further checks. Writers go through [`TupleMut`].

use towline_base::Tid;

/// Bytes of the fixed header.
pub const HEADER: usize = 23;
/// Header of a tuple without null bitmap, aligned.
pub const HEADER_ALIGNED: usize = 24;

/// Bits of `t_infomask`.
pub mod mask {
    /// A null bitmap follows the header.
    pub const HAS_NULL: u16 = 0x0001;
    /// Some attribute has a variable length.
    pub const HAS_VARWIDTH: u16 = 0x0002;
    /// Some value is stored out of line.
    pub const HAS_EXTERNAL: u16 = 0x0004;
    /// `t_cid` is a combo command id.
    pub const COMBO_CID: u16 = 0x0020;
    /// xmax is a key-share locker.
    pub const XMAX_KEYSHR_LOCK: u16 = 0x0010;
    /// xmax is an exclusive locker.
    pub const XMAX_EXCL_LOCK: u16 = 0x0040;
    /// xmax only locked the row.
    pub const XMAX_LOCK_ONLY: u16 = 0x0080;
    /// Hint: xmin committed, visible to everybody (stricter than PostgreSQL's: B8).
    pub const XMIN_COMMITTED: u16 = 0x0100;
    /// Hint: xmin aborted.
    pub const XMIN_INVALID: u16 = 0x0200;
    /// Both: xmin is frozen.
    pub const XMIN_FROZEN: u16 = XMIN_COMMITTED | XMIN_INVALID;
    /// Hint: xmax committed, visible to everybody.
    pub const XMAX_COMMITTED: u16 = 0x0400;
    /// xmax is not valid (hint, or never set).
    pub const XMAX_INVALID: u16 = 0x0800;
    /// xmax is a multixact (never written here).
    pub const XMAX_IS_MULTI: u16 = 0x1000;
    /// The tuple is a newer version of a row.
    pub const UPDATED: u16 = 0x2000;
    /// Everything that concerns xmax.
    pub const XMAX_BITS: u16 =
        XMAX_COMMITTED | XMAX_INVALID | XMAX_IS_MULTI | XMAX_KEYSHR_LOCK | XMAX_EXCL_LOCK | XMAX_LOCK_ONLY;
}

/// Bits of `t_infomask2`.
pub mod mask2 {
    /// Number of attributes.
    pub const NATTS: u16 = 0x07FF;
    /// Key columns were updated, or the row was deleted.
    pub const KEYS_UPDATED: u16 = 0x2000;
    /// A newer version of the row is on the same page, in the same HOT chain.
    pub const HOT_UPDATED: u16 = 0x4000;
    /// This version is reached only through its HOT chain.
    pub const HEAP_ONLY: u16 = 0x8000;
}

/// The bytes of a tuple on a page or in memory, known to hold a sane header.
#[derive(Clone, Copy, Debug)]
pub struct TupleRef<'a>(&'a [u8]);

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn tid_at(bytes: &[u8], at: usize) -> Tid {
    Tid::new(
        u32::from(u16_at(bytes, at)) << 16 | u32::from(u16_at(bytes, at + 2)),
        u16_at(bytes, at + 4),
    )
}

impl<'a> TupleRef<'a> {
    /// `None` when the header contradicts the length.
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len() < HEADER {
            return None;
        }
        let tuple = TupleRef(bytes);
        let hoff = tuple.hoff();
        let bitmap = if tuple.infomask() & mask::HAS_NULL != 0 {
            tuple.natts().div_ceil(8)
        } else {
            0
        };
        (hoff <= bytes.len() && hoff % 8 == 0 && HEADER + bitmap <= hoff).then_some(tuple)
    }

    /// All bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.0
    }

    /// Low half of the inserting xid.
    #[inline]
    pub fn xmin(&self) -> u32 {
        u32_at(self.0, 0)
    }

    /// Low half of the deleting or locking xid.
    #[inline]
    pub fn xmax(&self) -> u32 {
        u32_at(self.0, 4)
    }

    /// The command id: of the insert, the delete, or a combo of both.
    #[inline]
    pub fn cid(&self) -> u32 {
        u32_at(self.0, 8)
    }

    /// The next version, or the tuple itself.
    #[inline]
    pub fn ctid(&self) -> Tid {
        tid_at(self.0, 12)
    }

    /// `t_infomask2`.
    #[inline]
    pub fn infomask2(&self) -> u16 {
        u16_at(self.0, 18)
    }

    /// `t_infomask`.
    #[inline]
    pub fn infomask(&self) -> u16 {
        u16_at(self.0, 20)
    }

    /// Whether some value is stored out of line.
    #[inline]
    pub fn has_external(&self) -> bool {
        self.infomask() & mask::HAS_EXTERNAL != 0
    }

    /// Where the attributes begin.
    #[inline]
    pub fn hoff(&self) -> usize {
        usize::from(self.0[22])
    }

    /// How many attributes are stored; later ones read as NULL (or their default).
    #[inline]
    pub fn natts(&self) -> usize {
        usize::from(self.infomask2() & mask2::NATTS)
    }

    /// The null bitmap (bit set: not null), if there is one.
    #[inline]
    pub fn bitmap(&self) -> Option<&'a [u8]> {
        (self.infomask() & mask::HAS_NULL != 0).then(|| &self.0[HEADER..HEADER + self.natts().div_ceil(8)])
    }

    /// The attributes' bytes.
    #[inline]
    pub fn data(&self) -> &'a [u8] {
        &self.0[self.hoff()..]
    }

    /// xmin is frozen: visible to everybody.
    #[inline]
    pub fn is_xmin_frozen(&self) -> bool {
        self.infomask() & mask::XMIN_FROZEN == mask::XMIN_FROZEN
    }

    /// xmax only locks, so the row is not deleted by it.
    #[inline]
    pub fn is_lock_only(&self) -> bool {
        self.infomask() & mask::XMAX_LOCK_ONLY != 0
    }

    /// A newer version follows in the HOT chain.
    #[inline]
    pub fn is_hot_updated(&self) -> bool {
        self.infomask2() & mask2::HOT_UPDATED != 0
            && self.infomask() & mask::XMAX_INVALID == 0
            && self.infomask() & mask::XMIN_FROZEN != mask::XMIN_INVALID
    }

    /// Reached only through its chain.
    #[inline]
    pub fn is_heap_only(&self) -> bool {
        self.infomask2() & mask2::HEAP_ONLY != 0
    }
}

/// A tuple whose header is changed in place, under the page's write latch.
#[derive(Debug)]
pub struct TupleMut<'a>(&'a mut [u8]);

impl<'a> TupleMut<'a> {
    /// `None` when the bytes are too few for a header.
    pub fn new(bytes: &'a mut [u8]) -> Option<Self> {
        TupleRef::new(bytes)?;
        Some(TupleMut(bytes))
    }

    /// The same, to be read.
    pub fn as_ref(&self) -> TupleRef<'_> {
        TupleRef(self.0)
    }

    /// The attributes' bytes, to be overwritten by as many others.
    pub fn data_mut(&mut self) -> &mut [u8] {
        let hoff = self.as_ref().hoff();
        &mut self.0[hoff..]
    }

    fn put_u16(&mut self, at: usize, value: u16) {
        self.0[at..at + 2].copy_from_slice(&value.to_le_bytes());
    }

    fn put_u32(&mut self, at: usize, value: u32) {
        self.0[at..at + 4].copy_from_slice(&value.to_le_bytes());
    }

    /// Sets xmin.
    pub fn set_xmin(&mut self, low: u32) {
        self.put_u32(0, low);
    }

    /// Sets xmax.
    pub fn set_xmax(&mut self, low: u32) {
        self.put_u32(4, low);
    }

    /// Sets the command id, or combo command id.
    pub fn set_cid(&mut self, cid: u32, combo: bool) {
        self.put_u32(8, cid);
        let bits = self.as_ref().infomask();
        self.set_infomask(if combo {
            bits | mask::COMBO_CID
        } else {
            bits & !mask::COMBO_CID
        });
    }

    /// Sets the link to the next version.
    pub fn set_ctid(&mut self, tid: Tid) {
        self.put_u16(12, (tid.block >> 16) as u16);
        self.put_u16(14, tid.block as u16);
        self.put_u16(16, tid.offset);
    }

    /// Sets `t_infomask2`.
    pub fn set_infomask2(&mut self, bits: u16) {
        self.put_u16(18, bits);
    }

    /// Sets `t_infomask`.
    pub fn set_infomask(&mut self, bits: u16) {
        self.put_u16(20, bits);
    }
}

/// Writes the fixed part of a new tuple into `out[..23]`; xmin, cid and ctid are set when it is placed.
pub fn write_header(out: &mut [u8], natts: usize, infomask: u16, hoff: usize) {
    out[..HEADER].fill(0);
    out[18..20].copy_from_slice(&(natts as u16 & mask2::NATTS).to_le_bytes());
    out[20..22].copy_from_slice(&(infomask | mask::XMAX_INVALID).to_le_bytes());
    out[22] = hoff as u8;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_header_reads_back_what_was_written() {
        let mut bytes = [0u8; 32];
        write_header(&mut bytes, 3, mask::HAS_NULL, 24);
        let mut tuple = TupleMut::new(&mut bytes).unwrap();
        tuple.set_xmin(7);
        tuple.set_xmax(9);
        tuple.set_cid(5, true);
        tuple.set_ctid(Tid::new(0x1234_5678, 9));
        let tuple = tuple.as_ref();
        assert_eq!((tuple.xmin(), tuple.xmax(), tuple.cid()), (7, 9, 5));
        assert_eq!(tuple.ctid(), Tid::new(0x1234_5678, 9));
        assert_eq!(tuple.natts(), 3);
        assert_eq!(
            tuple.infomask(),
            mask::HAS_NULL | mask::XMAX_INVALID | mask::COMBO_CID
        );
        assert_eq!(tuple.data().len(), 8);
        assert_eq!(tuple.bitmap().unwrap().len(), 1);
    }

    #[test]
    fn a_header_that_does_not_fit_its_item_is_refused() {
        assert!(TupleRef::new(&[0; 22]).is_none());
        let mut bytes = [0u8; 24];
        write_header(&mut bytes, 20, mask::HAS_NULL, 24);
        assert!(TupleRef::new(&bytes).is_none());
        bytes[22] = 40;
        assert!(TupleRef::new(&bytes).is_none());
    }
}
