//! Transaction record payloads: commit and abort.
//!
//! PostgreSQL 15's layout: the time, then `xinfo` when `xl_info` has [`HAS_INFO`], then what its bits announce, in a fixed
//! order. Towline appends `quorum` behind everything (xinfo bit 16): the quorum LSN known when the record was inserted, a
//! durable lower bound of it (HAZARDS B2).

use std::fmt::Write as _;

use towline_base::{ForkKind, Lsn, RelFileNode};

use super::invalidation::{self, Invalidation, Invalidations};
use super::layout::{Field, Payload, PayloadError, field_at};
use super::smgr::write_path;
use super::time::write_timestamp;

/// The operation in bits 4–6 of `xl_info` (mask `0x70`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum XactOp {
    /// Commit; main [`XactEnd`].
    Commit = 0x00,
    /// First phase of two; not written by Towline.
    Prepare = 0x10,
    /// Abort; main [`XactEnd`].
    Abort = 0x20,
    /// Second phase; not written by Towline.
    CommitPrepared = 0x30,
    /// Second phase; not written by Towline.
    AbortPrepared = 0x40,
    /// Subtransaction parents; not written by Towline.
    Assignment = 0x50,
    /// Invalidations of a running transaction; not written by Towline.
    Invalidations = 0x60,
}

/// Set in `xl_info` when the `xinfo` field is there.
pub const HAS_INFO: u8 = 0x80;

impl XactOp {
    /// The operation of an `xl_info` byte.
    pub fn from_info(info: u8) -> Option<Self> {
        Some(match info & 0x70 {
            0x00 => Self::Commit,
            0x10 => Self::Prepare,
            0x20 => Self::Abort,
            0x30 => Self::CommitPrepared,
            0x40 => Self::AbortPrepared,
            0x50 => Self::Assignment,
            0x60 => Self::Invalidations,
            _ => return None,
        })
    }

    /// The name that pg_waldump prints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Commit => "COMMIT",
            Self::Prepare => "PREPARE",
            Self::Abort => "ABORT",
            Self::CommitPrepared => "COMMIT_PREPARED",
            Self::AbortPrepared => "ABORT_PREPARED",
            Self::Assignment => "ASSIGNMENT",
            Self::Invalidations => "INVALIDATION",
        }
    }
}

/// Bits of `xinfo`.
pub mod xinfo {
    /// Database and tablespace oids.
    pub const HAS_DBINFO: u32 = 1 << 0;
    /// Subtransaction xids.
    pub const HAS_SUBXACTS: u32 = 1 << 1;
    /// Relation files to drop.
    pub const HAS_RELFILENODES: u32 = 1 << 2;
    /// Invalidation messages.
    pub const HAS_INVALS: u32 = 1 << 3;
    /// Two-phase xid.
    pub const HAS_TWOPHASE: u32 = 1 << 4;
    /// Replication origin.
    pub const HAS_ORIGIN: u32 = 1 << 5;
    /// The transaction held access exclusive locks.
    pub const HAS_AE_LOCKS: u32 = 1 << 6;
    /// Two-phase name.
    pub const HAS_GID: u32 = 1 << 7;
    /// Statistics entries to drop.
    pub const HAS_DROPPED_STATS: u32 = 1 << 8;
    /// Towline: the quorum LSN follows everything else.
    pub const HAS_QUORUM: u32 = 1 << 16;
    /// Standbys should report their apply position (remote_apply).
    pub const APPLY_FEEDBACK: u32 = 1 << 29;
    /// The relcache init file is stale.
    pub const UPDATE_RELCACHE_FILE: u32 = 1 << 30;
    /// The commit was forced synchronous.
    pub const FORCE_SYNC_COMMIT: u32 = 1 << 31;
}

/// A commit or abort record to be written. Empty lists and `None`s take no space.
#[derive(Debug, Clone, Copy, Default)]
pub struct XactEnd<'a> {
    /// Microseconds since 2000.
    pub time: i64,
    /// Flags without data of their own: APPLY_FEEDBACK, UPDATE_RELCACHE_FILE, FORCE_SYNC_COMMIT, HAS_AE_LOCKS.
    pub flags: u32,
    /// Database and its tablespace; needed when there are invalidations.
    pub db: Option<(u32, u32)>,
    /// Committed (aborted) subtransactions, low halves.
    pub subxacts: &'a [u32],
    /// Relation files that the end of the transaction drops.
    pub dropped: &'a [RelFileNode],
    /// Invalidations (commit only).
    pub invalidations: &'a [Invalidation],
    /// The quorum LSN known at insert.
    pub quorum: Option<Lsn>,
}

