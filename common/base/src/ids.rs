//! Identities: transactions, objects, pages, tuples, timelines and nodes.
//!
//! Newtypes only; nothing here allocates identities except the random ones of nodes and timelines.

use std::fmt;
use std::str::FromStr;

/// A transaction id, 64 bits wide in memory. Tuples hold its low half; see [`Xid::from_low32`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Xid(pub u64);

impl Xid {
    /// No transaction.
    pub const INVALID: Xid = Xid(0);
    /// The transaction that wrote the first catalog.
    pub const BOOTSTRAP: Xid = Xid(1);
    /// Older than every snapshot.
    pub const FROZEN: Xid = Xid(2);
    /// The first id given to an ordinary transaction.
    pub const FIRST_NORMAL: Xid = Xid(3);

    /// True unless this is [`Xid::INVALID`].
    pub const fn is_valid(self) -> bool {
        self.0 != 0
    }

    /// True for ids given to ordinary transactions.
    pub const fn is_normal(self) -> bool {
        self.0 >= Self::FIRST_NORMAL.0
    }

    /// The half that a tuple header stores.
    pub const fn low32(self) -> u32 {
        self.0 as u32
    }

    /// The epoch: how often the low half has wrapped around.
    pub const fn epoch(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The next id, skipping those whose low half is one of the special ids.
    pub const fn next(self) -> Xid {
        Xid(self.0.wrapping_add(1)).or_normal()
    }

    /// This id, or the first one above it whose low half a tuple may hold: each epoch begins with special ids, which nobody is given.
    pub const fn or_normal(self) -> Xid {
        if (self.0 as u32) < Self::FIRST_NORMAL.0 as u32 {
            Xid((self.0 & !0xFFFF_FFFF) | Self::FIRST_NORMAL.0)
        } else {
            self
        }
    }

    /// Recovers the full id of a tuple's low half, given `next`, the next id to be assigned.
    ///
    /// Every live id is below `next` and within 2^31 of it (assignment stops before that), so the
    /// epoch is the one that puts the id nearest below `next`. A half that lies slightly above
    /// `next` can be seen while `next` itself is read late; it is taken as of the same epoch
    /// when it is within 2^31 ahead.
    pub const fn from_low32(low: u32, next: Xid) -> Xid {
        if (low as u64) < Self::FIRST_NORMAL.0 {
            return Xid(low as u64);
        }
        // Signed distance from `next` in 32-bit arithmetic, then applied in 64 bits.
        let delta = low.wrapping_sub(next.low32()) as i32 as i64;
        let full = next.0 as i64 + delta;
        if full < Self::FIRST_NORMAL.0 as i64 {
            Xid(low as u64)
        } else {
            Xid(full as u64)
        }
    }
}

impl fmt::Display for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Xid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "xid {}", self.0)
    }
}

/// An object id of the catalog.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Oid(pub u32);

impl Oid {
    /// No object.
    pub const INVALID: Oid = Oid(0);
    /// The first id given to objects that users create.
    pub const FIRST_NORMAL: Oid = Oid(16384);

    /// True unless this is [`Oid::INVALID`].
    pub const fn is_valid(self) -> bool {
        self.0 != 0
    }
}

impl fmt::Display for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Oid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oid {}", self.0)
    }
}

/// Number of an 8 KB block inside one fork of a relation.
pub type BlockNumber = u32;

/// Above every block number that a fork may hold.
pub const INVALID_BLOCK: BlockNumber = u32::MAX;

/// The files of one relation: tablespace, database, file number (`base/<db>/<rel>`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct RelFileNode {
    /// Tablespace; 1663 is the default one, 1664 the shared one.
    pub spc: u32,
    /// Database oid; 0 for shared relations.
    pub db: u32,
    /// File number of the relation in its database.
    pub rel: u32,
}

impl fmt::Display for RelFileNode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.spc, self.db, self.rel)
    }
}

/// Which of a relation's files is meant. The numbers are those of WAL block references.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
#[repr(u8)]
pub enum ForkKind {
    /// The rows themselves.
    #[default]
    Main = 0,
    /// Free space map.
    Fsm = 1,
    /// Visibility map.
    Vm = 2,
    /// Initial contents of an unlogged relation.
    Init = 3,
}

impl ForkKind {
    /// Every fork kind, in number order.
    pub const ALL: [ForkKind; 4] = [ForkKind::Main, ForkKind::Fsm, ForkKind::Vm, ForkKind::Init];

    /// The fork kind of a WAL block reference.
    pub const fn from_number(number: u8) -> Option<ForkKind> {
        match number {
            0 => Some(ForkKind::Main),
            1 => Some(ForkKind::Fsm),
            2 => Some(ForkKind::Vm),
            3 => Some(ForkKind::Init),
            _ => None,
        }
    }

    /// PostgreSQL's name: `main`, `fsm`, `vm`, `init`. File names use it as suffix, except `main`.
    pub const fn name(self) -> &'static str {
        match self {
            ForkKind::Main => "main",
            ForkKind::Fsm => "fsm",
            ForkKind::Vm => "vm",
            ForkKind::Init => "init",
        }
    }
}

impl fmt::Display for ForkKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One 8 KB page of one fork of one relation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct PageId {
    /// The relation's files.
    pub rel: RelFileNode,
    /// The fork.
    pub fork: ForkKind,
    /// The block in the fork.
    pub block: BlockNumber,
}

impl PageId {
    /// A page of the main fork.
    pub const fn main(rel: RelFileNode, block: BlockNumber) -> PageId {
        PageId {
            rel,
            fork: ForkKind::Main,
            block,
        }
    }
}

