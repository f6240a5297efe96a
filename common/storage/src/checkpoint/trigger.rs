//! When a checkpoint begins, and how fast it may write: pure functions of times and positions.

use std::time::Duration;

/// Settings of checkpoints, PostgreSQL's names.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CheckpointSettings {
    /// `checkpoint_timeout`.
    pub timeout: Duration,
    /// `max_wal_size` in bytes.
    pub max_wal_size: u64,
    /// `min_wal_size` in bytes: old segments are kept for reuse up to this.
    pub min_wal_size: u64,
    /// `checkpoint_completion_target`.
    pub completion_target: f64,
    /// `checkpoint_warning`; zero is off.
    pub warning: Duration,
    /// `checkpoint_flush_after` in pages; 0 leaves write-back to the system.
    pub flush_after: usize,
    /// `log_checkpoints`.
    pub log: bool,
    /// `wal_keep_size` in bytes.
    pub wal_keep_size: u64,
    /// `max_slot_wal_keep_size` in bytes; `None` is without bound.
    pub max_slot_wal_keep_size: Option<u64>,
}

impl Default for CheckpointSettings {
    fn default() -> CheckpointSettings {
        CheckpointSettings {
            timeout: Duration::from_secs(300),
            max_wal_size: 1 << 30,
            min_wal_size: 80 << 20,
            completion_target: 0.9,
            warning: Duration::from_secs(30),
            flush_after: 32,
            log: true,
            wal_keep_size: 0,
            max_slot_wal_keep_size: Some(4 << 30),
        }
    }
}

/// Why a checkpoint begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointReason {
    /// `checkpoint_timeout` has passed.
    Time,
    /// So much WAL was written that redo would exceed `max_wal_size`.
    Wal,
    /// Somebody asked for one at once.
    Request,
    /// The node stops.
    Shutdown,
}

impl CheckpointReason {
    /// PostgreSQL's words in the log.
    pub fn flags(self) -> &'static str {
        match self {
            CheckpointReason::Time => "time",
            CheckpointReason::Wal => "wal",
            CheckpointReason::Request => "immediate force wait",
            CheckpointReason::Shutdown => "shutdown immediate",
        }
    }

    /// Writes as fast as it can.
    pub fn is_immediate(self) -> bool {
        match self {
            CheckpointReason::Request | CheckpointReason::Shutdown => true,
            CheckpointReason::Time | CheckpointReason::Wal => false,
        }
    }
}

/// What the decision looks at.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Situation {
    /// Since the last checkpoint began.
    pub elapsed: Duration,
    /// WAL bytes since its redo pointer.
    pub wal_since_redo: u64,
    /// Whether anything was logged since it ended.
    pub anything_logged: bool,
    /// Somebody asked for a checkpoint.
    pub requested: bool,
    /// The node stops.
    pub shutting_down: bool,
}

/// WAL bytes between checkpoints, so that with the one that is running `max_wal_size` is not exceeded (PostgreSQL's
/// `CheckPointSegments`).
pub fn wal_between_checkpoints(settings: &CheckpointSettings) -> u64 {
    (settings.max_wal_size as f64 / (1.0 + settings.completion_target.clamp(0.0, 1.0))) as u64
}

/// WAL bytes between redo pointers to expect: at once as much as the last distance, slowly less (PostgreSQL's
/// `UpdateCheckPointDistanceEstimate`).
pub fn estimate_distance(estimate: u64, distance: u64) -> u64 {
    if distance > estimate {
        distance
    } else {
        (0.9 * estimate as f64 + 0.1 * distance as f64) as u64
    }
}

/// WAL bytes behind the end of the log for which old segments are kept as future ones: from the redo pointer on as much as the next
/// checkpoint will let gather, a tenth more, but at least `min_wal_size` and at most `max_wal_size` (PostgreSQL's `XLOGfileslop`).
pub fn bytes_to_recycle(settings: &CheckpointSettings, estimate: u64, redo_to_insert: u64) -> u64 {
    let expected = (1.0 + settings.completion_target.clamp(0.0, 1.0)) * estimate as f64 * 1.1;
    let total = (expected as u64)
        .min(settings.max_wal_size)
        .max(settings.min_wal_size);
    total.saturating_sub(redo_to_insert)
}

