//! The bound of page LSNs on disk, raised durably before a page that needs it is written.
//!
//! Two starts depend on it. A standby's pages may be ahead of the records that say how far the quorum was, so it opens for reads
//! only when it has replayed up to the bound. And a primary without voters may have written pages that a fork takes
//! back: with the bound above the fork it must be cloned anew. A primary with voters needs neither (its pages are ≤ Q, which no
//! fork goes below), and then the bound is only noted at checkpoints.

use super::BufferPool;
use crate::error::StorageResult;
use parking_lot::Mutex;
use towline_base::Lsn;

use std::sync::atomic::{AtomicU64, Ordering};

type Raise = Box<dyn Fn(Lsn) -> StorageResult<Lsn> + Send + Sync>;

/// Not strict: every page may be written.
const NO_BOUND: u64 = u64::MAX;

pub(super) struct PageLsnBound {
    /// Pages up to this LSN may be written; [`NO_BOUND`] when that is not kept.
    durable: AtomicU64,
    /// Makes a higher bound durable and returns it; its lock keeps writers from doing so one after the other.
    raise: Mutex<Option<Raise>>,
}

impl PageLsnBound {
    pub(super) const fn new() -> PageLsnBound {
        PageLsnBound {
            durable: AtomicU64::new(NO_BOUND),
            raise: Mutex::new(None),
        }
    }
}

impl BufferPool {
    /// From now on no page above `durable` is written before `raise` has made a bound durable that is at least its LSN.
    pub(crate) fn keep_page_lsn_bound(
        &self,
        durable: Lsn,
        raise: impl Fn(Lsn) -> StorageResult<Lsn> + Send + Sync + 'static,
    ) {
        *self.bound.raise.lock() = Some(Box::new(raise));
        self.bound.durable.store(durable.0, Ordering::SeqCst);
    }

    /// From now on pages are written without a bound.
    pub(crate) fn give_up_page_lsn_bound(&self) {
        let mut raise = self.bound.raise.lock();
        self.bound.durable.store(NO_BOUND, Ordering::SeqCst);
        *raise = None;
    }

    /// Whether a page with this LSN may be written now.
    pub(super) fn is_within_bound(&self, lsn: Lsn) -> bool {
        lsn.0 <= self.bound.durable.load(Ordering::SeqCst)
    }

    /// Makes it so. Takes a sync, so nothing may be latched.
    pub(super) fn raise_bound(&self, lsn: Lsn) -> StorageResult<()> {
        if self.is_within_bound(lsn) {
            return Ok(());
        }
        let raise = self.bound.raise.lock();
        match &*raise {
            Some(raise) if !self.is_within_bound(lsn) => {
                let durable = raise(lsn)?;
                self.bound.durable.fetch_max(durable.0, Ordering::SeqCst);
                Ok(())
            }
            Some(_) | None => Ok(()),
        }
    }
}
