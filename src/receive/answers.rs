//! Our answers about events: the acknowledgement, and what a repeat gets.

use std::borrow::Cow;

use bytes::Bytes;

use crate::buffer::{Claimed, EventId, FirstAnswer};
use crate::config::Acknowledgement;
use crate::message::{Answer, HOP_BY_HOP, Headers, OUR_PREFIX};

/// The header that names the event, in acknowledgements, in repeats and to the app.
pub(super) const EVENT_ID: &str = "tidegate-event-id";
const DUPLICATE: &str = "tidegate-duplicate";

/// What a sender is told about an event that was stored, and what is kept of it for repeats.
pub(super) fn acknowledgement(settings: &Acknowledgement) -> FirstAnswer {
    FirstAnswer {
        status: settings.status,
        content_type: settings.content_type.clone(),
        body: Bytes::copy_from_slice(settings.body.as_bytes()),
    }
}

/// The answer to the first one.
pub(super) fn first(answer: &FirstAnswer, id: EventId) -> Answer {
    let mut headers = vec![(Cow::Borrowed(EVENT_ID), id.to_string())];
    if let Some(content_type) = &answer.content_type {
        headers.push((Cow::Borrowed("content-type"), content_type.clone()));
    }
    Answer { status: answer.status, headers, body: answer.body.clone() }
}

/// The first one's answer again, marked.
pub(super) fn repeat(claimed: &Claimed) -> Answer {
    first(&claimed.answer, claimed.event_id).with(DUPLICATE, "true")
}

/// An app's headers without those of its own hop. `Upgrade` is kept where both sides have agreed to switch.
pub(super) fn passed_on(headers: &Headers, upgraded: Upgraded) -> impl Iterator<Item = (&str, &[u8])> {
    let keep_upgrade = upgraded == Upgraded::Yes;
    let names_some = headers.contains("connection");
    headers.iter().filter(move |(name, _)| {
        let hop = HOP_BY_HOP.iter().any(|hop| name.eq_ignore_ascii_case(hop));
        let named = names_some && headers.has_token("connection", name);
        match (hop, named) {
            (false, false) => true,
            _ => keep_upgrade && name.eq_ignore_ascii_case("upgrade"),
        }
    })
}

/// Whether the connection has become something else than HTTP (101).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Upgraded {
    Yes,
    No,
}

/// The headers of an app's answer about an event: its own, with ours in place of any that pretend to be.
pub(super) fn with_event_id(headers: &Headers, id: EventId) -> Headers {
    let mut builder = headers.builder_like(1, 64);
    for (name, value) in passed_on(headers, Upgraded::No) {
        let ours = name.get(..OUR_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(OUR_PREFIX));
        if !ours {
            builder.push(name, value);
        }
    }
    builder.push(EVENT_ID, id.to_string().as_bytes());
    builder.build()
}

/// What is kept of an app's answer for repeats, gathered while it streams past.
#[derive(Debug)]
pub(super) struct Kept {
    status: u16,
    content_type: Option<String>,
    /// `None` once it is too long, or can't be told without more headers than are kept.
    body: Option<Vec<u8>>,
}

impl Kept {
    pub fn of(status: u16, headers: &Headers) -> Self {
        let content_type = headers.first("content-type").and_then(|value| std::str::from_utf8(value).ok());
        // A coded body means nothing without its `Content-Encoding`, which is not kept.
        let body = (!headers.contains("content-encoding")).then(Vec::new);
        Self { status, content_type: content_type.map(str::to_owned), body }
    }

    pub fn push(&mut self, chunk: &[u8]) {
        match &mut self.body {
            // A copy, because the piece would keep its whole read buffer alive as long as the claim is remembered.
            Some(body) if body.len() + chunk.len() <= FirstAnswer::MAX_BODY => body.extend_from_slice(chunk),
            body => *body = None,
        }
    }

    pub fn into_answer(self) -> FirstAnswer {
        let body = self.body.map(Bytes::from).unwrap_or_default();
        let content_type = if body.is_empty() { None } else { self.content_type };
        FirstAnswer { status: self.status, content_type, body }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn names(headers: &Headers) -> Vec<&str> {
        headers.iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn a_repeat_gets_the_first_answer_marked() {
        let id = EventId::new(Timestamp(1));
        let answer = FirstAnswer { status: 201, content_type: Some("text/plain".into()), body: "ok".into() };
        let claimed = Claimed { event_id: id, answer: answer.clone(), expires_at: Timestamp(9) };
        let (first, again) = (first(&answer, id), repeat(&claimed));
        assert_eq!((again.status, &again.body), (first.status, &first.body));
        assert!(first.headers.contains(&(EVENT_ID.into(), id.to_string())));
        assert!(again.headers.starts_with(&first.headers));
        assert_eq!(again.headers.last(), Some(&(DUPLICATE.into(), "true".into())));
    }

    #[test]
    fn an_apps_hop_headers_and_its_claims_to_be_us_are_dropped() {
        let headers: Headers = [
            ("Content-Type", &b"text/plain"[..]),
            ("Connection", b"close, X-Hop"),
            ("x-hop", b"1"),
            ("Transfer-Encoding", b"chunked"),
            ("Tidegate-Event-Id", b"forged"),
            ("Set-Cookie", b"a"),
            ("Set-Cookie", b"b"),
        ]
        .into_iter()
        .collect();
        let sent = with_event_id(&headers, EventId::new(Timestamp(1)));
        assert_eq!(names(&sent), ["Content-Type", "Set-Cookie", "Set-Cookie", EVENT_ID]);
    }

    #[test]
    fn an_upgrade_is_passed_on_only_once_it_is_agreed() {
        let headers: Headers =
            [("Upgrade", &b"websocket"[..]), ("Connection", b"Upgrade"), ("A", b"1")].into_iter().collect();
        let kept = |upgraded| passed_on(&headers, upgraded).map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(kept(Upgraded::Yes), ["Upgrade", "A"]);
        assert_eq!(kept(Upgraded::No), ["A"]);
    }

    #[test]
    fn a_long_or_coded_answer_is_kept_without_its_body() {
        let headers: Headers = [("content-type", &b"a/b"[..])].into_iter().collect();
        let mut kept = Kept::of(200, &headers);
        kept.push(&vec![1; FirstAnswer::MAX_BODY]);
        let answer = kept.into_answer();
        assert_eq!((answer.body.len(), answer.content_type), (FirstAnswer::MAX_BODY, Some("a/b".into())));

        let mut kept = Kept::of(200, &headers);
        kept.push(&vec![1; FirstAnswer::MAX_BODY]);
        kept.push(&[1]);
        kept.push(&[1]);
        assert_eq!(kept.into_answer(), FirstAnswer { status: 200, content_type: None, body: Bytes::new() });

        let coded: Headers = [("Content-Encoding", &b"gzip"[..])].into_iter().collect();
        let mut kept = Kept::of(204, &coded);
        kept.push(b"zz");
        assert_eq!(kept.into_answer(), FirstAnswer { status: 204, content_type: None, body: Bytes::new() });
    }
}
