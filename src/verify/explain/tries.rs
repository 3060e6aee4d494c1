//! What is tried: secrets, bodies, addresses and forms as people get them wrong, each with the words for it.

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::super::build_scheme::derived;
use super::super::encoding::{Encoding, decode_base64_secret};
use super::super::locate::View;
use super::super::mac::Hash;
use super::super::scheme::{Keys, Scheme, TimeRule};
use super::super::template::Template;
use super::super::time::TimeFormat;
use super::super::{nearest, url};
use super::credential::unquoted;
use super::guess::Try;
use super::{Asked, bodies, printable};
use crate::message::Request;
use crate::secret::Secret;

pub(super) fn tries(scheme: &Scheme, asked: &Asked<'_>) -> Vec<Try> {
    let mut tries = Vec::new();
    headers(scheme, asked.request, &mut tries);
    if !matches!(scheme.keys, Keys::Public(_)) {
        secrets(scheme, asked, &mut tries);
    }
    let token = matches!(scheme.keys, Keys::Token(_));
    if !token {
        for other in bodies::others(&asked.request.body) {
            tries.push(Try { body: Some(other.body), ..Try::of(other.code, other.text) });
        }
        if scheme.template.uses_url() {
            addresses(asked, &mut tries);
        }
        for (encoding, name) in
            [(Encoding::Hex, "hex"), (Encoding::Base64, "base64"), (Encoding::Base64Url, "base64url")]
        {
            if encoding != scheme.form.encoding {
                let text = format!("a signature that is written in {name}");
                tries.push(Try { encoding: Some(encoding), ..Try::of("encoding", text) });
            }
        }
        hashes(scheme, &mut tries);
        templates(scheme, &mut tries);
        times(scheme, &mut tries);
    }
    prefixes(scheme, asked.request, &mut tries);
    tries
}

/// A header that is missing, under a name that is nearly it.
fn headers(scheme: &Scheme, request: &Request, tries: &mut Vec<Try>) {
    for wanted in scheme.locations().filter_map(|location| location.header()) {
        if request.head.headers.contains(wanted) {
            continue;
        }
        if let Some(there) = header_alike(wanted, request) {
            let text = format!("the header `{there}` in the place of `{wanted}`, which is missing");
            // One for an older signature, which says its hash.
            tries.extend(older(&there, wanted, request).filter(|one| one.hash != own_hash(scheme)));
            let header = Some((there, wanted.to_owned()));
            tries.push(Try { header, ..Try::of("header_name", text) });
        }
    }
}

/// `X-Signature: sha1=…` in the place of `X-Signature-256: sha256=…`.
fn older(there: &str, wanted: &str, request: &Request) -> Option<Try> {
    let value = request.head.headers.first(there)?;
    let prefix = std::str::from_utf8(&value[..=value.iter().position(|byte| *byte == b'=')?]).ok()?;
    let named =
        |hash: &&Hash| hash.name().replace('-', "").eq_ignore_ascii_case(prefix.trim_end_matches('='));
    let hash = *Hash::ALL.iter().find(named)?;
    let text = format!(
        "the header `{there}`, which is signed with {}, in the place of `{wanted}`, which is missing: the sender (or a proxy) \
         leaves the newer one out",
        hash.name()
    );
    Some(Try {
        header: Some((there.to_owned(), wanted.to_owned())),
        hash: Some(hash),
        prefix: Some(prefix.to_owned()),
        ..Try::of("older_signature", text)
    })
}

/// A header of the request whose name is nearly `wanted`.
pub(in crate::verify) fn header_alike(wanted: &str, request: &Request) -> Option<String> {
    let letters = |name: &str| -> String {
        let name = name.to_ascii_lowercase();
        name.strip_prefix("x-").unwrap_or(&name).chars().filter(char::is_ascii_alphanumeric).collect()
    };
    let names = || request.head.headers.iter().map(|(name, _)| name);
    let wanted_letters = letters(wanted);
    names()
        .find(|name| letters(name) == wanted_letters)
        .or_else(|| names().find(|name| letters(name).ends_with(&wanted_letters) && wanted_letters.len() > 5))
        .or_else(|| nearest(wanted, names()))
        .map(str::to_owned)
}

