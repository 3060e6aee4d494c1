//! `tidegate check --replay`: captured traffic against a config, and what would change.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use super::captured::{Line, Outcome, each_line};
use super::failure::Failure;
use super::output::harmless;
use crate::clock::{Clock, Timestamp};
use crate::config::{Clients, Config, Enforce, Mode};
use crate::message::Request;
use crate::reason::Reason;
use crate::route::Match;
use crate::tenants::{Held, Needs};

/// What a config does with a request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// `None`: it can't be told here; `reason` says why not.
    pub accepted: Option<bool>,
    pub route: Option<String>,
    pub mode: Option<String>,
    /// Why it is refused; or, where a route only observes, would be.
    pub reason: Option<String>,
    /// What proved the sender.
    pub by: Option<String>,
    pub event_key: Option<String>,
}

/// One request whose decision changes.
#[derive(Debug, Serialize)]
pub struct Changed {
    pub line: usize,
    pub request: String,
    /// What differs: `accepted`, `route`, `mode`, `reason`, `event_key`.
    pub what: Vec<&'static str>,
    pub before: Decision,
    pub after: Decision,
}

/// All of it.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub requests: u64,
    /// By the new config.
    pub accepted: u64,
    pub refused: u64,
    /// Can't be told without the network, the time of their capture, or the clients' URLs that a gateway has issued.
    pub untold: u64,
    pub unchanged: u64,
    /// Of these nothing is known from before: neither `--against` nor an `outcome` in the line.
    pub incomparable: u64,
    pub newly_refused: u64,
    pub newly_accepted: u64,
    /// Refused by the new config, by reason.
    pub reasons: BTreeMap<String, u64>,
    pub changed: Vec<Changed>,
}

/// Changes that are listed at most; all are counted.
const MAX_LISTED: usize = 1000;

/// Runs the requests of a file against `new`, and against `old` where there is one, else compares with what the lines
/// themselves say.
pub fn replay(
    path: &Path,
    now: Option<Timestamp>,
    new: &Config,
    old: Option<&Config>,
) -> Result<Report, Failure> {
    let mut report = Report::default();
    each_line(path, now, Clock::System.now(), |line| {
        let after = decide(new, &line);
        let before = match old {
            Some(old) => Some(decide(old, &line)),
            None => line.captured.outcome.as_ref().map(|outcome| told(outcome, &after)),
        };
        report.count(&line, before, after);
        Ok(())
    })?;
    Ok(report)
}

/// What a line says about itself; where it says nothing, nothing has changed.
fn told(outcome: &Outcome, after: &Decision) -> Decision {
    let accepted = outcome.accepted.or(outcome.reason.as_ref().map(|_| false));
    Decision {
        accepted: accepted.or(after.accepted),
        route: outcome.route.clone().or_else(|| after.route.clone()),
        mode: outcome.mode.clone().or_else(|| after.mode.clone()),
        reason: match accepted {
            Some(true) => None,
            _ => outcome.reason.clone().or_else(|| after.reason.clone()),
        },
        by: after.by.clone(),
        event_key: outcome.event_key.clone().or_else(|| after.event_key.clone()),
    }
}

impl Report {
    fn count(&mut self, line: &Line, before: Option<Decision>, after: Decision) {
        self.requests += 1;
        match after.accepted {
            Some(true) => self.accepted += 1,
            Some(false) => {
                self.refused += 1;
                *self.reasons.entry(after.reason.clone().unwrap_or_default()).or_default() += 1;
            }
            None => self.untold += 1,
        }
        let Some(before) = before else {
            self.incomparable += 1;
            return;
        };
        match (before.accepted, after.accepted) {
            (Some(true), Some(false)) => self.newly_refused += 1,
            (Some(false), Some(true)) => self.newly_accepted += 1,
            _ => {}
        }
        let what = differences(&before, &after);
        if what.is_empty() {
            self.unchanged += 1;
        } else if self.changed.len() < MAX_LISTED {
            let head = &line.request.head;
            let request = format!("{} {}{}", head.method, head.authority, head.path());
            self.changed.push(Changed { line: line.number, request, what, before, after });
        }
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for Changed { line, request, before, after, .. } in &self.changed {
            // Writing to a `String` does not fail.
            let _ = writeln!(text, "line {line}: {}", harmless(request));
            let _ = writeln!(text, "  before  {}", harmless(&before.text()));
            let _ = writeln!(text, "  after   {}", harmless(&after.text()));
        }
        if !self.changed.is_empty() {
            text.push('\n');
        }
        let mut add = |n: u64, what: &str| {
            if n > 0 {
                let _ = writeln!(text, "{n:>7}  {what}");
            }
        };
        add(self.requests, "requests");
        add(self.accepted, "would be accepted");
        add(self.refused, "would be refused");
        for (reason, n) in &self.reasons {
            add(*n, &format!("  {reason}"));
        }
        add(
            self.untold,
            "can't be told here (a key that is fetched, a time of capture that is not known, or a client's URL)",
        );
        add(self.unchanged, "as before");
        add(self.newly_accepted, "were refused and would be accepted");
        add(self.newly_refused, "WERE ACCEPTED AND WOULD BE REFUSED");
        add(self.incomparable, "can't be compared: give --against OLD.yaml, or lines with an `outcome`");
        text
    }
}

