//! What people are told, and how it reads.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::rules::{Rule, Severity};
use crate::clock::Timestamp;
use crate::config::AlertSettings;

/// Alerts that one notice lists; of the others it says how many they are.
pub const MAX_LISTED: usize = 50;
/// Bytes of one alert's text.
const MAX_TEXT: usize = 500;

/// Trouble that is or was.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    pub rule: Rule,
    pub severity: Severity,
    /// A route, a destination, a file, …
    pub subject: String,
    pub text: String,
    /// RFC 3339.
    pub since: String,
    /// RFC 3339; `null`: it is still so.
    pub until: Option<String>,
}

/// What a notice is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Something is wrong (and something else may be right again).
    Firing,
    /// Nothing is wrong any more.
    Resolved,
    Test,
}

/// One message to people: all that is wrong now, and what is right again since the last one.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// Unique; stays the same when a target is tried again.
    pub id: String,
    pub at: Timestamp,
    pub gateway: String,
    pub kind: Kind,
    /// At most [`MAX_LISTED`], what is new first.
    pub firing: Vec<Alert>,
    /// At most [`MAX_LISTED`].
    pub resolved: Vec<Alert>,
    /// Firing in all.
    pub all_firing: usize,
    /// Resolved in all.
    pub all_resolved: usize,
}

impl Notice {
    /// Of these, which are all that there are.
    pub fn new(
        settings: &AlertSettings,
        mut firing: Vec<Alert>,
        mut resolved: Vec<Alert>,
        at: Timestamp,
    ) -> Self {
        let (all_firing, all_resolved) = (firing.len(), resolved.len());
        firing.truncate(MAX_LISTED);
        resolved.truncate(MAX_LISTED);
        let kind = if all_firing == 0 { Kind::Resolved } else { Kind::Firing };
        let (id, gateway) = (crate::buffer::EventId::new(at).to_string(), settings.name.clone());
        Self { id, at, gateway, kind, firing, resolved, all_firing, all_resolved }
    }

    pub fn test(settings: &AlertSettings, at: Timestamp) -> Self {
        Self { kind: Kind::Test, ..Self::new(settings, Vec::new(), Vec::new(), at) }
    }

    /// One line.
    pub fn title(&self) -> String {
        let about = match (self.kind, self.all_firing, self.all_resolved) {
            (Kind::Test, ..) => "this is a test of alerts".to_owned(),
            (_, 0, resolved) => format!("all is well again ({resolved} resolved)"),
            (_, 1, 0) => match self.firing.first() {
                Some(alert) => format!("{}: {}", alert.rule.word(), alert.subject),
                None => "1 alert".to_owned(),
            },
            (_, firing, 0) => format!("{firing} alerts"),
            (_, firing, resolved) => format!("{firing} firing, {resolved} resolved"),
        };
        format!("[{}] {about}", self.gateway)
    }

    /// Plain text: a line for each alert.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for alert in &self.firing {
            let severity = match alert.severity {
                Severity::Critical => "CRITICAL",
                Severity::Warning => "WARNING",
            };
            text += &format!(
                "{severity} {} {}: {} (since {})\n",
                alert.rule.word(),
                alert.subject,
                alert.text,
                alert.since
            );
        }
        text += &more(self.all_firing - self.firing.len(), "firing");
        for alert in &self.resolved {
            let until = alert.until.as_deref().unwrap_or("now");
            text +=
                &format!("RESOLVED {} {} ({} to {until})\n", alert.rule.word(), alert.subject, alert.since);
        }
        text += &more(self.all_resolved - self.resolved.len(), "resolved");
        if self.kind == Kind::Test {
            text += "Nothing is wrong: somebody ran `tidegate alerts test`.\n";
        }
        text
    }

    /// As webhooks and commands get it.
    pub fn json(&self) -> Value {
        let kind = match self.kind {
            Kind::Firing => "tidegate.alerts.firing",
            Kind::Resolved => "tidegate.alerts.resolved",
            Kind::Test => "tidegate.alerts.test",
        };
        json!({
            "type": kind,
            "timestamp": self.at.to_string(),
            "data": {
                "id": self.id,
                "gateway": self.gateway,
                "title": self.title(),
                "firing": self.firing,
                "firing_in_all": self.all_firing,
                "resolved": self.resolved,
                "resolved_in_all": self.all_resolved,
            },
        })
    }

    /// As Slack and those that speak like it get it. `&`, `<` and `>` mean something there.
    pub fn slack(&self) -> Value {
        let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
        json!({ "text": format!("*{}*\n{}", escaped(&self.title()), escaped(&self.text())) })
    }
}

fn more(count: usize, what: &str) -> String {
    if count == 0 { String::new() } else { format!("… and {count} more {what}\n") }
}

/// A text from outside in one line, of a bounded length.
pub fn harmless(text: &str) -> String {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text[..end].chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
