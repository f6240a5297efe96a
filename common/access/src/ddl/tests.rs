//! DDL: what it makes, that it is transactional, that it survives a restart, and its refusals.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use towline_base::{ForkKind, Oid};
use towline_types::{ColumnType, Datum, TypeId};

use super::*;
use crate::btree::check;
use crate::catalog::{BOOTSTRAP_SUPERUSER, Relation, Table};
use crate::heap::HeapScan;
use crate::ops::InsertOp;
use crate::testing::*;
use crate::{AccessError, Step, Transaction};

fn run(txn: &mut Transaction, statement: Statement) -> std::result::Result<DdlOutcome, AccessError> {
    txn.begin_statement();
    let mut op = DdlOp::new(statement, BOOTSTRAP_SUPERUSER);
    let outcome = try_done(txn, |txn| op.step(txn));
    txn.end_statement();
    outcome
}

fn ddl(rig: &Rig, statement: Statement) -> DdlOutcome {
    let mut txn = rig.begin();
    let outcome = run(&mut txn, statement).unwrap();
    commit(txn);
    outcome
}

fn refused(rig: &Rig, statement: Statement) -> (String, String) {
    let mut txn = rig.begin();
    let error = run(&mut txn, statement).unwrap_err();
    (error.sqlstate().code().to_owned(), error.message().to_owned())
}

fn column(name: &str, id: TypeId) -> NewColumn {
    NewColumn {
        name: name.into(),
        column_type: ColumnType::from(id),
        not_null: false,
        default: None,
    }
}

fn create(name: &str) -> CreateTable {
    CreateTable {
        name: QualifiedName::new(name),
        if_not_exists: false,
        columns: vec![
            column("id", TypeId::Int4),
            column("value", TypeId::Int4),
            column("pad", TypeId::Text),
        ],
        constraints: vec![NewConstraint {
            primary: true,
            name: None,
            columns: vec!["id".into()],
            fillfactor: None,
        }],
        fillfactor: Some(80),
    }
}

fn add_key(table: &str, primary: bool, columns: &[&str]) -> Statement {
    Statement::AlterTable(AlterTable {
        name: QualifiedName::new(table),
        if_exists: false,
        actions: vec![AlterTableAction::AddConstraint(NewConstraint {
            primary,
            name: None,
            columns: columns.iter().map(|name| (*name).to_owned()).collect(),
            fillfactor: None,
        })],
    })
}

fn drop_of(kind: DropKind, name: &str, if_exists: bool) -> Statement {
    Statement::Drop(Drop {
        kind,
        names: vec![QualifiedName::new(name)],
        if_exists,
        cascade: false,
    })
}

fn find(rig: &Rig, name: &str) -> Option<Arc<Table>> {
    let mut txn = rig.begin();
    find_in(&mut txn, name)
}

fn find_in(txn: &mut Transaction, name: &str) -> Option<Arc<Table>> {
    let engine = Arc::clone(txn.engine());
    let view = engine.catalog().view(txn).unwrap();
    match view.find_relation(None, name, &["public"])? {
        Relation::Table(table) => Some(Arc::clone(table)),
        Relation::Index(_) => None,
    }
}

fn count(txn: &mut Transaction, table: &Table) -> usize {
    let snapshot = txn.begin_statement();
    let mut scan = HeapScan::new(txn, table.node).unwrap();
    let mut count = 0;
    while scan.next_page(txn, &snapshot).unwrap() {
        count += scan.rows().count();
    }
    count
}

