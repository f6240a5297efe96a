//! How far a recovery is: for the log, at a bounded rate, and for whoever asks while a node starts.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use towline_base::{Clock, Lsn, Moment};

/// How far recovery is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecoveryProgress {
    /// Where redo began.
    pub start: Lsn,
    /// End of the last record applied.
    pub replayed: Lsn,
    /// Where it will end, if that is known.
    pub target: Option<Lsn>,
    /// Records applied.
    pub records: u64,
    /// Time since it began; zero when nobody measures.
    pub elapsed: Duration,
}

impl RecoveryProgress {
    fn done(&self) -> u64 {
        let done = self.replayed.distance_from(self.start);
        self.total().map_or(done, |total| done.min(total))
    }

    fn total(&self) -> Option<u64> {
        Some(self.target?.distance_from(self.start))
    }

    /// Share of the log that is applied, in percent, when the end is known.
    pub fn percent(&self) -> Option<f64> {
        Some(match self.total()? {
            0 => 100.0,
            total => self.done() as f64 * 100.0 / total as f64,
        })
    }

    /// Bytes of log applied per second since it began, once there is something to measure.
    pub fn bytes_per_second(&self) -> Option<f64> {
        let seconds = self.elapsed.as_secs_f64();
        (seconds > 0.0).then(|| self.done() as f64 / seconds)
    }

    /// The time that the rest takes at that rate, when the end is known.
    pub fn remaining(&self) -> Option<Duration> {
        let rate = self.bytes_per_second().filter(|rate| *rate >= 1.0)?;
        let left = self.total()? - self.done();
        Some(Duration::from_secs_f64((left as f64 / rate).min(1e9)))
    }
}

const MB: f64 = 1_048_576.0;

impl fmt::Display for RecoveryProgress {
    /// `37.2 %, 120.5 of 324.0 MB, 85.3 MB/s, about 3 s left, at 0/5A12345`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let done = self.done() as f64 / MB;
        match (self.percent(), self.total()) {
            (Some(percent), Some(total)) => {
                write!(f, "{percent:.1} %, {done:.1} of {:.1} MB", total as f64 / MB)?;
            }
            _ => write!(f, "{done:.1} MB")?,
        }
        if let Some(rate) = self.bytes_per_second() {
            write!(f, ", {:.1} MB/s", rate / MB)?;
        }
        if let Some(left) = self.remaining() {
            write!(f, ", about {:.0} s left", left.as_secs_f64().ceil())?;
        }
        write!(f, ", at {}", self.replayed)
    }
}

/// Measures a recovery, and says when its progress is due in the log (`log_startup_progress_interval`).
#[derive(Debug)]
pub struct ProgressMeter {
    clock: Arc<dyn Clock>,
    began: Moment,
    /// Between two lines; zero logs none.
    interval: Duration,
    next_line: Moment,
    start: Lsn,
    target: Option<Lsn>,
}

impl ProgressMeter {
    /// Redo begins now, at `start`; it ends at `target`, if that is known.
    pub fn new(clock: Arc<dyn Clock>, interval: Duration, start: Lsn, target: Option<Lsn>) -> ProgressMeter {
        let began = clock.now();
        ProgressMeter {
            clock,
            began,
            interval,
            next_line: began.after(interval),
            start,
            target,
        }
    }

    /// How far it is now.
    pub fn progress(&self, replayed: Lsn, records: u64) -> RecoveryProgress {
        RecoveryProgress {
            start: self.start,
            replayed,
            target: self.target,
            records,
            elapsed: self.clock.now().since(self.began),
        }
    }

    /// Whether a line is due; true at most once in an interval.
    pub fn is_line_due(&mut self) -> bool {
        let now = self.clock.now();
        if self.interval.is_zero() || now < self.next_line {
            return false;
        }
        self.next_line = now.after(self.interval);
        true
    }
}

/// Records between two looks at the clock.
const SCAN_BATCH: u64 = 4096;

/// How far the search for the end of the log is, which comes before redo and reads as much.
#[derive(Debug)]
pub struct ScanMeter {
    meter: ProgressMeter,
    records: u64,
}

