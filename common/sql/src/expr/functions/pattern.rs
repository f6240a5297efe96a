//! LIKE, regular expressions and what is made with them.
//!
//! Regular expressions are the regex crate's: linear time, no back-references and no look-around (PostgreSQL's has
//! both); POSIX classes, `\m`, `\M`, `\y`, `\d`, `\s`, `\w` and the `(?i)` prefix mean the same. A pattern it cannot take
//! is 2201B. Alternatives are tried leftmost-first, where POSIX takes the longest.

use super::text::MAX_TEXT;
use super::{FunctionDef, bytea, def, int32, text, txt};
use crate::error::SqlError;
use crate::expr::EvalContext;
use crate::expr::tree::{collect_elements, too_large};
use regex::{Regex, RegexBuilder};
use std::borrow::Cow;
use std::cell::RefCell;
use std::sync::Arc;
use towline_base::SqlState;
use towline_types::TypeId::*;
use towline_types::{ArrayValue, Datum};

type Answer = Result<Datum, SqlError>;

#[cold]
fn dangling_escape() -> SqlError {
    SqlError::new(
        SqlState::INVALID_ESCAPE_SEQUENCE,
        "LIKE pattern must not end with escape character",
    )
}

/// Whether `text` matches a LIKE pattern with escape `\`: `%` any text, `_` any character.
///
/// Two positions are remembered at each `%`, so the time is at most length × length, without recursion.
fn like(text: &str, pattern: &str) -> Result<bool, SqlError> {
    like_bytes(text.as_bytes(), pattern.as_bytes(), true)
}

/// The same on bytes; `characters`: `_` takes a whole UTF-8 character.
fn like_bytes(t: &[u8], p: &[u8], characters: bool) -> Result<bool, SqlError> {
    let (mut i, mut j) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    // Length of the character at a byte position.
    let width = |bytes: &[u8], at: usize| match bytes[at] {
        _ if !characters => 1,
        0..=0x7f => 1,
        0xf0.. => 4,
        0xe0.. => 3,
        _ => 2,
    };
    loop {
        let step = match p.get(j) {
            Some(b'%') => {
                retry = Some((i, j + 1));
                j += 1;
                if j == p.len() {
                    return Ok(true);
                }
                continue;
            }
            None => (i == t.len()).then_some((0, 0)),
            Some(b'_') => (i < t.len()).then(|| (width(t, i), 1)),
            Some(b'\\') => match p.get(j + 1) {
                None if i < t.len() => return Err(dangling_escape()),
                None => None,
                Some(c) => (t.get(i) == Some(c)).then_some((1, 2)),
            },
            Some(c) => (t.get(i) == Some(c)).then_some((1, 1)),
        };
        match step {
            Some((0, 0)) => return Ok(true),
            Some((text_step, pattern_step)) => {
                i += text_step;
                j += pattern_step;
            }
            None => match retry {
                Some((from, pattern_at)) if from < t.len() => {
                    i = from + width(t, from);
                    j = pattern_at;
                    retry = Some((i, pattern_at));
                }
                _ => return Ok(false),
            },
        }
    }
}

macro_rules! like_operators {
    ($($name:ident = |$t:ident, $p:ident| $body:expr;)*) => {
        $(fn $name(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
            let ($t, $p) = (txt(&a[0])?, txt(&a[1])?);
            Ok(Datum::Bool($body))
        })*
    };
}

like_operators! {
    op_like = |t, p| like(t, p)?;
    op_not_like = |t, p| !like(t, p)?;
    op_ilike = |t, p| like(&t.to_lowercase(), &p.to_lowercase())?;
    op_not_ilike = |t, p| !like(&t.to_lowercase(), &p.to_lowercase())?;
    op_match = |t, p| compiled(p, false)?.is_match(t);
    op_not_match = |t, p| !compiled(p, false)?.is_match(t);
    op_imatch = |t, p| compiled(p, true)?.is_match(t);
    op_not_imatch = |t, p| !compiled(p, true)?.is_match(t);
    op_starts_with = |t, p| t.starts_with(p);
}

fn op_like_bytes(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Bool(like_bytes(bytea(&a[0])?, bytea(&a[1])?, false)?))
}

fn op_not_like_bytes(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    Ok(Datum::Bool(!like_bytes(bytea(&a[0])?, bytea(&a[1])?, false)?))
}

