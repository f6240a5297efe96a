//! Lags for pg_stat_replication: the time from sending a position to hearing that it was written, flushed, applied.

use std::collections::VecDeque;

use towline_base::Lsn;

/// Samples kept; when full, every second one goes, so that long lags are still measured, only less finely.
const SAMPLES: usize = 128;

/// Microseconds, when known.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Lags {
    pub(crate) write: Option<i64>,
    pub(crate) flush: Option<i64>,
    pub(crate) apply: Option<i64>,
}

#[derive(Debug, Default)]
pub(crate) struct LagTracker {
    samples: VecDeque<(Lsn, i64)>,
    /// How far each position has consumed the samples, and the lag measured last.
    heads: [(Lsn, Option<i64>); 3],
}

impl LagTracker {
    /// Bytes up to `lsn` leave now.
    pub(crate) fn sent(&mut self, lsn: Lsn, now: i64) {
        if self.samples.len() == SAMPLES {
            let mut keep = false;
            self.samples.retain(|_| {
                keep = !keep;
                keep
            });
        }
        self.samples.push_back((lsn, now));
    }

    /// The standby tells its positions.
    pub(crate) fn acked(&mut self, write: Lsn, flush: Lsn, apply: Lsn, now: i64) {
        for (head, reached) in self.heads.iter_mut().zip([write, flush, apply]) {
            if reached <= head.0 {
                continue;
            }
            let newest = self.samples.iter().rev().find(|(lsn, _)| *lsn <= reached);
            if let Some((lsn, time)) = newest
                && *lsn > head.0
            {
                head.1 = Some((now - time).max(0));
            }
            head.0 = reached;
        }
        let all_passed = self.heads.iter().map(|(lsn, _)| *lsn).min().unwrap_or_default();
        while self.samples.front().is_some_and(|(lsn, _)| *lsn <= all_passed) {
            self.samples.pop_front();
        }
    }

    /// The lags measured last. With nothing on the way there is none, as in PostgreSQL.
    pub(crate) fn lags(&self) -> Lags {
        if self.samples.is_empty() {
            return Lags::default();
        }
        let [write, flush, apply] = self.heads;
        Lags {
            write: write.1,
            flush: flush.1,
            apply: apply.1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_position_has_its_own_lag() {
        let mut tracker = LagTracker::default();
        tracker.sent(Lsn(100), 1_000);
        tracker.sent(Lsn(200), 2_000);
        tracker.acked(Lsn(200), Lsn(100), Lsn(0), 2_500);
        let lags = tracker.lags();
        assert_eq!(
            (lags.write, lags.flush, lags.apply),
            (Some(500), Some(1_500), None)
        );
        tracker.acked(Lsn(200), Lsn(200), Lsn(200), 3_000);
        assert_eq!(tracker.lags(), Lags::default());
    }

    #[test]
    fn a_standby_that_never_answers_costs_a_bounded_number_of_samples() {
        let mut tracker = LagTracker::default();
        for lsn in 1..10_000 {
            tracker.sent(Lsn(lsn), lsn as i64);
        }
        assert!(tracker.samples.len() <= SAMPLES);
        tracker.acked(Lsn(9_999), Lsn(9_999), Lsn(5_000), 20_000);
        assert!(tracker.lags().write.is_some_and(|lag| lag > 10_000));
    }
}
