//! `interval`: months, days and microseconds kept apart, as PostgreSQL does, because their lengths vary.

use std::cmp::Ordering;
use std::hash::{Hash, Hasher};

/// A span of time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Interval {
    /// Microseconds.
    pub micros: i64,
    /// Days.
    pub days: i32,
    /// Months.
    pub months: i32,
}

impl Interval {
    /// The length in microseconds with months of 30 days and days of 24 hours: what comparison uses.
    pub fn span(&self) -> i128 {
        const DAY: i128 = 86_400_000_000;
        i128::from(self.micros) + (i128::from(self.days) + i128::from(self.months) * 30) * DAY
    }
}

impl Ord for Interval {
    fn cmp(&self, other: &Self) -> Ordering {
        self.span().cmp(&other.span())
    }
}

impl PartialOrd for Interval {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Interval {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Interval {}

impl Hash for Interval {
    fn hash<H: Hasher>(&self, h: &mut H) {
        self.span().hash(h);
    }
}