/// `like_escape(pattern, escape)`: the pattern with `\` as escape instead.
fn like_escape(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let (pattern, escape) = (txt(&a[0])?, txt(&a[1])?);
    let mut chars = escape.chars();
    let escape = chars.next();
    if chars.next().is_some() {
        return Err(
            SqlError::new(SqlState::INVALID_ESCAPE_SEQUENCE, "invalid escape string")
                .with_hint("Escape string must be empty or one character."),
        );
    }
    if escape == Some('\\') {
        return Ok(a[0].clone());
    }
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut escaped = false;
    for c in pattern.chars() {
        if Some(c) == escape && !escaped {
            out.push('\\');
            escaped = true;
        } else {
            if c == '\\' && !escaped {
                out.push('\\');
            }
            out.push(c);
            escaped = false;
        }
    }
    Ok(text(&out))
}

/// Most compiled size of one regular expression.
const REGEX_SIZE: usize = 1 << 20;
/// Compiled patterns kept per thread.
const CACHE: usize = 32;

thread_local! {
    static COMPILED: RefCell<Vec<(String, bool, Regex)>> = const { RefCell::new(Vec::new()) };
}

/// A compiled pattern, kept for the next row.
fn compiled(pattern: &str, insensitive: bool) -> Result<Regex, SqlError> {
    COMPILED.with_borrow_mut(|cache| {
        if let Some(at) = cache
            .iter()
            .position(|(p, i, _)| p == pattern && *i == insensitive)
        {
            let entry = cache.remove(at);
            let regex = entry.2.clone();
            cache.push(entry);
            return Ok(regex);
        }
        let regex = compile(pattern, insensitive, false)?;
        if cache.len() >= CACHE {
            cache.remove(0);
        }
        cache.push((pattern.to_string(), insensitive, regex.clone()));
        Ok(regex)
    })
}

fn compile(pattern: &str, insensitive: bool, newline_sensitive: bool) -> Result<Regex, SqlError> {
    RegexBuilder::new(&translate(pattern))
        .case_insensitive(insensitive)
        .dot_matches_new_line(!newline_sensitive)
        .multi_line(newline_sensitive)
        .size_limit(REGEX_SIZE)
        .build()
        .map_err(|e| {
            let reason = e.to_string();
            let reason = posix_reason(
                reason
                    .lines()
                    .last()
                    .unwrap_or_default()
                    .trim_start_matches("error: "),
            );
            SqlError::new(
                SqlState::INVALID_REGULAR_EXPRESSION,
                format!("invalid regular expression: {reason}"),
            )
        })
}

/// The regex crate's complaint in the words of PostgreSQL's.
fn posix_reason(reason: &str) -> &str {
    match reason {
        "unclosed group" | "unopened group" => "parentheses () not balanced",
        r if r.starts_with("unclosed character class") => "brackets [] not balanced",
        r if r.starts_with("repetition operator missing") => "quantifier operand invalid",
        r if r.starts_with("invalid repetition count") => "invalid repetition count(s)",
        r if r.starts_with("invalid character class range") => "invalid character range",
        r => r,
    }
}

/// PostgreSQL's escapes in the regex crate's spelling.
fn translate(pattern: &str) -> Cow<'_, str> {
    let pattern = pattern.strip_prefix("***:").unwrap_or(pattern);
    if let Some(literal) = pattern.strip_prefix("***=") {
        return Cow::Owned(regex::escape(literal));
    }
    if !pattern.contains('\\') && !pattern.contains('[') {
        return Cow::Borrowed(pattern);
    }
    let mut out = String::with_capacity(pattern.len() + 8);
    let mut chars = pattern.chars().peekable();
    let mut in_class = false;
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('m') if !in_class => out.push_str(r"\b{start}"),
                Some('M') if !in_class => out.push_str(r"\b{end}"),
                Some('y') if !in_class => out.push_str(r"\b"),
                Some('Y') if !in_class => out.push_str(r"\B"),
                Some('Z') if !in_class => out.push_str(r"\z"),
                Some(next) => {
                    out.push('\\');
                    out.push(next);
                }
                None => out.push('\\'),
            },
            '[' if in_class => {
                // A POSIX class stays; a bare bracket is literal.
                if chars.peek() == Some(&':') {
                    out.push('[')
                } else {
                    out.push_str(r"\[")
                }
                if chars.peek() == Some(&':') {
                    for c in chars.by_ref() {
                        out.push(c);
                        if c == ']' {
                            break;
                        }
                    }
                }
            }
            '[' => {
                in_class = true;
                out.push('[');
                if chars.peek() == Some(&'^') {
                    out.push('^');
                    chars.next();
                }
                if chars.peek() == Some(&']') {
                    out.push_str(r"\]");
                    chars.next();
                }
            }
            ']' => {
                in_class = false;
                out.push(']');
            }
            // Set operators of the regex crate are plain characters in POSIX.
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// What the flags argument of a `regexp_…` function asks for.
#[derive(Default)]
struct Flags {
    insensitive: bool,
    global: bool,
    newline: bool,
    extended: bool,
}

