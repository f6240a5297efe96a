//! From text to tokens, by PostgreSQL's lexical rules.
//!
//! Every token keeps its byte range, so that an error can name the token as written and its character position. The
//! token list is bounded by the text, which is bounded by the protocol's message limit.

use std::borrow::Cow;

use towline_base::SqlState;

use crate::error::SqlError;

/// Longest identifier in bytes; longer ones are cut, as in PostgreSQL (NAMEDATALEN - 1).
pub(crate) const MAX_IDENTIFIER: usize = 63;

/// What a token is. Strings and identifiers are already unescaped.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tok<'a> {
    /// An unquoted identifier or keyword, folded to lower case.
    Word(Cow<'a, str>),
    /// A quoted identifier.
    Quoted(Cow<'a, str>),
    /// A string constant.
    Str(Cow<'a, str>),
    /// An integer constant, digits only.
    Int(&'a str),
    /// A constant with a point or an exponent.
    Num(&'a str),
    /// `$n`.
    Param(u32),
    /// An operator of operator characters.
    Op(&'a str),
    /// One of `( ) [ ] , ; . :`.
    Sym(char),
    /// `::`.
    TypeCast,
    /// `:=` or `=>`.
    Assign,
    /// The end of the text.
    Eof,
}

/// A token with its place.
#[derive(Clone, Debug)]
pub(crate) struct Token<'a> {
    /// What it is.
    pub tok: Tok<'a>,
    /// First byte.
    pub start: u32,
    /// One past the last byte.
    pub end: u32,
}

/// Character position (from 1) of a byte offset.
pub(crate) fn char_position(text: &str, offset: u32) -> u32 {
    let offset = (offset as usize).min(text.len());
    let prefix = text.as_bytes().get(..offset).unwrap_or_default();
    // Count the bytes that begin a character.
    let characters = prefix.iter().filter(|&&byte| byte & 0xC0 != 0x80).count();
    u32::try_from(characters).unwrap_or(u32::MAX - 1) + 1
}

/// Most tokens of a text: a token takes forty times the memory of a sign, and a text may have a thousand
/// million signs.
const MAX_TOKENS: usize = 1 << 24;
/// Tokens for which memory is taken before they are met: most texts have fewer, and the largest texts are few
/// long constants.
const FIRST_TOKENS: usize = 1024;

/// Splits `text` into tokens, the last of which is [`Tok::Eof`].
pub(crate) fn tokenize(text: &str) -> Result<Vec<Token<'_>>, SqlError> {
    let mut lexer = Lexer {
        text,
        bytes: text.as_bytes(),
        at: 0,
    };
    let mut tokens = Vec::with_capacity((text.len() / 4 + 4).min(FIRST_TOKENS));
    loop {
        lexer.skip_blank()?;
        let start = lexer.at;
        let tok = lexer.token()?;
        let done = tok == Tok::Eof;
        tokens.push(Token {
            tok,
            start: start as u32,
            end: lexer.at as u32,
        });
        if done {
            return Ok(tokens);
        }
        if tokens.len() > MAX_TOKENS {
            return Err(SqlError::new(
                SqlState::PROGRAM_LIMIT_EXCEEDED,
                format!("a text may have at most {MAX_TOKENS} words and signs"),
            ));
        }
    }
}

struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    at: usize,
}

fn is_identifier_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}

fn is_identifier_part(byte: u8) -> bool {
    is_identifier_start(byte) || byte.is_ascii_digit() || byte == b'$'
}

fn is_operator_char(byte: u8) -> bool {
    matches!(
        byte,
        b'+' | b'-'
            | b'*'
            | b'/'
            | b'<'
            | b'>'
            | b'='
            | b'~'
            | b'!'
            | b'@'
            | b'#'
            | b'%'
            | b'^'
            | b'&'
            | b'|'
            | b'`'
            | b'?'
    )
}

/// Cuts an identifier to the length the catalog can hold, at a character boundary.
fn cut_identifier(name: Cow<'_, str>) -> Cow<'_, str> {
    if name.len() <= MAX_IDENTIFIER {
        return name;
    }
    let mut end = MAX_IDENTIFIER;
    while !name.is_char_boundary(end) {
        end -= 1;
    }
    Cow::Owned(name.get(..end).unwrap_or_default().to_owned())
}

impl<'a> Lexer<'a> {
    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn slice(&self, start: usize, end: usize) -> &'a str {
        self.text.get(start..end).unwrap_or_default()
    }

    fn error(&self, offset: usize, message: &str) -> SqlError {
        let near = self.slice(offset, self.text.len());
        SqlError::new(SqlState::SYNTAX_ERROR, format!("{message} at or near \"{near}\""))
            .with_position(char_position(self.text, offset as u32))
    }

    fn skip_blank(&mut self) -> Result<(), SqlError> {
        loop {
            match self.peek(0) {
                b' ' | b'\t' | b'\n' | b'\r' | 0x0c | 0x0b if self.at < self.bytes.len() => self.at += 1,
                b'-' if self.peek(1) == b'-' => {
                    while self.at < self.bytes.len() && self.peek(0) != b'\n' && self.peek(0) != b'\r' {
                        self.at += 1;
                    }
                }
                b'/' if self.peek(1) == b'*' => self.skip_block_comment()?,
                _ => return Ok(()),
            }
        }
    }

    fn skip_block_comment(&mut self) -> Result<(), SqlError> {
        let start = self.at;
        let mut depth = 0usize;
        loop {
            if self.at >= self.bytes.len() {
                return Err(self.error(start, "unterminated /* comment"));
            }
            if self.peek(0) == b'/' && self.peek(1) == b'*' {
                depth += 1;
                self.at += 2;
            } else if self.peek(0) == b'*' && self.peek(1) == b'/' {
                depth -= 1;
                self.at += 2;
                if depth == 0 {
                    return Ok(());
                }
            } else {
                self.at += 1;
            }
        }
    }

    fn token(&mut self) -> Result<Tok<'a>, SqlError> {
        if self.at >= self.bytes.len() {
            return Ok(Tok::Eof);
        }
        let start = self.at;
        let byte = self.peek(0);
        match byte {
            b'e' | b'E' if self.peek(1) == b'\'' => {
                self.at += 1;
                self.string(true, start)
            }
            b'n' | b'N' if self.peek(1) == b'\'' => {
                self.at += 1;
                self.string(false, start)
            }
            b'b' | b'B' | b'x' | b'X' if self.peek(1) == b'\'' => {
                Err(SqlError::unsupported("a bit-string constant")
                    .with_position(char_position(self.text, start as u32)))
            }
            b'u' | b'U' if self.peek(1) == b'&' && matches!(self.peek(2), b'\'' | b'"') => {
                Err(SqlError::unsupported("a constant with Unicode escapes (U&)")
                    .with_position(char_position(self.text, start as u32)))
            }
            b'\'' => self.string(false, start),
            b'"' => self.quoted(),
            b'$' => self.dollar(),
            b'0'..=b'9' => self.number(),
            b'.' if self.peek(1).is_ascii_digit() => self.number(),
            b'(' | b')' | b'[' | b']' | b',' | b';' | b'.' => {
                self.at += 1;
                Ok(Tok::Sym(byte as char))
            }
            b':' => {
                let (tok, length) = match self.peek(1) {
                    b':' => (Tok::TypeCast, 2),
                    b'=' => (Tok::Assign, 2),
                    _ => (Tok::Sym(':'), 1),
                };
                self.at += length;
                Ok(tok)
            }
            _ if is_identifier_start(byte) => Ok(self.word()),
            _ if is_operator_char(byte) => Ok(self.operator()),
            _ => {
                let character = self
                    .slice(start, self.text.len())
                    .chars()
                    .next()
                    .map_or(1, char::len_utf8);
                let near = self.slice(start, start + character);
                Err(SqlError::new(
                    SqlState::SYNTAX_ERROR,
                    format!("syntax error at or near \"{near}\""),
                )
                .with_position(char_position(self.text, start as u32)))
            }
        }
    }

    fn word(&mut self) -> Tok<'a> {
        let start = self.at;
        let mut upper = false;
        while self.at < self.bytes.len() && is_identifier_part(self.peek(0)) {
            upper |= self.peek(0).is_ascii_uppercase();
            self.at += 1;
        }
        let raw = self.slice(start, self.at);
        let folded = if upper {
            Cow::Owned(raw.to_ascii_lowercase())
        } else {
            Cow::Borrowed(raw)
        };
        Tok::Word(cut_identifier(folded))
    }

    fn quoted(&mut self) -> Result<Tok<'a>, SqlError> {
        let start = self.at;
        self.at += 1;
        let mut text = Cow::Borrowed("");
        loop {
            let from = self.at;
            while self.at < self.bytes.len() && self.peek(0) != b'"' {
                self.at += 1;
            }
            if self.at >= self.bytes.len() {
                return Err(self.error(start, "unterminated quoted identifier"));
            }
            append(&mut text, self.slice(from, self.at));
            self.at += 1;
            if self.peek(0) != b'"' {
                break;
            }
            append(&mut text, "\"");
            self.at += 1;
        }
        if text.is_empty() {
            let near = self.slice(start, self.at);
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                format!("zero-length delimited identifier at or near \"{near}\""),
            )
            .with_position(char_position(self.text, start as u32)));
        }
        Ok(Tok::Quoted(cut_identifier(text)))
    }

    /// A string constant; parts on following lines are joined to it.
    fn string(&mut self, escapes: bool, start: usize) -> Result<Tok<'a>, SqlError> {
        let mut text = Cow::Borrowed("");
        loop {
            self.at += 1;
            self.string_part(escapes, start, &mut text)?;
            // 'a' <newline> 'b' is one constant; without a newline between them it is not.
            let mut ahead = self.at;
            let mut newline = false;
            while let Some(byte) = self.bytes.get(ahead) {
                match byte {
                    b'\n' | b'\r' => newline = true,
                    b' ' | b'\t' | 0x0c => {}
                    _ => break,
                }
                ahead += 1;
            }
            if newline && self.bytes.get(ahead) == Some(&b'\'') {
                self.at = ahead;
            } else {
                return Ok(Tok::Str(text));
            }
        }
    }

    fn string_part(&mut self, escapes: bool, start: usize, text: &mut Cow<'a, str>) -> Result<(), SqlError> {
        loop {
            let from = self.at;
            while self.at < self.bytes.len() && self.peek(0) != b'\'' && !(escapes && self.peek(0) == b'\\') {
                self.at += 1;
            }
            if self.at >= self.bytes.len() {
                return Err(self.error(start, "unterminated quoted string"));
            }
            append(text, self.slice(from, self.at));
            if self.peek(0) == b'\\' {
                self.escape(text)?;
                continue;
            }
            self.at += 1;
            if self.peek(0) != b'\'' {
                return Ok(());
            }
            append(text, "'");
            self.at += 1;
        }
    }

    fn escape(&mut self, text: &mut Cow<'a, str>) -> Result<(), SqlError> {
        let start = self.at;
        self.at += 1;
        let byte = self.peek(0);
        self.at += 1;
        let value = match byte {
            b'b' => 8,
            b'f' => 12,
            b'n' => 10,
            b'r' => 13,
            b't' => 9,
            b'0'..=b'7' => {
                let mut value = u32::from(byte - b'0');
                for _ in 0..2 {
                    if matches!(self.peek(0), b'0'..=b'7') {
                        value = value * 8 + u32::from(self.peek(0) - b'0');
                        self.at += 1;
                    }
                }
                value & 0xFF
            }
            b'x' => self.hex(2, 1, start)?,
            b'u' | b'U' => {
                text.to_mut().push(self.unicode(byte, start)?);
                return Ok(());
            }
            _ => {
                self.at -= 1;
                let character = self.slice(self.at, self.text.len()).chars().next();
                let length = character.map_or(0, char::len_utf8);
                append(text, self.slice(self.at, self.at + length));
                self.at += length.max(1);
                return Ok(());
            }
        };
        match char::from_u32(value) {
            Some(character @ '\x01'..='\x7f') => {
                text.to_mut().push(character);
                Ok(())
            }
            _ => Err(SqlError::new(
                SqlState::CHARACTER_NOT_IN_REPERTOIRE,
                format!("invalid byte sequence for encoding \"UTF8\": 0x{value:02x}"),
            )),
        }
    }

    /// The character of `\uXXXX` or `\UXXXXXXXX`, whose letter was just read; a pair of surrogates is one.
    fn unicode(&mut self, letter: u8, start: usize) -> Result<char, SqlError> {
        let high = self.code(letter, start)?;
        let mut value = high;
        if matches!(high, 0xD800..=0xDBFF) {
            let next = self.at;
            let letter = self.peek(1);
            let escape = self.peek(0) == b'\\' && matches!(letter, b'u' | b'U');
            if escape {
                self.at += 2;
                value = self.code(letter, next)?;
            }
            if !matches!(value, 0xDC00..=0xDFFF) || !escape {
                if !escape {
                    let character = self.slice(next, self.text.len()).chars().next();
                    self.at += character.map_or(0, char::len_utf8);
                }
                return Err(self.near(next, "invalid Unicode surrogate pair"));
            }
            value = 0x10000 + ((high - 0xD800) << 10) + (value - 0xDC00);
        } else if matches!(high, 0xDC00..=0xDFFF) {
            return Err(self.near(start, "invalid Unicode surrogate pair"));
        }
        match char::from_u32(value) {
            Some(character) if character != '\0' => Ok(character),
            _ => Err(self.near(start, "invalid Unicode escape value")),
        }
    }

    fn code(&mut self, letter: u8, start: usize) -> Result<u32, SqlError> {
        let digits = if letter == b'u' { 4 } else { 8 };
        self.hex(digits, digits, start)
    }

    /// 42601 at what was read since `start`.
    fn near(&self, start: usize, message: &str) -> SqlError {
        let near = match self.slice(start, self.at) {
            "" => "end of input".to_owned(),
            part => format!("or near \"{part}\""),
        };
        SqlError::new(SqlState::SYNTAX_ERROR, format!("{message} at {near}"))
            .with_position(char_position(self.text, start as u32))
    }

    fn hex(&mut self, max: usize, min: usize, start: usize) -> Result<u32, SqlError> {
        let mut value = 0u32;
        let mut digits = 0;
        while digits < max {
            let Some(digit) = (self.peek(0) as char).to_digit(16) else {
                break;
            };
            value = value.wrapping_mul(16).wrapping_add(digit);
            self.at += 1;
            digits += 1;
        }
        if digits < min {
            return Err(
                SqlError::new(SqlState::INVALID_ESCAPE_SEQUENCE, "invalid Unicode escape")
                    .with_hint("Unicode escapes must be \\uXXXX or \\UXXXXXXXX.")
                    .with_position(char_position(self.text, start as u32)),
            );
        }
        Ok(value)
    }

    fn dollar(&mut self) -> Result<Tok<'a>, SqlError> {
        let start = self.at;
        if self.peek(1).is_ascii_digit() {
            self.at += 1;
            let from = self.at;
            while self.peek(0).is_ascii_digit() {
                self.at += 1;
            }
            return match self.slice(from, self.at).parse::<u32>() {
                Ok(number) if number <= 65535 => Ok(Tok::Param(number)),
                _ => Err(SqlError::new(
                    SqlState::UNDEFINED_PARAMETER,
                    format!("there is no parameter {}", self.slice(start, self.at)),
                )
                .with_position(char_position(self.text, start as u32))),
            };
        }
        let mut end = start + 1;
        while self
            .bytes
            .get(end)
            .is_some_and(|&byte| is_identifier_part(byte) && byte != b'$')
        {
            end += 1;
        }
        if self.bytes.get(end) != Some(&b'$') {
            return Err(
                SqlError::new(SqlState::SYNTAX_ERROR, "syntax error at or near \"$\"")
                    .with_position(char_position(self.text, start as u32)),
            );
        }
        let tag = self.slice(start, end + 1);
        let body = self.slice(end + 1, self.text.len());
        let Some(length) = body.find(tag) else {
            return Err(self.error(start, "unterminated dollar-quoted string"));
        };
        self.at = end + 1 + length + tag.len();
        Ok(Tok::Str(Cow::Borrowed(body.get(..length).unwrap_or_default())))
    }

    fn number(&mut self) -> Result<Tok<'a>, SqlError> {
        let start = self.at;
        let mut integer = true;
        while self.peek(0).is_ascii_digit() {
            self.at += 1;
        }
        // `1..2` is an integer followed by two dots.
        if self.peek(0) == b'.' && self.peek(1) != b'.' {
            integer = false;
            self.at += 1;
            while self.peek(0).is_ascii_digit() {
                self.at += 1;
            }
        }
        if matches!(self.peek(0), b'e' | b'E') {
            let sign = usize::from(matches!(self.peek(1), b'+' | b'-'));
            if self.peek(1 + sign).is_ascii_digit() {
                integer = false;
                self.at += 1 + sign;
                while self.peek(0).is_ascii_digit() {
                    self.at += 1;
                }
            }
        }
        let text = self.slice(start, self.at);
        if is_identifier_start(self.peek(0)) && self.at < self.bytes.len() {
            let junk_end = self.at
                + self
                    .slice(self.at, self.text.len())
                    .chars()
                    .next()
                    .map_or(1, char::len_utf8);
            return Err(SqlError::new(
                SqlState::SYNTAX_ERROR,
                format!(
                    "trailing junk after numeric literal at or near \"{}\"",
                    self.slice(start, junk_end)
                ),
            )
            .with_position(char_position(self.text, start as u32)));
        }
        Ok(if integer { Tok::Int(text) } else { Tok::Num(text) })
    }

    fn operator(&mut self) -> Tok<'a> {
        let start = self.at;
        let mut end = start;
        while self.bytes.get(end).is_some_and(|&byte| is_operator_char(byte)) {
            // A comment ends the operator.
            let pair = (self.bytes.get(end), self.bytes.get(end + 1));
            if end > start && matches!(pair, (Some(b'-'), Some(b'-')) | (Some(b'/'), Some(b'*'))) {
                break;
            }
            end += 1;
        }
        // A name of several characters may end in + or - only if it also has one of the unusual characters.
        let unusual = |bytes: &[u8]| {
            bytes.iter().any(|byte| {
                matches!(
                    byte,
                    b'~' | b'!' | b'@' | b'#' | b'%' | b'^' | b'&' | b'|' | b'`' | b'?'
                )
            })
        };
        while end > start + 1 {
            let bytes = self.bytes.get(start..end).unwrap_or_default();
            match bytes.last() {
                Some(b'+' | b'-') if !unusual(bytes) => end -= 1,
                _ => break,
            }
        }
        self.at = end;
        match self.slice(start, end) {
            "=>" => Tok::Assign,
            "!=" => Tok::Op("<>"),
            other => Tok::Op(other),
        }
    }
}

