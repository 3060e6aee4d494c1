//! Where one signed part ends and the next begins. A signature is over bytes: if the same bytes could be cut into other
//! parts, whoever holds one genuine request could move the border and have another request that is signed as well.
//!
//! A border is fixed where a literal stands that the parts beside it can't hold, or where a part has one length. Told once,
//! when a rule is read; what has to be looked at in each request is an [`Edge`].

use super::locate::Location;
use super::shape::{Class, Shape};
use super::template::{Part, Template, Wanted};
use super::time::TimeFormat;

/// The shapes that signed places must have, and where time and id are.
#[derive(Clone, Copy)]
pub(super) struct Places<'s> {
    pub(super) shapes: &'s [(Location, Shape)],
    /// Its place, if it has one, and how it may be written.
    pub(super) time: Option<(Option<&'s Location>, &'s [TimeFormat])>,
    pub(super) id: Option<&'s Location>,
}

/// What is looked at in each request, so that a border stays where it is.
#[derive(Clone, Debug)]
pub(super) enum Edge {
    /// The id may not hold the byte that ends it.
    Without(Location, u8),
    /// What stands before the body (and this separator) reaches as far as its shape can.
    BeforeBody(Location, Shape, Box<[u8]>),
    /// The same behind it.
    AfterBody(Location, Shape),
}

/// What is known of a part.
enum Extent<'t> {
    Literal(&'t [u8]),
    /// It is the same in each request, or its ends can be seen.
    Known,
    /// It is as long in each request.
    FixedLength,
    /// It ends where a byte stands that is not of its class.
    Of(Class),
}

/// The parts between which the border could be moved, as they are written; `None` if each border is fixed.
pub(super) fn open(template: &Template, places: Places<'_>) -> Option<(String, String)> {
    let parts = template.parts();
    let extents: Vec<_> = (0..parts.len()).map(|at| extent(parts, at, places)).collect();
    let is_known = |at: usize, beside: Option<usize>, edge: fn(&[u8]) -> Option<&u8>| match &extents[at] {
        Extent::Literal(_) | Extent::Known | Extent::FixedLength => true,
        Extent::Of(class) => match beside.map(|beside| &extents[beside]) {
            None => false,
            Some(Extent::Literal(literal)) => {
                edge(literal).is_some_and(|byte| !class.has(*byte))
                    || (shape_at(parts, at, places).is_some() && parts.get(at + 2) == Some(&Part::Body))
            }
            Some(_) => beside.is_some_and(|beside| {
                matches!(parts[beside], Part::Body) && shape_at(parts, at, places).is_some()
            }),
        },
    };
    let last = parts.len().checked_sub(1)?;
    let left = (0..parts.len()).find(|at| !is_known(*at, (*at < last).then_some(at + 1), <[u8]>::first))?;
    let right = (0..parts.len()).rev().find(|at| !is_known(*at, at.checked_sub(1), <[u8]>::last))?;
    (left < right).then(|| (parts[left].name(), parts[right].name()))
}

/// What is to be looked at in each request.
pub(super) fn edges(template: &Template, places: Places<'_>) -> Vec<Edge> {
    let parts = template.parts();
    let mut edges = Vec::new();
    for (at, part) in parts.iter().enumerate() {
        let (before, after) = (at.checked_sub(1).and_then(|at| parts.get(at)), parts.get(at + 1));
        let Some(location) = location_of(part, places) else { continue };
        match (shape_at(parts, at, places), after) {
            (None, Some(Part::Literal(literal))) if *part == Part::Id => {
                edges.extend(literal.first().map(|byte| Edge::Without(location.clone(), *byte)));
            }
            (Some(shape), after) if !shape.is_of_fixed_length() => {
                let between = match (after, parts.get(at + 2)) {
                    (Some(Part::Body), _) => Some(&[][..]),
                    (Some(Part::Literal(literal)), Some(Part::Body)) => Some(&literal[..]),
                    _ => None,
                };
                edges.extend(
                    between.map(|between| Edge::BeforeBody(location.clone(), shape.clone(), between.into())),
                );
                if before == Some(&Part::Body) {
                    edges.push(Edge::AfterBody(location.clone(), shape.clone()));
                }
            }
            _ => {}
        }
    }
    edges
}

fn location_of<'s>(part: &'s Part, places: Places<'s>) -> Option<&'s Location> {
    match part {
        Part::At(location, _) | Part::Line(_, location) => Some(location),
        Part::Id => places.id,
        Part::Timestamp => places.time?.0,
        _ => None,
    }
}

