//! Our texts, errors and numeric results against PostgreSQL 15's, recorded in `oracle/*.tsv` by `oracle/generate.sh`.
#![allow(clippy::unwrap_used)]

use bytes::BytesMut;
use towline_types::numeric::Numeric;
use towline_types::{ColumnType, Datum, IoStyle, TypeError, TypeId, cast, parse_text, write_text};

fn column_type(name: &str) -> ColumnType {
    let (base, array) = name.strip_suffix("[]").map_or((name, false), |b| (b, true));
    let (base, modifiers) = match base.split_once('(') {
        None => (base, vec![]),
        Some((b, m)) => (
            b,
            m.trim_end_matches(')')
                .split(',')
                .map(|x| x.parse().unwrap())
                .collect(),
        ),
    };
    let id = if base == "\"char\"" {
        TypeId::Char
    } else {
        TypeId::from_name(base).unwrap()
    };
    let ty = if modifiers.is_empty() {
        ColumnType::new(id)
    } else {
        ColumnType::with_modifiers(id, &modifiers).unwrap()
    };
    if array {
        ColumnType {
            id: id.array().unwrap(),
            typmod: ty.typmod,
        }
    } else {
        ty
    }
}

fn show_error(e: &TypeError) -> String {
    let hint = e.hint().map(|h| format!(" HINT {h}")).unwrap_or_default();
    format!("!{} {}{hint}", e.sqlstate().code(), e.message())
}

fn new_york() -> IoStyle {
    let mut style = IoStyle::default();
    style.set_time_zone("America/New_York").unwrap();
    style
}

fn report(failures: &[String], total: usize) {
    assert!(
        failures.is_empty(),
        "{} of {total} differ:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

#[test]
fn text_input_and_output_equal_postgresqls() {
    let style = new_york();
    let mut failures = Vec::new();
    let lines: Vec<&str> = include_str!("oracle/expectations.tsv").lines().collect();
    for line in &lines {
        let (input, expected) = line.rsplit_once('\t').unwrap();
        let (ty, text) = input.split_once('|').unwrap();
        let got = match parse_text(column_type(ty), text, &style) {
            Ok(value) => {
                let mut out = BytesMut::new();
                write_text(&value, &style, &mut out);
                String::from_utf8(out.to_vec()).unwrap()
            }
            Err(e) => show_error(&e),
        };
        if got != expected {
            failures.push(format!("{ty} {text:?}\n  expected {expected}\n       got {got}"));
        }
    }
    report(&failures, lines.len());
}

fn literal(text: &str) -> (Datum, &str) {
    let rest = text.strip_prefix('\'').unwrap();
    let (value, rest) = rest.split_once('\'').unwrap();
    let (ty, rest) = [
        ("::numeric", TypeId::Numeric),
        ("::float8", TypeId::Float8),
        ("::float4", TypeId::Float4),
    ]
    .iter()
    .find_map(|(s, t)| rest.strip_prefix(s).map(|r| (*t, r)))
    .unwrap();
    (parse_text(ty.into(), value, &IoStyle::default()).unwrap(), rest)
}

fn numeric(d: Datum) -> Numeric {
    match d {
        Datum::Numeric(n) => n,
        other => panic!("{other:?}"),
    }
}

fn evaluate(text: &str) -> Result<Datum, TypeError> {
    let n = Datum::Numeric;
    if text.starts_with('\'') {
        let (left, rest) = literal(text);
        if let Some(target) = rest.strip_prefix("::") {
            let to = TypeId::from_name(target).unwrap();
            return cast::cast(&left, left.type_id(), to.into(), true, &IoStyle::default());
        }
        let (left, right) = (numeric(left), numeric(literal(&rest[3..]).0));
        return match rest.as_bytes()[1] {
            b'+' => left.add(&right),
            b'-' => left.sub(&right),
            b'*' => left.mul(&right),
            b'/' => left.div(&right),
            _ => left.rem(&right),
        }
        .map(n);
    }
    let (function, args) = text.strip_suffix(')').unwrap().split_once('(').unwrap();
    let (first, rest) = literal(args);
    let a = numeric(first);
    let second = rest.strip_prefix(", ");
    let scale = |s: &str| s.parse::<i32>().unwrap();
    let other = |s: &str| numeric(literal(s).0);
    match (function, second) {
        ("sqrt", None) => a.sqrt(),
        ("exp", None) => a.exp(),
        ("ln", None) => a.ln(),
        ("log", None) => a.log(&Numeric::from(10)),
        ("log", Some(x)) => other(x).log(&a),
        ("abs", None) => Ok(a.abs()),
        ("sign", None) => Ok(a.sign()),
        ("ceil", None) => a.ceil(),
        ("floor", None) => a.floor(),
        ("round", None) => a.round(0),
        ("trunc", None) => a.trunc(0),
        ("round", Some(s)) => a.round(scale(s)),
        ("trunc", Some(s)) => a.trunc(scale(s)),
        ("trim_scale", None) => a.trim_scale(),
        ("power", Some(e)) => a.power(&other(e)),
        ("div", Some(e)) => a.div_trunc(&other(e)),
        ("gcd", Some(e)) => a.gcd(&other(e)),
        _ => panic!("{text}"),
    }
    .map(n)
}

#[test]
fn numeric_results_equal_postgresqls_to_the_last_digit() {
    let mut failures = Vec::new();
    let lines: Vec<&str> = include_str!("oracle/numeric.tsv").lines().collect();
    for line in &lines {
        let (input, expected) = line.rsplit_once('\t').unwrap();
        let got = match evaluate(input) {
            Ok(value) => {
                let mut out = BytesMut::new();
                write_text(&value, &IoStyle::default(), &mut out);
                String::from_utf8(out.to_vec()).unwrap()
            }
            Err(e) => show_error(&e),
        };
        if got != expected {
            failures.push(format!("{input}\n  expected {expected}\n       got {got}"));
        }
    }
    report(&failures, lines.len());
}
