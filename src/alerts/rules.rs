//! What of a sample is wrong. Pure but for what the rules remember of earlier samples.

use std::collections::HashMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::sample::{DestinationSample, Disk, Expiring, Fetched, RouteCounts, RouteSample, Sample};
use super::spoken;
use super::window::Window;
use crate::clock::Timestamp;
use crate::config::{AlertRules, Surge};

macro_rules! rules {
    ($( $(#[$doc:meta])* $rule:ident = $word:literal, $severity:ident; )*) => {
        /// A kind of trouble.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Rule { $( $(#[$doc])* $rule, )* }

        impl Rule {
            pub const ALL: &'static [Rule] = &[ $( Rule::$rule, )* ];
            /// As in the config, metrics and notices.
            pub const fn word(self) -> &'static str { match self { $( Rule::$rule => $word, )* } }
            pub const fn severity(self) -> Severity { match self { $( Rule::$rule => Severity::$severity, )* } }
        }
    };
}

rules! {
    /// The oldest delivery of a destination waits for long.
    BacklogAge = "backlog_age", Warning;
    BacklogGrowth = "backlog_growth", Warning;
    DeadLetters = "dead_letters", Critical;
    /// A key of an ordered destination stands still.
    LaneStuck = "lane_stuck", Warning;
    BreakerOpen = "breaker_open", Critical;
    VerificationFailures = "verification_failures", Warning;
    Duplicates = "duplicates", Warning;
    /// The buffer fills, or takes no events.
    Disk = "disk", Critical;
    CertificateExpiry = "certificate_expiry", Critical;
    SecretExpiry = "secret_expiry", Warning;
    StaleKeys = "stale_keys", Warning;
    StaleRanges = "stale_ranges", Warning;
    /// A route's sender is silent.
    Silence = "silence", Warning;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Look at it today.
    Warning,
    /// Look at it now.
    Critical,
}

/// Something that is wrong at a moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    pub rule: Rule,
    /// A route, a destination, a file, …
    pub subject: Arc<str>,
    pub text: String,
}

/// What a look gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    pub wrong: Vec<Condition>,
    /// Nothing is known of these now.
    pub unknown: Vec<Rule>,
}

/// What the rules remember between looks: in bounded memory for each route and destination that there is.
#[derive(Debug, Default)]
pub struct Watcher {
    /// Whether destinations were looked at before.
    begun: bool,
    destinations: HashMap<Arc<str>, DestinationPast>,
    routes: HashMap<Arc<str>, RoutePast>,
}

#[derive(Debug, Default)]
struct DestinationPast {
    backlog: u64,
    dead: u64,
    growth: Window,
    died: Window,
}

#[derive(Debug)]
struct RoutePast {
    counts: RouteCounts,
    /// When something arrived, as far as looks can tell; else when it was first looked at.
    arrived: Timestamp,
    failures: Share,
    duplicates: Share,
}

/// A part of something, within a window.
#[derive(Debug, Default)]
struct Share {
    part: Window,
    all: Window,
}

/// The findings of one look.
struct Look<'r> {
    rules: &'r AlertRules,
    now: Timestamp,
    wrong: Vec<Condition>,
}

impl Watcher {
    pub fn look(&mut self, rules: &AlertRules, sample: &Sample, now: Timestamp) -> Looked {
        let mut look = Look { rules, now, wrong: Vec::new() };
        let mut unknown = Vec::new();
        match &sample.destinations {
            Some(destinations) => {
                self.destinations.retain(|name, _| destinations.iter().any(|d| d.name == *name));
                for destination in destinations {
                    let past = self.destinations.entry(destination.name.clone());
                    let past = past.or_insert_with(|| match self.begun {
                        // It got its first event since the last look: all that there is of it is new.
                        true => DestinationPast::default(),
                        false => DestinationPast::begin(destination),
                    });
                    look.destination(destination, past);
                }
                self.begun = true;
            }
            None => {
                unknown.extend([Rule::BacklogAge, Rule::BacklogGrowth, Rule::DeadLetters, Rule::LaneStuck])
            }
        }
        match (&sample.closed, sample.disk) {
            (None, None) => unknown.push(Rule::Disk),
            (closed, disk) => look.disk(closed.as_deref(), disk),
        }
        if let Some(limit) = rules.breaker_open {
            for breaker in &sample.breakers {
                let open = now.since(breaker.since);
                if open >= limit {
                    let text =
                        format!("deliveries have been held back for {}: the app is sick", spoken(open));
                    look.wrong(Rule::BreakerOpen, &breaker.destination, text);
                }
            }
        }
        self.routes.retain(|name, _| sample.routes.iter().any(|r| r.name == *name));
        for route in &sample.routes {
            let past = self.routes.entry(route.name.clone()).or_insert_with(|| RoutePast::begin(now));
            look.route(route, past);
        }
        look.expiring(Rule::CertificateExpiry, rules.certificate_expiry, &sample.certificates);
        look.expiring(Rule::SecretExpiry, rules.secret_expiry, &sample.secrets);
        look.fetched(Rule::StaleKeys, rules.stale_keys, &sample.keys);
        look.fetched(Rule::StaleRanges, rules.stale_ranges, &sample.ranges);
        Looked { wrong: look.wrong, unknown }
    }
}

