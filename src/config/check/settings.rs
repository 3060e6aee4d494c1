//! Sections that concern the whole process: limits, buffer, admin, log, secrets, shutdown.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::Checker;
use crate::config::model::{
    AccessLog, AdminAddress, AdminSettings, BufferSettings, Limits, LogFormat, LogSettings,
    QuarantineSettings, RangeSettings, SecretSettings, Shutdown,
};
use crate::config::place::Place;
use crate::config::raw;
use crate::config::units::{Size, Time};
use crate::seal::{Key, Keyring, Sealing};
use crate::verify::Resolver;

impl Checker<'_, '_> {
    pub(super) fn limits(&mut self, raw: &raw::Limits) -> Limits {
        let place = Place::root().key("limits");
        self.at_least(&place, "header_bytes", raw.header_bytes, Size(1 << 10));
        self.at_least(&place, "uri_bytes", raw.uri_bytes, Size(64));
        self.at_least(&place, "body_bytes", raw.body_bytes, Size(1));
        self.not_zero(&place, "header_timeout", raw.header_timeout);
        self.not_zero(&place, "body_timeout", raw.body_timeout);
        self.not_zero(&place, "handshake_timeout", raw.handshake_timeout);
        self.not_zero(&place, "idle_timeout", raw.idle_timeout);
        if raw.body_budget < raw.body_bytes {
            let message =
                format!("{} is less than one body of `body_bytes` ({})", raw.body_budget, raw.body_bytes);
            let help = "a body that is larger than the budget could never be taken: raise it";
            self.error(&place.key("body_budget"), message, help);
        }
        if raw.uri_bytes > raw.header_bytes {
            let message = format!("{} is more than `header_bytes` ({})", raw.uri_bytes, raw.header_bytes);
            self.error(&place.key("uri_bytes"), message, "the request line is part of the header block");
        }
        Limits {
            connections: raw.connections,
            requests_per_connection: raw.requests_per_connection,
            header_count: raw.header_count,
            header_bytes: self.bytes(raw.header_bytes),
            uri_bytes: self.bytes(raw.uri_bytes),
            body_bytes: raw.body_bytes.0,
            body_budget: raw.body_budget.0,
            header_timeout: raw.header_timeout.0,
            body_timeout: raw.body_timeout.0,
            handshake_timeout: raw.handshake_timeout.0,
            idle_timeout: raw.idle_timeout.0,
            key_wait: raw.key_wait.0,
            h2_streams: raw.h2_streams,
        }
    }

    pub(super) fn buffer(&mut self, raw: &raw::Buffer) -> BufferSettings {
        let place = Place::root().key("buffer");
        if raw.path.is_empty() {
            self.error(&place.key("path"), "the path is empty", "name a folder, such as `./data`");
        }
        self.at_least(&place, "max_size", raw.max_size, Size(64 << 20));
        self.at_least(&place, "memtable", raw.memtable, Size(1 << 20));
        self.not_zero(&place, "stall_after", raw.stall_after);
        if raw.memtable.0 > raw.max_size.0 / 2 {
            let message = format!("{} is more than half of `max_size` ({})", raw.memtable, raw.max_size);
            self.error(&place.key("memtable"), message, "lower it, or raise `max_size`");
        }
        let settings = BufferSettings {
            path: PathBuf::from(&raw.path),
            max_size: raw.max_size.0,
            min_free: raw.min_free.0,
            keep_delivered: raw.keep_delivered.0,
            keep_dead: raw.keep_dead.0,
            keep_delivered_bytes: raw.keep_delivered_bytes.0,
            keep_of_routes: Vec::new(),
            memtable: raw.memtable.0,
            stall_after: raw.stall_after.0,
            encryption: raw
                .encryption
                .as_ref()
                .map_or_else(Keyring::none, |raw| self.encryption(&place, raw)),
        };
        if settings.min_free < settings.needs_free() {
            let needs = Size(settings.needs_free());
            let message = format!(
                "{} is less than the {needs} that the buffer's engine may still need when new events are refused",
                raw.min_free
            );
            let help = format!(
                "write `min_free: {needs}` or more: on a volume that is altogether full deliveries wait, too"
            );
            self.warning(&place.key("min_free"), message, &help);
        }
        settings
    }

    fn encryption(&mut self, buffer: &Place, raw: &raw::Encryption) -> Keyring {
        let place = buffer.key("encryption").key("keys");
        if raw.keys.is_empty() {
            self.error(&place, "there is no key", "write `keys: [env:BUFFER_KEY]`");
        }
        let mut keys: Vec<Key> = Vec::with_capacity(raw.keys.len());
        for (at, reference) in raw.keys.iter().enumerate() {
            let place = place.index(at);
            let secret = match self.references.secret(reference) {
                Ok(secret) => secret,
                Err(message) => {
                    self.error(&place, message, crate::verify::REFERENCE_HELP);
                    continue;
                }
            };
            match Key::parse(&secret) {
                // Without the secrets at hand all are the same.
                Ok(key) if keys.iter().any(|known| known.id() == key.id()) => {
                    if self.references.outside.secrets_are_needed() {
                        let message = "this is the same key as one before it";
                        self.error(&place, message, "list each key once, the newest first");
                    }
                }
                Ok(key) => keys.push(key),
                Err(problem) => {
                    let help =
                        "a key is 32 random bytes in hex or base64, as `openssl rand -base64 32` prints them";
                    self.error(&place, format!("this is no key: {problem}"), help);
                }
            }
        }
        self.warn_of_inline_secrets(&place);
        Keyring::new(keys, if raw.seal { Sealing::On } else { Sealing::Off })
    }

