//! How requests to an app are rewritten and signed.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::Uri;
use regex::RegexBuilder;

use super::Checker;
use super::destinations::Pem;
use crate::config::is_loopback;
use crate::config::place::Place;
use crate::config::raw::{self, SignScheme};
use crate::config::sign::{HmacTemplate, MacEncoding, MacHash, OAuth2, Part, PathRewrite, Sign};
use crate::secret::Secret;
use crate::verify::Resolver;

/// Memory of one compiled regex, in bytes.
const MAX_REGEX: usize = 1 << 20;

impl Checker<'_, '_> {
    /// `None` if nothing is signed, or with a problem reported.
    pub(super) fn sign(
        &mut self,
        raw: Option<&raw::Sign>,
        destination: &Place,
        mode: raw::Mode,
    ) -> Option<Sign> {
        let raw = raw?;
        let place = destination.key("sign");
        self.strangers(raw, &place);
        let secret = match self.references.secret(&raw.secret) {
            Ok(secret) => Some(secret),
            Err(problem) => {
                self.error(&place.key("secret"), problem, "write `env:NAME` or `file:PATH`");
                None
            }
        };
        self.warn_of_inline_secrets(&place);
        let sign = match raw.scheme {
            SignScheme::StandardWebhooks => self.standard(secret?, &place),
            SignScheme::Hmac => self.hmac(raw, secret, &place).map(Sign::Hmac),
            SignScheme::Basic => {
                let user = self.needed(raw.user.as_deref(), "user", &place)?;
                if user.contains(':') {
                    self.error(&place.key("user"), "a user has no colon", "the password is the `secret`");
                }
                let pair = zeroize::Zeroizing::new([user.as_bytes(), b":", secret?.expose()].concat());
                Some(Sign::Authorization(Secret::new(
                    format!("Basic {}", STANDARD.encode(&*pair)).into_bytes(),
                )))
            }
            SignScheme::Bearer => {
                let secret = secret?;
                if !secret.expose().iter().all(u8::is_ascii_graphic) {
                    self.error(
                        &place.key("secret"),
                        "a bearer token has no spaces or line feeds",
                        "look at the file",
                    );
                }
                Some(Sign::Authorization(Secret::new([b"Bearer ", secret.expose()].concat())))
            }
            SignScheme::Oauth2 => self.oauth2(raw, secret, &place).map(Sign::OAuth2),
        }?;
        if mode == raw::Mode::Pass && sign.covers_body() {
            let help = "a `pass` route streams: use `basic`, `bearer` or `oauth2`, or `mode: proxy`";
            self.error(&place.key("scheme"), "this scheme signs the whole body", help);
        }
        Some(sign)
    }

    /// Keys of other schemes are slips.
    fn strangers(&mut self, raw: &raw::Sign, place: &Place) {
        let (hmac, basic, oauth2) = (SignScheme::Hmac, SignScheme::Basic, SignScheme::Oauth2);
        for (key, written, of) in [
            ("signed", raw.signed.is_some(), hmac),
            ("header", raw.header.is_some(), hmac),
            ("prefix", raw.prefix.is_some(), hmac),
            ("hash", raw.hash.is_some(), hmac),
            ("encoding", raw.encoding.is_some(), hmac),
            ("timestamp_header", raw.timestamp_header.is_some(), hmac),
            ("user", raw.user.is_some(), basic),
            ("token_url", raw.token_url.is_some(), oauth2),
            ("ca", raw.ca.is_some(), oauth2),
            ("client_id", raw.client_id.is_some(), oauth2),
            ("scope", raw.scope.is_some(), oauth2),
            ("audience", raw.audience.is_some(), oauth2),
        ] {
            if written && raw.scheme != of {
                let message = format!("`{key}` belongs to another scheme");
                self.error(&place.key(key), message, "remove it, or change the `scheme`");
            }
        }
    }

