//! Several events as one request: their bodies joined, none of them changed.
//!
//! Pure. What can't stand in a form as it is ([`fits`]) goes by itself, as a request of its own like those of any
//! destination. In `json-array` and `ndjson` the app gets the bodies and, in headers of the request, what all events have
//! in common; in `multipart` each event stands with its own headers.

use bytes::Bytes;

use crate::buffer::{Event, EventId};
use crate::config::{BatchFormat, Destination};
use crate::message::{Headers, TraceContext};

use super::{EventHeaders, Forward, Outgoing};

/// An event of a batch.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    pub event: &'a Event,
    /// Which one of it this is, from 1.
    pub attempt: u32,
    /// What its own `traceparent` says, where it has headers of its own; `None` leaves the sender's.
    pub trace: Option<TraceContext>,
}

/// Whether an event can stand in such a batch as it is.
pub fn fits(event: &Event, format: BatchFormat) -> bool {
    match format {
        BatchFormat::Multipart => true,
        // That it was let through unproved is said in its own headers.
        _ if event.origin.would_refuse.is_some() => false,
        BatchFormat::JsonArray => is_json(&event.body),
        BatchFormat::Ndjson => {
            !event.body.iter().any(|byte| matches!(byte, b'\n' | b'\r')) && is_json(&event.body)
        }
    }
}

fn is_json(body: &[u8]) -> bool {
    std::str::from_utf8(body).is_ok_and(|text| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok())
}

/// Whether two events can stand in one request: what is said of all must be true of each.
pub fn go_together(one: &Event, other: &Event) -> bool {
    one.method == other.method
        && one.target == other.target
        && one.authority == other.authority
        && one.scheme == other.scheme
        && one.verified == other.verified
        && one.origin.client == other.origin.client
}

/// The request of these events, which fit and go together. `id` is the batch's, `trace` what the request's own
/// `traceparent` says (without one it has none). `None` without any events.
pub fn join(
    parts: &[Part<'_>],
    format: BatchFormat,
    destination: &Destination,
    id: EventId,
    trace: Option<TraceContext>,
) -> Option<(Outgoing, Bytes)> {
    let first = parts.first()?.event;
    let (kind, body) = match format {
        BatchFormat::JsonArray => ("application/json".to_owned(), lines(parts, b"[", b",", b"]")),
        BatchFormat::Ndjson => ("application/x-ndjson".to_owned(), lines(parts, b"", b"\n", b"\n")),
        BatchFormat::Multipart => multipart(parts, destination),
    };
    let common = forward(first, &NO_HEADERS, None, trace).to(destination);
    let ids: Vec<String> = parts.iter().map(|part| part.event.id.to_string()).collect();
    let attempts: Vec<String> = parts.iter().map(|part| part.attempt.to_string()).collect();
    let mut ours = vec![
        ("Content-Type", kind),
        ("tidegate-batch-id", id.to_string()),
        ("tidegate-batch-size", parts.len().to_string()),
        ("tidegate-event-ids", ids.join(",")),
        ("tidegate-attempts", attempts.join(",")),
        ("tidegate-verified", first.verified.to_string()),
    ];
    ours.extend(first.origin.client.as_ref().map(|client| ("tidegate-client", client.to_string())));
    let bytes = ours.iter().map(|(name, value)| name.len() + value.len()).sum();
    let mut headers = common.headers.builder_like(ours.len(), bytes);
    for (name, value) in common.headers.iter() {
        // They come from many clients.
        if !name.eq_ignore_ascii_case("forwarded") && !name.eq_ignore_ascii_case("x-forwarded-for") {
            headers.push(name, value);
        }
    }
    for (name, value) in &ours {
        // One that the config sets is there already.
        if !common.headers.contains(name) {
            headers.push(name, value.as_bytes());
        }
    }
    Some((Outgoing { headers: headers.build(), ..common }, body))
}

static NO_HEADERS: std::sync::LazyLock<Headers> = std::sync::LazyLock::new(Headers::default);

fn forward<'a>(
    event: &'a Event,
    headers: &'a Headers,
    told: Option<EventHeaders<'a>>,
    trace: Option<TraceContext>,
) -> Forward<'a> {
    Forward {
        method: &event.method,
        target: &event.target,
        authority: &event.authority,
        scheme: event.scheme,
        client: event.source,
        headers,
        event: told,
        upgrade: false,
        trace,
        affinity: None,
    }
}

/// The head of an event by itself.
pub fn alone(event: &Event, attempt: u32, trace: Option<TraceContext>) -> Forward<'_> {
    let told = EventHeaders {
        id: event.id,
        attempt,
        received_at: event.received_at,
        verified: &event.verified,
        batch: event.origin.batch,
        would_refuse: event.origin.would_refuse,
        client: event.origin.client.as_deref(),
        may_repeat: event.origin.may_repeat,
    };
    forward(event, &event.headers, Some(told), trace)
}

