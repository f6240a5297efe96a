//! Timestamps as pg_waldump prints them, always in UTC (pg_waldump itself uses the local zone: run it with TZ=UTC).

use std::fmt::Write as _;

const MICROS_PER_DAY: i64 = 86_400_000_000;
/// Days from 1970-01-01 to 2000-01-01.
const POSTGRES_EPOCH_DAYS: i64 = 10_957;

/// Appends `YYYY-MM-DD HH:MM:SS.ffffff UTC` for microseconds since 2000.
pub(crate) fn write_timestamp(micros: i64, out: &mut String) {
    let days = micros.div_euclid(MICROS_PER_DAY);
    let in_day = micros.rem_euclid(MICROS_PER_DAY);
    let (year, month, day) = civil_from_days(days + POSTGRES_EPOCH_DAYS);
    let seconds = in_day / 1_000_000;
    let _ = write!(
        out,
        "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}.{:06} UTC",
        seconds / 3600,
        seconds / 60 % 60,
        seconds % 60,
        in_day % 1_000_000
    );
}

/// The same as text, for messages.
pub fn timestamp(micros: i64) -> String {
    let mut text = String::new();
    write_timestamp(micros, &mut text);
    text
}

/// Gregorian date of a day count since 1970-01-01, by counting in 400-year eras that begin on 1 March of year 0.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(micros: i64) -> String {
        let mut out = String::new();
        write_timestamp(micros, &mut out);
        out
    }

    #[test]
    fn timestamps_print_as_utc_with_microseconds() {
        assert_eq!(text(0), "2000-01-01 00:00:00.000000 UTC");
        assert_eq!(text(-1), "1999-12-31 23:59:59.999999 UTC");
        assert_eq!(text(848_520_183_123_456), "2026-11-20 20:03:03.123456 UTC");
        assert_eq!(text(59 * MICROS_PER_DAY), "2000-02-29 00:00:00.000000 UTC");
    }

    #[test]
    fn extreme_timestamps_do_not_panic() {
        text(i64::MIN);
        text(i64::MAX);
    }
}
