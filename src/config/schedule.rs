//! Windows of the week in which a destination gets its deliveries: `22:00-06:00 Europe/Paris`. Reading and deciding,
//! both pure. Times are those of the zone's clocks: a window that begins or ends in the hour that a spring night skips
//! does so when the clocks jump, one that begins or ends in the doubled hour of an autumn night means the first.

use jiff::ToSpan;
use jiff::civil::{Date, Time};
use jiff::tz::{AmbiguousOffset, TimeZone};

use crate::clock::Timestamp;

/// Open in any of the windows.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    windows: Vec<Window>,
}

#[derive(Clone, Debug, PartialEq)]
struct Window {
    /// From Monday; the day on which it begins.
    days: [bool; 7],
    from: Time,
    /// At or before `from`: on the next day.
    to: Time,
    zone: TimeZone,
}

/// How a schedule stands at one moment, and until when that is so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hours {
    Open { until: Timestamp },
    Closed { until: Timestamp },
}

pub(super) const SCHEDULE_HELP: &str =
    "write `22:00-06:00 Europe/Paris`, or with days `mon-fri 22:00-06:00 UTC` or `sat,sun 00:00-24:00 UTC`";

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

impl Schedule {
    /// From texts as a config has them; the error says what is wrong with the first that is no window.
    pub fn parse<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let windows = texts.into_iter().map(Window::parse).collect::<Result<Vec<_>, _>>()?;
        if windows.is_empty() {
            return Err("there is no window, so nothing would ever be delivered".into());
        }
        Ok(Self { windows })
    }

    /// Whether deliveries may begin at `now`.
    pub fn at(&self, now: Timestamp) -> Hours {
        let millis = i64::try_from(now.0).unwrap_or(i64::MAX);
        let Ok(at) = jiff::Timestamp::from_millisecond(millis) else {
            return Hours::Open { until: now };
        };
        let mut open: Option<jiff::Timestamp> = None;
        let mut next: Option<jiff::Timestamp> = None;
        for window in &self.windows {
            for (start, end) in window.around(at) {
                if start <= at && at < end {
                    open = Some(open.map_or(end, |known| known.max(end)));
                } else if start > at {
                    next = Some(next.map_or(start, |known| known.min(start)));
                }
            }
        }
        let stamp = |t: jiff::Timestamp| Timestamp(u64::try_from(t.as_millisecond()).unwrap_or(0));
        match (open, next) {
            (Some(end), _) => Hours::Open { until: stamp(end) },
            (None, Some(start)) => Hours::Closed { until: stamp(start) },
            // Each window comes within a week; only at the end of time is there none.
            (None, None) => Hours::Open { until: now },
        }
    }
}

impl Window {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not a window of time");
        let parts: Vec<&str> = text.split_whitespace().collect();
        let (days, times, zone) = match parts[..] {
            [times, zone] => (None, times, zone),
            [days, times, zone] => (Some(days), times, zone),
            _ => return Err(wrong()),
        };
        let days = match days {
            None => [true; 7],
            Some(text) => days_of(text).ok_or_else(|| format!("`{text}` names no days"))?,
        };
        let (from, to) = times.split_once('-').ok_or_else(wrong)?;
        let from = time(from).ok_or_else(wrong)?;
        let to = if to == "24:00" { Time::midnight() } else { time(to).ok_or_else(wrong)? };
        if from == to && from != Time::midnight() {
            return Err(format!("`{times}` is empty: from and to are the same"));
        }
        let zone =
            TimeZone::get(zone).map_err(|_| format!("`{zone}` is not a time zone that is known here"))?;
        Ok(Self { days, from, to, zone })
    }

    /// The spans that may hold `at` or come next.
    fn around(&self, at: jiff::Timestamp) -> impl Iterator<Item = (jiff::Timestamp, jiff::Timestamp)> {
        let today = at.to_zoned_datetime(self.zone.clone()).date();
        (-1..=8).filter_map(move |days: i64| {
            let day = today.checked_add(days.days()).ok()?;
            if !self.days[usize::try_from(day.weekday().to_monday_zero_offset()).ok()?] {
                return None;
            }
            let last = if self.to <= self.from { day.tomorrow().ok()? } else { day };
            let (start, end) = (self.on(day, self.from)?, self.on(last, self.to)?);
            // All of it in the hour that was skipped.
            (start < end).then_some((start, end))
        })
    }

    fn on(&self, day: Date, time: Time) -> Option<jiff::Timestamp> {
        let told = self.zone.to_ambiguous_zoned_datetime(day.to_datetime(time));
        let is_skipped = matches!(told.offset(), AmbiguousOffset::Gap { .. });
        // As if the clocks had not jumped, where they skip it: at the jump or after it.
        let at = told.compatible().ok()?.timestamp();
        if !is_skipped {
            return Some(at);
        }
        Some(self.zone.preceding(at.checked_add(1.nanosecond()).ok()?).next()?.timestamp())
    }
}

