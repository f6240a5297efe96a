//! What a client of the mixed kill rounds does, and the model of it: a random transaction, and what the client owns once it has committed.
//!
//! Each client owns its rows of `ledger` and one table of its own, `side_<number>`, which comes and goes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use rand::Rng;
use rand::rngs::StdRng;

/// What all clients share.
pub(crate) const SCHEMA: &str = "create table ledger (owner int, id int, n bigint, v text, primary key (owner, id)); \
                                 create index ledger_n on ledger (n, owner, id)";

/// Rows of `ledger` above which a client deletes some.
const MANY_ROWS: usize = 60;
/// Rows of its own table above which it empties that.
const MANY_SIDE_ROWS: usize = 400;
/// Length of a value that is stored out of line.
const LARGE: usize = 20_000;

/// What a client owns.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Its rows of `ledger` by id.
    pub(crate) rows: BTreeMap<i32, (i64, Arc<str>)>,
    /// Its own table, while there is one.
    pub(crate) side: Option<Side>,
}

/// A client's own table.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub(crate) struct Side {
    /// Its rows by id.
    pub(crate) rows: BTreeMap<i32, i64>,
    /// Whether it has its second index.
    pub(crate) indexed: bool,
}

/// Without the large values.
impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short = |(n, v): &(i64, Arc<str>)| format!("{n} {} {:.8}", v.len(), v);
        let rows: BTreeMap<i32, String> = self.rows.iter().map(|(id, row)| (*id, short(row))).collect();
        f.debug_struct("State")
            .field("rows", &rows)
            .field("side", &self.side)
            .finish()
    }
}

/// A transaction, or a statement that changes nothing a client sees.
pub(crate) struct Work {
    /// What is sent, one text when the one before is answered. The last one commits.
    pub(crate) texts: Vec<String>,
    /// What follows the only text, which is a COPY.
    pub(crate) copy: Option<String>,
    /// What the client owns then.
    pub(crate) after: State,
}

/// Something to do for the client of this number.
pub(crate) fn plan(random: &mut StdRng, number: usize, before: &State) -> Work {
    let mut after = before.clone();
    let mut copy = None;
    let texts = match random.random_range(0..100) {
        0..35 => vec![change(random, number, &mut after)],
        35..70 => block(random, number, &mut after, "commit"),
        70..80 => {
            let texts = block(random, number, &mut after, "rollback");
            after = before.clone();
            texts
        }
        80..86 => {
            let rows = new_rows(random, 10, &mut after);
            let line = |(id, n, v): &(i32, i64, Arc<str>)| format!("{number}\t{id}\t{n}\t{v}\n");
            copy = Some(rows.iter().map(line).collect());
            vec!["copy ledger from stdin".to_owned()]
        }
        86..96 => vec![vacuum(random, number, before)],
        _ => vec!["checkpoint".to_owned()],
    };
    Work { texts, copy, after }
}

/// Several changes, in one text or one by one.
fn block(random: &mut StdRng, number: usize, state: &mut State, end: &str) -> Vec<String> {
    let mut texts = vec!["begin".to_owned()];
    for _ in 0..random.random_range(1..6) {
        texts.push(change(random, number, state));
    }
    texts.push(end.to_owned());
    if random.random_bool(0.5) {
        texts
    } else {
        vec![texts.join("; ")]
    }
}

fn vacuum(random: &mut StdRng, number: usize, state: &State) -> String {
    let freeze = if random.random_bool(0.3) { "freeze " } else { "" };
    match &state.side {
        Some(_) if random.random_bool(0.5) => format!("vacuum {freeze}side_{number}"),
        _ => format!("vacuum {freeze}ledger"),
    }
}

