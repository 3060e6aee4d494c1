//! What people get wrong about HTTP message signatures: everything that is wrong with the signature that is nearest to
//! right, the likeliest cause first, and what would make it right.

use super::base::{self, Unsigned};
use super::explain::{Field, Seen, algorithms, covers_digest, digests, hash, quoted};
use super::fields::Input;
use super::tries;
use super::{DIGEST, HttpSignature, check_digest};
use crate::clock::Timestamp;
use crate::message::Request;
use crate::reason::Reason;
use crate::verify::Refusal;
use crate::verify::explain::{Asked, Likely, bodies, tries::header_alike};
use crate::verify::mac::Hash;
use crate::verify::time::distance;

/// Times from here on (the year 5138) are no seconds.
const NO_SECONDS: u64 = 100_000_000_000;

/// The likeliest mistakes behind `refusal`.
pub(super) fn likely(
    rule: &HttpSignature,
    refusal: &Refusal,
    seen: &Seen<'_>,
    asked: &Asked<'_>,
) -> Vec<Likely> {
    if let Some(unreadable) = unreadable(seen, asked.request) {
        return vec![unreadable];
    }
    let nearest = |inputs: &mut dyn Iterator<Item = &Input<'_>>| {
        let faults = inputs.map(|input| faults(rule, input, seen, asked));
        faults.min_by_key(Vec::len)
    };
    let found = match nearest(&mut rule.looked_at(seen)) {
        Some(faults) => faults,
        None => {
            let labels: Vec<String> = seen.inputs.members().iter().map(|input| quoted(input.label)).collect();
            let wanted = rule.label.as_deref().map(quoted).unwrap_or_default();
            let others = nearest(&mut seen.inputs.members().iter()).unwrap_or_default();
            let right = if others.is_empty() { "; it would be right otherwise" } else { "" };
            let text = format!(
                "the rule's `label` is {wanted}, and the request's signature is called {}{right}: leave `label` out, \
                 unless several are sent",
                labels.join(", ")
            );
            std::iter::once(Likely::new("label", text)).chain(others).collect()
        }
    };
    if found.is_empty() {
        // It holds two headers that contradict, or something else that is not the signature's fault.
        return vec![Likely::new(
            "unknown",
            format!("nothing that was tried explains it: {}", refusal.detail),
        )];
    }
    found
}

/// Why there is nothing to look at.
fn unreadable(seen: &Seen<'_>, request: &Request) -> Option<Likely> {
    let headers = &request.head.headers;
    // The names of the two differ by one part, and neither is the other's misspelling.
    let alike = |wanted: &str| {
        header_alike(wanted, request).filter(|there| {
            !["signature", "signature-input"].iter().any(|known| there.eq_ignore_ascii_case(known))
        })
    };
    let holds = |name: &str, what: &str| {
        headers.all(name).any(|value| String::from_utf8_lossy(value).to_ascii_lowercase().contains(what))
    };
    let renamed = |wanted: &str| {
        let there = alike(wanted)?;
        let text = format!("the request has no `{wanted}`, but `{there}`: is that what holds it?");
        Some(Likely::new("header_name", text))
    };
    match (&seen.inputs, &seen.signatures) {
        (Field::Missing, _) if holds("signature", "keyid=") || holds("authorization", "signature keyid=") => {
            let text = "it is signed in the way of the older draft (`Signature: keyId=…,headers=…`), not of RFC 9421: that \
                        needs a scheme of its own";
            Some(Likely::new("other_scheme", text))
        }
        (Field::Missing, Field::Missing) => Some(renamed("signature-input").unwrap_or_else(|| {
            let text = "the request has neither `signature-input` nor `signature`: another provider, a request that was not \
                        sent by the provider at all, or a proxy that takes unknown headers away";
            Likely::new("unknown", text)
        })),
        (Field::Missing, _) => Some(renamed("signature-input").unwrap_or_else(|| {
            let text = "the request has a `signature`, but not the `signature-input` that says what it is over: a proxy \
                        takes it away, or it is of another scheme";
            Likely::new("header_missing", text)
        })),
        (_, Field::Missing) => Some(renamed("signature").unwrap_or_else(|| {
            let text = "the request has a `signature-input`, but no `signature`: a proxy takes it away";
            Likely::new("header_missing", text)
        })),
        (Field::Malformed, _) => {
            let text = if holds("signature-input", "created=\"") || holds("signature-input", "expires=\"") {
                "a time in `signature-input` is written in quotes: it is a number"
            } else if holds("signature-input", "keyid=") && !holds("signature-input", "keyid=\"") {
                "`keyid` in `signature-input` is written without the quotes that belong around it"
            } else {
                "`signature-input` is not written as RFC 9421 says: `sig1=(\"@method\" …);created=…;keyid=\"…\"`, each label \
                 and each component once"
            };
            Some(Likely::new("malformed", text))
        }
        (_, Field::Malformed) => {
            let text = "`signature` is not written as RFC 9421 says: `sig1=:BASE64:`, with the colons, in base64 with its \
                        padding (not base64url), each label once";
            Some(Likely::new("malformed", text))
        }
        (Field::Members(_), Field::Members(_)) => None,
    }
}

