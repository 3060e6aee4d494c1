//! What the request itself tells where no mistake that is tried makes it right: whose it looks like, and of which mode.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::super::extract::Extract;
use super::super::json::Pointer;
use super::super::locate::Location;
use super::super::spec::Rule;
use super::Likely;
use crate::message::Request;
use crate::providers::{self, Pack};

/// More providers than these sign by the same header: it says nothing.
const MAX_NAMED: usize = 4;
/// Headers that many have, whoever they are.
const COMMON: [&str; 3] = ["authorization", "signature", "content-type"];

/// The provider of which the request's headers are, if it is none of `own`.
pub(super) fn other_provider(request: &Request, own: &BTreeSet<String>) -> Option<Likely> {
    let mut best: (usize, Vec<(Pack, String)>) = (0, Vec::new());
    for name in providers::names() {
        let Ok(pack) = providers::find(name) else { continue };
        let Some((score, header)) = score(&pack, request) else { continue };
        if score > best.0 {
            best = (score, Vec::new());
        }
        if score == best.0 {
            best.1.push((Pack::clone(&pack), header));
        }
    }
    let packs = best.1;
    let (_, header) = packs.first().filter(|_| packs.len() <= MAX_NAMED)?;
    if packs.iter().any(|(pack, _)| own.contains(&pack.name)) {
        return None;
    }
    let titles: Vec<&str> = packs.iter().map(|(pack, _)| pack.title.as_str()).collect();
    let text = format!("this looks like a request of {}, which has `{header}`", titles.join(" or "));
    Some(Likely::new("other_provider", format!("{text}: is the URL that of another route?")))
}

/// How many of the headers that a provider writes are there, and the one with its signature; `None` if that is not.
fn score(pack: &Pack, request: &Request) -> Option<(usize, String)> {
    let there = |name: &String| request.head.headers.contains(name) && !COMMON.contains(&name.as_str());
    pack.verify
        .iter()
        .filter_map(|rule| {
            let signature = signature_headers(rule).into_iter().find(there)?;
            let mut others = other_headers(rule);
            others.extend(pack.event_type.iter().flat_map(headers_of));
            others.remove(&signature);
            Some((1 + others.iter().filter(|name| there(name)).count(), signature))
        })
        .max_by_key(|(score, _)| *score)
}

/// The headers that an extraction reads.
fn headers_of(extract: &Extract) -> Vec<String> {
    let found = RefCell::new(Vec::new());
    extract.is_bound(&|location| {
        found.borrow_mut().extend(location.header().map(str::to_owned));
        true
    });
    found.into_inner()
}

fn schemes(rule: &Rule) -> impl Iterator<Item = &super::super::spec::SchemeSpec> {
    rule.scheme.as_deref().into_iter().chain([&rule.inline])
}

fn header(place: &str) -> Option<String> {
    Location::parse(place).ok()?.header().map(str::to_owned)
}

fn signature_headers(rule: &Rule) -> Vec<String> {
    let from = schemes(rule).filter_map(|scheme| scheme.signature.as_ref()).flat_map(|s| &s.from.0);
    from.filter_map(|place| header(place)).collect()
}

fn other_headers(rule: &Rule) -> BTreeSet<String> {
    let places = schemes(rule).flat_map(|scheme| {
        let time = scheme.timestamp.as_ref().map(|time| time.from.as_str());
        time.into_iter().chain(scheme.id.as_deref())
    });
    places.filter_map(header).collect()
}

/// How bodies say that an event is of the provider's test mode.
const TEST_MODE: [(&str, &str); 8] = [
    ("/livemode", "false"),
    ("/live_mode", "false"),
    ("/live", "false"),
    ("/test", "true"),
    ("/test_mode", "true"),
    ("/testmode", "true"),
    ("/is_test", "true"),
    ("/meta/test_mode", "true"),
];

/// That the event is of the test mode, which has secrets of its own.
pub(super) fn test_mode(request: &Request) -> Option<Likely> {
    let says = |(pointer, wanted): &&(&str, &str)| {
        Pointer::parse(pointer)
            .is_ok_and(|pointer| pointer.raw(&request.body).is_some_and(|value| value == *wanted))
    };
    let (pointer, value) = TEST_MODE.iter().find(says)?;
    let name = pointer.rsplit('/').next().unwrap_or(pointer);
    let text = format!(
        "the event is of the provider's test mode (`{name}` is {value}), which has a secret of its own: most likely the \
         configured one is that of live mode"
    );
    Some(Likely::new("test_mode", text))
}
