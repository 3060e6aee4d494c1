//! From what is written (`raw`) to what the program reads (`model`): defaults, references, and everything that the
//! shape alone can't tell.

mod alerts;
mod destinations;
mod doubles;
mod handshakes;
mod limits;
mod listeners;
mod loops;
mod names;
mod oracles;
mod order;
mod pace;
mod places;
mod redact;
mod routes;
mod rules;
mod settings;
mod sign;
mod tenants;
mod tracing;
mod when;

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::model::{
    AdminAddress, AdminSettings, Config, Listener, ProviderRanges, RangeSettings, Route, SecretSettings,
};
use super::outside::Outside;
use super::place::{Place, Step};
use super::problem::{Report, Scope};
use super::references::{Inline, References};
use super::shape::Shaped;
use super::yaml::Kind;
use super::{KeySources, raw};
use crate::providers::Pack;
use crate::redact::Rules;
use crate::route::{Allow, Allowlist, LiveRanges};

/// The age from which a snapshot of ranges that nothing refreshes is warned of.
const OLD_SNAPSHOT: Duration = Duration::from_secs(365 * 24 * 3600);

/// Checks all sections that are whole, and what is left of the others. `None` only with problems reported.
pub(super) fn check(
    report: &mut Report<'_>,
    shaped: &Shaped,
    outside: &dyn Outside,
    keys: &dyn KeySources,
) -> Option<Config> {
    let value = &shaped.whole;
    let inline = match value.get("allow_inline_secrets") {
        Some(Value::Bool(true)) => Inline::Allowed,
        _ => Inline::Refused,
    };
    let document = report.document;
    let references = References {
        outside,
        keys,
        base: document.base.clone(),
        inline,
        seen_inline: RefCell::default(),
        seen_short: RefCell::default(),
        pack_problems: RefCell::default(),
        packs: RefCell::default(),
        signable: Arc::default(),
        oracles: Arc::default(),
        seen_files: RefCell::default(),
    };
    let mut checker = Checker::new(report, &references);
    let threads = value.get("threads").and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());

    let limits = checker.section::<raw::Limits>(value, "limits").unwrap_or_default();
    let limits = checker.limits(&limits);
    // Before the routes, whose secrets are read and warned of by them. What has ended is warned of in any case.
    let alerts = checker.section::<raw::Alerts>(value, "alerts").unwrap_or_default();
    let alerts = checker.alerts(&alerts);
    checker.secret_expiry = alerts.rules.secret_expiry.unwrap_or_default();
    let secrets = checker.section::<raw::Secrets>(value, "secrets").unwrap_or_default();
    let secrets = checker.secrets(&secrets);
    checker.secrets = secrets.clone();
    let redact = checker.section::<raw::Redact>(value, "redact").unwrap_or_default();
    checker.redact = checker.redact(&redact, &Place::root().key("redact"));
    // Before the listeners, which may ask for the ranges of the routes' providers.
    let routes = checker.items::<raw::Route>(value, "routes");
    let written = routes.len();
    let (routes, table) = checker.routes(&routes, &limits);
    checker.oracles(&references.oracles, &references.signable);
    let listeners = checker.items::<raw::Listener>(value, "listeners");
    let listeners = checker.listeners(&listeners);
    // The table counts the broken ones, too.
    if routes.len() == written {
        checker.loops(&routes, &table, &listeners);
    }
    let buffer = checker.section::<raw::Buffer>(value, "buffer").unwrap_or_default();
    let mut buffer = checker.buffer(&buffer);
    let keeps = |route: &Route| Some((route.name.clone(), route.keep.clone()?));
    buffer.keep_of_routes = routes.iter().filter_map(keeps).collect();
    let quarantine = checker.section::<raw::Quarantine>(value, "quarantine");
    let quarantine = quarantine.map(|raw| checker.quarantine(&raw, &buffer));
    let admin = checker.section::<raw::Admin>(value, "admin").unwrap_or_default();
    let admin = checker.admin(&admin);
    checker.apart(&listeners, admin.as_ref());
    let log = checker.section::<raw::Log>(value, "log").unwrap_or_default();
    let log = checker.log(&log);
    let tracing = checker.section::<raw::Tracing>(value, "tracing");
    let tracing = tracing.map(|raw| checker.tracing(&raw));
    let shutdown = checker.section::<raw::Shutdown>(value, "shutdown").unwrap_or_default();
    let shutdown = checker.shutdown(&shutdown);
    let ranges = checker.section::<raw::Ranges>(value, "ranges").unwrap_or_default();
    let ranges = checker.range_settings(&ranges);
    checker.parts(shaped);
    let provider_ranges = checker.provider_ranges(&ranges);
    let redact = std::mem::take(&mut checker.redact);
    report.problems.extend(references.pack_problems.take());

    Some(Config {
        listeners,
        routes: routes.into_iter().map(Arc::new).collect::<Vec<Arc<Route>>>(),
        table,
        limits,
        buffer,
        quarantine,
        admin: admin?,
        redact,
        alerts,
        log,
        tracing: match tracing {
            None => None,
            Some(checked) => Some(checked?),
        },
        shutdown,
        secrets,
        ranges,
        provider_ranges,
        threads: threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from)),
        hash: document.hash.clone(),
    })
}

