//! A date literal as fields: numbers, words, and what has a colon, a dash or a sign in it; and what the words mean.

use super::parse::{Decoded, Fault};
use smallvec::SmallVec;

/// Most fields a literal may have.
const MAX_FIELDS: usize = 25;
/// Longest literal that is looked at.
const MAX_LENGTH: usize = 150;

/// What a field looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Number,
    Word,
    Date,
    Time,
    Zone,
    /// A sign followed by a word: `-infinity`.
    Signed,
}

pub(super) struct Field {
    pub(super) kind: Kind,
    text: SmallVec<[u8; 16]>,
}

impl Field {
    pub(super) fn str(&self) -> &str {
        std::str::from_utf8(&self.text).unwrap_or_default()
    }
}

/// A token word that is not a zone.
pub(super) enum Word {
    Month(i32),
    Weekday,
    Now,
    Today(i32),
    Epoch,
    Infinity,
    Am,
    Pm,
    Bc,
    Ad,
    Ignore,
    Julian,
    TimeFollows,
    Dst,
}

const MONTHS: [&str; 12] = [
    "january",
    "february",
    "march",
    "april",
    "may",
    "june",
    "july",
    "august",
    "september",
    "october",
    "november",
    "december",
];
const WEEKDAYS: [&str; 7] = [
    "sunday",
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
];

pub(super) fn word_of(word: &str) -> Option<Word> {
    if word.len() >= 3 {
        if let Some(i) = MONTHS.iter().position(|m| *m == word || m[..3] == *word) {
            return Some(Word::Month(i as i32 + 1));
        }
        if word == "sept" {
            return Some(Word::Month(9));
        }
        let short = |d: &str| *d == *word || d[..3] == *word;
        if WEEKDAYS.iter().any(|d| short(d)) || ["tues", "wednes", "weds", "thur", "thurs"].contains(&word) {
            return Some(Word::Weekday);
        }
    }
    Some(match word {
        "now" => Word::Now,
        "today" => Word::Today(0),
        "tomorrow" => Word::Today(1),
        "yesterday" => Word::Today(-1),
        "epoch" => Word::Epoch,
        "infinity" => Word::Infinity,
        "am" => Word::Am,
        "pm" => Word::Pm,
        "bc" => Word::Bc,
        "ad" => Word::Ad,
        "at" | "on" => Word::Ignore,
        "j" | "jd" | "julian" => Word::Julian,
        "t" => Word::TimeFollows,
        "dst" => Word::Dst,
        _ => return None,
    })
}

pub(super) fn split(text: &str) -> Decoded<SmallVec<[Field; 6]>> {
    let bytes = text.as_bytes();
    if bytes.len() > MAX_LENGTH {
        return Err(Fault::Format);
    }
    let mut fields: SmallVec<[Field; 6]> = SmallVec::new();
    let mut i = 0;
    let at = |i: usize| bytes.get(i).copied().unwrap_or(0);
    while i < bytes.len() {
        if at(i).is_ascii_whitespace() {
            i += 1;
            continue;
        }
        if fields.len() >= MAX_FIELDS {
            return Err(Fault::Format);
        }
        let start = i;
        let run = |i: &mut usize, accept: &dyn Fn(u8) -> bool| {
            while *i < bytes.len() && accept(at(*i)) {
                *i += 1;
            }
        };
        let digits = |b: u8| b.is_ascii_digit();
        let mut sign_skip = None;
        let kind = match at(i) {
            b'0'..=b'9' => {
                run(&mut i, &digits);
                match at(i) {
                    b':' => {
                        run(&mut i, &|b| b.is_ascii_digit() || b == b':' || b == b'.');
                        Kind::Time
                    }
                    delimiter @ (b'-' | b'/' | b'.') => {
                        i += 1;
                        if at(i).is_ascii_digit() {
                            run(&mut i, &digits);
                            if at(i) == delimiter {
                                run(&mut i, &|b| b.is_ascii_digit() || b == delimiter);
                                Kind::Date
                            } else if delimiter == b'.' {
                                Kind::Number
                            } else {
                                Kind::Date
                            }
                        } else {
                            run(&mut i, &|b| b.is_ascii_alphanumeric() || b == delimiter);
                            Kind::Date
                        }
                    }
                    _ => Kind::Number,
                }
            }
            b'.' => {
                i += 1;
                run(&mut i, &digits);
                Kind::Number
            }
            b if b.is_ascii_alphabetic() => {
                run(&mut i, &|b| b.is_ascii_alphabetic());
                let word = text[start..i].to_ascii_lowercase();
                let dated = matches!(at(i), b'-' | b'/' | b'.')
                    || ((at(i) == b'+' || at(i).is_ascii_digit()) && word_of(&word).is_none());
                if dated {
                    run(&mut i, &|b| b.is_ascii_alphanumeric() || b"+-/_.:".contains(&b));
                    Kind::Date
                } else {
                    Kind::Word
                }
            }
            b'+' | b'-' => {
                i += 1;
                run(&mut i, &|b| b.is_ascii_whitespace());
                sign_skip = Some(i);
                if at(i).is_ascii_digit() {
                    run(&mut i, &|b| b.is_ascii_digit() || b":.-".contains(&b));
                    Kind::Zone
                } else if at(i).is_ascii_alphabetic() {
                    run(&mut i, &|b| b.is_ascii_alphabetic());
                    Kind::Signed
                } else {
                    return Err(Fault::Format);
                }
            }
            b if b.is_ascii_punctuation() => {
                i += 1;
                continue;
            }
            _ => return Err(Fault::Format),
        };
        let mut out: SmallVec<[u8; 16]> = SmallVec::new();
        match sign_skip {
            Some(body) => {
                out.push(bytes[start]);
                out.extend(bytes[body..i].iter().map(u8::to_ascii_lowercase));
            }
            None => out.extend(bytes[start..i].iter().map(u8::to_ascii_lowercase)),
        }
        fields.push(Field { kind, text: out });
    }
    if fields.is_empty() {
        Err(Fault::Format)
    } else {
        Ok(fields)
    }
}
