//! Whoever waits for the log is woken: committers that flush for themselves or ask, asynchronous ones, those whom full buffers hold back;
//! among segment switches, readers of the buffers, and a writer thread that goes to sleep whenever it can.
#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use common::*;
use towline_base::vfs::CrashVfs;
use towline_base::{Lsn, SystemClock, Vfs, WaitOutcome};
use towline_wal::retention::Action;
use towline_wal::{NoCredit, PermitIssuer, RecordBuilder, Rmgr, Wal, WalTuning, spawn_writer};

/// Far above what any wait here takes.
const PATIENCE: Duration = Duration::from_secs(60);

fn wait(wal: &Wal, lsn: Lsn, what: &str) {
    let outcome = wal.positions().flush.wait_for(lsn).block(Some(PATIENCE));
    assert!(
        matches!(outcome, WaitOutcome::Reached(_)),
        "{what} waits for {lsn}: {outcome:?}, {wal:?}"
    );
}

/// The files are in memory.
fn remove_old_segments(wal: &Wal) {
    let kept = wal.config().segment_size.segment_of(wal.positions().flush.get());
    let old: Vec<_> = wal
        .segments()
        .list()
        .unwrap()
        .into_iter()
        .filter(|(_, segment)| segment.0 + 2 < kept.0)
        .map(|(timeline, segment)| Action::Remove { timeline, segment })
        .collect();
    wal.segments().retire(&old).unwrap();
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn committer(wal: &Wal, permits: &PermitIssuer, mut random: Random, rounds: u64) {
    let mut record = RecordBuilder::new();
    for _ in 0..rounds {
        // Mostly small, sometimes so large that a few fill the buffers.
        let size = match random.below(12) {
            0 => random.below(150_000),
            _ => random.below(300),
        };
        record.begin(Rmgr::Towline, 0x10, 7).data(&vec![1; size as usize]);
        let credit = loop {
            match wal.credit(record.credit_needed()) {
                Ok(credit) => break credit,
                Err(NoCredit::NeedsFlush(lsn)) => wait(wal, lsn, "a change without room"),
                Err(error) => panic!("{error:?}"),
            }
        };
        let end = wal
            .insert(&permits.issue(), credit, &mut record, &[])
            .unwrap()
            .end;
        match random.below(40) {
            0 => {
                wal.request_background_flush(end);
                wait(wal, end, "an asynchronous commit");
            }
            1..10 => {
                wal.request_flush(end);
                wait(wal, end, "a commit that asks");
            }
            10..20 => {
                wal.flush_here(end);
                wait(wal, end, "a commit that flushes for itself");
            }
            20..25 => {
                wal.flush(end, Some(PATIENCE)).unwrap();
            }
            25..30 => wal.request_background_flush(end),
            _ => {}
        }
    }
}

#[test]
fn every_wait_for_the_log_ends() {
    let rounds = std::env::var("TOWLINE_STRESS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(5_000);
    let vfs = CrashVfs::new();
    vfs.create_dir_all("/pg_wal".as_ref()).unwrap();
    let mut config = config("/pg_wal".as_ref());
    config.tuning = WalTuning {
        writer_delay: Duration::from_millis(1),
        ..config.tuning
    };
    let wal = start(vfs.shared(), config);
    let permits = PermitIssuer::new(timeline(1));
    let writer = spawn_writer(&wal, Arc::new(SystemClock), Arc::default()).unwrap();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let committers: Vec<_> = (1..5u64)
            .map(|seed| {
                let random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
                let (wal, permits) = (&wal, &permits);
                scope.spawn(move || committer(wal, permits, random, rounds))
            })
            .collect();
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let _ = wal.switch_segment(&permits.issue()).unwrap();
                remove_old_segments(&wal);
                std::thread::park_timeout(Duration::from_millis(1));
            }
        });
        scope.spawn(|| {
            let (mut at, mut bytes) = (wal.insert_lsn(), Vec::new());
            while !over.load(Ordering::Relaxed) {
                bytes.clear();
                match wal.read_recent(at, 8192, &mut bytes) {
                    0 => {
                        at = wal.positions().write.get();
                        std::thread::yield_now();
                    }
                    count => at = at + count as u64,
                }
            }
        });
        let ended: Vec<_> = committers.into_iter().map(|thread| thread.join()).collect();
        over.store(true, Ordering::Relaxed);
        for end in ended {
            end.unwrap();
        }
    });
    writer.stop();
    assert!(wal.positions().flush.get() <= wal.insert_lsn());
}
