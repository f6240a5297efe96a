//! C1 with its rule switched off. In a process of its own: a committer is held for ever between its record and its CSN, since the assertion
//! of the release queue would end the process when it went on.
#![allow(clippy::unwrap_used)]
#![cfg(debug_assertions)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use towline_access::bootstrap::{InitOptions, init};
use towline_access::{CommitLevel, Engine, EngineConfig, Step, TxnOptions, open_alone};
use towline_base::failpoint::{self, Action};
use towline_base::rules::{Rule, RuleOff};
use towline_base::vfs::CrashVfs;
use towline_base::{Clock, Lsn, SystemClock, Vfs};

const LIMIT: Duration = Duration::from_secs(20);

fn commit(engine: &Arc<Engine>) -> Lsn {
    let mut txn = engine.begin(TxnOptions::default()).unwrap();
    let mut end = |commit: bool| loop {
        let step = if commit {
            txn.commit(CommitLevel::On)
        } else {
            txn.ensure_xid().map(|step| match step {
                Step::Done(_) => Step::Done(Lsn::INVALID),
                Step::Wait(wait) => Step::Wait(wait),
            })
        };
        match step.unwrap() {
            Step::Done(lsn) => return lsn,
            Step::Wait(wait) => assert!(wait.block(LIMIT).unwrap()),
        }
    };
    end(false);
    end(true)
}

#[test]
fn without_its_bound_a_commit_would_be_visible_before_its_csn_is_stored() {
    let vfs: Arc<dyn Vfs> = CrashVfs::new().shared();
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let options = InitOptions {
        segment_size: 1 << 20,
        ..InitOptions::default()
    };
    init(&vfs, Path::new("/data"), &clock, &options).unwrap();
    let config = EngineConfig {
        shared_buffers: 512,
        ..EngineConfig::new("/data")
    };
    let (engine, permits) = open_alone(vfs, clock, config).unwrap();
    for off in [false, true] {
        failpoint::configure("access::before_csn", Action::Pause, 0);
        let committer = Arc::clone(&engine);
        let held = std::thread::spawn(move || {
            let _off = off.then(|| RuleOff::new(Rule::BoundBeforeCommit));
            commit(&committer)
        });
        assert!(failpoint::wait_paused("access::before_csn", LIMIT));
        // The first stays held, the second one passes: its commit is behind, stored and queued, and both records become durable.
        failpoint::configure("access::before_csn", Action::Pause, 1);
        let behind = commit(&engine);
        let wal = engine.writer().unwrap().wal.clone();
        wal.flush(wal.insert_lsn(), None).unwrap();
        let flushed = wal.positions().flush.get();
        engine.release().advance(flushed, flushed, flushed);
        let visible = engine.visible().get();
        if off {
            assert!(
                visible >= behind,
                "a snapshot would cover the commit that is held"
            );
            std::mem::forget(held);
        } else {
            failpoint::release("access::before_csn");
            let held = held.join().unwrap();
            assert!(visible < held && held < behind, "{visible} {held} {behind}");
            let wait = engine.release().wait(behind, CommitLevel::On);
            assert!(wait.block(LIMIT).unwrap());
        }
    }
    std::mem::forget((engine, permits));
}