fn flags(word: &str) -> Result<Flags, SqlError> {
    let mut flags = Flags::default();
    for c in word.chars() {
        match c {
            'i' => flags.insensitive = true,
            'c' => flags.insensitive = false,
            'g' => flags.global = true,
            'n' | 'm' => flags.newline = true,
            's' => flags.newline = false,
            'x' => flags.extended = true,
            't' | 'e' | 'b' | 'q' | 'p' | 'w' => {}
            other => {
                return Err(SqlError::new(
                    SqlState::INVALID_PARAMETER_VALUE,
                    format!("invalid regular expression option: \"{other}\""),
                ));
            }
        }
    }
    Ok(flags)
}

fn with_flags(pattern: &str, flags: &Flags) -> Result<Regex, SqlError> {
    if !flags.newline && !flags.extended {
        return compiled(pattern, flags.insensitive);
    }
    let prefix = if flags.extended { "(?x)" } else { "" };
    compile(&format!("{prefix}{pattern}"), flags.insensitive, flags.newline)
}

/// `\1` and `\&` in a replacement, in the regex crate's spelling.
fn replacement(template: &str) -> String {
    let mut out = String::with_capacity(template.len() + 8);
    let mut chars = template.chars();
    while let Some(c) = chars.next() {
        match c {
            '$' => out.push_str("$$"),
            '\\' => match chars.next() {
                Some('&') => out.push_str("${0}"),
                Some(d @ '1'..='9') => {
                    out.push_str("${");
                    out.push(d);
                    out.push('}');
                }
                Some('\\') => out.push('\\'),
                Some(other) => {
                    out.push('\\');
                    out.push(other);
                }
                None => out.push('\\'),
            },
            c => out.push(c),
        }
    }
    out
}

fn regexp_replace(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let (source, pattern, with) = (txt(&a[0])?, txt(&a[1])?, txt(&a[2])?);
    let flags = flags(a.get(3).map(txt).transpose()?.unwrap_or(""))?;
    let regex = with_flags(pattern, &flags)?;
    let template = replacement(with);
    let references = template.matches("${").count();
    let limit = if flags.global { usize::MAX } else { 1 };
    let mut out = String::new();
    let mut from = 0;
    for found in regex.captures_iter(source).take(limit) {
        let Some(whole) = found.get(0) else { break };
        out.push_str(&source[from..whole.start()]);
        from = whole.end();
        // No group is longer than the match.
        let most = references
            .saturating_mul(whole.len())
            .saturating_add(template.len());
        if out.len().saturating_add(most) > MAX_TEXT {
            return Err(too_large());
        }
        found.expand(&template, &mut out);
    }
    out.push_str(&source[from..]);
    Ok(text(&out))
}

fn regexp_match(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let flags = flags(a.get(2).map(txt).transpose()?.unwrap_or(""))?;
    if flags.global {
        return Err(SqlError::new(
            SqlState::INVALID_PARAMETER_VALUE,
            "regexp_match() does not support the \"global\" option",
        )
        .with_hint("Use the regexp_matches function instead."));
    }
    let regex = with_flags(txt(&a[1])?, &flags)?;
    let Some(found) = regex.captures(txt(&a[0])?) else {
        return Ok(Datum::Null);
    };
    let skip = usize::from(found.len() > 1);
    let groups = found
        .iter()
        .skip(skip)
        .map(|g| g.map_or(Datum::Null, |m| text(m.as_str())))
        .collect();
    Ok(Datum::Array(Arc::new(ArrayValue::new(Text, groups))))
}

fn regexp_count(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let n = compiled(txt(&a[1])?, false)?.find_iter(txt(&a[0])?).count();
    Ok(Datum::Int4(n as i32))
}

fn regexp_like(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let flags = flags(a.get(2).map(txt).transpose()?.unwrap_or(""))?;
    Ok(Datum::Bool(
        with_flags(txt(&a[1])?, &flags)?.is_match(txt(&a[0])?),
    ))
}

/// `regexp_substr(source, pattern)` and `substring(source from pattern)`: the first group, or the whole match.
fn regexp_substr(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let regex = compiled(txt(&a[1])?, false)?;
    let Some(found) = regex.captures(txt(&a[0])?) else {
        return Ok(Datum::Null);
    };
    let group = if found.len() > 1 {
        found.get(1)
    } else {
        found.get(0)
    };
    Ok(group.map_or(Datum::Null, |m| text(m.as_str())))
}

