use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::edge::test_support::limits;

fn parse_str(head: &str) -> Result<ParsedHead, Reason> {
    parse(head.as_bytes(), &limits())
}

fn reason(head: &[u8]) -> Option<Reason> {
    parse(head, &limits()).err()
}

/// A head with these field lines after a good request line and `Host`.
fn with(fields: &str) -> Result<ParsedHead, Reason> {
    parse_str(&format!("POST /h HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n"))
}

#[test]
fn a_good_head_keeps_every_byte_in_place() {
    let head = b"POST /hooks/a%20b?x=1 HTTP/1.1\r\nHost: Hooks.example:8443\r\nX-A: 1\r\nx-a:\t2 \r\nX-Empty:\r\nX-B: \xe4\r\n\r\n";
    let parsed = parse(head, &limits()).unwrap();
    assert_eq!(parsed.method, Method::POST);
    assert_eq!(parsed.target_in(head), "/hooks/a%20b?x=1");
    assert_eq!(parsed.authority_in(head), "Hooks.example:8443");
    let fields: Vec<_> = parsed.fields.iter().map(|(n, v)| (&head[n.clone()], &head[v.clone()])).collect();
    assert_eq!(
        fields,
        [
            (&b"Host"[..], &b"Hooks.example:8443"[..]),
            (b"X-A", b"1"),
            (b"x-a", b"2"),
            (b"X-Empty", b""),
            (b"X-B", b"\xe4")
        ]
    );
    assert_eq!(parsed.framing, Framing::None);
}

#[test]
fn a_length_beside_a_coding_is_refused_in_either_order() {
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "transfer-encoding: chunked\r\nX: 1\r\ncontent-length: 0",
    ] {
        assert_eq!(with(fields).unwrap_err(), Reason::MalformedRequest, "{fields}");
    }
}

#[test]
fn only_one_plain_number_is_a_length() {
    assert_eq!(with("Content-Length: 5").unwrap().framing, Framing::Length(5));
    assert_eq!(with("content-length:0").unwrap().framing, Framing::Length(0));
    for value in [
        "5, 5",
        "5, 6",
        "+5",
        "-1",
        "0x5",
        " 5",
        "5 ",
        " 5\t",
        "\t5",
        "",
        "5;",
        "5.0",
        "1e3",
        "18446744073709551616",
        "99999999999999999999",
        "५",
    ] {
        let fields = format!("Content-Length: {value}");
        assert_eq!(with(&fields).unwrap_err(), Reason::MalformedRequest, "{value:?}");
    }
    for twice in ["5\r\nContent-Length: 6", "5\r\nContent-Length: 5", "5\r\ncontent-LENGTH: 5"] {
        assert!(with(&format!("Content-Length: {twice}")).is_err(), "{twice}");
    }
}

#[test]
fn exactly_one_chunked_is_a_coding() {
    assert_eq!(with("Transfer-Encoding: chunked").unwrap().framing, Framing::Chunked);
    assert_eq!(with("transfer-encoding:Chunked").unwrap().framing, Framing::Chunked);
    for (value, reason) in [
        ("xchunked", Reason::UnknownCoding),
        ("gzip", Reason::UnknownCoding),
        ("chunked, identity", Reason::MalformedRequest),
        ("identity, chunked", Reason::MalformedRequest),
        ("gzip, chunked", Reason::MalformedRequest),
        ("chunked, chunked", Reason::MalformedRequest),
        ("chunked\r\nTransfer-Encoding: chunked", Reason::MalformedRequest),
        ("chunked\r\nTransfer-Encoding: identity", Reason::MalformedRequest),
        ("identity", Reason::MalformedRequest),
        ("\tchunked", Reason::MalformedRequest),
        ("chunked\t", Reason::MalformedRequest),
        ("\u{b}chunked", Reason::MalformedRequest),
        ("chunked;q=1", Reason::MalformedRequest),
        ("\"chunked\"", Reason::MalformedRequest),
        ("", Reason::MalformedRequest),
        (",chunked", Reason::MalformedRequest),
    ] {
        assert_eq!(with(&format!("Transfer-Encoding: {value}")).unwrap_err(), reason, "{value:?}");
    }
    let old = "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(parse_str(old).unwrap_err(), Reason::MalformedRequest);
}

#[test]
fn fields_that_break_the_grammar_are_refused() {
    for line in [
        &b"X : 1"[..],
        b"X\t: 1",
        b": 1",
        b"X",
        b"X 1",
        b" X: 1",
        b"X: 1\r\n folded",
        b"X: 1\r\n\tfolded",
        b"X: \0",
        b"X: a\x01b",
        b"X: a\x7fb",
        b"X: a\rb",
        b"X: a\nY: b",
        b"X: a\r\r",
        b"X\xe4: 1",
        b"X\0: 1",
        b"X(: 1",
        b"\x0bX: 1",
        b"\"X\": 1",
    ] {
        let head = [b"GET / HTTP/1.1\r\nHost: a\r\n", line, b"\r\n\r\n"].concat();
        assert_eq!(reason(&head), Some(Reason::MalformedRequest), "{}", line.escape_ascii());
    }
}

