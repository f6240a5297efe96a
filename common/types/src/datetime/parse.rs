//! Reading dates, times and timestamps: every form PostgreSQL accepts that people write.
//!
//! The text is split into fields (numbers, words, things with `:` or `-`), and each field is given its meaning from
//! what it looks like and from what is known so far, with DateOrder deciding the ambiguous cases. The decisions are
//! those of PostgreSQL's `DecodeDateTime` (`src/backend/utils/adt/datetime.c`).

use super::calendar::{self, Civil};
use super::words::{Field, Kind, Word, split, word_of};
use super::zone;
use super::{DAY, HOUR, MINUTE, SECOND};
use crate::error::{Result, TypeError};
use crate::style::{DateOrder, IoStyle};
use jiff::tz::TimeZone;
use smallvec::SmallVec;
use towline_base::SqlState;

const YEAR: u32 = 1;
const MONTH: u32 = 2;
const MDAY: u32 = 4;
const DATE: u32 = YEAR | MONTH | MDAY;
const TIME: u32 = 8;
const ZONE: u32 = 16;
const WEEKDAY: u32 = 32;
const MERIDIEM: u32 = 64;
const ERA: u32 = 128;

/// Why a literal is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    Format,
    FieldOverflow,
    /// A month or day out of range: perhaps the order was wrong.
    MonthDayOverflow,
    ZoneOverflow,
    UnknownZone,
}

impl Fault {
    #[cold]
    fn error(self, type_name: &str, text: &str) -> TypeError {
        let overflow = || {
            TypeError::new(
                SqlState::DATETIME_FIELD_OVERFLOW,
                format!("date/time field value out of range: \"{text}\""),
            )
        };
        match self {
            Fault::Format => TypeError::new(
                SqlState::INVALID_DATETIME_FORMAT,
                format!("invalid input syntax for type {type_name}: \"{text}\""),
            ),
            Fault::FieldOverflow => overflow(),
            Fault::MonthDayOverflow => {
                overflow().with_hint("Perhaps you need a different \"datestyle\" setting.")
            }
            Fault::ZoneOverflow => TypeError::new(
                SqlState::INVALID_TIME_ZONE_DISPLACEMENT_VALUE,
                format!("time zone displacement out of range: \"{text}\""),
            ),
            Fault::UnknownZone => TypeError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("time zone \"{}\" not recognized", zone_word(text)),
            ),
        }
    }
}

/// The word of a literal that looks like a zone name, for the message.
fn zone_word(text: &str) -> String {
    let word = text
        .split_whitespace()
        .rev()
        .find(|w| w.contains('/') || w.starts_with(|c: char| c.is_ascii_alphabetic()));
    word.unwrap_or(text).to_ascii_lowercase()
}

pub(super) type Decoded<T> = std::result::Result<T, Fault>;

/// A zone in a literal.
#[derive(Clone, Debug)]
enum LiteralZone {
    /// Seconds east.
    Offset(i32),
    Named(TimeZone),
}

/// What a literal says.
#[derive(Debug)]
enum Meaning {
    Now,
    Epoch,
    Infinity,
    NegInfinity,
    Moment,
}

struct Decoder<'a> {
    style: &'a IoStyle,
    known: u32,
    civil: Civil,
    two_digit_year: bool,
    text_month: bool,
    zone: Option<LiteralZone>,
    afternoon: Option<bool>,
    before_christ: bool,
    meaning: Meaning,
    /// Only a time is wanted: six digits are one.
    time_only: bool,
}

fn number(digits: &str) -> Decoded<i32> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Fault::Format);
    }
    digits.parse().map_err(|_| Fault::FieldOverflow)
}

/// Microseconds of `.ddd…`, rounded; up to 1000000.
pub(super) fn fraction(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('.')?;
    if !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let value: f64 = if digits.is_empty() {
        0.0
    } else {
        text.parse().ok()?
    };
    Some((value * 1e6).round_ties_even() as i64)
}

