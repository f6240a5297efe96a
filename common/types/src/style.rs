//! The settings that change how values are read and printed: DateStyle, TimeZone, extra_float_digits, bytea_output,
//! IntervalStyle.

use crate::error::{Result, TypeError};
use jiff::tz::TimeZone;
use towline_base::SqlState;

/// The first half of DateStyle: how dates are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DateStyle {
    /// `2024-05-01 12:00:00+02`
    #[default]
    Iso,
    /// `05/01/2024 12:00:00 CEST`
    Sql,
    /// `Wed May 01 12:00:00 2024 CEST`
    Postgres,
    /// `01.05.2024 12:00:00 CEST`
    German,
}

/// The second half of DateStyle: which number of an ambiguous date is the month.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum DateOrder {
    /// Month, day, year.
    #[default]
    Mdy,
    /// Day, month, year.
    Dmy,
    /// Year, month, day.
    Ymd,
}

/// `bytea_output`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ByteaOutput {
    /// `\x01ff`
    #[default]
    Hex,
    /// `\001\377`
    Escape,
}

/// How values are read and printed in one session. Cheap to clone.
#[derive(Clone, Debug)]
pub struct IoStyle {
    /// Print format of dates.
    pub date_style: DateStyle,
    /// Reading order of ambiguous dates.
    pub date_order: DateOrder,
    /// `TimeZone`
    pub time_zone: TimeZone,
    /// The zone's name as SHOW prints it.
    pub time_zone_name: String,
    /// `extra_float_digits`: above 0 shortest exact form, else `15 + n` digits.
    pub extra_float_digits: i32,
    /// `bytea_output`
    pub bytea_output: ByteaOutput,
    /// Start of the transaction in µs since 2000-01-01 UTC: what `now`, `today`, … in a date literal mean.
    pub now: i64,
}

impl Default for IoStyle {
    /// ISO, MDY, UTC, hex: PostgreSQL's defaults.
    fn default() -> Self {
        IoStyle {
            date_style: DateStyle::Iso,
            date_order: DateOrder::Mdy,
            time_zone: TimeZone::UTC,
            time_zone_name: "UTC".into(),
            extra_float_digits: 1,
            bytea_output: ByteaOutput::Hex,
            now: 0,
        }
    }
}

impl IoStyle {
    /// Applies a value of the setting DateStyle (`ISO, MDY`, `German`, …); 22023 for an unknown word.
    pub fn set_date_style(&mut self, value: &str) -> Result<()> {
        let invalid = || {
            TypeError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("invalid value for parameter \"DateStyle\": \"{value}\""),
            )
        };
        let (mut style, mut order) = (self.date_style, self.date_order);
        let mut order_given = false;
        for word in value.split(',').map(|w| w.trim().to_ascii_lowercase()) {
            match word.as_str() {
                "iso" => style = DateStyle::Iso,
                "sql" => style = DateStyle::Sql,
                w if w.starts_with("postgres") => style = DateStyle::Postgres,
                w if w.starts_with("german") => {
                    style = DateStyle::German;
                    if !order_given {
                        order = DateOrder::Dmy;
                    }
                }
                "ymd" => (order, order_given) = (DateOrder::Ymd, true),
                w if w.starts_with("dmy") || w.starts_with("euro") => {
                    (order, order_given) = (DateOrder::Dmy, true)
                }
                w if w == "us" || w == "mdy" || w.starts_with("noneuro") => {
                    (order, order_given) = (DateOrder::Mdy, true);
                }
                "default" => (style, order) = (DateStyle::Iso, DateOrder::Mdy),
                _ => return Err(invalid()),
            }
        }
        (self.date_style, self.date_order) = (style, order);
        Ok(())
    }

    /// DateStyle as SHOW prints it: `ISO, MDY`.
    pub fn date_style_text(&self) -> String {
        let style = match self.date_style {
            DateStyle::Iso => "ISO",
            DateStyle::Sql => "SQL",
            DateStyle::Postgres => "Postgres",
            DateStyle::German => "German",
        };
        let order = match self.date_order {
            DateOrder::Mdy => "MDY",
            DateOrder::Dmy => "DMY",
            DateOrder::Ymd => "YMD",
        };
        format!("{style}, {order}")
    }

    /// Applies a value of the setting TimeZone: a name of the tz database, `UTC`, or an offset in hours (`+2` and
    /// `-3.5` are east and west of Greenwich) or POSIX form. 22023 for an unknown zone.
    pub fn set_time_zone(&mut self, value: &str) -> Result<()> {
        let (zone, name) = crate::datetime::zone::lookup_setting(value)?;
        self.time_zone = zone;
        self.time_zone_name = name;
        Ok(())
    }
}
