//! Large values: on the primary and its standby, through kills, and through psql and COPY.

use std::path::Path;
use std::process::Stdio;

use towline_integration_tests::client::Sql;
use towline_integration_tests::node::{Cluster, PATIENCE};
use towline_integration_tests::tools::psql;
use towline_integration_tests::wait::wait_until;

use crate::Case;

pub(crate) const CASES: fn() -> Vec<Case> = || {
    vec![
        Case::new(
            "large_values_are_whole_on_every_node_after_kills",
            &[],
            whole_after_kills,
        ),
        Case::new(
            "a_value_of_tens_of_megabytes_goes_through_psql_and_copy",
            &["psql"],
            through_psql,
        ),
    ]
};

/// `count` md5 sums one after the other: text that does not compress below a half.
fn sums(seed: &str, count: u32) -> String {
    format!("(select string_agg(md5(i::text || '{seed}'), '' order by i) from generate_series(1, {count}) i)")
}

fn contents(sql: &Sql) -> Vec<Vec<Option<String>>> {
    sql.query("select id, n, length(t), md5(t) from large order by id")
        .unwrap()
}

fn whole_after_kills() {
    let mut cluster = Cluster::start(1, &["synchronous_standby_names=ANY 1 (*)"]);
    let sql = cluster.primary().sql();
    sql.query("create table large (id int primary key, n int, t text)")
        .unwrap();
    for id in 1..=6_u32 {
        let insert = format!(
            "insert into large values ({id}, 0, {})",
            sums(&id.to_string(), id * 1500)
        );
        sql.query(&insert).unwrap();
    }
    sql.query(&format!(
        "update large set t = {} where id = 2",
        sums("new", 4000)
    ))
    .unwrap();
    sql.query("update large set n = n + 1 where id < 5; delete from large where id = 6")
        .unwrap();
    sql.query("vacuum large").unwrap();
    let mut expected = contents(&sql);
    assert_eq!(expected.len(), 5);
    let same_everywhere = |cluster: &Cluster, expected: &Vec<Vec<Option<String>>>, when: &str| {
        assert_eq!(&contents(&cluster.nodes[0].sql()), expected, "{when}");
        cluster.wait_for_standbys();
        wait_until(&format!("the standby to have the rows, {when}"), PATIENCE, || {
            &contents(&cluster.nodes[1].sql()) == expected
        });
    };
    same_everywhere(&cluster, &expected, "at first");
    for (victims, when) in [
        (vec![0], "the primary was killed"),
        (vec![1], "the standby was killed"),
        (vec![0, 1], "both were killed"),
    ] {
        // In the middle of a transaction with large values.
        let open = cluster.nodes[0].sql();
        open.query("begin").unwrap();
        open.query(&format!("update large set t = {} where id = 1", sums(when, 3000)))
            .unwrap();
        open.query(&format!(
            "insert into large values (100, 0, {})",
            sums("lost", 9000)
        ))
        .unwrap();
        open.query("delete from large where id = 3").unwrap();
        for victim in &victims {
            cluster.nodes[*victim].kill();
        }
        drop(open);
        for victim in &victims {
            cluster.nodes[*victim].start();
        }
        for victim in &victims {
            cluster.nodes[*victim].wait_ready();
        }
        same_everywhere(&cluster, &expected, when);
        // And on it goes.
        let sql = cluster.nodes[0].sql();
        sql.query(&format!("update large set t = {} where id = 3", sums(when, 2500)))
            .unwrap();
        sql.query("vacuum large").unwrap();
        expected = contents(&sql);
        same_everywhere(&cluster, &expected, when);
    }
}

/// Runs a script, and gives what it prints.
fn run(port: u16, script: &Path) -> Vec<u8> {
    let out = psql(port)
        .args(["-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-f"])
        .arg(script)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

/// Letters without a pattern.
fn letters(len: usize) -> Vec<u8> {
    let mut state = 0x2545_F491_4F6C_DD1D_u64;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            b'a' + (state % 26) as u8
        })
        .collect()
}

fn through_psql() {
    let mut cluster = Cluster::start(1, &["synchronous_standby_names=ANY 1 (*)"]);
    let port = cluster.primary().sql_port;
    let sql = cluster.primary().sql();
    sql.query("create table huge (id int primary key, t text)")
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name);
    let (first, second) = (letters(40 << 20), letters(24 << 20));
    // In by COPY, and as a literal.
    let mut line = b"1\t".to_vec();
    line.extend_from_slice(&first);
    line.push(b'\n');
    std::fs::write(file("in"), &line).unwrap();
    let mut insert = b"insert into huge values (2, '".to_vec();
    insert.extend_from_slice(&second);
    insert.extend_from_slice(b"');\n");
    let mut script = format!("\\copy huge from '{}'\n", file("in").display()).into_bytes();
    script.extend_from_slice(&insert);
    std::fs::write(file("script.sql"), script).unwrap();
    run(port, &file("script.sql"));
    // Out by COPY, and as a row: on the primary and on the standby.
    cluster.wait_for_standbys();
    for node in &cluster.nodes {
        let script = format!(
            "\\copy (select * from huge where id = 1) to '{}'\nselect t from huge where id = 2;\n",
            file("out").display()
        );
        std::fs::write(file("read.sql"), script).unwrap();
        let printed = run(node.sql_port, &file("read.sql"));
        assert!(
            printed.strip_suffix(b"\n") == Some(&second[..]),
            "the row read on {}",
            node.name
        );
        assert!(
            std::fs::read(file("out")).unwrap() == line,
            "COPY on {}",
            node.name
        );
    }
    let lengths = sql
        .query("update huge set id = id + 10 returning id, length(t), right(t, 5)")
        .unwrap();
    let tail = |bytes: &[u8]| Some(String::from_utf8_lossy(&bytes[bytes.len() - 5..]).into_owned());
    assert_eq!(
        lengths,
        [
            [Some("11".into()), Some((40 << 20).to_string()), tail(&first)],
            [Some("12".into()), Some((24 << 20).to_string()), tail(&second)],
        ]
    );
    // What is larger than a value may be is refused, and costs nothing else.
    let refused = sql.query("select length(repeat(t, 40)) from huge").unwrap_err();
    assert_eq!(refused.sqlstate.as_deref(), Some("54000"), "{}", refused.message);
    assert_eq!(
        sql.value("select count(*) from huge where length(t) > 20000000")
            .unwrap(),
        "2"
    );
}
