//! Places in a request that no event of a route can have: a `{parameter}` that its path lacks, an event type that nothing
//! gives. A filter on such a place would never match, and a key would never be there.

use super::Checker;
use crate::config::place::Place;
use crate::config::yaml::{Kind, Node};
use crate::route::PathPattern;
use crate::verify::nearest;

/// What a route's events have.
pub(super) struct Has<'a> {
    pub path: Option<&'a PathPattern>,
    pub event_type: bool,
}

impl Checker<'_, '_> {
    /// Reports the places within a route that its events do not have.
    pub(super) fn places(&mut self, route: &Place, has: &Has<'_>) {
        let document = self.report.document;
        let idempotency = route.key("idempotency").key("key");
        let identity = route.key("rate_limit").key("identity_by");
        for place in [route.key("event_type"), idempotency, identity] {
            if let Some(node) = document.node(&place) {
                self.sources(node, &place, has);
            }
        }
        let verify = route.key("verify");
        if let Some(node) = document.node(&verify) {
            self.within_rule(node, &verify, has);
        }
        let to = route.key("forward_to");
        match document.node(&to).map(|node| &node.kind) {
            Some(Kind::List(destinations)) => {
                for (index, destination) in destinations.iter().enumerate() {
                    self.of_destination(destination, &to.index(index), has);
                }
            }
            Some(Kind::Map(_)) => {
                if let Some(destination) = document.node(&to) {
                    self.of_destination(destination, &to, has);
                }
            }
            _ => {}
        }
    }

    /// A source, or a list of them.
    fn sources(&mut self, node: &Node, place: &Place, has: &Has<'_>) {
        match &node.kind {
            Kind::Scalar { text, .. } => {
                if let Some((message, help)) = lacking(text, has) {
                    self.error(place, message, help);
                }
            }
            Kind::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.sources(item, &place.index(index), has);
                }
            }
            Kind::Map(_) => {}
        }
    }

    /// A rule, wherever in it a place or a template stands.
    fn within_rule(&mut self, node: &Node, place: &Place, has: &Has<'_>) {
        match &node.kind {
            Kind::Scalar { text, .. } => {
                // Of a template, what stands between the braces.
                let parts = text.split('{').skip(1).filter_map(|part| part.split(['}', '|']).next());
                let found = parts.chain([text.as_str()]).find_map(|source| lacking(source, has));
                if let Some((message, help)) = found {
                    self.error(place, message, help);
                }
            }
            Kind::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.within_rule(item, &place.index(index), has);
                }
            }
            Kind::Map(entries) => {
                for entry in entries {
                    self.within_rule(&entry.value, &place.key(&entry.key), has);
                }
            }
        }
    }

    fn of_destination(&mut self, destination: &Node, place: &Place, has: &Has<'_>) {
        if let Some(when) = destination.get("when") {
            self.conditions(&when.value, &place.key("when"), has);
        }
        if let Some(by) = destination.get("order").and_then(|order| order.value.get("by")) {
            self.sources(&by.value, &place.key("order").key("by"), has);
        }
    }

    /// A condition: its keys are the places. As deep as YAML may be.
    fn conditions(&mut self, node: &Node, place: &Place, has: &Has<'_>) {
        match &node.kind {
            Kind::Map(entries) => {
                for entry in entries {
                    let place = place.key(&entry.key);
                    match entry.key.as_str() {
                        "all" | "any" | "not" => self.conditions(&entry.value, &place, has),
                        "event_type" if !has.event_type => {
                            let help = "say on the route where it is, such as `event_type: header:X-Event`";
                            let message = "the events of this route have no type";
                            self.report.error_at_key(&place, message, help);
                        }
                        source => {
                            if let Some((message, help)) = lacking(source, has) {
                                self.report.error_at_key(&place, message, help);
                            }
                        }
                    }
                }
            }
            Kind::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.conditions(item, &place.index(index), has);
                }
            }
            Kind::Scalar { .. } => {}
        }
    }
}

/// What is wrong with a source that names a parameter which the path lacks, and what would be right.
fn lacking(source: &str, has: &Has<'_>) -> Option<(String, String)> {
    let path = has.path?;
    let names = source.split(" | ").filter_map(|part| part.trim().strip_prefix("path:"));
    let mut unknown = names.filter(|name| !path.parameters().any(|known| &**known == *name));
    let name = unknown.next()?;
    let help = match nearest(name, path.parameters().map(|known| &**known)) {
        Some(near) => format!("did you mean `path:{near}`?"),
        None => format!("give `path` a segment `{{{name}}}`"),
    };
    Some((format!("the route's path has no parameter `{{{name}}}`"), help))
}