#[test]
fn lines_end_in_carriage_return_and_line_feed_only() {
    for head in [
        &b"GET / HTTP/1.1\nHost: a\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\n",
        b"GET / HTTP/1.1\r\nHost: a\n\n",
        b"GET / HTTP/1.1\rHost: a\r\r",
        b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET",
        b"GET / HTTP/1.1\r\nHost: a\r\n",
        b"",
        b"\r\n",
    ] {
        assert_eq!(reason(head), Some(Reason::MalformedRequest), "{}", head.escape_ascii());
    }
}

#[test]
fn request_lines_have_three_parts_and_two_spaces() {
    for (line, expected) in [
        (&b"GET  / HTTP/1.1"[..], Reason::MalformedRequest),
        (b"GET /  HTTP/1.1", Reason::MalformedRequest),
        (b" GET / HTTP/1.1", Reason::MalformedRequest),
        (b"GET / HTTP/1.1 ", Reason::MalformedRequest),
        (b"GET\t/ HTTP/1.1", Reason::MalformedRequest),
        (b"GET /\tHTTP/1.1", Reason::MalformedRequest),
        (b"get / HTTP/1.1", Reason::MalformedRequest),
        (b"Get / HTTP/1.1", Reason::MalformedRequest),
        (b"G(T / HTTP/1.1", Reason::MalformedRequest),
        (b"/ HTTP/1.1", Reason::MalformedRequest),
        (b"GET /", Reason::MalformedRequest),
        (b"GET HTTP/1.1", Reason::MalformedRequest),
        (b"GET / http/1.1", Reason::MalformedRequest),
        (b"GET / HTTP/1.1x", Reason::MalformedRequest),
        (b"GET / HTTP/11", Reason::MalformedRequest),
        (b"GET / HTTP/0.9", Reason::UnsupportedVersion),
        (b"GET / HTTP/1.2", Reason::UnsupportedVersion),
        (b"GET / HTTP/2.0", Reason::UnsupportedVersion),
        (b"PRI * HTTP/2.0", Reason::UnsupportedVersion),
        (b"GET / HTTP/3.0", Reason::UnsupportedVersion),
        (b"GET /#f HTTP/1.1", Reason::MalformedRequest),
        (b"GET /a?b#f HTTP/1.1", Reason::MalformedRequest),
        (b"GET /\xe4 HTTP/1.1", Reason::InvalidPath),
        (b"GET /\x01 HTTP/1.1", Reason::InvalidPath),
        (b"GET /a\tb HTTP/1.1", Reason::InvalidPath),
        (b"GET /a?\x7f HTTP/1.1", Reason::InvalidPath),
        (b"GET /../x HTTP/1.1", Reason::InvalidPath),
        (b"GET /%00 HTTP/1.1", Reason::InvalidPath),
        (b"GET * HTTP/1.1", Reason::MalformedRequest),
        (b"GET a:80 HTTP/1.1", Reason::MalformedRequest),
        (b"GET hooks HTTP/1.1", Reason::MalformedRequest),
        (b"GET ftp://a/ HTTP/1.1", Reason::MalformedRequest),
        (b"GET http:// HTTP/1.1", Reason::MalformedRequest),
        (b"GET http:///x HTTP/1.1", Reason::InvalidHost),
        (b"GET http://b/ HTTP/1.1", Reason::InvalidHost),
        (b"GET http://u@a/ HTTP/1.1", Reason::InvalidHost),
        (b"GET http://a:80/ HTTP/1.1", Reason::InvalidHost),
        (b"CONNECT a:443 HTTP/1.1", Reason::MethodNotAllowed),
        (b"CONNECT / HTTP/1.1", Reason::MethodNotAllowed),
        (b"TRACE / HTTP/1.1", Reason::MethodNotAllowed),
    ] {
        let head = [line, b"\r\nHost: a\r\n\r\n"].concat();
        assert_eq!(reason(&head), Some(expected), "{}", line.escape_ascii());
    }
}

#[test]
fn other_forms_of_the_target_are_understood() {
    let head = "GET HTTP://A/x?y HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(parse_str(head).unwrap().target_in(head.as_bytes()), "/x?y");
    let head = "GET https://a?y HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(parse_str(head).unwrap().target_in(head.as_bytes()), "/?y");
    let head = "GET http://a HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(parse_str(head).unwrap().target_in(head.as_bytes()), "/");
    let head = "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(parse_str(head).unwrap().target_in(head.as_bytes()), "*");
    let head = "OPTIONS http://a/../x HTTP/1.1\r\nHost: a\r\n\r\n";
    assert_eq!(parse_str(head).unwrap_err(), Reason::InvalidPath);
}

