//! Alerts: rules, who is told, and when secrets end.

use std::time::Duration;

use lettre::message::Mailbox;

use super::Checker;
use super::names::{is_name, whole_url};
use crate::config::is_loopback;
use crate::config::model::{
    AlertRules, AlertSettings, AlertTarget, Growth, Mail, MailSecurity, Surge, TellBy,
};
use crate::config::place::Place;
use crate::config::raw::{self, OrOff};
use crate::config::units::Time;
use crate::secret::Secret;
use crate::verify::Resolver;

/// Longer windows would remember too little of when something was.
const LONGEST_WINDOW: Duration = Duration::from_secs(7 * 24 * 3600);

const GROWTH: Growth = Growth { more: 10_000, within: Duration::from_secs(600) };
const DEAD: Growth = Growth { more: 1, within: Duration::from_secs(3600) };
const FAILURES: Surge = Surge { at_least: 20, percent: 10, within: Duration::from_secs(300) };
const DUPLICATES: Surge = Surge { at_least: 100, percent: 50, within: Duration::from_secs(600) };

impl Checker<'_, '_> {
    pub(super) fn alerts(&mut self, raw: &raw::Alerts) -> AlertSettings {
        let place = Place::root().key("alerts");
        self.not_zero(&place, "every", raw.every);
        let mut time = |key: &str, value: &OrOff<Time>| match value {
            OrOff::Off(_) => None,
            OrOff::On(time) => {
                self.not_zero(&place, key, *time);
                Some(time.0)
            }
        };
        let repeat = time("repeat", &raw.repeat);
        let backlog_age = time("backlog_age", &raw.backlog_age);
        let lane_stuck = time("lane_stuck", &raw.lane_stuck);
        let breaker_open = time("breaker_open", &raw.breaker_open);
        let certificate_expiry = time("certificate_expiry", &raw.certificate_expiry);
        let secret_expiry = time("secret_expiry", &raw.secret_expiry);
        let stale_keys = time("stale_keys", &raw.stale_keys);
        let stale_ranges = time("stale_ranges", &raw.stale_ranges);
        let rules = AlertRules {
            backlog_age,
            backlog_growth: self.growth(&place.key("backlog_growth"), &raw.backlog_growth, GROWTH, raw.every),
            dead_letters: self.growth(&place.key("dead_letters"), &raw.dead_letters, DEAD, raw.every),
            lane_stuck,
            breaker_open,
            verification_failures: self.surge(
                &place.key("verification_failures"),
                &raw.verification_failures,
                FAILURES,
                raw.every,
            ),
            duplicates: self.surge(&place.key("duplicates"), &raw.duplicates, DUPLICATES, raw.every),
            disk: match raw.disk {
                OrOff::Off(_) => None,
                OrOff::On(percent) => Some(percent.0),
            },
            certificate_expiry,
            secret_expiry,
            stale_keys,
            stale_ranges,
        };
        AlertSettings {
            name: raw.name.clone().unwrap_or_else(|| self.references.outside.host_name()),
            to: self.alert_targets(&raw.to, &place.key("to")),
            every: raw.every.0,
            group: raw.group.0,
            pause: raw.pause.0,
            repeat,
            rules,
        }
    }

    fn growth(
        &mut self,
        place: &Place,
        raw: &OrOff<raw::Growth>,
        usual: Growth,
        every: Time,
    ) -> Option<Growth> {
        let OrOff::On(raw) = raw else { return None };
        let within = self.window(place, raw.within, usual.within, every);
        Some(Growth { more: raw.more.unwrap_or(usual.more), within })
    }

    fn surge(&mut self, place: &Place, raw: &OrOff<raw::Surge>, usual: Surge, every: Time) -> Option<Surge> {
        let OrOff::On(raw) = raw else { return None };
        let within = self.window(place, raw.within, usual.within, every);
        Some(Surge {
            at_least: raw.at_least.unwrap_or(usual.at_least),
            percent: raw.percent.unwrap_or(usual.percent),
            within,
        })
    }

    fn window(&mut self, place: &Place, within: Option<Time>, usual: Duration, every: Time) -> Duration {
        let Some(within) = within else { return usual };
        let place = place.key("within");
        if within.0 > LONGEST_WINDOW {
            self.error(&place, format!("{within} is too long a window"), "write 7d or less");
        } else if within.0 < every.0 {
            let message = format!("{within} is less than `alerts.every` ({every})");
            self.error(&place, message, "a rule can't see what comes and goes between two looks");
        }
        within.0
    }

    fn alert_targets(&mut self, raw: &[raw::AlertTarget], place: &Place) -> Vec<AlertTarget> {
        let mut targets: Vec<AlertTarget> = Vec::new();
        for (i, target) in raw.iter().enumerate() {
            let place = place.index(i);
            let Some((usual, how)) = self.tell_by(target, &place) else { continue };
            self.warn_of_inline_secrets(&place);
            let name = target.name.clone().unwrap_or_else(|| usual.to_owned());
            if !is_name(&name) {
                let help = "a name has letters, digits, `.`, `_` and `-`, at most 64";
                self.error(&place.key("name"), format!("`{name}` is not a name"), help);
            }
            if targets.iter().any(|known| known.name == name) {
                let help = "give each a `name` of its own";
                self.error(&place, format!("two targets are named `{name}`"), help);
            }
            targets.push(AlertTarget { name, how });
        }
        targets
    }

