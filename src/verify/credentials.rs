//! Fixed credentials that come with each request: API keys, bearer tokens, HTTP basic. Kept and compared as SHA-256
//! digests, so that neither length nor content shows in the time that a comparison takes.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::draft;
use super::locate::{Location, View};
use super::mac::Hash;
use super::refusal::{Refusal, at};
use super::scheme::{Labelled, Match, live};
use super::sign::SignError;
use crate::clock::Timestamp;
use crate::message::Request;
use crate::reason::Reason;
use crate::secret::{Secret, same};

/// A compiled rule about fixed credentials.
#[derive(Debug)]
pub(super) struct Credentials {
    pub(super) at: Location,
    pub(super) dress: Dress,
    pub(super) keys: Vec<Labelled<Credential>>,
}

/// How the credential is dressed where it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dress {
    /// As it is.
    Bare,
    /// `Bearer TOKEN`.
    Bearer,
    /// `Basic base64(name:password)`; a credential is then `name:password`, where only the password may be known
    /// by its digest.
    Basic,
}

/// A live credential.
#[derive(Debug)]
pub(super) struct Credential {
    /// The user's name, for basic authentication.
    user: Option<Box<str>>,
    digest: [u8; 32],
    /// `None` if only the digest is known.
    plain: Option<Secret>,
}

impl Credential {
    /// A credential as it is, or as `sha256:` with its digest in hex.
    pub(super) fn new(user: Option<&str>, secret: &Secret) -> Result<Self, String> {
        let text = secret.expose();
        let mut digest = [0; 32];
        let plain = match text.strip_prefix(b"sha256:") {
            Some(hex) => {
                hex::decode_to_slice(hex, &mut digest)
                    .map_err(|_| "`sha256:` must be followed by 64 hex digits".to_owned())?;
                None
            }
            None => {
                digest.copy_from_slice(Hash::Sha256.of(text).as_bytes());
                Some(secret.clone())
            }
        };
        Ok(Self { user: user.map(Into::into), digest, plain })
    }

    fn is(&self, user: Option<&[u8]>, digest: &[u8]) -> bool {
        let user_fits = match (&self.user, user) {
            (Some(ours), Some(sent)) => {
                same(Hash::Sha256.of(ours.as_bytes()).as_bytes(), Hash::Sha256.of(sent).as_bytes())
            }
            (None, None) => true,
            _ => false,
        };
        // Both are compared, whatever the first says.
        user_fits & same(&self.digest, digest)
    }
}

impl Credentials {
    pub(super) fn check(&self, request: &Request, now: Timestamp) -> Result<Match, Refusal> {
        let missing =
            || Refusal::new(Reason::CredentialsMissing, format!("{} holds no credentials", self.at));
        let value = at(&self.at, self.at.find(View::of(request)))?.ok_or_else(missing)?;
        let wrong = |detail: &str| Refusal::new(Reason::CredentialsInvalid, format!("{} {detail}", self.at));
        let decoded;
        let (user, secret) = match self.dress {
            Dress::Bare => (None, &*value),
            Dress::Bearer => (None, after_scheme(&value, "bearer").ok_or_else(missing)?),
            Dress::Basic => {
                let text = after_scheme(&value, "basic").ok_or_else(missing)?;
                decoded = STANDARD.decode(text).map_err(|_| wrong("is not base64"))?;
                let colon = decoded.iter().position(|b| *b == b':').ok_or_else(|| wrong("has no `:`"))?;
                (Some(&decoded[..colon]), &decoded[colon + 1..])
            }
        };
        if secret.is_empty() && self.dress != Dress::Basic {
            return Err(missing());
        }
        let digest = Hash::Sha256.of(secret);
        let mut matched = None;
        // All that are live are compared, whichever matches: which one it is does not show either.
        for one in live(&self.keys, now) {
            if one.value.is(user, digest.as_bytes()) {
                matched = Some(&one.label);
            }
        }
        matched.cloned().ok_or_else(|| {
            wrong(&format!("does not match any of {} live credential(s)", live(&self.keys, now).count()))
        })
    }

    /// Whether those who hold these may be several: users, or keys that are called differently.
    pub(super) fn has_several_holders(&self) -> bool {
        self.keys.windows(2).any(|two| two[0].label != two[1].label)
    }

    /// The credentials that are known by more than their digests.
    pub(super) fn plain(&self) -> impl Iterator<Item = &Secret> {
        self.keys.iter().filter_map(|one| one.value.plain.as_ref())
    }

    /// `request` with the first credential.
    pub(super) fn sign(&self, request: &Request, now: Timestamp) -> Result<Request, SignError> {
        let mut request = request.clone();
        draft::put(&mut request, &self.at, &[self.first(now).map_err(SignError::Impossible)?])?;
        Ok(request)
    }

