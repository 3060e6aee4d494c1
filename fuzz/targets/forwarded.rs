//! `X-Forwarded-For`, `-Proto`, `-Host` and `Forwarded`: a stranger's word is never taken for what a hop says.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use tidegate::edge::parsers::{asked, check_authority};
use tidegate::message::Headers;

const NAMES: [&str; 4] = ["X-Forwarded-For", "Forwarded", "X-Forwarded-Proto", "X-Forwarded-Host"];

fuzz_target!(|lines: Vec<(u8, &[u8])>| {
    let headers: Headers = lines
        .iter()
        .map(|(name, value)| (NAMES[usize::from(name % 4)], *value))
        .collect();
    let stranger = IpAddr::from([203, 0, 113, 9]);
    let unknown = asked(stranger, &headers, |_| false);
    assert_eq!((unknown.client, unknown.scheme, unknown.authority), (stranger, None, None));
    let hop = IpAddr::from([10, 0, 0, 1]);
    let told = asked(hop, &headers, |address| address == hop);
    assert_eq!(told.client, told.client.to_canonical());
    assert!(told.authority.is_none_or(|host| check_authority(host.as_bytes()).is_ok()));
});
