//! bytea functions, encodings and digests.

use super::{FunctionDef, bytea, def, int, int32, text, txt};
use crate::error::SqlError;
use crate::expr::EvalContext;
use sha2::{Digest, Sha224, Sha256, Sha384, Sha512};
use towline_base::SqlState;
use towline_types::TypeId::*;
use towline_types::{Datum, input};

type Answer = Result<Datum, SqlError>;

#[cold]
fn parameter(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

fn concat(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Bytea([bytea(&a[0])?, bytea(&a[1])?].concat().into()))
}

fn length(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Int4(bytea(&a[0])?.len() as i32))
}

fn substring(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let (b, start) = (bytea(&a[0])?, int(&a[1])?);
    let end = match a.get(2) {
        None => b.len() as i64 + 1,
        Some(d) => {
            let len = int(d)?;
            if len < 0 {
                return Err(SqlError::new(
                    SqlState::SUBSTRING_ERROR,
                    "negative substring length not allowed",
                ));
            }
            start + len
        }
    };
    let from = (start.max(1) - 1).min(b.len() as i64) as usize;
    let to = (end - 1).clamp(from as i64, b.len() as i64) as usize;
    Ok(Datum::Bytea(b[from..to].into()))
}

#[cold]
fn out_of_range(index: i64, count: i64) -> SqlError {
    SqlError::new(
        SqlState::ARRAY_SUBSCRIPT_ERROR,
        format!("index {index} out of valid range, 0..{}", count - 1),
    )
}

fn get_byte(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let (b, n) = (bytea(&a[0])?, int32(&a[1])?);
    match usize::try_from(n).ok().and_then(|i| b.get(i)) {
        Some(v) => Ok(Datum::Int4(i32::from(*v))),
        None => Err(out_of_range(i64::from(n), b.len() as i64)),
    }
}

fn set_byte(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let (b, n, value) = (bytea(&a[0])?, int32(&a[1])?, int32(&a[2])?);
    let mut out = b.to_vec();
    match usize::try_from(n).ok().and_then(|i| out.get_mut(i)) {
        Some(v) => *v = value as u8,
        None => return Err(out_of_range(i64::from(n), b.len() as i64)),
    }
    Ok(Datum::Bytea(out.into()))
}

/// The byte that holds bit `n`, and the bit's place in it.
fn bit_place(b: &[u8], n: i64) -> Result<(usize, u32), SqlError> {
    let bits = b.len() as i64 * 8;
    if !(0..bits).contains(&n) {
        return Err(out_of_range(n, bits));
    }
    Ok(((n / 8) as usize, (n % 8) as u32))
}

fn get_bit(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let b = bytea(&a[0])?;
    let (byte, bit) = bit_place(b, int(&a[1])?)?;
    Ok(Datum::Int4(i32::from(b[byte] >> bit & 1)))
}

fn set_bit(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let (b, value) = (bytea(&a[0])?, int32(&a[2])?);
    let (byte, bit) = bit_place(b, int(&a[1])?)?;
    let mut out = b.to_vec();
    out[byte] = match value {
        0 => out[byte] & !(1 << bit),
        1 => out[byte] | 1 << bit,
        _ => return Err(parameter("new bit must be 0 or 1")),
    };
    Ok(Datum::Bytea(out.into()))
}

fn digest<D: Digest>(a: &[Datum]) -> Answer {
    Ok(Datum::Bytea(D::digest(bytea(&a[0])?).as_slice().into()))
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

fn base64(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len() * 4 / 3 + 8);
    for chunk in bytes.chunks(3) {
        let word = u32::from(chunk[0]) << 16
            | u32::from(chunk.get(1).copied().unwrap_or(0)) << 8
            | u32::from(chunk.get(2).copied().unwrap_or(0));
        // MIME: a line break every 76 characters.
        if !out.is_empty() && (out.len() + 1).is_multiple_of(77) {
            out.push('\n');
        }
        for i in 0..4 {
            let c = if i <= chunk.len() {
                BASE64[(word >> (18 - 6 * i) & 63) as usize]
            } else {
                b'='
            };
            out.push(char::from(c));
        }
    }
    out
}

/// As PostgreSQL's `pg_base64_decode`: the first `=` says how many bytes the last group has, and may stand only where
/// a group has two or three symbols.
fn unbase64(s: &str) -> Result<Vec<u8>, SqlError> {
    let mut out = Vec::with_capacity(s.len() * 3 / 4);
    let (mut word, mut count, mut last) = (0u32, 0, None);
    for b in s.bytes().filter(|b| !matches!(b, b' ' | b'\t' | b'\n' | b'\r')) {
        let value = if b == b'=' {
            if last.is_none() {
                last = Some(match count {
                    2 => 1,
                    3 => 2,
                    _ => return Err(parameter("unexpected \"=\" while decoding base64 sequence")),
                });
            }
            0
        } else {
            BASE64.iter().position(|c| *c == b).ok_or_else(|| {
                parameter(format!(
                    "invalid symbol \"{}\" found while decoding base64 sequence",
                    char::from(b)
                ))
            })? as u32
        };
        word = word << 6 | value;
        count += 1;
        if count == 4 {
            let bytes = word.to_be_bytes();
            out.extend_from_slice(&bytes[1..=last.unwrap_or(3)]);
            (word, count) = (0, 0);
        }
    }
    if count != 0 {
        return Err(parameter("invalid base64 end sequence")
            .with_hint("Input data is missing padding, is truncated, or is otherwise corrupted."));
    }
    Ok(out)
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|b| {
            [
                char::from(DIGITS[usize::from(b >> 4)]),
                char::from(DIGITS[usize::from(b & 15)]),
            ]
        })
        .collect()
}

