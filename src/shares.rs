//! A budget that strangers draw from, shared out so that none of them can use it up.
//!
//! There is a bucket for all, and one an eighth of its size for each [`Origin`]. Whoever has something left in his own
//! draws as long as the common one is not empty; who has not, only down to its last quarter. So one flood gets what
//! nobody else wants, and the few requests of another origin still find something.

use std::collections::HashMap;
use std::net::IpAddr;
use std::time::Duration;

use crate::clock::Timestamp;

/// What counts as one source of requests: an IPv4 address, or the /64 that one customer has of IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin([u8; 16]);

impl Origin {
    pub fn of(client: IpAddr) -> Self {
        let mut octets = match client.to_canonical() {
            IpAddr::V4(v4) => return Self(v4.to_ipv6_mapped().octets()),
            IpAddr::V6(v6) => v6.octets(),
        };
        octets[8..].fill(0);
        Self(octets)
    }
}

/// How much there is: so many at once, and as many again over a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    pub count: u32,
    pub per: Duration,
}

/// See the module.
#[derive(Debug)]
pub struct Shares {
    common: Bucket,
    /// Those of origins that drew lately; of others they are full.
    own: HashMap<Origin, Bucket>,
}

#[derive(Clone, Copy, Debug)]
struct Bucket {
    /// In thousandths.
    filled: u64,
    at: Timestamp,
}

const ONE: u64 = 1000;
/// The part of the whole that is an origin's own.
const SHARE: u64 = 8;
/// The part of the whole that only those draw from who have something of their own left.
const RESERVE: u64 = 4;

impl Shares {
    /// A full one.
    pub fn new(rate: Rate, now: Timestamp) -> Self {
        Self { common: Bucket { filled: full(rate), at: now }, own: HashMap::new() }
    }

    /// Takes one for `origin`, if there is one left for it.
    pub fn take(&mut self, origin: Origin, rate: Rate, now: Timestamp) -> bool {
        let (all, each) = (full(rate), (full(rate) / SHARE).max(ONE));
        self.common.fill(all, rate.per, now);
        let mut own = self.own.get(&origin).copied().unwrap_or(Bucket { filled: each, at: now });
        own.fill(each, rate.per, now);
        let Some(left) = self.common.filled.checked_sub(ONE) else { return false };
        if own.filled < ONE && left < all / RESERVE {
            return false;
        }
        self.common.filled = left;
        own.filled = own.filled.saturating_sub(ONE);
        // Each that is not full has drawn within `per`: so there are about twice `count` of them at most.
        if self.own.len() >= 4 * rate.count as usize + 64 {
            self.own.retain(|_, bucket| {
                bucket.fill(each, rate.per, now);
                bucket.filled < each
            });
        }
        self.own.insert(origin, own);
        true
    }
}

fn full(rate: Rate) -> u64 {
    u64::from(rate.count) * ONE
}

impl Bucket {
    fn fill(&mut self, full: u64, per: Duration, now: Timestamp) {
        let passed = now.since(self.at).as_millis();
        let more = passed.saturating_mul(u128::from(full)) / per.as_millis().max(1);
        // What is less than a thousandth is kept for the next time.
        if more > 0 || now < self.at {
            self.filled = self.filled.saturating_add(u64::try_from(more).unwrap_or(full)).min(full);
            self.at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn origin(n: u32) -> Origin {
        Origin::of(IpAddr::from(n.to_be_bytes()))
    }
    const TEN: Rate = Rate { count: 10, per: Duration::from_secs(1) };

    #[test]
    fn an_ipv6_customer_is_one_origin_and_an_ipv4_address_is_another() {
        let of = |text: &str| Origin::of(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2::1"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("192.0.2.1"), of("::ffff:192.0.2.1"));
    }

    #[test]
    fn no_more_than_the_rate_over_any_time() {
        let mut shares = Shares::new(TEN, Timestamp(0));
        let mut taken = |from: u64, to: u64| {
            (from..to).filter(|millis| shares.take(origin(1), TEN, Timestamp(*millis))).count()
        };
        assert_eq!(taken(0, 1), 1);
        let first_second = taken(1, 1000);
        assert!((15..=17).contains(&first_second), "{first_second}");
        let next = taken(1000, 11_000);
        assert!((99..=101).contains(&next), "{next}");
    }

    #[test]
    fn whoever_draws_little_finds_something_while_another_draws_all_that_there_is() {
        let mut shares = Shares::new(TEN, Timestamp(0));
        let mut missed = 0;
        for millis in 0..60_000 {
            let now = Timestamp(millis);
            (0..10).for_each(|_| {
                shares.take(origin(1), TEN, now);
            });
            // Once a second.
            if millis % 1000 == 999 && !shares.take(origin(2), TEN, now) {
                missed += 1;
            }
        }
        assert_eq!(missed, 0);
    }

    #[test]
    fn the_time_may_step_back() {
        let hourly = Rate { count: 1, per: Duration::from_secs(3600) };
        let now = Timestamp(10_000_000);
        let mut shares = Shares::new(hourly, now);
        assert!(shares.take(origin(1), hourly, now) && !shares.take(origin(1), hourly, now));
        assert!(!shares.take(origin(2), hourly, Timestamp(5)));
        assert!(shares.take(origin(2), hourly, Timestamp(5 + 3_600_000)));
    }

    #[test]
    fn many_origins_take_little_memory() {
        let mut shares = Shares::new(TEN, Timestamp(0));
        for n in 0..200_000 {
            shares.take(origin(n), TEN, Timestamp(u64::from(n)));
        }
        assert!(shares.own.len() <= 4 * 10 + 64, "{}", shares.own.len());
    }

    proptest! {
        #[test]
        fn all_together_never_take_more_than_there_is(
            count in 1u32..50, per in 1u64..5000, takes in prop::collection::vec((0u32..5, 0u64..200), 0..300)
        ) {
            let rate = Rate { count, per: Duration::from_millis(per) };
            let mut shares = Shares::new(rate, Timestamp(0));
            let (mut now, mut taken) = (0, 0u64);
            for (who, wait) in takes {
                now += wait;
                taken += u64::from(shares.take(origin(who), rate, Timestamp(now)));
            }
            prop_assert!(taken <= u64::from(count) + 1 + now * u64::from(count) / per);
        }
    }
}