/// A part of the config and where it stands.
struct Placed<T> {
    place: Place,
    value: T,
}

/// The items of a list that are not whole, as far as something can be made of them.
fn parts<T: DeserializeOwned>(whole: &Value, rest: &Value, key: &str) -> Vec<Placed<T>> {
    let list = Place::root().key(key);
    let items = rest.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let broken = items
        .iter()
        .enumerate()
        .filter(|(i, _)| whole.pointer(&format!("/{key}/{i}")).is_none_or(Value::is_null));
    broken
        .filter_map(|(i, item)| Some(Placed { place: list.index(i), value: T::deserialize(item).ok()? }))
        .collect()
}

struct Checker<'c, 'r> {
    report: &'c mut Report<'r>,
    references: &'c References<'c>,
    secrets: SecretSettings,
    /// What is hidden on all routes.
    redact: Rules,
    /// How long before its end a secret is warned of.
    secret_expiry: Duration,
    /// What `provider` in an `allow` has asked for so far.
    /// Each with the place that asks for it first.
    provider_ranges: Vec<(ProviderRanges, Place)>,
    /// Of the routes so far: the name, and the pack if it has one.
    packs: Vec<(String, Option<Arc<Pack>>)>,
    /// What the routes so far forward to.
    forwards: Vec<loops::Forwards>,
    /// Of the routes so far: secrets, and which of them answer greetings.
    signing: Vec<oracles::Signing>,
}

/// Whose ranges the word `provider` stands for.
#[derive(Clone, Copy)]
enum Whose<'p> {
    /// Of a route's provider; `None` if it has none.
    Route(Option<&'p Arc<Pack>>),
    /// Of the providers of all routes.
    AllRoutes,
    /// Of nobody: the word has no meaning here, or what it means is broken already.
    Unknown,
}

impl<'c, 'r> Checker<'c, 'r> {
    fn new(report: &'c mut Report<'r>, references: &'c References<'c>) -> Self {
        Self {
            report,
            references,
            secrets: SecretSettings::default(),
            redact: Rules::default(),
            secret_expiry: Duration::ZERO,
            provider_ranges: Vec::new(),
            packs: Vec::new(),
            forwards: Vec::new(),
            signing: Vec::new(),
        }
    }
}

impl Checker<'_, '_> {
    fn error(&mut self, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        self.report.error(place, message, help);
    }

    fn warning(&mut self, place: &Place, message: impl Into<String>, help: impl Into<String>) {
        self.report.warning(place, message, help);
    }

    /// A section, if it is written and whole.
    fn section<T: DeserializeOwned>(&mut self, value: &Value, key: &str) -> Option<T> {
        let value = value.get(key)?;
        self.read(value, &Place::root().key(key))
    }

    /// The items of a list that are whole.
    fn items<T: DeserializeOwned>(&mut self, value: &Value, key: &str) -> Vec<Placed<T>> {
        let items = value.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let list = Place::root().key(key);
        let whole = items.iter().enumerate().filter(|(_, item)| !item.is_null());
        whole
            .filter_map(|(i, item)| {
                let place = list.index(i);
                self.read(item, &place).map(|value| Placed { place, value })
            })
            .collect()
    }

    /// The admin API needs an address of its own.
    fn apart(&mut self, listeners: &[Listener], admin: Option<&AdminSettings>) {
        if let Some(AdminAddress::Tcp(address)) = admin.map(|a| &a.listen)
            && address.port() != 0
            && let Some(i) = listeners.iter().position(|l| l.address == *address)
        {
            let message = format!("{address} is taken by listeners[{i}] already");
            self.error(
                &Place::root().key("admin").key("listen"),
                message,
                "give the admin API a port of its own",
            );
        }
    }

