//! One event on a screen.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::events::delivery;
use super::output::{OutputArgs, Rows, Side, Times, Tone, harmless, harmless_lines, hex_dump, size};
use crate::admin::views::{BodyView, DeliveryView, EventDetail, HeaderView};

/// Characters of a text body that are printed; `--verbose` prints what the API gave.
const MAX_TEXT: usize = 16 * 1024;
/// Bytes of another body that are dumped.
const MAX_DUMP: usize = 1024;

pub fn text(event: &EventDetail, output: &OutputArgs) -> String {
    let times = Times::of(output);
    let mut text = facts(event, times);
    if output.quiet {
        return text;
    }
    for delivery in &event.summary.deliveries {
        text += &format!("\n{}", attempts(delivery, times));
    }
    text + &content(&event.headers, &event.body, output)
}

/// Headers and body.
pub fn content(headers: &[HeaderView], body_view: &BodyView, output: &OutputArgs) -> String {
    let mut text = "\nheaders\n".to_owned();
    for header in headers {
        text += &format!("  {}: {}\n", harmless(&header.name), harmless(&header.value));
    }
    text + &body(body_view, output)
}

fn facts(event: &EventDetail, times: Times) -> String {
    let of = &event.summary;
    let received = match times {
        Times::Utc => of.received_at.clone(),
        Times::Relative(_) => format!("{} ({})", times.show(&of.received_at), harmless(&of.received_at)),
    };
    let request = format!("{} {}://{}{}", of.method, event.scheme, event.host, of.target);
    let verified = match (&of.would_refuse, &of.quarantine) {
        (None, None) => of.verified.clone(),
        (Some(reason), None) => format!("{} (let through; verification says {reason})", of.verified),
        (None, Some(from)) => {
            format!("{} (admitted from quarantine {}, received {})", of.verified, from.id, from.received_at)
        }
        (Some(reason), Some(from)) => format!(
            "{} (admitted BY FORCE from quarantine {}, received {}; verification says {reason})",
            of.verified, from.id, from.received_at
        ),
    };
    let rows = [
        ("id", of.id.as_str()),
        ("received", &received),
        ("from", &of.source),
        ("request", &request),
        ("route", &of.route),
        ("verified", &verified),
        ("type", of.event_type.as_deref().unwrap_or("-")),
        ("key", of.idempotency_key.as_deref().unwrap_or("-")),
    ];
    let batch = of.batch.as_ref().map(|b| format!("{} of {} in {}", b.number, b.count, b.id));
    rows.into_iter()
        .chain(batch.as_deref().map(|batch| ("batch", batch)))
        .fold(String::new(), |text, (name, value)| text + &format!("{name:<9} {}\n", harmless(value)))
}

fn attempts(of: &DeliveryView, times: Times) -> String {
    let mut text = format!("delivery  {}: {}\n", harmless(&of.destination), harmless(&delivery(of, times)));
    if of.history.is_empty() {
        return text;
    }
    let mut rows = Rows::new(&[("  attempt", Side::Right), ("took", Side::Right), ("outcome", Side::Left)]);
    for attempt in &of.history {
        let outcome = match (attempt.status, &attempt.error) {
            (Some(status @ 200..=299), _) => (status.to_string(), Tone::Good),
            (Some(status), _) => (status.to_string(), Tone::Bad),
            (None, error) => (error.clone().unwrap_or_default(), Tone::Bad),
        };
        let at = format!("  {}", times.show(&attempt.at));
        rows.row(vec![(at, Tone::Plain), (format!("{} ms", attempt.took_ms), Tone::Plain), outcome]);
    }
    text += &rows.text();
    text
}

fn body(body: &BodyView, output: &OutputArgs) -> String {
    if body.bytes == 0 {
        return "\nbody      empty\n".into();
    }
    let (shown, of_it) = match printable(body) {
        Some(text) => {
            let limit = if output.verbose { usize::MAX } else { MAX_TEXT };
            let end = text.char_indices().nth(limit).map_or(text.len(), |(end, _)| end);
            (harmless_lines(&text[..end]), end as u64)
        }
        None => {
            let bytes = STANDARD.decode(&body.base64).unwrap_or_default();
            let end = if output.verbose { bytes.len() } else { bytes.len().min(MAX_DUMP) };
            (hex_dump(&bytes[..end]), end as u64)
        }
    };
    let mut text = format!("\nbody      {}\n{shown}", size(body.bytes));
    if !text.ends_with('\n') {
        text.push('\n');
    }
    if of_it < body.bytes {
        text += &format!("… {} of {} bytes shown; --body-only prints all of it\n", of_it, body.bytes);
    }
    text
}

