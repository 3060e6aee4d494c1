//! Rules and notices over time, with a clock that only moves when told to.

use proptest::prelude::*;

use super::rules::Looked;
use super::*;
use crate::config::{AlertRules, Growth, Surge};

const START: Timestamp = Timestamp(1_764_000_000_000);
const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

fn settings() -> AlertSettings {
    AlertSettings {
        name: "edge-1".into(),
        to: Vec::new(),
        every: Duration::from_secs(15),
        group: Duration::from_secs(30),
        pause: 5 * MINUTE,
        repeat: Some(4 * HOUR),
        rules: AlertRules {
            backlog_age: Some(15 * MINUTE),
            backlog_growth: Some(Growth { more: 1000, within: 10 * MINUTE }),
            dead_letters: Some(Growth { more: 1, within: HOUR }),
            lane_stuck: Some(15 * MINUTE),
            breaker_open: Some(5 * MINUTE),
            verification_failures: Some(Surge { at_least: 20, percent: 10, within: 5 * MINUTE }),
            duplicates: Some(Surge { at_least: 100, percent: 50, within: 10 * MINUTE }),
            disk: Some(80),
            certificate_expiry: Some(14 * 24 * HOUR),
            secret_expiry: Some(14 * 24 * HOUR),
            stale_keys: Some(6 * HOUR),
            stale_ranges: Some(3 * 24 * HOUR),
        },
    }
}

/// A gateway at which nothing is wrong, that a test makes worse.
struct World {
    watcher: Watcher,
    book: Book,
    settings: AlertSettings,
    sample: Sample,
    now: Timestamp,
}

impl World {
    fn new() -> Self {
        let destination =
            DestinationSample { name: "billing/app".into(), backlog: 0, dead: 0, oldest: None, stuck: None };
        let route =
            RouteSample { name: "billing".into(), expect_every: None, counts: RouteCounts::default() };
        let sample = Sample {
            destinations: Some(vec![destination]),
            disk: Some(Disk { used: 10, max: 1000, free: 10_000, min_free: 100 }),
            routes: vec![route],
            ..Sample::default()
        };
        Self { watcher: Watcher::default(), book: Book::default(), settings: settings(), sample, now: START }
    }

    fn look(&mut self) -> Looked {
        self.watcher.look(&self.settings.rules, &self.sample, self.now)
    }
    /// `rule subject: text` of all that is wrong.
    fn wrong(&mut self) -> Vec<String> {
        self.look().wrong.iter().map(|c| format!("{} {}: {}", c.rule.word(), c.subject, c.text)).collect()
    }
    fn is_wrong(&mut self, rule: Rule) -> bool {
        self.look().wrong.iter().any(|condition| condition.rule == rule)
    }
    fn later(&mut self, by: Duration) -> &mut Self {
        self.now = self.now.saturating_add(by);
        self
    }
    fn destination(&mut self) -> &mut DestinationSample {
        &mut self.sample.destinations.as_mut().unwrap()[0]
    }
    fn counts(&mut self) -> &mut RouteCounts {
        &mut self.sample.routes[0].counts
    }
    fn enter(&mut self) -> Option<Notice> {
        let looked = self.look();
        self.book.enter(looked, &self.settings, self.now)
    }
    /// Looks every 15 seconds for so long; all notices, with when they came.
    fn run(&mut self, time: Duration) -> Vec<(Duration, Notice)> {
        let end = self.now.saturating_add(time);
        let begin = self.now;
        let mut notices = Vec::new();
        while self.now < end {
            self.later(self.settings.every);
            notices.extend(self.enter().map(|notice| (self.now.since(begin), notice)));
        }
        notices
    }
}

#[test]
fn a_key_that_stands_still_for_long_is_told_of() {
    let mut world = World::new();
    world.destination().stuck = Some((3, START));
    assert_eq!(world.later(14 * MINUTE).wrong(), Vec::<String>::new());
    let told = "lane_stuck billing/app: 3 keys stand still, the longest for 15m: `tidegate lanes` names them";
    assert_eq!(world.later(MINUTE).wrong(), [told]);
}

#[test]
fn a_destination_that_dies_with_its_first_event_is_told_of() {
    let mut world = World::new();
    assert_eq!(world.wrong(), Vec::<String>::new());
    let first =
        DestinationSample { name: "other/app".into(), backlog: 0, dead: 1, oldest: None, stuck: None };
    world.sample.destinations.as_mut().unwrap().push(first);
    assert_eq!(world.later(MINUTE).wrong(), ["dead_letters other/app: 1 new within 1h: 1 in all"]);
}

