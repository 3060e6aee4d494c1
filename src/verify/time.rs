//! Signed times: how senders write them, and how far they may be from now.

use std::time::Duration;

use crate::clock::Timestamp;

/// How a time is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TimeFormat {
    /// Whole seconds since the epoch.
    Unix,
    /// Milliseconds since the epoch.
    UnixMillis,
    Rfc3339,
    /// As RFC 3339, in UTC where no zone is written.
    Rfc3339Utc,
    /// The one form of RFC 9110 that senders may write: `Tue, 24 Nov 2026 16:00:00 GMT`.
    HttpDate,
}

impl TimeFormat {
    pub(super) const ALL: [TimeFormat; 5] = [
        TimeFormat::Unix,
        TimeFormat::UnixMillis,
        TimeFormat::Rfc3339,
        TimeFormat::Rfc3339Utc,
        TimeFormat::HttpDate,
    ];

    pub(super) fn parse_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|format| format.name() == name)
    }

    /// As packs write it.
    pub(super) const fn name(self) -> &'static str {
        match self {
            TimeFormat::Unix => "unix",
            TimeFormat::UnixMillis => "unix-ms",
            TimeFormat::Rfc3339 => "rfc3339",
            TimeFormat::Rfc3339Utc => "rfc3339-utc",
            TimeFormat::HttpDate => "http-date",
        }
    }

    /// Reads a time strictly: digits only (no sign, space or fraction) and within the years that RFC 3339 can write.
    pub(super) fn parse(self, text: &[u8]) -> Option<Timestamp> {
        /// The end of the year 9999, in seconds.
        const LAST: u64 = 253_402_300_799;
        let text = std::str::from_utf8(text).ok()?;
        let number = || {
            // A number is written in one way only: else a zero could be had from what is signed before it.
            let padded = text.len() > 1 && text.starts_with('0');
            let digits =
                !text.is_empty() && text.len() <= 15 && !padded && text.bytes().all(|b| b.is_ascii_digit());
            if digits { text.parse::<u64>().ok() } else { None }
        };
        match self {
            TimeFormat::Unix => number().filter(|secs| *secs <= LAST).map(Timestamp::from_secs),
            TimeFormat::UnixMillis => number().filter(|millis| *millis / 1000 <= LAST).map(Timestamp),
            TimeFormat::Rfc3339 => text.parse().ok().filter(|_| is_long_enough(text, 20)).and_then(stamp),
            // With a zone the text is an instant; without one it is read as a time of day, which then is in UTC.
            TimeFormat::Rfc3339Utc => TimeFormat::Rfc3339.parse(text.as_bytes()).or_else(|| {
                let bare = is_long_enough(text, 19)
                    && text.bytes().skip(19).all(|b| matches!(b, b'.' | b'0'..=b'9'));
                let time: jiff::civil::DateTime = if bare { text.parse().ok()? } else { return None };
                stamp(jiff::tz::TimeZone::UTC.to_timestamp(time).ok()?)
            }),
            TimeFormat::HttpDate => {
                // Of what RFC 2822 allows, only this one form: as long as this, and in GMT.
                let whole = text.len() == "Tue, 24 Nov 2026 16:00:00 GMT".len() && text.ends_with(" GMT");
                let time = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok();
                time.filter(|_| whole).and_then(stamp)
            }
        }
    }

    pub(super) fn format(self, time: Timestamp) -> String {
        match self {
            TimeFormat::Unix => time.as_secs().to_string(),
            TimeFormat::UnixMillis => time.as_millis().to_string(),
            TimeFormat::Rfc3339 | TimeFormat::Rfc3339Utc => time.to_string(),
            TimeFormat::HttpDate => {
                let time = i64::try_from(time.as_millis()).map(jiff::Timestamp::from_millisecond);
                // The parser's own range ends with the year 9999, too: what it has read can be written.
                time.ok()
                    .and_then(Result::ok)
                    .and_then(|time| {
                        jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&time).ok()
                    })
                    .unwrap_or_default()
            }
        }
    }
}

/// Whether a date, a separator and a time of day can stand there.
fn is_long_enough(text: &str, bytes: usize) -> bool {
    text.len() >= bytes && matches!(text.as_bytes()[10], b'T' | b't' | b' ')
}

/// `None` before 1970.
fn stamp(time: jiff::Timestamp) -> Option<Timestamp> {
    u64::try_from(time.as_millisecond()).ok().map(Timestamp)
}