#[test]
fn there_is_exactly_one_valid_host() {
    for hosts in [
        "X: 1",
        "Host: a\r\nHost: a",
        "Host: a\r\nhost: b",
        "Host:",
        "Host: u@a",
        "Host: a/x",
        "Host: a b",
        "Host: a:99999",
        "Host: a:",
        "Host: a, b",
    ] {
        let head = format!("GET / HTTP/1.1\r\n{hosts}\r\n\r\n");
        assert_eq!(parse_str(&head).unwrap_err(), Reason::InvalidHost, "{hosts}");
    }
    assert_eq!(parse_str("GET / HTTP/1.0\r\n\r\n").unwrap_err(), Reason::InvalidHost);
}

#[test]
fn sizes_have_limits() {
    let mut limits = limits();
    (limits.header_count, limits.header_bytes, limits.uri_bytes) = (3, 100, 10);
    let check = |head: String| parse(head.as_bytes(), &limits).err();
    assert_eq!(check("GET /123456789 HTTP/1.1\r\nHost: a\r\n\r\n".into()), None);
    assert_eq!(check("GET /1234567890 HTTP/1.1\r\nHost: a\r\n\r\n".into()), Some(Reason::UriTooLong));
    assert_eq!(check("GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\n\r\n".into()), None);
    assert_eq!(
        check("GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nB: 2\r\nC: 3\r\n\r\n".into()),
        Some(Reason::HeadersTooLarge)
    );
    let filled = |n: usize| format!("GET / HTTP/1.1\r\nHost: a\r\nA: {}\r\n\r\n", "x".repeat(n));
    assert_eq!(check(filled(84)), None);
    assert_eq!(check(filled(85)), Some(Reason::HeadersTooLarge));
}

#[test]
fn expectations_other_than_continue_fail() {
    assert!(with("Expect: 100-Continue\r\nContent-Length: 5").unwrap().expects_continue);
    assert!(!with("Expect: 100-continue").unwrap().expects_continue, "there is no body to wait for");
    for bad in [
        "Expect: 200-ok",
        "Expect:",
        "Expect: 100-continue, x",
        "Expect: 100-continue\r\nExpect: 100-continue",
    ] {
        assert_eq!(with(bad).unwrap_err(), Reason::ExpectationFailed, "{bad}");
    }
}

#[test]
fn an_offer_of_h2c_is_not_heard_and_not_passed_on() {
    let head = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n";
    let parsed = parse(head, &limits()).unwrap();
    assert_eq!(parsed.upgrade, Upgrade::None);
    let names: Vec<_> = parsed.fields.iter().map(|(n, _)| &head[n.clone()]).collect();
    assert_eq!(names, [&b"Host"[..], b"Connection"]);

    assert_eq!(
        with("Connection: keep-alive, Upgrade\r\nUpgrade: websocket").unwrap().upgrade,
        Upgrade::Offered
    );
    assert_eq!(with("Upgrade: websocket").unwrap().upgrade, Upgrade::None);
}

#[test]
fn the_connection_stays_as_the_version_and_the_sender_say() {
    let after = |version: &str, connection: &str| {
        parse_str(&format!("GET / {version}\r\nHost: a\r\n{connection}\r\n")).unwrap().persistence
    };
    assert_eq!(after("HTTP/1.1", ""), Persistence::KeepAlive);
    assert_eq!(after("HTTP/1.1", "Connection: x, Close\r\n"), Persistence::Close);
    assert_eq!(after("HTTP/1.0", ""), Persistence::Close);
    assert_eq!(after("HTTP/1.0", "Connection: Keep-Alive\r\n"), Persistence::KeepAlive);
    assert_eq!(after("HTTP/1.0", "Connection: keep-alive, close\r\n"), Persistence::Close);
}

fn scan_whole(bytes: &[u8]) -> Scan {
    Scanner::default().advance(bytes, &limits())
}

#[test]
fn hopeless_heads_are_given_up_before_they_end() {
    assert_eq!(scan_whole(b"\x16\x03\x01"), Scan::Refused(Reason::MalformedRequest));
    assert_eq!(scan_whole(b"\r\n"), Scan::Refused(Reason::MalformedRequest));
    assert_eq!(scan_whole(b"GET / HTTP/1.1\n"), Scan::Refused(Reason::MalformedRequest));
    assert_eq!(scan_whole(&[b'A'; 40]), Scan::Refused(Reason::MalformedRequest));
    let long = [b"GET /".to_vec(), vec![b'a'; 65_536]].concat();
    assert_eq!(scan_whole(&long), Scan::Refused(Reason::UriTooLong));
    let large = [b"GET / HTTP/1.1\r\nX: ".to_vec(), vec![b'a'; 65_536]].concat();
    assert_eq!(scan_whole(&large), Scan::Refused(Reason::HeadersTooLarge));
    let many = [b"GET / HTTP/1.1\r\n".to_vec(), b"A: 1\r\n".repeat(257)].concat();
    assert_eq!(scan_whole(&many), Scan::Refused(Reason::HeadersTooLarge));
    assert_eq!(scan_whole(b"GET / HTT"), Scan::Partial);
    assert_eq!(scan_whole(b""), Scan::Partial);
}

