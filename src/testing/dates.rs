//! Dates and times as the API writes them.

use std::time::{SystemTime, UNIX_EPOCH};

/// Returns the time of day in so many seconds from now, such as `2026-11-23T10:00:00Z`.
pub(super) fn rfc3339_in(seconds: u64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    rfc3339(now.unwrap_or_default().as_secs().saturating_add(seconds))
}

/// Returns seconds since 1970 as a date and a time, such as `2026-11-23T10:00:00Z`.
pub(super) fn rfc3339(seconds: u64) -> String {
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Returns seconds since 1970 in the format of the header `date`, such as `Mon, 23 Nov 2026
/// 10:00:00 GMT`.
pub(super) fn http_date(seconds: u64) -> String {
    let days = seconds / 86_400;
    let (year, month, day) = civil(days);
    let name =
        |names: &'static str, index: u64| names.split(' ').nth(index as usize).unwrap_or_default();
    let weekday = name("Thu Fri Sat Sun Mon Tue Wed", days % 7);
    let month = name("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec", month - 1);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// Returns year, month and day from days since 1970.
///
/// The calculation uses years that begin in March (Howard Hinnant, `civil_from_days`).
fn civil(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_have_the_formats_of_the_api() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(1_795_428_245), "2026-11-23T10:04:05Z");
        assert_eq!(rfc3339(1_798_761_599), "2026-12-31T23:59:59Z");
        assert_eq!(http_date(0), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(http_date(1_795_428_245), "Mon, 23 Nov 2026 10:04:05 GMT");
    }
}
