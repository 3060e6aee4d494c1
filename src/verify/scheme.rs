//! A compiled signature scheme and its check: find the signatures, check the time, feed the signed bytes into each
//! live key, compare in constant time. One match of any signature with any key is enough.

use std::cell::OnceCell;
use std::sync::Arc;
use std::time::Duration;

use super::border::Edge;
use super::condition::Condition;
use super::encoding::{Encoding, MAX_SIGNATURE};
use super::fetched::Fetched;
use super::json::{Elements, Pointer};
use super::locate::{Location, Values, View};
use super::mac::{Hash, MacKey};
use super::public_key::PublicKey;
use super::refusal::{Refusal, at};
use super::shape::Shape;
use super::signable::Signable;
use super::signatures::{MAX_SIGNATURES, SignatureForm, TimeFrom};
use super::spec::KeySpec;
use super::template::{Filling, Template};
use super::time::{TimeFormat, distance};
use super::window::Window;
use crate::clock::Timestamp;
use crate::message::Request;
use crate::reason::Reason;
use crate::secret::{Secret, same};

/// Elements of a batch that are each signed; a larger one is refused.
const MAX_ELEMENTS: usize = 1000;

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Scheme {
    pub(super) when: Vec<Condition>,
    /// Signed places that must have one of these values: who may use the route.
    pub(super) only: Vec<(Location, Vec<String>)>,
    pub(super) from: Vec<Location>,
    pub(super) form: SignatureForm,
    pub(super) timestamp: Option<TimeRule>,
    pub(super) id: Option<Location>,
    pub(super) template: Template,
    /// Shapes that places must have, where they are there.
    pub(super) shapes: Vec<(Location, Shape)>,
    /// What keeps the borders between signed parts where they are.
    pub(super) edges: Vec<Edge>,
    /// Parts of which the border could be moved.
    pub(super) open_border: Option<(String, String)>,
    pub(super) body_digest: Option<BodyDigest>,
    pub(super) each: Option<Pointer>,
    /// All that is read of the body's JSON.
    pub(super) pointers: Box<[Pointer]>,
    pub(super) keys: Keys,
    /// The shared secrets as they were given: only looked at to explain a refusal.
    pub(super) given: GivenSecrets,
    pub(super) signable: Arc<Signable>,
}

/// What the keys were made of.
#[derive(Clone, Debug, Default)]
pub(super) struct GivenSecrets {
    pub(super) secrets: Vec<GivenSecret>,
    /// How a secret becomes a key.
    pub(super) key: Option<KeySpec>,
}

#[derive(Clone, Debug)]
pub(super) struct GivenSecret {
    pub(super) given: Secret,
    /// What it stands for.
    pub(super) key: Secret,
    pub(super) label: Option<Arc<str>>,
    pub(super) window: Window,
}

#[derive(Clone, Debug)]
pub(super) struct TimeRule {
    pub(super) from: TimeFrom,
    /// It may be written in each of these; never empty. The first is that in which we write.
    pub(super) formats: Box<[TimeFormat]>,
    pub(super) tolerance: Duration,
}

#[derive(Clone, Debug)]
pub(super) struct BodyDigest {
    pub(super) from: Location,
    pub(super) hash: Hash,
    pub(super) encoding: Encoding,
}

/// A key with what the user calls it.
#[derive(Clone, Debug)]
pub(super) struct Labelled<T> {
    pub(super) value: T,
    pub(super) label: Option<Arc<str>>,
    /// When it is live.
    pub(super) window: Window,
}

#[derive(Clone, Debug)]
pub(super) enum Keys {
    Mac(Vec<Labelled<MacKey>>),
    /// A plain digest over a template that holds the secret.
    Digest(Hash, Vec<Labelled<Secret>>),
    /// The secret itself is sent.
    Token(Vec<Labelled<Secret>>),
    Public(Vec<Labelled<PublicKey>>),
    Fetched(Fetched),
}

impl<T> Labelled<T> {
    /// A key without a name, live at all times.
    pub(super) fn unnamed(value: T) -> Self {
        Self { value, label: None, window: Window::default() }
    }
}

/// Those of `keys` that are live at `now`.
pub(super) fn live<T>(keys: &[Labelled<T>], now: Timestamp) -> impl Iterator<Item = &Labelled<T>> {
    keys.iter().filter(move |key| key.window.is_open(now))
}

/// The label of the key that matched.
pub(super) type Match = Option<Arc<str>>;

