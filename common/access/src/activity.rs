//! What is done to each table, counted in memory since the start: when autovacuum has to come, and what pg_stat_user_tables shows.
//!
//! A transaction counts for itself, without sharing anything, and tells the table at its end: who commits has made rows, who rolls back has
//! made dead ones. So a row that is changed costs a plain addition, and a table that a transaction has changed an atomic one for each
//! kind of change. Counts are hints: readers see them one by one, and a crash or restart begins at zero (rows are then taken from `reltuples`).

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use hashbrown::HashMap;
use parking_lot::RwLock;
use smallvec::SmallVec;
use towline_base::Oid;

use crate::catalog::Table;
use crate::vacuum::VacuumReport;

/// What one transaction did to a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Changes {
    inserted: u32,
    updated: u32,
    /// Of those, the ones whose new version is in its page's chain.
    hot_updated: u32,
    deleted: u32,
}

/// The changes of an open transaction, table by table. A transaction of more than four thousand million changes counts no further.
#[derive(Debug, Default)]
pub(crate) struct Touched(SmallVec<[(Arc<TableActivity>, Changes); 4]>);

impl Touched {
    #[inline]
    fn of(&mut self, table: &Table) -> &mut Changes {
        let known = self
            .0
            .iter()
            .position(|(activity, _)| Arc::ptr_eq(activity, &table.activity));
        let at = known.unwrap_or_else(|| {
            self.0.push((Arc::clone(&table.activity), Changes::default()));
            self.0.len() - 1
        });
        &mut self.0[at].1
    }

    #[inline]
    pub(crate) fn inserted(&mut self, table: &Table, rows: usize) {
        let changes = self.of(table);
        changes.inserted = changes
            .inserted
            .saturating_add(u32::try_from(rows).unwrap_or(u32::MAX));
    }

    #[inline]
    pub(crate) fn updated(&mut self, table: &Table, hot: bool) {
        let changes = self.of(table);
        changes.updated = changes.updated.saturating_add(1);
        changes.hot_updated = changes.hot_updated.saturating_add(u32::from(hot));
    }

    #[inline]
    pub(crate) fn deleted(&mut self, table: &Table) {
        let changes = self.of(table);
        changes.deleted = changes.deleted.saturating_add(1);
    }

    /// Tells the tables, at the end of the transaction.
    #[inline]
    pub(crate) fn settle(&mut self, committed: bool) {
        for (activity, changes) in self.0.drain(..) {
            activity.add(&changes, committed);
        }
    }
}

/// The counts of one table. What follows from others is computed when somebody asks, so that a transaction's end costs little.
#[derive(Debug, Default)]
pub struct TableActivity {
    inserted: AtomicU64,
    /// Updates whose new version has index entries of its own.
    moved: AtomicU64,
    hot_updated: AtomicU64,
    deleted: AtomicU64,
    /// Of these, what was rolled back.
    undone_inserts: AtomicU64,
    undone_updates: AtomicU64,
    undone_deletes: AtomicU64,
    /// Dead versions that readers have pruned away.
    pruned: AtomicU64,
    /// What is to be added to the sums of the counters above for the rows live and dead.
    live_base: AtomicI64,
    dead_base: AtomicI64,
    /// The counters when the vacuum at work began.
    grown_at_begin: AtomicI64,
    died_at_begin: AtomicI64,
    inserted_at_begin: AtomicU64,
    /// The counters at the last vacuum, and the last analyze.
    inserted_at_vacuum: AtomicU64,
    changed_at_analyze: AtomicU64,
    last_vacuum: AtomicI64,
    vacuums: AtomicU64,
    last_autovacuum: AtomicI64,
    autovacuums: AtomicU64,
    last_analyze: AtomicI64,
    analyzes: AtomicU64,
}

/// The counts at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ActivityCounts {
    /// Rows inserted, by transactions that rolled back as well.
    pub inserted: u64,
    /// Rows updated.
    pub updated: u64,
    /// Rows updated within their page, without new index entries.
    pub hot_updated: u64,
    /// Rows deleted.
    pub deleted: u64,
    /// Rows there are, about.
    pub live: u64,
    /// Versions that nobody needs or soon nobody will, about.
    pub dead: u64,
    /// Rows inserted since the last vacuum.
    pub inserted_since_vacuum: u64,
    /// Rows changed since the last analyze.
    pub changed_since_analyze: u64,
    /// When VACUUM ended last (µs since 2000), and how often it did.
    pub vacuum: (Option<i64>, u64),
    /// The same of autovacuum.
    pub autovacuum: (Option<i64>, u64),
    /// The same of ANALYZE.
    pub analyze: (Option<i64>, u64),
}