impl ScanMeter {
    /// The search begins now, at `start`; a line is due once in `interval`, never when that is zero.
    pub fn new(clock: Arc<dyn Clock>, interval: Duration, start: Lsn) -> ScanMeter {
        ScanMeter {
            meter: ProgressMeter::new(clock, interval, start, None),
            records: 0,
        }
    }

    /// A record was read that ends at `end`; how far that is, when a line is due.
    pub fn see(&mut self, end: Lsn) -> Option<RecoveryProgress> {
        self.records += 1;
        let due = self.records.is_multiple_of(SCAN_BATCH) && self.meter.is_line_due();
        due.then(|| self.meter.progress(end, self.records))
    }

    /// The same, and writes the line.
    pub fn tell(&mut self, end: Lsn) {
        if let Some(progress) = self.see(end) {
            tracing::info!("looking for the end of the write-ahead log: {progress}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use towline_base::ManualClock;

    fn meter(clock: &Arc<ManualClock>, target: Option<Lsn>) -> ProgressMeter {
        let clock: Arc<dyn Clock> = Arc::clone(clock) as _;
        ProgressMeter::new(clock, Duration::from_secs(10), Lsn(1 << 20), target)
    }

    #[test]
    fn a_search_for_the_end_says_how_far_it_is_at_a_bounded_rate() {
        let manual = Arc::new(ManualClock::new(0));
        let clock: Arc<dyn Clock> = Arc::clone(&manual) as _;
        let mut scan = ScanMeter::new(clock, Duration::from_secs(10), Lsn(1 << 20));
        let mut told = Vec::new();
        for record in 0..10 * SCAN_BATCH {
            if record == 3 * SCAN_BATCH {
                manual.advance(Duration::from_secs(10));
            }
            let end = Lsn((1 << 20) + (record + 1) * 256);
            told.extend(scan.see(end).map(|progress| progress.to_string()));
        }
        assert_eq!(told, ["4.0 MB, 0.4 MB/s, at 0/500000"]);
    }

    #[test]
    fn it_says_percent_rate_and_what_is_left() {
        let clock = Arc::new(ManualClock::new(0));
        let meter = meter(&clock, Some(Lsn(101 << 20)));
        let at = |replayed: u64| meter.progress(Lsn(replayed << 20), 7);
        assert_eq!(at(1).to_string(), "0.0 %, 0.0 of 100.0 MB, at 0/100000");
        clock.advance(Duration::from_secs(2));
        assert_eq!(
            at(26).to_string(),
            "25.0 %, 25.0 of 100.0 MB, 12.5 MB/s, about 6 s left, at 0/1A00000"
        );
        assert_eq!(
            at(101).to_string(),
            "100.0 %, 100.0 of 100.0 MB, 50.0 MB/s, about 0 s left, at 0/6500000"
        );
        // Behind the target, and before the start, it stays within its bounds.
        assert_eq!((at(500).percent(), at(0).percent()), (Some(100.0), Some(0.0)));
        assert_eq!(at(1).remaining(), None, "nothing was measured yet");
    }

    #[test]
    fn without_a_known_end_it_says_how_much_is_done() {
        let clock = Arc::new(ManualClock::new(0));
        let meter = meter(&clock, None);
        clock.advance(Duration::from_secs(5));
        let progress = meter.progress(Lsn(11 << 20), 7);
        assert_eq!(progress.to_string(), "10.0 MB, 2.0 MB/s, at 0/B00000");
        assert_eq!((progress.percent(), progress.remaining()), (None, None));
    }

    #[test]
    fn a_line_is_due_once_in_an_interval_and_never_with_zero() {
        let clock = Arc::new(ManualClock::new(0));
        let mut meter = meter(&clock, None);
        let mut lines = 0;
        for _ in 0..1000 {
            clock.advance(Duration::from_millis(50));
            lines += u32::from(meter.is_line_due());
        }
        assert_eq!(lines, 5);
        let shared: Arc<dyn Clock> = Arc::clone(&clock) as _;
        let mut silent = ProgressMeter::new(shared, Duration::ZERO, Lsn(0), None);
        clock.advance(Duration::from_secs(1000));
        assert!(!silent.is_line_due());
    }
}