impl Scheme {
    /// Decides; on success the label of the key that matched.
    pub(super) fn check(
        &self,
        request: &Request,
        public_url: Option<&str>,
        now: Timestamp,
    ) -> Result<Match, Refusal> {
        let values = Values::of(&self.pointers, &request.body);
        let whole = View { values: Some(&values), ..View::of(request) };
        for condition in &self.when {
            condition.holds(whole)?;
        }
        let Some(pointer) = &self.each else { return self.check_one(whole, public_url, now) };
        let elements = match pointer.elements_up_to(&request.body, MAX_ELEMENTS) {
            Some(Elements::All(elements)) if !elements.is_empty() => elements,
            Some(Elements::TooMany) => {
                return Err(Refusal::new(
                    Reason::SignatureInvalid,
                    format!("body:{pointer} has more than {MAX_ELEMENTS} elements"),
                ));
            }
            Some(Elements::All(_)) | None => {
                return Err(Refusal::new(
                    Reason::SignatureMissing,
                    format!("body:{pointer} is not an array with elements"),
                ));
            }
        };
        let mut label = None;
        for element in elements {
            let values = Values::of(&self.pointers, element);
            let view = View { values: Some(&values), ..View::of_body(request, element) };
            label = self.check_one(view, public_url, now)?;
        }
        Ok(label)
    }

    /// Whether each place has its shape, and each signed part ends where it must.
    fn check_shapes(&self, view: View<'_>) -> Result<(), Refusal> {
        let refuse = |location: &Location, why: &str| {
            Err(Refusal::new(Reason::SignatureInvalid, format!("{location} {why}")))
        };
        for (location, shape) in &self.shapes {
            if at(location, location.find(view))?.is_some_and(|value| !shape.matches(&value)) {
                return refuse(location, "has not the shape that this scheme is for");
            }
        }
        for edge in &self.edges {
            let location = edge.location();
            if at(location, location.find(view))?.is_some_and(|value| !edge.holds(&value, view.body)) {
                return refuse(
                    location,
                    "does not end where it must: what is signed could be cut in another way",
                );
            }
        }
        Ok(())
    }

    fn check_one(&self, view: View<'_>, public_url: Option<&str>, now: Timestamp) -> Result<Match, Refusal> {
        let missing = |what: &dyn std::fmt::Display| {
            Refusal::new(Reason::SignatureMissing, format!("{what} is missing"))
        };
        let id = match &self.id {
            Some(location) => at(location, location.find(view))?
                .filter(|id| !id.is_empty())
                .ok_or_else(|| missing(location))?,
            None => (&b""[..]).into(),
        };
        let time_apart = match &self.timestamp {
            Some(TimeRule { from: TimeFrom::At(location), .. }) => {
                let text = at(location, location.find(view))?;
                Some(text.filter(|t| !t.is_empty()).ok_or_else(|| missing(location))?)
            }
            _ => None,
        };
        if let (Some(rule), Some(text)) = (&self.timestamp, &time_apart) {
            rule.check(text, now)?;
        }
        let url = OnceCell::new();
        let mut refused: Option<Refusal> = None;
        let mut note = |refusal: Refusal| {
            refused = Some(match refused.take() {
                Some(earlier) => earlier.more_telling(refusal),
                None => refusal,
            });
        };
        for location in &self.from {
            let Some(value) = at(location, location.find(view))?.filter(|v| !v.is_empty()) else { continue };
            for group in self.form.groups(&value).take(MAX_SIGNATURES) {
                let time_inside = match &self.timestamp {
                    Some(rule) if time_apart.is_none() => match self.form.time(&rule.from, group) {
                        Ok(text) => match rule.check(text, now) {
                            Ok(()) => text,
                            Err(refusal) => {
                                note(refusal);
                                continue;
                            }
                        },
                        Err(refusal) => {
                            note(refusal);
                            continue;
                        }
                    },
                    _ => &b""[..],
                };
                let filling = Filling {
                    view,
                    public_url,
                    timestamp: time_apart.as_deref().unwrap_or(time_inside),
                    id: &id,
                    url: &url,
                };
                if self.form.is_cut(group) {
                    note(Refusal::new(
                        Reason::SignatureInvalid,
                        format!("{location} is cut off or malformed"),
                    ));
                    continue;
                }
                match self.matches(group, &filling, now)? {
                    Some(matched) => {
                        self.check_shapes(view)?;
                        self.check_body_digest(view)?;
                        self.check_only(view)?;
                        return Ok(matched);
                    }
                    None => note(self.no_match(location, group, now)),
                }
            }
        }
        Err(refused.unwrap_or_else(|| missing(&self.places())))
    }

