//! The search for circles in the waits-for graph.
//!
//! Built on demand from the lock tables, by a waiter that has waited `deadlock_timeout`. The tables are read one after another, not
//! under one lock; an edge that vanished meanwhile can only be of a waiter that goes on, so a circle of edges that are all
//! still there is confirmed by a second look before the error is given.

use hashbrown::HashMap;
use smallvec::SmallVec;

use super::{LockManager, OwnerId};
use crate::error::{AccessError, Result};

#[derive(Clone, Debug, PartialEq, Eq)]
struct Edge {
    to: OwnerId,
    /// "ShareLock on transaction 77": what is waited for.
    what: String,
}

type Graph = HashMap<OwnerId, SmallVec<[Edge; 2]>>;

fn graph(locks: &LockManager) -> Graph {
    let mut graph = Graph::new();
    {
        let tables = locks.rows.tables.lock();
        for (xid, waiters) in &tables.by_xid {
            let Some(to) = locks.slots.owner_of(*xid) else {
                continue;
            };
            for (owner, _) in waiters {
                let what = format!("ShareLock on transaction {}", xid.low32());
                graph.entry(*owner).or_default().push(Edge { to, what });
            }
        }
        for ((relation, tid), queue) in &tables.queues {
            let Some(head) = queue.waiters.front() else {
                continue;
            };
            for waiter in queue.waiters.iter().skip(1) {
                let what = format!("ExclusiveLock on tuple {tid} of relation {relation} of database 5");
                graph
                    .entry(waiter.owner)
                    .or_default()
                    .push(Edge { to: head.owner, what });
            }
        }
    }
    locks.relations.for_each_contended(|tag, lock| {
        for (place, waiter) in lock.waiters.iter().enumerate() {
            let what = || format!("{} on {tag}", waiter.mode.name());
            let edges = graph.entry(waiter.owner).or_default();
            for (holder, _) in lock.granted.iter().filter(|(holder, _)| *holder != waiter.owner) {
                let holds = lock.conflicts_between(*holder, waiter.mode);
                if holds {
                    edges.push(Edge {
                        to: *holder,
                        what: what(),
                    });
                }
            }
            for ahead in lock.waiters.iter().take(place) {
                if ahead.mode.conflicts_with(waiter.mode) {
                    edges.push(Edge {
                        to: ahead.owner,
                        what: what(),
                    });
                }
            }
        }
    });
    graph
}

/// A path from `start` back to itself: (waiter, what it waits for, whom).
fn circle(graph: &Graph, start: OwnerId) -> Option<Vec<(OwnerId, Edge)>> {
    let mut path: Vec<(OwnerId, Edge)> = Vec::new();
    let mut seen: hashbrown::HashSet<OwnerId> = hashbrown::HashSet::new();
    // Depth first without recursion: the stack holds (owner, next edge to try).
    let mut stack: Vec<(OwnerId, usize)> = vec![(start, 0)];
    while let Some((owner, next)) = stack.last_mut() {
        let Some(edge) = graph.get(owner).and_then(|edges| edges.get(*next)) else {
            stack.pop();
            path.pop();
            continue;
        };
        *next += 1;
        let from = *owner;
        if edge.to == start {
            path.push((from, edge.clone()));
            return Some(path);
        }
        if seen.insert(edge.to) {
            path.push((from, edge.clone()));
            let to = edge.to;
            stack.push((to, 0));
        }
    }
    None
}

/// Looks at the tables at most; each look but the last found an edge of the circle before gone.
const MAX_LOOKS: usize = 100;

/// A circle through `owner` whose edges were all there at two looks. One that has vanished may have hidden another that stays, and who waits
/// asks only once: so it is looked for again.
fn lasting_circle(mut look: impl FnMut() -> Graph, owner: OwnerId) -> Option<Vec<(OwnerId, Edge)>> {
    let mut seen = look();
    for _ in 0..MAX_LOOKS {
        let found = circle(&seen, owner)?;
        let again = look();
        let still_there = found.iter().all(|(from, edge)| {
            again
                .get(from)
                .is_some_and(|edges| edges.iter().any(|other| other.to == edge.to))
        });
        if still_there {
            return Some(found);
        }
        seen = again;
    }
    None
}

pub(super) fn check(locks: &LockManager, owner: OwnerId) -> Result<()> {
    let Some(first) = lasting_circle(|| graph(locks), owner) else {
        return Ok(());
    };
    let pid = |owner: OwnerId| locks.slots.pid_of(owner);
    let lines: Vec<String> = first
        .iter()
        .map(|(from, edge)| {
            format!(
                "Process {} waits for {}; blocked by process {}.",
                pid(*from),
                edge.what,
                pid(edge.to)
            )
        })
        .collect();
    Err(AccessError::deadlock(lines.join("\n")))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{LockMode, LockTag, RowTicket};
    use super::*;
    use crate::txn::slots::TxnSlots;
    use towline_base::{SqlState, Tid, Xid};

    /// A look that is not of one instant may show a circle that never was. The search gave up at its second look, and the waiter, which asks
    /// once, waited in the real circle for ever.
    #[test]
    fn a_circle_that_vanishes_does_not_hide_one_that_stays() {
        let (a, b, c) = (OwnerId(1), OwnerId(2), OwnerId(3));
        let edge = |to| Edge {
            to,
            what: String::new(),
        };
        let mut looks = [vec![(a, b), (a, c), (b, a), (c, a)], vec![(a, c), (c, a)]].into_iter();
        let mut last = Vec::new();
        let look = || {
            last = looks.next().unwrap_or_else(|| last.clone());
            let mut graph = Graph::new();
            for (from, to) in &last {
                graph.entry(*from).or_default().push(edge(*to));
            }
            graph
        };
        let found = lasting_circle(look, a).unwrap();
        assert_eq!(found, vec![(a, edge(c)), (c, edge(a))]);
        // One that nobody ever confirms is none.
        let mut odd = false;
        let look = || {
            odd = !odd;
            let middle = if odd { b } else { c };
            Graph::from_iter([
                (a, smallvec::smallvec![edge(middle)]),
                (middle, smallvec::smallvec![edge(a)]),
            ])
        };
        assert_eq!(lasting_circle(look, a), None);
    }

    #[test]
    fn a_circle_over_rows_and_relations_is_found_and_told() {
        let slots = TxnSlots::new(8);
        let locks = LockManager::new(slots.clone());
        let (a, b) = (slots.claim(71, None).unwrap(), slots.claim(72, None).unwrap());
        a.set_xid(Xid(10));
        b.set_xid(Xid(11));
        locks.acquire(a.owner(), LockTag::Relation(5), LockMode::AccessExclusive);
        let _wait = RowTicket::row(&locks, a.owner(), (9, Tid::new(0, 1)), Xid(11));
        assert!(locks.check_deadlock(a.owner()).is_ok());
        locks.acquire(b.owner(), LockTag::Relation(5), LockMode::AccessShare);
        let error = locks.check_deadlock(a.owner()).unwrap_err();
        assert_eq!(error.sqlstate(), SqlState::DEADLOCK_DETECTED);
        assert_eq!(
            error.fields().detail.as_deref().unwrap(),
            "Process 71 waits for ShareLock on transaction 11; blocked by process 72.\n\
             Process 72 waits for AccessShareLock on relation 5 of database 5; blocked by process 71."
        );
        assert!(locks.check_deadlock(b.owner()).is_err());
    }
}
