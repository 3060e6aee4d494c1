//! The route table: host, path and method to a route.
//!
//! The most specific wins, decided one after the other: the host (a named one before any), the path (segment by
//! segment: literal before parameter before `/*`), then the method (a route that names it before one that takes any).
//! Host and path are decided without a look at the method, so a request with a wrong method is told so (405) and never
//! falls through to a less specific route, which may ask for less proof.

use std::collections::HashMap;
use std::sync::Arc;

use crate::message::{Method, PathParams};

use super::pattern::{PathPattern, Segment};

/// What a route asks of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// `None`: any host. Lower case, without port and final dot.
    pub host: Option<String>,
    pub path: PathPattern,
    /// Empty: any but CONNECT and TRACE.
    pub methods: Vec<Method>,
}

impl Rule {
    fn takes_method(&self, method: &Method) -> bool {
        if self.methods.is_empty() { passable(method) } else { self.methods.contains(method) }
    }
}

/// Two routes that would take the same request and are equally specific.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    pub first: usize,
    pub second: usize,
    /// The methods that both name; empty if both take any.
    pub methods: Vec<Method>,
}

/// All routes, indexed for lookup.
#[derive(Debug, Default)]
pub struct RouteTable {
    hosts: HashMap<String, Node>,
    any_host: Node,
    rules: Vec<Rule>,
}

/// The outcome of a lookup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// The index of the route in the config, and its path's parameters.
    Route {
        index: usize,
        params: PathParams,
    },
    /// Host and path are known, the method is not; what is allowed.
    MethodNotAllowed {
        allowed: Vec<Method>,
        /// The indices of the routes at this host and path.
        routes: Vec<usize>,
    },
    NotFound,
}

/// Why a route takes a request, or does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Taken,
    /// It is for another host.
    Host,
    /// Its path is another one.
    Path,
    /// Host and path are right, the method is not.
    Method,
    /// It would take the request, but this more specific route comes first.
    LessSpecific {
        than: usize,
    },
}

/// A place in the tree of segments. The paths to two nodes differ, so a lookup visits each at most once.
#[derive(Debug, Default)]
struct Node {
    literals: HashMap<Arc<str>, Node>,
    parameter: Option<Box<Node>>,
    /// Routes whose path ends here.
    here: Vec<Target>,
    /// Routes whose path ends in `/*` here.
    below: Vec<Target>,
}

#[derive(Debug)]
struct Target {
    index: usize,
    methods: Vec<Method>,
    parameters: Vec<Arc<str>>,
}

impl RouteTable {
    /// Indexes `rules`; a match names them by their position. Every ambiguous pair is reported.
    pub fn build(rules: Vec<Rule>) -> Result<Self, Vec<Conflict>> {
        let conflicts = conflicts(&rules);
        if !conflicts.is_empty() {
            return Err(conflicts);
        }
        let mut table = Self::default();
        for (index, rule) in rules.iter().enumerate() {
            let root = match &rule.host {
                Some(host) => table.hosts.entry(host.clone()).or_default(),
                None => &mut table.any_host,
            };
            root.insert(
                rule.path.segments(),
                rule.path.is_wildcard(),
                Target {
                    index,
                    methods: rule.methods.clone(),
                    parameters: rule.path.parameters().cloned().collect(),
                },
            );
        }
        table.rules = rules;
        Ok(table)
    }

    /// `host` as of `Head::host`, `path` as sent.
    pub fn find(&self, host: &str, path: &str, method: &Method) -> Match {
        let Some((targets, values)) = self.targets(host, path) else { return Match::NotFound };
        match choose(targets, method) {
            Some(target) => Match::Route {
                index: target.index,
                params: PathParams(
                    target.parameters.iter().cloned().zip(values.into_iter().map(str::to_owned)).collect(),
                ),
            },
            None => Match::MethodNotAllowed {
                allowed: allowed(targets),
                routes: targets.iter().map(|target| target.index).collect(),
            },
        }
    }

    /// What each route, in the order written, makes of a request.
    pub fn explain(&self, host: &str, path: &str, method: &Method) -> Vec<Verdict> {
        let targets = self.targets(host, path).map(|(targets, _)| targets).unwrap_or_default();
        let taken = choose(targets, method).map(|t| t.index);
        // With a wrong method nobody takes it, but the most specific path still decides.
        let deciding = taken.or(targets.first().map(|t| t.index));
        self.rules
            .iter()
            .enumerate()
            .map(|(index, rule)| {
                if taken == Some(index) {
                    Verdict::Taken
                } else if rule.host.as_deref().is_some_and(|h| h != host) {
                    Verdict::Host
                } else if !rule.path.matches(path) {
                    Verdict::Path
                } else if !rule.takes_method(method) {
                    Verdict::Method
                } else {
                    deciding.map_or(Verdict::Path, |than| Verdict::LessSpecific { than })
                }
            })
            .collect()
    }

