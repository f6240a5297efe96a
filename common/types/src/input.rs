//! Text input of every type: literals, text-format parameters, COPY fields.

use crate::array::ArrayValue;
use crate::datetime::{fields, parse, span};
use crate::datum::Datum;
use crate::disk::NAME_LEN;
use crate::error::{Result, TypeError};
use crate::float;
use crate::numeric::Numeric;
use crate::style::IoStyle;
use crate::type_id::{ColumnType, TypeId};
use std::sync::Arc;
use towline_base::{Lsn, SqlState, Tid};

/// Reads the text form of a value and applies the type modifier as an assignment does (22001 for a `varchar(n)` that
/// is too long, unless only blanks are cut).
pub fn parse_text(ty: ColumnType, text: &str, style: &IoStyle) -> Result<Datum> {
    Ok(match ty.id {
        TypeId::Int4 => {
            Datum::Int4(parse_int(text, "integer", i64::from(i32::MIN), i64::from(i32::MAX))? as i32)
        }
        TypeId::Int8 => Datum::Int8(parse_int(text, "bigint", i64::MIN, i64::MAX)?),
        TypeId::Int2 => {
            Datum::Int2(parse_int(text, "smallint", i64::from(i16::MIN), i64::from(i16::MAX))? as i16)
        }
        TypeId::Text
        | TypeId::Varchar
        | TypeId::Bpchar
        | TypeId::Unknown
        | TypeId::PgNodeTree
        | TypeId::Cstring
        | TypeId::Inet => {
            if text.contains('\0') {
                return Err(TypeError::new(
                    SqlState::CHARACTER_NOT_IN_REPERTOIRE,
                    "invalid byte sequence for encoding \"UTF8\": 0x00",
                ));
            }
            return fit_text(text, ty, false);
        }
        TypeId::Name => Datum::Text(truncate_name(text).into()),
        TypeId::Bool => Datum::Bool(parse_bool(text)?),
        TypeId::Char => Datum::Char(match text.as_bytes() {
            [b'\\', a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7'] => {
                (a - b'0') << 6 | (b - b'0') << 3 | (c - b'0')
            }
            bytes => bytes.first().copied().unwrap_or(0),
        }),
        TypeId::Float4 => Datum::Float4(float::parse_f32(text)?),
        TypeId::Float8 => Datum::Float8(float::parse_f64(text)?),
        TypeId::Numeric => {
            let value: Numeric = text.parse()?;
            Datum::Numeric(match ty.numeric_limits() {
                Some((precision, scale)) => value.fit(precision, scale)?,
                None => value,
            })
        }
        TypeId::Bytea => Datum::Bytea(parse_bytea(text)?.into()),
        TypeId::Date => Datum::Date(parse::parse_date(text, style)?),
        TypeId::Time => Datum::Time(fields::round_micros(parse::parse_time(text, style)?, ty.typmod)),
        TypeId::Timestamp => Datum::Timestamp(fields::round_micros(
            parse::parse_timestamp(text, style)?,
            ty.typmod,
        )),
        TypeId::TimestampTz => Datum::TimestampTz(fields::round_micros(
            parse::parse_timestamptz(text, style)?,
            ty.typmod,
        )),
        TypeId::Interval => {
            let value = Datum::Interval(span::parse_interval(text)?);
            return crate::cast::apply_typmod(value, ty, false);
        }
        TypeId::PgLsn => Datum::PgLsn(
            text.parse::<Lsn>()
                .map_err(|_| TypeError::syntax(ty.id.sql_name(), text))?,
        ),
        TypeId::Oid => Datum::Oid(parse_u32(text, "oid")?),
        TypeId::Xid => Datum::Xid(parse_u32(text, "xid")?),
        TypeId::Cid => Datum::Xid(parse_u32(text, "cid")?),
        TypeId::Regproc
        | TypeId::Regprocedure
        | TypeId::Regclass
        | TypeId::Regtype
        | TypeId::Regnamespace
        | TypeId::Regrole => {
            // Names need the catalog: the SQL layer resolves them before it comes here.
            if text == "-" {
                Datum::Oid(0)
            } else {
                Datum::Oid(parse_u32(text, ty.id.name())?)
            }
        }
        TypeId::Tid => parse_tid(text)?,
        TypeId::Int2Vector => {
            let items =
                words(text).map(|w| parse_int(w, "smallint", i64::from(i16::MIN), i64::from(i16::MAX)));
            Datum::Int2Vector(
                items
                    .map(|r| r.map(|v| v as i16))
                    .collect::<Result<Arc<[i16]>>>()?,
            )
        }
        TypeId::OidVector => Datum::OidVector(
            words(text)
                .map(|w| parse_u32(w, "oid"))
                .collect::<Result<Arc<[u32]>>>()?,
        ),
        TypeId::BoolArray
        | TypeId::ByteaArray
        | TypeId::CharArray
        | TypeId::NameArray
        | TypeId::Int2Array
        | TypeId::Int4Array
        | TypeId::TextArray
        | TypeId::BpcharArray
        | TypeId::VarcharArray
        | TypeId::Int8Array
        | TypeId::Float4Array
        | TypeId::Float8Array
        | TypeId::OidArray
        | TypeId::TimestampArray
        | TypeId::DateArray
        | TypeId::TimestampTzArray
        | TypeId::NumericArray => {
            let element = ty
                .id
                .element()
                .ok_or_else(|| TypeError::corrupt("array type without element"))?;
            let element = ColumnType {
                id: element,
                typmod: ty.typmod,
            };
            Datum::Array(Arc::new(parse_array(text, element, style)?))
        }
        TypeId::AclItem
        | TypeId::AclItemArray
        | TypeId::Record
        | TypeId::Any
        | TypeId::AnyArray
        | TypeId::Void
        | TypeId::AnyElement => {
            return Err(TypeError::unsupported(format!(
                "cannot accept a value of type {}",
                ty.id.sql_name()
            )));
        }
    })
}

