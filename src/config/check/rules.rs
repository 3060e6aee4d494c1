//! How a route's senders prove who they are: from `provider`/`secret` or `verify` to a rule that may run.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::Checker;
use super::tenants::OfRoute;
use crate::config::place::Place;
use crate::config::raw;
use crate::config::units::Time;
use crate::providers::{self, Pack};
use crate::verify::{self, Compiled, Expiry, OpenBorder, SpecProblem, VerifySpec};

/// A route's rule, and what else the checks want to know of it.
pub(super) struct Proof<'c> {
    pub compiled: Compiled,
    /// What it refers to, which may depend on who sends.
    pub references: OfRoute<'c>,
    /// The rule as written.
    pub spec: VerifySpec,
    kind: Kind,
    /// The longest tolerance that is written in it.
    pub tolerance: Option<Duration>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `verify: none`, or a pass route.
    None,
    Rule,
}

impl Proof<'_> {
    /// Whether the route asks for no proof at all.
    pub fn is_none(&self) -> bool {
        self.kind == Kind::None
    }
}

/// Whether a route may have no key yet.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Keys {
    Needed,
    /// `handshake: show`: the sender's greeting will bring it.
    Awaited,
}

impl Keys {
    fn of(raw: &raw::Route) -> Self {
        match raw.handshake {
            Some(raw::Handshake::Word(raw::HandshakeWord::Show)) => Keys::Awaited,
            _ => Keys::Needed,
        }
    }
}

/// A rule that may run, as written, and what it refers to.
type Ready<'c> = (Compiled, VerifySpec, OfRoute<'c>);

/// Where the parts of a rule are written.
enum Form<'a> {
    /// `provider` and `secret`/`secrets`.
    Short(&'a raw::Route),
    /// Under this key.
    Long(Place),
}

