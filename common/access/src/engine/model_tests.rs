//! MVCC against a model: a list of committed states, one snapshot number and one set of own writes per transaction.
//!
//! The engine never waits by itself, so a schedule of interleaved transactions runs on one thread and is the same every time.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use towline_base::SqlState;

use crate::catalog::Table;
use crate::ops::{DeleteOp, InsertOp, RowOutcome, UpdateOp};
use crate::testing::*;
use crate::vacuum::{VacuumOp, VacuumOptions, VacuumStep};
use crate::{Isolation, Step, Transaction};

const TRANSACTIONS: usize = 4;
const IDS: i32 = 5;

#[derive(Clone, Debug)]
enum Action {
    Insert(usize, i32, i32),
    Update(usize, i32, i32),
    Delete(usize, i32),
    Read(usize),
    Commit(usize),
    Rollback(usize),
    Vacuum(bool),
}

fn action() -> impl Strategy<Value = Action> {
    let (txn, id) = (0..TRANSACTIONS, 0..IDS);
    prop_oneof![
        3 => (txn.clone(), id.clone(), 0..1000).prop_map(|(t, i, v)| Action::Insert(t, i, v)),
        5 => (txn.clone(), id.clone(), 0..1000).prop_map(|(t, i, v)| Action::Update(t, i, v)),
        2 => (txn.clone(), id).prop_map(|(t, i)| Action::Delete(t, i)),
        3 => txn.clone().prop_map(Action::Read),
        3 => txn.clone().prop_map(Action::Commit),
        1 => txn.prop_map(Action::Rollback),
        1 => any::<bool>().prop_map(Action::Vacuum),
    ]
}

type State = BTreeMap<i32, i32>;

struct Open {
    txn: Transaction,
    isolation: Isolation,
    /// Number of the committed state that its statements see.
    seen: Option<usize>,
    writes: BTreeMap<i32, Option<i32>>,
}

struct Model {
    states: Vec<State>,
    /// For each id, the number of the state that changed it last.
    changed: BTreeMap<i32, usize>,
}

impl Model {
    fn last(&self) -> usize {
        self.states.len() - 1
    }

    fn view(&self, open: &Open, seen: usize) -> State {
        let mut view = self.states[seen].clone();
        for (id, value) in &open.writes {
            match value {
                Some(value) => view.insert(*id, *value),
                None => view.remove(id),
            };
        }
        view
    }
}

/// What the model expects of a write.
#[derive(Debug, PartialEq)]
enum Expected {
    Done,
    NoRow,
    Blocked,
    Serialization,
    Duplicate,
}

struct World {
    rig: Rig,
    table: Arc<Table>,
    model: Model,
    open: Vec<Option<Open>>,
}

impl World {
    fn new(isolations: u8) -> (Self, u8) {
        let rig = Rig::new();
        let table = table(20_000, true, 100);
        rig.make_table(&table);
        let model = Model {
            states: vec![State::new()],
            changed: BTreeMap::new(),
        };
        let open = (0..TRANSACTIONS).map(|_| None).collect();
        (
            World {
                rig,
                table,
                model,
                open,
            },
            isolations,
        )
    }

    fn start_statement(&mut self, at: usize, isolations: u8) -> usize {
        let isolation = if isolations >> at & 1 == 0 {
            Isolation::ReadCommitted
        } else {
            Isolation::RepeatableRead
        };
        let engine = &self.rig.engine;
        let open = self.open[at].get_or_insert_with(|| Open {
            txn: begin(engine, isolation),
            isolation,
            seen: None,
            writes: BTreeMap::new(),
        });
        open.txn.begin_statement();
        if open.isolation == Isolation::ReadCommitted || open.seen.is_none() {
            open.seen = Some(self.model.last());
        }
        open.seen.unwrap()
    }

    /// Whether another open transaction has changed the row.
    fn is_held(&self, at: usize, id: i32) -> bool {
        self.open.iter().enumerate().any(|(other, open)| {
            other != at && open.as_ref().is_some_and(|open| open.writes.contains_key(&id))
        })
    }

    fn expect_change(&self, at: usize, id: i32, seen: usize) -> Expected {
        let open = self.open[at].as_ref().unwrap();
        let view = self.model.view(open, seen);
        if !view.contains_key(&id) {
            return Expected::NoRow;
        }
        if open.writes.contains_key(&id) {
            return Expected::Done;
        }
        // The version it sees was replaced by a commit, whoever may hold the row's place now.
        if self.model.changed.get(&id).is_some_and(|changed| *changed > seen) {
            return Expected::Serialization;
        }
        if self.is_held(at, id) {
            Expected::Blocked
        } else {
            Expected::Done
        }
    }

    fn expect_insert(&self, at: usize, id: i32) -> Expected {
        let open = self.open[at].as_ref().unwrap();
        if self.is_held(at, id) {
            return Expected::Blocked;
        }
        let newest = self.model.view(open, self.model.last());
        if newest.contains_key(&id) {
            Expected::Duplicate
        } else {
            Expected::Done
        }
    }

    fn give_up(&mut self, at: usize) {
        if let Some(open) = self.open[at].take() {
            open.txn.rollback();
        }
    }

