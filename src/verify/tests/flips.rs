//! One flipped bit of what is signed, and the request is refused: for every pack, with every accepted vector. What is
//! signed is asked of the compiled rule, not of a list: a flip counts if it changes the bytes that the template is filled
//! with, or the signature as it reads after decoding.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use super::vectors::{Vector, vectors};
use crate::clock::Timestamp;
use crate::message::{Headers, Request};
use crate::providers::Pack;
use crate::verify::check::{Check, How};
use crate::verify::encoding::MAX_SIGNATURE;
use crate::verify::http_signature::HttpSignature;
use crate::verify::locate::View;
use crate::verify::scheme::{Keys, Scheme, TimeRule};
use crate::verify::signatures::TimeFrom;
use crate::verify::template::Filling;
use crate::verify::testing::World;
use crate::verify::{Compiled, compile};

/// Positions that are tried in one part of a request (a header, the target, the body): all of them in a short one.
const POSITIONS: usize = 160;

/// What decides about a request: pairs of signed bytes and a signature, of which one must be right; such a list for each
/// element where each has its own.
struct Essence(Vec<Vec<(Vec<u8>, Vec<u8>)>>);

impl Essence {
    /// Whether a request with this essence must be refused. Not if one of several signatures still stands over what it
    /// stood over: then the request may be as good as before.
    fn is_another(&self, original: &Essence) -> bool {
        self.0.len() != original.0.len()
            || self
                .0
                .iter()
                .zip(&original.0)
                .any(|(now, before)| !now.iter().any(|pair| before.contains(pair)))
    }
}

/// The part of the rule that accepts the request.
fn holding<'c>(check: &'c Check, request: &Request, url: Option<&str>, now: Timestamp) -> Option<&'c Check> {
    let accepts = |check: &&Check| check.run(request, url, now).is_ok();
    match &check.how {
        How::Ways(ways) => ways.iter().find(accepts),
        _ => Some(check).filter(accepts),
    }
}

/// Which of its pack's ways accepts the vector if the pack has no other.
fn way(vector: &Vector) -> Option<usize> {
    let pack = crate::providers::find(&vector.provider).unwrap();
    let accepts = |at: &usize| {
        let mut only: Pack = (*pack).clone();
        only.verify = vec![pack.verify[*at].clone()];
        let packs = [(pack.name.clone(), Arc::new(only))].into();
        let world = World { packs, ..World::default() };
        let rule = compile(&vector.spec(), &vector.within(&world));
        let now = Timestamp::from_secs(vector.now);
        let verify =
            |rule: Compiled| rule.verifier.verify(vector.request.request(), vector.public_url(), now).is_ok();
        rule.is_ok_and(verify)
    };
    (0..pack.verify.len()).find(accepts)
}

/// `None` if there is no such thing: what must be there is missing, or can't be read.
fn essence(check: &Check, request: &Request, public_url: Option<&str>) -> Option<Essence> {
    match &check.how {
        How::Scheme(scheme) => of_scheme(scheme, request, public_url),
        How::Jwt(jwt) => {
            let location = jwt.locations().next()?;
            let mut signed = Vec::new();
            if jwt.signs_body() {
                signed.extend_from_slice(&request.body);
            }
            if jwt.signs_url() {
                signed.extend_from_slice(crate::verify::url::public(&request.head, public_url).as_bytes());
            }
            let token = location.find(View::of(request)).ok()??;
            Some(Essence(vec![vec![(signed, credential(&token))]]))
        }
        How::HttpSignature(_) => HttpSignature::signed(request, public_url).map(|pairs| Essence(vec![pairs])),
        How::Credentials(credentials) => {
            let value = credentials.at.find(View::of(request)).ok()??;
            Some(Essence(vec![vec![(Vec::new(), credential(&value))]]))
        }
        _ => None,
    }
}

/// What follows the scheme's name, whose case does not matter.
fn credential(value: &[u8]) -> Vec<u8> {
    let at = value.iter().position(|b| *b == b' ').unwrap_or(0);
    [value[..at].to_ascii_lowercase(), value[at..].to_vec()].concat()
}

fn of_scheme(scheme: &Scheme, request: &Request, public_url: Option<&str>) -> Option<Essence> {
    let bodies = match &scheme.each {
        Some(pointer) => pointer.elements(&request.body)?,
        None => vec![&request.body[..]],
    };
    let elements: Option<Vec<_>> =
        bodies.into_iter().map(|body| of_body(scheme, View::of_body(request, body), public_url)).collect();
    elements.map(Essence)
}

fn of_body(scheme: &Scheme, view: View<'_>, public_url: Option<&str>) -> Option<Vec<(Vec<u8>, Vec<u8>)>> {
    let is_token = matches!(scheme.keys, Keys::Token(_));
    let mut pairs = Vec::new();
    for location in &scheme.from {
        let Some(value) = location.find(view).ok()? else { continue };
        for group in scheme.form.groups(&value) {
            let mut signed = Vec::new();
            if !is_token {
                let timestamp = match &scheme.timestamp {
                    Some(TimeRule { from: TimeFrom::At(location), .. }) => location.find(view).ok()??,
                    Some(rule) => match scheme.form.time(&rule.from, group) {
                        Ok(time) => Cow::Borrowed(time),
                        Err(_) => continue,
                    },
                    None => Cow::Borrowed(&b""[..]),
                };
                let id = match &scheme.id {
                    Some(location) => location.find(view).ok()??,
                    None => Cow::Borrowed(&b""[..]),
                };
                let url = OnceCell::new();
                let filling = Filling { view, public_url, timestamp: &timestamp, id: &id, url: &url };
                scheme.template.feed(&filling, b"", |piece| signed.extend_from_slice(piece)).ok()?;
                if let Some(digest) = &scheme.body_digest {
                    signed.extend_from_slice(&digest.from.find(view).ok()??);
                    signed.extend_from_slice(view.body);
                }
            }
            for text in scheme.form.signatures(group) {
                let mut buffer = [0; MAX_SIGNATURE];
                let signature =
                    if is_token { Some(text) } else { scheme.form.encoding.decode(text, &mut buffer) };
                pairs.extend(signature.map(|signature| (signed.clone(), signature.to_vec())));
            }
        }
    }
    Some(pairs)
}

