//! The signature base (RFC 9421 section 2.5): the bytes that are signed.

use super::fields::{Bare, Component, Input};
use crate::message::Request;
use crate::verify::{form, url};

/// Why a component has no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unsigned {
    #[error("{0} is missing")]
    Missing(String),
    #[error("{0} is not supported")]
    Unsupported(String),
}

pub(super) fn of(
    input: &Input<'_>,
    request: &Request,
    public_url: Option<&str>,
) -> Result<Vec<u8>, Unsigned> {
    let url = url::public(&request.head, public_url);
    with(input, |component, base| value(component, request, &url, base))
}

/// The base of `input` with the values that `value` writes.
pub(super) fn with(
    input: &Input<'_>,
    mut value: impl FnMut(&Component<'_>, &mut Vec<u8>) -> Result<(), Unsigned>,
) -> Result<Vec<u8>, Unsigned> {
    let mut base = Vec::with_capacity(256);
    for component in &input.components {
        base.extend_from_slice(component.raw.as_bytes());
        base.extend_from_slice(b": ");
        value(component, &mut base)?;
        base.push(b'\n');
    }
    base.extend_from_slice(b"\"@signature-params\": ");
    base.extend_from_slice(input.raw.as_bytes());
    Ok(base)
}

/// Writes a component's value, where `url` is the request's as its sender knows it.
pub(super) fn value(
    component: &Component<'_>,
    request: &Request,
    url: &str,
    into: &mut Vec<u8>,
) -> Result<(), Unsigned> {
    let head = &request.head;
    let unsupported = || Unsigned::Unsupported(component.raw.to_owned());
    let missing = || Unsigned::Missing(component.raw.to_owned());
    if component.name == "@query-param" {
        let [("name", Bare::Text(name))] = component.params.as_slice() else { return Err(unsupported()) };
        // The name stands there encoded again, too.
        let mut values = form::pairs(head.query().unwrap_or_default().as_bytes())
            .filter(|(found, _)| encoded(&form::decode(found)) == *name);
        let (_, value) = values.next().ok_or_else(missing)?;
        // Each of several would have to be signed in order; who sends one signs one.
        if values.next().is_some() {
            return Err(unsupported());
        }
        into.extend_from_slice(encoded(&form::decode(value)).as_bytes());
        return Ok(());
    }
    if !component.params.is_empty() {
        return Err(unsupported());
    }
    let (scheme, rest) = url.split_once("://").unwrap_or_default();
    match component.name.as_str() {
        "@method" => into.extend_from_slice(head.method.as_str().as_bytes()),
        "@target-uri" => into.extend_from_slice(url.as_bytes()),
        "@authority" => {
            let authority = rest.split(['/', '?']).next().unwrap_or_default().to_ascii_lowercase();
            let port = if scheme == "https" { ":443" } else { ":80" };
            into.extend_from_slice(authority.strip_suffix(port).unwrap_or(&authority).as_bytes());
        }
        "@scheme" => into.extend_from_slice(scheme.as_bytes()),
        "@request-target" => into.extend_from_slice(head.target.as_bytes()),
        "@path" => into.extend_from_slice(head.path().as_bytes()),
        "@query" => {
            into.push(b'?');
            into.extend_from_slice(head.query().unwrap_or_default().as_bytes());
        }
        derived if derived.starts_with('@') => return Err(unsupported()),
        name if name.bytes().any(|b| b.is_ascii_uppercase()) => return Err(unsupported()),
        name => {
            let mut values = head.headers.all(name);
            into.extend_from_slice(values.next().ok_or_else(missing)?.trim_ascii());
            for value in values {
                into.extend_from_slice(b", ");
                into.extend_from_slice(value.trim_ascii());
            }
        }
    }
    Ok(())
}

/// Percent-encoding of a form (the URL standard's), with spaces as `%20` (RFC 9421 section 2.2.8).
fn encoded(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text {
        if byte.is_ascii_alphanumeric() || b"*-._".contains(byte) {
            out.push(char::from(*byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}
