//! Relation and object locks: PostgreSQL's eight modes, its conflict table, FIFO queues.
//!
//! A request is granted when it conflicts neither with what others hold nor with what others wait for ahead of it. One
//! exception, PostgreSQL's: a requester that already holds a lock which a waiter needs is queued before that waiter,
//! since the waiter cannot go on before it anyway.
//!
//! Granting happens at release, by the releaser: the waiter finds the lock already its own when it asks again.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;
use smallvec::SmallVec;

use super::OwnerId;
use crate::step::WaitCell;

/// The eight lock modes, weakest first; the discriminant is PostgreSQL's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum LockMode {
    /// SELECT.
    AccessShare = 1,
    /// SELECT FOR UPDATE.
    RowShare = 2,
    /// INSERT, UPDATE, DELETE.
    RowExclusive = 3,
    /// VACUUM, ANALYZE.
    ShareUpdateExclusive = 4,
    /// CREATE INDEX.
    Share = 5,
    /// Like `Exclusive`, but lets `RowShare` in.
    ShareRowExclusive = 6,
    /// Blocks all but reads.
    Exclusive = 7,
    /// DROP, TRUNCATE, ALTER: blocks everyone.
    AccessExclusive = 8,
}

impl LockMode {
    /// All modes, weakest first.
    pub const ALL: [LockMode; 8] = [
        LockMode::AccessShare,
        LockMode::RowShare,
        LockMode::RowExclusive,
        LockMode::ShareUpdateExclusive,
        LockMode::Share,
        LockMode::ShareRowExclusive,
        LockMode::Exclusive,
        LockMode::AccessExclusive,
    ];

    const fn bit(self) -> u16 {
        1 << (self as u16)
    }

    /// The set of modes that conflict with this one.
    const fn conflicts(self) -> u16 {
        use LockMode::*;
        match self {
            AccessShare => AccessExclusive.bit(),
            RowShare => Exclusive.bit() | AccessExclusive.bit(),
            RowExclusive => Share.bit() | ShareRowExclusive.bit() | Exclusive.bit() | AccessExclusive.bit(),
            ShareUpdateExclusive => {
                ShareUpdateExclusive.bit()
                    | Share.bit()
                    | ShareRowExclusive.bit()
                    | Exclusive.bit()
                    | AccessExclusive.bit()
            }
            Share => {
                RowExclusive.bit()
                    | ShareUpdateExclusive.bit()
                    | ShareRowExclusive.bit()
                    | Exclusive.bit()
                    | AccessExclusive.bit()
            }
            ShareRowExclusive => {
                RowExclusive.bit()
                    | ShareUpdateExclusive.bit()
                    | Share.bit()
                    | ShareRowExclusive.bit()
                    | Exclusive.bit()
                    | AccessExclusive.bit()
            }
            Exclusive => {
                RowShare.bit()
                    | RowExclusive.bit()
                    | ShareUpdateExclusive.bit()
                    | Share.bit()
                    | ShareRowExclusive.bit()
                    | Exclusive.bit()
                    | AccessExclusive.bit()
            }
            AccessExclusive => 0x1FE,
        }
    }

    /// Whether two transactions may not hold these modes at once.
    pub const fn conflicts_with(self, other: LockMode) -> bool {
        self.conflicts() & other.bit() != 0
    }

    /// PostgreSQL's name, as in pg_locks and deadlock messages.
    pub fn name(self) -> &'static str {
        match self {
            LockMode::AccessShare => "AccessShareLock",
            LockMode::RowShare => "RowShareLock",
            LockMode::RowExclusive => "RowExclusiveLock",
            LockMode::ShareUpdateExclusive => "ShareUpdateExclusiveLock",
            LockMode::Share => "ShareLock",
            LockMode::ShareRowExclusive => "ShareRowExclusiveLock",
            LockMode::Exclusive => "ExclusiveLock",
            LockMode::AccessExclusive => "AccessExclusiveLock",
        }
    }
}

/// What is locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum LockTag {
    /// A relation, by its oid.
    Relation(u32),
    /// Another object: its catalog and its oid (a schema, a role).
    Object(u32, u32),
    /// A name that is about to be made unique: catalog and a hash of the name.
    Name(u32, u64),
    /// An advisory lock.
    Advisory(u64),
}

impl fmt::Display for LockTag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LockTag::Relation(oid) => write!(f, "relation {oid} of database 5"),
            LockTag::Object(class, oid) => write!(f, "object {oid} of class {class} of database 5"),
            LockTag::Name(class, _) => write!(f, "a name in class {class} of database 5"),
            LockTag::Advisory(key) => write!(f, "advisory lock [5,{},{},1]", key >> 32, *key as u32),
        }
    }
}

