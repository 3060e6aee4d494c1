//! What is tried when a signature is wrong: other keys, other bases, another way of writing the signature, as people get
//! them wrong, each with the words for it.

use std::borrow::Cow;

use super::base;
use super::explain::{key_name, quoted};
use super::fields::Input;
use super::{HttpSignature, Key, Material, mac_of};
use crate::clock::Timestamp;
use crate::secret::same;
use crate::verify::encoding::decode_base64_secret;
use crate::verify::explain::{Asked, Likely, tries};
use crate::verify::mac::{Hash, MacKey};
use crate::verify::public_key::{Asymmetric, PublicKey};
use crate::verify::scheme::Labelled;
use crate::verify::url;

/// Something that may be otherwise than it seems. The first of each kind is as it seems, and has no code.
struct Try<T> {
    code: &'static str,
    /// Completes "the signature is right for …".
    text: String,
    value: T,
}

impl<T> Try<T> {
    fn new(code: &'static str, text: impl Into<String>, value: T) -> Self {
        Self { code, text: text.into(), value }
    }
}

/// A key that may have signed.
enum Signer<'k> {
    Own(&'k Key),
    Public(PublicKey),
    Shared(Box<MacKey>),
}

impl Signer<'_> {
    fn verifies(&self, base: &[u8], signature: &[u8]) -> bool {
        match self {
            Signer::Own(key) => key.verifies(base, signature),
            Signer::Public(key) => key.verifies(base, signature),
            Signer::Shared(mac) => same(&mac_of(mac, base), signature),
        }
    }
}

/// The mistake (or the two or three at once) with which, undone, the signature is right.
pub(super) fn found(
    rule: &HttpSignature,
    input: &Input<'_>,
    signature: &[u8],
    asked: &Asked<'_>,
) -> Option<Likely> {
    let keys = keys(rule, input, asked);
    let bases = bases(input, asked);
    let forms = forms(signature);
    // The fewest at once first: every kind's first is what it seems.
    for mistakes in 1..=3 {
        for key in &keys {
            for base in &bases {
                for form in &forms {
                    let texts: Vec<&str> =
                        [(key.code, &key.text), (base.code, &base.text), (form.code, &form.text)]
                            .into_iter()
                            .filter(|(code, _)| !code.is_empty())
                            .map(|(_, text)| text.as_str())
                            .collect();
                    if texts.len() == mistakes && key.value.verifies(&base.value, &form.value) {
                        let code =
                            [key.code, base.code, form.code].into_iter().find(|code| !code.is_empty())?;
                        return Some(Likely::new(
                            code,
                            format!("the signature is right for {}", texts.join(", and ")),
                        ));
                    }
                }
            }
        }
    }
    None
}

fn keys<'k>(rule: &'k HttpSignature, input: &Input<'_>, asked: &Asked<'_>) -> Vec<Try<Signer<'k>>> {
    let mut tries: Vec<Try<Signer<'k>>> = Vec::new();
    let meant: Vec<&Labelled<Key>> = rule.fitting(input, asked.now).collect();
    for key in &rule.keys {
        let is_meant = meant.iter().any(|one| std::ptr::eq(*one, key));
        let (code, text) = if is_meant { ("", String::new()) } else { not_meant(key, input, asked.now) };
        tries.push(Try::new(code, text, Signer::Own(&key.value)));
    }
    for key in &rule.keys {
        let Material::Public(public) = &key.value.material else { continue };
        for other in public.otherwise_used() {
            let (code, text) = other_use(key, public.algorithm(), other.algorithm());
            tries.push(Try::new(code, text, Signer::Public(other)));
        }
    }
    let mut shared = |code, text: String, hash, secret: &[u8]| {
        if let Some(mac) = MacKey::new(hash, secret) {
            tries.push(Try::new(code, text, Signer::Shared(Box::new(mac))));
        }
    };
    for secret in &rule.given {
        let which = match &secret.label {
            Some(label) => format!("the secret {}", quoted(label)),
            None => "the secret".to_owned(),
        };
        let given = secret.value.expose();
        for (code, form, how) in tries::forms(given) {
            shared(code, format!("{which} {how}"), Hash::Sha256, &form);
        }
        for hash in Hash::ALL.iter().copied().filter(|hash| *hash != Hash::Sha256) {
            let text = format!("{which} with HMAC-{} in the place of hmac-sha256", hash.name());
            shared("hash", text.clone(), hash, given);
            if let Some(decoded) = decode_base64_secret(given.trim_ascii()) {
                shared("hash", text, hash, &decoded);
            }
        }
    }
    for other in asked.foreign {
        let given = other.secret.expose();
        let text = || format!("the secret of the route {}", quoted(other.route));
        shared("other_route", text(), Hash::Sha256, given);
        if let Some(decoded) = decode_base64_secret(given.trim_ascii()) {
            shared("other_route", text(), Hash::Sha256, &decoded);
        }
    }
    tries
}