/// One statement that changes something.
fn change(random: &mut StdRng, number: usize, state: &mut State) -> String {
    if state.rows.len() > MANY_ROWS {
        let half = *state.rows.keys().nth(MANY_ROWS / 2).unwrap();
        state.rows = state.rows.split_off(&half);
        return format!("delete from ledger where owner = {number} and id < {half}");
    }
    let kind = random.random_range(0..20);
    if kind >= 14 {
        return change_side(random, number, state);
    }
    let some = random.random_range(0..state.rows.len().max(1));
    let Some((&id, row)) = state.rows.iter_mut().nth(some).filter(|_| kind >= 5) else {
        let values: Vec<String> = new_rows(random, 3, state)
            .iter()
            .map(|(id, n, v)| format!("({number}, {id}, {n}, '{v}')"))
            .collect();
        return format!("insert into ledger values {}", values.join(", "));
    };
    let one = format!("owner = {number} and id = {id}");
    match kind {
        5..8 => {
            row.0 += 1;
            format!("update ledger set n = n + 1 where {one}")
        }
        8..10 => {
            row.1 = text(random);
            format!("update ledger set v = '{}' where {one}", row.1)
        }
        10 => {
            for (n, _) in state.rows.range_mut(id..).map(|(_, row)| row) {
                *n -= 10;
            }
            format!("update ledger set n = n - 10 where owner = {number} and id >= {id}")
        }
        11 => {
            let row = row.clone();
            let new = free_id(random, state);
            state.rows.remove(&id);
            state.rows.insert(new, row);
            format!("update ledger set id = {new} where {one}")
        }
        _ => {
            state.rows.remove(&id);
            format!("delete from ledger where {one}")
        }
    }
}

fn change_side(random: &mut StdRng, number: usize, state: &mut State) -> String {
    let Some(side) = &mut state.side else {
        state.side = Some(Side::default());
        return format!("create table side_{number} (id int primary key, n bigint)");
    };
    if side.rows.len() > MANY_SIDE_ROWS {
        side.rows.clear();
        return format!("truncate side_{number}");
    }
    match random.random_range(0..10) {
        0 => {
            side.rows.clear();
            format!("truncate side_{number}")
        }
        1 => {
            state.side = None;
            format!("drop table side_{number}")
        }
        2 => {
            side.indexed = !side.indexed;
            if side.indexed {
                format!("create index side_{number}_n on side_{number} (n, id)")
            } else {
                format!("drop index side_{number}_n")
            }
        }
        3..5 => {
            side.rows.values_mut().for_each(|n| *n += 1);
            format!("update side_{number} set n = n + 1")
        }
        5 => {
            side.rows.retain(|id, _| id % 3 != 0);
            format!("delete from side_{number} where id % 3 = 0")
        }
        _ => {
            let first = side.rows.keys().next_back().map_or(0, |last| last + 1);
            let last = first + random.random_range(0..80);
            let n = random.random_range(0..1000);
            side.rows.extend((first..=last).map(|id| (id, n + i64::from(id))));
            format!("insert into side_{number} select i, {n} + i from generate_series({first}, {last}) i")
        }
    }
}

/// Up to so many rows with new ids, which are the client's from now on.
fn new_rows(random: &mut StdRng, most: usize, state: &mut State) -> Vec<(i32, i64, Arc<str>)> {
    let mut rows = Vec::new();
    for _ in 0..random.random_range(1..=most) {
        let (id, n) = (free_id(random, state), random.random_range(0..100_000));
        let v = text(random);
        state.rows.insert(id, (n, Arc::clone(&v)));
        rows.push((id, n, v));
    }
    rows
}

fn free_id(random: &mut StdRng, state: &State) -> i32 {
    loop {
        let id = random.random_range(0..10_000);
        if !state.rows.contains_key(&id) {
            return id;
        }
    }
}

/// Letters: mostly a few, now and then many, with and without a pattern.
fn text(random: &mut StdRng) -> Arc<str> {
    match random.random_range(0..20) {
        0 => "pattern ".repeat(LARGE / 8).into(),
        1 => letters(random, LARGE),
        2 => letters(random, LARGE / 8),
        _ => {
            let len = random.random_range(0..300);
            letters(random, len)
        }
    }
}

fn letters(random: &mut StdRng, len: usize) -> Arc<str> {
    let letters = (0..len).map(|_| char::from(random.random_range(b'a'..=b'z')));
    letters.collect::<String>().into()
}
