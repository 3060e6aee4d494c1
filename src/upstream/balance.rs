//! Which upstream is tried: by the policy, passing over those that are not well. Pure but for its atomics.
//!
//! Two things make a server be passed over. Passive: what real requests met. One that could not be reached (connect,
//! TLS or DNS), or that failed [`SICK_AFTER`] times in a row, is skipped for 1 s, doubling with each further failure up
//! to 30 s; a success clears it. Active: what the health checks say (see `checks`). If all are passed over, all are
//! tried: skipping never makes a request fail that could have succeeded.

use std::cmp::Reverse;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use super::affinity::Affinity;
use crate::config::Balancing;

const FIRST_SKIP: Duration = Duration::from_secs(1);
const LONGEST_SKIP: Duration = Duration::from_secs(30);
/// Answers in a row that say that a server can't (5xx, none in time, broken off) after which it is skipped.
const SICK_AFTER: u32 = 5;

#[derive(Debug)]
pub(super) struct Balance {
    policy: Policy,
    next: AtomicUsize,
    servers: Arc<[Standing]>,
    began: Instant,
}

/// Who is tried first, of those that are well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Policy {
    RoundRobin,
    LeastInFlight,
    Failover,
    /// The one that the request's key wants most; without a key they take turns.
    Hash,
}

/// How a server stands.
#[derive(Debug, Default)]
struct Standing {
    /// What it is called, for keys to choose it by.
    name: Box<str>,
    /// Failures in a row to reach it.
    failures: AtomicU32,
    /// Failures in a row to answer.
    sick: AtomicU32,
    /// Milliseconds since `began`.
    skip_until: AtomicU64,
    /// As the health checks say.
    down: AtomicBool,
    in_flight: AtomicUsize,
}

/// A request that a server works on; ends with its answer.
#[derive(Debug)]
pub(super) struct Turn {
    servers: Arc<[Standing]>,
    server: usize,
    began: Instant,
    /// What the head of its answer said, until the end of it has said more: whether the server is well.
    so_far: Option<bool>,
}

impl Turn {
    /// The head of its answer says whether the server is well. It holds if nobody reads to the end.
    pub fn begins(&mut self, well: bool) {
        self.so_far = Some(well);
    }

    /// The answer has ended as it began.
    pub fn ends(&mut self) {
        if let Some(well) = self.so_far.take() {
            self.tell(well);
        }
    }

    /// The answer breaks off within. `well`: the server had no part in that.
    pub fn breaks_off(&mut self, well: bool) {
        if self.so_far.take().is_some() {
            self.tell(well);
        }
    }

    /// There is no answer. `well`: the server had no part in that.
    pub fn fails(&self, well: bool) {
        self.tell(well);
    }

    fn tell(&self, well: bool) {
        self.servers[self.server].answered(well, millis(self.began));
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.ends();
        self.servers[self.server].in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Standing {
    /// It answered, and is well or not.
    fn answered(&self, well: bool, now: u64) {
        if !well {
            let failures = self.sick.fetch_add(1, Ordering::Relaxed).saturating_add(1);
            if let Some(further) = failures.checked_sub(SICK_AFTER) {
                self.skip(further, now);
            }
        } else if self.sick.load(Ordering::Relaxed) != 0 && self.sick.swap(0, Ordering::Relaxed) >= SICK_AFTER
        {
            self.skip_until.store(0, Ordering::Relaxed);
        }
    }

    fn skip(&self, earlier: u32, now: u64) {
        let skip = FIRST_SKIP.saturating_mul(1 << earlier.min(10)).min(LONGEST_SKIP);
        let until = now.saturating_add(u64::try_from(skip.as_millis()).unwrap_or(0));
        self.skip_until.store(until, Ordering::Relaxed);
    }
}

fn millis(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX / 2)
}

impl Balance {
    /// Over servers of these names.
    pub fn new<'n>(servers: impl Iterator<Item = &'n str>, balancing: &Balancing) -> Self {
        Self {
            policy: match balancing {
                Balancing::RoundRobin => Policy::RoundRobin,
                Balancing::LeastInFlight => Policy::LeastInFlight,
                Balancing::Failover => Policy::Failover,
                Balancing::Hash { .. } => Policy::Hash,
            },
            next: AtomicUsize::new(0),
            servers: servers.map(|name| Standing { name: name.into(), ..Standing::default() }).collect(),
            began: Instant::now(),
        }
    }

