//! Autovacuum, stepped by hand: which tables it takes and when, to whom it gives way, and how it rests.
#![allow(clippy::unwrap_used)]

use towline_base::{Tid, Xid};

use super::*;
use crate::testing::*;

/// The loop with a clock of its own.
struct Loop {
    auto: Autovacuum,
    settings: Arc<Mutex<AutovacuumSettings>>,
    now: Moment,
    rested: Duration,
}

impl Loop {
    fn new(engine: &Arc<Engine>, settings: AutovacuumSettings) -> Loop {
        let settings = Arc::new(Mutex::new(settings));
        Loop {
            auto: Autovacuum::new(engine, Arc::clone(&settings)),
            settings,
            now: Moment(0),
            rested: Duration::ZERO,
        }
    }

    /// Sleeps to the end of the nap, and does what is due then, as one look finds it.
    fn round(&mut self) {
        let nap = self.settings.lock().naptime;
        match self.auto.step(self.now) {
            Next::At(moment) if moment.since(self.now) <= nap => self.now = moment,
            other => panic!("it does not nap: {other:?}"),
        }
        loop {
            match self.auto.step(self.now) {
                Next::Now => {}
                // Time stands still meanwhile: what a job waits for is other threads' work, and a nap that ended while they are late would
                // bring a second look within this round.
                Next::At(moment) if moment.since(self.now) < FORCED_RETRY => {
                    self.rested += moment.since(self.now);
                    std::thread::yield_now();
                }
                Next::At(_) => return,
                other => panic!("{other:?}"),
            }
        }
    }
}

fn settings() -> AutovacuumSettings {
    AutovacuumSettings {
        cost_delay: Duration::ZERO,
        ..AutovacuumSettings::default()
    }
}

fn fill(rig: &Rig, table: &Arc<Table>, count: i32) -> Vec<Tid> {
    let mut txn = rig.begin();
    let tids = (0..count).map(|id| insert(&mut txn, table, (id, 0))).collect();
    commit(txn);
    tids
}

fn delete_all(rig: &Rig, table: &Arc<Table>, tids: &[Tid]) {
    let mut txn = rig.begin();
    for tid in tids {
        delete(&mut txn, table, *tid);
    }
    commit(txn);
}

fn runs(table: &Table) -> u64 {
    table.activity.counts().autovacuum.1
}

#[test]
fn a_table_is_due_when_dead_or_new_rows_pass_threshold_and_share() {
    let settings = AutovacuumSettings::default();
    let counts = |dead, inserted_since_vacuum, live| ActivityCounts {
        dead,
        inserted_since_vacuum,
        live,
        ..ActivityCounts::default()
    };
    for (counts, known, due) in [
        (counts(50, 0, 0), 0.0, false),
        (counts(51, 0, 0), 0.0, true),
        (counts(250, 0, 0), 1000.0, false),
        (counts(251, 0, 0), 1000.0, true),
        (counts(0, 1200, 0), 1000.0, false),
        (counts(0, 1201, 0), 1000.0, true),
        // A table that was never counted is as large as it has grown.
        (counts(250, 0, 1000), -1.0, false),
        (counts(251, 0, 1000), -1.0, true),
    ] {
        assert_eq!(settings.is_due(&counts, known), due, "{counts:?} of {known}");
    }
    let never = AutovacuumSettings {
        insert_threshold: None,
        ..settings
    };
    assert!(!never.is_due(&counts(0, 1 << 40, 0), 1.0));
}

#[test]
fn a_table_is_vacuumed_when_enough_of_it_is_dead_and_not_before() {
    let rig = Rig::new();
    let t = create_table(&rig, "t");
    let tids = fill(&rig, &t, 1000);
    let mut auto = Loop::new(&rig.engine, settings());
    delete_all(&rig, &t, &tids[..200]);
    auto.round();
    assert_eq!(runs(&t), 0);
    delete_all(&rig, &t, &tids[200..300]);
    let counts = t.activity.counts();
    assert_eq!((counts.live, counts.dead, counts.deleted), (700, 300, 300));
    auto.round();
    assert_eq!(runs(&t), 1);
    let counts = t.activity.counts();
    assert_eq!(
        (counts.live, counts.dead, counts.inserted_since_vacuum),
        (700, 0, 0)
    );
    // The planner knows, the counts are still the table's, and nothing is done twice.
    let t = table_called(&rig, "t");
    assert_eq!((t.estimated_rows, runs(&t)), (700.0, 1));
    auto.round();
    assert_eq!(runs(&t), 1);
    assert_eq!(rig.rows(&t).len(), 700);
    check_map(&rig.engine, &t);
}

#[test]
fn rows_that_only_came_are_marked_as_seen_by_all() {
    let rig = Rig::new();
    let t = create_table(&rig, "t");
    fill(&rig, &t, 2000);
    let mut auto = Loop::new(&rig.engine, settings());
    auto.round();
    assert_eq!(runs(&t), 1);
    let pages = rig
        .engine
        .storage()
        .nblocks(t.node, towline_base::ForkKind::Main)
        .unwrap();
    assert_eq!(check_map(&rig.engine, &t), (pages, 0));
}