impl XactEnd<'_> {
    /// The `xinfo` word; 0 means that it is left out.
    pub fn xinfo(&self) -> u32 {
        let mut bits = self.flags;
        for (present, bit) in [
            (self.db.is_some(), xinfo::HAS_DBINFO),
            (!self.subxacts.is_empty(), xinfo::HAS_SUBXACTS),
            (!self.dropped.is_empty(), xinfo::HAS_RELFILENODES),
            (!self.invalidations.is_empty(), xinfo::HAS_INVALS),
            (self.quorum.is_some(), xinfo::HAS_QUORUM),
        ] {
            if present {
                bits |= bit;
            }
        }
        bits
    }

    /// The `xl_info` byte for `op`.
    pub fn info(&self, op: XactOp) -> u8 {
        op as u8 | if self.xinfo() != 0 { HAS_INFO } else { 0 }
    }
}

impl Payload for XactEnd<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        let bits = self.xinfo();
        out.extend_from_slice(&self.time.to_le_bytes());
        if bits == 0 {
            return;
        }
        out.extend_from_slice(&bits.to_le_bytes());
        if let Some((db, spc)) = self.db {
            out.extend_from_slice(&db.to_le_bytes());
            out.extend_from_slice(&spc.to_le_bytes());
        }
        if !self.subxacts.is_empty() {
            out.extend_from_slice(&(self.subxacts.len() as u32).to_le_bytes());
            self.subxacts
                .iter()
                .for_each(|xid| out.extend_from_slice(&xid.to_le_bytes()));
        }
        if !self.dropped.is_empty() {
            out.extend_from_slice(&(self.dropped.len() as u32).to_le_bytes());
            for rel in self.dropped {
                let mut bytes = [0u8; RelFileNode::SIZE];
                rel.put(&mut bytes);
                out.extend_from_slice(&bytes);
            }
        }
        if !self.invalidations.is_empty() {
            out.extend_from_slice(&(self.invalidations.len() as u32).to_le_bytes());
            self.invalidations
                .iter()
                .for_each(|message| out.extend_from_slice(&message.to_bytes()));
        }
        if let Some(quorum) = self.quorum {
            out.extend_from_slice(&quorum.0.to_le_bytes());
        }
    }
}

/// A list of fixed-size values as stored in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct List<'a, T> {
    bytes: &'a [u8],
    element: std::marker::PhantomData<T>,
}

impl<T> Default for List<'_, T> {
    fn default() -> Self {
        Self {
            bytes: &[],
            element: std::marker::PhantomData,
        }
    }
}

impl<'a, T: Field + 'a> List<'a, T> {
    fn split(bytes: &'a [u8], count: usize) -> Result<(Self, &'a [u8]), PayloadError> {
        let needed = count.saturating_mul(T::SIZE);
        match bytes.split_at_checked(needed) {
            Some((bytes, rest)) => Ok((
                Self {
                    bytes,
                    element: std::marker::PhantomData,
                },
                rest,
            )),
            None => Err(PayloadError::Truncated {
                needed,
                available: bytes.len(),
            }),
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.bytes.len() / T::SIZE
    }

    /// None at all.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The values in stored order.
    pub fn iter(&self) -> impl Iterator<Item = T> + 'a {
        self.bytes.chunks_exact(T::SIZE).filter_map(T::get)
    }
}

/// A decoded commit or abort record, borrowing its lists.
#[derive(Debug, Clone, Copy, Default)]
pub struct ParsedXactEnd<'a> {
    /// Microseconds since 2000.
    pub time: i64,
    /// The `xinfo` word, 0 when absent.
    pub xinfo: u32,
    /// Database and its tablespace.
    pub db: Option<(u32, u32)>,
    /// Subtransactions, low halves.
    pub subxacts: List<'a, u32>,
    /// Relation files to drop.
    pub dropped: List<'a, RelFileNode>,
    /// Statistics entries to drop (PostgreSQL only): kind, database, object.
    pub dropped_stats: List<'a, StatsItem>,
    /// Invalidations.
    pub invalidations: Invalidations<'a>,
    /// The two-phase transaction's xid (PostgreSQL only).
    pub twophase_xid: Option<u32>,
    /// Origin LSN and time (PostgreSQL only).
    pub origin: Option<(Lsn, i64)>,
    /// Towline: the quorum LSN known at insert.
    pub quorum: Option<Lsn>,
}

/// A statistics entry that a commit drops; PostgreSQL only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatsItem {
    /// Kind of statistics.
    pub kind: i32,
    /// Database.
    pub db: u32,
    /// Object.
    pub object: u32,
}

impl Field for StatsItem {
    const SIZE: usize = 12;
    fn put(&self, out: &mut [u8]) {
        if let Some(out) = out.get_mut(..12) {
            self.kind.put(out);
            self.db.put(&mut out[4..]);
            self.object.put(&mut out[8..]);
        }
    }
    fn get(bytes: &[u8]) -> Option<Self> {
        let rel = RelFileNode::get(bytes)?;
        Some(Self {
            kind: rel.spc as i32,
            db: rel.db,
            object: rel.rel,
        })
    }
}

fn split_count(bytes: &[u8]) -> Result<(usize, &[u8]), PayloadError> {
    let count: u32 = field_at(bytes, 0)?;
    // Counts are C ints: a negative one is damage.
    if count > i32::MAX as u32 {
        return Err(PayloadError::Invalid("negative count in a transaction record"));
    }
    Ok((count as usize, &bytes[4..]))
}

