//! Values taken out of requests: JSON pointers, form fields, query, headers. Deep, broken and ambiguous input gives no
//! value, and there is always a key.
#![no_main]

#[path = "../common.rs"]
mod common;

use libfuzzer_sys::fuzz_target;
use tidegate::message::Headers;
use tidegate::verify::Extract;

fuzz_target!(|input: (&str, &str, &[u8], &[u8])| {
    let (source, query, value, body) = input;
    let headers: Headers =
        [("X-Id", value), ("Content-Type", &b"application/x-www-form-urlencoded"[..])].into_iter().collect();
    let request = common::request(query, headers, body);
    // The same bytes as a form of the other type, of which the fields stand in the body as they are.
    let kind = [("Content-Type", &b"multipart/form-data; boundary=B"[..])].into_iter().collect();
    let multipart = common::request(query, kind, body);
    if let Some(found) = Extract::parse("form:id").ok().and_then(|extract| extract.from(&multipart)) {
        assert!(body.starts_with(b"--B\r\n") || body.starts_with(b"\r\n--B\r\n"));
        assert!(body.windows(found.len()).any(|bytes| bytes == found.as_bytes()));
    }
    let fixed = ["header:X-Id", "query:id", "form:id", "body:/id", "body:/a/0/b", "body-hash"];
    for source in fixed.into_iter().chain([source]) {
        let Ok(extract) = Extract::parse(source) else { continue };
        let found = extract.from(&request);
        assert_eq!(found, extract.from(&request), "the same request gives the same");
        if let Some(value) = found {
            assert!(!value.is_empty());
            assert!(extract.is(&request, &value));
        }
    }
    // The tree that serde_json makes is the judge, where it can read the body at all.
    if let Ok(tree) = serde_json::from_slice::<serde_json::Value>(body) {
        if let Some(found) = Extract::parse("body:/id").ok().and_then(|extract| extract.from(&request)) {
            match tree.pointer("/id") {
                Some(serde_json::Value::String(text)) => assert_eq!(*text, found),
                Some(_) => {}
                None => panic!("found {found:?} where there is nothing"),
            }
        }
    }
});