/// The parts of a text between matches.
pub(crate) fn regexp_split(source: &str, pattern: &str) -> Result<Vec<Datum>, SqlError> {
    let regex = compiled(pattern, false)?;
    let mut from = 0;
    // An empty match splits only between characters.
    let between = regex.find_iter(source).filter_map(|found| {
        if found.is_empty() && (found.start() == from || found.start() == source.len()) {
            return None;
        }
        let part = text(&source[from..found.start()]);
        from = found.end();
        Some(part)
    });
    let mut parts = collect_elements(between)?;
    parts.push(text(&source[from..]));
    if regex.is_match("") && !source.is_empty() && parts.len() == 1 {
        // Empty matches alone: every character by itself.
        return collect_elements(source.chars().map(|c| text(c.encode_utf8(&mut [0; 4]))));
    }
    Ok(parts)
}

fn regexp_split_to_array(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let values = regexp_split(txt(&a[0])?, txt(&a[1])?)?;
    Ok(Datum::Array(Arc::new(ArrayValue::new(Text, values))))
}

/// `regexp_instr` is rare; position of the first match from 1.
fn regexp_instr(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let source = txt(&a[0])?;
    let found = compiled(txt(&a[1])?, false)?.find(source);
    Ok(Datum::Int4(
        found.map_or(0, |m| source[..m.start()].chars().count() as i32 + 1),
    ))
}

fn repeat_guard(_: &EvalContext<'_>, a: &[Datum]) -> Answer {
    let count = int32(&a[1])?.max(0) as usize;
    let source = txt(&a[0])?;
    if source.len().saturating_mul(count) > MAX_TEXT {
        return Err(too_large());
    }
    Ok(text(&source.repeat(count)))
}

pub(super) const DEFS: &[FunctionDef] = &[
    def("~~", &[Text, Text], Bool, op_like),
    def("~~", &[Name, Text], Bool, op_like),
    def("~~", &[Bpchar, Text], Bool, op_like),
    def("~~", &[Bytea, Bytea], Bool, op_like_bytes),
    def("!~~", &[Bytea, Bytea], Bool, op_not_like_bytes),
    def("!~~", &[Text, Text], Bool, op_not_like),
    def("!~~", &[Name, Text], Bool, op_not_like),
    def("!~~", &[Bpchar, Text], Bool, op_not_like),
    def("~~*", &[Text, Text], Bool, op_ilike),
    def("~~*", &[Name, Text], Bool, op_ilike),
    def("~~*", &[Bpchar, Text], Bool, op_ilike),
    def("!~~*", &[Text, Text], Bool, op_not_ilike),
    def("!~~*", &[Name, Text], Bool, op_not_ilike),
    def("!~~*", &[Bpchar, Text], Bool, op_not_ilike),
    def("~", &[Text, Text], Bool, op_match),
    def("~", &[Name, Text], Bool, op_match),
    def("~", &[Bpchar, Text], Bool, op_match),
    def("!~", &[Text, Text], Bool, op_not_match),
    def("!~", &[Name, Text], Bool, op_not_match),
    def("!~", &[Bpchar, Text], Bool, op_not_match),
    def("~*", &[Text, Text], Bool, op_imatch),
    def("~*", &[Name, Text], Bool, op_imatch),
    def("~*", &[Bpchar, Text], Bool, op_imatch),
    def("!~*", &[Text, Text], Bool, op_not_imatch),
    def("!~*", &[Name, Text], Bool, op_not_imatch),
    def("!~*", &[Bpchar, Text], Bool, op_not_imatch),
    def("^@", &[Text, Text], Bool, op_starts_with),
    def("starts_with", &[Text, Text], Bool, op_starts_with),
    def("like", &[Text, Text], Bool, op_like),
    def("notlike", &[Text, Text], Bool, op_not_like),
    def("like_escape", &[Text, Text], Text, like_escape),
    def("regexp_replace", &[Text, Text, Text], Text, regexp_replace),
    def("regexp_replace", &[Text, Text, Text, Text], Text, regexp_replace),
    def("regexp_match", &[Text, Text], TextArray, regexp_match),
    def("regexp_match", &[Text, Text, Text], TextArray, regexp_match),
    def("regexp_count", &[Text, Text], Int4, regexp_count),
    def("regexp_like", &[Text, Text], Bool, regexp_like),
    def("regexp_like", &[Text, Text, Text], Bool, regexp_like),
    def("regexp_substr", &[Text, Text], Text, regexp_substr),
    def("regexp_instr", &[Text, Text], Int4, regexp_instr),
    def(
        "regexp_split_to_array",
        &[Text, Text],
        TextArray,
        regexp_split_to_array,
    ),
    def("substring", &[Text, Text], Text, regexp_substr),
    def("repeat", &[Text, Int4], Text, repeat_guard),
];
