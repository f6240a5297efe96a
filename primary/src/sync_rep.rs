//! [`SyncRep`]: who is connected, what they have acknowledged, and what of it is published as the quorum.
//!
//! - `quorum` and `quorum_written` never move backwards, whatever members come, go or are reconfigured: what k nodes once
//!   had stays durable on them.
//! - **A1**: on a new timeline they stay at the value known at the fork until the timeline's first record, its
//!   end-of-recovery record, is itself in the quorum. Acks count only for this timeline: an inherited tail, however many
//!   have it, is not the quorum's until then.
//! - I3: the positions come from those who made them true (the WAL writer's hook, the standbys' acks), and are published
//!   here, then release wakes whoever waits.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use towline_access::release::CommitQueue;
use towline_base::settings::sync_names::SyncNames;
use towline_base::{Lsn, LsnPublisher, LsnWatch, NodeId, TimelineId};

use crate::sync_set::{self, Member, Reached, SyncState};

/// The right to publish the quorum's positions.
#[derive(Debug)]
pub struct QuorumPublishers {
    /// Durable on the commit quorum.
    pub quorum: LsnPublisher,
    /// Written on the commit quorum.
    pub quorum_written: LsnPublisher,
}

impl QuorumPublishers {
    /// Both at the value known at the fork.
    pub fn starting_at(fork: Lsn) -> (QuorumPublishers, LsnWatch, LsnWatch) {
        let (quorum, quorum_watch) = LsnWatch::new(fork);
        let (quorum_written, written_watch) = LsnWatch::new(fork);
        (
            QuorumPublishers {
                quorum,
                quorum_written,
            },
            quorum_watch,
            written_watch,
        )
    }
}

/// Names one connection of a standby.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct MemberId(u64);

#[cfg(test)]
impl MemberId {
    pub(crate) fn of_tests(number: u64) -> MemberId {
        MemberId(number)
    }
}

struct State {
    names: SyncNames,
    /// Connections, and what each has told, in the same order.
    ids: Vec<MemberId>,
    members: Vec<Member>,
    next_id: u64,
    own: Reached,
    publishers: QuorumPublishers,
    applied: LsnPublisher,
    /// What was last said to be missing, so that it is logged once.
    said_missing: Option<String>,
}

/// See the module.
pub struct SyncRep {
    timeline: TimelineId,
    /// End of this timeline's end-of-recovery record.
    first_record_end: Lsn,
    release: Arc<CommitQueue>,
    state: Mutex<State>,
    quorum: LsnWatch,
    quorum_written: LsnWatch,
    applied: LsnWatch,
    synchronous: AtomicBool,
    version: AtomicU64,
}

/// A snapshot of one member for pg_stat_replication.
#[derive(Clone, Debug)]
pub struct MemberRow {
    /// Its connection.
    pub id: MemberId,
    /// The member.
    pub member: Member,
    /// Place in the list, 0 for none.
    pub priority: usize,
    /// Its state.
    pub state: SyncState,
}

impl SyncRep {
    /// For a timeline whose end-of-recovery record ends at `first_record_end`. `names` is
    /// `synchronous_standby_names`; `flush` what is durable here.
    pub fn new(
        timeline: TimelineId,
        first_record_end: Lsn,
        publishers: QuorumPublishers,
        release: Arc<CommitQueue>,
        names: SyncNames,
        flush: Lsn,
    ) -> Arc<SyncRep> {
        let (quorum, quorum_written) = (publishers.quorum.watch(), publishers.quorum_written.watch());
        let (applied, applied_watch) = LsnWatch::new(Lsn::INVALID);
        let sync_rep = Arc::new(SyncRep {
            timeline,
            first_record_end,
            release,
            quorum,
            quorum_written,
            applied: applied_watch,
            synchronous: AtomicBool::new(names.is_synchronous()),
            version: AtomicU64::new(u64::from(timeline.number.0) << 32),
            state: Mutex::new(State {
                names: SyncNames::none(),
                ids: Vec::new(),
                members: Vec::new(),
                next_id: 0,
                own: Reached {
                    write: flush,
                    flush,
                    apply: flush,
                },
                publishers,
                applied,
                said_missing: None,
            }),
        });
        sync_rep.set_names(names);
        sync_rep
    }