    /// The routes at the most specific host and path that match, and the values of the parameters on the way.
    fn targets<'t, 'p>(&'t self, host: &str, path: &'p str) -> Option<(&'t [Target], Vec<&'p str>)> {
        let rest = path.strip_prefix('/')?;
        let mut values = Vec::new();
        let named = self.hosts.get(host).and_then(|root| root.find(Some(rest), &mut values));
        let targets = match named {
            Some(targets) => targets,
            None => {
                values.clear();
                self.any_host.find(Some(rest), &mut values)?
            }
        };
        Some((targets, values))
    }
}

impl Node {
    fn insert(&mut self, segments: &[Segment], wildcard: bool, target: Target) {
        match segments.split_first() {
            Some((Segment::Literal(text), rest)) => {
                self.literals.entry(text.clone()).or_default().insert(rest, wildcard, target);
            }
            Some((Segment::Parameter(_), rest)) => {
                self.parameter.get_or_insert_default().insert(rest, wildcard, target);
            }
            None if wildcard => self.below.push(target),
            None => self.here.push(target),
        }
    }

    /// `rest` is what follows the next slash; `None` if the path has ended. Depth is that of the tree, not of the
    /// path.
    fn find<'t, 'p>(&'t self, rest: Option<&'p str>, values: &mut Vec<&'p str>) -> Option<&'t [Target]> {
        let Some(rest) = rest else {
            return (!self.here.is_empty()).then_some(&self.here);
        };
        let (segment, rest_after) = match rest.split_once('/') {
            Some((segment, after)) => (segment, Some(after)),
            None => (rest, None),
        };
        if let Some(found) = self.literals.get(segment).and_then(|next| next.find(rest_after, values)) {
            return Some(found);
        }
        if let Some(next) = &self.parameter
            && !segment.is_empty()
        {
            values.push(segment);
            if let Some(found) = next.find(rest_after, values) {
                return Some(found);
            }
            values.pop();
        }
        (!self.below.is_empty()).then_some(&self.below)
    }
}

/// Whether a route that takes any method takes this one: CONNECT and TRACE are never meant for an app.
fn passable(method: &Method) -> bool {
    *method != Method::CONNECT && *method != Method::TRACE
}

fn choose<'t>(targets: &'t [Target], method: &Method) -> Option<&'t Target> {
    targets
        .iter()
        .find(|t| t.methods.contains(method))
        .or_else(|| targets.iter().find(|t| t.methods.is_empty() && passable(method)))
}

/// What `Allow` says: every method that some route here names, or the usual ones if one takes any.
fn allowed(targets: &[Target]) -> Vec<Method> {
    let mut union: Vec<Method> = Vec::new();
    let usual = [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::PATCH,
        Method::DELETE,
        Method::OPTIONS,
    ];
    for target in targets {
        let methods = if target.methods.is_empty() { &usual[..] } else { &target.methods };
        for method in methods {
            if !union.contains(method) {
                union.push(method.clone());
            }
        }
    }
    union.sort_by(|a, b| a.as_str().cmp(b.as_str()));
    union
}

