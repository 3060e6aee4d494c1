//! Sets of address ranges with a lookup that does not grow with their number.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use arc_swap::ArcSwap;
use ipnet::IpNet;

/// A set of CIDR ranges, kept as sorted disjoint intervals: a lookup is a binary search, whatever was written.
///
/// IPv4-mapped IPv6 (`::ffff:192.0.2.1`) counts as IPv4, in ranges and in addresses. A wider IPv6 range such as `::/0`
/// means IPv6 addresses only: whoever wants both families writes both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowlist {
    v4: Vec<(Ipv4Addr, Ipv4Addr)>,
    v6: Vec<(Ipv6Addr, Ipv6Addr)>,
}

impl Allowlist {
    pub fn new(ranges: impl IntoIterator<Item = IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for range in ranges {
            match range {
                IpNet::V4(net) => v4.push((net.network(), net.broadcast())),
                IpNet::V6(net) => match (net.network().to_ipv4_mapped(), net.broadcast().to_ipv4_mapped()) {
                    (Some(first), Some(last)) => v4.push((first, last)),
                    _ => v6.push((net.network(), net.broadcast())),
                },
            }
        }
        Self { v4: merged(v4), v6: merged(v6) }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => within(&self.v4, &address),
            IpAddr::V6(address) => within(&self.v6, &address),
        }
    }

    /// Whether every address of `range` is in it. Ranges that only together hold it don't count: give them aggregated.
    pub fn covers(&self, range: &IpNet) -> bool {
        match range {
            IpNet::V4(net) => holds(&self.v4, &net.network(), &net.broadcast()),
            IpNet::V6(net) => match (net.network().to_ipv4_mapped(), net.broadcast().to_ipv4_mapped()) {
                (Some(first), Some(last)) => holds(&self.v4, &first, &last),
                _ => holds(&self.v6, &net.network(), &net.broadcast()),
            },
        }
    }

    /// Whether no address at all is in it.
    pub fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

/// Ranges that change while the process runs: swapped whole, one load a lookup.
#[derive(Debug, Default)]
pub struct LiveRanges(ArcSwap<Allowlist>);

impl LiveRanges {
    pub fn new(ranges: Allowlist) -> Self {
        Self(ArcSwap::from_pointee(ranges))
    }
    /// Later lookups are in `ranges`.
    pub fn store(&self, ranges: Arc<Allowlist>) {
        self.0.store(ranges);
    }
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.load().contains(address)
    }
}

/// Who may come in: ranges as written, and those of providers, which are kept fresh elsewhere.
#[derive(Clone, Debug, Default)]
pub struct Allow {
    pub written: Allowlist,
    pub live: Vec<Arc<LiveRanges>>,
}

impl Allow {
    pub fn contains(&self, address: IpAddr) -> bool {
        self.written.contains(address) || self.live.iter().any(|ranges| ranges.contains(address))
    }
    /// Whether nothing was asked for. (A provider without a range is asked for, and lets nobody in.)
    pub fn is_unset(&self) -> bool {
        self.written.is_empty() && self.live.is_empty()
    }
}

/// Sorts intervals and joins those that overlap. (CIDR ranges that merely touch stay apart: a lookup is as right.)
fn merged<A: Ord + Copy>(mut intervals: Vec<(A, A)>) -> Vec<(A, A)> {
    intervals.sort_unstable();
    let mut disjoint: Vec<(A, A)> = Vec::with_capacity(intervals.len());
    for (first, last) in intervals {
        match disjoint.last_mut() {
            Some(previous) if first <= previous.1 => previous.1 = previous.1.max(last),
            _ => disjoint.push((first, last)),
        }
    }
    disjoint
}

/// Whether one of the sorted disjoint intervals holds `address`.
fn within<A: Ord>(intervals: &[(A, A)], address: &A) -> bool {
    holds(intervals, address, address)
}

