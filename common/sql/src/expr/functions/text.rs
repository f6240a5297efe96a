//! String functions.

use super::{FunctionDef, boolean, bytea, def, int, int32, text, txt};
use crate::error::SqlError;
use crate::expr::EvalContext;
use crate::expr::tree::{array_items, collect_elements, too_large};
use std::sync::Arc;
use towline_base::SqlState;
use towline_types::TypeId::*;
use towline_types::{ArrayValue, Datum, TypeError, text_of};

type Answer = Result<Datum, SqlError>;

/// Longest text a function builds.
pub(super) const MAX_TEXT: usize = 1 << 28;

#[cold]
fn parameter(message: impl Into<String>) -> SqlError {
    SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

fn concat2(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let (x, y) = (txt(&a[0])?, txt(&a[1])?);
    let mut out = String::with_capacity(x.len() + y.len());
    out.push_str(x);
    out.push_str(y);
    Ok(Datum::Text(out.into()))
}

/// A value as concatenation shows it: by its output function, `t` and `f` for booleans only in `concat`.
fn shown(cx: &EvalContext<'_>, d: &Datum) -> String {
    match d {
        Datum::Bpchar(s) => s.trim_end_matches(' ').to_string(),
        d => text_of(d, cx.style),
    }
}

/// A value as a cast to text shows it.
fn cast_text(cx: &EvalContext<'_>, d: &Datum) -> String {
    match d {
        Datum::Bool(b) => if *b { "true" } else { "false" }.to_string(),
        d => shown(cx, d),
    }
}

fn any_text(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(text(&(cast_text(cx, &a[0]) + &cast_text(cx, &a[1]))))
}

fn concat(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let mut out = String::new();
    for d in a.iter().filter(|d| !d.is_null()) {
        out.push_str(&text_of(d, cx.style));
        if out.len() > MAX_TEXT {
            return Err(too_large());
        }
    }
    Ok(text(&out))
}

fn concat_ws(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    if a[0].is_null() {
        return Ok(Datum::Null);
    }
    let separator = txt(&a[0])?;
    let parts: Vec<String> = a[1..]
        .iter()
        .filter(|d| !d.is_null())
        .map(|d| text_of(d, cx.style))
        .collect();
    Ok(text(&parts.join(separator)))
}

fn length(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let s = match &a[0] {
        Datum::Bpchar(s) => s.trim_end_matches(' '),
        d => txt(d)?,
    };
    Ok(Datum::Int4(
        if s.is_ascii() { s.len() } else { s.chars().count() } as i32,
    ))
}

fn octet_length(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Int4(txt(&a[0])?.len() as i32))
}

fn bit_length(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let bits = txt(&a[0])?.len().saturating_mul(8);
    match i32::try_from(bits) {
        Ok(bits) => Ok(Datum::Int4(bits)),
        Err(_) => Err(TypeError::out_of_range("integer out of range").into()),
    }
}

fn lower(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    // The C collation folds ASCII only.
    Ok(text(&txt(&a[0])?.to_ascii_lowercase()))
}

fn upper(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(text(&txt(&a[0])?.to_ascii_uppercase()))
}

fn initcap(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let mut inside = false;
    let out: String = txt(&a[0])?
        .chars()
        .map(|c| {
            let c = if inside {
                c.to_ascii_lowercase()
            } else {
                c.to_ascii_uppercase()
            };
            inside = c.is_ascii_alphanumeric();
            c
        })
        .collect();
    Ok(text(&out))
}

/// Characters `start` (from 1, may be below) to `end` exclusive.
fn slice(s: &str, start: i64, end: i64) -> &str {
    let from = start.max(1) - 1;
    let count = end - 1 - from;
    if count <= 0 {
        return "";
    }
    if s.is_ascii() {
        let from = (from as usize).min(s.len());
        return &s[from..(from as i64).saturating_add(count).min(s.len() as i64) as usize];
    }
    let at = |n: i64| s.char_indices().nth(n as usize).map_or(s.len(), |(i, _)| i);
    let from_byte = at(from);
    let rest = &s[from_byte..];
    let len = rest
        .char_indices()
        .nth(count as usize)
        .map_or(rest.len(), |(i, _)| i);
    &rest[..len]
}

fn substr2(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(text(slice(txt(&a[0])?, int(&a[1])?, i64::from(i32::MAX) + 2)))
}

fn substr3(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let (s, start, len) = (txt(&a[0])?, int(&a[1])?, int(&a[2])?);
    if len < 0 {
        return Err(SqlError::new(
            SqlState::SUBSTRING_ERROR,
            "negative substring length not allowed",
        ));
    }
    Ok(text(slice(s, start, start + len)))
}

fn left(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let (s, n) = (txt(&a[0])?, int(&a[1])?);
    let len = if n < 0 {
        (s.chars().count() as i64 + n).max(0)
    } else {
        n
    };
    Ok(text(slice(s, 1, 1 + len)))
}