    fn needed<'t>(&mut self, text: Option<&'t str>, key: &str, place: &Place) -> Option<&'t str> {
        if text.is_none_or(str::is_empty) {
            let message = format!("the key `{key}` is missing");
            self.error(&place.key(key), message, "the scheme needs it");
        }
        text.filter(|text| !text.is_empty())
    }

    fn standard(&mut self, secret: Secret, place: &Place) -> Option<Sign> {
        let text = std::str::from_utf8(secret.expose()).unwrap_or_default();
        match STANDARD.decode(text.strip_prefix("whsec_").unwrap_or(text)) {
            Ok(key) if !key.is_empty() => Some(Sign::StandardWebhooks(Secret::new(key))),
            _ => {
                let help = "Standard Webhooks secrets are `whsec_` and base64";
                self.error(&place.key("secret"), "the secret is not base64", help);
                None
            }
        }
    }

    fn hmac(&mut self, raw: &raw::Sign, secret: Option<Secret>, place: &Place) -> Option<HmacTemplate> {
        let header = raw.header.clone().unwrap_or_else(|| "X-Signature".into());
        self.header_name(&header, &place.key("header"));
        if let Some(name) = &raw.timestamp_header {
            self.header_name(name, &place.key("timestamp_header"));
        }
        let prefix = raw.prefix.clone().unwrap_or_default();
        if !prefix.bytes().all(|b| (b' '..=b'~').contains(&b)) {
            self.error(&place.key("prefix"), "the prefix holds control characters", "write `sha256=`");
        }
        let signed = match Part::parse(raw.signed.as_deref().unwrap_or("{body}")) {
            Ok(parts) => parts,
            Err(problem) => {
                self.error(&place.key("signed"), problem, "write `{timestamp}.{body}`");
                return None;
            }
        };
        if !signed.contains(&Part::Body) {
            self.error(&place.key("signed"), "the body is not signed", "add `{body}`");
        }
        if signed.contains(&Part::Timestamp) != raw.timestamp_header.is_some() {
            let help = "`{timestamp}` in `signed` and `timestamp_header` go together";
            self.error(&place.key("timestamp_header"), "the app could not check the time", help);
        }
        Some(HmacTemplate {
            secret: secret?,
            hash: match raw.hash {
                None | Some(raw::SignHash::Sha256) => MacHash::Sha256,
                Some(raw::SignHash::Sha512) => MacHash::Sha512,
            },
            signed,
            header,
            prefix,
            encoding: match raw.encoding {
                None | Some(raw::SignEncoding::Hex) => MacEncoding::Hex,
                Some(raw::SignEncoding::Base64) => MacEncoding::Base64,
            },
            timestamp_header: raw.timestamp_header.clone(),
        })
    }

    fn oauth2(&mut self, raw: &raw::Sign, secret: Option<Secret>, place: &Place) -> Option<OAuth2> {
        let client_id = self.needed(raw.client_id.as_deref(), "client_id", place).map(str::to_owned);
        let url = self.needed(raw.token_url.as_deref(), "token_url", place)?;
        let at = place.key("token_url");
        let token_url = url.parse::<Uri>().ok().filter(|uri| match uri.scheme_str() {
            Some("https") => uri.host().is_some_and(|host| !host.is_empty()),
            Some("http") => uri.host().is_some_and(is_loopback),
            _ => false,
        });
        if token_url.is_none() {
            let help = "write `https://id.example.com/oauth/token` (over http only from a loopback address)";
            self.error(&at, format!("`{url}` is no URL that a secret may be sent to"), help);
        }
        if let Some(ca) = &raw.ca {
            self.pem(ca, &place.key("ca"), Pem::Certificates);
        }
        Some(OAuth2 {
            token_url: token_url?,
            ca: raw.ca.as_ref().map(|path| self.references.path(path)),
            client_id: client_id?,
            secret: secret?,
            scope: raw.scope.clone(),
            audience: raw.audience.clone(),
        })
    }

    pub(super) fn path_rewrite(
        &mut self,
        raw: Option<&raw::PathRewrite>,
        destination: &Place,
        upstream: Option<&Uri>,
    ) -> Option<PathRewrite> {
        let raw = raw?;
        let place = destination.key("path");
        if upstream.is_some_and(|uri| !matches!(uri.path(), "" | "/")) {
            self.error(&place, "the URL has a path already, which the app gets", "keep one of them");
        }
        let (matches, to) = (place.key("match"), place.key("to"));
        let good = |b: u8| (b'!'..=b'~').contains(&b) && !matches!(b, b'?' | b'#');
        if !raw.to.starts_with('/') || !raw.to.bytes().all(good) {
            let help = "a path begins with `/` and has no query: `/v2/$1`";
            self.error(&to, format!("`{}` is not a path", raw.to), help);
        }
        let anchored = format!("^(?:{})$", raw.matches);
        let pattern = RegexBuilder::new(&anchored).size_limit(MAX_REGEX).dfa_size_limit(MAX_REGEX).build();
        let Ok(pattern) = pattern else {
            let help = "look-around and back-references can't be matched in linear time, and are not known";
            self.error(&matches, format!("`{}` is not a regex", raw.matches), help);
            return None;
        };
        for name in groups(&raw.to) {
            let known = match name.parse::<usize>() {
                Ok(number) => number < pattern.captures_len(),
                Err(_) => pattern.capture_names().flatten().any(|known| known == name),
            };
            if !known {
                let help = "write `$1` for the first group; where letters follow, `${1}`";
                self.error(&to, format!("`match` has no group `{name}`"), help);
            }
        }
        Some(PathRewrite { pattern, to: raw.to.clone() })
    }
}

/// The names of the groups that a replacement uses, as the regex crate reads them.
fn groups(to: &str) -> Vec<&str> {
    let mut names = Vec::new();
    for (at, _) in to.match_indices('$') {
        let rest = &to[at + 1..];
        let name = match rest.strip_prefix('{') {
            Some(inside) => inside.split('}').next().unwrap_or_default(),
            None => {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                &rest[..end]
            }
        };
        names.push(name);
    }
    names
}