/// All that is wrong with one signature.
fn faults(rule: &HttpSignature, input: &Input<'_>, seen: &Seen<'_>, asked: &Asked<'_>) -> Vec<Likely> {
    let mut found: Vec<Likely> =
        rule.lacking(input).map(|id| not_covered(id, input, asked.request)).collect();
    if !rule.key_ids.is_empty() && !input.key_id.as_ref().is_some_and(|id| rule.key_ids.contains(id)) {
        let there = named("key", input.key_id.as_deref());
        let text = format!(
            "{there}, which is not among the rule's `key_ids`: a new key, or one of another environment"
        );
        found.push(Likely::new("key_id", text));
    }
    if rule.tag.is_some() && rule.tag != input.tag {
        let wanted = rule.tag.as_deref().map(quoted).unwrap_or_default();
        let text = format!(
            "{}, and the rule's is {wanted}: a signature for another purpose",
            named("tag", input.tag.as_deref())
        );
        found.push(Likely::new("tag", text));
    }
    match (base::of(input, asked.request, asked.public_url), seen.signature(input.label)) {
        (Err(why), _) => found.push(unsigned(&why, asked.request)),
        (Ok(_), None) => {
            let text = format!(
                "`signature` holds none of the label {}, which `signature-input` describes",
                quoted(input.label)
            );
            found.push(Likely::new("label", text));
        }
        (Ok(base), Some(signature)) => {
            if !rule.fitting(input, asked.now).any(|key| key.value.verifies(&base, signature)) {
                found.push(wrong_signature(rule, input, signature, asked));
            }
        }
    }
    if covers_digest(input) && check_digest(asked.request).is_err() && has(asked.request, DIGEST) {
        found.push(wrong_digest(asked.request));
    }
    let before = found.is_empty();
    found.extend(time(rule, input, asked.now, before));
    found
}

fn named(what: &str, found: Option<&str>) -> String {
    match found {
        Some(text) => format!("the signature names the {what} {}", quoted(text)),
        None => format!("the signature names no {what}"),
    }
}

fn not_covered(id: &str, input: &Input<'_>, request: &Request) -> Likely {
    let name = id.trim_matches('"');
    let same_name = |component: &&super::fields::Component<'_>| component.name == name && component.raw != id;
    if let Some(other) = input.components.iter().find(same_name) {
        let text = format!("the sender signs {} and the rule asks for {id}: not the same", other.raw);
        return Likely::new("not_covered", text);
    }
    let older = ["digest", "repr-digest"].iter().find(|older| name == DIGEST && has(request, older));
    let text = match (name, older) {
        (DIGEST, Some(older)) => format!(
            "the sender does not sign `content-digest` (RFC 9530), which the rule asks for; the request has the header \
             `{older}`, which is another"
        ),
        (DIGEST, None) => "the sender does not sign `content-digest`, so that nothing protects the body: have it signed (or, \
                           knowing this, write `unsigned_body: true`)"
            .to_owned(),
        _ => {
            let signs: Vec<&str> = input.components.iter().map(|component| component.raw).collect();
            format!(
                "the sender does not sign {id}, which the rule asks for (it signs {}): have it signed, or change the rule's \
                 `components`",
                if signs.is_empty() { "nothing".to_owned() } else { signs.join(", ") }
            )
        }
    };
    Likely::new("not_covered", text)
}

/// Why the bytes that were signed can't be put together.
fn unsigned(why: &Unsigned, request: &Request) -> Likely {
    match why {
        Unsigned::Unsupported(id) => Likely::new(
            "component_unsupported",
            format!("{id} is signed, which is not supported: have the sender leave it out"),
        ),
        Unsigned::Missing(id) => {
            let name = id.trim_matches('"');
            let older =
                ["digest", "repr-digest"].into_iter().find(|older| name == DIGEST && has(request, older));
            if let Some(older) = older {
                let text = format!("{id} is signed but not in the request, which has the header `{older}`");
                return Likely::new("header_name", text);
            }
            let text = if name.starts_with('@') {
                format!(
                    "{id} is signed, and the request has no such parameter: something on its way changed the query"
                )
            } else {
                match header_alike(name, request) {
                    Some(there) => {
                        let text =
                            format!("{id} is signed but not in the request, which has the header `{there}`");
                        return Likely::new("header_name", text);
                    }
                    None => {
                        format!("{id} is signed but not in the request: something on its way takes it off")
                    }
                }
            };
            Likely::new("component_missing", text)
        }
    }
}

