//! Where a stream begins. Pure: two histories and a few positions in, a place or a refusal out.
//!
//! - A standby may be behind on a timeline of ours (it goes on from there), or beyond a fork of ours with bytes that no
//!   quorum had (it cuts them, A14).
//! - It never cuts what it keeps: what its data files may hold, or what a quorum is known to have had. When our history
//!   does not have that, commits are missing here, and the standby's copy of them must not be thrown away.
//! - It follows no timeline below the highest it has accepted, and none other of the same number (A11): a primary that was
//!   started from an old copy of its data is told so.

use std::fmt;

use towline_base::{Lsn, NodeId, TimelineId};
use towline_proto::may_follow;
use towline_wal::TimelineHistory;
use towline_wal::records::timestamp;

/// What a standby says of its log.
#[derive(Clone, Copy, Debug)]
pub struct TheirLog<'a> {
    /// The timelines it went through.
    pub history: &'a TimelineHistory,
    /// End of what is durable there.
    pub position: Lsn,
    /// What it keeps; see the module.
    pub kept: Lsn,
    /// The highest timeline it has accepted.
    pub promise: TimelineId,
}

/// Where the stream begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start {
    /// The first byte sent. A standby whose log goes beyond cuts it here.
    pub lsn: Lsn,
    /// The timeline of that byte.
    pub timeline: TimelineId,
}

/// Why there is no stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The histories share nothing.
    NothingShared,
    /// It has accepted a timeline that is not below ours.
    Promised {
        /// That timeline.
        promise: TimelineId,
        /// Ours.
        ours: TimelineId,
    },
    /// It keeps, or knows a quorum to have had, more than the part that both share.
    Missing {
        /// Where the histories part.
        shared: Lsn,
        /// The end of that.
        kept: Lsn,
    },
    /// Of what both share it has more than we do.
    Ahead {
        /// Its position.
        position: Lsn,
        /// The end of our log.
        end: Lsn,
    },
    /// Another process with the same identity has a stream.
    Streams {
        /// The node of that stream.
        node: NodeId,
        /// Where it comes from.
        address: String,
        /// When it began, in microseconds since 2000.
        since: i64,
    },
}

/// What an operator can do about a primary that lacks what its standby has.
const REMEDY: &str = "start the primary on its newest data, or, to give up what only the standby has, remove the standby's data directory";

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::NothingShared => f.write_str(
                "the timelines have nothing in common: the standby was made from other data; start it with the address of its own \
                 primary, or remove its data directory to clone this one",
            ),
            Refusal::Promised { promise, ours } => {
                write!(
                    f,
                    "the standby has followed timeline {promise} ({}), and the primary is on timeline {ours} ({}): the primary was \
                     started from an old copy of its data directory; {REMEDY}",
                    promise.incarnation, ours.incarnation
                )
            }
            Refusal::Missing { shared, kept } => {
                write!(
                    f,
                    "the standby knows of data up to {kept}, and the primary's history leaves it at {shared}: the primary lacks what \
                     was committed in between; {REMEDY}"
                )
            }
            Refusal::Ahead { position, end } => {
                write!(
                    f,
                    "the standby is at {position}, beyond the end of this timeline at {end}: the primary lacks what it has sent; \
                     {REMEDY}"
                )
            }
            Refusal::Streams { node, address, since } => {
                write!(
                    f,
                    "the standby {node} streams already, from {address} since {}: two processes run on copies of one data directory; stop \
                     one of them, or remove the directory of the copy so that it clones itself under an identity of its own (a stream \
                     whose other side has gone is given up after wal_sender_timeout)",
                    timestamp(*since)
                )
            }
        }
    }
}

