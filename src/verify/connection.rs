//! `Connection` must not name a header that verification reads. Such a header would be one hop's business and be dropped
//! on the way to the app, which could then no longer verify what we did; so the request is refused.

use super::{Refusal, Verifier};
use crate::message::Headers;
use crate::reason::Reason;

impl Verifier {
    /// Whether `Connection` leaves alone what the rule reads. To be asked before [`verify`](Self::verify), by whoever
    /// has the head alone or captured requests.
    ///
    /// # Errors
    ///
    /// It does not: the refusal.
    pub fn connection(&self, headers: &Headers) -> Result<(), Refusal> {
        check(&self.headers, headers)
    }
}

fn check(used: &[String], headers: &Headers) -> Result<(), Refusal> {
    let tokens = || headers.all("connection").flat_map(|value| value.split(|byte| *byte == b','));
    let named = tokens().find_map(|token| {
        used.iter().find(|header| token.trim_ascii().eq_ignore_ascii_case(header.as_bytes()))
    });
    match named {
        Some(header) => Err(Refusal::new(
            Reason::AmbiguousRequest,
            format!("Connection names {header}, which verification reads"),
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(connection: &[&str]) -> bool {
        let headers: Headers = connection.iter().map(|value| ("Connection", value.as_bytes())).collect();
        check(&["x-hub-signature-256".into()], &headers).is_err()
    }

    #[test]
    fn a_signature_header_made_hop_by_hop_is_refused() {
        assert!(refused(&["X-Hub-Signature-256"]));
        assert!(refused(&["keep-alive", "close ,\tx-hub-signature-256"]));
    }

    #[test]
    fn other_connection_headers_are_fine() {
        assert!(!refused(&[]));
        assert!(!refused(&["keep-alive, x-hub-signature"]));
    }
}
