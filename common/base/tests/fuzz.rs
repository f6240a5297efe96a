//! Fuzzers of what people and clients write: configuration files, lists of standbys, settings, SCRAM messages, positions.
//! `towline_base::testing` says how to run them longer and how to repeat a case.
#![allow(clippy::unwrap_used)]

use std::path::Path;

use towline_base::scram::{ScramExchange, ScramSecret};
use towline_base::settings::sync_names::SyncNames;
use towline_base::settings::{ConfigFiles, Settings};
use towline_base::testing::{WatchedAllocator, fuzz};
use towline_base::vfs::CrashVfs;
use towline_base::{Lsn, Vfs};

#[global_allocator]
static ALLOCATOR: WatchedAllocator = WatchedAllocator;

const CONFIG: &str = r#"
shared_buffers = "64MB"
fsync = true
commit_delay = 0
synchronous_standby_names = "ANY 2 (s1, s2, *)"
log_min_duration_statement = "250ms"
[[hba]]
address = "10.0.0.0/8"
user = "all"
database = "all"
method = "scram-sha-256"
[[hba]]
type = "local"
method = "trust"
"#;

#[cfg_attr(not(fuzzing), test)]
pub(crate) fn a_configuration_file_of_any_bytes_is_read_or_refused() {
    let dir = Path::new("/data");
    let words = [
        "[",
        "[[",
        "]]",
        "\"",
        "'''",
        "= ",
        "\n",
        "-1",
        "9223372036854775808",
        "\"1000000000TB\"",
        "nan",
        "inf",
        "1979-05-27",
        "{",
        "a.b.c = 1\n",
        "[[hba]]\n",
        "work_mem = ",
        "\u{0}",
        "port = 99999\n",
    ];
    fuzz("configuration file", 2000, |case| {
        let mut text = CONFIG.to_owned();
        if case.one_in(40) {
            text = format!("x = {}\n{text}", "[".repeat(case.below(100_000)));
        }
        for _ in 0..1 + case.below(3) {
            case.mutate_text(&mut text, &words);
        }
        let vfs = CrashVfs::new();
        vfs.create_dir_all(dir).unwrap();
        let mut bytes = text.into_bytes();
        if case.one_in(6) {
            case.mutate(&mut bytes);
        }
        vfs.write_file_atomically(&dir.join("towline.toml"), &bytes)
            .unwrap();
        match Settings::load(vfs.shared(), ConfigFiles::in_dir(dir), &[]) {
            Ok(settings) => assert!(!settings.rows().is_empty()),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    });
}

#[cfg_attr(not(fuzzing), test)]
pub(crate) fn settings_take_any_text_or_say_why_not() {
    let names: Vec<String> = Settings::defaults()
        .rows()
        .iter()
        .map(|row| row.def.name.to_string())
        .collect();
    let values = [
        "on",
        "off",
        "0",
        "-1",
        "1.5",
        "64MB",
        "10s",
        "1h",
        "250us",
        "9223372036854775807",
        "1e300",
        "nan",
        "0x7f",
        "ANY 1 (a)",
        "s1, s2",
        "Europe/Berlin",
        "iso, dmy",
        "",
        " ",
        "\"",
    ];
    fuzz("setting", 200_000, |case| {
        let name = case.pick(&names).clone();
        let mut text = (*case.pick(&values)).to_owned();
        if case.one_in(2) {
            case.mutate_text(&mut text, &values);
        }
        let settings = Settings::defaults();
        if settings.override_value(&name, &text).is_ok() {
            settings.show(&name).unwrap();
        }
    });
}

#[cfg_attr(not(fuzzing), test)]
pub(crate) fn lists_of_standbys_are_parsed_or_refused() {
    let words = [
        "FIRST ",
        "ANY ",
        "(",
        ")",
        ",",
        "*",
        "\"",
        "0",
        "4294967296",
        "99999999999999999999",
        " ",
    ];
    let lists = ["ANY 2 (s1, s2, *)", "FIRST 1 (a, \"b \"\" c\")", "s1,s2", "*", ""];
    fuzz("synchronous_standby_names", 200_000, |case| {
        let mut text = (*case.pick(&lists)).to_owned();
        if case.one_in(20) {
            text = text.repeat(case.below(500));
        }
        for _ in 0..1 + case.below(3) {
            case.mutate_text(&mut text, &words);
        }
        if let Ok(names) = SyncNames::parse(&text) {
            let _ = (names.is_synchronous(), names.priority("s1"), names.priority(""));
        }
    });
}

#[cfg_attr(not(fuzzing), test)]
pub(crate) fn scram_messages_of_any_text_are_refused() {
    let secret = ScramSecret::from_password("pencil", b"salt of sixteen.", 1);
    let stored = secret.to_string();
    fuzz("scram", 10_000, |case| {
        let mut first = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO".to_owned();
        case.mutate_text(&mut first, &[",", "=", "r=", "y,,", "p=tls-unique"]);
        let text = if case.one_in(2) { "n,,n=,r=abc" } else { &first };
        if let Ok(exchange) = ScramExchange::start(secret.clone(), text, &[7; 18]) {
            let nonce = exchange.server_first().split(',').next().unwrap().to_owned();
            let mut last = format!("c=biws,{nonce},p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=AAAAAAAAAAAAAAAAAAAAA=");
            case.mutate_text(&mut last, &[",", "=", "p=", ",p="]);
            assert!(exchange.finish(&last).is_err());
        }
        let mut stored = stored.clone();
        case.mutate_text(&mut stored, &["$", ":", "=", "4294967296"]);
        if let Some(secret) = ScramSecret::parse(&stored) {
            assert!(!secret.to_string().is_empty());
        }
    });
}

#[cfg_attr(not(fuzzing), test)]
pub(crate) fn positions_are_parsed_or_refused() {
    fuzz("lsn", 200_000, |case| {
        let mut text = "16/B374D848".to_owned();
        case.mutate_text(&mut text, &["/", "FFFFFFFF", "0", "-", "+"]);
        if let Ok(lsn) = text.parse::<Lsn>() {
            assert_eq!(lsn.to_string().parse::<Lsn>().unwrap(), lsn);
        }
    });
}
