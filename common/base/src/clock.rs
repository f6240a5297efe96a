//! Time: a monotonic clock for deadlines and the wall clock for what users see.
//!
//! Nothing else in wal, storage, access and sql reads the time, so that the simulator owns it.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point on a monotonic clock: nanoseconds since an arbitrary start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Moment(pub u64);

impl Moment {
    /// This much later, held at the end of time.
    pub fn after(self, duration: Duration) -> Moment {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Moment(self.0.saturating_add(nanos))
    }

    /// Time since `earlier`; zero when `earlier` is not earlier.
    pub fn since(self, earlier: Moment) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Microseconds since 2000-01-01 00:00 UTC, as PostgreSQL's `timestamptz`.
pub type TimestampTz = i64;

/// Seconds from 1970-01-01 to 2000-01-01.
pub const POSTGRES_EPOCH_UNIX_SECONDS: i64 = 946_684_800;

/// The two clocks of a node.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// The monotonic clock.
    fn now(&self) -> Moment;
    /// The wall clock.
    fn wall(&self) -> TimestampTz;
}

/// The operating system's clocks.
#[derive(Clone, Copy, Default, Debug)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Moment {
        static START: OnceLock<Instant> = OnceLock::new();
        let elapsed = START.get_or_init(Instant::now).elapsed();
        // One second ahead of zero, so that `Moment(0)` is before everything.
        Moment(elapsed.as_nanos() as u64 + 1_000_000_000)
    }

    fn wall(&self) -> TimestampTz {
        let micros = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(after) => after.as_micros() as i64,
            Err(before) => -(before.duration().as_micros() as i64),
        };
        micros - POSTGRES_EPOCH_UNIX_SECONDS * 1_000_000
    }
}

/// A clock that moves only when told to; for tests and the simulator.
#[derive(Default, Debug)]
pub struct ManualClock {
    nanos: AtomicU64,
    wall: AtomicI64,
}

impl ManualClock {
    /// A clock that stands at `Moment(0)` and at `wall`.
    pub fn new(wall: TimestampTz) -> ManualClock {
        ManualClock {
            nanos: AtomicU64::new(0),
            wall: AtomicI64::new(wall),
        }
    }

    /// Moves both clocks forward.
    pub fn advance(&self, duration: Duration) {
        self.nanos.fetch_add(duration.as_nanos() as u64, Ordering::SeqCst);
        self.wall.fetch_add(duration.as_micros() as i64, Ordering::SeqCst);
    }

    /// Sets the wall clock alone, as an operator or NTP may, backwards too.
    pub fn set_wall(&self, wall: TimestampTz) {
        self.wall.store(wall, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Moment {
        Moment(self.nanos.load(Ordering::SeqCst))
    }

    fn wall(&self) -> TimestampTz {
        self.wall.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_clock_moves_only_when_told() {
        let clock = ManualClock::new(5);
        let start = clock.now();
        clock.advance(Duration::from_millis(3));
        assert_eq!(clock.now().since(start), Duration::from_millis(3));
        assert_eq!(clock.wall(), 3005);
        clock.set_wall(-1);
        assert_eq!(clock.wall(), -1);
        assert_eq!(start.since(clock.now()), Duration::ZERO);
    }

    #[test]
    fn the_wall_clock_counts_from_2000() {
        // 2024-01-01 in PostgreSQL microseconds; the test machine's clock is later than that.
        assert!(SystemClock.wall() > 757_382_400_000_000);
        assert!(SystemClock.now() > Moment(0));
    }
}
