//! Types, values and errors of constant expressions against PostgreSQL 15's, recorded in `expectations.tsv` by
//! `generate.sh`.
#![allow(clippy::unwrap_used)]

use super::{CallOptions, EvalContext, ExprBuilder, NoContext, NoSubqueries, ResolvedCall, ScalarExpr};
use crate::bind::{BindContext, bind_scalar};
use crate::error::SqlError;
use crate::parse::parse_expression;
use towline_types::{ColumnType, Datum, IoStyle, TypeId, text_of};

fn evaluate(text: &str, style: &IoStyle) -> Result<String, SqlError> {
    let catalog = towline_access::catalog::CatalogState::default();
    let parsed = parse_expression(text)?;
    let cx = BindContext {
        text,
        catalog: &catalog,
        search_path: &["pg_catalog", "public"],
        style,
        params: true,
    };
    let bound = bind_scalar(&parsed, None, cx)?;
    let cx = EvalContext {
        params: &[],
        outer: &[],
        style,
        functions: &NoContext,
        subqueries: &NoSubqueries,
    };
    let value = bound.eval(&[], &cx)?;
    let shown = match &value {
        Datum::Null => "NULL".to_string(),
        Datum::Oid(oid) if bound.ty().id == towline_types::TypeId::Regtype => {
            towline_types::TypeId::from_oid(*oid)
                .unwrap()
                .sql_name()
                .to_string()
        }
        value => text_of(value, style),
    };
    Ok(format!("{}|{shown}", bound.ty().id.sql_name()))
}

#[test]
fn constant_expressions_equal_postgresqls() {
    let mut style = IoStyle::default();
    style.set_time_zone("America/New_York").unwrap();
    let lines: Vec<&str> = include_str!("expectations.tsv").lines().collect();
    let mut failures = Vec::new();
    for line in &lines {
        let (input, expected) = line.rsplit_once('\t').unwrap();
        let got = evaluate(input, &style).unwrap_or_else(|e| {
            let hint = e
                .fields()
                .hint
                .as_ref()
                .map(|h| format!(" HINT {h}"))
                .unwrap_or_default();
            format!("!{} {}{hint}", e.sqlstate().code(), e.message())
        });
        if got != *expected {
            failures.push(format!("{input}\n  expected {expected}\n       got {got}"));
        }
    }
    assert!(
        failures.is_empty(),
        "{} of {} differ:\n{}",
        failures.len(),
        lines.len(),
        failures.join("\n")
    );
}

/// One aggregate over the rows (1, 1.5, 1.5::float8, 'b'), (2, 2.25, 2.25, 'a'), NULLs, (4, -3.125, 4.5, 'a').
fn aggregate(name: &str, columns: &[usize], options: CallOptions) -> String {
    let types = [TypeId::Int4, TypeId::Numeric, TypeId::Float8, TypeId::Text];
    let numeric = |s: &str| Datum::Numeric(s.parse().unwrap());
    let rows = [
        vec![
            Datum::Int4(1),
            numeric("1.5"),
            Datum::Float8(1.5),
            Datum::text("b"),
        ],
        vec![
            Datum::Int4(2),
            numeric("2.25"),
            Datum::Float8(2.25),
            Datum::text("a"),
        ],
        vec![Datum::Null, Datum::Null, Datum::Null, Datum::Null],
        vec![
            Datum::Int4(4),
            numeric("-3.125"),
            Datum::Float8(4.5),
            Datum::text("a"),
        ],
    ];
    let style = IoStyle::default();
    let (mut params, star) = (Vec::new(), options.star);
    let mut builder = ExprBuilder::new(&mut params, &style);
    let column = |index: usize| ScalarExpr::Column {
        index,
        ty: types[index].into(),
    };
    let mut args: Vec<ScalarExpr> = columns.iter().map(|i| column(*i)).collect();
    if name == "string_agg" {
        args.push(builder.string(","));
    }
    assert!(!star || args.is_empty());
    let ResolvedCall::Aggregate(call) = builder.call(name, args, options).unwrap() else {
        panic!("{name}")
    };
    let cx = EvalContext {
        params: &[],
        outer: &[],
        style: &style,
        functions: &NoContext,
        subqueries: &NoSubqueries,
    };
    let mut state = call.new_state();
    rows.iter()
        .for_each(|row| call.accumulate(&mut state, row, &cx).unwrap());
    text_of(&call.finish(state).unwrap(), &style)
}