impl<'a> Decoder<'a> {
    fn new(style: &'a IoStyle) -> Self {
        Decoder {
            style,
            known: 0,
            civil: Civil::default(),
            two_digit_year: false,
            text_month: false,
            zone: None,
            afternoon: None,
            before_christ: false,
            meaning: Meaning::Moment,
            time_only: false,
        }
    }

    fn learn(&mut self, mask: u32) -> Decoded<()> {
        if self.known & mask != 0 {
            return Err(Fault::Format);
        }
        self.known |= mask;
        Ok(())
    }

    fn decode(&mut self, fields: &[Field]) -> Decoded<()> {
        // `J` or `T` was met and says what the next field is.
        let mut prefix: Option<Word> = None;
        for field in fields {
            let text = field.str();
            match (field.kind, prefix.take()) {
                (Kind::Number, Some(Word::Julian)) => self.julian(text)?,
                (Kind::Number | Kind::Time, Some(Word::TimeFollows)) => {
                    if field.kind == Kind::Time {
                        self.time(text)?;
                    } else {
                        self.run_together(text, self.known | DATE)?;
                    }
                }
                (Kind::Date, Some(Word::TimeFollows)) => self.time_with_zone(text)?,
                (_, Some(_)) => return Err(Fault::Format),
                (Kind::Date, None) => {
                    if self.known & (MONTH | MDAY) == MONTH | MDAY {
                        if text.starts_with(|c: char| c.is_ascii_digit()) {
                            self.time_with_zone(text)?;
                        } else {
                            self.learn(ZONE)?;
                            self.zone =
                                Some(LiteralZone::Named(zone::by_name(text).ok_or(Fault::UnknownZone)?));
                        }
                    } else {
                        self.date(text)?;
                    }
                }
                (Kind::Time, None) => self.time(text)?,
                (Kind::Zone, None) => {
                    self.learn(ZONE)?;
                    self.zone = Some(LiteralZone::Offset(offset(text)?));
                }
                (Kind::Number, None) => {
                    let point = text.find('.');
                    let whole = point.unwrap_or(text.len());
                    if point.is_some() && self.known & DATE == 0 {
                        self.date(text)?;
                    } else if (point.is_some() && whole > 2)
                        || (self.time_only && point.is_none() && text.len() == 4)
                        || (text.len() >= 6 && (self.known & DATE == 0 || self.known & TIME == 0))
                    {
                        self.run_together(text, self.known)?;
                    } else {
                        self.number_field(text)?;
                    }
                }
                (Kind::Word, None) => prefix = self.word(text)?,
                (Kind::Signed, None) => match text {
                    "-infinity" => self.meaning = Meaning::NegInfinity,
                    "+infinity" => self.meaning = Meaning::Infinity,
                    _ => return Err(Fault::Format),
                },
            }
        }
        if prefix.is_some() {
            Err(Fault::Format)
        } else {
            Ok(())
        }
    }