    /// The timeline whose acks count.
    pub fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// What the commit quorum has made durable.
    pub fn quorum(&self) -> &LsnWatch {
        &self.quorum
    }

    /// What the commit quorum has written.
    pub fn quorum_written(&self) -> &LsnWatch {
        &self.quorum_written
    }

    /// What snapshots on the required standbys see: where replies of `remote_apply` wait.
    pub fn applied(&self) -> &LsnWatch {
        &self.applied
    }

    /// Whether commits need a standby.
    pub fn is_synchronous(&self) -> bool {
        self.synchronous.load(Ordering::Relaxed)
    }

    /// Version of the sync set: grows with every change of the setting, and from one timeline to the next.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    /// `synchronous_standby_names` has a new value.
    pub fn set_names(&self, names: SyncNames) {
        let mut state = self.state.lock();
        if state.names != names {
            self.version.fetch_add(1, Ordering::Relaxed);
        }
        self.synchronous.store(names.is_synchronous(), Ordering::Relaxed);
        self.release
            .set_applied(names.is_synchronous().then(|| self.applied.clone()));
        state.names = names;
        self.say_missing(&mut state);
        self.publish(&mut state);
    }

    /// This node has made its log durable up to here. Called by the WAL writer after each flush.
    pub fn on_flush(&self, flush: Lsn) {
        let mut state = self.state.lock();
        if flush > state.own.flush {
            state.own = Reached {
                write: flush,
                flush,
                apply: flush,
            };
        }
        self.publish(&mut state);
    }

    /// A standby has connected. An older connection of the same node stays a member until it leaves.
    pub fn join(&self, node: NodeId) -> MemberId {
        let mut state = self.state.lock();
        state.next_id += 1;
        let id = MemberId(state.next_id);
        state.ids.push(id);
        state.members.push(Member {
            node,
            streaming: false,
            reached: Reached::default(),
        });
        id
    }

    /// A standby has gone. What it acknowledged stays counted.
    pub fn leave(&self, id: MemberId) {
        let mut state = self.state.lock();
        if let Some(at) = state.ids.iter().position(|other| *other == id) {
            state.ids.remove(at);
            state.members.remove(at);
        }
        self.say_missing(&mut state);
        self.publish(&mut state);
    }

    /// A standby has caught up.
    pub fn set_streaming(&self, id: MemberId) {
        let mut state = self.state.lock();
        if let Some(member) = state.member_mut(id) {
            member.streaming = true;
        }
        self.say_missing(&mut state);
        self.publish(&mut state);
    }

    /// A standby acknowledges positions of a timeline. Those of another timeline do not count, and none moves backwards.
    pub fn on_ack(&self, id: MemberId, timeline: TimelineId, reached: Reached) {
        if timeline != self.timeline {
            return;
        }
        let mut state = self.state.lock();
        if let Some(member) = state.member_mut(id) {
            let known = &mut member.reached;
            known.write = known.write.max(reached.write);
            known.flush = known.flush.max(reached.flush);
            known.apply = known.apply.max(reached.apply);
        }
        self.publish(&mut state);
    }

    /// Publishes what is reached now, then lets commits go.
    fn publish(&self, state: &mut State) {
        if let Some(reached) = sync_set::quorum(&state.names, state.own, &state.members) {
            // A1: not before the timeline's first record is there too.
            if reached.write >= self.first_record_end {
                advance(&mut state.publishers.quorum_written, reached.write);
            }
            if reached.flush >= self.first_record_end {
                advance(&mut state.publishers.quorum, reached.flush);
            }
            // When no standby is required any more, those who wait for one go on.
            let applied = reached.apply.min(state.own.flush);
            advance(&mut state.applied, applied);
        }
        let (quorum, written) = (
            state.publishers.quorum.get(),
            state.publishers.quorum_written.get(),
        );
        self.release.advance(state.own.flush, written, quorum);
    }

