//! How long something has been wrong, and when people are told. Pure: time comes in with each call.
//!
//! The first change waits `group` for others, notices are at least `pause` apart, and each says all that is wrong. What
//! comes and goes between two notices is only logged. Something is over when it was not seen for `group`, so that what
//! flickers is one alert.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::notice::{Alert, Notice, harmless};
use super::rules::{Condition, Looked, Rule};
use super::shown;
use crate::clock::Timestamp;
use crate::config::AlertSettings;

/// Alerts at one time. Their subjects come from the config, so this is only a net.
const MAX_ACTIVE: usize = 2000;

/// See the module.
#[derive(Debug, Default)]
pub struct Book {
    active: BTreeMap<(Rule, Arc<str>), Active>,
    /// Over, and not told yet; never a key of `active` as well.
    over: BTreeMap<(Rule, Arc<str>), (Active, Timestamp)>,
    /// Since when there is something to tell.
    news: Option<Timestamp>,
    /// When people were last told anything.
    told: Option<Timestamp>,
}

#[derive(Clone, Debug)]
struct Active {
    text: String,
    since: Timestamp,
    /// When it was last so.
    seen: Timestamp,
    /// When it was last told.
    told: Option<Timestamp>,
}

impl Book {
    /// Enters what a look gave, and returns the notice that is due, if one is: the caller tells it.
    pub fn enter(&mut self, looked: Looked, settings: &AlertSettings, now: Timestamp) -> Option<Notice> {
        for condition in looked.wrong {
            self.wrong(condition, now);
        }
        let unknown = |rule: Rule| looked.unknown.contains(&rule);
        let gone = |active: &Active| active.seen < now && now.since(active.seen) >= settings.group;
        let over: Vec<_> = self
            .active
            .iter()
            .filter(|((rule, _), active)| !unknown(*rule) && gone(active))
            .map(|(key, _)| key.clone())
            .collect();
        for key in over {
            let Some(active) = self.active.remove(&key) else { continue };
            tracing::info!(rule = key.0.word(), subject = &*key.1, since = %active.since, "an alert is over");
            if active.told.is_some() {
                self.over.insert(key, (active, now));
            }
        }
        self.due(settings, now).then(|| self.notice(settings, now))
    }

    fn wrong(&mut self, Condition { rule, subject, text }: Condition, now: Timestamp) {
        let (key, text) = ((rule, subject), harmless(&text));
        if let Some(active) = self.active.get_mut(&key) {
            active.text = text;
            active.seen = now;
            return;
        }
        if self.active.len() >= MAX_ACTIVE {
            return;
        }
        tracing::warn!(rule = rule.word(), subject = &*key.1, "alert: {text}");
        // Back before anybody was told that it was over: to them it never was.
        let (since, told) = match self.over.remove(&key) {
            Some((before, _)) => (before.since, before.told),
            None => (now, None),
        };
        self.active.insert(key, Active { text, since, seen: now, told });
    }

    /// Whether people are to be told now.
    fn due(&mut self, settings: &AlertSettings, now: Timestamp) -> bool {
        let repeats = |at: Timestamp| settings.repeat.is_some_and(|repeat| now.since(at) >= repeat);
        let again = self.active.values().any(|active| active.told.is_some_and(repeats));
        if self.over.is_empty() && self.active.values().all(|active| active.told.is_some()) {
            self.news = None;
        } else if self.news.is_none_or(|since| since > now) {
            self.news = Some(now);
        }
        let grouped = self.news.is_some_and(|since| now.since(since) >= settings.group);
        let paused = self.told.is_some_and(|told| told <= now && now.since(told) < settings.pause);
        (grouped || again) && !paused
    }

    fn notice(&mut self, settings: &AlertSettings, now: Timestamp) -> Notice {
        let mut firing: Vec<_> = self.active.iter().collect();
        // What is new first, then what is oldest.
        firing.sort_by_key(|(_, active)| (active.told.is_some(), active.since));
        let firing = firing.into_iter().map(|(key, active)| alert(key, active, None)).collect();
        let resolved = self.over.iter().map(|(key, (active, until))| alert(key, active, Some(*until)));
        let notice = Notice::new(settings, firing, resolved.collect(), now);
        self.active.values_mut().for_each(|active| active.told = Some(now));
        self.over.clear();
        self.news = None;
        self.told = Some(now);
        notice
    }

    /// What is wrong now, oldest first.
    pub fn firing(&self) -> Vec<Alert> {
        let mut firing: Vec<_> = self.active.iter().collect();
        firing.sort_by_key(|(_, active)| active.since);
        firing.into_iter().map(|(key, active)| alert(key, active, None)).collect()
    }

    /// How many there are of each rule.
    pub fn by_rule(&self) -> impl Iterator<Item = (&'static str, usize)> {
        let count = |rule: Rule| self.active.keys().filter(|(of, _)| *of == rule).count();
        Rule::ALL.iter().map(move |rule| (rule.word(), count(*rule)))
    }
}

fn alert((rule, subject): &(Rule, Arc<str>), active: &Active, until: Option<Timestamp>) -> Alert {
    Alert {
        rule: *rule,
        severity: rule.severity(),
        subject: harmless(subject),
        text: active.text.clone(),
        since: active.since.to_string(),
        until: shown(until),
    }
}