fn shape_at<'s>(parts: &'s [Part], at: usize, places: Places<'s>) -> Option<&'s Shape> {
    let location = location_of(parts.get(at)?, places)?;
    places.shapes.iter().find(|(known, _)| known == location).map(|(_, shape)| shape)
}

fn extent<'t>(parts: &'t [Part], at: usize, places: Places<'t>) -> Extent<'t> {
    if let Some(shape) = shape_at(parts, at, places) {
        let before_time = matches!(parts.get(at + 1), Some(Part::Timestamp)) && !shape.may_hold(b':');
        return match &parts[at] {
            _ if shape.is_of_fixed_length() => Extent::FixedLength,
            // The first colon of a time of day stands at a fixed place within it.
            _ if before_time && is_all(places, |format| matches!(format, TimeFormat::Rfc3339)) => {
                Extent::Known
            }
            _ => Extent::Of(shape.class()),
        };
    }
    match &parts[at] {
        Part::Literal(bytes) => Extent::Literal(bytes),
        Part::Secret | Part::Method => Extent::Known,
        Part::BodySha256 => Extent::FixedLength,
        Part::BodyCrc32 => Extent::Of(Class::of(b'0'..=b'9')),
        Part::Timestamp if is_of_one_length(places) => Extent::FixedLength,
        // It ends with its zone: what follows would have to go on with that.
        Part::Timestamp
            if is_all(places, |format| matches!(format, TimeFormat::Rfc3339))
                && matches!(parts.get(at + 1), Some(Part::Literal(next)) if next.first().is_some_and(|byte| {
                    !byte.is_ascii_digit() && !b":[".contains(byte)
                })) =>
        {
            Extent::Known
        }
        // All that RFC 3339 and what we read of it allow.
        Part::Timestamp => Extent::Of(Class::of(
            (b'!'..=b'~').filter(|byte| byte.is_ascii_alphanumeric() || b"+-:.,[]/=!_".contains(byte)),
        )),
        // Else it is refused: see `edges`.
        Part::Id if matches!(parts.get(at + 1), Some(Part::Literal(_))) => Extent::Known,
        Part::Id => places.id.map_or(Extent::Of(Class::all()), natural),
        Part::At(_, Wanted::Base64Lines) => {
            Extent::Of(Class::of((0..=u8::MAX).filter(|b| b.is_ascii_alphanumeric() || b"+/=\n".contains(b))))
        }
        Part::At(location, _) => natural(location),
        Part::HeaderList(..) => Extent::Of(of_header()),
        Part::Target | Part::Path | Part::Query | Part::Url(_) => {
            Extent::Of(Class::of((0..=u8::MAX).filter(|byte| *byte > b' ' && *byte != 0x7f)))
        }
        // Two lines, of which the first is the name; the value never has more.
        Part::Line(..) => Extent::Known,
        Part::Body | Part::SortedForm(_) => Extent::Of(Class::all()),
    }
}

/// What can stand at a place of which nothing is said.
fn natural<'t>(location: &Location) -> Extent<'t> {
    Extent::Of(if location.is_header() { of_header() } else { Class::all() })
}

/// A header's value has no control characters.
fn of_header() -> Class {
    Class::of((0..=u8::MAX).filter(|byte| !byte.is_ascii_control() || *byte == b'\t'))
}

fn is_all(places: Places<'_>, is: impl Fn(&TimeFormat) -> bool) -> bool {
    places.time.is_some_and(|(_, formats)| formats.iter().all(is))
}

/// A time that is held against the clock has as many digits as now, and those have no zeros before them.
fn is_of_one_length(places: Places<'_>) -> bool {
    [TimeFormat::Unix, TimeFormat::UnixMillis, TimeFormat::HttpDate]
        .iter()
        .any(|one| is_all(places, |format| format == one))
}

impl Edge {
    /// Whether the border is where it must be; `value` gives what stands at a place.
    pub(super) fn holds(&self, value: &[u8], body: &[u8]) -> bool {
        match self {
            Edge::Without(_, byte) => !value.contains(byte),
            Edge::BeforeBody(_, shape, between) => {
                let most = shape.longest().saturating_sub(value.len());
                let text: Vec<u8> =
                    value.iter().chain(between).chain(body).take(value.len() + most).copied().collect();
                !(value.len() + 1..=text.len()).any(|end| shape.matches(&text[..end]))
            }
            Edge::AfterBody(_, shape) => {
                let most = shape.longest().saturating_sub(value.len()).min(body.len());
                !(1..=most).any(|more| shape.matches(&[&body[body.len() - more..], value].concat()))
            }
        }
    }

