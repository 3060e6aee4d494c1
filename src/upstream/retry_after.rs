//! `Retry-After`: how long an app asks to be left alone. Pure.

use std::time::Duration;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::clock::Timestamp;

/// Seconds, or an HTTP date in any of its three forms (RFC 9110, 5.6.7). What is neither is as if it were not there; a date
/// in the past is now.
pub fn retry_after(value: &[u8], now: Timestamp) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // So many digits that it is no number is still "much later"; the cap is the caller's.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::from(u32::MAX))));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok();
    let date = date.or_else(|| rfc850(text, now)).or_else(|| asctime(text))?;
    let at = Timestamp(u64::try_from(date.as_millisecond()).unwrap_or(0));
    Some(at.since(now))
}

/// `Sunday, 06-Nov-94 08:49:37 GMT`.
fn rfc850(text: &str, now: Timestamp) -> Option<jiff::Timestamp> {
    let (_, date) = text.split_once(", ")?;
    let date = DateTime::strptime("%d-%b-%y %H:%M:%S GMT", date).ok()?;
    // Of the years with these two digits that which is at most 50 years ahead, as the RFC says.
    let now = jiff::Timestamp::from_millisecond(i64::try_from(now.0).ok()?).ok()?;
    let this = TimeZone::UTC.to_datetime(now).year();
    let ahead = (date.year() - this).rem_euclid(100);
    let year = if ahead > 50 { this + ahead - 100 } else { this + ahead };
    in_utc(date.with().year(year).build().ok()?)
}

/// `Sun Nov  6 08:49:37 1994`.
fn asctime(text: &str) -> Option<jiff::Timestamp> {
    let (_, date) = text.split_once(' ')?;
    in_utc(DateTime::strptime("%b %e %H:%M:%S %Y", date).ok()?)
}

fn in_utc(date: DateTime) -> Option<jiff::Timestamp> {
    TimeZone::UTC.to_timestamp(date).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_read_as_seconds_or_as_a_date() {
        let now = Timestamp::from_secs(784_111_777);
        let after = |text: &str| retry_after(text.as_bytes(), now).map(|d| d.as_secs());
        assert_eq!(after("120"), Some(120));
        assert_eq!(after(" 0 "), Some(0));
        assert_eq!(after("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(after("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        for obsolete in ["Sunday, 06-Nov-94 08:50:37 GMT", "Sun Nov  6 08:50:37 1994"] {
            assert_eq!(after(obsolete), Some(60), "{obsolete}");
        }
        assert_eq!(after("Wed Nov 16 08:49:37 1994"), Some(864_000));
        assert_eq!(
            after("Sunday, 06-Nov-43 08:50:37 GMT"),
            Some(1_546_300_860),
            "the nearest such year ahead"
        );
        assert_eq!(after("Sunday, 06-Nov-45 08:50:37 GMT"), Some(0), "more than 50 years ahead is past");
        assert!(after("99999999999999999999999999").unwrap() > 1_000_000);
        for odd in [
            "",
            "-1",
            "1.5",
            "soon",
            "1e3",
            "+5",
            "Sun Nov 31 08:50:37 1994",
            "Sunday, 06-Nov-1994",
            "Sun Nov  6 08:50:37 1994 GMT",
        ] {
            assert_eq!(after(odd), None, "{odd}");
        }
    }
}
