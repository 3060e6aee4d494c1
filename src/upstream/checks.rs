//! Active health checks: each server of a destination is asked now and then, and passed over while it does not answer
//! as it should. `Verdict` decides, pure; the rest asks.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;
use tokio::time::MissedTickBehavior;

use crate::config::HealthCheck;
use crate::message::{Headers, Method};

use super::limit::Limit;
use super::{Inner, Outgoing, Upstream, UpstreamError};

/// Bytes of an answer that are read, so that its connection can be used again.
const DRAINED: usize = 64 * 1024;

/// Whether a server is up, after so many checks in a row that say otherwise.
#[derive(Debug)]
struct Verdict {
    up: bool,
    /// Checks in a row that disagree.
    against: u32,
}

impl Verdict {
    /// Up until checks have failed: a start is no outage.
    const fn new() -> Self {
        Self { up: true, against: 0 }
    }

    /// `true` if that changed it.
    fn hear(&mut self, good: bool, check: &HealthCheck) -> bool {
        if good == self.up {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let changes = self.against >= if good { check.rise } else { check.fall };
        if changes {
            (self.up, self.against) = (good, 0);
        }
        changes
    }
}

/// Who hears that a server is up again.
type UpAgain = dyn Fn() + Send + Sync;

/// The checks of one client; they end with it.
#[derive(Debug)]
pub(super) struct Checks(Vec<AbortHandle>);

impl Drop for Checks {
    fn drop(&mut self) {
        self.0.iter().for_each(AbortHandle::abort);
    }
}

impl Upstream {
    /// Begins the health checks that the destination asks for, on `runtime`; again is no more. They end with the last
    /// clone of this client. `up_again` is called each time that a server is up again which was down.
    pub fn check_health(&self, runtime: &Handle, up_again: impl Fn() + Send + Sync + 'static) {
        let Some(check) = &self.inner.check else { return };
        self.inner.checks.get_or_init(|| {
            let up_again: Arc<UpAgain> = Arc::new(up_again);
            let servers = 0..self.inner.endpoints.len();
            Checks(
                servers
                    .map(|server| {
                        let client = Arc::downgrade(&self.inner);
                        runtime
                            .spawn(keep_asking(client, server, check.clone(), up_again.clone()))
                            .abort_handle()
                    })
                    .collect(),
            )
        });
    }

    async fn ask(&self, server: usize, check: &HealthCheck) -> Result<u16, UpstreamError> {
        let host = self.inner.endpoints[server].server.origin.authority.clone();
        let headers: Headers =
            [("Host", host.as_bytes()), ("User-Agent", b"tidegate-health-check")].into_iter().collect();
        let request = Outgoing {
            method: Method::GET,
            target: check.path.clone(),
            headers,
            affinity: None,
            went_to: None,
        };
        let mut limit = Limit::whole(check.timeout);
        let mut answer = self.send_to(server, &request, &Bytes::new(), &mut limit).await?;
        let mut drained = 0;
        while let Some(chunk) = answer.chunk().await? {
            drained += chunk.len();
            if drained > DRAINED {
                break;
            }
        }
        Ok(answer.status)
    }
}

async fn keep_asking(client: Weak<Inner>, server: usize, check: HealthCheck, up_again: Arc<UpAgain>) {
    let mut verdict = Verdict::new();
    let mut ticks = tokio::time::interval(check.every.max(Duration::from_millis(10)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(inner) = client.upgrade() else { return };
        let upstream = Upstream { inner };
        let asked = tokio::time::timeout(check.timeout, upstream.ask(server, &check)).await;
        let (good, why) = match asked {
            Ok(Ok(status)) => (check.status.contains(&status), format!("status {status}")),
            // A check that we could not make says nothing about the server.
            Ok(Err(error)) if error.is_ours() => continue,
            Ok(Err(error)) => (false, error.to_string()),
            Err(_) => (false, UpstreamError::Timeout("answer").to_string()),
        };
        if !verdict.hear(good, &check) {
            continue;
        }
        upstream.inner.balance.checked(server, verdict.up);
        let (destination, name) = (&upstream.inner.name, &upstream.inner.endpoints[server].name);
        if verdict.up {
            tracing::info!(%destination, upstream = %name, "the upstream is up again");
            up_again();
        } else {
            tracing::warn!(%destination, upstream = %name, why, "the upstream is down: health checks fail");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verdict_changes_after_so_many_in_a_row() {
        let check = HealthCheck { rise: 2, fall: 3, ..HealthCheck::default() };
        let mut verdict = Verdict::new();
        let heard = [false, false, true, false, false, false, true, false, true, true];
        let changed: Vec<usize> = heard
            .iter()
            .enumerate()
            .filter(|(_, good)| verdict.hear(**good, &check))
            .map(|(n, _)| n)
            .collect();
        assert_eq!((changed, verdict.up), (vec![5, 9], true));
    }
}