fn encode(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let b = bytea(&a[0])?;
    let out = match txt(&a[1])?.to_ascii_lowercase().as_str() {
        "hex" => hex(b),
        "base64" => base64(b),
        "escape" => b
            .iter()
            .map(|c| match c {
                b'\\' => "\\\\".to_string(),
                0 | 0x80.. => format!("\\{c:03o}"),
                c => char::from(*c).to_string(),
            })
            .collect(),
        other => return Err(parameter(format!("unrecognized encoding: \"{other}\""))),
    };
    Ok(text(&out))
}

fn decode(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let s = txt(&a[0])?;
    let out = match txt(&a[1])?.to_ascii_lowercase().as_str() {
        "hex" => input::parse_hex(s.as_bytes())?,
        "base64" => unbase64(s)?,
        "escape" => input::parse_bytea(s)?,
        other => return Err(parameter(format!("unrecognized encoding: \"{other}\""))),
    };
    Ok(Datum::Bytea(out.into()))
}

fn convert_from(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let name = txt(&a[1])?;
    if !["utf8", "utf-8", "unicode", "sql_ascii"].contains(&name.to_ascii_lowercase().as_str()) {
        return Err(parameter(format!("invalid source encoding name \"{name}\"")));
    }
    Ok(text(towline_types::binary::check_utf8(bytea(&a[0])?)?))
}

fn convert_to(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let name = txt(&a[1])?;
    if !["utf8", "utf-8", "unicode"].contains(&name.to_ascii_lowercase().as_str()) {
        return Err(parameter(format!("invalid destination encoding name \"{name}\"")));
    }
    Ok(Datum::Bytea(txt(&a[0])?.as_bytes().into()))
}

/// MD5 (RFC 1321) in hexadecimal.
pub(super) fn md5_hex(message: &[u8]) -> String {
    const SHIFTS: [[u32; 4]; 4] = [[7, 12, 17, 22], [5, 9, 14, 20], [4, 11, 16, 23], [6, 10, 15, 21]];
    let mut state: [u32; 4] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476];
    let mut padded = message.to_vec();
    padded.push(0x80);
    padded.resize((padded.len() + 8).next_multiple_of(64), 0);
    let len = padded.len();
    padded[len - 8..].copy_from_slice(&((message.len() as u64).wrapping_mul(8)).to_le_bytes());
    for block in padded.chunks_exact(64) {
        let mut words = [0u32; 16];
        for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        let [mut a, mut b, mut c, mut d] = state;
        for i in 0..64usize {
            let (f, g) = match i / 16 {
                0 => ((b & c) | (!b & d), i),
                1 => ((d & b) | (!d & c), (5 * i + 1) % 16),
                2 => (b ^ c ^ d, (3 * i + 5) % 16),
                _ => (c ^ (b | !d), 7 * i % 16),
            };
            let constant = ((i as f64 + 1.0).sin().abs() * 4_294_967_296.0) as u32;
            let sum = a.wrapping_add(f).wrapping_add(constant).wrapping_add(words[g]);
            a = d;
            d = c;
            c = b;
            b = b.wrapping_add(sum.rotate_left(SHIFTS[i / 16][i % 4]));
        }
        state[0] = state[0].wrapping_add(a);
        state[1] = state[1].wrapping_add(b);
        state[2] = state[2].wrapping_add(c);
        state[3] = state[3].wrapping_add(d);
    }
    hex(&state.iter().flat_map(|w| w.to_le_bytes()).collect::<Vec<u8>>())
}

pub(super) const DEFS: &[FunctionDef] = &[
    def("||", &[Bytea, Bytea], Bytea, concat),
    def("length", &[Bytea], Int4, length),
    def("octet_length", &[Bytea], Int4, length),
    def("substr", &[Bytea, Int4], Bytea, substring),
    def("substr", &[Bytea, Int4, Int4], Bytea, substring),
    def("substring", &[Bytea, Int4], Bytea, substring),
    def("substring", &[Bytea, Int4, Int4], Bytea, substring),
    def("get_byte", &[Bytea, Int4], Int4, get_byte),
    def("set_byte", &[Bytea, Int4, Int4], Bytea, set_byte),
    def("get_bit", &[Bytea, Int8], Int4, get_bit),
    def("set_bit", &[Bytea, Int8, Int4], Bytea, set_bit),
    def("sha224", &[Bytea], Bytea, |_, a| digest::<Sha224>(a)),
    def("sha256", &[Bytea], Bytea, |_, a| digest::<Sha256>(a)),
    def("sha384", &[Bytea], Bytea, |_, a| digest::<Sha384>(a)),
    def("sha512", &[Bytea], Bytea, |_, a| digest::<Sha512>(a)),
    def("encode", &[Bytea, Text], Text, encode),
    def("decode", &[Text, Text], Bytea, decode),
    def("convert_from", &[Bytea, Name], Text, convert_from),
    def("convert_to", &[Text, Name], Bytea, convert_to),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn md5_matches_the_rfc() {
        assert_eq!(md5_hex(b""), "d41d8cd98f00b204e9800998ecf8427e");
        assert_eq!(md5_hex(b"message digest"), "f96b697d7cb7938d525a2f31aaf161d0");
        let long = b"12345678901234567890123456789012345678901234567890123456789012345678901234567890";
        assert_eq!(md5_hex(long), "57edf4a22be3c955ac49da2e2107b67a");
        for len in 50..70 {
            assert_eq!(md5_hex(&vec![b'a'; len]).len(), 32);
        }
    }
}