    /// The first credential as it is sent, or why there is none.
    fn first(&self, now: Timestamp) -> Result<String, &'static str> {
        let first = live(&self.keys, now).next().ok_or("no credential is live")?;
        let plain = first.value.plain.as_ref().ok_or("only the credential's digest is known")?;
        let plain = std::str::from_utf8(plain.expose()).map_err(|_| "the credential is not text")?;
        Ok(match self.dress {
            Dress::Bare => plain.to_owned(),
            Dress::Bearer => format!("Bearer {plain}"),
            Dress::Basic => {
                let user = first.value.user.as_deref().unwrap_or_default();
                format!("Basic {}", STANDARD.encode(format!("{user}:{plain}")))
            }
        })
    }
}

/// What follows an authentication scheme's name (in any case) and one or more spaces.
pub(super) fn after_scheme<'v>(value: &'v [u8], scheme: &str) -> Option<&'v [u8]> {
    let (name, rest) = value.split_at_checked(scheme.len())?;
    if !name.eq_ignore_ascii_case(scheme.as_bytes()) {
        return None;
    }
    match rest {
        [] => Some(rest),
        [b' ', ..] => Some(rest.trim_ascii()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::testing::request;
    use crate::verify::window::Window;

    fn rule(place: &str, dress: Dress, live: &[(Option<&str>, &str)]) -> Credentials {
        let keys = live
            .iter()
            .map(|(user, secret)| Labelled {
                value: Credential::new(*user, &Secret::new(secret.as_bytes().to_vec())).unwrap(),
                label: user.map(Into::into),
                window: Window::default(),
            })
            .collect();
        Credentials { at: Location::parse(place).unwrap(), dress, keys }
    }

    fn reason(rule: &Credentials, r: &Request) -> Result<Match, Reason> {
        rule.check(r, Timestamp(0)).map_err(|refusal| refusal.reason)
    }

    #[test]
    fn any_live_key_is_right_as_given_or_by_its_digest() {
        let digest = format!("sha256:{}", hex::encode(Hash::Sha256.of(b"two").as_bytes()));
        let rule = rule("header:X-Api-Key", Dress::Bare, &[(None, "one"), (None, &digest)]);
        for (sent, right) in
            [("one", true), ("two", true), ("on", false), ("one ", true), ("One", false), (&digest, false)]
        {
            assert_eq!(
                rule.check(&request("/", &[("x-api-key", sent)], b""), Timestamp(0)).is_ok(),
                right,
                "{sent}"
            );
        }
        assert_eq!(reason(&rule, &request("/", &[], b"")), Err(Reason::CredentialsMissing));
        assert_eq!(reason(&rule, &request("/", &[("x-api-key", "")], b"")), Err(Reason::CredentialsMissing));
        let twice = request("/", &[("x-api-key", "one"), ("X-Api-Key", "x")], b"");
        assert_eq!(reason(&rule, &twice), Err(Reason::AmbiguousRequest));
        assert!(Credential::new(None, &Secret::new(b"sha256:12".to_vec())).is_err());
    }

    #[test]
    fn a_key_in_the_query_is_decoded() {
        let rule = rule("query:key", Dress::Bare, &[(None, "a b+c")]);
        assert!(rule.check(&request("/?key=a+b%2Bc", &[], b""), Timestamp(0)).is_ok());
        assert_eq!(reason(&rule, &request("/?key=a+b%2Bc&key=x", &[], b"")), Err(Reason::AmbiguousRequest));
    }

    #[test]
    fn basic_names_the_user_and_wants_both_right() {
        let rule = rule("header:authorization", Dress::Basic, &[(Some("ann"), "p:w"), (Some("bob"), "x")]);
        let send = |text: &str| {
            let value = format!("Basic {}", STANDARD.encode(text));
            reason(&rule, &request("/", &[("Authorization", &value)], b""))
        };
        assert_eq!(send("ann:p:w"), Ok(Some("ann".into())));
        assert_eq!(send("bob:x"), Ok(Some("bob".into())));
        for wrong in ["ann:x", "bob:p:w", "ann:", "ann", ":p:w", ""] {
            assert_eq!(send(wrong), Err(Reason::CredentialsInvalid), "{wrong}");
        }
        for missing in ["Bearer x", "Basicx", ""] {
            let r = request("/", &[("Authorization", missing)], b"");
            assert_eq!(reason(&rule, &r), Err(Reason::CredentialsMissing), "{missing}");
        }
    }

    #[test]
    fn what_is_signed_is_right() {
        for rule in [
            rule("header:x-key", Dress::Bare, &[(None, "k")]),
            rule("query:key", Dress::Bare, &[(None, "k&+")]),
            rule("header:authorization", Dress::Bearer, &[(None, "k")]),
            rule("header:authorization", Dress::Basic, &[(Some("u"), "k")]),
        ] {
            assert!(
                rule.check(&rule.sign(&request("/", &[], b""), Timestamp(0)).unwrap(), Timestamp(0)).is_ok()
            );
        }
    }
}