#[test]
fn nothing_is_wrong_at_the_start_whatever_is_there_already() {
    let mut world = World::new();
    let now = world.now;
    *world.destination() = DestinationSample {
        name: "billing/app".into(),
        backlog: 1_000_000,
        dead: 500,
        oldest: Some(now.saturating_sub(MINUTE)),
        stuck: None,
    };
    assert_eq!(world.wrong(), Vec::<String>::new());
    assert_eq!(world.later(HOUR * 24 * 40).look().unknown, []);
}

#[test]
fn an_old_backlog_says_how_old_it_is() {
    let mut world = World::new();
    *world.destination() =
        DestinationSample { backlog: 7, oldest: Some(START), ..world.destination().clone() };
    world.later(15 * MINUTE - Duration::from_millis(1));
    assert!(world.wrong().is_empty());
    let wrong = world.later(Duration::from_millis(1)).wrong();
    assert_eq!(wrong, ["backlog_age billing/app: the oldest of 7 deliveries has waited for 15m (limit 15m)"]);
    world.settings.rules.backlog_age = None;
    assert!(world.wrong().is_empty());
}

#[test]
fn growth_counts_what_goes_as_well_as_what_comes_and_is_forgotten() {
    let mut world = World::new();
    world.wrong();
    for backlog in [900, 100, 950] {
        world.destination().backlog = backlog;
        assert!(!world.later(MINUTE).is_wrong(Rule::BacklogGrowth), "{backlog}");
    }
    world.destination().backlog = 1000;
    assert!(world.later(MINUTE).is_wrong(Rule::BacklogGrowth));
    assert!(!world.later(11 * MINUTE).is_wrong(Rule::BacklogGrowth));
}

#[test]
fn a_new_dead_letter_is_wrong_for_an_hour_and_a_replay_hides_none() {
    let mut world = World::new();
    world.destination().dead = 5;
    world.wrong();
    world.destination().dead = 2;
    assert!(!world.later(MINUTE).is_wrong(Rule::DeadLetters));
    world.destination().dead = 3;
    assert_eq!(world.later(MINUTE).wrong(), ["dead_letters billing/app: 1 new within 1h: 3 in all"]);
    world.destination().dead = 0;
    assert!(world.later(MINUTE).is_wrong(Rule::DeadLetters));
    assert!(!world.later(HOUR).is_wrong(Rule::DeadLetters));
}

#[test]
fn a_breaker_is_told_once_it_has_been_open_for_long() {
    let mut world = World::new();
    world.sample.breakers.push(OpenBreaker { destination: "billing/app".into(), since: START });
    assert!(!world.later(4 * MINUTE).is_wrong(Rule::BreakerOpen));
    assert!(world.later(MINUTE).is_wrong(Rule::BreakerOpen));
}

#[test]
fn a_surge_is_many_and_a_large_part() {
    let mut world = World::new();
    world.wrong();
    let add = |world: &mut World, requests: u64, unverified: u64, duplicates: u64| {
        let counts = world.counts();
        counts.requests += requests;
        counts.unverified += unverified;
        counts.duplicates += duplicates;
        world.later(MINUTE).look().wrong.iter().map(|c| c.rule).collect::<Vec<_>>()
    };
    assert_eq!(add(&mut world, 19, 19, 0), []);
    assert_eq!(add(&mut world, 1, 1, 0), [Rule::VerificationFailures]);
    // The same among many good ones is none.
    assert_eq!(add(&mut world, 1000, 0, 0), []);
    assert_eq!(add(&mut world, 1000, 0, 999), []);
    assert_eq!(add(&mut world, 100, 0, 100), [Rule::Duplicates]);
    world.later(11 * MINUTE);
    assert_eq!(add(&mut world, 0, 0, 0), []);
}

#[test]
fn the_disk_is_held_against_both_limits_and_a_closed_buffer_says_why() {
    let mut world = World::new();
    let mut with = |used: u64, free: u64| {
        world.sample.disk =
            Some(Disk { used: used << 20, max: 1000 << 20, free: free << 20, min_free: 100 << 20 });
        world.wrong()
    };
    assert!(with(799, 10_000).is_empty());
    assert_eq!(with(800, 10_000), ["disk buffer: 80% of buffer.max_size are used (800 MiB of 1000 MiB)"]);
    // 400 used and 180 free of which 100 must stay: 83% of what can be used is.
    assert_eq!(
        with(400, 180),
        ["disk buffer: 180 MiB are free on its volume; at 100 MiB events are refused"]
    );
    assert!(with(400, 300).is_empty());
    world.sample.closed = Some("a write failed".into());
    assert_eq!(world.wrong(), ["disk buffer: the buffer takes no events: a write failed"]);
    (world.sample.closed, world.sample.disk, world.sample.destinations) = (None, None, None);
    assert_eq!(world.look().unknown.len(), 5);
}

