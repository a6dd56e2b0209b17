//! Parses dates in headers and in the API's JSON.

use std::time::{Duration, SystemTime};

/// Parses a date of RFC 3339, such as `2026-06-08T18:45:39Z`, or a date of HTTP.
pub(crate) fn parse_date(text: &str) -> Option<SystemTime> {
    parse_http_date(text).or_else(|| parse_rfc3339(text))
}

/// Parses the three forms of RFC 9110: `Fri, 29 Sep 2023 16:26:57 GMT`,
/// `Friday, 29-Sep-23 16:26:57 GMT` and `Fri Sep 29 16:26:57 2023`. Accepts any weekday or none, and
/// the numeric time zones of mail dates.
fn parse_http_date(text: &str) -> Option<SystemTime> {
    const MONTHS: [&str; 12] = [
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
    ];
    let (mut day, mut month, mut year, mut time, mut zone) = (None, None, None, None, 0);
    let words = text.split([' ', ',']).flat_map(|word| {
        let dashed = word.bytes().any(|byte| byte.is_ascii_alphabetic());
        word.split(move |c| dashed && c == '-')
    });
    for word in words.filter(|word| !word.is_empty()) {
        let lower = word.to_ascii_lowercase();
        if let Some(index) = MONTHS.iter().position(|name| *name == lower) {
            month = Some(index as i64 + 1);
        } else if word.contains(':') {
            time = Some(millis_of_day(word)?);
        } else if word.starts_with(['+', '-']) {
            zone = zone_offset(word)?;
        } else if let Ok(number) = word.parse::<i64>() {
            match (day, year) {
                (None, _) if word.len() <= 2 => day = Some(number),
                // RFC 9110: a year of two digits is less than 50 years in the future.
                (_, None) if word.len() == 2 => {
                    year = Some(if number < 76 {
                        2000 + number
                    } else {
                        1900 + number
                    });
                }
                (_, None) if word.len() == 4 => year = Some(number),
                _ => return None,
            }
        }
    }
    unix_time(year?, month?, day?, time?, zone)
}

/// Parses a date of RFC 3339, with a time zone.
pub(super) fn parse_rfc3339(text: &str) -> Option<SystemTime> {
    let text = text.trim();
    let (day, rest) = text.split_once(['T', 't', ' '])?;
    let mut parts = day.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let zone_at = rest.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = rest.split_at(zone_at);
    let zone = if zone.eq_ignore_ascii_case("z") {
        0
    } else {
        zone_offset(zone)?
    };
    unix_time(year, month, day, millis_of_day(time)?, zone)
}

/// Parses a time such as `16:26:57.5` into milliseconds since midnight.
fn millis_of_day(text: &str) -> Option<i64> {
    let mut parts = text.splitn(3, ':');
    let mut part = |most: i64| {
        let number = parts.next()?.parse::<i64>().ok()?;
        (0..=most).contains(&number).then_some(number)
    };
    let (hours, minutes) = (part(23)?, part(59)?);
    let seconds = parts
        .next()?
        .parse::<f64>()
        .ok()
        .filter(|s| (0.0..61.0).contains(s))?;
    Some((hours * 60 + minutes) * 60_000 + (seconds * 1e3).round() as i64)
}

/// Parses a time zone such as `+0200` or `-07:00` into seconds east of UTC.
fn zone_offset(text: &str) -> Option<i64> {
    let (sign, digits) = text.split_at_checked(1)?;
    let digits: String = digits.chars().filter(|c| *c != ':').collect();
    let number = digits.parse::<i64>().ok().filter(|_| digits.len() == 4)?;
    let (hours, minutes) = (number / 100, number % 100);
    let is_zone = (0..24).contains(&hours) && (0..60).contains(&minutes);
    let east = (hours * 60 + minutes) * 60;
    is_zone.then_some(if sign == "-" { -east } else { east })
}

/// Returns the time of a date from 1970 to 9999. `millis` counts from midnight; `zone` is in seconds
/// east of UTC.
fn unix_time(year: i64, month: i64, day: i64, millis: i64, zone: i64) -> Option<SystemTime> {
    let is_in_range =
        (1970..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !is_in_range {
        return None;
    }
    // Days since 1970-01-01 in the Gregorian calendar. Years begin in March, so that a leap day is
    // the last day of its year.
    let from_march = (month + 9) % 12;
    let years = if month <= 2 { year - 1 } else { year };
    let days =
        years * 365 + years / 4 - years / 100 + years / 400 + (from_march * 306 + 5) / 10 + day
            - 1
            - DAYS_BEFORE_1970;
    let millis = (days * 86_400 - zone) * 1000 + millis;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(u64::try_from(millis).ok()?))
}

/// The days from 0000-03-01 to 1970-01-01.
const DAYS_BEFORE_1970: i64 = 719_468;

#[cfg(test)]
mod tests {
    use super::*;

    fn at(unix: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(unix)
    }

    #[test]
    fn dates_of_all_forms_are_parsed() {
        let expected = Some(at(1_696_004_817)); // 2023-09-29 16:26:57
        for text in [
            "Fri, 29 Sep 2023 16:26:57 GMT",
            "Friday, 29-Sep-23 16:26:57 GMT",
            "Fri Sep 29 16:26:57 2023",
            "29 Sep 2023 16:26:57 GMT",
            "Fri, 29 Sep 2023 18:26:57 +0200",
            "2023-09-29T16:26:57Z",
            "2023-09-29t09:26:57-07:00",
            "2023-09-29 16:26:57.000Z",
        ] {
            assert_eq!(parse_date(text), expected, "{text}");
        }
        assert_eq!(
            parse_date("Sun Nov  6 08:49:37 1994"),
            Some(at(784_111_777))
        );
        assert_eq!(
            parse_date("Thu, 29 Feb 2024 00:00:00 GMT"),
            Some(at(1_709_164_800))
        );
        assert_eq!(parse_rfc3339("1970-01-01T00:00:00Z"), Some(at(0)));
        assert_eq!(
            parse_rfc3339("2024-12-31T23:59:60Z"),
            Some(at(1_735_689_600))
        );
    }

    #[test]
    fn text_that_is_no_date_is_refused() {
        for text in [
            "",
            "soon",
            "GMT",
            "16:26:57",
            "29 Sep 2023",
            "99 Sep 2023 16:26:57 GMT",
            "29 Sep 2023 25:00:00 GMT",
            "2023-13-01T00:00:00Z",
            "2023-09-29T16:26:57",
            "-2023-09-29T16:26:57Z",
            "1 2 3 4 5",
            "٢٩ Sep 2023 16:26:57 GMT",
            "+",
            "T",
            "TZ",
            "9999-12-31T23:59:59-99:99",
            "29 Sep 2023 16:26:57 +2400",
            "29 Sep 2023 16:26:57 -0060",
            "29 Sep 2023 16:26:57 +-123",
        ] {
            assert_eq!(parse_date(text), None, "{text}");
        }
    }
}
