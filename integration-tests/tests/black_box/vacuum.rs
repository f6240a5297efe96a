//! Autovacuum and the wraparound of xids in real processes.

use towline_integration_tests::client::Sql;
use towline_integration_tests::node::{Cluster, PATIENCE};
use towline_integration_tests::wait::wait_until;

use crate::Case;

pub(crate) const CASES: fn() -> Vec<Case> = || {
    vec![
        Case::new(
            "autovacuum_comes_by_itself_and_its_standby_follows",
            &[],
            autovacuum_comes,
        ),
        Case::new("a_cluster_lives_on_when_xids_wrap_around", &[], xids_wrap_around),
    ]
};

const SYNC: &str = "synchronous_standby_names=ANY 1 (*)";

fn number(sql: &Sql, query: &str) -> i64 {
    sql.value(query).unwrap().parse().unwrap()
}

/// Redo is compared page by page.
fn autovacuum_comes() {
    let settings = [SYNC, "autovacuum_naptime=1s", "wal_consistency_checking=all"];
    let mut cluster = Cluster::start(1, &settings);
    let sql = cluster.primary().sql();
    for statement in [
        "create table t (id int primary key, v text)",
        "insert into t select i, 'row ' || i from generate_series(1, 4000) i",
        "delete from t where id % 4 <> 0",
    ] {
        sql.query(statement).unwrap();
    }
    // What the standby's readers may still see keeps it from removing rows in its first rounds.
    wait_until("autovacuum to remove the rows", PATIENCE, || {
        number(
            &sql,
            "select n_dead_tup from pg_stat_user_tables where relname = 't'",
        ) == 0
    });
    let stats = "select autovacuum_count > 0 and last_autovacuum > now() - interval '1 hour' and n_live_tup = 1000 \
                 and n_tup_ins = 4000 and n_tup_del = 3000 and vacuum_count = 0 from pg_stat_user_tables where relname = 't'";
    assert_eq!(sql.value(stats).unwrap(), "t");
    cluster.wait_for_standbys();
    let standby = cluster.nodes[1].sql();
    assert_eq!(number(&standby, "select count(*) from t"), 1000);
    // It does not hold a stop up.
    drop((sql, standby));
    assert_eq!(cluster.primary().stop(), Some(0));
}

fn xids_wrap_around() {
    let first = (1u64 << 32) - 400;
    let settings = [SYNC, "autovacuum_naptime=1s"];
    let mut cluster = Cluster::start_with(1, &settings, &["--first-xid", &first.to_string()]);
    let sql = cluster.primary().sql();
    sql.query("create table t (id int primary key, v int)").unwrap();
    sql.query("insert into t select i, 0 from generate_series(1, 50) i")
        .unwrap();
    let change = |sql: &Sql, round: i64| {
        let id = round % 50 + 1;
        sql.query(&format!("update t set v = v + 1 where id = {id}"))
            .unwrap();
    };
    (0..300).for_each(|round| change(&sql, round));
    drop(sql);
    // The log that is replayed has both epochs in it.
    cluster.primary().kill();
    cluster.primary().start_ready();
    let sql = cluster.primary().sql();
    (300..600).for_each(|round| change(&sql, round));
    let sum = "select sum(v) from t";
    assert_eq!(number(&sql, sum), 600);
    cluster.wait_for_standbys();
    let standby = cluster.nodes[1].sql();
    assert_eq!(number(&standby, sum), 600);
    assert_eq!(number(&standby, "select count(*) from t where v = 12"), 50);
    // The standby's feedback keeps what it may still read.
    wait_until("vacuum to freeze all but the youngest", PATIENCE, || {
        sql.query("vacuum freeze").unwrap();
        let ages = "select max(age(relfrozenxid)) from pg_class where relkind = 'r'";
        number(&sql, ages) < 1000 && number(&sql, "select age(datfrozenxid) from pg_database") < 1000
    });
    sql.query("checkpoint").unwrap();
    cluster.wait_for_standbys();
    let oldest = "select datfrozenxid from pg_database";
    wait_until("the standby to know the oldest xid", PATIENCE, || {
        standby.value(oldest).unwrap() == sql.value(oldest).unwrap()
    });
    assert_eq!(number(&standby, sum), 600);
    drop((sql, standby));
    for node in &mut cluster.nodes {
        node.kill();
    }
    for node in &mut cluster.nodes {
        node.start();
    }
    for node in &mut cluster.nodes {
        node.wait_ready();
    }
    let sql = cluster.primary().sql();
    change(&sql, 0);
    assert_eq!(number(&sql, sum), 601);
    cluster.wait_for_standbys();
    assert_eq!(number(&cluster.nodes[1].sql(), sum), 601);
}