    /// Members or names have changed: says what is missing now, once.
    fn say_missing(&self, state: &mut State) {
        let missing = sync_set::missing(&state.names, &state.members);
        if missing != state.said_missing {
            match &missing {
                Some(text) => tracing::warn!("commits are {text}"),
                None => tracing::info!("the commit quorum is complete"),
            }
            state.said_missing = missing;
        }
    }

    /// What is missing for a quorum, as "waiting for 1 of (s1, s2)".
    pub fn missing(&self) -> Option<String> {
        self.state.lock().said_missing.clone()
    }

    /// What a member has acknowledged.
    pub fn reached(&self, id: MemberId) -> Option<Reached> {
        self.state.lock().member_mut(id).map(|member| member.reached)
    }

    /// Whether every member that is connected has made the log durable up to here.
    pub fn all_have(&self, end: Lsn) -> bool {
        let state = self.state.lock();
        state.members.iter().all(|member| member.reached.flush >= end)
    }

    /// Every member, for pg_stat_replication.
    pub fn rows(&self) -> Vec<MemberRow> {
        let state = self.state.lock();
        let states = sync_set::states(&state.names, &state.members);
        let members = state.ids.iter().zip(&state.members).zip(states);
        let row = |((id, member), (priority, sync)): ((&MemberId, &Member), (usize, SyncState))| MemberRow {
            id: *id,
            member: member.clone(),
            priority,
            state: sync,
        };
        members.map(row).collect()
    }
}

impl State {
    fn member_mut(&mut self, id: MemberId) -> Option<&mut Member> {
        let at = self.ids.iter().position(|other| *other == id)?;
        self.members.get_mut(at)
    }
}

/// Publishes unless it would move backwards: a quorum that shrank does not take back what was durable.
fn advance(publisher: &mut LsnPublisher, lsn: Lsn) {
    if lsn > publisher.get() {
        publisher.advance(lsn);
    }
}