    /// A word; returns what it says of the next field.
    fn word(&mut self, text: &str) -> Decoded<Option<Word>> {
        let Some(word) = word_of(text) else {
            if let Some(offset) = zone::abbreviation_offset(text) {
                self.learn(ZONE)?;
                self.zone = Some(LiteralZone::Offset(offset));
                return Ok(None);
            }
            if text == "allballs" {
                self.learn(TIME | ZONE)?;
                self.zone = Some(LiteralZone::Offset(0));
                return Ok(None);
            }
            let zone = zone::by_name(text).ok_or(Fault::Format)?;
            self.learn(ZONE)?;
            self.zone = Some(LiteralZone::Named(zone));
            return Ok(None);
        };
        match word {
            Word::Month(m) => {
                // A number taken for the month was the day.
                if self.known & MONTH != 0
                    && !self.text_month
                    && self.known & MDAY == 0
                    && (1..=31).contains(&self.civil.month)
                {
                    self.civil.day = self.civil.month;
                    self.known |= MDAY;
                } else {
                    self.learn(MONTH)?;
                }
                self.text_month = true;
                self.civil.month = m;
            }
            Word::Weekday => self.learn(WEEKDAY)?,
            Word::Now => {
                self.learn(DATE | TIME | ZONE)?;
                self.meaning = Meaning::Now;
            }
            Word::Today(shift) => {
                self.learn(DATE)?;
                let local = zone::utc_to_local(&self.style.time_zone, self.style.now);
                let (year, month, day) = calendar::date(local.div_euclid(DAY) as i32 + shift);
                (self.civil.year, self.civil.month, self.civil.day) = (year, month, day);
            }
            Word::Epoch => {
                self.learn(DATE | TIME | ZONE)?;
                self.meaning = Meaning::Epoch;
            }
            Word::Infinity => {
                self.learn(DATE | TIME | ZONE)?;
                self.meaning = Meaning::Infinity;
            }
            Word::Am | Word::Pm => {
                self.learn(MERIDIEM)?;
                self.afternoon = Some(matches!(word, Word::Pm));
            }
            Word::Bc | Word::Ad => {
                self.learn(ERA)?;
                self.before_christ = matches!(word, Word::Bc);
            }
            Word::Ignore => {}
            Word::Julian => return Ok(Some(Word::Julian)),
            Word::TimeFollows => {
                if self.known & DATE != DATE {
                    return Err(Fault::Format);
                }
                return Ok(Some(Word::TimeFollows));
            }
            Word::Dst => match &mut self.zone {
                Some(LiteralZone::Offset(offset)) => *offset += 3600,
                _ => return Err(Fault::Format),
            },
        }
        Ok(None)
    }

    fn julian(&mut self, text: &str) -> Decoded<()> {
        let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
        let day = number(whole)?;
        self.learn(DATE)?;
        (self.civil.year, self.civil.month, self.civil.day) = calendar::from_julian(day);
        if !rest.is_empty() {
            self.learn(TIME)?;
            let part: f64 = rest.parse().map_err(|_| Fault::Format)?;
            self.set_time((part * DAY as f64).round() as i64);
        }
        Ok(())
    }

    fn set_time(&mut self, micros: i64) {
        (
            self.civil.hour,
            self.civil.minute,
            self.civil.second,
            self.civil.micros,
        ) = calendar::split_time(micros);
    }

    /// `hh:mm[:ss[.fff]]`
    fn time(&mut self, text: &str) -> Decoded<()> {
        self.learn(TIME)?;
        let (body, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
        let mut parts = body.split(':');
        let mut next = || parts.next().map(number);
        let first = next().ok_or(Fault::Format)??;
        let second = next().ok_or(Fault::Format)??;
        let third = match next() {
            // `hh:mm:` is read as zero seconds nowhere.
            Some(value) => Some(value?),
            None => None,
        };
        if next().is_some() {
            return Err(Fault::Format);
        }
        let micros = if rest.is_empty() {
            0
        } else {
            fraction(rest).ok_or(Fault::Format)?
        };
        let (hour, minute, second) = match third {
            Some(third) => (first, second, third),
            None if rest.is_empty() => (first, second, 0),
            // `mm:ss.fff`
            None => (0, first, second),
        };
        self.checked_time(hour, minute, second, micros)
    }

    fn checked_time(&mut self, hour: i32, minute: i32, second: i32, micros: i64) -> Decoded<()> {
        let in_range = (0..=24).contains(&hour) && (0..60).contains(&minute) && (0..=60).contains(&second);
        let total = i64::from(hour) * HOUR + i64::from(minute) * MINUTE + i64::from(second) * SECOND + micros;
        if !in_range || total > DAY {
            return Err(Fault::FieldOverflow);
        }
        (self.civil.hour, self.civil.minute, self.civil.second) = (hour, minute, second);
        self.civil.micros = micros as i32;
        Ok(())
    }

    /// `hhmmss-zz`: a time run together, with an offset.
    fn time_with_zone(&mut self, text: &str) -> Decoded<()> {
        let at = text.find('-').ok_or(Fault::Format)?;
        self.learn(ZONE)?;
        self.zone = Some(LiteralZone::Offset(offset(&text[at..])?));
        self.run_together(&text[..at], self.known | DATE)
    }

    /// `a-b-c`, with a month by name or number.
    fn date(&mut self, text: &str) -> Decoded<()> {
        let mut parts: SmallVec<[&str; 4]> = SmallVec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let class = |c: char| (c.is_ascii_digit(), c.is_ascii_alphabetic());
            let first = rest.chars().next().map_or((false, false), class);
            let end = rest.find(|c| class(c) != first).unwrap_or(rest.len());
            if first != (false, false) {
                parts.push(&rest[..end]);
            }
            rest = &rest[end..];
        }
        let before = self.known;
        let mut month_here = false;
        for part in parts
            .iter()
            .filter(|p| p.starts_with(|c: char| c.is_ascii_alphabetic()))
        {
            match word_of(part) {
                Some(Word::Month(m)) => {
                    self.learn(MONTH)?;
                    self.civil.month = m;
                    month_here = true;
                }
                Some(Word::Ignore) => {}
                _ => return Err(Fault::Format),
            }
        }
        let outer = std::mem::replace(&mut self.text_month, month_here);
        for part in parts
            .iter()
            .filter(|p| p.starts_with(|c: char| c.is_ascii_digit()))
        {
            if self.known & DATE == DATE {
                return Err(Fault::Format);
            }
            self.number_field(part)?;
        }
        self.text_month |= outer;
        // The whole date must be in this field, and nothing but a zone may stand before it.
        if before & !ZONE != 0 || self.known & DATE != DATE {
            Err(Fault::Format)
        } else {
            Ok(())
        }
    }