#[test]
fn ends_and_stale_keys_are_told_in_time() {
    let mut world = World::new();
    let day = 24 * HOUR;
    let expiring =
        |name: &str, days: u32| Expiring { name: name.into(), ends: START.saturating_add(day * days) };
    world.sample.certificates = vec![expiring("a.pem", 15), expiring("b.pem", 14)];
    world.sample.secrets = vec![expiring("env:S", 3)];
    let keys = |url: &str, at, error: Option<&str>| Fetched {
        url: url.into(),
        at,
        error: error.map(Into::into),
        refused: None,
    };
    world.sample.keys = vec![
        keys("https://fresh", Some(START), Some("once")),
        keys("https://old", Some(START.saturating_sub(6 * HOUR)), Some("refused")),
        keys("https://never", None, Some("no such host")),
        keys("https://first", None, None),
    ];
    world.sample.ranges = vec![keys("acme", Some(START.saturating_sub(day * 3)), Some("not believed"))];
    assert_eq!(
        world.wrong(),
        [
            "certificate_expiry b.pem: ends in 14d, at 2025-12-08T16:00:00.000Z",
            "secret_expiry env:S: ends in 3d, at 2025-11-27T16:00:00.000Z",
            "stale_keys https://old: as of 6h ago: refused",
            "stale_keys https://never: never fetched: no such host",
            "stale_ranges acme: as of 3d ago: not believed",
        ]
    );
    world.later(day * 15);
    assert!(world.wrong()[0].starts_with("certificate_expiry a.pem: ended at "));
}

#[test]
fn a_list_of_ranges_that_is_not_believed_is_told_at_once_until_one_is() {
    let mut world = World::new();
    let of = |refused: Option<&str>| Fetched {
        url: "acme".into(),
        at: Some(START),
        error: Some("the server answered 503".into()),
        refused: refused.map(Into::into),
    };
    world.sample.ranges = vec![of(None)];
    assert!(world.wrong().is_empty());
    world.sample.ranges = vec![of(Some("the list is empty"))];
    assert_eq!(world.wrong(), ["stale_ranges acme: what was published is not believed: the list is empty"]);
    world.sample.ranges = vec![of(None)];
    assert!(!world.later(HOUR).is_wrong(Rule::StaleRanges));
    world.sample.ranges = vec![of(Some("the list is empty"))];
    world.settings.rules.stale_ranges = None;
    assert!(world.wrong().is_empty());
}

#[test]
fn a_sender_that_is_expected_and_silent_is_told_until_it_sends_again() {
    let mut world = World::new();
    world.sample.routes[0].expect_every = Some(HOUR);
    assert!(world.wrong().is_empty());
    assert!(!world.later(HOUR).is_wrong(Rule::Silence));
    // Refused requests are not the sender's.
    world.counts().unverified += 1;
    let wrong = world.later(MINUTE).wrong();
    assert_eq!(wrong, ["silence billing: nothing has arrived for 1h 1m, expected every 1h"]);
    world.counts().arrived += 1;
    assert!(!world.is_wrong(Rule::Silence));
    assert!(world.later(HOUR + MINUTE).is_wrong(Rule::Silence));
}

#[test]
fn one_notice_tells_of_all_and_another_that_it_is_over() {
    let mut world = World::new();
    world.run(MINUTE);
    world.destination().dead = 1;
    let mut notices = world.run(Duration::from_secs(30));
    world.sample.closed = Some("full".into());
    notices.extend(world.run(10 * MINUTE));
    let [(_, notice)] = notices.as_slice() else { panic!("{notices:#?}") };
    assert_eq!(notice.kind, Kind::Firing);
    assert_eq!(notice.title(), "[edge-1] 2 alerts");
    let text = notice.text();
    assert!(
        text.contains("CRITICAL dead_letters billing/app: 1 new within 1h: 1 in all (since 20"),
        "{text}"
    );

    world.sample.closed = None;
    let notices = world.run(10 * MINUTE);
    assert_eq!(notices.len(), 1);
    assert_eq!(notices[0].1.title(), "[edge-1] 1 firing, 1 resolved");
    assert!(notices[0].1.text().contains("RESOLVED disk buffer (20"), "{}", notices[0].1.text());

    let notices = world.run(HOUR);
    assert_eq!(notices.len(), 1, "{notices:#?}");
    assert_eq!((notices[0].1.kind, notices[0].1.firing.len()), (Kind::Resolved, 0));
    assert!(world.book.firing().is_empty());
    assert!(world.run(24 * HOUR).is_empty());
}