/// Where a stream begins to a standby with this log, our own log ending at `end`.
pub fn start(ours: &TimelineHistory, end: Lsn, theirs: TheirLog<'_>) -> Result<Start, Refusal> {
    if !may_follow(theirs.promise, ours.current()) {
        return Err(Refusal::Promised {
            promise: theirs.promise,
            ours: ours.current(),
        });
    }
    let (_, shared) = ours.fork_from(theirs.history).ok_or(Refusal::NothingShared)?;
    let lsn = theirs.position.min(shared);
    if lsn > end {
        return Err(Refusal::Ahead { position: lsn, end });
    }
    if theirs.kept > shared {
        return Err(Refusal::Missing {
            shared,
            kept: theirs.kept,
        });
    }
    Ok(Start {
        lsn,
        timeline: ours.timeline_at(lsn),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use towline_base::{Incarnation, TimelineNumber};

    fn timeline(number: u32, incarnation: u8) -> TimelineId {
        TimelineId {
            number: TimelineNumber(number),
            incarnation: Incarnation([incarnation; 16]),
        }
    }

    /// TL1 up to 100, TL2 up to 200, then TL3.
    fn ours() -> TimelineHistory {
        TimelineHistory::first(timeline(1, 1))
            .forked(Lsn(100), timeline(2, 2), "")
            .forked(Lsn(200), timeline(3, 3), "")
    }

    fn decide(history: &TimelineHistory, position: u64, kept: u64) -> Result<(u64, u32), Refusal> {
        decide_promised(history, position, kept, history.current())
    }

    fn decide_promised(
        history: &TimelineHistory,
        position: u64,
        kept: u64,
        promise: TimelineId,
    ) -> Result<(u64, u32), Refusal> {
        let theirs = TheirLog {
            history,
            position: Lsn(position),
            kept: Lsn(kept),
            promise,
        };
        start(&ours(), Lsn(300), theirs).map(|start| (start.lsn.0, start.timeline.number.0))
    }

    #[test]
    fn a_standby_behind_goes_on_where_it_is() {
        let one = TimelineHistory::first(timeline(1, 1));
        let two = one.forked(Lsn(100), timeline(2, 2), "");
        assert_eq!(decide(&one, 50, 50), Ok((50, 1)));
        assert_eq!(decide(&two, 150, 0), Ok((150, 2)));
        assert_eq!(decide(&ours(), 250, 250), Ok((250, 3)));
        // At a fork, the next byte is the new timeline's.
        assert_eq!(decide(&one, 100, 100), Ok((100, 2)));
    }

    #[test]
    fn a_standby_beyond_a_fork_cuts_what_no_quorum_had() {
        let one = TimelineHistory::first(timeline(1, 1));
        assert_eq!(decide(&one, 130, 90), Ok((100, 2)));
        let two = one.forked(Lsn(100), timeline(2, 2), "");
        assert_eq!(decide(&two, 230, 200), Ok((200, 3)));
        // It followed another timeline of the same number.
        let other = one.forked(Lsn(80), timeline(2, 9), "");
        assert_eq!(decide(&other, 230, 80), Ok((80, 1)));
    }

    #[test]
    fn what_a_quorum_had_is_not_cut() {
        let one = TimelineHistory::first(timeline(1, 1));
        let refusal = Refusal::Missing {
            shared: Lsn(100),
            kept: Lsn(110),
        };
        assert_eq!(decide(&one, 130, 110), Err(refusal));
    }

    #[test]
    fn a_timeline_below_the_promise_or_another_of_its_number_is_refused() {
        let two = TimelineHistory::first(timeline(1, 1)).forked(Lsn(100), timeline(2, 2), "");
        for promise in [timeline(4, 4), timeline(3, 9)] {
            let refusal = decide_promised(&two, 150, 0, promise).unwrap_err();
            assert_eq!(
                refusal,
                Refusal::Promised {
                    promise,
                    ours: timeline(3, 3)
                }
            );
            assert!(refusal.to_string().contains("old copy"), "{refusal}");
        }
        for promise in [timeline(1, 1), timeline(2, 9), timeline(3, 3)] {
            assert_eq!(decide_promised(&two, 150, 0, promise), Ok((150, 2)));
        }
    }

    #[test]
    fn foreign_histories_and_impossible_positions_are_refused() {
        assert_eq!(
            decide(&TimelineHistory::first(timeline(1, 7)), 50, 0),
            Err(Refusal::NothingShared)
        );
        let refusal = Refusal::Ahead {
            position: Lsn(301),
            end: Lsn(300),
        };
        assert_eq!(decide(&ours(), 301, 0), Err(refusal));
    }

    /// It was given a stream that began where there is nothing, and was counted among those that have caught up.
    #[test]
    fn a_stream_never_begins_beyond_the_log_whatever_the_standbys_history_says() {
        let beyond = ours().forked(Lsn(400), timeline(4, 4), "");
        let refusal = Refusal::Ahead {
            position: Lsn(350),
            end: Lsn(300),
        };
        assert_eq!(
            decide_promised(&beyond, 350, 0, timeline(3, 3)),
            Err(refusal.clone())
        );
        assert!(refusal.to_string().contains("start the primary"), "{refusal}");
        assert_eq!(decide_promised(&beyond, 300, 0, timeline(3, 3)), Ok((300, 3)));
    }
}
