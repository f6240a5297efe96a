//! Giving out xids, only below a logged reservation that the quorum has (C7).
//!
//! A reservation record says "xids below `limit` may be used". It is inserted ahead of need; xids are given out below the highest limit whose
//! record is at most Q. A new timeline starts at the limit of the last reservation in the log, so no xid that a client may have
//! heard of, nor one in a tuple of a lost tail, is given to another transaction.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use towline_base::limits::{XID_STOP_LIMIT, XID_WARN_LIMIT};
use towline_base::{Lsn, LsnPublisher, LsnWait, LsnWatch, SqlState, Xid};

use crate::error::{AccessError, Result};

/// Xids of one reservation: at most this many are skipped by a restart.
pub(crate) const RESERVATION: u64 = 16_384;
/// Xids from one warning of wraparound to the next.
const WARN_EVERY: u64 = 65_536;

/// How far the next xid may be from the oldest one that stands in a row not frozen: a row's 32 bits tell 2^31 apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XidLimits {
    /// Xids in use from which the log warns.
    pub warn: u64,
    /// Xids in use at which no more are given out.
    pub stop: u64,
}

impl Default for XidLimits {
    /// 40 million, and 3 million, before the end. Tests set less, so that they need not use two thousand million.
    fn default() -> XidLimits {
        XidLimits {
            warn: XID_WARN_LIMIT,
            stop: XID_STOP_LIMIT,
        }
    }
}

#[derive(Debug)]
struct State {
    next: Xid,
    /// Xids below it may be given out.
    usable: Xid,
    /// The reservation that waits for the quorum: its limit and its record's end.
    waiting: Option<(Xid, Lsn)>,
    /// Somebody is inserting a reservation record now.
    inserting: bool,
    /// How many insertions have ended, with a record or without: a count, published like a position.
    ended: LsnPublisher,
    /// From this xid on the log warns again.
    warn_at: u64,
}

/// The counter of a node.
#[derive(Debug)]
pub struct XidSource {
    limits: XidLimits,
    state: Mutex<State>,
    next: AtomicU64,
    oldest: AtomicU64,
    /// What [`State::ended`] publishes.
    ends: LsnWatch,
}

/// The answer to a request for an xid.
#[derive(Debug)]
pub(crate) enum Assign {
    /// It is the caller's; a new reservation up to the second value should be logged, by the caller.
    Assigned(Xid, Option<Xid>),
    /// A reservation up to this limit must be logged first, by the caller.
    Reserve(Xid),
    /// The quorum must reach this first.
    WaitFor(Lsn),
    /// Another session is logging the reservation: try again after this.
    Busy(LsnWait),
}

impl XidSource {
    /// Nothing may be given out yet; `next` is the first xid to be given out.
    pub fn new(next: Xid, limits: XidLimits) -> Self {
        let (ended, ends) = LsnWatch::new(Lsn(0));
        let next = next.or_normal();
        XidSource {
            limits,
            state: Mutex::new(State {
                next,
                usable: next,
                waiting: None,
                inserting: false,
                ended,
                warn_at: 0,
            }),
            next: AtomicU64::new(next.0),
            oldest: AtomicU64::new(Xid::FIRST_NORMAL.0),
            ends,
        }
    }

    /// The next xid.
    #[inline]
    pub fn next(&self) -> Xid {
        Xid(self.next.load(Ordering::Acquire))
    }

    /// Every xid below it is frozen in every table: what wraparound is measured from.
    pub fn set_oldest_unfrozen(&self, xid: Xid) {
        self.oldest.fetch_max(xid.0, Ordering::SeqCst);
    }

    /// See [`XidSource::set_oldest_unfrozen`].
    pub fn oldest_unfrozen(&self) -> Xid {
        Xid(self.oldest.load(Ordering::SeqCst))
    }

    /// No xid at or above it is given out under any reservation logged so far, or being logged now.
    pub(crate) fn reserved_limit(&self) -> Xid {
        let state = self.state.lock();
        let waiting = state.waiting.map_or(state.usable, |(limit, _)| limit);
        let known = state.usable.max(waiting).max(state.next);
        if state.inserting {
            Xid(known.0 + RESERVATION)
        } else {
            known
        }
    }