/// Without the blanks that C's `isspace` knows.
pub(crate) fn trim_space(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\x0b')
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| c.is_ascii_whitespace())
        .filter(|w| !w.is_empty())
}

/// A decimal integer with optional sign and blanks around it.
pub fn parse_int(text: &str, type_name: &str, min: i64, max: i64) -> Result<i64> {
    let bytes = trim_space(text).as_bytes();
    let (negative, digits) = match bytes.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, bytes),
    };
    if digits.is_empty() {
        return Err(TypeError::syntax(type_name, text));
    }
    // Accumulated negatively: the lowest value has no positive twin.
    let mut value: i64 = 0;
    let mut overflow = false;
    for b in digits {
        let d = b.wrapping_sub(b'0');
        if d > 9 {
            return Err(TypeError::syntax(type_name, text));
        }
        match value.checked_mul(10).and_then(|v| v.checked_sub(i64::from(d))) {
            Some(v) => value = v,
            None => overflow = true,
        }
    }
    let value = if negative {
        Some(value)
    } else {
        value.checked_neg()
    };
    match value {
        Some(v) if !overflow && (min..=max).contains(&v) => Ok(v),
        _ => Err(TypeError::out_of_range(format!(
            "value \"{text}\" is out of range for type {type_name}"
        ))),
    }
}

/// An unsigned 32-bit number; a negative one wraps, as C's `strtoul` does.
fn parse_u32(text: &str, type_name: &str) -> Result<u32> {
    let value = parse_int(text, type_name, i64::from(i32::MIN), i64::from(u32::MAX))?;
    Ok(value as u32)
}