    /// A single number whose meaning follows from what is known.
    fn number_field(&mut self, text: &str) -> Decoded<()> {
        if let Some(point) = text.find('.') {
            if point > 2 {
                return self.run_together(text, self.known);
            }
            return Err(Fault::Format);
        }
        let len = text.len();
        let value = number(text)?;
        let date = self.known & DATE;
        if len == 3 && date == YEAR && (1..=366).contains(&value) {
            let day = calendar::julian(self.civil.year, 1, 1).wrapping_add(value - 1);
            (_, self.civil.month, self.civil.day) = calendar::from_julian(day);
            return self.learn(MONTH | MDAY);
        }
        let target = if date == 0 {
            if len >= 3 || self.style.date_order == DateOrder::Ymd {
                YEAR
            } else if self.style.date_order == DateOrder::Dmy {
                MDAY
            } else {
                MONTH
            }
        } else if date == YEAR {
            MONTH
        } else if date == MONTH {
            if self.text_month && (len >= 3 || self.style.date_order == DateOrder::Ymd) {
                YEAR
            } else {
                MDAY
            }
        } else if date == YEAR | MONTH {
            if self.text_month && len >= 3 && self.two_digit_year {
                // What was taken for the year was the day.
                self.civil.day = self.civil.year;
                self.known |= MDAY;
                self.civil.year = value;
                self.two_digit_year = false;
                return Ok(());
            }
            MDAY
        } else if date == MDAY {
            MONTH
        } else if date == MONTH | MDAY {
            YEAR
        } else if date == DATE {
            return self.run_together(text, self.known);
        } else {
            return Err(Fault::Format);
        };
        self.learn(target)?;
        match target {
            YEAR => {
                self.civil.year = value;
                self.two_digit_year = len <= 2;
            }
            MONTH => self.civil.month = value,
            _ => self.civil.day = value,
        }
        Ok(())
    }

    /// `yyyymmdd`, `yymmdd`, `hhmmss[.fff]` or `hhmm`.
    fn run_together(&mut self, text: &str, known: u32) -> Decoded<()> {
        let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
        let len = whole.len();
        if rest.is_empty() && known & DATE != DATE && len >= 6 && !self.time_only {
            self.learn(DATE)?;
            self.civil.day = number(&whole[len - 2..])?;
            self.civil.month = number(&whole[len - 4..len - 2])?;
            self.civil.year = number(&whole[..len - 4])?;
            self.two_digit_year = len == 6;
            return Ok(());
        }
        let micros = if rest.is_empty() {
            0
        } else {
            fraction(rest).ok_or(Fault::Format)?
        };
        if known & TIME != 0 || !whole.bytes().all(|b| b.is_ascii_digit()) {
            return Err(Fault::Format);
        }
        let part = |from: usize| number(&whole[from..from + 2]);
        let (hour, minute, second) = match len {
            6 => (part(0)?, part(2)?, part(4)?),
            4 => (part(0)?, part(2)?, 0),
            _ => return Err(Fault::Format),
        };
        self.learn(TIME)?;
        self.checked_time(hour, minute, second, micros)
    }