#[test]
fn a_created_table_has_its_columns_and_key_and_takes_rows() {
    let rig = Rig::new();
    let mut statement = create("t");
    statement.columns[1].default = Some("7".into());
    ddl(&rig, Statement::CreateTable(statement));
    let t = find(&rig, "t").unwrap();
    assert!(t.oid.0 >= 16384);
    assert_eq!(&*t.schema_name, "public");
    assert_eq!(t.fillfactor, 80);
    let columns: Vec<_> = t
        .columns
        .iter()
        .map(|c| (&*c.name, c.column_type.id, c.not_null, c.default.as_deref()))
        .collect();
    assert_eq!(
        columns,
        vec![
            ("id", TypeId::Int4, true, None),
            ("value", TypeId::Int4, false, Some("7")),
            ("pad", TypeId::Text, false, None)
        ]
    );
    let key = t.primary_key().unwrap();
    assert_eq!(&*key.name, "t_pkey");
    assert!(key.unique && key.constraint.is_some());
    let mut txn = rig.begin();
    for id in 0..300 {
        insert(&mut txn, &t, (id, id * 2));
    }
    commit(txn);
    let mut txn = rig.begin();
    txn.begin_statement();
    let mut op = InsertOp::new(Arc::clone(&t), &values((7, 7))).unwrap();
    let error = try_done(&mut txn, |txn| op.step(txn)).unwrap_err();
    assert_eq!(error.sqlstate().code(), "23505");
    assert_eq!(
        error.message(),
        "duplicate key value violates unique constraint \"t_pkey\""
    );
    assert_eq!(
        error.fields().detail.as_deref(),
        Some("Key (id)=(7) already exists.")
    );
    drop(txn);
    assert_eq!(check(rig.engine.storage().pool(), key).unwrap().places.len(), 300);
}

#[test]
fn ddl_is_seen_by_its_own_transaction_and_by_others_after_commit() {
    let rig = Rig::new();
    let mut txn = rig.begin();
    run(&mut txn, Statement::CreateTable(create("t"))).unwrap();
    let own = find_in(&mut txn, "t").unwrap();
    assert!(find(&rig, "t").is_none());
    insert(&mut txn, &own, (1, 1));
    commit(txn);
    assert_eq!(find(&rig, "t").unwrap().oid, own.oid);
    assert_eq!(rig.rows(&own), vec![(1, 1)]);
}

#[test]
fn a_rolled_back_create_leaves_neither_rows_nor_names_nor_files() {
    let rig = Rig::new();
    let mut txn = rig.begin();
    run(&mut txn, Statement::CreateTable(create("t"))).unwrap();
    let t = find_in(&mut txn, "t").unwrap();
    txn.rollback();
    assert!(find(&rig, "t").is_none());
    ddl(&rig, Statement::CreateTable(create("t")));
    assert_ne!(find(&rig, "t").unwrap().node, t.node);
}

#[test]
fn a_dropped_table_comes_back_with_rollback_and_goes_with_commit() {
    let rig = Rig::new();
    ddl(&rig, Statement::CreateTable(create("t")));
    let t = find(&rig, "t").unwrap();
    let mut txn = rig.begin();
    insert(&mut txn, &t, (1, 1));
    commit(txn);
    let mut txn = rig.begin();
    run(&mut txn, drop_of(DropKind::Table, "t", false)).unwrap();
    assert!(find_in(&mut txn, "t").is_none());
    txn.rollback();
    assert_eq!(rig.rows(&find(&rig, "t").unwrap()), vec![(1, 1)]);
    ddl(&rig, drop_of(DropKind::Table, "t", false));
    assert!(find(&rig, "t").is_none());
    let outcome = ddl(&rig, drop_of(DropKind::Table, "t", true));
    assert_eq!(outcome.notices[0].1, "table \"t\" does not exist, skipping");
}

#[test]
fn truncate_gives_empty_files_and_can_be_rolled_back() {
    let rig = Rig::new();
    ddl(&rig, Statement::CreateTable(create("t")));
    let t = find(&rig, "t").unwrap();
    let mut txn = rig.begin();
    (0..50).for_each(|id| {
        insert(&mut txn, &t, (id, id));
    });
    commit(txn);
    let truncate = || {
        Statement::Truncate(Truncate {
            tables: vec![QualifiedName::new("t")],
        })
    };
    let mut txn = rig.begin();
    run(&mut txn, truncate()).unwrap();
    let empty = find_in(&mut txn, "t").unwrap();
    assert_eq!(count(&mut txn, &empty), 0);
    insert(&mut txn, &empty, (5, 5));
    txn.rollback();
    assert_eq!(rig.rows(&find(&rig, "t").unwrap()).len(), 50);
    ddl(&rig, truncate());
    let t = find(&rig, "t").unwrap();
    assert_eq!(rig.rows(&t), vec![]);
    let mut txn = rig.begin();
    insert(&mut txn, &t, (5, 5));
    commit(txn);
    assert_eq!(
        check(rig.engine.storage().pool(), t.primary_key().unwrap())
            .unwrap()
            .places
            .len(),
        1
    );
}