    /// What else is wrong in the parts of the config that have faults already.
    fn parts(&mut self, shaped: &Shaped) {
        let mut report = Report::of(self.report.document, Scope::Written);
        let mut checker = Checker::new(&mut report, self.references);
        checker.packs = std::mem::take(&mut self.packs);
        checker.secrets = self.secrets.clone();
        checker.secret_expiry = self.secret_expiry;
        let (whole, rest) = (&shaped.whole, &shaped.rest);
        for listener in parts::<raw::Listener>(whole, rest, "listeners") {
            checker.listeners(std::slice::from_ref(&listener));
        }
        let limits = checker.limits(&raw::Limits::default());
        // Alone: whether it clashes with others depends on what is wrong in it.
        for route in parts::<raw::Route>(whole, rest, "routes") {
            checker.routes(std::slice::from_ref(&route), &limits);
        }
        if let (None, Some(Ok(admin))) = (whole.get("admin"), rest.get("admin").map(raw::Admin::deserialize))
        {
            checker.admin(&admin);
        }
        if let (None, Some(Ok(log))) = (whole.get("log"), rest.get("log").map(raw::Log::deserialize)) {
            checker.log(&log);
        }
        self.report.problems.extend(report.problems);
        self.report.warnings.extend(report.warnings);
    }

    /// The shape is checked, so this fails only where the schema is less strict than its type.
    fn read<T: DeserializeOwned>(&mut self, value: &Value, place: &Place) -> Option<T> {
        match T::deserialize(value) {
            Ok(read) => Some(read),
            Err(error) => {
                // A key that is missing was missed before.
                let (within, before) = (place.to_string(), &self.report.problems);
                if !before.iter().any(|problem| problem.key.starts_with(&within)) {
                    self.error(place, error.to_string(), "see `tidegate schema` for what may stand here");
                }
                None
            }
        }
    }

    /// Who may come in: ranges, and the word `provider`.
    fn allow(&mut self, texts: &[String], place: &Place, whose: Whose<'_>) -> Allow {
        let mut allow = Allow::default();
        let mut written = Vec::with_capacity(texts.len());
        for (i, text) in texts.iter().enumerate() {
            match text.as_str() {
                "provider" => allow.live.extend(self.of_provider(whose, &place.index(i))),
                text => written.extend(self.range(text, &place.index(i))),
            }
        }
        allow.written = Allowlist::new(written);
        allow
    }

    fn of_provider(&mut self, whose: Whose<'_>, place: &Place) -> Vec<Arc<LiveRanges>> {
        const HELP: &str = "write the ranges out, such as `192.0.2.0/24`, or remove the word";
        match whose {
            Whose::Unknown => Vec::new(),
            Whose::Route(None) => {
                self.error(
                    place,
                    "the route names no provider whose ranges `provider` could stand for",
                    HELP,
                );
                Vec::new()
            }
            Whose::Route(Some(pack)) => {
                if pack.ranges.is_none() {
                    self.error(
                        place,
                        format!("{} publishes no address ranges that we know", pack.title),
                        HELP,
                    );
                }
                self.live(pack, place).into_iter().collect()
            }
            Whose::AllRoutes => {
                let packs = std::mem::take(&mut self.packs);
                let mut live: Vec<Arc<LiveRanges>> = Vec::new();
                let mut left_out = Vec::new();
                for (route, pack) in &packs {
                    match pack.as_ref().and_then(|pack| self.live(pack, place)) {
                        Some(ranges) if live.iter().any(|known| Arc::ptr_eq(known, &ranges)) => {}
                        Some(ranges) => live.push(ranges),
                        None => left_out.push(route.as_str()),
                    }
                }
                if live.is_empty() && !packs.is_empty() {
                    self.error(place, "no route has a provider that publishes its address ranges", HELP);
                } else if !left_out.is_empty() {
                    let message = format!(
                        "senders of {} may not connect here: no ranges are published",
                        left_out.join(", ")
                    );
                    self.warning(
                        place,
                        message,
                        "give such routes a listener of their own, or add their senders' ranges",
                    );
                }
                self.packs = packs;
                live
            }
        }
    }