fn right(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let (s, n) = (txt(&a[0])?, int(&a[1])?);
    let count = s.chars().count() as i64;
    let skip = if n < 0 {
        (-n).min(count)
    } else {
        (count - n).max(0)
    };
    Ok(text(slice(s, 1 + skip, count + 1)))
}

fn pad(s: &str, len: i64, fill: &str, at_left: bool) -> Answer {
    let len = len.max(0) as usize;
    if len.saturating_mul(4) > MAX_TEXT {
        return Err(too_large());
    }
    let count = s.chars().count();
    if count >= len {
        return Ok(text(slice(s, 1, 1 + len as i64)));
    }
    if fill.is_empty() {
        return Ok(text(s));
    }
    let padding: String = fill.chars().cycle().take(len - count).collect();
    Ok(text(&if at_left {
        padding + s
    } else {
        s.to_string() + &padding
    }))
}

fn lpad2(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    pad(txt(&a[0])?, int(&a[1])?, " ", true)
}
fn lpad3(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    pad(txt(&a[0])?, int(&a[1])?, txt(&a[2])?, true)
}
fn rpad2(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    pad(txt(&a[0])?, int(&a[1])?, " ", false)
}
fn rpad3(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    pad(txt(&a[0])?, int(&a[1])?, txt(&a[2])?, false)
}

fn trim_set(a: &[Datum]) -> Result<(&str, &str), SqlError> {
    Ok((txt(&a[0])?, a.get(1).map(txt).transpose()?.unwrap_or(" ")))
}
fn btrim(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let (s, set) = trim_set(a)?;
    Ok(text(s.trim_matches(|c| set.contains(c))))
}
fn ltrim(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let (s, set) = trim_set(a)?;
    Ok(text(s.trim_start_matches(|c| set.contains(c))))
}
fn rtrim(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let (s, set) = trim_set(a)?;
    Ok(text(s.trim_end_matches(|c| set.contains(c))))
}

fn position(s: &str, part: &str) -> i32 {
    s.find(part).map_or(0, |at| s[..at].chars().count() as i32 + 1)
}

fn strpos(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Int4(position(txt(&a[0])?, txt(&a[1])?)))
}

fn replace(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let (s, from, to) = (txt(&a[0])?, txt(&a[1])?, txt(&a[2])?);
    if from.is_empty() {
        return Ok(text(s));
    }
    let grown = s
        .len()
        .saturating_add(s.matches(from).count().saturating_mul(to.len()));
    if grown > MAX_TEXT {
        return Err(too_large());
    }
    Ok(text(&s.replace(from, to)))
}

fn translate(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let (s, from, to) = (txt(&a[0])?, txt(&a[1])?, txt(&a[2])?);
    let to: Vec<char> = to.chars().collect();
    let out: String = s
        .chars()
        .filter_map(|c| match from.chars().position(|f| f == c) {
            Some(i) => to.get(i).copied(),
            None => Some(c),
        })
        .collect();
    Ok(text(&out))
}

fn reverse(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(text(&txt(&a[0])?.chars().rev().collect::<String>()))
}

fn split_part(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let (s, separator, n) = (txt(&a[0])?, txt(&a[1])?, int(&a[2])?);
    if n == 0 {
        return Err(parameter("field position must not be zero"));
    }
    if separator.is_empty() {
        return Ok(text(if n == 1 || n == -1 { s } else { "" }));
    }
    let index = n.unsigned_abs() as usize - 1;
    let part = if n > 0 {
        s.split(separator).nth(index)
    } else {
        s.rsplit(separator).nth(index)
    };
    Ok(text(part.unwrap_or("")))
}

fn ascii(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Int4(txt(&a[0])?.chars().next().map_or(0, |c| c as i32)))
}

fn chr(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let code = int32(&a[0])?;
    match u32::try_from(code).ok() {
        None => Err(parameter("character number must be positive")),
        Some(0) => Err(SqlError::new(
            SqlState::PROGRAM_LIMIT_EXCEEDED,
            "null character not permitted",
        )),
        Some(code) => match char::from_u32(code) {
            Some(c) => Ok(text(c.encode_utf8(&mut [0; 4]))),
            None => Err(SqlError::new(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                format!("requested character not valid for encoding: {code}"),
            )),
        },
    }
}

fn overlay(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let (s, new, start) = (txt(&a[0])?, txt(&a[1])?, int(&a[2])?);
    let len = match a.get(3) {
        Some(d) => int(d)?,
        None => new.chars().count() as i64,
    };
    if start <= 0 {
        return Err(SqlError::new(
            SqlState::SUBSTRING_ERROR,
            "negative substring length not allowed",
        ));
    }
    let head = slice(s, 1, start);
    let tail = slice(s, start + len, i64::from(i32::MAX) + 2);
    Ok(text(&format!("{head}{new}{tail}")))
}

