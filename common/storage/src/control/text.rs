//! What `towline controldata` prints: `pg_controldata`'s labels where the meaning is the same.

use super::ControlData;
use std::fmt;

impl fmt::Display for ControlData {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let checkpoint = &self.checkpoint;
        let on_off = |on: bool| if on { "on" } else { "off" };
        let mut line = |label: &str, value: &dyn fmt::Display| writeln!(f, "{label:<38}{value}");
        line("control file version:", &super::VERSION)?;
        line("Database system identifier:", &self.system)?;
        line("Database cluster state:", &self.state.name())?;
        line("control file last modified:", &Timestamp(self.time))?;
        line("Timeline:", &self.timeline.number)?;
        line("Timeline incarnation:", &self.timeline.incarnation)?;
        line("Latest checkpoint location:", &checkpoint.lsn)?;
        line("Latest checkpoint's REDO location:", &checkpoint.redo)?;
        line("Latest checkpoint's TimeLineID:", &checkpoint.timeline.number)?;
        line(
            "Latest checkpoint's PrevTimeLineID:",
            &checkpoint.previous_timeline,
        )?;
        line(
            "Latest checkpoint's NextXID:",
            &format_args!("{}:{}", checkpoint.next_xid.epoch(), checkpoint.next_xid.low32()),
        )?;
        line("Latest checkpoint's NextOID:", &checkpoint.next_oid)?;
        line("Latest checkpoint's oldestXID:", &checkpoint.oldest_xid)?;
        line(
            "Latest checkpoint's oldestActiveXID:",
            &checkpoint.oldest_active_xid,
        )?;
        line("Time of latest checkpoint:", &Timestamp(checkpoint.time))?;
        line("Bound of page LSNs on disk:", &self.page_lsn_bound)?;
        line(
            "Bound of page LSNs is strict:",
            &on_off(self.page_lsn_bound_is_strict),
        )?;
        line("Quorum location:", &self.quorum)?;
        line("Database block size:", &towline_base::PAGE_SIZE)?;
        line("Bytes per WAL segment:", &self.segment_size)?;
        line("Data page checksums:", &on_off(self.checksums))
    }
}

/// A point in time in UTC, to the second.
struct Timestamp(i64);

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.div_euclid(1_000_000);
        let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Days since 2000-03-01, in eras of 400 years (Howard Hinnant's civil_from_days).
        let shifted = days - 60;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_index = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_index + 2) / 5 + 1;
        let month = if month_index < 10 {
            month_index + 3
        } else {
            month_index - 9
        };
        let year = 2000 + era * 400 + year_of_era + i64::from(month <= 2);
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(
            f,
            "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Timestamp;

    #[test]
    fn times_are_printed_in_utc() {
        for (micros, text) in [
            (0, "2000-01-01 00:00:00 UTC"),
            (59 * 86_400_000_000, "2000-02-29 00:00:00 UTC"),
            (-1_000_000, "1999-12-31 23:59:59 UTC"),
            (817_905_845_000_000, "2025-12-01 12:04:05 UTC"),
        ] {
            assert_eq!(Timestamp(micros).to_string(), text);
        }
    }
}
