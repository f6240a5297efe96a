//! Rows as PostgreSQL 15 stores them (`oracle/rows.tsv`, read with pageinspect), and random rows there and back.
#![allow(clippy::unwrap_used)]

use bytes::BytesMut;
use proptest::prelude::*;
use std::sync::Arc;
use towline_base::SqlState;
use towline_types::array::ArrayValue;
use towline_types::{
    ColumnType, Datum, Interval, IoStyle, Numeric, OutOfLine, RowDesc, Shortening, ToastPointer, TypeId,
    disk, parse_binary, parse_text, write_binary, write_disk_binary, write_disk_text, write_text,
};

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

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|p| u8::from_str_radix(std::str::from_utf8(p).unwrap(), 16).unwrap())
        .collect()
}

#[test]
fn rows_are_laid_out_as_postgresql_lays_them_out() {
    let style = IoStyle::default();
    for line in include_str!("oracle/rows.tsv").lines() {
        let (input, stored) = line.rsplit_once('\t').unwrap();
        let mut parts = input.split('|');
        let names = parts.next().unwrap().replace("numeric(10,2)", "numeric(10;2)");
        let types: Vec<ColumnType> = names
            .split(',')
            .map(|n| column_type(&n.replace(';', ",")))
            .collect();
        let values: Vec<Datum> = types
            .iter()
            .zip(parts)
            .map(|(ty, text)| match text.strip_prefix('@') {
                _ if text == "null" => Datum::Null,
                Some(n) => Datum::text(&"z".repeat(n.parse().unwrap())),
                None => parse_text(*ty, text, &style).unwrap(),
            })
            .collect();
        let mut fields = stored.split(' ');
        let flags: u8 = fields.next().unwrap().parse().unwrap();
        let bits = fields.next().unwrap();
        let data = unhex(fields.next().unwrap());

        let desc = RowDesc::new(types.iter().copied());
        let mut formed_data = vec![0xEE; 3];
        let formed = desc.form(&values, &mut formed_data).unwrap();
        assert_eq!(formed_data[3..], data[..], "{input}");
        assert_eq!(
            u8::from(formed.has_nulls) | u8::from(formed.has_varwidth) << 1,
            flags,
            "{input}"
        );
        let mut bitmap = Vec::new();
        RowDesc::write_bitmap(&values, &mut bitmap);
        if formed.has_nulls {
            let shown: String = bitmap
                .iter()
                .flat_map(|b| (0..8).map(move |i| if b >> i & 1 == 1 { '1' } else { '0' }))
                .collect();
            assert_eq!(shown, bits, "{input}");
        }
        check_reading(&desc, &values, &data, formed.has_nulls.then_some(&bitmap));
    }
}

#[test]
fn binary_values_are_those_of_postgresqls_send_functions() {
    let style = IoStyle::default();
    for line in include_str!("oracle/binary.tsv").lines() {
        let (input, expected) = line.rsplit_once('\t').unwrap();
        let (ty, text) = input.split_once('|').unwrap();
        let ty = column_type(ty);
        let value = parse_text(ty, text, &style).unwrap();
        let mut sent = BytesMut::new();
        write_binary(&value, &mut sent);
        assert_eq!(sent[..], unhex(expected)[..], "{input}");
        assert_eq!(parse_binary(ty, &sent).unwrap(), value, "{input}");
    }
}

