//! Tests of the watch: order of wake-ups, closing, and the race between publisher and waiters.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::AtomicUsize;

use super::*;

#[derive(Default)]
struct CountingWaker(AtomicUsize);

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn poll(wait: &mut LsnWait, count: &Arc<CountingWaker>) -> Poll<Result<Lsn, WatchClosed>> {
    let waker = Waker::from(Arc::clone(count));
    Pin::new(wait).poll(&mut Context::from_waker(&waker))
}

#[test]
fn a_reached_position_is_ready_at_once() {
    let (_publisher, watch) = LsnWatch::new(Lsn(10));
    let outcome = watch.wait_for(Lsn(10)).block(Some(Duration::ZERO));
    assert_eq!(outcome, WaitOutcome::Reached(Lsn(10)));
    assert_eq!(
        watch.wait_past(Lsn(10)).block(Some(Duration::ZERO)),
        WaitOutcome::TimedOut
    );
}

#[test]
fn only_those_whose_target_is_reached_wake_and_once() {
    let (mut publisher, watch) = LsnWatch::new(Lsn(0));
    let wakers: Vec<_> = (0..4).map(|_| Arc::new(CountingWaker::default())).collect();
    let mut waits: Vec<_> = [5, 10, 10, 20].map(|lsn| watch.wait_for(Lsn(lsn))).into();
    for (wait, waker) in waits.iter_mut().zip(&wakers) {
        assert!(poll(wait, waker).is_pending());
    }
    let woken = || {
        wakers
            .iter()
            .map(|waker| waker.0.load(Ordering::SeqCst))
            .collect::<Vec<_>>()
    };
    publisher.advance(Lsn(4));
    assert_eq!(woken(), [0, 0, 0, 0]);
    publisher.advance(Lsn(10));
    assert_eq!(woken(), [1, 1, 1, 0]);
    publisher.advance(Lsn(11));
    assert_eq!(woken(), [1, 1, 1, 0]);
    assert_eq!(poll(&mut waits[1], &wakers[1]), Poll::Ready(Ok(Lsn(11))));
}

#[test]
fn a_dropped_wait_is_forgotten() {
    let (mut publisher, watch) = LsnWatch::new(Lsn(0));
    let waker = Arc::new(CountingWaker::default());
    let mut wait = watch.wait_for(Lsn(5));
    assert!(poll(&mut wait, &waker).is_pending());
    assert!(poll(&mut wait, &waker).is_pending());
    drop(wait);
    publisher.advance(Lsn(5));
    assert_eq!(waker.0.load(Ordering::SeqCst), 0);
    assert_eq!(watch.shared.lowest.load(Ordering::SeqCst), NOBODY);
}

#[test]
fn closing_wakes_everyone_and_a_position_reached_before_still_counts() {
    let (mut publisher, watch) = LsnWatch::new(Lsn(0));
    let waiting = watch.wait_for(Lsn(5));
    let thread = std::thread::spawn(move || waiting.block(None));
    publisher.advance(Lsn(3));
    drop(publisher);
    assert_eq!(thread.join().unwrap(), WaitOutcome::Closed);
    assert!(watch.is_closed());
    assert_eq!(watch.wait_for(Lsn(3)).block(None), WaitOutcome::Reached(Lsn(3)));
}

#[test]
#[should_panic(expected = "position moves backwards")]
fn a_position_never_moves_backwards() {
    let (mut publisher, _watch) = LsnWatch::new(Lsn(5));
    publisher.advance(Lsn(4));
}

/// The publisher takes its shortcut whenever it may; if one wake-up were lost, a waiter that has no
/// timeout would hang here. The deadline turns that into a failure.
#[test]
fn no_wake_up_is_lost_between_publisher_and_waiters() {
    const LAST: u64 = 60_000;
    let (mut publisher, watch) = LsnWatch::new(Lsn(0));
    let (mut answer, answered) = LsnWatch::new(Lsn(0));
    let deadline = Some(Duration::from_secs(60));
    // Ping-pong: each side waits for exactly the other's next step, so a lost wake-up stops both.
    let pong = {
        let watch = watch.clone();
        std::thread::spawn(move || {
            for lsn in 1..=LAST {
                let outcome = watch.wait_for(Lsn(lsn)).block(deadline);
                assert!(matches!(outcome, WaitOutcome::Reached(_)), "{lsn}: {outcome:?}");
                answer.advance(Lsn(lsn));
            }
        })
    };
    // Bystanders that register and leave keep `lowest` moving.
    let bystanders: Vec<_> = (0..2)
        .map(|step| {
            let watch = watch.clone();
            std::thread::spawn(move || {
                let mut target = step;
                while target < LAST {
                    let patience = Duration::from_micros(20 * (target % 3));
                    let _ = watch.wait_for(Lsn(target + 2)).block(Some(patience));
                    target = watch.get().0 + step;
                }
            })
        })
        .collect();
    for lsn in 1..=LAST {
        publisher.advance(Lsn(lsn));
        let outcome = answered.wait_for(Lsn(lsn)).block(deadline);
        assert!(matches!(outcome, WaitOutcome::Reached(_)), "{lsn}: {outcome:?}");
    }
    pong.join().unwrap();
    bystanders.into_iter().for_each(|thread| thread.join().unwrap());
}