/// Positions in a part of `length` bytes: all, or a sample.
fn positions(random: &mut fastrand::Rng, length: usize) -> Vec<usize> {
    if length <= POSITIONS {
        return (0..length).collect();
    }
    let sampled = std::iter::repeat_with(|| random.usize(..length)).take(POSITIONS - 2);
    [0, length - 1].into_iter().chain(sampled).collect()
}

/// `request` with one bit of one of its parts flipped, for a sample of the bits of all parts that the rule may read.
fn flipped(request: &Request, read: &[String], random: &mut fastrand::Rng) -> Vec<(String, Request)> {
    let mut all = Vec::new();
    for at in positions(random, request.body.len()) {
        let mut body = request.body.to_vec();
        body[at] ^= 1 << random.u8(..8);
        all.push((format!("byte {at} of the body"), Request { body: body.into(), ..request.clone() }));
    }
    for at in positions(random, request.head.target.len()) {
        let mut target = request.head.target.clone().into_bytes();
        // Only ASCII ever gets here.
        target[at] ^= 1 << random.u8(..7);
        let mut request = request.clone();
        request.head.target = String::from_utf8(target).unwrap();
        all.push((format!("byte {at} of the target"), request));
    }
    for at in positions(random, request.head.authority.len()) {
        let mut authority = request.head.authority.clone().into_bytes();
        authority[at] ^= 1 << random.u8(..7);
        let mut request = request.clone();
        request.head.authority = String::from_utf8(authority).unwrap();
        all.push((format!("byte {at} of the host"), request));
    }
    let headers: Vec<(&str, &[u8])> = request.head.headers.iter().collect();
    for (index, (name, value)) in headers.iter().enumerate() {
        if !read.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            continue;
        }
        for at in positions(random, value.len()) {
            let mut value = value.to_vec();
            value[at] ^= 1 << random.u8(..8);
            let changed = headers
                .iter()
                .enumerate()
                .map(|(other, (name, old))| (*name, if other == index { value.as_slice() } else { *old }));
            let mut request = request.clone();
            request.head.headers = changed.collect::<Headers>();
            all.push((format!("byte {at} of {name}"), request));
        }
    }
    all
}

#[test]
fn a_flipped_bit_of_what_is_signed_is_refused_for_every_pack() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let (vectors, world) = (vectors(&folder), World::default());
    let seed = 0x7469_6465;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut flips: BTreeMap<&str, usize> =
        crate::providers::names().into_iter().map(|name| (name, 0)).collect();
    let mut accepted = Vec::new();
    // One for each of a pack's ways, and for each kind of body that signed places are read from.
    let mut seen: BTreeMap<&str, BTreeSet<(usize, String)>> = BTreeMap::new();
    let mut compiled: BTreeMap<String, Compiled> = BTreeMap::new();
    let good = |vector: &&Vector| vector.expect == "accept" && flips.contains_key(vector.provider.as_str());
    let good: Vec<&Vector> = vectors.iter().filter(good).collect();
    for vector in &good {
        compiled.entry(vector.rule()).or_insert_with(|| vector.compiled(&world));
    }
    for vector in &good {
        let rule = &compiled[&vector.rule()].verifier;
        let (request, url, now) =
            (vector.request.request(), vector.public_url(), Timestamp::from_secs(vector.now));
        let check = holding(&rule.check, &request, url, now).unwrap_or_else(|| panic!("{}", vector.name));
        let way = way(vector).unwrap_or_else(|| panic!("{} / {}", vector.provider, vector.name));
        let kind = request.head.headers.first("content-type").unwrap_or_default();
        let kind =
            String::from_utf8_lossy(kind.split(|b| *b == b';').next().unwrap_or_default()).into_owned();
        if !seen.entry(&vector.provider).or_default().insert((way, kind)) {
            continue;
        }
        let Some(original) = essence(check, &request, url) else { continue };
        for (what, changed) in flipped(&request, rule.headers_used(), &mut random) {
            if essence(check, &changed, url).is_some_and(|essence| !essence.is_another(&original)) {
                continue;
            }
            *flips.entry(&vector.provider).or_default() += 1;
            if rule.verify(changed, url, now).is_ok() {
                accepted.push(format!("{} / {}: {what}", vector.provider, vector.name));
            }
        }
    }
    assert!(accepted.is_empty(), "seed {seed:#x}: accepted\n{}", accepted.join("\n"));
    let few: Vec<_> = flips.iter().filter(|(_, count)| **count < 8).collect();
    assert!(few.is_empty(), "hardly anything of these counts as signed: {few:?}");
    let unseen = crate::providers::names().into_iter().flat_map(|name| {
        let pack = crate::providers::find(name).unwrap();
        let ways: BTreeSet<usize> = seen.get(name).into_iter().flatten().map(|(way, _)| *way).collect();
        (0..pack.verify.len())
            .filter(move |way| !ways.contains(way))
            .map(move |way| format!("{name}: way {way}"))
    });
    let unseen: Vec<String> = unseen.collect();
    assert!(unseen.is_empty(), "no accepted vector has been flipped: {unseen:?}");
}