    /// Xids from the oldest that may stand unfrozen to the next one.
    pub fn in_use(&self) -> u64 {
        self.next().0.saturating_sub(self.oldest.load(Ordering::SeqCst))
    }

    /// Whether no xid is given out before a VACUUM has made the oldest one younger.
    pub fn is_exhausted(&self) -> bool {
        self.in_use() >= self.limits.stop
    }

    /// Gives out an xid if it may. `publish` runs under the lock: the xid is seen by scans before it is below `next`.
    pub(crate) fn assign(&self, quorum: Lsn, publish: impl FnOnce(Xid) -> Result<()>) -> Result<Assign> {
        let mut state = self.state.lock();
        if let Some((limit, lsn)) = state.waiting
            && lsn <= quorum
        {
            state.usable = limit;
            state.waiting = None;
        }
        let oldest = self.oldest.load(Ordering::Relaxed);
        let used = state.next.0.saturating_sub(oldest);
        if used >= self.limits.warn {
            self.near_the_limit(&mut state, used)?;
        }
        let idle = state.waiting.is_none() && !state.inserting;
        if state.next < state.usable {
            let xid = state.next;
            publish(xid)?;
            state.next = xid.next();
            self.next.store(state.next.0, Ordering::Release);
            let low = state.usable.0.saturating_sub(state.next.0) < RESERVATION / 2;
            let reserve = (low && idle).then(|| Xid(state.usable.0 + RESERVATION));
            state.inserting |= reserve.is_some();
            return Ok(Assign::Assigned(xid, reserve));
        }
        if idle {
            state.inserting = true;
            return Ok(Assign::Reserve(Xid(
                state.next.0.max(state.usable.0) + RESERVATION
            )));
        }
        Ok(match state.waiting {
            Some((_, lsn)) => Assign::WaitFor(lsn),
            // Under the lock, which the end of the insertion takes too: it is not missed.
            None => Assign::Busy(self.ends.wait_past(self.ends.get())),
        })
    }

    /// Refuses an xid at the limit, and warns before it.
    #[cold]
    fn near_the_limit(&self, state: &mut State, used: u64) -> Result<()> {
        if used >= self.limits.stop {
            return Err(AccessError::new(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                "no transaction may change database \"postgres\" any more: its oldest rows would seem to come from the future",
            )
            .with_hint(
                "Run VACUUM FREEZE without naming a table. Reading goes on. What keeps old rows from being frozen are transactions \
                 and standbys' queries that have been open for very long, and a quorum that is away.",
            ));
        }
        if state.next.0 >= state.warn_at {
            state.warn_at = state.next.0 + WARN_EVERY;
            tracing::warn!(
                left = self.limits.stop - used,
                oldest = self.oldest.load(Ordering::Relaxed),
                "database \"postgres\" must be vacuumed within the transactions left, or it will refuse changes; run VACUUM FREEZE"
            );
        }
        Ok(())
    }

    /// The reservation record was inserted (`Some`) or could not be (`None`).
    pub(crate) fn reserved(&self, limit: Xid, end: Option<Lsn>) {
        let mut state = self.state.lock();
        state.inserting = false;
        if let Some(end) = end {
            state.waiting = Some((limit, end));
        }
        let ended = state.ended.get().saturating_add(1);
        state.ended.advance(ended);
    }

    /// Redo of a reservation, or a new timeline: the next xid is at least `limit`.
    pub fn advance_to(&self, limit: Xid) {
        let limit = limit.or_normal();
        let mut state = self.state.lock();
        if state.next < limit {
            state.next = limit;
            state.usable = state.usable.max(limit);
            self.next.store(limit.0, Ordering::Release);
        }
    }