    /// The servers in the order in which one request tries them. `affinity` is its key, if it has one.
    pub fn order(&self, affinity: Option<Affinity>) -> impl Iterator<Item = usize> + Send + use<> {
        let count = self.servers.len();
        let mut turns: Vec<usize> = Vec::new();
        if count > 1 {
            let first = match self.policy {
                Policy::Failover => 0,
                // Least in flight too: among equals they take turns.
                Policy::RoundRobin | Policy::LeastInFlight | Policy::Hash => {
                    self.next.fetch_add(1, Ordering::Relaxed) % count
                }
            };
            let now = self.now();
            let around = || (0..count).map(|n| (first + n) % count);
            turns.extend(around().filter(|server| !self.is_passed_over(*server, now)));
            if turns.is_empty() {
                turns.extend(around());
            }
            match (self.policy, affinity) {
                (Policy::LeastInFlight, _) => turns.sort_by_cached_key(|server| self.in_flight(*server)),
                (Policy::Hash, Some(key)) => {
                    turns.sort_by_cached_key(|server| Reverse(key.weight(&self.servers[*server].name)));
                }
                _ => {}
            }
        }
        let single = (count == 1).then_some(0);
        single.into_iter().chain(turns)
    }

    fn is_passed_over(&self, server: usize, now: u64) -> bool {
        let standing = &self.servers[server];
        standing.skip_until.load(Ordering::Relaxed) > now || standing.down.load(Ordering::Relaxed)
    }

    /// Counts a request as in flight until the turn is dropped.
    pub fn turn(&self, server: usize) -> Turn {
        self.servers[server].in_flight.fetch_add(1, Ordering::Relaxed);
        Turn { servers: self.servers.clone(), server, began: self.began, so_far: None }
    }
    pub fn in_flight(&self, server: usize) -> usize {
        self.servers[server].in_flight.load(Ordering::Relaxed)
    }

    pub fn reached(&self, server: usize) {
        let standing = &self.servers[server];
        if standing.failures.swap(0, Ordering::Relaxed) != 0
            && standing.sick.load(Ordering::Relaxed) < SICK_AFTER
        {
            standing.skip_until.store(0, Ordering::Relaxed);
        }
    }

    pub fn unreachable(&self, server: usize) {
        let standing = &self.servers[server];
        standing.skip(standing.failures.fetch_add(1, Ordering::Relaxed), self.now());
    }

    /// What the health checks say.
    pub fn checked(&self, server: usize, up: bool) {
        self.servers[server].down.store(!up, Ordering::Relaxed);
    }

