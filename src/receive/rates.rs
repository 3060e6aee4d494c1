//! Step: is there too much from one source, one sender, or for one route? 429 with `Retry-After`.
//!
//! `source` and then `route` are asked before the body is read, so that one source that is beyond its own limit does not
//! use up the route's; `identity` once the sender is proved. A limit of `100/s` lets 100 through at once and then one
//! every 10 ms. Addresses count one by one for IPv4, and by the /64 that one customer has for IPv6.
//!
//! Limits live as long as the process and keep their counts over a reload. Memory is bounded: see [`Table`].

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::{InMemoryState, NotKeyed, StateStore};
use governor::{NotUntil, Quota, RateLimiter};
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use crate::config::{Limit, RateLimits, Route};
use crate::message::{Head, Request};
use crate::reason::Reason;
use crate::shares::Origin;
use crate::verify::Verified;

use super::refused::Refused;

type Plain = NoOpMiddleware<Nanos>;

/// The limits of all routes that have some, by route: as many as were ever configured.
#[derive(Debug, Default)]
pub(super) struct Rates(RwLock<HashMap<Arc<str>, Arc<OfRoute>>>);

/// What may be asked before the body is read.
pub(super) fn before_body(rates: &Rates, route: &Route, head: &Head) -> Result<(), Refused> {
    let Some(limits) = &route.rate_limit else { return Ok(()) };
    let of = rates.of(route, limits);
    if let Some(source) = &of.source {
        source.admit(&Origin::of(head.client)).map_err(|wait| refused("source", wait))?;
    }
    match &of.route {
        Some(route) => route.check().map_err(|until| refused("route", wait(&until, route.clock()))),
        None => Ok(()),
    }
}

/// What only the proved sender tells.
pub(super) fn of_sender(rates: &Rates, route: &Route, request: &Verified<Request>) -> Result<(), Refused> {
    let Some(limits) = &route.rate_limit else { return Ok(()) };
    let of = rates.of(route, limits);
    let Some(identity) = &of.identity else { return Ok(()) };
    // Who was let through without a proof is nobody, whatever the request says of itself.
    let named = match (&limits.identity_by, request.would_refuse()) {
        (Some(by), None) => by.from(request.get()),
        _ => None,
    };
    let who = (request.by(), request.label(), named);
    identity.admit(&who).map_err(|wait| refused("identity", wait))
}

fn refused(limit: &'static str, wait: Duration) -> Refused {
    let detail = format!("rate_limit.{limit}");
    Refused { retry_after: Some(wait), ..Refused::because(Reason::RateLimited, detail) }
}

impl Rates {
    /// The limits of a route, made anew where the config says something else than before.
    fn of(&self, route: &Route, limits: &RateLimits) -> Arc<OfRoute> {
        if let Some(of) = self.0.read().get(&route.name)
            && of.made_for == *limits
        {
            return of.clone();
        }
        let mut all = self.0.write();
        match all.get(&route.name) {
            Some(of) if of.made_for == *limits => of.clone(),
            old => {
                let of = Arc::new(OfRoute::new(limits, old.map(|old| &**old)));
                all.insert(route.name.clone(), of.clone());
                of
            }
        }
    }
}

#[derive(Debug)]
struct OfRoute {
    made_for: RateLimits,
    route: Option<Arc<RateLimiter<NotKeyed, InMemoryState, Monotonic, Plain>>>,
    source: Option<Arc<Keyed>>,
    identity: Option<Arc<Keyed>>,
}

impl OfRoute {
    /// A limit that stays as it was keeps its counts.
    fn new(limits: &RateLimits, old: Option<&OfRoute>) -> Self {
        let keyed = |limit: Option<Limit>, was: Option<Limit>, old: Option<&Arc<Keyed>>| {
            let limit = limit?;
            Some(match old {
                Some(old) if was == Some(limit) => old.clone(),
                _ => Arc::new(Keyed::new(limit)),
            })
        };
        let was = old.map(|old| &old.made_for);
        Self {
            route: limits.route.map(|limit| match old.and_then(|old| old.route.as_ref()) {
                Some(old) if was.and_then(|was| was.route) == Some(limit) => old.clone(),
                _ => Arc::new(RateLimiter::direct_with_clock(quota(limit), Monotonic::default())),
            }),
            source: keyed(limits.source, was.and_then(|w| w.source), old.and_then(|o| o.source.as_ref())),
            identity: keyed(
                limits.identity,
                was.and_then(|w| w.identity),
                old.and_then(|o| o.identity.as_ref()),
            ),
            made_for: limits.clone(),
        }
    }
}

/// So many at once, and one more each time that its part of the period has passed.
fn quota(limit: Limit) -> Quota {
    let burst = NonZeroU32::new(limit.count).unwrap_or(NonZeroU32::MIN);
    let each = (limit.per / burst.get()).max(Duration::from_nanos(1));
    Quota::with_period(each).unwrap_or(Quota::per_second(burst)).allow_burst(burst)
}

fn wait<C: Clock>(until: &NotUntil<C::Instant>, clock: &C) -> Duration {
    until.wait_time_from(clock.now())
}

/// The same limit for each of many.
#[derive(Debug)]
struct Keyed {
    limiter: RateLimiter<u64, Table, Monotonic, Plain>,
    hasher: RandomState,
}

impl Keyed {
    fn new(limit: Limit) -> Self {
        let limiter = RateLimiter::new(quota(limit), Table::default(), Monotonic::default());
        Self { limiter, hasher: RandomState::new() }
    }