/// Reads the row back in every way there is.
fn check_reading(desc: &RowDesc, values: &[Datum], data: &[u8], bitmap: Option<&Vec<u8>>) {
    let bitmap = bitmap.map(Vec::as_slice);
    let style = IoStyle::default();
    let mut read = Vec::new();
    desc.deform(data, bitmap, values.len(), &mut read).unwrap();
    assert_eq!(read, values);
    for (n, (value, attr)) in values.iter().zip(desc.attrs()).enumerate() {
        let slice = desc.attr(data, bitmap, values.len(), n).unwrap();
        assert_eq!(slice.is_none(), value.is_null());
        let Some(slice) = slice.as_deref() else { continue };
        assert!(disk::compare(attr.ty.id, slice, slice).unwrap().is_eq());
        assert!(disk::compare_datum(attr.ty.id, value, slice).unwrap().is_eq());
        let (mut a, mut b) = (BytesMut::new(), BytesMut::new());
        write_text(value, &style, &mut a);
        write_disk_text(attr.ty.id, slice, &style, &mut b).unwrap();
        assert_eq!(a, b);
        let again = parse_text(attr.ty, std::str::from_utf8(&a).unwrap(), &style).unwrap();
        assert_eq!(again, *value, "text of {:?}", attr.ty);
        let (mut a, mut b) = (BytesMut::new(), BytesMut::new());
        write_binary(value, &mut a);
        write_disk_binary(attr.ty.id, slice, &mut b).unwrap();
        assert_eq!(a, b);
        assert_eq!(
            parse_binary(attr.ty, &a).unwrap(),
            *value,
            "binary of {:?}",
            attr.ty
        );
    }
    // A column added later reads as NULL from an old row.
    assert_eq!(desc.attr(data, bitmap, 0, 0).unwrap(), None);
}

/// What PostgreSQL's `repeat` gives; for `#`, numbered lines.
fn oracle_text(unit: &str, count: usize) -> String {
    match unit {
        "#" => (1..=count)
            .map(|n| format!("line {n} of the text"))
            .collect::<Vec<_>>()
            .join(" "),
        unit => unit.repeat(count),
    }
}

#[test]
fn values_that_postgresql_compressed_are_read_and_ours_are_as_short() {
    for line in include_str!("oracle/pglz.tsv").lines() {
        let mut fields = line.split('\t');
        let (unit, count) = (fields.next().unwrap(), fields.next().unwrap());
        let value = oracle_text(unit, count.parse().unwrap());
        let theirs = unhex(fields.next().unwrap());
        let desc = RowDesc::new([ColumnType::new(TypeId::Text)]);
        let read = desc.attr(&theirs, None, 1, 0).unwrap().unwrap();
        assert_eq!(read, value.as_bytes(), "{unit} {count}");
        let mut ours = Vec::new();
        let values = [Datum::text(&value)];
        desc.form(&values, &mut ours).unwrap();
        compress_row(&desc, 0, &values, 0, &mut ours);
        assert!(
            ours.len() * 20 <= theirs.len() * 21,
            "{unit} {count}: {} bytes, theirs {}",
            ours.len(),
            theirs.len()
        );
    }
}

fn shorten_to(target: usize, toast: Option<u32>) -> Shortening {
    Shortening {
        target,
        target_main: target,
        limit: usize::MAX,
        toast,
    }
}

fn compress_row(desc: &RowDesc, start: usize, values: &[Datum], target: usize, data: &mut Vec<u8>) {
    let moved = desc
        .shorten(start, values, shorten_to(target, None), data)
        .unwrap();
    assert!(moved.is_empty());
}

/// Reads a row as a reader of a table does: pointers are followed.
fn read_followed(
    desc: &RowDesc,
    start: usize,
    data: &[u8],
    bitmap: Option<&[u8]>,
    moved: &[OutOfLine],
) -> Vec<Datum> {
    let mut read = Vec::new();
    desc.deform(&data[start..], bitmap, desc.len(), &mut read)
        .unwrap();
    for out in moved {
        let Datum::External(pointer) = read[out.attr] else {
            panic!("attribute {} is not a pointer: {:?}", out.attr, read[out.attr]);
        };
        assert_eq!(pointer, out.pointer);
        assert_eq!(data[out.at..out.at + 18], pointer.encode());
        assert_eq!(out.bytes().len(), pointer.stored_len());
        let payload = pointer.unpack(out.bytes().to_vec()).unwrap();
        assert_eq!(payload.len(), pointer.raw_len());
        read[out.attr] = disk::read(desc.attrs()[out.attr].ty.id, &payload).unwrap();
    }
    read
}

