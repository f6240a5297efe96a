//! Autovacuum: looks at all tables once every `autovacuum_naptime`, and vacuums those that have changed enough or are old.
//!
//! - One loop, `step(now) -> Next`: one table at a time, a few pages a step, with a pause whenever `autovacuum_vacuum_cost_limit` is used
//!   up. While nothing is due it does nothing but look at counts in memory.
//! - It waits for no lock: a table that is locked is left for the next time, and a table that somebody waits for is given up. So it
//!   stands in nobody's way, and is in no deadlock. Only a table whose age has passed `autovacuum_freeze_max_age` is kept, and looked at
//!   even with `autovacuum = off`; nobody waits for it longer than it takes.
//! - It runs on a primary only: what it does reaches standbys by the log.
//! - ANALYZE would find nothing here that VACUUM does not, as no column statistics are kept.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use towline_base::{Lsn, Moment, Next, Oid};

use super::{SizesOp, VacuumOp, VacuumOptions, VacuumReport, VacuumStep, frozen};
use crate::activity::ActivityCounts;
use crate::catalog::{BOOTSTRAP_SUPERUSER, RelationKind, Table};
use crate::engine::Engine;
use crate::error::Result;
use crate::locks::{LockMode, LockTag};
use crate::release::CommitLevel;
use crate::step::{Step, WaitKind};
use crate::txn::{Transaction, TxnOptions};

/// How long a step that cannot go on yet is put off. Nothing of it holds anybody up.
const RETRY: Duration = Duration::from_millis(10);
/// How soon a table past `autovacuum_freeze_max_age` that was locked is tried again.
const FORCED_RETRY: Duration = Duration::from_secs(1);
/// The planner is told of sizes that have changed by more than this part.
const WORTH_TELLING: f64 = 0.1;

/// The settings of autovacuum, by PostgreSQL's names. Defaults are PostgreSQL's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AutovacuumSettings {
    /// `autovacuum`
    pub enabled: bool,
    /// `autovacuum_naptime`
    pub naptime: Duration,
    /// `autovacuum_vacuum_threshold`
    pub threshold: u64,
    /// `autovacuum_vacuum_scale_factor`
    pub scale_factor: f64,
    /// `autovacuum_vacuum_insert_threshold`; none for -1.
    pub insert_threshold: Option<u64>,
    /// `autovacuum_vacuum_insert_scale_factor`
    pub insert_scale_factor: f64,
    /// `autovacuum_freeze_max_age`
    pub freeze_max_age: u64,
    /// `vacuum_freeze_min_age` and `vacuum_freeze_table_age`
    pub ages: VacuumOptions,
    /// `autovacuum_vacuum_cost_delay`, or `vacuum_cost_delay` for -1.
    pub cost_delay: Duration,
    /// `autovacuum_vacuum_cost_limit`, or `vacuum_cost_limit` for -1.
    pub cost_limit: u64,
    /// `vacuum_cost_page_hit`, `_miss`, `_dirty`
    pub costs: [u64; 3],
    /// `log_autovacuum_min_duration`; none for -1.
    pub log_min_duration: Option<Duration>,
}

impl Default for AutovacuumSettings {
    fn default() -> AutovacuumSettings {
        AutovacuumSettings {
            enabled: true,
            naptime: Duration::from_secs(60),
            threshold: 50,
            scale_factor: 0.2,
            insert_threshold: Some(1000),
            insert_scale_factor: 0.2,
            freeze_max_age: 200_000_000,
            ages: VacuumOptions::default(),
            cost_delay: Duration::from_millis(2),
            cost_limit: 200,
            costs: [1, 2, 20],
            log_min_duration: Some(Duration::from_secs(600)),
        }
    }
}