    /// The label of a key, live at `now`, that some signature of `group` is right for.
    fn matches(&self, group: &[u8], filling: &Filling<'_>, now: Timestamp) -> Result<Option<Match>, Refusal> {
        let mut buffer = [0; MAX_SIGNATURE];
        match &self.keys {
            Keys::Mac(keys) => {
                for key in live(keys, now) {
                    let expected = key.value.mac(|sink| self.template.feed(filling, b"", sink))?;
                    if self.any_equals(group, expected.as_bytes(), &mut buffer) {
                        self.signable
                            .refuse(expected.as_bytes(), |sink| self.template.feed(filling, b"", sink))?;
                        return Ok(Some(key.label.clone()));
                    }
                }
            }
            Keys::Digest(hash, secrets) => {
                for secret in live(secrets, now) {
                    let secret_bytes = secret.value.expose();
                    let fed = hash.digest(|sink| self.template.feed(filling, secret_bytes, sink))?;
                    if self.any_equals(group, fed.as_bytes(), &mut buffer) {
                        self.signable
                            .refuse(fed.as_bytes(), |sink| self.template.feed(filling, secret_bytes, sink))?;
                        return Ok(Some(secret.label.clone()));
                    }
                }
            }
            Keys::Token(tokens) => {
                for token in live(tokens, now) {
                    if self.form.signatures(group).any(|text| token.value.is(text)) {
                        return Ok(Some(token.label.clone()));
                    }
                }
            }
            Keys::Public(keys) => {
                let message = self.template.whole(filling)?;
                for text in self.form.signatures(group) {
                    let Some(signature) = self.form.encoding.decode(text, &mut buffer) else { continue };
                    for key in live(keys, now) {
                        if key.value.verifies(&message, signature) {
                            return Ok(Some(key.label.clone()));
                        }
                    }
                }
            }
            Keys::Fetched(fetched) => {
                // A request without a signature is not worth a fetch.
                if self.form.signatures(group).next().is_none() {
                    return Ok(None);
                }
                let message = self.template.whole(filling)?;
                return fetched.check(filling.view, now, |key| {
                    self.form.signatures(group).any(|text| {
                        match self.form.encoding.decode(text, &mut buffer) {
                            Some(signature) => key.verifies(&message, signature),
                            None => false,
                        }
                    })
                });
            }
        }
        Ok(None)
    }

    fn check_only(&self, view: View<'_>) -> Result<(), Refusal> {
        for (location, accepted) in &self.only {
            let value = at(location, location.find(view))?;
            if !value.is_some_and(|value| accepted.iter().any(|one| one.as_bytes() == &*value)) {
                return Err(Refusal::new(
                    Reason::SenderNotAllowed,
                    format!("{location} does not have one of the configured values"),
                ));
            }
        }
        Ok(())
    }

    fn any_equals(&self, group: &[u8], expected: &[u8], buffer: &mut [u8; MAX_SIGNATURE]) -> bool {
        self.form.signatures(group).any(|text| match self.form.encoding.decode(text, buffer) {
            Some(signature) => same(signature, expected),
            None => false,
        })
    }

    fn check_body_digest(&self, view: View<'_>) -> Result<(), Refusal> {
        let Some(BodyDigest { from, hash, encoding }) = &self.body_digest else { return Ok(()) };
        let text = at(from, from.find(view))?
            .ok_or_else(|| Refusal::new(Reason::SignatureMissing, format!("{from} is missing")))?;
        let mut buffer = [0; MAX_SIGNATURE];
        match encoding.decode(&text, &mut buffer) {
            Some(digest) if same(digest, hash.of(view.body).as_bytes()) => Ok(()),
            _ => Err(Refusal::new(Reason::SignatureInvalid, format!("{from} is not the body's digest"))),
        }
    }

    /// Says why nothing in `group` matched.
    fn no_match(&self, location: &Location, group: &[u8], now: Timestamp) -> Refusal {
        let mut buffer = [0; MAX_SIGNATURE];
        let mut seen = 0;
        let mut decoded = 0;
        for text in self.form.signatures(group) {
            seen += 1;
            if matches!(self.keys, Keys::Token(_)) || self.form.encoding.decode(text, &mut buffer).is_some() {
                decoded += 1;
            }
        }
        match (seen, decoded) {
            (0, _) => Refusal::new(
                Reason::SignatureMissing,
                format!("{location} holds no {}", self.form.expected()),
            ),
            (_, 0) => Refusal::new(
                Reason::SignatureInvalid,
                format!("the signature in {location} is not {:?}", self.form.encoding),
            ),
            (1, _) => Refusal::new(
                Reason::SignatureInvalid,
                format!("{location} does not match any of {} live key(s)", self.keys.live(now)),
            ),
            (many, _) => Refusal::new(
                Reason::SignatureInvalid,
                format!(
                    "none of {many} signatures in {location} matches any of {} live key(s)",
                    self.keys.live(now)
                ),
            ),
        }
    }

    /// Whether anything is signed: not where the secret itself is sent.
    pub(super) fn signs(&self) -> bool {
        !matches!(self.keys, Keys::Token(_))
    }