    pub(super) fn location(&self) -> &Location {
        match self {
            Edge::Without(location, _) | Edge::BeforeBody(location, ..) | Edge::AfterBody(location, _) => {
                location
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn border(signed: &str, shapes: &[(&str, &str)], formats: &[TimeFormat]) -> Option<String> {
        let template = Template::parse(signed, &|_| None).unwrap();
        let shape =
            |(place, shape): &(&str, &str)| (Location::parse(place).unwrap(), Shape::parse(shape).unwrap());
        let shapes: Vec<_> = shapes.iter().map(shape).collect();
        let (time, id) = (Location::parse("header:T").unwrap(), Location::parse("header:I").unwrap());
        let places = Places { shapes: &shapes, time: Some((Some(&time), formats)), id: Some(&id) };
        open(&template, places).map(|(a, b)| format!("{a} {b}"))
    }

    #[test]
    fn a_border_is_fixed_by_a_separator_a_length_or_a_shape() {
        use TimeFormat::{HttpDate, Rfc3339, Unix, UnixMillis};
        for signed in [
            "{body}",
            "v1:{body}",
            "{timestamp}{body}",
            "{body}{timestamp}",
            "{timestamp}.{body}",
            "{id}.{timestamp}.{body}",
            "{header:X}\n{body}",
            "{method}{body}",
            "{secret}{body}",
            "{body|sha256}{body}",
            "{method}\n{url}\n{timestamp}\n{body}",
        ] {
            assert_eq!(border(signed, &[], &[Unix]), None, "{signed}");
        }
        for (signed, expected) in [
            ("{header:A}{header:B}", "{header:a} {header:b}"),
            ("{header:A}.{header:B}", "{header:a} {header:b}"),
            ("{header:A}{body}", "{header:a} {body}"),
            ("{body:/a}\n{body:/b}", "{body:/a} {body:/b}"),
            ("{id}{timestamp}{body}", "{id} {body}"),
            ("{url}{body}", "{url} {body}"),
            ("{timestamp}{body}{timestamp}{form|sorted}", "{body} {form}"),
        ] {
            assert_eq!(border(signed, &[], &[Unix]).as_deref(), Some(expected), "{signed}");
        }
        assert_eq!(border("{timestamp}{body}", &[], &[UnixMillis]), None);
        assert_eq!(border("{timestamp}{body}", &[], &[HttpDate]), None);
        assert!(border("{timestamp}{body}", &[], &[Unix, UnixMillis]).is_some());
        assert!(border("{timestamp}{body}", &[], &[Rfc3339]).is_some());
        assert_eq!(border("{timestamp}|{body}", &[], &[Rfc3339]), None);
        let fixed = [("header:A", "[0-9]{10}")];
        assert_eq!(border("{header:A}{header:B}", &fixed, &[Unix]), None);
        assert_eq!(border("{header:B}{header:A}", &fixed, &[Unix]), None);
        assert!(border("{header:A}{header:B}", &[("header:A", "[0-9]{1,10}")], &[Unix]).is_some());
        assert_eq!(border("{header:A}.{header:B}", &[("header:A", "[0-9]{1,10}")], &[Unix]), None);
        assert_eq!(
            border("{header:A}{body}", &[("header:A", "[0-9]{1,10}")], &[Unix]),
            None,
            "as far as it can"
        );
        assert_eq!(
            border(
                "{id}{timestamp}{header:B}",
                &[("header:I", "[a-z]{1,9}"), ("header:T", "[0-9T:-]{19}Z")],
                &[Rfc3339]
            ),
            None
        );
    }

    #[test]
    fn what_stands_beside_the_body_reaches_as_far_as_it_can() {
        let shape = Shape::parse("[0-9]{1,4}").unwrap();
        let at = Location::parse("header:A").unwrap();
        let before = Edge::BeforeBody(at.clone(), shape.clone(), [].into());
        assert!(before.holds(b"12", b"{3}") && before.holds(b"1234", b"5") && before.holds(b"12", b""));
        assert!(!before.holds(b"12", b"3{") && !before.holds(b"1", b"234"));
        let apart = Edge::BeforeBody(at.clone(), Shape::parse("[0-9:]{1,4}[0-9]").unwrap(), (*b":").into());
        assert!(apart.holds(b"12", b"{3}") && apart.holds(b"12:34", b"5"));
        assert!(!apart.holds(b"12", b"3{"));
        let after = Edge::AfterBody(at.clone(), shape);
        assert!(after.holds(b"12", b"{3}") && after.holds(b"1234", b"5"));
        assert!(!after.holds(b"12", b"}3"));
        let without = Edge::Without(at, b'.');
        assert!(without.holds(b"msg_1", b".") && !without.holds(b"msg.1", b""));
    }
}
