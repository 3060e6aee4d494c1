//! Routes: what each takes and does, and that no two take the same.

use std::sync::Arc;
use std::time::Duration;

use super::destinations::Purpose;
use super::names::{host, is_name, name_of_path};
use super::places::Has;
use super::rules::Proof;
use super::{Checker, Placed, Whose};
use crate::config::Idempotency;
use crate::config::model::{Acknowledgement, Clients, Enforce, KeepRefused, Limits, Mode, Route};
use crate::config::place::Place;
use crate::config::raw::{self, Verb};
use crate::config::source::doubled;
use crate::config::units::{Size, Time};
use crate::endpoints::ENDPOINT;
use crate::message::Method;
use crate::providers::{Batch, Pack, Repeats};
use crate::route::{PathPattern, RouteTable, Rule};
use crate::verify::{Extract, Split};

/// How long repeats are recognised, where nothing is said.
const WINDOW: Duration = Duration::from_secs(72 * 3600);

impl Checker<'_, '_> {
    pub(super) fn routes(&mut self, raw: &[Placed<raw::Route>], limits: &Limits) -> (Vec<Route>, RouteTable) {
        let names: Vec<String> =
            raw.iter().map(|r| r.value.name.clone().unwrap_or_else(|| name_of_path(&r.value.path))).collect();
        self.unique(raw, &names);
        let (mut routes, mut rules, mut places) = (Vec::new(), Vec::new(), Vec::new());
        for (route, name) in raw.iter().zip(&names) {
            let (rule, route_) = self.route(route, name, limits);
            if let Some(rule) = rule {
                rules.push(rule);
                places.push((&route.place, name));
            }
            routes.extend(route_);
        }
        match RouteTable::build(rules) {
            Ok(table) => (routes, table),
            Err(conflicts) => {
                for conflict in conflicts {
                    let ((first, first_name), (second, name)) =
                        (places[conflict.first], places[conflict.second]);
                    let what = match conflict.methods.as_slice() {
                        [] => "any method".to_owned(),
                        methods => methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", "),
                    };
                    let line = self.report.line_of(&first.key("path"));
                    let message = format!(
                        "the routes `{first_name}` ({line}) and `{name}` both take {what} for this host and path"
                    );
                    let help = "give them different paths or hosts, or `methods` that do not overlap";
                    self.error(&second.key("path"), message, help);
                }
                (routes, RouteTable::default())
            }
        }
    }

    fn unique(&mut self, raw: &[Placed<raw::Route>], names: &[String]) {
        for (name, first, second) in doubled(names.iter().zip(raw)) {
            let line = self.report.line_of(&first.place.key("path"));
            let (place, help) = match second.value.name {
                Some(_) => {
                    (second.place.key("name"), "a route's name is unique: its events are kept under it")
                }
                None => {
                    (second.place.key("path"), "the name is made from the path: give one of them a `name`")
                }
            };
            self.error(&place, format!("two routes are named `{name}` (the first in {line})"), help);
        }
    }

    /// The rule is there even if other things are wrong, so that ambiguities are reported all the same.
    fn route(
        &mut self,
        raw: &Placed<raw::Route>,
        name: &str,
        limits: &Limits,
    ) -> (Option<Rule>, Option<Route>) {
        let Placed { place, value: raw } = raw;
        let before = self.report.problems.len();
        if !is_name(name) {
            let help = "a name has letters, digits, `.`, `_` and `-`, at most 64";
            self.error(&place.key("name"), format!("`{name}` is not a name"), help);
        }
        let host = match raw.host.as_deref().map(host) {
            None => Ok(None),
            Some(Ok(host)) => Ok(Some(host)),
            Some(Err(problem)) => {
                self.error(&place.key("host"), problem, "write a name such as `hooks.example.com`");
                Err(())
            }
        };
        let path = match PathPattern::parse(&raw.path) {
            Ok(path) => Some(path),
            Err(error) => {
                self.error(&place.key("path"), error.message, error.help);
                None
            }
        };
        let proof = self.proof(raw, place);
        let pack = proof.as_ref().and_then(|p| p.compiled.pack.clone());
        let whose = match &proof {
            Some(_) => Whose::Route(pack.as_ref()),
            None => Whose::Unknown,
        };
        let allow = raw.allow.as_ref().map(|texts| self.allow(texts, &place.key("allow"), whose));
        self.packs.push((name.to_owned(), pack.clone()));
        let (handshakes, greetings) = self.handshakes(raw, place, proof.as_ref());
        if let Some(proof) = &proof {
            self.signing.push(proof.references.signing(
                name,
                place,
                pack.as_ref().map(|pack| pack.name.clone()),
            ));
        }
        let mut methods = methods(raw);
        let greeting_methods = self.greeting_methods(&handshakes, &methods, place);
        methods.extend(greeting_methods.iter().cloned());
        let idempotency = self.idempotency(raw, place, proof.as_ref());
        let rate_limit = self.rate_limit(raw, place, proof.as_ref());
        let event_type = match &raw.event_type {
            Some(own) => self.extract(own, &place.key("event_type")),
            None => pack.as_ref().and_then(|p| p.event_type.clone()),
        };
        // Where the pack is broken, so may be the type.
        let typed = event_type.is_some() || raw.event_type.is_some() || proof.is_none();
        self.places(place, &Has { path: path.as_ref(), event_type: typed });
        let split = self.split(raw, place, proof.as_ref());
        self.public_url(raw, place);
        self.clients(raw, place, path.as_ref());
        let enforce = self.enforce(raw, place, proof.as_ref());
        let max_body = self.max_body(raw, place, limits);
        if let Some(every) = raw.expect_every {
            self.not_zero(place, "expect_every", every);
        }
        let purpose = Purpose {
            route: name,
            mode: raw.mode,
            wildcard: path.as_ref().is_some_and(PathPattern::is_wildcard),
            path: path.as_ref(),
            deadline: pack.as_ref().and_then(|p| p.deadline.known().copied()),
        };
        let destinations = self.destinations(&raw.forward_to, &place.key("forward_to"), purpose);
        let answer = self.answer(raw, place, pack.as_deref());
        let filtered = destinations.iter().all(|to| to.when.is_some());
        let unwanted = self.unwanted(raw, place, filtered);
        let keep = self.keep(raw, place);
        let own = raw.redact.as_ref().map(|redact| self.redact(redact, &place.key("redact")));
        let redact = own.map_or_else(|| self.redact.clone(), |own| self.redact.and(&own));
        let deadline = self.spill(raw, place, purpose.deadline);
        let rule = match (&host, path) {
            (Ok(host), Some(path)) => Some(Rule { host: host.clone(), path, methods: methods.clone() }),
            _ => None,
        };
        if self.report.problems.len() > before {
            return (rule, None);
        }
        let mut destinations = destinations.into_iter().map(Arc::new);
        let mode = match raw.mode {
            raw::Mode::Buffer => Some(Mode::Buffer { answer, destinations: destinations.collect() }),
            raw::Mode::Proxy => destinations.next().map(Mode::Proxy),
            raw::Mode::Spill => {
                destinations.next().map(|destination| Mode::Spill { answer, destination, deadline })
            }
            raw::Mode::Pass => destinations.next().map(Mode::Pass),
        };
        let route = match (host, proof, mode) {
            (Ok(host), Some(proof), Some(mode)) => Some(Route {
                name: name.into(),
                host,
                path: raw.path.clone(),
                methods,
                greeting_methods,
                allow,
                rate_limit,
                tenants: proof.references.tenants(&proof.spec, greetings, self.secrets.refresh),
                verify: proof.compiled.verifier,
                clients: raw.clients.map_or(Clients::Any, |raw::Clients::Endpoints| Clients::Endpoints),
                enforce,
                quarantine: match raw.quarantine {
                    Some(raw::Off::Off) => KeepRefused::Never,
                    None => KeepRefused::AsConfigured,
                },
                expect_every: raw.expect_every.map(|every| every.0),
                public_url: raw.public_url.clone(),
                handshakes,
                idempotency,
                event_type,
                unwanted,
                keep,
                redact,
                split,
                max_body,
                refusals: pack.as_ref().map(|pack| pack.refusals).unwrap_or_default(),
                mode,
            }),
            // Not without a problem reported, which has returned above.
            _ => None,
        };
        (rule, route)
    }

    fn enforce(&mut self, raw: &raw::Route, place: &Place, proof: Option<&Proof<'_>>) -> Enforce {
        let place = place.key("enforce");
        match raw.enforce {
            None => Enforce::On,
            Some(_) if proof.is_some_and(Proof::is_none) => {
                let message = "the route verifies nothing, so there is nothing to enforce";
                self.error(&place, message, "remove `enforce`, or say who may send: `provider` or `verify`");
                Enforce::On
            }
            Some(raw::Enforce::On) => Enforce::On,
            Some(raw::Enforce::Observe) => {
                let message = "what verification refuses is let through: anyone may send to this route";
                let help = "watch `tidegate_would_refuse_total`, and remove the key once it stays still";
                self.warning(&place, message, help);
                Enforce::Observe
            }
        }
    }

    fn max_body(&mut self, raw: &raw::Route, place: &Place, limits: &Limits) -> u64 {
        match (raw.max_body, raw.mode) {
            (None, raw::Mode::Pass) => u64::MAX,
            (None, _) => limits.body_bytes,
            (Some(Size(0)), _) => {
                self.error(&place.key("max_body"), "no body could be taken", "write a size such as `1MiB`");
                0
            }
            (Some(Size(own)), mode) => {
                if own > limits.body_budget && mode != raw::Mode::Pass {
                    let budget = Size(limits.body_budget);
                    let message = format!("{} is more than `limits.body_budget` ({budget})", Size(own));
                    self.error(
                        &place.key("max_body"),
                        message,
                        "such a body could never be taken: raise the budget",
                    );
                }
                own
            }
        }
    }

    fn answer(&mut self, raw: &raw::Route, place: &Place, pack: Option<&Pack>) -> Acknowledgement {
        let place = place.key("answer");
        let answer = raw.answer.clone().unwrap_or_default();
        if raw.answer.is_some() && !raw.mode.is_buffered() {
            self.error(
                &place,
                "inline the app's own answer is given",
                "remove `answer`, or use `mode: buffer`",
            );
        }
        let status = answer.status.unwrap_or_else(|| pack.map_or(202, |pack| pack.success.of_stored()));
        let of_pack = pack.and_then(|pack| pack.answer.clone()).filter(|_| !matches!(status, 204 | 205));
        if let Some(pack) = pack.filter(|pack| answer.status.is_some() && !pack.success.takes(status)) {
            let message = format!("{} does not take {status} for success", pack.title);
            self.warning(&place.key("status"), message, format!("it takes {}", pack.successes()));
        }
        let own_body = answer.body.is_some();
        let body = answer.body.or_else(|| Some(of_pack.as_ref()?.body.clone())).unwrap_or_default();
        if matches!(status, 204 | 205) && !body.is_empty() {
            self.error(
                &place.key("body"),
                format!("an answer {status} has no body"),
                "use status 200 or 202",
            );
        }
        if let Some(kind) = &answer.content_type
            && !kind.bytes().all(|b| (b' '..=b'~').contains(&b))
        {
            self.error(&place.key("content_type"), "this is not a content type", "write `application/json`");
        }
        let content_type = answer
            .content_type
            .or_else(|| of_pack.filter(|_| !own_body)?.content_type)
            .or_else(|| (!body.is_empty()).then(|| "text/plain".to_owned()));
        Acknowledgement { status, content_type, body }
    }

    fn clients(&mut self, raw: &raw::Route, place: &Place, path: Option<&PathPattern>) {
        if raw.clients.is_none() {
            return;
        }
        if path.is_some_and(|path| !path.parameters().any(|name| &**name == ENDPOINT)) {
            let help = "write the path with `{endpoint}` as a segment, such as `/in/{endpoint}`";
            let message = "`clients: endpoints` needs a place for each client's part of the URL";
            self.error(&place.key("path"), message, help);
        }
        if raw.mode == raw::Mode::Pass {
            let message = "`clients` has no meaning on a `pass` route, which never verifies";
            self.error(&place.key("clients"), message, "use `mode: proxy` to forward inline");
        }
    }

    /// How long the app of a `spill` route has.
    fn spill(&mut self, raw: &raw::Route, place: &Place, senders: Option<Duration>) -> Duration {
        let place = place.key("spill");
        if raw.spill.is_some() && raw.mode != raw::Mode::Spill {
            let help = "write `mode: spill` to store what the app can't take in time, or remove `spill`";
            self.error(&place, "`spill` has a meaning only with `mode: spill`", help);
        }
        let deadline = raw.spill.clone().unwrap_or_default().deadline;
        self.not_zero(&place, "deadline", deadline);
        if let (Some(senders), Some(_)) = (senders, &raw.spill)
            && deadline.0 >= senders
        {
            let message = format!("the sender gives up after {}", Time(senders));
            let help = "with a shorter deadline it gets the acknowledgement in time";
            self.warning(&place.key("deadline"), message, help);
        }
        deadline.0
    }

    fn public_url(&mut self, raw: &raw::Route, place: &Place) {
        let Some(url) = &raw.public_url else { return };
        let whole = url.parse::<http::Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some_and(|h| !h.is_empty())
        });
        let help = "write it as the sender was given it, such as `https://hooks.example.com`";
        if !whole {
            self.error(&place.key("public_url"), format!("`{url}` is not a whole URL"), help);
        } else if url.contains(['?', '#']) {
            let message =
                "the query is not taken from here: senders send the one that they were given, and sign it";
            self.warning(&place.key("public_url"), message, "write the URL up to the `?`");
        }
    }

    fn idempotency(
        &mut self,
        raw: &raw::Route,
        place: &Place,
        proof: Option<&Proof<'_>>,
    ) -> Option<Idempotency> {
        if raw.mode == raw::Mode::Pass {
            for (key, written) in [
                ("idempotency", raw.idempotency.is_some()),
                ("event_type", raw.event_type.is_some()),
                ("handshake", raw.handshake.is_some()),
            ] {
                if written {
                    let message = format!("`{key}` has no meaning on a `pass` route");
                    self.error(
                        &place.key(key),
                        message,
                        "such a route streams: it reads nothing of a request",
                    );
                }
            }
            return None;
        }
        let place = place.key("idempotency");
        let (key, window) = match &raw.idempotency {
            Some(raw::IdempotencyOrOff::Off(_)) => return None,
            None if proof.is_some_and(Proof::is_none) => return None,
            None => (None, None),
            Some(raw::IdempotencyOrOff::On(own)) => (own.key.as_ref(), own.window),
        };
        let repeats = proof.and_then(|p| p.compiled.pack.as_ref()).map(|pack| &pack.idempotency);
        if raw.idempotency.is_none() && repeats == Some(&Repeats::Unknowable) {
            return None;
        }
        let standard = repeats.and_then(Repeats::key).cloned();
        let (key, own) = match (key, standard) {
            (Some(own), standard) => {
                let extract = self.extract(own, &place.key("key"))?;
                let differs = standard.is_none_or(|s| s != extract);
                (Some(extract), differs.then_some(own))
            }
            (None, standard) => (standard, None),
        };
        let is_covered = |key: &Extract| {
            proof.is_none_or(|Proof { compiled, .. }| match (&compiled.pack, own) {
                (Some(pack), None) => compiled.verifier.covers_key_of(pack, key),
                _ => compiled.verifier.covers(key),
            })
        };
        let key = key.map(|key| {
            if is_covered(&key) {
                return key;
            }
            let help = "it could be set by whoever repeats a captured request, and take a later event's place: write \
                        `key: [SOURCE, body-hash]` to say so yourself";
            match own {
                Some(_) => {
                    let message = "the signature does not cover this key: it is joined with the body's hash";
                    self.warning(&place.key("key"), message, help);
                }
                None => {
                    let message = format!(
                        "the provider's key (`{key}`) is not covered by every rule that may hold: it is joined with \
                         the body's hash"
                    );
                    self.warning(&place.key("key"), message, help);
                }
            }
            Extract::joined(vec![key, Extract::body_hash()])
        });
        let by_query = proof.is_none_or(|Proof { compiled, .. }| compiled.verifier.covers_query());
        let window = window.unwrap_or(Time(WINDOW));
        self.not_zero(&place, "window", window);
        if let Some(tolerance) = proof.and_then(|p| p.tolerance)
            && window.0 < tolerance.saturating_mul(2)
        {
            let message =
                format!("repeats are forgotten after {window}, but accepted for twice {}", Time(tolerance));
            let help = "a window of at least twice the `tolerance` leaves no gap for a replay";
            self.warning(&place.key("window"), message, help);
        }
        Some(Idempotency { key, by_query, window: window.0 })
    }

    fn split(&mut self, raw: &raw::Route, place: &Place, proof: Option<&Proof<'_>>) -> Option<Split> {
        let place = place.key("split");
        let own = match raw.split.as_ref()? {
            raw::SplitOrNot::Whether(false) => return None,
            raw::SplitOrNot::Whether(true) => raw::Split::default(),
            raw::SplitOrNot::Own(own) => own.clone(),
        };
        if raw.mode != raw::Mode::Buffer {
            let help = "remove `split`, or use `mode: buffer`: a request that is forwarded has one answer";
            self.error(&place, "only buffered requests are taken apart", help);
            return None;
        }
        let proof = proof?;
        let pack = proof.compiled.pack.as_ref();
        let batch = pack.and_then(|pack| pack.batch.as_ref());
        let is_own = own.events.is_some();
        let (place_of_array, standard_key) = match (own.events, batch) {
            (Some(own), _) => ((own != "body").then_some(own), None),
            (None, Some(batch)) => (batch.place.clone(), Some(batch.key.clone())),
            (None, None) => {
                let who = pack.map_or("the route's provider".to_owned(), |pack| pack.title.clone());
                let message = format!("{who} is not known to send batches");
                let help = "say where the array is and what names its elements: `{ events: body:/events, key: /id }`";
                self.error(&place, message, help);
                return None;
            }
        };
        let key = match own.key {
            Some(raw::TextOrList::Text(text)) => vec![text],
            Some(raw::TextOrList::List(texts)) => texts,
            None => standard_key.unwrap_or_default(),
        };
        if key.is_empty() && is_own {
            self.error(
                &place,
                "the elements need a `key`",
                "such as `/id`: an id that each element has of its own",
            );
            return None;
        }
        let event_type = own.event_type.or_else(|| batch.and_then(|batch| batch.event_type.clone()));
        let batch = Batch { place: place_of_array, key, event_type };
        match Split::compile(&batch, own.max_events.unwrap_or(Split::MAX)) {
            Ok(split) => Some(split.bound_by(|place| proof.compiled.verifier.covers(place))),
            Err(message) => {
                let help = "`events` is `body`, `body:/json/pointer` or `form:FIELD`; `key` and `event_type` are JSON \
                            pointers within an element, such as `/id`";
                self.error(&place, message, help);
                None
            }
        }
    }

    pub(super) fn extract(&mut self, texts: &raw::TextOrList, place: &Place) -> Option<Extract> {
        let parts: Vec<Option<Extract>> = match texts {
            raw::TextOrList::Text(text) => return self.source(text, place),
            raw::TextOrList::List(texts) => {
                texts.iter().enumerate().map(|(i, text)| self.source(text, &place.index(i))).collect()
            }
        };
        Some(Extract::joined(parts.into_iter().collect::<Option<_>>()?))
    }

    fn source(&mut self, text: &str, place: &Place) -> Option<Extract> {
        match Extract::parse(text) {
            Ok(extract) => Some(extract),
            Err(message) => {
                let help = "sources are `header:NAME`, `query:NAME`, `path:NAME`, `form:FIELD`, `body:/json/pointer` and \
                            `body-hash`";
                self.error(place, message, help);
                None
            }
        }
    }
}

/// The methods of a route's events.
pub(super) fn methods(raw: &raw::Route) -> Vec<Method> {
    let verb = |verb: &Verb| match verb {
        Verb::Get => Method::GET,
        Verb::Head => Method::HEAD,
        Verb::Post => Method::POST,
        Verb::Put => Method::PUT,
        Verb::Patch => Method::PATCH,
        Verb::Delete => Method::DELETE,
        Verb::Options => Method::OPTIONS,
    };
    match (&raw.methods, raw.mode) {
        (Some(verbs), _) => verbs.iter().map(verb).collect(),
        (None, raw::Mode::Pass) => Vec::new(),
        (None, _) => vec![Method::POST],
    }
}