    fn change(&mut self, at: usize, id: i32, value: Option<i32>, seen: usize) {
        let expected = self.expect_change(at, id, seen);
        let table = Arc::clone(&self.table);
        let open = self.open[at].as_mut().unwrap();
        let snapshot = open.txn.snapshot();
        let found = find_at(&open.txn, &snapshot, &table, id);
        let Some(tid) = found else {
            assert_eq!(expected, Expected::NoRow);
            return;
        };
        let mut update = UpdateOp::new(table.clone(), tid, &values((id, value.unwrap_or(0)))).unwrap();
        let mut delete = DeleteOp::new(table, tid);
        let outcome = match value {
            Some(_) => update.step(&mut open.txn),
            None => delete.step(&mut open.txn),
        };
        match outcome {
            Ok(Step::Done(RowOutcome::Done(_))) => {
                assert_eq!(expected, Expected::Done, "{id}");
                open.writes.insert(id, value);
            }
            Ok(Step::Wait(_)) => {
                assert_eq!(expected, Expected::Blocked, "{id}");
                drop((update, delete));
                self.give_up(at);
            }
            Err(error) => {
                assert_eq!(error.sqlstate(), SqlState::SERIALIZATION_FAILURE);
                assert_eq!(expected, Expected::Serialization, "{id}");
                self.give_up(at);
            }
            Ok(Step::Done(other)) => panic!("{other:?} instead of {expected:?}"),
        }
    }

    fn insert(&mut self, at: usize, id: i32, value: i32) {
        let expected = self.expect_insert(at, id);
        let open = self.open[at].as_mut().unwrap();
        let mut op = InsertOp::new(self.table.clone(), &values((id, value))).unwrap();
        match op.step(&mut open.txn) {
            Ok(Step::Done(_)) => {
                assert_eq!(expected, Expected::Done, "{id}");
                open.writes.insert(id, Some(value));
            }
            Ok(Step::Wait(_)) => {
                assert_eq!(expected, Expected::Blocked, "{id}");
                drop(op);
                self.give_up(at);
            }
            Err(error) => {
                assert_eq!(error.sqlstate(), SqlState::UNIQUE_VIOLATION);
                assert_eq!(expected, Expected::Duplicate, "{id}");
                self.give_up(at);
            }
        }
    }

    fn read(&mut self, at: usize, seen: usize) {
        let open = self.open[at].as_mut().unwrap();
        let snapshot = open.txn.snapshot();
        let found: State = all_at(&open.txn, &snapshot, &self.table)
            .into_iter()
            .map(|(_, row)| row)
            .collect();
        assert_eq!(found, self.model.view(self.open[at].as_ref().unwrap(), seen));
    }

    fn commit(&mut self, at: usize) {
        let Some(open) = self.open[at].take() else { return };
        let wrote = open.txn.xid().is_some();
        commit(open.txn);
        if !wrote {
            return;
        }
        let mut state = self.model.states.last().unwrap().clone();
        let number = self.model.states.len();
        for (id, value) in open.writes {
            self.model.changed.insert(id, number);
            match value {
                Some(value) => state.insert(id, value),
                None => state.remove(&id),
            };
        }
        self.model.states.push(state);
    }

    fn vacuum(&mut self, freeze: bool) {
        let mut txn = self.rig.begin();
        let mut op = VacuumOp::new(&txn, self.table.clone(), VacuumOptions::freezing(freeze)).unwrap();
        while !matches!(op.step(&mut txn).unwrap(), VacuumStep::Done(_)) {}
    }

    fn run(&mut self, action: &Action, isolations: u8) {
        match *action {
            Action::Insert(at, id, value) => {
                let seen = self.start_statement(at, isolations);
                // A row deleted since its snapshot is still there for the transaction; its own would be a second one. Right, but
                // more than a map can say.
                if !self.model.states[seen].contains_key(&id) || seen == self.model.last() {
                    self.insert(at, id, value);
                }
            }
            Action::Update(at, id, value) => {
                let seen = self.start_statement(at, isolations);
                self.change(at, id, Some(value), seen);
            }
            Action::Delete(at, id) => {
                let seen = self.start_statement(at, isolations);
                self.change(at, id, None, seen);
            }
            Action::Read(at) => {
                let seen = self.start_statement(at, isolations);
                self.read(at, seen);
            }
            Action::Commit(at) => self.commit(at),
            Action::Rollback(at) => self.give_up(at),
            Action::Vacuum(freeze) => self.vacuum(freeze),
        }
        check_map(&self.rig.engine, &self.table);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("TOWLINE_MODEL_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(40),
        max_shrink_iters: 2000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn interleaved_transactions_see_what_the_model_says(
        actions in prop::collection::vec(action(), 1..120),
        isolations in 0u8..16,
    ) {
        let (mut world, isolations) = World::new(isolations);
        for action in &actions {
            world.run(action, isolations);
        }
        for at in 0..TRANSACTIONS {
            world.give_up(at);
        }
        let expected: Vec<Row> = world.model.states.last().unwrap().iter().map(|(id, value)| (*id, *value)).collect();
        prop_assert_eq!(world.rig.rows(&world.table), expected.clone());
        // The same after redo, and after redo has run twice (the second start redoes what the first one left dirty).
        let vfs = world.rig.crash();
        let rig = Rig::open(vfs);
        check_map(&rig.engine, &world.table);
        prop_assert_eq!(rig.rows(&world.table), expected.clone());
        let rig = Rig::open(rig.crash());
        prop_assert_eq!(rig.rows(&world.table), expected);
    }
}