#[test]
fn aggregates_equal_postgresqls() {
    for (name, column, expected) in [
        ("count", 0, "3"),
        ("sum", 0, "7"),
        ("avg", 0, "2.3333333333333333"),
        ("min", 0, "1"),
        ("max", 0, "4"),
        ("stddev", 0, "1.5275252316519467"),
        ("stddev_pop", 0, "1.2472191289246471"),
        ("variance", 0, "2.3333333333333333"),
        ("var_pop", 0, "1.5555555555555556"),
        ("sum", 1, "0.625"),
        ("avg", 1, "0.20833333333333333333"),
        ("variance", 1, "8.4739583333333333"),
        ("sum", 2, "8.25"),
        ("avg", 2, "2.75"),
        ("stddev", 2, "1.5612494995995996"),
        ("string_agg", 3, "b,a,a"),
        ("array_agg", 0, "{1,2,NULL,4}"),
        ("min", 3, "a"),
        ("max", 3, "b"),
        ("bit_or", 0, "7"),
        ("bit_and", 0, "0"),
    ] {
        assert_eq!(
            aggregate(name, &[column], CallOptions::default()),
            expected,
            "{name} of column {column}"
        );
    }
    let distinct = || CallOptions {
        distinct: true,
        ..CallOptions::default()
    };
    assert_eq!(aggregate("count", &[3], distinct()), "2");
    assert_eq!(aggregate("string_agg", &[3], distinct()), "a,b");
    let star = CallOptions {
        star: true,
        ..CallOptions::default()
    };
    assert_eq!(aggregate("count", &[], star), "4");
    let text = ScalarExpr::Column {
        index: 3,
        ty: TypeId::Text.into(),
    };
    let ordered = |descending, nulls_first| CallOptions {
        order_by: vec![(text.clone(), descending, nulls_first)],
        ..CallOptions::default()
    };
    assert_eq!(aggregate("string_agg", &[3], ordered(true, true)), "b,a,a");
    assert_eq!(aggregate("array_agg", &[3], ordered(false, true)), "{NULL,a,a,b}");
}

#[test]
fn series_end_where_postgresqls_do() {
    let style = IoStyle::default();
    let run = |args: &[&str], ty: TypeId| -> Vec<String> {
        let mut params = Vec::new();
        let mut builder = ExprBuilder::new(&mut params, &style);
        let args = args
            .iter()
            .map(|a| {
                let id = if a.contains("day") { TypeId::Interval } else { ty };
                let text = builder.string(a);
                builder.cast(text, id.into()).unwrap()
            })
            .collect();
        let call = builder
            .call("generate_series", args, CallOptions::default())
            .unwrap();
        let ResolvedCall::Set(call) = call else { panic!() };
        let cx = EvalContext {
            params: &[],
            outer: &[],
            style: &style,
            functions: &NoContext,
            subqueries: &NoSubqueries,
        };
        let mut rows = call.start(&[], &cx).unwrap();
        let mut out = Vec::new();
        while rows.next_row(&mut out).unwrap() {}
        out.iter().map(|d| text_of(d, &style)).collect()
    };
    assert_eq!(run(&["1", "3"], TypeId::Int4), ["1", "2", "3"]);
    assert_eq!(run(&["3", "1"], TypeId::Int4), Vec::<String>::new());
    assert_eq!(run(&["5", "1", "-2"], TypeId::Int8), ["5", "3", "1"]);
    assert_eq!(run(&["2147483646", "2147483647"], TypeId::Int4).len(), 2);
    assert_eq!(run(&["1", "2", "0.5"], TypeId::Numeric), ["1", "1.5", "2.0"]);
    assert_eq!(
        run(&["2024-01-30", "2024-02-01", "1 day"], TypeId::Timestamp),
        [
            "2024-01-30 00:00:00",
            "2024-01-31 00:00:00",
            "2024-02-01 00:00:00"
        ]
    );
}

#[test]
fn parameters_take_the_type_of_their_surroundings() {
    let style = IoStyle::default();
    let mut params = Vec::new();
    let mut builder = ExprBuilder::new(&mut params, &style);
    let column = ScalarExpr::Column {
        index: 0,
        ty: TypeId::Int8.into(),
    };
    let first = builder.param(1).unwrap();
    let second = builder.param(2).unwrap();
    let compared = builder.binary("=", column.clone(), first).unwrap();
    assert!(matches!(compared, ScalarExpr::Call(_)));
    let added = builder.binary("+", column, second).unwrap();
    assert_eq!(added.ty().id, TypeId::Int8);
    let third = builder.param(3).unwrap();
    let third = builder
        .assign(
            third,
            ColumnType::with_modifiers(TypeId::Varchar, &[3]).unwrap(),
            "a",
        )
        .unwrap();
    assert_eq!(third.ty().typmod, 7);
    assert_eq!(params, [TypeId::Int8, TypeId::Int8, TypeId::Varchar]);
}