/// Text without anything to compress in it.
fn noise(len: usize) -> String {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            char::from(b'!' + (state % 90) as u8)
        })
        .collect()
}

#[test]
fn values_move_out_of_line_in_postgresqls_order() {
    let desc = RowDesc::new([TypeId::Text, TypeId::Text, TypeId::Numeric, TypeId::Text].map(ColumnType::new));
    let digits: String = noise(960)
        .bytes()
        .map(|byte| char::from(b'1' + byte % 9))
        .collect();
    let number = Datum::Numeric(digits.parse().unwrap());
    let moved_of = |values: &[Datum], target: usize, target_main: usize| {
        let mut data = vec![0xEE; 5];
        desc.form(values, &mut data).unwrap();
        let how = Shortening {
            target_main,
            ..shorten_to(target, Some(777))
        };
        let moved = desc.shorten(5, values, how, &mut data).unwrap();
        assert_eq!(&data[..5], [0xEE; 5]);
        let bitmap = [0b1111];
        assert_eq!(read_followed(&desc, 5, &data, Some(&bitmap), &moved), values);
        moved
            .iter()
            .map(|out| (out.attr, out.pointer.is_compressed()))
            .collect::<Vec<_>>()
    };
    // One that is longer than the row may be goes alone; the others stay, uncompressed.
    let small = Datum::text(&"ab".repeat(200));
    let values = [
        small.clone(),
        Datum::text(&noise(5000)),
        number.clone(),
        small.clone(),
    ];
    assert_eq!(moved_of(&values, 2000, 8000), [(1, false)]);
    // What compression makes short enough stays.
    let values = [
        small.clone(),
        Datum::text(&"ab".repeat(5000)),
        number.clone(),
        small,
    ];
    assert_eq!(moved_of(&values, 2000, 8000), []);
    // What it does not goes compressed.
    let half = format!("{}{}", "ab".repeat(2000), noise(3000));
    let values = [
        Datum::text(""),
        Datum::text(&half),
        number.clone(),
        Datum::text("x"),
    ];
    assert_eq!(moved_of(&values, 2000, 8000), [(1, true)]);
    // Of several, the largest first, as many as needed; a number last, and only if the row fits no page.
    let values = [
        Datum::text(&noise(1500)),
        Datum::text(&noise(1800)),
        number,
        Datum::text(&noise(1200)),
    ];
    assert_eq!(moved_of(&values, 3400, 8000), [(1, false)]);
    assert_eq!(moved_of(&values, 300, 8000), [(0, false), (1, false), (3, false)]);
    assert_eq!(
        moved_of(&values, 300, 300),
        [(0, false), (1, false), (2, false), (3, false)]
    );
}

#[test]
fn a_pointer_is_postgresqls_18_bytes() {
    // select … from a table whose value of 5000 bytes moved out: heap_page_items shows these bytes.
    let pointer = ToastPointer {
        raw_size: 5004,
        info: 5000,
        value: 16390,
        relation: 16387,
    };
    let bytes = pointer.encode();
    assert_eq!(
        bytes,
        [
            1, 18, 0x8c, 0x13, 0, 0, 0x88, 0x13, 0, 0, 0x06, 0x40, 0, 0, 0x03, 0x40, 0, 0
        ]
    );
    let desc = RowDesc::new([ColumnType::new(TypeId::Text)]);
    let mut read = Vec::new();
    desc.deform(&bytes, None, 1, &mut read).unwrap();
    assert!(matches!(read[0], Datum::External(p) if p == pointer));
    // Another tag, more stored than there is, and a pointer cut off are damage; so is one that nobody followed.
    for (at, byte) in [(1, 17), (6, 0xff), (2, 0)] {
        let mut bad = bytes;
        bad[at] = byte;
        if at == 2 {
            bad[3] = 0;
        }
        assert_eq!(
            desc.deform(&bad, None, 1, &mut read).unwrap_err().sqlstate(),
            SqlState::DATA_CORRUPTED
        );
    }
    assert!(desc.deform(&bytes[..17], None, 1, &mut read).is_err());
    assert!(desc.attr(&bytes, None, 1, 0).is_err());
    assert!(pointer.unpack(vec![0; 4999]).is_err());
}