/// `true`/`false`, `yes`/`no`, `on`/`off`, `1`/`0` and their unambiguous prefixes.
pub fn parse_bool(text: &str) -> Result<bool> {
    let word = trim_space(text);
    let prefix = |full: &str, least: usize| {
        word.len() >= least
            && word.len() <= full.len()
            && full.as_bytes()[..word.len()].eq_ignore_ascii_case(word.as_bytes())
    };
    if prefix("true", 1) || prefix("yes", 1) || prefix("on", 2) || word == "1" {
        Ok(true)
    } else if prefix("false", 1) || prefix("no", 1) || prefix("off", 2) || word == "0" {
        Ok(false)
    } else {
        Err(TypeError::syntax("boolean", text))
    }
}

/// At most 63 bytes, cut between characters.
pub fn truncate_name(text: &str) -> &str {
    let mut end = text.len().min(NAME_LEN - 1);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// A string as `text`, `varchar(n)` or `char(n)`. Too long: cut if `explicit` or if only blanks are lost, else 22001.
pub(crate) fn fit_text(text: &str, ty: ColumnType, explicit: bool) -> Result<Datum> {
    let Some(limit) = ty.char_limit() else {
        return Ok(if ty.id == TypeId::Bpchar {
            Datum::Bpchar(text.into())
        } else {
            Datum::Text(text.into())
        });
    };
    // Bytes bound characters from above: short strings need no counting.
    let kept = if text.len() <= limit {
        text
    } else {
        match text.char_indices().nth(limit) {
            None => text,
            Some((at, _)) => {
                if !explicit && text[at..].bytes().any(|b| b != b' ') {
                    return Err(TypeError::new(
                        SqlState::STRING_DATA_RIGHT_TRUNCATION,
                        format!("value too long for type {}", ty.sql_name()),
                    ));
                }
                &text[..at]
            }
        }
    };
    if ty.id == TypeId::Varchar {
        return Ok(Datum::Text(kept.into()));
    }
    let chars = kept.chars().count();
    if chars == limit {
        return Ok(Datum::Bpchar(kept.into()));
    }
    let mut padded = String::with_capacity(kept.len() + limit - chars);
    padded.push_str(kept);
    padded.extend(std::iter::repeat_n(' ', limit - chars));
    Ok(Datum::Bpchar(padded.into()))
}

/// `\x` hex, or bytes with `\\` and `\ooo`.
pub fn parse_bytea(text: &str) -> Result<Vec<u8>> {
    let bytes = text.as_bytes();
    if let Some(hex) = bytes.strip_prefix(b"\\x") {
        return parse_hex(hex);
    }
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((b, tail)) = rest.split_first() {
        rest = match (b, tail) {
            (b'\\', [b'\\', tail @ ..]) => {
                out.push(b'\\');
                tail
            }
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) => {
                out.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
                tail
            }
            (b'\\', _) => {
                return Err(TypeError::new(
                    SqlState::INVALID_TEXT_REPRESENTATION,
                    "invalid input syntax for type bytea",
                ));
            }
            _ => {
                out.push(*b);
                tail
            }
        };
    }
    Ok(out)
}

/// Pairs of hexadecimal digits, blanks between pairs allowed.
pub fn parse_hex(hex: &[u8]) -> Result<Vec<u8>> {
    let digit = |b: u8| {
        char::from(b).to_digit(16).map(|d| d as u8).ok_or_else(|| {
            TypeError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("invalid hexadecimal digit: \"{}\"", char::from(b)),
            )
        })
    };
    let mut out = Vec::with_capacity(hex.len() / 2);
    let mut iter = hex.iter().copied();
    while let Some(high) = iter.next() {
        if high.is_ascii_whitespace() {
            continue;
        }
        let high = digit(high)?;
        let low = iter.next().ok_or_else(|| {
            TypeError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                "invalid hexadecimal data: odd number of digits",
            )
        })?;
        out.push(high << 4 | digit(low)?);
    }
    Ok(out)
}

