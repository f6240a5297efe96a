//! [`Value`]: a setting's value, its parsing with PostgreSQL's units, and its text in `SHOW`.

use std::sync::Arc;

use super::def::{Kind, SettingDef, Unit};
use super::error::SettingError;
use crate::SqlState;

/// A setting's value. Numbers are in the setting's own unit.
#[derive(Clone, PartialEq, Debug)]
pub enum Value {
    /// on or off.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// A number.
    Real(f64),
    /// Text.
    Text(Arc<str>),
    /// One of the setting's words.
    Enum(&'static str),
}

/// Units with their sizes, largest first.
type Units = &'static [(&'static str, u64)];

/// Units of memory, largest first, with their bytes.
const MEMORY: [(&str, u64); 5] = [
    ("TB", 1 << 40),
    ("GB", 1 << 30),
    ("MB", 1 << 20),
    ("kB", 1 << 10),
    ("B", 1),
];
/// Units of time, largest first, with their microseconds.
const TIME: [(&str, u64); 6] = [
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("min", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];
const MEMORY_HINT: &str = "Valid units for this parameter are \"B\", \"kB\", \"MB\", \"GB\", and \"TB\".";
const TIME_HINT: &str =
    "Valid units for this parameter are \"us\", \"ms\", \"s\", \"min\", \"h\", and \"d\".";

/// The units that a setting accepts, each with its size, and the size of the setting's own unit.
fn units_of(unit: Unit) -> Option<(Units, u64, &'static str)> {
    match (unit.bytes(), unit.micros()) {
        (Some(bytes), _) => Some((&MEMORY, bytes, MEMORY_HINT)),
        (_, Some(micros)) => Some((&TIME, micros, TIME_HINT)),
        (None, None) => None,
    }
}

/// PostgreSQL's words for a boolean, and their unambiguous beginnings.
pub fn parse_bool(text: &str) -> Option<bool> {
    let text = text.trim().to_ascii_lowercase();
    let begins = |word: &str, least: usize| text.len() >= least && word.starts_with(&text);
    if text == "1" || begins("true", 1) || begins("yes", 1) || begins("on", 2) {
        Some(true)
    } else if text == "0" || begins("false", 1) || begins("no", 1) || begins("off", 2) {
        Some(false)
    } else {
        None
    }
}

impl Value {
    /// Parses the text of a configuration file, a command line or `SET`.
    pub fn parse(def: &SettingDef, text: &str) -> Result<Value, SettingError> {
        match def.kind {
            Kind::Bool => parse_bool(text).map(Value::Bool).ok_or_else(|| {
                let message = format!("parameter \"{}\" requires a Boolean value", def.name);
                SettingError::new(SqlState::INVALID_PARAMETER_VALUE, message)
            }),
            Kind::Int { min, max } => {
                let number = parse_number(def, text)?.round_ties_even();
                if number < min as f64 || number > max as f64 {
                    return Err(out_of_range(def, &number.to_string(), min, max));
                }
                Ok(Value::Int(number as i64))
            }
            Kind::Real { min, max } => {
                let number = parse_number(def, text)?;
                if !(min..=max).contains(&number) {
                    return Err(out_of_range(def, &show_real(number), min, max));
                }
                Ok(Value::Real(number))
            }
            Kind::Text(check) => match check(text) {
                Ok(canonical) => Ok(Value::Text(canonical.into())),
                Err(why) if why.is_empty() => Err(SettingError::invalid(def.name, text)),
                Err(why) => Err(SettingError::invalid(def.name, text).with_hint(why)),
            },
            Kind::Enum(words) => parse_word(words, text).map(Value::Enum).ok_or_else(|| {
                let hint = format!("Available values: {}.", words.join(", "));
                SettingError::invalid(def.name, text).with_hint(hint)
            }),
        }
    }

    /// The text that `SHOW` prints: with the largest unit that divides a number evenly.
    pub fn show(&self, def: &SettingDef) -> String {
        match self {
            Value::Int(number) if *number > 0 => match units_of(def.unit) {
                Some((units, own, _)) => show_with_unit(*number as u128 * u128::from(own), units),
                None => number.to_string(),
            },
            Value::Real(number) if *number > 0.0 => match units_of(def.unit) {
                Some((units, own, _)) => show_real_with_unit(*number, own, units),
                None => show_real(*number),
            },
            _ => self.raw(),
        }
    }

    /// The text that `pg_settings.setting` holds: without unit.
    pub fn raw(&self) -> String {
        match self {
            Value::Bool(true) => "on".to_owned(),
            Value::Bool(false) => "off".to_owned(),
            Value::Int(number) => number.to_string(),
            Value::Real(number) => show_real(*number),
            Value::Text(text) => text.to_string(),
            Value::Enum(word) => (*word).to_owned(),
        }
    }
}

fn parse_word(words: &'static [&'static str], text: &str) -> Option<&'static str> {
    let find = |wanted: &str| {
        words
            .iter()
            .copied()
            .find(|word| word.eq_ignore_ascii_case(wanted))
    };
    find(text.trim()).or_else(|| {
        // Settings that once were booleans still take a boolean's words.
        find(if parse_bool(text)? { "on" } else { "off" })
    })
}