impl DestinationPast {
    /// What was there before the process is nobody's growth.
    fn begin(now: &DestinationSample) -> Self {
        Self { backlog: now.backlog, dead: now.dead, growth: Window::default(), died: Window::default() }
    }
}

impl RoutePast {
    /// Counts begin with the process, so all that is there was seen by it.
    fn begin(now: Timestamp) -> Self {
        Self {
            counts: RouteCounts::default(),
            arrived: now,
            failures: Share::default(),
            duplicates: Share::default(),
        }
    }
}

impl Share {
    /// How many of how many within the surge's window, if they are a surge.
    fn surge(&mut self, part: u64, all: u64, surge: &Surge, now: Timestamp) -> Option<(u64, u64)> {
        let add = |window: &mut Window, n: u64| {
            let sum = window.add(i64::try_from(n).unwrap_or(i64::MAX), surge.within, now);
            u64::try_from(sum).unwrap_or(0)
        };
        let (part, all) = (add(&mut self.part, part), add(&mut self.all, all));
        let large = part.saturating_mul(100) >= all.saturating_mul(u64::from(surge.percent));
        (part >= surge.at_least && large).then_some((part, all))
    }
}

impl Look<'_> {
    fn wrong(&mut self, rule: Rule, subject: &Arc<str>, text: String) {
        self.wrong.push(Condition { rule, subject: subject.clone(), text });
    }

    fn destination(&mut self, of: &DestinationSample, past: &mut DestinationPast) {
        let now = self.now;
        if let (Some(limit), Some(oldest)) = (self.rules.backlog_age, of.oldest)
            && now.since(oldest) >= limit
        {
            let text = format!(
                "the oldest of {} deliveries has waited for {} (limit {})",
                of.backlog,
                spoken(now.since(oldest)),
                spoken(limit)
            );
            self.wrong(Rule::BacklogAge, &of.name, text);
        }
        if let Some(growth) = self.rules.backlog_growth {
            let more = past.growth.add(difference(of.backlog, past.backlog), growth.within, now);
            if u64::try_from(more).is_ok_and(|more| more >= growth.more) {
                let text = format!("{more} more within {}: {} wait", spoken(growth.within), of.backlog);
                self.wrong(Rule::BacklogGrowth, &of.name, text);
            }
        }
        if let (Some(limit), Some((keys, since))) = (self.rules.lane_stuck, of.stuck)
            && now.since(since) >= limit
        {
            let text = format!(
                "{keys} keys stand still, the longest for {}: `tidegate lanes` names them",
                spoken(now.since(since))
            );
            self.wrong(Rule::LaneStuck, &of.name, text);
        }
        if let Some(limit) = self.rules.dead_letters {
            // Fewer than before means that some were replayed or purged; those that died meanwhile are not seen.
            let died = past.died.add(difference(of.dead, past.dead).max(0), limit.within, now);
            if u64::try_from(died).is_ok_and(|died| died >= limit.more) {
                let text = format!("{died} new within {}: {} in all", spoken(limit.within), of.dead);
                self.wrong(Rule::DeadLetters, &of.name, text);
            }
        }
        (past.backlog, past.dead) = (of.backlog, of.dead);
    }

    fn disk(&mut self, closed: Option<&str>, disk: Option<Disk>) {
        let Some(percent) = self.rules.disk else { return };
        let subject: Arc<str> = "buffer".into();
        if let Some(why) = closed {
            return self.wrong(Rule::Disk, &subject, format!("the buffer takes no events: {why}"));
        }
        let Some(Disk { used, max, free, min_free }) = disk else { return };
        if share(used, max) >= u64::from(percent) {
            let text =
                format!("{}% of buffer.max_size are used ({} of {})", share(used, max), mib(used), mib(max));
            return self.wrong(Rule::Disk, &subject, text);
        }
        // What the volume would have if the buffer held nothing, less what must stay free, is there to be used.
        let usable = free.saturating_add(used).saturating_sub(min_free);
        if usable < max && share(used, usable) >= u64::from(percent) {
            let text =
                format!("{} are free on its volume; at {} events are refused", mib(free), mib(min_free));
            self.wrong(Rule::Disk, &subject, text);
        }
    }

    fn route(&mut self, of: &RouteSample, past: &mut RoutePast) {
        let (now, counts) = (self.now, of.counts);
        let new = |all: u64, before: u64| all.saturating_sub(before);
        let requests = new(counts.requests, past.counts.requests);
        if let Some(surge) = self.rules.verification_failures {
            let failed = new(counts.unverified, past.counts.unverified);
            if let Some((failed, all)) = past.failures.surge(failed, requests, &surge, now) {
                let text = format!(
                    "{failed} of {all} requests failed verification within {}: a wrong secret, or somebody tries",
                    spoken(surge.within)
                );
                self.wrong(Rule::VerificationFailures, &of.name, text);
            }
        }
        if let Some(surge) = self.rules.duplicates {
            let repeated = new(counts.duplicates, past.counts.duplicates);
            if let Some((repeated, all)) = past.duplicates.surge(repeated, requests, &surge, now) {
                let text = format!(
                    "{repeated} of {all} requests were duplicates within {}: does the sender see our answers?",
                    spoken(surge.within)
                );
                self.wrong(Rule::Duplicates, &of.name, text);
            }
        }
        if counts.arrived > past.counts.arrived {
            past.arrived = now;
        }
        past.counts = counts;
        if let Some(every) = of.expect_every
            && now.since(past.arrived) > every
        {
            let silent = spoken(now.since(past.arrived));
            let text = format!("nothing has arrived for {silent}, expected every {}", spoken(every));
            self.wrong(Rule::Silence, &of.name, text);
        }
    }

    fn expiring(&mut self, rule: Rule, before: Option<std::time::Duration>, all: &[Expiring]) {
        let Some(before) = before else { return };
        for Expiring { name, ends } in all {
            if self.now >= *ends {
                self.wrong(rule, name, format!("ended at {ends}"));
            } else if ends.since(self.now) <= before {
                self.wrong(rule, name, format!("ends in {}, at {ends}", spoken(ends.since(self.now))));
            }
        }
    }

    fn fetched(&mut self, rule: Rule, limit: Option<std::time::Duration>, all: &[Fetched]) {
        let Some(limit) = limit else { return };
        for fetched in all {
            if let Some(why) = &fetched.refused {
                self.wrong(rule, &fetched.url, format!("what was published is not believed: {why}"));
                continue;
            }
            let why = fetched.error.as_deref();
            match fetched.at {
                Some(at) if self.now.since(at) >= limit => {
                    let why = why.unwrap_or("no fetch since");
                    let text = format!("as of {} ago: {why}", spoken(self.now.since(at)));
                    self.wrong(rule, &fetched.url, text);
                }
                None if why.is_some() => {
                    let text = format!("never fetched: {}", why.unwrap_or_default());
                    self.wrong(rule, &fetched.url, text);
                }
                _ => {}
            }
        }
    }
}

fn difference(now: u64, before: u64) -> i64 {
    i64::try_from(i128::from(now) - i128::from(before)).unwrap_or(i64::MAX)
}

/// Percent, rounded down; of nothing: 100.
fn share(part: u64, all: u64) -> u64 {
    u64::try_from(u128::from(part) * 100 / u128::from(all.max(1))).unwrap_or(u64::MAX)
}

fn mib(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}