    /// An `Err` says how long until the next may come. What is kept of a key is its hash, with a secret that strangers
    /// can't know.
    fn admit(&self, key: &impl std::hash::Hash) -> Result<(), Duration> {
        let checked = self.limiter.check_key(&self.hasher.hash_one(key));
        checked.map_err(|until| wait(&until, self.limiter.clock()))
    }
}

const SETS: usize = 4096;
const WAYS: usize = 16;

/// The counts of a limit's keys: 65 536 at most, 1 MiB, by the hash of the key in sets of 16. A new one in a full set
/// takes the place of the one that has the most of its limit left, so that whoever is at the limit is forgotten last.
struct Table(Box<[Mutex<Vec<Count>>]>);

struct Count {
    key: u64,
    /// When all of its limit is there again: governor's theoretical arrival time.
    full_at: u64,
}

impl Default for Table {
    fn default() -> Self {
        Self((0..SETS).map(|_| Mutex::default()).collect())
    }
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Table")
    }
}

impl StateStore for Table {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, measure: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let place = usize::try_from(*key % SETS as u64).unwrap_or(0);
        let mut set = self.0[place].lock();
        if let Some(count) = set.iter_mut().find(|count| count.key == *key) {
            let (outcome, full_at) = measure(Some(Nanos::new(count.full_at)))?;
            count.full_at = full_at.as_u64();
            return Ok(outcome);
        }
        let (outcome, full_at) = measure(None)?;
        let new = Count { key: *key, full_at: full_at.as_u64() };
        if set.len() < WAYS {
            set.push(new);
        } else if let Some(least) = set.iter_mut().min_by_key(|count| count.full_at) {
            *least = new;
        }
        Ok(outcome)
    }
}

/// Time that never goes back, and that tests can move.
#[derive(Clone, Copy, Debug)]
struct Monotonic(Instant);

impl Default for Monotonic {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for Monotonic {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        // 584 years.
        Nanos::new(u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tokio::time::advance;

    use super::*;

    fn limit(count: u32, secs: u64) -> Limit {
        Limit { count, per: Duration::from_secs(secs) }
    }

    fn within<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.unwrap().block_on(work)
    }

    #[tokio::test(start_paused = true)]
    async fn all_at_once_and_then_one_after_the_other() {
        let keyed = Keyed::new(limit(10, 1));
        assert_eq!((0..20).filter(|_| keyed.admit(&"a").is_ok()).count(), 10);
        assert_eq!(keyed.admit(&"a"), Err(Duration::from_millis(100)));
        assert!(keyed.admit(&"b").is_ok());
        advance(Duration::from_millis(100)).await;
        assert!(keyed.admit(&"a").is_ok() && keyed.admit(&"a").is_err());
        advance(Duration::from_secs(60)).await;
        assert_eq!((0..20).filter(|_| keyed.admit(&"a").is_ok()).count(), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_million_sources_take_no_more_memory_than_the_table() {
        let keyed = Keyed::new(limit(2, 3600));
        assert!(keyed.admit(&"attacker").is_ok() && keyed.admit(&"attacker").is_ok());
        for n in 0..1_000_000u32 {
            let _ = keyed.admit(&n);
        }
        let table = keyed.limiter.into_state_store();
        let held: usize = table.0.iter().map(|set| set.lock().len()).sum();
        let room: usize = table.0.iter().map(|set| set.lock().capacity()).sum();
        assert!(held > SETS * WAYS * 9 / 10 && room <= SETS * WAYS, "{held} in {room}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_at_the_limit_is_forgotten_last() {
        let table = Table::default();
        let count = |key: u64, full_at: u64| {
            table.measure_and_replace(&key, |was| Ok::<_, ()>((was.is_some(), Nanos::new(full_at)))).unwrap()
        };
        let same_set = |n: u64| n * SETS as u64;
        assert!(!count(same_set(0), 1_000_000));
        for n in 1..1000 {
            assert!(!count(same_set(n), n));
        }
        assert!(count(same_set(0), 1_000_000), "it was forgotten");
    }

    proptest! {
        /// In no time as long as the period do more than twice the limit get through (a burst, and what comes back),
        /// and whoever waits as long as told gets through.
        #[test]
        fn the_limit_holds_and_the_wait_is_true(
            count in 1u32..50, secs in 1u64..100, gaps in prop::collection::vec(0u64..3_000, 1..300),
        ) {
            within(async {
                let keyed = Keyed::new(limit(count, secs));
                let period = Duration::from_secs(secs);
                let mut through: Vec<Instant> = Vec::new();
                for gap in gaps {
                    advance(Duration::from_millis(gap)).await;
                    match keyed.admit(&1) {
                        Ok(()) => through.push(Instant::now()),
                        Err(wait) => {
                            prop_assert!(wait <= period / count + Duration::from_millis(1));
                            if gap % 2 == 0 {
                                advance(wait + Duration::from_millis(1)).await;
                                prop_assert!(keyed.admit(&1).is_ok());
                                through.push(Instant::now());
                            }
                        }
                    }
                }
                for (at, first) in through.iter().enumerate() {
                    let within = through[at..].iter().filter(|later| **later - *first < period).count();
                    prop_assert!(within <= 2 * count as usize, "{} of {}", within, count);
                }
                Ok(())
            })?;
        }
    }
}