    /// Era, two-digit years, AM and PM, and the ranges of month and day.
    fn validate(&mut self) -> Decoded<()> {
        if let Some(pm) = self.afternoon {
            if self.civil.hour > 12 {
                return Err(Fault::FieldOverflow);
            }
            self.civil.hour = self.civil.hour % 12 + if pm { 12 } else { 0 };
        }
        if self.time_only {
            // A date beside the time is read over, but it must be whole.
            return if matches!(self.known & DATE, 0 | DATE) {
                Ok(())
            } else {
                Err(Fault::Format)
            };
        }
        if self.known & YEAR != 0 {
            if self.before_christ {
                if self.civil.year <= 0 {
                    return Err(Fault::FieldOverflow);
                }
                self.civil.year = 1 - self.civil.year;
            } else if self.two_digit_year {
                self.civil.year += if self.civil.year < 70 { 2000 } else { 1900 };
            } else if self.civil.year <= 0 {
                return Err(Fault::FieldOverflow);
            }
        }
        if self.known & MONTH != 0 && !(1..=12).contains(&self.civil.month) {
            return Err(Fault::MonthDayOverflow);
        }
        if self.known & MDAY != 0 && !(1..=31).contains(&self.civil.day) {
            return Err(Fault::MonthDayOverflow);
        }
        if self.known & DATE == DATE
            && self.civil.day > calendar::month_days(self.civil.year, self.civil.month)
        {
            return Err(Fault::FieldOverflow);
        }
        Ok(())
    }
}

/// `±hh[[:]mm[:ss]]` in seconds east.
fn offset(text: &str) -> Decoded<i32> {
    match zone::parse_offset(text) {
        Some(offset) => Ok(offset),
        None => {
            let digits = text.trim_start_matches(['+', '-']);
            let plausible = digits.bytes().all(|b| b.is_ascii_digit() || b == b':') && digits.len() <= 8;
            Err(if plausible && !digits.is_empty() && digits.len() != 6 {
                Fault::ZoneOverflow
            } else {
                Fault::Format
            })
        }
    }
}

/// Splits and decodes; `need_date` refuses a bare time.
fn decode<'a>(text: &str, style: &'a IoStyle, need_date: bool) -> Decoded<Decoder<'a>> {
    let fields = split(text)?;
    let mut decoder = Decoder::new(style);
    decoder.time_only = !need_date;
    decoder.decode(&fields)?;
    if matches!(decoder.meaning, Meaning::Moment) {
        decoder.validate()?;
        if need_date && decoder.known & DATE != DATE {
            return Err(Fault::Format);
        }
    }
    Ok(decoder)
}

/// `yyyy-mm-dd` with nothing else, the form that loads are made of.
fn plain_date(text: &[u8]) -> Option<(i32, i32, i32)> {
    let two = |i: usize| -> Option<i32> {
        let (a, b) = (text[i].wrapping_sub(b'0'), text[i + 1].wrapping_sub(b'0'));
        (a <= 9 && b <= 9).then_some(i32::from(a) * 10 + i32::from(b))
    };
    if text.len() < 10 || text[4] != b'-' || text[7] != b'-' {
        return None;
    }
    let (year, month, day) = (two(0)? * 100 + two(2)?, two(5)?, two(8)?);
    (year > 0 && (1..=12).contains(&month) && day >= 1 && day <= calendar::month_days(year, month))
        .then_some((year, month, day))
}

