//! Checks of text settings: each gives the canonical form, or why the text is refused.

use super::sync_names::SyncNames;

/// Anything goes.
pub(super) fn any(text: &str) -> Result<String, String> {
    Ok(text.to_owned())
}

/// A name: printable ASCII; other bytes become `?`, and it is cut to an identifier's length.
pub(super) fn application_name(text: &str) -> Result<String, String> {
    let clean = text
        .chars()
        .map(|c| if c == ' ' || c.is_ascii_graphic() { c } else { '?' });
    Ok(clean.take(crate::limits::MAX_NAME_BYTES).collect())
}

/// UTF-8 under any of its names; the only encoding.
pub(super) fn encoding(text: &str) -> Result<String, String> {
    let plain: String = text.chars().filter(char::is_ascii_alphanumeric).collect();
    match plain.to_ascii_lowercase().as_str() {
        "utf8" | "unicode" => Ok("UTF8".to_owned()),
        _ => Err("The only client encoding is UTF8.".to_owned()),
    }
}

/// `ISO, MDY`: an output style and a field order, each kept when only the other is given.
pub(super) fn date_style(text: &str) -> Result<String, String> {
    let (mut style, mut order) = ("ISO", "MDY");
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        match word.to_ascii_lowercase().as_str() {
            "iso" => style = "ISO",
            "sql" => style = "SQL",
            "postgres" => style = "Postgres",
            "german" => (style, order) = ("German", "DMY"),
            "ymd" => order = "YMD",
            "dmy" | "euro" | "european" => order = "DMY",
            "mdy" | "us" | "noneuro" | "noneuropean" => order = "MDY",
            "default" => (style, order) = ("ISO", "MDY"),
            _ => return Err(String::new()),
        }
    }
    Ok(format!("{style}, {order}"))
}

/// The name of a time zone: bounded, of the characters that such names have. Whether it is known
/// is the session's question, which has the time zone database.
pub(super) fn time_zone(text: &str) -> Result<String, String> {
    let valid = |c: char| c.is_ascii_alphanumeric() || "/_+-:.<>, ".contains(c);
    let length_fits = (1..=255).contains(&text.len());
    if length_fits && text.chars().all(valid) {
        let canonical = match text.to_ascii_lowercase().as_str() {
            "utc" => "UTC",
            "gmt" => "GMT",
            "default" | "local" => "Etc/UTC",
            _ => text,
        };
        Ok(canonical.to_owned())
    } else {
        Err(String::new())
    }
}

/// `synchronous_standby_names`: kept as written, once it parses.
pub(super) fn sync_names(text: &str) -> Result<String, String> {
    SyncNames::parse(text)
        .map(|_| text.to_owned())
        .map_err(|error| error.to_string())
}

/// The resource managers whose records redo can compare, by their names in `wal_consistency_checking`.
pub const CHECKED_MANAGERS: [&str; 3] = ["heap2", "heap", "btree"];

/// `wal_consistency_checking`: nothing, `all`, or names of [`CHECKED_MANAGERS`] with commas between them; kept as written.
pub(super) fn checked_managers(text: &str) -> Result<String, String> {
    let known = |word: &str| {
        let mut words = CHECKED_MANAGERS.iter().chain(&["all"]);
        words.any(|known| known.eq_ignore_ascii_case(word))
    };
    match text.split(',').map(str::trim).find(|word| !known(word)) {
        Some(word) if !text.trim().is_empty() => Err(format!(
            "Unrecognized key word: \"{word}\". Available: all, {}.",
            CHECKED_MANAGERS.join(", ")
        )),
        Some(_) | None => Ok(text.to_owned()),
    }
}

/// A name of letters, digits and underscores in lower case, as slots and nodes have; or nothing.
pub(super) fn slot_name(text: &str) -> Result<String, String> {
    let valid = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
    if text.len() <= crate::limits::MAX_NAME_BYTES && text.bytes().all(valid) {
        Ok(text.to_owned())
    } else {
        Err("Only lower case letters, digits and underscores, at most 63 of them.".to_owned())
    }
}