    /// With the name that it has if none is given. `None` only with a problem reported.
    fn tell_by(&mut self, raw: &raw::AlertTarget, place: &Place) -> Option<(&'static str, TellBy)> {
        let raw::AlertTarget { name: _, webhook, slack, email, command } = raw;
        match (webhook, slack, email, command) {
            (Some(raw), None, None, None) => {
                let place = place.key("webhook");
                let url = self.alert_url(&raw.url, &place.key("url"));
                let secret = match &raw.secret {
                    None => None,
                    Some(secret) => Some(self.alert_secret(secret, &place.key("secret"))?),
                };
                let ca = raw.ca.as_ref().map(|ca| self.references.path(ca));
                Some(("webhook", TellBy::Webhook { url: url?, secret, ca }))
            }
            (None, Some(reference), None, None) => {
                let place = place.key("slack");
                let url = self.alert_secret(reference, &place)?;
                // What is no URL may be a token in the wrong place, so the text is not shown.
                let text = std::str::from_utf8(url.expose()).ok();
                if self.references.outside.secrets_are_needed() && text.and_then(whole_url).is_none() {
                    let help = "it must be the `https://…` address that Slack gave";
                    self.error(&place, format!("what stands behind `{reference}` is not a whole URL"), help);
                    return None;
                }
                Some(("slack", TellBy::Slack(url)))
            }
            (None, None, Some(raw), None) => {
                Some(("email", TellBy::Email(self.mail(raw, &place.key("email"))?)))
            }
            (None, None, None, Some(command)) => {
                if command.first().is_some_and(String::is_empty) {
                    self.error(&place.key("command"), "the program has no name", "name a program");
                    return None;
                }
                if let Some(Err(why)) = command.first().map(|name| self.references.outside.program(name)) {
                    let help =
                        "name one that the gateway's user may run: with its whole path, or from the PATH";
                    self.warning(&place.key("command").index(0), format!("it can't be started: {why}"), help);
                }
                Some(("command", TellBy::Command(command.clone())))
            }
            _ => {
                let help = "write one of `webhook`, `slack`, `email` and `command`, and an item for each";
                self.error(place, "a target is told in exactly one way", help);
                None
            }
        }
    }

    fn alert_url(&mut self, text: &str, place: &Place) -> Option<http::Uri> {
        let Some(url) = whole_url(text) else {
            let help = "write it whole, such as `https://alerts.example.com/hook`";
            self.error(place, format!("`{text}` is not a whole URL"), help);
            return None;
        };
        if url.scheme_str() == Some("http") && !url.host().is_some_and(is_loopback) {
            self.warning(place, "notices travel in plain text", "use `https://`");
        }
        Some(url)
    }

    fn alert_secret(&mut self, reference: &str, place: &Place) -> Option<Secret> {
        match self.references.secret(reference) {
            Ok(secret) => Some(secret),
            Err(message) => {
                self.error(place, message, crate::verify::REFERENCE_HELP);
                None
            }
        }
    }

    fn mail(&mut self, raw: &raw::AlertEmail, place: &Place) -> Option<Mail> {
        let before = self.report.problems.len();
        if raw.host.is_empty() || raw.host.contains([':', '/', '@', ' ']) {
            let message = format!("`{}` is not a host", raw.host);
            self.error(&place.key("host"), message, "write a name such as `mail.example.com`");
        }
        let mut mailbox = |text: &str, place: &Place| {
            if text.parse::<Mailbox>().is_err() {
                let help = "write `name@example.com` or `Name <name@example.com>`";
                self.error(place, format!("`{text}` is not a mail address"), help);
            }
        };
        mailbox(&raw.from, &place.key("from"));
        for (i, to) in raw.to.iter().enumerate() {
            mailbox(to, &place.key("to").index(i));
        }
        let (security, usual) = match raw.security {
            raw::MailSecurity::Starttls => (MailSecurity::StartTls, 587),
            raw::MailSecurity::Tls => (MailSecurity::Tls, 465),
            raw::MailSecurity::None => (MailSecurity::None, 25),
        };
        let credentials = match (&raw.username, &raw.password) {
            (None, None) => None,
            (Some(user), Some(password)) => {
                let password = self.alert_secret(password, &place.key("password"));
                if password.as_ref().is_some_and(|p| std::str::from_utf8(p.expose()).is_err()) {
                    self.error(
                        &place.key("password"),
                        "the password is not UTF-8 text",
                        "look at the file: is it another's?",
                    );
                }
                password.map(|password| (user.clone(), password))
            }
            (user, _) => {
                let missing = if user.is_some() { "password" } else { "username" };
                let help = "a mail server asks for both or for neither";
                self.error(place, format!("the key `{missing}` is missing"), help);
                None
            }
        };
        if credentials.is_some() && security == MailSecurity::None && !is_loopback(&raw.host) {
            let help = "use `security: starttls` or `tls`";
            self.error(&place.key("security"), "the password would travel in plain text", help);
        }
        (self.report.problems.len() == before).then(|| Mail {
            host: raw.host.clone(),
            port: raw.port.unwrap_or(usual),
            security,
            credentials,
            from: raw.from.clone(),
            to: raw.to.clone(),
            ca: raw.ca.as_ref().map(|ca| self.references.path(ca)),
        })
    }
}
