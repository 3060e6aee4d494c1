//! `X-Forwarded-For` and `Forwarded`: a stranger's word is never taken for the client's address.
#![no_main]

use std::net::IpAddr;

use libfuzzer_sys::fuzz_target;
use tidegate::edge::parsers::client_address;
use tidegate::message::Headers;

fuzz_target!(|lines: Vec<(bool, &[u8])>| {
    let headers: Headers = lines
        .iter()
        .map(|(other, value)| (if *other { "Forwarded" } else { "X-Forwarded-For" }, *value))
        .collect();
    let stranger = IpAddr::from([203, 0, 113, 9]);
    assert_eq!(client_address(stranger, &headers, |_| false), stranger);
    let hop = IpAddr::from([10, 0, 0, 1]);
    let client = client_address(hop, &headers, |address| address == hop);
    assert_eq!(client, client.to_canonical());
});
