//! The grammar of `synchronous_standby_names`, PostgreSQL's:
//!
//! ```text
//! ''                        no synchronous standby
//! s1, s2                    the same as FIRST 1 (s1, s2)
//! 2 (s1, s2, s3)            the same as FIRST 2 (...)
//! FIRST 2 (s1, "S 2", *)    the first two of the list that are connected
//! ANY 2 (s1, s2, s3)        any two of the list
//! ```
//!
//! Names compare without regard to case, as in PostgreSQL; `*` matches every name, quoted or not.

use std::fmt;

use crate::limits::{MAX_NAME_BYTES, MAX_SYNC_NAMES};

/// How standbys of the list are chosen.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SyncMethod {
    /// By the order of the list.
    First,
    /// Any of them.
    Any,
}

/// One element of the list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SyncName {
    /// `*`.
    All,
    /// A standby of this name.
    Named(String),
}

impl SyncName {
    /// Whether a standby of this name is meant.
    pub fn matches(&self, name: &str) -> bool {
        match self {
            SyncName::All => true,
            SyncName::Named(wanted) => wanted.eq_ignore_ascii_case(name),
        }
    }
}

/// A parsed `synchronous_standby_names`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyncNames {
    /// How they are chosen.
    pub method: SyncMethod,
    /// How many must confirm; 0 only when there are no names.
    pub count: usize,
    /// The list, in order.
    pub names: Vec<SyncName>,
}

/// Where and why the text is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SyncNamesError(String);

impl fmt::Display for SyncNamesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SyncNamesError {}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Token {
    Word(String),
    Quoted(String),
    Star,
    Comma,
    Open,
    Close,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Word(text) => f.write_str(text),
            Token::Quoted(text) => write!(f, "\"{text}\""),
            Token::Star => f.write_str("*"),
            Token::Comma => f.write_str(","),
            Token::Open => f.write_str("("),
            Token::Close => f.write_str(")"),
        }
    }
}

impl SyncNames {
    /// No synchronous standbys.
    pub const fn none() -> SyncNames {
        SyncNames {
            method: SyncMethod::First,
            count: 0,
            names: Vec::new(),
        }
    }

    /// Whether any standby must confirm.
    pub fn is_synchronous(&self) -> bool {
        self.count > 0
    }

    /// Position in the list of the first element that means this standby, from 1; `None` when it is
    /// not meant.
    pub fn priority(&self, name: &str) -> Option<usize> {
        self.names
            .iter()
            .position(|wanted| wanted.matches(name))
            .map(|index| index + 1)
    }

    /// Parses the setting's text.
    pub fn parse(text: &str) -> Result<SyncNames, SyncNamesError> {
        let tokens = tokens(text)?;
        if tokens.is_empty() {
            return Ok(SyncNames::none());
        }
        let (method, count, list) = match &tokens[..] {
            [
                Token::Word(method),
                Token::Word(count),
                Token::Open,
                list @ ..,
                Token::Close,
            ] if is_keyword(method) => {
                let method = if method.eq_ignore_ascii_case("any") {
                    SyncMethod::Any
                } else {
                    SyncMethod::First
                };
                (method, parse_count(count)?, list)
            }
            [Token::Word(count), Token::Open, list @ .., Token::Close] if !is_keyword(count) => {
                (SyncMethod::First, parse_count(count)?, list)
            }
            list => (SyncMethod::First, 1, list),
        };
        let names = parse_list(list)?;
        Ok(SyncNames { method, count, names })
    }
}

fn is_keyword(word: &str) -> bool {
    word.eq_ignore_ascii_case("first") || word.eq_ignore_ascii_case("any")
}

fn parse_count(word: &str) -> Result<usize, SyncNamesError> {
    match word.parse::<usize>() {
        Ok(count) if (1..=MAX_SYNC_NAMES).contains(&count) => Ok(count),
        _ => Err(SyncNamesError(format!(
            "number of synchronous standbys ({word}) must be from 1 to {MAX_SYNC_NAMES}"
        ))),
    }
}

fn parse_list(tokens: &[Token]) -> Result<Vec<SyncName>, SyncNamesError> {
    let mut names = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        match (index % 2, token) {
            (0, Token::Star) => names.push(SyncName::All),
            (0, Token::Quoted(name)) if name == "*" => names.push(SyncName::All),
            (0, Token::Word(name) | Token::Quoted(name)) => {
                names.push(SyncName::Named(name.clone()));
            }
            (1, Token::Comma) if index + 1 < tokens.len() => {}
            _ => return Err(SyncNamesError(format!("syntax error near {token}"))),
        }
    }
    if names.is_empty() {
        return Err(SyncNamesError("the list of standbys is empty".to_owned()));
    }
    if names.len() > MAX_SYNC_NAMES {
        return Err(SyncNamesError(format!("more than {MAX_SYNC_NAMES} standbys")));
    }
    Ok(names)
}