fn append<'a>(text: &mut Cow<'a, str>, part: &'a str) {
    if text.is_empty() {
        *text = Cow::Borrowed(part);
    } else if !part.is_empty() {
        text.to_mut().push_str(part);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn kinds(text: &str) -> Vec<Tok<'_>> {
        tokenize(text)
            .unwrap()
            .into_iter()
            .map(|token| token.tok)
            .collect()
    }

    #[test]
    fn folds_words_and_keeps_quoted_names() {
        assert_eq!(
            kinds("SeLect \"Ab\"\"c\""),
            vec![Tok::Word("select".into()), Tok::Quoted("Ab\"c".into()), Tok::Eof]
        );
    }

    #[test]
    fn splits_operators_as_postgresql_does() {
        assert_eq!(
            kinds("1+-2"),
            vec![Tok::Int("1"), Tok::Op("+"), Tok::Op("-"), Tok::Int("2"), Tok::Eof]
        );
        assert_eq!(
            kinds("a!~'x'"),
            vec![
                Tok::Word("a".into()),
                Tok::Op("!~"),
                Tok::Str("x".into()),
                Tok::Eof
            ]
        );
        assert_eq!(
            kinds("a--c\n=1"),
            vec![Tok::Word("a".into()), Tok::Op("="), Tok::Int("1"), Tok::Eof]
        );
    }

    #[test]
    fn reads_every_form_of_string() {
        assert_eq!(kinds("'it''s'"), vec![Tok::Str("it's".into()), Tok::Eof]);
        assert_eq!(
            kinds("E'a\\n\\x41\\u00e9'"),
            vec![Tok::Str("a\nA\u{e9}".into()), Tok::Eof]
        );
        assert_eq!(kinds("$q$a$b$q$"), vec![Tok::Str("a$b".into()), Tok::Eof]);
        assert_eq!(kinds("'a'\n 'b'"), vec![Tok::Str("ab".into()), Tok::Eof]);
    }

    #[test]
    fn counts_positions_in_characters() {
        let error = tokenize("select 'é', 'abc").unwrap_err();
        assert_eq!(error.fields().position, Some(13));
    }

    #[test]
    fn never_panics_on_odd_text() {
        for text in [
            "$", "$a", "'", "\"", "/*", "E'\\", "1e", "1.e5", ".", "..", "\u{0}", "E'\\u12", "é\"", "U&'x'",
        ] {
            let _ = tokenize(text);
        }
    }
}