fn time(text: &str) -> Option<Time> {
    let (hour, minute) = text.split_once(':')?;
    let digits = |text: &str| text.len() == 2 && text.bytes().all(|b| b.is_ascii_digit());
    if !digits(hour) || !digits(minute) {
        return None;
    }
    Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
}

/// `mon-fri`, `sat,sun`, `fri-mon,wed`.
fn days_of(text: &str) -> Option<[bool; 7]> {
    let day = |name: &str| DAYS.iter().position(|known| name.eq_ignore_ascii_case(known));
    let mut days = [false; 7];
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        let mut at = first;
        loop {
            days[at] = true;
            if at == last {
                break;
            }
            at = (at + 1) % 7;
        }
    }
    Some(days)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> Timestamp {
        let at: jiff::Timestamp = text.parse().unwrap();
        Timestamp(at.as_millisecond() as u64)
    }
    fn hours(windows: &[&str], now: &str) -> Hours {
        Schedule::parse(windows.iter().copied()).unwrap().at(at(now))
    }
    fn open(until: &str) -> Hours {
        Hours::Open { until: at(until) }
    }
    fn closed(until: &str) -> Hours {
        Hours::Closed { until: at(until) }
    }

    #[test]
    fn a_window_over_midnight_is_of_the_day_on_which_it_begins() {
        let night = &["22:00-06:00 Europe/Paris"];
        assert_eq!(hours(night, "2026-01-15T20:59:59Z"), closed("2026-01-15T21:00:00Z"));
        assert_eq!(hours(night, "2026-01-15T21:00:00Z"), open("2026-01-16T05:00:00Z"));
        assert_eq!(hours(night, "2026-01-16T04:59:59Z"), open("2026-01-16T05:00:00Z"));
        assert_eq!(hours(night, "2026-01-16T05:00:00Z"), closed("2026-01-16T21:00:00Z"));
        // In summer the same clocks are an hour earlier.
        assert_eq!(hours(night, "2026-07-15T12:00:00Z"), closed("2026-07-15T20:00:00Z"));
        // Friday's window reaches into Saturday, Saturday has none.
        let work = &["mon-fri 22:00-06:00 UTC"];
        assert_eq!(hours(work, "2026-01-17T03:00:00Z"), open("2026-01-17T06:00:00Z"));
        assert_eq!(hours(work, "2026-01-17T06:00:00Z"), closed("2026-01-19T22:00:00Z"));
    }

    #[test]
    fn nights_in_which_clocks_change_are_as_long_as_they_are() {
        let night = &["22:00-06:00 Europe/Paris"];
        // 29 March 2026: 02:00 becomes 03:00. 25 October 2026: 03:00 becomes 02:00.
        assert_eq!(hours(night, "2026-03-28T21:00:00Z"), open("2026-03-29T04:00:00Z"));
        assert_eq!(hours(night, "2026-10-24T20:00:00Z"), open("2026-10-25T05:00:00Z"));
    }

    #[test]
    fn what_begins_or_ends_in_a_skipped_hour_does_so_when_the_clocks_jump() {
        // Window, a moment before it, when it opens, when it closes.
        for (window, before, opens, closes) in [
            // 28 March 2027: 02:00 becomes 03:00 at 01:00Z.
            (
                "02:30-03:30 Europe/Paris",
                "2027-03-28T00:10:00Z",
                "2027-03-28T01:00:00Z",
                "2027-03-28T01:30:00Z",
            ),
            (
                "02:00-04:00 Europe/Paris",
                "2027-03-28T00:10:00Z",
                "2027-03-28T01:00:00Z",
                "2027-03-28T02:00:00Z",
            ),
            (
                "01:30-02:15 Europe/Paris",
                "2027-03-28T00:10:00Z",
                "2027-03-28T00:30:00Z",
                "2027-03-28T01:00:00Z",
            ),
            (
                "22:00-02:59 Europe/Paris",
                "2027-03-27T20:00:00Z",
                "2027-03-27T21:00:00Z",
                "2027-03-28T01:00:00Z",
            ),
            // All of it is skipped: the next night.
            (
                "02:15-02:45 Europe/Paris",
                "2027-03-28T00:10:00Z",
                "2027-03-29T00:15:00Z",
                "2027-03-29T00:45:00Z",
            ),
            (
                "02:00-03:00 Europe/Paris",
                "2027-03-28T00:10:00Z",
                "2027-03-29T00:00:00Z",
                "2027-03-29T01:00:00Z",
            ),
            // 31 October 2027: 03:00 becomes 02:00 at 01:00Z; the first of the two is meant.
            (
                "02:30-03:30 Europe/Paris",
                "2027-10-31T00:10:00Z",
                "2027-10-31T00:30:00Z",
                "2027-10-31T02:30:00Z",
            ),
            (
                "01:30-02:30 Europe/Paris",
                "2027-10-30T23:10:00Z",
                "2027-10-30T23:30:00Z",
                "2027-10-31T00:30:00Z",
            ),
            // 14 March 2027: 02:00 becomes 03:00 at 07:00Z. 7 November: 02:00 becomes 01:00 at 06:00Z.
            (
                "02:30-04:00 America/New_York",
                "2027-03-14T06:10:00Z",
                "2027-03-14T07:00:00Z",
                "2027-03-14T08:00:00Z",
            ),
            (
                "01:00-02:30 America/New_York",
                "2027-03-14T05:10:00Z",
                "2027-03-14T06:00:00Z",
                "2027-03-14T07:00:00Z",
            ),
            (
                "01:30-02:30 America/New_York",
                "2027-11-07T05:10:00Z",
                "2027-11-07T05:30:00Z",
                "2027-11-07T07:30:00Z",
            ),
            // Half an hour: 3 October 2027, 02:00 becomes 02:30 at 15:30Z the day before. 4 April: 02:00 becomes 01:30 at 15:00Z.
            (
                "02:15-03:00 Australia/Lord_Howe",
                "2027-10-02T15:10:00Z",
                "2027-10-02T15:30:00Z",
                "2027-10-02T16:00:00Z",
            ),
            (
                "01:00-02:20 Australia/Lord_Howe",
                "2027-10-02T14:10:00Z",
                "2027-10-02T14:30:00Z",
                "2027-10-02T15:30:00Z",
            ),
            (
                "02:05-02:25 Australia/Lord_Howe",
                "2027-10-02T15:10:00Z",
                "2027-10-03T15:05:00Z",
                "2027-10-03T15:25:00Z",
            ),
            (
                "01:45-02:15 Australia/Lord_Howe",
                "2027-04-03T14:10:00Z",
                "2027-04-03T14:45:00Z",
                "2027-04-03T15:45:00Z",
            ),
        ] {
            assert_eq!(hours(&[window], before), closed(opens), "{window} {before}");
            assert_eq!(hours(&[window], opens), open(closes), "{window} {opens}");
            assert!(matches!(hours(&[window], closes), Hours::Closed { .. }), "{window} {closes}");
        }
    }

    #[test]
    fn several_windows_and_whole_days_add_up() {
        let both = &["09:00-12:00 UTC", "14:00-18:00 UTC", "sun 00:00-24:00 UTC"];
        assert_eq!(hours(both, "2026-01-15T10:00:00Z"), open("2026-01-15T12:00:00Z"));
        assert_eq!(hours(both, "2026-01-15T12:30:00Z"), closed("2026-01-15T14:00:00Z"));
        assert_eq!(hours(both, "2026-01-18T12:30:00Z"), open("2026-01-19T00:00:00Z"));
    }

    #[test]
    fn what_is_no_window_is_refused() {
        for text in [
            "",
            "22:00-06:00",
            "22-06 UTC",
            "25:00-06:00 UTC",
            "22:00-06:60 UTC",
            "22:00 - 06:00 UTC",
            "08:00-08:00 UTC",
            "22:00-06:00 Mars/Base",
            "foo 22:00-06:00 UTC",
            "mon- 22:00-06:00 UTC",
            "2:00-06:00 UTC",
            "+2:00-06:00 UTC",
            "24:00-06:00 UTC",
        ] {
            assert!(Schedule::parse([text]).is_err(), "{text}");
        }
        assert!(Schedule::parse([]).is_err());
    }

    proptest! {
        /// What is told of the future comes true, and time always goes on.
        #[test]
        fn what_is_told_comes_true(
            from in 0u32..24, to in 0u32..24, days in "(mon-fri|sat,sun|wed|fri-mon)",
            zone in prop_oneof![Just("Europe/Paris"), Just("America/New_York"), Just("Australia/Lord_Howe"), Just("UTC")],
            now in 1_700_000_000u64..1_900_000_000,
        ) {
            prop_assume!(from != to);
            let schedule = Schedule::parse([&*format!("{days} {from:02}:30-{to:02}:15 {zone}")]).unwrap();
            let now = Timestamp::from_secs(now);
            let (until, was_open) = match schedule.at(now) {
                Hours::Open { until } => (until, true),
                Hours::Closed { until } => (until, false),
            };
            prop_assert!(until > now);
            prop_assert!(until.since(now).as_secs() <= 9 * 86_400);
            let is_open = |at| matches!(schedule.at(at), Hours::Open { .. });
            prop_assert_eq!(is_open(Timestamp(until.0 - 1)), was_open);
            prop_assert_eq!(is_open(until), !was_open);
        }
    }
}
