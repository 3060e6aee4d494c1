//! `Retry-After`: how long an app asks to be left alone. Pure.

use std::time::Duration;

use crate::clock::Timestamp;

/// Seconds, or an HTTP date. What is neither is as if it were not there; a date in the past is now.
pub fn retry_after(value: &[u8], now: Timestamp) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // So many digits that it is no number is still "much later"; the cap is the caller's.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::from(u32::MAX))));
    }
    let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
    let at = Timestamp(u64::try_from(date.as_millisecond()).unwrap_or(0));
    Some(at.since(now))
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
        assert!(after("99999999999999999999999999").unwrap() > 1_000_000);
        for odd in ["", "-1", "1.5", "soon", "1e3", "+5"] {
            assert_eq!(after(odd), None, "{odd}");
        }
    }
}
