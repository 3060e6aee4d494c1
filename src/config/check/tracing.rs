//! Traces: where they go, and how many.

use std::time::Duration;

use http::HeaderName;

use super::Checker;
use super::names::whole_url;
use crate::config::is_loopback;
use crate::config::model::{OtlpProtocol, TraceSettings, header_value};
use crate::config::place::Place;
use crate::config::raw;
use crate::secret::Secret;
use crate::verify::Resolver;

const TIMEOUT: Duration = Duration::from_secs(10);

impl Checker<'_, '_> {
    /// `None` only with a problem reported.
    pub(super) fn tracing(&mut self, raw: &raw::Tracing) -> Option<TraceSettings> {
        let place = Place::root().key("tracing");
        let sample = raw.sample.unwrap_or(1.0);
        if !(0.0..=1.0).contains(&sample) {
            self.error(&place.key("sample"), format!("{sample} is no share"), "write a number from 0 to 1");
        }
        if let Some(timeout) = raw.timeout {
            self.not_zero(&place, "timeout", timeout);
        }
        let headers = self.trace_headers(raw, &place.key("headers"));
        self.warn_of_inline_secrets(&place.key("headers"));
        let Some(url) = whole_url(&raw.url) else {
            let help = "write it whole, such as `http://127.0.0.1:4317`";
            self.error(&place.key("url"), format!("`{}` is not a whole URL", raw.url), help);
            return None;
        };
        if url.scheme_str() == Some("http") && !headers.is_empty() && !url.host().is_some_and(is_loopback) {
            self.warning(&place.key("url"), "`headers` travel in plain text", "use `https://`");
        }
        Some(TraceSettings {
            url,
            protocol: match raw.protocol {
                raw::OtlpWord::Grpc => OtlpProtocol::Grpc,
                raw::OtlpWord::Http => OtlpProtocol::Http,
            },
            headers,
            sample,
            service_name: raw.service_name.clone().unwrap_or_else(|| "tidegate".into()),
            timeout: raw.timeout.map_or(TIMEOUT, |timeout| timeout.0),
            ca: raw.ca.as_ref().map(|ca| self.references.path(ca)),
        })
    }

    fn trace_headers(&mut self, raw: &raw::Tracing, place: &Place) -> Vec<(HeaderName, Secret)> {
        let mut headers = Vec::new();
        for (name, reference) in &raw.headers {
            let known = HeaderName::from_bytes(name.as_bytes());
            if known.is_err() {
                let help = "a name has letters, digits and `-`";
                self.error(&place.key(name), format!("`{name}` is no name of a header"), help);
            }
            match (self.references.secret(reference), known) {
                (Ok(secret), _) if header_value(&secret).is_none() => {
                    let message = format!("what stands behind `{reference}` can't be sent as a header");
                    self.error(&place.key(name), message, "a value is one line of printable text");
                }
                (Ok(secret), Ok(known)) => headers.push((known, secret)),
                (Ok(_), Err(_)) => {}
                (Err(message), _) => self.error(&place.key(name), message, crate::verify::REFERENCE_HELP),
            }
        }
        headers
    }
}