impl AutovacuumSettings {
    /// Whether a table has changed enough. `known` is how many rows it had when they were counted last, or negative.
    fn is_due(&self, counts: &ActivityCounts, known: f32) -> bool {
        let rows = if known < 0.0 {
            counts.live as f64
        } else {
            f64::from(known)
        };
        let beyond =
            |count: u64, threshold: u64, factor: f64| count as f64 > threshold as f64 + factor * rows;
        beyond(counts.dead, self.threshold, self.scale_factor)
            || self.insert_threshold.is_some_and(|threshold| {
                beyond(counts.inserted_since_vacuum, threshold, self.insert_scale_factor)
            })
    }
}

/// A table to be vacuumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Task {
    table: Oid,
    /// It is too old to be left for later.
    forced: bool,
}

#[derive(Debug)]
enum Phase {
    Vacuum(Box<VacuumOp>),
    Sizes(SizesOp, VacuumReport),
    Commit(VacuumReport),
    /// Until the commit is visible, and its locks have fallen.
    Release(Lsn, VacuumReport),
}

/// The vacuum of one table.
#[derive(Debug)]
struct Job {
    table: Arc<Table>,
    forced: bool,
    begun: Moment,
    txn: Transaction,
    phase: Phase,
}

/// How a step of a job ended.
enum Progress {
    /// More to do.
    More,
    /// More to do, a little later.
    Later,
    /// It gives way to whoever waits for the table.
    GivenUp,
    Done(VacuumReport),
}

/// The loop. See the module.
#[derive(Debug)]
pub struct Autovacuum {
    engine: Weak<Engine>,
    settings: Arc<Mutex<AutovacuumSettings>>,
    /// When the last look began.
    looked: Option<Moment>,
    /// A table past its age was locked at the last look.
    pressed: bool,
    tasks: VecDeque<Task>,
    job: Option<Job>,
    /// Cost since the last pause.
    balance: u64,
}

impl Autovacuum {
    /// The loop of an engine. The first look is a nap away.
    pub fn new(engine: &Arc<Engine>, settings: Arc<Mutex<AutovacuumSettings>>) -> Autovacuum {
        Autovacuum {
            engine: Arc::downgrade(engine),
            settings,
            looked: None,
            pressed: false,
            tasks: VecDeque::new(),
            job: None,
            balance: 0,
        }
    }

    /// Does a little, and says when to call again.
    pub fn step(&mut self, now: Moment) -> Next {
        let Some(engine) = self.engine.upgrade() else {
            return Next::Stop;
        };
        if engine.has_failed() {
            return Next::Stop;
        }
        let settings = *self.settings.lock();
        if self.job.is_some() {
            return self.step_job(&engine, &settings, now);
        }
        if let Some(task) = self.tasks.pop_front() {
            match begin(&engine, &settings, task, now) {
                Ok(Some(job)) => self.job = Some(job),
                Ok(None) => self.pressed |= task.forced,
                Err(error) => {
                    tracing::warn!(%error, table = task.table.0, "autovacuum could not begin with a table")
                }
            }
            return Next::Now;
        }
        let since = *self.looked.get_or_insert(now);
        let nap = if self.pressed {
            settings.naptime.min(FORCED_RETRY)
        } else {
            settings.naptime
        };
        if now < since.after(nap) {
            return Next::At(since.after(nap));
        }
        self.looked = Some(now);
        self.pressed = false;
        match look(&engine, &settings) {
            Ok(tasks) => self.tasks = tasks,
            Err(error) => tracing::warn!(%error, "autovacuum could not look at the tables"),
        }
        if self.tasks.is_empty() {
            Next::At(now.after(settings.naptime))
        } else {
            Next::Now
        }
    }