    /// Redo saw a record of `xid`: the next xid is above it.
    pub fn observe(&self, xid: Xid) {
        if xid.is_normal() && xid >= self.next() {
            self.advance_to(xid.next());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::time::Duration;
    use towline_base::WaitOutcome;

    #[test]
    fn no_xid_is_given_out_above_a_quorum_durable_reservation() {
        let source = XidSource::new(Xid(100), XidLimits::default());
        let publish = |_| Ok(());
        let limit = Xid(100 + RESERVATION);
        let assign = |quorum| source.assign(Lsn(quorum), publish).unwrap();
        assert!(matches!(assign(5), Assign::Reserve(up_to) if up_to == limit));
        assert!(matches!(assign(5), Assign::Busy(_)));
        source.reserved(limit, Some(Lsn(50)));
        assert!(matches!(assign(49), Assign::WaitFor(Lsn(50))));
        assert!(matches!(assign(50), Assign::Assigned(Xid(100), None)));
        let mut asked = None;
        for xid in 101..limit.0 {
            match assign(50) {
                Assign::Assigned(given, reserve) => {
                    assert_eq!(given, Xid(xid));
                    asked = asked.or(reserve);
                }
                other => panic!("{other:?} at {xid}"),
            }
        }
        assert_eq!(asked, Some(Xid(limit.0 + RESERVATION)));
        assert!(matches!(assign(50), Assign::Busy(_)));
        source.reserved(asked.unwrap(), Some(Lsn(90)));
        assert!(matches!(assign(60), Assign::WaitFor(Lsn(90))));
        assert!(matches!(assign(90), Assign::Assigned(xid, _) if xid == limit));
    }

    #[test]
    fn who_waits_for_anothers_reservation_is_woken_when_it_is_logged_or_given_up() {
        let source = XidSource::new(Xid(100), XidLimits::default());
        let assign = || source.assign(Lsn(5), |_| Ok(())).unwrap();
        for end in [None, Some(Lsn(4))] {
            let Assign::Reserve(limit) = assign() else {
                panic!("nobody reserves");
            };
            let (Assign::Busy(early), Assign::Busy(late)) = (assign(), assign()) else {
                panic!("two reserve");
            };
            let sleeper = std::thread::spawn(move || early.block(Some(Duration::from_secs(20))));
            assert!(matches!(late.block(Some(Duration::ZERO)), WaitOutcome::TimedOut));
            source.reserved(limit, end);
            assert!(matches!(sleeper.join().unwrap(), WaitOutcome::Reached(_)));
        }
        assert!(matches!(assign(), Assign::Assigned(Xid(100), None)));
    }

    #[test]
    fn assignment_stops_three_million_before_the_oldest_xid_would_be_half_a_circle_away() {
        for oldest in [3, (1 << 31) - 5, (1 << 32) - 1_000_000, 7 << 32] {
            let last = Xid(oldest + (1 << 31) - 3_000_000);
            let source = XidSource::new(last, XidLimits::default());
            source.set_oldest_unfrozen(Xid(oldest));
            assert!(source.is_exhausted());
            let error = source.assign(Lsn(5), |_| Ok(())).unwrap_err();
            assert_eq!(error.sqlstate(), SqlState::PROGRAM_LIMIT_EXCEEDED);
            let hint = error.fields().hint.as_deref().unwrap_or_default();
            assert!(hint.contains("VACUUM FREEZE"), "{hint}");
            source.set_oldest_unfrozen(Xid(oldest + 1));
            assert!(!source.is_exhausted());
            assert!(source.assign(Lsn(5), |_| Ok(())).is_ok());
        }
    }

    #[test]
    fn no_transaction_is_given_an_xid_whose_low_half_is_special() {
        let next = Xid((1 << 32) - 2);
        let source = XidSource::new(next, XidLimits::default());
        source.set_oldest_unfrozen(next);
        let Assign::Reserve(limit) = source.assign(Lsn(5), |_| Ok(())).unwrap() else {
            panic!("no reservation");
        };
        source.reserved(limit, Some(Lsn(4)));
        let given: Vec<u64> = (0..4)
            .map(|_| match source.assign(Lsn(5), |_| Ok(())).unwrap() {
                Assign::Assigned(xid, _) => xid.0,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(
            given,
            [(1 << 32) - 2, (1 << 32) - 1, (1 << 32) + 3, (1 << 32) + 4]
        );
        // A restart begins at the limit of a reservation, which may be any number.
        for special in 0..3 {
            let source = XidSource::new(Xid(100), XidLimits::default());
            source.advance_to(Xid((2 << 32) + special));
            assert_eq!(source.next(), Xid((2 << 32) + 3));
            assert_eq!(
                XidSource::new(Xid((2 << 32) + special), XidLimits::default()).next(),
                Xid((2 << 32) + 3)
            );
        }
    }
}
