//! Step: is a verified request only a greeting? Then its challenge is echoed, and nothing is stored or sent on.

use crate::config::Handshake;
use crate::message::{Answer, Request};
use crate::reason::Reason;

use super::refused::Refused;

/// The longest challenge that is echoed, in bytes.
const MAX_ECHO: usize = 1024;

pub(super) fn answer(handshake: Option<&Handshake>, request: &Request) -> Result<Option<Answer>, Refused> {
    let Some(handshake) = handshake else { return Ok(None) };
    if is_greeting(handshake, request) { echo(handshake.echo.from(request)).map(Some) } else { Ok(None) }
}

pub(super) fn is_greeting(handshake: &Handshake, request: &Request) -> bool {
    !handshake.when.is_empty()
        && handshake.when.iter().all(|(value, text)| value.from(request).as_ref() == Some(text))
}

/// Only plain text goes back, and no browser may take it for anything else.
fn echo(challenge: Option<String>) -> Result<Answer, Refused> {
    let refused = |why| Err(Refused::because(Reason::MalformedRequest, why));
    let Some(challenge) = challenge else { return refused("a handshake without its challenge") };
    if challenge.len() > MAX_ECHO {
        return refused("the handshake's challenge is too long to be echoed");
    }
    if !challenge.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return refused("the handshake's challenge is not printable ASCII");
    }
    Ok(Answer::new(200).with("x-content-type-options", "nosniff").body("text/plain", challenge))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_is_echoed_as_plain_text() {
        let answer = echo(Some("3eZbrw1a B~".into())).unwrap();
        assert_eq!((answer.status, &answer.body[..]), (200, &b"3eZbrw1a B~"[..]));
        assert!(answer.headers.contains(&("content-type", "text/plain".into())));
        assert!(answer.headers.contains(&("x-content-type-options", "nosniff".into())));
        assert!(echo(Some("a".repeat(MAX_ECHO))).is_ok());
    }

    #[test]
    fn what_is_absent_long_or_unprintable_is_not_echoed() {
        for bad in [None, Some("a".repeat(MAX_ECHO + 1)), Some("a\r\nb".into()), Some("ü".into())] {
            assert_eq!(echo(bad).unwrap_err().reason, Reason::MalformedRequest);
        }
    }
}
