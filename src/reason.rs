//! Reason codes: why a request was not accepted (or was answered specially), one word each, used alike in the
//! `tidegate-reason` header, the problem body, the log line and the metric. No code tells a stranger more than its
//! name: what exactly failed in a signature is for the log and `tidegate verify`.

use std::fmt;

macro_rules! reasons {
    ($( $(#[$doc:meta])* $variant:ident = $code:literal, $status:literal, $title:literal; )*) => {
        /// Why a request was refused. `code()` is a contract: codes are never renamed.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Reason { $( $(#[$doc])* $variant, )* }

        impl Reason {
            /// Every reason, for documentation and metrics.
            pub const ALL: &'static [Reason] = &[ $( Reason::$variant, )* ];

            /// The stable code, as in `tidegate-reason`.
            pub const fn code(self) -> &'static str { match self { $( Reason::$variant => $code, )* } }

            /// The reason with this code.
            pub fn from_code(code: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|reason| reason.code() == code)
            }

            /// The HTTP status that the sender gets.
            pub const fn status(self) -> u16 { match self { $( Reason::$variant => $status, )* } }

            /// One short sentence for people (the `title` of the problem body, RFC 9457).
            pub const fn title(self) -> &'static str { match self { $( Reason::$variant => $title, )* } }
        }
    };
}

reasons! {
    /// The request breaks HTTP's grammar, or could be read in two ways (smuggling).
    MalformedRequest = "malformed_request", 400, "The request is not well-formed HTTP";
    /// `Host` is missing, twice, malformed, or disagrees with the request's target.
    InvalidHost = "invalid_host", 400, "The Host header is missing or invalid";
    /// The path holds `..`, `%00`, control or non-ASCII bytes.
    InvalidPath = "invalid_path", 400, "The path is not acceptable";
    UnsupportedVersion = "unsupported_http_version", 505, "This HTTP version is not supported";
    UnknownCoding = "unknown_transfer_coding", 501, "This transfer coding is not supported";
    ExpectationFailed = "expectation_failed", 417, "Only 100-continue can be expected";
    UriTooLong = "uri_too_long", 414, "The request target is too long";
    HeadersTooLarge = "headers_too_large", 431, "The header block is too large";
    /// No route matches host and path.
    NoRoute = "no_route", 404, "No route here";
    /// A route matches host and path, but not this method (`Allow` lists what it takes).
    MethodNotAllowed = "method_not_allowed", 405, "This method is not allowed here";
    /// The client's address is in none of the allowed ranges.
    AddressNotAllowed = "address_not_allowed", 403, "This address is not allowed";
    /// The route's `rate_limit`, of all, of the source, or of the proved sender, is used up.
    RateLimited = "rate_limited", 429, "Too many requests, try again later";
    BodyTooLarge = "body_too_large", 413, "The body is too large";
    /// Header or body did not arrive within its deadline.
    RequestTimeout = "request_timeout", 408, "The request took too long to arrive";
    /// The sender left, or broke off, before the body was complete.
    BodyIncomplete = "body_incomplete", 400, "The body ended early";
    /// The global budget of body bytes in flight is used up.
    BodyBudget = "body_budget_exhausted", 503, "Too many bodies in flight, try again";
    TooManyConnections = "too_many_connections", 503, "Too many connections, try again";
    /// What proves the sender (signature, token, …) is absent.
    SignatureMissing = "signature_missing", 401, "The signature is missing";
    /// It is there, but does not match.
    SignatureInvalid = "signature_invalid", 401, "The signature is not valid";
    /// The signed time is outside the tolerance, in either direction.
    TimestampOutOfTolerance = "timestamp_out_of_tolerance", 401, "The signed time is too far from now";
    /// On a route with `split`: the body holds no array of events where one should be.
    NotABatch = "not_a_batch", 422, "The body is not the batch of events that this route takes";
    /// On a route with `split`: more events than `max_events`.
    BatchTooLarge = "batch_too_large", 413, "The batch has too many events";
    /// A header that decides verification came twice, or could be read in two ways.
    AmbiguousRequest = "ambiguous_request", 401, "A header or field that decides verification is ambiguous";
    CredentialsMissing = "credentials_missing", 401, "Credentials are missing";
    CredentialsInvalid = "credentials_invalid", 401, "The credentials are not valid";
    /// The sender is proved, but is none of those that the route is for.
    SenderNotAllowed = "sender_not_allowed", 403, "This sender may not use this route";
    TokenInvalid = "token_invalid", 401, "The token is not valid";
    TokenExpired = "token_expired", 401, "The token has expired or is not yet valid";
    /// A greeting does not bring what it must (a verify token, a topic that is ours).
    HandshakeRefused = "handshake_refused", 403, "This greeting does not prove that it is meant for us";
    /// The same, where the sender expects a 404.
    HandshakeUnknown = "handshake_unknown", 404, "This greeting is not for us";
    /// What it wants sent back is missing, too long, or no plain text.
    HandshakeMalformed = "handshake_malformed", 400, "This greeting brings nothing that can be sent back";
    /// The key that would verify this is not known (yet): the sender should retry.
    KeyUnavailable = "key_unavailable", 503, "The verification key is not available, try again";
    /// The buffer is at its high-water mark (size or free disk space).
    BufferFull = "buffer_full", 503, "The buffer is full, try again";
    /// A write or sync failed, or the buffer is shutting down.
    BufferUnavailable = "buffer_unavailable", 503, "The buffer cannot take events now, try again";
    /// In `proxy` and `pass` mode: the app could not be reached or broke off.
    UpstreamUnavailable = "upstream_unavailable", 502, "The app behind this gateway could not be reached";
    UpstreamTimeout = "upstream_timeout", 504, "The app behind this gateway did not answer in time";
    /// In `proxy` mode: the app is given a rest, because it failed (its breaker is open) or because an operator said so.
    /// `Retry-After` says until when, as far as that is known.
    UpstreamPaused = "upstream_paused", 503, "The app behind this gateway is given a rest, try again";
    /// The disk lags behind, and this request was new.
    Overloaded = "overloaded", 503, "Too much is under way, try again";
    /// The gateway is shutting down.
    ShuttingDown = "shutting_down", 503, "Shutting down, try again";
    /// A fault of the gateway itself; the log has more.
    Internal = "internal_error", 500, "Something went wrong in the gateway";
}

impl Reason {
    /// Whether the answer carries `Retry-After`: the same request may succeed later.
    pub const fn retry_after_secs(self) -> Option<u32> {
        match self {
            Reason::BufferFull => Some(30),
            // The limit itself knows better, and says so.
            Reason::RateLimited => Some(1),
            Reason::BodyBudget | Reason::Overloaded | Reason::TooManyConnections | Reason::ShuttingDown => {
                Some(5)
            }
            Reason::KeyUnavailable | Reason::BufferUnavailable => Some(10),
            Reason::UpstreamPaused => Some(30),
            _ => None,
        }
    }

    /// Whether the connection is closed after this answer, because what follows on it can't be trusted.
    pub const fn closes_connection(self) -> bool {
        matches!(
            self,
            Reason::MalformedRequest
                | Reason::InvalidHost
                | Reason::UnsupportedVersion
                | Reason::UnknownCoding
                | Reason::UriTooLong
                | Reason::HeadersTooLarge
                | Reason::BodyTooLarge
                | Reason::RequestTimeout
                | Reason::BodyIncomplete
                | Reason::TooManyConnections
                | Reason::ShuttingDown
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_snake_case() {
        let codes: std::collections::BTreeSet<_> = Reason::ALL.iter().map(|r| r.code()).collect();
        assert_eq!(codes.len(), Reason::ALL.len());
        assert!(codes.iter().all(|c| c.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')));
    }

    /// The first cells of the manual's rows that begin with a code.
    fn documented() -> Vec<[String; 3]> {
        let manual = include_str!("../conf/MANUAL.md");
        let section = manual.split("### Reason codes").nth(1).unwrap().split("\n###").next().unwrap();
        let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
        rows.map(|row| {
            let mut cells = row.split('|').map(|cell| cell.trim().trim_matches('`').to_owned());
            [(); 3].map(|()| cells.next().unwrap())
        })
        .collect()
    }

    #[test]
    fn the_manual_explains_each_reason_with_its_status_and_retry() {
        let known: Vec<[String; 3]> = Reason::ALL
            .iter()
            .map(|reason| {
                let retry = reason.retry_after_secs().map_or("-".into(), |secs| secs.to_string());
                [reason.code().to_owned(), reason.status().to_string(), retry]
            })
            .collect();
        assert_eq!(documented(), known, "conf/MANUAL.md is not true");
    }
}
