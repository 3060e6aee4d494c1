//! Whether a fetched list is believed. Pure.

use ipnet::IpNet;

use crate::route::Allowlist;

/// A list that lacks more of the ranges in use than may go at once: likelier a mistake than a move.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the list lacks {lost} of the {of} ranges in use, more than `ranges.max_shrink` ({max}%): they stay; if the provider \
     means it, raise `max_shrink` for one reload"
)]
pub(super) struct Shrunk {
    pub lost: usize,
    pub of: usize,
    pub max: u8,
}

/// `max`: percent of the ranges in use that may be missing from `new`. A range counts as there if `new` holds all of
/// its addresses, however it is cut.
pub(super) fn judge(in_use: &[IpNet], new: &[IpNet], max: u8) -> Result<(), Shrunk> {
    let new = Allowlist::new(IpNet::aggregate(&new.to_vec()));
    let lost = in_use.iter().filter(|range| !new.covers(range)).count();
    let of = in_use.len();
    if lost as u64 * 100 > of as u64 * u64::from(max) { Err(Shrunk { lost, of, max }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn up_to_the_share_may_go() {
        let four = nets(&["10.0.0.1/32", "10.0.0.3/32", "10.0.0.5/32", "2001:db8::/32"]);
        assert_eq!(judge(&four, &four[..2], 50), Ok(()));
        assert_eq!(judge(&four, &four[..1], 50), Err(Shrunk { lost: 3, of: 4, max: 50 }));
        assert_eq!(judge(&four, &four[..3], 0), Err(Shrunk { lost: 1, of: 4, max: 0 }));
        assert_eq!(judge(&four, &nets(&["192.0.2.1/32"]), 100), Ok(()));
    }

    #[test]
    fn as_many_others_are_still_a_loss() {
        let (old, new) = (nets(&["10.0.0.1/32", "10.0.0.3/32"]), nets(&["192.0.2.1/32", "192.0.2.3/32"]));
        assert_eq!(judge(&old, &new, 50), Err(Shrunk { lost: 2, of: 2, max: 50 }));
    }

    #[test]
    fn the_same_addresses_cut_otherwise_are_no_loss() {
        let old = nets(&["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/23"]);
        assert_eq!(judge(&old, &nets(&["10.0.0.0/22"]), 0), Ok(()));
        assert_eq!(judge(&nets(&["10.0.0.0/22"]), &old, 0), Ok(()));
    }

    proptest! {
        #[test]
        fn a_list_that_only_grows_is_always_believed(
            old in prop::collection::vec((any::<u32>(), 8u8..=32), 0..30),
            more in prop::collection::vec((any::<u32>(), 8u8..=32), 0..30),
        ) {
            let net = |(address, prefix): (u32, u8)| {
                IpNet::new(std::net::Ipv4Addr::from(address).into(), prefix).unwrap().trunc()
            };
            let old: Vec<IpNet> = old.into_iter().map(net).collect();
            let all: Vec<IpNet> = old.iter().copied().chain(more.into_iter().map(net)).collect();
            prop_assert_eq!(judge(&old, &all, 0), Ok(()));
        }
    }
}
