//! What a reload can't change: what it refuses, and what it leaves to the next start.

use crate::config::{AdminAddress, BufferSettings, Config, LogSettings, TraceSettings};

/// What differs between what runs and a new config, and can't be gone over to.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct NotLive {
    /// These make the reload fail: the rest of the new config may rely on them.
    pub(super) refused: Vec<String>,
    /// These are only told: the process goes on with the old setting until it is restarted.
    pub(super) later: Vec<String>,
}

/// The settings that a running process can't change.
#[derive(Clone, Debug)]
pub(super) struct Fixed {
    listeners: Vec<std::net::SocketAddr>,
    admin: AdminAddress,
    threads: usize,
    buffer: BufferSettings,
    log: LogSettings,
    tracing: Option<TraceSettings>,
}

impl Fixed {
    pub(super) fn of(config: &Config) -> Self {
        Self {
            listeners: config.listeners.iter().map(|l| l.address).collect(),
            admin: config.admin.listen.clone(),
            threads: config.threads,
            buffer: config.buffer.clone(),
            log: config.log.clone(),
            tracing: config.tracing.clone(),
        }
    }
}

impl NotLive {
    pub(super) fn between(old: &Fixed, new: &Fixed) -> Self {
        let mut found = Self::default();
        if old.listeners != new.listeners {
            found.refuse("listeners", &texts(&old.listeners), &texts(&new.listeners));
        }
        if old.buffer.path != new.buffer.path {
            let path = |fixed: &Fixed| fixed.buffer.path.display().to_string();
            found.refuse("buffer.path", &path(old), &path(new));
        }
        if old.threads != new.threads {
            found.refuse("threads", &old.threads.to_string(), &new.threads.to_string());
        }
        if old.admin != new.admin {
            found.refuse("admin.listen", &admin_text(&old.admin), &admin_text(&new.admin));
        }
        if old.buffer.memtable != new.buffer.memtable {
            found.later("buffer.memtable");
        }
        if old.buffer.stall_after != new.buffer.stall_after {
            found.later("buffer.stall_after");
        }
        if (&old.log.level, &old.log.format) != (&new.log.level, &new.log.format) {
            found.later("log.level and log.format");
        }
        if old.tracing != new.tracing {
            found.later("tracing");
        }
        found
    }

    fn refuse(&mut self, key: &str, was: &str, is: &str) {
        self.refused.push(format!("{key}: {was} can't become {is} while running: restart the gateway"));
    }
    fn later(&mut self, key: &str) {
        self.later.push(format!("{key}: the changes take effect with the next restart"));
    }
}

fn texts(addresses: &[std::net::SocketAddr]) -> String {
    addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// An admin address as people know it.
pub fn admin_text(address: &AdminAddress) -> String {
    match address {
        AdminAddress::Tcp(address) => format!("http://{address}"),
        AdminAddress::Unix(path) => format!("unix:{}", path.display()),
        AdminAddress::Off => "off".into(),
    }
}