/// The answer to a request.
#[derive(Debug)]
pub enum Acquired {
    /// It is now held; it was not held in this mode before.
    Granted,
    /// It was held already, in this mode or a request granted while waiting.
    AlreadyHeld,
    /// Queued: ask again when the cell rings.
    Queued(Arc<WaitCell>),
}

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) owner: OwnerId,
    pub(super) mode: LockMode,
    cell: Arc<WaitCell>,
}

#[derive(Debug, Default)]
pub(super) struct Lock {
    /// Who holds which modes, as a set of bits.
    pub(super) granted: SmallVec<[(OwnerId, u16); 4]>,
    pub(super) waiters: VecDeque<Waiter>,
}

impl Lock {
    fn held_by(&self, owner: OwnerId) -> u16 {
        self.granted
            .iter()
            .find(|(holder, _)| *holder == owner)
            .map_or(0, |(_, modes)| *modes)
    }

    /// Whether what others hold conflicts with `mode`.
    pub(super) fn conflicts_with_holders(&self, owner: OwnerId, mode: LockMode) -> bool {
        let conflicts = mode.conflicts();
        self.granted
            .iter()
            .any(|(holder, modes)| *holder != owner && modes & conflicts != 0)
    }

    /// Whether what `holder` holds conflicts with `mode`.
    pub(super) fn conflicts_between(&self, holder: OwnerId, mode: LockMode) -> bool {
        self.held_by(holder) & mode.conflicts() != 0
    }

    fn grant(&mut self, owner: OwnerId, mode: LockMode) {
        match self.granted.iter_mut().find(|(holder, _)| *holder == owner) {
            Some((_, modes)) => *modes |= mode.bit(),
            None => self.granted.push((owner, mode.bit())),
        }
    }

    /// Grants whatever has become possible, in queue order; the cells to ring are collected.
    fn promote(&mut self, ring: &mut SmallVec<[Arc<WaitCell>; 4]>) {
        let mut awaited = 0u16;
        let mut at = 0;
        while at < self.waiters.len() {
            let (owner, mode) = (self.waiters[at].owner, self.waiters[at].mode);
            if awaited & mode.conflicts() == 0 && !self.conflicts_with_holders(owner, mode) {
                let waiter = self.waiters.remove(at).expect("index is below the length");
                self.grant(owner, mode);
                ring.push(waiter.cell);
            } else {
                awaited |= mode.bit();
                at += 1;
            }
        }
    }

    /// Where a request of `owner` is queued: before the first waiter that needs what `owner` already holds.
    fn queue_position(&self, owner: OwnerId) -> usize {
        let held = self.held_by(owner);
        if held == 0 {
            return self.waiters.len();
        }
        self.waiters
            .iter()
            .position(|waiter| waiter.mode.conflicts() & held != 0)
            .unwrap_or(self.waiters.len())
    }

    fn acquire(&mut self, owner: OwnerId, mode: LockMode, queue: bool) -> Option<Acquired> {
        let held = self.held_by(owner);
        if held & mode.bit() != 0 {
            return Some(Acquired::AlreadyHeld);
        }
        if let Some(waiter) = self
            .waiters
            .iter()
            .find(|waiter| waiter.owner == owner && waiter.mode == mode)
        {
            return queue.then(|| Acquired::Queued(Arc::clone(&waiter.cell)));
        }
        let position = self.queue_position(owner);
        let conflicts = mode.conflicts();
        let ahead = self
            .waiters
            .iter()
            .take(position)
            .any(|waiter| waiter.mode.bit() & conflicts != 0);
        if !ahead && !self.conflicts_with_holders(owner, mode) {
            self.grant(owner, mode);
            return Some(Acquired::Granted);
        }
        if !queue {
            return None;
        }
        let cell = WaitCell::new();
        self.waiters.insert(
            position,
            Waiter {
                owner,
                mode,
                cell: Arc::clone(&cell),
            },
        );
        Some(Acquired::Queued(cell))
    }
}

const SHARDS: usize = 16;

/// The table of relation locks.
#[derive(Debug)]
pub struct RelationLocks {
    shards: Box<[Mutex<HashMap<LockTag, Lock>>]>,
}

impl RelationLocks {
    pub(super) fn new() -> Self {
        RelationLocks {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        }
    }

