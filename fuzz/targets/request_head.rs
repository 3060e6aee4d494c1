//! A request's head: whatever comes, it is refused or it is one request that can be read in one way only.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use tidegate::config::Limits;
use tidegate::edge::parsers::{Scan, Scanner, check_authority, parse};

fn limits() -> Limits {
    let second = Duration::from_secs(1);
    Limits {
        connections: 1,
        requests_per_connection: 1,
        header_count: 100,
        header_bytes: 32 << 10,
        uri_bytes: 8 << 10,
        body_bytes: 1 << 20,
        body_budget: 1 << 20,
        header_timeout: second,
        body_timeout: second,
        handshake_timeout: second,
        idle_timeout: second,
        h2_streams: 1,
        key_wait: second,
    }
}

fuzz_target!(|bytes: &[u8]| {
    let limits = limits();
    let whole = Scanner::default().advance(bytes, &limits);
    // However the bytes are cut, the scanner says the same.
    let mut scanner = Scanner::default();
    for end in 1..=bytes.len().min(256) {
        match scanner.advance(&bytes[..end], &limits) {
            Scan::Partial => {}
            Scan::Complete(at) => {
                assert_eq!(whole, Scan::Complete(at));
                break;
            }
            Scan::Refused(_) => {
                assert!(matches!(whole, Scan::Refused(_)));
                break;
            }
        }
    }
    let Scan::Complete(end) = whole else { return };
    let head = &bytes[..end];
    if let Ok(parsed) = parse(head, &limits) {
        let target = parsed.target_in(head);
        assert!(target == "*" || target.starts_with('/'));
        assert!(target.bytes().all(|byte| byte.is_ascii_graphic()));
        assert!(check_authority(parsed.authority_in(head).as_bytes()).is_ok());
        assert!(!head[..end - 2].windows(4).any(|window| window == b"\r\n\r\n"), "one head only");
    }
});