#[test]
fn keys_are_added_to_tables_with_rows() {
    let rig = Rig::new();
    let mut statement = create("t");
    statement.constraints.clear();
    ddl(&rig, Statement::CreateTable(statement));
    let t = find(&rig, "t").unwrap();
    let mut txn = rig.begin();
    let tids: Vec<_> = (0..2000).map(|id| insert(&mut txn, &t, (id, id % 100))).collect();
    commit(txn);
    // Chains whose root is not the live version.
    let mut txn = rig.begin();
    for (id, tid) in tids.iter().enumerate().step_by(7) {
        update(&mut txn, &t, *tid, (id as i32, -1));
    }
    commit(txn);
    ddl(&rig, add_key("t", true, &["id"]));
    let t = find(&rig, "t").unwrap();
    assert!(t.columns[0].not_null);
    let key = t.primary_key().unwrap();
    assert_eq!(
        check(rig.engine.storage().pool(), key).unwrap().places.len(),
        2000
    );
    let mut txn = rig.begin();
    let snapshot = txn.begin_statement();
    for id in [0, 7, 8, 1999] {
        let bounds = crate::btree::ScanBounds::equal(vec![Datum::Int4(id)]);
        let mut scan =
            crate::btree::IndexScan::new(Arc::clone(key), &bounds, crate::btree::Direction::Forward).unwrap();
        let tid = scan.next(rig.engine.storage().pool()).unwrap().unwrap();
        let row = crate::heap::fetch::fetch(&txn, &snapshot, t.node, tid)
            .unwrap()
            .unwrap();
        assert_eq!(decode(&t, row.tuple()).0, id);
    }
    drop(txn);
    let (state, message) = refused(&rig, add_key("t", false, &["value"]));
    assert_eq!(
        (state.as_str(), message.as_str()),
        ("23505", "could not create unique index \"t_value_key\"")
    );
    let (state, message) = refused(&rig, add_key("t", true, &["id"]));
    assert_eq!(
        (state.as_str(), message.as_str()),
        ("42P16", "multiple primary keys for table \"t\" are not allowed")
    );
}

#[test]
fn a_primary_key_refuses_nulls_that_are_there() {
    let rig = Rig::new();
    let mut statement = create("t");
    statement.constraints.clear();
    ddl(&rig, Statement::CreateTable(statement));
    let t = find(&rig, "t").unwrap();
    let mut txn = rig.begin();
    txn.begin_statement();
    let mut op = InsertOp::new(t, &[Datum::Null, Datum::Int4(1), Datum::Null]).unwrap();
    done(&mut txn, |txn| op.step(txn));
    commit(txn);
    let (state, message) = refused(&rig, add_key("t", true, &["id"]));
    assert_eq!(
        (state.as_str(), message.as_str()),
        ("23502", "column \"id\" of relation \"t\" contains null values")
    );
}

#[test]
fn indexes_are_created_named_and_dropped() {
    let rig = Rig::new();
    ddl(&rig, Statement::CreateTable(create("t")));
    let index = |name: Option<&str>| {
        Statement::CreateIndex(CreateIndex {
            name: name.map(str::to_owned),
            if_not_exists: false,
            table: QualifiedName::new("t"),
            unique: false,
            keys: vec![
                NewIndexKey {
                    column: "value".into(),
                    descending: true,
                    nulls_first: true,
                },
                NewIndexKey {
                    column: "pad".into(),
                    descending: false,
                    nulls_first: false,
                },
            ],
            fillfactor: None,
        })
    };
    ddl(&rig, index(None));
    ddl(&rig, index(None));
    let t = find(&rig, "t").unwrap();
    let names: Vec<_> = t.indexes.iter().map(|index| index.name.to_string()).collect();
    assert_eq!(names, ["t_pkey", "t_value_pad_idx", "t_value_pad_idx1"]);
    assert!(t.indexes[1].keys[0].descending && t.indexes[1].keys[0].nulls_first);
    assert_eq!(refused(&rig, index(Some("t_pkey"))).0, "42P07");
    ddl(&rig, drop_of(DropKind::Index, "t_value_pad_idx", false));
    assert_eq!(find(&rig, "t").unwrap().indexes.len(), 2);
    let (state, message) = refused(&rig, drop_of(DropKind::Index, "t_pkey", false));
    assert_eq!(state, "2BP01");
    assert_eq!(
        message,
        "cannot drop index t_pkey because constraint t_pkey on table t requires it"
    );
}