impl<'a> ParsedXactEnd<'a> {
    /// Decodes a commit or abort record's main data. `info` is the record's `xl_info`.
    pub fn decode(info: u8, main: &'a [u8]) -> Result<Self, PayloadError> {
        let mut parsed = Self {
            time: field_at(main, 0)?,
            ..Self::default()
        };
        let mut rest = &main[8..];
        if info & HAS_INFO != 0 {
            parsed.xinfo = field_at(rest, 0)?;
            rest = &rest[4..];
        }
        let has = |bit: u32| parsed.xinfo & bit != 0;
        if has(xinfo::HAS_DBINFO) {
            parsed.db = Some((field_at(rest, 0)?, field_at(rest, 4)?));
            rest = &rest[8..];
        }
        if has(xinfo::HAS_SUBXACTS) {
            let (count, tail) = split_count(rest)?;
            (parsed.subxacts, rest) = List::split(tail, count)?;
        }
        if has(xinfo::HAS_RELFILENODES) {
            let (count, tail) = split_count(rest)?;
            (parsed.dropped, rest) = List::split(tail, count)?;
        }
        if has(xinfo::HAS_DROPPED_STATS) {
            let (count, tail) = split_count(rest)?;
            (parsed.dropped_stats, rest) = List::split(tail, count)?;
        }
        if has(xinfo::HAS_INVALS) {
            let (count, tail) = split_count(rest)?;
            (parsed.invalidations, rest) = Invalidations::split(tail, count)?;
        }
        if has(xinfo::HAS_TWOPHASE) {
            parsed.twophase_xid = Some(field_at(rest, 0)?);
            rest = &rest[4..];
        }
        if has(xinfo::HAS_GID) {
            let end = rest
                .iter()
                .position(|byte| *byte == 0)
                .ok_or(PayloadError::Invalid("unterminated gid"))?;
            rest = &rest[end + 1..];
        }
        if has(xinfo::HAS_ORIGIN) {
            parsed.origin = Some((field_at(rest, 0)?, field_at(rest, 8)?));
            rest = &rest[16..];
        }
        if has(xinfo::HAS_QUORUM) {
            parsed.quorum = Some(field_at(rest, 0)?);
        }
        Ok(parsed)
    }

    /// pg_waldump's text. `origin` is the record's replication origin id.
    pub(super) fn describe(&self, op: XactOp, origin: Option<u16>, out: &mut String) {
        if let Some(xid) = self.twophase_xid {
            let _ = write!(out, "{xid}: ");
        }
        write_timestamp(self.time, out);
        if !self.dropped.is_empty() {
            out.push_str("; rels:");
            for rel in self.dropped.iter() {
                out.push(' ');
                write_path(rel, ForkKind::Main, out);
            }
        }
        if !self.subxacts.is_empty() {
            out.push_str("; subxacts:");
            self.subxacts.iter().for_each(|xid| {
                let _ = write!(out, " {xid}");
            });
        }
        let commit = matches!(op, XactOp::Commit | XactOp::CommitPrepared);
        if commit {
            self.describe_stats(out);
            let init_file =
                (self.xinfo & xinfo::UPDATE_RELCACHE_FILE != 0).then(|| self.db.unwrap_or_default());
            invalidation::describe(self.invalidations, init_file, out);
            if self.xinfo & xinfo::APPLY_FEEDBACK != 0 {
                out.push_str("; apply_feedback");
            }
            if self.xinfo & xinfo::FORCE_SYNC_COMMIT != 0 {
                out.push_str("; sync");
            }
        }
        if let Some((lsn, time)) = self.origin {
            let _ = write!(
                out,
                "; origin: node {}, lsn {lsn}, at ",
                origin.unwrap_or_default()
            );
            write_timestamp(time, out);
        }
        if !commit {
            self.describe_stats(out);
        }
    }

    fn describe_stats(&self, out: &mut String) {
        if !self.dropped_stats.is_empty() {
            out.push_str("; dropped stats:");
            for item in self.dropped_stats.iter() {
                let _ = write!(out, " {}/{}/{}", item.kind, item.db, item.object);
            }
        }
    }
}

/// pg_waldump's text for an assignment record: the parent, then its subtransactions.
pub(super) fn describe_assignment(main: &[u8], out: &mut String) -> Result<(), PayloadError> {
    let top: u32 = field_at(main, 0)?;
    let (count, rest) = split_count(&main[4..])?;
    let (subxacts, _) = List::<u32>::split(rest, count)?;
    let _ = write!(out, "xtop {top}: subxacts:");
    subxacts.iter().for_each(|xid| {
        let _ = write!(out, " {xid}");
    });
    Ok(())
}

/// pg_waldump's text for a record of invalidations.
pub(super) fn describe_invalidations(main: &[u8], out: &mut String) -> Result<(), PayloadError> {
    let (count, rest) = split_count(main)?;
    let (messages, _) = Invalidations::split(rest, count)?;
    invalidation::describe(messages, None, out);
    Ok(())
}