fn parse_tid(text: &str) -> Result<Datum> {
    let parsed = || {
        let (block, offset) = trim_space(text)
            .strip_prefix('(')?
            .strip_suffix(')')?
            .split_once(',')?;
        Some(Datum::Tid(Tid::new(
            block.trim().parse().ok()?,
            offset.trim().parse().ok()?,
        )))
    };
    parsed().ok_or_else(|| TypeError::syntax("tid", text))
}

/// Deepest nesting of braces.
const MAX_DEPTH: usize = crate::array::MAX_DIMENSIONS;

fn parse_array(text: &str, element: ColumnType, style: &IoStyle) -> Result<ArrayValue> {
    let malformed = |detail: &str| {
        TypeError::new(
            SqlState::INVALID_TEXT_REPRESENTATION,
            format!("malformed array literal: \"{text}\""),
        )
        .with_detail(detail)
    };
    let body = trim_space(text);
    // An explicit `[l:u]=` prefix.
    let (given, body) = match body.strip_prefix('[') {
        None => (None, body),
        Some(_) => {
            let (bounds, rest) = body
                .split_once('=')
                .ok_or_else(|| malformed("Missing \"=\" after array dimensions."))?;
            let mut given = Vec::new();
            for part in trim_space(bounds).split(']').filter(|p| !p.is_empty()) {
                let part = part
                    .strip_prefix('[')
                    .ok_or_else(|| malformed("Missing \"]\" after array dimensions."))?;
                let (lower, upper) = part.split_once(':').unwrap_or(("1", part));
                let bound = |text: &str| {
                    let bound = text.trim().parse::<i32>();
                    bound.map_err(|_| malformed("Missing array dimension value."))
                };
                let (lower, upper) = (bound(lower)?, bound(upper)?);
                if upper < lower {
                    return Err(TypeError::new(
                        SqlState::ARRAY_SUBSCRIPT_ERROR,
                        "upper bound cannot be less than lower bound",
                    ));
                }
                given.push((lower, i64::from(upper) - i64::from(lower) + 1));
            }
            (Some(given), trim_space(rest))
        }
    };
    if !body.starts_with('{') {
        return Err(malformed(
            "Array value must start with \"{\" or dimension information.",
        ));
    }
    let mut parser = ArrayParser {
        bytes: body.as_bytes(),
        at: 0,
        values: Vec::new(),
        lens: Vec::new(),
        leaves: None,
        element,
        style,
    };
    let parsed = parser.braces(0)?;
    if parsed.is_none() {
        return Err(malformed("Unexpected end of input."));
    }
    if parser.at != body.len() {
        return Err(malformed("Junk after closing right brace."));
    }
    let (values, lens) = (parser.values, parser.lens);
    let product: usize = lens.iter().product();
    if let Some(given) = &given
        && !given
            .iter()
            .map(|(_, len)| *len)
            .eq(lens.iter().map(|len| *len as i64))
    {
        return Err(malformed(
            "Specified array dimensions do not match array contents.",
        ));
    }
    if lens.is_empty() || values.is_empty() {
        return Ok(ArrayValue {
            element: element.id,
            dims: Default::default(),
            values: Vec::new(),
        });
    }
    if product != values.len() {
        return Err(malformed(
            "Multidimensional arrays must have sub-arrays with matching dimensions.",
        ));
    }
    let dims = lens
        .iter()
        .enumerate()
        .map(|(i, len)| crate::array::Dimension {
            len: *len as i32,
            lower: given
                .as_ref()
                .and_then(|given| given.get(i))
                .map_or(1, |(lower, _)| *lower),
        })
        .collect::<smallvec::SmallVec<[_; 1]>>();
    ArrayValue::count(&dims)?;
    Ok(ArrayValue {
        element: element.id,
        dims,
        values,
    })
}

struct ArrayParser<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Datum>,
    /// Length of each dimension, from the first brace seen at each depth.
    lens: Vec<usize>,
    /// The depth at which elements stand, once one was read.
    leaves: Option<usize>,
    element: ColumnType,
    style: &'a IoStyle,
}