/// Reads a `date`.
pub fn parse_date(text: &str, style: &IoStyle) -> Result<i32> {
    if text.len() == 10
        && let Some((year, month, day)) = plain_date(text.as_bytes())
    {
        return Ok(calendar::days(year, month, day));
    }
    let decoder = decode(text, style, true).map_err(|f| f.error("date", text))?;
    match decoder.meaning {
        Meaning::Now => Ok(zone::utc_to_local(&style.time_zone, style.now).div_euclid(DAY) as i32),
        Meaning::Epoch => Ok(calendar::days(1970, 1, 1)),
        Meaning::Infinity => Ok(super::DATE_INFINITY),
        Meaning::NegInfinity => Ok(super::DATE_NEG_INFINITY),
        Meaning::Moment => {
            let range = || {
                TypeError::new(
                    SqlState::DATETIME_FIELD_OVERFLOW,
                    format!("date out of range: \"{text}\""),
                )
            };
            let year = decoder.civil.year;
            if !(-4713..=5_874_898).contains(&year) {
                return Err(range());
            }
            let days = decoder.civil.days();
            if (super::MIN_DATE..super::END_DATE).contains(&days) {
                Ok(days)
            } else {
                Err(range())
            }
        }
    }
}

/// Reads a `time` (zone names are accepted and ignored).
pub fn parse_time(text: &str, style: &IoStyle) -> Result<i64> {
    const NAME: &str = "time";
    let decoder = decode(text, style, false).map_err(|f| f.error(NAME, text))?;
    if matches!(decoder.meaning, Meaning::Now) {
        return Ok(zone::utc_to_local(&style.time_zone, style.now).rem_euclid(DAY));
    }
    if !matches!(decoder.meaning, Meaning::Moment) || decoder.known & TIME == 0 {
        return Err(Fault::Format.error(NAME, text));
    }
    let c = decoder.civil;
    Ok(i64::from(c.hour) * HOUR
        + i64::from(c.minute) * MINUTE
        + i64::from(c.second) * SECOND
        + i64::from(c.micros))
}

fn timestamp_range(text: &str) -> TypeError {
    TypeError::new(
        SqlState::DATETIME_FIELD_OVERFLOW,
        format!("timestamp out of range: \"{text}\""),
    )
}

/// Reads a `timestamp`; a zone in the text is ignored.
pub fn parse_timestamp(text: &str, style: &IoStyle) -> Result<i64> {
    let decoder = decode(text, style, true).map_err(|f| f.error("timestamp", text))?;
    match decoder.meaning {
        Meaning::Now => Ok(zone::utc_to_local(&style.time_zone, style.now)),
        Meaning::Epoch => Ok(i64::from(calendar::days(1970, 1, 1)) * DAY),
        Meaning::Infinity => Ok(super::INFINITY),
        Meaning::NegInfinity => Ok(super::NEG_INFINITY),
        Meaning::Moment => decoder
            .civil
            .to_micros()
            .filter(|t| super::valid_timestamp(*t))
            .ok_or_else(|| timestamp_range(text)),
    }
}

/// Reads a `timestamptz`; without a zone in the text, by the session's.
pub fn parse_timestamptz(text: &str, style: &IoStyle) -> Result<i64> {
    let decoder = decode(text, style, true).map_err(|f| f.error("timestamp with time zone", text))?;
    match decoder.meaning {
        Meaning::Now => Ok(style.now),
        Meaning::Epoch => Ok(i64::from(calendar::days(1970, 1, 1)) * DAY),
        Meaning::Infinity => Ok(super::INFINITY),
        Meaning::NegInfinity => Ok(super::NEG_INFINITY),
        Meaning::Moment => {
            let local = decoder.civil.to_micros().ok_or_else(|| timestamp_range(text))?;
            let utc = match &decoder.zone {
                Some(LiteralZone::Offset(east)) => local.checked_sub(i64::from(*east) * SECOND),
                Some(LiteralZone::Named(named)) => zone::local_to_utc(named, local),
                None => zone::local_to_utc(&style.time_zone, local),
            };
            utc.filter(|t| super::valid_timestamp(*t))
                .ok_or_else(|| timestamp_range(text))
        }
    }
}