fn tokens(text: &str) -> Result<Vec<Token>, SyncNamesError> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let taken = match first {
            ',' | '(' | ')' | '*' => {
                tokens.push(match first {
                    ',' => Token::Comma,
                    '(' => Token::Open,
                    ')' => Token::Close,
                    _ => Token::Star,
                });
                1
            }
            '"' => {
                let (name, length) = quoted(rest)?;
                tokens.push(Token::Quoted(name));
                length
            }
            first if is_word(first) => {
                let length = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
                tokens.push(Token::Word(bounded(&rest[..length])?));
                length
            }
            other => return Err(SyncNamesError(format!("syntax error at {other:?}"))),
        };
        rest = rest[taken..].trim_start();
    }
    Ok(tokens)
}

/// Characters of an unquoted name. A hyphen is allowed beyond PostgreSQL's grammar, since host and
/// container names have it.
fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == '-' || c == '$' || c == '.'
}

/// The quoted name at the start of the text, and how many bytes it takes; `""` is a quote.
fn quoted(text: &str) -> Result<(String, usize), SyncNamesError> {
    let mut name = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if c != '"' {
            name.push(c);
        } else if chars.next_if(|(_, next)| *next == '"').is_some() {
            name.push('"');
        } else if name.is_empty() {
            return Err(SyncNamesError("an empty quoted name".to_owned()));
        } else {
            return Ok((bounded(&name)?, at + 1));
        }
    }
    Err(SyncNamesError("unterminated quoted name".to_owned()))
}

fn bounded(name: &str) -> Result<String, SyncNamesError> {
    if name.len() > MAX_NAME_BYTES {
        return Err(SyncNamesError(format!(
            "a name longer than {MAX_NAME_BYTES} bytes"
        )));
    }
    Ok(name.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    fn parsed(text: &str) -> (SyncMethod, usize, Vec<String>) {
        let names = SyncNames::parse(text).unwrap();
        let list = names.names.iter().map(|name| match name {
            SyncName::All => "*".to_owned(),
            SyncName::Named(name) => name.clone(),
        });
        (names.method, names.count, list.collect())
    }

    #[test]
    fn every_form_of_the_grammar() {
        use SyncMethod::{Any, First};
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        for (text, method, count, names) in [
            ("", First, 0, list(&[])),
            ("  ", First, 0, list(&[])),
            ("s1", First, 1, list(&["s1"])),
            ("s1,s2 , s3", First, 1, list(&["s1", "s2", "s3"])),
            ("2 (s1, s2)", First, 2, list(&["s1", "s2"])),
            (
                "FIRST 2 (s1, \"S \"\"2\", *)",
                First,
                2,
                list(&["s1", "S \"2", "*"]),
            ),
            ("any 1(*)", Any, 1, list(&["*"])),
            ("*", First, 1, list(&["*"])),
            ("first, any", First, 1, list(&["first", "any"])),
            ("node-1.example", First, 1, list(&["node-1.example"])),
        ] {
            assert_eq!(parsed(text), (method, count, names), "{text:?}");
        }
    }

    #[test]
    fn wrong_text_is_refused() {
        for text in [
            ",",
            "s1,",
            ",s1",
            "s1 s2",
            "ANY (s1)",
            "ANY 0 (s1)",
            "ANY 1 ()",
            "ANY 1 (s1",
            "0 (s1)",
            "\"s1",
            "\"\"",
            "ANY 1 (s1) s2",
            "s1;",
            "ANY 99999999999999999999 (s1)",
            "2 s1",
        ] {
            assert!(SyncNames::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_quoted_star_matches_every_name_as_in_postgresql() {
        let names = SyncNames::parse("\"*\"").unwrap();
        assert_eq!(names.priority("s1"), Some(1));
        assert_eq!(names.priority("*"), Some(1));
    }

    #[test]
    fn priority_is_the_first_match_without_regard_to_case() {
        let names = SyncNames::parse("FIRST 1 (s2, S1, *)").unwrap();
        assert_eq!(names.priority("s1"), Some(2));
        assert_eq!(names.priority("other"), Some(3));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[a-z0-9FIRSTANY\"(),* é-]{0,40}") {
            let _ = SyncNames::parse(&text);
        }
    }
}