impl ArrayParser<'_> {
    fn skip_blanks(&mut self) {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn malformed(&self, detail: &str) -> TypeError {
        TypeError::new(
            SqlState::INVALID_TEXT_REPRESENTATION,
            format!(
                "malformed array literal: \"{}\"",
                String::from_utf8_lossy(self.bytes)
            ),
        )
        .with_detail(detail)
    }

    /// `{a,b,…}` at `depth`; `None` at the end of the input.
    fn braces(&mut self, depth: usize) -> Result<Option<()>> {
        if depth >= MAX_DEPTH {
            return Err(TypeError::new(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                format!(
                    "number of array dimensions ({}) exceeds the maximum allowed ({MAX_DEPTH})",
                    depth + 1
                ),
            ));
        }
        self.at += 1;
        if self.lens.len() <= depth {
            self.lens.push(0);
        }
        let mut count = 0;
        self.skip_blanks();
        if self.bytes.get(self.at) == Some(&b'}') {
            self.at += 1;
            return Ok(Some(()));
        }
        loop {
            self.skip_blanks();
            match self.bytes.get(self.at) {
                None => return Ok(None),
                Some(b'{') => {
                    if self.leaves.is_some_and(|leaves| leaves <= depth) {
                        return Err(self.malformed("Unexpected \"{\" character."));
                    }
                    if self.braces(depth + 1)?.is_none() {
                        return Ok(None);
                    }
                }
                Some(b',' | b'}') => return Err(self.malformed("Unexpected \",\" or \"}\" character.")),
                Some(_) => {
                    if self.lens.len() > depth + 1 {
                        return Err(self.malformed(
                            "Multidimensional arrays must have sub-arrays with matching dimensions.",
                        ));
                    }
                    self.leaves = Some(depth);
                    if self.item()?.is_none() {
                        return Ok(None);
                    }
                }
            }
            count += 1;
            self.skip_blanks();
            match self.bytes.get(self.at) {
                None => return Ok(None),
                Some(b',') => self.at += 1,
                Some(b'}') => {
                    self.at += 1;
                    break;
                }
                Some(_) => return Err(self.malformed("Unexpected array element.")),
            }
        }
        if self.lens[depth] == 0 {
            self.lens[depth] = count;
        } else if self.lens[depth] != count {
            return Err(
                self.malformed("Multidimensional arrays must have sub-arrays with matching dimensions.")
            );
        }
        Ok(Some(()))
    }

    fn item(&mut self) -> Result<Option<()>> {
        let mut text = Vec::new();
        let quoted = self.bytes[self.at] == b'"';
        let mut escaped = false;
        if quoted {
            self.at += 1;
        }
        loop {
            match self.bytes.get(self.at).copied() {
                None => return Ok(None),
                Some(b'\\') => {
                    let Some(next) = self.bytes.get(self.at + 1) else {
                        return Ok(None);
                    };
                    text.push(*next);
                    escaped = true;
                    self.at += 2;
                }
                Some(b'"') if quoted => {
                    self.at += 1;
                    break;
                }
                Some(b'"' | b'{') if !quoted => return Err(self.malformed("Unexpected array element.")),
                Some(b',' | b'}') if !quoted => break,
                Some(b) => {
                    text.push(b);
                    self.at += 1;
                }
            }
        }
        let text = String::from_utf8(text).map_err(|_| self.malformed("Incorrect encoding."))?;
        let value = if quoted {
            parse_text(self.element, &text, self.style)?
        } else {
            let bare = text.trim_end_matches(|c: char| c.is_ascii_whitespace());
            if bare.eq_ignore_ascii_case("null") && !escaped {
                Datum::Null
            } else {
                parse_text(self.element, bare, self.style)?
            }
        };
        self.values.push(value);
        if self.values.len() > crate::array::MAX_ELEMENTS {
            return Err(TypeError::new(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                "array is too large",
            ));
        }
        Ok(Some(()))
    }
}