#[test]
fn refusals_have_postgresqls_words() {
    let rig = Rig::new();
    ddl(&rig, Statement::CreateTable(create("t")));
    let both = |outcome: (String, String), state: &str, message: &str| {
        assert_eq!((outcome.0.as_str(), outcome.1.as_str()), (state, message));
    };
    both(
        refused(&rig, Statement::CreateTable(create("t"))),
        "42P07",
        "relation \"t\" already exists",
    );
    let mut twice = create("u");
    twice.columns.push(column("id", TypeId::Int4));
    both(
        refused(&rig, Statement::CreateTable(twice)),
        "42701",
        "column \"id\" specified more than once",
    );
    let mut missing = create("u");
    missing.constraints[0].columns = vec!["x".into()];
    both(
        refused(&rig, Statement::CreateTable(missing)),
        "42703",
        "column \"x\" named in key does not exist",
    );
    let mut schema = create("u");
    schema.name.schema = Some("nowhere".into());
    both(
        refused(&rig, Statement::CreateTable(schema)),
        "3F000",
        "schema \"nowhere\" does not exist",
    );
    both(
        refused(&rig, drop_of(DropKind::Table, "x", false)),
        "42P01",
        "table \"x\" does not exist",
    );
    both(
        refused(&rig, drop_of(DropKind::Index, "x", false)),
        "42704",
        "index \"x\" does not exist",
    );
    both(
        refused(&rig, drop_of(DropKind::Table, "pg_class", false)),
        "42501",
        "permission denied: \"pg_class\" is a system catalog",
    );
    both(
        refused(&rig, add_key("x", true, &["id"])),
        "42P01",
        "relation \"x\" does not exist",
    );
    let mut again = create("t");
    again.if_not_exists = true;
    assert_eq!(
        ddl(&rig, Statement::CreateTable(again)).notices[0].1,
        "relation \"t\" already exists, skipping"
    );
}

#[test]
fn roles_and_schemas_come_change_and_go() {
    let rig = Rig::new();
    let options = RoleOptions {
        can_login: Some(true),
        password: Some(Some("SCRAM-SHA-256$4096:x$y:z".into())),
        ..RoleOptions::default()
    };
    ddl(
        &rig,
        Statement::CreateRole(CreateRole {
            name: "ann".into(),
            options: options.clone(),
        }),
    );
    let role = |name: &str| {
        rig.engine
            .catalog()
            .shared(&rig.engine)
            .unwrap()
            .role(name)
            .cloned()
    };
    let ann = role("ann").unwrap();
    assert!(ann.can_login && !ann.superuser && ann.password.is_some());
    assert_eq!(
        refused(
            &rig,
            Statement::CreateRole(CreateRole {
                name: "ann".into(),
                options
            })
        )
        .0,
        "42710"
    );
    let change = RoleOptions {
        password: Some(None),
        superuser: Some(true),
        ..RoleOptions::default()
    };
    ddl(
        &rig,
        Statement::AlterRole(AlterRole {
            name: "ann".into(),
            options: change,
        }),
    );
    let ann = role("ann").unwrap();
    assert!(ann.superuser && ann.password.is_none() && ann.can_login);
    ddl(
        &rig,
        Statement::DropRole(DropRole {
            names: vec!["ann".into()],
            if_exists: false,
        }),
    );
    assert!(role("ann").is_none());
    assert!(role("postgres").unwrap().superuser);

    ddl(
        &rig,
        Statement::CreateSchema(CreateSchema {
            name: "s".into(),
            if_not_exists: false,
        }),
    );
    let mut statement = create("t");
    statement.name.schema = Some("s".into());
    ddl(&rig, Statement::CreateTable(statement));
    let mut drop = Drop {
        kind: DropKind::Schema,
        names: vec![QualifiedName::new("s")],
        if_exists: false,
        cascade: false,
    };
    assert_eq!(refused(&rig, Statement::Drop(drop.clone())).0, "2BP01");
    drop.cascade = true;
    assert_eq!(
        ddl(&rig, Statement::Drop(drop)).notices[0].1,
        "drop cascades to table s.t"
    );
}