#[test]
fn the_largest_value_is_compressed_first_and_no_more_than_needed() {
    let desc = RowDesc::new(
        [
            TypeId::Int4,
            TypeId::Text,
            TypeId::Numeric,
            TypeId::Text,
            TypeId::Name,
            TypeId::Bytea,
        ]
        .map(ColumnType::new),
    );
    let values = [
        Datum::Int4(1),
        Datum::text(&"ab".repeat(600)),
        Datum::Numeric("1234".repeat(700).parse().unwrap()),
        Datum::text(&"cde".repeat(1000)),
        Datum::text("a name"),
        Datum::Null,
    ];
    let mut plain = Vec::new();
    desc.form(&values, &mut plain).unwrap();
    let mut lengths = Vec::new();
    for target in [plain.len(), plain.len() - 1, 1300, 0] {
        let mut data = vec![0xEE; 3];
        data.extend_from_slice(&plain);
        compress_row(&desc, 3, &values, target, &mut data);
        let mut read = Vec::new();
        let bitmap = vec![0b01_1111];
        check_reading(&desc, &values, &data[3..], Some(&bitmap));
        desc.deform(&data[3..], Some(&bitmap), 6, &mut read).unwrap();
        assert_eq!(read, values);
        lengths.push(data.len() - 3);
    }
    assert_eq!(lengths[0], plain.len());
    assert!(
        lengths[1] > plain.len() - 3000 && lengths[1] < plain.len() - 2900,
        "{lengths:?}"
    );
    assert!(lengths[2] < 1300 && lengths[3] <= lengths[2], "{lengths:?}");
}

fn numeric() -> impl Strategy<Value = Numeric> {
    prop_oneof![
        any::<i64>().prop_map(Numeric::from),
        "-?[0-9]{0,40}\\.[0-9]{1,40}".prop_map(|s| s.parse().unwrap()),
        "-?[1-9]e-?[0-9]{1,3}".prop_map(|s| s.parse().unwrap()),
        Just(Numeric::nan()),
        any::<bool>().prop_map(Numeric::infinity),
    ]
}

fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z ,{}\"\\\\ä]{0,20}",
        "[a-z]{100,200}",
        "(ab|abc|d){20,300}"
    ]
}

