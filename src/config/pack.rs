//! Packs of the user's own: read like the config itself, so that what is wrong in one is said with its file, line and
//! column, and what would be right. What a pack means is `providers`'.

use std::path::Path;
use std::sync::Arc;

use super::place::{Place, Step};
use super::problem::{Problems, Report, Scope, sorted};
use super::source::Document;
use super::yaml::Kind;
use super::{schema, shape, source};
use crate::providers::{self, Pack};
use crate::verify::SpecProblem;

/// Reads and checks a pack file. `Err` holds everything that is wrong with it.
pub fn load_pack(path: &Path) -> Result<Arc<Pack>, Problems> {
    let source::Read { document, mut problems, .. } = source::read_file(path);
    let mut pack = None;
    if let Some(document) = document {
        let mut report = Report::new(&document);
        let shaped = shape::check(&mut report, schema::of_pack());
        problems.extend(report.problems);
        if problems.is_empty() {
            let mut report = Report::new(&document);
            pack = meaning(shaped.whole, &mut report);
            problems.extend(report.problems);
        } else {
            // What can be told of the rest; that it is not whole was said.
            let mut report = Report::of(&document, Scope::Written);
            let _ = meaning(made_whole(shaped.rest), &mut report);
            problems.extend(report.problems.into_iter().filter(|problem| !problem.key.is_empty()));
        }
    }
    match pack {
        Some(pack) if problems.is_empty() => Ok(Arc::new(pack)),
        _ => Err(Problems(sorted(problems))),
    }
}

/// With something where a text is missing that says nothing about how the provider signs.
fn made_whole(rest: serde_json::Value) -> serde_json::Value {
    let serde_json::Value::Object(mut map) = rest else { return rest };
    for (key, value) in [
        ("name", "unnamed"),
        ("title", "unnamed"),
        ("category", "other"),
        ("docs", "none"),
        ("checked", "2026-01-01"),
        ("setup", "none"),
    ] {
        map.entry(key).or_insert_with(|| value.into());
    }
    map.into()
}

fn meaning(whole: serde_json::Value, report: &mut Report<'_>) -> Option<Pack> {
    let file = match serde_json::from_value(whole) {
        Ok(file) => file,
        Err(error) => {
            report.error(&Place::root(), error.to_string(), "see the manual for what a pack holds");
            return None;
        }
    };
    let problems = match providers::checked(file) {
        Ok(pack) => return Some(pack),
        Err(problems) => problems,
    };
    for SpecProblem { at, message, help } in problems {
        let place = place(report.document, &at);
        let help = help.unwrap_or_default();
        match message.starts_with("unknown key") || message.ends_with("has no place in a pack") {
            true => report.error_at_key(&place, message, help),
            false => report.error(&place, message, help),
        }
    }
    None
}

/// Where the steps lead. One that stands alone need not be written as a list of one.
fn place(document: &Document, at: &[String]) -> Place {
    at.iter().fold(Place::root(), |place, step| {
        let index = step.parse::<usize>();
        match (index, document.node(&place).map(|node| &node.kind)) {
            (Ok(index), Some(Kind::List(_))) => place.then(Step::Index(index)),
            (Ok(_), Some(Kind::Map(_))) if document.node(&place.key(step)).is_none() => place,
            (Ok(_), Some(Kind::Scalar { .. })) => place,
            _ => place.key(step),
        }
    })
}
