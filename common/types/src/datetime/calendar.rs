//! Day numbers and calendar dates. Year 0 is 1 BC.

/// Julian day of 2000-01-01.
pub const EPOCH_JULIAN: i32 = 2_451_545;
/// Julian day of 1970-01-01.
pub const UNIX_EPOCH_JULIAN: i32 = 2_440_588;

/// Julian day number of a Gregorian date (PostgreSQL's `date2j`). A year beyond the range of dates gives some number:
/// who reads one from a text asks whether it is in range before the number matters.
pub fn julian(year: i32, month: i32, day: i32) -> i32 {
    let (year, month, day) = (i64::from(year), i64::from(month), i64::from(day));
    let (year, month) = if month > 2 {
        (year + 4800, month + 1)
    } else {
        (year + 4799, month + 13)
    };
    let century = year / 100;
    let whole = year * 365 - 32167 + year / 4 - century + century / 4;
    (whole + 7834 * month / 256 + day) as i32
}

/// Year, month and day of a Julian day number (PostgreSQL's `j2date`).
pub fn from_julian(julian: i32) -> (i32, i32, i32) {
    let mut julian = (julian as u32).wrapping_add(32044);
    let mut quad = julian / 146_097;
    let extra = (julian - quad * 146_097) * 4 + 3;
    julian = julian.wrapping_add(60 + quad * 3 + extra / 146_097);
    quad = julian / 1461;
    julian -= quad * 1461;
    let y = julian * 4 / 1461;
    julian = if y != 0 {
        (julian + 305) % 365
    } else {
        (julian + 306) % 366
    } + 123;
    let year = (y + quad * 4) as i32 - 4800;
    let quad = julian * 2141 / 65536;
    let day = (julian - 7834 * quad / 256) as i32;
    let month = ((quad + 10) % 12 + 1) as i32;
    (year, month, day)
}

/// Days since 2000-01-01 of a date.
pub fn days(year: i32, month: i32, day: i32) -> i32 {
    julian(year, month, day).wrapping_sub(EPOCH_JULIAN)
}

/// The date of a day number since 2000-01-01.
pub fn date(days: i32) -> (i32, i32, i32) {
    from_julian(days.wrapping_add(EPOCH_JULIAN))
}

/// Day of the week of a day number since 2000-01-01, Sunday = 0.
pub fn weekday(days: i32) -> i32 {
    (days + 6).rem_euclid(7)
}

/// Whether a year has 366 days.
pub fn is_leap(year: i32) -> bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
}

/// Days of a month.
pub fn month_days(year: i32, month: i32) -> i32 {
    match month {
        2 => 28 + i32::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// ISO week number and its year of a day number since 2000-01-01.
pub fn iso_week(days: i32) -> (i32, i32) {
    // The ISO year is that of the week's Thursday.
    let monday_based = (weekday(days) + 6) % 7;
    let thursday = days - monday_based + 3;
    let (year, _, _) = date(thursday);
    let first = self::days(year, 1, 1);
    (year, (thursday - first) / 7 + 1)
}

/// A moment of the local calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Civil {
    /// Year, 0 is 1 BC.
    pub year: i32,
    /// 1–12.
    pub month: i32,
    /// 1–31.
    pub day: i32,
    /// 0–23.
    pub hour: i32,
    /// 0–59.
    pub minute: i32,
    /// 0–59.
    pub second: i32,
    /// Microseconds of the second.
    pub micros: i32,
}

impl Civil {
    /// The fields of a finite timestamp.
    pub fn from_micros(timestamp: i64) -> Civil {
        let days = timestamp.div_euclid(super::DAY);
        let time = timestamp.rem_euclid(super::DAY);
        let (year, month, day) = date(days as i32);
        let (hour, minute, second, micros) = split_time(time);
        Civil {
            year,
            month,
            day,
            hour,
            minute,
            second,
            micros,
        }
    }

    /// The timestamp of these fields; `None` if out of range.
    pub fn to_micros(self) -> Option<i64> {
        if !(-4713..=294_277).contains(&self.year) {
            return None;
        }
        let days = i64::from(days(self.year, self.month, self.day));
        let time = i64::from(self.hour) * super::HOUR
            + i64::from(self.minute) * super::MINUTE
            + i64::from(self.second) * super::SECOND
            + i64::from(self.micros);
        days.checked_mul(super::DAY)?.checked_add(time)
    }

    /// The day number since 2000-01-01.
    pub fn days(self) -> i32 {
        days(self.year, self.month, self.day)
    }
}

/// Hour, minute, second and microsecond of a time of day.
pub fn split_time(time: i64) -> (i32, i32, i32, i32) {
    (
        (time / super::HOUR) as i32,
        (time / super::MINUTE % 60) as i32,
        (time / super::SECOND % 60) as i32,
        (time % super::SECOND) as i32,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn day_numbers_and_dates_are_inverse() {
        for day in (super::super::MIN_DATE..super::super::END_DATE).step_by(99_991) {
            let (y, m, d) = date(day);
            assert_eq!(days(y, m, d), day);
            assert!((1..=12).contains(&m) && d >= 1 && d <= month_days(y, m));
        }
        assert_eq!(date(0), (2000, 1, 1));
        assert_eq!(weekday(0), 6);
        assert_eq!(iso_week(days(2005, 1, 1)), (2004, 53));
    }
}