    fn step_job(&mut self, engine: &Arc<Engine>, settings: &AutovacuumSettings, now: Moment) -> Next {
        let Some(job) = &mut self.job else {
            return Next::Now;
        };
        let allocated = || {
            engine
                .storage()
                .pool()
                .counters()
                .allocated
                .load(Ordering::Relaxed)
        };
        let (before, missed) = (job.work(), allocated());
        let progress = job.step(engine);
        let (after, missed) = (job.work(), allocated().saturating_sub(missed));
        let read = after.0.saturating_sub(before.0);
        let missed = missed.min(read);
        let [hit, miss, dirty] = settings.costs;
        self.balance += (read - missed) * hit + missed * miss + after.1.saturating_sub(before.1) * dirty;
        match progress {
            Ok(Progress::More) => {}
            Ok(Progress::Later) => return Next::At(now.after(RETRY)),
            Ok(Progress::GivenUp) => {
                tracing::debug!(table = %job.table.name, "autovacuum gives way");
                self.job = None;
            }
            Ok(Progress::Done(report)) => {
                job.table.activity.vacuumed(&report, engine.clock().wall(), true);
                log(job, &report, settings, now);
                self.job = None;
            }
            Err(error) => {
                tracing::warn!(%error, table = %job.table.name, "autovacuum of a table has failed");
                self.job = None;
            }
        }
        self.pause(settings, now)
    }

    /// The rest that the work so far has earned.
    fn pause(&mut self, settings: &AutovacuumSettings, now: Moment) -> Next {
        if self.balance < settings.cost_limit || settings.cost_delay.is_zero() {
            return Next::Now;
        }
        let times = self.balance as f64 / settings.cost_limit.max(1) as f64;
        self.balance = 0;
        Next::At(now.after(settings.cost_delay.mul_f64(times)))
    }
}

/// What is to be done now, the oldest tables first.
fn look(engine: &Arc<Engine>, settings: &AutovacuumSettings) -> Result<VecDeque<Task>> {
    let mut tasks = VecDeque::new();
    if engine.is_standby() {
        return Ok(tasks);
    }
    if engine.xids().in_use() > settings.freeze_max_age {
        let old = frozen::older_than(engine, settings.freeze_max_age)?;
        if old.is_empty() {
            // Every table is young, and only the database does not know it.
            if let Step::Wait(_) = frozen::advance_database(engine)? {}
        }
        tasks.extend(old.iter().map(|(table, _)| Task {
            table: *table,
            forced: true,
        }));
    }
    if settings.enabled {
        let view = engine.catalog().shared(engine)?;
        let mut due: Vec<Oid> = view
            .tables()
            .filter(|table| table.kind == RelationKind::Table)
            .filter(|table| settings.is_due(&table.activity.counts(), table.estimated_rows))
            .map(|table| table.oid)
            .filter(|oid| !tasks.iter().any(|task| task.table == *oid))
            .collect();
        due.sort_unstable();
        tasks.extend(due.into_iter().map(|table| Task { table, forced: false }));
    }
    Ok(tasks)
}

/// Locks a table and begins with it; nothing when it is locked, or gone.
fn begin(
    engine: &Arc<Engine>,
    settings: &AutovacuumSettings,
    task: Task,
    now: Moment,
) -> Result<Option<Job>> {
    let mut txn = engine.begin(TxnOptions::default())?;
    let tag = LockTag::Relation(task.table.0);
    if !matches!(
        txn.try_lock(tag, LockMode::ShareUpdateExclusive)?,
        Step::Done(true)
    ) {
        return Ok(None);
    }
    let view = engine.catalog().view(&mut txn)?;
    let Some(table) = view.table(task.table).cloned() else {
        return Ok(None);
    };
    let mut options = settings.ages.bounded_by(settings.freeze_max_age);
    if task.forced {
        // Every old row, wherever it is.
        options.freeze_table_age = 0;
    }
    let op = VacuumOp::new(&txn, Arc::clone(&table), options)?;
    Ok(Some(Job {
        table,
        forced: task.forced,
        begun: now,
        txn,
        phase: Phase::Vacuum(Box::new(op)),
    }))
}

impl Job {
    /// Pages read and pages changed so far.
    fn work(&self) -> (u64, u64) {
        match &self.phase {
            Phase::Vacuum(op) => op.work(),
            Phase::Sizes(_, report) | Phase::Commit(report) | Phase::Release(_, report) => {
                (report.seen, u64::from(report.changed))
            }
        }
    }

