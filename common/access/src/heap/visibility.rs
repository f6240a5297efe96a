//! Which versions a snapshot sees, and which nobody sees any more: by CSN, never by lists of running transactions.
//!
//! A committed hint here means more than in PostgreSQL: that the commit is visible to *everybody*, now and after any failover (B8). So a
//! hinted xid needs no look at the CSN log and no comparison with the snapshot. Hints are set only by `settle_hints`.

use towline_base::{Lsn, Tid, Xid};
use towline_storage::Page;

use super::tuple::{TupleMut, TupleRef, mask};
use crate::csn::{CsnLog, XidStatus};
use crate::error::{AccessError, Result};
use crate::txn::snapshot::{ComboCids, Snapshot};

/// Looks tuples up for one snapshot. Remembers the last xid's outcome: neighbours on a page often share it.
#[derive(Debug)]
pub struct Visibility<'a> {
    csn: &'a CsnLog,
    snapshot: &'a Snapshot,
    combos: &'a ComboCids,
    last: (u32, XidStatus),
}

impl<'a> Visibility<'a> {
    /// For one snapshot and the combo command ids of its transaction.
    pub fn new(csn: &'a CsnLog, snapshot: &'a Snapshot, combos: &'a ComboCids) -> Self {
        Visibility {
            csn,
            snapshot,
            combos,
            last: (0, XidStatus::Aborted),
        }
    }

    #[inline]
    fn status(&mut self, low: u32) -> Result<XidStatus> {
        if self.last.0 == low {
            return Ok(self.last.1);
        }
        let status = self.csn.status(Xid::from_low32(low, self.snapshot.next_xid))?;
        if status != XidStatus::InProgress {
            self.last = (low, status);
        }
        Ok(status)
    }

    #[inline]
    fn is_own(&self, low: u32) -> bool {
        self.snapshot.xid.is_valid() && self.snapshot.xid.low32() == low
    }

    #[inline]
    fn committed_before(&mut self, low: u32) -> Result<bool> {
        Ok(matches!(self.status(low)?, XidStatus::Committed(lsn) if lsn <= self.snapshot.lsn))
    }

    /// Whether the snapshot sees this version.
    #[inline]
    pub fn sees(&mut self, tuple: TupleRef<'_>) -> Result<bool> {
        let bits = tuple.infomask();
        match bits & mask::XMIN_FROZEN {
            mask::XMIN_INVALID => return Ok(false),
            0 => {
                let xmin = tuple.xmin();
                if self.is_own(xmin) {
                    let (cmin, _) = command_ids(tuple, self.combos);
                    if cmin >= self.snapshot.command {
                        return Ok(false);
                    }
                } else if !self.committed_before(xmin)? {
                    return Ok(false);
                }
            }
            _ => {}
        }
        if bits & (mask::XMAX_INVALID | mask::XMAX_LOCK_ONLY) != 0 {
            return Ok(true);
        }
        if bits & mask::XMAX_COMMITTED != 0 {
            return Ok(false);
        }
        let xmax = tuple.xmax();
        if self.is_own(xmax) {
            let (_, cmax) = command_ids(tuple, self.combos);
            return Ok(cmax >= self.snapshot.command);
        }
        Ok(!self.committed_before(xmax)?)
    }
}

/// (cmin, cmax) of a tuple that the own transaction inserted or deleted.
pub(crate) fn command_ids(tuple: TupleRef<'_>, combos: &ComboCids) -> (u32, u32) {
    if tuple.infomask() & mask::COMBO_CID != 0 {
        combos.pair(tuple.cid())
    } else {
        (tuple.cid(), tuple.cid())
    }
}

/// What became of a version's inserter or deleter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// No xid, or it aborted.
    None,
    /// It is the own transaction.
    Own,
    /// It runs.
    Running(Xid),
    /// It committed, at this LSN.
    Committed(Lsn),
}

fn outcome(csn: &CsnLog, xid: Xid, own: Xid) -> Result<Outcome> {
    if own.is_valid() && xid == own {
        return Ok(Outcome::Own);
    }
    Ok(match csn.status(xid)? {
        XidStatus::InProgress => Outcome::Running(xid),
        XidStatus::Aborted => Outcome::None,
        XidStatus::Committed(lsn) => Outcome::Committed(lsn),
    })
}

const OLD: Outcome = Outcome::Committed(Lsn(2));

/// What became of the inserter.
pub(crate) fn inserter(csn: &CsnLog, tuple: TupleRef<'_>, own: Xid, next: Xid) -> Result<Outcome> {
    match tuple.infomask() & mask::XMIN_FROZEN {
        mask::XMIN_INVALID => Ok(Outcome::None),
        0 => outcome(csn, Xid::from_low32(tuple.xmin(), next), own),
        _ => Ok(OLD),
    }
}

/// What became of xmax, deleter or locker.
pub(crate) fn holder(csn: &CsnLog, tuple: TupleRef<'_>, own: Xid, next: Xid) -> Result<Outcome> {
    let bits = tuple.infomask();
    if bits & mask::XMAX_INVALID != 0 || tuple.xmax() == 0 {
        return Ok(Outcome::None);
    }
    if bits & mask::XMAX_IS_MULTI != 0 {
        return Err(AccessError::corrupted(
            "a tuple's xmax is a multixact, which this server never writes",
        ));
    }
    if bits & mask::XMAX_COMMITTED != 0 {
        return Ok(OLD);
    }
    outcome(csn, Xid::from_low32(tuple.xmax(), next), own)
}