fn value() -> impl Strategy<Value = (ColumnType, Datum)> {
    fn of(id: TypeId) -> ColumnType {
        ColumnType::new(id)
    }
    let moment = -211_000_000_000_000_000i64..9_000_000_000_000_000_000i64;
    prop_oneof![
        any::<bool>().prop_map(|v| (of(TypeId::Bool), Datum::Bool(v))),
        any::<i16>().prop_map(|v| (of(TypeId::Int2), Datum::Int2(v))),
        any::<i32>().prop_map(|v| (of(TypeId::Int4), Datum::Int4(v))),
        any::<i64>().prop_map(|v| (of(TypeId::Int8), Datum::Int8(v))),
        any::<f64>().prop_map(|v| (of(TypeId::Float8), Datum::Float8(v))),
        any::<f32>().prop_map(|v| (of(TypeId::Float4), Datum::Float4(v))),
        numeric().prop_map(|v| (of(TypeId::Numeric), Datum::Numeric(v))),
        text().prop_map(|v| (of(TypeId::Text), Datum::text(&v))),
        "[a-z]{0,63}".prop_map(|v| (of(TypeId::Name), Datum::text(&v))),
        text().prop_map(|v| (of(TypeId::Bpchar), Datum::Bpchar(v.into()))),
        proptest::collection::vec(any::<u8>(), 0..300)
            .prop_map(|v| (of(TypeId::Bytea), Datum::Bytea(v.into()))),
        (-2_451_545i32..2_145_031_949).prop_map(|v| (of(TypeId::Date), Datum::Date(v))),
        moment
            .clone()
            .prop_map(|v| (of(TypeId::Timestamp), Datum::Timestamp(v))),
        moment.prop_map(|v| (of(TypeId::TimestampTz), Datum::TimestampTz(v))),
        (
            any::<i32>(),
            -90_000i32..90_000,
            -9_000_000_000_000i64..9_000_000_000_000
        )
            .prop_map(|(d, m, us)| {
                let v = Interval {
                    micros: us,
                    days: d / 2,
                    months: m,
                };
                (of(TypeId::Interval), Datum::Interval(v))
            }),
        any::<u64>().prop_map(|v| (of(TypeId::PgLsn), Datum::PgLsn(towline_base::Lsn(v)))),
        any::<u32>().prop_map(|v| (of(TypeId::Oid), Datum::Oid(v))),
        proptest::collection::vec(proptest::option::of(text()), 0..5).prop_map(|v| {
            let items = v
                .iter()
                .map(|s| s.as_ref().map_or(Datum::Null, |s| Datum::text(s)))
                .collect();
            (
                of(TypeId::TextArray),
                Datum::Array(Arc::new(ArrayValue::new(TypeId::Text, items))),
            )
        }),
        proptest::collection::vec(any::<i64>(), 0..5).prop_map(|v| {
            let items = v.into_iter().map(Datum::Int8).collect();
            (
                of(TypeId::Int8Array),
                Datum::Array(Arc::new(ArrayValue::new(TypeId::Int8, items))),
            )
        }),
        proptest::collection::vec(any::<u32>(), 1..5)
            .prop_map(|v| (of(TypeId::OidVector), Datum::OidVector(v.into()))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn random_rows_come_back_from_disk_text_and_binary(
        columns in proptest::collection::vec((value(), any::<bool>()), 1..12),
    ) {
        let desc = RowDesc::new(columns.iter().map(|((ty, _), _)| *ty));
        let values: Vec<Datum> =
            columns.iter().map(|((_, v), null)| if *null { Datum::Null } else { v.clone() }).collect();
        let mut data = Vec::new();
        let formed = desc.form(&values, &mut data).unwrap();
        let mut bitmap = Vec::new();
        RowDesc::write_bitmap(&values, &mut bitmap);
        check_reading(&desc, &values, &data, formed.has_nulls.then_some(&bitmap));
        let mut shorter = data.clone();
        compress_row(&desc, 0, &values, 0, &mut shorter);
        assert!(shorter.len() <= data.len());
        check_reading(&desc, &values, &shorter, formed.has_nulls.then_some(&bitmap));
        let moved = desc.shorten(0, &values, shorten_to(0, Some(1)), &mut data).unwrap();
        let bitmap = formed.has_nulls.then_some(&bitmap[..]);
        assert_eq!(read_followed(&desc, 0, &data, bitmap, &moved), values);
    }

    #[test]
    fn damaged_rows_are_refused_without_a_panic(
        columns in proptest::collection::vec((value(), any::<bool>()), 1..8),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
        compress in any::<bool>(),
    ) {
        let desc = RowDesc::new(columns.iter().map(|((ty, _), _)| *ty));
        let values: Vec<Datum> = columns.iter().map(|((_, v), _)| v.clone()).collect();
        let mut data = Vec::new();
        desc.form(&values, &mut data).unwrap();
        if compress {
            compress_row(&desc, 0, &values, 0, &mut data);
        }
        for (at, byte) in &damage {
            if !data.is_empty() {
                let at = at.index(data.len());
                data[at] = *byte;
            }
        }
        data.truncate(cut.index(data.len() + 1));
        let mut read = Vec::new();
        if desc.deform(&data, None, values.len(), &mut read).is_ok() {
            let mut out = BytesMut::new();
            read.iter().for_each(|v| write_text(v, &IoStyle::default(), &mut out));
            read.iter().for_each(|v| write_binary(v, &mut out));
        }
    }

    #[test]
    fn any_stored_bytes_print_or_are_refused(bytes in proptest::collection::vec(any::<u8>(), 16)) {
        let mut style = IoStyle::default();
        style.set_time_zone("America/New_York").unwrap();
        for info in towline_types::type_id::TYPES {
            let len = usize::try_from(info.len).unwrap_or(16).min(16);
            for payload in [&bytes[..len], &[0xff; 16][..len], &[0x7f; 16][..len], &i64::MAX.to_le_bytes()[..len.min(8)],
                &(i64::MAX - 1).to_le_bytes()[..len.min(8)], &(i64::MIN + 1).to_le_bytes()[..len.min(8)]] {
                if let Ok(value) = disk::read(info.id, payload) {
                    for order in ["ISO", "SQL", "Postgres", "German"] {
                        style.set_date_style(order).unwrap();
                        write_text(&value, &style, &mut BytesMut::new());
                    }
                }
                if let Ok(value) = parse_binary(info.id.into(), payload) {
                    write_text(&value, &style, &mut BytesMut::new());
                }
            }
        }
    }

    #[test]
    fn no_input_text_panics(text in "\\PC{0,40}", digits in "[-+0-9.:eE /TZ]{0,30}") {
        let style = IoStyle::default();
        for info in towline_types::type_id::TYPES {
            for t in [&text, &digits] {
                if let Ok(value) = parse_text(info.id.into(), t, &style) {
                    write_text(&value, &style, &mut BytesMut::new());
                }
                let _ = parse_binary(info.id.into(), t.as_bytes());
            }
        }
    }

    #[test]
    fn numeric_arithmetic_agrees_with_integers(a in any::<i64>(), b in any::<i64>()) {
        let (x, y) = (Numeric::from(a), Numeric::from(b));
        let wide = |v: i128| Numeric::from(v);
        prop_assert_eq!(x.add(&y).unwrap(), wide(i128::from(a) + i128::from(b)));
        prop_assert_eq!(x.sub(&y).unwrap(), wide(i128::from(a) - i128::from(b)));
        prop_assert_eq!(x.mul(&y).unwrap(), wide(i128::from(a) * i128::from(b)));
        prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        if b != 0 {
            prop_assert_eq!(x.div_trunc(&y).unwrap(), wide(i128::from(a) / i128::from(b)));
            prop_assert_eq!(x.rem(&y).unwrap(), wide(i128::from(a) % i128::from(b)));
        }
    }

    #[test]
    fn long_division_is_the_inverse_of_multiplication(a in "[1-9][0-9]{0,60}", b in "[1-9][0-9]{0,60}", r in "[0-9]{1,60}") {
        let [a, b, r]: [Numeric; 3] = [a, b, r].map(|s| s.parse().unwrap());
        let r = r.rem(&b).unwrap();
        let n = a.mul(&b).unwrap().add(&r).unwrap();
        prop_assert_eq!(n.div_trunc(&b).unwrap(), a);
        prop_assert_eq!(n.rem(&b).unwrap(), r);
    }
}

#[test]
fn strings_that_do_not_fit_their_column_are_refused() {
    let style = IoStyle::default();
    let varchar = ColumnType::with_modifiers(TypeId::Varchar, &[3]).unwrap();
    let error = parse_text(varchar, "äbcd", &style).unwrap_err();
    assert_eq!(error.sqlstate().code(), "22001");
    assert_eq!(error.message(), "value too long for type character varying(3)");
    assert_eq!(parse_text(varchar, "abc   ", &style).unwrap(), Datum::text("abc"));
    let bpchar = ColumnType::with_modifiers(TypeId::Bpchar, &[3]).unwrap();
    assert_eq!(
        parse_text(bpchar, "abcd", &style).unwrap_err().sqlstate().code(),
        "22001"
    );
    let Datum::Bpchar(padded) = parse_text(bpchar, "a", &style).unwrap() else {
        panic!()
    };
    assert_eq!(&*padded, "a  ");
}