    fn shard(&self, tag: LockTag) -> &Mutex<HashMap<LockTag, Lock>> {
        let key = match tag {
            LockTag::Relation(oid) => u64::from(oid),
            LockTag::Object(_, oid) => u64::from(oid),
            LockTag::Name(_, hash) => hash,
            LockTag::Advisory(key) => key,
        };
        &self.shards[(key.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 60) as usize]
    }

    /// Asks for `mode`. A queued request keeps its place until it is granted or [`RelationLocks::release`]d.
    pub fn acquire(&self, owner: OwnerId, tag: LockTag, mode: LockMode) -> Acquired {
        let mut shard = self.shard(tag).lock();
        shard
            .entry(tag)
            .or_default()
            .acquire(owner, mode, true)
            .expect("a queueing request is always answered")
    }

    /// Asks for `mode` and does not queue.
    pub fn try_acquire(&self, owner: OwnerId, tag: LockTag, mode: LockMode) -> bool {
        let mut shard = self.shard(tag).lock();
        let lock = shard.entry(tag).or_default();
        let granted = lock.acquire(owner, mode, false).is_some();
        if lock.granted.is_empty() && lock.waiters.is_empty() {
            shard.remove(&tag);
        }
        granted
    }

    /// Gives up every mode that `owner` holds or waits for under `tag`, and grants what becomes possible.
    pub fn release(&self, owner: OwnerId, tag: LockTag) {
        let mut ring = SmallVec::new();
        {
            let mut shard = self.shard(tag).lock();
            let Some(lock) = shard.get_mut(&tag) else { return };
            lock.granted.retain(|(holder, _)| *holder != owner);
            if !lock.waiters.is_empty() {
                lock.waiters.retain(|waiter| waiter.owner != owner);
                lock.promote(&mut ring);
            }
            if lock.granted.is_empty() && lock.waiters.is_empty() {
                shard.remove(&tag);
            }
        }
        for cell in ring {
            cell.ring();
        }
    }

    /// The owners that hold a mode conflicting with `mode` (replay of an exclusive lock cancels them).
    pub fn conflicting_holders(&self, tag: LockTag, mode: LockMode, except: OwnerId) -> Vec<OwnerId> {
        let shard = self.shard(tag).lock();
        let Some(lock) = shard.get(&tag) else {
            return Vec::new();
        };
        let conflicts = mode.conflicts();
        lock.granted
            .iter()
            .filter(|(owner, modes)| *owner != except && modes & conflicts != 0)
            .map(|(owner, _)| *owner)
            .collect()
    }

    /// Grants without asking: what replay on a standby does after the conflicting holders were cancelled.
    pub fn grant_forced(&self, owner: OwnerId, tag: LockTag, mode: LockMode) {
        self.shard(tag).lock().entry(tag).or_default().grant(owner, mode);
    }

    /// Calls `visit` with every lock that somebody waits for.
    pub(super) fn for_each_contended(&self, mut visit: impl FnMut(LockTag, &Lock)) {
        for shard in &self.shards {
            for (tag, lock) in shard.lock().iter() {
                if !lock.waiters.is_empty() {
                    visit(*tag, lock);
                }
            }
        }
    }

    /// Whether somebody waits for a lock on `tag`.
    pub fn is_awaited(&self, tag: LockTag) -> bool {
        let shard = self.shard(tag).lock();
        shard.get(&tag).is_some_and(|lock| !lock.waiters.is_empty())
    }