fn conflicts(rules: &[Rule]) -> Vec<Conflict> {
    let mut places: HashMap<(Option<&str>, String), Vec<usize>> = HashMap::new();
    let mut conflicts = Vec::new();
    for (second, rule) in rules.iter().enumerate() {
        let place = places.entry((rule.host.as_deref(), rule.path.shape())).or_default();
        for &first in place.iter() {
            let other = &rules[first].methods;
            let both: Vec<Method> = rule.methods.iter().filter(|m| other.contains(m)).cloned().collect();
            if !both.is_empty() || (rule.methods.is_empty() && other.is_empty()) {
                conflicts.push(Conflict { first, second, methods: both });
            }
        }
        place.push(second);
    }
    conflicts
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rule(host: &str, path: &str, methods: &[Method]) -> Rule {
        Rule {
            host: (!host.is_empty()).then(|| host.to_owned()),
            path: PathPattern::parse(path).unwrap(),
            methods: methods.to_vec(),
        }
    }
    fn table(rules: &[(&str, &str, &[Method])]) -> RouteTable {
        RouteTable::build(rules.iter().map(|(h, p, m)| rule(h, p, m)).collect()).unwrap()
    }
    fn taken(table: &RouteTable, host: &str, path: &str, method: Method) -> Option<usize> {
        match table.find(host, path, &method) {
            Match::Route { index, .. } => Some(index),
            _ => None,
        }
    }
    const POST: &[Method] = &[Method::POST];
    const GET: &[Method] = &[Method::GET];

    #[test]
    fn a_literal_wins_over_a_parameter_over_a_wildcard() {
        let t = table(&[("", "/*", POST), ("", "/a/{x}", POST), ("", "/a/b", POST), ("", "/a/b/*", POST)]);
        for (path, index) in
            [("/", 0), ("/a", 0), ("/a/c", 1), ("/a/b", 2), ("/a/b/c", 3), ("/a/c/d", 0), ("/a/", 0)]
        {
            assert_eq!(taken(&t, "h", path, Method::POST), Some(index), "{path}");
        }
    }

    #[test]
    fn a_dead_end_goes_back_to_the_less_specific() {
        let t = table(&[("", "/a/b/c", POST), ("", "/{x}/b/{y}", POST), ("", "/a/*", POST)]);
        assert_eq!(taken(&t, "h", "/a/b/c", Method::POST), Some(0));
        assert_eq!(taken(&t, "h", "/a/b/d", Method::POST), Some(2));
        let Match::Route { index, params } = t.find("h", "/z/b/d", &Method::POST) else {
            panic!("not found")
        };
        assert_eq!((index, params.get("x"), params.get("y")), (1, Some("z"), Some("d")));
    }

    #[test]
    fn a_named_host_comes_first_and_any_host_takes_the_rest() {
        let t = table(&[("", "/a", POST), ("h", "/*", POST), ("", "/b", GET)]);
        assert_eq!(taken(&t, "h", "/a", Method::POST), Some(1));
        assert_eq!(taken(&t, "other", "/a", Method::POST), Some(0));
        let t = table(&[("", "/a", POST), ("h", "/b/{x}/c", POST), ("", "/b/{y}", POST)]);
        assert_eq!(taken(&t, "h", "/a", Method::POST), Some(0));
        let Match::Route { index, params } = t.find("h", "/b/1", &Method::POST) else { panic!("not found") };
        assert_eq!((index, params.0.len(), params.get("y")), (2, 1, Some("1")));
    }

    #[test]
    fn a_wrong_method_is_told_what_is_allowed_and_falls_through_to_nobody() {
        let t = table(&[("", "/a", POST), ("", "/a", GET), ("", "/*", &[])]);
        let allowed = vec![Method::GET, Method::POST];
        let expected = Match::MethodNotAllowed { allowed, routes: vec![0, 1] };
        assert_eq!(t.find("h", "/a", &Method::PUT), expected);
        assert_eq!(taken(&t, "h", "/b", Method::PUT), Some(2));
        assert!(
            matches!(t.find("h", "/b", &Method::TRACE), Match::MethodNotAllowed { allowed, .. } if allowed.len() == 7)
        );
        assert_eq!(t.find("h", "*", &Method::OPTIONS), Match::NotFound);
    }

    #[test]
    fn a_route_that_names_the_method_wins_over_one_that_takes_any() {
        let t = table(&[("", "/a", &[]), ("", "/a", POST)]);
        assert_eq!(taken(&t, "h", "/a", Method::POST), Some(1));
        assert_eq!(taken(&t, "h", "/a", Method::GET), Some(0));
    }

    #[test]
    fn every_ambiguous_pair_is_named() {
        let rules = vec![
            rule("", "/a/{x}", POST),
            rule("", "/a/{y}", &[Method::POST, Method::GET]),
            rule("h", "/a/{x}", POST),
            rule("", "/*", &[]),
            rule("", "/*", &[]),
            rule("", "/a/{z}", GET),
        ];
        assert_eq!(
            RouteTable::build(rules).unwrap_err(),
            [
                Conflict { first: 0, second: 1, methods: vec![Method::POST] },
                Conflict { first: 3, second: 4, methods: vec![] },
                Conflict { first: 1, second: 5, methods: vec![Method::GET] },
            ]
        );
    }

    #[test]
    fn it_explains_why_a_route_is_not_taken() {
        let t =
            table(&[("x", "/a", POST), ("", "/b", POST), ("", "/a", GET), ("", "/a", POST), ("", "/*", &[])]);
        assert_eq!(
            t.explain("h", "/a", &Method::POST),
            [
                Verdict::Host,
                Verdict::Path,
                Verdict::Method,
                Verdict::Taken,
                Verdict::LessSpecific { than: 3 }
            ]
        );
    }

    fn segments() -> impl Strategy<Value = String> {
        let segment =
            prop_oneof![3 => Just("a"), 3 => Just("b"), 1 => Just(""), 1 => Just("A"), 1 => Just("a%2Fb")];
        prop::collection::vec(segment, 1..5).prop_map(|s| format!("/{}", s.join("/")))
    }
    fn patterns() -> impl Strategy<Value = String> {
        let segment = prop_oneof![Just("a"), Just("b"), Just(""), Just("{}"), Just("{}")];
        (prop::collection::vec(segment, 0..4), any::<bool>()).prop_map(|(segments, wildcard)| {
            let mut path = String::new();
            for (i, segment) in segments.iter().enumerate() {
                path.push('/');
                path.push_str(&if *segment == "{}" { format!("{{p{i}}}") } else { (*segment).to_owned() });
            }
            if wildcard {
                path.push_str("/*");
            }
            if path.is_empty() { "/".into() } else { path }
        })
    }
    fn rules() -> impl Strategy<Value = Vec<Rule>> {
        let methods = prop_oneof![
            Just(vec![]),
            Just(vec![Method::POST]),
            Just(vec![Method::GET]),
            Just(vec![Method::POST, Method::GET])
        ];
        let rule = (prop_oneof![Just(""), Just("h")], patterns(), methods)
            .prop_map(|(host, path, methods)| rule(host, &path, &methods));
        prop::collection::vec(rule, 1..10)
    }

    /// How specific a rule is, smaller first: host, then each segment. Written against the text of the pattern, on its
    /// own.
    fn rank(rule: &Rule) -> (u8, Vec<u8>) {
        let shape = rule.path.shape();
        let kinds = shape[1..].split('/').map(|s| match s {
            "*" => 2,
            "{}" => 1,
            _ => 0,
        });
        (u8::from(rule.host.is_none()), kinds.collect())
    }
    fn naive_matches(shape: &str, path: &str) -> bool {
        let (pattern, sent): (Vec<_>, Vec<_>) = (shape.split('/').collect(), path.split('/').collect());
        if pattern.last() == Some(&"*") {
            let prefix = &pattern[..pattern.len() - 1];
            return sent.len() > prefix.len()
                && naive_matches(&prefix.join("/"), &sent[..prefix.len()].join("/"));
        }
        pattern.len() == sent.len()
            && pattern.iter().zip(&sent).all(|(p, s)| if *p == "{}" { !s.is_empty() } else { p == s })
    }
    fn oracle(rules: &[Rule], host: &str, path: &str, method: &Method) -> Result<usize, Option<Vec<Method>>> {
        let fits =
            |r: &&Rule| r.host.as_deref().is_none_or(|h| h == host) && naive_matches(&r.path.shape(), path);
        let Some(best) = rules.iter().filter(fits).map(rank).min() else { return Err(None) };
        let level: Vec<usize> =
            (0..rules.len()).filter(|&i| fits(&&rules[i]) && rank(&rules[i]) == best).collect();
        if let Some(&i) = level.iter().find(|&&i| rules[i].methods.contains(method)) {
            return Ok(i);
        }
        if let Some(&i) = level.iter().find(|&&i| rules[i].methods.is_empty()) {
            return Ok(i);
        }
        let mut union: Vec<Method> = level.iter().flat_map(|&i| rules[i].methods.clone()).collect();
        union.sort_by(|a, b| a.as_str().cmp(b.as_str()));
        union.dedup();
        Err(Some(union))
    }

    proptest! {
        #[test]
        fn it_agrees_with_a_naive_matcher(rules in rules(), paths in prop::collection::vec(segments(), 32)) {
            // Keep the first of each ambiguous pair, so that there is a table to ask.
            let mut kept: Vec<Rule> = Vec::new();
            for rule in rules {
                kept.push(rule);
                if !conflicts(&kept).is_empty() {
                    kept.pop();
                }
            }
            let table = RouteTable::build(kept.clone()).unwrap();
            for path in &paths {
                for host in ["h", "other"] {
                    for method in [Method::POST, Method::GET, Method::PUT] {
                        let found = match table.find(host, path, &method) {
                            Match::Route { index, params } => {
                                prop_assert_eq!(params.0.len(), kept[index].path.parameters().count());
                                Ok(index)
                            }
                            Match::MethodNotAllowed { allowed, .. } => Err(Some(allowed)),
                            Match::NotFound => Err(None),
                        };
                        prop_assert_eq!(&found, &oracle(&kept, host, path, &method), "{} {} {}", host, path, method);
                        let verdicts = table.explain(host, path, &method);
                        let explained = verdicts.iter().position(|v| *v == Verdict::Taken);
                        prop_assert_eq!(found.ok(), explained);
                    }
                }
            }
        }
    }
}