#[test]
fn rows_of_who_rolled_back_are_dead_and_an_old_snapshot_keeps_others() {
    let rig = Rig::new();
    let t = create_table(&rig, "t");
    let mut txn = rig.begin();
    for id in 0..400 {
        insert(&mut txn, &t, (id, 0));
    }
    txn.rollback();
    assert_eq!(t.activity.counts().dead, 400);
    let tids = fill(&rig, &t, 300);
    let mut old = rig.begin_repeatable();
    assert_eq!(rows(&mut old, &t).len(), 300);
    delete_all(&rig, &t, &tids);
    let mut auto = Loop::new(&rig.engine, settings());
    auto.round();
    let counts = t.activity.counts();
    assert_eq!((runs(&t), counts.dead), (1, 300));
    assert_eq!(rows(&mut old, &t).len(), 300);
    old.rollback();
    auto.round();
    assert_eq!((runs(&t), t.activity.counts().dead), (2, 0));
}

#[test]
fn it_waits_for_no_table_and_gives_one_up_that_somebody_waits_for() {
    let rig = Rig::new();
    let t = create_table(&rig, "t");
    let tids = fill(&rig, &t, 8000);
    delete_all(&rig, &t, &tids[..4000]);
    let tag = LockTag::Relation(t.oid.0);
    let mut auto = Loop::new(&rig.engine, settings());
    let mut ddl = rig.begin();
    done(&mut ddl, |txn| txn.lock(tag, LockMode::AccessExclusive));
    auto.round();
    assert_eq!(runs(&t), 0);
    ddl.rollback();
    // Now somebody comes while it works.
    let Next::At(moment) = auto.auto.step(auto.now) else {
        panic!("no nap");
    };
    auto.now = moment;
    while auto.auto.job.is_none() {
        assert_eq!(auto.auto.step(auto.now), Next::Now);
    }
    while auto.auto.job.as_ref().is_some_and(|job| job.work().0 == 0) {
        auto.auto.step(auto.now);
    }
    let mut ddl = rig.begin();
    let Step::Wait(wait) = ddl.lock(tag, LockMode::AccessExclusive).unwrap() else {
        panic!("it is not at work");
    };
    assert_eq!(auto.auto.step(auto.now), Next::Now);
    assert!(auto.auto.job.is_none());
    assert!(wait.block(Duration::from_secs(20)).unwrap());
    done(&mut ddl, |txn| txn.lock(tag, LockMode::AccessExclusive));
    assert_eq!(runs(&t), 0);
    ddl.rollback();
    auto.round();
    assert_eq!(runs(&t), 1);
}

#[test]
fn tables_past_their_age_are_frozen_even_when_it_is_off_and_somebody_waits() {
    let rig = Rig::new();
    let t = create_table(&rig, "t");
    fill(&rig, &t, 8000);
    let mut off = settings();
    off.enabled = false;
    off.freeze_max_age = 10_000;
    let mut auto = Loop::new(&rig.engine, off);
    auto.round();
    assert_eq!(runs(&t), 0);
    let next = Xid(rig.engine.next_xid().0 + 30_000);
    rig.engine.csn().extend_to(next).unwrap();
    rig.engine.xids().advance_to(next);
    assert!(rig.engine.xids().in_use() > 30_000);
    // A table that is locked is tried again soon.
    let tag = LockTag::Relation(t.oid.0);
    let mut ddl = rig.begin();
    done(&mut ddl, |txn| txn.lock(tag, LockMode::AccessExclusive));
    auto.round();
    assert_eq!(runs(&t), 0);
    ddl.rollback();
    let before = auto.now;
    let Next::At(moment) = auto.auto.step(before) else {
        panic!("no nap");
    };
    assert!(moment.since(before) <= FORCED_RETRY);
    auto.now = moment;
    while !matches!(&auto.auto.job, Some(job) if job.table.oid == t.oid) {
        auto.auto.step(auto.now);
    }
    let mut ddl = rig.begin();
    assert!(matches!(
        ddl.lock(tag, LockMode::AccessExclusive).unwrap(),
        Step::Wait(_)
    ));
    while auto.auto.job.is_some() || !auto.auto.tasks.is_empty() {
        auto.auto.step(auto.now);
    }
    assert_eq!(runs(&t), 1);
    ddl.rollback();
    assert!(
        rig.engine.xids().in_use() < 10_000,
        "{} xids are in use",
        rig.engine.xids().in_use()
    );
    assert_eq!(rig.rows(&t).len(), 8000);
}

#[test]
fn it_rests_as_its_cost_says() {
    let rig = Rig::new();
    let t = create_table(&rig, "t");
    let tids = fill(&rig, &t, 8000);
    delete_all(&rig, &t, &tids[..4000]);
    let mut auto = Loop::new(
        &rig.engine,
        AutovacuumSettings {
            cost_delay: Duration::from_millis(2),
            cost_limit: 100,
            ..settings()
        },
    );
    auto.round();
    assert_eq!(runs(&t), 1);
    // More than thirty pages were changed twice, at 20 each.
    let least = Duration::from_millis(2) * (30 * 2 * 20 / 100);
    assert!(auto.rested >= least, "{:?} of {least:?}", auto.rested);
}

#[test]
fn it_ends_with_its_engine() {
    let rig = Rig::new();
    let mut auto = Autovacuum::new(&rig.engine, Arc::default());
    assert!(matches!(auto.step(Moment(0)), Next::At(_)));
    drop(rig.crash());
    assert_eq!(auto.step(Moment(1)), Next::Stop);
}