    /// The live ranges of a pack that has some, the same for all who ask.
    fn live(&mut self, pack: &Pack, place: &Place) -> Option<Arc<LiveRanges>> {
        let ranges = pack.ranges.as_ref()?;
        let same = |known: &ProviderRanges| known.provider == pack.name && known.ranges == *ranges;
        if let Some((known, _)) = self.provider_ranges.iter().find(|(known, _)| same(known)) {
            return Some(known.live.clone());
        }
        let live = Arc::new(LiveRanges::new(Allowlist::new(ranges.snapshot.iter().copied())));
        let (provider, ranges) = (pack.name.clone(), ranges.clone());
        let provider_ranges = ProviderRanges { provider, ranges, live: live.clone() };
        self.provider_ranges.push((provider_ranges, place.clone()));
        Some(live)
    }

    /// The ranges of all packs that are asked for. A snapshot that is old and stays is warned of.
    fn provider_ranges(&mut self, settings: &RangeSettings) -> Vec<ProviderRanges> {
        let all = std::mem::take(&mut self.provider_ranges);
        let now = self.references.outside.now();
        for (of, place) in &all {
            let stays = of.ranges.list.is_none() || settings.offline;
            if !stays || now.since(of.ranges.snapshot_day()) < OLD_SNAPSHOT {
                continue;
            }
            let message = format!(
                "the address ranges of {} are those of {}: its senders may come from others by now",
                of.provider, of.ranges.snapshot_date
            );
            let help = match &of.ranges.list {
                Some(_) => "let them be fetched (`ranges.offline: false`), or write the ranges out",
                None => "look whether the provider publishes others, and write them out",
            };
            self.warning(place, message, help);
        }
        all.into_iter().map(|(of, _)| of).collect()
    }

    /// Address ranges. What is none is reported and left out.
    fn ranges(&mut self, texts: &[String], place: &Place) -> Allowlist {
        let mut ranges = Vec::with_capacity(texts.len());
        for (i, text) in texts.iter().enumerate() {
            match self.range(text, &place.index(i)) {
                Some(range) => ranges.push(range),
                None => continue,
            }
        }
        Allowlist::new(ranges)
    }

    fn range(&mut self, text: &str, place: &Place) -> Option<IpNet> {
        const HELP: &str = "write a range such as `10.0.0.0/8` or `2001:db8::/32`, or an address";
        if text == "provider" {
            let help = "write the proxies' own ranges";
            self.error(place, "`provider` has no meaning here: it stands for senders", help);
            return None;
        }
        let range = match text.parse::<std::net::IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => match text.parse::<IpNet>() {
                Ok(range) => range,
                Err(_) => {
                    self.error(place, format!("`{text}` is not an address range"), HELP);
                    return None;
                }
            },
        };
        if range.trunc() != range {
            let message = format!("`{text}` is taken as {}", range.trunc());
            self.warning(place, message, "bits behind the prefix count for nothing");
        }
        Some(range)
    }

    /// One step down: an index where a list stands, else a key.
    fn descend(&self, place: &Place, step: &str) -> Place {
        let list = self.report.document.node(place).is_some_and(|n| matches!(n.kind, Kind::List(_)));
        match step.parse() {
            Ok(index) if list => place.then(Step::Index(index)),
            _ => place.key(step),
        }
    }

    /// Warns of each secret that stood in the config itself since the last call, and of each that is very short.
    fn warn_of_inline_secrets(&mut self, within: &Place) {
        let mut short = self.references.seen_short.take();
        short.dedup();
        for (reference, length) in short {
            let place = self.find(within, &reference);
            let message = format!("the secret has only {length} byte(s): it can be guessed");
            self.warning(&place, message, "use a long random one, where the sender lets you choose it");
        }
        let seen = self.references.seen_inline.take();
        let mut places: Vec<Place> = seen.iter().map(|secret| self.find(within, secret)).collect();
        places.dedup();
        for place in places {
            let help = "move it to a variable or file, and write `env:NAME` or `file:PATH`";
            self.warning(&place, "a secret stands in the config itself", help);
        }
    }

    /// Where a text stands within a part of the config; that part if it is nowhere.
    fn find(&self, within: &Place, text: &str) -> Place {
        fn search(node: &super::yaml::Node, place: Place, wanted: &str) -> Option<Place> {
            match &node.kind {
                Kind::Scalar { text, .. } => (text == wanted).then_some(place),
                Kind::List(items) => {
                    items.iter().enumerate().find_map(|(i, item)| search(item, place.index(i), wanted))
                }
                Kind::Map(entries) => {
                    entries.iter().find_map(|e| search(&e.value, place.key(&e.key), wanted))
                }
            }
        }
        let node = self.report.document.node(within);
        node.and_then(|node| search(node, within.clone(), text)).unwrap_or_else(|| within.clone())
    }
}