/// What a secret may have been before it was copied, with a code and words for each form.
pub(in crate::verify) fn forms(text: &[u8]) -> Vec<(&'static str, Cow<'_, [u8]>, &'static str)> {
    let bare = text.trim_ascii();
    let stripped = bare.strip_prefix(b"whsec_").unwrap_or(bare);
    let behind = bare.iter().position(|b| *b == b'_').map(|at| &bare[at + 1..]);
    let mut forms: Vec<(_, Cow<'_, [u8]>, _)> = vec![
        ("secret_trimmed", bare.into(), "without the white space around it"),
        ("secret_quotes", unquoted(bare).into(), "without the quotes around it"),
        ("secret_prefix", stripped.into(), "without its `whsec_` prefix"),
        ("secret_prefix", behind.unwrap_or(bare).into(), "without what stands before its `_`"),
        ("secret_prefix", [b"whsec_", bare].concat().into(), "with the prefix `whsec_`"),
        ("secret_newline", [text, b"\n"].concat().into(), "with a newline behind it"),
        ("secret_text", text.into(), "taken as text, not decoded"),
    ];
    forms.extend(
        decode_base64_secret(stripped).map(|key| ("secret_base64", key.into(), "decoded from base64")),
    );
    forms.extend(hex::decode(stripped).ok().map(|key| ("secret_hex", key.into(), "decoded from hex")));
    forms.push(("secret_base64", STANDARD.encode(text).into_bytes().into(), "encoded as base64"));
    forms
}

fn secrets(scheme: &Scheme, asked: &Asked<'_>, tries: &mut Vec<Try>) {
    let spec = scheme.given.key.as_ref();
    let several = scheme.given.secrets.len() > 1;
    for (at, secret) in scheme.given.secrets.iter().enumerate() {
        let which = match (&secret.label, several) {
            (Some(label), _) => format!("the secret `{label}`"),
            (None, true) => format!("secret {}", at + 1),
            (None, false) => "the secret".to_owned(),
        };
        let text = secret.given.expose();
        for (code, form, how) in forms(text) {
            // Nothing is taken off: what differs is only that it is not decoded.
            let unchanged = *form == *text;
            let (code, how) =
                if unchanged { ("secret_text", "taken as text, not decoded") } else { (code, how) };
            let form = Secret::new(form.into_owned());
            if form.expose().is_empty() {
                continue;
            }
            // As it is, and as the scheme makes a key of a secret.
            let keys = [Some(form.clone()), spec.and_then(|_| derived(&form, spec))];
            for key in keys.into_iter().flatten() {
                let known = |one: &Try| one.key.as_ref().is_some_and(|known| known.is(key.expose()));
                if !secret.key.is(key.expose()) && !tries.iter().any(known) {
                    tries.push(Try { key: Some(key), ..Try::of(code, format!("{which} {how}")) });
                }
            }
        }
    }
    for other in asked.foreign {
        let keys = [derived(&other.secret, spec), Some(other.secret.clone())];
        for key in keys.into_iter().flatten() {
            if scheme.given.secrets.iter().all(|own| !own.key.is(key.expose())) {
                let text = format!("the secret of the route `{}`", other.route);
                tries.push(Try { key: Some(key), ..Try::of("other_route", text) });
            }
        }
    }
}

/// The address as the sender may have known it.
pub(in crate::verify) fn addresses(asked: &Asked<'_>, tries: &mut Vec<Try>) {
    let head = &asked.request.head;
    let whole = url::public(head, asked.public_url);
    let Some((scheme, rest)) = whole.split_once("://") else { return };
    let (authority, target) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let other_scheme = if scheme == "https" { "http" } else { "https" };
    let host = match authority.rfind(':') {
        Some(colon) if !authority[colon..].contains(']') => &authority[..colon],
        _ => authority,
    };
    let default_port = if scheme == "https" { 443 } else { 80 };
    let mut add = |code, text: &str, base: String, target: String| {
        // The base alone: the target comes behind it as it is.
        tries.push(Try { address: Some((target, base)), ..Try::of(code, text) });
    };
    let same = || target.to_owned();
    add(
        "url_scheme",
        "the other URL scheme (set `public_url`)",
        format!("{other_scheme}://{authority}"),
        same(),
    );
    if host == authority {
        let base = format!("{scheme}://{host}:{default_port}");
        add("url_port", "the URL with its port written out (set `public_url`)", base, same());
    } else {
        let base = format!("{scheme}://{host}");
        add("url_port", "the URL without its port (set `public_url`)", base, same());
        let base = format!("{other_scheme}://{host}");
        add("url_scheme", "the other URL scheme and no port (set `public_url`)", base, same());
    }
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, format!("?{query}")),
        None => (target, String::new()),
    };
    let base = || format!("{scheme}://{authority}");
    match path.strip_suffix('/') {
        Some(shorter) => {
            let text = "the URL without the slash at the end of its path";
            add("url_slash", text, base(), format!("{shorter}{query}"));
        }
        None => {
            let text = "the URL with a slash at the end of its path";
            add("url_slash", text, base(), format!("{path}/{query}"));
        }
    }
    for other in other_orders(query.trim_start_matches('?')) {
        let text = format!(
            "the URL with its query in another order (`?{}`): something on the way sorts it",
            printable(other.as_bytes(), 200)
        );
        add("url_query_order", &text, base(), format!("{path}?{other}"));
    }
    if !query.is_empty() {
        add("url_query", "the URL without its query", base(), path.to_owned());
    }
    if let Some(host) = head.headers.first("x-forwarded-host").and_then(|host| std::str::from_utf8(host).ok())
    {
        let host = host.split(',').next().unwrap_or(host).trim();
        for scheme in [scheme, other_scheme] {
            let text =
                "the host in `X-Forwarded-Host` (set `public_url`, or name the proxy in `trusted_hops`)";
            add("url_forwarded", text, format!("{scheme}://{host}"), head.target.clone());
        }
    }
    if asked.public_url.is_some() {
        let own = format!("{}://{}", head.scheme.as_str(), head.authority);
        add("url_public", "the URL as it was received, not `public_url`", own, head.target.clone());
    }
}