impl fmt::Debug for SyncRep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SyncRep")
            .field("quorum", &self.quorum.get())
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use towline_access::locks::LockManager;
    use towline_access::txn::slots::TxnSlots;
    use towline_base::{Incarnation, TimelineNumber, WaitOutcome};

    fn timeline(number: u32) -> TimelineId {
        TimelineId {
            number: TimelineNumber(number),
            incarnation: Incarnation([number as u8; 16]),
        }
    }

    fn node(name: &str) -> NodeId {
        NodeId {
            name: name.to_owned(),
            incarnation: Incarnation([7; 16]),
        }
    }

    /// The fork is at 100, the end-of-recovery record ends at 120.
    fn start(names: &str) -> Arc<SyncRep> {
        let slots = TxnSlots::new(16);
        let queue = CommitQueue::new(slots.clone(), LockManager::new(slots), Lsn(100));
        let (publishers, ..) = QuorumPublishers::starting_at(Lsn(100));
        SyncRep::new(
            timeline(2),
            Lsn(120),
            publishers,
            queue,
            SyncNames::parse(names).unwrap(),
            Lsn(110),
        )
    }

    fn ack(sync_rep: &SyncRep, id: MemberId, number: u32, flush: u64) {
        let reached = Reached {
            write: Lsn(flush),
            flush: Lsn(flush),
            apply: Lsn(flush),
        };
        sync_rep.on_ack(id, timeline(number), reached);
    }

    #[test]
    fn an_inherited_tail_is_not_the_quorums_before_the_first_record_of_the_timeline_is() {
        let sync_rep = start("ANY 1 (*)");
        let s1 = sync_rep.join(node("s1"));
        sync_rep.set_streaming(s1);
        sync_rep.on_flush(Lsn(120));
        // The whole inherited tail, and even on the new timeline.
        ack(&sync_rep, s1, 2, 119);
        assert_eq!(sync_rep.quorum().get(), Lsn(100));
        assert_eq!(sync_rep.quorum_written().get(), Lsn(100));
        ack(&sync_rep, s1, 2, 120);
        assert_eq!(sync_rep.quorum().get(), Lsn(120));
    }

    /// The position was left alone from then on, and remote_apply commits in flight waited for ever.
    #[test]
    fn who_waits_for_a_standby_to_apply_goes_on_when_none_is_required_any_more() {
        let sync_rep = start("ANY 1 (*)");
        sync_rep.on_flush(Lsn(130));
        let zero = Some(std::time::Duration::ZERO);
        let waiting = sync_rep.applied().wait_for(Lsn(130));
        assert_eq!(
            sync_rep.applied().wait_for(Lsn(130)).block(zero),
            WaitOutcome::TimedOut
        );
        sync_rep.set_names(SyncNames::none());
        assert_eq!(waiting.block(zero), WaitOutcome::Reached(Lsn(130)));
    }

    #[test]
    fn acks_of_another_timeline_do_not_count() {
        let sync_rep = start("ANY 1 (*)");
        let s1 = sync_rep.join(node("s1"));
        sync_rep.set_streaming(s1);
        sync_rep.on_flush(Lsn(500));
        ack(&sync_rep, s1, 1, 400);
        assert_eq!(sync_rep.quorum().get(), Lsn(100));
        let same_number = TimelineId {
            incarnation: Incarnation([9; 16]),
            ..timeline(2)
        };
        let reached = Reached {
            write: Lsn(400),
            flush: Lsn(400),
            apply: Lsn(400),
        };
        sync_rep.on_ack(s1, same_number, reached);
        assert_eq!(sync_rep.quorum().get(), Lsn(100));
    }

    #[test]
    fn alone_the_quorum_is_the_own_flush() {
        let sync_rep = start("");
        assert_eq!(sync_rep.quorum().get(), Lsn(100));
        sync_rep.on_flush(Lsn(130));
        assert_eq!(sync_rep.quorum().get(), Lsn(130));
        assert!(!sync_rep.is_synchronous());
    }

    #[test]
    fn the_quorum_never_moves_backwards() {
        let sync_rep = start("ANY 1 (*)");
        let (s1, s2) = (sync_rep.join(node("s1")), sync_rep.join(node("s2")));
        sync_rep.set_streaming(s1);
        sync_rep.set_streaming(s2);
        sync_rep.on_flush(Lsn(500));
        ack(&sync_rep, s1, 2, 300);
        ack(&sync_rep, s2, 2, 200);
        assert_eq!(sync_rep.quorum().get(), Lsn(300));
        sync_rep.leave(s1);
        assert_eq!(sync_rep.quorum().get(), Lsn(300));
        ack(&sync_rep, s2, 2, 250);
        assert_eq!(sync_rep.quorum().get(), Lsn(300));
        sync_rep.leave(s2);
        assert_eq!(sync_rep.missing().unwrap(), "waiting for 1 of (*)");
        sync_rep.on_flush(Lsn(600));
        assert_eq!(sync_rep.quorum().get(), Lsn(300));
        // The operator gives up on standbys.
        let version = sync_rep.version();
        sync_rep.set_names(SyncNames::none());
        assert_eq!(sync_rep.quorum().get(), Lsn(600));
        assert_eq!(sync_rep.version(), version + 1);
    }

    #[test]
    fn an_ack_never_moves_a_member_backwards() {
        let sync_rep = start("ANY 1 (*)");
        let s1 = sync_rep.join(node("s1"));
        sync_rep.on_flush(Lsn(500));
        ack(&sync_rep, s1, 2, 300);
        ack(&sync_rep, s1, 2, 200);
        assert_eq!(sync_rep.rows()[0].member.reached.flush, Lsn(300));
        assert_eq!(sync_rep.quorum().get(), Lsn(100), "it has not caught up yet");
        sync_rep.set_streaming(s1);
        assert_eq!(sync_rep.quorum().get(), Lsn(300));
    }
}