    /// Whether what stands at `location` can't be changed without the key, where something is signed.
    pub(super) fn covers(&self, location: &Location) -> bool {
        let signs_id = self.template.uses_id() && self.id.as_ref() == Some(location);
        let signs_body = self.template.covers_body() || self.body_digest.is_some();
        // A signature that can be written in one way only stands for what is signed.
        let is_canonical = |shape: &Shape| !(b'A'..=b'Z').any(|upper| shape.may_hold(upper));
        let is_signature = self.form.encoding == Encoding::Hex
            && self.from.contains(location)
            && self.shapes.iter().any(|(place, shape)| place == location && is_canonical(shape));
        is_signature || signs_id || self.template.covers(location) || (location.in_body() && signs_body)
    }

    pub(super) fn places(&self) -> String {
        self.from.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ")
    }

    /// Every place that the decision depends on.
    pub(super) fn locations(&self) -> impl Iterator<Item = &Location> {
        let time = match &self.timestamp {
            Some(TimeRule { from: TimeFrom::At(location), .. }) => Some(location),
            _ => None,
        };
        self.from
            .iter()
            .chain(time)
            .chain(&self.id)
            .chain(self.template.locations())
            .chain(self.body_digest.as_ref().map(|digest| &digest.from))
            .chain(self.when.iter().map(Condition::location))
            .chain(self.only.iter().map(|(location, _)| location))
            .chain(match &self.keys {
                Keys::Fetched(fetched) => fetched.named.as_ref(),
                _ => None,
            })
    }
}

/// The values of the body's JSON that a scheme reads.
pub(super) fn pointers(scheme: &Scheme) -> Box<[Pointer]> {
    let shaped = scheme.shapes.iter().map(|(location, _)| location);
    let edges = scheme.edges.iter().map(Edge::location);
    let mut pointers: Vec<Pointer> = Vec::new();
    for pointer in scheme.locations().chain(shaped).chain(edges).filter_map(Location::pointer) {
        if !pointers.contains(pointer) {
            pointers.push(pointer.clone());
        }
    }
    pointers.into()
}

impl Keys {
    /// How many are live.
    pub(super) fn live(&self, now: Timestamp) -> usize {
        match self {
            Keys::Mac(keys) => live(keys, now).count(),
            Keys::Digest(_, keys) | Keys::Token(keys) => live(keys, now).count(),
            Keys::Public(keys) => live(keys, now).count(),
            Keys::Fetched(_) => 1,
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Keys::Mac(keys) => keys.len(),
            Keys::Digest(_, keys) | Keys::Token(keys) => keys.len(),
            Keys::Public(keys) => keys.len(),
            Keys::Fetched(_) => 1,
        }
    }
}

impl TimeRule {
    /// The time, in the first format in which it is one.
    pub(super) fn parse(&self, text: &[u8]) -> Option<Timestamp> {
        self.formats.iter().find_map(|format| format.parse(text))
    }

    pub(super) fn format(&self, time: Timestamp) -> String {
        self.formats.first().copied().unwrap_or(TimeFormat::Unix).format(time)
    }

    /// The formats in words.
    pub(super) fn formats(&self) -> String {
        self.formats.iter().map(|format| format.name()).collect::<Vec<_>>().join(" or ")
    }

    fn check(&self, text: &[u8], now: Timestamp) -> Result<(), Refusal> {
        let refuse = |detail| Err(Refusal::new(Reason::TimestampOutOfTolerance, detail));
        let Some(time) = self.parse(text) else {
            return refuse(format!("the time `{}` is not {}", shown(text), self.formats()));
        };
        let apart = distance(time, now);
        if apart <= self.tolerance {
            return Ok(());
        }
        let side = if time < now { "ago" } else { "ahead" };
        refuse(format!(
            "the signed time is {} s {side}, {} s are allowed",
            apart.as_secs(),
            self.tolerance.as_secs()
        ))
    }
}

/// A sender's text for a message: short and printable.
fn shown(text: &[u8]) -> String {
    String::from_utf8_lossy(&text[..text.len().min(40)]).escape_debug().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_checked_in_both_directions() {
        let rule = TimeRule {
            from: TimeFrom::Position(0),
            formats: [TimeFormat::Unix].into(),
            tolerance: Duration::from_secs(300),
        };
        let now = Timestamp::from_secs(1_764_000_000);
        for (text, right) in [
            ("1764000000", true),
            ("1763999700", true),
            ("1764000300", true),
            ("1763999699", false),
            ("1764000301", false),
            ("1764000000000", false),
            ("x", false),
        ] {
            assert_eq!(rule.check(text.as_bytes(), now).is_ok(), right, "{text}");
        }
    }
}
