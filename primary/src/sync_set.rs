//! The quorum rule: from `synchronous_standby_names` and the members' positions to the positions of the commit
//! quorum. Pure: values in, values out.
//!
//! - A member is a node id: two connections of one node are one vote, two nodes of one name are two.
//! - `FIRST n`: the n connected members with the best places in the list must all have it.
//! - `ANY n`: any n members of the list must have it.
//! - The primary must have it as well, whatever the list says.
//! - With fewer members than asked for there is no quorum: nothing moves.

use towline_base::settings::sync_names::{SyncMethod, SyncNames};
use towline_base::{Lsn, NodeId};

/// Positions of one node.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Reached {
    /// Written.
    pub write: Lsn,
    /// Durable.
    pub flush: Lsn,
    /// What its new snapshots see.
    pub apply: Lsn,
}

/// A connected standby.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    /// Who it is.
    pub node: NodeId,
    /// Whether it has caught up once; before that, `FIRST` passes it over rather than wait for it.
    pub streaming: bool,
    /// What it has told.
    pub reached: Reached,
}

/// `sync_state` of pg_stat_replication.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncState {
    /// Not in the list.
    Async,
    /// In the list, and a later choice.
    Potential,
    /// Among the chosen of `FIRST`.
    Sync,
    /// In the list of `ANY`.
    Quorum,
}

impl SyncState {
    /// PostgreSQL's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            SyncState::Async => "async",
            SyncState::Potential => "potential",
            SyncState::Sync => "sync",
            SyncState::Quorum => "quorum",
        }
    }
}

/// Members that count, best place first: each node once, by its furthest connection.
fn candidates<'a>(names: &SyncNames, members: &'a [Member]) -> Vec<(usize, &'a Member)> {
    let mut found: Vec<(usize, &Member)> = Vec::with_capacity(members.len());
    for member in members.iter().filter(|member| member.streaming) {
        let Some(place) = names.priority(&member.node.name) else {
            continue;
        };
        match found.iter_mut().find(|(_, other)| other.node == member.node) {
            Some(entry) if entry.1.reached.flush < member.reached.flush => entry.1 = member,
            Some(_) => {}
            None => found.push((place, member)),
        }
    }
    // Equal places (of a `*`) are told apart by the node id, so that the choice does not flap.
    found.sort_by(|(place, a), (other, b)| place.cmp(other).then_with(|| a.node.cmp(&b.node)));
    found
}

/// What the commit quorum has reached, the primary at `own`. `None` when too few members are connected.
pub fn quorum(names: &SyncNames, own: Reached, members: &[Member]) -> Option<Reached> {
    if !names.is_synchronous() {
        return Some(Reached {
            write: own.flush,
            flush: own.flush,
            apply: Lsn::MAX,
        });
    }
    let candidates = candidates(names, members);
    if candidates.len() < names.count {
        return None;
    }
    let nth = |position: fn(&Reached) -> Lsn| {
        let positions = candidates.iter().map(|(_, member)| position(&member.reached));
        match names.method {
            SyncMethod::First => positions.take(names.count).min(),
            SyncMethod::Any => {
                let mut sorted: Vec<Lsn> = positions.collect();
                sorted.sort_unstable_by(|a, b| b.cmp(a));
                sorted.get(names.count - 1).copied()
            }
        }
    };
    Some(Reached {
        write: own.flush.min(nth(|reached| reached.write)?),
        flush: own.flush.min(nth(|reached| reached.flush)?),
        apply: nth(|reached| reached.apply)?,
    })
}

/// What pg_stat_replication shows for each member: its priority (0 for none) and its state. As in PostgreSQL, the members of an `ANY`
/// list have the same priority, one that has not told a position yet counts as asynchronous, and one that still catches up is
/// potential.
pub fn states(names: &SyncNames, members: &[Member]) -> Vec<(usize, SyncState)> {
    let candidates = candidates(names, members);
    let chosen = match names.method {
        SyncMethod::First => &candidates[..candidates.len().min(names.count)],
        SyncMethod::Any => &candidates[..],
    };
    let state = |member: &Member| {
        let place = names.priority(&member.node.name);
        let Some(place) = place.filter(|_| names.is_synchronous() && member.reached.flush.is_valid()) else {
            return (0, SyncState::Async);
        };
        let is_chosen = member.streaming && chosen.iter().any(|(_, other)| other.node == member.node);
        match names.method {
            SyncMethod::First if is_chosen => (place, SyncState::Sync),
            SyncMethod::First => (place, SyncState::Potential),
            SyncMethod::Any if is_chosen => (1, SyncState::Quorum),
            SyncMethod::Any => (1, SyncState::Potential),
        }
    };
    members.iter().map(state).collect()
}