fn out_of_range(
    def: &SettingDef,
    number: &str,
    min: impl std::fmt::Display,
    max: impl std::fmt::Display,
) -> SettingError {
    let (gap, unit) = def.unit.name().map_or(("", ""), |unit| (" ", unit));
    let message = format!(
        "{number}{gap}{unit} is outside the valid range for parameter \"{}\" ({min} .. {max})",
        def.name
    );
    SettingError::new(SqlState::INVALID_PARAMETER_VALUE, message)
}

/// A number with an optional unit, in the setting's own unit.
fn parse_number(def: &SettingDef, text: &str) -> Result<f64, SettingError> {
    let invalid = || SettingError::invalid(def.name, text);
    let trimmed = text.trim();
    let (number, unit) = split_number(trimmed).ok_or_else(invalid)?;
    if unit.is_empty() {
        return Ok(number);
    }
    let (units, own, hint) = units_of(def.unit).ok_or_else(invalid)?;
    let size = units.iter().find(|(name, _)| *name == unit);
    let (_, size) = size.ok_or_else(|| invalid().with_hint(hint))?;
    Ok(number * *size as f64 / own as f64)
}

/// The number at the start of the text, and the rest without spaces around it. Whole numbers may be
/// hexadecimal (`0x1F`) or octal (`017`), as in PostgreSQL.
fn split_number(text: &str) -> Option<(f64, &str)> {
    let (negative, body) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let sign = if negative { -1.0 } else { 1.0 };
    if let Some(hex) = body.strip_prefix("0x").or_else(|| body.strip_prefix("0X")) {
        let end = hex.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(hex.len());
        let number = u64::from_str_radix(&hex[..end], 16).ok()?;
        return Some((sign * number as f64, hex[end..].trim()));
    }
    let digits = body.find(|c: char| !c.is_ascii_digit()).unwrap_or(body.len());
    let mut end = digits;
    let mut decimal = false;
    if body[end..].starts_with('.') {
        decimal = true;
        end += 1;
        end += body[end..]
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(body.len() - end);
    }
    // An exponent only when digits follow; "5e" would otherwise swallow a unit's first letter.
    let exponent = &body[end..];
    if exponent.starts_with(['e', 'E']) {
        let signed = exponent[1..].strip_prefix(['+', '-']).unwrap_or(&exponent[1..]);
        let length = signed.find(|c: char| !c.is_ascii_digit()).unwrap_or(signed.len());
        if length > 0 {
            decimal = true;
            end = body.len() - signed.len() + length;
        }
    }
    let number = if !decimal && digits > 1 && body.starts_with('0') {
        i64::from_str_radix(&body[..end], 8).ok()? as f64
    } else {
        body[..end].parse().ok()?
    };
    Some((sign * number, body[end..].trim()))
}

fn show_with_unit(amount: u128, units: &[(&str, u64)]) -> String {
    let fits = units
        .iter()
        .find(|(_, size)| amount.is_multiple_of(u128::from(*size)));
    match fits {
        Some((name, size)) => format!("{}{name}", amount / u128::from(*size)),
        None => amount.to_string(),
    }
}

fn show_real_with_unit(number: f64, own: u64, units: &[(&str, u64)]) -> String {
    let amount = number * own as f64;
    let whole = |size: u64| {
        let count = amount / size as f64;
        count >= 1.0 && (count - count.round()).abs() <= count * 1e-8
    };
    let own_name = units.iter().find(|(_, size)| *size == own);
    match units.iter().find(|(_, size)| whole(*size)).or(own_name) {
        Some((name, size)) => format!("{}{name}", show_real(amount / *size as f64)),
        None => show_real(number),
    }
}