/// Whether a checkpoint begins now, and why.
pub fn decide(settings: &CheckpointSettings, now: &Situation) -> Option<CheckpointReason> {
    if now.shutting_down {
        return Some(CheckpointReason::Shutdown);
    }
    if now.requested {
        return Some(CheckpointReason::Request);
    }
    if now.wal_since_redo >= wal_between_checkpoints(settings).max(1) {
        return Some(CheckpointReason::Wal);
    }
    (now.elapsed >= settings.timeout && now.anything_logged).then_some(CheckpointReason::Time)
}

/// Whether a spread checkpoint is far enough with `done` of its pages (0 to 1), given the share of the time and of the WAL
/// volume between checkpoints that has passed since it began.
pub fn is_on_schedule(
    settings: &CheckpointSettings,
    done: f64,
    elapsed: Duration,
    wal_since_start: u64,
) -> bool {
    let target = settings.completion_target.clamp(0.0, 1.0);
    let time = elapsed.as_secs_f64() / settings.timeout.as_secs_f64().max(0.001);
    let wal = wal_since_start as f64 / wal_between_checkpoints(settings).max(1) as f64;
    done * target >= time.max(wal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_has_its_threshold() {
        let settings = CheckpointSettings::default();
        let quiet = Situation {
            elapsed: Duration::from_secs(10),
            wal_since_redo: 1 << 20,
            anything_logged: true,
            requested: false,
            shutting_down: false,
        };
        let late = Situation {
            elapsed: Duration::from_secs(300),
            ..quiet
        };
        let much = Situation {
            wal_since_redo: 600 << 20,
            ..quiet
        };
        for (situation, expected) in [
            (quiet, None),
            (late, Some(CheckpointReason::Time)),
            (
                Situation {
                    anything_logged: false,
                    ..late
                },
                None,
            ),
            (much, Some(CheckpointReason::Wal)),
            (
                Situation {
                    wal_since_redo: 500 << 20,
                    ..quiet
                },
                None,
            ),
            (
                Situation {
                    requested: true,
                    ..late
                },
                Some(CheckpointReason::Request),
            ),
            (
                Situation {
                    requested: true,
                    shutting_down: true,
                    ..much
                },
                Some(CheckpointReason::Shutdown),
            ),
        ] {
            assert_eq!(decide(&settings, &situation), expected, "{situation:?}");
        }
    }

    #[test]
    fn old_segments_are_kept_between_min_and_max_wal_size() {
        let settings = CheckpointSettings::default();
        let mb = |bytes: u64| bytes >> 20;
        for (estimate, since_redo, expected) in [
            (0, 0, 80),
            (0, 16, 64),
            (0, 100, 0),
            (100, 0, 209),
            (100, 40, 169),
            (5000, 0, 1024),
            (5000, 2000, 0),
        ] {
            let bytes = bytes_to_recycle(&settings, estimate << 20, since_redo << 20);
            assert_eq!(
                mb(bytes),
                expected,
                "{estimate} MB expected, {since_redo} MB since redo"
            );
        }
        assert_eq!(estimate_distance(100, 300), 300);
        assert_eq!(estimate_distance(300, 100), 280);
    }

    #[test]
    fn a_spread_checkpoint_follows_the_clock_and_the_wal() {
        let settings = CheckpointSettings::default();
        let second = Duration::from_secs(1);
        assert!(is_on_schedule(&settings, 0.5, 100 * second, 0));
        assert!(!is_on_schedule(&settings, 0.5, 150 * second, 0));
        assert!(!is_on_schedule(&settings, 0.5, second, 400 << 20));
        assert!(is_on_schedule(&settings, 1.0, 269 * second, 0));
    }
}