impl<'c> Checker<'c, '_> {
    /// `None` only with a problem reported.
    pub(super) fn proof(&mut self, raw: &raw::Route, place: &Place) -> Option<Proof<'c>> {
        if raw.mode == raw::Mode::Pass {
            for (key, written) in [
                ("verify", raw.verify.is_some()),
                ("provider", raw.provider.is_some()),
                ("secret", raw.secret.is_some()),
                ("secrets", raw.secrets.is_some()),
            ] {
                if written {
                    let message = format!("`{key}` has no effect on a `pass` route, which never verifies");
                    self.error(&place.key(key), message, "use `mode: proxy` to verify and forward inline");
                }
            }
            return self.none(raw, place);
        }
        if let (Some(_), Some(_)) = (&raw.provider, &raw.verify) {
            let help =
                "keep one: `provider` with `secret` is short for `verify: { provider: …, secrets: […] }`";
            self.error(&place.key("provider"), "both `provider` and `verify` are given", help);
            return None;
        }
        match (&raw.provider, &raw.verify) {
            (Some(provider), _) => self.short(raw, provider, place),
            (None, Some(verify)) => {
                self.lonely_secrets(raw, place, "write it as `secrets` under `verify`");
                self.long(raw, &verify.0, place)
            }
            (None, None) => {
                self.lonely_secrets(raw, place, "add `provider: NAME`, such as `provider: github`");
                let message = "the route says nothing about who may send";
                let help = "add `provider: NAME` with `secret: env:NAME`, or a `verify` rule; to take requests from \
                            anyone, write `verify: none`";
                self.error(place, message, help);
                None
            }
        }
    }

    fn lonely_secrets(&mut self, raw: &raw::Route, place: &Place, help: &str) {
        // It may be written, but wrongly.
        let is_missing = self.report.document.node(&place.key("provider")).is_none();
        for (key, written) in [("secret", raw.secret.is_some()), ("secrets", raw.secrets.is_some())] {
            if written && is_missing {
                self.error(&place.key(key), format!("`{key}` belongs to `provider`, which is missing"), help);
            }
        }
    }

    fn none(&mut self, raw: &raw::Route, place: &Place) -> Option<Proof<'c>> {
        let form = Form::Long(place.key("verify"));
        let (compiled, spec, references) = self.compiled(raw, &json!("none"), &form, place)?;
        Some(Proof { compiled, references, spec, kind: Kind::None, tolerance: None })
    }

    fn short(&mut self, raw: &raw::Route, provider: &str, place: &Place) -> Option<Proof<'c>> {
        let secrets = match (&raw.secret, &raw.secrets) {
            (Some(_), Some(_)) => {
                let help = "put all that are live into `secrets`";
                self.error(&place.key("secret"), "both `secret` and `secrets` are given", help);
                return None;
            }
            (Some(secret), None) => vec![secret.clone()],
            (None, Some(secrets)) => secrets.clone(),
            (None, None) => Vec::new(),
        };
        let spec = VerifySpec::of_provider(provider, secrets);
        let (compiled, spec, references) = self.compile(raw, spec, &Form::Short(raw), place)?;
        Some(Proof { compiled, references, spec, kind: Kind::Rule, tolerance: None })
    }

    fn long(&mut self, raw: &raw::Route, written: &Value, place: &Place) -> Option<Proof<'c>> {
        let rule = place.key("verify");
        let kind = if written == "none" { Kind::None } else { Kind::Rule };
        if kind == Kind::None && raw.mode.is_buffered() && raw.allow.is_none() && raw.clients.is_none() {
            let help = "on a private network add the route's `allow`, which says so; else use `provider` or a `verify` rule";
            self.warning(&rule, "this route takes events from anyone", help);
        }
        let (compiled, spec, references) = self.compiled(raw, written, &Form::Long(rule.clone()), place)?;
        if compiled.pack.is_none() && !compiled.verifier.covers_body() {
            let message = "the signature does not cover the body: with one genuine request anyone may send any other body";
            let help = "if the sender signs the body, put `{body}` (or a digest of it) into what is `signed`";
            self.warning(&rule, message, help);
        }
        Some(Proof { compiled, references, spec, kind, tolerance: tolerance(written) })
    }

    fn compiled(
        &mut self,
        raw: &raw::Route,
        written: &Value,
        form: &Form<'_>,
        place: &Place,
    ) -> Option<Ready<'c>> {
        let spec = match serde_json::from_value::<VerifySpec>(written.clone()) {
            Ok(spec) => spec,
            Err(error) => {
                let help = "see `tidegate schema` and the reference config for what may stand under `verify`";
                self.error(&place.key("verify"), error.to_string(), help);
                return None;
            }
        };
        self.compile(raw, spec, form, place)
    }

    fn compile(
        &mut self,
        raw: &raw::Route,
        spec: VerifySpec,
        form: &Form<'_>,
        place: &Place,
    ) -> Option<Ready<'c>> {
        let references = self.of_route(raw, place)?;
        if Keys::of(raw) == Keys::Awaited
            && let Some(compiled) = verify::awaiting_keys(&spec, self.references)
        {
            let message = "the route has no secret yet: every event is refused";
            self.warning(
                place,
                message,
                "store the secret that the sender's greeting brings, and name it here",
            );
            return Some((compiled, spec, references));
        }
        let compiled = verify::compile(&spec, &references);
        self.warn_of_inline_secrets(place);
        match compiled {
            Ok(compiled) => {
                self.warn_of_open_borders(&compiled, form, place);
                self.warn_of_doubles(raw, place);
                self.warn_of_idle(&compiled, form, place);
                self.warn_of_expiry(compiled.verifier.expiries(), form, place);
                Some((compiled, spec, references))
            }
            Err(problems) => {
                for SpecProblem { at, message, help } in problems {
                    let at = self.spec_place(&at, form, place);
                    // Such a key's value is not what is wrong: point at the key.
                    let help = help.unwrap_or_default();
                    match message.starts_with("unknown key") {
                        true => self.report.error_at_key(&at, message, help),
                        false => self.error(&at, message, help),
                    }
                }
                None
            }
        }
    }

    /// Warns of signed parts of which the border could be moved. Of built-in packs it is known where that does no harm.
    fn warn_of_open_borders(&mut self, compiled: &Compiled, form: &Form<'_>, route: &Place) {
        let is_built_in = |pack: &Arc<Pack>| {
            providers::find(&pack.name).is_ok_and(|built_in| built_in.verify == pack.verify)
        };
        if compiled.pack.as_ref().is_some_and(is_built_in) {
            return;
        }
        for OpenBorder { at, between: (before, after) } in compiled.verifier.open_borders() {
            let rule = self.spec_place(&at, form, route);
            let places = [rule.key("signed"), rule.key("scheme").key("signed"), rule.key("provider")];
            let place =
                places.into_iter().find(|place| self.report.document.node(place).is_some()).unwrap_or(rule);
            let message = format!(
                "where `{before}` ends and `{after}` begins is not fixed: with one genuine request anyone may send others, \
                 cut elsewhere"
            );
            let help = "say what shape the places have, such as `matches: { header:X-Time: \"[0-9]{10}\" }`";
            self.warning(&place, message, help);
        }
    }

    /// Warns of algorithms of tokens that nothing can verify.
    fn warn_of_idle(&mut self, compiled: &Compiled, form: &Form<'_>, route: &Place) {
        for (at, name) in compiled.verifier.idle_algorithms() {
            let place = self.spec_place(&at, form, route).key("jwt").key("algorithms");
            let help = match name.starts_with("HS") {
                true => "remove it, or give `secrets`: keys of a set are public and never used for it",
                false => "remove it, or give a key for it: `public_keys` or `jwks`",
            };
            let message = format!("there is no key for {name}: a token with it is never accepted");
            self.warning(&place, message, help);
        }
    }

    /// Warns of each secret whose end is near or past.
    fn warn_of_expiry(&mut self, expiries: &[Expiry], form: &Form<'_>, place: &Place) {
        let (now, before) = (self.references.outside.now(), self.secret_expiry);
        for Expiry { name, at, until } in expiries.iter().filter(|e| e.is_due(now, before)) {
            let (message, help) = if *until <= now {
                (
                    format!("the secret `{name}` has ended at {until}: nothing that it signs is accepted"),
                    "remove it; if it shall go on, move its `until`",
                )
            } else {
                (
                    format!("the secret `{name}` ends at {until}"),
                    "see that the sender uses its successor by then (metric `tidegate_verified_total`)",
                )
            };
            let place = self.spec_place(at, form, place);
            self.warning(&place, message, help);
        }
    }

    /// From a place within a rule to a place within the config.
    fn spec_place(&self, at: &[String], form: &Form<'_>, route: &Place) -> Place {
        match form {
            Form::Long(rule) => at.iter().fold(rule.clone(), |place, step| self.descend(&place, step)),
            Form::Short(raw) => match at.first().map(String::as_str) {
                // The one secret stands in a list of one, or in none.
                Some(word @ ("secret" | "secrets")) if raw.secret.is_some() => {
                    let inside = at.iter().skip(if word == "secret" { 1 } else { 2 });
                    inside.fold(route.key("secret"), |place, step| self.descend(&place, step))
                }
                Some("secret" | "secrets") if raw.secrets.is_some() => {
                    at.iter().skip(1).fold(route.key("secrets"), |place, step| self.descend(&place, step))
                }
                Some("secret" | "secrets") => route.key("secret"),
                _ => route.key("provider"),
            },
        }
    }
}

/// The longest `tolerance` within a rule.
fn tolerance(written: &Value) -> Option<Duration> {
    match written {
        Value::Object(map) => map
            .iter()
            .filter_map(|(key, value)| match (key.as_str(), value) {
                ("tolerance", Value::String(text)) => Time::parse(text).map(|t| t.0),
                _ => tolerance(value),
            })
            .max(),
        Value::Array(items) => items.iter().filter_map(tolerance).max(),
        _ => None,
    }
}