/// Whether one of the sorted disjoint intervals holds all from `low` to `high`.
fn holds<A: Ord>(intervals: &[(A, A)], low: &A, high: &A) -> bool {
    let after = intervals.partition_point(|(first, _)| first <= low);
    after.checked_sub(1).is_some_and(|i| *high <= intervals[i].1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ipnet::{Ipv4Net, Ipv6Net};
    use proptest::prelude::*;

    fn list(ranges: &[&str]) -> Allowlist {
        Allowlist::new(ranges.iter().map(|r| r.parse::<IpNet>().unwrap()))
    }
    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_mapped_address_is_the_ipv4_address() {
        let v4 = list(&["192.0.2.0/24"]);
        assert!(v4.contains(ip("192.0.2.7")) && v4.contains(ip("::ffff:192.0.2.7")));
        let mapped = list(&["::ffff:192.0.2.0/120"]);
        assert_eq!(mapped, v4);
        assert!(!v4.contains(ip("192.0.3.0")) && !v4.contains(ip("2001:db8::1")));
    }

    #[test]
    fn any_ipv6_is_not_any_ipv4() {
        let any6 = list(&["::/0"]);
        assert!(any6.contains(ip("2001:db8::1")) && !any6.contains(ip("192.0.2.1")));
        let any4 = list(&["0.0.0.0/0"]);
        assert!(any4.contains(ip("255.255.255.255")) && !any4.contains(ip("::1")));
    }

    #[test]
    fn an_empty_list_holds_nobody() {
        assert!(list(&[]).is_empty() && !list(&[]).contains(ip("127.0.0.1")));
        assert!(!list(&["10.0.0.0/8"]).is_empty());
    }

    #[test]
    fn ranges_within_ranges_are_one_interval() {
        assert_eq!(list(&["10.0.0.0/8", "10.1.0.0/16", "10.255.255.255/32"]), list(&["10.0.0.0/8"]));
    }

    #[test]
    fn a_range_is_covered_only_as_a_whole() {
        let ranges = list(&["10.0.0.0/16", "2001:db8::/32"]);
        let covers = |text: &str| ranges.covers(&text.parse().unwrap());
        assert!(covers("10.0.0.0/16") && covers("10.0.255.0/24") && covers("2001:db8:1::/48"));
        assert!(covers("::ffff:10.0.0.0/120"));
        assert!(!covers("10.0.0.0/15") && !covers("10.1.0.0/24") && !covers("2001:db8::/31"));
    }

    #[test]
    fn live_ranges_count_beside_those_written_and_from_the_moment_of_the_swap() {
        let live = Arc::new(LiveRanges::default());
        let allow = Allow { written: list(&["10.0.0.0/8"]), live: vec![live.clone()] };
        assert!(allow.contains(ip("10.1.1.1")) && !allow.contains(ip("192.0.2.1")));
        live.store(Arc::new(list(&["192.0.2.0/24"])));
        assert!(allow.contains(ip("10.1.1.1")) && allow.contains(ip("192.0.2.1")));
        assert!(Allow::default().is_unset());
        let nobody = Allow { written: Allowlist::default(), live: vec![Arc::default()] };
        assert!(!nobody.is_unset() && !nobody.contains(ip("192.0.2.1")));
    }

    /// Nets and addresses close to each other, so that hits, misses and edges all happen.
    fn nets() -> impl Strategy<Value = Vec<IpNet>> {
        let v4 = (0u32..1 << 12, 20u8..=32)
            .prop_map(|(low, prefix)| IpNet::V4(Ipv4Net::new((0x0a00_0000 | low).into(), prefix).unwrap()));
        let v6 = (0u128..1 << 12, 116u8..=128)
            .prop_map(|(low, prefix)| IpNet::V6(Ipv6Net::new((1 << 120 | low).into(), prefix).unwrap()));
        let mapped = (0u32..1 << 12, 116u8..=128).prop_map(|(low, prefix)| {
            let address = Ipv4Addr::from(0x0a00_0000 | low).to_ipv6_mapped();
            IpNet::V6(Ipv6Net::new(address, prefix).unwrap())
        });
        prop::collection::vec(prop_oneof![v4, v6, mapped], 0..24)
    }
    fn addresses() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            (0u32..1 << 13).prop_map(|low| IpAddr::V4((0x0a00_0000 | low).into())),
            (0u32..1 << 13).prop_map(|low| IpAddr::V6(Ipv4Addr::from(0x0a00_0000 | low).to_ipv6_mapped())),
            (0u128..1 << 13).prop_map(|low| IpAddr::V6((1 << 120 | low).into())),
        ]
    }
    /// Looks at every range, in both spellings of the address.
    fn oracle(nets: &[IpNet], address: IpAddr) -> bool {
        let other = match address {
            IpAddr::V4(v4) => IpAddr::V6(v4.to_ipv6_mapped()),
            IpAddr::V6(v6) => v6.to_canonical(),
        };
        nets.iter().any(|net| net.contains(&address) || net.contains(&other))
    }

    proptest! {
        #[test]
        fn it_agrees_with_looking_at_every_range(nets in nets(), addresses in prop::collection::vec(addresses(), 64)) {
            let list = Allowlist::new(nets.iter().copied());
            for address in addresses {
                prop_assert_eq!(list.contains(address), oracle(&nets, address), "{} in {:?}", address, nets);
            }
        }
    }
}