/// How far apart two times are.
pub(super) fn distance(a: Timestamp, b: Timestamp) -> Duration {
    a.since(b).max(b.since(a))
}

/// Reads a duration as people write it: `5m`, `300s`, `1h 30m`. The error says what would be right.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is not a duration: write it like `5m` or `300s`");
    let parsed: jiff::SignedDuration = text.trim().parse().map_err(|_| wrong())?;
    Duration::try_from(parsed).map_err(|_| wrong())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_plain_times_are_read() {
        assert_eq!(TimeFormat::Unix.parse(b"1764000000"), Some(Timestamp::from_secs(1_764_000_000)));
        assert_eq!(TimeFormat::UnixMillis.parse(b"1764000000123"), Some(Timestamp(1_764_000_000_123)));
        for bad in [
            "",
            "-1",
            "+1764000000",
            " 1764000000",
            "1764000000 ",
            "1764000000.5",
            "1e9",
            "0x10",
            "01764000000",
            "00",
            "１",
            "99999999999999999999",
            "999999999999999",
        ] {
            assert_eq!(TimeFormat::Unix.parse(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(TimeFormat::Unix.parse(b"\xff"), None);
    }

    #[test]
    fn rfc_3339_is_read_with_its_offset() {
        let expected = Some(Timestamp(1_764_000_000_000));
        for text in ["2025-11-24T16:00:00Z", "2025-11-24T16:00:00.000000000Z", "2025-11-24T08:00:00-08:00"] {
            assert_eq!(TimeFormat::Rfc3339.parse(text.as_bytes()), expected, "{text}");
        }
        for bad in ["2025-11-24", "2025-11-24T16:00:00", "yesterday", "1764000000", "1900-01-01T00:00:00Z"] {
            assert_eq!(TimeFormat::Rfc3339.parse(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn a_time_without_a_zone_is_in_utc_and_one_with_a_zone_means_it() {
        let parse = |text: &str| TimeFormat::Rfc3339Utc.parse(text.as_bytes());
        assert_eq!(parse("2025-11-24T16:00:00.551"), Some(Timestamp(1_764_000_000_551)));
        for text in [
            "2025-11-24T16:00:00",
            "2025-11-24 16:00:00",
            "2025-11-24T08:00:00-08:00",
            "2025-11-24T16:00:00Z",
        ] {
            assert_eq!(parse(text), Some(Timestamp(1_764_000_000_000)), "{text}");
        }
        for bad in [
            "2025-11-24",
            "2025-11-24T16:00",
            "2025-11-24T16:00:00 ",
            "2025-11-24T16:00:00.",
            "2025-11-24T16:00:00[Europe/Berlin]",
            "2025-11-24T16:00:00+25:99",
            "1900-01-01T00:00:00",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn an_http_date_is_read_in_its_one_form() {
        let parse = |text: &str| TimeFormat::HttpDate.parse(text.as_bytes());
        assert_eq!(parse("Mon, 24 Nov 2025 16:00:00 GMT"), Some(Timestamp(1_764_000_000_000)));
        assert_eq!(
            TimeFormat::HttpDate.format(Timestamp(1_764_000_000_000)),
            "Mon, 24 Nov 2025 16:00:00 GMT"
        );
        for bad in [
            "Tue, 24 Nov 2025 16:00:00 GMT",
            "Mon, 24 Nov 2025 16:00:00 UTC",
            "Mon, 24 Nov 2025 16:00:00 EST",
            "Mon, 24 Nov 2025 16:00:00 +0000",
            "Monday, 24-Nov-25 16:00:00 GMT",
            "Mon Nov 24 16:00:00 2025",
            "24 Nov 2025 16:00:00 GMT",
            "Mon, 24 Nov 2025 16:00:00 GMT ",
            "Mon, 24 Nov 1925 16:00:00 GMT",
            "2025-11-24T16:00:00Z",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn durations_are_read_as_written() {
        assert_eq!(duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        for bad in ["", "5", "-5m", "five", "5 parsecs"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "\\PC{0,30}", bytes in proptest::collection::vec(any::<u8>(), 0..30)) {
            let _ = duration(&text);
            for format in TimeFormat::ALL {
                let _ = (format.parse(&bytes), format.parse(text.as_bytes()));
            }
        }

        #[test]
        fn what_is_written_is_read(millis in 0u64..253_402_300_799_000) {
            let time = Timestamp(millis / 1000 * 1000);
            for format in TimeFormat::ALL {
                prop_assert_eq!(format.parse(format.format(time).as_bytes()), Some(time));
            }
        }
    }
}