/// Parts of a query of which all orders are tried; of more only a few.
const MAX_ORDERED: usize = 4;

fn other_orders(query: &str) -> Vec<String> {
    let parts: Vec<&str> = query.split('&').collect();
    let mut orders: Vec<Vec<&str>> = Vec::new();
    if parts.len() <= MAX_ORDERED {
        orders.push(Vec::new());
        for (at, part) in parts.iter().enumerate() {
            orders = orders
                .iter()
                .flat_map(|order| {
                    (0..=at).map(move |place| {
                        let mut order = order.clone();
                        order.insert(place, part);
                        order
                    })
                })
                .collect();
        }
    } else {
        let mut sorted = parts.clone();
        sorted.sort_unstable();
        orders.push(parts.iter().rev().copied().collect());
        orders.push(sorted.iter().rev().copied().collect());
        orders.push(sorted);
    }
    let joined = orders.into_iter().map(|order| order.join("&")).filter(|other| other != query);
    let mut others: Vec<String> = Vec::new();
    for other in joined {
        if !others.contains(&other) {
            others.push(other);
        }
    }
    others
}

fn own_hash(scheme: &Scheme) -> Option<Hash> {
    match &scheme.keys {
        Keys::Mac(keys) => keys.first().map(|key| key.value.hash()),
        Keys::Digest(hash, _) => Some(*hash),
        Keys::Token(_) | Keys::Public(_) | Keys::Fetched(_) => None,
    }
}

fn hashes(scheme: &Scheme, tries: &mut Vec<Try>) {
    let Some(own) = own_hash(scheme) else { return };
    for hash in Hash::ALL.iter().copied().filter(|hash| *hash != own) {
        let text = format!("{} in the place of {}", hash.name(), own.name());
        tries.push(Try { hash: Some(hash), ..Try::of("hash", text) });
    }
}

fn templates(scheme: &Scheme, tries: &mut Vec<Try>) {
    let known = ["{body}", "{timestamp}.{body}", "{timestamp}{body}", "{id}.{timestamp}.{body}"];
    for text in known {
        let Ok(template) = Template::parse(text, &|_| None) else { continue };
        let fits = (!template.uses_timestamp() || scheme.timestamp.is_some())
            && (!template.uses_id() || scheme.id.is_some());
        if fits && template != scheme.template && matches!(scheme.keys, Keys::Mac(_)) {
            let text = format!("`{text}` as the signed bytes: not the scheme of this rule");
            tries.push(Try { template: Some(template), ..Try::of("signed", text) });
        }
    }
}

fn times(scheme: &Scheme, tries: &mut Vec<Try>) {
    let Some(TimeRule { formats, .. }) = &scheme.timestamp else { return };
    for (other, name) in [
        (TimeFormat::Unix, "seconds"),
        (TimeFormat::UnixMillis, "milliseconds"),
        (TimeFormat::Rfc3339Utc, "RFC 3339"),
        (TimeFormat::HttpDate, "HTTP dates"),
    ] {
        if !formats.contains(&other) {
            let text = format!("a time that is written in {name}");
            tries.push(Try { time: Some(other), ..Try::of("time_unit", text) });
        }
    }
}

/// What stands before the signature: none, or another than the rule says.
fn prefixes(scheme: &Scheme, request: &Request, tries: &mut Vec<Try>) {
    let view = View::of(request);
    let mut prefixes = vec![String::new()];
    for location in &scheme.from {
        if let Ok(Some(value)) = location.find(view)
            && let Some(at) = value.iter().position(|byte| matches!(byte, b'=' | b' ' | b':'))
            && at <= 16
            && at + 1 < value.len()
            && let Ok(prefix) = std::str::from_utf8(&value[..=at])
        {
            prefixes.push(prefix.to_owned());
        }
    }
    prefixes.dedup();
    for prefix in prefixes {
        if *prefix != *scheme.form.prefix {
            let text = match prefix.as_str() {
                "" => format!("a signature without `{}` before it", scheme.form.prefix),
                prefix => format!("a signature with `{}` before it", printable(prefix.as_bytes(), 20)),
            };
            tries.push(Try { prefix: Some(prefix), ..Try::of("prefix", text) });
        }
    }
}