/// For the log and the status: what is missing for a quorum, as "waiting for 1 of (s1, s2)"; `None` when it
/// is complete.
pub fn missing(names: &SyncNames, members: &[Member]) -> Option<String> {
    let have = candidates(names, members).len();
    if have >= names.count {
        return None;
    }
    let list = names.names.iter().map(|name| match name {
        towline_base::settings::sync_names::SyncName::All => "*",
        towline_base::settings::sync_names::SyncName::Named(name) => name.as_str(),
    });
    let list: Vec<&str> = list.collect();
    Some(format!(
        "waiting for {} of ({})",
        names.count - have,
        list.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use towline_base::Incarnation;

    fn node(name: &str, incarnation: u8) -> NodeId {
        NodeId {
            name: name.to_owned(),
            incarnation: Incarnation([incarnation; 16]),
        }
    }

    fn member(name: &str, flush: u64) -> Member {
        let reached = Reached {
            write: Lsn(flush + 10),
            flush: Lsn(flush),
            apply: Lsn(flush - 10),
        };
        Member {
            node: node(name, 1),
            streaming: true,
            reached,
        }
    }

    fn own(flush: u64) -> Reached {
        Reached {
            write: Lsn(flush + 5),
            flush: Lsn(flush),
            apply: Lsn(flush),
        }
    }

    fn flushed(names: &str, own_flush: u64, members: &[Member]) -> Option<u64> {
        let names = SyncNames::parse(names).unwrap();
        quorum(&names, own(own_flush), members).map(|reached| reached.flush.0)
    }

    #[test]
    fn the_quorum_follows_the_setting() {
        let members = [member("s1", 100), member("s2", 200), member("s3", 300)];
        for (names, own_flush, wanted) in [
            ("", 50, Some(50)),
            ("s1", 1000, Some(100)),
            ("s2, s1", 1000, Some(200)),
            ("FIRST 2 (s2, s3, s1)", 1000, Some(200)),
            ("FIRST 3 (*)", 1000, Some(100)),
            ("ANY 1 (*)", 1000, Some(300)),
            ("ANY 2 (*)", 1000, Some(200)),
            ("ANY 2 (s1, s2)", 1000, Some(100)),
            ("ANY 1 (s1, s9)", 1000, Some(100)),
            ("ANY 2 (s1, s9)", 1000, None),
            ("FIRST 1 (s9)", 1000, None),
            // The primary's own flush bounds it: a standby may be ahead.
            ("ANY 1 (*)", 150, Some(150)),
        ] {
            assert_eq!(flushed(names, own_flush, &members), wanted, "{names}");
        }
    }

    #[test]
    fn each_position_has_its_own_quorum() {
        let names = SyncNames::parse("ANY 1 (*)").unwrap();
        let reached = quorum(&names, own(1000), &[member("s1", 100), member("s2", 200)]).unwrap();
        assert_eq!(
            reached,
            Reached {
                write: Lsn(210),
                flush: Lsn(200),
                apply: Lsn(190)
            }
        );
        let alone = quorum(&SyncNames::none(), own(7), &[]).unwrap();
        assert_eq!(
            alone,
            Reached {
                write: Lsn(7),
                flush: Lsn(7),
                apply: Lsn::MAX
            }
        );
    }

    #[test]
    fn one_node_has_one_vote_however_often_it_connects() {
        let twice = [member("s1", 100), member("s1", 120)];
        assert_eq!(flushed("ANY 2 (*)", 1000, &twice), None);
        assert_eq!(flushed("ANY 1 (*)", 1000, &twice), Some(120));
        let mut other = member("s1", 130);
        other.node = node("s1", 2);
        assert_eq!(
            flushed("ANY 2 (s1)", 1000, &[member("s1", 100), other]),
            Some(100)
        );
    }

    #[test]
    fn a_standby_that_catches_up_does_not_count_yet() {
        let mut late = member("s1", 15);
        late.streaming = false;
        let members = [late, member("s2", 200)];
        assert_eq!(flushed("FIRST 1 (s1, s2)", 1000, &members), Some(200));
        assert_eq!(flushed("ANY 2 (s1, s2)", 1000, &members), None);
    }

    #[test]
    fn states_are_postgresqls() {
        let members = [
            member("s3", 1 + 10),
            member("s1", 12),
            member("other", 13),
            member("s2", 14),
        ];
        let shown = |names: &str| {
            let names = SyncNames::parse(names).unwrap();
            let states = states(&names, &members).into_iter();
            states
                .map(|(place, state)| format!("{place} {}", state.as_str()))
                .collect::<Vec<_>>()
        };
        assert_eq!(
            shown("FIRST 2 (s1, s2, s3)"),
            ["3 potential", "1 sync", "0 async", "2 sync"]
        );
        assert_eq!(
            shown("ANY 1 (s1, s2)"),
            ["0 async", "1 quorum", "0 async", "1 quorum"]
        );
        // More are asked for than there are; a star; a name in other letters; one that is there twice.
        assert_eq!(
            shown("FIRST 9 (S1, \"s2\", s1)"),
            ["0 async", "1 sync", "0 async", "2 sync"]
        );
        assert_eq!(
            shown("2 (s1, *)"),
            ["2 potential", "1 sync", "2 sync", "2 potential"]
        );
        assert_eq!(shown("ANY 9 (*)"), ["1 quorum"; 4]);
        assert_eq!(shown(""), ["0 async"; 4]);
    }

    #[test]
    fn a_member_that_is_new_or_catches_up_is_shown_as_postgresql_does() {
        let (mut late, mut silent) = (member("s1", 15), member("s2", 14));
        late.streaming = false;
        silent.reached = Reached::default();
        let members = [late, silent, member("s3", 13)];
        for (names, wanted) in [
            (
                "ANY 1 (s1, s2, s3)",
                [
                    (1, SyncState::Potential),
                    (0, SyncState::Async),
                    (1, SyncState::Quorum),
                ],
            ),
            (
                "FIRST 1 (s1, s3)",
                [
                    (1, SyncState::Potential),
                    (0, SyncState::Async),
                    (2, SyncState::Sync),
                ],
            ),
        ] {
            let names = SyncNames::parse(names).unwrap();
            assert_eq!(states(&names, &members), wanted);
        }
    }

    #[test]
    fn what_is_missing_is_said() {
        let names = SyncNames::parse("ANY 2 (s1, s2, *)").unwrap();
        assert_eq!(
            missing(&names, &[member("s1", 10)]).unwrap(),
            "waiting for 1 of (s1, s2, *)"
        );
        assert_eq!(missing(&names, &[member("s1", 10), member("x", 10)]), None);
        assert_eq!(missing(&SyncNames::none(), &[]), None);
    }
}