    /// How a server stands, in one word.
    pub fn word(&self, server: usize) -> &'static str {
        let standing = &self.servers[server];
        if standing.down.load(Ordering::Relaxed) {
            "down"
        } else if standing.skip_until.load(Ordering::Relaxed) > self.now() {
            "skipped"
        } else {
            "up"
        }
    }

    fn now(&self) -> u64 {
        millis(self.began)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn new(servers: usize, balancing: &Balancing) -> Balance {
        Balance::new(NAMES.into_iter().take(servers), balancing)
    }

    const NAMES: [&str; 6] = ["http://a", "http://b", "http://c:1", "http://c:2", "http://e", "http://f"];

    fn order(balance: &Balance) -> Vec<usize> {
        balance.order(None).collect()
    }

    fn hashed() -> Balancing {
        Balancing::Hash { by: crate::verify::Extract::parse("header:x-shop").unwrap() }
    }

    /// The server that gets each of 1000 keys.
    fn owners(balance: &Balance) -> Vec<usize> {
        let key = |n: usize| Affinity::of_key(&format!("shop-{n}"));
        (0..1000).map(|n| balance.order(Some(key(n))).next().unwrap()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn keys_are_spread_evenly_and_a_request_without_one_takes_turns() {
        let balance = new(4, &hashed());
        let owners = owners(&balance);
        for server in 0..4 {
            let has = owners.iter().filter(|owner| **owner == server).count();
            assert!((200..300).contains(&has), "{server}: {has}");
        }
        let turns: Vec<usize> = (0..8).map(|_| order(&balance)[0]).collect();
        assert!(turns.windows(4).all(|four| (0..4).all(|server| four.contains(&server))), "{turns:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_key_goes_back_to_its_server_when_that_is_well_again() {
        let balance = new(3, &hashed());
        let before = owners(&balance);
        balance.checked(1, false);
        assert!(owners(&balance).iter().all(|owner| *owner != 1));
        balance.checked(1, true);
        assert_eq!(owners(&balance), before);
        (0..3).for_each(|server| balance.unreachable(server));
        assert_eq!(owners(&balance), before, "if all are passed over, all are tried, the own one first");
    }

    proptest! {
        /// Whatever servers there are and are not well, a key that has its own server keeps it.
        #[test]
        fn a_server_that_is_sick_or_gone_moves_its_own_keys_alone(
            sick in proptest::collection::vec(any::<bool>(), 6), key in any::<String>(), gone in 0usize..6,
        ) {
            let (all, some) = (new(6, &hashed()), new(6, &hashed()));
            sick.iter().enumerate().for_each(|(server, sick)| some.checked(server, !sick));
            let without = Balance::new(NAMES.into_iter().enumerate().filter(|(n, _)| *n != gone).map(|(_, name)| name), &hashed());
            let order = |balance: &Balance| balance.order(Some(Affinity::of_key(&key))).collect::<Vec<_>>();
            let preferred = order(&all);
            prop_assert_eq!(&order(&all), &preferred, "always the same");
            let mut well: Vec<usize> = preferred.iter().copied().filter(|server| !sick[*server]).collect();
            if well.is_empty() {
                well.clone_from(&preferred);
            }
            prop_assert_eq!(order(&some), well);
            let named: Vec<&str> = order(&without).into_iter().map(|server| &*without.servers[server].name).collect();
            let expected: Vec<&str> =
                preferred.iter().filter(|server| **server != gone).map(|server| NAMES[*server]).collect();
            prop_assert_eq!(named, expected, "one less changes nothing between the others");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn servers_take_turns_and_the_rest_follow_in_order() {
        let balance = new(3, &Balancing::RoundRobin);
        assert_eq!(order(&balance), [0, 1, 2]);
        assert_eq!(order(&balance), [1, 2, 0]);
        assert_eq!(order(&balance), [2, 0, 1]);
        assert_eq!(order(&balance), [0, 1, 2]);
        assert_eq!(order(&new(1, &Balancing::RoundRobin)), [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_cant_be_reached_is_skipped_for_a_growing_time_until_it_is_reached() {
        let balance = new(2, &Balancing::RoundRobin);
        let mut last = Duration::ZERO;
        for round in 0..8 {
            balance.unreachable(0);
            let began = Instant::now();
            while !order(&balance).contains(&0) {
                tokio::time::advance(Duration::from_millis(100)).await;
            }
            let skipped = began.elapsed();
            assert!(skipped >= last && skipped <= LONGEST_SKIP, "round {round}: {skipped:?}");
            last = skipped;
        }
        assert_eq!(last, LONGEST_SKIP);
        balance.unreachable(0);
        balance.reached(0);
        assert!(order(&balance).contains(&0));
    }

    #[tokio::test(start_paused = true)]
    async fn if_all_are_skipped_all_are_tried() {
        let balance = new(2, &Balancing::RoundRobin);
        balance.unreachable(0);
        balance.unreachable(1);
        assert_eq!(order(&balance).len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn failover_goes_to_the_first_that_is_well() {
        let balance = new(3, &Balancing::Failover);
        assert_eq!((order(&balance), order(&balance)), (vec![0, 1, 2], vec![0, 1, 2]));
        balance.unreachable(0);
        assert_eq!(order(&balance), [1, 2]);
        balance.checked(1, false);
        assert_eq!((order(&balance), balance.word(1)), (vec![2], "down"));
        balance.checked(1, true);
        tokio::time::advance(FIRST_SKIP).await;
        assert_eq!(order(&balance), [0, 1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn least_in_flight_goes_to_the_idlest_and_takes_turns_among_equals() {
        let balance = new(3, &Balancing::LeastInFlight);
        assert_eq!((order(&balance)[0], order(&balance)[0], order(&balance)[0]), (0, 1, 2));
        let busy = [balance.turn(0), balance.turn(0), balance.turn(2)];
        for _ in 0..3 {
            assert_eq!(order(&balance), [1, 2, 0]);
        }
        drop(busy);
        assert_eq!((0..3).map(|server| balance.in_flight(server)).sum::<usize>(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_keeps_failing_is_skipped_until_it_succeeds() {
        let balance = new(2, &Balancing::RoundRobin);
        for n in 0..SICK_AFTER {
            assert!(order(&balance).contains(&0), "{n}");
            balance.turn(0).fails(false);
        }
        assert_eq!((order(&balance), balance.word(0)), (vec![1], "skipped"));
        // That it can be reached does not make it well.
        balance.unreachable(0);
        balance.reached(0);
        assert_eq!(order(&balance), [1]);
        tokio::time::advance(FIRST_SKIP).await;
        assert!(order(&balance).contains(&0), "it has another try");
        let mut turn = balance.turn(0);
        turn.begins(true);
        turn.breaks_off(false);
        drop(turn);
        tokio::time::advance(FIRST_SKIP).await;
        assert_eq!(order(&balance), [1], "longer this time");
        let mut turn = balance.turn(0);
        turn.begins(true);
        assert_eq!(order(&balance), [1], "a head alone is no whole answer");
        turn.ends();
        assert!(order(&balance).contains(&0));
    }
}
