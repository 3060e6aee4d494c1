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
}

impl TimeFormat {
    pub(super) const NAMES: &[&str] = &["unix", "unix-ms", "rfc3339"];

    pub(super) fn parse_name(name: &str) -> Option<Self> {
        match name {
            "unix" => Some(TimeFormat::Unix),
            "unix-ms" => Some(TimeFormat::UnixMillis),
            "rfc3339" => Some(TimeFormat::Rfc3339),
            _ => None,
        }
    }

    /// Reads a time strictly: digits only (no sign, space or fraction) and within the years that RFC 3339 can write.
    pub(super) fn parse(self, text: &[u8]) -> Option<Timestamp> {
        /// The end of the year 9999, in seconds.
        const LAST: u64 = 253_402_300_799;
        let text = std::str::from_utf8(text).ok()?;
        let number = || {
            let digits = !text.is_empty() && text.len() <= 15 && text.bytes().all(|b| b.is_ascii_digit());
            if digits { text.parse::<u64>().ok() } else { None }
        };
        match self {
            TimeFormat::Unix => number().filter(|secs| *secs <= LAST).map(Timestamp::from_secs),
            TimeFormat::UnixMillis => number().filter(|millis| *millis / 1000 <= LAST).map(Timestamp),
            TimeFormat::Rfc3339 => {
                let written = text.len() >= 20 && matches!(text.as_bytes()[10], b'T' | b't' | b' ');
                let time: jiff::Timestamp = if written { text.parse().ok()? } else { return None };
                u64::try_from(time.as_millisecond()).ok().map(Timestamp)
            }
        }
    }

    pub(super) fn format(self, time: Timestamp) -> String {
        match self {
            TimeFormat::Unix => time.as_secs().to_string(),
            TimeFormat::UnixMillis => time.as_millis().to_string(),
            TimeFormat::Rfc3339 => time.to_string(),
        }
    }
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
            for format in [TimeFormat::Unix, TimeFormat::UnixMillis, TimeFormat::Rfc3339] {
                let _ = (format.parse(&bytes), format.parse(text.as_bytes()));
            }
        }

        #[test]
        fn what_is_written_is_read(millis in 0u64..253_402_300_799_000) {
            let time = Timestamp(millis / 1000 * 1000);
            for format in [TimeFormat::Unix, TimeFormat::UnixMillis, TimeFormat::Rfc3339] {
                prop_assert_eq!(format.parse(format.format(time).as_bytes()), Some(time));
            }
        }
    }
}
