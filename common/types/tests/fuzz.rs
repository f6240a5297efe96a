//! Fuzzers of every form that a value comes in: text and binary from clients, payloads and whole rows from disk.
//! `towline_base::testing` says how to run them longer and how to repeat a case.
#![allow(clippy::unwrap_used)]

use bytes::BytesMut;
use towline_base::testing::{Case, WatchedAllocator, fuzz};
use towline_types::{
    ColumnType, Datum, IoStyle, RowDesc, Shortening, TypeId, binary, disk, input, output, pglz,
};

#[global_allocator]
static ALLOCATOR: WatchedAllocator = WatchedAllocator;

const TEXTS: &[&str] = &[
    "",
    "0",
    "-1",
    "32768",
    "9223372036854775807",
    "-9223372036854775808",
    "1e400",
    "NaN",
    "-Infinity",
    "123456789012345678901234567890.1234567890",
    "1e-16383",
    "0.1e131071",
    "t",
    "false",
    "abc",
    "\\xdeadbeef",
    "\\x0",
    "\\000\\\\",
    "2024-02-29",
    "infinity",
    "0044-03-15 BC",
    "294276-12-31 23:59:59.999999+14",
    "4713-01-01 00:00:00 BC",
    "2024-02-29 12:34:56.789 Europe/Berlin",
    "12:34:56+05:30",
    "24:00:00",
    "1 year 2 mons -3 days 04:05:06.789",
    "P1Y2M3DT4H5M6S",
    "-178000000 years",
    "{1,2,NULL}",
    "{{1,2},{3,4}}",
    "[2:3]={5,6}",
    "{\"a\\\"b\",c}",
    "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    "{\"a\": [1, null, {\"b\": 1e5}]}",
    "[[[[]]]]",
    "16/B374D848",
    "(0,1)",
    "pg_class",
    "J2451187",
    "20240229T123456",
    "now",
    "yesterday",
    "epoch",
    "192.168.0.1/24",
    "a text that says the same again and again and again and again and again and again and again and again and again",
];

fn types() -> Vec<TypeId> {
    (1..10_000).filter_map(TypeId::from_oid).collect()
}

/// What is done with a value that was read: printed in all forms, compared, stored, read again.
fn use_value(ty: ColumnType, value: &Datum) {
    let style = IoStyle::default();
    let mut out = BytesMut::new();
    output::write_text(value, &style, &mut out);
    binary::write_binary(value, &mut out);
    let _ = value.compare(value);
    let mut stored = Vec::new();
    if !matches!(value, Datum::Null) && disk::write(ty.id, value, &mut stored).is_ok() {
        stored_value(ty.id, &stored, &stored);
    }
}

fn stored_value(id: TypeId, payload: &[u8], other: &[u8]) {
    let style = IoStyle::default();
    let mut out = BytesMut::new();
    let _ = output::write_disk_text(id, payload, &style, &mut out);
    let _ = binary::write_disk_binary(id, payload, &mut out);
    let _ = disk::compare(id, payload, other);
    if let Ok(value) = disk::read(id, payload) {
        output::write_text(&value, &style, &mut out);
        binary::write_binary(&value, &mut out);
        let _ = disk::compare_datum(id, &value, other);
    }
}

#[cfg_attr(not(fuzzing), test)]
pub(crate) fn text_of_any_kind_is_a_value_or_an_error() {
    let (types, style) = (types(), IoStyle::default());
    assert!(types.len() > 20, "{}", types.len());
    fuzz("text input", 400_000, |case| {
        let ty = ColumnType::new(*case.pick(&types));
        let mut text = (*case.pick(TEXTS)).to_owned();
        if case.one_in(12) {
            text = text.repeat(case.below(300));
        }
        for _ in 0..case.below(3) {
            case.mutate_text(&mut text, TEXTS);
        }
        if let Ok(value) = input::parse_text(ty, &text, &style) {
            use_value(ty, &value);
        }
    });
}

/// Binary forms of real values.
fn binary_forms() -> Vec<(TypeId, Vec<u8>)> {
    let style = IoStyle::default();
    let mut forms = Vec::new();
    for id in types() {
        for text in TEXTS {
            if let Ok(value) = input::parse_text(ColumnType::new(id), text, &style)
                && !matches!(value, Datum::Null)
            {
                let mut out = BytesMut::new();
                binary::write_binary(&value, &mut out);
                forms.push((id, out.to_vec()));
            }
        }
    }
    forms
}

fn changed(case: &mut Case, forms: &[(TypeId, Vec<u8>)]) -> (TypeId, Vec<u8>) {
    let (mut id, mut bytes) = case.pick(forms).clone();
    if !case.one_in(8) {
        case.mutate(&mut bytes);
    }
    if case.one_in(4) {
        id = case.pick(forms).0;
    }
    (id, bytes)
}

#[cfg_attr(not(fuzzing), test)]
pub(crate) fn binary_parameters_of_any_bytes_are_values_or_errors() {
    let forms = binary_forms();
    fuzz("binary input", 400_000, |case| {
        let (id, bytes) = changed(case, &forms);
        let ty = ColumnType::new(id);
        if let Ok(value) = binary::parse_binary(ty, &bytes) {
            use_value(ty, &value);
        }
    });
}

#[cfg_attr(not(fuzzing), test)]
pub(crate) fn stored_payloads_of_any_bytes_are_values_or_errors() {
    let mut forms = Vec::new();
    for (id, bytes) in binary_forms() {
        let mut stored = Vec::new();
        if let Ok(value) = binary::parse_binary(ColumnType::new(id), &bytes)
            && disk::write(id, &value, &mut stored).is_ok()
        {
            forms.push((id, stored));
        }
    }
    fuzz("stored payload", 400_000, |case| {
        let (id, payload) = changed(case, &forms);
        let (_, other) = changed(case, &forms);
        stored_value(id, &payload, &other);
    });
}

#[cfg_attr(not(fuzzing), test)]
pub(crate) fn compressed_values_come_back_and_damaged_streams_are_refused() {
    fuzz("pglz", 40_000, |case| {
        let pieces: Vec<Vec<u8>> = (0..1 + case.below(6))
            .map(|_| {
                let length = case.below(40);
                case.bytes(length)
            })
            .collect();
        let mut value = Vec::new();
        for _ in 0..case.below(60) {
            value.extend_from_slice(case.pick::<Vec<u8>>(&pieces));
        }
        let mut stream = match pglz::compress(&value, usize::MAX) {
            Some(stream) => {
                assert!(stream.len() < value.len());
                assert_eq!(pglz::decompress(&stream, value.len()).unwrap(), value);
                stream
            }
            None => value.clone(),
        };
        case.mutate(&mut stream);
        let raw_len = match case.below(3) {
            0 => case.border() as usize & 0x3fff_ffff,
            _ => value.len(),
        };
        if let Ok(read) = pglz::decompress(&stream, raw_len) {
            assert_eq!(read.len(), raw_len);
        }
    });
}

#[cfg_attr(not(fuzzing), test)]
pub(crate) fn rows_of_any_bytes_are_deformed_or_refused() {
    let storable: Vec<TypeId> = types().into_iter().filter(|id| id.is_storable()).collect();
    fuzz("row", 200_000, |case| {
        let ids: Vec<TypeId> = (0..1 + case.below(6)).map(|_| *case.pick(&storable)).collect();
        let desc = RowDesc::new(ids.iter().map(|id| ColumnType::new(*id)));
        let style = IoStyle::default();
        let values: Vec<Datum> = ids
            .iter()
            .map(|id| {
                let text = *case.pick(TEXTS);
                input::parse_text(ColumnType::new(*id), text, &style).unwrap_or(Datum::Null)
            })
            .collect();
        let mut data = Vec::new();
        let _ = desc.form(&values, &mut data);
        if case.one_in(2) {
            let how = Shortening {
                target: 0,
                target_main: 0,
                limit: usize::MAX,
                toast: case.one_in(2).then_some(1),
            };
            let _ = desc.shorten(0, &values, how, &mut data);
        }
        case.mutate(&mut data);
        let length = case.below(3);
        let bitmap = case.bytes(length);
        let bitmap = case.one_in(2).then_some(&bitmap[..]);
        let natts = case.below(9);
        let mut out = Vec::new();
        let _ = desc.deform(&data, bitmap, natts, &mut out);
        for (value, id) in out.iter().zip(&ids) {
            use_value(ColumnType::new(*id), value);
        }
    });
}