/// Identifier as it must be written in SQL.
pub(crate) fn quote_identifier(s: &str) -> String {
    let plain = s
        .bytes()
        .enumerate()
        .all(|(i, b)| b.is_ascii_lowercase() || b == b'_' || (i > 0 && (b.is_ascii_digit() || b == b'$')));
    if plain && !s.is_empty() && !crate::parse::keywords::needs_quotes(s) {
        return s.to_string();
    }
    format!("\"{}\"", s.replace('"', "\"\""))
}

fn quote_ident(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(text(&quote_identifier(txt(&a[0])?)))
}

fn quoted_literal(s: &str) -> String {
    let body = s.replace('\'', "''");
    if s.contains('\\') {
        format!(" E'{}'", body.replace('\\', "\\\\"))
    } else {
        format!("'{body}'")
    }
}

fn quote_literal(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(text(quoted_literal(&cast_text(cx, &a[0])).trim_start()))
}

fn quote_nullable(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    if a[0].is_null() {
        Ok(text("NULL"))
    } else {
        quote_literal(cx, a)
    }
}

fn to_hex(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(text(&match &a[0] {
        Datum::Int4(v) => format!("{v:x}"),
        d => format!("{:x}", int(d)?),
    }))
}

fn starts(cx: &EvalContext<'_>, d: Option<&Datum>) -> Result<String, SqlError> {
    Ok(d.filter(|d| !d.is_null())
        .map(|d| text_of(d, cx.style))
        .unwrap_or_default())
}

/// `format(template, …)`: `%s`, `%I`, `%L`, `%%`, with `n$`, `-` and a width.
fn format_text(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    if a[0].is_null() {
        return Ok(Datum::Null);
    }
    let template = txt(&a[0])?;
    let mut out = String::new();
    let mut next = 1;
    let mut chars = template.chars().peekable();
    let unterminated =
        || parameter("unterminated format() type specifier").with_hint("For a single \"%\" use \"%%\".");
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        if chars.peek() == Some(&'%') {
            chars.next();
            out.push('%');
            continue;
        }
        let number = |chars: &mut std::iter::Peekable<std::str::Chars<'_>>| {
            let mut value: Option<usize> = None;
            while let Some(d) = chars.peek().and_then(|c| c.to_digit(10)) {
                value = Some(value.unwrap_or(0).saturating_mul(10).saturating_add(d as usize));
                chars.next();
            }
            value
        };
        let mut width = number(&mut chars);
        if chars.peek() == Some(&'$') {
            chars.next();
            next = width
                .take()
                .filter(|n| *n > 0)
                .ok_or_else(|| parameter("format specifies argument 0, but arguments are numbered from 1"))?;
        }
        let minus = chars.peek() == Some(&'-');
        if minus {
            chars.next();
        }
        if width.is_none() {
            width = number(&mut chars);
        }
        let kind = chars.next().ok_or_else(unterminated)?;
        if !matches!(kind, 's' | 'I' | 'L') {
            return Err(
                parameter(format!("unrecognized format() type specifier \"{kind}\""))
                    .with_hint("For a single \"%\" use \"%%\"."),
            );
        }
        let value = a.get(next);
        if value.is_none() {
            return Err(parameter("too few arguments for format()"));
        }
        next += 1;
        let null = value.is_none_or(Datum::is_null);
        let plain = starts(cx, value)?;
        let piece = match kind {
            's' => plain,
            'I' if null => {
                return Err(SqlError::new(
                    SqlState::NULL_VALUE_NOT_ALLOWED,
                    "null values cannot be formatted as an SQL identifier",
                ));
            }
            'I' => quote_identifier(&plain),
            _ if null => "NULL".into(),
            _ => quoted_literal(&plain).trim_start().to_string(),
        };
        let fill = width
            .unwrap_or(0)
            .min(MAX_TEXT)
            .saturating_sub(piece.chars().count());
        let blanks = " ".repeat(fill);
        out.push_str(&if minus { piece + &blanks } else { blanks + &piece });
        if out.len() > MAX_TEXT {
            return Err(too_large());
        }
    }
    Ok(text(&out))
}

fn md5_text(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(text(&super::bytes::md5_hex(txt(&a[0])?.as_bytes())))
}

fn md5_bytea(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(text(&super::bytes::md5_hex(bytea(&a[0])?)))
}

fn string_to_array(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    if a[0].is_null() {
        return Ok(Datum::Null);
    }
    let separator = if a[1].is_null() { None } else { Some(txt(&a[1])?) };
    let null = a.get(2).filter(|d| !d.is_null()).map(txt).transpose()?;
    let parts = crate::expr::set::split_text(txt(&a[0])?, separator);
    let values = collect_elements(parts.map(|p| if Some(p) == null { Datum::Null } else { text(p) }))?;
    Ok(Datum::Array(Arc::new(ArrayValue::new(Text, values))))
}