fn lines(parts: &[Part<'_>], before: &[u8], between: &[u8], behind: &[u8]) -> Bytes {
    let bodies: usize = parts.iter().map(|part| part.event.body.len() + between.len()).sum();
    let mut out = Vec::with_capacity(bodies + before.len() + behind.len());
    out.extend_from_slice(before);
    for (at, part) in parts.iter().enumerate() {
        if at > 0 {
            out.extend_from_slice(between);
        }
        out.extend_from_slice(&part.event.body);
    }
    out.extend_from_slice(behind);
    out.into()
}

/// Each event as a part with the headers that it would have by itself.
fn multipart(parts: &[Part<'_>], destination: &Destination) -> (String, Bytes) {
    let boundary = loop {
        let boundary = format!("tidegate-{:032x}", fastrand::u128(..));
        let stands_in =
            |part: &Part<'_>| memchr::memmem::find(&part.event.body, boundary.as_bytes()).is_some();
        if !parts.iter().any(stands_in) {
            break boundary;
        }
    };
    let bodies: usize = parts.iter().map(|part| part.event.body.len() + 1024).sum();
    let mut out = Vec::with_capacity(bodies);
    for part in parts {
        out.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
        for (name, value) in alone(part.event, part.attempt, part.trace).to(destination).headers.iter() {
            if name.eq_ignore_ascii_case("host") {
                continue;
            }
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(&part.event.body);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    (format!("multipart/mixed; boundary={boundary}"), out.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::message::{Method, Scheme};
    use crate::reason::Reason;
    use crate::upstream::testing::destination;

    fn event(n: u8, body: &'static [u8]) -> Event {
        Event {
            id: EventId([n; 16]),
            route: "r".into(),
            received_at: Timestamp(0),
            method: Method::POST,
            target: "/in".into(),
            authority: "hooks.example".into(),
            scheme: Scheme::Https,
            headers: [("X-Sig", &b"s"[..]), ("Content-Length", b"9")].into_iter().collect(),
            body: body.into(),
            source: [192, 0, 2, n].into(),
            verified: "stripe".into(),
            idempotency_key: None,
            event_type: None,
            origin: Default::default(),
        }
    }

    fn joined(events: &[Event], format: BatchFormat) -> (Headers, Vec<u8>) {
        let trace = |n: u8| Some(TraceContext { trace: [n; 16], span: [n; 8] });
        let part = |event: &'_ Event| trace(event.id.0[0]).filter(|_| event.id.0[0] > 1);
        let parts: Vec<Part<'_>> =
            events.iter().map(|event| Part { event, attempt: 2, trace: part(event) }).collect();
        let to = destination("http://app");
        let (head, body) = join(&parts, format, &to, EventId([9; 16]), trace(9)).unwrap();
        (head.headers, body.to_vec())
    }

    #[test]
    fn bodies_stand_as_they_came() {
        let events = [event(1, b"{ \"a\" : 1.0 }"), event(2, b"\"\\u00e9\"")];
        let (headers, body) = joined(&events, BatchFormat::JsonArray);
        assert_eq!(body, b"[{ \"a\" : 1.0 },\"\\u00e9\"]");
        assert_eq!(headers.first("content-type"), Some(&b"application/json"[..]));
        assert_eq!(headers.first("tidegate-batch-size"), Some(&b"2"[..]));
        assert_eq!(headers.first("tidegate-attempts"), Some(&b"2,2"[..]));
        let ids = format!("{},{}", events[0].id, events[1].id);
        assert_eq!(headers.first("tidegate-event-ids"), Some(ids.as_bytes()));
        assert!(!headers.contains("x-forwarded-for") && !headers.contains("x-sig"));
        let own = format!("00-{}-{}-01", "09".repeat(16), "09".repeat(8));
        assert_eq!(headers.first("traceparent"), Some(own.as_bytes()));
        assert_eq!(joined(&events, BatchFormat::Ndjson).1, b"{ \"a\" : 1.0 }\n\"\\u00e9\"\n");
    }

    #[test]
    fn a_part_has_the_headers_that_it_would_have_by_itself() {
        let (headers, body) = joined(&[event(1, b"\r\n\xff"), event(2, b"")], BatchFormat::Multipart);
        let kind = String::from_utf8(headers.first("content-type").unwrap().to_vec()).unwrap();
        let boundary = kind.strip_prefix("multipart/mixed; boundary=").unwrap();
        let text = String::from_utf8_lossy(&body);
        let parts: Vec<&str> = text.split(boundary).collect();
        assert_eq!(parts.len(), 4);
        assert!(parts[1].starts_with("\r\nX-Sig: s\r\nForwarded: for=192.0.2.1;"), "{}", parts[1]);
        assert!(parts[1].contains(&format!("tidegate-event-id: {}\r\n", EventId([1; 16]))));
        assert!(parts[1].ends_with("\r\n\r\n\r\n\u{fffd}\r\n--"));
        assert_eq!(parts[3], "--\r\n");
        let second = format!("traceparent: 00-{}-{}-01\r\n", "02".repeat(16), "02".repeat(8));
        assert!(parts[2].contains(&second) && !parts[1].contains("traceparent"), "{text}");
    }

    #[test]
    fn what_does_not_fit_is_told() {
        let fit = |body: &'static [u8]| {
            [BatchFormat::JsonArray, BatchFormat::Ndjson, BatchFormat::Multipart]
                .map(|f| fits(&event(1, body), f))
        };
        assert_eq!(fit(b"{}"), [true, true, true]);
        assert_eq!(fit(b"{\n}"), [true, false, true]);
        for body in [&b""[..], b"a=b", b"{} {}", b"\x1f\x8b", b"\"\xff\""] {
            assert_eq!(fit(body), [false, false, true]);
        }
        let mut unproved = event(1, b"{}");
        unproved.origin.would_refuse = Some(Reason::SignatureInvalid);
        assert!(!fits(&unproved, BatchFormat::JsonArray) && fits(&unproved, BatchFormat::Multipart));
    }
}