/// The LSN at which a committed xid committed, hint or not. A hint says "everybody on this node"; a standby may have older snapshots, so what
/// goes into a record's `conflict_lsn` comes from here. What the log no longer knows is below every snapshot.
pub(crate) fn commit_lsn(csn: &CsnLog, low: u32, next: Xid) -> Result<Lsn> {
    Ok(match csn.status(Xid::from_low32(low, next))? {
        XidStatus::Committed(lsn) => lsn,
        XidStatus::Aborted | XidStatus::InProgress => Lsn(2),
    })
}

/// Whether anybody may still need a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Liveness {
    /// Nobody sees it, now or later. The LSN is the commit that removed it, invalid for an aborted insert.
    Dead(Lsn),
    /// Deleted, but some snapshot may see it. The LSN is the commit that deleted it.
    RecentlyDead(Lsn),
    /// Not deleted. The LSN is the commit that inserted it.
    Live(Lsn),
    /// Its inserter runs.
    Inserting,
    /// Its deleter runs.
    Deleting,
}

/// Judges a version against the horizon.
pub(crate) fn liveness(csn: &CsnLog, tuple: TupleRef<'_>, horizon: Lsn, next: Xid) -> Result<Liveness> {
    let inserted = match inserter(csn, tuple, Xid::INVALID, next)? {
        Outcome::None => return Ok(Liveness::Dead(Lsn::INVALID)),
        Outcome::Running(_) | Outcome::Own => return Ok(Liveness::Inserting),
        Outcome::Committed(lsn) => lsn,
    };
    if tuple.is_lock_only() {
        return Ok(Liveness::Live(inserted));
    }
    let deleted = match holder(csn, tuple, Xid::INVALID, next)? {
        Outcome::None => return Ok(Liveness::Live(inserted)),
        Outcome::Running(_) | Outcome::Own => return Ok(Liveness::Deleting),
        OLD => commit_lsn(csn, tuple.xmax(), next)?,
        Outcome::Committed(lsn) => lsn,
    };
    Ok(if deleted <= horizon {
        Liveness::Dead(deleted)
    } else {
        Liveness::RecentlyDead(deleted)
    })
}

/// Sets committed hints on a tuple for commits at or below `settled` (B8). The caller holds the page latched for writing or for hints.
pub(crate) fn settle_hints(csn: &CsnLog, bytes: &mut [u8], settled: Lsn, next: Xid) -> Result<()> {
    let Some(mut tuple) = TupleMut::new(bytes) else {
        return Ok(());
    };
    let view = tuple.as_ref();
    let mut bits = view.infomask();
    if bits & mask::XMIN_FROZEN == 0
        && let XidStatus::Committed(lsn) = csn.status(Xid::from_low32(view.xmin(), next))?
        && lsn <= settled
    {
        bits |= mask::XMIN_COMMITTED;
    }
    let no_hint_for = mask::XMAX_INVALID | mask::XMAX_COMMITTED | mask::XMAX_LOCK_ONLY | mask::XMAX_IS_MULTI;
    if bits & no_hint_for == 0
        && let XidStatus::Committed(lsn) = csn.status(Xid::from_low32(view.xmax(), next))?
        && lsn <= settled
    {
        bits |= mask::XMAX_COMMITTED;
    }
    tuple.set_infomask(bits);
    Ok(())
}

/// The tuple at a line pointer, checked.
#[inline]
pub(crate) fn tuple_at(page: &Page, block: u32, offset: u16) -> Result<Option<TupleRef<'_>>> {
    let Some(bytes) = page.item(offset) else {
        return Ok(None);
    };
    match TupleRef::new(bytes) {
        Some(tuple) => Ok(Some(tuple)),
        None => Err(AccessError::corrupted(format!(
            "invalid tuple header at {}",
            Tid::new(block, offset)
        ))),
    }
}

/// The version that the snapshot sees in the HOT chain that begins at `offset`, and its line pointer.
#[inline]
pub fn chain_search<'p>(
    page: &'p Page,
    block: u32,
    offset: u16,
    visibility: &mut Visibility<'_>,
) -> Result<Option<(u16, TupleRef<'p>)>> {
    let mut at = offset;
    let Some(item) = page.item_id(at) else {
        return Ok(None);
    };
    if item.is_redirect() {
        at = item.redirect_target();
    }
    let mut previous_xmax = None;
    for _ in 0..=page.max_offset() {
        let Some(tuple) = tuple_at(page, block, at)? else {
            return Ok(None);
        };
        // A heap-only tuple is never the start of a chain, except behind a redirect.
        if previous_xmax.is_none() && at == offset && tuple.is_heap_only() {
            return Ok(None);
        }
        if previous_xmax.is_some_and(|xmax| xmax != tuple.xmin()) {
            return Ok(None);
        }
        if visibility.sees(tuple)? {
            return Ok(Some((at, tuple)));
        }
        if !tuple.is_hot_updated() || tuple.ctid().block != block {
            return Ok(None);
        }
        previous_xmax = Some(tuple.xmax());
        at = tuple.ctid().offset;
    }
    Err(AccessError::corrupted(format!(
        "endless chain of versions at {}",
        Tid::new(block, offset)
    )))
}
