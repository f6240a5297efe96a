//! The heap's part of a unique check: is the row behind an index entry alive, dead, or undecided?
//!
//! Judged on the newest state, not on a snapshot: an inserted commit counts as committed (C3), the own transaction's changes count.

use towline_base::{Lsn, PageId, RelFileNode, Tid, Xid};

use super::visibility::{Outcome, holder, inserter, tuple_at};
use crate::btree::{RowProbe, RowState};
use crate::engine::Engine;
use crate::error::{AccessError, Result};

/// Probes rows of one relation for one transaction.
#[derive(Debug)]
pub(crate) struct HeapProbe<'a> {
    pub(crate) engine: &'a Engine,
    pub(crate) rel: RelFileNode,
    pub(crate) xid: Xid,
}

impl HeapProbe<'_> {
    /// Raised only for what is not visible yet.
    fn dependency(&self, lsn: Lsn) -> Lsn {
        if lsn > self.engine.visible().get() {
            lsn
        } else {
            Lsn::INVALID
        }
    }
}

impl RowProbe for HeapProbe<'_> {
    fn probe(&self, tid: Tid) -> Result<RowState> {
        let engine = self.engine;
        let (csn, next) = (engine.csn(), engine.next_xid());
        let gone = |for_everybody| RowState::Gone {
            for_everybody,
            depends_on: Lsn::INVALID,
        };
        let page = engine.storage().pin(PageId::main(self.rel, tid.block))?.read();
        let mut offset = tid.offset;
        if let Some(item) = page.item_id(offset) {
            if item.is_redirect() {
                offset = item.redirect_target();
            } else if item.is_dead() {
                return Ok(gone(true));
            }
        }
        // Nobody sees a chain whose every version is dead at the horizon, and settled (B8).
        let settled = engine.settled();
        let mut all_dead = true;
        let mut last_deleted = Lsn::INVALID;
        let mut previous_xmax = None;
        for _ in 0..=page.max_offset() {
            let Some(tuple) = tuple_at(&page, tid.block, offset)? else {
                return Ok(RowState::Gone {
                    for_everybody: all_dead,
                    depends_on: self.dependency(last_deleted),
                });
            };
            if previous_xmax.is_some_and(|xmax| xmax != tuple.xmin()) {
                break;
            }
            let at = Tid::new(tid.block, offset);
            let inserted = match inserter(csn, tuple, self.xid, next)? {
                Outcome::None => break,
                Outcome::Running(xid) => return Ok(RowState::InProgress { xid, tid: at }),
                Outcome::Own => Lsn::INVALID,
                Outcome::Committed(lsn) => lsn,
            };
            let live = RowState::Live {
                depends_on: self.dependency(inserted),
            };
            if tuple.is_lock_only() {
                return Ok(live);
            }
            match holder(csn, tuple, self.xid, next)? {
                Outcome::None => return Ok(live),
                Outcome::Running(xid) => return Ok(RowState::InProgress { xid, tid: at }),
                Outcome::Own => {
                    all_dead = false;
                    last_deleted = Lsn::INVALID;
                }
                Outcome::Committed(lsn) => {
                    all_dead &= lsn <= settled;
                    last_deleted = lsn;
                }
            }
            // A successor elsewhere has index entries of its own.
            if !tuple.is_hot_updated() || tuple.ctid().block != tid.block {
                break;
            }
            previous_xmax = Some(tuple.xmax());
            offset = tuple.ctid().offset;
            if offset == 0 {
                return Err(AccessError::corrupted(format!("version chain broken at {at}")));
            }
        }
        Ok(RowState::Gone {
            for_everybody: all_dead,
            depends_on: self.dependency(last_deleted),
        })
    }
}
