//! Tests of commit release: order, levels, bounds, locks and invalidations.
#![allow(clippy::unwrap_used)]
use super::*;

struct Rig {
    slots: Arc<TxnSlots>,
    queue: Arc<CommitQueue>,
}

fn rig() -> Rig {
    let slots = TxnSlots::new(128);
    let locks = LockManager::new(slots.clone());
    let queue = CommitQueue::new(slots.clone(), locks, Lsn(1));
    Rig { slots, queue }
}

fn enqueue(queue: &CommitQueue, lsn: u64, level: CommitLevel) {
    queue.enqueue(Lsn(lsn), level, OwnerId(lsn), SmallVec::new(), None);
}

#[test]
fn commits_are_released_in_lsn_order_whatever_the_order_of_arrival() {
    let Rig { queue, .. } = rig();
    for lsn in [300, 100, 200] {
        enqueue(&queue, lsn, CommitLevel::On);
    }
    queue.advance(Lsn(250), Lsn(250), Lsn(250));
    assert_eq!(queue.visible().get(), Lsn(200));
    queue.advance(Lsn(300), Lsn(300), Lsn(299));
    assert_eq!(queue.visible().get(), Lsn(200));
    queue.advance(Lsn(300), Lsn(300), Lsn(300));
    assert_eq!(queue.visible().get(), Lsn(300));
}

#[test]
fn each_level_waits_for_its_position_and_for_its_predecessors() {
    let Rig { queue, .. } = rig();
    enqueue(&queue, 100, CommitLevel::Off);
    queue.release();
    assert_eq!(queue.visible().get(), Lsn(100));
    enqueue(&queue, 200, CommitLevel::RemoteWrite);
    enqueue(&queue, 210, CommitLevel::Off);
    queue.advance(Lsn(210), Lsn(150), Lsn(100));
    assert_eq!(queue.visible().get(), Lsn(100));
    queue.advance(Lsn(210), Lsn(200), Lsn(100));
    assert_eq!(queue.visible().get(), Lsn(210));
    enqueue(&queue, 300, CommitLevel::Local);
    queue.advance(Lsn(300), Lsn(200), Lsn(100));
    assert_eq!(queue.visible().get(), Lsn(300));
}

#[test]
fn visible_never_passes_a_commit_in_flight() {
    let Rig { queue, slots } = rig();
    let slow = slots.claim(1, None).unwrap();
    slow.set_bound(Some(Lsn(150)));
    enqueue(&queue, 100, CommitLevel::On);
    enqueue(&queue, 200, CommitLevel::On);
    queue.advance(Lsn(500), Lsn(500), Lsn(500));
    assert_eq!(queue.visible().get(), Lsn(100));
    // The slow one commits at 160; clearing its bound is enough for those behind it, too.
    enqueue(&queue, 160, CommitLevel::On);
    slow.set_bound(None);
    queue.bound_cleared();
    assert_eq!(queue.visible().get(), Lsn(200));
}

#[test]
fn relation_locks_fall_when_the_commit_is_visible_and_invalidations_run_before() {
    #[derive(Debug)]
    struct Seen(LsnWatch, Mutex<Vec<(Lsn, Lsn)>>);
    impl Invalidator for Seen {
        fn invalidate(&self, lsn: Lsn, _messages: &[Invalidation]) {
            self.1.lock().push((lsn, self.0.get()));
        }
    }
    let Rig { queue, slots } = rig();
    let seen = Arc::new(Seen(queue.visible().clone(), Mutex::default()));
    queue.add_invalidator(seen.clone());
    let owner = slots.claim(1, None).unwrap().owner();
    let tag = LockTag::Relation(7);
    let mode = crate::locks::LockMode::AccessExclusive;
    queue.locks.acquire(owner, tag, mode);
    let finish = Finish {
        invalidations: vec![Invalidation::from_bytes(&[0; 16])],
        dropped: Vec::new(),
    };
    queue.enqueue(
        Lsn(100),
        CommitLevel::On,
        owner,
        smallvec::smallvec![tag],
        Some(Box::new(finish)),
    );
    assert!(!queue.locks.try_acquire(OwnerId(9), tag, mode));
    queue.advance(Lsn(100), Lsn(100), Lsn(100));
    assert!(queue.locks.try_acquire(OwnerId(9), tag, mode));
    assert_eq!(*seen.1.lock(), vec![(Lsn(100), Lsn(1))]);
}

/// The locks fell a moment after `visible`, for which the committer waited: its client was answered, and the next one to ask for a lock without
/// waiting did not get it.
#[test]
fn whoever_is_told_of_a_commit_finds_its_locks_free() {
    use std::task::{Context, Wake, Waker};
    const TAG: LockTag = LockTag::Relation(7);
    const MODE: crate::locks::LockMode = crate::locks::LockMode::AccessExclusive;
    struct Told(Arc<CommitQueue>, Mutex<Vec<bool>>);
    impl Wake for Told {
        fn wake(self: Arc<Self>) {
            let free = self.0.locks.try_acquire(OwnerId(9), TAG, MODE);
            self.1.lock().push(free && self.0.is_visible(Lsn(100)));
        }
    }
    let Rig { queue, slots } = rig();
    let owner = slots.claim(1, None).unwrap().owner();
    queue.locks.acquire(owner, TAG, MODE);
    let locks = smallvec::smallvec![TAG];
    queue.enqueue(Lsn(100), CommitLevel::On, owner, locks, None);
    let told = Arc::new(Told(Arc::clone(&queue), Mutex::default()));
    let waker = Waker::from(Arc::clone(&told));
    let mut cx = Context::from_waker(&waker);
    let mut wait = std::pin::pin!(queue.wait(Lsn(100), CommitLevel::On));
    assert!(wait.as_mut().poll(&mut cx).is_pending());
    queue.advance(Lsn(100), Lsn(100), Lsn(100));
    assert_eq!(*told.1.lock(), vec![true]);
    assert!(wait.as_mut().poll(&mut cx).is_ready());
}

