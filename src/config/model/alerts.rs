//! Alerts, checked.

use std::path::PathBuf;
use std::time::Duration;

use http::Uri;

use crate::secret::Secret;

/// What is watched, and who is told.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertSettings {
    /// What notices call this gateway.
    pub name: String,
    pub to: Vec<AlertTarget>,
    /// How often the rules are looked at.
    pub every: Duration,
    /// How long the first change waits for others.
    pub group: Duration,
    /// The least time between two notices.
    pub pause: Duration,
    /// What still holds after this time is told again.
    pub repeat: Option<Duration>,
    pub rules: AlertRules,
}

/// The limits of each rule; `None`: off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlertRules {
    pub backlog_age: Option<Duration>,
    pub backlog_growth: Option<Growth>,
    pub dead_letters: Option<Growth>,
    pub lane_stuck: Option<Duration>,
    pub breaker_open: Option<Duration>,
    pub verification_failures: Option<Surge>,
    pub duplicates: Option<Surge>,
    /// Percent, 1 to 100.
    pub disk: Option<u8>,
    pub certificate_expiry: Option<Duration>,
    pub secret_expiry: Option<Duration>,
    pub stale_keys: Option<Duration>,
    pub stale_ranges: Option<Duration>,
}

/// So many more within a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    pub more: u64,
    pub within: Duration,
}

/// So many within a time, and so large a part of all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Surge {
    pub at_least: u64,
    /// 1 to 100.
    pub percent: u8,
    pub within: Duration,
}

/// Who is told.
#[derive(Clone, Debug, PartialEq)]
pub struct AlertTarget {
    /// Unique.
    pub name: String,
    pub how: TellBy,
}

#[derive(Clone, Debug, PartialEq)]
pub enum TellBy {
    /// `http` or `https` with a host. `ca`: trusted instead of the public roots.
    Webhook {
        url: Uri,
        secret: Option<Secret>,
        ca: Option<PathBuf>,
    },
    /// The URL is a secret: it is never shown. `http` or `https` with a host.
    Slack(Secret),
    Email(Mail),
    /// The program and its arguments; not empty.
    Command(Vec<String>),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Mail {
    pub host: String,
    pub port: u16,
    pub security: MailSecurity,
    pub credentials: Option<(String, Secret)>,
    /// Valid mailboxes, as written.
    pub from: String,
    pub to: Vec<String>,
    /// Trusted as well as the public roots.
    pub ca: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailSecurity {
    StartTls,
    Tls,
    None,
}