#[test]
fn what_lasts_is_told_again_and_what_flickers_is_not_told_often() {
    let mut world = World::new();
    world.sample.closed = Some("full".into());
    let notices = world.run(9 * HOUR);
    assert_eq!(notices.len(), 3, "at once, after 4 and after 8 hours");
    world.settings.repeat = None;
    assert!(world.run(9 * HOUR).is_empty());

    let mut told = 0;
    for _ in 0..240 {
        world.sample.closed = None;
        told += world.run(Duration::from_secs(15)).len();
        world.sample.closed = Some("full".into());
        told += world.run(Duration::from_secs(15)).len();
    }
    assert_eq!(told, 0, "it was never gone for long enough to be over");
}

#[test]
fn what_comes_and_goes_before_anybody_was_told_is_not_told() {
    let mut world = World::new();
    world.settings.group = 2 * MINUTE;
    world.sample.closed = Some("full".into());
    world.run(MINUTE);
    world.sample.closed = None;
    // It is news for two minutes, and so long must it be gone to be over: whichever is first.
    let notices = world.run(10 * MINUTE);
    assert!(notices.len() <= 2, "{notices:#?}");
    if let Some((_, last)) = notices.last() {
        assert_eq!(last.kind, Kind::Resolved, "nobody is left with an alarm");
    }
}

#[test]
fn what_nobody_can_see_stays_as_it_was() {
    let mut world = World::new();
    world.run(MINUTE);
    world.destination().dead = 1;
    assert_eq!(world.run(MINUTE).len(), 1);
    let known = world.sample.destinations.take();
    assert!(world.run(2 * HOUR).is_empty());
    assert_eq!(world.book.firing().len(), 1);
    world.sample.destinations = known;
    assert_eq!(world.run(HOUR)[0].1.kind, Kind::Resolved);
}

#[test]
fn a_long_notice_is_cut_and_says_so_and_slack_gets_no_markup() {
    let alert = |n: usize| Alert {
        rule: Rule::Silence,
        severity: Severity::Warning,
        subject: format!("<route{n}&>"),
        text: "x".into(),
        since: START.to_string(),
        until: None,
    };
    let notice = Notice::new(&settings(), (0..70).map(alert).collect(), vec![], START);
    assert_eq!(notice.firing.len(), notice::MAX_LISTED);
    assert!(notice.text().ends_with("… and 20 more firing\n"));
    let slack = notice.slack().to_string();
    assert!(slack.contains("&lt;route1&amp;&gt;") && !slack.contains("<route"), "{slack}");
    assert_eq!(notice.json()["data"]["firing_in_all"], 70);
    assert_eq!(notice.json()["type"], "tidegate.alerts.firing");
}

#[test]
fn the_manual_lists_every_rule() {
    let manual = include_str!("../../conf/MANUAL.md");
    let section = manual.split("\n## Alerts").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    let documented: Vec<(&str, &str)> = rows
        .filter_map(|row| {
            row.split_once("` | ").and_then(|(word, rest)| Some((word, rest.split(' ').next()?)))
        })
        .collect();
    let severity = |rule: &Rule| match rule.severity() {
        Severity::Warning => "warning",
        Severity::Critical => "critical",
    };
    let known: Vec<_> = Rule::ALL.iter().map(|rule| (rule.word(), severity(rule))).collect();
    assert_eq!(documented, known, "conf/MANUAL.md is not true");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    /// Whatever happens: notices are `pause` apart, the last one says what is so, and nothing is left unsaid.
    #[test]
    fn people_know_what_is_so_and_are_not_flooded(steps in prop::collection::vec((0u64..20, any::<[bool; 3]>()), 1..60)) {
        let mut world = World::new();
        world.settings.repeat = None;
        let (mut last, mut known): (Option<Timestamp>, Vec<String>) = (None, vec![]);
        let closing = std::iter::once((120, [false, false, true]));
        for (looks, [closed, breaker, silent]) in steps.into_iter().chain(closing) {
            world.sample.closed = closed.then(|| "full".into());
            world.sample.breakers = breaker
                .then(|| OpenBreaker { destination: "billing/app".into(), since: Timestamp(0) })
                .into_iter()
                .collect();
            world.sample.certificates = silent
                .then(|| Expiring { name: "a.pem".into(), ends: Timestamp(0) })
                .into_iter()
                .collect();
            for (_, notice) in world.run(world.settings.every * u32::try_from(looks).unwrap()) {
                prop_assert!(last.is_none_or(|at| notice.at.since(at) >= world.settings.pause));
                for over in &notice.resolved {
                    prop_assert!(known.contains(&over.subject), "{} was never told", over.subject);
                    prop_assert!(notice.firing.iter().all(|alert| alert.subject != over.subject));
                }
                (last, known) = (Some(notice.at), notice.firing.into_iter().map(|alert| alert.subject).collect());
            }
        }
        prop_assert_eq!(known, ["a.pem"]);
    }
}