impl Decision {
    fn text(&self) -> String {
        let mut text = match (self.accepted, &self.reason) {
            (Some(true), None) => "accepted".to_owned(),
            (Some(true), Some(reason)) => format!("let through (verification says {reason})"),
            (Some(false), reason) => format!("refused ({})", reason.as_deref().unwrap_or("?")),
            (None, reason) => format!("can't be told ({})", reason.as_deref().unwrap_or("?")),
        };
        for (word, value) in
            [("route", &self.route), ("mode", &self.mode), ("by", &self.by), ("key", &self.event_key)]
        {
            if let Some(value) = value {
                text += &format!(", {word} {value}");
            }
        }
        text
    }
}

fn differences(before: &Decision, after: &Decision) -> Vec<&'static str> {
    let mut what = Vec::new();
    // What can't be told has not changed.
    if before.accepted.is_none() || after.accepted.is_none() {
        return what;
    }
    let mut differs = |word, differs: bool| what.extend(differs.then_some(word));
    differs("accepted", before.accepted != after.accepted);
    differs("route", before.route != after.route);
    differs("mode", before.mode != after.mode);
    differs("reason", before.accepted == after.accepted && before.reason != after.reason);
    differs("event_key", before.accepted == after.accepted && before.event_key != after.event_key);
    what
}

/// In the place of a reason: what decides is only known where the clients' URLs are.
const CLIENTS_URL: &str = "client_url";

/// Whether another secret could have had another outcome.
fn by_secret(reason: Reason) -> bool {
    matches!(reason, Reason::SignatureInvalid | Reason::TokenInvalid | Reason::CredentialsInvalid)
}

/// What `config` does with a request, as far as it can be told offline.
fn decide(config: &Config, line: &Line) -> Decision {
    let head = &line.request.head;
    let refused = |reason: Reason| Decision {
        accepted: Some(false),
        reason: Some(reason.code().to_owned()),
        ..Decision::default()
    };
    let (index, params) = match config.table.find(&head.host(), head.path(), &head.method) {
        Match::Route { index, params } => (index, params),
        Match::MethodNotAllowed { .. } => return refused(Reason::MethodNotAllowed),
        Match::NotFound => return refused(Reason::NoRoute),
    };
    let Some(route) = config.routes.get(index) else { return refused(Reason::NoRoute) };
    let at_route = |decision: Decision| Decision {
        route: Some(route.name.to_string()),
        mode: Some(route.mode.word().to_owned()),
        ..decision
    };
    if route.allow.as_ref().is_some_and(|allow| !allow.contains(head.client)) {
        return at_route(refused(Reason::AddressNotAllowed));
    }
    if line.request.body.len() as u64 > route.max_body {
        return at_route(refused(Reason::BodyTooLarge));
    }
    if matches!(route.mode, Mode::Pass(_)) {
        return at_route(Decision { accepted: Some(true), ..Decision::default() });
    }
    let request = Request { params, ..line.request.clone() };
    let url = route.public_url.as_deref();
    let connection = route.verify.connection(&request.head.headers).err();
    let verified = match Held::of(route.tenants.as_ref().map(|tenants| tenants.load(&request.params, None))) {
        Ok(held) => held.observe(&route.verify, request, url, line.at, connection),
        Err(refusal) => Held::Nobody.observe(&route.verify, request, url, line.at, Some(refusal)),
    };
    let reason = verified.would_refuse().map(|refusal| refusal.reason);
    // Which URLs are clients' and what their secrets are is in the buffer of a gateway that runs.
    let own_url = route.clients == Clients::Endpoints;
    let own_secret = route.tenants.as_ref().is_some_and(|tenants| tenants.needs() == Needs::Secret);
    let untold = own_secret && reason.is_some_and(by_secret);
    let accepted = match (reason, route.enforce) {
        _ if untold => None,
        (None, _) | (Some(_), Enforce::Observe) if own_url => None,
        (None, _) | (Some(_), Enforce::Observe) => Some(true),
        // Its key would be fetched by a gateway that runs.
        (Some(Reason::KeyUnavailable), _) => None,
        (Some(Reason::TimestampOutOfTolerance | Reason::TokenExpired), _) if !line.time_known => None,
        (Some(_), Enforce::On) => Some(false),
    };
    let key = route.idempotency.as_ref().filter(|_| accepted == Some(true));
    at_route(Decision {
        accepted,
        reason: match reason {
            _ if accepted.is_none() && (own_url || untold) => Some(CLIENTS_URL.to_owned()),
            reason => reason.map(|reason| reason.code().to_owned()),
        },
        by: reason.is_none().then(|| verified.by().to_string()),
        event_key: key.map(|rule| rule.key_of(verified.get()).into_text()),
        ..Decision::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_is_compared() {
        let after = Decision {
            accepted: Some(true),
            route: Some("a".into()),
            mode: Some("buffer".into()),
            event_key: Some("k".into()),
            by: Some("stripe".into()),
            reason: None,
        };
        let before = |outcome: Outcome| differences(&told(&outcome, &after), &after);
        assert!(before(Outcome::default()).is_empty());
        assert_eq!(before(Outcome { route: Some("b".into()), ..Outcome::default() }), ["route"]);
        assert_eq!(before(Outcome { accepted: Some(false), ..Outcome::default() }), ["accepted"]);
        let refused = Outcome { reason: Some("signature_invalid".into()), ..Outcome::default() };
        assert_eq!(before(refused), ["accepted"]);
        let untold = Decision { accepted: None, reason: Some("key_unavailable".into()), ..after.clone() };
        assert!(differences(&after, &untold).is_empty());
    }
}