impl fmt::Display for PageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "relation {} fork {} block {}", self.rel, self.fork, self.block)
    }
}

/// Address of a tuple: block and line pointer number (from 1).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Tid {
    /// Block in the main fork.
    pub block: BlockNumber,
    /// Line pointer number in the page; the first is 1, 0 is none.
    pub offset: u16,
}

impl Tid {
    /// No tuple.
    pub const INVALID: Tid = Tid {
        block: INVALID_BLOCK,
        offset: 0,
    };

    /// A tuple's address.
    pub const fn new(block: BlockNumber, offset: u16) -> Tid {
        Tid { block, offset }
    }

    /// True when the offset names a line pointer.
    pub const fn is_valid(self) -> bool {
        self.offset != 0
    }
}

impl fmt::Display for Tid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({},{})", self.block, self.offset)
    }
}

impl fmt::Debug for Tid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The number of a timeline; the first eight hexadecimal digits of a segment's name.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct TimelineNumber(pub u32);

impl TimelineNumber {
    /// The timeline that `init` opens.
    pub const FIRST: TimelineNumber = TimelineNumber(1);
}

impl fmt::Display for TimelineNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for TimelineNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TL{}", self.0)
    }
}

/// 128 random bits that tell two things of the same name or number apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(transparent)]
pub struct Incarnation(pub [u8; 16]);

impl Incarnation {
    /// No incarnation: timelines made before the incarnation is known, and tests.
    pub const ZERO: Incarnation = Incarnation([0; 16]);

    /// A new one, from the operating system's random source.
    pub fn random() -> std::io::Result<Incarnation> {
        let mut bytes = [0u8; 16];
        let mut filled = 0;
        while filled < bytes.len() {
            let flags = rustix::rand::GetRandomFlags::empty();
            filled += rustix::rand::getrandom(&mut bytes[filled..], flags)?;
        }
        Ok(Incarnation(bytes))
    }

    /// From exactly sixteen bytes.
    pub fn from_slice(bytes: &[u8]) -> Option<Incarnation> {
        bytes.try_into().ok().map(Incarnation)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The text is not 32 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParseIncarnationError;

impl fmt::Display for ParseIncarnationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("invalid incarnation, expected 32 hexadecimal digits")
    }
}

impl std::error::Error for ParseIncarnationError {}

impl FromStr for Incarnation {
    type Err = ParseIncarnationError;

    fn from_str(text: &str) -> Result<Incarnation, ParseIncarnationError> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(ParseIncarnationError);
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| ParseIncarnationError)?;
        Ok(Incarnation(number.to_be_bytes()))
    }
}

/// A timeline: its number and the incarnation that makes it unique (two nodes may pick a number).
///
/// It has one writer for ever. Ordered by number first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct TimelineId {
    /// The number that segment names carry.
    pub number: TimelineNumber,
    /// Random bits drawn when the timeline was opened.
    pub incarnation: Incarnation,
}

impl TimelineId {
    /// A timeline of this number with fresh random bits.
    pub fn new_random(number: TimelineNumber) -> std::io::Result<TimelineId> {
        Ok(TimelineId {
            number,
            incarnation: Incarnation::random()?,
        })
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.number)
    }
}

/// A node: the operator's name and the random bits made with its data directory.
///
/// A wiped, cloned or restored data directory gets new bits, so it is another voter.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct NodeId {
    /// `cluster_name`-like name, at most [`crate::limits::MAX_NAME_BYTES`] bytes.
    pub name: String,
    /// Random bits of the data directory.
    pub incarnation: Incarnation,
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Identifies the cluster: made by `init`, the same on every node, in each segment's first page.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
#[repr(transparent)]
pub struct SystemId(pub u64);

impl SystemId {
    /// A new one: seconds since 1970 in the high half, so that sorted ids tell ages, random below.
    pub fn generate(unix_seconds: u64) -> std::io::Result<SystemId> {
        let random = Incarnation::random()?.0;
        let low = u32::from_le_bytes([random[0], random[1], random[2], random[3]]);
        Ok(SystemId(unix_seconds << 32 | u64::from(low)))
    }
}

impl fmt::Display for SystemId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_epoch_comes_from_the_next_xid() {
        let next = Xid(0x3_0000_0100);
        assert_eq!(Xid::from_low32(0xFF, next), Xid(0x3_0000_00FF));
        assert_eq!(Xid::from_low32(0xFFFF_FFF0, next), Xid(0x2_FFFF_FFF0));
        assert_eq!(Xid::from_low32(2, next), Xid::FROZEN);
        assert_eq!(Xid::from_low32(0, next), Xid::INVALID);
        // In the first epoch nothing can lie below the first normal xid.
        assert_eq!(Xid::from_low32(5, Xid(10)), Xid(5));
        assert_eq!(Xid::from_low32(0x9000_0000, Xid(10)), Xid(0x9000_0000));
        for full in [3u64, 77, 0xFFFF_FFFF, 0x1_0000_0003, 0x7_8000_0000] {
            assert_eq!(Xid::from_low32(full as u32, Xid(full).next()), Xid(full));
        }
    }

    #[test]
    fn assignment_skips_the_special_low_halves() {
        assert_eq!(Xid(0xFFFF_FFFF).next(), Xid(0x1_0000_0003));
        assert_eq!(Xid(3).next(), Xid(4));
    }

    #[test]
    fn incarnations_are_random_and_round_trip() {
        let one = Incarnation::random().unwrap();
        assert_ne!(one, Incarnation::random().unwrap());
        assert_eq!(one.to_string().parse::<Incarnation>().unwrap(), one);
        assert!("zz".parse::<Incarnation>().is_err());
    }
}
