//! Standby record payloads: running transactions, access exclusive locks.

use std::fmt::Write as _;

use super::invalidation::{self, Invalidations};
use super::layout::{Field, Payload, PayloadError, field_at, layout};

/// The operation in the high bits of `xl_info` (mask `0xF0`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum StandbyOp {
    /// Access exclusive locks were taken; main a count and [`StandbyLock`]s.
    Lock = 0x00,
    /// Transactions running at this point; main [`RunningXacts`] and xids.
    RunningXacts = 0x10,
    /// Invalidations outside a transaction's end.
    Invalidations = 0x20,
}

impl StandbyOp {
    /// The operation of an `xl_info` byte.
    pub fn from_info(info: u8) -> Option<Self> {
        match info & 0xF0 {
            0x00 => Some(Self::Lock),
            0x10 => Some(Self::RunningXacts),
            0x20 => Some(Self::Invalidations),
            _ => None,
        }
    }

    /// The name that pg_waldump prints.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lock => "LOCK",
            Self::RunningXacts => "RUNNING_XACTS",
            Self::Invalidations => "INVALIDATIONS",
        }
    }
}

layout! {
    /// An access exclusive lock that a standby must respect until the transaction ends.
    pub struct StandbyLock: 12 {
        /// The holder.
        pub xid: u32 = 0,
        /// Database.
        pub db: u32 = 4,
        /// Relation.
        pub rel: u32 = 8,
    }
}

layout! {
    /// Leads a running-transactions record; `xcnt + subxcnt` xids (low halves) follow.
    pub struct RunningXacts: 24 {
        /// Top-level xids.
        pub xcnt: i32 = 0,
        /// Subtransaction xids.
        pub subxcnt: i32 = 4,
        /// Subtransactions are missing.
        pub subxid_overflow: bool = 8,
        /// Next xid to be assigned, low half.
        pub next_xid: u32 = 12,
        /// Oldest running.
        pub oldest_running_xid: u32 = 16,
        /// Newest finished.
        pub latest_completed_xid: u32 = 20,
    }
}

impl Field for StandbyLock {
    const SIZE: usize = 12;
    fn put(&self, out: &mut [u8]) {
        if let Some(slot) = out.first_chunk_mut() {
            *slot = self.to_bytes();
        }
    }
    fn get(bytes: &[u8]) -> Option<Self> {
        Self::decode(bytes).ok()
    }
}

/// A lock record to be written.
#[derive(Debug, Clone, Copy)]
pub struct StandbyLocks<'a>(pub &'a [StandbyLock]);

impl Payload for StandbyLocks<'_> {
    fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&(self.0.len() as u32).to_le_bytes());
        self.0.iter().for_each(|lock| lock.encode(out));
    }
}

impl StandbyLocks<'_> {
    /// The locks of a record's main data.
    pub fn iter(main: &[u8]) -> Result<impl Iterator<Item = StandbyLock> + '_, PayloadError> {
        let count: u32 = field_at(main, 0)?;
        let needed = (count as usize).saturating_mul(StandbyLock::SIZE);
        let list = main[4..].get(..needed).ok_or(PayloadError::Truncated {
            needed: needed.saturating_add(4),
            available: main.len(),
        })?;
        Ok(list.chunks_exact(StandbyLock::SIZE).filter_map(StandbyLock::get))
    }
}

impl RunningXacts {
    /// The xids behind the struct, top-level first.
    pub fn xids<'a>(&self, main: &'a [u8]) -> Result<impl Iterator<Item = u32> + 'a, PayloadError> {
        let count = usize::try_from(self.xcnt).unwrap_or(0) + usize::try_from(self.subxcnt).unwrap_or(0);
        let needed = count.saturating_mul(4);
        let list =
            main.get(Self::SIZE..)
                .and_then(|rest| rest.get(..needed))
                .ok_or(PayloadError::Truncated {
                    needed: needed.saturating_add(Self::SIZE),
                    available: main.len(),
                })?;
        Ok(list.chunks_exact(4).filter_map(u32::get))
    }
}

/// pg_waldump's text.
pub(super) fn describe(op: StandbyOp, main: &[u8], out: &mut String) -> Result<(), PayloadError> {
    match op {
        StandbyOp::Lock => {
            for lock in StandbyLocks::iter(main)? {
                let _ = write!(out, "xid {} db {} rel {} ", lock.xid, lock.db, lock.rel);
            }
        }
        StandbyOp::RunningXacts => {
            let running = RunningXacts::decode(main)?;
            let _ = write!(
                out,
                "nextXid {} latestCompletedXid {} oldestRunningXid {}",
                running.next_xid, running.latest_completed_xid, running.oldest_running_xid
            );
            let xids: Vec<u32> = running.xids(main)?.collect();
            let top = usize::try_from(running.xcnt).unwrap_or(0).min(xids.len());
            for (list, what) in [(&xids[..top], "xacts"), (&xids[top..], "subxacts")] {
                if what == "subxacts" && running.subxid_overflow {
                    out.push_str("; subxid overflowed");
                }
                if !list.is_empty() {
                    let _ = write!(out, "; {} {what}:", list.len());
                    list.iter().for_each(|xid| {
                        let _ = write!(out, " {xid}");
                    });
                }
            }
        }
        StandbyOp::Invalidations => {
            let (db, spc, init): (u32, u32, bool) =
                (field_at(main, 0)?, field_at(main, 4)?, field_at(main, 8)?);
            let count: u32 = field_at(main, 12)?;
            let (messages, _) = Invalidations::split(&main[16..], count as usize)?;
            invalidation::describe(messages, init.then_some((db, spc)), out);
        }
    }
    Ok(())
}