/// Text that is meant to be read: no control characters but line ends and tabs.
fn printable(body: &BodyView) -> Option<&str> {
    let text = body.text.as_deref()?;
    let odd = text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'));
    (!odd).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::views::{AttemptView, EventSummary};

    fn event(body: &[u8]) -> EventDetail {
        EventDetail {
            summary: EventSummary {
                id: "0190b0c4-0000-7000-8000-000000000001".into(),
                route: "billing".into(),
                received_at: "2025-11-24T16:00:00.000Z".into(),
                event_type: Some("invoice.paid\x1b[2J".into()),
                method: "POST".into(),
                target: "/hooks?x=1".into(),
                source: "192.0.2.1".into(),
                verified: "stripe".into(),
                would_refuse: None,
                quarantine: None,
                idempotency_key: None,
                batch: None,
                body_bytes: body.len() as u64,
                deliveries: vec![DeliveryView {
                    destination: "billing/legacy".into(),
                    state: "delivered".into(),
                    next_at: None,
                    at: Some("2025-11-24T16:00:01.000Z".into()),
                    reason: None,
                    attempts: 2,
                    since: String::new(),
                    last: None,
                    history: vec![
                        AttemptView {
                            at: "2025-11-24T16:00:00.100Z".into(),
                            took_ms: 3,
                            status: None,
                            error: Some("connect: refused".into()),
                        },
                        AttemptView {
                            at: "2025-11-24T16:00:01.000Z".into(),
                            took_ms: 12,
                            status: Some(200),
                            error: None,
                        },
                    ],
                }],
            },
            host: "hooks.example.com".into(),
            scheme: "https".into(),
            headers: vec![HeaderView {
                name: "X-Evil".into(),
                value: "a\x1b]0;b\x07".into(),
                hidden: false,
                value_base64: None,
            }],
            body: BodyView {
                bytes: body.len() as u64,
                base64: STANDARD.encode(body),
                text: std::str::from_utf8(body).ok().map(str::to_owned),
                truncated: false,
            },
        }
    }

    fn utc() -> OutputArgs {
        OutputArgs { utc: true, ..OutputArgs::default() }
    }

    #[test]
    fn an_event_is_shown_whole_and_harmless() {
        let text = text(&event(b"{\"a\": 1}"), &utc());
        assert!(!text.contains('\x1b') && !text.contains('\x07'), "{text:?}");
        for part in [
            "request   POST https://hooks.example.com/hooks?x=1\n",
            "delivery  billing/legacy: delivered 2025-11-24T16:00:01.000Z\n",
            "connect: refused",
            "12 ms  200",
            "X-Evil: a\\u{1b}]0;b\\u{7}",
            "body      8 B\n{\"a\": 1}\n",
        ] {
            assert!(text.contains(part), "{part}\n{text}");
        }
    }

    #[test]
    fn a_body_that_is_no_text_is_dumped_and_a_long_one_cut() {
        let binary = text(&event(&[0xff, 0x00, b'A']), &utc());
        assert!(binary.contains("00000000  ff 00 41") && binary.contains("|..A|"), "{binary}");
        assert!(text(&event(b"a\x1b[2J"), &utc()).contains("|a.[2J|"));
        let long = vec![b'x'; MAX_TEXT + 5];
        let cut = text(&event(&long), &utc());
        assert!(cut.contains(&format!("{MAX_TEXT} of {} bytes shown", MAX_TEXT + 5)));
        let whole = text(&event(&long), &OutputArgs { verbose: true, ..utc() });
        assert!(!whole.contains("bytes shown"));
        assert!(text(&event(b""), &utc()).contains("body      empty"));
    }
}