/// Why a key of the rule is not one that the signature may be by.
fn not_meant(key: &Labelled<Key>, input: &Input<'_>, now: Timestamp) -> (&'static str, String) {
    let name = key_name(key);
    if !key.window.is_open(now) {
        return ("key_window", format!("the key {name}, which is outside of its `from` and `until`"));
    }
    match (&input.algorithm, &input.key_id) {
        (Some(algorithm), _) if algorithm != key.value.algorithm => {
            let text =
                format!("the key {name}, though the signature calls its algorithm {}", quoted(algorithm));
            ("algorithm", text)
        }
        (_, Some(id)) => {
            ("other_key", format!("the key {name}, though the signature names the key {}", quoted(id)))
        }
        (_, None) => ("other_key", format!("the key {name}")),
    }
}

/// What it means that a key is used with another algorithm.
fn other_use(key: &Labelled<Key>, own: Asymmetric, other: Asymmetric) -> (&'static str, String) {
    use Asymmetric::{EcdsaP256Sha256, EcdsaP256Sha256Fixed, EcdsaP384Sha384, EcdsaP384Sha384Fixed};
    let name = key_name(key);
    match (own, other) {
        (EcdsaP256Sha256Fixed, EcdsaP256Sha256) | (EcdsaP384Sha384Fixed, EcdsaP384Sha384) => (
            "ecdsa_form",
            format!(
                "the key {name}, but written as ASN.1 (DER): RFC 9421 has `r` and `s` side by side, and the sender must \
                 write them so"
            ),
        ),
        _ => ("algorithm", format!("the key {name} used with {other:?}: not the algorithm of the rule")),
    }
}

/// The signature as it may have been before it was written.
fn forms(signature: &[u8]) -> Vec<Try<Vec<u8>>> {
    let mut tries = vec![Try::new("", "", signature.to_vec())];
    if let Ok(bytes) = hex::decode(signature) {
        tries.push(Try::new(
            "encoding",
            "a signature that was written in hex before it was written in base64",
            bytes,
        ));
    }
    if let Some(bytes) = decode_base64_secret(signature) {
        tries.push(Try::new("encoding", "a signature that was written in base64 twice", bytes));
    }
    tries
}

/// The signature base as the sender may have made it.
fn bases(input: &Input<'_>, asked: &Asked<'_>) -> Vec<Try<Vec<u8>>> {
    let Asked { request, public_url, .. } = *asked;
    let mut tries: Vec<Try<Vec<u8>>> = Vec::new();
    let mut add = |code, text: &str, base: Option<Vec<u8>>| {
        if let Some(base) = base
            && tries.iter().all(|known| known.value != base)
        {
            tries.push(Try::new(code, text, base));
        }
    };
    let own = base::of(input, request, public_url).ok();
    add("", "", own.clone());
    let mut addresses = Vec::new();
    tries::addresses(asked, &mut addresses);
    for one in addresses {
        let Some((target, url)) = &one.address else { continue };
        let mut moved = Cow::Borrowed(request);
        moved.to_mut().head.target.clone_from(target);
        add(one.code, &one.text, base::of(input, &moved, Some(url)).ok());
    }
    let url = url::public(&request.head, public_url);
    let mut changed = |code, text: &str, name: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let base = base::with(input, |component, base| {
            let mut value = Vec::new();
            base::value(component, request, &url, &mut value)?;
            if component.name == name {
                change(&mut value);
            }
            base.extend_from_slice(&value);
            Ok(())
        });
        add(code, text, base.ok());
    };
    let port = request.head.scheme.default_port();
    let text = "the `@authority` with its port written out, which RFC 9421 leaves out";
    changed("url_port", text, "@authority", &|value| value.extend_from_slice(format!(":{port}").as_bytes()));
    let authority =
        url.split_once("://").map_or("", |(_, rest)| rest.split(['/', '?']).next().unwrap_or(rest));
    let text = "the `@authority` in the case in which it was sent, not in lower case";
    changed("authority_case", text, "@authority", &|value| *value = authority.into());
    let text = "the host of `public_url` in the header `host`, which was changed on its way";
    changed("url_public", text, "host", &|value| *value = authority.into());
    let text = "a `@query` without the `?` that belongs to it";
    changed("query_mark", text, "@query", &|value| {
        value.remove(0);
    });
    let text = "the whole target in `@path`: its query does not belong there";
    changed("path_query", text, "@path", &|value| *value = request.head.target.clone().into());
    let text = "the method in lower case";
    changed("method_case", text, "@method", &|value| value.make_ascii_lowercase());
    let length = request.body.len().to_string();
    let text = "the length of the body in `content-length`, which was changed on its way";
    changed("content_length", text, "content-length", &|value| *value = length.clone().into());
    if let Some(mut base) = own {
        base.push(b'\n');
        add(
            "base_newline",
            "a signature base with a newline at its end, which does not belong there",
            Some(base),
        );
    }
    tries
}