/// Requests that must be accepted, built from their parts.
fn good_head() -> impl Strategy<Value = Vec<u8>> {
    let field = ("[A-Za-z][A-Za-z0-9-]{0,12}", "([!-~\u{e4}]([ -~]{0,20}[!-~])?)?").prop_filter(
        "only fields without a meaning of their own",
        |(name, _)| {
            !["host", "expect", "upgrade", "connection", "content-length", "transfer-encoding"]
                .contains(&name.to_ascii_lowercase().as_str())
        },
    );
    (
        prop::sample::select(vec!["GET", "POST", "PUT", "PURGE", "M-SEARCH"]),
        "/[a-zA-Z0-9/_~-]{0,20}(\\?[a-z=&%]{0,10})?",
        "[a-z]{1,8}(\\.[a-z]{1,8}){0,2}(:[1-9][0-9]{0,3})?",
        prop::collection::vec(field, 0..8),
        prop::sample::select(vec!["", "Content-Length: 17\r\n", "Transfer-Encoding: chunked\r\n"]),
    )
        .prop_map(|(method, target, host, fields, framing)| {
            let mut head = format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n");
            for (name, value) in fields {
                head += &format!("{name}: {value}\r\n");
            }
            (head + framing + "\r\n").into_bytes()
        })
}

/// What was parsed, written down again.
fn rewrite(parsed: &ParsedHead, head: &[u8]) -> Vec<u8> {
    let mut out = format!("{} {} HTTP/1.1\r\n", parsed.method, parsed.target_in(head)).into_bytes();
    for (name, value) in &parsed.fields {
        out.extend_from_slice(&head[name.clone()]);
        out.extend_from_slice(b": ");
        out.extend_from_slice(&head[value.clone()]);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
    out
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = parse(&bytes, &limits());
        let _ = scan_whole(&bytes);
    }

    #[test]
    fn a_good_head_is_accepted_and_reads_back_as_it_was(head in good_head()) {
        let parsed = parse(&head, &limits()).unwrap();
        prop_assert_eq!(rewrite(&parsed, &head), head);
    }

    #[test]
    fn what_survives_a_wrong_byte_still_reads_back_as_it_was(head in good_head(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut head = head;
        let at = at.index(head.len());
        head[at] = byte;
        if let Ok(parsed) = parse(&head, &limits()) {
            let flat = |bytes: Vec<u8>| bytes.into_iter().filter(|b| !matches!(b, b' ' | b'\t')).collect::<Vec<_>>();
            let again = rewrite(&parsed, &head);
            // Blanks around values, and the absolute-form's authority, are all that may differ.
            if head.starts_with(format!("{} /", parsed.method).as_bytes()) && !head.windows(8).any(|w| w == b"HTTP/1.0") {
                prop_assert_eq!(flat(again), flat(head));
            }
        }
    }

    #[test]
    fn a_head_that_comes_in_pieces_ends_where_the_whole_ends(head in good_head(), rest in prop::collection::vec(any::<u8>(), 0..30), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..5)) {
        let end = head.len();
        let bytes = [head, rest].concat();
        let mut scanner = Scanner::default();
        let mut cuts: Vec<_> = cuts.iter().map(|c| c.index(bytes.len())).collect();
        cuts.sort_unstable();
        cuts.push(bytes.len());
        let found = cuts.into_iter().map(|cut| scanner.advance(&bytes[..cut], &limits())).find(|s| *s != Scan::Partial);
        prop_assert_eq!(found, Some(Scan::Complete(end)));
    }

    #[test]
    fn the_scanner_never_lets_more_than_the_limits_pile_up(bytes in "(GET /a{0,40} HTTP/1.1\r\n)?([a-z:\r\n ]{0,30}\r\n){0,20}") {
        let mut limits = limits();
        (limits.header_count, limits.header_bytes, limits.uri_bytes) = (4, 64, 16);
        limits.header_timeout = Duration::from_secs(1);
        if Scanner::default().advance(bytes.as_bytes(), &limits) == Scan::Partial {
            prop_assert!(bytes.len() <= METHOD_BYTES + limits.uri_bytes + 11 + limits.header_bytes + 2);
        }
    }
}