#[test]
fn the_catalog_survives_a_crash_and_a_restart() {
    let rig = Rig::new();
    ddl(&rig, Statement::CreateTable(create("t")));
    ddl(&rig, Statement::CreateTable(create("gone")));
    ddl(&rig, drop_of(DropKind::Table, "gone", false));
    let t = find(&rig, "t").unwrap();
    let mut txn = rig.begin();
    (0..100).for_each(|id| {
        insert(&mut txn, &t, (id, id));
    });
    commit(txn);
    let rig = Rig::open(rig.crash());
    let t = find(&rig, "t").unwrap();
    assert!(find(&rig, "gone").is_none());
    assert_eq!(rig.rows(&t).len(), 100);
    assert_eq!(
        check(rig.engine.storage().pool(), t.primary_key().unwrap())
            .unwrap()
            .places
            .len(),
        100
    );
    rig.engine.shutdown().unwrap();
    let rig = Rig::open(rig.crash());
    assert_eq!(rig.rows(&find(&rig, "t").unwrap()).len(), 100);
    ddl(&rig, Statement::CreateTable(create("u")));
    assert_ne!(find(&rig, "u").unwrap().oid, t.oid);
}

#[test]
fn a_writer_that_waited_for_create_index_finds_the_index() {
    let rig = Rig::new();
    ddl(&rig, Statement::CreateTable(create("t")));
    let mut maker = rig.begin();
    run(&mut maker, add_key("t", false, &["value"])).unwrap();
    let mut writer = rig.begin();
    let t = find_in(&mut writer, "t").unwrap();
    assert_eq!(t.indexes.len(), 1);
    let tag = crate::locks::LockTag::Relation(t.oid.0);
    let Step::Wait(wait) = writer.lock(tag, crate::locks::LockMode::RowExclusive).unwrap() else {
        panic!("the table is locked against writers");
    };
    commit(maker);
    assert!(wait.block(Duration::from_secs(20)).unwrap());
    assert!(matches!(
        writer.lock(tag, crate::locks::LockMode::RowExclusive).unwrap(),
        Step::Done(())
    ));
    assert_eq!(find_in(&mut writer, "t").unwrap().indexes.len(), 2);
}

#[test]
fn columns_are_added_renamed_and_dropped() {
    let rig = Rig::new();
    ddl(&rig, Statement::CreateTable(create("t")));
    let t = find(&rig, "t").unwrap();
    let mut txn = rig.begin();
    insert(&mut txn, &t, (1, 2));
    commit(txn);
    let alter = |actions: Vec<AlterTableAction>| {
        Statement::AlterTable(AlterTable {
            name: QualifiedName::new("t"),
            if_exists: false,
            actions,
        })
    };
    ddl(
        &rig,
        alter(vec![
            AlterTableAction::AddColumn(column("extra", TypeId::Int8)),
            AlterTableAction::RenameColumn {
                from: "id".into(),
                to: "key".into(),
            },
            AlterTableAction::SetDefault {
                column: "extra".into(),
                default: Some("1".into()),
            },
            AlterTableAction::DropColumn {
                column: "pad".into(),
                if_exists: false,
            },
            AlterTableAction::RenameTable("u".into()),
        ]),
    );
    let t = find(&rig, "u").unwrap();
    assert!(find(&rig, "t").is_none());
    let names: Vec<_> = t.live_columns().map(|column| column.name.to_string()).collect();
    assert_eq!(names, ["key", "value", "extra"]);
    assert_eq!(t.column("extra").unwrap().default.as_deref(), Some("1"));
    let mut txn = rig.begin();
    let snapshot = txn.begin_statement();
    let mut scan = HeapScan::new(&txn, t.node).unwrap();
    assert!(scan.next_page(&txn, &snapshot).unwrap());
    let (_, tuple) = scan.next_row().unwrap();
    let mut row = Vec::new();
    t.layout
        .deform(tuple.data(), tuple.bitmap(), tuple.natts(), &mut row)
        .unwrap();
    assert!(matches!(row[1], Datum::Int4(2)) && row[3].is_null());
}

#[test]
fn new_object_ids_are_above_all_that_were_ever_used() {
    let rig = Rig::new();
    let mut seen: Vec<Oid> = Vec::new();
    for _ in 0..3 {
        ddl(&rig, Statement::CreateTable(create("t")));
        let t = find(&rig, "t").unwrap();
        assert!(!seen.contains(&t.oid));
        assert!(
            rig.engine
                .storage()
                .smgr()
                .exists(t.node, ForkKind::Main)
                .unwrap()
        );
        seen.push(t.oid);
        ddl(&rig, drop_of(DropKind::Table, "t", false));
    }
}