    fn is_awaited(&self, engine: &Engine) -> bool {
        engine
            .locks()
            .relations
            .is_awaited(LockTag::Relation(self.table.oid.0))
    }

    fn step(&mut self, engine: &Engine) -> Result<Progress> {
        let ended = matches!(self.phase, Phase::Release(..));
        if !self.forced && !ended && self.is_awaited(engine) {
            return Ok(Progress::GivenUp);
        }
        match &mut self.phase {
            Phase::Vacuum(op) => match op.step(&mut self.txn)? {
                VacuumStep::More => Ok(Progress::More),
                VacuumStep::Wait(_) => Ok(Progress::Later),
                VacuumStep::Done(report) => {
                    self.phase = if self.is_worth_telling(engine, &report) {
                        let rows = report.live_rows as f64;
                        Phase::Sizes(
                            SizesOp::new(Arc::clone(&self.table), rows, BOOTSTRAP_SUPERUSER),
                            report,
                        )
                    } else {
                        Phase::Commit(report)
                    };
                    Ok(Progress::More)
                }
            },
            Phase::Sizes(op, report) => match op.step(&mut self.txn) {
                Ok(Step::Done(())) => {
                    self.phase = Phase::Commit(*report);
                    Ok(Progress::More)
                }
                // The row of pg_class is somebody's who may wait for this table next. The vacuum itself is done.
                Ok(Step::Wait(wait)) if matches!(wait.kind(), WaitKind::Row | WaitKind::Lock) => {
                    Ok(Progress::Done(*report))
                }
                Ok(Step::Wait(_)) => Ok(Progress::Later),
                Err(error) => {
                    tracing::debug!(%error, table = %self.table.name, "sizes were not written");
                    Ok(Progress::Done(*report))
                }
            },
            Phase::Commit(report) => match self.txn.commit(CommitLevel::Off)? {
                Step::Done(lsn) => {
                    self.phase = Phase::Release(lsn, *report);
                    Ok(Progress::More)
                }
                Step::Wait(_) => Ok(Progress::Later),
            },
            // A release may be somebody else's, or wait for commits before it: until then the table is locked and its sizes are old.
            Phase::Release(lsn, report) if engine.release().is_visible(*lsn) => Ok(Progress::Done(*report)),
            Phase::Release(..) => Ok(Progress::Later),
        }
    }

    /// Whether the planner's sizes are so far from the truth that a new version of the catalog, which every session then loads, is worth it.
    fn is_worth_telling(&self, engine: &Engine, report: &VacuumReport) -> bool {
        let pages = engine
            .storage()
            .nblocks(self.table.node, towline_base::ForkKind::Main)
            .unwrap_or(0);
        let far = |known: f64, found: f64| (known - found).abs() > found * WORTH_TELLING;
        // Those of the catalog are read by nobody.
        !self.table.is_system()
            && (self.table.estimated_rows < 0.0
                || far(f64::from(self.table.estimated_rows), report.live_rows as f64)
                || far(f64::from(self.table.estimated_pages), f64::from(pages)))
    }
}

fn log(job: &Job, report: &VacuumReport, settings: &AutovacuumSettings, now: Moment) {
    let elapsed = now.since(job.begun);
    if settings.log_min_duration.is_some_and(|least| elapsed >= least) {
        tracing::info!(
            pages = report.pages,
            live_rows = report.live_rows,
            still_needed = report.recently_dead,
            removed = report.removed,
            index_entries = report.index_entries,
            frozen = report.frozen,
            cut = report.cut,
            seconds = elapsed.as_secs_f64(),
            "automatic vacuum of table \"postgres.{}.{}\"{}",
            job.table.schema_name,
            job.table.name,
            if job.forced { " to prevent wraparound" } else { "" }
        );
    }
}

#[cfg(test)]
#[path = "auto_tests.rs"]
mod tests;