fn wrong_signature(rule: &HttpSignature, input: &Input<'_>, signature: &[u8], asked: &Asked<'_>) -> Likely {
    if let Some(found) = tries::found(rule, input, signature, asked) {
        return found;
    }
    let known = algorithms(&rule.keys);
    if let Some(name) = input.algorithm.as_deref().filter(|name| !known.contains(name)) {
        let text = format!(
            "the sender signs with {}, and the rule's keys are for {}",
            quoted(name),
            known.join(", ")
        );
        return Likely::new("algorithm", text);
    }
    let changeable: Vec<&str> = input
        .components
        .iter()
        .filter(|component| !component.name.starts_with('@') && component.name != DIGEST)
        .map(|component| component.raw)
        .collect();
    let headers = match changeable.as_slice() {
        [] => String::new(),
        some => format!(", or one of the signed headers ({}) that was changed on its way", some.join(", ")),
    };
    let key = match (rule.given.is_empty(), &input.key_id) {
        (false, _) => {
            "another secret (of another endpoint, an old one, or of the provider's test mode)".to_owned()
        }
        (true, Some(id)) => {
            format!("a public key that is not that of {} (an old one, or of another environment)", quoted(id))
        }
        (true, None) => "a public key of another environment, or an old one".to_owned(),
    };
    Likely::new(
        "unknown",
        format!("nothing that was tried makes the signature right: most likely {key}{headers}"),
    )
}

/// Why the digest is not the body's.
fn wrong_digest(request: &Request) -> Likely {
    let body = &request.body[..];
    let digests = digests(&request.head.headers);
    if matches!(digests, Field::Malformed) {
        let text = "`content-digest` is not written as RFC 9530 says: `sha-256=:BASE64:`, with the colons";
        return Likely::new("malformed", text);
    }
    let known: Vec<(Hash, &[u8])> =
        digests.members().iter().filter_map(|(name, sent)| Some((hash(name)?, sent.as_slice()))).collect();
    if known.is_empty() {
        return Likely::new(
            "hash",
            "`content-digest` holds neither sha-256 nor sha-512, which are the ones that are known",
        );
    }
    let (right, wrong): (Vec<_>, Vec<_>) =
        known.iter().partition(|(hash, sent)| hash.of(body).as_bytes() == *sent);
    if let (Some((right, _)), Some((wrong, _))) = (right.first(), wrong.first()) {
        let text = format!(
            "the {} in `content-digest` is the body's, its {} is not: the sender writes it wrongly",
            right.name(),
            wrong.name()
        );
        return Likely::new("digest_form", text);
    }
    let right = |body: &[u8]| known.iter().all(|(hash, sent)| hash.of(body).as_bytes() == *sent);
    if let Some(other) = bodies::others(body).into_iter().find(|other| right(&other.body)) {
        let differs = bodies::difference(body, &other.body, 0);
        return Likely::new(other.code, format!("the digest is right for {}{differs}", other.text));
    }
    for (named, sent) in &known {
        for hash in [*named].iter().chain(Hash::ALL) {
            let own = hash.of(body);
            let written_in_hex = hex::encode(own.as_bytes());
            if own.as_bytes() == *sent
                || written_in_hex.as_bytes() == *sent
                || hex_as_base64(&written_in_hex) == *sent
            {
                let text = format!(
                    "`content-digest` is the body's {} in another form or under another name: it must be the {} itself, \
                     in base64",
                    hash.name(),
                    named.name()
                );
                return Likely::new("digest_form", text);
            }
        }
    }
    let encoded = match request.head.headers.contains("content-encoding") {
        true => {
            " (its `content-encoding` says that it was compressed: the digest is that of the compressed bytes)"
        }
        false => "",
    };
    let text = format!(
        "the body is not the one whose digest the request carries: changed on its way{encoded}, or another request's"
    );
    Likely::new("body", text)
}

/// What one gets who writes hex where base64 belongs.
fn hex_as_base64(hex: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(hex).unwrap_or_default()
}

/// What is wrong with its times. `only`: nothing else is wrong.
fn time(rule: &HttpSignature, input: &Input<'_>, now: Timestamp, only: bool) -> Option<Likely> {
    let refusal = rule.check_times(input, now).err()?;
    debug_assert_eq!(refusal.reason, Reason::TimestampOutOfTolerance);
    let Some(created) = input.created else {
        let text = "the signature has no `created`, without which it could be sent again for ever: have the sender set it";
        return Some(Likely::new("created_missing", text));
    };
    if created >= NO_SECONDS || input.expires.is_some_and(|at| at >= NO_SECONDS) {
        let text = "`created` or `expires` is written in milliseconds: they are in seconds";
        return Some(Likely::new("time_unit", text));
    }
    let created = Timestamp::from_secs(created);
    let what = match input.expires.map(Timestamp::from_secs) {
        Some(expires) if expires < now && distance(created, now) <= rule.tolerance => {
            format!("it expired {} s ago", distance(expires, now).as_secs())
        }
        _ => {
            let side = if created < now { "ago" } else { "in the future" };
            format!("it was made {} s {side}", distance(created, now).as_secs())
        }
    };
    Some(Likely::new(
        "clock",
        match only {
            true => format!(
                "the signature is right, only its time is not ({what}): sent or captured longer ago than {} s, sent again, \
                 or a clock that is wrong",
                rule.tolerance.as_secs()
            ),
            false => format!("its time is off, too: {what}"),
        },
    ))
}

fn has(request: &Request, header: &str) -> bool {
    request.head.headers.contains(header)
}
