//! Retention: which segments may go, as a pure function of positions.
//!
//! HAZARDS B10: the checkpoint that the control file names bounds recycling, not the newest one.

use towline_base::{Lsn, TimelineNumber};

use crate::format::{SegmentNumber, SegmentSize};

/// What keeps segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// Redo pointer of the checkpoint in the control file.
    pub redo: Lsn,
    /// End of the log.
    pub insert: Lsn,
    /// The lowest position that any slot (or announced member) still needs.
    pub slots: Option<Lsn>,
    /// `max_slot_wal_keep_size` in bytes; `None` is without bound.
    pub max_slot_keep: Option<u64>,
    /// `wal_keep_size` in bytes.
    pub keep: u64,
}

/// The lowest position that must stay readable.
pub fn oldest_needed(needs: &Needs) -> Lsn {
    let mut oldest = needs.redo.min(needs.insert.saturating_sub(needs.keep));
    if let Some(slot) = needs.slots {
        let bound = needs
            .max_slot_keep
            .map_or(Lsn(0), |keep| needs.insert.saturating_sub(keep));
        oldest = oldest.min(slot.max(bound));
    }
    oldest
}

/// Whether a slot at `position` has fallen behind what is kept for it: it is lost.
pub fn slot_is_lost(position: Lsn, oldest_kept: Lsn) -> bool {
    position < oldest_kept
}

/// What to do with one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Its file goes.
    Remove {
        /// Its timeline.
        timeline: TimelineNumber,
        /// Its number.
        segment: SegmentNumber,
    },
    /// Its file becomes a future segment.
    Recycle {
        /// Its timeline.
        timeline: TimelineNumber,
        /// Its number.
        segment: SegmentNumber,
        /// The timeline being written.
        into_timeline: TimelineNumber,
        /// The future segment.
        into: SegmentNumber,
    },
}

/// How a plan is made.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// From [`oldest_needed`].
    pub oldest: Lsn,
    /// End of the log.
    pub insert: Lsn,
    /// The timeline being written.
    pub timeline: TimelineNumber,
    /// Where that timeline began: files of its ancestors beyond it are never read again (HAZARDS A14).
    pub begin: Lsn,
    /// Segment size.
    pub size: SegmentSize,
    /// Future segments to keep ready by recycling (from `min_wal_size`); 0 recycles nothing.
    pub ahead: u64,
}

/// Decides for every file of `present`.
///
/// A segment goes when it ends at or before the oldest needed position, or when it is an ancestor's and begins behind the fork.
/// Files that go become future segments as long as those are missing, then they are removed.
pub fn plan(plan: &Plan, present: impl IntoIterator<Item = (TimelineNumber, SegmentNumber)>) -> Vec<Action> {
    let present: std::collections::BTreeSet<_> = present.into_iter().collect();
    let current = plan.size.segment_of(plan.insert);
    let mut future = (1..=plan.ahead)
        .map(|ahead| SegmentNumber(current.0 + ahead))
        .filter(|segment| !present.contains(&(plan.timeline, *segment)));
    let mut actions = Vec::new();
    for &(timeline, segment) in &present {
        let behind = plan.size.end(segment) <= plan.oldest;
        let abandoned = timeline < plan.timeline && plan.size.start(segment) >= plan.begin;
        if timeline > plan.timeline || !(behind || abandoned) {
            continue;
        }
        actions.push(match future.next() {
            Some(into) => Action::Recycle {
                timeline,
                segment,
                into_timeline: plan.timeline,
                into,
            },
            None => Action::Remove { timeline, segment },
        });
    }
    actions
}

#[cfg(test)]
mod tests {
    use super::*;

    const MB: u64 = 1 << 20;

    fn needs() -> Needs {
        Needs {
            redo: Lsn(50 * MB),
            insert: Lsn(100 * MB),
            slots: None,
            max_slot_keep: Some(60 * MB),
            keep: 0,
        }
    }

    #[test]
    fn the_oldest_of_redo_keep_size_and_slots_counts() {
        for (case, expected) in [
            (needs(), 50),
            (
                Needs {
                    keep: 30 * MB,
                    ..needs()
                },
                50,
            ),
            (
                Needs {
                    keep: 70 * MB,
                    ..needs()
                },
                30,
            ),
            (
                Needs {
                    keep: 200 * MB,
                    ..needs()
                },
                0,
            ),
            (
                Needs {
                    slots: Some(Lsn(45 * MB)),
                    ..needs()
                },
                45,
            ),
            (
                Needs {
                    slots: Some(Lsn(90 * MB)),
                    ..needs()
                },
                50,
            ),
            // A slot too far behind holds back only what it may.
            (
                Needs {
                    slots: Some(Lsn(10 * MB)),
                    ..needs()
                },
                40,
            ),
            (
                Needs {
                    slots: Some(Lsn(10 * MB)),
                    max_slot_keep: None,
                    ..needs()
                },
                10,
            ),
        ] {
            assert_eq!(oldest_needed(&case), Lsn(expected * MB), "{case:?}");
        }
        assert!(slot_is_lost(Lsn(10 * MB), Lsn(40 * MB)));
        assert!(!slot_is_lost(Lsn(40 * MB), Lsn(40 * MB)));
    }

    fn run(oldest: u64, ahead: u64, present: &[(u32, u64)]) -> Vec<Action> {
        let size = SegmentSize::DEFAULT;
        let rule = Plan {
            oldest: Lsn(oldest * 16 * MB),
            insert: Lsn(6 * 16 * MB + 5),
            timeline: TimelineNumber(2),
            begin: Lsn(4 * 16 * MB + 100),
            size,
            ahead,
        };
        plan(
            &rule,
            present
                .iter()
                .map(|&(timeline, segment)| (TimelineNumber(timeline), SegmentNumber(segment))),
        )
    }

    fn remove(timeline: u32, segment: u64) -> Action {
        Action::Remove {
            timeline: TimelineNumber(timeline),
            segment: SegmentNumber(segment),
        }
    }

    fn recycle(timeline: u32, segment: u64, into: u64) -> Action {
        Action::Recycle {
            timeline: TimelineNumber(timeline),
            segment: SegmentNumber(segment),
            into_timeline: TimelineNumber(2),
            into: SegmentNumber(into),
        }
    }

    #[test]
    fn old_segments_become_the_missing_future_ones() {
        let present = [(1, 1), (1, 2), (1, 3), (1, 4), (2, 4), (2, 5), (2, 6), (2, 7)];
        assert_eq!(run(3, 2, &present), [recycle(1, 1, 8), remove(1, 2)]);
        assert_eq!(run(3, 0, &present), [remove(1, 1), remove(1, 2)]);
        assert_eq!(run(1, 2, &present), []);
    }

    #[test]
    fn an_ancestors_segments_behind_the_fork_go_and_future_ones_stay() {
        let present = [(1, 4), (1, 5), (1, 6), (2, 4), (2, 7), (3, 1)];
        // Segment 4 of timeline 1 holds bytes before the fork; timeline 3 is not ours to judge.
        assert_eq!(run(4, 0, &present), [remove(1, 5), remove(1, 6)]);
    }
}