    /// The rows of pg_locks: (tag, owner, mode, granted).
    pub fn rows(&self) -> Vec<(LockTag, OwnerId, LockMode, bool)> {
        let mut rows = Vec::new();
        for shard in &self.shards {
            for (tag, lock) in shard.lock().iter() {
                for (owner, modes) in &lock.granted {
                    rows.extend(
                        LockMode::ALL
                            .into_iter()
                            .filter(|mode| modes & mode.bit() != 0)
                            .map(|mode| (*tag, *owner, mode, true)),
                    );
                }
                rows.extend(
                    lock.waiters
                        .iter()
                        .map(|waiter| (*tag, waiter.owner, waiter.mode, false)),
                );
            }
        }
        rows.sort_by_key(|(tag, owner, mode, _)| (*tag, *owner, *mode));
        rows
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const T: LockTag = LockTag::Relation(100);

    #[test]
    fn the_conflict_table_is_symmetric() {
        for a in LockMode::ALL {
            for b in LockMode::ALL {
                assert_eq!(a.conflicts_with(b), b.conflicts_with(a), "{a:?} {b:?}");
            }
        }
        assert!(!LockMode::RowExclusive.conflicts_with(LockMode::RowExclusive));
        assert!(LockMode::ShareUpdateExclusive.conflicts_with(LockMode::ShareUpdateExclusive));
        assert!(!LockMode::Share.conflicts_with(LockMode::Share));
        assert!(LockMode::AccessShare.conflicts_with(LockMode::AccessExclusive));
        assert!(!LockMode::AccessShare.conflicts_with(LockMode::Exclusive));
    }

    #[test]
    fn a_waiter_is_granted_by_the_releaser_and_blocks_later_ones() {
        let locks = RelationLocks::new();
        let (a, b, c) = (OwnerId(1), OwnerId(2), OwnerId(3));
        assert!(matches!(
            locks.acquire(a, T, LockMode::RowExclusive),
            Acquired::Granted
        ));
        let Acquired::Queued(bell) = locks.acquire(b, T, LockMode::AccessExclusive) else {
            panic!("must queue")
        };
        // A later reader does not overtake the waiter.
        let Acquired::Queued(late) = locks.acquire(c, T, LockMode::AccessShare) else {
            panic!("must queue")
        };
        assert!(!locks.try_acquire(OwnerId(4), T, LockMode::AccessShare));
        locks.release(a, T);
        assert!(bell.is_rung() && !late.is_rung());
        assert!(matches!(
            locks.acquire(b, T, LockMode::AccessExclusive),
            Acquired::AlreadyHeld
        ));
        locks.release(b, T);
        assert!(late.is_rung());
        locks.release(c, T);
        assert!(locks.rows().is_empty());
    }

    #[test]
    fn a_holder_that_asks_for_more_goes_before_those_who_wait_for_it() {
        let locks = RelationLocks::new();
        let (a, b) = (OwnerId(1), OwnerId(2));
        assert!(matches!(
            locks.acquire(a, T, LockMode::AccessShare),
            Acquired::Granted
        ));
        assert!(matches!(
            locks.acquire(b, T, LockMode::AccessExclusive),
            Acquired::Queued(_)
        ));
        assert!(matches!(
            locks.acquire(a, T, LockMode::RowExclusive),
            Acquired::Granted
        ));
    }

    /// After each step of a random schedule, whoever could have its lock has it, and has been told.
    #[test]
    fn nobody_waits_for_a_lock_that_is_free() {
        let mut random = 0x9E37_79B9_7F4A_7C15u64;
        let mut below = |bound: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % bound
        };
        let locks = RelationLocks::new();
        let mut waiting: HashMap<OwnerId, (LockMode, Arc<WaitCell>)> = HashMap::new();
        for _ in 0..20_000 {
            let owner = OwnerId(below(6));
            let mode = LockMode::ALL[below(8) as usize];
            match (waiting.contains_key(&owner), below(3)) {
                // The end of a transaction, or a cancelled wait.
                (_, 0) => {
                    locks.release(owner, T);
                    waiting.remove(&owner);
                }
                (true, _) => {
                    let (mode, cell) = &waiting[&owner];
                    let answer = locks.acquire(owner, T, *mode);
                    assert_eq!(cell.is_rung(), !matches!(answer, Acquired::Queued(_)));
                    if cell.is_rung() {
                        waiting.remove(&owner);
                    }
                }
                (false, 1) => drop(locks.try_acquire(owner, T, mode)),
                (false, _) => {
                    if let Acquired::Queued(cell) = locks.acquire(owner, T, mode) {
                        waiting.insert(owner, (mode, cell));
                    }
                }
            }
            let mut awaited = 0;
            locks.for_each_contended(|_, lock| {
                for waiter in &lock.waiters {
                    let conflicts = waiter.mode.conflicts();
                    assert!(
                        awaited & conflicts != 0 || lock.conflicts_with_holders(waiter.owner, waiter.mode),
                        "{:?} waits for a free lock: {lock:?}",
                        waiter.owner
                    );
                    awaited |= waiter.mode.bit();
                }
            });
        }
    }

    #[test]
    fn a_cancelled_waiter_lets_the_next_ones_through() {
        let locks = RelationLocks::new();
        let (a, b, c) = (OwnerId(1), OwnerId(2), OwnerId(3));
        locks.acquire(a, T, LockMode::AccessShare);
        locks.acquire(b, T, LockMode::AccessExclusive);
        let Acquired::Queued(bell) = locks.acquire(c, T, LockMode::AccessShare) else {
            panic!("must queue")
        };
        locks.release(b, T);
        assert!(bell.is_rung());
    }
}