    pub(super) fn quarantine(
        &mut self,
        raw: &raw::Quarantine,
        buffer: &BufferSettings,
    ) -> QuarantineSettings {
        let place = Place::root().key("quarantine");
        self.at_least(&place, "max_size", raw.max_size, Size(1 << 20));
        self.not_zero(&place, "keep", raw.keep);
        if raw.max_size.0 > buffer.max_size / 4 {
            let message = format!(
                "{} is more than a quarter of `buffer.max_size` ({})",
                raw.max_size,
                Size(buffer.max_size)
            );
            let help = "the quarantine is kept within the buffer's limits: lower it, or raise the buffer's";
            self.error(&place.key("max_size"), message, help);
        }
        QuarantineSettings {
            max_events: usize::try_from(raw.max_events).unwrap_or(usize::MAX),
            max_size: raw.max_size.0,
            keep: raw.keep.0,
            rate: raw.rate.count,
            rate_per: raw.rate.per,
        }
    }

    pub(super) fn admin(&mut self, raw: &raw::Admin) -> Option<AdminSettings> {
        let place = Place::root().key("admin");
        let token = raw.token.as_ref().and_then(|reference| match self.references.secret(reference) {
            Ok(secret) => Some(secret),
            Err(message) => {
                self.error(&place.key("token"), message, crate::verify::REFERENCE_HELP);
                None
            }
        });
        self.warn_of_inline_secrets(&place);
        let listen = match (raw.listen.as_str(), raw.listen.strip_prefix("unix:")) {
            ("off", _) => AdminAddress::Off,
            (_, Some("")) => {
                self.error(&place.key("listen"), "`unix:` takes a path", "write `unix:/run/tidegate.sock`");
                return None;
            }
            (_, Some(path)) => AdminAddress::Unix(path.into()),
            (text, None) => match text.parse::<SocketAddr>() {
                Ok(address) => AdminAddress::Tcp(address),
                Err(_) => {
                    let message = format!("`{text}` is not a place to listen on");
                    let help = "write `127.0.0.1:9900`, `unix:/run/tidegate.sock`, or `off`";
                    self.error(&place.key("listen"), message, help);
                    return None;
                }
            },
        };
        if let AdminAddress::Tcp(address) = &listen
            && !address.ip().is_loopback()
            && raw.token.is_none()
        {
            let message = format!("{address} is reachable from other machines, but there is no `token`");
            self.error(
                &place.key("listen"),
                message,
                "add `token: env:ADMIN_TOKEN`, or listen on `127.0.0.1:9900`",
            );
        }
        Some(AdminSettings { listen, token })
    }

    pub(super) fn log(&mut self, raw: &raw::Log) -> LogSettings {
        let place = Place::root().key("log");
        let words = ["off", "error", "warn", "info", "debug", "trace"];
        let slip = |part: &str| {
            !part.contains(['=', '[']) && !words.contains(&part.trim().to_ascii_lowercase().as_str())
        };
        if tracing_subscriber::EnvFilter::builder().parse(&raw.level).is_err()
            || raw.level.split(',').any(slip)
        {
            let message = format!("`{}` is not a log filter", raw.level);
            let help = "write `error`, `warn`, `info`, `debug` or `trace`, or a filter such as `info,tidegate=debug`";
            self.error(&place.key("level"), message, help);
        }
        LogSettings {
            format: raw.format.map(|format| match format {
                raw::LogFormat::Text => LogFormat::Text,
                raw::LogFormat::Json => LogFormat::Json,
            }),
            level: raw.level.clone(),
            access: match raw.access {
                raw::Access::Off => AccessLog::Off,
                raw::Access::Errors => AccessLog::Errors,
                raw::Access::All => AccessLog::All,
            },
        }
    }

    pub(super) fn range_settings(&mut self, raw: &raw::Ranges) -> RangeSettings {
        let place = Place::root().key("ranges");
        if raw.refresh < Time(Duration::from_secs(1)) {
            self.error(
                &place.key("refresh"),
                format!("{} is too little", raw.refresh),
                "write 1s or more, such as `24h`",
            );
        }
        let ca = raw.ca.as_ref().map(|path| self.references.path(path));
        if let Some(path) = &ca
            && let Err(problem) = self.references.outside.pem(path)
        {
            let help = "a PEM file is wanted; paths start from the config's folder";
            self.error(&place.key("ca"), format!("{}: {problem}", path.display()), help);
        }
        RangeSettings { refresh: raw.refresh.0, max_shrink: raw.max_shrink.0, ca, offline: raw.offline }
    }

    pub(super) fn shutdown(&mut self, raw: &raw::Shutdown) -> Shutdown {
        Shutdown { grace: raw.grace.0, delay: raw.delay.0 }
    }

    pub(super) fn secrets(&mut self, raw: &raw::Secrets) -> SecretSettings {
        let range = Duration::from_secs(1)..=Duration::from_secs(3600);
        if !range.contains(&raw.refresh.0) {
            let place = Place::root().key("secrets").key("refresh");
            let help = "write a duration from `1s` to `1h`; `tidegate reload` sees changes at once";
            self.error(&place, format!("{} is out of range", raw.refresh), help);
        }
        SecretSettings { refresh: raw.refresh.0 }
    }

    fn at_least(&mut self, place: &Place, key: &str, size: Size, least: Size) {
        if size < least {
            self.error(&place.key(key), format!("{size} is too little"), format!("write {least} or more"));
        }
    }

    pub(super) fn not_zero(&mut self, place: &Place, key: &str, time: Time) {
        if time.0.is_zero() {
            self.error(&place.key(key), "it can't be zero", "write a duration such as `10s`");
        }
    }

    fn bytes(&self, size: Size) -> usize {
        usize::try_from(size.0).unwrap_or(usize::MAX)
    }
}
