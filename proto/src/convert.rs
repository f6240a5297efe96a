//! Conversions between messages and base's types.

use std::fmt;

use bytes::Bytes;
use towline_base::{Incarnation, Lsn, NodeId, TimelineId, TimelineNumber};

use crate::replication::{self as pb, PrimaryMessage, WalData, primary_message};

/// A message lacks a field, or a field is out of its range.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BadMessage(pub &'static str);

impl fmt::Display for BadMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed message: {}", self.0)
    }
}

impl std::error::Error for BadMessage {}

impl From<BadMessage> for tonic::Status {
    fn from(error: BadMessage) -> tonic::Status {
        tonic::Status::invalid_argument(error.to_string())
    }
}

/// A field that must be there, converted.
pub fn required<M, T>(field: Option<M>, name: &'static str) -> Result<T, BadMessage>
where
    T: TryFrom<M, Error = BadMessage>,
{
    T::try_from(field.ok_or(BadMessage(name))?)
}

fn incarnation(bytes: &Bytes) -> Result<Incarnation, BadMessage> {
    Incarnation::from_slice(bytes).ok_or(BadMessage("incarnation"))
}

impl From<TimelineId> for pb::Timeline {
    fn from(timeline: TimelineId) -> pb::Timeline {
        pb::Timeline {
            number: timeline.number.0,
            incarnation: Bytes::copy_from_slice(&timeline.incarnation.0),
        }
    }
}

impl TryFrom<pb::Timeline> for TimelineId {
    type Error = BadMessage;

    fn try_from(timeline: pb::Timeline) -> Result<TimelineId, BadMessage> {
        Ok(TimelineId {
            number: TimelineNumber(timeline.number),
            incarnation: incarnation(&timeline.incarnation)?,
        })
    }
}

impl From<&NodeId> for pb::Node {
    fn from(node: &NodeId) -> pb::Node {
        pb::Node {
            name: node.name.clone(),
            incarnation: Bytes::copy_from_slice(&node.incarnation.0),
        }
    }
}

impl TryFrom<pb::Node> for NodeId {
    type Error = BadMessage;

    fn try_from(node: pb::Node) -> Result<NodeId, BadMessage> {
        let length = node.name.len();
        if length == 0 || length > towline_base::limits::MAX_NAME_BYTES {
            return Err(BadMessage("node name"));
        }
        Ok(NodeId {
            incarnation: incarnation(&node.incarnation)?,
            name: node.name,
        })
    }
}

/// Whether the bytes are those that were sent.
pub fn is_intact(wal: &WalData) -> bool {
    crc32c::crc32c(&wal.data) == wal.crc
}

/// A message with bytes of the log.
pub fn wal_message(
    timeline: pb::Timeline,
    start: Lsn,
    data: Bytes,
    progress: pb::Progress,
) -> PrimaryMessage {
    let wal = WalData {
        timeline: Some(timeline),
        start: start.0,
        crc: crc32c::crc32c(&data),
        data,
        progress: Some(progress),
    };
    PrimaryMessage {
        message: Some(primary_message::Message::Wal(wal)),
    }
}

/// Whether a node that has accepted the timeline `promise` may follow the timeline `offered`: the same one, or one of a
/// higher number. Two of one number are two histories (A11).
pub fn may_follow(promise: TimelineId, offered: TimelineId) -> bool {
    promise == offered || promise.number < offered.number
}

/// Metadata of a refusal: the standby's data cannot be continued from this primary's log, and nothing is lost by
/// cloning it anew. A status code alone is not enough to throw a database away: transports use all of them.
const RECLONE_KEY: &str = "towline-reclone";

/// Marks a refusal as one that only a new clone mends.
pub fn reclone(mut status: tonic::Status) -> tonic::Status {
    status
        .metadata_mut()
        .insert(RECLONE_KEY, tonic::metadata::MetadataValue::from_static("1"));
    status
}

/// Whether a refusal was [marked](reclone).
pub fn asks_to_reclone(status: &tonic::Status) -> bool {
    status.metadata().contains_key(RECLONE_KEY)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use prost::Message;

    #[test]
    fn identities_round_trip() {
        let timeline = TimelineId {
            number: TimelineNumber(7),
            incarnation: Incarnation([3; 16]),
        };
        let node = NodeId {
            name: "s1".into(),
            incarnation: Incarnation([9; 16]),
        };
        assert_eq!(
            TimelineId::try_from(pb::Timeline::from(timeline)).unwrap(),
            timeline
        );
        assert_eq!(NodeId::try_from(pb::Node::from(&node)).unwrap(), node);
    }

    #[test]
    fn malformed_identities_are_refused() {
        let timeline = pb::Timeline {
            number: 1,
            incarnation: Bytes::from_static(b"short"),
        };
        assert!(TimelineId::try_from(timeline).is_err());
        for name in ["", &"x".repeat(64)] {
            let node = pb::Node {
                name: name.to_owned(),
                incarnation: Bytes::from(vec![0; 16]),
            };
            assert!(NodeId::try_from(node).is_err());
        }
        assert_eq!(
            required::<pb::Node, NodeId>(None, "node"),
            Err(BadMessage("node"))
        );
    }

    #[test]
    fn only_a_marked_refusal_asks_for_a_new_clone() {
        let lost = tonic::Status::out_of_range("the WAL is gone");
        assert!(!asks_to_reclone(&lost));
        assert!(!asks_to_reclone(&tonic::Status::failed_precondition("a standby")));
        assert!(asks_to_reclone(&reclone(lost)));
    }

    #[test]
    fn changed_bytes_of_the_log_are_noticed() {
        let message = wal_message(
            TimelineId::default().into(),
            Lsn(8),
            Bytes::from_static(b"a record"),
            pb::Progress::default(),
        );
        let Some(primary_message::Message::Wal(mut wal)) = message.message else {
            panic!("not WAL")
        };
        assert!(is_intact(&wal));
        wal.data = Bytes::from_static(b"a recorf");
        assert!(!is_intact(&wal));
        wal.data = Bytes::from_static(b"a recor");
        assert!(!is_intact(&wal));
    }

    #[test]
    fn wal_bytes_are_not_copied_when_decoded() {
        let timeline = TimelineId::default();
        let data = Bytes::from(vec![5; 100_000]);
        let message = wal_message(timeline.into(), Lsn(8), data, pb::Progress::default());
        let encoded = Bytes::from(message.encode_to_vec());
        let decoded = PrimaryMessage::decode(encoded.clone()).unwrap();
        let Some(primary_message::Message::Wal(wal)) = decoded.message else {
            panic!("not WAL")
        };
        let range = encoded.as_ptr_range();
        assert!(
            range.contains(&wal.data.as_ptr()),
            "a slice of the buffer that was decoded"
        );
    }
}
