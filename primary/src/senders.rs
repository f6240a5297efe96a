//! [`Senders`]: the walsenders of now, and the rule that a node has one stream.
//!
//! - Two processes with one identity are a data directory and its copy. Only one of them is heard: the second is refused for as long as the
//!   first one's stream lasts, and never ends it. Otherwise the two would end each other's streams for ever.
//! - A stream whose other side has gone ends by itself, within `wal_sender_timeout`: then the next one gets in.
//! - A process that connects anew has noticed the end of its earlier stream before we did: that one is ended for it at once. It is known by
//!   its instance, a random number that it makes at its start.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use towline_base::{Clock, Incarnation, Lsn, Moment, NodeId};

use crate::handshake::Refusal;
use crate::walsender::SenderState;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Senders(Mutex<BTreeMap<i32, Arc<SenderState>>>);

impl Senders {
    /// A base backup, or a stream. The error is the stream that the node has already.
    pub(crate) fn add(&self, state: &Arc<SenderState>) -> Result<(), Arc<SenderState>> {
        let mut senders = self.0.lock();
        if state.is_stream()
            && let Some(earlier) = in_the_way(&senders, &state.node, state.instance)
        {
            return Err(earlier);
        }
        senders.insert(state.pid, Arc::clone(state));
        Ok(())
    }

    pub(crate) fn remove(&self, state: &SenderState) {
        self.0.lock().remove(&state.pid);
    }

    /// The stream that keeps a new one of this node out. What does not is told to end: the base backups of the node, and the streams of
    /// the same instance.
    pub(crate) fn in_the_way(
        &self,
        node: &NodeId,
        instance: Option<Incarnation>,
    ) -> Option<Arc<SenderState>> {
        in_the_way(&self.0.lock(), node, instance)
    }

    /// Ends the base backups of a node that asks for another one.
    pub(crate) fn end_backups_of(&self, node: &NodeId) {
        let senders = self.0.lock();
        for backup in senders.values().filter(|sender| !sender.is_stream()) {
            if backup.node == *node {
                backup.cancel.cancel();
            }
        }
    }

    /// Which of them this is.
    pub(crate) fn of_pid(&self, pid: i32) -> Option<Arc<SenderState>> {
        self.0.lock().get(&pid).cloned()
    }

    /// The oldest snapshot that any standby has told of.
    pub(crate) fn with_oldest_snapshot(&self, told: impl FnOnce(Option<Lsn>)) {
        let senders = self.0.lock();
        told(
            senders
                .values()
                .filter_map(|sender| sender.oldest_snapshot())
                .min(),
        );
    }

    /// What is made of each of them.
    pub(crate) fn rows<T>(&self, row: impl Fn(&SenderState) -> T) -> Vec<T> {
        self.0.lock().values().map(|sender| row(sender)).collect()
    }
}

fn in_the_way(
    senders: &BTreeMap<i32, Arc<SenderState>>,
    node: &NodeId,
    instance: Option<Incarnation>,
) -> Option<Arc<SenderState>> {
    let mut found = None;
    let same = |sender: &&Arc<SenderState>| sender.node.incarnation == node.incarnation;
    for sender in senders.values().filter(same) {
        if !sender.is_stream() || (instance.is_some() && sender.instance == instance) {
            sender.cancel.cancel();
        } else if !sender.cancel.is_cancelled() {
            found = Some(Arc::clone(sender));
        }
    }
    found
}

impl SenderState {
    /// Whether the standby has said anything after this moment.
    pub(crate) fn has_spoken_since(&self, moment: Moment, clock: &dyn Clock) -> bool {
        self.silence(clock) < clock.now().since(moment)
    }

    /// What another process with the identity of this one's node is told.
    pub(crate) fn refusal(&self) -> Refusal {
        Refusal::Streams {
            node: self.node.clone(),
            address: self.address.clone(),
            since: self.started,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tokio_util::sync::CancellationToken;
    use towline_base::ManualClock;

    use super::*;
    use crate::sync_rep::MemberId;
    use crate::walsender::Kind;

    fn state(pid: i32, name: &str, incarnation: u8, instance: Option<u8>, kind: Kind) -> Arc<SenderState> {
        let node = NodeId {
            name: name.to_owned(),
            incarnation: Incarnation([incarnation; 16]),
        };
        let clock = ManualClock::new(0);
        let address = "10.0.0.1:5000".to_owned();
        let cancel = CancellationToken::new();
        let instance = instance.map(|byte| Incarnation([byte; 16]));
        let mut state = SenderState::new(pid, node, address, &clock, kind, Lsn(1), cancel);
        state.instance = instance;
        Arc::new(state)
    }

    fn stream(pid: i32, incarnation: u8, instance: Option<u8>) -> Arc<SenderState> {
        state(
            pid,
            "s1",
            incarnation,
            instance,
            Kind::Stream(MemberId::of_tests(1)),
        )
    }

    /// Two live copies of one directory ended each other's streams for ever.
    #[test]
    fn a_second_stream_of_a_node_is_refused_and_the_first_goes_on() {
        let senders = Senders::default();
        let first = stream(1, 7, Some(1));
        senders.add(&first).unwrap();
        for second in [
            stream(2, 7, Some(2)),
            stream(2, 7, None),
            // Under another name it is the same directory.
            state(2, "s2", 7, Some(2), Kind::Stream(MemberId::of_tests(1))),
        ] {
            let refused = senders.add(&second).unwrap_err();
            assert_eq!(refused.pid, 1);
            let said = refused.refusal().to_string();
            assert!(said.contains("s1") && said.contains("10.0.0.1:5000"), "{said}");
        }
        assert!(!first.cancel.is_cancelled());
        // Another node is another node.
        senders.add(&stream(3, 8, Some(2))).unwrap();
        // When the first has been told to end, the second gets in.
        first.cancel.cancel();
        senders.add(&stream(2, 7, Some(2))).unwrap();
    }

    #[test]
    fn a_process_that_connects_anew_ends_its_own_earlier_stream_and_backup() {
        let senders = Senders::default();
        let (first, backup) = (stream(1, 7, Some(1)), state(2, "s1", 7, None, Kind::Backup));
        senders.add(&first).unwrap();
        senders.add(&backup).unwrap();
        senders.add(&stream(3, 7, Some(1))).unwrap();
        assert!(first.cancel.is_cancelled() && backup.cancel.is_cancelled());
    }

    /// A base backup under the identity of a node that streams ended its stream.
    #[test]
    fn a_base_backup_ends_backups_only() {
        let senders = Senders::default();
        let (first, backup) = (stream(1, 7, Some(1)), state(2, "s1", 7, None, Kind::Backup));
        senders.add(&first).unwrap();
        senders.add(&backup).unwrap();
        senders.end_backups_of(&first.node);
        assert!(backup.cancel.is_cancelled() && !first.cancel.is_cancelled());
    }
}