#[test]
fn committers_and_publishers_on_many_threads_release_everything_in_order() {
    let Rig { queue, slots } = rig();
    let next = AtomicU64::new(10);
    let inserted = AtomicU64::new(10);
    let per_thread = 2_000;
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (queue, slots, next, inserted) = (&queue, &slots, &next, &inserted);
            scope.spawn(move || {
                for _ in 0..per_thread {
                    let slot = slots.claim(thread, None).unwrap();
                    slot.set_bound(Some(Lsn(next.load(Ordering::SeqCst))));
                    let lsn = next.fetch_add(8, Ordering::SeqCst) + 8;
                    inserted.fetch_max(lsn, Ordering::SeqCst);
                    enqueue(queue, lsn, CommitLevel::On);
                    slot.set_bound(None);
                    let end = Lsn(inserted.load(Ordering::SeqCst));
                    queue.advance(end, end, end);
                    drop(slot);
                }
            });
        }
    });
    let end = Lsn(next.load(Ordering::SeqCst));
    queue.advance(end, end, end);
    assert_eq!(queue.visible().get(), end);
    assert_eq!(queue.pending(), 0);
}

/// An asynchronous commit is covered by no position: one that arrived between the look at the bounds and the look at the queue took
/// `visible` past a commit that was still storing its CSN.
#[test]
fn asynchronous_commits_never_overtake_one_in_flight() {
    use std::sync::atomic::AtomicU64;
    let Rig { queue, slots } = rig();
    let log = AtomicU64::new(100);
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (queue, slots, log) = (&queue, &slots, &log);
            scope.spawn(move || {
                for round in 0..20_000u64 {
                    let slot = slots.claim(thread, None).unwrap();
                    slot.set_bound(Some(Lsn(log.load(Ordering::SeqCst))));
                    let lsn = log.fetch_add(8, Ordering::SeqCst) + 8;
                    if round % 64 == 0 {
                        std::thread::yield_now();
                    }
                    // Asserts inside that commits leave in LSN order.
                    enqueue(queue, lsn, CommitLevel::Off);
                    slot.set_bound(None);
                    queue.bound_cleared();
                    queue.release();
                }
            });
        }
    });
    assert_eq!(queue.visible().get(), Lsn(log.load(Ordering::SeqCst)));
}

/// The race of the test above, by hand: in the middle of a release, when it has looked at the bounds and not yet at the queue, one commit
/// gets as far as its record, and one behind it is queued and satisfied. `visible` went to the second, and the first broke I2.
#[test]
fn a_commit_queued_in_the_middle_of_a_release_waits_for_one_in_flight_below_it() {
    for level in [CommitLevel::Off, CommitLevel::Local, CommitLevel::On] {
        let Rig { queue, slots } = rig();
        let slow = Arc::new(slots.claim(1, None).unwrap());
        let fast = slots.claim(2, None).unwrap();
        let in_flight = Arc::clone(&slow);
        *queue.between_looks.lock() = Some(Box::new(move |queue| {
            in_flight.set_bound(Some(Lsn(150)));
            fast.set_bound(Some(Lsn(160)));
            enqueue(queue, 200, level);
            fast.set_bound(None);
            queue.bound_cleared();
            queue.advance(Lsn(200), Lsn(200), Lsn(200));
        }));
        queue.release();
        assert_eq!(queue.visible().get(), Lsn(1), "{level}");
        enqueue(&queue, 160, level);
        slow.set_bound(None);
        queue.bound_cleared();
        assert_eq!(queue.visible().get(), Lsn(200), "{level}");
    }
}

/// Whoever finds a release under way leaves it to that one, and must not be forgotten by it.
#[test]
fn a_release_asked_for_in_the_middle_of_another_is_done() {
    let Rig { queue, slots } = rig();
    let slot = Arc::new(slots.claim(1, None).unwrap());
    // A commit becomes satisfied.
    *queue.between_looks.lock() = Some(Box::new(|queue| {
        enqueue(queue, 100, CommitLevel::On);
        queue.advance(Lsn(100), Lsn(100), Lsn(100));
    }));
    queue.release();
    assert_eq!(queue.visible().get(), Lsn(100));
    // A commit that was held back by a bound alone loses it before the mark stands.
    slot.set_bound(Some(Lsn(150)));
    enqueue(&queue, 200, CommitLevel::Off);
    *queue.between_looks.lock() = Some(Box::new(move |queue| {
        enqueue(queue, 160, CommitLevel::Off);
        slot.set_bound(None);
        queue.bound_cleared();
    }));
    queue.release();
    assert_eq!(queue.visible().get(), Lsn(200));
    assert_eq!(queue.pending(), 0);
}

#[test]
#[should_panic(expected = "a commit at 0/64 arrives when 0/64 is visible (I1)")]
fn a_commit_at_or_below_visible_is_refused() {
    let Rig { queue, .. } = rig();
    enqueue(&queue, 100, CommitLevel::Off);
    queue.release();
    enqueue(&queue, 100, CommitLevel::Off);
}

#[test]
#[should_panic(expected = "the quorum 0/12C is beyond the flush 0/C8 (I2)")]
fn a_quorum_beyond_the_flush_is_refused() {
    rig().queue.advance(Lsn(200), Lsn(200), Lsn(300));
}