fn raise(counter: &AtomicU64, by: impl Into<u64>) {
    let by = by.into();
    if by > 0 {
        counter.fetch_add(by, Ordering::Relaxed);
    }
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

impl TableActivity {
    /// Nothing has happened yet to so many rows.
    fn beginning_at(rows: f32) -> TableActivity {
        TableActivity {
            live_base: AtomicI64::new(rows.max(0.0) as i64),
            ..TableActivity::default()
        }
    }

    fn add(&self, changes: &Changes, committed: bool) {
        raise(&self.inserted, changes.inserted);
        raise(&self.moved, changes.updated - changes.hot_updated);
        raise(&self.hot_updated, changes.hot_updated);
        raise(&self.deleted, changes.deleted);
        if !committed {
            raise(&self.undone_inserts, changes.inserted);
            raise(&self.undone_updates, changes.updated);
            raise(&self.undone_deletes, changes.deleted);
        }
    }

    fn updated(&self) -> u64 {
        read(&self.moved) + read(&self.hot_updated)
    }

    /// Rows that came less those that went.
    fn grown(&self) -> i64 {
        signed(read(&self.inserted)) - signed(read(&self.undone_inserts)) - signed(read(&self.deleted))
            + signed(read(&self.undone_deletes))
    }

    /// Versions that became dead: an update leaves the old one, or the new one when it is rolled back.
    fn died(&self) -> i64 {
        signed(self.updated()) + signed(read(&self.deleted)) - signed(read(&self.undone_deletes))
            + signed(read(&self.undone_inserts))
    }

    /// Changes that were committed.
    fn changed(&self) -> u64 {
        let all = read(&self.inserted) + self.updated() + read(&self.deleted);
        let undone = read(&self.undone_inserts) + read(&self.undone_updates) + read(&self.undone_deletes);
        all.saturating_sub(undone)
    }

    fn dead(&self) -> u64 {
        let left = self.died() - signed(read(&self.pruned));
        u64::try_from(self.dead_base.load(Ordering::Relaxed) + left).unwrap_or(0)
    }

    fn set_live(&self, rows: u64) {
        self.live_base
            .store(signed(rows) - self.grown(), Ordering::Relaxed);
    }

    /// A reader has pruned away so many versions. Those that were dead before the start are not known, and hide none to come.
    pub(crate) fn pruned(&self, versions: u32) {
        raise(&self.pruned, u64::from(versions).min(self.dead()));
    }

    /// A vacuum begins to count. There is one at a time.
    pub(crate) fn vacuum_begins(&self) {
        self.grown_at_begin.store(self.grown(), Ordering::Relaxed);
        self.died_at_begin.store(self.died(), Ordering::Relaxed);
        self.inserted_at_begin
            .store(read(&self.inserted), Ordering::Relaxed);
    }

    /// A vacuum has counted anew. `now` in µs since 2000. What was committed while it counted may be in its report or not: it is counted on
    /// top, so that a row too many is looked for next time, and none is forgotten.
    pub fn vacuumed(&self, report: &VacuumReport, now: i64, by_autovacuum: bool) {
        let (grown, died) = (
            self.grown_at_begin.load(Ordering::Relaxed),
            self.died_at_begin.load(Ordering::Relaxed),
        );
        self.live_base
            .store(signed(report.live_rows) - grown, Ordering::Relaxed);
        self.dead_base.store(
            signed(report.recently_dead) - died + signed(read(&self.pruned)),
            Ordering::Relaxed,
        );
        self.inserted_at_vacuum
            .store(read(&self.inserted_at_begin), Ordering::Relaxed);
        let (last, count) = if by_autovacuum {
            (&self.last_autovacuum, &self.autovacuums)
        } else {
            (&self.last_vacuum, &self.vacuums)
        };
        last.store(now, Ordering::Relaxed);
        raise(count, 1u32);
    }

    /// ANALYZE has counted the rows. `now` in µs since 2000.
    pub fn analyzed(&self, rows: u64, now: i64) {
        self.set_live(rows);
        self.changed_at_analyze.store(self.changed(), Ordering::Relaxed);
        self.last_analyze.store(now, Ordering::Relaxed);
        raise(&self.analyzes, 1u32);
    }

    /// All counts.
    pub fn counts(&self) -> ActivityCounts {
        let runs = |last: &AtomicI64, runs: &AtomicU64| {
            let runs = read(runs);
            ((runs > 0).then(|| last.load(Ordering::Relaxed)), runs)
        };
        let live = self.live_base.load(Ordering::Relaxed) + self.grown();
        ActivityCounts {
            inserted: read(&self.inserted),
            updated: self.updated(),
            hot_updated: read(&self.hot_updated),
            deleted: read(&self.deleted),
            live: u64::try_from(live).unwrap_or(0),
            dead: self.dead(),
            inserted_since_vacuum: read(&self.inserted).saturating_sub(read(&self.inserted_at_vacuum)),
            changed_since_analyze: self.changed().saturating_sub(read(&self.changed_at_analyze)),
            vacuum: runs(&self.last_vacuum, &self.vacuums),
            autovacuum: runs(&self.last_autovacuum, &self.autovacuums),
            analyze: runs(&self.last_analyze, &self.analyzes),
        }
    }
}

/// The counts of all tables: a table keeps its own from one version of the catalog to the next.
#[derive(Debug, Default)]
pub(crate) struct ActivityRegistry {
    tables: RwLock<HashMap<Oid, Arc<TableActivity>>>,
    /// By file number, for whoever has a page and no table.
    files: RwLock<HashMap<u32, Arc<TableActivity>>>,
}

impl ActivityRegistry {
    /// The counts of a table, which begin at `rows` rows if it is new here.
    pub(crate) fn of(&self, table: Oid, rows: f32) -> Arc<TableActivity> {
        if let Some(known) = self.tables.read().get(&table) {
            return Arc::clone(known);
        }
        let mut tables = self.tables.write();
        let made = || Arc::new(TableActivity::beginning_at(rows));
        Arc::clone(tables.entry(table).or_insert_with(made))
    }

    /// The counts of the table with this file.
    pub(crate) fn of_file(&self, file: u32) -> Option<Arc<TableActivity>> {
        self.files.read().get(&file).map(Arc::clone)
    }

    /// These are the tables that there are. Those that only a transaction sees which has them in use keep their counts.
    pub(crate) fn set_tables<'a>(&self, present: impl Iterator<Item = &'a Arc<Table>>) {
        let mut files = HashMap::new();
        let mut tables = HashMap::new();
        for table in present {
            files.insert(table.node.rel, Arc::clone(&table.activity));
            tables.insert(table.oid, Arc::clone(&table.activity));
        }
        *self.files.write() = files;
        self.tables
            .write()
            .retain(|oid, activity| tables.contains_key(oid) || Arc::strong_count(activity) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_rolls_back_leaves_dead_rows_and_no_live_ones() {
        let activity = TableActivity::beginning_at(10.0);
        let changes = Changes {
            inserted: 5,
            updated: 3,
            hot_updated: 1,
            deleted: 2,
        };
        activity.add(&changes, true);
        let counts = activity.counts();
        assert_eq!((counts.live, counts.dead), (13, 5));
        activity.add(&changes, false);
        let counts = activity.counts();
        assert_eq!((counts.live, counts.dead), (13, 13));
        assert_eq!(
            (
                counts.inserted,
                counts.updated,
                counts.hot_updated,
                counts.deleted
            ),
            (10, 6, 2, 4)
        );
        assert_eq!(counts.changed_since_analyze, 10);
        activity.pruned(100);
        assert_eq!(activity.counts().dead, 0);
        activity.add(&changes, true);
        assert_eq!(activity.counts().dead, 5);
        let report = VacuumReport {
            live_rows: 7,
            recently_dead: 2,
            ..VacuumReport::default()
        };
        activity.vacuum_begins();
        activity.vacuumed(&report, 1, true);
        activity.add(&changes, true);
        let counts = activity.counts();
        assert_eq!(
            (counts.live, counts.dead, counts.inserted_since_vacuum),
            (10, 7, 5)
        );
    }

    /// What was deleted between a vacuum's look at the page and its report was forgotten, and no autovacuum came for it.
    #[test]
    fn what_is_committed_while_a_vacuum_counts_is_still_to_be_vacuumed() {
        let activity = TableActivity::beginning_at(0.0);
        let changes = |inserted, deleted| Changes {
            inserted,
            deleted,
            ..Changes::default()
        };
        activity.add(&changes(4000, 0), true);
        activity.vacuum_begins();
        activity.add(&changes(10, 3000), true);
        // The vacuum prunes as well.
        activity.pruned(5);
        let report = VacuumReport {
            live_rows: 4000,
            ..VacuumReport::default()
        };
        activity.vacuumed(&report, 1, true);
        let counts = activity.counts();
        assert_eq!(
            (counts.live, counts.dead, counts.inserted_since_vacuum),
            (1010, 3000, 10)
        );
        activity.vacuum_begins();
        activity.vacuumed(
            &VacuumReport {
                live_rows: 1010,
                ..VacuumReport::default()
            },
            2,
            true,
        );
        let counts = activity.counts();
        assert_eq!(
            (counts.live, counts.dead, counts.inserted_since_vacuum),
            (1010, 0, 0)
        );
    }
}