fn array_to_string(cx: &EvalContext<'_>, a: &[Datum]) -> Answer {
    if a[0].is_null() || a[1].is_null() {
        return Ok(Datum::Null);
    }
    let separator = txt(&a[1])?;
    let null = a.get(2).filter(|d| !d.is_null()).map(txt).transpose()?;
    let items = array_items(&a[0]).unwrap_or_default();
    let parts: Vec<String> = items
        .iter()
        .filter_map(|d| {
            if d.is_null() {
                null.map(String::from)
            } else {
                Some(text_of(d, cx.style))
            }
        })
        .collect();
    Ok(text(&parts.join(separator)))
}

fn text_eq_pattern(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Bool(boolean(&a[0])? == boolean(&a[1])?))
}

pub(super) const DEFS: &[FunctionDef] = &[
    def("||", &[Text, Text], Text, concat2),
    def("||", &[Text, Any], Text, any_text).stable(),
    def("||", &[Any, Text], Text, any_text).stable(),
    def("concat", &[Any], Text, concat).variadic().stable().nullable(),
    def("concat_ws", &[Text, Any], Text, concat_ws)
        .variadic()
        .stable()
        .nullable(),
    def("format", &[Text], Text, format_text).stable().nullable(),
    def("format", &[Text, Any], Text, format_text)
        .variadic()
        .stable()
        .nullable(),
    def("length", &[Text], Int4, length),
    def("length", &[Bpchar], Int4, length),
    def("char_length", &[Text], Int4, length),
    def("char_length", &[Bpchar], Int4, length),
    def("character_length", &[Text], Int4, length),
    def("character_length", &[Bpchar], Int4, length),
    def("octet_length", &[Text], Int4, octet_length),
    def("octet_length", &[Bpchar], Int4, octet_length),
    def("bit_length", &[Text], Int4, bit_length),
    def("lower", &[Text], Text, lower),
    def("upper", &[Text], Text, upper),
    def("initcap", &[Text], Text, initcap),
    def("substr", &[Text, Int4], Text, substr2),
    def("substr", &[Text, Int4, Int4], Text, substr3),
    def("substring", &[Text, Int4], Text, substr2),
    def("substring", &[Text, Int4, Int4], Text, substr3),
    def("left", &[Text, Int4], Text, left),
    def("right", &[Text, Int4], Text, right),
    def("lpad", &[Text, Int4], Text, lpad2),
    def("lpad", &[Text, Int4, Text], Text, lpad3),
    def("rpad", &[Text, Int4], Text, rpad2),
    def("rpad", &[Text, Int4, Text], Text, rpad3),
    def("btrim", &[Text], Text, btrim),
    def("btrim", &[Text, Text], Text, btrim),
    def("ltrim", &[Text], Text, ltrim),
    def("ltrim", &[Text, Text], Text, ltrim),
    def("rtrim", &[Text], Text, rtrim),
    def("rtrim", &[Text, Text], Text, rtrim),
    def("strpos", &[Text, Text], Int4, strpos),
    def("position", &[Text, Text], Int4, strpos),
    def("replace", &[Text, Text, Text], Text, replace),
    def("translate", &[Text, Text, Text], Text, translate),
    def("reverse", &[Text], Text, reverse),
    def("split_part", &[Text, Text, Int4], Text, split_part),
    def("ascii", &[Text], Int4, ascii),
    def("chr", &[Int4], Text, chr),
    def("overlay", &[Text, Text, Int4], Text, overlay),
    def("overlay", &[Text, Text, Int4, Int4], Text, overlay),
    def("quote_ident", &[Text], Text, quote_ident),
    def("quote_literal", &[Text], Text, quote_literal),
    def("quote_literal", &[AnyElement], Text, quote_literal).stable(),
    def("quote_nullable", &[Text], Text, quote_nullable).nullable(),
    def("quote_nullable", &[AnyElement], Text, quote_nullable)
        .stable()
        .nullable(),
    def("to_hex", &[Int4], Text, to_hex),
    def("to_hex", &[Int8], Text, to_hex),
    def("md5", &[Text], Text, md5_text),
    def("md5", &[Bytea], Text, md5_bytea),
    def("string_to_array", &[Text, Text], TextArray, string_to_array).nullable(),
    def("string_to_array", &[Text, Text, Text], TextArray, string_to_array).nullable(),
    def("array_to_string", &[AnyArray, Text], Text, array_to_string)
        .stable()
        .nullable(),
    def("array_to_string", &[AnyArray, Text, Text], Text, array_to_string)
        .stable()
        .nullable(),
    def("booleq", &[Bool, Bool], Bool, text_eq_pattern),
];