/// Six significant digits, as C's `%g`.
pub fn show_real(number: f64) -> String {
    if number == 0.0 || !number.is_finite() {
        return if number == 0.0 {
            "0".to_owned()
        } else {
            number.to_string()
        };
    }
    let scientific = format!("{number:.5e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else {
        return scientific;
    };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trim = |text: &str| {
        let text = if text.contains('.') {
            text.trim_end_matches('0')
        } else {
            text
        };
        text.trim_end_matches('.').to_owned()
    };
    if (-4..6).contains(&exponent) {
        trim(&format!("{number:.*}", (5 - exponent) as usize))
    } else {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{}e{sign}{:02}", trim(mantissa), exponent.abs())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::settings::table::find;
    use proptest::prelude::*;

    fn shown(name: &str, text: &str) -> String {
        let def = find(name).unwrap();
        Value::parse(def, text).unwrap().show(def)
    }

    fn refused(name: &str, text: &str) -> SettingError {
        Value::parse(find(name).unwrap(), text).unwrap_err()
    }

    #[test]
    fn numbers_take_and_show_units_as_postgresql_does() {
        for (name, text, wanted) in [
            ("shared_buffers", "64MB", "64MB"),
            ("shared_buffers", "16384", "128MB"),
            ("shared_buffers", "1GB", "1GB"),
            ("shared_buffers", " 200 kB ", "200kB"),
            ("work_mem", "4096", "4MB"),
            ("work_mem", "1.5GB", "1536MB"),
            ("work_mem", "0x1000", "4MB"),
            ("checkpoint_timeout", "300", "5min"),
            ("checkpoint_timeout", "90s", "90s"),
            ("wal_writer_delay", "200", "200ms"),
            ("deadlock_timeout", "1000ms", "1s"),
            ("statement_timeout", "0", "0"),
            ("statement_timeout", "1d", "1d"),
            ("max_slot_wal_keep_size", "-1", "-1"),
            ("checkpoint_completion_target", "0.9", "0.9"),
            ("vacuum_cost_delay", "2", "2ms"),
            ("vacuum_cost_delay", "0.5", "500us"),
            ("random_page_cost", "4", "4"),
            ("port", "5432", "5432"),
        ] {
            assert_eq!(shown(name, text), wanted, "{name} = {text}");
        }
    }

    #[test]
    fn words_of_booleans_and_enums() {
        assert_eq!(shown("fsync", "YES"), "on");
        assert_eq!(shown("fsync", "of"), "off");
        assert_eq!(shown("synchronous_commit", "true"), "on");
        assert_eq!(shown("synchronous_commit", "Remote_Apply"), "remote_apply");
        assert_eq!(
            refused("fsync", "o").message,
            "parameter \"fsync\" requires a Boolean value"
        );
        let error = refused("synchronous_commit", "maybe");
        assert!(error.hint.unwrap().starts_with("Available values: "));
    }

    #[test]
    fn wrong_numbers_are_refused_with_postgresqls_words() {
        assert_eq!(
            refused("work_mem", "10").message,
            "10 kB is outside the valid range for parameter \"work_mem\" (64 .. 2147483647)"
        );
        let error = refused("work_mem", "10 parsecs");
        assert_eq!(
            error.message,
            "invalid value for parameter \"work_mem\": \"10 parsecs\""
        );
        assert!(error.hint.unwrap().contains("\"kB\""));
        assert!(refused("port", "5432s").hint.is_none());
        for text in ["", "x", "-", "1e", "0x", "09", "1..2"] {
            refused("work_mem", text);
        }
    }

    #[test]
    fn reals_are_shown_as_percent_g() {
        for (number, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (0.1, "0.1"),
            (123456.0, "123456"),
            (1_234_567.0, "1.23457e+06"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (1e10, "1e+10"),
        ] {
            assert_eq!(show_real(number), text);
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_parsing_panic(text in "\\PC{0,24}", index in 0usize..500) {
            let defs = &crate::settings::table::DEFS;
            let def = &defs[index % defs.len()];
            if let Ok(value) = Value::parse(def, &text) {
                // What is shown means the same again, to the digits that are shown.
                let again = Value::parse(def, &value.show(def));
                prop_assert!(again.is_ok() || matches!(value, Value::Real(_)), "{} {:?}", def.name, value);
            }
        }
    }
}
